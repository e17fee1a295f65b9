"""Networks that must be refused, each with a word of the reason: what is not understood, and what contradicts itself.

Every one is a sound network with one thing changed, so a refusal for another reason is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper
from onnx_matrix import NEWEST, OPERATORS, PLACES, Case, Expected, Net, Setting, operator_node

STEPS, BATCH, FEATURES, UNITS = 4, 2, 3, 3
Change = Callable[[Net, dict[str, np.ndarray], Setting], None]


def _base(setting: Setting, feeds: dict[str, np.ndarray], lengths: bool = False) -> Net:
    rng = np.random.default_rng(4)
    net = Net(setting.opset)
    feeds["x"] = rng.standard_normal((STEPS, BATCH, FEATURES)).astype(np.float32)
    net.input("x", feeds["x"])
    name = ""
    if lengths:
        feeds["lengths"] = np.array([3, 4], np.int32)
        name = net.input("lengths", feeds["lengths"])
    made = operator_node(net, setting, "x", feeds, rng, 1.0, name)
    net.output(made["Y"], "y")
    return net


# -- the node itself ---------------------------------------------------------------------------------------------------
def _attribute(name: str, value: Any) -> Change:
    def change(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
        (node,) = [node for node in net.nodes if node.op_type == setting.operator]
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def _activations(name: str, more: int = 0, alpha: int = 0, beta: int = 0) -> Change:
    """The same function at every place, at ``more`` places than there are, with so many numbers written."""

    def change(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
        count = len(PLACES[setting.operator]) + more
        (node,) = [node for node in net.nodes if node.op_type == setting.operator]
        node.attribute.append(helper.make_attribute("activations", [name] * count, attr_type=AttributeProto.STRINGS))
        for key, numbers in (("activation_alpha", alpha), ("activation_beta", beta)):
            if numbers:
                _attribute(key, [0.5] * numbers)(net, feeds, setting)

    return change


def _weights(place: int, made: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Input ``place`` of the operator as another array."""

    def change(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
        (node,) = [node for node in net.nodes if node.op_type == setting.operator]
        for k, tensor in enumerate(net.initializers):
            if tensor.name == node.input[place]:
                array = np.ascontiguousarray(made(numpy_helper.to_array(tensor)))
                net.initializers[k] = numpy_helper.from_array(array, tensor.name)

    return change


def _weights_given(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
    """W comes with every run instead of standing in the file."""
    (node,) = [node for node in net.nodes if node.op_type == setting.operator]
    for tensor in list(net.initializers):
        if tensor.name == node.input[1]:
            net.initializers.remove(tensor)
            feeds[tensor.name] = numpy_helper.to_array(tensor).copy()
            net.input(tensor.name, feeds[tensor.name])


def _more_inputs(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
    (node,) = [node for node in net.nodes if node.op_type == setting.operator]
    node.input.extend(["x"] * (9 - len(node.input)))


def _wrong_rank(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
    feeds["x"] = feeds["x"][:, 0]
    del net.inputs[0]
    net.input("x", feeds["x"])


def _wrong_features(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
    feeds["x"] = feeds["x"][:, :, :2]
    del net.inputs[0]
    net.input("x", feeds["x"])


NODE: dict[str, tuple[str, Change]] = {
    "unknown activation": ("activation", _activations("Swish")),
    "too few activations": ("activation", _activations("Tanh", -1)),
    "too many activations": ("activation", _activations("Tanh", 1)),
    "Affine without alpha": ("alpha", _activations("Affine")),
    "ScaledTanh without beta": ("beta", _activations("ScaledTanh", alpha=3)),
    "ThresholdedRelu without alpha": ("alpha", _activations("ThresholdedRelu")),
    "alpha for none": ("alpha", _activations("Tanh", alpha=1)),
    "alpha of more than there are": ("alpha", _activations("LeakyRelu", alpha=4)),
    "alpha without activations": ("alpha", _attribute("activation_alpha", [0.5])),
    "clip of 0": ("clip", _attribute("clip", 0.0)),
    "clip below 0": ("clip", _attribute("clip", -1.0)),
    "clip that is no number": ("clip", _attribute("clip", float("nan"))),
    "clip as text": ("clip", _attribute("clip", "1")),
    "unknown direction": ("direction", _attribute("direction", "sideways")),
    "bidirectional with weights of one": ("W|direction", _attribute("direction", "bidirectional")),
    "layout 2": ("layout", _attribute("layout", 2)),
    "hidden_size of another": ("hidden_size|W of shape", _attribute("hidden_size", UNITS + 1)),
    "unknown attribute": ("dropout", _attribute("dropout", 0.5)),
    "output_sequence of operator set 1": ("output_sequence", _attribute("output_sequence", 1)),
    "W a row short": ("W", _weights(1, lambda w: w[:, :-1])),
    "W of two axes": ("W", _weights(1, lambda w: w[0])),
    "R not square": ("R", _weights(2, lambda r: r[:, :, :-1])),
    "B of one half": ("B", _weights(3, lambda b: b[:, : b.shape[1] // 2])),
    "W in float64": ("float|W", _weights(1, lambda w: w.astype(np.float64))),
    "W in integers": ("float|W", _weights(1, lambda w: (w * 8).astype(np.int32))),
    "W not finite": ("finite", _weights(1, lambda w: np.where(w == w.max(), np.inf, w).astype(np.float32))),
    "W given with every run": ("W|weights", _weights_given),
    "nine inputs": ("input", _more_inputs),
    "x of two axes": ("axes|rank|x", _wrong_rank),
    "x of fewer features": ("features|W", _wrong_features),
}  # fmt: skip
ONLY: dict[str, dict[str, tuple[str, Change]]] = {
    "RNN": {},
    "GRU": {"linear_before_reset 2": ("linear_before_reset", _attribute("linear_before_reset", 2))},
    "LSTM": {
        "input_forget 2": ("input_forget", _attribute("input_forget", 2)),
        "input_forget -1": ("input_forget", _attribute("input_forget", -1)),
    },
}


# -- what stands around ------------------------------------------------------------------------------------------------
def _behind(net: Net, *made: str) -> None:
    """The graph's output ``y`` becomes an inner value, and the new one ``y``."""
    for node in net.nodes:
        node.input[:] = ["inner" if name == "y" else name for name in node.input]
        node.output[:] = ["inner" if name == "y" else name for name in node.output]
    net.output(made[-1], "y")


def _unary(op: str, domain: str = "", **attributes: Any) -> Change:
    return lambda net, feeds, setting: _behind(net, net.node(op, "inner", domain=domain, **attributes))


def _with(op: str, array: Any, **attributes: Any) -> Change:
    def change(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
        _behind(net, net.node(op, "inner", net.constant(np.asarray(array)), **attributes))

    return change


def _itself(op: str) -> Change:
    return lambda net, feeds, setting: _behind(net, net.node(op, "inner", "inner"))


def _residual(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
    _behind(net, net.node("Add", net.axes_of("Squeeze", "inner", 1), "x"))


def _sliced(start: int, end: int, step: int) -> Change:
    return lambda net, feeds, setting: _behind(net, net.slice("inner", start, end, 0, step))


def _concat_time(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
    _behind(net, net.node("Concat", "inner", "inner", axis=0))


def _mixed(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
    _behind(net, net.reshape("inner", BATCH, 1, STEPS, UNITS))


def _all_steps_at_once(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
    """A dense layer that reads all steps of a sequence side by side."""
    flat = net.reshape(net.node("Transpose", "inner", perm=[2, 0, 1, 3]), BATCH, STEPS * UNITS)
    _behind(net, net.node("MatMul", flat, net.constant(np.ones((STEPS * UNITS, 2), np.float32))))


def _loop(net: Net, feeds: dict[str, np.ndarray], setting: Setting) -> None:
    info, kinds = helper.make_tensor_value_info, TensorProto
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["v", "v"], ["w"])], "body",
        [info("k", kinds.INT64, []), info("c", kinds.BOOL, []), info("v", kinds.FLOAT, None)],
        [info("d", kinds.BOOL, []), info("w", kinds.FLOAT, None)],
    )  # fmt: skip
    _behind(net, net.node("Loop", net.constant(np.array(2)), "", "inner", body=body))


AROUND: dict[str, tuple[str, Change]] = {
    "operator of another kind": ("Erf", _unary("Erf")),
    "custom operator": ("com.example|Secret", _unary("Secret", "com.example")),
    "mean over steps": ("ReduceMean|mean", _unary("ReduceMean", axes=[0])),
    "product of two values": ("Mul", _itself("Mul")),
    "product of two computed matrices": ("MatMul", lambda net, feeds, setting: _behind(
        net, net.node("MatMul", "inner", net.node("Transpose", "inner", perm=[0, 1, 3, 2])))),
    "every second step": ("Slice", _sliced(0, STEPS, 2)),
    "a part of the steps": ("Slice", _sliced(1, STEPS, 1)),
    "steps one after the other": ("Concat", _concat_time),
    "a factor for every step": ("Mul", _with("Mul", np.arange(STEPS, dtype=np.float32).reshape(STEPS, 1, 1, 1))),
    "an offset for every sequence": ("Add", _with("Add", np.arange(BATCH, dtype=np.float32).reshape(1, 1, BATCH, 1))),
    "division by 0": ("Div", _with("Div", np.zeros(1, np.float32))),
    "steps and sequences mixed": ("Reshape", _mixed),
    "a loop": ("Loop", _loop),
    "a dense layer over all steps at once": ("MatMul.*steps", _all_steps_at_once),
    "a power": ("Pow", _with("Pow", np.float32(2))),
    "an embedding": ("Gather|Cast", lambda net, feeds, setting: _behind(
        net, net.node("Gather", net.constant(np.eye(3, dtype=np.float32)), net.node("Cast", "inner", to=7)))),
}  # fmt: skip


RUN_ONLY: dict[str, tuple[str, int, Change]] = {
    "sum with the input": ("layers one behind the other|sum", 3, _residual),
    "steps turned around": ("order|revers|step", 4, _sliced(-1, -(2**31), -1)),
}
"""What has a meaning that layers one behind the other have not: it runs, and the model is refused; with its axes."""


# -- feeds -------------------------------------------------------------------------------------------------------------
def _lengths(*values: float, kind: type = np.int32) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda feeds: feeds.update(lengths=np.array(values, kind))


FEEDS: dict[str, tuple[str, Callable[[dict[str, np.ndarray]], Any]]] = {
    "length 0": ("length|sequence_lens", _lengths(0, 4)),
    "length of more than the steps": ("length|sequence_lens", _lengths(3, 5)),
    "length below 0": ("length|sequence_lens", _lengths(3, -1)),
    "too few lengths": ("length|sequence_lens", _lengths(3)),
    "lengths in float": ("length|sequence_lens", _lengths(3, 4, kind=np.float32)),
    "no lengths": ("length", lambda feeds: feeds.pop("lengths")),
    "an input too many": ("extra", lambda feeds: feeds.update(extra=np.zeros(1, np.float32))),
    "no x": ("x", lambda feeds: feeds.pop("x")),
    "x with NaN": ("finite", lambda feeds: feeds["x"].fill(np.nan)),
    "x with other features": ("x|feature", lambda feeds: feeds.update(x=feeds["x"][..., :2])),
}  # fmt: skip


# -- the file ----------------------------------------------------------------------------------------------------------
def _opset(version: int) -> Callable[[ModelProto], None]:
    def change(proto: ModelProto) -> None:
        proto.opset_import[0].version = version

    return change


def _no_output(proto: ModelProto) -> None:
    del proto.graph.output[:]


def _nothing_makes_it(proto: ModelProto) -> None:
    proto.graph.output[0].name = "nothing"


def _cycle(proto: ModelProto) -> None:
    for node in proto.graph.node:
        if node.op_type in OPERATORS:
            node.input[0] = "y"


FILES: dict[str, tuple[str, Callable[[ModelProto], None]]] = {
    "operator set 6": ("6", _opset(6)),
    "an operator set to come": (str(NEWEST + 1), _opset(NEWEST + 1)),
    "no operator set": ("operator", lambda proto: proto.ClearField("opset_import")),
    "no output": ("output", _no_output),
    "an output that nothing makes": ("nothing", _nothing_makes_it),
    "a circle": ("y|circle|cycl|order", _cycle),
    "no recurrent operator": ("recurrent|RNN", lambda proto: _only_relu(proto)),
}


def _only_relu(proto: ModelProto) -> None:
    del proto.graph.node[:]
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["y"], name="alone"))
    del proto.graph.initializer[:]


def refused_cases() -> Iterator[Callable[[], Case]]:
    """Makers of the networks that must be refused."""
    for operator in OPERATORS:
        setting = Setting(operator, 17, hidden=UNITS, inputs=FEATURES, steps=STEPS, batch=BATCH, outputs=("Y",))
        for title, (reason, change) in {**NODE, **ONLY[operator], **AROUND}.items():
            yield lambda title=title, reason=reason, change=change, setting=setting: _changed(
                setting, title, reason, change
            )
        for title, (reason, rank, change) in RUN_ONLY.items():
            yield lambda title=title, reason=reason, rank=rank, change=change, setting=setting: _changed(
                setting, title, reason, change, rank
            )
        for title, (reason, fed) in FEEDS.items():
            yield lambda title=title, reason=reason, fed=fed, setting=setting: _fed(setting, title, reason, fed)
    setting = Setting("LSTM", 17, hidden=UNITS, inputs=FEATURES, steps=STEPS, batch=BATCH, outputs=("Y",))
    for title, (reason, turned) in FILES.items():
        yield lambda title=title, reason=reason, turned=turned: _filed(setting, title, reason, turned)


def _case(
    setting: Setting, title: str, reason: str, proto: ModelProto, feeds: dict[str, np.ndarray], rank: int = 0
) -> Case:
    name = f"{setting.operator.lower()} refused: {title}"
    output = Expected("tnh" if rank == 3 else "tdnh", reason if rank else "")
    return Case(
        name, setting.operator, {"refused": title}, proto, feeds, outputs={"y": output}, refused="" if rank else reason
    )


def _changed(setting: Setting, title: str, reason: str, change: Change, rank: int = 0) -> Case:
    """A network with one thing changed; one that still runs has an output of ``rank`` axes."""
    feeds: dict[str, np.ndarray] = {}
    net = _base(setting, feeds)
    change(net, feeds, setting)
    proto = net.proto({"y": rank or 4})
    if any(node.domain for node in net.nodes):
        proto.opset_import.append(helper.make_opsetid("com.example", 1))
    return _case(setting, title, reason, proto, feeds, rank)


def _fed(setting: Setting, title: str, reason: str, fed: Callable[[dict[str, np.ndarray]], Any]) -> Case:
    feeds: dict[str, np.ndarray] = {}
    net = _base(setting, feeds, lengths=True)
    fed(feeds)
    return _case(setting, title, reason, net.proto({"y": 4}), feeds)


def _filed(setting: Setting, title: str, reason: str, turned: Callable[[ModelProto], Any]) -> Case:
    feeds: dict[str, np.ndarray] = {}
    proto = _base(setting, feeds).proto({"y": 4})
    turned(proto)
    return _case(setting, title, reason, proto, feeds)
