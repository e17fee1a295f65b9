"""What a recurrent node reads besides weights: its operand, the sequences' lengths, the first states."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwrnn.importing.graph import Node
from hwrnn.importing.layouts import as_view, taken
from hwrnn.importing.operators import Interpreter
from hwrnn.importing.shapes import Size
from hwrnn.importing.values import BATCH, FEATURES, NOTHING, TIME, Axis, Constant, Open, Source, Vector, View

__all__ = ["initial_of", "lengths_of", "operand_of"]


def operand_of(node: Node, net: Interpreter, batch_first: bool, size: int) -> tuple[View, Axis, Axis]:
    """X with the axes of its time and its batch."""
    x = node.value(0)
    if isinstance(x, Constant) or x.vector.constant:
        raise node.refused("read the network's input, not a constant")
    if len(x.axes) != 3:
        raise node.refused(f"have an X of three axes, not {len(x.axes)}")
    at, of = (1, 0) if batch_first else (0, 1)
    net.learn([(x.axes[at], TIME, None), (x.axes[of], BATCH, None), (x.axes[2], FEATURES, size)])
    if x.axes[at] and all(isinstance(a, int) for a in x.axes[at]):
        x = _repeated(net, x, at)
    for k, role in ((at, TIME), (of, BATCH)):
        if any(not isinstance(a, Open) or a.role != role for a in x.axes[k]) or len(x.axes[k]) > 1:
            raise node.refused(f"have the {role} and nothing else along axis {k} of X")
    if any(isinstance(a, Open) for a in x.axes[2]) or x.shape[2] != size:
        raise node.refused(f"have {size} features along axis 2 of X, as W does, not {x.shape[2]}")
    if not x.axes[of]:
        net.bind(BATCH, 1)
    if not x.axes[of] and net.sizes[BATCH] != 1:
        raise node.refused(f"read all {net.sizes[BATCH]} sequences")
    if not x.axes[at] and net.sources.timed(x.columns):
        raise node.refused("read steps along the time, or a single one")
    return x, x.axes[at], x.axes[of]


def _repeated(net: Interpreter, x: View, at: int) -> View:
    """A value that was repeated as often as there are steps, as one that is the same at every step."""
    size = int(x.shape[at])
    again = taken(x, at, np.zeros(size, np.int64))
    alike = all(np.array_equal(a, b) for a, b in zip(again.vector.parts, x.vector.parts, strict=True))
    if not alike:
        return x
    net.bind(TIME, size)
    if net.sizes[TIME] != size:
        return x
    first = taken(x, at, np.array(0))
    return first.placed([*first.axes[:at], (Open(TIME, size),), *first.axes[at:]])


def lengths_of(node: Node, net: Interpreter, time: Axis, batch: Axis) -> Source | np.ndarray | None:
    value = node.optional(4)
    if value is None:
        return None
    steps: Any = time[0].size if time and isinstance(time[0], Open) else 1
    view = as_view(value)
    if len(view.axes) != 1 or view.kind.kind not in "iu":
        raise node.refused("have whole numbers of one axis as sequence_lens")
    net.learn([(view.axes[0], BATCH, None)])
    if view.vector.constant:
        if not isinstance(steps, Size) and (view.offset == steps).all():
            return None
        if batch:
            net.bind(BATCH, view.columns.size)
        if _sequences(net, batch) != view.columns.size:
            raise node.refused(f"have sequence_lens for each sequence, not {view.columns.size} of them")
        return view.offset.astype(np.int64).reshape(-1)
    source = net.lengths_of(view)
    if not batch:
        net.bind(BATCH, 1)
    alone = not batch and view.shape == (1,)  # a batch of one, which Unsqueeze made
    if source is None or (view.axes[0] != batch and not alone):
        raise node.refused("have an input of the network or a constant as sequence_lens")
    return source


def initial_of(
    node: Node, net: Interpreter, k: int, batch_first: bool, count: int, units: int, batch: Axis
) -> list[Vector | np.ndarray] | None:
    """The first state of every direction: what each unit comes from, or an array (N, units)."""
    value = node.optional(k)
    if value is None:
        return None
    view = as_view(value)
    if len(view.axes) != 3:
        raise node.refused(f"have an initial state of three axes, not {len(view.axes)}")
    at, of = (1, 0) if batch_first else (0, 1)
    net.learn([(view.axes[at], FEATURES, count), (view.axes[of], BATCH, None), (view.axes[2], FEATURES, units)])
    inner = (*view.axes[at], *view.axes[2])
    if any(isinstance(a, Open) for a in inner) or (view.shape[at], view.shape[2]) != (count, units):
        raise node.refused(f"have initial states of {count} directions and {units} units, not {list(view.shape)}")
    if not view.axes[of] or any(not isinstance(a, Open) for a in view.axes[of]):
        return _initial_rows(node, net, view, (at, of), batch)
    if any(isinstance(a, Open) and a.role != BATCH for a in view.axes[of]):
        raise node.refused(f"have the batch along axis {of} of its initial states")
    net.initial_inputs(view.columns)
    return [taken(view, at, np.array(d)).vector for d in range(count)]


def _initial_rows(
    node: Node, net: Interpreter, view: View, places: tuple[int, int], batch: Axis
) -> list[Vector | np.ndarray]:
    """States for a number of sequences that the file fixes; computed ones only for a single sequence."""
    at, of = places
    count = int(view.shape[of])
    if batch:
        net.bind(BATCH, count)
    if _sequences(net, batch) != count:
        raise node.refused(f"have initial states for each sequence, not for {count}")
    if not view.axes[of] and not view.vector.constant:
        net.initial_inputs(view.columns)
        return [taken(view, at, np.array(d)).vector for d in range(int(view.shape[at]))]
    if not view.vector.constant:
        raise node.refused(f"have the batch along axis {of} of its initial states")
    rows = np.moveaxis(view.offset.reshape([int(s) for s in view.shape]), (at, of), (0, 1))
    found: list[Vector | np.ndarray] = []
    for own in rows:
        same = (own == own[0]).all()
        units = own.shape[1]
        found.append(Vector(np.full(units, NOTHING), np.zeros(units), own[0]) if same else own.astype(np.float32))
    return found


def _sequences(net: Interpreter, batch: Axis) -> Any:
    return net.sizes[BATCH] if batch else 1
