"""Accumulators cannot overflow: the lanes of small engines hold the exact sums, for all operands and any stalls.

The theorem (docs/decisions/030) is about sums of intervals; :func:`partial_sums` says it again, without the code that
derives widths. The proofs show it of the lanes themselves: beside each accumulator stands one that is wide enough
whatever happens, with the weights of the layer written into it in the order of the schedule, and both are always equal.
So weights and biases stand in the memories where they belong, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

from amaranth.asserts import AnySeq
from amaranth.hdl import Array, Assert, Const, Module, Mux, Signal, Value, signed
from formal import Outcome, Proof, prove
from networks import network_of

from hwrnn.cells import CELLS
from hwrnn.quantization import QuantizedLayer
from hwrnn.rtl import TARGETS, lanes
from hwrnn.rtl.engine import schedule_of
from hwrnn.rtl.front import Front
from hwrnn.rtl.lanes import Lanes
from hwrnn.rtl.ports import Part, shape
from hwrnn.rtl.schedule import Schedule
from hwrnn.rtl.timing import SHORTEST, Timing


@dataclass(frozen=True)
class Column:
    """What one lane does with one column.

    Attributes:
        phase, operand, index: the column: an element of an operand of a phase.
        row_pass: its pass.
        gate, unit: whose sum it goes into; None where the lane idles.
        bias: with which the sum begins here; None where it goes on.
        weight: of the element.
        least, most: of the sum with this column, over all operands.
    """

    phase: int
    operand: str
    index: int
    row_pass: int
    gate: str | None
    unit: int
    bias: int | None
    weight: int
    least: int
    most: int


def half_of(layer: QuantizedLayer, gate: str) -> int:
    """What the bias carries so that rounding is a floor."""
    dropped = layer.formats.bias_frac[gate] - layer.formats.values[f"a.{gate}"].frac
    return 2 ** (dropped - 1) if dropped > 0 else 0


def range_of(layer: QuantizedLayer, phase: int, operand: str) -> tuple[int, int]:
    """The least and the most that enters a multiplier for an operand."""
    form, shift = layer.formats.values[operand], layer.formats.shifts[phase, operand]
    least = -(2 ** (form.width - 1)) if form.signed else 0
    most = 2 ** (form.width - 1) - 1 if form.signed else 2**form.width - 1
    return least * 2**shift, most * 2**shift


def partial_sums(layer: QuantizedLayer, schedule: Schedule, lane: int) -> Iterator[Column]:
    """Every column of a time step as a lane sees it, in the order of the schedule."""
    for k, p in enumerate(schedule.phases):
        for group in range(p.groups):
            for row_pass in range(p.passes):
                unit = group * p.parallel + lane // p.rows_per_pass
                row = row_pass * p.rows_per_pass + lane % p.rows_per_pass
                idle = lane >= p.lanes or unit >= p.units or row >= len(p.rows)
                gates = () if idle else p.rows[row]
                least = most = 0
                began: set[str] = set()
                current: str | None = None
                for position, (operand, size) in enumerate(p.operands):
                    low, high = range_of(layer, k, operand)
                    for index in range(size):
                        reads = [gate for gate in gates if operand in p.phase.gates[gate]]
                        starts = [gate for gate in reads if gate not in began]
                        bias: int | None = None
                        if position == index == 0 or (starts and index == 0):
                            current = starts[0] if starts else current
                            began |= set(starts[:1])
                            bias = 0 if current is None else int(layer.biases[current][unit]) + half_of(layer, current)
                            least = most = bias
                        ours = current if current in reads else None
                        weight = int(layer.weights[ours, operand][unit][index]) if ours is not None else 0
                        least += min(weight * low, weight * high)
                        most += max(weight * low, weight * high)
                        yield Column(k, operand, index, row_pass, current, unit, bias, weight, least, most)


class Exact(Part):
    """Front and lanes of a layer beside sums that are exact: any column may be issued late, and any operand come.

    Args:
        layer: of a small network.
        budget: of lanes.
        timing: of the lanes.
    """

    def __init__(self, layer: QuantizedLayer, budget: int, timing: Timing = SHORTEST) -> None:
        self.layer, self.timing = layer, timing
        self.schedule = schedule_of(layer, budget, timing)
        self.lanes = Lanes(layer, self.schedule, timing)
        self.columns = [list(partial_sums(layer, self.schedule, n)) for n in range(self.schedule.lanes)]
        #: columns of a time step
        self.count = len(self.columns[0])
        #: cycles from issuing a column to its sum
        self.stages = self.schedule.mac - 2
        self.word, self.bias_word = Signal(range(max(self.count, 2))), Signal(range(max(len(self.lanes.bias_words), 2)))
        groups = max(2, *(p.groups for p in self.schedule.phases))
        self.group = Signal(range(groups), name="group")
        self.ends = {name: Signal(name=name) for name in ("column_ends", "pass_ends", "group_ends")}
        #: for :func:`prove`
        self.seen = {"lanes.word": self.word, "lanes.bias_word": self.bias_word, "front.group": self.group}
        self.seen |= {f"front.{name}": signal for name, signal in self.ends.items()}
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        """Both, the ghosts, and what is to hold."""
        m = Module()
        m.submodules.lanes = lanes = self.lanes
        m.submodules.front = front = Front(self.schedule)
        m.d.comb += front.go.eq(AnySeq(1))
        for name, source in (("issue", "go"), ("start", "start"), ("second", "second"), ("restart", "ends_step")):
            m.d.comb += getattr(lanes, name).eq(getattr(front, source))
        if lanes.needs_place:
            m.d.comb += [lanes.row_pass.eq(front.row_pass), lanes.phase.eq(front.phase)]
        places = range(max(self.count, 2))
        # The column that is issued, and each one's place and validity as they pass on.
        at, valid = [Signal(places, name="place")], [front.go]
        m.d.comb += at[0].eq(self.word)
        for k in range(1, self.stages + 1):
            at.append(Signal(places, name=f"place_{k}"))
            valid.append(Signal(name=f"valid_{k}"))
            m.d.sync += [at[k].eq(at[k - 1]), valid[k].eq(valid[k - 1])]
        self._front(m, front)
        operand = self._operand(m, at[1 + self.timing.memory])
        m.d.comb += lanes.operand.eq(operand)
        for k in range(self.stages - 1 - self.timing.memory):
            later = Signal.like(operand, name=f"operand_{k}")
            m.d.sync += later.eq(operand)
            operand = later
        last, begun = Signal(places, name="last"), Signal(name="begun")
        with m.If(valid[-1]):
            m.d.sync += [last.eq(at[-1]), begun.eq(1)]
        for n, columns in enumerate(self.columns):
            self._sums(m, n, columns, at[-1], valid[-1], operand, last, begun)
        # The columns on their way are those between the last that was summed and the next.
        following: Value = Mux(begun, self._after(last), 0)
        for k in range(self.stages, 0, -1):
            m.d.comb += Assert(~valid[k] | (at[k] == following), "the columns come in order")
            step = Signal(places, name=f"step_{k}")
            m.d.comb += step.eq(Mux(valid[k], self._after(following), following))
            following = step
        m.d.comb += Assert((self.word == following) & (last < self.count), "the columns come in order")
        return m

    def _after(self, place: Value) -> Value:
        return Mux(place == self.count - 1, 0, place + 1)

    def _table(self, place: Value, values: list[int]) -> Value:
        shape_ = signed(max(v.bit_length() for v in values) + 1)
        return Array(Const(v, shape_) for v in values)[place]

    def _front(self, m: Module, front: Front) -> None:
        """The front's registers are what the schedule says of the next column."""
        columns, phases = self.columns[0], self.schedule.phases
        groups = [g for p in phases for g in range(p.groups) for _ in range(p.passes * p.columns)]
        sizes = [dict(phases[c.phase].operands)[c.operand] for c in columns]
        begins = [c.index == 0 and c.operand == phases[c.phase].operands[0][0] for c in columns]
        second = self._seconds()
        started = [sum(b or s for b, s in zip(begins[:n], second[:n], strict=True)) for n in range(len(columns))]
        starts = [n % (1 << len(self.bias_word)) for n in started]  # behind the last one it stands anywhere
        said = {
            "the word of biases": (self.bias_word, starts),
            "the front's column": (front.column, [c.index for c in columns]),
            "the front's operand": (front.source, [front.sources.index((c.phase, c.operand)) for c in columns]),
            "the front's pass": (front.row_pass, [c.row_pass for c in columns]),
            "the front's phase": (front.phase, [c.phase for c in columns]),
            "the front's group": (self.group, groups),
            "the end of an operand": (
                self.ends["column_ends"], [c.index == s - 1 for c, s in zip(columns, sizes, strict=True)],
            ),
            "the end of a pass": (self.ends["pass_ends"], [c.row_pass == phases[c.phase].passes - 1 for c in columns]),
            "the end of a group": (
                self.ends["group_ends"],
                [g == phases[c.phase].groups - 1 for g, c in zip(groups, columns, strict=True)],
            ),
        }  # fmt: skip
        m.d.comb += Assert(self.word < self.count, "the word of weights")
        for message, (signal, values) in said.items():
            m.d.comb += Assert(signal == self._table(self.word, [int(v) for v in values]), message)

    def _seconds(self) -> list[bool]:
        """Whether some row's second gate begins with a column."""
        found = []
        for column in self.columns[0]:
            p = self.schedule.phases[column.phase]
            before = sum(size for name, size in p.operands[: [n for n, _ in p.operands].index(column.operand)])
            others = {start for row in range(len(p.rows)) for start in p.starts(row)[1:]}
            found.append(before + column.index in others)
        return found

    def _operand(self, m: Module, place: Value) -> Signal:
        """Anything that the operand's format holds."""
        operand = Signal(self.lanes.operand_shape, name="operand")
        with m.Switch(place):
            for n, column in enumerate(self.columns[0]):
                form = self.layer.formats.values[column.operand]
                raw = Signal(shape(form), name=f"raw_{n}")
                m.d.comb += raw.eq(AnySeq(form.width))
                with m.Case(n):
                    m.d.comb += operand.eq(raw << self.layer.formats.shifts[column.phase, column.operand])
        return operand

    def _sums(
        self,
        m: Module,
        n: int,
        columns: list[Column],
        place: Value,
        valid: Value,
        operand: Value,
        last: Value,
        begun: Value,
    ) -> None:
        widest = max(abs(v).bit_length() for c in columns for v in (c.least, c.most))
        exact = Signal(signed(widest + 3), name=f"exact_{n}")
        loads = Array(Const(int(c.bias is not None), 1) for c in columns)[place]
        bias = self._table(place, [c.bias or 0 for c in columns])
        with m.If(valid):
            m.d.sync += exact.eq(Mux(loads, bias, exact) + self._table(place, [c.weight for c in columns]) * operand)
        least, most = (self._table(last, [getattr(c, end) for c in columns]) for end in ("least", "most"))
        m.d.comb += [
            Assert(getattr(self.lanes, f"sum_{n}") == exact, "the sum is exact"),
            Assert(~begun | ((exact >= least) & (exact <= most)), "the sum is in its interval"),
        ]
        splits = [c.bias is not None and second for c, second in zip(columns, self._seconds(), strict=True)]
        if any(splits):
            held = Signal.like(exact, name=f"exact_first_{n}")
            with m.If(valid & Array(Const(int(s), 1) for s in splits)[place]):
                m.d.sync += held.eq(exact)
            m.d.comb += Assert(getattr(self.lanes, f"first_{n}") == held, "the first gate's sum is exact")


