"""Operators that compute on features: products with constant matrices, affine arithmetic and their like.

They become dense layers; scaling and shifting is carried along with the columns until something reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwrnn.activations import NONLINEARITIES, Nonlinearity
from hwrnn.importing import values as v
from hwrnn.importing.graph import Node
from hwrnn.importing.layouts import as_view, columns_axis, constant, normal_axis, numbers, taken
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.shapes import Size
from hwrnn.importing.values import FEATURES, NOTHING, Axis, Constant, Dense, Open, Value, Vector, View

__all__ = ["aligned", "applied", "dense_view", "settled"]


# -- dense sources -----------------------------------------------------------------------------------------------------
def settled(net: Interpreter, vector: Vector) -> Vector:
    """A vector with what scales and shifts a dense layer's outputs taken into that layer.

    Without that, the bias that an exporter adds in a node of its own would stay outside.
    """
    found = net.sources.of(vector.columns)
    if vector.plain or len(found) != 1 or not isinstance(found[0], Dense) or found[0].function is not None:
        return vector
    if (vector.columns == NOTHING).any():
        return vector
    source = _folded(net, vector)
    return net.sources.vector(source)


def _folded(net: Interpreter, vector: Vector, function: Nonlinearity | None = None) -> Dense:
    """A dense layer that computes a vector and applies a function to it."""
    (found, *more), columns = net.sources.of(vector.columns), vector.columns
    if not more and isinstance(found, Dense) and found.function is None and (columns != NOTHING).all():
        units = net.sources.place(columns)[1]
        weights = vector.scale[:, None] * found.weights[units]
        net.spend(weights.size)
        made = Dense(
            units=len(columns), timed=found.timed, operand=found.operand, weights=weights,
            bias=vector.scale * found.bias[units] + vector.offset, function=function,
        )  # fmt: skip
    else:
        reads, where = np.unique(columns[columns != NOTHING], return_inverse=True)
        net.spend(len(columns) * len(reads))
        weights = np.zeros((len(columns), len(reads)))
        rows = np.flatnonzero(columns != NOTHING)
        weights[rows, where] = vector.scale[rows]
        operand = Vector(reads, np.ones(len(reads)), np.zeros(len(reads)))
        made = Dense(
            units=len(columns), timed=net.sources.timed(columns), operand=operand, weights=weights,
            bias=vector.offset.copy(), function=function,
        )  # fmt: skip
    net.sources.add(made)
    return made


def dense_view(
    net: Interpreter, operand: Vector, weights: np.ndarray, bias: np.ndarray, axes: Sequence[Axis], kind: np.dtype
) -> View:
    """The view of a new dense layer without a function; weights (units, K), ``kind`` as for :class:`View`."""
    net.spend(weights.size)
    source = Dense(
        units=len(weights), timed=net.sources.timed(operand.columns), operand=settled(net, operand),
        weights=np.asarray(weights, np.float64), bias=np.asarray(bias, np.float64), function=None,
    )  # fmt: skip
    return replace(net.sources.view(net.sources.add(source), axes), kind=kind)


def applied(net: Interpreter, view: View, function: Nonlinearity) -> View:
    """A view with a function applied to every element."""
    if view.vector.constant:
        return View(view.axes, view.columns, view.scale, np.asarray(function.value(view.offset)), view.kind)
    if function == NONLINEARITIES["identity"]:
        return view
    source = _folded(net, view.vector, function)
    shape = v.inner(view.axes)
    return View(view.axes, source.channels.reshape(shape), np.ones(shape), np.zeros(shape), view.kind)


def _check_float(node: Node, view: View) -> None:
    if view.kind.kind != "f":
        raise node.refused(f"compute with floats, not with computed {view.kind} numbers")


def _product(node: Node, net: Interpreter, view: View, matrix: np.ndarray) -> View:
    """The last axis (K,) of a view times a matrix (K, M)."""
    last = len(view.axes) - 1
    net.learn([(view.axes[last], FEATURES, matrix.shape[0])])
    columns_axis(node, net, view, last, "multiply it with a matrix")
    size, units = matrix.shape
    if view.shape[last] != size:
        raise node.refused(f"have a matrix of {view.shape[last]} rows, as the value has elements, not {size}")
    blocks = view.columns.size // size
    net.spend(blocks * blocks * matrix.size)
    weights = np.kron(np.eye(blocks), matrix.T.astype(np.float64))
    if view.vector.constant:
        axes = [*view.axes[:last], (units,)]
        shape = v.inner(axes)
        made = (view.offset.reshape(blocks, size) @ matrix).reshape(shape)
        return v.canonical(View(tuple(axes), np.full(shape, NOTHING), np.zeros(shape), made, view.kind))
    _check_float(node, view)
    return dense_view(net, view.vector, weights, np.zeros(blocks * units), [*view.axes[:last], (units,)], view.kind)


@operator("MatMul")
def _matmul(node: Node, net: Interpreter) -> Sequence[Value]:
    a, b = node.value(0), node.value(1)
    if isinstance(a, Constant) and isinstance(b, Constant):
        if not a.known or not b.known or a.array.ndim != 2 or b.array.ndim != 2 or a.array.shape[1] != b.array.shape[0]:
            raise node.refused("have constant matrices that fit each other")
        net.spend(a.array.size * b.array.shape[1])
        return [Constant(np.matmul(a.array, b.array))]
    if isinstance(a, Constant):
        raise node.refused("have the computed value first and the constant matrix second")
    matrix = constant(node, 1, "matrix")
    while matrix.ndim > 2 and matrix.shape[0] == 1:
        matrix = matrix[0]
    if matrix.ndim != 2 or not a.axes:
        raise node.refused(f"have a matrix of two axes, not {matrix.ndim}")
    return [_product(node, net, a, matrix)]


@operator("Gemm")
def _gemm(node: Node, net: Interpreter) -> Sequence[Value]:
    a, c = node.value(0), node.optional(2)
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    turned_a, turned_b = node.flag("transA"), node.flag("transB")
    matrix = constant(node, 1, "matrix")
    if matrix.ndim != 2:
        raise node.refused(f"have a matrix of two axes, not {matrix.ndim}")
    matrix = (matrix.T if turned_b else matrix) * np.asarray(alpha, matrix.dtype)
    if isinstance(a, Constant):
        if not a.known:
            raise node.refused("compute with numbers, not with sizes that the file leaves open")
        left = (a.array.T if turned_a else a.array).astype(matrix.dtype)
        if left.ndim != 2 or left.shape[1] != matrix.shape[0]:
            raise node.refused("have matrices that fit each other")
        view: View = v.constant_view(left @ matrix)
    else:
        if turned_a:
            raise node.refused("have transA 0 for a computed value")
        if len(a.axes) != 2:
            raise node.refused(f"have a computed value of two axes, not {len(a.axes)}")
        view = _product(node, net, a, matrix)
    if c is None:
        return [view]
    bias = as_view(c)
    bias = View(bias.axes, bias.columns, bias.scale * float(beta or 0), bias.offset * float(beta or 0), bias.kind)
    return [_sum(node, net, view, bias)]


# -- arithmetic --------------------------------------------------------------------------------------------------------
def aligned(node: Node, net: Interpreter, views: Sequence[View]) -> list[View]:
    """Views repeated along each other's axes, as arithmetic does, so that their columns have equal shapes."""
    rank = max(len(view.axes) for view in views)
    found = [view.placed([*[()] * (rank - len(view.axes)), *view.axes]) for view in views]
    for k in range(rank):
        axes = [view.axes[k] for view in found]
        wide = [axis for axis in axes if axis]
        if not wide:
            continue
        opened = [axis for axis in wide if any(isinstance(a, Open) for a in axis)]
        for axis in opened:
            for view, other in zip(found, axes, strict=True):
                if view.vector.constant and other and not _same_along(view, k):
                    net.learn([(axis, FEATURES, view.shape[k])])
        for axis in opened:
            for other in opened:
                if len(other) == 1 and isinstance(other[0], Open):
                    net.learn([(axis, other[0].role, None)] if other[0].role in (v.BATCH, v.TIME) else [])
        target = opened[0] if opened else wide[0]
        for j, view in enumerate(found):
            found[j] = _widened(node, net, view, k, target)
    return found


