"""Mixed precision: the bits of every tensor, as few as the metric bears.

Greedy descent: from the bits that a person gives, the tensor whose last bit costs least for what it saves loses it,
until no tensor can lose one more. A step that saves less than 1 % must lose no points. A tensor is what the engine can
profit from: all weights of a layer (a lane's word is as wide as the widest gate's, so that a single gate's bits save
nothing), its gates and other activations, its hidden state, its cell state, and the network's input.

The metric is taken on the calibration data as they are, and with the noise on the input that the network was trained
with, and neither may lose more: a network knows its training data by heart, and its accuracy there hides what bits cost
(docs/decisions/015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwrnn.calibration import Calibration
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.formats import PORT, Choice, LayerFormats, Widths, kinds_of
from hwrnn.model import Model
from hwrnn.search import Judge, best_choice
from hwrnn.swapping import SwapLoss, measured_swap
from hwrnn.trace import Trace, trace

__all__ = ["LANES", "Step", "cost_of", "mixed_formats", "tensors_of"]

#: Multipliers of a layer in the cost: what ``hwrnn generate`` builds where nothing is said.
LANES = 16
_LEAST = 2  # bits of any tensor
_SAVES = 0.01  # of the cost, that a step must save if it loses points
_COPIES = 3  # of the calibration data, each with other noise


@dataclass(frozen=True)
class Step:
    """One bit less.

    Attributes:
        tensor: that lost it (``Widths.tensors`` says what is what); empty at the start and at the end.
        bits: that it has now.
        cost: of the network (:func:`cost_of`).
        metric: accuracy, or the RMSE in the targets' units.
        points: lost against float, as ``hwrnn.swapping.SwapLoss`` counts them.
    """

    tensor: str
    bits: int | None
    cost: int
    metric: float
    points: float


def cost_of(model: Model, formats: Sequence[LayerFormats]) -> int:
    """What a network costs: bits of memory and of multipliers, summed over the layers.

    - weights x the widest weight of the layer (a lane's word has one width), and the states: those that enter products
      stand twice, the others once for each unit;
    - ``min(LANES, gates x units)`` multipliers of (widest weight) x (widest operand, shifted as it is);
    - every product of the element-wise path, (bits of one factor) x (bits of the other), once.

    A bit of memory and a bit of a partial product count the same: one cell each.
    """
    total = 0
    for layer, f in zip(model.stack, formats, strict=True):
        weight = max(form.width for form in f.weights.values())
        operand = max(f.values[name].width + shift for (_, name), shift in f.shifts.items())
        total += layer.multiplications * weight
        for name in layer.cell.states:
            total += (1 + (name in layer.cell.operands)) * layer.units * f.values[name].width
        total += min(LANES, len(layer.cell.gates) * layer.units) * weight * operand
        lines = trace(layer.cell)
        for op in lines.operations:
            if op.kind == "mul":
                a, b = (_bits(lines, k, f) for k in op.args)
                total += a * b
    return total


def _bits(lines: Trace, index: int, formats: LayerFormats) -> int:
    """The width of an operation's result, roughly: sums are a bit wider than their terms."""
    op = lines.operations[index]
    if op.kind in ("store", "old"):
        return formats.values[op.name].width
    if op.kind == "gate":
        return formats.values[f"a.{op.name}"].width
    widths = [_bits(lines, k, formats) for k in op.args]
    return max(widths, default=1) + (op.kind in ("add", "sub")) if op.kind != "mul" else sum(widths)


def tensors_of(model: Model) -> list[str]:
    """The names of all tensors whose bits are chosen; those of a head's scores are not."""
    found = ["0.input"]
    for k in range(len(model.stack)):
        found.append(f"{k}.weights")
        found += [f"{k}.{kind}" for kind in kinds_of(model, k).values() if kind != "output"]
    return list(dict.fromkeys(found))


class _Meter:
    """Judges choices of formats at any widths on noisy calibration data: loss, metric, points."""

    def __init__(self, model: Model, seen: Calibration, operand_bits: int) -> None:
        if seen.y is None:
            raise UsageError("Data must have targets to find bits within a loss of the metric")
        noise, rng = float(model.facts.get("noise", 0.0)), np.random.default_rng(0)
        copies = 1 + _COPIES * (noise > 0)
        x = np.concatenate([seen.x] * copies)
        x[len(seen.x) :] += noise * rng.standard_normal(x[len(seen.x) :].shape) / model.input_scale
        y, lengths = np.concatenate([seen.y] * copies), np.concatenate([seen.lengths] * copies)
        self.y, self.seen = y, replace(seen, x=x, lengths=lengths, y=y)
        self.parts = [slice(len(seen.x)), slice(len(seen.x), None)][: 1 + (noise > 0)]
        self.model, self.judge = model, Judge(model, self.seen, Widths.of(8), operand_bits)

    def __call__(self, widths: Widths, choice: Choice) -> tuple[float, float, float, list[LayerFormats]]:
        """Loss, metric, points lost, and the formats."""
        judge = self.judge
        judge.widths = widths
        formats = judge.formats(choice)
        outputs = judge.outputs(formats)
        losses = self.losses(outputs)
        metric, points = losses[-1].after, max(loss.points for loss in losses)
        return judge.of(outputs), metric, points, formats

    def losses(self, outputs: np.ndarray) -> list[SwapLoss]:
        """What outputs lose against float, on the data as they are and with noise."""
        found, per_step = [], self.model.every_step
        for part in self.parts:
            split = replace(self.seen, x=self.seen.x[part], y=self.y[part], lengths=self.seen.lengths[part])
            exact, rounded = (_Known(self.model, raw[part]) for raw in (self.judge.reference, outputs))
            found.append(measured_swap(exact, rounded, split, per_step))
        return found


class _Known:
    """A model whose outputs are known."""

    def __init__(self, model: Model, outputs: np.ndarray) -> None:
        self.task, self.outputs = model.task, outputs * model.output_scale + model.output_mean

    def predict(self, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The known outputs."""
        return self.outputs


def mixed_formats(
    model: Model,
    seen: Calibration,
    widths: Widths,
    within: float,
    operand_bits: int = PORT,
    progress: Callable[[Step], None] | None = None,
) -> tuple[Widths, list[LayerFormats], list[Step]]:
    """Widths and formats of least cost whose metric stays within some points of float, and the path to them.

    Args:
        seen: calibration of the model, with targets.
        widths: where the descent begins.
        within: percentage points of accuracy, or of a regression hundredths of the targets' deviation.
        progress: called after every step.

    Raises:
        UsageError: a bound that is no positive number, or one that the widths at the start do not keep.
    """
    if isinstance(within, bool) or not isinstance(within, (int, float)) or not 0 < within < 100:
        raise UsageError(f"Points to stay within must be a number above 0 and below 100, not {within!r}")
    meter = _Meter(model, seen, operand_bits)
    choice = best_choice(Judge(model, seen, widths, operand_bits))
    loss, metric, points, formats = meter(widths, choice)
    if points > within:
        raise UsageError(
            f"Bits to begin with must keep the metric within {within:g} points of float, but lose {points:.2f}:"
            " give more bits, or more points"
        )
    path = [Step("", None, cost_of(model, formats), metric, points)]
    left = tensors_of(model)
    while left:
        best: Any = None
        for tensor in list(left):
            tried = [(meter(w, c), w, c) for w, c in _narrower(model, widths, choice, tensor)]
            if not tried or min(t[0][2] for t in tried) > within:
                left.remove(tensor)  # fewer bits elsewhere will not help it
                continue
            found, w, c = min((t for t in tried if t[0][2] <= within), key=lambda t: t[0][0])
            saved = path[-1].cost - cost_of(model, found[3])
            if saved < _SAVES * path[-1].cost and found[2] > max(points, 0.0):
                continue  # it costs more than it is worth, as yet
            worth = saved / (max(found[0] - loss, 0.0) + 0.02 * loss + 1e-9)
            if best is None or worth > best[0]:
                best = (worth, tensor, found, w, c)
        if best is None:
            break
        _, tensor, (loss, metric, points, formats), widths, choice = best
        path.append(Step(tensor, widths.tensors[tensor], cost_of(model, formats), metric, points))
        if progress is not None:
            progress(path[-1])
    again = best_choice(Judge(model, seen, widths, operand_bits), choice)
    _, metric, points, final = meter(widths, again)
    if points <= within and cost_of(model, final) <= path[-1].cost:
        formats = final
        path.append(Step("", None, cost_of(model, formats), metric, points))
    return widths, formats, path


def _narrower(model: Model, widths: Widths, choice: Choice, tensor: str) -> Iterator[tuple[Widths, Choice]]:
    """A tensor with one bit less, the range kept or halved; nothing where it has the fewest."""
    k, kind = tensor.split(".")
    index = int(k)
    now = widths.input if kind == "input" else getattr(widths.at(index), kind)
    if now <= _LEAST:
        return
    fewer = replace(widths, tensors={**widths.tensors, tensor: now - 1})
    if kind == "activations" and index == 0:
        fewer = replace(fewer, tensors={"0.input": widths.input, **fewer.tensors})
    values, weights = dict(choice.values), dict(choice.weights)
    for lost in (1, 0):  # fraction bits
        if kind == "weights":
            weights = {key: frac - lost * (key[0] == index) for key, frac in choice.weights.items()}
        else:
            for key in choice.values:
                if key == (0, "x"):
                    chosen = kind == "input"
                else:
                    chosen = key[0] == index and kinds_of(model, index).get(key[1], "activations") == kind
                if chosen:
                    form = choice.values[key]
                    values[key] = Format(form.width - 1, form.frac - lost, form.signed)
        yield fewer, Choice(dict(values), weights)
