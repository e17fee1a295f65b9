"""The engine loses nothing, doubles nothing, mixes nothing up, and comes to an end, whatever its partners do.

Its control does not depend on data, so what its path stores is replaced by numbers that can be followed: of a
``Numbered`` engine every stored value is the number of its unit. The arithmetic falls away and the proofs see what is
left: front, input vectors, drains, credits, output buffer.

That the queue behind keeps order and never refuses is proved of the queue (``formal_streams``), for a writer that
keeps to its credits; here the writer is shown to do so, and to write the right elements.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from amaranth.hdl import Array, Assert, Assume, Const, Elaboratable, Fragment, Module, Mux, Signal, Value, signed
from amaranth.lib.data import View
from formal import Outcome, Proof, prove
from formal_streams import AnyReset, consume, counter, free, planted, produce
from networks import network_of

from hwrnn.rtl.drain import Drain
from hwrnn.rtl.elementwise import ElementWise
from hwrnn.rtl.engine import Engine
from hwrnn.rtl.front import Front
from hwrnn.rtl.inputs import InputVectors
from hwrnn.rtl.schedule import PhasePlan

__all__ = ["ENGINES", "PROOFS", "SMALLEST", "Conservation", "described", "numbered", "offsets_of", "seen"]


class _Numbers:
    """A drain whose stored values are the numbers of their units."""

    def __init__(self, drain: Drain) -> None:
        self.drain = drain

    def __getattr__(self, name: str) -> Any:
        return getattr(self.drain, f"{name}_unit" if hasattr(self.drain, f"{name}_unit") else name)


def numbered_class(base: Any) -> Any:
    """An engine that stores and emits the number of the unit instead of the value."""

    class Numbered(base):
        def _distribute(self, m: Module, drain: Drain, *others: Any) -> None:
            super()._distribute(m, _Numbers(drain), *others)

    return Numbered


def numbered(
    cell: str, inputs: int, units: int, lanes: int, every_step: bool = True, channels: int = 1, base: Any = Engine
) -> Any:
    """A numbered engine of one layer of 3 bits."""
    layer = network_of(cell, inputs, units, None, bits=3, every_step=True)[0].layers[0]
    return numbered_class(base)(layer, lanes, every_step, channels=channels)


def seen(fragment: Fragment, path: str, name: str) -> Signal:
    """The one register or wire of a name that a submodule drives."""
    for part in filter(None, path.split(".")):
        fragment = next(below for below, called, *_ in fragment.subfragments if called == part)
    driven = [signal for lines in fragment.statements.values() for line in lines for signal in line._lhs_signals()]
    found = {id(signal): signal for signal in driven if signal.name == name}
    assert len(found) == 1, f"{path} drives {len(found)} signals {name!r}"
    return next(iter(found.values()))


def columns_of(engine: Engine) -> list[tuple[int, int]]:
    """Phase and size of each operand, in the front's order."""
    return [(k, size) for k, p in enumerate(engine.schedule.phases) for _, size in p.operands]


def offsets_of(plan: PhasePlan) -> list[tuple[str, int]]:
    """Each operand of a phase, and the columns before it."""
    sizes = [size for _, size in plan.operands]
    return [(name, sum(sizes[:k])) for k, (name, _) in enumerate(plan.operands)]


