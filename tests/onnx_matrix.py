"""Several hundred seeded ONNX networks around RNN, GRU and LSTM, and what must become of each.

Nothing of hwrnn is imported here: the networks are built with the onnx package from the standard's text, and the
expected outputs are ONNX Runtime's. A :class:`Setting` says how one operator is configured; settings are drawn so that
as many pairs of choices as possible meet (greedy pairwise covering). Networks with other operators around stand in
``onnx_surroundings``, those that must be refused in ``onnx_refusals``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPERATORS = ("RNN", "GRU", "LSTM")
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
PLACES = {"RNN": ("f",), "GRU": ("f", "g"), "LSTM": ("f", "g", "h")}
OUTPUTS = {"RNN": ("Y", "Y_h"), "GRU": ("Y", "Y_h"), "LSTM": ("Y", "Y_h", "Y_c")}
NEWEST = onnx.defs.onnx_opset_version()
RUNTIME_OPSET = 26  # ONNX Runtime 1.31 knows no newer one; the operators used here are those of 22 to 26 in 27 and 28
FUNCTIONS: dict[str, tuple[tuple[float, ...], ...]] = {
    "Relu": ((),), "Tanh": ((),), "Sigmoid": ((),), "Softsign": ((),), "Softplus": ((),),
    "LeakyRelu": ((0.01,), (0.3,), (-0.25,), (1.5,)),
    "ThresholdedRelu": ((0.0,), (0.25,), (1.0,), (-0.5,)),
    "Elu": ((1.0,), (0.5,), (-0.75,), (2.0,)),
    "Affine": ((0.5, 0.25), (-0.75, -0.125), (1.0, 0.0)),
    "ScaledTanh": ((1.7159, 0.6667), (0.5, -2.0), (-1.0, 0.5)),
    "HardSigmoid": ((0.2, 0.5), (0.25, 0.5), (1 / 6, 0.5), (-0.5, 0.75), (1.5, -0.25)),
}  # fmt: skip
"""Every activation with the parameters tried: alpha, or alpha and beta."""
NOTHING_WRITTEN: tuple[tuple[Any, ...], ...] = (
    ("LeakyRelu", 0.01), ("HardSigmoid", 0.2, 0.5), ("Elu", 1.0), ("Relu",), ("Tanh",), ("Sigmoid",), ("Softsign",),
    ("Softplus",),
)  # fmt: skip
"""Activations whose parameters, if none are written, the standard and ONNX Runtime agree on."""
EVERY_FUNCTION = tuple((name, *given) for name, choices in FUNCTIONS.items() for given in choices)

WEIGHT_GRIDS = {"weights": "power", "weights of any scale": "any", "weights by row": "rows", "all": "power"}
"""How weights are quantized: one power of two, one other scale, or a scale for every row."""

Function = tuple[Any, ...]  # a name and its parameters


@dataclass(frozen=True)
class Expected:
    """A graph output and where it stands in hwrnn's layout.

    Attributes:
        axes: its axes in order: ``t`` steps, ``d`` directions, ``n`` sequences, ``h`` units (in a pair with ``d``:
            beside each other, the forward ones first).
        refused: part of the reason for which ``Imported.model`` refuses this output; empty where it gives it.
        host: what the host computes from the model's output, in order, each where the notes name this operator.
    """

    axes: str
    refused: str = ""
    host: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = ()


@dataclass(frozen=True)
class Case:
    """One network, its inputs, and what must become of it.

    Attributes:
        name: unique.
        operator: RNN, GRU or LSTM.
        features: what it exercises, for the table.
        proto: the file's content.
        feeds: the graph's inputs.
        x_axes: axes of the input, as in :class:`Expected` with ``f`` for features.
        outputs: by the graph's names.
        refused: part of the reason for which import (or running) must refuse; empty where it must be right.
        zero: whether a state is an input, so that ``Imported.model`` needs ``initial="zero"``.
        own: outputs that come with the network, beside ONNX Runtime's.
        x: the graph's name of the input.
        unrounded: the same network without what rounds computed values, which a float model leaves out.
    """

    name: str
    operator: str
    features: dict[str, str]
    proto: ModelProto
    feeds: dict[str, np.ndarray]
    x_axes: str = "tnf"
    outputs: dict[str, Expected] = field(default_factory=dict)
    refused: str = ""
    zero: bool = False
    own: dict[str, np.ndarray] = field(default_factory=dict)
    x: str = "x"
    unrounded: ModelProto | None = None


class Net:
    """An ONNX graph that grows node by node; hides where the standard moved an attribute to an input."""

    def __init__(self, opset: int, storage: str = "raw", quantized: str = "no") -> None:
        self.opset, self.storage, self.quantized = opset, storage, quantized
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._names = itertools.count()

    def name(self, stem: str = "v") -> str:
        """A new name."""
        return f"{stem}_{next(self._names)}"

    def constant(self, value: Any, stem: str = "c") -> str:
        """A constant as the setting stores them: raw or typed initializer, Constant node, default of an input."""
        array = np.asarray(value)
        if stem in ("W", "R") and self.quantized in WEIGHT_GRIDS:
            return self._integers(array, WEIGHT_GRIDS[self.quantized])
        name = self.name(stem)
        tensor = numpy_helper.from_array(array, name)
        if self.storage == "typed" and array.dtype == np.float32:
            tensor = helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel().tolist())
        if self.storage == "node" and (self.opset >= 9 or array.dtype == np.float32):  # Constant knew floats only
            self.nodes.append(helper.make_node("Constant", [], [name], name=self.name("n"), value=tensor))
        else:
            self.initializers.append(tensor)
            if self.storage == "input":
                self.inputs.append(helper.make_tensor_value_info(name, tensor.data_type, array.shape))
        return name

    def _integers(self, array: np.ndarray, grid: str) -> str:
        """Weights as 8-bit integers behind a DequantizeLinear: a power of two, any scale, or one for every row."""
        rows = array.ndim - 2
        most = np.abs(array).max(-1).max(tuple(range(rows))) if grid == "rows" else np.abs(array).max()
        scale = np.exp2(np.ceil(np.log2(most / 127))) if grid == "power" else most / np.float32(120)
        scale = np.maximum(scale, 2.0**-20).astype(np.float32)
        whole = np.clip(np.round(array / (scale[:, None] if grid == "rows" else scale)), -128, 127).astype(np.int8)
        zero = self.constant(np.zeros_like(scale, np.int8))
        axis = {"axis": rows} if grid == "rows" else {}
        return self.node("DequantizeLinear", self.constant(whole), self.constant(scale), zero, **axis)

    def on_grid(self, x: str, scale: float) -> str:
        """A value rounded to 8 bits and back."""
        parts = [self.constant(np.float32(scale)), self.constant(np.int8(0))]
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *parts), *parts)

    def input(self, name: str, array: np.ndarray, shape: list[Any] | None = None) -> str:
        """A graph input of an array's type."""
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(array.shape) if shape is None else shape))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Append a node; its output's name, or a list of names where there are several."""
        made = [self.name(op.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, name=self.name(op), domain=domain, **attributes))
        return made[0] if outputs == 1 else made

    def axes_of(self, op: str, x: str, *axes: int) -> str:
        """Squeeze or Unsqueeze."""
        if self.opset < 13:
            return self.node(op, x, axes=list(axes))
        return self.node(op, x, self.constant(np.array(axes, np.int64)))

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        """Slice on one axis."""
        if self.opset < 10:
            return self.node("Slice", x, starts=[start], ends=[end], axes=[axis])
        parts = [self.constant(np.array([k], np.int64)) for k in (start, end, axis, step)]
        return self.node("Slice", x, *parts[: 3 if step == 1 else 4])

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape to a constant shape, 0 and -1 as in the standard."""
        return self.node("Reshape", x, self.constant(np.array(shape, np.int64)))

    def gather(self, x: str, index: int | list[int], axis: int) -> str:
        """Gather along one axis; a number takes the axis away."""
        return self.node("Gather", x, self.constant(np.array(index, np.int64)), axis=axis)

    def proto(self, outputs: dict[str, int], ir_version: int = 8, element: int = TensorProto.FLOAT) -> ModelProto:
        """The file; ``outputs`` are names and how many axes they have."""
        given = [
            helper.make_tensor_value_info(name, element, [None] * rank) for name, rank in outputs.items()
        ]  # fmt: skip
        graph = helper.make_graph(self.nodes, "network", self.inputs, given, self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="matrix")

    def output(self, x: str, name: str) -> str:
        """Give a value the name of a graph output."""
        for node in reversed(self.nodes):
            if x in node.output:
                node.output[list(node.output).index(x)] = name
                for other in self.nodes:
                    other.input[:] = [name if value == x else value for value in other.input]
                return name
        raise KeyError(x)


@dataclass(frozen=True)
class Setting:
    """One operator's configuration; every field is a choice of :func:`choices`."""

    operator: str
    opset: int = 17
    direction: str | None = None
    layout: int | None = None
    bias: bool = True
    lengths: str = "absent"
    initial_h: str = "absent"
    initial_c: str = "absent"
    peepholes: bool = False
    clip: float | None = None
    input_forget: int | None = None
    linear_before_reset: int | None = None
    activations: str = "absent"
    functions: tuple[Function, ...] = ()
    hidden: int = 4
    hidden_size: bool = True
    inputs: int = 3
    steps: int = 5
    batch: int = 3
    dimensions: str = "fixed"
    storage: str = "raw"
    outputs: tuple[str, ...] = ("Y", "Y_h")
    ir_version: int = 8

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.direction == "bidirectional" else 1

    def places(self) -> tuple[Function, ...]:
        """The functions written, place by place and direction by direction."""
        return self.functions[: self.directions * len(PLACES[self.operator])]


