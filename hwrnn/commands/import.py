"""``hwrnn import``: take a network trained elsewhere, or exchange the nonlinearities of one."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from hwrnn import report
from hwrnn.commands.options import data_options, number, whole
from hwrnn.errors import UsageError

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "take over a network trained elsewhere (ONNX, Keras, torch), or a float model with cheap nonlinearities"
EXAMPLE = "hwrnn import smooth.onnx --activations plan --data japanese-vowels -o m.onnx"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument(
        "file", help="an ONNX file with RNN, GRU or LSTM nodes, a .keras file, a .pt file with a state_dict, or a model"
    )
    parser.add_argument("--activations", metavar="A", help="hard, plan, or pwl:K with K segments, for smooth functions")
    parser.add_argument("--take", metavar="NAME", help="output of another tool's file to take (default: the first)")
    parser.add_argument("--initial", metavar="zero", help="start at zero in place of initial states that are inputs")
    parser.add_argument("--task", metavar="T", help="classification or regression, where another tool's file is silent")
    of_torch = parser.add_argument_group("what a state_dict does not tell")
    of_torch.add_argument("--cell", metavar="C", help="rnn-tanh or rnn-relu, where the shapes leave it open")
    of_torch.add_argument("--head", metavar="NAME", help="the Linear layer behind the recurrent module")
    of_torch.add_argument("--last", action="store_true", help="one output for a sequence, at its last step")
    of_torch.add_argument("--final-state", action="store_true", help="with --last: of each direction's last state")
    data_options(parser, required=False)
    parser.add_argument("--finetune", type=whole, default=0, metavar="N", help="epochs of training on with them")
    parser.add_argument("--rate", type=number, metavar="R", help="learning rate of that training")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the model, an ONNX file")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_fits, check_output, dataset_of
    from hwrnn.onnx_io import save
    from hwrnn.swapping import measured_swap, retrained, swap_family, warn_of

    if given.finetune < 0:
        raise UsageError(f"Fine-tuning epochs must be a whole number of at least 0, not {given.finetune}")
    if given.finetune and given.data is None:
        raise UsageError("Fine-tuning must come with the data to train on: give --data")
    if given.finetune and given.activations is None:
        raise UsageError("Fine-tuning must come with other nonlinearities to train on with: give --activations")
    if given.rate is not None and not given.finetune:
        raise UsageError("Rate must come with fine-tuning epochs: give --finetune N")
    old, notes = _model(given)
    check_output(given.output)
    new, losses = old, {}
    data = None if given.data is None else dataset_of(given)
    if data is not None:
        check_fits(old, data)
    if given.activations is not None:
        new = swap_family(old, given.activations)
        if data is None:
            warnings.warn("What the new nonlinearities cost could not be measured: give --data", stacklevel=1)
        else:
            losses["exchanged"] = measured_swap(old, new, data.evaluation, data.per_step)
    if data is not None and given.finetune:
        more = {} if given.rate is None else {"rate": given.rate}
        new = retrained(new, data, given.finetune, progress=report.epochs_bar("fine-tune"), **more)
        losses["fine-tuned"] = measured_swap(old, new, data.evaluation, data.per_step)
    if data is not None and losses:
        where = "the training data" if data.test is None else "the test data"
        warn_of(list(losses.values())[-1], f"Activations {given.activations}", where)
    alone = None if data is None or losses else measured_swap(old, old, data.evaluation, data.per_step)
    save(new, given.output)
    functions = {k: [f.name for f in layer.cell.functions.values()] for k, layer in enumerate(new.layers)}
    if given.json:
        found = {
            name: {"metric": loss.metric, "before": loss.before, "after": loss.after, "points": loss.points}
            for name, loss in losses.items()
        }
        told = {} if alone is None else {alone.metric: alone.before}
        report.print_json(
            {"model": given.output, "nonlinearities": functions, "losses": found, "notes": notes, **told}
        )
        return 0
    rows = [["model", given.output]]
    for k, layer in enumerate(new.layers):
        names = functions[k] if layer.cell.gated else [layer.cell.phi.name]
        words = ("function", "gates and state", "gates, state and output")[len(names) - 1]
        rows.append([f"layer {k}, {words}", ", ".join(names)])
    if alone is not None:
        rows.append([alone.metric, report.metric_text(alone.metric, alone.before)])
    rows += [[f"lost, {name}", loss] for name, loss in losses.items()]
    print(report.table(rows))
    for sentence in notes:
        print(f"Note: {sentence}.")
    return 0


def _model(given: Any) -> tuple[Any, list[str]]:
    """The float model of the file, and what there is to know of a foreign one."""
    from hwrnn.commands.given import float_model
    from hwrnn.importing import import_onnx
    from hwrnn.importing.files import read_proto
    from hwrnn.importing.other_files import KERAS, TORCH, from_file
    from hwrnn.onnx_io import KEY

    of_torch = {name: getattr(given, name) for name in ("cell", "head", "last", "final_state")}
    if given.file.lower().endswith((*KERAS, *TORCH)):
        _without(given, ("take", "initial"), "ONNX files")
        return from_file(given.file, task=given.task, **of_torch), []
    _without(given, tuple(of_torch), "a torch file")
    if any(entry.key == KEY for entry in read_proto(given.file).metadata_props):
        _without(given, ("take", "initial", "task"), "files of other tools")
        if given.activations is None:
            raise UsageError("Activations must be given for a model of hwrnn, which is one already: give --activations")
        return float_model(given.file), []
    found = import_onnx(given.file, output=given.take, initial=given.initial, task=given.task)
    return found.model, [sentence for sentence in found.notes if sentence not in found.warnings]


def _without(given: Any, names: tuple[str, ...], files: str) -> None:
    """Refuse options that belong to other files."""
    for name in names:
        if getattr(given, name) not in (None, False):
            option = name.replace("_", "-")
            raise UsageError(f"Option --{option} must be given for {files}, not for {given.file!r}")