class Conservation(Elaboratable):
    """Elements that came and that left, and where in the engine those between are.

    Args:
        engine: a numbered one.
    """

    _MustUse__silence = True

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def elaborate(self, platform: object) -> Module:
        """Partners, counts, and a vector that is followed."""
        m = Module()
        self.fragment = Fragment.get(self.engine, None)
        m.submodules.engine = self.fragment
        engine, schedule = self.engine, self.engine.schedule
        layer, units, final = engine.layer, engine.layer.units, len(schedule.phases) - 1
        moves, leaves = produce(m, engine.i), consume(m, engine.o)
        place, complete = counter(m, moves, layer.inputs, "place")
        given = Signal(name="given")  # an output vector will come of the input vector that is complete
        m.d.comb += given.eq(complete if engine.every_step else complete & engine.i.payload.last)
        most = (schedule.slots + 2) * units + schedule.buffer + 2 * schedule.lanes

        # Elements that have to leave yet.
        owed = Signal(range(most + units + 1), name="owed")
        m.d.sync += owed.eq(owed + Mux(given, units, 0) - leaves)
        with m.If(engine.o.valid):
            m.d.comb += Assert(owed != 0, "nothing leaves that is not owed")
        m.d.comb += Assert(owed <= schedule.slots * units + schedule.buffer, "nothing is lost")
        see = lambda path, name: seen(self.fragment, path, name)  # noqa: E731
        drain, at = engine.drains[final], f"drain_{final}"
        stages = ElementWise.build(None, layer, final, "x", engine.timing).stored[layer.cell.output].stage
        valid = [see(at, "path_valid"), *(see(at, f"path_valid_{k}") for k in range(1, stages + 1))]
        flags = [see(at, "held"), *(drain.layout(see(at, f"path_flags_d{k}")) for k in range(1, stages + 1))]
        done = [see(at, f"done_{k}") for k in range(1, drain.sums_at + 1)]
        done_flags = [drain.layout(see(at, f"flags_{k}")) for k in range(1, drain.sums_at + 1)]
        flags = [drain.layout(Value.cast(each)) for each in flags]
        left, unit, credits = see(at, "left"), see(at, "unit"), see("", "credits")
        need = [see("front", "need")]
        for k in range(drain.sums_at):  # units of each group on its way
            later = Signal.like(need[-1], name=f"need_{k + 1}")
            m.d.sync += later.eq(need[-1])
            need.append(later)
        held, oldest, lasts = see("inputs", "held"), see("", "oldest"), see("inputs", "lasts")
        phase = see("front", "phase")
        group = see("front", "group")
        channel = see("front", "channel") if schedule.returns else Const(0)
        level = see("buffer.queue", "level")
        width = (4 * most).bit_length()

        def total(name: str, *terms: Any) -> Signal:
            signal = Signal(signed(width + 2), name=name)
            m.d.comb += signal.eq(sum(terms))
            return signal

        # The place of what comes next to each register in the row of elements that reach the path's end.
        rank = [total(f"rank_{k}", Const(0), *valid[k + 1 :]) for k in range(stages + 1)]
        rank_left = total("rank_left", *valid)
        waiting = [Mux(a, b, 0) for a, b in zip(done, need[1:], strict=True)]
        rank_done = [total(f"rank_done_{k}", rank_left, left, *waiting[k + 1 :]) for k in range(len(done))]
        rank_front = total("rank_front", rank_left, left, *waiting)
        ended = valid[-1]
        worked = total("worked", Mux(phase == final, group * schedule.phases[final].parallel, 0))
        unit_out = getattr(drain, layer.cell.output + "_unit")

        self._front(m, see)

        oldest_held = (oldest + Mux(phase == final, channel, 0))[: len(oldest)]
        # Every element of every vector, emitted or not, on its way from the input to the path's end.
        inside = Signal(range(most + units + 1), name="inside")
        m.d.sync += inside.eq(inside + Mux(complete, units, 0) - ended)
        m.d.comb += [
            Assert((place < layer.inputs) & (see("inputs", "count") == place), "columns are counted"),
            Assert(see("inputs", "into") == (oldest_held + held)[: len(oldest)], "slots are filled in turn"),
            Assert(inside == rank_front - worked + held * units, "each vector makes its elements"),
            Assert(unit_out < units, "there is such a unit"),
            Assert((unit_out + inside) % units == 0, "vectors end where they should"),
            Assert(unit == (unit_out + rank_left) % units, "units are counted alike at both ends of the path"),
        ]
        self._groups(m, see, done, need, left, unit, phase, final)
        # Credits are those that neither the queue nor the pipeline has taken.
        emits = lambda f: Const(1) if engine.every_step else f.emits  # noqa: E731
        promised = total(
            "promised", level, Mux(flags[0].emits, left, 0),
            *(v & f.emits for v, f in zip(valid, flags, strict=True)),
            *(Mux(f.emits, w, 0) for w, f in zip(waiting, done_flags, strict=True)),
        )  # fmt: skip
        inner, ready = see("buffer.queue", "inner_level"), see("buffer.queue", "r_rdy")
        m.d.comb += Assert((inner < max(schedule.buffer, 3)) & (level == inner + ready), "the queue counts right")
        m.d.comb += Assert(schedule.buffer - credits == promised, "a credit is out for each element on its way")
        slot = [(oldest_held + k)[: len(oldest)] for k in range(schedule.slots)]
        emitting = [(held > k) & (1 if engine.every_step else lasts.bit_select(s, 1)) for k, s in enumerate(slot)]
        to_issue = total("to_issue", *(Mux(e, units, 0) for e in emitting), -Mux(emitting[0], worked, 0))
        parallel = schedule.phases[final].parallel
        m.d.comb += [
            Assert(owed == to_issue + promised, "an element is owed for each that is not out"),
            Assert(~see("", "room") | (credits >= parallel), "room is for a group"),
            Assert(~see("buffer", "w_en") | see("buffer.queue", "w_rdy"), "the queue refuses nothing"),
            Assert(see("buffer", "w_en") == (ended & emits(flags[-1])), "what ends emits or does not"),
        ]

        if schedule.returns:  # vectors of one channel after the other, as a round has them
            count, turn = schedule.channels, Signal(range(schedule.channels), name="whose")
            m.d.comb += Assume(engine.i.payload.channel == turn)
            with m.If(complete):
                m.d.sync += turn.eq(Mux(turn == count - 1, 0, turn + 1))
            now = Mux(phase == final, channel, 0)
            names = Array(see("inputs", f"channel_{k}") for k in range(schedule.slots))
            m.d.comb += [
                Assert((channel < count) & (see("front", "repeats") == (channel != count - 1)), "channels are counted"),
                Assert(turn == (now + held) % count, "vectors take turns"),
                *(Assert((held <= k) | (names[s] == (now + k) % count), "in turn") for k, s in enumerate(slot)),
            ]

        stays = stages + 2  # from the first stage of the path to the queue's output
        distance = Const(0)
        for k in reversed(range(stages + 1)):
            distance = Mux(valid[k], stays - k, distance)
        distance = Mux(left != 0, stays + left, distance)
        for k in reversed(range(len(done))):
            distance = Mux(done[k], stays + need[k + 1] + len(done) - 1 - k, distance)
        drains = total("drains", promised, 2 * distance, (inner != 0) & ~ready)
        longest = schedule.buffer + 2 * (stays + parallel + len(done)) + 1
        group_costs = parallel + 2 * (stays + parallel + len(done))
        stalls = complete | (engine.o.valid & ~engine.o.ready)
        self._ends(m, see, stalls, held, channel, drains, longest, group_costs)

        # One arbitrary vector: its tags accompany its elements, and no others.
        follows, base = Signal(name="follows"), Signal(signed(width + 2), name="base")
        tag = Signal(drain.layout, name="tag")
        with m.If(complete & ~follows & free(m, 1, "this_one")):
            m.d.sync += [follows.eq(1), base.eq(inside - ended), tag.last_step.eq(engine.i.payload.last)]
            m.d.sync += tag.emits.eq(1 if engine.every_step else engine.i.payload.last)
            if engine.channels > 1:
                m.d.sync += tag.channel.eq(engine.i.payload.channel)
        with m.Elif(follows & ended & (base > -units)):
            m.d.sync += base.eq(base - 1)

        def same(f: Any) -> Value:
            result = (f.last_step == tag.last_step) & (f.emits == tag.emits)
            return result & (f.channel == tag.channel) if engine.channels > 1 else result

        def of_it(place: Value) -> Value:
            return follows & (base <= place) & (place < base + units)

        m.d.comb += Assert(~follows | (tag.emits == (1 if engine.every_step else tag.last_step)), "it emits or not")
        for v, f, place in [
            *zip(valid, flags, rank, strict=True), (left != 0, flags[0], rank_left),
            *zip(done, done_flags, rank_done, strict=True),
        ]:  # fmt: skip
            m.d.comb += Assert(~v | (f.emits == (1 if engine.every_step else f.last_step)), "what emits is what should")
            m.d.comb += Assert(~(v & of_it(place)) | same(f), "a vector's elements carry its own tags")
        shown = View(engine.o.signature.members["payload"].shape, see("buffer", "w_data"))
        with m.If(follows & of_it(Const(0)) & see("buffer", "w_en")):
            right = (shown.data.as_unsigned() == -base) & (shown.last == (tag.last_step & (base == 1 - units)))
            right = right & (shown.channel == tag.channel) if engine.channels > 1 else right
            m.d.comb += Assert(right & tag.emits, "its elements leave in order, last with the last")
        m.d.comb += Assert(~follows | (base == -units) | ((base >= -units) & (base + units <= inside)), "it is inside")
        m.d.comb += Assert(~follows | (base == -units) | ((base + unit_out) % units == 0), "it begins with unit 0")
        for k, s in enumerate(slot):
            here = follows & (held > k) & (base == rank_front - worked + k * units)
            m.d.comb += Assert(~here | (lasts.bit_select(s, 1) == tag.last_step), "its last waits with it")
            if engine.channels > 1:
                names = Array(see("inputs", f"channel_{slot}") for slot in range(schedule.slots))
                m.d.comb += Assert(~here | (names[s] == tag.channel), "its channel waits with it")
        return m

    def _groups(
        self, m: Module, see: Any, done: Any, need: Any, left: Any, unit: Any, phase: Any, final: int
    ) -> Signal:
        """A group has left the hold registers before the next one comes: it is no larger than it takes columns."""
        schedule, units, stages = self.engine.schedule, self.engine.layer.units, len(done)
        p = schedule.phases[final]
        least, holds = p.passes * p.columns, Signal(range(p.parallel + 1), name="need_held")
        with m.If(done[-1]):
            m.d.sync += holds.eq(need[-1])
        progress = self.progress[final]
        ahead = left
        for k in reversed(range(stages)):
            start = Signal(range(units + 1), name=f"start_{k}")
            m.d.comb += start.eq((unit + ahead) % units)
            size = Mux(start == units - p.last_group, p.last_group, p.parallel)
            others = [done[j] for j in range(stages) if k < j < k + least]
            m.d.comb += [
                Assert(~done[k] | ((need[k + 1] == size) & (start + size <= units)), "a group has as many units"),
                Assert(~done[k] | (progress <= k), "as many columns as cycles since"),
                *(Assert(~done[k] | ~other, "groups come one after the other") for other in others),
                Assert(~done[k] | (left == 0) | (stages + holds >= left + k + 1 + least), "they are far apart"),
            ]
            ahead = ahead + Mux(done[k], need[k + 1], 0)
        m.d.comb += Assert((left == 0) | (left < holds) & (progress < stages + holds - left), "the rest of a group")
        m.d.comb += Assert((unit + left) <= units, "no group goes past the last unit")
        m.d.comb += Assert(~done[-1] | (left == 0), "no group overwrites another")

    def _ends(
        self, m: Module, see: Any, stalls: Value, held: Value, channel: Value, drains: Value, longest: int, costs: int
    ) -> None:
        """A measure of the work left falls in every cycle without a stall: nothing waits for ever.

        Args:
            stalls: a vector came, or an output waits for the consumer.
            drains: falls in each other cycle, if no group is issued, until nothing is on its way to the output.
            longest: the most that it can be.
            costs: the most that a group adds to it.
        """
        schedule, final = self.engine.schedule, len(self.engine.schedule.phases) - 1
        phases, channels = schedule.phases, schedule.channels if schedule.returns else 1
        phase, group, room = see("front", "phase"), see("front", "group"), see("", "room")
        pause = max(p.gap + p.gap_column for p in phases)
        waiting = see("front", "waiting") if any(p.gap for p in phases) else Const(0)
        columns, starts = held * sum(p.cycles for p in phases), held * len(phases)
        for k, p in enumerate(phases):
            ahead = channels - (channel if k == final else 0)
            here = channel if k < final else 0
            before = sum(q.cycles for q in phases[:k])
            progress = group * p.passes * p.columns + self.progress[k]
            columns = columns - Mux(phase == k, ahead * before + here * p.cycles + progress, 0)
            starts = starts - Mux(phase == k, ahead * k + here, 0)
        groups = held * phases[final].groups - Mux(phase == final, group, 0)
        most = schedule.slots * (
            sum(p.cycles for p in phases) + len(phases) * pause + 2 * phases[final].groups * costs
        ) + pause + 2 * longest + 1  # fmt: skip
        rest, still = Signal(range(2 * most), name="rest"), Signal(range(most + 1), name="still")
        m.d.comb += rest.eq(columns + starts * pause + waiting + groups * 2 * costs + 2 * drains + ~room)
        with m.If(stalls):
            m.d.sync += still.eq(0)
        with m.Elif(still != most):
            m.d.sync += still.eq(still + 1)
        # Of a round that has begun, the next channel's vector has not come.
        lacks = (phase == 0) & (see("inputs", "coming") == 0) & (held != 0) if schedule.returns else Const(0)
        before, ran = Signal.like(rest, name="rest_before"), Signal(name="ran")
        m.d.sync += [before.eq(rest), ran.eq(~stalls & ~lacks & (rest != 0))]
        m.d.comb += Assert(~ran | (rest < before), "without stalls, work gets less in every cycle")
        m.d.comb += Assert(lacks | (rest == 0) | (still + rest <= most), "and comes to its end")
        ended = (held == 0) & (see("buffer.queue", "level") == 0)
        m.d.comb += Assert(lacks | (still != most) | ended, "then all has left, and the input is ready")

    def _front(self, m: Module, see: Any) -> None:
        """The front's counters are in their ranges, and the flags beside them say the truth."""
        phases = self.engine.schedule.phases
        source, column, column_ends = see("front", "source"), see("front", "column"), see("front", "column_ends")
        row_pass, group = see("front", "row_pass"), see("front", "group")
        pass_ends, group_ends = see("front", "pass_ends"), see("front", "group_ends")
        phase = see("front", "phase")
        #: of each phase, while it is worked: columns of the group that are issued
        self.progress = []
        for k, p in enumerate(phases):
            progress = Signal(range(p.passes * p.columns + 1), name=f"progress_{k}")
            sources = [n for n, (phase_of, _) in enumerate(columns_of(self.engine)) if phase_of == k]
            for n, (_, offset) in zip(sources, offsets_of(p), strict=True):
                with m.If(source == n):
                    m.d.comb += progress.eq(row_pass * p.columns + offset + column)
            self.progress.append(progress)
        # Vectors that wait for their first phase, and those between it and the end of their last.
        schedule, final = self.engine.schedule, len(phases) - 1
        channel = see("front", "channel") if schedule.returns else Const(0)
        between = Mux(phase == 0, channel, schedule.channels if schedule.returns else 1)
        between = between - Mux(phase == final, channel, 0) if final else Const(0)
        held, coming = see("inputs", "held"), see("inputs", "coming")
        m.d.comb += Assert(held == coming + between, "a vector that has begun is held to its end")
        m.d.comb += Assert(held <= schedule.slots, "no more vectors than slots")
        begins = (source == 0) & (column == 0) & (row_pass == 0) & (group == 0)
        m.d.comb += Assert((phase != 0) | (coming != 0) | begins, "work needs a vector")
        m.d.comb += Assert(source < len(columns_of(self.engine)), "there is such an operand")
        for n, (k, size) in enumerate(columns_of(self.engine)):
            p = phases[k]
            right = (
                (phase == k) & (column < size) & (row_pass < p.passes) & (group < p.groups)
                & (column_ends == (column == size - 1)) & (pass_ends == (row_pass == p.passes - 1))
                & (group_ends == (group == p.groups - 1))
            )  # fmt: skip
            m.d.comb += Assert((source != n) | right, "the front's flags say which column, pass and group is the last")


