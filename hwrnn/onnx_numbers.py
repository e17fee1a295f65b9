"""Graph values as numbers: a cell's lines that run over them write ONNX nodes.

:class:`Graph` collects nodes and initializers. :class:`FloatNode` computes as ``Model`` does, in float32; the exact
number of a quantized model is ``hwrnn.onnx_integers.Node``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.clipping import ClippedLines, ClippedSmooth
from hwrnn.errors import UsageError

__all__ = ["BOOL", "DOUBLE", "FLOAT", "INT64", "FloatNode", "Graph", "Wire", "looked_up"]

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
INT64, BOOL = TensorProto.INT64, TensorProto.BOOL

_DTYPES: dict[int, Any] = {
    FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64, TensorProto.INT8: np.int8, TensorProto.UINT8: np.uint8,
}  # fmt: skip
_KINDS: dict[int, str] = {FLOAT: "float", DOUBLE: "double"}


@dataclass(frozen=True)
class Wire:
    """A value of the graph: its name and its ONNX element type."""

    name: str
    kind: int


class Graph:
    """Nodes and initializers in the order in which they are asked for; equal constants become one.

    Attributes:
        scope: what the names of nodes and unnamed values begin with.
        narrowest: the narrowest element type that carries exact integers.
        reach: the largest integer that had to be carried so far.
        inside: whether nodes go to the body of a Scan now.
    """

    def __init__(self) -> None:
        self.scope = ""
        self.narrowest: int = DOUBLE
        self.reach = 0
        self.inside = False
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._constants: dict[tuple[int, tuple[int, ...], bytes], Wire] = {}
        self._labels: dict[str, int] = {}
        self._count = 0

    def op(
        self, operator: str, *inputs: Wire | None, kind: int | None = None, name: str = "", **attributes: Any
    ) -> Wire:
        """One node with one output, of the kind of its first input unless ``kind`` says otherwise."""
        return self.ops(operator, *inputs, names=(name,), kind=kind, **attributes)[0]

    def ops(
        self, operator: str, *inputs: Wire | None, names: Sequence[str], kind: int | None = None, **attributes: Any
    ) -> list[Wire]:
        """One node with an output for each of ``names``; an empty name is made up."""
        first = inputs[0] if inputs else None
        if kind is None:
            assert first is not None
            kind = first.kind
        self._count += 1
        label = f"{self.scope}{operator}_{self._count}"
        outputs = [Wire(name or (label if len(names) == 1 else f"{label}_{k}"), kind) for k, name in enumerate(names)]
        self.nodes.append(
            helper.make_node(
                operator, [w.name if w else "" for w in inputs], [w.name for w in outputs], label, **attributes
            )
        )
        return outputs

    def cast(self, wire: Wire, kind: int) -> Wire:
        """The value in another element type; itself where it has it already."""
        return wire if wire.kind == kind else self.op("Cast", wire, kind=kind, to=kind)

    def named(self, wire: Wire, name: str) -> Wire:
        """The wire under a name that a person finds in a viewer; for a value just made, without a node of its own."""
        if wire.name == name:
            return wire
        last = self.nodes[-1] if self.nodes else None
        if last is not None and list(last.output) == [wire.name] == [last.name]:
            last.output[0] = name
            return Wire(name, wire.kind)
        return self.op("Identity", wire, name=name)

    def constant(self, value: Any, kind: int, name: str = "") -> Wire:
        """A small constant, from Python numbers (nested as they like); its value is its name where none is given."""
        array = np.asarray(value, _DTYPES[kind])
        key = (kind, array.shape, array.tobytes())
        if key not in self._constants:
            text = str(array.tolist()).replace(" ", "")
            label = name or (text if len(text) <= 24 else f"{array.size}_numbers")
            label = f"{_KINDS.get(kind, np.dtype(_DTYPES[kind]).name)}/{label}"
            known = self._labels[label] = self._labels.get(label, 0) + 1
            self._constants[key] = self.initializer(label if known == 1 else f"{label}#{known}", array)
        return self._constants[key]

    def own_constant(self, value: float, kind: int) -> Wire:
        """A number as a constant of the body that is being written, where its shape is known to whatever reads it."""
        if not self.inside:
            return self.constant(value, kind)
        tensor = numpy_helper.from_array(np.asarray(value, _DTYPES[kind]))
        return self.op("Constant", kind=kind, value=tensor)

    def initializer(self, name: str, array: np.ndarray) -> Wire:
        """A named tensor of the outermost graph, which every body sees."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        self.initializers.append(tensor)
        return Wire(name, tensor.data_type)

    def used(self, outputs: Iterable[Any]) -> list[NodeProto]:
        """The nodes that outputs (by their ``name``) come of, in order; others, and their constants, go."""
        wanted = {output.name for output in outputs}
        kept = []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                kept.append(node)
                wanted.update(node.input)
                for attribute in node.attribute:
                    wanted.update(name for inner in attribute.g.node for name in inner.input)
        constants = {wire.name for wire in self._constants.values()}
        self.initializers = [t for t in self.initializers if t.name in wanted or t.name not in constants]
        return kept[::-1]

    @contextmanager
    def body(self) -> Iterator[list[NodeProto]]:
        """Collect nodes apart, for the body of a Scan."""
        outer, self.nodes, self.inside = self.nodes, [], True
        try:
            yield self.nodes
        finally:
            self.nodes, self.inside = outer, False


