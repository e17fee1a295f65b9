"""The operators that are understood, by name, and what interprets a graph with them.

A handler is a function of a node and the :class:`Interpreter` that gives the node's outputs; :func:`operator` enters
it. It reads each attribute and input that it understands; what it leaves unread is refused (see
:class:`hwrnn.importing.graph.Node`).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto

from hwrnn.errors import UsageError, shown
from hwrnn.importing.graph import Node, flattened, initializers, kind_name, opset_of, refused, tensor_kind
from hwrnn.importing.shapes import Size, Undecided
from hwrnn.importing.values import (
    BATCH,
    FEATURES,
    NOTHING,
    TIME,
    Axis,
    Constant,
    Input,
    Open,
    Source,
    Sources,
    Value,
    View,
    canonical,
    inner,
)  # fmt: skip

__all__ = ["HANDLERS", "OPERATORS", "Bound", "Interpreter", "Learnt", "operator"]

Handler = Callable[[Node, "Interpreter"], Sequence[Value | None]]
OPERATORS: dict[str, Handler] = {}
#: The modules whose handlers are entered before the first graph is interpreted.
HANDLERS = [
    "layouts", "parts", "joins", "constants", "dense", "pointwise", "host", "recurrent", "quantizers", "brevitas",
]  # fmt: skip
_MOST_ELEMENTS = 1 << 22  # and eight times the file's bytes
_MOST_ROLES = 64
_MOST_VISITS = 300_000  # a network of most nodes, three times
_PLACES = {BATCH: "sequence", TIME: "step"}


def operator(*names: str) -> Callable[[Handler], Handler]:
    """Enter a handler for operators: by name, with the domain in front where that is not ONNX's own."""

    def enter(handler: Handler) -> Handler:
        for name in names:
            OPERATORS[name] = handler
        return handler

    return enter


class Learnt(Exception):
    """A handler found out what axes of the graph's inputs are; the interpretation begins anew with that."""

    def __init__(self, roles: Mapping[str, tuple[str, Any]]) -> None:
        super().__init__(str(dict(roles)))
        self.roles = dict(roles)


class Bound(Exception):
    """A node works for one size of the batch or the time only; the interpretation begins anew with it."""

    def __init__(self, role: str, size: int) -> None:
        super().__init__(f"{role} {size}")
        self.role, self.size = role, size


