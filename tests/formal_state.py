"""What a column reads has been written: under any stalls, no state is read before it is there.

The front knows it from a countdown alone. Here every group on its way is shown to be at least as old as the countdown
says, so that what a column needs has left the path; values under stalls are then those without stalls.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from amaranth.hdl import Assert, Const, Fragment, Module, Mux, Signal, signed
from formal import Outcome, Proof, prove
from formal_engine import ENGINES, Conservation, described, numbered, offsets_of, seen
from formal_streams import AnyReset, consume, planted, produce

from hwrnn.rtl.elementwise import ElementWise
from hwrnn.rtl.engine import Engine, schedule_of
from hwrnn.rtl.front import Front
from hwrnn.rtl.schedule import Schedule
from hwrnn.trace import trace

__all__ = ["PROOFS"]


class Settled(Conservation):
    """Every operand that a column reads from a memory is the one of the step that it belongs to."""

    def elaborate(self, platform: object) -> Module:
        """The paths of all phases, and how long ago their last group was issued."""
        m = Module()
        self.fragment = Fragment.get(self.engine, None)
        m.submodules.engine = self.fragment
        engine, schedule = self.engine, self.engine.schedule
        phases, units = schedule.phases, engine.layer.units
        produce(m, engine.i)
        consume(m, engine.o)

        def see(path: str, name: str) -> Signal:
            return seen(self.fragment, path, name)

        self._front(m, see)
        phase, group, source, column = (see("front", name) for name in ("phase", "group", "source", "column"))
        channel = see("front", "channel") if schedule.returns else Const(0)
        if schedule.returns:
            count = schedule.channels
            right = (channel < count) & (see("front", "repeats") == (channel != count - 1))
            m.d.comb += Assert(right, "channels are counted")
        turns = schedule.channels if schedule.returns else 1
        waiting = see("front", "waiting") if any(p.gap for p in phases) else Const(0)
        over = see("", "issue") & see("front", "phase_over")
        longest = max(drain.sums_at + p.parallel for drain, p in zip(engine.drains, phases, strict=True))
        longest += max(schedule.depths) + max(p.gap + p.gap_column for p in phases)
        longest += turns * sum(p.cycles for p in phases)

        def since(name: str, event: Any) -> Signal:
            """Cycles since an event, at most ``longest``."""
            result = Signal(range(longest + 1), name=name, init=longest)
            with m.If(event):
                m.d.sync += result.eq(0)
            with m.Elif(result != longest):
                m.d.sync += result.eq(result + 1)
            m.d.comb += Assert(result <= longest, "so many cycles are enough")
            return result

        recent = since("recent", over)
        # Of each phase, the cycles since it was last over, and since the times before that the channels took turns.
        past = []
        for k, p in enumerate(phases):
            row = [since(f"age_{k}", over & (phase == k))]
            for n in range(1, schedule.channels):
                row.append(Signal(range(longest + 1), name=f"age_{k}_{n}", init=longest))
                more = Mux(row[-2] < longest, row[-2] + 1, longest), Mux(row[-1] < longest, row[-1] + 1, longest)
                m.d.sync += row[-1].eq(Mux(over & (phase == k), *more))
                apart = (row[-1] == longest) | (row[-1] >= row[-2] + p.cycles + p.gap)
                m.d.comb += Assert((row[-1] <= longest) & apart, "turns take their cycles")
            past.append(row)
        ages = [row[0] for row in past]
        for k, p in enumerate(phases):
            issued = group * p.passes * p.columns + self.progress[k]
            late = recent == longest
            gap = p.gap and p.gap + p.gap_column
            m.d.comb += [
                Assert((phase != k) | late | (recent >= issued), "a column takes a cycle"),
                Assert((phase != k) | late | (waiting + recent >= gap), "the countdown is not ahead"),
                Assert(
                    (phase != k) | late | (issued <= p.gap_column) | (recent >= p.gap + issued),
                    "the gap was waited for",
                ),
            ]
            for j, age in enumerate(ages):
                between = [phases[n % len(phases)] for n in range(j + 1, k if k > j else k + len(phases))]
                least = recent + turns * sum(q.cycles for q in between)
                least = Mux(channel == 0, least, recent) if j == k else least + channel * p.cycles
                m.d.comb += Assert((phase != k) | (age == longest) | (age >= least), "phases take their cycles")
        inside = [self._path(m, see, k, past[k]) for k in range(len(phases))]
        names = [name for p in phases for name, _ in offsets_of(p)]
        for n, name in enumerate(names):
            if name == "x":
                continue
            j = next(j for j in range(len(phases)) if name in trace(engine.layer.cell).stored_in(j))
            stage = ElementWise.build(None, engine.layer, j, "x", engine.timing).stored[name].stage
            begun = Signal(signed(16), name=f"begun_{n}")  # elements of that phase since the vector that is read
            worked = Mux(phase == j, channel * units + group * phases[j].parallel, 0)
            m.d.comb += begun.eq((schedule.channels - channel) * units + worked)
            left_behind = inside[j](stage) + column < begun
            m.d.comb += Assert(
                ~(see("", "issue") & (source == n)) | left_behind, "what a column reads has been written"
            )
        return m

    def _path(self, m: Module, see: Any, k: int, ages: list[Signal]) -> Any:
        """A phase's path: nothing on it is younger than its last group; gives how many have not passed a stage."""
        engine, units, p = self.engine, self.engine.layer.units, self.engine.schedule.phases[k]
        drain, at, depth = engine.drains[k], f"drain_{k}", self.engine.schedule.depths[k]
        phase, group = see("front", "phase"), see("front", "group")
        valid = [see(at, "path_valid"), *(see(at, f"path_valid_{n}") for n in range(1, depth + 1))]
        done = [see(at, f"done_{n}") for n in range(1, drain.sums_at + 1)]
        left, unit = see(at, "left"), see(at, "unit")
        need = [Mux(see("front", "group_ends"), p.last_group, p.parallel)]
        for n in range(drain.sums_at):
            later = Signal(range(p.parallel + 1), name=f"need_{k}_{n + 1}")
            m.d.sync += later.eq(need[-1])
            need.append(later)
        self._groups(m, see, done, need, left, unit, phase, k)
        waits = sum(Mux(a, b, 0) for a, b in zip(done, need[1:], strict=True))
        worked = Mux(phase == k, group * p.parallel, 0)
        m.d.comb += Assert(
            (unit < units) & ((unit + left + waits) % units == worked), "units are counted as groups are"
        )
        # What the phase's last times have left: all but what has been issued since.
        stages = len(done)
        after: list[Any] = [Const(0)]
        for n, flag in enumerate(done):
            after.append(after[-1] + Mux(flag, need[n + 1], 0))
        after.append(after[-1] + left)
        for flag in valid:
            after.append(after[-1] + flag)
        for turn, age in enumerate(ages):
            old = [here >= worked + turn * units for here in after]
            ended = [age + left < stages + p.last_group, *(age < stages + p.last_group + n for n in range(len(valid)))]
            m.d.comb += [
                *(Assert(~(flag & old[n]) | (age <= n), "no group is younger") for n, flag in enumerate(done)),
                *(
                    Assert((age != n) | (flag & (need[n + 1] == p.last_group)), "the last group is on its way")
                    for n, flag in enumerate(done)
                ),
                *(
                    Assert(~(flag & old[stages + n]) | ended[n], "nothing behind it is younger")
                    for n, flag in enumerate([left != 0, *valid])
                ),
            ]
        return lambda stage: sum(valid[: stage + 1]) + left + waits


