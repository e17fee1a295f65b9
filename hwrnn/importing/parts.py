"""Operators that take a part of a value: elements of its columns, or steps of its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwrnn.importing import layouts
from hwrnn.importing.graph import Node
from hwrnn.importing.layouts import at_step, columns_axis, constant, normal_axis, numbers, time_axis, turned
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.shapes import Size, folded
from hwrnn.importing.values import BATCH, FEATURES, TIME, Constant, Open, Value, View

__all__ = ["check_indices"]


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
            return layouts.taken(value, axis, np.array(indices, np.int64))
        if indices == range(size)[::-1]:
            time_axis(node, net, value, axis, "turn the order of the sequences")
            return turned(net, value)
        return _some(node, net, value, axis, list(indices), size)
    if isinstance(value, Constant):
        raise node.refused("have known starts and ends for a constant")
    first = _reached(start, size, 0 if step > 0 else -1)
    stop = _reached(end, size, 0 if step > 0 else -1)
    whole_forward = step == 1 and first == 0 and stop == size
    if whole_forward:
        return value
    if step == -1 and (first == size - 1) and (not isinstance(stop, Size) and stop == -1):
        time_axis(node, net, value, axis, "turn the order of the sequences")
        return turned(net, value)
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
    time_axis(node, net, view, axis, "take some of the sequences")
    if len(indices) != 1:
        raise node.refused(f"take all steps or one along axis {axis}, not {len(indices)} of them")
    return at_step(net, view, axis, _step(indices[0], size), True)


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
        check_indices(node, indices, value.array.shape[axis])
        net.spend(indices.size * (value.array.size // max(value.array.shape[axis], 1)))
        return [Constant(folded(np.take(value.array, indices, axis)))]
    axis = normal_axis(node, axis, len(value.axes))
    size = value.shape[axis]
    if all(isinstance(atom, int) for atom in value.axes[axis]):
        check_indices(node, indices, size)
        net.spend(indices.size * (value.columns.size // size))
        return [layouts.taken(value, axis, indices)]
    if not isinstance(size, Size):
        check_indices(node, indices, size)
        if indices.ndim == 1 and np.array_equal(indices % size, np.arange(size)[::-1]) and size > 1:
            time_axis(node, net, value, axis, "turn the order of the sequences")
            return [turned(net, value)]
        if size == 1 and indices.size == 1 and any(isinstance(a, Open) and a.role == BATCH for a in value.axes[axis]):
            return [value.placed([*value.axes[:axis], *[()] * indices.ndim, *value.axes[axis + 1 :]])]
    kept = _some(node, net, value, axis, [int(i) for i in indices.reshape(-1)[:2]], size)
    return [kept.placed([*kept.axes[:axis], *[()] * indices.ndim, *kept.axes[axis + 1 :]])]


@operator("GatherElements")
def _gather_elements(node: Node, net: Interpreter) -> Sequence[Value]:
    """Each sequence's last step as PyTorch's ``gather`` takes it: the index, its length minus 1, for every element."""
    value, index = node.value(0), node.value(1)
    fault = node.refused("take the step at an input's lengths minus 1, the same for every feature")
    if not isinstance(value, View) or not isinstance(index, View) or len(value.axes) != len(index.axes):
        raise fault
    axis = normal_axis(node, node.integer("axis", 0), len(value.axes))
    for own, other in zip(value.axes, index.axes, strict=True):
        net.learn([(a, BATCH, None) for a, b in ((own, other), (other, own)) if b and b[0] == _batch(net)])
    time_axis(node, net, value, axis, "take some of the sequences")
    columns = np.unique(index.columns)
    single = replace(index, columns=columns, scale=index.scale.reshape(-1)[:1], offset=index.offset.reshape(-1)[:1] + 1)
    alike = (index.scale == single.scale).all() and (index.offset + 1 == single.offset).all()
    lengths = net.lengths_of(single) if len(columns) == 1 and alike else None
    others = [a == b for k, (a, b) in enumerate(zip(value.axes, index.axes, strict=True)) if k != axis]
    if lengths is None or not all(others) or index.axes[axis] or not index.has(BATCH):
        raise fault
    columns = net.sources.picked(value.columns, -1, lengths)
    return [replace(value, axes=(*value.axes[:axis], (), *value.axes[axis + 1 :]), columns=columns)]


def _batch(net: Interpreter) -> Open:
    return Open(BATCH, net.sizes[BATCH])


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
    time_axis(node, net, value, 1, "take some of the sequences")
    columns = net.sources.picked(value.columns, -1, lengths)
    return [replace(value, axes=(value.axes[0], *value.axes[2:]), columns=columns)]


def check_indices(node: Node, indices: np.ndarray, size: int) -> None:
    """Refuse indices outside an axis."""
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
            found.append(layouts.taken(value, axis, indices))
    return found


@operator("ReverseSequence")
def _reverse_sequence(node: Node, net: Interpreter) -> Sequence[Value]:
    value, lengths = node.value(0), node.value(1)
    time, batch = node.integer("time_axis", 0), node.integer("batch_axis", 1)
    if not isinstance(value, View) or len(value.axes) < 2 or {time, batch} != {0, 1}:
        raise node.refused("turn a computed value whose first axes are time and batch")
    net.learn([(value.axes[time], TIME, None), (value.axes[batch], BATCH, None)])
    size = time_axis(node, net, value, time, "turn the order of the sequences").size
    if isinstance(lengths, Constant):
        if isinstance(size, Size) or not lengths.known or (lengths.array != size).any():
            raise node.refused("turn whole sequences, or by lengths that are an input of the network")
        return [turned(net, value)]
    if len(lengths.axes) == 1:
        net.learn([(lengths.axes[0], BATCH, None)])
    source = net.lengths_of(lengths)
    if source is None:
        whole_time = lengths.vector.constant and isinstance(size, Size) is False and (lengths.offset == size).all()
        if whole_time:
            return [turned(net, value)]
        raise node.refused("turn whole sequences, or by lengths that are an input of the network")
    return [replace(value, columns=net.sources.picked(value.columns, None, source))]
