"""ONNX's RNN, GRU and LSTM nodes as layers: https://onnx.ai/onnx/operators/onnx__LSTM.html and its siblings.

Where the text of the standard leaves a choice, what ONNX Runtime computes is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwrnn.activations import Nonlinearity, clipped
from hwrnn.cells import CELLS, Cell
from hwrnn.errors import shown
from hwrnn.importing import values as v
from hwrnn.importing.chains import layer_of
from hwrnn.importing.dense import settled
from hwrnn.importing.functions import ACTIVATIONS, function_named
from hwrnn.importing.graph import Node
from hwrnn.importing.layouts import constant
from hwrnn.importing.operands import initial_of, lengths_of, operand_of
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.values import (
    Axis,
    Constant,
    Pass,
    Pick,
    Source,
    Steps,
    Value,
    Vector,
    View,
)  # fmt: skip
from hwrnn.model import Layer
from hwrnn.onnx_standard import OPERATORS, RECURRENT, Operator

__all__ = ["Recurrence"]


@dataclass(frozen=True)
class Recurrence:
    """What one of the three operators has.

    Attributes:
        functions: the defaults of its activations.
        states: of its states by the inputs that hold their first values.
    """

    functions: tuple[str, ...]
    states: tuple[tuple[int, str], ...]


KINDS = {
    "RNN": Recurrence(("Tanh",), ((5, "h"),)),
    "GRU": Recurrence(("Sigmoid", "Tanh"), ((5, "h"),)),
    "LSTM": Recurrence(("Sigmoid", "Tanh", "Tanh"), ((5, "h"), (6, "c"))),
}
_GATES = {said.name: len(said.gates) for said in OPERATORS.values()}
#: Activations without defaults of alpha and beta that everybody agrees on.
_UNSETTLED = ("Affine", "ScaledTanh", "ThresholdedRelu")
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_TRAP = (
    "Node {name!r} is a GRU that resets before the product (linear_before_reset=0), in a file of PyTorch, whose own GRU"
    " resets after it: such files have been exported wrongly, so compare the results with the network's own"
)


@operator(*KINDS)
def _recurrent(node: Node, net: Interpreter) -> Sequence[Value | None]:
    kind = KINDS[node.operator]
    batch_first = node.flag("layout") if node.opset >= 14 else False
    reverses = _DIRECTIONS.get(direction := node.text("direction", "forward"))
    if reverses is None:
        raise node.refused(f"have a direction of {', '.join(_DIRECTIONS)}, not {shown(direction)}")
    count = len(reverses)
    w, r = (constant(node, k, words) for k, words in ((1, "W"), (2, "R")))
    _check_floats(node, w, r)
    _check_kinds(node, net)
    units = node.integer("hidden_size", r.shape[-1] if r.ndim == 3 else 0)
    rows = _GATES[node.operator] * units
    if units < 1 or w.ndim != 3 or w.shape[:2] != (count, rows) or r.shape != (count, rows, units) or not w.shape[2]:
        due = f"W of shape ({count}, {rows}, inputs) and R of shape ({count}, {rows}, {units})"
        raise node.refused(f"have {due}, not {w.shape} and {r.shape}")
    b = _array(node, 3, "B", (count, 2 * rows))
    name = _cell_name(node, net)
    cells = _cells(node, name, count)
    peepholes = _array(node, 7, "P", (count, 3 * units)) if node.operator == "LSTM" else None
    x, time, batch = operand_of(node, net, batch_first, w.shape[2])
    lengths = lengths_of(node, net, time, x.axes[1 if not batch_first else 0])
    starts = {state: initial_of(node, net, k, batch_first, count, units, batch) for k, state in kind.states}
    passes = []
    for d, reverse in enumerate(reverses):
        own = (None if array is None else array[d] for array in (b, peepholes))
        layer = _layer(OPERATORS[name], cells[d], w[d], r[d], *own)
        constants: dict[str, np.ndarray] = {}
        others: dict[str, Vector | np.ndarray] = {}
        for state, start in starts.items():
            if start is not None:
                _sort(node, net, start[d], state, constants, others)
        layer = replace(layer, initial=constants, reverse=reverse)
        run = Pass(
            node=node.name, layer=layer, operand=settled(net, x.vector), initial=others, lengths=lengths,
            timed=bool(time),
        )  # fmt: skip
        passes.append(_turned(net, run))
    return _outputs(node, net, kind, passes, time, batch, batch_first)


def _check_floats(node: Node, *arrays: np.ndarray) -> None:
    for array in arrays:
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise node.refused("have finite floats as weights")
        with np.errstate(over="ignore"):
            if not np.isfinite(array.astype(np.float32)).all():
                raise node.refused("have weights that float32 can hold")


def _check_kinds(node: Node, net: Interpreter) -> None:
    """Refuse numbers of different types, which the standard forbids and runtimes treat differently."""
    kinds = {}
    for k in (0, 1, 2, 3, 5, 6, 7):
        value = node.given(k)
        if value is not None:
            kinds[k] = value.kind if isinstance(value, View) else value.array.dtype
    if len(set(kinds.values())) > 1:
        raise node.refused("have numbers of one type, not of " + " and ".join(sorted({str(k) for k in kinds.values()})))
    if kinds[0] != np.float32:
        net.note(f"Node {node.name!r} is in {kinds[0]}; hwrnn computes in float32")


def _array(node: Node, k: int, words: str, shape: tuple[int, ...]) -> np.ndarray | None:
    if node.optional(k) is None:
        return None
    array = constant(node, k, words)
    if array.shape != shape:
        raise node.refused(f"have {words} of shape {shape}, not {array.shape}")
    _check_floats(node, array)
    return array


# -- cells and weights -------------------------------------------------------------------------------------------------
def _cell_name(node: Node, net: Interpreter) -> str:
    """The cell that the node's attributes and its peepholes choose."""
    rows = {name: said for name, said in OPERATORS.items() if said.name == node.operator}
    told = {attribute: node.flag(attribute) for said in rows.values() for attribute in said.attributes}
    # Peepholes of nothing but zeros are none.
    seen = node.optional(7) if node.operator == "LSTM" else None
    peephole = seen is not None and not (isinstance(seen, Constant) and not np.any(seen.array))
    name = next(
        name for name, said in rows.items()
        if bool(said.peepholes) == peephole and all(said.attributes.get(a, 0) == flag for a, flag in told.items())
    )  # fmt: skip
    if name == "gru-reset-before" and net.producer.lower() == "pytorch":
        net.warn(_TRAP.format(name=node.name))
    return name


