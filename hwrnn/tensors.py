"""A cell's lines on torch tensors, in float or in the loop with quantization.

The lines come from the cell's one definition, as the nodes that training computes (``hwrnn.training.lowering``), and a
nonlinearity from its one description; torch differentiates them. Where there are formats, every value is a whole number
of its format's steps. Floating point computes with such values exactly as long as no number on the way needs more bits
than its mantissa has, so :func:`reach` finds the largest there can be, and :func:`working_bits` the precision it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.cells import Cell, Phase, Values
from hwrnn.errors import UsageError, require
from hwrnn.fixed import Fixed, Format
from hwrnn.formats import LayerFormats
from hwrnn.trace import trace
from hwrnn.training.lowering import lower

__all__ = [
    "Lines", "Products", "bias_bounds", "function_of", "in_format", "on_grid", "reach", "rounded", "working_bits",
]  # fmt: skip

#: numpy's name of a function to torch's, where they differ.
_RENAMED = {
    "absolute": "abs", "negative": "neg", "power": "pow", "clip": "clamp", "logical_and": "logical_and",
    "greater_equal": "ge", "less_equal": "le", "not_equal": "ne", "equal": "eq", "greater": "gt", "less": "lt",
}  # fmt: skip


class _Array(NDArrayOperatorsMixin):
    """A tensor that numpy's functions take, so that a nonlinearity written for arrays works on tensors."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def _call(self, name: str, args: Any) -> _Array:
        torch = require("torch", "torch")
        tensors = [a.tensor for a in args if isinstance(a, _Array)]
        kind = next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())
        given = [a.tensor if isinstance(a, _Array) else torch.as_tensor(a, dtype=kind) for a in args]
        return _Array(getattr(torch, _RENAMED.get(name, name))(*given))

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **options: Any) -> Any:
        return NotImplemented if method != "__call__" or options else self._call(ufunc.__name__, args)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return NotImplemented if options else self._call(function.__name__, args)


def function_of(function: Nonlinearity) -> Callable[[Any], Any]:
    """A nonlinearity on tensors of any shape; its gradient is the one that training takes."""
    return _piecewise(function) if isinstance(function, PiecewiseLinear) else _smooth(function)


def _smooth(function: Any) -> Callable[[Any], Any]:
    def on_tensors(numpy_function: Callable[[Any], Any], x: Any) -> Any:
        return numpy_function(_Array(x)).tensor

    slope = getattr(function, "slope_from_input", None)
    if slope is None:
        return lambda x: on_tensors(function.function, x)

    def value(x: Any) -> Any:
        # Such a function has a kink, where torch's own derivative of its parts would be none of the two slopes.
        given = x.detach()
        return on_tensors(function.function, given) + on_tensors(slope, given) * (x - given)

    return value


def _piecewise(function: PiecewiseLinear) -> Callable[[Any], Any]:
    torch = require("torch", "torch")
    tables: dict[Any, tuple[Any, ...]] = {}
    numbers = function.knots, function.slopes, function.intercepts, function.gradients

    def value(x: Any) -> Any:
        key = x.dtype, x.device
        if key not in tables:
            tables[key] = tuple(torch.tensor([float(v) for v in of], dtype=key[0], device=key[1]) for of in numbers)
        knots, slopes, intercepts, gradients = tables[key]
        piece = torch.bucketize(x.detach().contiguous(), knots, right=True)
        y = slopes[piece] * x + intercepts[piece]
        if function.gradients is function.slopes or not x.requires_grad:
            return y
        return y.detach() + gradients[piece] * (x - x.detach())

    return value


def rounded(x: Any, frac: int) -> Any:
    """Round values half up to ``frac`` fraction bits; the gradient passes straight through.

    Exact: a value and the multiple of a step next to it are equal or within a factor of two of each other, or the
    multiple is zero, so their difference and the sum are floating-point numbers (Sterbenz 1974).
    """
    torch = require("torch", "torch")
    with torch.no_grad():
        change = x.mul(2.0**frac).add_(0.5).floor_().mul_(2.0**-frac).sub_(x)
    return x + change


def _nearest(scaled: Any) -> Any:
    """``floor(x + 1/2)`` exactly, also of numbers that the float sum would round up just below a half."""
    whole = scaled.floor()
    return whole + (scaled - whole >= 0.5)