class Interpreter:
    """What a graph's values mean.

    Attributes:
        sources: everything that elements come from.
        notes: sentences about what is not as in the file.
        warnings: those that a person must not miss.
        initial: the inputs that hold initial states.
        inputs: the graph's inputs that are not constants, by name.
        zeroed: the inputs among them that were set to zero.
        outputs: the graph's outputs by name: what they are, or the error of the node that could not be understood.
        declared: the element type of each output.
        grids: those of quantized constants (``hwrnn.importing.quantizers.Grid``).
        dyes: what stands in the place of the constants of each grid; None for their numbers.
    """

    def __init__(
        self, proto: ModelProto, zero_initial: bool = False, dyes: Mapping[Any, float] | None = None
    ) -> None:
        self.dyes = dyes
        for module in HANDLERS:
            name = f"hwrnn.importing.{module}"
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        self.proto = flattened(proto, OPERATORS)
        _check_recurrent(self.proto.graph)
        self.opset = opset_of(proto)[""]
        self.opsets = opset_of(self.proto)
        self.producer = str(proto.producer_name)
        self.zeroed: set[str] = set()
        self._roles: dict[str, tuple[str, Any]] = {}
        self._bound: dict[str, int] = {}
        self._visits = 0
        self._declared = dict(_inputs(self.proto.graph))
        self._most = _MOST_ELEMENTS + 8 * proto.ByteSize()
        for _ in range(_MOST_ROLES):
            try:
                self._interpret()
                new = set(self.initial) - self.zeroed if zero_initial else set()
                if not new:
                    return
                self.zeroed |= new
            except Learnt as found:
                self._learn(found.roles)
            except Bound as found:
                self._bound[found.role] = found.size
        raise UsageError(f"Inputs of the network must have less than {_MOST_ROLES} axes in all")

    def _learn(self, roles: Mapping[str, tuple[str, Any]]) -> None:
        for axis, role in roles.items():
            assert axis not in self._roles, f"Axis {axis} has a role, so no atom of its name is left to learn"
            self._roles[axis] = role

    def _interpret(self) -> None:
        self.sources, self.notes, self.warnings = Sources(), list[str](), list[str]()
        self.initial: dict[str, Input] = {}
        self.grids: dict[Any, None] = {}
        self._elements = 0
        self.sizes: dict[str, Any] = {}
        self.inputs: dict[str, Input] = {}
        self._shared_roles()
        values: dict[str, Value | UsageError] = {}
        for name, (kind, shape) in self._declared.items():
            values[name] = self._input(name, kind, shape)
        self._run(self.proto.graph, values)
        self.outputs: dict[str, Value | UsageError] = {}
        self.declared: dict[str, np.dtype | None] = {}
        for info in self.proto.graph.output:
            if info.name in self.outputs:
                raise UsageError(f"Outputs of the network must have different names, not {shown(info.name)} twice")
            if info.name not in values:
                raise UsageError(f"Output {shown(info.name)} must be computed by a node")
            self.outputs[info.name] = values[info.name]
            self.declared[info.name] = tensor_kind(info.type.tensor_type.elem_type)

    # -- inputs --------------------------------------------------------------------------------------------------------
    def _shared_roles(self) -> None:
        """Give axes that a file calls by one name one role, and find the size of the batch and the time."""
        named: dict[str, set[str]] = {}
        for name, (_, shape) in self._declared.items():
            for k, size in enumerate(shape):
                known = self._roles.get(f"{name}.{k}")
                if isinstance(size, str) and known is not None and known[0] != FEATURES:
                    named.setdefault(size, set()).add(known[0])
        for name, (_, shape) in self._declared.items():
            for k, size in enumerate(shape):
                if isinstance(size, str) and f"{name}.{k}" not in self._roles and len(named.get(size, ())) == 1:
                    self._roles[f"{name}.{k}"] = (next(iter(named[size])), None)
        for role in (BATCH, TIME):
            fixed: set[int] = {
                size for name, (_, shape) in self._declared.items() for k, size in enumerate(shape)
                if isinstance(size, int) and self._roles.get(f"{name}.{k}", ("", None))[0] == role
            }  # fmt: skip
            if len(fixed) > 1:  # two numbers that are said to be one
                words = " and ".join(str(n) for n in sorted(fixed))
                raise UsageError(f"Inputs of the network must have one {role} size, not {words}")
            self.sizes[role] = fixed.pop() if fixed else self._bound.get(role, Size.of(role))

    def _input(self, name: str, kind: np.dtype, shape: Sequence[Any]) -> View:
        axes: list[Axis] = []
        for k, declared in enumerate(shape):
            label = f"{name}.{k}"
            size = declared if isinstance(declared, int) else Size.of(label)
            role, told = self._roles.get(label, (label, None))
            if role in (BATCH, TIME):
                axes.append((Open(role, self.sizes[role]),))
            elif role == FEATURES:
                found = told if isinstance(size, Size) else size
                if found is None:
                    raise UsageError(f"Input {shown(name)} must have a fixed number of features: export it with one")
                axes.append((int(found),))
            else:
                axes.append((Open(role, size),))
        roles = [a.role for axis in axes for a in axis if isinstance(a, Open)]
        twice = [role for role in (BATCH, TIME) if roles.count(role) > 1]
        if twice:
            raise UsageError(
                f"Input {shown(name)} must have one axis of {twice[0]}, not two: a node takes one {_PLACES[twice[0]]}"
                " of one, and a recurrent node runs along the other"
            )
        units = int(np.prod(inner(axes), dtype=object))
        self.spend(units)
        if name in self.zeroed:
            self.note(f"Input {shown(name)}, an initial state, is taken to be zero")
            shape = inner(axes)
            none = np.full(shape, NOTHING, np.int64)
            return canonical(View(tuple(axes), none, np.zeros(shape), np.zeros(shape), kind))
        timed = any(isinstance(a, Open) and a.role != BATCH for axis in axes for a in axis)
        source = Input(units=units, timed=timed, kind=kind, name=name, axes=tuple(axes))
        self.inputs[name] = source
        return self.sources.view(self.sources.add(source), axes)

    # -- nodes ---------------------------------------------------------------------------------------------------------
    def _run(self, graph: GraphProto, values: MutableMapping[str, Value | UsageError]) -> None:
        """Add the values of a graph's constants and nodes to ``values``."""
        for name, array in initializers(graph):
            values[name] = Constant(array)
        for proto in graph.node:
            self._visits += 1
            if self._visits > _MOST_VISITS:
                raise UsageError(f"Network must be understood in {_MOST_VISITS} looks at its nodes, not in more")
            reads = [name for name in proto.input if name]
            missing = [name for name in reads if name not in values]
            if missing:
                node = Node(proto, self.opset, [])
                raise node.refused(f"read what a node before it or an input gives, not {shown(missing[0])}")
            faults = [fault for name in reads if isinstance(fault := values[name], UsageError)]
            found: Sequence[Value | UsageError | None]
            if faults:
                found = [faults[0]] * len(proto.output)
            else:
                try:
                    found = self._handled(proto, [values[name] if name else None for name in proto.input], values)
                except UsageError as error:
                    found = [error] * len(proto.output)
            for name, value in zip(proto.output, found, strict=False):
                if name and value is not None:
                    if name in values:
                        raise UsageError(f"Value {shown(name)} must be given by one node, not by two")
                    values[name] = value

    def _handled(
        self, proto: NodeProto, inputs: Sequence[Any], scope: MutableMapping[str, Value | UsageError]
    ) -> Sequence[Value | None]:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        node = Node(proto, self.opsets.get(domain, self.opset), inputs)
        handler = OPERATORS.get(node.operator)
        if handler is None:
            raise node.refused("be of an operator that hwrnn imports: this one has no counterpart in its networks")
        if domain in ("", "ai.onnx.ml"):
            node.check_schema()
        self.scope = scope
        try:
            found = handler(node, self)
        except Undecided as error:
            raise node.refused(f"not depend on sizes that the file leaves open: {error}") from error
        except UsageError:
            raise
        except (ValueError, TypeError, IndexError, ArithmeticError, MemoryError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise node.refused(f"have values that fit its operator ({reason})") from error
        node.finished(len(found))
        for value in found:
            if value is not None:
                self.spend(value.array.size if isinstance(value, Constant) else value.columns.size)
        return found

    def inner(self, graph: GraphProto, scope: MutableMapping[str, Value | UsageError]) -> list[Value | UsageError]:
        """The outputs of a graph inside a node, which reads the values around it."""
        values: ChainMap[str, Value | UsageError] = ChainMap({}, scope)
        for info in graph.input:
            raise UsageError(f"Graph inside a node must have no input of its own, as {shown(info.name)} is")
        self._run(graph, values)
        return [values[info.name] for info in graph.output]

    def spend(self, elements: int) -> None:
        """Count elements of new arrays, so that a small file cannot ask for endless work.

        Raises:
            UsageError: when it is too much.
        """
        self._elements += elements
        if self._elements > self._most:
            raise UsageError(f"Network must take at most {self._most} numbers to understand, not more")

    def note(self, sentence: str) -> None:
        """Tell the person something, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def warn(self, sentence: str) -> None:
        """Tell the person something loudly, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    # -- what handlers share -------------------------------------------------------------------------------------------
    def learn(self, axes: Iterable[tuple[Axis, str, Any]]) -> None:
        """Begin anew where an axis of an input turns out to have a role.

        Args:
            axes: triples of an axis, the role that it has and, for ``FEATURES``, its size where that is known.

        Raises:
            Learnt: where one of the axes is not yet known.
        """
        found = {}
        for axis, role, size in axes:
            if len(axis) == 1 and isinstance(axis[0], Open) and axis[0].role not in (BATCH, TIME):
                if isinstance(axis[0].size, int) and role == FEATURES:
                    size = None
                found[axis[0].role] = (role, size)
        if found:
            raise Learnt(found)

    def initial_inputs(self, columns: np.ndarray) -> None:
        """Remember the inputs among some channels as initial states."""
        for source in self.sources.of(columns):
            if isinstance(source, Input):
                self.initial[source.name] = source

    def bind(self, role: str, size: int) -> None:
        """Begin anew with a size of the batch or the time that the file leaves open and a node demands.

        Raises:
            Bound: where it was open; nothing happens where it is a number.
        """
        if role in (BATCH, TIME) and isinstance(self.sizes[role], Size):
            raise Bound(role, size)

    def open_of(self, size: Any) -> Open | None:
        """The batch, the time or another axis of an input that has an open size."""
        for source in self.inputs.values():
            for axis in source.axes:
                for atom in axis:
                    if isinstance(atom, Open) and atom.size == size:
                        return atom
        return None

    def lengths_of(self, view: View) -> Source | None:
        """The input of whole numbers (N,) that a view is, as it is, or None."""
        vector = view.vector
        if len(vector.columns) != 1 or not vector.plain or view.kind.kind not in "iu":
            return None
        (source,) = self.sources.of(vector.columns)
        return source if isinstance(source, Input) and not source.timed and source.units == 1 else None


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g)


