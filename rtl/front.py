"""The front of an engine: which column is issued next, and when it has to wait for a draining state."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwrnn.rtl.schedule import Schedule

__all__ = ["Front"]


class Front(wiring.Component):
    """Counts phase, group, pass, operand and column; everything it shows belongs to the column that ``go`` issues.

    Ports:
        go: the column is issued in this cycle.
        settled: the column's operand has been written; the static schedule knows it from a countdown, without comparing
            addresses.
        column, source: the address within the operand, and the operand (an index of ``sources``).
        start, second: a row's first or second gate starts.
        phase, row_pass: of the column.
        done_K: the last column of a group of phase K; done_K_Q: of its pass Q, not the last.
        need: units of the group being worked in the last phase.
        ends_step: the last column of the time step.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.sources = tuple((k, name) for k, p in enumerate(schedule.phases) for name, _ in p.operands)
        phases = schedule.phases
        self.widest = max(size for p in phases for _, size in p.operands)
        super().__init__(
            {
                "go": In(1),
                "settled": Out(1),
                "column": Out(range(max(self.widest, 2))),
                "source": Out(range(max(len(self.sources), 2))),
                "start": Out(1),
                "second": Out(1),
                "phase": Out(range(max(len(phases), 2))),
                "row_pass": Out(range(max(2, *(p.passes for p in phases)))),
                "need": Out(range(phases[-1].parallel + 1)),
                "ends_step": Out(1),
                **{f"done_{k}": Out(1) for k in range(len(phases))},
                **{f"done_{k}_{q}": Out(1) for k, p in enumerate(phases) for q in range(p.passes - 1)},
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Nested counters; every bound is a constant of the operand, phase or group at hand."""
        m = Module()
        phases = self.schedule.phases
        group = Signal(range(max(2, *(p.groups for p in phases))))
        column_ends, operand_ends = Signal(name="column_ends"), Signal(name="operand_ends")
        pass_ends, group_ends = Signal(name="pass_ends"), Signal(name="group_ends")
        longest = max(p.gap + p.gap_column for p in phases)
        waiting = Signal(range(longest + 1), name="waiting") if any(p.gap for p in phases) else Const(0)
        m.d.comb += self.settled.eq(1)
        with m.Switch(self.source):
            for n, (k, name) in enumerate(self.sources):
                p = phases[k]
                size = dict(p.operands)[name]
                here = [operand for operand, _ in p.operands].index(name)
                offset = sum(width for _, width in p.operands[:here])
                starts = {start for row in range(len(p.rows)) for start in p.starts(row)[1:]}
                with m.Case(n):
                    m.d.comb += column_ends.eq(self.column == size - 1)
                    m.d.comb += operand_ends.eq(int(here == len(p.operands) - 1))
                    if here == 0:
                        m.d.comb += self.start.eq(self.column == 0)
                    if offset in starts:
                        m.d.comb += self.second.eq(self.column == 0)
                    if p.gap and offset == p.gap_column:
                        opens = (self.column == 0) & (group == 0) & (self.row_pass == 0)
                        m.d.comb += self.settled.eq(~opens | (waiting == 0))
        with m.Switch(self.phase):
            for k, p in enumerate(phases):
                with m.Case(k):
                    m.d.comb += pass_ends.eq(self.row_pass == p.passes - 1)
                    m.d.comb += group_ends.eq(group == p.groups - 1)
        row_done, group_done, phase_done = (Signal(name=f"{what}_done") for what in ("row", "group", "phase"))
        m.d.comb += [
            row_done.eq(column_ends & operand_ends),
            group_done.eq(row_done & pass_ends),
            phase_done.eq(group_done & group_ends),
            self.ends_step.eq(phase_done & (self.phase == len(phases) - 1)),
            self.need.eq(Mux(group_ends, phases[-1].last_group, phases[-1].parallel)),
        ]
        for k, p in enumerate(phases):
            m.d.comb += getattr(self, f"done_{k}").eq(group_done & (self.phase == k))
            for q in range(p.passes - 1):
                m.d.comb += getattr(self, f"done_{k}_{q}").eq(row_done & (self.phase == k) & (self.row_pass == q))
        if not isinstance(waiting, Const):
            with m.If(waiting != 0):
                m.d.sync += waiting.eq(waiting - 1)
        with m.If(self.go):
            m.d.sync += self.column.eq(Mux(column_ends, 0, self.column + 1))
            with m.If(column_ends):
                m.d.sync += self.source.eq(self.source + 1)
            with m.Switch(self.phase):
                for k, p in enumerate(phases):
                    first = self.sources.index((k, p.operands[0][0]))
                    after = phases[(k + 1) % len(phases)]
                    next_first = self.sources.index(((k + 1) % len(phases), after.operands[0][0]))
                    with m.Case(k):
                        with m.If(row_done):
                            m.d.sync += self.source.eq(Mux(phase_done, next_first, first))
                        if after.gap:
                            with m.If(phase_done):
                                m.d.sync += waiting.eq(after.gap + after.gap_column)
            with m.If(row_done):
                m.d.sync += self.row_pass.eq(Mux(pass_ends, 0, self.row_pass + 1))
            with m.If(group_done):
                m.d.sync += group.eq(Mux(group_ends, 0, group + 1))
            with m.If(phase_done):
                m.d.sync += self.phase.eq(Mux(self.ends_step, 0, self.phase + 1))
        return m
