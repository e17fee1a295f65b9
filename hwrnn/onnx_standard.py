"""Recurrent layers as ONNX's own RNN, GRU and LSTM operators, where these say exactly what a cell computes.

A cell says it where :data:`OPERATORS` has a row for it: which gates stand in which order, and the attributes that
choose the form. A nonlinearity says it where it is one of ONNX's activations (:func:`activation_of`), with alpha and
beta always written. Whatever cannot be said gives its reason (:func:`unsaid`), and goes the way of a Scan.

The matrices of a node are joined from the initializers of the gates (``layer0.f.h``, ...), which runtimes do once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import TensorProto

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.clipping import ClippedLines, ClippedSmooth, clipped
from hwrnn.model import Layer
from hwrnn.onnx_numbers import FLOAT, INT64, Graph, Wire

__all__ = [
    "OPERATORS", "RECURRENT", "Activation", "Operator", "Run", "activation_of", "standard", "unsaid", "unsaid_pair",
]  # fmt: skip

INT32 = TensorProto.INT32


@dataclass(frozen=True)
class Operator:
    """How ONNX says a cell.

    Attributes:
        name: of the operator.
        gates: for each gate of the operator in its order the names of ours that read x and that read the state.
        functions: which of the cell's nonlinearities each of the operator's activations is.
        attributes: what else the node says.
        peepholes: gates with weights of the cell state, in the operator's order.
    """

    name: str
    gates: tuple[tuple[str, str], ...]
    functions: tuple[str, ...]
    attributes: Mapping[str, int]
    peepholes: tuple[str, ...] = ()


def _same(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names)


_LSTM, _SPP = _same("i", "o", "f", "g"), ("sigma", "phi", "psi")
_COUPLED = (("i", "i"), ("o", "o"), ("", ""), ("g", "g"))  # the forget gate's rows are not read
#: Cell -> operator. The order of gates is ONNX's: i o f c of an LSTM, z r h of a GRU.
OPERATORS: dict[str, Operator] = {
    "rnn": Operator("RNN", _same("h"), ("phi",), {}),
    "lstm": Operator("LSTM", _LSTM, _SPP, {}),
    "lstm-peephole": Operator("LSTM", _LSTM, _SPP, {}, ("i", "o", "f")),
    "lstm-coupled": Operator("LSTM", _COUPLED, _SPP, {"input_forget": 1}),
    "lstm-peephole-coupled": Operator("LSTM", _COUPLED, _SPP, {"input_forget": 1}, ("i", "o", "")),
    "gru": Operator("GRU", (("z", "z"), ("r", "r"), ("nx", "nh")), ("sigma", "phi"), {"linear_before_reset": 1}),
    "gru-reset-before": Operator("GRU", _same("z", "r", "n"), ("sigma", "phi"), {"linear_before_reset": 0}),
}
#: What the recurrent matrix multiplies: the state, or the state after the reset.
RECURRENT = ("h", "p")


@dataclass(frozen=True)
class Activation:
    """One of ONNX's activation functions: its name, and alpha and beta where it has them.

    Attributes:
        clip: the bound of its input (ONNX's ``clip``) that makes it the function it stands for; None without one.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None
    clip: float | None = None


def activation_of(function: Nonlinearity) -> Activation | None:
    """A nonlinearity as ONNX's recurrent operators know it, or None where they do not."""
    if isinstance(function, ClippedLines | ClippedSmooth) and function.inner is not None:
        inner = activation_of(function.inner)
        return None if inner is None or inner.clip is not None else replace(inner, clip=function.bound)
    if function.onnx is not None:
        return Activation(*function.onnx)
    return _line(function) if isinstance(function, PiecewiseLinear) else None


def _line(function: PiecewiseLinear) -> Activation | None:
    """A piecewise-linear function: one line, one knot at zero, or a line between two bounds."""
    slopes, intercepts = function.slopes, function.intercepts
    if not function.knots:
        return Activation("Affine", float(slopes[0]), float(intercepts[0]))
    if [*function.knots, *intercepts] == [0, 0, 0] and slopes[1] == 1:
        return Activation("LeakyRelu", float(slopes[0])) if slopes[0] else Activation("Relu")
    line = function.as_clip()
    if line is None:
        return None
    slope, intercept, (low, high) = line
    if low == 0 and high == 1:
        return Activation("HardSigmoid", float(slope), float(intercept))
    if low is None or high is None:
        return None
    if low == intercept == 0 and slope == 1:
        return Activation("Relu", clip=float(high))
    if high - intercept == intercept - low:
        return Activation("Affine", float(slope), float(intercept), clip=float((high - intercept) / slope))
    return None


def unsaid(layer: Layer) -> str | None:
    """Why ONNX's recurrent operators cannot say a layer, as the end of "because ...", or None where they can."""
    cell = layer.cell
    operator = OPERATORS.get(cell.name)
    if operator is None:
        return f"ONNX has no operator for cell {cell.name!r}"
    if cell.clip is not None:
        return "ONNX's operators do not clip a cell state"
    for role in operator.functions:
        function = _function(layer, role)
        if activation_of(function) is None:
            return f"ONNX has no activation for {function.name!r}"
    # ONNX Runtime bounds what enters the gates and the candidate, and not the cell state before the output.
    entering = [_function(layer, role) for role in operator.functions if role != "psi"]
    for role in operator.functions:
        function = _function(layer, role)
        bound = _bound(function)
        if bound is not None and (role == "psi" or any(clipped(other, bound) != other for other in entering)):
            return f"ONNX says {function.name!r} by clipping the input of every gate"
    for gate in filter(None, operator.peepholes):
        weights = layer.block(gate, "c")
        if np.count_nonzero(weights) != np.count_nonzero(np.diagonal(weights)):
            return "ONNX's peepholes are the diagonals of their matrices"
    return None


def _bound(function: Nonlinearity) -> float | None:
    """The clip that a nonlinearity needs."""
    activation = activation_of(function)
    return None if activation is None else activation.clip


def unsaid_pair(forward: Layer, backward: Layer) -> bool:
    """Whether two layers side by side are no bidirectional node."""
    alike = type(forward.cell) is type(backward.cell) and forward.units == backward.units
    clips = {_attributes([layer]).get("clip") for layer in (forward, backward)}
    return forward.reverse or not backward.reverse or not alike or len(clips) > 1


def _function(layer: Layer, role: str) -> Nonlinearity:
    found: Any = getattr(layer.cell, role, None)
    return layer.cell.phi if found is None else found


def _attributes(layers: Sequence[Layer]) -> dict[str, Any]:
    """What a node of one layer, or of two directions, says beside its inputs."""
    operator = OPERATORS[layers[0].cell.name]
    known = [activation_of(_function(layer, role)) for layer in layers for role in operator.functions]
    activations = [one for one in known if one is not None]
    found: dict[str, Any] = {
        "hidden_size": layers[0].units,
        "direction": "bidirectional" if len(layers) > 1 else "reverse" if layers[0].reverse else "forward",
        "activations": [one.name for one in activations],
        **operator.attributes,
    }
    for name in ("alpha", "beta"):
        values = [getattr(one, name) for one in activations if getattr(one, name) is not None]
        if values:
            found[f"activation_{name}"] = values
    clips = {one.clip for one in activations} - {None}
    if clips:
        found["clip"] = clips.pop()
    return found


Block = Callable[[str, str, str], Wire]


@dataclass(frozen=True)
class Run:
    """What a node computes of (N, T, inputs): ``steps`` (N, T, units), and ``final`` (N, units), each direction's last
    state; those of a second direction stand behind the first one's."""

    steps: Wire
    final: Wire


def standard(
    graph: Graph, names: Sequence[str], layers: Sequence[Layer], x: Wire, lengths: Wire, block: Block | None = None
) -> Run:
    """One layer, or a forward and a reverse one beside it, as one node; :func:`unsaid` must have nothing against it.

    Args:
        block: gives a block of weights by the layer's name, gate and operand; None for initializers of the layers'.
    """
    operator = OPERATORS[layers[0].cell.name]
    directions = [_Direction(graph, name, layer, operator, block) for name, layer in zip(names, layers, strict=True)]
    attributes = _attributes(layers)
    weights = [_stacked(graph, [getattr(d, kind)() for d in directions], f"{graph.scope}{kind.upper()}")
               for kind in ("w", "r", "b")]  # fmt: skip
    states = layers[0].cell.states
    initial = [_initial(graph, names, layers, state, x) for state in states]
    more: list[Wire | None] = [*initial]
    if operator.peepholes:
        more = [*initial, _stacked(graph, [d.p() for d in directions], f"{graph.scope}P")]
    while more and more[-1] is None:
        more.pop()
    label = f"{graph.scope}{operator.name}"
    first = graph.op("Transpose", x, perm=[1, 0, 2], name=f"{graph.scope}x")
    steps, last, *_ = graph.ops(
        operator.name, first, *weights, graph.cast(lengths, INT32), *more,
        names=[f"{label}.Y", *(f"{label}.Y_{state}" for state in states)], **attributes,
    )  # fmt: skip
    if len(layers) == 1:
        flat = graph.op("Squeeze", steps, graph.constant([1], INT64))
        out = graph.op("Transpose", flat, perm=[1, 0, 2], name=f"{graph.scope}output")
        final = graph.op("Squeeze", last, graph.constant([0], INT64), name=f"{graph.scope}last")
    else:
        aside = graph.op("Transpose", steps, perm=[2, 0, 1, 3])
        out = graph.op("Reshape", aside, graph.constant([0, 0, -1], INT64), name=f"{graph.scope}output")
        pair = graph.op("Transpose", last, perm=[1, 0, 2])
        final = graph.op("Reshape", pair, graph.constant([0, -1], INT64), name=f"{graph.scope}last")
    return Run(out, final)


def _stacked(graph: Graph, parts: Sequence[Wire], name: str) -> Wire:
    """The matrices of all directions, a new first axis."""
    zero = graph.constant([0], INT64)
    if len(parts) == 1:
        return graph.op("Unsqueeze", parts[0], zero, name=name)
    return graph.op("Concat", *(graph.op("Unsqueeze", part, zero) for part in parts), axis=0, name=name)


def _initial(graph: Graph, names: Sequence[str], layers: Sequence[Layer], state: str, x: Wire) -> Wire | None:
    """Where a state starts, (directions, N, units); None where all start at zero."""
    if not any(state in layer.initial for layer in layers):
        return None
    zeros = graph.constant(np.zeros(layers[0].units), FLOAT)
    rows = [
        graph.initializer(f"{name}.{state}.initial", np.asarray(layer.initial[state], np.float32))
        if state in layer.initial else zeros
        for name, layer in zip(names, layers, strict=True)
    ]  # fmt: skip
    one = graph.constant([1], INT64)
    stacked = graph.op("Unsqueeze", _stacked(graph, rows, ""), one)
    shape = graph.op("Concat", one, graph.op("Shape", x, kind=INT64, start=0, end=1), one, axis=0)
    return graph.op("Expand", stacked, shape, name=f"{graph.scope}initial_{state}")


class _Direction:
    """The matrices of one layer in the operator's order, joined from its initializers."""

    def __init__(self, graph: Graph, name: str, layer: Layer, operator: Operator, block: Block | None) -> None:
        def own(name: str, gate: str, operand: str) -> Wire:
            return graph.initializer(f"{name}.{gate}.{operand}", layer.block(gate, operand))

        block = own if block is None else block
        self.graph, self.units, self.operator = graph, layer.units, operator
        self.inputs = layer.inputs
        self.blocks = {
            (gate, operand): block(name, gate, operand)
            for phase in layer.cell.phases for gate, reads in phase.gates.items() for operand in (*reads, "b")
        }  # fmt: skip

    def _joined(self, parts: Sequence[Wire]) -> Wire:
        return parts[0] if len(parts) == 1 else self.graph.op("Concat", *parts, axis=0)

    def _zeros(self, *shape: int) -> Wire:
        return self.graph.constant(np.zeros(shape), FLOAT)

    def w(self) -> Wire:
        """(gates * units, inputs)."""
        return self._joined([
            self.blocks[gate, "x"] if gate else self._zeros(self.units, self.inputs) for gate, _ in self.operator.gates
        ])  # fmt: skip

    def r(self) -> Wire:
        """(gates * units, units)."""
        parts = []
        for _, gate in self.operator.gates:
            known = [self.blocks[gate, o] for o in RECURRENT if (gate, o) in self.blocks]
            parts.append(known[0] if known else self._zeros(self.units, self.units))
        return self._joined(parts)

    def b(self) -> Wire:
        """(2 * gates * units,): ours go with x, except where the gate of the state has its own."""
        first = [self.blocks[gate, "b"] if gate else self._zeros(self.units) for gate, _ in self.operator.gates]
        second = [
            self.blocks[other, "b"] if other != gate else self._zeros(self.units) for gate, other in self.operator.gates
        ]
        return self._joined([*first, *second])

    def p(self) -> Wire:
        """(3 * units,): diagonals, as sums of rows that hold nothing else."""
        graph = self.graph
        return self._joined([
            graph.op("ReduceSum", self.blocks[gate, "c"], graph.constant([1], INT64), keepdims=0)
            if gate else self._zeros(self.units)
            for gate in self.operator.peepholes
        ])  # fmt: skip