def _same_along(view: View, k: int) -> bool:
    if any(isinstance(a, Open) for a in view.axes[k]):
        return True
    again = taken(view, k, np.zeros(int(view.shape[k]), np.int64))
    return bool(np.array_equal(again.offset, view.offset))


def _widened(node: Node, net: Interpreter, view: View, k: int, target: Axis) -> View:
    axis = view.axes[k]
    if axis == target:
        return view
    size = v.product(a if isinstance(a, int) else a.size for a in target)
    if not axis:
        more, before, after = v.inner([target]), v.inner(view.axes[:k]), v.inner(view.axes[k + 1 :])
        net.spend(view.columns.size * int(np.prod(more, dtype=object)))

        def repeated(array: np.ndarray) -> np.ndarray:
            return np.broadcast_to(array.reshape((*before, *(1 for _ in more), *after)), (*before, *more, *after))

        return view.each(repeated, [*view.axes[:k], target, *view.axes[k + 1 :]])
    if isinstance(size, Size) or view.shape[k] != size:
        raise node.refused(f"compute with values that fit each other, not {view.shape[k]} and {size} along axis {k}")
    if any(isinstance(a, Open) for a in target) and view.vector.constant and not any(isinstance(a, Open) for a in axis):
        if any(isinstance(a, int) for a in target) or not _same_along(view, k):
            raise node.refused("compute with constants that are the same for every sequence and every step")
        first = taken(view, k, np.array(0))
        return first.placed([*first.axes[:k], target, *first.axes[k:]])
    raise node.refused(f"compute with values whose batch, time and features lie alike along axis {k}")


