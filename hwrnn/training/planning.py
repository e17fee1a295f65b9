"""From a cell at given sizes, and perhaps formats, to its plan."""

from __future__ import annotations

from dataclasses import replace

from hwrnn.cells import Cell
from hwrnn.training.adjoint import Adjoint
from hwrnn.training.forward import Forward
from hwrnn.training.layout import Layout
from hwrnn.training.lowering import lower
from hwrnn.training.plan import FormatsLike, Plan, View, join_blocks

__all__ = ["make_plan"]

def make_plan(cell: Cell, inputs: int, units: int, formats: FormatsLike | None = None) -> Plan:
    """The plan of a layer.

    Args:
        cell: what to compute.
        inputs, units: sizes.
        formats: where given, the forward pass rounds and saturates as the integer machine does.
    """
    layout = Layout(cell, inputs, units)
    forward = Forward(layout, lower(cell, formats))
    adjoint = Adjoint(forward)
    before, step = join_blocks(forward.before), join_blocks(forward.step)
    backward = [*adjoint.coefficients, *adjoint.reverse, *adjoint.after]
    output = forward.at[forward.lowered.stores[cell.output]]
    assert isinstance(output, View)  # what a cell stores is computed, so it has a place
    kept = {v.buffer for op in backward for v in op.reads} | {v.buffer for op in before for v in op.writes}
    kept |= {output.buffer, *(v.buffer for places in forward.places.values() for v in places)}
    buffers = {
        name: buffer if name in kept or name.startswith("z") else replace(buffer, steps=None)
        for name, buffer in forward.buffers.items()
    }
    stacks = [(f"z{k}", stack) for k, stack in enumerate(layout.stacks)]
    return Plan(
        recurrent=bool(cell.states),
        buffers={**buffers, **adjoint.buffers},
        before=tuple(before),
        step=tuple(step),
        coefficients=tuple(adjoint.coefficients),
        reverse=tuple(adjoint.reverse),
        after=tuple(adjoint.after),
        inputs=tuple(View(z, *stack["x"]) for z, stack in stacks if "x" in stack),
        output=output,
        output_gradient=adjoint.output_gradient,
        input_gradient=adjoint.input_gradient,
        ones=tuple(View(z, *stack["b"]) for z, stack in stacks),
        carried=tuple(adjoint.carried.values()),
        starts={s: tuple(replace(v, shift=0) for v in forward.places[s] if v.shift) for s in cell.states},
        matrices={g.matrix: (g.rows.rows, g.operands.rows) for g in layout.groups},
        transposes=adjoint.transposes,
    )

