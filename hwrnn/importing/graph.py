"""The nodes and constants of a file, in the order of computation, each read with its arguments checked.

A :class:`Node` knows what its handler has looked at: an attribute, an input or an output that nobody looked at is
refused, so that nothing can be accepted and ignored.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, defs, helper

from hwrnn.errors import UsageError, shown
from hwrnn.importing.tensors import tensor_array

__all__ = ["FLOATS", "Node", "array_of", "flattened", "initializers", "kind_name", "opset_of", "refused", "tensor_kind"]

FLOATS: dict[int, np.dtype] = {
    TensorProto.FLOAT: np.dtype(np.float32), TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
}  # fmt: skip
_OTHERS: dict[int, np.dtype] = {
    TensorProto.INT8: np.dtype(np.int8), TensorProto.UINT8: np.dtype(np.uint8), TensorProto.INT16: np.dtype(np.int16),
    TensorProto.UINT16: np.dtype(np.uint16), TensorProto.INT32: np.dtype(np.int32),
    TensorProto.INT64: np.dtype(np.int64), TensorProto.BOOL: np.dtype(np.bool_),
    TensorProto.INT4: np.dtype(np.int8), TensorProto.UINT4: np.dtype(np.uint8),  # as quantized weights have them
}  # fmt: skip


def tensor_kind(code: int) -> np.dtype | None:
    """The numpy type of an element type, or None for one that is not read (text, complex, 8-bit floats)."""
    return {**FLOATS, **_OTHERS}.get(code)


def refused(name: str, operator: str, reason: str) -> UsageError:
    """The error for a node that is not understood: ``reason`` goes on after "must"."""
    return UsageError(f"Node {shown(name)} ({shown(operator)[1:-1]}) must {reason}")


class Node:
    """A node with its inputs' values, and a record of what of it has been read.

    Attributes:
        operator: the kind of node; with the domain in front where that is not ONNX's own.
        opset: the version of the operator set that it is written in.
    """

    def __init__(self, proto: NodeProto, opset: int, inputs: Sequence[Any]) -> None:
        self.operator = f"{proto.domain}.{proto.op_type}" if proto.domain not in ("", "ai.onnx") else proto.op_type
        self.name = proto.name or next((n for n in proto.output if n), "")
        self.proto, self.opset, self._inputs = proto, opset, list(inputs)
        self._attributes: dict[str, AttributeProto] = {}
        for a in proto.attribute:
            if a.name in self._attributes:
                raise self.refused(f"name attribute {shown(a.name)} once")
            self._attributes[a.name] = a
        self._left = set(self._attributes)
        self._unread = {k for k, value in enumerate(self._inputs) if value is not None}

    def refused(self, reason: str) -> UsageError:
        """The error that refuses this node: ``reason`` goes on after "must"."""
        return refused(self.name, self.operator, reason)

    @property
    def wanted(self) -> list[bool]:
        """For each output whether it has a name."""
        return [bool(name) for name in self.proto.output]

    def _attribute(self, name: str, kind: int, words: str) -> AttributeProto | None:
        found = self._attributes.get(name)
        self._left.discard(name)
        if found is not None and (found.type != kind or found.ref_attr_name):
            raise self.refused(f"have {words} as attribute {name!r}")
        return found

    def has(self, name: str) -> bool:
        """Whether an attribute is given; it does not count as read."""
        return name in self._attributes

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number.

        Raises:
            UsageError: another type, or no number where there is no default.
        """
        found = self._attribute(name, AttributeProto.INT, "a whole number")
        if found is None and default is None:
            raise self.refused(f"have the attribute {name!r}")
        return int(found.i) if found is not None else int(default or 0)

    def flag(self, name: str, default: int = 0) -> bool:
        """An attribute that is 0 or 1."""
        value = self.integer(name, default)
        if value not in (0, 1):
            raise self.refused(f"have {name} 0 or 1, not {value}")
        return bool(value)

    def real(self, name: str, default: float | None = None) -> float | None:
        """A finite number, or the default."""
        found = self._attribute(name, AttributeProto.FLOAT, "a number")
        if found is None:
            return default
        if not np.isfinite(found.f):
            raise self.refused(f"have a finite number as attribute {name!r}, not {found.f}")
        return float(found.f)

    def text(self, name: str, default: str) -> str:
        """A word."""
        found = self._attribute(name, AttributeProto.STRING, "a word")
        return default if found is None else found.s.decode("utf-8", "replace")

    def integers(self, name: str) -> list[int] | None:
        """A list of whole numbers, or None where the attribute is left out."""
        found = self._attribute(name, AttributeProto.INTS, "whole numbers")
        return None if found is None else [int(i) for i in found.ints]

    def reals(self, name: str) -> list[float] | None:
        """A list of finite numbers, or None where the attribute is left out."""
        found = self._attribute(name, AttributeProto.FLOATS, "numbers")
        if found is None:
            return None
        if not all(np.isfinite(found.floats)):
            raise self.refused(f"have finite numbers as attribute {name!r}")
        return [float(f) for f in found.floats]

    def texts(self, name: str) -> list[str] | None:
        """A list of words, or None where the attribute is left out."""
        found = self._attribute(name, AttributeProto.STRINGS, "words")
        return None if found is None else [s.decode("utf-8", "replace") for s in found.strings]

    def tensor(self, name: str) -> np.ndarray | None:
        """An array, or None where the attribute is left out."""
        found = self._attribute(name, AttributeProto.TENSOR, "a tensor")
        return None if found is None else array_of(found.t, f"attribute {name!r} of node {shown(self.name)}")

    def graph(self, name: str) -> GraphProto:
        """A graph inside the node."""
        found = self._attribute(name, AttributeProto.GRAPH, "a graph")
        if found is None:
            raise self.refused(f"have the attribute {name!r}")
        return found.g

    def given(self, k: int) -> Any:
        """Input ``k`` or None; it does not count as read."""
        return self._inputs[k] if k < len(self._inputs) else None

    @property
    def arguments(self) -> int:
        """How many inputs there are, those without a name counted."""
        return len(self._inputs)

    def optional(self, k: int) -> Any:
        """Input ``k``, or None where it is left out."""
        self._unread.discard(k)
        return self._inputs[k] if k < len(self._inputs) else None

    def value(self, k: int) -> Any:
        """Input ``k``."""
        found = self.optional(k)
        if found is None:
            raise self.refused(f"have input {k}")
        return found

    def values(self) -> list[Any]:
        """All inputs."""
        return [self.value(k) for k in range(len(self._inputs))]

    def finished(self, outputs: int) -> None:
        """Refuse what the handler has not read, and outputs beyond those that it gave."""
        if self._left:
            raise self.refused(f"have no attribute {shown(min(self._left))}, which hwrnn does not know there")
        if self._unread:
            raise self.refused(f"have no input {min(self._unread)}, which hwrnn does not read there")
        for k, wanted in enumerate(self.wanted):
            if wanted and k >= outputs:
                raise self.refused(f"not be asked for output {k}, which hwrnn does not give")

    def check_schema(self) -> None:
        """Refuse attributes, inputs and outputs that the operator set of the file does not know.

        Raises:
            UsageError: an operator or argument that this version does not have.
        """
        proto = self.proto
        try:
            schema = defs.get_schema(proto.op_type, self.opset, "" if proto.domain == "ai.onnx" else proto.domain)
        except Exception as error:  # onnx has its own class for it
            raise self.refused(f"be an operator of its operator set, which {self.opset} is") from error
        for name in self._attributes:
            if name not in schema.attributes:
                raise self.refused(f"have no attribute {shown(name)}, which operator set {self.opset} does not know")
        for words, given, low, high in (
            ("inputs", len(proto.input), schema.min_input, schema.max_input),
            ("outputs", len(proto.output), schema.min_output, schema.max_output),
        ):
            if not low <= given <= high:
                raise self.refused(f"have {low} to {high} {words} in operator set {self.opset}, not {given}")


