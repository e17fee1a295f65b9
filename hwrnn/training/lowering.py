"""A cell's trace brought down to the operations that training computes.

Fixed-point formats become a rounding and a saturation. A clipped line that alone reads a pre-activation gives its
slope and intercept to the weights, so that only the clip is left: the pre-activation is then *folded*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.cells import Cell
from hwrnn.trace import Trace, trace
from hwrnn.training.plan import FormatsLike

__all__ = ["Lowered", "Node", "lower"]


@dataclass(frozen=True)
class Node:
    """One value; ``args`` index the list of nodes.

    Kinds: ``gate``, ``old``, ``constant``, ``add``, ``sub``, ``mul``, ``clip``, ``round``, ``apply``, ``store``.
    """

    kind: str
    args: tuple[int, ...] = ()
    name: str = ""
    function: Nonlinearity | None = None
    value: float = 0.0
    bounds: tuple[float | None, float | None] = (None, None)
    frac: int = 0
    phase: int = 0


@dataclass(frozen=True)
class Lowered:
    """The nodes of a cell in order of evaluation.

    Attributes:
        gates, stores, olds: name to node.
        folded: gate to (slope, intercept): its node is ``slope * pre-activation + intercept``.
    """

    nodes: tuple[Node, ...]
    gates: Mapping[str, int]
    stores: Mapping[str, int]
    olds: Mapping[str, int]
    folded: Mapping[str, tuple[float, float]]


class _Lowering:
    def __init__(self, lines: Trace, formats: FormatsLike | None) -> None:
        self.lines, self.formats = lines, formats
        self.nodes: list[Node] = []
        self.at: dict[int, int] = {}  # operation of the trace -> node
        self.gates: dict[str, int] = {}
        self.stores: dict[str, int] = {}
        self.olds: dict[str, int] = {}
        self.folded: dict[str, tuple[float, float]] = {}

    def emit(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def quantized(self, index: int, name: str, phase: int) -> int:
        """The value rounded and saturated to the format of ``name``, where there are formats."""
        if self.formats is None:
            return index
        form = self.formats.values[name]
        index = self.emit(Node("round", (index,), frac=form.frac, phase=phase))
        return self.emit(Node("clip", (index,), bounds=(form.min, form.max), phase=phase))

    def run(self) -> None:
        for k, op in enumerate(self.lines.operations):
            args = tuple(self.at[a] for a in op.args)
            if op.kind == "gate":
                self.gates[op.name] = self.emit(Node("gate", name=op.name, phase=op.phase))
                self.at[k] = self.quantized(self.gates[op.name], f"a.{op.name}", op.phase)
            elif op.kind == "old":
                self.at[k] = self.olds[op.name] = self.emit(Node("old", name=op.name))
            elif op.kind == "store":
                index = self.quantized(args[0], op.name, op.phase)
                self.at[k] = self.stores[op.name] = self.emit(Node("store", (index,), op.name, phase=op.phase))
            elif op.kind == "apply":
                self.at[k] = self.applied(k, args[0])
            else:
                self.at[k] = self.emit(Node(op.kind, args, value=op.value, phase=op.phase))

    def applied(self, k: int, arg: int) -> int:
        op = self.lines.operations[k]
        function, phase = op.function, op.phase
        line = function.as_clip() if isinstance(function, PiecewiseLinear) else None
        if line is None:
            return self.emit(Node("apply", (arg,), function=function, phase=phase))
        slope, intercept = float(line[0]), float(line[1])
        bounds = tuple(None if b is None else float(b) for b in line[2])
        node = self.nodes[arg]
        if node.kind == "gate" and len(self.lines.readers(op.args[0])) == 1:
            self.folded[node.name] = (slope, intercept)
        else:
            for kind, value, neutral in (("mul", slope, 1.0), ("add", intercept, 0.0)):
                if value != neutral:
                    constant = self.emit(Node("constant", value=value, phase=phase))
                    arg = self.emit(Node(kind, (arg, constant), phase=phase))
        if bounds == (None, None):
            return arg
        return self.emit(Node("clip", (arg,), bounds=(bounds[0], bounds[1]), phase=phase))


def lower(cell: Cell, formats: FormatsLike | None = None) -> Lowered:
    """The nodes of a cell, with rounding and saturation wherever there is a format."""
    lowering = _Lowering(trace(cell), formats)
    lowering.run()
    return Lowered(tuple(lowering.nodes), lowering.gates, lowering.stores, lowering.olds, lowering.folded)
