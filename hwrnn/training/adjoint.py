"""The backward part of a plan.

Every local derivative depends on forward values only. So for each value that the loop over time hands on (a
*source*: a state, a stored operand, the output) the derivative with respect to whatever it depends on
directly, pre-activations, old states and other sources, is one coefficient: the sum over all paths between them.
The coefficients are computed on all time steps at once; the reverse loop only multiplies with them.
"""

from __future__ import annotations

from hwrnn.training.coefficients import Coefficients, edges
from hwrnn.training.forward import Forward
from hwrnn.training.plan import Buffer, Op, View

__all__ = ["Adjoint"]

class Adjoint:
    """Operations of the backward pass in order; ``buffers`` are those that it adds."""

    def __init__(self, forward: Forward) -> None:
        self.forward, self.layout, self.lowered = forward, forward.layout, forward.lowered
        units, cell = self.layout.units, self.layout.cell
        self.buffers: dict[str, Buffer] = {}
        self.reverse: list[Op] = []
        self.after: list[Op] = []
        self.transposes: dict[str, tuple[int, str]] = {}
        operands = {o for stack in self.layout.stacks for o in stack if o not in ("x", "b")}
        self.sources = {n: k for n, k in self.lowered.stores.items() if n in {*cell.states, cell.output, *operands}}
        self.edges = {name: edges(forward, self.sources, at) for name, at in self.sources.items()}
        self.written: set[View] = set()
        self.consumed: set[str] = set()
        self._new("d", len(self.layout.gates) * units, 0)
        self.output_gradient = self._new("e", units, 0)
        self.carried = {
            name: self._new(f"carry_{name}", units, None)
            for name in cell.states
            if name in {o for found in self.edges.values() for kind, o in found if kind == "old"}
            or any(name in s and not forward.operand_is_new(k, name) for k, s in enumerate(self.layout.stacks))
        }
        coefficients = Coefficients(forward, [e for found in self.edges.values() for e in found.values()])
        self.buffers.update(coefficients.buffers)
        self.coefficients, self.places = coefficients.ops, coefficients.places
        for phase in reversed(range(len(cell.phases))):
            stored = [n for n, at in self.sources.items() if self.lowered.nodes[at].phase == phase]
            for name in reversed(stored):
                self._source(name)
            for operand in self.layout.stacks[phase]:
                if operand not in ("x", "b"):
                    self._operand(phase, operand)
        self._after()

    def _new(self, name: str, rows: int, steps: int | None) -> View:
        self.buffers.setdefault(name, Buffer(name, rows, steps))
        return View(name, 0, rows)

    def _give(self, target: View, coefficient: View | float, gradient: View) -> None:
        """Add ``coefficient * gradient`` to a target of this step."""
        first = target not in self.written
        self.written.add(target)
        if coefficient == 1.0:
            self.reverse.append(Op("copy" if first else "add", target, (gradient,) if first else (target, gradient)))
        elif first:
            self.reverse.append(Op("mul", target, (coefficient, gradient)))
        else:
            part = self._new("m", target.rows, None)
            self.reverse += [Op("mul", part, (coefficient, gradient)), Op("add", target, (target, part))]

    def _carry(self, name: str) -> View:
        """Where to leave what flows to the step before; what came from the step behind is fetched from it first."""
        if name not in self.consumed:
            self.consumed.add(name)
            self._give(self._new(f"g_{name}", self.layout.units, None), 1.0, self.carried[name])
        return self.carried[name]

    def _source(self, name: str) -> None:
        gradient = self._new(f"g_{name}", self.layout.units, None)
        parts: list[View] = [gradient] if gradient in self.written else []
        if name in self.carried and name not in self.consumed:
            self.consumed.add(name)
            parts.append(self.carried[name])
        if name == self.layout.cell.output:
            parts.append(self.output_gradient)
        if not parts:
            return  # nothing that is learnt from depends on it
        if len(parts) == 1 and parts != [gradient]:
            self.reverse.append(Op("copy", gradient, (parts[0],)))
        total = parts[0]
        for part in parts[1:]:
            self.reverse.append(Op("add", gradient, (total, part)))
            total = gradient
        self.written.add(gradient)
        for (kind, target), expression in self.edges[name].items():
            coefficient = self.places[expression]
            if kind == "gate":
                row = self.layout.gate(target)
                self._give(View("d", row.start, row.rows), coefficient, gradient)
            elif kind == "source":
                self._give(self._new(f"g_{target}", self.layout.units, None), coefficient, gradient)
            else:
                self._give(self._carry(target), coefficient, gradient)

    def _transposed(self, phase: int, operand: str) -> tuple[str, View]:
        self.transposes[f"t{phase}_{operand}"] = (phase, operand)
        rows = self.layout.readers(phase, operand)
        return f"t{phase}_{operand}", View("d", rows.start, rows.rows)

    def _operand(self, phase: int, operand: str) -> None:
        """What flows back through the weights into a stored operand."""
        matrix, rows = self._transposed(phase, operand)
        new = self.forward.operand_is_new(phase, operand)
        target = self._new(f"g_{operand}", self.layout.units, None) if new else self._carry(operand)
        if target in self.written:
            part = self._new("m", target.rows, None)
            self.reverse += [Op("product", part, (rows,), matrix=matrix), Op("add", target, (target, part))]
        else:
            self.reverse.append(Op("product", target, (rows,), matrix=matrix))
            self.written.add(target)

    def _after(self) -> None:
        for group in self.layout.groups:
            rows = View("d", group.rows.start, group.rows.rows)
            self.after.append(Op("gradient", None, (rows, group.operands), matrix=group.matrix))
        self.input_gradient = self._new("dx", self.layout.inputs, 0)
        first = True
        for phase, stack in enumerate(self.layout.stacks):
            if "x" in stack:
                matrix, rows = self._transposed(phase, "x")
                out = self.input_gradient if first else self._new("dx2", self.layout.inputs, 0)
                self.after.append(Op("product", out, (rows,), matrix=matrix))
                if not first:
                    self.after.append(Op("add", self.input_gradient, (self.input_gradient, out)))
                first = False
