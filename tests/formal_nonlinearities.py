"""Nonlinearities in gates against their specification, for all inputs, in a stream under any back-pressure.

The specification is a table: what the oracle stores for every raw input, in exact fractions. It enters the proof as it
is where inputs are narrow. Where they are wide it enters as the fewest lines that go through the exact values of all
inputs, one after the other; that rounding and saturating those gives the table is checked for every input here.
"""

from __future__ import annotations

from contextlib import nullcontext
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from unittest import mock

import numpy as np
from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Array, Assert, Cat, Const, Module, Mux, Signal, Value, signed
from formal import Outcome, Proof, prove
from plain import plain_function

import oracle
from hwrnn.activations import NONLINEARITIES, PARAMETRIC, PiecewiseLinear, nonlinearity
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.rtl import TARGETS, activation
from hwrnn.rtl.numbers import Pipeline, Wire
from hwrnn.rtl.ports import OutputBuffer, Part, shape
from hwrnn.rtl.schedule import OUTPUT_STAGES
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.staircase import Tabulated

NAMES = [*NONLINEARITIES, *PARAMETRIC, "pwl_tanh:5:1:jumps"]
#: with other parameters, as tests of files and of imported networks have them
OTHERS = [
    *("leaky_relu:1", "pwl_sigmoid:6:1", "pwl_tanh:3", "leaky:-0.25", "affine:-0.75:0.3", "thresholded:0.5"),
    *("scaled_tanh:1.7159:0.6667", "elu:-0.5|1.5", "sigmoid|2", "relu|2", "pwl_tanh:3|1", "table_tanh|1"),
]
#: formats of input and output in tests/test_activation_unit.py
CASES = [
    (Format(6, 3), Format(3, 3, False)),
    (Format(7, 3), Format(4, 3)),
    (Format(9, 5), Format(5, 4)),
    (Format(5, 2, False), Format(4, 2)),
    (Format(10, 9), Format(8, 7)),
]
_LITERAL = 8  # bits of an input up to which the table itself is in the proof


class Specification:
    """What is to be stored for every input.

    Attributes:
        table: raw output by input, the lowest first.
        lines: ``(first input, slope, intercept)``: exact values in units of ``2**-point``.
    """

    def __init__(self, name: str, source: Format, output: Format) -> None:
        self.name, self.source, self.output = name, source, output
        exact = _exact(name, source, output)
        form = (output.width, output.frac, output.signed)
        self.table = [oracle.rounded(value, form) for value in exact]
        self.point = max(value.denominator for value in exact).bit_length() - 1
        scaled = [value * 2**self.point for value in exact]
        assert all(value.denominator == 1 for value in scaled)
        self.lines = _lines([int(value) for value in scaled], source.lo)
        assert self._by_lines() == self.table

    def _by_lines(self) -> list[int]:
        """The table by rounding and saturating the lines, step by step as :meth:`gates` does."""
        found = []
        ends = [*(first for first, _, _ in self.lines[1:]), self.source.hi + 1]
        for (first, slope, intercept), end in zip(self.lines, ends, strict=True):
            exact = np.arange(first, end).astype(object) * slope + intercept
            found += [min(max(self._rounded(v), self.output.lo), self.output.hi) for v in exact.tolist()]
        return found

    def _rounded(self, exact: int) -> int:
        dropped = self.point - self.output.frac
        return (exact + (1 << (dropped - 1))) >> dropped if dropped > 0 else exact << -dropped

    def gates(self, m: Module, x: Signal) -> Signal:
        """The table at ``x``."""
        expected = Signal(shape(self.output), name="expected")
        if self.source.width <= _LITERAL:
            words = self.table if not self.source.signed else np.roll(self.table, self.source.lo).tolist()
            m.d.comb += expected.eq(Array(Const(word, expected.shape()) for word in words)[x.as_unsigned()])
            return expected
        biggest = max(abs(slope) << self.source.width for _, slope, _ in self.lines)
        biggest = max(biggest, *(abs(intercept) for _, _, intercept in self.lines))
        exact = Signal(signed(biggest.bit_length() + 3), name="exact")
        m.d.comb += exact.eq(_chosen(x, self.lines))
        dropped = self.point - self.output.frac
        half = 1 << (dropped - 1) if dropped > 0 else 0
        rounded = (exact + half) >> dropped if dropped > 0 else exact << -dropped
        low, high = self.output.lo, self.output.hi
        m.d.comb += expected.eq(Mux(rounded < low, low, Mux(rounded > high, high, rounded)))
        return expected


@lru_cache(maxsize=2)
def specified(name: str, source: Format, output: Format) -> Specification:
    """A specification, which takes a while where inputs are wide; the ways of one unit come one after the other."""
    return Specification(name, source, output)


