"""The ranges that the values of a layer keep for ever: a box of states that no step leaves.

**A plain recurrent layer.** Let ``h' = phi(W x + U h + b)`` with ``|phi(v)| <= |v| + d`` in every unit (``d = 0`` for
any ``phi`` that is 1-Lipschitz with ``phi(0) = 0``, such as ReLU), and let ``s`` be the 2-norm of ``U``. With Euclidean
norms

    ||h'|| <= ||W x + b|| + s ||h|| + sqrt(n) d,

so where ``s < 1`` and ``h`` starts at zero, ``||h|| <= B = (max ||W x + b|| + sqrt(n) d) / (1 - s)`` holds at every
step, by induction: ``||h'|| <= (1 - s) B + s B``; so it does where ``h`` starts at ``h0`` and ``B`` is at least
``||h0||``. The maximum is over the box of all inputs. J. Miller, M. Hardt,
"Stable Recurrent Models", ICLR 2019.

In integers a pre-activation and a state are rounded, each by at most half of its least significant bit: both halves
add to ``d``. Saturating to a format, which holds zero, only brings a value nearer to zero, so it breaks no inequality.
``s`` and ``W`` are those of the rounded matrices. So the bound is that of the machine itself.

**Every other cell.** The ranges of all values of a step follow from those of its input and its old state
(:mod:`hwrnn.intervals`). A box of states that a step maps into itself, and that holds what a sequence starts with, is
never left. A reverse layer does to a flipped sequence what a forward one does. Such a box is sought by growing one;
once found, the step makes it smaller. A gated cell with bounded nonlinearities has one at once. It exists too where a
forget gate cannot reach 1, or where weights are small. Where none is found a state counts as unbounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.cells import Cell
from hwrnn.fixed import round_half_up
from hwrnn.intervals import HUGE, LOST, Box, ranges
from hwrnn.model import Layer, Model
from hwrnn.quantization import QuantizedLayer, QuantizedModel
from hwrnn.trace import trace

__all__ = ["REACH", "contraction", "layer_ranges", "matrix_of"]

#: How far a standardised input of a float model is taken to reach: it has no format that says so.
REACH = 4.0
_CORNERS = 12  # inputs whose box is searched corner by corner
_SLACK = 1 + 1e-9  # outweighs the rounding errors of float64 in sums of weights
_PLAIN, _GROWING, _TIGHTER = 32, 160, 400  # steps that look for an invariant box, and that make a found one smaller


def matrix_of(layer: Layer | QuantizedLayer, gate: str, operand: str) -> np.ndarray:
    """The values of one gate's weights of an operand, float64 (units, size)."""
    if isinstance(layer, Layer):
        return layer.block(gate, operand).astype(np.float64)
    return layer.formats.weights[gate, operand].dequantize(layer.weights[gate, operand])


def _bias_of(layer: Layer | QuantizedLayer, gate: str) -> np.ndarray:
    if isinstance(layer, Layer):
        return layer.block(gate, "b").astype(np.float64)
    return np.asarray(layer.biases[gate].astype(np.float64) * 2.0 ** -layer.formats.bias_frac[gate])


def layer_ranges(model: Model | QuantizedModel, reach: float = REACH) -> list[dict[str, Box]]:
    """For each of ``layers`` the range that every stored value and pre-activation (``a.GATE``) keeps at all steps.

    Of integers it is the range of what rounding makes of a value, before saturation; it also holds where a value of the
    step did saturate. Sequences start where the layers' ``initial`` says.

    Args:
        reach: the largest absolute value of a standardised input of a float model.
    """
    if isinstance(model, QuantizedModel):
        form = model.input_format
        box = Box(np.full(model.inputs, form.min), np.full(model.inputs, form.max))
    else:
        box = Box.within(np.full(model.inputs, reach))
    found: list[dict[str, Box]] = []
    layers: tuple[Layer | QuantizedLayer, ...] = model.layers
    for group in model.groups:
        found += [_invariant(layers[k], box) for k in group]
        box = _side_by_side([found[k][layers[k].cell.output] for k in group])
    return found