def looked_up(graph: Graph, x: Wire, knots: Sequence[Any], slopes: Sequence[Any], offsets: Sequence[Any]) -> Wire:
    """``slopes[k] * x + offsets[k]``, where ``k`` counts the knots that are ``<= x``."""
    if not knots:
        only = (graph.constant(numbers[0], x.kind) for numbers in (slopes, offsets))
        return graph.op("Add", graph.op("Mul", next(only), x), next(only))
    above = graph.op(
        "GreaterOrEqual",
        graph.op("Unsqueeze", x, graph.constant([-1], INT64)),
        graph.constant(list(knots), x.kind),
        kind=BOOL,
    )
    piece = graph.op("ReduceSum", graph.cast(above, INT64), graph.constant([-1], INT64), keepdims=0)
    slope, offset = (graph.op("Gather", graph.constant(list(v), x.kind), piece) for v in (slopes, offsets))
    return graph.op("Add", graph.op("Mul", slope, x), offset)


class FloatNode:
    """A float32 value of the graph, with what a cell's lines do to a number."""

    __slots__ = ("graph", "wire")
    __array_ufunc__ = None

    def __init__(self, graph: Graph, wire: Wire) -> None:
        self.graph, self.wire = graph, wire

    def _op(self, operator: str, other: Any, swap: bool = False) -> FloatNode:
        right = other.wire if isinstance(other, FloatNode) else self.graph.constant(float(other), self.wire.kind)
        a, b = (right, self.wire) if swap else (self.wire, right)
        return FloatNode(self.graph, self.graph.op(operator, a, b))

    def __add__(self, other: Any) -> FloatNode:
        return self._op("Add", other)

    def __radd__(self, other: Any) -> FloatNode:
        return self._op("Add", other, swap=True)

    def __sub__(self, other: Any) -> FloatNode:
        return self._op("Sub", other)

    def __rsub__(self, other: Any) -> FloatNode:
        return self._op("Sub", other, swap=True)

    def __mul__(self, other: Any) -> FloatNode:
        return self._op("Mul", other)

    def __rmul__(self, other: Any) -> FloatNode:
        return self._op("Mul", other, swap=True)

    def apply(self, function: Nonlinearity) -> FloatNode:
        """A nonlinearity: ONNX's own operator, Clip where it is a clipped line, or its pieces looked up.

        Raises:
            UsageError: a smooth function that ONNX has no operator for.
        """
        graph, x = self.graph, self.wire
        if isinstance(function, ClippedLines | ClippedSmooth):
            assert function.inner is not None
            ends = [graph.constant(b, x.kind) for b in (-function.bound, function.bound)]
            return FloatNode(graph, graph.op("Clip", x, *ends)).apply(function.inner)
        if function.onnx is not None:
            return self._standard(*function.onnx)
        if not isinstance(function, PiecewiseLinear):
            raise UsageError(f"Smooth nonlinearity must be one that ONNX has, not {function.name!r}")
        clip = function.as_clip()
        if clip is None:
            pieces = ([float(v) for v in values] for values in (function.knots, function.slopes, function.intercepts))
            return FloatNode(graph, looked_up(graph, x, *pieces))
        slope, intercept, bounds = clip
        line: Any = self if slope == 1 else self * slope
        line = line + intercept if intercept else line
        if bounds == (None, None):
            return FloatNode(graph, line.wire)
        low, high = (None if b is None else graph.constant(float(b), x.kind) for b in bounds)
        return FloatNode(graph, graph.op("Clip", line.wire, low, high))

    def _standard(self, name: str, alpha: float | None, beta: float | None) -> FloatNode:
        """An activation of ONNX's recurrent operators: two of them are no operators of their own."""
        if name == "Affine":
            return self * alpha + beta
        if name == "ScaledTanh":
            return (self * beta)._standard("Tanh", None, None) * alpha
        attributes: dict[str, Any] = {"alpha": alpha, "beta": beta}
        attributes = {key: value for key, value in attributes.items() if value is not None}
        return FloatNode(self.graph, self.graph.op(name, self.wire, **attributes))
