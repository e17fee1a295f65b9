"""The engine: one layer, element by element, step by step.

The front issues one column a cycle: the address of an operand and of a word of weights. It alone can wait: for an
input vector, for a state that is still draining, for room at the output. What it has issued runs through the lanes
and the element-wise path without any enable.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hwrnn.quantization import QuantizedLayer
from hwrnn.rtl.delay import delayed
from hwrnn.rtl.drain import Drain
from hwrnn.rtl.elementwise import depth_of
from hwrnn.rtl.front import Front
from hwrnn.rtl.lanes import Lanes, factors
from hwrnn.rtl.ports import OutputBuffer, Part, element, shape
from hwrnn.rtl.schedule import Schedule, plan
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.trace import trace

__all__ = ["Engine", "schedule_of"]


def schedule_of(layer: QuantizedLayer, lanes: int, timing: Timing = SHORTEST) -> Schedule:
    """The schedule of a layer within a budget of lanes.

    Raises:
        UsageError: a budget below 1.
    """
    mac = timing.mac(*(shape.width for shape in factors(layer)))
    return plan(layer.cell, layer.inputs, layer.units, lanes, depth_of(layer, timing), mac)


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
        weights: what memories they get, of ``hwrnn.rtl.weights.WEIGHTS``.

    Ports:
        i: stream of input elements, ``last`` with the last element of a sequence's last vector.
        o: stream of output elements, likewise.

    Raises:
        UsageError: a budget below 1.
    """

    def __init__(
        self,
        layer: QuantizedLayer,
        lanes: int,
        every_step: bool = True,
        probed: bool = False,
        timing: Timing = SHORTEST,
        weights: str = "auto",
    ) -> None:
        self.layer, self.every_step, self.timing = layer, every_step, timing
        self.schedule = schedule_of(layer, lanes, timing)
        self.lanes = Lanes(layer, self.schedule, timing, weights)
        self.drains = tuple(Drain(layer, k, p, self.lanes) for k, p in enumerate(self.schedule.phases))
        lines = trace(layer.cell)
        self.input_format, self.output_format = layer.formats.values["x"], layer.output
        self._vectors = tuple(name for name in layer.cell.operands if name != "x")
        self._by_unit = tuple(dict.fromkeys(name for drain in self.drains for name in drain.read_back))
        #: stored value to the name of its probe port
        self.probes = {}
        if probed:
            names = (*(f"a.{gate}" for gate in layer.cell.gates), *lines.stores)
            self.probes = {name: "probe_" + name.replace(".", "_") for name in names}
        ports: dict[str, Any] = {
            "i": In(stream.Signature(element(self.input_format))),
            "o": Out(stream.Signature(element(self.output_format))),
        }
        for name, port in self.probes.items():
            ports |= {port: Out(shape(layer.formats.values[name])), f"{port}_valid": Out(1)}
        super().__init__(ports)

    @property
    def cycles_per_step(self) -> int:
        """Cycles of a time step in steady state."""
        return self.schedule.cycles_per_step

    @property
    def latency(self) -> int:
        """Cycles from the last input element's transfer to the last output element's, the engine idle before."""
        return self.schedule.latency

    @property
    def multipliers(self) -> int:
        """Multipliers built: the lanes and those of the element-wise paths."""
        products = sum(op.kind == "mul" for op in trace(self.layer.cell).operations)
        return self.schedule.lanes + products

    @property
    def ideal_cycles_per_step(self) -> float:
        """Multiplications of a step over the lanes built."""
        return self.layer.multiplications / self.schedule.lanes

    @property
    def memory_bits(self) -> int:
        """Bits of all memories: weights, biases, input and state vectors, unit values, output buffer."""
        values, units = self.layer.formats.values, self.layer.units
        bits = self.lanes.memory_bits + 2 * self.layer.inputs * self.input_format.width
        bits += sum((1 + self._banked(name)) * units * values[name].width for name in self._vectors)
        bits += sum(units * values[name].width for name in self._by_unit)
        return bits + self.schedule.buffer * (self.output_format.width + 1)

    def _banked(self, name: str) -> bool:
        """Whether an operand vector is written while the same time step still reads the old one."""
        return name in self.layer.cell.states

    def elaborate(self, platform: object) -> Module:
        """Input banks, front, operands, lanes, drains, output buffer."""
        m = Module()
        layer, values = self.layer, self.layer.formats.values
        m.submodules.front = front = Front(self.schedule)
        m.submodules.lanes = lanes = self.lanes
        m.submodules.buffer = buffer = OutputBuffer(self.output_format, self.schedule.buffer)
        wiring.connect(m, buffer.o, wiring.flipped(self.o))
        depth = 2 << _bits(layer.inputs)
        m.submodules.inputs = inputs = Memory(shape=shape(self.input_format), depth=depth, init=[])
        memories = {"x": inputs}
        for name in self._vectors:
            depth = (1 + self._banked(name)) << _bits(layer.units)
            memories[name] = Memory(shape=shape(values[name]), depth=max(depth, 2), init=[])
            m.submodules[f"vector_{name}"] = memories[name]

        names = ("bank", "state_bank", "last_step", "emits", "go", "finishes")
        bank, state_bank, last_step, emits, go, finishes = (Signal(name=name) for name in names)
        full, ends = Signal(2, name="full"), Signal(2, name="ends")
        first = Signal(init=1)  # the step is the first of its sequence
        self._fill(m, inputs, full, ends)
        # Room at the output is promised when a group's last column is issued.
        credits = Signal(range(self.schedule.buffer + 1), init=self.schedule.buffer)
        room = Signal(init=1)
        final = len(self.drains) - 1
        most = self.schedule.phases[final].parallel
        m.d.comb += [
            last_step.eq(Mux(bank, ends[1], ends[0])),
            emits.eq(1 if self.every_step else last_step),
            finishes.eq(getattr(front, f"done_{final}") & emits),
            go.eq(Mux(bank, full[1], full[0]) & front.settled & (room | ~finishes)),
            front.go.eq(go),
        ]
        m.d.sync += credits.eq(credits + buffer.taken - Mux(go & finishes, front.need, 0))
        # Decided a cycle early, for one whole group that this cycle may reserve and another one.
        m.d.sync += room.eq(credits >= 2 * most)
        with m.If(go & front.ends_step):
            m.d.sync += [bank.eq(~bank), state_bank.eq(~state_bank), first.eq(last_step)]
            m.d.sync += full.bit_select(bank, 1).eq(0)

        m.d.comb += [
            lanes.issue.eq(go),
            lanes.restart.eq(front.ends_step),
            lanes.start.eq(front.start),
            lanes.second.eq(front.second),
            lanes.operand.eq(self._operand(m, front, memories, bank, state_bank, first)),
        ]

        if lanes.needs_place:
            m.d.comb += [lanes.row_pass.eq(front.row_pass), lanes.phase.eq(front.phase)]

        by_unit = {}
        for name in self._by_unit:
            by_unit[name] = Memory(shape=shape(values[name]), depth=max(layer.units, 2), init=[])
            m.submodules[f"unit_{name}"] = by_unit[name]
        for k, drain in enumerate(self.drains):
            m.submodules[f"drain_{k}"] = drain
            m.d.comb += [
                drain.done.eq(go & getattr(front, f"done_{k}")),
                Cat(drain.first, drain.emits, drain.last_step, drain.bank).eq(Cat(first, emits, last_step, state_bank)),
            ]
            for q in range(drain.plan.passes - 1):
                m.d.comb += getattr(drain, f"done_{q}").eq(go & getattr(front, f"done_{k}_{q}"))
            for port in drain.signature.members:
                if port.startswith(("sum_", "first_")):
                    m.d.comb += getattr(drain, port).eq(getattr(lanes, port))
            for name in drain.read_back:
                read = by_unit[name].read_port()
                m.d.comb += [read.addr.eq(drain.unit), getattr(drain, f"old_{name}").eq(read.data)]
            for name in drain.stored:
                self._distribute(m, drain, name, by_unit, memories, buffer)
        return m

    def _fill(self, m: Module, inputs: Memory, full: Signal, ends: Signal) -> None:
        """Take input elements into the bank that is free."""
        count, into = Signal(range(max(self.layer.inputs, 2)), name="count"), Signal(name="into")
        write = inputs.write_port()
        m.d.comb += [
            self.i.ready.eq(~Mux(into, full[1], full[0])),
            write.addr.eq(Cat(count[: _bits(self.layer.inputs)], into)),
            write.data.eq(self.i.payload.data),
            write.en.eq(self.i.valid & self.i.ready),
        ]
        with m.If(self.i.valid & self.i.ready):
            with m.If(count == self.layer.inputs - 1):
                m.d.sync += [count.eq(0), into.eq(~into)]
                m.d.sync += [full.bit_select(into, 1).eq(1), ends.bit_select(into, 1).eq(self.i.payload.last)]
            with m.Else():
                m.d.sync += count.eq(count + 1)

    def _operand(
        self, m: Module, front: Front, memories: dict[str, Memory], bank: Signal, state_bank: Signal, first: Signal
    ) -> Signal:
        """The operand in cycle ``1 + timing.memory``: read, chosen, kept; shifted to where the products meet."""
        data = {}
        for name, memory in memories.items():
            read = memory.read_port()
            column = front.column[: _bits(self.layer.size_of(name))]
            at = bank if name == "x" else state_bank
            m.d.comb += read.addr.eq(Cat(column, at) if name == "x" or self._banked(name) else column)
            data[name] = read.data
        source, started = delayed(m, front.source, 1, "source"), delayed(m, first, 1, "first")
        chosen = Signal(self.lanes.operand_shape, name="operand")
        with m.Switch(source):
            for n, (k, name) in enumerate(front.sources):
                with m.Case(n):
                    shifted = data[name] << self.layer.formats.shifts[k, name]
                    m.d.comb += chosen.eq(Mux(started, 0, shifted) if self._banked(name) else shifted)
        for k in range(self.timing.memory):
            register = Signal(self.lanes.operand_shape, name=f"operand_{k + 1}", reset_less=True)
            m.d.sync += register.eq(chosen)
            chosen = register
        return chosen

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
        if name in by_unit:
            write = by_unit[name].write_port()
            m.d.comb += [write.addr.eq(unit), write.data.eq(value), write.en.eq(valid)]
        if name in vectors:
            write = vectors[name].write_port()
            low = unit[: _bits(self.layer.units)]
            address = Cat(low, ~flags.bank) if self._banked(name) else low
            m.d.comb += [write.addr.eq(address), write.data.eq(value), write.en.eq(valid)]
        if name == self.layer.cell.output:
            m.d.comb += [
                buffer.write.eq(valid & flags.emits),
                buffer.payload.data.eq(value),
                buffer.payload.last.eq(flags.last_step & (unit == self.layer.units - 1)),
            ]
        if name in self.probes:
            m.d.comb += getattr(self, self.probes[name]).eq(value)
            m.d.comb += getattr(self, self.probes[name] + "_valid").eq(valid)


def _bits(size: int) -> int:
    """Address bits of a vector."""
    return max(size - 1, 0).bit_length()
