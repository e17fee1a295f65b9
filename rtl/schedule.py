"""How an engine spends its cycles: arrangements of lanes, and the closed forms of cycles and latency.

Nothing here knows gates. A *row* is what one lane computes in one pass over the columns: the weights of one gate of
one unit, or of two gates with different operands one after the other (a GRU's candidate with the reset after the
product). A *group* of units is worked at a time, its rows side by side or, with fewer lanes than rows, in *passes*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from hwrnn.cells import Cell, Phase
from hwrnn.errors import UsageError, shown
from hwrnn.trace import trace

__all__ = ["MOST_CHANNELS", "OUTPUT_STAGES", "PhasePlan", "Schedule", "plan"]

#: A bound on channels, far above what a part's memory has room for.
MOST_CHANNELS = 1024
#: Cycles from writing the output buffer to the output port: the memory and its register.
OUTPUT_STAGES = 2


def rows_of(phase: Phase) -> tuple[tuple[str, ...], ...]:
    """The rows of a phase: gates that read different operands share one."""
    rows: list[list[str]] = []
    for gate, reads in phase.gates.items():
        for row in rows:
            if not any(set(phase.gates[other]) & set(reads) for other in row):
                row.append(gate)
                break
        else:
            rows.append([gate])
    order = phase.operands
    return tuple(tuple(sorted(row, key=lambda g: min(order.index(o) for o in phase.gates[g]))) for row in rows)


@dataclass(frozen=True)
class PhasePlan:
    """The arrangement of one phase.

    Attributes:
        phase: the cell's phase.
        rows: gates by row; a unit has ``len(rows)`` rows.
        operands: ``(name, columns)`` in order.
        units: of the layer.
        parallel: units in a group.
        passes: over the columns, for one group.
        gap: cycles of waiting before the first column that depends on the phase before (0 wherever the columns
            cover the drain).
        gap_column: the column before which the gap is spent.
    """

    phase: Phase
    rows: tuple[tuple[str, ...], ...]
    operands: tuple[tuple[str, int], ...]
    units: int
    parallel: int
    passes: int
    gap: int = 0
    gap_column: int = 0

    @property
    def columns(self) -> int:
        """Columns of a row."""
        return sum(size for _, size in self.operands)

    @property
    def groups(self) -> int:
        """Groups of units."""
        return ceil(self.units / self.parallel)

    @property
    def rows_per_pass(self) -> int:
        """Rows of a unit that are worked side by side."""
        return ceil(len(self.rows) / self.passes)

    @property
    def lanes(self) -> int:
        """Lanes that are used."""
        return self.parallel * self.rows_per_pass

    @property
    def cycles(self) -> int:
        """Cycles that issue columns, without the gap."""
        return self.groups * self.passes * self.columns

    @property
    def last_group(self) -> int:
        """Units in the last group."""
        return self.units - (self.groups - 1) * self.parallel

    @property
    def segments(self) -> int:
        """The most gates in one row."""
        return max(len(row) for row in self.rows)

    def starts(self, row: int) -> tuple[int, ...]:
        """The column at which each gate of a row starts; the first always at 0."""
        first = {name: sum(size for _, size in self.operands[:k]) for k, (name, _) in enumerate(self.operands)}
        starts = [min(first[o] for o in self.phase.gates[gate]) for gate in self.rows[row]]
        return (0, *starts[1:])


def arrange(phase: Phase, inputs: int, units: int, lanes: int) -> PhasePlan:
    """The arrangement of a phase with the fewest cycles within a budget of lanes, then with the fewest lanes.

    A group has no more units than a pass has columns: the element-wise path takes one unit a cycle, so more lanes
    would idle.
    """
    rows = rows_of(phase)
    operands = tuple((name, inputs if name == "x" else units) for name in phase.operands)
    columns = sum(size for _, size in operands)
    best: PhasePlan | None = None
    for passes in range(1, len(rows) + 1):
        side_by_side = ceil(len(rows) / passes)
        most = min(lanes // side_by_side, units, passes * columns)
        if most < 1:
            continue
        parallel = ceil(units / ceil(units / most))
        found = PhasePlan(phase, rows, operands, units, parallel, passes)
        if best is None or (found.cycles, found.lanes) < (best.cycles, best.lanes):
            best = found
    assert best is not None  # one lane with as many passes as rows always fits
    return best


@dataclass(frozen=True)
class Schedule:
    """The whole time step of a layer.

    Attributes:
        phases: the arrangement of each phase, gaps included.
        depths: stages of each phase's element-wise path.
        budget: the lanes asked for.
        mac: cycles from issuing a group's last column to its first unit's entry into the element-wise path.
        channels: independent sequences that take turns, vector by vector. A phase is worked for all of them before
            the next phase begins.
    """

    phases: tuple[PhasePlan, ...]
    depths: tuple[int, ...]
    budget: int
    mac: int
    channels: int = 1

    @property
    def lanes(self) -> int:
        """Multiplier lanes that are built."""
        return max(p.lanes for p in self.phases)

    @cached_property
    def cycles_per_step(self) -> int:
        """Cycles of one channel's time step in steady state, exactly, as long as input and output keep up."""
        return sum(p.cycles + p.gap for p in self.phases)

    @property
    def latency(self) -> int:
        """Cycles from the transfer of a step's last input element to that of its last output element.

        The engine is idle before, and the output is taken at once. With the engine idle no gap precedes the first
        phase. With several phases and channels the step is that of the last channel, whose first phase the other
        channels have waited for.
        """
        issued = sum(p.cycles if k == 0 else self.channels * (p.cycles + p.gap) for k, p in enumerate(self.phases))
        last = self.phases[-1]
        return issued + self.mac + (last.last_group - 1) + self.depths[-1] + OUTPUT_STAGES

    @property
    def returns(self) -> bool:
        """Whether a phase is worked for several channels before the next one begins."""
        return self.channels > 1 and len(self.phases) > 1

    @property
    def slots(self) -> int:
        """Input vectors that are kept: those being worked and as many again that come meanwhile; a power of two."""
        return 2 << (self.channels - 1).bit_length() if self.returns else 2

    @property
    def words(self) -> int:
        """Words of the weight memory: one for each cycle that issues a column."""
        return sum(p.cycles for p in self.phases)

    @property
    def buffer(self) -> int:
        """Elements of the output buffer: enough credits that a taken output never holds back the issue.

        A round whose outputs all come in its last phase has room as a whole, for what takes them evenly.
        """
        last = self.phases[-1]
        pending = self.mac + self.depths[-1] + OUTPUT_STAGES + last.parallel + 3
        burst = self.channels * last.units if self.returns else 0
        return last.parallel * (1 + ceil(pending / (last.passes * last.columns))) + burst


