"""The drain of a phase: finished rows wait side by side and pass the element-wise path one unit a cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hwrnn.quantization import QuantizedLayer
from hwrnn.rtl.delay import delayed
from hwrnn.rtl.elementwise import ElementWise
from hwrnn.rtl.lanes import Lanes
from hwrnn.rtl.ports import Part, shape
from hwrnn.rtl.schedule import PhasePlan
from hwrnn.trace import trace

__all__ = ["Drain", "flags_of"]


def flags_of(channels: int) -> data.StructLayout:
    """What a time step's columns carry to the end of the path."""
    tag = {"channel": range(channels)} if channels > 1 else {}
    return data.StructLayout({"first": 1, "emits": 1, "last_step": 1, "bank": 1, **tag})


class Drain(Part):
    """Hold registers and element-wise path of phase ``index``.

    Ports:
        done, done_Q: as the front shows them with the column that ends a group, or its pass Q, in cycle 0.
        first, emits, last_step, bank: the flags of that column; and its channel, where there are several.
        sum_N, first_N: of the lanes, in cycle ``schedule.mac - 1``.
        unit: the unit that enters the path in the next cycle, to address old values; ``of`` is its channel.
        old_NAME: what the path reads back, a cycle after ``unit``; start_NAME, at the same time: what a state starts
            with, where that is not zero.
        NAME: a stored value (``a_GATE``: a pre-activation), with NAME_valid, NAME_unit and NAME_flags beside it.
    """

    def __init__(self, layer: QuantizedLayer, index: int, p: PhasePlan, lanes: Lanes) -> None:
        self.layer, self.index, self.plan = layer, index, p
        self.timing, self.sums_at = lanes.timing, lanes.schedule.mac - 1
        self.layout = flags_of(lanes.schedule.channels)
        lines = trace(layer.cell)
        values = layer.formats.values
        self.stored = (*(f"a.{gate}" for gate in p.phase.gates), *lines.stored_in(index))
        self.olds = lines.olds_of(index)
        self.read_back = (*self.olds, *lines.crossing(index))
        self.unit_shape = range(max(layer.units, 2))
        ports: dict[str, Any] = {"done": In(1), "unit": Out(self.unit_shape)}
        ports |= {flag: In(form) for flag, form in self.layout.members.items()}
        if "channel" in self.layout.members:
            ports["of"] = Out(self.layout.members["channel"])
        ports |= {f"done_{q}": In(1) for q in range(p.passes - 1)}
        ports |= {f"sum_{n}": In(lanes.sum_shape) for n in range(p.lanes)}
        ports |= {f"first_{n}": In(lanes.sum_shape) for n in range(p.lanes) if hasattr(lanes, f"first_{n}")}
        ports |= {f"old_{name}": In(shape(values[name])) for name in self.read_back}
        self.starts = tuple(name for name in self.olds if layer.start(name).any())
        ports |= {f"start_{name}": In(shape(values[name])) for name in self.starts}
        for name in self.stored:
            port = name.replace(".", "_")
            ports[port] = Out(shape(values[name]))
            ports[f"{port}_valid"] = Out(1)
            ports[f"{port}_unit"] = Out(self.unit_shape)
            ports[f"{port}_flags"] = Out(self.layout)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """One unit leaves the hold registers in every cycle while a group drains."""
        m = Module()
        self._units: dict[int, Signal] = {}
        p, units = self.plan, self.layer.units
        path = ElementWise.build(m, self.layer, self.index, "path", self.timing)
        done = delayed(m, self.done, self.sums_at, "done", reset=True)
        flags = delayed(m, Cat(getattr(self, flag) for flag in self.layout.members), self.sums_at, "flags")
        left = Signal(range(max(p.parallel, 2)))
        active = Signal()
        m.d.comb += active.eq(done | (left != 0))
        size: Any = p.parallel - 1
        if p.last_group != p.parallel:
            size = Mux(self.unit == units - p.last_group, p.last_group - 1, p.parallel - 1)
        with m.If(active):
            m.d.sync += self.unit.eq(Mux(self.unit == units - 1, 0, self.unit + 1))
            m.d.sync += left.eq(Mux(done, size, left - 1))
        sums = self._sums(m, path)
        for gate, signal in path.gates.items():
            hold = [Signal(signal.shape(), name=f"hold_{gate}_{u}", reset_less=True) for u in range(p.parallel)]
            for u, register in enumerate(hold):
                following = hold[u + 1] if u + 1 < p.parallel else register
                m.d.sync += register.eq(Mux(done, sums[u, gate], following))
            m.d.comb += signal.eq(hold[0])
        held = Signal(self.layout, reset_less=True)
        valid = Signal(name="path_valid")
        m.d.sync += valid.eq(active)
        with m.If(done):
            m.d.sync += held.eq(flags)
        if "channel" in self.layout.members:
            m.d.comb += self.of.eq(Mux(done, self.layout(flags).channel, held.channel))
        for name in self.read_back:
            value = getattr(self, f"old_{name}")
            # The first step of a sequence reads the initial state instead of the memory.
            start = getattr(self, f"start_{name}") if name in self.starts else 0
            m.d.comb += path.olds[name].eq(Mux(held.first, start, value) if name in self.olds else value)
        pipeline = path.pipeline
        flags_0 = Signal(len(held.as_value()), name="path_flags")
        m.d.comb += flags_0.eq(held.as_value())
        valids = [valid]
        for stage in range(path.depth):
            later = Signal(name=f"path_valid_{stage + 1}")
            m.d.sync += later.eq(valids[-1])
            valids.append(later)
        for name in self.stored:
            port, wire = name.replace(".", "_"), path.stored[name]
            m.d.comb += [
                getattr(self, port).eq(wire.raw.value),
                getattr(self, f"{port}_valid").eq(valids[wire.stage]),
                getattr(self, f"{port}_unit").eq(self._unit_at(m, wire.stage, valids[wire.stage])),
                getattr(self, f"{port}_flags").eq(pipeline.delayed(flags_0, wire.stage)),
            ]
        return m

    def _unit_at(self, m: Module, stage: int, valid: Signal) -> Signal:
        """The unit at a stage of the path: they pass in order, so one counter says it and nothing is carried along."""
        if stage not in self._units:
            unit = self._units[stage] = Signal(self.unit_shape, name=f"path_unit_{stage}")
            with m.If(valid):
                m.d.sync += unit.eq(Mux(unit == self.layer.units - 1, 0, unit + 1))
        return self._units[stage]

    def _sums(self, m: Module, path: ElementWise) -> dict[tuple[int, str], Any]:
        """Each gate's sum of each unit of a group as its last pass ends; rows of earlier passes were kept."""
        p, sums = self.plan, {}
        for q in range(p.passes):
            passed = None
            if q < p.passes - 1:
                passed = delayed(m, getattr(self, f"done_{q}"), self.sums_at, f"done_{q}", reset=True)
            for lane in range(p.lanes):
                row = q * p.rows_per_pass + lane % p.rows_per_pass
                if row >= len(p.rows):
                    continue
                gates = p.rows[row]
                ready = {gates[-1]: getattr(self, f"sum_{lane}")}
                if len(gates) > 1:
                    ready[gates[0]] = getattr(self, f"first_{lane}")
                for gate, value in ready.items():
                    if passed is not None:
                        kept = Signal(path.gates[gate].shape(), name=f"kept_{gate}_{lane}", reset_less=True)
                        with m.If(passed):
                            m.d.sync += kept.eq(value)
                        value = kept
                    sums[lane // p.rows_per_pass, gate] = value
        return sums
