"""The forward part of a plan: where every value of a cell stands, and the operations that put it there."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwrnn.activations import PiecewiseLinear
from hwrnn.training.layout import Layout
from hwrnn.training.lowering import Lowered, Node
from hwrnn.training.plan import Buffer, Op, View

__all__ = ["Forward"]

_UNARY = ("clip", "round", "apply")


@dataclass
class Forward:
    """Places of values, and operations in order.

    Attributes:
        at: for each node its view, or its number where it is a constant.
        slopes: node of a piecewise-linear function to the view of its slope.
        buffers: by name.
        before, step: operations on all steps at once, and of one step.
    """

    layout: Layout
    lowered: Lowered
    at: list[View | float] = field(default_factory=list)
    slopes: dict[int, View] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    before: list[Op] = field(default_factory=list)
    step: list[Op] = field(default_factory=list)

    def __post_init__(self) -> None:
        layout, nodes = self.layout, self.lowered.nodes
        self._new("a", len(layout.gates) * layout.units)
        self.places = {name: self._places(name) for name in self.lowered.stores}
        for k in range(len(layout.stacks)):
            shifted = any(v.buffer == f"z{k}" and v.shift for places in self.places.values() for v in places)
            self._new(f"z{k}", layout.stack_rows(k), 1 if shifted else 0)
        self.destinations = self._destinations()
        self.recurrent = [False] * len(nodes)
        self.taken: set[View] = set()
        begun: set[int] = set()
        for index, node in enumerate(nodes):
            if node.kind == "gate" and node.phase not in begun:
                begun.add(node.phase)
                self._products(node.phase)
            self._emit(index, node)

    def _new(self, name: str, rows: int, steps: int | None = 0) -> None:
        self.buffers.setdefault(name, Buffer(name, rows, steps))

    def operand_is_new(self, phase: int, name: str) -> bool:
        """Whether a phase's operand is the value that an earlier phase of the same step stored."""
        at = self.lowered.stores.get(name)
        return at is not None and self.lowered.nodes[at].phase < phase

    def _places(self, name: str) -> list[View]:
        """Where a stored value must stand: its home first, then copies; empty where anywhere will do."""
        places = []
        for k, stack in enumerate(self.layout.stacks):
            if name in stack and name not in ("x", "b"):
                shift = 0 if self.operand_is_new(k, name) else 1
                places.append(View(f"z{k}", *stack[name], shift))
        places.sort(key=lambda view: -view.shift)
        if name in self.layout.cell.states and not (places and places[0].shift):
            self._new(f"s_{name}", self.layout.units, 1)
            places.insert(0, View(f"s_{name}", 0, self.layout.units, 1))
        return places

    def old(self, name: str) -> View:
        """Where the state that a step starts from stands."""
        home = self.places[name][0]
        return View(home.buffer, home.start, home.rows, 0)

    def _destinations(self) -> dict[int, View]:
        """Nodes that are stored right away, to the home of what they are stored as."""
        found: dict[int, View] = {}
        for name, at in self.lowered.stores.items():
            (arg,) = self.lowered.nodes[at].args
            made = self.lowered.nodes[arg].kind in (*_UNARY, "add", "sub", "mul")
            if self.places[name] and made and arg not in found:
                found[arg] = self.places[name][0]
        return found

    def _products(self, phase: int) -> None:
        for group in self.layout.groups:
            if group.phase == phase:
                recurrent = any(o != "x" for o in self.layout.cell.phases[phase].gates[group.gates[0]])
                for gate in group.gates:
                    self.recurrent[self.lowered.gates[gate]] = recurrent
                op = Op("product", group.rows, (group.operands,), matrix=group.matrix)
                (self.step if recurrent else self.before).append(op)

    def _emit(self, index: int, node: Node) -> None:
        args = tuple(self.at[a] for a in node.args)
        if node.kind == "gate":
            self.at.append(self.layout.gate(node.name))
            return
        if node.kind == "old":
            self.at.append(self.old(node.name))
            self.recurrent[index] = True
            return
        if node.kind == "constant":
            self.at.append(node.value)
            return
        self.recurrent[index] = any(self.recurrent[a] for a in node.args)
        ops = self.step if self.recurrent[index] else self.before
        if node.kind == "store":
            places = self.places[node.name]
            if places and self.destinations.get(node.args[0]) != places[0]:
                ops.append(Op("copy", places[0], args))
            ops += [Op("copy", copy, (places[0],)) for copy in places[1:]]
            self.at.append(places[0] if places else args[0])
            return
        out = self.destinations.get(index) or self._fresh(index, node, args)
        slope = None
        if node.kind == "apply" and isinstance(node.function, PiecewiseLinear):
            slope = View(f"slope_{out.buffer}", out.start, out.rows, 0)
            self._new(slope.buffer, self.buffers[out.buffer].rows)
            self.slopes[index] = slope
        ops.append(Op(node.kind, out, args, node.function, node.bounds, node.frac, slope=slope))
        self.at.append(out)

    def _fresh(self, index: int, node: Node, args: tuple[View | float, ...]) -> View:
        """A place for a new value; one that a gate alone makes stands in the gate's rows, next to its neighbours'."""
        read = [arg for arg in args if isinstance(arg, View)]
        if len(read) == 1 and read[0].buffer.startswith("a"):
            source = read[0]
            view = View(f"a{int(source.buffer[1:] or 0) + 1}", source.start, source.rows)
            if view not in self.taken:
                self.taken.add(view)
                self._new(view.buffer, self.buffers["a"].rows)
                return view
        self._new(f"v{index}", self.layout.units)
        return View(f"v{index}", 0, self.layout.units)
