"""Operators that are a function of each element: activations, and what bounds a value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwrnn.activations import NONLINEARITIES
from hwrnn.importing.dense import applied
from hwrnn.importing.functions import bounded, function_named
from hwrnn.importing.graph import Node
from hwrnn.importing.layouts import as_view, constant
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.values import Constant, Value, View


@operator(
    "Relu", "Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu", "ThresholdedRelu", "Elu", "Softsign", "Softplus"
)  # fmt: skip
def _activation(node: Node, net: Interpreter) -> Sequence[Value]:
    view = as_view(node.value(0))
    alpha = node.real("alpha") if node.operator in ("HardSigmoid", "LeakyRelu", "ThresholdedRelu", "Elu") else None
    beta = node.real("beta") if node.operator == "HardSigmoid" else None
    try:
        return [applied(net, view, function_named(node.operator, alpha, beta))]
    except ValueError as error:
        raise node.refused(f"have a function that hwrnn knows: {error}") from error


@operator("Clip")
def _clip(node: Node, net: Interpreter) -> Sequence[Value]:
    """Between two bounds: the function between 0 and 1, or above 0, of an input that is scaled and shifted."""
    bounds: list[float | None] = []
    for k, name in ((1, "min"), (2, "max")):
        if node.opset < 11:
            bounds.append(node.real(name))
        elif k < node.arguments and node.optional(k) is not None:
            bound = constant(node, k, name)
            if bound.size != 1:
                raise node.refused(f"have one number as {name}, not {bound.size}")
            bounds.append(float(bound.reshape(())))
        else:
            bounds.append(None)
    value = node.value(0)
    low, high = bounds
    if isinstance(value, Constant):
        if not value.known:
            raise node.refused("not bound sizes that the file leaves open")
        return [Constant(np.clip(value.array, low, high) if low is not None or high is not None else value.array)]
    if low is not None and high is not None and low >= high:
        raise node.refused(f"have a lower bound below the upper one, not {low} and {high}")
    if low is None and high is None:
        return [value]
    named = bounded(low, high)
    if named is not None:
        return [applied(net, value, named)]
    if low is not None and high is not None:
        inside = _affine(value, 1 / (high - low), -low / (high - low))
        return [_affine(applied(net, inside, NONLINEARITIES["relu1"]), high - low, low)]
    if low is not None:
        return [_affine(applied(net, _affine(value, 1.0, -low), NONLINEARITIES["relu"]), 1.0, low)]
    top = float(high or 0)
    return [_affine(applied(net, _affine(value, -1.0, top), NONLINEARITIES["relu"]), -1.0, top)]


def _affine(view: View, scale: float, offset: float) -> View:
    return View(view.axes, view.columns, view.scale * scale, view.offset * scale + offset, view.kind)


@operator("HardSwish", "Selu", "Gelu", "Mish", "Celu", "Erf", "Exp", "Log", "Sqrt", "Pow", "PRelu", "Abs")
def _unknown_function(node: Node, net: Interpreter) -> Sequence[Value]:
    """Constants are computed; of computed values these functions are not in the catalogue."""
    value = node.value(0)
    simple = {"Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt, "Abs": np.abs}
    if isinstance(value, Constant) and value.known and node.operator in simple:
        with np.errstate(all="ignore"):
            return [Constant(np.asarray(simple[node.operator](value.array), value.array.dtype))]
    raise node.refused("be of a function that hwrnn has: this one is not in its catalogue")
