"""Operators that rearrange axes without computing, and what all handlers ask of views and constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwrnn.importing.graph import Node
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.shapes import Size, Undecided, product, whole
from hwrnn.importing.values import BATCH, FEATURES, TIME, Atom, Axis, Constant, Open, Value, View, inner
from hwrnn.importing.values import constant_view as viewed

__all__ = [
    "along", "as_view", "at_step", "columns_axis", "constant", "normal_axis", "numbers", "reshaped", "taken",
    "time_axis", "turned",
]  # fmt: skip


def constant(node: Node, k: int, words: str) -> np.ndarray:
    """Input ``k``, which has to be constant."""
    value = node.value(k)
    if not isinstance(value, Constant) or not value.known:
        raise node.refused(f"have a constant as {words}, not a computed value")
    return value.array


def numbers(node: Node, k: int, words: str) -> list[Any] | None:
    """Input ``k`` as a list of whole numbers, some of them open sizes; None where it is left out."""
    value = node.optional(k)
    if value is None:
        return None
    if not isinstance(value, Constant) or value.array.ndim > 1 or value.array.dtype.kind not in "iuO":
        raise node.refused(f"have constant whole numbers as {words}, not a computed value")
    return whole(value.array)


def normal_axis(node: Node, axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise node.refused(f"have an axis between {-rank} and {rank - 1}, not {axis}")
    return axis % rank


def as_view(value: Value, kind: np.dtype | None = None) -> View:
    """A value as a view."""
    if isinstance(value, Constant) and not value.known:
        raise Undecided("it computes with one of them")
    return value if isinstance(value, View) else viewed(value.array, kind)


def columns_axis(node: Node, net: Interpreter, view: View, axis: int, words: str) -> None:
    """Refuse to treat an axis along which the sequences or steps lie like features.

    Raises:
        Learnt: where the axis is an input's and not yet known.
    """
    net.learn([(view.axes[axis], FEATURES, None)])
    for atom in view.axes[axis]:
        if isinstance(atom, Open):
            lies = "sequences of the batch" if atom.role == BATCH else "time steps"
            raise node.refused(f"not {words}: the {lies} lie along axis {axis}")


def along(view: View, axis: int, change: Callable[[np.ndarray, int], np.ndarray], parts: Sequence[Axis]) -> View:
    """A view changed along one axis of columns.

    Args:
        change: of an array and the place of the axis in it.
        parts: what the axis becomes: the axes in its place.
    """
    before = len(inner(view.axes[:axis]))
    opened = view.axes[axis] if view.axes[axis] else (1,)
    axes = (*view.axes[:axis], opened, *view.axes[axis + 1 :])
    shape = inner(axes)
    new = (*view.axes[:axis], *parts, *view.axes[axis + 1 :])
    return view.each(lambda array: change(array.reshape(shape), before), new)


def taken(view: View, axis: int, indices: np.ndarray) -> View:
    """Elements by index along an axis of columns; the axis becomes those of ``indices``."""
    parts = [(int(size),) for size in indices.shape]
    return along(view, axis, lambda array, k: np.take(array, indices, axis=k), parts)


def at_step(net: Interpreter, view: View, axis: int, at: int, kept: bool) -> View:
    """The view at one step; the axis stays with size 1, or goes."""
    axes = (*view.axes[:axis], *([()] if kept else []), *view.axes[axis + 1 :])
    return replace(view, axes=axes, columns=net.sources.picked(view.columns, at))


def turned(net: Interpreter, view: View) -> View:
    """The view with its steps in the opposite order."""
    return replace(view, columns=net.sources.picked(view.columns, None))


def time_axis(node: Node, net: Interpreter, view: View, axis: int, words: str) -> Open:
    """The atom of an axis along which nothing but the time lies."""
    net.learn([(view.axes[axis], TIME, None)])
    atoms = view.axes[axis]
    if len(atoms) != 1 or not isinstance(atoms[0], Open) or atoms[0].role != TIME:
        raise node.refused(f"not {words}: the sequences of the batch lie along axis {axis}")
    return atoms[0]


# -- axes that come and go ---------------------------------------------------------------------------------------------
@operator("Identity")
def _identity(node: Node, net: Interpreter) -> Sequence[Value]:
    return [node.value(0)]


@operator("Dropout")
def _dropout(node: Node, net: Interpreter) -> Sequence[Value]:
    if node.opset < 12:
        node.real("ratio")
    else:
        node.integer("seed", 0)
        node.optional(1)
        training = node.optional(2)
        if training is not None and (not isinstance(training, Constant) or training.array.any()):
            raise node.refused("have training_mode false: export the network for inference")
    return [node.value(0)]


@operator("Transpose")
def _transpose(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    order = node.integers("perm")
    rank = value.array.ndim if isinstance(value, Constant) else len(value.axes)
    order = list(range(rank))[::-1] if order is None else order
    if sorted(order) != list(range(rank)):
        raise node.refused(f"have a perm of its {rank} axes, not {order}")
    if isinstance(value, Constant):
        return [Constant(value.array.transpose(order))]
    places: list[list[int]] = []
    count = 0
    for axis in value.axes:
        own = len(inner([axis]))
        places.append(list(range(count, count + own)))
        count += own
    moved = [p for k in order for p in places[k]]
    return [value.each(lambda array: array.transpose(moved), [value.axes[k] for k in order])]


def _axes_argument(node: Node) -> list[int] | None:
    """The axes of Squeeze and its like: an attribute before operator set 13, an input from then on."""
    if node.opset < 13:
        return node.integers("axes")
    found = numbers(node, 1, "axes")
    if found is not None and any(isinstance(a, Size) for a in found):
        raise node.refused("have known axes")
    return found


@operator("Unsqueeze")
def _unsqueeze(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    axes = _axes_argument(node)
    if axes is None:
        raise node.refused("have axes")
    rank = (value.array.ndim if isinstance(value, Constant) else len(value.axes)) + len(axes)
    places = {normal_axis(node, a, rank) for a in axes}
    if len(places) != len(axes) or rank > 16:
        raise node.refused(f"have different axes, at most 16 in all, not {axes[:16]}")
    if isinstance(value, Constant):
        return [Constant(np.expand_dims(value.array, tuple(places)))]
    old = iter(value.axes)
    return [value.each(lambda array: array, [() if k in places else next(old) for k in range(rank)])]


@operator("Squeeze")
def _squeeze(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    axes = _axes_argument(node)
    if isinstance(value, Constant):
        chosen = None if axes is None else tuple(normal_axis(node, a, value.array.ndim) for a in axes)
        if chosen is not None and any(value.array.shape[a] != 1 for a in chosen):
            raise node.refused(f"drop axes of size 1 only, not {axes} of the shape {value.array.shape}")
        return [Constant(np.squeeze(value.array, chosen))]
    shape = value.shape
    if axes is None:
        if any(isinstance(size, Size) for size in shape):
            raise node.refused("name the axes that it drops, because some sizes are open")
        axes = [k for k, size in enumerate(shape) if size == 1]
    places = sorted({normal_axis(node, a, len(shape)) for a in axes}, reverse=True)
    for k in places:
        if isinstance(shape[k], Size) or shape[k] != 1:
            raise node.refused(f"drop axes of size 1 only, not axis {k} of size {shape[k]}")
        net.learn([(value.axes[k], BATCH, None)])
        timed = any(isinstance(a, Open) and a.role == TIME for a in value.axes[k])
        rest = [*value.axes[:k], *value.axes[k + 1 :]]
        value = at_step(net, value, k, -1, False) if timed else value.placed(rest)
    return [value]


@operator("Flatten")
def _flatten(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    axis = node.integer("axis", 1)
    shape: Sequence[Any] = value.array.shape if isinstance(value, Constant) else value.shape
    if not -len(shape) <= axis <= len(shape):
        raise node.refused(f"have an axis between {-len(shape)} and {len(shape)}, not {axis}")
    axis = axis + len(shape) if axis < 0 else axis
    return [reshaped(node, value, [product(shape[:axis]), product(shape[axis:])])]


@operator("Reshape")
def _reshape(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    target = numbers(node, 1, "shape")
    keeps = not (node.flag("allowzero") if node.opset >= 14 else False)
    if target is None or len(target) > 16:
        raise node.refused("have a shape of at most 16 axes")
    shape: Sequence[Any] = value.array.shape if isinstance(value, Constant) else value.shape
    for k, size in enumerate(target):
        if not isinstance(size, Size) and (size < -1 or (size == 0 and (not keeps or k >= len(shape)))):
            raise node.refused(f"have a shape of positive sizes, not {target}")
    target = [shape[k] if not isinstance(s, Size) and s == 0 else s for k, s in enumerate(target)]
    rest = [k for k, s in enumerate(target) if not isinstance(s, Size) and s == -1]
    if len(rest) > 1:
        raise node.refused("have at most one size -1 in its shape")
    if rest:
        others = product(s for k, s in enumerate(target) if k != rest[0])
        total = product(shape)
        if not isinstance(total, Size) and not isinstance(others, Size) and (others == 0 or total % others):
            raise node.refused(f"have a shape that its {total} elements fill, not {target}")
        if isinstance(value, View):
            _bound(net, value, target)
        try:
            target[rest[0]] = total // others
        except Undecided as error:
            raise node.refused(f"have a shape that keeps batch, time and features apart, not {target}") from error
    elif isinstance(value, View):
        _bound(net, value, target)
    return [reshaped(node, value, target)]


def _bound(net: Interpreter, view: View, target: Sequence[Any]) -> None:
    """Where a reshape keeps an axis in its place but writes its size as a number, that is the size (dynamo does so)."""
    sizes = [size for size in target if isinstance(size, Size) or size != 1]
    axes = [axis for axis in view.axes if axis]
    if len(sizes) == len(axes):
        for axis, size in zip(axes, sizes, strict=True):
            if len(axis) == 1 and isinstance(axis[0], Open) and not isinstance(size, Size) and size > 0:
                net.bind(axis[0].role, size)


def reshaped(node: Node, value: Value, target: Sequence[Any]) -> Value:
    """A value with other axes over the same elements in the same order."""
    if isinstance(value, Constant):
        if any(isinstance(s, Size) for s in target) or int(np.prod(target, dtype=object)) != value.array.size:
            raise node.refused(f"have a shape that its {value.array.size} elements fill, not {list(target)}")
        return Constant(value.array.reshape(tuple(target)))
    if product(value.shape) != product(target):
        raise node.refused(f"have a shape of as many elements as {list(value.shape)}, not {list(target)}")
    queue: list[Atom] = list(value.atoms)
    axes: list[Axis] = []
    for k, size in enumerate(target):
        found: list[Atom] = []
        left = size
        while isinstance(left, Size) or left != 1:
            left = _part(node, queue, found, left, target)
        following = target[k + 1] if k + 1 < len(target) else 0
        while queue and _single(queue[0]) and (not found or isinstance(found[-1], Open)):
            if not found and size == 1:
                found.append(queue.pop(0))
                break
            if isinstance(following, Size) or following != 1:
                found.append(queue.pop(0))
            else:
                break
        axes.append(tuple(found))
    if queue:
        axes[-1] = (*axes[-1], *queue)
    shape = inner(axes)
    return value.each(lambda array: array.reshape(shape), axes)


def _single(atom: Atom) -> bool:
    return isinstance(atom, Open) and not isinstance(atom.size, Size) and atom.size == 1


def _part(node: Node, queue: list[Atom], found: list[Atom], left: Any, target: Sequence[Any]) -> Any:
    """Move the first atom, or a factor of it, into an axis that still lacks ``left``; what it lacks then."""
    atom = queue.pop(0)
    fault = node.refused(f"have a shape that keeps batch, time and features apart, not {list(target)}")
    if isinstance(atom, Open):
        found.append(atom)
        if isinstance(atom.size, Size):
            if not isinstance(left, Size):
                raise fault
            try:
                return left // atom.size
            except Undecided as error:
                raise fault from error
        if isinstance(left, Size):
            try:
                return left // atom.size
            except Undecided as error:
                raise fault from error
        if left % atom.size:
            raise fault
        return left // atom.size
    if isinstance(left, Size):
        try:
            rest = left // atom
        except Undecided as error:
            raise fault from error
        found.append(atom)
        return rest
    if left % atom == 0:
        found.append(atom)
        return left // atom
    if atom % left:
        raise fault
    found.append(left)
    queue.insert(0, atom // left)
    return 1
