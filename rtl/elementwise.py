"""The element-wise path: the cell's lines behind the accumulators, one unit a cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from amaranth.hdl import Module, Signal

from hwrnn.cells import Values
from hwrnn.quantization import QuantizedLayer
from hwrnn.rtl.activation import Applied, as_stored, is_table
from hwrnn.rtl.numbers import Pipeline, Wire, shape_of
from hwrnn.rtl.ports import shape
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.trace import trace

__all__ = ["ElementWise", "depth_of", "gate_interval", "units_of"]


def gate_interval(layer: QuantizedLayer, gate: str) -> tuple[int, int]:
    """The interval of a gate's accumulator with the rounding half that its bias carries."""
    half = rounding_half(layer, gate)
    lo, hi = layer.accumulators[gate]
    return lo, hi + half


def rounding_half(layer: QuantizedLayer, gate: str) -> int:
    """Half a step of the gate's pre-activation in the accumulator's units; rounding is then a mere floor."""
    dropped = layer.formats.bias_frac[gate] - layer.formats.values[f"a.{gate}"].frac
    return 1 << (dropped - 1) if dropped > 0 else 0


@dataclass
class ElementWise:
    """One phase's path, built into a module.

    Attributes:
        pipeline: its registers.
        gates: accumulators by gate, to be driven at stage 0.
        olds: old states and values of earlier phases by name, to be driven at stage 0.
        stored: every stored value and pre-activation by name: its signal and the stage at which it exists.
        units: ``table`` or ``lines`` by stored value, where a nonlinearity makes it that is no clipped line.
        depth: the stage of the last stored value.
    """

    pipeline: Pipeline
    gates: dict[str, Signal] = field(default_factory=dict)
    olds: dict[str, Signal] = field(default_factory=dict)
    stored: dict[str, Wire] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Stages from the accumulators to the last stored value."""
        return max(wire.stage for wire in self.stored.values())

    @classmethod
    def build(
        cls, m: Module | None, layer: QuantizedLayer, index: int, prefix: str, timing: Timing = SHORTEST
    ) -> ElementWise:
        """Add the path of phase ``index`` to ``m``; with None only its stages are found."""
        cell, formats = layer.cell, layer.formats
        lines, phase = trace(cell), cell.phases[index]
        path = cls(Pipeline(m, prefix, timing))
        pipeline = path.pipeline

        def keep(name: str, value: Wire) -> Wire:
            path.stored[name] = value
            return value

        def store(name: str, value: Wire) -> Wire:
            form = formats.values[name]
            if isinstance(value, Applied):
                path.units[name] = "table" if is_table(value, form) else "lines"
            return keep(name, as_stored(value, form).named(name.replace(".", "_")))

        def pre_activation(gate: str) -> Wire:
            lo, hi = gate_interval(layer, gate)
            signal = path.gates[gate] = Signal(shape_of(lo, hi), name=f"{prefix}_sum_{gate}")
            form = formats.values[f"a.{gate}"]
            total = pipeline.input(signal, formats.bias_frac[gate], lo, hi)
            point = total.floored(form.frac) if total.frac > form.frac else total.aligned(form.frac)
            return keep(f"a.{gate}", point.saturated(form).named(f"a_{gate}"))

        state: dict[str, Wire] = {}
        for name in (*lines.olds_of(index), *lines.crossing(index)):
            form = formats.values[name]
            signal = path.olds[name] = Signal(shape(form), name=f"{prefix}_old_{name}")
            state[name] = pipeline.input(signal, form.frac, form.lo, form.hi)
        sums: Mapping[str, Wire] = {gate: pre_activation(gate) for gate in phase.gates}
        getattr(cell, phase.combine)(Values(sums), Values(state, store))
        return path


def depth_of(layer: QuantizedLayer, timing: Timing = SHORTEST) -> tuple[int, ...]:
    """Stages of each phase's path."""
    return tuple(ElementWise.build(None, layer, k, "x", timing).depth for k in range(len(layer.cell.phases)))


def units_of(layer: QuantizedLayer, timing: Timing = SHORTEST) -> dict[str, str]:
    """How each stored value's nonlinearity is built, ``table`` or ``lines``; clipped lines are not told."""
    phases = range(len(layer.cell.phases))
    return {k: v for n in phases for k, v in ElementWise.build(None, layer, n, "x", timing).units.items()}