def choices(operator: str) -> dict[str, tuple[Any, ...]]:
    """Every field of a :class:`Setting` but the functions, with the values tried."""
    names = OUTPUTS[operator]
    subsets = tuple(s for n in range(1, len(names) + 1) for s in itertools.combinations(names, n))
    found: dict[str, tuple[Any, ...]] = {
        "opset": tuple(range(7, NEWEST + 1)),
        "direction": (None, "forward", "reverse", "bidirectional", "bidirectional"),
        "layout": (None, 0, 1),
        "bias": (False, True),
        "lengths": ("absent", "input", "constant", "full"),
        "initial_h": ("absent", "zeros", "constant", "rows", "input"),
        "clip": (None, None, 0.4, 1.5),
        "activations": ("absent", "written", "written", "written", "left out"),
        "hidden": tuple(range(1, 18)),
        "hidden_size": (True, False),
        "inputs": (1, 2, 3, 5, 9),
        "steps": (1, 2, 3, 6),
        "batch": (1, 2, 4),
        "dimensions": ("fixed", "batch", "both", "unknown"),
        "storage": ("raw", "typed", "node", "input"),
        "outputs": subsets,
        "ir_version": (4, 8, 10, 13),
    }
    if operator == "GRU":
        found["linear_before_reset"] = (None, 0, 1)
    if operator == "LSTM":
        found |= {"initial_c": found["initial_h"], "peepholes": (False, True), "input_forget": (None, 0, 1)}
    return found