def conserved(*arguments: Any, **options: Any) -> Outcome:
    """By induction of one step: the assertions say enough."""
    return prove(AnyReset(Conservation(numbered(*arguments, **options))), memories="registers")


def broken(depth: int, base: Any, *arguments: Any) -> Outcome:
    """A planted fault, looked for in runs of so many steps."""
    design = Conservation(numbered(*arguments, base=base))
    return prove(design, mode="bmc", depth=depth, memories="registers")


#: cell, inputs, units, lanes, whether every step emits, channels: groups in passes, groups of unequal size, one group;
#: one phase and two; one channel, several, and several in two phases
ENGINES: list[tuple[Any, ...]] = [
    ("lstm", 1, 2, 1, False), ("lstm", 1, 2, 1, True), ("lstm", 2, 2, 8, True), ("lstm", 1, 3, 8, True, 3),
    ("lstm-peephole", 1, 2, 2, False), ("gru", 1, 2, 8, False, 2), ("gru", 2, 3, 2, True), ("gru", 1, 3, 6, True),
    ("gru-reset-before", 1, 2, 2, True), ("gru-reset-before", 1, 3, 2, True, 2), ("rnn", 1, 2, 2, True),
    ("mingru", 1, 3, 4, True), ("ligru", 2, 2, 1, False),
]  # fmt: skip

