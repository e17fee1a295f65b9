"""Numbers as gates: the exact number whose carrier is a signal, pipelined by its own operations.

A value knows the pipeline stage at which it exists. Each multiplication and each rounding ends a stage; where two
operands of different stages meet, the earlier one is delayed. A timing may end stages elsewhere too. The pipeline runs
free: no enable, no stall, so that products and roundings can sit in whatever registers a part has, and its depth is a
constant of the cell and the timing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from amaranth.hdl import Const, Module, Mux, Shape, Signal, Value, signed, unsigned

from hwrnn.fixed import Number, bits_for, signed_powers
from hwrnn.rtl.multiplier import product
from hwrnn.rtl.timing import SHORTEST, Timing

__all__ = ["Pipeline", "Wire", "shape_of"]


_CHAIN = 24  # choices one after the other; more are a tree


def shape_of(lo: int, hi: int) -> Shape:
    """The narrowest shape that holds ``[lo, hi]``, at least one bit."""
    width, is_signed = bits_for(lo, hi)
    return signed(max(width, 1)) if is_signed else unsigned(max(width, 1))


class Pipeline:
    """The registers of one element-wise path.

    Args:
        m: the module that they are added to; None builds nothing and only counts stages.
        prefix: of the signals' names.
        timing: where stages end.
    """

    def __init__(self, m: Module | None, prefix: str, timing: Timing = SHORTEST) -> None:
        self.m, self.prefix, self.timing = m, prefix, timing
        self._counts: dict[str, int] = {}
        #: bits of both operands of each product, as signed numbers
        self.products: list[tuple[int, int]] = []
        self._delays: dict[int, list[Signal]] = {}

    def signal(self, shape: Any, name: str) -> Signal:
        """A new signal."""
        return Signal(shape, name=f"{self.prefix}_{name}", reset_less=True)

    def counted(self, kind: str) -> str:
        """A name that is the same in every run."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._counts[kind]}"

    def wired(self, value: Any, shape: Any, kind: str) -> Signal:
        """``value`` under a name: an expression that is used twice would be built twice."""
        signal = self.signal(shape, self.counted(kind))
        if self.m is not None:
            self.m.d.comb += signal.eq(value)
        return signal

    def register(self, value: Any, shape: Any, name: str) -> Signal:
        """``value`` one cycle later."""
        later = self.signal(shape, name)
        if self.m is not None:
            self.m.d.sync += later.eq(value)
        return later

    def product(self, a: Value, b: Value, shape: Shape) -> Signal:
        """``a * b`` some cycles later."""
        name = self.counted("product")
        if self.m is None:
            return self.signal(shape, name)
        return product(self.m, a, b, shape, self.timing, f"{self.prefix}_{name}")

    def delayed(self, signal: Signal, cycles: int) -> Signal:
        """``signal`` some cycles later; a signal's delays are shared by all who ask."""
        chain = self._delays.setdefault(id(signal), [signal])
        while len(chain) <= cycles:
            name = f"{signal.name.removeprefix(self.prefix + '_')}_d{len(chain)}"
            chain.append(self.register(chain[-1], signal.shape(), name))
        return chain[cycles]

    def input(self, signal: Signal, frac: int, lo: int, hi: int, stage: int = 0) -> Wire:
        """A number that enters the path in a signal."""
        return Wire(Staged(signal, stage, self), frac, lo, hi)


@dataclass(frozen=True)
class Staged:
    """A carrier's value: an expression, the stage at which it exists (None for a constant), and what it still needs."""

    value: Any
    stage: int | None
    pipeline: Pipeline
    loose: str = ""  # an expression that still needs a signal, named after what it computes
    registered: bool = False  # the signal is a register

    def at(self, stage: int | None) -> Value:
        """The value at a stage not before its own."""
        if self.stage is None or stage is None:
            return self.value
        return self.pipeline.delayed(self.value, stage - self.stage)