def _side_by_side(boxes: Sequence[Box]) -> Box:
    """The range of vectors that stand behind each other."""
    lo, hi = (np.concatenate([getattr(box, end) for box in boxes]) for end in ("lo", "hi"))
    return Box(lo, hi, math.hypot(*(box.length for box in boxes)) if len(boxes) > 1 else boxes[0].length)


def _invariant(layer: Layer | QuantizedLayer, inputs: Box) -> dict[str, Box]:
    """The ranges of a layer's values at all steps of all sequences."""
    zero = Box.within(np.zeros(layer.units))
    starts = {s: Box(vector, vector).hull(zero) for s, vector in _starts(layer).items()}

    def step(states: Mapping[str, Box]) -> dict[str, Box]:
        with np.errstate(over="ignore", invalid="ignore"):
            return ranges(layer.cell, partial(_sum, layer), states, inputs, partial(_rounded, layer))

    norm, length = contraction(layer), math.inf
    if norm is None:
        states = _grown(step, starts)
    else:
        states = {layer.cell.states[0]: _contracted(layer, inputs, norm)}
        length = states[layer.cell.states[0]].length
    for _ in range(_TIGHTER):
        # Whatever the old state in the box, the new one lies in what the step makes of it, or it is the first.
        after = step(states)
        tighter = {s: states[s].meet(after[s].hull(starts[s])) for s in states}
        same = all(tighter[s].holds(states[s]) for s in states)
        states = tighter
        if same:
            break
    return step(states) | {s: replace(box, length=length) for s, box in states.items()}


def _starts(layer: Layer | QuantizedLayer) -> dict[str, np.ndarray]:
    """Where each state starts, float64 (units,)."""
    if isinstance(layer, Layer):
        return {s: np.asarray(layer.initial.get(s, np.zeros(layer.units)), np.float64) for s in layer.cell.states}
    return {s: layer.formats.values[s].dequantize(layer.start(s)) for s in layer.cell.states}


def _grown(step: Callable[[Mapping[str, Box]], dict[str, Box]], states: dict[str, Box]) -> dict[str, Box]:
    """Boxes of states that no step leaves; without an end where none was found."""
    for attempt in range(_PLAIN + _GROWING):
        after = step(states)
        if all(states[s].holds(after[s]) for s in states):
            return states
        # A multiple of the box has slack in most units; what the others lack is added then, and more.
        factor = 4.0 if attempt >= _PLAIN and attempt % 8 == 0 else 1.0
        more = 0.5 if attempt >= _PLAIN else 0.0
        states = {s: _further(states[s], states[s].hull(after[s]), more, factor) for s in states}
    return {s: Box.within(np.full_like(box.hi, HUGE)) for s, box in states.items()}


def _further(old: Box, new: Box, more: float, factor: float) -> Box:
    lo, hi = (factor * (b + more * (b - a)) for a, b in ((old.lo, new.lo), (old.hi, new.hi)))
    return Box(np.where(lo < -LOST, -HUGE, lo), np.where(hi > LOST, HUGE, hi))


def _sum(layer: Layer | QuantizedLayer, gate: str, known: Mapping[str, Box]) -> Box:
    """The range of a pre-activation before it is rounded."""
    lo = hi = _bias_of(layer, gate)
    size = np.abs(lo)
    for phase in layer.cell.phases:
        for operand in phase.gates.get(gate, ()):
            matrix, box = matrix_of(layer, gate, operand), known[operand]
            plus, minus = np.maximum(matrix, 0), np.minimum(matrix, 0)
            lo, hi = lo + (plus @ box.lo + minus @ box.hi), hi + (plus @ box.hi + minus @ box.lo)
            size = size + np.abs(matrix) @ np.maximum(-box.lo, box.hi)
    slack = (_SLACK - 1) * size
    return Box(lo - slack, hi + slack)


def _rounded(layer: Layer | QuantizedLayer, name: str, box: Box) -> Box:
    """The range of a value as it is stored: rounding never falls, so the ends of a range round to the new ends."""
    if isinstance(layer, Layer):
        return box
    form = layer.formats.values[name]
    lo, hi = (round_half_up(end / form.step) * form.step for end in (box.lo, box.hi))
    # A value that saturates ends up inside its range, or, where all of the range lies beyond the format, at its end.
    return Box(lo, hi).hull(Box(np.clip(lo, form.min, form.max), np.clip(hi, form.min, form.max)))