#: what each breaks, and the engine with it
FAULTS: dict[str, Callable[[], Any]] = {
    "the input does not wait for a slot": lambda: planted(
        Engine, "", "", InputVectors=planted(InputVectors, "self.i.ready.eq(~held[-1])", "self.i.ready.eq(1)")
    ),
    "a countdown stands still": lambda: planted(
        Engine, "", "", Front=planted(Front, "waiting.eq(waiting - 1)", "waiting.eq(waiting)")
    ),
    "a credit too many": lambda: planted(
        Engine,
        "credits = Signal(range(self.schedule.buffer + 1), init=self.schedule.buffer)",
        "credits = Signal(range(self.schedule.buffer + 2), init=self.schedule.buffer + 1)",
    ),
    "work begins before a vector is whole": lambda: planted(Engine, "go.eq((inputs.present | (", "go.eq((1 | ("),
    "last with every element": lambda: planted(
        Engine, "flags.last_step & (unit == self.layer.units - 1)", "flags.last_step"
    ),
    "last never": lambda: planted(Engine, "flags.last_step & (unit == self.layer.units - 1)", "0"),
    "every step emits": lambda: planted(Engine, "buffer.write.eq(valid & flags.emits)", "buffer.write.eq(valid)"),
    "no credit is taken": lambda: planted(Engine, "Mux(go & finishes, front.need, 0)", "0"),
    "a credit comes back with each offer": lambda: planted(
        Engine, "credits + buffer.taken", "credits + buffer.o.valid"
    ),
}

#: a step of it takes few cycles
SMALLEST = ("mingru", 1, 2, 4, False)


def described(arguments: tuple[Any, ...]) -> str:
    """The name of an engine."""
    cell, inputs, units, lanes, every, *channels = arguments
    words = f"{cell} of {inputs} inputs, {units} units, {lanes} lanes, {'every' if every else 'last'} step"
    return words + (f", {channels[0]} channels" if channels else "")


KIND = "engine: nothing lost, doubled, out of order or astray"

#: by name
PROOFS = {
    proof.name: proof
    for proof in [
        *(
            Proof(KIND, f"engine, {described(each)}", partial(conserved, *each), slow=n > 0)
            for n, each in enumerate(ENGINES)
        ),
        *(
            Proof(
                KIND, f"engine, fault: {name}", lambda fault=fault: broken(15, fault(), *SMALLEST), "refuted", slow=True
            )
            for name, fault in FAULTS.items()
        ),
    ]
}
