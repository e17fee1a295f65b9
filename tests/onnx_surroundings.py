"""Networks of several operators: what exporters put before, between and behind RNN, GRU and LSTM nodes.

A network is a front (from the graph's input to steps, sequences, features), one to three recurrent layers, a tail
(what is taken of the last layer), a head (dense layers) and what a host does with its result. The parts are drawn from
the tables here so that every part meets every operator.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx_matrix import NEWEST, OPERATORS, Case, Expected, Net, Setting, drawn_lengths, operator_node, well_conditioned

SIZES = {"different": (5, 3), "all equal": (3, 3), "one sequence": (5, 1), "one step": (1, 3)}
"""Steps and sequences; where all are equal, features and units are too, so that nothing can be told by its size."""


@dataclass
class Sketch:
    """A network in the making: its graph, its inputs' values and the sizes that the parts need."""

    net: Net
    rng: np.random.Generator
    feeds: dict[str, np.ndarray]
    features: int
    units: int = 0
    free: bool = False
    x_axes: str = "tnf"
    steps: int = 5
    batch: int = 3
    refused: str = ""
    model_refused: str = ""
    host: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = ()
    lengths: str = "absent"
    made: tuple[dict[str, str], ...] = ()
    direction: str | None = None

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.direction == "bidirectional" else 1

    def last(self) -> None:
        """A tail takes the array's last step, which with lengths is no sequence's own: a Model has none."""
        if self.lengths == "input":
            self.model_refused = "where a sequence is shorter"

    def drawn(self, *shape: int, spread: float = 0.5) -> np.ndarray:
        """Normal numbers, float32."""
        return (self.rng.standard_normal(shape) * spread).astype(np.float32)

    def x(self, axes: str, features: int | None = None) -> str:
        """The graph's input, its axes in this order; without ``n`` one sequence, without ``f`` one feature."""
        self.x_axes = axes
        self.batch = self.batch if "n" in axes else 1
        sizes: dict[str, int] = {"t": self.steps, "n": self.batch, "f": features or self.features}
        value = self.drawn(*(sizes[axis] for axis in axes), spread=1.0)
        names = {"t": "time", "n": "batch", "f": sizes["f"]}
        self.feeds["x"] = value
        return self.net.input("x", value, [names[axis] for axis in axes] if self.free else None)

    def dense(self, x: str, size: int, to: int, how: str) -> str:
        """A dense layer on the last axis: Gemm variants for two axes, MatMul and Add for any."""
        w, b = self.drawn(size, to, spread=size**-0.5), self.drawn(to)
        constant, node = self.net.constant, self.net.node
        match how:
            case "gemm":
                return node("Gemm", x, constant(w.T.copy(), "W"), constant(b, "b"), transB=1)
            case "gemm scaled":
                return node("Gemm", x, constant(w, "W"), constant(b, "b"), alpha=0.5, beta=-2.0)
            case "gemm no bias" if self.net.opset >= 11:
                return node("Gemm", x, constant(w, "W"))
            case "matmul":
                return node("MatMul", x, constant(w, "W"))
            case "add first":
                return node("Add", constant(b, "b"), node("MatMul", x, constant(w, "W")))
        return node("Add", node("MatMul", x, constant(w, "W")), constant(b, "b"))


# -- fronts: from the graph's input to (steps, sequences, features) ----------------------------------------------------
def _plain(s: Sketch) -> str:
    return s.x("tnf")


def _batch_first(s: Sketch) -> str:
    return s.net.node("Transpose", s.x("ntf"), perm=[1, 0, 2])


def _one_sequence(s: Sketch) -> str:
    return s.net.axes_of("Unsqueeze", s.x("tf"), 1)


def _one_feature(s: Sketch) -> str:
    s.features = 1
    return s.net.node("Transpose", s.net.axes_of("Unsqueeze", s.x("nt"), 2), perm=[1, 0, 2])


def _feature_first(s: Sketch) -> str:
    return s.net.node("Transpose", s.x("nft"), perm=[2, 0, 1])


def _identity(s: Sketch) -> str:
    return s.net.node("Identity", s.net.node("Cast", s.x("tnf"), to=1))


def _standardised(s: Sketch) -> str:
    mean, deviation = s.drawn(s.features), np.abs(s.drawn(s.features)) + 0.5
    return s.net.node("Div", s.net.node("Sub", s.x("tnf"), s.net.constant(mean)), s.net.constant(deviation))