def _recurrence(cell: Cell) -> tuple[str, str, Nonlinearity] | None:
    """The gate, the state and the nonlinearity of a cell of the form ``s = phi(gate)``; None of any other cell."""
    kinds = [op for op in trace(cell).operations if op.kind != "old"]
    if [op.kind for op in kinds] != ["gate", "apply", "store"] or cell.states != (kinds[2].name,):
        return None
    function = kinds[1].function
    reads = cell.phases[0].gates[kinds[0].name]
    return (kinds[0].name, kinds[2].name, function) if function and set(reads) == {"x", kinds[2].name} else None


def contraction(layer: Layer | QuantizedLayer) -> float | None:
    """The 2-norm of a plain recurrent layer's recurrent matrix where it is below 1; None where no bound follows."""
    found = _recurrence(layer.cell)
    if found is None or _excess(found[2]) is None:
        return None
    norm = float(np.linalg.norm(matrix_of(layer, found[0], found[1]), 2)) * _SLACK
    return norm if norm < 1 else None


def _excess(function: Nonlinearity) -> float | None:
    """The least ``d`` with ``|phi(v)| <= |v| + d`` everywhere; None where there is none."""
    if not isinstance(function, PiecewiseLinear):
        return 0.0 if function.stands_for == "tanh" else None
    if max(abs(function.slopes[0]), abs(function.slopes[-1])) > 1:
        return None
    # Between knots and zero both sides are straight, so the difference is largest at one of those points.
    lines = list(zip(function.slopes, function.intercepts, strict=True))
    points = [(piece, knot) for k, knot in enumerate(function.knots) for piece in (k, k + 1)]
    points.append((sum(knot <= 0 for knot in function.knots), Fraction(0)))
    sizes = [abs(lines[piece][0] * at + lines[piece][1]) - abs(at) for piece, at in points]
    return max(float(max(sizes)), 0.0)


def _contracted(layer: Layer | QuantizedLayer, inputs: Box, norm: float) -> Box:
    """The box that the proof at the head of this module gives."""
    found = _recurrence(layer.cell)
    assert found is not None
    gate, state, function = found
    matrix, bias, excess = matrix_of(layer, gate, "x"), _bias_of(layer, gate), _excess(function) or 0.0
    if isinstance(layer, QuantizedLayer):
        excess += (layer.formats.values[f"a.{gate}"].step + layer.formats.values[state].step) / 2
    middle, half = (inputs.lo + inputs.hi) / 2, (inputs.hi - inputs.lo) / 2
    offset, gain = matrix @ middle + bias, float(np.linalg.norm(matrix, 2))
    forcing = np.abs(offset) + np.abs(matrix) @ half  # of each unit
    if math.isfinite(inputs.length):
        forcing = np.minimum(forcing, np.abs(bias) + np.linalg.norm(matrix, axis=1) * inputs.length)
    lengths = [np.linalg.norm(forcing), np.linalg.norm(offset) + gain * np.linalg.norm(half)]
    if math.isfinite(inputs.length):
        lengths.append(np.linalg.norm(bias) + gain * inputs.length)
    if layer.inputs <= _CORNERS:  # a convex function is largest at a corner
        corners = np.array(list(product((-1.0, 1.0), repeat=layer.inputs))) * half
        lengths.append(np.linalg.norm(offset + corners @ matrix.T, axis=1).max())
    whole = (float(min(lengths)) + math.sqrt(layer.units) * excess) / (1 - norm) * _SLACK
    start = _starts(layer)[state]
    whole = max(whole, float(np.linalg.norm(start)) * _SLACK)
    rows = np.linalg.norm(matrix_of(layer, gate, state), axis=1)
    reach = np.minimum(whole, np.maximum((forcing + rows * whole + excess) * _SLACK, np.abs(start)))
    return replace(Box.within(reach), length=whole)