class Wire(Number):
    """The exact number over signals."""

    __slots__ = ()

    @property
    def stage(self) -> int:
        """The pipeline stage at which the value exists."""
        return self.raw.stage or 0

    def named(self, name: str) -> Wire:
        """The same value in a register of that name, one stage later."""
        pipeline = self.raw.pipeline
        signal = pipeline.register(self.raw.value, shape_of(self.lo, self.hi), name)
        return Wire(Staged(signal, self.stage + 1, pipeline), self.frac, self.lo, self.hi)

    def _operand(self, other: Any) -> Wire:
        return other if isinstance(other, Wire) else super()._operand(other)

    def apply(self, function: Any) -> Wire:
        """A nonlinearity; where it is stored next, that decides what is built of it (:mod:`hwrnn.rtl.activation`)."""
        from hwrnn.rtl.activation import Applied

        return super().apply(function) if function.as_clip() is not None else Applied(self, function)

    def _make(self, raw: Staged, frac: int, lo: int, hi: int) -> Wire:
        if raw.loose:
            if raw.registered:
                signal = raw.pipeline.register(raw.value, shape_of(lo, hi), raw.pipeline.counted(raw.loose))
                raw = replace(raw, value=signal, stage=(raw.stage or 0) + 1, loose="", registered=False)
            else:
                raw = replace(raw, value=raw.pipeline.wired(raw.value, shape_of(lo, hi), raw.loose), loose="")
        return Wire(raw, frac, lo, hi)

    def _constant(self, value: int, frac: int) -> Wire:
        return Wire(Staged(Const(value, shape_of(value, value)), None, self.raw.pipeline), frac, value, value)

    def _meeting(self, other: Wire, later: int = 0) -> tuple[Value, Value, int | None]:
        """Both values at the first stage at which both exist, or some stages later."""
        stages = [s for s in (self.raw.stage, other.raw.stage) if s is not None]
        stage = max(stages) + later if stages else None
        return self.raw.at(stage), other.raw.at(stage), stage

    def _loose(self, kind: str, value: Any, stage: int | None, registered: bool = False) -> Staged:
        return Staged(value, stage, self.raw.pipeline, loose=kind, registered=registered)

    def _add(self, other: Wire, bound: int) -> Staged:
        a, b, stage = self._meeting(other)
        return self._loose("sum", a + b, stage, self.raw.pipeline.timing.sums)

    def _sub(self, other: Wire, bound: int) -> Staged:
        a, b, stage = self._meeting(other)
        return self._loose("difference", a - b, stage, self.raw.pipeline.timing.sums)

    def _mul(self, other: Wire, bound: int) -> Staged:
        pipeline = self.raw.pipeline
        a, b, stage = self._meeting(other, pipeline.timing.factors)
        widths = [shape.width + (not shape.signed) for shape in (a.shape(), b.shape())]
        pipeline.products.append((widths[0], widths[1]))
        ends = [x * y for x in (self.lo, self.hi) for y in (other.lo, other.hi)]
        signal = pipeline.product(a, b, shape_of(min(ends), max(ends)))
        return Staged(signal, (stage or 0) + pipeline.timing.product_stages(len(a), len(b)), pipeline)

    def _left(self, n: int, bound: int) -> Staged:
        return self._loose("shifted", self.raw.value << n, self.raw.stage)

    def _floor(self, n: int) -> Staged:
        value = self.raw.value
        if n >= len(value):
            return self._loose("floor", value >> n, self.raw.stage)
        return self._loose("floor", _low(value[n:], value.shape()), self.raw.stage)

    def _clip(self, lo: int, hi: int) -> Staged:
        value = self.raw.value
        shape = shape_of(max(lo, self.lo), min(hi, self.hi))
        result: Any = _low(value[: shape.width], shape)
        if self.hi > hi:
            result = Mux(_above(value, hi), Const(hi, shape), result)
        if self.lo < lo:
            result = Mux(_below(value, lo), Const(lo, shape), result)
        return self._loose("clipped", result, self.raw.stage)

    def _piecewise(
        self, knots: Sequence[int], slopes: Sequence[int], intercepts: Sequence[int], bound: int
    ) -> Staged:
        """Choose the two shifted terms and the intercept by piece, then add them once."""
        value, pipeline = self.raw.value, self.raw.pipeline
        above = [pipeline.wired(value >= knot, 1, "above") for knot in knots]
        terms = [signed_powers_of(slope) for slope in slopes]
        depth = max(len(t) for t in terms)
        total: Any = _chosen(above, [Const(b, shape_of(min(intercepts), max(intercepts))) for b in intercepts])
        for k in range(depth):
            parts = []
            for term in terms:
                sign, shift = term[k] if k < len(term) else (0, 0)
                part = value << shift
                parts.append(Const(0) if sign == 0 else part if sign > 0 else -part)
            total = total + _chosen(above, parts)
        return self._loose("piecewise", total, self.raw.stage)


def _above(value: Value, bound: int) -> Value:
    """``value > bound``; below a power of two the high bits tell, without a chain of carries."""
    negative, low = _sign(value), (bound + 1).bit_length() - 1
    magnitude = value[: len(value) - value.shape().signed]
    if bound < 0 or bound + 1 != 1 << low or low >= len(magnitude):
        return value > bound
    return ~negative & magnitude[low:].any()


def _below(value: Value, bound: int) -> Value:
    """``value < bound``; at zero or minus a power of two likewise."""
    negative, low = _sign(value), (-bound).bit_length() - 1
    magnitude = value[: len(value) - value.shape().signed]
    if bound == 0:
        return negative
    if bound > 0 or -bound != 1 << low or low >= len(magnitude):
        return value < bound
    return negative & ~magnitude[low:].all()


def _sign(value: Value) -> Value:
    return value[-1] if value.shape().signed else Const(0, 1)


def _low(bits: Value, shape: Shape) -> Value:
    """Bits with the sign of a shape."""
    return bits.as_signed() if shape.signed else bits


def signed_powers_of(slope: int) -> tuple[tuple[int, int], ...]:
    """An integer slope as ``(sign, left shift)`` terms."""
    from fractions import Fraction

    return tuple((sign, -shift) for sign, shift in signed_powers(Fraction(slope)))


def _chosen(above: Sequence[Signal], choices: Sequence[Any]) -> Any:
    """The choice of the piece: ``above`` is a thermometer code."""
    if len(above) > _CHAIN:
        middle = len(above) // 2
        lower = _chosen(above[:middle], choices[: middle + 1])
        return Mux(above[middle], _chosen(above[middle + 1 :], choices[middle + 1 :]), lower)
    result = choices[0]
    for flag, choice in zip(above, choices[1:], strict=True):
        result = Mux(flag, choice, result)
    return result