def settled(*arguments: Any, **options: Any) -> Outcome:
    """By induction of one step."""
    return prove(AnyReset(Settled(numbered(*arguments, **options))), memories="registers")


def hasty(*arguments: Any) -> Schedule:
    """A schedule that waits a cycle less than it has to."""
    right = schedule_of(*arguments)
    return replace(right, phases=tuple(replace(p, gap=max(p.gap - 1, 0)) for p in right.phases))


def refuted(depth: int, base: Any, *arguments: Any) -> Outcome:
    """A planted fault, looked for in runs of so many steps."""
    return prove(Settled(numbered(*arguments, base=base)), mode="bmc", depth=depth, memories="registers")


KIND = "engine: every state is written before it is read"
_RNN = ("rnn", 1, 2, 2, True)

#: by name
PROOFS = {
    proof.name: proof
    for proof in [
        *(Proof(KIND, f"states, {described(each)}", partial(settled, *each), slow=True) for each in ENGINES),
        Proof(
            KIND, "states, fault: a wait a cycle too short",
            lambda: refuted(20, planted(Engine, "", "", schedule_of=hasty), *_RNN), "refuted", slow=True,
        ),
        Proof(
            KIND, "states, fault: a countdown from one less",
            lambda: refuted(
                12,
                planted(
                    Engine, "", "",
                    Front=planted(Front, "following.gap + following.gap_column", "following.gap"),
                ),
                *_RNN,
            ),
            "refuted", slow=True,
        ),
    ]
}  # fmt: skip