def settings(operator: str, count: int, seed: int = 5) -> list[Setting]:
    """``count`` settings of an operator, drawn so that pairs of choices meet as soon as they can.

    Functions go round: each place of each direction sees all of them before it sees one again.
    """
    rng = np.random.default_rng([seed, OPERATORS.index(operator)])
    table = choices(operator)
    sizes = np.array([len(values) for values in table.values()])
    first, second = np.triu_indices(len(sizes), 1)
    places = sizes[first] * sizes[second]
    starts = np.cumsum(places) - places
    met, found = np.zeros(places.sum(), bool), []
    rounds = [itertools.cycle(rng.permutation(len(EVERY_FUNCTION))) for _ in range(2 * len(PLACES[operator]))]
    for _ in range(count):
        tried = rng.integers(sizes, size=(16, len(sizes)))
        pairs = starts + tried[:, first] * sizes[second] + tried[:, second]
        best = int(np.argmax((~met[pairs]).sum(1)))
        met[pairs[best]] = True
        chosen = {key: values[k] for (key, values), k in zip(table.items(), tried[best], strict=True)}
        setting = Setting(operator, **chosen)
        used = rounds[: setting.directions * len(PLACES[operator])]
        functions: tuple[Function, ...] = ()
        if setting.activations == "written":
            functions = tuple(EVERY_FUNCTION[next(turn)] for turn in used)
        elif setting.activations == "left out":
            functions = tuple(NOTHING_WRITTEN[int(rng.integers(len(NOTHING_WRITTEN)))] for _ in used)
        layout = None if setting.opset < 14 else setting.layout
        found.append(replace(setting, functions=functions, layout=layout))
    return found


