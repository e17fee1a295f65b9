"""Exchanging a network's nonlinearities, for cheap ones or for those that hardware computes, and what that costs.

A network is trained for the functions that it has. Others of nearly the same shape may cost nothing or a quarter of the
accuracy (docs/decisions/021). So the loss is measured on data and told.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwrnn.activations import Nonlinearity, PiecewiseLinear, clipped, nonlinearity
from hwrnn.cells import Cell
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.formats import LayerFormats
from hwrnn.model import Layer, Model
from hwrnn.trace import trace

__all__ = [
    "FAMILIES", "SwapLoss", "hardware_cell", "measured_swap", "retrained", "swap", "swap_family",
    "with_hardware_functions",
]  # fmt: skip

#: Points that a swap may lose before somebody is warned.
_BEARABLE = 1.0
_CHANCE = 4  # sequences lost on balance that may be chance
_FINER = 0.3  # of the training rate, for training on
_MEND = "take more segments (pwl:K) or train on with them (--finetune N)"

#: Families of cheap functions by name: what stands for the sigmoid and what for the tanh; ``:K`` takes a number.
FAMILIES = {
    "hard": ("hard_sigmoid", "hard_tanh"),
    "plan": ("plan_sigmoid", "plan_tanh"),
    "pwl": ("pwl_sigmoid", "pwl_tanh"),
}


def swap(model: Model, *, activation: str | None = None, gate: str | None = None) -> Model:
    """The model with other nonlinearities in its recurrent layers; the weights stay as they are.

    Args:
        activation: of the state (the candidate, and a cell state on its way to the output), by a name of the catalogue;
            None leaves it.
        gate: of the gates; None leaves it.

    Raises:
        UsageError: a name that is not in the catalogue, a gate for cells that have none, or names that change nothing.
    """
    try:
        sigma, phi = (None if name is None else nonlinearity(name) for name in (gate, activation))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if sigma is not None and not all(layer.cell.gated for layer in _recurrent(model)):
        raise UsageError(f"Gate nonlinearity must be given to cells with gates, not {gate!r} to {_cells(model)}")

    def changed(cell: Cell) -> Cell:
        made = cell if sigma is None else replace(cell, sigma=sigma)
        return made if phi is None else replace(made, phi=phi, psi=None)

    recurrent = _recurrent(model)
    layers = tuple(replace(la, cell=changed(la.cell)) if la in recurrent else la for la in model.layers)
    if all(new.cell == old.cell for new, old in zip(layers, model.layers, strict=True)):
        raise UsageError(f"Nonlinearities must be others than the model's, which has {_functions(model)} already")
    return replace(model, layers=layers)


def swap_family(model: Model, family: str) -> Model:
    """The model with every sigmoid and tanh, smooth or approximated, replaced by those of a family.

    Other nonlinearities (ReLU and its kin) stay.

    Args:
        family: ``hard``, ``plan``, or ``pwl:K`` with K segments.

    Raises:
        UsageError: another word, or a model in which that changes nothing.
    """
    word, colon, segments = str(family).partition(":")
    if word not in FAMILIES or bool(colon) != (word == "pwl"):
        raise UsageError(f"Activations must be hard, plan or pwl:K with a number of segments, not {family!r}")
    try:
        functions = [nonlinearity(name + colon + segments) for name in FAMILIES[word]]
    except ValueError as error:
        raise UsageError(f"Activations must be hard, plan or pwl:K with a number of segments: {error}") from error

    chosen = dict(zip(("sigmoid", "tanh"), functions, strict=True))

    def changed(cell: Cell) -> Cell:
        return cell.with_functions({role: _replaced(f, chosen) for role, f in cell.functions.items()})

    layers = tuple(replace(layer, cell=changed(layer.cell)) for layer in model.layers)
    if all(new.cell == old.cell for new, old in zip(layers, model.layers, strict=True)):
        raise UsageError(f"Activations must change the model's nonlinearities, which are {_functions(model)} already")
    return replace(model, layers=layers)


def _replaced(function: Nonlinearity, chosen: Mapping[str, Nonlinearity]) -> Nonlinearity:
    """What is chosen for what a function stands for; a limit of its input stays."""
    smooth, bar, bound = str(function.stands_for).partition("|")
    if smooth not in chosen:
        return function
    return clipped(chosen[smooth], float(bound)) if bar else chosen[smooth]


def _recurrent(model: Model) -> list[Layer]:
    return [layer for layer in model.layers if layer.cell.states]


def _functions(model: Model) -> str:
    used = [layer.cell.sigma.name for layer in model.layers if layer.cell.gated]
    used += [f.name for layer in _recurrent(model) for role, f in layer.cell.functions.items() if role != "sigma"]
    return " and ".join(dict.fromkeys(used))


def _cells(model: Model) -> str:
    return " and ".join(dict.fromkeys(layer.cell.name for layer in _recurrent(model)))


@dataclass(frozen=True)
class SwapLoss:
    """What other nonlinearities cost on data.

    Attributes:
        metric: ``accuracy`` or ``rmse``.
        before, after: its values.
        points: percentage points of accuracy lost; of a regression, the growth of the RMSE in percent of the targets'
            standard deviation (so that predicting the mean instead of the target exactly would cost 100).
        items: sequences (or steps) judged.
    """

    metric: str
    before: float
    after: float
    points: float
    items: int

    @property
    def bearable(self) -> bool:
        """Whether at most one point is lost, or in a classification no more than chance may take.

        Of ``k`` items lost on balance the standard error is about the root of ``k``; up to four are within two of it.
        """
        few = self.metric == "accuracy" and self.points / 100 * self.items <= _CHANCE + 0.5
        return self.points <= _BEARABLE or few

    def __str__(self) -> str:
        from hwrnn.report import metric_text

        figures = f"{metric_text(self.metric, self.before)} to {metric_text(self.metric, self.after)}"
        return f"{max(self.points, 0.0):.1f} points ({self.metric} from {figures})"


def measured_swap(before: Any, after: Any, split: Any, per_step: bool = False) -> SwapLoss:
    """The metric of two models on a split with ``x``, ``y`` and ``lengths``.

    Raises:
        UsageError: data that do not fit the models.
    """
    from hwrnn.training import evaluate

    values = [evaluate(m.predict, split, before.task, per_step) for m in (before, after)]
    items = int(np.sum(split.lengths)) if per_step else len(split.y)
    metric = "accuracy" if before.task == "classification" else "rmse"
    old, new = (float(v[metric]) for v in values)
    if metric == "accuracy":
        return SwapLoss(metric, old, new, 100 * (old - new), items)
    y = np.asarray(split.y, np.float64)
    if per_step:
        y = y[np.arange(y.shape[1]) < np.asarray(split.lengths)[:, None]]
    deviation = float(np.sqrt(np.mean(np.square(y - y.mean(axis=0)))))
    return SwapLoss(metric, old, new, 100 * (new - old) / max(deviation, 1e-30), items)


def warn_of(loss: SwapLoss, what: str, where: str, mend: str = _MEND) -> None:
    """Warn, with the figure and the mend, where a swap costs more than it may."""
    if not loss.bearable:
        warnings.warn(f"{what} cost {loss} on {where}: {mend}", stacklevel=3)


def retrained(model: Model, dataset: Any, epochs: int, **options: Any) -> Model:
    """Train a model on in float with the nonlinearities that it has now, from the weights that it has.

    Args:
        epochs: passes over the training part.
        options: of :func:`hwrnn.training.train`; where not given, those the model was trained with, at 0.3 of the rate.

    Raises:
        UsageError: as :func:`hwrnn.training.train` does.
    """
    from hwrnn.training import train

    names = ("batch", "weight_decay", "clip", "noise", "seed", "loss", "spectral_norm")
    known = {name: model.facts[name] for name in names if name in model.facts}
    known["rate"] = _FINER * float(model.facts.get("rate", 0.01))
    return train(model, dataset, epochs=epochs, standardise=False, **{**known, **options})


def with_hardware_functions(model: Model, formats: Sequence[LayerFormats]) -> Model:
    """The model with the nonlinearities that hardware will compute."""
    stack = [replace(la, cell=hardware_cell(la.cell, f)) for la, f in zip(model.stack, formats, strict=True)]
    n = len(model.layers)
    return replace(model, layers=tuple(stack[:n]), head=None if model.head is None else stack[n])


def hardware_cell(cell: Cell, formats: LayerFormats) -> Cell:
    """The cell with its nonlinearities as shifts and adds, each fitted as fine and as wide as any of its results."""
    lines = trace(cell)
    finest: dict[str, Format] = {}
    for name, at in lines.stores.items():
        for k in lines.operations[at].args:
            function = lines.operations[k].function
            if function is not None:
                form = formats.values[name]
                finest[function.name] = _covering(finest.get(function.name, form), form)

    def made(function: Nonlinearity) -> PiecewiseLinear:
        return function.in_hardware(finest.get(function.name, Format(8, 7)))

    return cell.with_functions({role: made(function) for role, function in cell.functions.items()})


def _covering(a: Format, b: Format) -> Format:
    """As fine as the finer of both, and with the range of both: one function may give values of several formats."""
    frac, signed = max(a.frac, b.frac), a.signed or b.signed
    whole = max(f.width - f.frac - f.signed for f in (a, b))
    return Format(whole + frac + signed, frac, signed)
