"""The front of an engine: which column is issued next, and when it has to wait for a draining state."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from hwrnn.rtl.ports import Part
from hwrnn.rtl.schedule import Schedule

__all__ = ["Front"]


class Front(Part):
    """Counts phase, group, pass, operand and column; everything it shows belongs to the column that ``go`` issues.

    With several phases, each is worked for all channels in turn before the next one begins; with one phase the channels
    are the same columns again, and nothing here tells them apart.

    Ports:
        go: the column is issued in this cycle.
        settled: the column's operand has been written; the static schedule knows it from a countdown, without comparing
            addresses.
        column, source: the address within the operand, and the operand (an index of ``sources``).
        start, second: a row's first or second gate starts.
        phase, row_pass: of the column.
        done_K: the last column of a group of phase K; done_K_Q: of its pass Q, not the last.
        need: units of the group being worked in the last phase.
        phase_over: the last column of a phase for one channel.
        ends_step: the last column of the time step of one channel.
        channel: of the column, where there are several phases and channels.
        repeats: beside ``phase_over``: the phase follows again, for the next channel.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.sources = tuple((k, name) for k, p in enumerate(schedule.phases) for name, _ in p.operands)
        phases = schedule.phases
        self.widest = max(size for p in phases for _, size in p.operands)
        #: whether channels are counted here
        self.in_turn = schedule.returns
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
                "phase_over": Out(1),
                "ends_step": Out(1),
                **({"channel": Out(range(schedule.channels)), "repeats": Out(1, init=1)} if self.in_turn else {}),
                **{f"done_{k}": Out(1) for k in range(len(phases))},
                **{f"done_{k}_{q}": Out(1) for k, p in enumerate(phases) for q in range(p.passes - 1)},
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Nested counters, a flag beside each that says "the last one": no comparison stands before ``go``."""
        m = Module()
        phases, sources = self.schedule.phases, self.sources
        firsts = [sources.index((k, p.operands[0][0])) for k, p in enumerate(phases)]
        sizes = [dict(phases[k].operands)[name] for k, name in sources]
        group = Signal(range(max(2, *(p.groups for p in phases))))
        # Registers: the column is its operand's last, the pass its group's, the group its phase's.
        column_ends = Signal(name="column_ends", init=sizes[0] == 1)
        pass_ends = Signal(name="pass_ends", init=phases[0].passes == 1)
        group_ends = Signal(name="group_ends", init=phases[0].groups == 1)
        operand_ends, before_last = Signal(name="operand_ends"), Signal(name="before_last")
        longest = max(p.gap + p.gap_column for p in phases)
        waiting = Signal(range(longest + 1), name="waiting") if any(p.gap for p in phases) else Const(0)
        m.d.comb += self.settled.eq(1)
        with m.Switch(self.source):
            for n, (k, name) in enumerate(sources):
                p = phases[k]
                here = [operand for operand, _ in p.operands].index(name)
                offset = sum(width for _, width in p.operands[:here])
                starts = {start for row in range(len(p.rows)) for start in p.starts(row)[1:]}
                with m.Case(n):
                    if sizes[n] > 1:
                        m.d.comb += before_last.eq(self.column == sizes[n] - 2)
                    m.d.comb += operand_ends.eq(int(here == len(p.operands) - 1))
                    if here == 0:
                        m.d.comb += self.start.eq(self.column == 0)
                    if offset in starts:
                        m.d.comb += self.second.eq(self.column == 0)
                    if p.gap and offset == p.gap_column:
                        opens = (self.column == 0) & (group == 0) & (self.row_pass == 0)
                        m.d.comb += self.settled.eq(~opens | (waiting == 0))
        row_done, group_done, phase_done = (Signal(name=f"{what}_done") for what in ("row", "group", "phase"))
        m.d.comb += phase_done.eq(self.phase_over & ~self.repeats if self.in_turn else self.phase_over)
        m.d.comb += [
            row_done.eq(column_ends & operand_ends),
            group_done.eq(row_done & pass_ends),
            self.phase_over.eq(group_done & group_ends),
            self.ends_step.eq(self.phase_over & (self.phase == len(phases) - 1)),
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
            m.d.sync += column_ends.eq(before_last)
            with m.Switch(self.source):
                for n, (k, _) in enumerate(sources):
                    after = (k + 1) % len(phases)
                    with m.Case(n), m.If(column_ends):
                        if n + 1 < len(sources) and sources[n + 1][0] == k:
                            m.d.sync += [self.source.eq(n + 1), column_ends.eq(sizes[n + 1] == 1)]
                        else:
                            again, onward = sizes[firsts[k]] == 1, sizes[firsts[after]] == 1
                            m.d.sync += self.source.eq(Mux(phase_done, firsts[after], firsts[k]))
                            m.d.sync += column_ends.eq(Mux(phase_done, onward, again))
            with m.Switch(self.phase):
                for k, p in enumerate(phases):
                    following = phases[(k + 1) % len(phases)]
                    with m.Case(k):
                        with m.If(row_done):
                            m.d.sync += pass_ends.eq(self.row_pass == p.passes - 2)
                        with m.If(group_done):
                            m.d.sync += pass_ends.eq(p.passes == 1)
                            m.d.sync += group_ends.eq(group == p.groups - 2)
                        if self.in_turn:
                            with m.If(self.phase_over):
                                m.d.sync += group_ends.eq(p.groups == 1)
                                if p.gap:
                                    m.d.sync += waiting.eq(p.gap + p.gap_column)
                        with m.If(phase_done):
                            m.d.sync += pass_ends.eq(following.passes == 1)
                            m.d.sync += group_ends.eq(following.groups == 1)
                            if following.gap:
                                m.d.sync += waiting.eq(following.gap + following.gap_column)
            with m.If(row_done):
                m.d.sync += self.row_pass.eq(Mux(pass_ends, 0, self.row_pass + 1))
            with m.If(group_done):
                m.d.sync += group.eq(Mux(group_ends, 0, group + 1))
            with m.If(phase_done):
                m.d.sync += self.phase.eq(Mux(self.ends_step, 0, self.phase + 1))
            if self.in_turn:
                last = self.schedule.channels - 1
                with m.If(self.phase_over):
                    m.d.sync += self.channel.eq(Mux(self.repeats, self.channel + 1, 0))
                    m.d.sync += self.repeats.eq(Mux(self.repeats, self.channel != last - 1, 1))
        return m