def _chosen(x: Signal, lines: list[tuple[int, int, int]]) -> Value:
    if len(lines) == 1:
        return x * lines[0][1] + lines[0][2]
    half = len(lines) // 2
    return Mux(x >= lines[half][0], _chosen(x, lines[half:]), _chosen(x, lines[:half]))


def _lines(values: list[int], first: int) -> list[tuple[int, int, int]]:
    """The lines through values at whole numbers from ``first`` on, each as long as it goes."""
    found, start = [], 0
    while start < len(values):
        slope = values[start + 1] - values[start] if start + 1 < len(values) else 0
        end = start + 1
        while end < len(values) and values[end] - values[end - 1] == slope:
            end += 1
        found.append((first + start, slope, values[start] - slope * (first + start)))
        start = end
    return found


@lru_cache(maxsize=4)
def _exact(name: str, source: Format, output: Format) -> list[Fraction]:
    """The exact value for every input; where a table is the specification, the nearest that the output can store."""
    step = Fraction(2) ** -source.frac
    inputs = [raw * step for raw in range(source.lo, source.hi + 1)]
    function = nonlinearity(name)
    if isinstance(function, Tabulated):
        judge = {"table_tanh": _tanh, "table_sigmoid": lambda x: (_tanh(x / 2) + 1) / 2}[name]
        scale = Fraction(2) ** max(output.frac, 0)
        with localcontext() as context:
            context.prec = 40
            return [((2 * judge(x) * scale + 1) // 2) / scale for x in inputs]
    judge = oracle.function(plain_function(function.in_hardware(output)))
    return [Fraction(judge(x)) for x in inputs]


def _tanh(x: Fraction) -> Fraction:
    """The hyperbolic tangent, to 35 digits."""
    power = (Decimal(2 * x.numerator) / Decimal(x.denominator)).exp()
    return Fraction((power - 1) / (power + 1))


def ways_of(name: str, source: Format, output: Format) -> dict[str, tuple[bool, Timing]]:
    """Every unit that can be built: whether as a table, and for which timing. Of a timing, only ``sums`` matters."""
    timings = {timing.sums: timing for timing in (*(t.timing for t in TARGETS.values()), SHORTEST)}
    built = {sums: _unit(None, name, source, output, False, timing) for sums, timing in timings.items()}
    ways = {"lines": (False, SHORTEST)}
    if built[True].stage > built[False].stage:
        ways["lines, sums registered"] = (False, timings[True])
    applied = _entry(None, source, SHORTEST, Signal(shape(source))).apply(nonlinearity(name).in_hardware(output))
    if isinstance(applied, activation.Applied) and source.width <= activation._WIDEST:
        ways["table"] = (True, SHORTEST)
    return ways


def _entry(m: Module | None, source: Format, timing: Timing, x: Signal) -> Wire:
    return Pipeline(m, "unit", timing).input(x, source.frac, source.lo, source.hi)


def _unit(
    m: Module | None,
    function: str | PiecewiseLinear,
    source: Format,
    output: Format,
    as_table: bool,
    timing: Timing,
    x: Signal | None = None,
) -> Wire:
    """What is stored, in a register; without a module only its stage is found."""
    if isinstance(function, str):
        function = nonlinearity(function).in_hardware(output)
    wire = _entry(m, source, timing, Signal(shape(source)) if x is None else x).apply(function)
    with mock.patch.object(activation, "is_table", lambda value, form: as_table):
        return activation.as_stored(wire, output).named("y")


class Streamed(Part):
    """A nonlinearity as a stream, of the parts that an engine has: issued for a credit, run freely, queued.

    What is asserted: of the tokens that are accepted, each leaves once and in its turn, with its payload's specified
    value and its own ``last``; what is offered stays until it is taken; nothing waits in an empty unit.

    Args:
        specification: what it has to compute.
        as_table, timing: how the unit is built.
        function: what it does compute, where that is another one.
        fault: ``credit`` takes tokens without one, ``write`` loses one that meets back-pressure.
    """

    def __init__(
        self,
        specification: Specification,
        as_table: bool = False,
        timing: Timing = SHORTEST,
        function: PiecewiseLinear | None = None,
        fault: str = "",
    ) -> None:
        self.specification, self.as_table, self.timing, self.fault = specification, as_table, timing, fault
        self.function = function or nonlinearity(specification.name).in_hardware(specification.output)
        #: registers from the input to the queue
        self.stages = self._unit(None, None).stage
        self.depth = self.stages + OUTPUT_STAGES + 2
        words = self.depth - 1
        self.words = [Signal(specification.output.width + 1, name=f"word_{k}") for k in range(words)]
        self.produce, self.consume = Signal(range(words), name="produce"), Signal(range(words), name="consume")
        self.level = Signal(range(words + 1), name="level")
        #: for :func:`prove`
        self.seen = {
            "buffer.queue.produce": self.produce,
            "buffer.queue.consume": self.consume,
            "buffer.queue.inner_level": self.level,
            **{f"buffer.queue.storage[{k}]": word for k, word in enumerate(self.words)},
        }
        super().__init__({})

    def _unit(self, m: Module | None, x: Signal | None) -> Wire:
        source, output = self.specification.source, self.specification.output
        return _unit(m, self.function, source, output, self.as_table, self.timing, x)

    def elaborate(self, platform: object) -> Module:
        """Unit, credits and queue; beside them the specified values, and what is to hold."""
        m = Module()
        x = Signal(shape(self.specification.source), name="x")
        valid, ready, last = Signal(name="valid"), Signal(name="ready"), Signal(name="last")
        m.d.comb += [x.eq(AnySeq(len(x))), valid.eq(AnySeq(1)), ready.eq(AnySeq(1)), last.eq(AnySeq(1))]
        m.submodules.buffer = buffer = OutputBuffer(self.specification.output, self.depth)
        wire = self._unit(m, x)
        credits = Signal(range(self.depth + 1), init=self.depth, name="credits")
        room, go = Signal(init=1, name="room"), Signal(name="go")
        m.d.comb += go.eq(valid & room)
        m.d.sync += credits.eq(credits + buffer.taken - go)
        m.d.sync += room.eq(1 if self.fault == "credit" else credits >= 2)
        tokens, lasts, expected = [go], [last], [self.specification.gates(m, x)]
        for k in range(self.stages):
            for chain in (tokens, lasts, expected):
                later = Signal.like(chain[-1], name=f"{chain[0].name}_{k + 1}")
                m.d.sync += later.eq(chain[-1])
                chain.append(later)
        m.d.comb += [
            buffer.write.eq(tokens[-1] & ready if self.fault == "write" else tokens[-1]),
            *(buffer.payload.data.eq(wire.raw.value), buffer.payload.last.eq(lasts[-1])),
            *(buffer.o.ready.eq(ready), Assert(~tokens[-1] | (wire.raw.value == expected[-1]), "the value")),
        ]

        # Tokens are numbered, modulo more than there is room for. One of any number is followed.
        numbers = Signal(range(self.depth + 2)).shape()
        accepted, left, number = (Signal(numbers, name=name) for name in ("accepted", "left", "number"))
        m.d.comb += number.eq(AnyConst(numbers.width))
        m.d.sync += [accepted.eq(accepted + go), left.eq(left + buffer.taken)]
        content = Signal(self.specification.output.width + 1, name="content")
        with m.If(go & (accepted == number)):
            m.d.sync += content.eq(Cat(expected[0], last))
        place, held = Signal(numbers, name="place"), Signal(numbers, name="held")
        m.d.comb += [place.eq(number - left), held.eq(accepted - left)]

        def stands(occupied: Value, position: Value, found: Value) -> Assert:
            ours = occupied & (place < held) & (place == position)
            return Assert(~ours | (found == content), "its content, in its turn")

        head, running, words = buffer.o.valid, sum(tokens[1:], Const(0)), len(self.words)
        m.d.comb += stands(head, Const(0), buffer.o.payload.as_value())
        for k, word in enumerate(self.words):
            behind = Mux(k < self.consume, k + words - self.consume, k - self.consume)
            m.d.comb += stands(behind < self.level, head + behind, word)
        for k in range(1, self.stages + 1):
            before = sum(tokens[k + 1 :], head + self.level)
            m.d.comb += stands(tokens[k], before, Cat(expected[k], lasts[k]))
        end = self.consume + self.level
        m.d.comb += [
            Assert(held == head + self.level + running, "nothing lost, nothing doubled"),
            Assert(credits + held == self.depth, "a credit for each place"),
            Assert(~room | (credits >= 1), "room is a credit"),
            Assert((self.produce < words) & (self.consume < words) & (self.level <= words), "the queue's counters"),
            Assert(self.produce == Mux(end >= words, end - words, end), "the queue's counters"),
            Assert(head | (self.level <= 1), "the queue's head"),
        ]
        waits, was_held, before = Signal(4, name="waits"), Signal(name="was_held"), Signal.like(content, name="before")
        waiting = (held != 0) & ~buffer.o.valid
        m.d.sync += [waits.eq(Mux(waiting, waits + 1, 0)), was_held.eq(buffer.o.valid & ~ready)]
        m.d.sync += before.eq(buffer.o.payload.as_value())
        same = buffer.o.valid & (buffer.o.payload.as_value() == before)
        idle = Signal(name="idle")
        m.d.sync += idle.eq(held == 0)
        m.d.comb += [
            Assert(waits <= self.stages + 1, "nothing waits in the unit"),
            # Which an induction needs to know of each place that the oldest token may stand at.
            Assert(head | (self.level == 0) | (waits <= self.stages), "nothing waits in the queue"),
            *(
                Assert(head | (self.level != 0) | Cat(*tokens[k:]).any() | (waits < k), "nothing waits in the pipeline")
                for k in range(1, self.stages + 1)
            ),
            Assert(~was_held | same, "what is offered stays"),
            Assert(~idle | room, "an idle unit accepts"),
        ]
        return m


def proved(design: Streamed, depth: int | None = None) -> Outcome:
    """Prove a streamed unit, or find its fault within ``depth`` steps."""
    if depth is not None:
        return prove(design, depth=depth, mode="bmc", seen=design.seen, memories="registers")
    depth = design.stages + 1  # until what is in the pipeline at first has left it
    return prove(design, depth=depth, seen=design.seen, memories="registers", shortest=False, timeout=1200)


def fitting(name: str, bits: int) -> tuple[Format, Format]:
    """Formats as a network of so many bits has them: inputs up to 8, and outputs as far as the function goes."""
    source = Format(bits + 3, bits - 1)
    function = nonlinearity(name)
    ends = np.asarray(function.value(np.linspace(-8, 8, 1025)))
    low, high = float(ends.min()), float(ends.max())
    whole = max(0, int(np.ceil(np.log2(max(-low, high, 2**-8)))))
    return source, Format(bits, bits - whole - 1) if low < 0 else Format(bits, bits - whole, False)


def proof(name: str, source: Format, output: Format, way: str) -> Proof:
    """One unit in a stream, for all inputs, unbounded."""

    def run() -> Outcome:
        as_table, timing = ways_of(name, source, output)[way]
        return proved(Streamed(specified(name, source, output), as_table, timing))

    slow = source.width > 9
    return Proof(f"nonlinearity, {way}", f"{name} {source} to {output}, {way}", run, bits=source.width, slow=slow)


def proofs() -> list[Proof]:
    """Every nonlinearity at every width, in every way that it can be built."""
    cases = [(name, *case) for case in CASES for name in NAMES]
    cases += [(name, *fitting(name, 8)) for name in OTHERS]
    cases += [(name, *fitting(name, bits)) for bits in range(2, 17) for name in NAMES]
    found = {}
    for name, source, output in cases:
        try:
            ways = ways_of(name, source, output)
        except UsageError:  # a table with too many steps, which hwrnn refuses
            continue
        for way in ways:
            one = proof(name, source, output, way)
            found[one.name] = one
    return [*found.values(), *faults()]


def _wrong(name: str, way: str, change: str) -> Proof:
    source, output = CASES[1]

    def run() -> Outcome:
        right = nonlinearity(name).in_hardware(output)
        step, piece = Fraction(1, 1 << output.frac), right.at_fraction(source.frac).piece(0)
        intercepts, knots = list(right.intercepts), list(right.knots)
        if change == "value":
            intercepts[piece] += -step if right.intercepts[piece] > 0 else step
        elif change == "knot":
            knots[piece - 1] += Fraction(1, 1 << source.frac)
        # Not by dataclasses.replace: what is known of the right one must not be.
        function = PiecewiseLinear("wrong", None, tuple(knots), right.slopes, tuple(intercepts))
        as_table, timing = ways_of(name, source, output)[way]
        fault = change if change in ("credit", "write") else ""
        given = function if change in ("value", "knot") else None
        design = Streamed(specified(name, source, output), as_table, timing, given, fault)
        with mock.patch.object(Wire, "rounded", Wire.floored) if change == "rounding" else nullcontext():
            return proved(design, depth=design.stages + (3 if given or change == "rounding" else 9))

    return Proof(f"nonlinearity, {way}", f"{name} with a wrong {change}, {way}", run, "refuted", source.width)


def faults() -> list[Proof]:
    """A wrong value in every nonlinearity, and what else can be wrong in some."""
    found = [_wrong(name, way, "value") for name in NAMES for way in ways_of(name, *CASES[1]) if "sums" not in way]
    found += [_wrong("table_tanh", way, "knot") for way in ("table", "lines")]
    return found + [_wrong("plan_tanh", "lines", change) for change in ("rounding", "credit", "write")]