def in_format(x: Any, form: Format) -> Any:
    """Any values rounded half up and saturated; the gradient passes to those that do not saturate."""
    torch = require("torch", "torch")
    x = torch.clamp(x, form.min, form.max)
    with torch.no_grad():
        change = _nearest(x * 2.0**form.frac).mul_(form.step).sub_(x)
    return x + change


def on_grid(master: Any, step: float, low: float, high: float, dtype: Any) -> Any:
    """Trained numbers as a format holds them, half up and saturated; the gradient passes to all of them."""
    torch = require("torch", "torch")
    master = master.to(torch.float32)  # as a model's file holds it, so that what is frozen is what was trained
    with torch.no_grad():
        nearest = _nearest(master.to(dtype).div(step)).mul_(step).clamp_(low, high)
    return nearest + (master - master.detach()).to(dtype)


class Products:
    """The pre-activations of one run over time: products with the input are made for all steps at once.

    Args:
        matrices: by phase and operand, (size of the operand, rows * units).
        biases: by phase and gate, (units,).
        x: (T, N, inputs).
    """

    def __init__(
        self,
        cell: Cell,
        units: int,
        matrices: Mapping[tuple[int, str], Any],
        biases: Mapping[tuple[int, str], Any],
        x: Any,
    ) -> None:
        torch = require("torch", "torch")
        self.units, self.matrices = units, matrices
        self.groups: list[dict[tuple[str, ...], list[str]]] = []
        self.biases: dict[tuple[int, str], Any] = {}
        self.fed: dict[int, Any] = {}
        for k, phase in enumerate(cell.phases):
            first = {gate: next(o for o in phase.operands if o in reads) for gate, reads in phase.gates.items()}
            self.groups.append({})
            for operand in phase.operands:
                rows = phase.rows(operand)
                self.groups[k].setdefault(rows, []).append(operand)
                if any(first[gate] == operand for gate in rows):  # each bias is added once, with the first product
                    parts = [biases[k, g] if first[g] == operand else torch.zeros_like(biases[k, g]) for g in rows]
                    self.biases[k, operand] = torch.cat(parts)
            if "x" in phase.operands:
                self.fed[k] = x @ matrices[k, "x"] + self.biases[k, "x"]

    def all_steps(self, phase: int, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The pre-activations of a layer without state at every step, gate to (T, N, units)."""
        return self._gates(phase, stored, self.fed)

    def at(self, step: int) -> Callable[[int, Mapping[str, Any]], dict[str, Any]]:
        """What gives the pre-activations of a phase at one step, gate to (N, units), from what is stored so far."""
        fed = {k: value[step] for k, value in self.fed.items()}
        return lambda phase, stored: self._gates(phase, stored, fed)

    def _gates(self, k: int, stored: Mapping[str, Any], fed: Mapping[int, Any]) -> dict[str, Any]:
        torch = require("torch", "torch")
        sums: dict[str, Any] = {}
        for rows, operands in self.groups[k].items():
            total: Any = None
            for operand in operands:
                if operand == "x":
                    total = fed[k]
                    continue
                start = self.biases.get((k, operand)) if total is None else total
                matrix = self.matrices[k, operand]
                total = stored[operand] @ matrix if start is None else torch.addmm(start, stored[operand], matrix)
            for gate, part in zip(rows, total.split(self.units, -1), strict=True):
                sums[gate] = sums[gate] + part if gate in sums else part
        return sums


class Lines:
    """The element-wise lines of a cell.

    Attributes:
        folded: gate to (slope, intercept), which its weights and biases take over.
    """

    def __init__(self, cell: Cell, formats: LayerFormats | None) -> None:
        lowered = lower(cell, formats)
        self.nodes, self.folded = lowered.nodes, lowered.folded
        self.functions = {
            k: function_of(node.function) for k, node in enumerate(self.nodes) if node.function is not None
        }

    def step(self, product: Callable[[int, Mapping[str, Any]], Mapping[str, Any]], old: Mapping[str, Any]) -> Any:
        """One time step: every stored value by name.

        Args:
            product: the pre-activations of a phase by gate, from what is stored so far.
            old: the old state.
        """
        torch = require("torch", "torch")
        stored, gates = dict(old), dict[str, Any]()
        values: list[Any] = []
        for k, node in enumerate(self.nodes):
            args = [values[a] for a in node.args]
            if node.kind == "gate":
                if node.name not in gates:
                    gates.update(product(node.phase, stored))
                value = gates[node.name]
            elif node.kind == "old":
                value = old[node.name]
            elif node.kind == "constant":
                value = node.value
            elif node.kind == "store":
                value = stored[node.name] = args[0]
            elif node.kind == "apply":
                value = self.functions[k](args[0])
            elif node.kind == "round":
                value = rounded(args[0], node.frac)
            elif node.kind == "clip":
                value = torch.clamp(args[0], *node.bounds)
            elif node.kind == "mul":
                value = args[0] * args[1]
            else:
                value = args[0] + args[1] if node.kind == "add" else args[0] - args[1]
            values.append(value)
        return stored


def _sums(cell: Cell, formats: LayerFormats, sizes: Callable[[str], int], gate: str) -> tuple[Fraction, int]:
    """The largest sum of products that a gate can have in size, without its bias, and its fraction bits."""
    (reads,) = (p.gates[gate] for p in cell.phases if gate in p.gates)
    total, frac = Fraction(0), formats.bias_frac[gate]
    for operand in reads:
        w, x = formats.weights[gate, operand], formats.values[operand]
        total += sizes(operand) * _largest(w) * _largest(x)
        frac = max(frac, w.frac + x.frac)
    return total, frac


def _largest(form: Format) -> Fraction:
    return Fraction(max(-form.lo, form.hi)) / Fraction(2) ** form.frac


def bias_bounds(cell: Cell, formats: LayerFormats, sizes: Callable[[str], int]) -> dict[str, float]:
    """For each gate the bias beyond which, whatever the operands, its pre-activation is saturated.

    A bias may be brought back to it without a change of any output, and so a sum is bounded by the formats alone.
    """
    bounds = {}
    for gate in cell.gates:
        total, _ = _sums(cell, formats, sizes, gate)
        form = formats.values[f"a.{gate}"]
        step = Fraction(2) ** -min(form.frac, formats.bias_frac[gate])
        bounds[gate] = float((total + _largest(form)) // step * step + 2 * step)
    return bounds


def reach(cell: Cell, formats: LayerFormats, sizes: Callable[[str], int]) -> int:
    """The largest integer in size on the way of one step, in units of the last place, for weights of any value.

    The cell's lines run on intervals alone, those of golden's number.
    """
    largest = max(max(-f.lo, f.hi) for f in (*formats.values.values(), *formats.weights.values()))

    class Interval(Fixed):
        __slots__ = ()

        def _make(self, raw: Any, frac: int, lo: int, hi: int) -> Interval:
            nonlocal largest
            largest = max(largest, -lo, hi)
            return Interval(self.raw, frac, lo, hi)

        def _constant(self, value: int, frac: int) -> Interval:
            return self._make(self.raw, frac, value, value)

        def _same(self, *operation: Any) -> Any:
            return self.raw

        _add = _sub = _mul = _left = _floor = _clip = _same  # type: ignore[assignment]

        def _piecewise(self, knots: Any, slopes: Any, intercepts: Any, bound: int) -> Any:
            nonlocal largest
            largest = max(largest, bound + max(abs(b) for b in intercepts))
            return self.raw

    nothing, biases = np.zeros(0), bias_bounds(cell, formats, sizes)

    def store(name: str, value: Interval) -> Fixed:
        return value.to(formats.values[name])

    def product(phase: Phase, s: Values) -> dict[str, Any]:
        found = {}
        for gate in phase.gates:
            total, frac = _sums(cell, formats, sizes, gate)
            most = int((total + Fraction(biases[gate])) * Fraction(2) ** frac)
            found[gate] = store(f"a.{gate}", Interval(nothing, 0, 0, 0)._make(nothing, frac, -most, most))
        return found

    states = {name: formats.values[name] for name in cell.states}
    cell.run(product, Values({n: Interval(nothing, f.frac, f.lo, f.hi) for n, f in states.items()}, store))
    return largest


def working_bits(cell: Cell, formats: LayerFormats, sizes: Callable[[str], int]) -> int:
    """32 or 64: the narrower float in which the lines of a cell are exact for these formats.

    A bit is kept for the half that rounding adds.

    Raises:
        UsageError: formats that need more than float64 has.
    """
    needed = reach(cell, formats, sizes).bit_length() + 1
    functions = [op.function for op in trace(cell).operations if isinstance(op.function, PiecewiseLinear)]
    exact = all(float(np.float32(float(k))) == k for f in functions if f.as_clip() is None for k in f.knots)
    if needed <= 24 and exact:
        return 32
    if needed > 53:
        raise UsageError(
            f"Formats must keep every number of a torch module within 53 bits, not {needed} as this {cell.name} layer"
            " needs: use fewer bits"
        )
    return 64