def _sum(node: Node, net: Interpreter, a: View, b: View, sign: float = 1.0) -> View:
    """The sum of two views of any axes that fit each other."""
    a, b = aligned(node, net, [a, b])
    b = View(b.axes, b.columns, b.scale * sign, b.offset * sign, b.kind)
    if a.vector.constant:
        a, b = b, a
    if b.vector.constant:
        made = View(a.axes, a.columns, a.scale, a.offset + b.offset, a.kind)
        return _with_bias(net, made) if a.vector.plain else made
    _check_float(node, a)
    left, right = settled(net, a.vector), settled(net, b.vector)
    both = np.concatenate([left.columns, right.columns])
    reads, where = np.unique(both[both != NOTHING], return_inverse=True)
    units = len(left.columns)
    net.spend(units * len(reads))
    weights = np.zeros((units, len(reads)))
    rows = np.tile(np.arange(units), 2)[both != NOTHING]
    np.add.at(weights, (rows, where), np.concatenate([left.scale, right.scale])[both != NOTHING])
    operand = Vector(reads, np.ones(len(reads)), np.zeros(len(reads)))
    made = dense_view(net, operand, weights, left.offset + right.offset, [(units,)], a.kind)
    return made.each(lambda array: array.reshape(a.columns.shape), a.axes)


def _with_bias(net: Interpreter, view: View) -> View:
    """A view with what is added to a matrix product taken for its bias, which hardware adds before it compares."""
    found = net.sources.of(view.columns)
    if len(found) != 1 or not isinstance(found[0], Dense) or found[0].bias.any():
        return view
    shape = v.inner(view.axes)
    columns, scale, offset = (part.reshape(shape) for part in settled(net, view.vector).parts)
    return View(view.axes, columns, scale, offset, view.kind)


def _scaled(node: Node, net: Interpreter, a: View, factor: View) -> View:
    a, factor = aligned(node, net, [a, factor])
    k = factor.offset
    if not np.isfinite(k).all():
        raise node.refused("scale by finite numbers")
    return View(a.axes, a.columns, a.scale * k, a.offset * k, a.kind)


def _arithmetic(node: Node, net: Interpreter, a: Value, b: Value, name: str) -> Value:
    if isinstance(a, Constant) and isinstance(b, Constant):
        from hwrnn.importing.constants import computed

        return computed(node, net, name, a, b)
    if any(isinstance(value, Constant) and not value.known for value in (a, b)):
        raise node.refused("compute with numbers, not with sizes that the file leaves open")
    left, right = as_view(a), as_view(b)
    if name in ("Add", "Sub"):
        made = _sum(node, net, left, right, 1.0 if name == "Add" else -1.0)
    elif right.vector.constant:
        if name == "Div" and (left.kind.kind != "f" or (right.offset == 0).any()):
            raise node.refused("divide floats by numbers that are not 0")
        with np.errstate(over="ignore"):
            factor = 1 / right.offset if name == "Div" else right.offset
        made = _scaled(node, net, left, View(right.axes, right.columns, right.scale, factor, right.kind))
    elif left.vector.constant and name == "Mul":
        made = _scaled(node, net, right, left)
    else:
        raise node.refused("have a constant among its values: hwrnn has no layer that does it with two computed ones")
    return made


@operator("Add", "Sub", "Mul", "Div")
def _binary(node: Node, net: Interpreter) -> Sequence[Value]:
    return [_arithmetic(node, net, node.value(0), node.value(1), node.operator)]


