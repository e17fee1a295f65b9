"""RNN, GRU and LSTM as the text of the standard has them, in float64, one sequence and one step at a time.

It shares no code with hwrnn and none with ONNX Runtime: where all three agree, the runtime is no mistake of its own.
https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html, onnx__RNN.html
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
NUMBERS = {"Affine": 2, "LeakyRelu": 1, "ThresholdedRelu": 1, "ScaledTanh": 2, "HardSigmoid": 2, "Elu": 1}
IF_NONE = {"LeakyRelu": (0.01,), "HardSigmoid": (0.2, 0.5), "Elu": (1.0,)}


def activation(name: str, x: np.ndarray, a: float = 0.0, b: float = 0.0) -> np.ndarray:
    """The standard's functions of alpha and beta."""
    match name:
        case "Relu":
            return np.maximum(x, 0)
        case "Tanh":
            return np.tanh(x)
        case "Sigmoid":
            return 1 / (1 + np.exp(-x))
        case "Affine":
            return a * x + b
        case "LeakyRelu":
            return np.where(x >= 0, x, a * x)
        case "ThresholdedRelu":
            return np.where(x >= a, x, 0)
        case "ScaledTanh":
            return a * np.tanh(b * x)
        case "HardSigmoid":
            return np.minimum(np.maximum(a * x + b, 0), 1)
        case "Elu":
            return np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0)))
        case "Softsign":
            return x / (1 + np.abs(x))
        case "Softplus":
            return np.log1p(np.exp(x))
    raise KeyError(name)


def computed(proto: ModelProto, feeds: dict[str, np.ndarray], clip_before_h: bool = False) -> dict[str, np.ndarray]:
    """The outputs of a network that is one of the operators alone; ``clip_before_h``: as the text has it."""
    (node,) = [node for node in proto.graph.node if node.op_type in GATES]
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer} | feeds
    held |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in proto.graph.node if n.op_type == "Constant"}
    given = [held.get(name) for name in node.input] + [None] * (8 - len(node.input))
    x, w, r, b, lengths, h0, c0, p = given
    at: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if at.get("layout"):
        x, h0, c0 = (None if v is None else v.swapaxes(0, 1) for v in (x, h0, c0))
    (steps, batch, _), directions, hidden = x.shape, len(w), r.shape[-1]
    gates = GATES[node.op_type]
    b = np.zeros((directions, 2 * gates * hidden)) if b is None else b
    p = np.zeros((directions, 3 * hidden)) if p is None else p
    h0, c0 = (np.zeros((directions, batch, hidden)) if v is None else v for v in (h0, c0))
    names = [name.decode() for name in at.get("activations", [])] or DEFAULTS[node.op_type] * directions
    alpha, beta = (list(at.get(f"activation_{key}", [])) for key in ("alpha", "beta"))
    functions = []
    for name in names:
        lists = (alpha, beta)[: NUMBERS.get(name, 0)]
        written = [numbers.pop(0) for numbers in lists] if alpha else IF_NONE.get(name, ())
        functions.append(lambda v, name=name, written=written: activation(name, v, *written))
    per = len(names) // directions
    y = np.zeros((steps, directions, batch, hidden))
    last = {"h": np.zeros((directions, batch, hidden)), "c": np.zeros((directions, batch, hidden))}
    for d in range(directions):
        backwards = at.get("direction") == b"reverse" or d == 1
        for n in range(batch):
            order = list(range(steps if lengths is None else int(lengths[n])))
            h, c = h0[d, n].astype(np.float64), c0[d, n].astype(np.float64)
            for t in reversed(order) if backwards else order:
                h, c = _step(
                    node.op_type, *(v.astype(np.float64) for v in (x[t, n], w[d], r[d], b[d], p[d])), h, c,
                    functions[d * per : (d + 1) * per], at, clip_before_h,
                )  # fmt: skip
                y[t, d, n] = h
            last["h"][d, n], last["c"][d, n] = h, c
    found = [y.transpose(2, 0, 1, 3), *(v.swapaxes(0, 1) for v in last.values())] if at.get("layout") else [
        y, *last.values()]  # fmt: skip
    return {name: value for name, value in zip(node.output, found, strict=False) if name}


def _step(
    operator: str, x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray, p: np.ndarray, h: np.ndarray,
    c: np.ndarray, functions: list[Any], at: dict[str, Any], clip_before_h: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    bound = at.get("clip", np.inf)
    wb, rb = np.split(b, 2)
    xs, hs = (np.split(v, GATES[operator]) for v in (w @ x + wb, r @ h + rb))

    def clipped(v: np.ndarray) -> np.ndarray:
        return np.clip(v, -bound, bound)

    if operator == "RNN":
        return functions[0](clipped(xs[0] + hs[0])), c
    if operator == "GRU":
        f, g = functions
        z, reset = f(clipped(xs[0] + hs[0])), f(clipped(xs[1] + hs[1]))
        rows = slice(2 * len(h), None)
        product = reset * hs[2] if at.get("linear_before_reset") else r[rows] @ (reset * h) + rb[rows]
        return (1 - z) * g(clipped(xs[2] + product)) + z * h, c
    f, g, out = functions
    pi, po, pf = np.split(p, 3)
    i = f(clipped(xs[0] + hs[0] + pi * c))
    forget = 1 - i if at.get("input_forget") else f(clipped(xs[2] + hs[2] + pf * c))
    c = forget * c + i * g(clipped(xs[3] + hs[3]))
    return f(clipped(xs[1] + hs[1] + po * c)) * out(clipped(c) if clip_before_h else c), c