def _check_recurrent(graph: GraphProto) -> None:
    """Refuse a graph without a recurrent operator, whose refusal at some other node would hide what is missing."""
    nodes = list(_all_nodes(graph))
    if any(node.op_type in ("RNN", "GRU", "LSTM", "QuantLSTMCell") for node in nodes):
        return
    for node in nodes:
        if node.op_type in ("Loop", "Scan"):
            reason = "be an RNN, GRU or LSTM node: a recurrence in a loop is not understood"
            raise refused(node.name, node.op_type, reason)
    found = ", ".join(sorted({node.op_type[:40] for node in nodes})[:20])
    raise UsageError(
        f"Network must hold an RNN, GRU or LSTM node, not only {found or 'no nodes'}: a recurrence that is written out"
        " step by step is not understood"
    )


def _inputs(graph: GraphProto) -> Iterable[tuple[str, tuple[np.dtype, list[int | str | None]]]]:
    """The inputs that are not constants: name, element type and sizes (a number, a name or None)."""
    constants = {tensor.name for tensor in graph.initializer}
    seen = set()
    for info in graph.input:
        if info.name in seen:
            raise UsageError(f"Inputs of the network must have different names, not {shown(info.name)} twice")
        seen.add(info.name)
        if info.name in constants:
            continue
        which = f"Input {shown(info.name)}"
        if not info.type.HasField("tensor_type"):
            raise UsageError(f"{which} must be a tensor: sequences, maps and optional values are not read")
        tensor = info.type.tensor_type
        kind = tensor_kind(tensor.elem_type)
        if kind is None or kind.kind == "b":
            raise UsageError(f"{which} must hold numbers, not {kind_name(tensor.elem_type)}")
        if not tensor.HasField("shape"):
            raise UsageError(f"{which} must say how many axes it has: export the network with shapes")
        if len(tensor.shape.dim) > 8:
            raise UsageError(f"{which} must have at most 8 axes, not {len(tensor.shape.dim)}")
        sizes: list[int | str | None] = []
        for dim in tensor.shape.dim:
            if dim.HasField("dim_value"):
                if not 1 <= dim.dim_value < 2**31:
                    raise UsageError(f"{which} must have axes of 1 to {2**31 - 1}, not of {dim.dim_value}")
                sizes.append(int(dim.dim_value))
            else:
                sizes.append(dim.dim_param or None)
        yield info.name, (kind, sizes)
