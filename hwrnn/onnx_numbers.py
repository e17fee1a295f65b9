"""Graph values as numbers: a cell's lines that run over them write ONNX nodes.

:class:`Graph` collects nodes and initializers. :class:`FloatNode` computes as ``Model`` does, in float32;
:class:`Node` is the exact number of ``hwrnn.fixed``, whose integers travel as float64 while they are exact there
(the fastest integers that ONNX Runtime has) and as int64 beyond.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.errors import UsageError
from hwrnn.fixed import EXACT_FLOAT, Number

__all__ = ["BOOL", "DOUBLE", "EXACT_INTEGER", "FLOAT", "INT64", "FloatNode", "Graph", "Node", "Wire", "carrier_of"]

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
INT64, BOOL = TensorProto.INT64, TensorProto.BOOL

#: Integers below this bound are exact in the graph; the bit left over keeps every comparison with them exact too.
EXACT_INTEGER = 2**62

_DTYPES: dict[int, Any] = {FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64}
_SMOOTH = {"sigmoid": "Sigmoid", "tanh": "Tanh"}


@dataclass(frozen=True)
class Wire:
    """A value of the graph: its name and its ONNX element type."""

    name: str
    kind: int


class Graph:
    """Nodes and initializers in the order in which they are asked for; equal constants become one.

    ``scope`` is what the names of nodes and unnamed values begin with.
    """

    def __init__(self) -> None:
        self.scope = ""
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._constants: dict[tuple[int, tuple[int, ...], bytes], Wire] = {}
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

    def constant(self, value: Any, kind: int) -> Wire:
        """A small constant, from Python numbers (nested as they like)."""
        array = np.asarray(value, _DTYPES[kind])
        key = (kind, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initializer(f"constant_{len(self._constants)}", array)
        return self._constants[key]

    def initializer(self, name: str, array: np.ndarray) -> Wire:
        """A named tensor of the outermost graph, which every body sees."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        self.initializers.append(tensor)
        return Wire(name, tensor.data_type)

    @contextmanager
    def body(self) -> Iterator[list[NodeProto]]:
        """Collect nodes apart, for the body of a Scan."""
        outer, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = outer


def _looked_up(graph: Graph, x: Wire, knots: Sequence[Any], slopes: Sequence[Any], offsets: Sequence[Any]) -> Wire:
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
        """A nonlinearity: Clip where it is a clipped line, else its pieces looked up, or ONNX's smooth operator.

        Raises:
            UsageError: a smooth function that ONNX has no operator for.
        """
        graph, x = self.graph, self.wire
        if not isinstance(function, PiecewiseLinear):
            if function.stands_for not in _SMOOTH:
                raise UsageError(f"Smooth nonlinearity must be one of {', '.join(_SMOOTH)}, not {function.name!r}")
            return FloatNode(graph, graph.op(_SMOOTH[function.stands_for], x))
        clip = function.as_clip()
        if clip is None:
            pieces = ([float(v) for v in values] for values in (function.knots, function.slopes, function.intercepts))
            return FloatNode(graph, _looked_up(graph, x, *pieces))
        slope, intercept, bounds = clip
        line: Any = self if slope == 1 else self * slope
        line = line + intercept if intercept else line
        if bounds == (None, None):
            return FloatNode(graph, line.wire)
        low, high = (None if b is None else graph.constant(float(b), x.kind) for b in bounds)
        return FloatNode(graph, graph.op("Clip", line.wire, low, high))


def carrier_of(bound: int) -> int:
    """The element type that holds integers up to ``bound`` exactly.

    Raises:
        UsageError: a bound that no element type of ONNX holds.
    """
    if bound < EXACT_FLOAT:
        return DOUBLE
    if bound < EXACT_INTEGER:
        return INT64
    raise UsageError(
        f"Numbers of a quantized model must stay below 2**62 to be saved as an ONNX graph, not reach {bound:.3g}:"
        " quantize to fewer bits"
    )


class Node(Number):
    """The exact number on graph values; ``raw`` is a :class:`Wire` of float64, or of int64 from 2**53 on.

    Raises:
        UsageError: where a number's interval reaches 2**62.
    """

    __slots__ = ("graph",)
    raw: Wire

    def __init__(self, raw: Wire, frac: int, lo: int, hi: int, graph: Graph) -> None:
        self.graph = graph
        super().__init__(graph.cast(raw, carrier_of(max(-lo, hi))), frac, lo, hi)

    def _make(self, raw: Any, frac: int, lo: int, hi: int) -> Self:
        return type(self)(raw, frac, lo, hi, self.graph)

    def _constant(self, value: int, frac: int) -> Self:
        return self._make(self.graph.constant(value, carrier_of(abs(value))), frac, value, value)

    def _op(self, operator: str, other: Wire, bound: int) -> Wire:
        double = carrier_of(bound) == DOUBLE and self.raw.kind == other.kind == DOUBLE
        kind = DOUBLE if double else INT64
        return self.graph.op(operator, self.graph.cast(self.raw, kind), self.graph.cast(other, kind))

    def _add(self, other: Self, bound: int) -> Wire:
        return self._op("Add", other.raw, bound)

    def _sub(self, other: Self, bound: int) -> Wire:
        return self._op("Sub", other.raw, bound)

    def _mul(self, other: Self, bound: int) -> Wire:
        return self._op("Mul", other.raw, bound)

    def _left(self, n: int, bound: int) -> Wire:
        return self._op("Mul", self.graph.constant(1 << n, carrier_of(1 << n)), bound)

    def _floor(self, n: int) -> Wire:
        graph, raw = self.graph, self.raw
        if raw.kind == DOUBLE:
            return graph.op("Floor", graph.op("Mul", raw, graph.constant(2.0**-n, DOUBLE)))
        # ONNX divides integers towards zero and has no signed shift: take the remainder off first.
        step = graph.constant(1 << min(n, 62), INT64)  # beyond 62 bits nothing but the sign is left anyway
        return graph.op("Div", graph.op("Sub", raw, graph.op("Mod", raw, step)), step)

    def _clip(self, lo: int, hi: int) -> Wire:
        graph, raw = self.graph, self.raw
        # A bound beyond the number's own interval may lie beyond its carrier too; it never acts.
        low, high = max(lo, self.lo), min(hi, self.hi)
        if low > high:
            low = high = lo if self.hi < lo else hi
        kind = INT64 if carrier_of(max(abs(low), abs(high))) == INT64 else raw.kind
        return graph.op("Clip", graph.cast(raw, kind), graph.constant(low, kind), graph.constant(high, kind))

    def _piecewise(self, knots: Sequence[int], slopes: Sequence[int], intercepts: Sequence[int], bound: int) -> Wire:
        graph, raw = self.graph, self.raw
        reach = bound + max(abs(b) for b in intercepts)  # of slope * raw, before the intercept is added
        kind = INT64 if carrier_of(max(reach, *map(abs, slopes))) == INT64 else raw.kind
        inside = [min(max(k, self.lo), self.hi + 1) for k in knots]  # counts alike, and fits the carrier
        return _looked_up(graph, graph.cast(raw, kind), inside, slopes, intercepts)
