"""Operators that move elements without computing: on the axes and columns of views, and on constants as numpy does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwrnn.importing.graph import Node, kind_name, tensor_kind
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.shapes import Size, Undecided, folded, product, whole
from hwrnn.importing.values import BATCH, FEATURES, TIME, Atom, Axis, Constant, Open, Value, View, canonical, inner
from hwrnn.importing.values import constant_view as viewed

__all__ = ["along", "as_view", "columns_axis", "constant", "expanded", "normal_axis", "numbers", "reshaped", "taken"]


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


def _at_step(net: Interpreter, view: View, axis: int, at: int, kept: bool) -> View:
    """The view at one step; the axis stays with size 1, or goes."""
    axes = (*view.axes[:axis], *([()] if kept else []), *view.axes[axis + 1 :])
    return replace(view, axes=axes, columns=net.sources.picked(view.columns, at))


def _turned(net: Interpreter, view: View) -> View:
    return replace(view, columns=net.sources.picked(view.columns, None))


def _time_axis(node: Node, net: Interpreter, view: View, axis: int, words: str) -> Open:
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
        value = _at_step(net, value, k, -1, False) if timed else value.placed(rest)
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
            if not queue:
                raise node.refused(f"have a shape that keeps batch, time and features apart, not {list(target)}")
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


# -- parts -------------------------------------------------------------------------------------------------------------
@operator("Slice")
def _slice(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    rank = value.array.ndim if isinstance(value, Constant) else len(value.axes)
    if node.opset < 10:
        starts, ends, axes = node.integers("starts"), node.integers("ends"), node.integers("axes")
        steps = None
    else:
        starts, ends = numbers(node, 1, "starts"), numbers(node, 2, "ends")
        axes, steps = numbers(node, 3, "axes"), numbers(node, 4, "steps")
    if starts is None or ends is None:
        raise node.refused("have starts and ends")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or any(isinstance(s, Size) or s == 0 for s in steps):
        raise node.refused("have as many starts, ends, axes and steps, and steps that are not 0")
    places = [normal_axis(node, a, rank) for a in axes]
    if len(set(places)) != len(places):
        raise node.refused(f"name different axes, not {axes}")
    for axis, start, end, step in zip(places, starts, ends, steps, strict=True):
        value = _sliced(node, net, value, axis, start, end, int(step))
    return [value]


def _sliced(node: Node, net: Interpreter, value: Value, axis: int, start: Any, end: Any, step: int) -> Value:
    size: Any = value.array.shape[axis] if isinstance(value, Constant) else value.shape[axis]
    if not any(isinstance(v, Size) for v in (size, start, end)):
        indices = range(size)[slice(start, _end(end, size, step), step)]
        if isinstance(value, Constant):
            return Constant(np.take(value.array, np.array(indices, np.int64), axis))
        if not indices:
            raise node.refused(f"leave something of axis {axis}, which has size {size}")
        if indices == range(size):
            return value
        if all(isinstance(atom, int) for atom in value.axes[axis]):
            return taken(value, axis, np.array(indices, np.int64))
        if indices == range(size)[::-1]:
            _time_axis(node, net, value, axis, "turn the order of the sequences")
            return _turned(net, value)
        return _some(node, net, value, axis, list(indices), size)
    if isinstance(value, Constant):
        raise node.refused("have known starts and ends for a constant")
    first = _reached(start, size, 0 if step > 0 else -1)
    stop = _reached(end, size, 0 if step > 0 else -1)
    whole_forward = step == 1 and first == 0 and stop == size
    if whole_forward:
        return value
    if step == -1 and (first == size - 1) and (not isinstance(stop, Size) and stop == -1):
        _time_axis(node, net, value, axis, "turn the order of the sequences")
        return _turned(net, value)
    if step == 1 and not isinstance(stop - first, Size) and stop - first == 1:
        at = -1 if first == size - 1 else (first if not isinstance(first, Size) else None)
        if at is None and not isinstance(first - size, Size):
            at = first - size
        if at is not None:
            return _some(node, net, value, axis, [at], size)
    raise node.refused(f"take all steps or one along axis {axis}, not a part of them")


def _end(end: int, size: int, step: int) -> int | None:
    """The end of a slice for Python, in which -1 means something else than before the first element."""
    return None if step < 0 and end < -size else end


def _reached(index: Any, size: Any, low: int) -> Any:
    """An end of a slice as a step from the first, between ``low`` and the open size."""
    if isinstance(index, Size):
        return index if index != size else size
    if index >= 2**31 - 1:
        return size if low == 0 else size - 1
    if index <= -(2**31) + 1:
        return low
    return size + index if index < 0 else index


def _some(node: Node, net: Interpreter, view: View, axis: int, indices: Sequence[int], size: Any) -> View:
    """One step of the time, or elements of an input's axis that turns out to be of features."""
    atoms = view.axes[axis]
    if len(atoms) == 1 and isinstance(atoms[0], Open) and not isinstance(size, Size):
        net.learn([(atoms, FEATURES, None)])
    _time_axis(node, net, view, axis, "take some of the sequences")
    if len(indices) != 1:
        raise node.refused(f"take all steps or one along axis {axis}, not {len(indices)} of them")
    return _at_step(net, view, axis, _step(indices[0], size), True)


def _step(index: int, size: Any) -> int:
    """A step counted from the first or, where it is nearer the end, from the last."""
    if isinstance(size, Size):
        return index
    index = index % size
    return index if index < size // 2 or (index == 0 and size > 1) else index - size


