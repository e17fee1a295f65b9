"""Operators behind a network that stay with the host, which reads the hardware's scores: Softmax, ArgMax, their kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hwrnn.importing.chains import log_softmax, softmax
from hwrnn.importing.dense import settled
from hwrnn.importing.graph import Node
from hwrnn.importing.layouts import columns_axis, normal_axis
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.values import FEATURES, Axis, Constant, Host, Value, View, canonical, inner

__all__ = ["left_to_host"]


def left_to_host(
    net: Interpreter, view: View, function: Callable[[np.ndarray], np.ndarray], axes: Sequence[Axis], words: str, *,
    kind: np.dtype | None = None, passing: bool = False, task: str | None = None,
) -> View:  # fmt: skip
    """A view that a function of arrays (..., elements of ``view``) gives; see :class:`Host`."""
    units = int(np.prod(inner(axes), dtype=object))
    source = Host(
        units=units, timed=net.sources.timed(view.columns), operand=settled(net, view.vector), function=function,
        words=words, passing=passing, task=task, kind=view.kind if kind is None else kind,
    )  # fmt: skip
    return canonical(net.sources.view(net.sources.add(source), axes))


def _hardmax(x: np.ndarray) -> np.ndarray:
    found = np.zeros_like(x)
    np.put_along_axis(found, x.argmax(-1)[..., None], 1, -1)
    return found


_FUNCTIONS = {"Softmax": softmax, "LogSoftmax": log_softmax, "Hardmax": _hardmax}


@operator(*_FUNCTIONS)
def _soft(node: Node, net: Interpreter) -> Sequence[Value]:
    view = node.value(0)
    if isinstance(view, Constant):
        raise node.refused("have a computed value")
    newer = node.opset >= 13
    axis = normal_axis(node, node.integer("axis", -1 if newer else 1), len(view.axes))
    along = [axis] if newer else list(range(axis, len(view.axes)))
    net.learn([(view.axes[k], FEATURES, None) for k in along])
    for k in along:
        columns_axis(node, net, view, k, f"have {node.operator} there")
    sizes = [int(np.prod(inner([x]), dtype=object)) for x in view.axes]
    function, rank = _FUNCTIONS[node.operator], len(sizes)

    def whole(x: np.ndarray) -> np.ndarray:
        grid = np.moveaxis(x.reshape(-1, *sizes), [k + 1 for k in along], list(range(rank + 1 - len(along), rank + 1)))
        found = function(grid.reshape(*grid.shape[: rank + 1 - len(along)], -1)).reshape(grid.shape)
        return np.moveaxis(found, list(range(rank + 1 - len(along), rank + 1)), [k + 1 for k in along]).reshape(x.shape)

    return [left_to_host(net, view, whole, view.axes, node.operator, task="classification")]


@operator("ArgMax", "ArgMin")
def _arg(node: Node, net: Interpreter) -> Sequence[Value]:
    view = node.value(0)
    if isinstance(view, Constant):
        raise node.refused("have a computed value")
    axis = normal_axis(node, node.integer("axis", 0), len(view.axes))
    keep = node.flag("keepdims", 1)
    last = node.flag("select_last_index") if node.opset >= 12 else False
    net.learn([(view.axes[axis], FEATURES, None)])
    columns_axis(node, net, view, axis, f"have {node.operator} there")
    sizes = [int(np.prod(inner([x]), dtype=object)) for x in view.axes]
    best = np.argmax if node.operator == "ArgMax" else np.argmin

    def index(x: np.ndarray) -> np.ndarray:
        grid = x.reshape(-1, *sizes)
        found = best(np.flip(grid, axis + 1) if last else grid, axis + 1)
        return (sizes[axis] - 1 - found if last else found).reshape(*x.shape[:-1], -1)

    axes = [*view.axes[:axis], *([()] if keep else []), *view.axes[axis + 1 :]]
    task = "classification" if node.operator == "ArgMax" else None
    return [left_to_host(net, view, index, axes, node.operator, kind=np.dtype(np.int64), task=task)]