def small(cell: str, bits: int = 4, units: int = 2) -> QuantizedLayer:
    """A layer of a few units with large weights."""
    model = network_of("rnn" if cell == "dense" else cell, 2, units, 2, bits=bits)[0]
    layer = model.head if cell == "dense" else model.layers[0]
    assert layer is not None
    return layer


def proved(design: Exact, fault: bool = False) -> Outcome:
    """Prove the sums exact, or find a wrong one."""
    if fault:
        return prove(design, depth=design.count + design.stages + 2, mode="bmc", seen=design.seen)
    return prove(design, depth=design.stages + 2, seen=design.seen, shortest=False, timeout=1200)


#: lanes, bits and units of the small engines of each cell
SIZES = ((1, 4, 2), (3, 4, 2), (8, 6, 2), (2, 3, 3))


def _proof(cell: str, size: tuple[int, int, int], part: str = "", fault: str = "") -> Proof:
    budget, bits, units = size

    def run() -> Outcome:
        layer = small(cell, bits, units)
        timing = TARGETS[part].timing if part else SHORTEST
        with _FAULTS[fault]() if fault else nullcontext():
            return proved(Exact(layer, budget, timing), bool(fault))

    name = f"{cell}, {bits} bits, {units} units, {budget} lanes{f', as for {part}' if part else ''}"
    name += f", {fault}" if fault else ""
    slow = bool(part) or size != SIZES[0]
    return Proof("accumulators of an engine", name, run, "refuted" if fault else "proved", bits, slow)


def _narrower(layer: QuantizedLayer) -> Any:
    right = _sum_shape_of(layer)
    return signed(right.width - 1)


_sum_shape_of = lanes.sum_shape_of
_FAULTS = {
    "one bit less": lambda: mock.patch.object(lanes, "sum_shape_of", _narrower),
    "no rounding half": lambda: mock.patch.object(lanes, "rounding_half", lambda layer, gate: 0),
}


def proofs() -> list[Proof]:
    """Small engines of every cell, in the timings of every part, and faults."""
    cells = [*CELLS, "dense"]
    found = [_proof(cell, size) for size in SIZES for cell in cells]
    parts = {target.timing: name for name, target in reversed(TARGETS.items())}
    found += [_proof(cell, SIZES[1], part) for part in parts.values() for cell in ("lstm", "gru-reset-before")]
    found += [_proof(cell, SIZES[0], fault="one bit less") for cell in cells]
    return [*found, _proof("lstm", SIZES[0], fault="no rounding half")]
