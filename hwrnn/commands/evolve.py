"""``hwrnn evolve``: find integer weights with a genetic algorithm instead of gradients."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hwrnn import report
from hwrnn.commands.options import data_options, network_options, number, whole, width_options
from hwrnn.errors import UsageError

if TYPE_CHECKING:
    from hwrnn.data import Dataset
    from hwrnn.quantization import QuantizedModel

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "find integer weights with a genetic algorithm instead of gradients"
EXAMPLE = "hwrnn evolve --data japanese-vowels --cell rnn --hidden 8 --activation relu1 --batch 64 -o q.onnx"

_NETWORK = ("cell", "hidden", "layers", "activation", "gate", "cell_clip", "init", "encoder", "bidirectional")
_WIDTHS = ("bits", "weight_bits", "activation_bits", "state_bits", "cell_bits", "operand_bits", "method")


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument(
        "model", nargs="?", help="where to begin: a model of hwrnn, float or quantized (default: a random network)"
    )
    data_options(parser)
    network_options(parser)
    width_options(parser)
    parser.add_argument("--generations", type=whole, metavar="N", help="generations (default 150)")
    parser.add_argument("--population", type=whole, metavar="N", help="networks in each (default 128)")
    parser.add_argument("--objective", help="what is made small: loss or metric (default loss)")
    parser.add_argument("--batch", type=whole, metavar="N", help="sequences that a generation is judged by")
    parser.add_argument("--noise", type=number, metavar="S", help="deviation of Gaussian noise added to the input")
    parser.add_argument("--workers", type=whole, metavar="N", help="processes (default: one each core)")
    parser.add_argument("--checkpoint", metavar="FILE", help="write a checkpoint (.npz) after every generation")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, bit for bit")
    parser.add_argument("--seed", type=whole, default=0, help="of the random generators (default 0)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the quantized model, an ONNX file")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_output, dataset_of, resumable
    from hwrnn.comparing import measured
    from hwrnn.onnx_io import save
    from hwrnn.training.evolution import evolve

    data = dataset_of(given)
    check_output(given.output)
    start = _start(given, data)
    names = ("generations", "population", "objective", "batch", "noise", "workers", "checkpoint")
    chosen = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    bar = report.Progress("evolve")
    with resumable(given):
        model = evolve(
            start, data, seed=given.seed, resume=given.resume, **chosen,
            progress=lambda now: bar(now.generation, now.generations, f"generations, best {now.best:.4f}"),
        )  # fmt: skip
    save(model, given.output)
    metric, before = measured(start, data)
    _, value = measured(model, data)
    _, fitted = measured(model, data, on_train=True)
    facts = model.facts["evolution"]
    if given.json:
        report.print_json({
            "model": given.output, "metric": metric, "start": before, "train": fitted,
            "test": value if data.test is not None else None, "objective": facts["objective"],
            "value": facts["value"], "evaluations": facts["evaluations"],
        })  # fmt: skip
        return 0
    rows = [
        ["model", given.output],
        ["networks judged", f"{facts['evaluations']:,}"],
        [f"{facts['objective']} on training data", f"{facts['value']:.4g}"],
        [f"{metric} on training data", report.metric_text(metric, fitted)],
    ]
    if data.test is not None:
        rows.append([f"{metric} on test data", report.metric_text(metric, value)])
        rows.append([f"{metric} on test data, before", report.metric_text(metric, before)])
    print(report.table(rows))
    return 0


def _start(given: Any, data: Dataset) -> QuantizedModel:
    """The quantized network to begin with."""
    from hwrnn.commands.given import check_fits, new_model
    from hwrnn.onnx_io import load
    from hwrnn.quantization import QuantizedModel, quantize
    from hwrnn.training.evolution import starting_point

    widths = {name: getattr(given, name) for name in _WIDTHS if getattr(given, name) is not None}
    if given.model is None:
        return starting_point(new_model(given, data), data, **widths)
    for name in _NETWORK:
        if getattr(given, name) is not None:
            raise UsageError(f"Option --{name.replace('_', '-')} must be left out with a model to begin with")
    model = load(given.model)
    check_fits(model, data)
    if isinstance(model, QuantizedModel):
        for name in widths:
            raise UsageError(f"Option --{name.replace('_', '-')} must be left out with a quantized model")
        return model
    return quantize(model, data, **widths)