def _scaled(s: Sketch) -> str:
    x = s.net.node("Mul", s.x("ntf"), s.net.constant(s.drawn(1, 1, s.features, spread=1.0)))
    return s.net.node("Transpose", s.net.node("Add", x, s.net.constant(s.drawn(s.features))), perm=[1, 0, 2])


def _scaled_alike(s: Sketch) -> str:
    x = s.net.node("Sub", s.x("tnf"), s.net.constant(np.float32(0.5)))
    return s.net.node("Mul", x, s.net.constant(np.array([0.25], np.float32)))


def _dense(s: Sketch) -> str:
    inner, s.features = s.features, s.features + 2
    return s.dense(s.x("tnf", inner), inner, s.features, "matmul add")


def _dense_relu(s: Sketch) -> str:
    inner, s.features = s.features + 1, s.features
    return s.net.node("Relu", s.dense(s.x("tnf", inner), inner, s.features, "add first"))


def _gemm(s: Sketch) -> str:
    inner, s.features = s.features + 1, s.features
    flat = s.net.reshape(s.x("tnf", inner), -1, inner)
    made = s.net.node("Tanh", s.dense(flat, inner, s.features, "gemm"))
    return s.net.reshape(made, s.steps, -1, s.features) if not s.free else s.net.node(
        "Reshape", made, _shape_of(s, "x", s.features))  # fmt: skip


def _shape_of(s: Sketch, x: str, last: int) -> str:
    """The first two dimensions of a value and a third, as PyTorch writes them."""
    shape, net = s.net.node("Shape", x), s.net
    parts = [net.axes_of("Unsqueeze", net.gather(shape, k, 0), 0) for k in (0, 1)]
    return net.node("Concat", *parts, net.constant(np.array([last], np.int64)), axis=0)


FRONTS: dict[str, Callable[[Sketch], str]] = {
    "none": _plain, "Transpose": _batch_first, "Unsqueeze of one sequence": _one_sequence,
    "Unsqueeze of one feature": _one_feature, "Transpose of features first": _feature_first,
    "Cast, Identity": _identity, "Sub, Div": _standardised, "Mul, Add": _scaled,
    "Sub, Mul by one number": _scaled_alike, "MatMul, Add": _dense,
    "MatMul, Add, Relu": _dense_relu, "Reshape, Gemm, Tanh, Reshape": _gemm,
}  # fmt: skip


