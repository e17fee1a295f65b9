"""Operators that put values together or repeat them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwrnn.importing.graph import Node
from hwrnn.importing.layouts import as_view, columns_axis, normal_axis, numbers, taken
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.shapes import Size, folded, product
from hwrnn.importing.values import BATCH, TIME, Axis, Constant, Open, Value, View, canonical, inner

__all__ = ["expanded"]


@operator("Concat")
def _concat(node: Node, net: Interpreter) -> Sequence[Value]:
    values = node.values()
    ranks = {v.array.ndim if isinstance(v, Constant) else len(v.axes) for v in values}
    if len(ranks) != 1:
        raise node.refused("join values of equally many axes")
    axis = normal_axis(node, node.integer("axis"), ranks.pop())
    if all(isinstance(v, Constant) for v in values):
        try:
            return [Constant(folded(np.concatenate([v.array for v in values], axis)))]
        except ValueError as error:
            raise node.refused("join values of equal shapes apart from the axis") from error
    if len(values) == 1:
        return [values[0]]
    views = [as_view(v) for v in values]
    for view in views:
        columns_axis(node, net, view, axis, "join along it")
    like = [_common(node, net, [view.axes[k] for view in views]) for k in range(len(views[0].axes))]
    like[axis] = ()
    parts = []
    for view in views:
        wanted = [view.axes[k] if k == axis else like[k] for k in range(len(like))]
        parts.append(_with_opens(node, view, wanted))
    place = len(inner(like[:axis]))
    shapes = [inner([*p.axes[:axis], p.axes[axis] or (1,), *p.axes[axis + 1 :]]) for p in parts]
    columns, scale, offset = (
        np.concatenate([getattr(p, name).reshape(shape) for p, shape in zip(parts, shapes, strict=True)], place)
        for name in ("columns", "scale", "offset")
    )
    axes = [*like[:axis], (columns.shape[place],), *like[axis + 1 :]]
    return [canonical(View(tuple(axes), columns, scale, offset, views[0].kind))]


def _common(node: Node, net: Interpreter, axes: Sequence[Axis]) -> Axis:
    """The axis that several have in common: one with the batch or the time, where one of them has it."""
    known = [a for a in axes if any(isinstance(atom, Open) for atom in a)]
    settled = [a for a in known if all(not isinstance(atom, Open) or atom.role in (BATCH, TIME) for atom in a)]
    for other in known:
        for best in settled:
            if len(best) == 1 and isinstance(best[0], Open):
                net.learn([(other, best[0].role, None)])
    return known[0] if known else axes[0]


def _with_opens(node: Node, view: View, axes: Sequence[Axis]) -> View:
    """A view whose axes are those given: a constant may be the same along the batch or the time."""
    for k, axis in enumerate(axes):
        if view.axes[k] != axis:
            view = _spread(node, view, k, axis)
    return view


def _spread(node: Node, view: View, k: int, axis: Axis) -> View:
    """A view that is the same along an axis of columns, with the batch or the time there instead."""
    size = product(a if isinstance(a, int) else a.size for a in axis)
    fault = node.refused(f"have values of equal shapes, not of axis {k} with {view.shape[k]} and {size}")
    if any(isinstance(a, int) for a in axis) or any(isinstance(a, Open) for a in view.axes[k]):
        raise fault
    if isinstance(size, Size) or view.shape[k] != size:
        raise fault
    first = taken(view, k, np.array(0))
    again = taken(view, k, np.zeros(view.shape[k], np.int64))
    same = all(np.array_equal(getattr(again, n), getattr(view, n)) for n in ("columns", "scale", "offset"))
    if not same:
        raise node.refused(f"have constants that are the same for every sequence and step, unlike those along axis {k}")
    return first.placed([*first.axes[:k], axis, *first.axes[k:]])


@operator("Expand")
def _expand(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    target = numbers(node, 1, "shape")
    if target is None:
        raise node.refused("have a shape")
    shape: Sequence[Any] = value.array.shape if isinstance(value, Constant) else value.shape
    rank = max(len(shape), len(target))
    own = [1] * (rank - len(shape)) + list(shape)
    wanted = [1] * (rank - len(target)) + target
    sizes = []
    for a, b in zip(own, wanted, strict=True):
        if not isinstance(b, Size) and b < 1:
            raise node.refused(f"have a shape of positive sizes, not {target}")
        one = not isinstance(a, Size) and a == 1
        if not one and a != b and (isinstance(b, Size) or b != 1):
            raise node.refused(f"have a shape that {list(shape)} can be repeated to, not {target}")
        sizes.append(b if one else a)
    return [expanded(node, net, value, sizes)]


def expanded(node: Node, net: Interpreter, value: Value, sizes: Sequence[Any]) -> Value:
    """A value repeated along its axes of size 1 to a shape; axes are added in front."""
    if isinstance(value, Constant) and not any(isinstance(s, Size) for s in sizes):
        net.spend(int(np.prod(sizes, dtype=object)))
        return Constant(np.broadcast_to(value.array, tuple(sizes)))
    view = as_view(value)
    view = view.placed([*[()] * (len(sizes) - len(view.axes)), *view.axes])
    for k, size in enumerate(sizes):
        if not isinstance(view.shape[k], Size) and view.shape[k] == 1 and (isinstance(size, Size) or size != 1):
            if isinstance(size, Size):
                atom = net.open_of(size)
                if atom is None:
                    raise node.refused(f"repeat along the batch or the time, not to {size} elements")
                view = view.placed([*view.axes[:k], (atom,), *view.axes[k + 1 :]])
            else:
                columns_axis(node, net, view, k, "repeat it")
                net.spend(view.columns.size * size)
                view = taken(view, k, np.zeros(size, np.int64))
    return view


@operator("Tile")
def _tile(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    repeats = numbers(node, 1, "repeats")
    shape: Sequence[Any] = value.array.shape if isinstance(value, Constant) else value.shape
    if repeats is None or len(repeats) != len(shape) or any(not isinstance(r, Size) and r < 1 for r in repeats):
        raise node.refused(f"have {len(shape)} positive repeats")
    pairs = list(zip(shape, repeats, strict=True))
    if all(any(not isinstance(n, Size) and n == 1 for n in pair) for pair in pairs):
        return [expanded(node, net, value, [s * r for s, r in pairs])]
    if isinstance(value, Constant) and not any(isinstance(r, Size) for r in repeats):
        net.spend(value.array.size * int(np.prod(repeats, dtype=object)))
        return [Constant(np.tile(value.array, repeats))]
    raise node.refused("repeat axes of size 1 only")