def _cells(node: Node, name: str, count: int) -> list[Cell]:
    """The cell of every direction, with its nonlinearities."""
    functions = _functions(node, KINDS[node.operator], count)
    bound = node.real("clip")
    if bound is not None and bound <= 0:
        raise node.refused(f"have a clip above 0, not {bound}")
    cells = []
    for chosen in functions:
        # ONNX Runtime bounds what enters the gates and the candidate, and not the cell state before the output.
        parts: dict[str, Any] = {
            role: function if bound is None or role == "psi" else clipped(function, bound)
            for role, function in zip(OPERATORS[name].functions, chosen, strict=True)
        }
        psi = parts.pop("psi", None)
        cell = CELLS[name](**parts)
        cells.append(cell if psi in (None, parts["phi"]) else replace(cell, psi=psi))
    return cells


def _functions(node: Node, kind: Recurrence, count: int) -> list[list[Nonlinearity]]:
    """The nonlinearities of every direction; alpha and beta go to those that have them, in order."""
    names = node.texts("activations")
    names = list(kind.functions) * count if names is None else names
    if len(names) != count * len(kind.functions):
        raise node.refused(f"have {count * len(kind.functions)} activations, not {len(names)}")
    unknown = [name for name in names if name not in ACTIVATIONS]
    if unknown:
        raise node.refused(f"have activations of {', '.join(ACTIVATIONS)}, not {shown(unknown[0])}")
    given = {"alpha": node.reals("activation_alpha") or [], "beta": node.reals("activation_beta") or []}
    found: list[Nonlinearity] = []
    for name in names:
        parameters = {}
        for k, words in enumerate(("alpha", "beta"), 1):
            if ACTIVATIONS[name][k] is None:
                continue
            if given[words]:
                parameters[words] = given[words].pop(0)
            elif name in _UNSETTLED:
                raise node.refused(f"have activation_{words} for {name}: runtimes do not agree on what it is without")
        try:
            found.append(function_named(name, **parameters))
        except ValueError as error:
            raise node.refused(f"have activations that hwrnn can compute: {error}") from error
    left = [words for words, numbers in given.items() if numbers]
    if left:
        raise node.refused(f"have as many values of activation_{left[0]} as its activations read")
    n = len(kind.functions)
    return [found[d * n : (d + 1) * n] for d in range(count)]