# -- tails: what is taken of the last layer; axes with ``d`` merged into ``h`` -----------------------------------------
def _side_by_side(s: Sketch, y: str, how: str = "auto") -> str:
    """Y (t, d, n, h) as (t, n, d * h)."""
    net = s.net
    if s.directions == 1 and how != "reshape":
        return net.axes_of("Squeeze", y, 1)
    return net.reshape(net.node("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, -1)


def _steps(s: Sketch) -> tuple[str, str]:
    return _side_by_side(s, s.made[-1]["Y"]), "tnh"


def _steps_reshape(s: Sketch) -> tuple[str, str]:
    return _side_by_side(s, s.made[-1]["Y"], "reshape"), "tnh"


def _steps_batch_first(s: Sketch) -> tuple[str, str]:
    return s.net.node("Transpose", _side_by_side(s, s.made[-1]["Y"]), perm=[1, 0, 2]), "nth"


def _last_gather(s: Sketch) -> tuple[str, str]:
    s.last()
    return s.net.gather(_steps(s)[0], -1, 0), "nh"


def _last_gather_batch_first(s: Sketch) -> tuple[str, str]:
    s.last()
    return s.net.gather(_steps_batch_first(s)[0], -1 if s.free else s.steps - 1, 1), "nh"


def _last_slice(s: Sketch) -> tuple[str, str]:
    s.last()
    return s.net.axes_of("Squeeze", s.net.slice(_steps(s)[0], -1, 2**31 - 1, 0), 0), "nh"


def _last_slice_early(s: Sketch) -> tuple[str, str]:
    s.last()
    last = s.net.slice(s.made[-1]["Y"], -1, 2**31 - 1, 0)
    return s.net.axes_of("Squeeze", _side_by_side(s, last), 0), "nh"


def _state(s: Sketch) -> tuple[str, str]:
    y_h = s.made[-1]["Y_h"]
    if s.directions == 1:
        return s.net.axes_of("Squeeze", y_h, 0), "nh"
    return s.net.reshape(s.net.node("Transpose", y_h, perm=[1, 0, 2]), 0, -1), "nh"


def _state_gather(s: Sketch) -> tuple[str, str]:
    y_h = s.made[-1]["Y_h"]
    parts = [s.net.gather(y_h, k - s.directions, 0) for k in range(s.directions)]
    return (parts[0] if len(parts) == 1 else s.net.node("Concat", *parts, axis=1)), "nh"


def _state_keras(s: Sketch) -> tuple[str, str]:
    """tf2onnx: the directions apart by Slice, of the forward one the last step, of the other the first."""
    s.last()
    ends = []
    for k in range(s.directions):
        one = s.net.axes_of("Squeeze", s.net.slice(s.made[-1]["Y"], k, k + 1, 1), 1)
        step = s.net.slice(one, -1, 2**31 - 1, 0) if k == 0 else s.net.slice(one, 0, 1, 0)
        ends.append(s.net.axes_of("Squeeze", step, 0))
    return (ends[0] if len(ends) == 1 else s.net.node("Concat", *ends, axis=-1)), "nh"


def _forward_half(s: Sketch) -> tuple[str, str]:
    s.units = s.units // s.directions
    return s.net.gather(s.made[-1]["Y"], 0, 1), "tnh"


def _states_of_layers(s: Sketch) -> tuple[str, str]:
    states = [s.net.node("Transpose", made["Y_h"], perm=[1, 0, 2]) for made in s.made]
    parts = [s.net.reshape(state, 0, -1) for state in states]
    if len(parts) > 1:
        s.model_refused = "layers"
    s.units *= len(parts)  # of a kind: every layer is as wide as the last
    return (parts[0] if len(parts) == 1 else s.net.node("Concat", *parts, axis=1)), "nh"


def _first_step(s: Sketch) -> tuple[str, str]:
    if s.direction != "reverse" and (s.steps > 1 or s.free):  # of a layer in reverse it is the final state
        s.model_refused = "step"
    return s.net.gather(_steps(s)[0], 0, 0), "nh"


def _flatten(s: Sketch) -> tuple[str, str]:
    return s.net.node("Flatten", _last_slice(s)[0], axis=1), "nh"


TAILS: dict[str, Callable[[Sketch], tuple[str, str]]] = {
    "Squeeze": _steps, "Transpose, Reshape": _steps_reshape, "Squeeze, Transpose": _steps_batch_first,
    "Gather of the last step": _last_gather, "Gather of the last step, batch first": _last_gather_batch_first,
    "Slice, Squeeze": _last_slice, "Slice before Squeeze": _last_slice_early, "Y_h by Squeeze": _state,
    "Y_h by Gather, Concat": _state_gather, "ends of directions by Slice, Concat": _state_keras,
    "forward direction by Gather": _forward_half, "Concat of states of layers": _states_of_layers,
    "first step by Gather": _first_step, "Flatten": _flatten,
}  # fmt: skip


# -- heads: dense layers behind ----------------------------------------------------------------------------------------
def _flat(s: Sketch, x: str, axes: str, layer: Callable[[str], str]) -> str:
    """A layer for two axes, on values of two or three."""
    if len(axes) == 2:
        return layer(x)
    return s.net.node("Reshape", layer(s.net.reshape(x, -1, s.units)), _shape_of(s, x, 2))


def _one(how: str) -> Callable[[Sketch, str, str], str]:
    def head(s: Sketch, x: str, axes: str) -> str:
        return _flat(s, x, axes, lambda v: s.dense(v, s.units, 2, how))

    return head


def _matmul(how: str) -> Callable[[Sketch, str, str], str]:
    return lambda s, x, axes: s.dense(x, s.units, 2, how)


def _two(s: Sketch, x: str, axes: str) -> str:
    return s.dense(s.net.node("Relu", s.dense(x, s.units, 6, "matmul add")), 6, 2, "matmul add")


def _sigmoid(s: Sketch, x: str, axes: str) -> str:
    s.host += (("Sigmoid", lambda y: 1 / (1 + np.exp(-y))),)
    return s.net.node("Sigmoid", s.dense(x, s.units, 2, "matmul add"))


def _denormalised(s: Sketch, x: str, axes: str) -> str:
    y = s.net.node("Mul", s.dense(x, s.units, 2, "matmul add"), s.net.constant(s.drawn(2, spread=2.0)))
    return s.net.node("Add", y, s.net.constant(s.drawn(1, 2)))


def _none(s: Sketch, x: str, axes: str) -> str:
    return x


HEADS: dict[str, Callable[[Sketch, str, str], str]] = {
    "none": _none, "Gemm": _one("gemm"), "Gemm with alpha, beta": _one("gemm scaled"),
    "Gemm, no bias": _one("gemm no bias"), "MatMul, Add": _matmul("matmul add"), "MatMul": _matmul("matmul"),
    "MatMul, Add the other way": _matmul("add first"),
    "MatMul, Add, Relu, MatMul, Add": _two, "MatMul, Add, Sigmoid": _sigmoid, "MatMul, Add, Mul, Add": _denormalised,
}  # fmt: skip


# -- what a host does with the result ----------------------------------------------------------------------------------
def softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _with_softmax(s: Sketch, x: str, axes: str) -> tuple[str, str]:
    if s.net.opset < 13 and len(axes) == 3:  # the older Softmax flattens: the last axis alone only as axis 2
        s.host += (("Softmax", softmax),)
        return s.net.node("Softmax", x, axis=2), axes
    s.host += (("Softmax", softmax),)
    return s.net.node("Softmax", x, axis=len(axes) - 1 if s.rng.random() < 0.5 or s.net.opset < 11 else -1), axes


def _with_log_softmax(s: Sketch, x: str, axes: str) -> tuple[str, str]:
    s.host += (("LogSoftmax", lambda y: np.log(softmax(y))),)
    return s.net.node("LogSoftmax", x, axis=len(axes) - 1), axes


def _with_argmax(s: Sketch, x: str, axes: str) -> tuple[str, str]:
    s.host += (("ArgMax", lambda y: np.argmax(y, -1)),)
    return s.net.node("ArgMax", x, axis=len(axes) - 1, keepdims=0), axes.replace("h", "")


HOSTS: dict[str, Callable[[Sketch, str, str], tuple[str, str]]] = {
    "none": lambda s, x, axes: (x, axes), "Softmax": _with_softmax, "LogSoftmax": _with_log_softmax,
    "ArgMax": _with_argmax,
}  # fmt: skip


# -- the whole network -------------------------------------------------------------------------------------------------
ZEROS = ("absent", "zeros", "Expand", "ConstantOfShape")
QUANTIZED = ("no", "no", "no", "weights", "weights of any scale", "weights by row", "input", "output", "all")
LENGTHS = ("absent", "absent", "input")


def _zero_state(s: Sketch, x: str, directions: int, units: int, how: str) -> str:
    """A state of zeros for a batch of any size, as PyTorch's exporters write it."""
    net = s.net
    sizes = net.node(
        "Concat", net.constant(np.array([directions], np.int64)),
        net.axes_of("Unsqueeze", net.gather(net.node("Shape", x), 1, 0), 0),
        net.constant(np.array([units], np.int64)), axis=0,
    )  # fmt: skip
    if how == "Expand":
        return net.node("Expand", net.constant(np.zeros((1, 1, units), np.float32)), sizes)
    return net.node("ConstantOfShape", sizes)


@dataclass(frozen=True)
class Plan:
    """The parts of one network by their names in the tables."""

    operator: str
    front: str
    tail: str
    head: str
    host: str
    layers: int
    direction: str | None
    opset: int
    free: bool
    zeros: str
    lengths: str
    sizes: str
    quantized: str


def plans(operator: str, count: int, seed: int = 9) -> list[Plan]:
    """Plans in which every part of every table stands about as often as every other."""
    rng = np.random.default_rng([seed, OPERATORS.index(operator)])
    tables: dict[str, tuple[Any, ...]] = {
        "front": tuple(FRONTS), "tail": tuple(TAILS), "head": tuple(HEADS), "host": (*HOSTS, "none", "none"),
        "direction": (None, None, "reverse", "bidirectional", "bidirectional"),
        "sizes": tuple(SIZES), "quantized": QUANTIZED, "layers": (1, 1, 2, 3),
        "opset": tuple(range(9, NEWEST + 1)), "free": (False, True), "zeros": ZEROS, "lengths": LENGTHS,
    }  # fmt: skip
    columns = {
        key: list(itertools.chain.from_iterable(rng.permutation(len(values)) for _ in range(count // len(values) + 1)))
        for key, values in tables.items()
    }
    found = [Plan(operator, **{key: tables[key][int(columns[key][k])] for key in tables}) for k in range(count)]
    return [_allowed(plan) for plan in found]


def _allowed(plan: Plan) -> Plan:
    """With an operator set that has what the plan asks for: QuantizeLinear came with 10, its axis with 13."""
    least = 13 if plan.quantized == "weights by row" else 10 if plan.quantized != "no" else 9
    if plan.quantized == "output" and plan.host != "none":
        return replace(plan, quantized="input", opset=max(plan.opset, least))
    return replace(plan, opset=max(plan.opset, least))


def built(name: str, plan: Plan, seed: int) -> Case:
    """The network of a plan, small and well conditioned."""
    for attempt in itertools.count():
        case = _built(name, plan, seed + 1000 * attempt)
        if well_conditioned(case.unrounded or case.proto, case.feeds):
            return case
    raise AssertionError


def _built(name: str, plan: Plan, seed: int) -> Case:
    case = _sketched(name, plan, seed)
    if plan.quantized in ("input", "output", "all"):
        plain = "weights" if plan.quantized == "all" else "no"
        return replace(case, unrounded=_sketched(name, replace(plan, quantized=plain), seed).proto)
    return case


def _sketched(name: str, plan: Plan, seed: int) -> Case:
    rng = np.random.default_rng([seed, 2])
    steps, batch = SIZES[plan.sizes]
    equal = plan.sizes == "all equal"
    s = Sketch(
        Net(plan.opset, ("raw", "node", "typed")[seed % 3], plan.quantized), rng, {},
        3 if equal else int(rng.integers(1, 5)), free=plan.free,
        steps=steps, batch=batch, lengths=plan.lengths, direction=plan.direction,
    )  # fmt: skip
    value = FRONTS[plan.front](s)
    if plan.quantized in ("input", "all"):
        value = s.net.on_grid(value, 2.0**-4)
    lengths = ""
    setting = Setting(
        plan.operator, plan.opset, plan.direction, batch=s.batch, steps=s.steps,
        hidden=3 if equal else int(rng.integers(2, 6)),
        outputs=("Y", "Y_h"), lengths=plan.lengths, dimensions="both",
    )  # fmt: skip
    if plan.operator == "GRU":
        setting = replace(setting, linear_before_reset=int(rng.integers(2)))
    if plan.lengths == "input":
        values = drawn_lengths(setting, rng)
        s.feeds["lengths"] = values
        lengths = s.net.input("lengths", values, ["batch"] if plan.free else None)
    width = s.features
    for k in range(plan.layers):
        made = _layer(s, replace(setting, inputs=width), value, lengths, plan.zeros)
        s.made = (*s.made, made)
        width = s.units = setting.hidden * s.directions
        if k + 1 < plan.layers:
            value = _side_by_side(s, made["Y"], ("auto", "reshape")[int(rng.integers(2))])
    taken, axes = TAILS[plan.tail](s)
    taken = HEADS[plan.head](s, taken, axes)
    if plan.quantized in ("output", "all") and plan.host == "none":
        taken = s.net.on_grid(taken, 0.25)  # coarse: no noise of floats reaches the next step
    taken, axes = HOSTS[plan.host](s, taken, axes)
    return _case(name, plan, s, taken, axes)


def _layer(s: Sketch, setting: Setting, x: str, lengths: str, zeros: str) -> dict[str, str]:
    if zeros == "zeros":
        setting = replace(setting, initial_h="zeros", initial_c="zeros")
    made = operator_node(s.net, setting, x, s.feeds, s.rng, 1.0, lengths)
    if zeros in ("Expand", "ConstantOfShape"):
        node = s.net.nodes.pop()
        state = _zero_state(s, x, s.directions, setting.hidden, zeros)
        node.input.extend([""] * (5 - len(node.input)))
        node.input.extend([state] * (2 if setting.operator == "LSTM" else 1))
        s.net.nodes.append(node)
    return made


def _case(name: str, plan: Plan, s: Sketch, taken: str, axes: str) -> Case:
    s.net.output(taken, "y")
    element = 7 if plan.host == "ArgMax" else 1
    proto = s.net.proto({"y": len(axes)}, element=element)
    features = {
        "front": plan.front, "tail": plan.tail, "head": plan.head, "host": plan.host, "layers": str(plan.layers),
        "direction": plan.direction or "left out", "opset": str(plan.opset), "zero state": plan.zeros,
        "sequence_lens": plan.lengths, "dimensions": "both" if plan.free else "fixed",
        "sizes": plan.sizes, "quantized": plan.quantized,
    }  # fmt: skip
    return Case(name, plan.operator, features, proto, s.feeds, s.x_axes, {"y": Expected(axes, s.model_refused, s.host)})


def surrounded_cases(each: int = 70) -> Iterator[Callable[[], Case]]:
    """Makers of the networks."""
    for operator in OPERATORS:
        for k, plan in enumerate(plans(operator, each)):
            name = f"{operator.lower()}-network-{k}"
            yield lambda name=name, plan=plan, k=k: built(name, plan, k)
