"""``hwrnn import``: take a network trained elsewhere, or exchange the nonlinearities of one."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from hwrnn import report
from hwrnn.commands.options import data_options, number, whole
from hwrnn.errors import UsageError

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "take over a float network, with cheap nonlinearities in the place of its own"
EXAMPLE = "hwrnn import smooth.onnx --activations plan --data japanese-vowels -o m.onnx"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("file", help="a float model of hwrnn")
    parser.add_argument("--activations", required=True, metavar="A", help="hard, plan, or pwl:K with K segments")
    data_options(parser, required=False)
    parser.add_argument("--finetune", type=whole, default=0, metavar="N", help="epochs of training on with them")
    parser.add_argument("--rate", type=number, metavar="R", help="learning rate of that training")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the model, an ONNX file")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_fits, check_output, dataset_of, float_model
    from hwrnn.onnx_io import save
    from hwrnn.swapping import measured_swap, retrained, swap_family, warn_of

    if given.finetune < 0:
        raise UsageError(f"Fine-tuning epochs must be a whole number of at least 0, not {given.finetune}")
    if given.finetune and given.data is None:
        raise UsageError("Fine-tuning must come with the data to train on: give --data")
    if given.rate is not None and not given.finetune:
        raise UsageError("Rate must come with fine-tuning epochs: give --finetune N")
    old = float_model(given.file)
    check_output(given.output)
    new, losses = swap_family(old, given.activations), {}
    if given.data is None:
        warnings.warn("What the new nonlinearities cost could not be measured: give --data", stacklevel=1)
    else:
        data = dataset_of(given)
        check_fits(old, data)
        losses["exchanged"] = measured_swap(old, new, data.evaluation, data.per_step)
        if given.finetune:
            more = {} if given.rate is None else {"rate": given.rate}
            new = retrained(new, data, given.finetune, progress=report.epochs_bar("fine-tune"), **more)
            losses["fine-tuned"] = measured_swap(old, new, data.evaluation, data.per_step)
        where = "the training data" if data.test is None else "the test data"
        warn_of(list(losses.values())[-1], f"Activations {given.activations}", where)
    save(new, given.output)
    functions = {k: [f.cell.sigma.name, f.cell.phi.name] for k, f in enumerate(new.layers)}
    if given.json:
        found = {
            name: {"metric": loss.metric, "before": loss.before, "after": loss.after, "points": loss.points}
            for name, loss in losses.items()
        }
        report.print_json({"model": given.output, "nonlinearities": functions, "losses": found})
        return 0
    rows = [["model", given.output]]
    rows += [[f"layer {k}, gates and state", ", ".join(names)] for k, names in functions.items()]
    rows += [[f"lost, {name}", loss] for name, loss in losses.items()]
    print(report.table(rows))
    return 0
