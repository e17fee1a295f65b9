"""The derivatives that the reverse loop multiplies with, as expressions over forward values.

They depend on nothing that flows backward, so they are computed on all time steps at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hwrnn.activations import Smooth
from hwrnn.training.forward import Forward
from hwrnn.training.plan import Buffer, Op, View

__all__ = ["Coefficients", "Expression", "edges"]

#: ``("number", c)``, ``("value", node)``, ``("slope", node)``, ``("add" | "sub" | "mul", a, b)``, and
#: ``("mask", a, node)``, which is ``a`` where a clip let its argument through, else zero.
Expression = tuple[Any, ...]
_ONE: Expression = ("number", 1.0)


def _mul(a: Expression, b: Expression) -> Expression:
    if a[0] == b[0] == "number":
        return ("number", a[1] * b[1])
    if a == _ONE:
        return b
    return a if b == _ONE else ("mul", a, b)


def _negative(a: Expression) -> Expression:
    return _mul(("number", -1.0), a)


def _add(a: Expression, b: Expression) -> Expression:
    if a[0] == b[0] == "number":
        return ("number", a[1] + b[1])
    for first, second in ((a, b), (b, a)):
        if second[:2] == ("mul", ("number", -1.0)):
            return ("sub", first, second[2])
    return ("add", a, b)


def edges(forward: Forward, sources: Mapping[str, int], source: int) -> dict[tuple[str, str], Expression]:
    """What a source depends on directly, ``("gate" | "old" | "source", name)``, to its derivative.

    Each is the sum over all paths that pass through no other source.

    Args:
        sources: name to node, of all sources.
        source: the node of the one to differentiate.
    """
    nodes = forward.lowered.nodes
    stops = {at: name for name, at in sources.items() if at != source}
    adjoint: dict[int, Expression] = {source: _ONE}
    found: dict[tuple[str, str], Expression] = {}

    def give(index: int, expression: Expression) -> None:
        adjoint[index] = _add(adjoint[index], expression) if index in adjoint else expression

    def value(index: int) -> Expression:
        place = forward.at[index]
        return ("value", index) if isinstance(place, View) else ("number", place)

    for index in range(source, -1, -1):
        if index not in adjoint:
            continue
        node, here = nodes[index], adjoint[index]
        if node.kind in ("gate", "old"):
            found[node.kind, node.name] = here
        elif index in stops:
            found["source", stops[index]] = here
        elif node.kind in ("store", "round"):  # the gradient passes a rounding straight through
            give(node.args[0], here)
        elif node.kind == "clip":
            give(node.args[0], ("mask", here, index))
        elif node.kind == "apply":
            give(node.args[0], _mul(here, ("slope", index)))
        elif node.kind in ("add", "sub"):
            give(node.args[0], here)
            give(node.args[1], here if node.kind == "add" else _negative(here))
        elif node.kind == "mul":
            a, b = node.args
            give(a, _mul(here, value(b)))
            give(b, _mul(here, value(a)))
    return found


def _parts(expression: Expression) -> list[Expression]:
    return [part for part in expression[1:] if isinstance(part, tuple)]


class Coefficients:
    """The operations that compute some expressions: each common part once, in as few buffers as their lives allow.

    Attributes:
        ops: in order.
        places: expression to its view or number.
        buffers: that the results and the parts need.
    """

    def __init__(self, forward: Forward, roots: list[Expression]) -> None:
        self.forward, self.kept = forward, set(roots)
        self.ops: list[Op] = []
        self.places: dict[Expression, View | float] = {}
        self.buffers: dict[str, Buffer] = {}
        self._free: list[View] = []
        self._uses: Counter[Expression] = Counter()
        pending, seen = list(dict.fromkeys(roots)), set[Expression]()
        while pending:
            expression = pending.pop()
            if expression not in seen:
                seen.add(expression)
                self._uses.update(_parts(expression))
                pending += _parts(expression)
        for root in roots:
            self._compute(root)

    def _compute(self, expression: Expression) -> View | float:
        if expression not in self.places:
            self.places[expression] = self._computed(expression)
        return self.places[expression]

    def _computed(self, expression: Expression) -> View | float:
        kind, at = expression[0], self.forward.at
        if kind == "number":
            return float(expression[1])
        if kind == "value":
            return at[expression[1]]
        if kind == "slope" and expression[1] in self.forward.slopes:
            return self.forward.slopes[expression[1]]
        args = [self._compute(part) for part in _parts(expression)]
        function = None
        if kind == "mask":
            clip = self.forward.lowered.nodes[expression[2]]
            args += [at[clip.args[0]], at[expression[2]]]
        elif kind == "slope":
            node = self.forward.lowered.nodes[expression[1]]
            function = node.function
            assert isinstance(function, Smooth)
            args = [at[expression[1] if function.slope_from_input is None else node.args[0]]]
        for part in _parts(expression):
            self._release(part)
        out = self._free.pop() if self._free and expression not in self.kept else self._new(expression)
        self.ops.append(Op(kind, out, tuple(args), function))
        return out

    def _new(self, expression: Expression) -> View:
        name = f"{'c' if expression in self.kept else 'part'}{len(self.buffers)}"
        units = self.forward.layout.units
        self.buffers[name] = Buffer(name, units)
        return View(name, 0, units)

    def _release(self, expression: Expression) -> None:
        self._uses[expression] -= 1
        view = self.places[expression]
        over = not self._uses[expression] and expression not in self.kept
        if over and isinstance(view, View) and view.buffer in self.buffers:
            self._free.append(view)