@operator("Sum")
def _sums(node: Node, net: Interpreter) -> Sequence[Value]:
    total, *more = node.values()
    for value in more:
        total = _arithmetic(node, net, total, value, "Add")
    return [total]


@operator("Neg")
def _neg(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    if isinstance(value, Constant):
        return [Constant(-value.array)]
    return [View(value.axes, value.columns, -value.scale, -value.offset, value.kind)]


@operator("ai.onnx.ml.Scaler")
def _scaler(node: Node, net: Interpreter) -> Sequence[Value]:
    """(x - offset) * scale, per feature (last axis)."""
    view = as_view(node.value(0))
    offset, scale = node.reals("offset") or [0.0], node.reals("scale") or [1.0]
    shifted = _sum(node, net, view, v.constant_view(np.array(offset)), -1.0)
    made = _scaled(node, net, shifted, v.constant_view(np.array(scale)))
    return [View(made.axes, made.columns, made.scale, made.offset, np.dtype(np.float32))]


@operator("BatchNormalization")
def _batch_normalization(node: Node, net: Interpreter) -> Sequence[Value]:
    view = as_view(node.value(0))
    names = ((1, "scale"), (2, "B"), (3, "mean"), (4, "variance"))
    scale, shift, mean, variance = (constant(node, k, words).astype(np.float64) for k, words in names)
    epsilon = node.real("epsilon", 1e-5)
    node.real("momentum")  # it concerns training alone
    if node.opset < 9 and not node.flag("spatial", 1):
        raise node.refused("have spatial 1")
    if node.opset >= 14 and node.flag("training_mode"):
        raise node.refused("have training_mode 0: export the network for inference")
    if len(view.axes) < 2:
        raise node.refused("have features along axis 1")
    fit = all(a.ndim == 1 and a.shape == scale.shape for a in (scale, shift, mean, variance))
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + float(epsilon or 0)) if fit else scale
    if not fit or not np.isfinite(factor).all():
        raise node.refused("have finite vectors of one length, and a variance above 0")
    shape = [len(factor)] + [1] * (len(view.axes) - 2)
    net.learn([(view.axes[1], FEATURES, len(factor))])
    columns_axis(node, net, view, 1, "normalise it")
    if view.shape[1] != len(factor):
        raise node.refused(f"have vectors of {view.shape[1]} elements, as the value has features, not {len(factor)}")
    made = _scaled(node, net, view, v.constant_view(factor.reshape(shape)))
    return [_sum(node, net, made, v.constant_view((shift - mean * factor).reshape(shape)))]


@operator("ReduceMean", "ReduceSum")
def _reduced(node: Node, net: Interpreter) -> Sequence[Value]:
    since = 18 if node.operator == "ReduceMean" else 13
    value = node.value(0)
    axes = node.integers("axes") if node.opset < since else numbers(node, 1, "axes")
    keep = node.flag("keepdims", 1)
    if node.opset >= since and node.flag("noop_with_empty_axes") and not axes:
        return [value]
    rank = value.array.ndim if isinstance(value, Constant) else len(value.axes)
    places = sorted({normal_axis(node, int(a), rank) for a in (axes or range(rank))})
    if isinstance(value, Constant):
        if not value.known:
            raise node.refused("compute with numbers, not with sizes that the file leaves open")
        if not value.array.size:
            raise node.refused("reduce at least one number")
        function = np.mean if node.operator == "ReduceMean" else np.sum
        return [Constant(np.asarray(function(value.array, tuple(places), keepdims=keep), value.array.dtype))]
    if len(places) != 1:
        raise node.refused(f"reduce one axis, not {len(places)}")
    axis = places[0]
    columns_axis(node, net, value, axis, "reduce it")
    size = int(value.shape[axis])
    order = [k for k in range(rank) if k != axis]
    grid = np.arange(value.columns.size).reshape([int(np.prod(v.inner([a]), dtype=object)) for a in value.axes])
    rows = np.moveaxis(grid, axis, -1).reshape(-1, size)
    weights = np.zeros((len(rows), value.columns.size))
    net.spend(weights.size)
    np.put_along_axis(weights, rows, 1.0 / size if node.operator == "ReduceMean" else 1.0, axis=1)
    new = [value.axes[k] if k in order else () for k in range(rank) if keep or k in order]
    _check_float(node, value)
    made = dense_view(net, value.vector, weights, np.zeros(len(rows)), [(len(rows),)], value.kind)
    return [made.each(lambda array: array.reshape(v.inner(new)), new)]