def plan(
    cell: Cell, inputs: int, units: int, lanes: int, depths: tuple[int, ...], mac: int, channels: int = 1
) -> Schedule:
    """The schedule of a layer within a budget of lanes.

    Args:
        depths: stages of each phase's element-wise path.
        mac: cycles before it.
        channels: independent sequences that take turns; what the others work covers the drain too.

    Raises:
        UsageError: a budget that is not a whole number of at least 1, or so with the channels.
    """
    if not isinstance(channels, int) or isinstance(channels, bool) or not 1 <= channels <= MOST_CHANNELS:
        raise UsageError(f"Channels must be a whole number from 1 to {MOST_CHANNELS}, not {shown(channels)}")
    if not isinstance(lanes, int) or isinstance(lanes, bool) or lanes < 1:
        raise UsageError(f"Lanes must be a whole number of at least 1, not {shown(lanes)}")
    plans = [arrange(phase, inputs, units, lanes) for phase in cell.phases]
    lines = trace(cell)
    result: list[PhasePlan] = []
    for k, p in enumerate(plans):
        waits: list[tuple[int, int]] = []  # (cycles, the column before which they are needed)
        offset = 0
        for name, size in p.operands:
            if name != "x":
                source = next(j for j in range(len(plans)) if name in lines.stored_in(j))
                writer = plans[source]
                # The last group's first unit reaches its memory mac + depth after the last column was issued and
                # can be read a cycle later; the columns before it run meanwhile, and phases in between.
                between = ((k - source - 1) % len(plans)) if len(plans) > 1 else 0
                passing = sum(plans[(source + 1 + n) % len(plans)].cycles for n in range(between))
                needed = mac + depths[source] - (offset + writer.units - writer.last_group) - channels * passing
                # The other channels' columns run meanwhile too; of a single phase, with their gaps.
                needed -= (channels - 1) * min(p.cycles, writer.cycles)
                waits.append((max(0, ceil(needed / channels) if len(plans) == 1 else needed), offset))
            offset += size
        gap = max((wait for wait, _ in waits), default=0)
        # One wait will do for all: before the first column that needs any.
        column = next((at for wait, at in waits if wait or not gap), 0)
        if k == 0 and not waits and lines.olds_of(0):
            # No operand waits, but a unit's old state must have been written before the unit comes round again.
            gap = max(0, ceil((depths[0] + 2) / channels) - sum(q.cycles for q in plans))
        result.append(PhasePlan(p.phase, p.rows, p.operands, p.units, p.parallel, p.passes, gap, column))
    return Schedule(tuple(result), depths, lanes, mac, channels)