def _layer(
    said: Operator, cell: Cell, w: np.ndarray, r: np.ndarray, b: np.ndarray | None, p: np.ndarray | None
) -> Layer:
    """One direction: W (rows, inputs), R (rows, units), B (2 rows,) and P (3 units,) by gate and operand."""
    units = r.shape[1]
    w, r = w.astype(np.float64), r.astype(np.float64)
    from_x, from_h = np.split(np.zeros(2 * len(r)) if b is None else b.astype(np.float64), 2)
    state = {gate: o for phase in cell.phases for gate, reads in phase.gates.items() for o in reads if o in RECURRENT}
    weights: dict[tuple[str, str], np.ndarray] = {}
    biases: dict[str, np.ndarray] = {gate: np.zeros(units) for gate in cell.gates}
    for k, (reads_x, reads_h) in enumerate(said.gates):
        rows = slice(k * units, (k + 1) * units)
        if reads_x:
            weights[reads_x, "x"] = w[rows]
            biases[reads_x] = biases[reads_x] + from_x[rows]
        if reads_h:
            weights[reads_h, state[reads_h]] = r[rows]
            biases[reads_h] = biases[reads_h] + from_h[rows]
    for k, gate in enumerate(said.peepholes):
        if gate and p is not None:
            weights[gate, "c"] = np.diag(p[k * units : (k + 1) * units])
    return layer_of(cell, weights, biases)


def _sort(
    node: Node, net: Interpreter, start: Vector | np.ndarray, state: str, constants: dict[str, np.ndarray],
    others: dict[str, Vector | np.ndarray],
) -> None:  # fmt: skip
    """Put a first state among the constants or the others; zeros are left out."""
    if isinstance(start, np.ndarray) or not start.constant:
        others[state] = start
    elif start.offset.any():
        constants[state] = start.offset.astype(np.float32)
        _check_floats(node, constants[state])


def _turned(net: Interpreter, run: Pass) -> tuple[Pass, bool, Source | None]:
    """The pass of a direction; whether its steps come out turned, and within which lengths.

    A layer that reads turned sequences runs the other way and gives its outputs turned.
    """
    found = net.sources.of(run.operand.columns)
    turned = [s for s in found if isinstance(s, Pick) and s.at is None]
    within = turned[0].lengths if turned else None
    every = len(turned) == len([s for s in found if s.timed])
    if not run.timed or not turned or not every or any(s.lengths is not run.lengths for s in turned):
        return run, False, None
    columns = net.sources.picked(run.operand.columns, None, within)
    operand = Vector(columns, run.operand.scale, run.operand.offset)
    return replace(run, layer=replace(run.layer, reverse=not run.layer.reverse), operand=operand), True, within


def _outputs(
    node: Node, net: Interpreter, kind: Recurrence, passes: Sequence[tuple[Pass, bool, Source | None]], time: Axis,
    batch: Axis, batch_first: bool,
) -> list[Value | None]:  # fmt: skip
    """Y, Y_h and, of an LSTM, Y_c."""
    wanted = [*node.wanted, False, False, False]
    found: list[Value | None] = [None] * (1 + len(kind.states))
    units = passes[0][0].layer.units
    count = len(passes)
    ones, zeros = np.ones((count, units)), np.zeros((count, units))
    float32 = np.dtype(np.float32)
    if wanted[0]:
        columns = []
        for run, turned, within in passes:
            source = net.sources.add(Steps(units=units, timed=True, of=run))
            own = source.channels
            own = net.sources.picked(own, None, within) if turned else own
            columns.append(own if time else net.sources.picked(own, -1))
        axes = [batch, time, (count,), (units,)] if batch_first else [time, (count,), batch, (units,)]
        found[0] = v.canonical(View(tuple(axes), np.array(columns), ones, zeros, float32))
    for k, (_, state) in enumerate(kind.states, 1):
        if wanted[k]:
            states = np.array([net.sources.final(run, state).channels for run, _, _ in passes])
            axes = [batch, (count,), (units,)] if batch_first else [(count,), batch, (units,)]
            found[k] = v.canonical(View(tuple(axes), states, ones, zeros, float32))
    return found
