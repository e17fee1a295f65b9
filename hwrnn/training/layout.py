"""Where a layer's gates, operands and weights stand.

The operands of a phase are stacked above each other with a row of ones between the input and the rest, so one
matrix product gives a gate's whole pre-activation, bias included. Gates of a phase that read the same operands
are one *group* and one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from hwrnn.cells import Cell
from hwrnn.training.plan import View

__all__ = ["Group", "Layout"]


@dataclass(frozen=True)
class Group:
    """Gates of one phase that read the same operands.

    Attributes:
        matrix: the name of their matrix.
        rows: their pre-activations, rows of all gates.
        operands: the rows of the phase's stack that the matrix spans; where it spans an operand that the gates do not
            read, its weights there are zero for good.
        offset: where the matrix starts in the layer's vector of parameters.
    """

    matrix: str
    phase: int
    gates: tuple[str, ...]
    rows: View
    operands: View
    offset: int

    @property
    def size(self) -> int:
        """Entries of the matrix."""
        return self.rows.rows * self.operands.rows


@dataclass(frozen=True)
class Layout:
    """The layout of a cell at given sizes."""

    cell: Cell
    inputs: int
    units: int

    @cached_property
    def stacks(self) -> tuple[dict[str, tuple[int, int]], ...]:
        """For each phase, operand (and ``"b"``, the row of ones) to (first row, rows)."""
        stacks = []
        for phase in self.cell.phases:
            rows, stack = 0, {}
            names = [n for n in phase.operands if n == "x"] + ["b"] + [n for n in phase.operands if n != "x"]
            for name in names:
                size = {"x": self.inputs, "b": 1}.get(name, self.units)
                stack[name] = (rows, size)
                rows += size
            stacks.append(stack)
        return tuple(stacks)

    def stack_rows(self, phase: int) -> int:
        """Rows of a phase's stack of operands."""
        return sum(size for _, size in self.stacks[phase].values())

    @cached_property
    def gates(self) -> tuple[str, ...]:
        """All gates in the order of their rows: phase by phase, groups so that an operand's readers lie close."""
        order: list[str] = []
        for phase in self.cell.phases:
            groups: dict[tuple[str, ...], list[str]] = {}
            for gate, reads in phase.gates.items():
                groups.setdefault(tuple(sorted(reads)), []).append(gate)

            def spread(choice: tuple[tuple[str, ...], ...], groups: dict[tuple[str, ...], list[str]] = groups) -> int:
                gates = [(gate, reads) for reads in choice for gate in groups[reads]]
                total = 0
                for operand in {o for reads in choice for o in reads}:
                    at = [k for k, (_, reads) in enumerate(gates) if operand in reads]
                    total += (at[-1] - at[0] + 1) * (1 if operand == "x" else 2)  # the loop multiplies with the others
                return total

            best = min(permutations(groups), key=spread) if len(groups) <= 6 else tuple(groups)
            order += [gate for reads in best for gate in groups[reads]]
        return tuple(order)

    def gate(self, name: str) -> View:
        """The rows of a gate's pre-activation."""
        return View("a", self.gates.index(name) * self.units, self.units)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups in the order of their rows."""
        groups: list[Group] = []
        offset = 0
        for k, phase in enumerate(self.cell.phases):
            chosen: dict[frozenset[str], list[str]] = {}
            for gate in self.gates:
                if gate in phase.gates:
                    chosen.setdefault(frozenset(phase.gates[gate]), []).append(gate)
            for reads, gates in chosen.items():
                spans = [self.stacks[k][o] for o in (*reads, "b")]
                start, end = min(s for s, _ in spans), max(s + n for s, n in spans)
                rows = View("a", self.gates.index(gates[0]) * self.units, len(gates) * self.units)
                operands = View(f"z{k}", start, end - start)
                groups.append(Group(f"w{len(groups)}", k, tuple(gates), rows, operands, offset))
                offset += groups[-1].size
        return tuple(groups)

    @property
    def size(self) -> int:
        """Entries of the layer's vector of parameters."""
        return sum(g.size for g in self.groups)

    def block(self, gate: str, operand: str) -> np.ndarray:
        """Where a gate's weights of an operand (``"b"`` for its biases) stand in the vector: int64 (units, size)."""
        group = next(g for g in self.groups if gate in g.gates)
        start, size = self.stacks[group.phase][operand]
        columns = np.arange(size) + start - group.operands.start
        rows = np.arange(self.units) + group.gates.index(gate) * self.units
        return group.offset + rows[:, None] * group.operands.rows + columns

    def parameter(self, name: str) -> np.ndarray:
        """Where ``Layer.parameters[name]`` stands in the vector, int64 of its shape."""
        k, operand = name.split(".")
        phase = self.cell.phases[int(k)]
        rows = tuple(phase.gates) if operand == "b" else phase.rows(operand)
        index = np.concatenate([self.block(gate, operand) for gate in rows])
        return index[:, 0] if operand == "b" else index

    def readers(self, phase: int, operand: str) -> View:
        """The rows of pre-activations from an operand's first reader to its last."""
        at = [self.gates.index(gate) for gate in self.cell.phases[phase].rows(operand)]
        return View("a", min(at) * self.units, (max(at) - min(at) + 1) * self.units)

    def transpose(self, phase: int, operand: str) -> np.ndarray:
        """Indices of the operand's weights transposed, (size, rows of ``readers``); -1 where there is none."""
        view = self.readers(phase, operand)
        index = np.full((self.stacks[phase][operand][1], view.rows), -1)
        for gate in self.cell.phases[phase].rows(operand):
            start = self.gates.index(gate) * self.units - view.start
            index[:, start : start + self.units] = self.block(gate, operand).T
        return index