def described(setting: Setting) -> dict[str, str]:
    """The setting as features of the table."""
    written = setting.activations != "absent"
    found = {
        "opset": str(setting.opset), "direction": setting.direction or "left out", "bias": _yes(setting.bias),
        "layout": "left out" if setting.layout is None else str(setting.layout), "sequence_lens": setting.lengths,
        "initial_h": setting.initial_h, "clip": "none" if setting.clip is None else str(setting.clip),
        "activations": setting.activations, "hidden units": str(setting.hidden),
        "outputs": ", ".join(setting.outputs), "dimensions": setting.dimensions, "constants": setting.storage,
        "hidden_size": "written" if setting.hidden_size else "left out",
    }  # fmt: skip
    if setting.operator == "GRU":
        found["linear_before_reset"] = _left_out(setting.linear_before_reset)
    if setting.operator == "LSTM":
        found |= {"initial_c": setting.initial_c, "peepholes": _yes(setting.peepholes)}
        found["input_forget"] = _left_out(setting.input_forget)
    if written:
        for k, function in enumerate(setting.places()):
            place = PLACES[setting.operator][k % len(PLACES[setting.operator])]
            found[f"{place} = {function[0]}{' of direction 2' * (k >= len(PLACES[setting.operator]))}"] = "yes"
    return found


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _left_out(value: int | None) -> str:
    return "left out" if value is None else str(value)