@operator("Gather")
def _gather(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    if isinstance(value, Constant) and isinstance(node.value(1), View):
        raise node.refused("take by constant indices: a table of vectors (an embedding) is no layer of hwrnn")
    indices = constant(node, 1, "indices")
    axis = node.integer("axis", 0)
    if indices.dtype.kind not in "iu":
        raise node.refused(f"have whole numbers as indices, not {indices.dtype}")
    if isinstance(value, Constant):
        axis = normal_axis(node, axis, value.array.ndim)
        _check_indices(node, indices, value.array.shape[axis])
        net.spend(indices.size * (value.array.size // max(value.array.shape[axis], 1)))
        return [Constant(folded(np.take(value.array, indices, axis)))]
    axis = normal_axis(node, axis, len(value.axes))
    size = value.shape[axis]
    if all(isinstance(atom, int) for atom in value.axes[axis]):
        _check_indices(node, indices, size)
        net.spend(indices.size * (value.columns.size // size))
        return [taken(value, axis, indices)]
    if not isinstance(size, Size):
        _check_indices(node, indices, size)
        if indices.ndim == 1 and np.array_equal(indices % size, np.arange(size)[::-1]) and size > 1:
            _time_axis(node, net, value, axis, "turn the order of the sequences")
            return [_turned(net, value)]
        if size == 1 and indices.size == 1 and any(isinstance(a, Open) and a.role == BATCH for a in value.axes[axis]):
            return [value.placed([*value.axes[:axis], *[()] * indices.ndim, *value.axes[axis + 1 :]])]
    kept = _some(node, net, value, axis, [int(i) for i in indices.reshape(-1)[:2]], size)
    return [kept.placed([*kept.axes[:axis], *[()] * indices.ndim, *kept.axes[axis + 1 :]])]


@operator("GatherND")
def _gather_nd(node: Node, net: Interpreter) -> Sequence[Value]:
    """Each sequence's last step, as hwrnn's own files take it: the index is its length minus 1."""
    value, index = node.value(0), node.value(1)
    batches = node.integer("batch_dims", 0)
    fault = node.refused("take the step at an input's lengths minus 1, with batch_dims 1")
    if not isinstance(value, View) or not isinstance(index, View) or batches != 1 or len(value.axes) < 2:
        raise fault
    net.learn([(value.axes[0], BATCH, None), (value.axes[1], TIME, None), (index.axes[0], BATCH, None)])
    lengths = net.lengths_of(replace(index, offset=index.offset + 1))
    if lengths is None or len(index.axes) != 2 or index.axes[0] != value.axes[0] or value.axes[0] == ():
        raise fault
    _time_axis(node, net, value, 1, "take some of the sequences")
    columns = net.sources.picked(value.columns, -1, lengths)
    return [replace(value, axes=(value.axes[0], *value.axes[2:]), columns=columns)]


def _check_indices(node: Node, indices: np.ndarray, size: int) -> None:
    if not indices.size:
        raise node.refused("have at least one index")
    if indices.min() < -size or indices.max() >= size:
        raise node.refused(f"have indices between {-size} and {size - 1}, not {indices.min()} to {indices.max()}")


@operator("Split")
def _split(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    shape: Sequence[Any] = value.array.shape if isinstance(value, Constant) else value.shape
    axis = normal_axis(node, node.integer("axis", 0), len(shape))
    parts = node.integers("split") if node.opset < 13 else numbers(node, 1, "split")
    count = len(node.wanted)
    if node.opset >= 18 and node.has("num_outputs") and node.integer("num_outputs") != count:
        raise node.refused(f"have as many outputs as num_outputs says, not {count}")
    if isinstance(value, View):
        columns_axis(node, net, value, axis, "split it")
    size = int(shape[axis])
    if parts is None:
        part = -(-size // count)
        parts = [part] * (count - 1) + [size - part * (count - 1)]
        if node.opset < 18 and size % count:
            raise node.refused(f"split its {size} elements into {count} equal parts or say which")
    if len(parts) != count or any(isinstance(p, Size) or p < 1 for p in parts) or sum(parts) != size:
        raise node.refused(f"split its {size} elements into {count} parts, not {parts}")
    ends = np.cumsum(parts)
    found: list[Value] = []
    for start, end in zip(ends - parts, ends, strict=True):
        indices = np.arange(start, end)
        if isinstance(value, Constant):
            found.append(Constant(np.take(value.array, indices, axis)))
        else:
            found.append(taken(value, axis, indices))
    return found


# -- several in one ----------------------------------------------------------------------------------------------------
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


@operator("ReverseSequence")
def _reverse_sequence(node: Node, net: Interpreter) -> Sequence[Value]:
    value, lengths = node.value(0), node.value(1)
    time, batch = node.integer("time_axis", 0), node.integer("batch_axis", 1)
    if not isinstance(value, View) or len(value.axes) < 2 or {time, batch} != {0, 1}:
        raise node.refused("turn a computed value whose first axes are time and batch")
    net.learn([(value.axes[time], TIME, None), (value.axes[batch], BATCH, None)])
    size = _time_axis(node, net, value, time, "turn the order of the sequences").size
    if isinstance(lengths, Constant):
        if isinstance(size, Size) or not lengths.known or (lengths.array != size).any():
            raise node.refused("turn whole sequences, or by lengths that are an input of the network")
        return [_turned(net, value)]
    if len(lengths.axes) == 1:
        net.learn([(lengths.axes[0], BATCH, None)])
    source = net.lengths_of(lengths)
    if source is None:
        whole_time = lengths.vector.constant and isinstance(size, Size) is False and (lengths.offset == size).all()
        if whole_time:
            return [_turned(net, value)]
        raise node.refused("turn whole sequences, or by lengths that are an input of the network")
    return [replace(value, columns=net.sources.picked(value.columns, None, source))]


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

