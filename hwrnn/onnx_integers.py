"""The exact number on graph values: what golden computes, in nodes that ONNX Runtime is fast at.

Integers travel as floating point while they are exact there, float32 below 2**24 and float64 below 2**53, and as int64
beyond. Nothing is written before it must be: a :class:`Line` collects what is asked of a wire (a shift, a constant, a
clip) and a :class:`Lookup` what is asked of a table, so that a nonlinearity and the rounding behind it become three or
four nodes. All of it is exact: powers of two scale a float without loss, and clipping commutes with what rises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from onnx import TensorProto

from hwrnn.errors import UsageError
from hwrnn.fixed import EXACT_FLOAT, Format, Number
from hwrnn.onnx_numbers import BOOL, DOUBLE, FLOAT, INT64, Graph, Wire, looked_up

__all__ = ["EXACT_INTEGER", "EXACT_SINGLE", "Line", "Node", "carrier_of"]

EXACT_SINGLE = 2**24
#: Integers below this bound are exact in the graph; the bit left over keeps every comparison with them exact too.
EXACT_INTEGER = 2**62
_LARGEST_TABLE = 1 << 18  # entries; beyond, the pieces of a function are found by comparing
_ORDER = (FLOAT, DOUBLE, INT64)


def carrier_of(bound: int, narrowest: int = DOUBLE) -> int:
    """The element type that holds integers up to ``bound`` exactly, none narrower than ``narrowest``.

    Raises:
        UsageError: a bound that no element type of ONNX holds.
    """
    if bound < EXACT_SINGLE and narrowest == FLOAT:
        return FLOAT
    if bound < EXACT_FLOAT:
        return DOUBLE
    if bound < EXACT_INTEGER:
        return INT64
    raise UsageError(
        f"Numbers of a quantized model must stay below 2**62 to be saved as an ONNX graph, not reach {bound:.3g}:"
        " quantize to fewer bits"
    )


@dataclass(frozen=True)
class Line:
    """``clip(wire * 2**shift + add, lo, hi)``, a whole number; a bound that is None does not act.

    Attributes:
        wire: None where the number is the constant ``add``.
        least, most: the interval of the number before the clip.
    """

    wire: Wire | None
    least: int
    most: int
    shift: int = 0
    add: int = 0
    lo: int | None = None
    hi: int | None = None

    @property
    def reach(self) -> int:
        """What a carrier must hold for every step on the way to be exact."""
        ends = (self.least, self.most, self.least - self.add, self.most - self.add, self.add, self.lo, self.hi)
        return max(abs(end) for end in ends if end is not None)

    def plus(self, value: int) -> Line:
        lo, hi = (None if b is None else b + value for b in (self.lo, self.hi))
        return replace(
            self, least=self.least + value, most=self.most + value, add=self.add + value, lo=lo, hi=hi
        )  # fmt: skip

    def shifted(self, n: int) -> Line:
        lo, hi = (None if b is None else b << n for b in (self.lo, self.hi))
        least, most = self.least << n, self.most << n
        return Line(self.wire, least, most, self.shift + n, self.add << n, lo, hi)

    def clipped(self, lo: int, hi: int) -> Line:
        bounds = [min(max(b, lo), hi) for b in (self.least if self.lo is None else self.lo,
                                                self.most if self.hi is None else self.hi)]  # fmt: skip
        return replace(self, lo=bounds[0], hi=bounds[1])


@dataclass(frozen=True)
class Lookup:
    """``values[index]`` for a whole ``index``, which counts from the end where it is negative."""

    index: Line
    values: np.ndarray
    name: str = ""


class Node(Number):
    """The exact number on graph values; ``raw`` is a wire, or what is yet to be done with one.

    Raises:
        UsageError: where a number's interval reaches 2**62.
    """

    __slots__ = ("_foreseen", "graph")
    raw: Line | Lookup

    def __init__(self, raw: Wire | Line | Lookup, frac: int, lo: int, hi: int, graph: Graph) -> None:
        self.graph = graph
        self._foreseen: dict[Any, Node] = {}
        line = Line(raw, lo, hi) if isinstance(raw, Wire) else raw
        super().__init__(line, frac, lo, hi)
        carrier_of(max(-lo, hi))

    # -- what was worked out for several numbers at once ---------------------------------------------------------------
    def foresee(self, what: Any, result: Node) -> None:
        """Let a nonlinearity of this number, or its value in a format, be one that the graph has already."""
        self._foreseen[what] = result

    def to(self, format: Format) -> Self:
        known: Any = self._foreseen.get(format)
        return super().to(format) if known is None else known

    def apply(self, function: Any) -> Self:
        known: Any = self._foreseen.get(function)
        if known is not None:
            return known
        result = super().apply(function)
        if isinstance(result.raw, Lookup):
            result.raw = replace(result.raw, name=function.name)
        return result

    # -- writing nodes -------------------------------------------------------------------------------------------------
    def wire(self, name: str = "") -> Wire:
        """The number as a value of the graph, under a name where one is given."""
        if isinstance(self.raw, Lookup):
            lookup = self.raw
            bound = int(np.abs(lookup.values).max())
            table = self.graph.constant(lookup.values, self._carrier(bound), lookup.name)
            index = self._written(lookup.index)
            whole = self.graph.op("Cast", index, kind=INT64, to=TensorProto.INT32)
            written = self.graph.op("Gather", table, whole, kind=table.kind, name=name)
        else:
            written = self._written(self.raw, name)
        self.raw = Line(written, self.lo, self.hi)
        return written

    def _carrier(self, bound: int) -> int:
        self.graph.reach = max(self.graph.reach, bound)
        return carrier_of(bound, self.graph.narrowest)

    def _written(self, line: Line, name: str = "") -> Wire:
        if line.wire is None:
            return self.graph.constant(line.add, self._carrier(abs(line.add)))
        settled = self._settled(self._ready(line), name, keep=False).wire
        assert settled is not None
        return settled

    def _ready(self, line: Line, reach: int = 0, kind: int = FLOAT) -> Line:
        """The line on a carrier that holds it and ``reach``, no narrower than ``kind``."""
        wire = line.wire
        assert wire is not None
        kind = max(kind, wire.kind, self._carrier(max(line.reach, reach)), key=_ORDER.index)
        if kind == INT64 and line.shift:
            line = replace(line, wire=self._scaled(wire, line.shift), shift=0)
        return replace(line, wire=self.graph.cast(line.wire, kind)) if line.wire else line

    def _settled(self, line: Line, name: str = "", keep: bool = True) -> Line:
        """The line with nothing left to do but its shift, and without that too unless ``keep`` (int64 keeps none)."""
        graph, wire, shift = self.graph, line.wire, line.shift
        assert wire is not None
        if shift and (not keep or wire.kind == INT64):
            wire, shift = self._scaled(wire, shift), 0
        if line.add:
            wire = graph.op("Add", wire, self._value(line.add, shift, wire.kind))
        low = line.lo if line.lo is not None and line.lo > line.least else None
        high = line.hi if line.hi is not None and line.hi < line.most else None
        least = line.least if low is None else low
        most = line.most if high is None else high
        if low is not None or high is not None:
            wire = self._bounded(wire, *(None if b is None else self._value(b, shift, wire.kind) for b in (low, high)))
        return Line(graph.named(wire, name) if name else wire, min(least, most), max(least, most), shift)

    def _bounded(self, wire: Wire, low: Wire | None, high: Wire | None) -> Wire:
        graph = self.graph
        if wire.kind != INT64:
            return graph.op("Clip", wire, low, high)
        # Clip, Min and Max of int64 err from 2**31 on in ONNX Runtime 1.31 and before (Eigen's SSE2; its pull request
        # 32475): they return numbers outside the bounds. Comparing does not.
        for bound, beyond in ((low, "Less"), (high, "Greater")):
            if bound is not None:
                wire = graph.op("Where", graph.op(beyond, wire, bound, kind=BOOL), bound, wire, kind=INT64)
        return wire

    def _scaled(self, wire: Wire, n: int) -> Wire:
        return self.graph.op("Mul", wire, self._power(n, wire.kind)) if n else wire

    def _power(self, n: int, kind: int) -> Wire:
        return self.graph.constant(1 << n if kind == INT64 else 2.0**n, kind)

    def _value(self, value: int, shift: int, kind: int) -> Wire:
        return self.graph.constant(value * 2.0**-shift if shift else value, kind)

    # -- primitives ----------------------------------------------------------------------------------------------------
    def _make(self, raw: Any, frac: int, lo: int, hi: int) -> Self:
        return type(self)(raw, frac, lo, hi, self.graph)

    def _constant(self, value: int, frac: int) -> Self:
        return self._make(Line(None, value, value, 0, value), frac, value, value)

    def _whole(self) -> int | None:
        """The value of a constant."""
        return self.raw.add if isinstance(self.raw, Line) and self.raw.wire is None else None

    def _plain(self) -> Line:
        """As a line on a wire."""
        if isinstance(self.raw, Lookup) or self.raw.wire is None:
            self.wire()
        assert isinstance(self.raw, Line)
        return self.raw

    def _add(self, other: Self, bound: int) -> Any:
        mine, its = self._whole(), other._whole()
        if its is not None:
            return self._plus(its, bound)
        return other._plus(mine, bound) if mine is not None else self._sum("Add", other, bound)

    def _sub(self, other: Self, bound: int) -> Any:
        its = other._whole()
        return self._plus(-its, bound) if its is not None else self._sum("Sub", other, bound)

    def _plus(self, value: int, bound: int) -> Any:
        carrier_of(bound)
        if isinstance(self.raw, Lookup):
            return replace(self.raw, values=self.raw.values + value)
        return self.raw.plus(value)

    def _sum(self, operator: str, other: Self, bound: int) -> Line:
        sign = 1 if operator == "Add" else -1
        a, b = (self._open(number._plain()) for number in (self, other))
        ends = (a.least + b.least, a.most + b.most) if sign > 0 else (a.least - b.most, a.most - b.least)
        total = Line(None, *ends, add=a.add + sign * b.add)
        a, b = self._alike(a, b, total.reach)
        assert a.wire is not None and b.wire is not None
        shift = min(a.shift, b.shift)
        wires = [self._scaled(line.wire, line.shift - shift) for line in (a, b) if line.wire]
        return replace(total, wire=self.graph.op(operator, *wires), shift=shift)

    def _alike(self, a: Line, b: Line, reach: int) -> tuple[Line, Line]:
        """Both on one carrier that holds ``reach`` too."""
        a = self._ready(a, reach)
        assert a.wire is not None
        b = self._ready(b, reach, a.wire.kind)
        assert b.wire is not None
        return self._ready(a, reach, b.wire.kind), b

    def _open(self, line: Line) -> Line:
        """The line without bounds."""
        bounded = line.lo is not None or line.hi is not None
        return self._settled(self._ready(line)) if bounded else line

    def _mul(self, other: Self, bound: int) -> Any:
        for number, factor in ((self, other._whole()), (other, self._whole())):
            if factor is not None and factor > 0 and factor & (factor - 1) == 0:
                return number._left(factor.bit_length() - 1, bound)
        a, b = (self._settled(self._ready(number._plain())) for number in (self, other))
        a, b = self._alike(a, b, bound)
        assert a.wire is not None and b.wire is not None
        return Line(self.graph.op("Mul", a.wire, b.wire), -bound, bound, a.shift + b.shift)

    def _left(self, n: int, bound: int) -> Any:
        carrier_of(bound)
        if isinstance(self.raw, Lookup):
            return replace(self.raw, values=self.raw.values << n)
        return self.raw.shifted(n)

    def _floor(self, n: int) -> Any:
        if isinstance(self.raw, Lookup):
            return replace(self.raw, values=self.raw.values >> min(n, 63))
        line, graph = self.raw, self.graph
        if line.wire is None:
            return Line(None, line.add >> n, line.add >> n, 0, line.add >> n)
        line = self._ready(line)
        assert line.wire is not None
        lo, hi = (None if b is None else b >> n for b in (line.lo, line.hi))
        if line.wire.kind == INT64:
            # ONNX divides integers towards zero and has no signed shift: take the remainder off first.
            raw = self._settled(replace(line, lo=None, hi=None), keep=False).wire
            step = graph.constant(1 << min(n, 62), INT64)  # beyond 62 bits nothing but the sign is left anyway
            floor = graph.op("Div", graph.op("Sub", raw, graph.op("Mod", raw, step)), step)
        else:
            floor = self._scaled(line.wire, line.shift - n)
            if line.add:
                floor = graph.op("Add", floor, self._value(line.add, n, floor.kind))
            floor = graph.op("Floor", floor)
        return Line(floor, line.least >> n, line.most >> n, 0, 0, lo, hi)

    def _clip(self, lo: int, hi: int) -> Any:
        if isinstance(self.raw, Lookup):
            least, most = max(lo, -EXACT_INTEGER), min(hi, EXACT_INTEGER)
            return replace(self.raw, values=np.clip(self.raw.values, least, most))
        if self.raw.wire is None:
            value = min(max(self.raw.add, lo), hi)
            return Line(None, value, value, 0, value)
        return self.raw.clipped(lo, hi)

    def _piecewise(self, knots: Sequence[int], slopes: Sequence[int], intercepts: Sequence[int], bound: int) -> Any:
        reach = bound + max(abs(b) for b in intercepts)  # of slope * raw, before the intercept is added
        carrier_of(max(reach, *map(abs, slopes)))
        lo, hi = self.lo, self.hi
        if knots and not slopes[0]:
            lo = min(max(lo, knots[0] - 1), hi)
        if knots and not slopes[-1]:
            hi = max(min(hi, knots[-1]), lo)
        first, last = min(lo, 0), max(hi, 0)
        if last - first < _LARGEST_TABLE:
            index = np.arange(first, last + 1)
            inside = np.clip(index, lo, hi)
            piece = np.searchsorted(np.array([min(max(k, lo), hi + 1) for k in knots], np.int64), inside, "right")
            values = np.array(slopes, np.int64)[piece] * inside + np.array(intercepts, np.int64)[piece]
            return Lookup(self._plain().clipped(lo, hi), np.roll(values, first))
        line = self._ready(self._settled(self._ready(self._plain()), keep=False), max(reach, *map(abs, slopes)))
        raw = line.wire
        assert raw is not None
        within = [min(max(k, self.lo), self.hi + 1) for k in knots]  # counts alike, and fits the carrier
        return Line(looked_up(self.graph, raw, within, slopes, intercepts), -bound, bound)