def drawn_lengths(setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Lengths of a batch: unequal, and shorter than the steps wherever there is room; all steps for ``full``."""
    lengths = np.full(setting.batch, setting.steps, np.int32)
    if setting.lengths != "full":
        lengths = rng.integers(1, setting.steps + 1, setting.batch).astype(np.int32)
        lengths[0] = max(1, setting.steps - 1)
        if setting.dimensions in ("both", "unknown"):
            lengths[-1] = setting.steps
    return lengths


def operator_node(
    net: Net, setting: Setting, x: str, feeds: dict[str, np.ndarray], rng: np.random.Generator, scale: float = 1.0,
    lengths: str = "", layer: str = "",
) -> dict[str, str]:  # fmt: skip
    """Append an RNN, GRU or LSTM node with drawn weights; its outputs by the standard's names."""
    hidden, directions, gates = setting.hidden, setting.directions, GATES[setting.operator]
    shape = (setting.batch, directions) if setting.layout == 1 else (directions, setting.batch)

    def drawn(*size: int, spread: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(size) * spread * scale).astype(np.float32)

    inputs = [x]
    inputs.append(net.constant(drawn(directions, gates * hidden, setting.inputs, spread=setting.inputs**-0.5), "W"))
    inputs.append(net.constant(drawn(directions, gates * hidden, hidden, spread=0.8 * hidden**-0.5), "R"))
    inputs.append(net.constant(drawn(directions, 2 * gates * hidden, spread=0.4), "B") if setting.bias else "")
    inputs.append(lengths)
    for state, kind in (("h", setting.initial_h), ("c", setting.initial_c)):
        if state == "c" and setting.operator != "LSTM":
            continue
        value = np.zeros((*shape, hidden), np.float32)
        if kind == "constant":  # the same for every sequence of the batch, as a Model can have it
            value = np.broadcast_to(drawn(*(1 if s == setting.batch and k == (setting.layout != 1) else s
                                            for k, s in enumerate(shape)), hidden), value.shape).copy()  # fmt: skip
        elif kind in ("rows", "input"):
            value = drawn(*value.shape)
        if kind == "input":
            name = f"initial_{state}{layer}"
            inputs.append(net.input(name, value, _shape(setting, value.shape, "state")))
            feeds[name] = value
        else:
            inputs.append("" if kind == "absent" else net.constant(value, f"initial_{state}"))
    if setting.operator == "LSTM":
        inputs.append(net.constant(drawn(directions, 3 * hidden, spread=0.5), "P") if setting.peepholes else "")
    while inputs[-1] == "":
        inputs.pop()
    names = OUTPUTS[setting.operator]
    made = [net.name(name) if name in setting.outputs else "" for name in names]
    while made[-1] == "":
        made.pop()
    attributes = operator_attributes(setting)
    net.nodes.append(helper.make_node(setting.operator, inputs, made, name=net.name("recurrent"), **attributes))
    return {name: value for name, value in zip(names, made, strict=False) if value}


def operator_attributes(setting: Setting) -> dict[str, Any]:
    """The attributes of the node that a setting describes; what is left out is not there."""
    found: dict[str, Any] = {"hidden_size": setting.hidden} if setting.hidden_size else {}
    for key in ("direction", "layout", "clip", "input_forget", "linear_before_reset"):
        if getattr(setting, key) is not None:
            found[key] = getattr(setting, key)
    if setting.activations == "absent":
        return found
    functions = setting.places()
    found["activations"] = [function[0] for function in functions]
    if setting.activations == "written":
        alpha = [float(function[1]) for function in functions if len(function) > 1]
        beta = [float(function[2]) for function in functions if len(function) > 2]
        found |= {"activation_alpha": alpha} if alpha else {}
        found |= {"activation_beta": beta} if beta else {}
    return found


def _shape(setting: Setting, shape: tuple[int, ...], kind: str) -> list[Any]:
    """Declared dimensions: numbers, names for batch (and steps), or nothing at all."""
    time, batch = (1, 0) if setting.layout == 1 else (0, 1)
    free = {"fixed": (), "batch": (batch,), "both": (time, batch), "unknown": range(len(shape))}[setting.dimensions]
    if kind != "x":
        free = [axis for axis in free if axis == batch or setting.dimensions == "unknown"]
    if setting.dimensions == "unknown":
        return [None if axis != len(shape) - 1 or kind != "x" else size for axis, size in enumerate(shape)]
    return [("time" if axis == time and kind == "x" else "batch") if axis in free else size
            for axis, size in enumerate(shape)]  # fmt: skip


def bare(name: str, setting: Setting, seed: int) -> Case:
    """The operator alone, its outputs the graph's."""
    rng = np.random.default_rng([seed, 1])
    scale = 1.0
    while True:
        net, feeds = Net(setting.opset, setting.storage), {}
        size = (setting.batch, setting.steps) if setting.layout == 1 else (setting.steps, setting.batch)
        x = rng.standard_normal((*size, setting.inputs)).astype(np.float32)
        feeds["x"] = x
        net.input("x", x, _shape(setting, x.shape, "x"))
        lengths = ""
        if setting.lengths != "absent":
            values = drawn_lengths(setting, rng)
            if setting.lengths == "input":
                feeds["lengths"] = values
                lengths = net.input("lengths", values, ["batch"] if setting.dimensions != "fixed" else None)
            else:
                lengths = net.constant(values, "lengths")
        made = operator_node(net, setting, "x", feeds, rng, scale, lengths)
        outputs = {net.output(value, output): 4 if output == "Y" else 3 for output, value in made.items()}
        proto = net.proto(outputs, setting.ir_version)
        if well_conditioned(proto, feeds):
            break
        scale *= 0.6
    axes = {"Y": "ntdh", "Y_h": "ndh", "Y_c": "ndh"} if setting.layout == 1 else {
        "Y": "tdnh", "Y_h": "dnh", "Y_c": "dnh"}  # fmt: skip
    return Case(
        name, setting.operator, described(setting), proto, feeds, "ntf" if setting.layout == 1 else "tnf",
        {output: Expected(axes[output], model_reason(setting, output)) for output in made},
        zero="input" in (setting.initial_h, setting.initial_c),
    )  # fmt: skip


def model_reason(setting: Setting, output: str) -> str:
    """Words of which one has to stand in the reason why a Model cannot give this output; empty where it can."""
    reasons = ["cell state"] if output == "Y_c" else []
    if setting.batch > 1 and "rows" in (setting.initial_h, setting.initial_c):
        reasons.append("constant state")
    free = setting.dimensions in ("both", "unknown")
    if (setting.lengths == "constant" and setting.steps > 1) or (setting.lengths in ("constant", "full") and free):
        reasons.append("constant sequence_lens")  # a Model takes lengths with every call
    return "|".join(reasons)


def well_conditioned(proto: ModelProto, feeds: dict[str, np.ndarray]) -> bool:
    """Whether float32's noise stays noise: outputs are finite, of moderate size, and follow the input gently."""
    moved = {k: v * np.float32(1 + 1e-5) if v.dtype == np.float32 else v for k, v in feeds.items()}
    first, second = runtime(proto, feeds), runtime(proto, moved)
    for name, value in first.items():
        if value.dtype.kind != "f":
            continue
        if not np.isfinite(value).all() or np.abs(value).max(initial=0) > 50:
            return False
        if np.abs(value - second[name]).max(initial=0) > 5e-4 * max(1.0, float(np.abs(value).max(initial=0))):
            return False
    return True


def for_runtime(proto: ModelProto) -> ModelProto:
    """The same network as ONNX Runtime takes it: layout 0 between Transposes, hidden_size, an opset that it knows."""
    changed = ModelProto()
    changed.CopyFrom(proto)
    for opset in changed.opset_import:
        if opset.domain == "":
            opset.version = min(opset.version, RUNTIME_OPSET)
    held = {tensor.name: tuple(tensor.dims) for tensor in changed.graph.initializer}
    held |= {node.output[0]: tuple(node.attribute[0].t.dims) for node in proto.graph.node if node.op_type == "Constant"}
    nodes = []
    for k, node in enumerate(changed.graph.node):
        before, after = [], []
        if node.op_type in OPERATORS:
            layout = [a for a in node.attribute if a.name == "layout"]
            if not any(a.name == "hidden_size" for a in node.attribute) and node.input[2] in held:
                node.attribute.append(helper.make_attribute("hidden_size", held[node.input[2]][-1]))
            if layout and layout[0].i == 1:
                layout[0].i = 0
                for place in (0, 5, 6):
                    if place < len(node.input) and node.input[place]:
                        outside, node.input[place] = node.input[place], f"layout_{k}_in_{place}"
                        before.append(helper.make_node("Transpose", [outside], [node.input[place]], perm=[1, 0, 2]))
                for place, perm in enumerate(([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])):
                    if place < len(node.output) and node.output[place]:
                        outside, node.output[place] = node.output[place], f"layout_{k}_out_{place}"
                        after.append(helper.make_node("Transpose", [node.output[place]], [outside], perm=perm))
        nodes += [*before, node, *after]
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def runtime(proto: ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a network in ONNX Runtime, by name.

    Without its extended optimisations, one of which quantizes a MatMul's input where the weights are integers.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    content = for_runtime(proto).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def in_house(value: np.ndarray, axes: str) -> np.ndarray:
    """An output or input of the graph as hwrnn lays it out: sequences, steps, then units (directions beside)."""
    order = [axes.index(axis) for axis in "ntdhf" if axis in axes]
    value = value.transpose(order)
    if "d" in axes:
        value = value.reshape(*value.shape[:-2], -1)
    return value if "n" in axes else value[None]


def operator_cases(each: int = 150) -> Iterator[Callable[[], Case]]:
    """Makers of the cases with one operator alone."""
    for operator in OPERATORS:
        for k, setting in enumerate(settings(operator, each)):
            name = f"{operator.lower()}-{k}"
            yield lambda name=name, setting=setting, k=k: bare(name, setting, k)
