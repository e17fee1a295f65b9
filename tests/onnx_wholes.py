"""Whole networks written by hand, whose wiring the drawn ones do not have: branches, shared weights, learned states.

Each says what a Model of each output must be: right, or refused with a word of the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto, TensorProto, helper
from onnx_matrix import OPERATORS, Case, Expected, Net, Setting, operator_node
from onnx_surroundings import softmax

STEPS, BATCH, FEATURES, UNITS = 5, 3, 4, 3
LAYERS = "layers one behind the other|one behind|side by side|beside|only"


@dataclass
class Whole:
    """A network in the making, over x (steps, sequences, features)."""

    operator: str
    net: Net = field(default_factory=lambda: Net(17))
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))
    feeds: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, tuple[str, Expected]] = field(default_factory=dict)
    x_axes: str = "tnf"
    kind: int = TensorProto.FLOAT

    def drawn(self, *shape: int) -> np.ndarray:
        """Normal numbers, float32."""
        return (self.rng.standard_normal(shape) * 0.6).astype(np.float32)

    def x(self, dtype: type = np.float32) -> str:
        """The input, whole numbers where its type is one."""
        value = (self.drawn(STEPS, BATCH, FEATURES) * (1 if dtype in (np.float32, np.float64) else 20)).astype(dtype)
        self.feeds["x"] = value
        return self.net.input("x", value, ["time", "batch", FEATURES])

    def setting(self, inputs: int = FEATURES, **chosen: object) -> Setting:
        """A layer of the network's operator."""
        return replace(
            Setting(self.operator, 17, hidden=UNITS, inputs=inputs, steps=STEPS, batch=BATCH, outputs=("Y", "Y_h")),
            **chosen,  # type: ignore[arg-type]
        )

    def layer(self, x: str, inputs: int = FEATURES, lengths: str = "", **chosen: object) -> dict[str, str]:
        """A recurrent layer; with ``states`` an operator's own first ones by name."""
        return operator_node(self.net, self.setting(inputs, **chosen), x, self.feeds, self.rng, 1.0, lengths)

    def starting(self, *states: str) -> None:
        """Give the last node first states."""
        node = self.net.nodes[-1]
        node.input.extend([""] * (5 - len(node.input)))
        node.input.extend(states[: 2 if self.operator == "LSTM" else 1])

    def flat(self, y: str) -> str:
        """Y (t, d, n, h) as (t, n, d * h)."""
        return self.net.reshape(self.net.node("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, -1)

    def dense(self, x: str, size: int, to: int = 2) -> str:
        """MatMul and Add."""
        made = self.net.node("MatMul", x, self.net.constant(self.drawn(size, to)))
        return self.net.node("Add", made, self.net.constant(self.drawn(to)))

    def give(self, name: str, value: str, axes: str, refused: str = "", **chosen: object) -> None:
        """Make a value an output."""
        self.net.output(value, name)
        self.outputs[name] = (axes, Expected(axes, refused, **chosen))  # type: ignore[arg-type]


def _two_heads(w: Whole) -> None:
    last = w.net.gather(w.flat(w.layer(w.x())["Y"]), -1, 0)
    first, second = w.dense(last, UNITS), w.dense(last, UNITS, 4)
    w.give("a", first, "nh")
    w.give("b", second, "nh")


def _scores_and_classes(w: Whole) -> None:
    scores = w.dense(w.flat(w.layer(w.x())["Y"]), UNITS)
    soft = w.net.node("Softmax", scores, axis=2)
    w.give("soft", soft, "tnh", host=(("Softmax", softmax),))
    w.give("scores", scores, "tnh")


def _branches(w: Whole) -> None:
    x = w.x()
    parts = [w.net.gather(w.layer(x)["Y_h"], 0, 0), w.net.gather(w.layer(x, hidden=2)["Y_h"], 0, 0)]
    w.give("y", w.dense(w.net.node("Concat", *parts, axis=1), UNITS + 2), "nh")


def _other_branches(w: Whole) -> None:
    """Two operators side by side."""
    x = w.x()
    first = w.net.gather(w.layer(x)["Y_h"], 0, 0)
    w.operator = OPERATORS[(OPERATORS.index(w.operator) + 1) % 3]
    second = w.net.gather(w.layer(x)["Y_h"], 0, 0)
    w.give("y", w.net.node("Concat", first, second, axis=1), "nh")


def _sum_of_directions(w: Whole) -> None:
    y = w.layer(w.x(), direction="bidirectional")["Y"]
    both = [w.net.gather(y, k, 1) for k in (0, 1)]
    w.give("y", w.net.node("Add", *both), "tnh")


def _backward_first(w: Whole) -> None:
    y = w.layer(w.x(), direction="bidirectional")["Y"]
    both = [w.net.gather(y, k, 1) for k in (1, 0)]
    w.give("y", w.net.node("Concat", *both, axis=2), "tnh")


def _split(w: Whole) -> None:
    net = w.net
    y = w.layer(w.x(), direction="bidirectional")["Y"]
    a, b = net.node("Split", y, net.constant(np.array([1, 1])), outputs=2, axis=1)
    w.give("y", net.node("Concat", net.axes_of("Squeeze", a, 1), net.axes_of("Squeeze", b, 1), axis=-1), "tnh")


def _reversed_by_hand(w: Whole) -> None:
    """Keras: the input turned around, a forward layer, its steps turned back."""
    lengths = w.net.constant(np.full(BATCH, STEPS, np.int64))
    w.feeds["x"] = w.drawn(STEPS, BATCH, FEATURES)
    x = w.net.input("x", w.feeds["x"])
    turned = w.net.node("ReverseSequence", x, lengths, time_axis=0, batch_axis=1)
    y = w.net.axes_of("Squeeze", w.layer(turned)["Y"], 1)
    w.give("y", w.net.node("ReverseSequence", y, lengths, time_axis=0, batch_axis=1), "tnh")


def _reversed_by_slice(w: Whole) -> None:
    turned = w.net.slice(w.x(), -1, -(2**31), 0, -1)
    w.give("y", w.net.slice(w.net.axes_of("Squeeze", w.layer(turned)["Y"], 1), -1, -(2**31), 0, -1), "tnh")


def _learned_state(w: Whole) -> None:
    """One constant first state, expanded to the batch."""
    net, x = w.net, w.x()
    size = net.axes_of("Unsqueeze", net.gather(net.node("Shape", x), 1, 0), 0)
    one = net.constant(np.array([1]))
    states = [
        net.node("Expand", net.constant(w.drawn(1, 1, UNITS)), net.node("Concat", one, size, one, axis=0))
        for _ in "hc"
    ]  # fmt: skip
    made = w.layer(x)
    w.starting(*states)
    w.give("y", w.net.axes_of("Squeeze", made["Y_h"], 0), "nh")
    w.give("steps", w.net.axes_of("Squeeze", made["Y"], 1), "tnh")


def _encoder_decoder(w: Whole) -> None:
    """The last states of one layer are the first ones of the next."""
    x = w.x()
    states = w.layer(x, outputs=("Y_h", "Y_c") if w.operator == "LSTM" else ("Y_h",))
    made = w.layer(x)
    w.starting(*states.values())
    w.give("y", w.net.axes_of("Squeeze", made["Y"], 1), "tnh", "initial|state|start")


def _code_repeated(w: Whole) -> None:
    """Keras' RepeatVector: the last output at every step of the next layer."""
    net, x = w.net, w.x()
    code = w.layer(x)["Y_h"]
    size = net.axes_of("Unsqueeze", net.gather(net.node("Shape", x), 0, 0), 0)
    ones = net.constant(np.array([1, 1]))
    again = net.node("Expand", code, net.node("Concat", size, ones, axis=0))
    w.give("y", w.dense(net.axes_of("Squeeze", w.layer(again, UNITS)["Y"], 1), UNITS), "tnh")


def _state_given_to_dense(w: Whole) -> None:
    """The first state is a dense layer of another input."""
    x, given = w.x(), w.drawn(BATCH, 2)
    w.feeds["start"] = given
    start = w.net.axes_of("Unsqueeze", w.dense(w.net.input("start", given, ["batch", 2]), 2, UNITS), 0)
    made = w.layer(x)
    w.starting(start, start)
    w.give("y", w.net.axes_of("Squeeze", made["Y"], 1), "tnh", "initial|state|start|input")


def _shared_weights(w: Whole) -> None:
    first = w.layer(w.x(), FEATURES, hidden=FEATURES)
    node = w.net.nodes[-1]
    second = w.net.node(w.operator, w.net.axes_of("Squeeze", first["Y"], 1), *node.input[1:], outputs=2)
    w.net.nodes[-1].attribute.extend(node.attribute)
    w.give("y", w.net.axes_of("Squeeze", second[0], 1), "tnh")


def _scaled_between(w: Whole) -> None:
    net = w.net
    y = net.node("Mul", w.flat(w.layer(w.x())["Y"]), net.constant(w.drawn(UNITS)))
    y = net.node("Sub", net.constant(np.float32(0.5)), y)
    w.give("y", w.flat(w.layer(y, UNITS)["Y"]), "tnh")


def _some_features(w: Whole) -> None:
    net = w.net
    x = net.gather(w.x(), [2, 0, 2], 2)
    w.give("y", net.slice(w.flat(w.layer(x, 3)["Y"]), 1, 3, 2), "tnh")


def _normalised(w: Whole) -> None:
    last = w.net.axes_of("Squeeze", w.layer(w.x())["Y_h"], 0)
    parts = [w.net.constant(v) for v in (w.drawn(UNITS), w.drawn(UNITS), w.drawn(UNITS), np.abs(w.drawn(UNITS)) + 0.5)]
    w.give("y", w.dense(w.net.node("BatchNormalization", last, *parts), UNITS), "nh")


def _lengths_cast(w: Whole) -> None:
    w.feeds["lengths"] = np.array([2, 5, 4], np.int64)
    lengths = w.net.node("Cast", w.net.input("lengths", w.feeds["lengths"], ["batch"]), to=6)
    w.give("y", w.net.axes_of("Squeeze", w.layer(w.x(), lengths=lengths)["Y_h"], 0), "nh")


def _lengths_of_one_layer(w: Whole) -> None:
    w.feeds["lengths"] = np.array([2, 5, 4], np.int32)
    lengths = w.net.input("lengths", w.feeds["lengths"], ["batch"])
    y = w.flat(w.layer(w.x(), lengths=lengths)["Y"])
    w.give("y", w.net.axes_of("Squeeze", w.layer(y, UNITS)["Y_h"], 0), "nh", "sequence_lens|lengths")


def _two_lengths(w: Whole) -> None:
    y, x = "", w.x()
    for k, values in enumerate(([2, 5, 4], [1, 3, 4])):
        w.feeds[f"lengths{k}"] = np.array(values, np.int32)
        lengths = w.net.input(f"lengths{k}", w.feeds[f"lengths{k}"], ["batch"])
        y = w.layer(x, UNITS if k else FEATURES, lengths)["Y_h" if k else "Y"]
        x = y if k else w.flat(y)
    w.give("y", w.net.axes_of("Squeeze", y, 0), "nh", "sequence_lens|lengths")


def _integers_in(w: Whole) -> None:
    w.give("y", w.flat(w.layer(w.net.node("Cast", w.x(np.int8), to=1))["Y"]), "tnh")


def _double_in(w: Whole) -> None:
    w.give("y", w.flat(w.layer(w.net.node("Cast", w.x(np.float64), to=1))["Y"]), "tnh")


def _hard_head(w: Whole) -> None:
    net = w.net
    y = w.dense(net.node("HardSigmoid", w.dense(w.flat(w.layer(w.x())["Y"]), UNITS, 5), alpha=0.25, beta=0.5), 5)
    w.give("y", net.node("Clip", y, net.constant(np.float32(-0.25)), net.constant(np.float32(0.25))), "tnh")


def _leaky_head(w: Whole) -> None:
    net = w.net
    y = net.node("LeakyRelu", w.dense(w.flat(w.layer(w.x())["Y"]), UNITS, 5), alpha=0.125)
    w.give("y", net.node("Elu", w.dense(net.node("Softplus", y), 5), alpha=0.5), "tnh")


def _input_too(w: Whole) -> None:
    """The input beside the layer's output: a dense layer that reads both."""
    x = w.x()
    y = w.net.node("Concat", w.flat(w.layer(x)["Y"]), x, axis=2)
    w.give("y", w.dense(y, UNITS + FEATURES), "tnh", LAYERS + "|input")


def _residual(w: Whole) -> None:
    x = w.dense(w.x(), FEATURES, UNITS)
    w.give("y", w.net.node("Add", w.flat(w.layer(x, UNITS)["Y"]), x), "tnh", LAYERS + "|input")


def _steps_swapped(w: Whole) -> None:
    """A trap: sequences and steps are exchanged before the layer, so it runs along the batch."""
    w.feeds["x"] = w.drawn(STEPS, BATCH, FEATURES)
    x = w.net.node("Transpose", w.net.input("x", w.feeds["x"]), perm=[1, 0, 2])
    y = w.net.axes_of("Squeeze", w.layer(x, batch=STEPS, steps=BATCH)["Y"], 1)
    w.x_axes = "ntf"
    w.give("y", y, "tnh")


def _dense_alone(w: Whole) -> None:
    """An output that no recurrent layer reaches, beside one that it does."""
    x = w.x()
    w.give("y", w.flat(w.layer(x)["Y"]), "tnh")
    w.give("z", w.dense(x, FEATURES), "tnh", "RNN, GRU or LSTM")


WHOLES: dict[str, Callable[[Whole], None]] = {
    "two heads": _two_heads, "Softmax and scores": _scores_and_classes, "two branches": _branches,
    "two operators side by side": _other_branches, "sum of both directions": _sum_of_directions,
    "backward direction first": _backward_first, "directions by Split": _split,
    "reverse by ReverseSequence": _reversed_by_hand, "reverse by Slice": _reversed_by_slice,
    "learned first state": _learned_state, "encoder and decoder": _encoder_decoder, "repeated code": _code_repeated,
    "first state from a dense layer": _state_given_to_dense, "shared weights": _shared_weights,
    "Mul, Sub between layers": _scaled_between, "features by Gather, Slice": _some_features,
    "BatchNormalization": _normalised, "lengths by Cast": _lengths_cast, "lengths of one layer": _lengths_of_one_layer,
    "two lengths": _two_lengths, "integers by Cast": _integers_in, "float64 by Cast": _double_in,
    "HardSigmoid, Clip": _hard_head, "LeakyRelu, Softplus, Elu": _leaky_head,
    "input beside the output": _input_too, "residual": _residual, "sequences and steps exchanged": _steps_swapped,
    "an output without recurrence": _dense_alone,
}  # fmt: skip


def function_case(operator: str) -> Case:
    """The layer inside a function of the model's own, as dynamo exporters of some versions wrote them."""
    w = Whole(operator)
    x = w.x()
    made = w.layer(x)
    node = w.net.nodes.pop()
    inner = helper.make_node(operator, ["a", "w", "r", "b"], ["", "last"])
    inner.attribute.extend(node.attribute)
    body = helper.make_function(
        "own", "Layer", ["a", "w", "r", "b"], ["last"], [inner], [helper.make_opsetid("", 17)]
    )  # fmt: skip
    called = w.net.node("Layer", *node.input, domain="own")
    w.give("y", w.net.axes_of("Squeeze", called, 0), "nh")
    assert made
    case = _case("a function of the model", w)
    case.proto.functions.append(body)
    case.proto.opset_import.append(helper.make_opsetid("own", 1))
    return case


def _case(title: str, w: Whole) -> Case:
    proto: ModelProto = w.net.proto({name: len(axes) for name, (axes, _) in w.outputs.items()})
    expected = {name: output for name, (_, output) in w.outputs.items()}
    name = f"{w.operator.lower()} whole: {title}"
    return Case(name, w.operator, {"network": title}, proto, w.feeds, w.x_axes, expected)


def _whole(operator: str, title: str) -> Case:
    w = Whole(operator)
    WHOLES[title](w)
    return _case(title, replace(w, operator=operator))


def whole_cases() -> Iterator[Callable[[], Case]]:
    """Makers of the networks, each with every operator."""
    for operator in OPERATORS:
        for title in WHOLES:
            yield lambda operator=operator, title=title: _whole(operator, title)
        yield lambda operator=operator: function_case(operator)
