"""``hwrnn train``: train a recurrent network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hwrnn import report
from hwrnn.commands.options import data_options, network_options, number, whole

if TYPE_CHECKING:
    from hwrnn.model import Model

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "train a recurrent network"
EXAMPLE = "hwrnn train --data japanese-vowels --cell gru --hidden 32 -o m.onnx"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    data_options(parser)
    network_options(parser)
    parser.add_argument("--spectral-norm", type=number, metavar="S", help="the largest 2-norm of a recurrent matrix")
    parser.add_argument("--loss", help="cross_entropy, mse or mae (default: by the task)")
    parser.add_argument("--epochs", type=whole, metavar="N", help="passes over the data")
    parser.add_argument("--batch", type=whole, metavar="N", help="sequences in a mini-batch")
    parser.add_argument("--rate", type=number, metavar="R", help="learning rate")
    parser.add_argument("--schedule", help="of the rate: cosine (the default) lets it fall to zero, constant keeps it")
    parser.add_argument("--noise", type=number, metavar="S", help="deviation of Gaussian noise added to the input")
    parser.add_argument("--validation", type=number, metavar="V", help="share of the training data held out")
    parser.add_argument("--patience", type=whole, metavar="N", help="stop after N epochs without a better validation")
    parser.add_argument("--checkpoint", metavar="FILE", help="write a checkpoint (.npz) after every epoch")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, bit for bit")
    parser.add_argument(
        "--compiled", action=argparse.BooleanOptionalAction, help="train in compiled C (default: where it pays)"
    )
    parser.add_argument("--seed", type=whole, default=0, help="of the random generators (default 0)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the model, an ONNX file")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_output, dataset_of, new_model, resumable
    from hwrnn.comparing import measured
    from hwrnn.onnx_io import save
    from hwrnn.training import train

    data = dataset_of(given)
    check_output(given.output)
    model = new_model(given, data)
    cell, hidden = model.layers[0].cell.name, [layer.units for layer in model.layers if not layer.beside]
    names = (
        "epochs", "batch", "rate", "schedule", "noise", "validation", "patience", "checkpoint", "loss", "spectral_norm",
        "compiled",
    )  # fmt: skip
    options = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    bar = report.epochs_bar("train")
    with resumable(given):
        model = train(model, data, seed=given.seed, resume=given.resume, progress=bar, **options)
    save(model, given.output)
    metric, value = measured(model, data)
    _, fitted = measured(model, data, on_train=True)
    result = {
        "model": given.output, "cell": cell, "hidden": hidden, "bidirectional": bool(given.bidirectional),
        "parameters": parameters_of(model), "metric": metric, "train": fitted,
        "test": value if data.test is not None else None,
    }  # fmt: skip
    if given.json:
        report.print_json(result)
        return 0
    pair = "bidirectional " if given.bidirectional else ""
    rows = [
        ["model", given.output],
        ["network", f"{pair}{cell}({','.join(map(str, hidden))}), {data.inputs} inputs, {data.outputs} outputs"],
        ["parameters", parameters_of(model)],
        [f"{metric} on training data", report.metric_text(metric, fitted)],
    ]
    if data.test is not None:
        rows.append([f"{metric} on test data", report.metric_text(metric, value)])
    print(report.table(rows))
    return 0


def parameters_of(model: Model) -> int:
    """The number of trained parameters."""
    return sum(p.size for layer in model.stack for p in layer.parameters.values())