def array_of(tensor: TensorProto, words: str) -> np.ndarray:
    """A tensor of the file as an array.

    Raises:
        UsageError: an element type that is not read, numbers that are not finite, or a tensor that is not sound.
    """
    kind = tensor_kind(tensor.data_type)
    if kind is None:
        known = ", ".join(str(k) for k in (*FLOATS.values(), *_OTHERS.values()))
        raise UsageError(f"Numbers of {words} must be {known}, not {kind_name(tensor.data_type)}")
    array = tensor_array(tensor).astype(kind, copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UsageError(f"Numbers of {words} must be finite: train the network again with a smaller rate")
    return array


def opset_of(proto: ModelProto | FunctionProto) -> dict[str, int]:
    """The version of every operator set that a file imports, by domain; ONNX's own is ``""``."""
    return {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import}


def flattened(proto: ModelProto, known: Container[str] = ()) -> ModelProto:
    """The model with its local functions (as PyTorch's dynamo exporter writes them) put in their callers' places.

    That functions end and how many nodes they become is checked where the file is read. Those of ``known`` operators,
    the domain in front, are what their names say and stay calls.

    Raises:
        UsageError: functions of another operator set than their file, or that do not fit their calls.
    """
    if not proto.functions:
        return proto
    if any(f"{f.domain}.{f.name}" in known for f in proto.functions):
        kept = [f for f in proto.functions if f"{f.domain}.{f.name}" not in known]
        copy = ModelProto()
        copy.CopyFrom(proto)
        del copy.functions[:]
        copy.functions.extend(kept)
        return flattened(copy)
    opsets = opset_of(proto)
    for function in proto.functions:
        for domain, version in opset_of(function).items():
            if opsets.get(domain, version) != version:
                raise UsageError(
                    f"Function {shown(function.name)} must use the operator set of its file, {opsets[domain]},"
                    f" not {version}"
                )
    from onnx import inliner

    try:
        return inliner.inline_local_functions(proto)
    except Exception as error:  # whatever the inliner says of a file that is damaged
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"Functions of the network must fit their calls: {reason}") from error


def initializers(graph: GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    """The constants of a graph by name."""
    for tensor in graph.initializer:
        yield tensor.name, array_of(tensor, f"constant {shown(tensor.name)}")


def kind_name(code: int) -> str:
    """An element type for messages."""
    try:
        return helper.tensor_dtype_to_string(code).removeprefix("TensorProto.").lower()
    except (KeyError, ValueError):
        return str(code)
