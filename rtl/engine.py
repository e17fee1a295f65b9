"""The engine: one layer, element by element, step by step.

The front issues one column a cycle: the address of an operand and of a word of weights. It alone can wait: for an
input vector, for a state that is still draining, for room at the output. What it has issued runs through the lanes
and the element-wise path without any enable.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hwrnn.quantization import QuantizedLayer
from hwrnn.rtl.delay import delayed
from hwrnn.rtl.drain import Drain
from hwrnn.rtl.elementwise import depth_of
from hwrnn.rtl.front import Front
from hwrnn.rtl.inputs import InputVectors
from hwrnn.rtl.lanes import Lanes, factors
from hwrnn.rtl.memories import address_bits, unit_depth, vector_depth
from hwrnn.rtl.ports import OutputBuffer, Part, element, shape
from hwrnn.rtl.protection import check_protect, with_decoder
from hwrnn.rtl.schedule import MOST_CHANNELS, Schedule, plan
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.trace import trace

__all__ = ["Engine", "schedule_of"]


def schedule_of(layer: QuantizedLayer, lanes: int, timing: Timing = SHORTEST, channels: int = 1) -> Schedule:
    """The schedule of a layer within a budget of lanes.

    Raises:
        UsageError: a budget below 1, or channels out of their range.
    """
    mac = timing.mac(*factors(layer))
    return plan(layer.cell, layer.inputs, layer.units, lanes, depth_of(layer, timing), mac, channels)


class Engine(Part):
    """One layer as a stream component.

    In steady state a time step takes ``cycles_per_step`` cycles, and a single one ``latency`` cycles from the transfer
    of its last input element to that of its last output element; both are exact.

    Args:
        layer: of a quantized model.
        lanes: the budget of multipliers, at least 1.
        every_step: whether the output leaves at every step, or at the last of a sequence only.
        probed: whether every stored value gets ports ``probe_NAME`` and ``probe_NAME_valid`` (a pre-activation's name
            is ``a_GATE``); values appear in the order of steps and units.
        timing: where registers stand; values and their order do not depend on it.
        channels: independent sequences, each with its own state, whose vectors take turns: one of each channel makes a
            round. A layer without state takes them in any order.
        weights: what memories they get, of ``hwrnn.rtl.weights.WEIGHTS``.
        protect: check bits of their words, of ``hwrnn.rtl.protection.PROTECTIONS``; correcting adds to ``timing``.

    Ports:
        i: stream of input elements, ``last`` with the last element of a sequence's last vector; with several channels,
            each element tells its own.
        o: stream of output elements, likewise.
        fault_detected, fault_corrected: of protected memories: a cycle for each word that was read wrong, the latter
            (of SECDED only) for those that were corrected.

    Raises:
        UsageError: a budget below 1, or channels out of their range.
    """

    def __init__(
        self,
        layer: QuantizedLayer,
        lanes: int,
        every_step: bool = True,
        probed: bool = False,
        timing: Timing = SHORTEST,
        channels: int = 1,
        weights: str = "auto",
        protect: str = "none",
    ) -> None:
        self.protect, timing = check_protect(protect), with_decoder(timing, protect)
        self.layer, self.every_step, self.timing, self.channels = layer, every_step, timing, channels
        self.schedule = schedule_of(layer, lanes, timing, channels)
        self.lanes = Lanes(layer, self.schedule, timing, weights, protect)
        #: ports that tell of flipped bits, by those of the lanes
        self.faults = {name: f"fault_{name}" for name in self.lanes.told}
        self.drains = tuple(Drain(layer, k, p, self.lanes) for k, p in enumerate(self.schedule.phases))
        lines = trace(layer.cell)
        self.input_format, self.output_format = layer.formats.values["x"], layer.output
        self._vectors = tuple(name for name in layer.cell.operands if name != "x")
        self._by_unit = tuple(dict.fromkeys(name for drain in self.drains for name in drain.read_back))
        #: states that do not start at zero, with the raw value of each unit
        self.starts = {name: layer.start(name).tolist() for name in layer.cell.states if layer.start(name).any()}
        #: stored value to the name of its probe port
        self.probes = {}
        if probed:
            names = (*(f"a.{gate}" for gate in layer.cell.gates), *lines.stores)
            self.probes = {name: "probe_" + name.replace(".", "_") for name in names}
        ports: dict[str, Any] = {
            "i": In(stream.Signature(element(self.input_format, channels))),
            "o": Out(stream.Signature(element(self.output_format, channels))),
        }
        for name, port in self.probes.items():
            ports |= {port: Out(shape(layer.formats.values[name])), f"{port}_valid": Out(1)}
        ports |= {port: Out(1) for port in self.faults.values()}
        super().__init__(ports)

    @property
    def cycles_per_step(self) -> int:
        """Cycles of one channel's time step in steady state."""
        return self.schedule.cycles_per_step

    @property
    def latency(self) -> int:
        """Cycles from the last input element's transfer to the last output element's, the engine idle before."""
        return self.schedule.latency

    @property
    def channels_without_waiting(self) -> int:
        """The fewest channels with which the engine never waits for a state, and every lane works in every cycle."""
        counts = range(1, MOST_CHANNELS + 1)
        return next(n for n in counts if not any(p.gap for p in self._schedule(n).phases))

    def _schedule(self, channels: int) -> Schedule:
        return schedule_of(self.layer, self.schedule.budget, self.timing, channels)

    @property
    def multipliers(self) -> int:
        """Multipliers built: those of the lanes, which two may share, and of the element-wise paths."""
        products = sum(op.kind == "mul" for op in trace(self.layer.cell).operations)
        return self.lanes.multipliers + products

    @property
    def products_per_multiplier(self) -> float:
        """Multiplications a cycle and multiplier of the lanes, in steady state."""
        return self.layer.multiplications / (self.lanes.multipliers * self.cycles_per_step)

    @property
    def ideal_cycles_per_step(self) -> float:
        """Multiplications of a step over the lanes built."""
        return self.layer.multiplications / self.schedule.lanes

    @property
    def memory_bits(self) -> int:
        """Bits of all memories: weights, biases, input and state vectors, unit values, starts, output buffer."""
        values, units = self.layer.formats.values, self.layer.units
        bits = self.lanes.memory_bits + self.schedule.slots * self.layer.inputs * self.input_format.width
        states = sum((1 + self._banked(name)) * units * values[name].width for name in self._vectors)
        states += sum(units * values[name].width for name in self._by_unit)
        bits += sum(units * values[name].width for name in self.starts)
        return bits + self.channels * states + self.schedule.buffer * element(self.output_format, self.channels).size

    def _banked(self, name: str) -> bool:
        """Whether an operand vector is written while the same time step still reads the old one."""
        return name in self.layer.cell.states

    def _old(self, phase: int, name: str) -> bool:
        """Whether an operand of a phase is the state before the step, not what an earlier phase of it stored."""
        return self._banked(name) and not any(name in drain.stored for drain in self.drains[:phase])

    def elaborate(self, platform: object) -> Module:
        """Input banks, front, operands, lanes, drains, output buffer."""
        m = Module()
        layer, values = self.layer, self.layer.formats.values
        m.submodules.front = front = Front(self.schedule)
        m.submodules.lanes = lanes = self.lanes
        m.submodules.buffer = buffer = OutputBuffer(self.output_format, self.schedule.buffer, self.channels)
        wiring.connect(m, buffer.o, wiring.flipped(self.o))
        slots = self.schedule.slots
        m.submodules.inputs = inputs = InputVectors(self.input_format, layer.inputs, self.channels, slots)
        wiring.connect(m, wiring.flipped(self.i), inputs.i)
        memories = {}
        for name in self._vectors:
            depth = vector_depth(layer, name, self.channels)
            memories[name] = Memory(shape=shape(values[name]), depth=depth, init=[])
            m.submodules[f"vector_{name}"] = memories[name]
        starts = {}
        for name, raw in self.starts.items():
            starts[name] = Memory(shape=shape(values[name]), depth=max(layer.units, 2), init=raw)
            m.submodules[f"start_{name}"] = starts[name]

        names = ("state_bank", "last_step", "emits", "go", "finishes")
        state_bank, last_step, emits, go, finishes = (Signal(name=name) for name in names)
        firsts = Signal(self.channels, name="firsts", init=(1 << self.channels) - 1)
        first = Signal()  # the step is the first of its sequence
        oldest = Signal(range(slots))  # of a round's vectors; with one phase of those that wait
        channel = [inputs.channel] if self.channels > 1 else []
        round_ends = inputs.channel == self.channels - 1 if self.channels > 1 else Const(1)
        began = front.phase_over & (front.phase == 0)
        m.d.comb += [
            first.eq(Array(firsts)[channel[0]] if channel else firsts),
            inputs.column.eq(front.column),
            inputs.slot.eq(oldest + front.channel if front.in_turn else oldest),
            inputs.begun.eq(go & began),
            inputs.released.eq(go & front.ends_step),
        ]
        # Room at the output is promised when a group's last column is issued.
        credits = Signal(range(self.schedule.buffer + 1), init=self.schedule.buffer)
        room = Signal(init=1)
        final = len(self.drains) - 1
        most = self.schedule.phases[final].parallel
        m.d.comb += [
            last_step.eq(inputs.last),
            emits.eq(1 if self.every_step else last_step),
            finishes.eq(getattr(front, f"done_{final}") & emits),
            go.eq((inputs.present | (front.phase != 0)) & front.settled & (room | ~finishes)),
            front.go.eq(go),
        ]
        m.d.sync += credits.eq(credits + buffer.taken - Mux(go & finishes, front.need, 0))
        # Decided a cycle early, for one whole group that this cycle may reserve and another one.
        m.d.sync += room.eq(credits >= 2 * most)
        with m.If(go & front.ends_step):
            if not front.in_turn:
                m.d.sync += oldest.eq(oldest + 1)
            with m.If(round_ends):
                m.d.sync += state_bank.eq(~state_bank)
                if front.in_turn:
                    m.d.sync += oldest.eq(oldest + self.channels)
            m.d.sync += (firsts.bit_select(channel[0], 1) if channel else firsts).eq(last_step)
        if front.in_turn:
            following = Mux(front.phase == len(self.drains) - 1, 0, front.phase + 1)
            m.d.comb += lanes.base.eq(Mux(front.repeats, front.phase, following))

        m.d.comb += [
            lanes.issue.eq(go),
            lanes.restart.eq(front.phase_over if front.in_turn else front.ends_step),
            lanes.start.eq(front.start),
            lanes.second.eq(front.second),
            lanes.operand.eq(self._operand(m, front, inputs.data, memories, starts, Cat(state_bank, *channel), first)),
        ]

        m.d.comb += [getattr(self, port).eq(getattr(lanes, name)) for name, port in self.faults.items()]
        if lanes.needs_place:
            m.d.comb += [lanes.row_pass.eq(front.row_pass), lanes.phase.eq(front.phase)]

        by_unit = {}
        for name in self._by_unit:
            depth = unit_depth(layer, self.channels)
            by_unit[name] = Memory(shape=shape(values[name]), depth=depth, init=[])
            m.submodules[f"unit_{name}"] = by_unit[name]
        for k, drain in enumerate(self.drains):
            m.submodules[f"drain_{k}"] = drain
            m.d.comb += [
                drain.done.eq(go & getattr(front, f"done_{k}")),
                Cat(drain.first, drain.emits, drain.last_step, drain.bank).eq(Cat(first, emits, last_step, state_bank)),
            ]
            if channel:
                m.d.comb += drain.channel.eq(channel[0])
            for q in range(drain.plan.passes - 1):
                m.d.comb += getattr(drain, f"done_{q}").eq(go & getattr(front, f"done_{k}_{q}"))
            for port in drain.signature.members:
                if port.startswith(("sum_", "first_")):
                    m.d.comb += getattr(drain, port).eq(getattr(lanes, port))
            for name in drain.read_back:
                read = by_unit[name].read_port()
                place = self._place(drain.unit, [drain.of] if channel else [])
                m.d.comb += [read.addr.eq(place), getattr(drain, f"old_{name}").eq(read.data)]
                if name in starts and name in drain.olds:
                    start = starts[name].read_port()
                    m.d.comb += [start.addr.eq(drain.unit), getattr(drain, f"start_{name}").eq(start.data)]
            for name in drain.stored:
                self._distribute(m, drain, name, by_unit, memories, buffer)
        return m

    def _place(self, unit: Value, channel: list[Value]) -> Value:
        """The address of a unit's value of a channel."""
        return Cat(unit[: address_bits(self.layer.units)], *channel) if channel else unit

    def _operand(
        self,
        m: Module,
        front: Front,
        x: Signal,
        memories: dict[str, Memory],
        starts: dict[str, Memory],
        where: Value,
        first: Signal,
    ) -> Signal:
        """The operand in cycle ``1 + timing.memory``: read, chosen, kept; shifted to where the products meet.

        Args:
            x: the input element.
            memories: of the operand vectors.
            starts: of what states start with, where that is not zero.
            where: bank of the state, and channel above it.
        """
        data, initial = {"x": x}, dict[str, Value]()
        for name, memory in memories.items():
            read = memory.read_port()
            column = front.column[: address_bits(self.layer.size_of(name))]
            if self._banked(name):
                m.d.comb += read.addr.eq(Cat(column, self._bank(front, name, where[0]), where[1:]))
            else:
                m.d.comb += read.addr.eq(Cat(column, where[1:]))
            data[name] = read.data
            if name in starts:
                start = starts[name].read_port()
                m.d.comb += start.addr.eq(column)
                initial[name] = start.data
        source, started = delayed(m, front.source, 1, "source"), delayed(m, first, 1, "first")
        chosen = Signal(self.lanes.operand_shape, name="operand")
        with m.Switch(source):
            for n, (k, name) in enumerate(front.sources):
                with m.Case(n):
                    shifted = data[name] << self.layer.formats.shifts[k, name]
                    if self._old(k, name):
                        begin = initial[name] << self.layer.formats.shifts[k, name] if name in initial else 0
                        shifted = Mux(started, begin, shifted)
                    m.d.comb += chosen.eq(shifted)
        for k in range(self.timing.memory):
            register = Signal(self.lanes.operand_shape, name=f"operand_{k + 1}", reset_less=True)
            m.d.sync += register.eq(chosen)
            chosen = register
        return chosen

    def _bank(self, front: Front, name: str, old: Value) -> Value:
        """The bank of a state that the column issued reads: what this step has stored already is in the other one."""
        news = [n for n, (k, operand) in enumerate(front.sources) if operand == name and not self._old(k, name)]
        return old ^ front.source.matches(*news) if news else old

    def _distribute(
        self,
        m: Module,
        drain: Drain,
        name: str,
        by_unit: dict[str, Memory],
        vectors: dict[str, Memory],
        buffer: OutputBuffer,
    ) -> None:
        """Bring a stored value to whatever reads it."""
        port = name.replace(".", "_")
        value, valid = getattr(drain, port), getattr(drain, f"{port}_valid")
        unit, flags = getattr(drain, f"{port}_unit"), getattr(drain, f"{port}_flags")
        channel = [flags.channel] if self.channels > 1 else []
        if name in by_unit:
            write = by_unit[name].write_port()
            m.d.comb += [write.addr.eq(self._place(unit, channel)), write.data.eq(value), write.en.eq(valid)]
        if name in vectors:
            write = vectors[name].write_port()
            bank = [~flags.bank] if self._banked(name) else []
            address = Cat(unit[: address_bits(self.layer.units)], *bank, *channel)
            m.d.comb += [write.addr.eq(address), write.data.eq(value), write.en.eq(valid)]
        if name == self.layer.cell.output:
            m.d.comb += [
                buffer.write.eq(valid & flags.emits),
                buffer.payload.data.eq(value),
                buffer.payload.last.eq(flags.last_step & (unit == self.layer.units - 1)),
            ]
            if channel:
                m.d.comb += buffer.payload.channel.eq(channel[0])
        if name in self.probes:
            m.d.comb += getattr(self, self.probes[name]).eq(value)
            m.d.comb += getattr(self, self.probes[name] + "_valid").eq(valid)
