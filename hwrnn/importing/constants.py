"""Constants, and the arithmetic on them that exporters put into a graph: mostly on shapes, some of them open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.importing.graph import Node, kind_name, tensor_kind
from hwrnn.importing.joins import expanded
from hwrnn.importing.layouts import constant, numbers
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.shapes import Size, equal, folded, product
from hwrnn.importing.values import Constant, Value, View

__all__ = ["computed"]

_MOST_STEPS = 1 << 20


def _quotient(a: Any, b: Any) -> Any:
    """Division as ONNX does it: whole numbers are cut towards zero."""
    if isinstance(a, Size) or isinstance(b, Size):
        return a // b
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b,
}  # fmt: skip


def computed(node: Node, net: Interpreter, name: str, a: Constant, b: Constant) -> Constant:
    """Add, Sub, Mul or Div of two constants."""
    _check_broadcast(node, net, a.array, b.array)
    if name == "Div" and a.known and b.known and a.array.dtype.kind == "f":
        with np.errstate(all="ignore"):
            return Constant(_finite(node, a.array / b.array))
    if name == "Div":
        if b.known and (b.array == 0).any():
            raise node.refused("not divide by 0")
        found = np.frompyfunc(_quotient, 2, 1)(a.array.astype(object), b.array.astype(object))
        kind = a.array.dtype if a.known else b.array.dtype
        made = folded(np.asarray(found, object))
        return Constant(made if made.dtype.kind == "O" or kind.kind == "O" else made.astype(kind))
    with np.errstate(all="ignore"):
        result = np.asarray(_OPERATIONS[name](a.array, b.array))
    return Constant(_finite(node, folded(result)))


def _finite(node: Node, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise node.refused("give finite numbers")
    return array


def _check_broadcast(node: Node, net: Interpreter, *arrays: np.ndarray) -> tuple[int, ...]:
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError as error:
        raise node.refused(f"have values of shapes that fit each other, not {[a.shape for a in arrays]}") from error
    net.spend(int(np.prod(shape, dtype=object)))
    return shape


@operator("Constant")
def _constant(node: Node, net: Interpreter) -> Sequence[Value]:
    found: Any = node.tensor("value")
    for name, read, kind in (
        ("value_float", node.real, np.float32), ("value_floats", node.reals, np.float32),
        ("value_int", node.integer, np.int64), ("value_ints", node.integers, np.int64),
    ):  # fmt: skip
        if node.has(name):
            found = np.array(read(name), kind)
    if found is None:
        raise node.refused("hold a tensor or numbers")
    return [Constant(found)]


@operator("Range")
def _range(node: Node, net: Interpreter) -> Sequence[Value]:
    start, limit, step = (constant(node, k, words) for k, words in enumerate(("start", "limit", "delta")))
    if any(a.size != 1 for a in (start, limit, step)) or step.reshape(-1)[0] == 0:
        raise node.refused("have three numbers, the last of them not 0")
    count = (limit.reshape(-1)[0] - start.reshape(-1)[0]) / step.reshape(-1)[0]
    if not count <= _MOST_STEPS:
        raise node.refused(f"give at most {_MOST_STEPS} numbers")
    return [Constant(np.arange(start.reshape(-1)[0], limit.reshape(-1)[0], step.reshape(-1)[0]).astype(start.dtype))]


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Less": lambda a, b: a < b, "LessOrEqual": lambda a, b: a <= b, "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b, "And": lambda a, b: a & b, "Or": lambda a, b: a | b,
    "Min": np.minimum, "Max": np.maximum,
}  # fmt: skip


@operator("Equal")
def _equal(node: Node, net: Interpreter) -> Sequence[Value]:
    a, b = node.value(0), node.value(1)
    if isinstance(a, View) or isinstance(b, View):
        raise node.refused("compare constants: hwrnn has no layer that compares computed values")
    shape = _check_broadcast(node, net, a.array, b.array)
    if a.known and b.known:
        return [Constant(np.asarray(a.array == b.array))]
    pairs = zip(np.broadcast_to(a.array, shape).reshape(-1), np.broadcast_to(b.array, shape).reshape(-1), strict=True)
    return [Constant(np.array([equal(x, y) for x, y in pairs], np.bool_).reshape(shape))]


@operator(*_COMPARISONS)
def _compared(node: Node, net: Interpreter) -> Sequence[Value]:
    arrays = [constant(node, k, "value to compare") for k in range(node.arguments)]
    found = arrays[0]
    for other in arrays[1:]:
        _check_broadcast(node, net, found, other)
        found = np.asarray(_COMPARISONS[node.operator](found, other))
    return [Constant(found)]


@operator("Not")
def _not(node: Node, net: Interpreter) -> Sequence[Value]:
    return [Constant(~constant(node, 0, "value").astype(np.bool_))]


@operator("Where")
def _where(node: Node, net: Interpreter) -> Sequence[Value]:
    condition, a, b = node.value(0), node.value(1), node.value(2)
    if not isinstance(condition, Constant) or not condition.known:
        raise node.refused("have a constant condition")
    if condition.array.size and (condition.array == condition.array.reshape(-1)[0]).all() and condition.array.size == 1:
        return [a if condition.array.reshape(-1)[0] else b]
    if isinstance(a, View) or isinstance(b, View):
        raise node.refused("choose between constants: hwrnn has no layer that chooses between computed values")
    _check_broadcast(node, net, condition.array, a.array, b.array)
    return [Constant(folded(np.where(condition.array, a.array, b.array)))]


@operator("ReduceProd")
def _product(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    keep = node.flag("keepdims", 1)
    if node.opset < 18:
        axes = node.integers("axes")
    else:
        axes = None if node.optional(1) is None else [int(a) for a in constant(node, 1, "axes").reshape(-1)]
        if node.flag("noop_with_empty_axes") and not axes:
            return [value]
    if not isinstance(value, Constant) or value.array.ndim > 1 or axes not in (None, [0], [-1]):
        raise node.refused("multiply the elements of one constant vector")
    total: Any = 1
    for element in value.array.reshape(-1).tolist():
        total = total * element
    array = np.empty((1,) if keep else (), object)
    array[...] = total
    return [Constant(folded(array) if value.array.dtype.kind != "f" else array.astype(value.array.dtype))]


@operator("If")
def _if(node: Node, net: Interpreter) -> Sequence[Value]:
    """The branch of a condition that is known beforehand, as exporters write it around Squeeze."""
    branches = node.graph("then_branch"), node.graph("else_branch")
    condition = node.value(0)
    if not isinstance(condition, Constant) or not condition.known or condition.array.size != 1:
        raise node.refused("have a condition that is known before the network runs")
    found = net.inner(branches[0 if condition.array.reshape(-1)[0] else 1], net.scope)
    for value in found:
        if isinstance(value, UsageError):
            raise value
    return [value for value in found if not isinstance(value, UsageError)]


@operator("Floor", "Ceil", "Round", "Reciprocal")
def _rounded(node: Node, net: Interpreter) -> Sequence[Value]:
    functions: dict[str, Callable[..., Any]] = {
        "Floor": np.floor, "Ceil": np.ceil, "Round": np.round, "Reciprocal": np.reciprocal,
    }  # fmt: skip
    with np.errstate(all="ignore"):
        return [Constant(_finite(node, np.asarray(functions[node.operator](constant(node, 0, "value")))))]


# -- sizes and types ---------------------------------------------------------------------------------------------------
@operator("Shape")
def _shape(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    shape: Sequence[Any] = value.array.shape if isinstance(value, Constant) else value.shape
    if node.opset >= 15:
        start = node.integer("start", 0)
        end = node.integer("end", len(shape)) if node.has("end") else None
        shape = shape[start if start >= -len(shape) else None : end]
    array = np.empty(len(shape), object)
    array[:] = list(shape)
    return [Constant(folded(array))]


@operator("Size")
def _size(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    array = np.empty((), object)
    array[()] = product(value.array.shape if isinstance(value, Constant) else value.shape)
    return [Constant(folded(array))]


@operator("Cast", "CastLike")
def _cast(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    kind: np.dtype | None
    if node.operator == "CastLike":
        like = node.value(1)
        kind = like.kind if isinstance(like, View) else np.dtype(np.int64) if not like.known else like.array.dtype
    else:
        code = node.integer("to")
        kind = tensor_kind(code)
        if kind is None:
            raise node.refused(f"turn numbers into float or whole ones, not into {kind_name(code)}")
    for name in ("saturate", "round_mode"):
        if node.has(name):
            node.integer(name) if name == "saturate" else node.text(name, "")  # they concern 8-bit floats alone
    if isinstance(value, Constant):
        if not value.known:
            if kind.kind not in "iu":
                raise node.refused(f"keep open sizes whole, not turn them into {kind}")
            return [value]
        with np.errstate(all="ignore"):
            return [Constant(value.array.astype(kind))]
    if value.kind.kind == "f" and kind.kind != "f":
        raise node.refused(f"not cut computed numbers to {kind}")
    if kind.kind == "b":
        raise node.refused("not turn computed numbers into truth values")
    if kind == np.float16 and value.kind != np.float16:
        net.note(f"Node {node.name!r} rounds to 16-bit floats; hwrnn computes on in float32")
    return [replace(value, kind=kind)]


@operator("ConstantOfShape")
def _constant_of_shape(node: Node, net: Interpreter) -> Sequence[Value]:
    target = numbers(node, 0, "shape")
    given = node.tensor("value")
    fill = np.zeros(1, np.float32) if given is None else given
    if fill.size != 1 or target is None or any(not isinstance(s, Size) and s < 0 for s in target):
        raise node.refused("have one value and a shape of sizes that are not negative")
    if not any(isinstance(s, Size) for s in target):
        net.spend(int(np.prod(target, dtype=object)))
        return [Constant(np.broadcast_to(fill.reshape(()), tuple(target)))]
    return [expanded(node, net, Constant(fill.reshape([1] * len(target))), target)]
