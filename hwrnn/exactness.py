"""Where floating point is exact: the largest number on the way of a quantized layer's step, for weights of any value.

Every value of a quantized network is a whole number of its format's steps. A float computes with such values exactly as
long as none on the way needs more bits than its mantissa has. So does a torch module in the loop with quantization.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Self

import numpy as np

from hwrnn.activations import PiecewiseLinear
from hwrnn.cells import Cell, Phase, Values
from hwrnn.errors import UsageError
from hwrnn.fixed import Format, Number
from hwrnn.formats import LayerFormats
from hwrnn.trace import trace

__all__ = ["Extent", "bias_bounds", "reach", "working_bits"]


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


class Extent(Number):
    """A number that is nothing but its interval; ``largest[0]`` grows to the largest integer in size on the way."""

    __slots__ = ("largest",)

    def __init__(self, largest: list[int], frac: int, lo: int, hi: int) -> None:
        super().__init__(None, frac, lo, hi)
        self.largest = largest
        largest[0] = max(largest[0], -lo, hi)

    def _make(self, raw: Any, frac: int, lo: int, hi: int) -> Self:
        return type(self)(self.largest, frac, lo, hi)

    def _constant(self, value: int, frac: int) -> Self:
        return self._make(None, frac, value, value)

    def _add(self, other: Any, bound: int) -> None:
        return None

    _sub = _mul = _add

    def _left(self, n: int, bound: int) -> None:
        return None

    def _clip(self, lo: int, hi: int) -> None:
        return None

    def _floor(self, n: int) -> None:
        return None

    def _piecewise(self, knots: Any, slopes: Any, intercepts: Any, bound: int) -> None:
        self.largest[0] = max(self.largest[0], bound + max(abs(b) for b in intercepts))


def reach(cell: Cell, formats: LayerFormats, sizes: Callable[[str], int]) -> int:
    """The largest integer in size on the way of one step, in units of the last place, for weights of any value.

    The cell's lines run on intervals alone, those of golden's number.
    """
    largest = [max(max(-f.lo, f.hi) for f in (*formats.values.values(), *formats.weights.values()))]
    biases = bias_bounds(cell, formats, sizes)

    def store(name: str, value: Extent) -> Extent:
        return value.to(formats.values[name])

    def product(phase: Phase, s: Values) -> dict[str, Any]:
        found = {}
        for gate in phase.gates:
            total, frac = _sums(cell, formats, sizes, gate)
            most = int((total + Fraction(biases[gate])) * Fraction(2) ** frac)
            found[gate] = store(f"a.{gate}", Extent(largest, frac, -most, most))
        return found

    states = {name: formats.values[name] for name in cell.states}
    cell.run(product, Values({name: Extent(largest, f.frac, f.lo, f.hi) for name, f in states.items()}, store))
    return largest[0]


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
