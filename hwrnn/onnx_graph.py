"""Models as ONNX graphs: ONNX's own operators where they can say a layer, else a Scan with the cell's own lines inside.

A reverse layer of the latter kind stands between two ReverseSequence nodes, layers side by side meet in a Concat. How
layers are written is a :class:`Style`, which other forms than hwrnn's own model files exchange.

Inputs are ``x`` float32 (N, T, inputs) and ``lengths`` int64 (N,), any N and T. A float model has the output ``y``
float32; a quantized one ``y`` float64, which equals ``predict``, and ``raw`` int64, which equals ``golden``.
Outputs are (N, outputs), or (N, T, outputs) with ``every_step``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, helper

from hwrnn import __version__
from hwrnn.directions import last_recurrent
from hwrnn.fixed import Format
from hwrnn.model import Layer, Model
from hwrnn.onnx_integer_layers import layer_writer
from hwrnn.onnx_layers import LayerWriter, dense, file_initial, file_parameter, recurrent, value_info
from hwrnn.onnx_numbers import BOOL, DOUBLE, FLOAT, INT64, Graph, Wire
from hwrnn.onnx_standard import standard, unsaid, unsaid_pair
from hwrnn.quantization import QuantizedLayer, QuantizedModel

__all__ = ["Style", "Written", "layer_names", "model_proto", "parameters"]

OPSET = 18  # in every ONNX Runtime since 1.14
IR_VERSION = 8


def layer_names(model: Model | QuantizedModel) -> list[str]:
    """What the layers of the stack are called in a file: ``layer0``, ``layer1``, ..., ``head``."""
    names = [f"layer{k}" for k in range(len(model.layers))]
    return names if model.head is None else [*names, "head"]


def parameters(model: Model | QuantizedModel) -> dict[str, np.ndarray]:
    """Every parameter by its name in the file (``layer0.f.h``, ``layer0.f.b``), in the element type of the file."""
    found = {}
    stack: Sequence[Layer | QuantizedLayer] = model.stack
    for name, layer in zip(layer_names(model), stack, strict=True):
        for phase in layer.cell.phases:
            for gate, reads in phase.gates.items():
                for operand in (*reads, "b"):
                    found[f"{name}.{gate}.{operand}"] = file_parameter(layer, gate, operand)
        for state in layer.initial:
            found[f"{name}.{state}.initial"] = file_initial(layer, state)
    return found


@dataclass(frozen=True)
class Written:
    """A layer as nodes.

    Attributes:
        steps: its output at every step, (N, T, units), or (N, units) of a dense one behind the end.
        final: its output after the last step that it ran, (N, units), where a node gives that.
        zeroed: whether ``steps`` is zero beyond a sequence's length.
    """

    steps: Wire
    final: Wire | None = None
    zeroed: bool = False


class Style:
    """How a model is written; this one for hwrnn's own files.

    Args:
        operators: whether ONNX's recurrent operators are used at all.
    """

    opset = OPSET
    open_ended = False  # whether outputs beyond a sequence's length may be others than golden's, which are zero
    ir_version = IR_VERSION
    doc = "Made by hwrnn: x (N, T, features) float32 and lengths (N,), any N and T."

    def __init__(self, operators: bool = True) -> None:
        self.operators = operators

    def start(self, graph: Graph, model: Model | QuantizedModel, value: Wire) -> Wire:
        """What the first layers read, of standardised inputs."""
        return _quantized(graph, model.input_format, value) if isinstance(model, QuantizedModel) else value

    def group(
        self, graph: Graph, model: Model | QuantizedModel, indices: Sequence[int], value: Wire, lengths: Wire
    ) -> list[Written]:
        """The layers that read one value and stand side by side."""
        layers = [model.layers[k] for k in indices]
        names = [f"layer{k}" for k in indices]
        said = [self.operators and isinstance(one, Layer) and unsaid(one) is None for one in layers]
        if len(layers) == 2 and all(said) and not unsaid_pair(*layers):  # type: ignore[arg-type]
            graph.scope = f"{names[0]}/"
            run = standard(graph, names, layers, value, lengths)  # type: ignore[arg-type]
            final = run.final if model.final_state else None
            return [Written(run.steps, final, True)]
        return [self.layer(graph, model, k, value, lengths, one) for k, one in zip(indices, said, strict=True)]

    def layer(
        self, graph: Graph, model: Model | QuantizedModel, index: int, value: Wire, lengths: Wire, said: bool
    ) -> Written:
        """One of ``layers``, by an operator where it is ``said``."""
        layer, name = model.layers[index], f"layer{index}"
        graph.scope = f"{name}/"
        if not layer.cell.states:
            return Written(self.dense(graph, name, layer, value))
        if said and isinstance(layer, Layer):
            run = standard(graph, [name], [layer], value, lengths)
            return Written(run.steps, None if layer.reverse and not model.final_state else run.final, True)
        value = _turned(graph, value, lengths) if layer.reverse else value
        value = recurrent(self.writer(graph, name, layer), value, self.starting(model, index))
        return Written(_turned(graph, value, lengths) if layer.reverse else value)

    def starting(self, model: Model | QuantizedModel, index: int) -> Layer | QuantizedLayer:
        """The layer that says where the states of one of ``layers`` start."""
        return model.layers[index]

    def writer(self, graph: Graph, name: str, layer: Layer | QuantizedLayer) -> LayerWriter:
        """What writes a layer's own lines."""
        return layer_writer(graph, name, layer)

    def dense(self, graph: Graph, name: str, layer: Layer | QuantizedLayer, value: Wire) -> Wire:
        """A layer without state."""
        return dense(self.writer(graph, name, layer), value)

    def finished(self, graph: Graph, model: Model | QuantizedModel, value: Wire) -> ModelProto:
        """The file, of what the last layer gives."""
        return finished(self, graph, model, value, isinstance(model, QuantizedModel))


def model_proto(model: Model | QuantizedModel, style: Style | None = None) -> ModelProto:
    """The model as an ONNX graph without metadata; equal models give equal bytes.

    Raises:
        UsageError: a nonlinearity or a number of bits that ONNX cannot express.
    """
    style = Style() if style is None else style
    graph = Graph()
    x, lengths = Wire("x", FLOAT), Wire("lengths", INT64)
    mean = graph.initializer("input.mean", model.input_mean)
    scale = graph.initializer("input.scale", model.input_scale)
    graph.scope = "input/"
    value = style.start(graph, model, graph.op("Mul", graph.op("Sub", x, mean), scale, name="input/standardised"))
    taken = last_recurrent(model.layers) or model.groups[-1]
    zeroed = False
    for group in model.groups:
        found = style.group(graph, model, group, value, lengths)
        graph.scope = "end/"
        zeroed = all(one.zeroed for one in found)
        wires = [one.steps for one in found]
        if group == taken and not model.every_step:  # dense layers behind it need no more than that
            single = len(found) == len(group)
            wires = [
                _end(graph, model, k if single else group[0], one, lengths)
                for k, one in zip(group, found, strict=single)
            ]
        value = _side_by_side(graph, wires)
        if group[-1] + 1 == model.encoder:
            graph.scope = "code/"
            value = _repeated(graph, value, lengths)
    graph.scope = "padding/"
    open_ended = model.head is None or isinstance(model, Model) or style.open_ended
    masks = model.every_step and not (zeroed and open_ended)
    running = _running(graph, x, lengths) if masks else None
    value = value if running is None else _masked(graph, running, value)
    if model.head is not None:
        graph.scope = "head/"
        value = style.dense(graph, "head", model.head, value)
        graph.scope = "padding/"
        if running is not None and isinstance(model, QuantizedModel):  # a float head gives its bias there
            value = _masked(graph, running, value)
    return style.finished(graph, model, value)


def _turned(graph: Graph, value: Wire, lengths: Wire) -> Wire:
    """Each sequence from its last step to its first; what is beyond it stays."""
    return graph.op("ReverseSequence", value, lengths, batch_axis=0, time_axis=1)


def _end(graph: Graph, model: Model | QuantizedModel, index: int, written: Written, lengths: Wire) -> Wire:
    """What one output for a sequence comes of, (N, units): a layer's output at the last step, or its own last one."""
    steps = written.steps
    if written.final is not None:
        return written.final
    if model.final_state and model.layers[index].reverse:
        first = graph.op("Gather", steps, graph.constant([0], INT64), axis=1)
        return graph.op("Squeeze", first, graph.constant([1], INT64))
    return _last(graph, steps, lengths)


def _side_by_side(graph: Graph, parts: Sequence[Wire]) -> Wire:
    """Vectors one behind the other, in the widest of their element types."""
    if len(parts) == 1:
        return parts[0]
    kind = DOUBLE if any(part.kind == DOUBLE for part in parts) else FLOAT
    return graph.op("Concat", *(graph.cast(part, kind) for part in parts), axis=-1)


def _quantized(graph: Graph, form: Format, value: Wire) -> Wire:
    """What ``Format.quantize`` does to standardised inputs; their 24 bits and the half fit float64 together."""
    scaled = graph.op("Mul", graph.cast(value, DOUBLE), graph.constant(2.0**form.frac, DOUBLE))
    floor = graph.op("Floor", graph.op("Add", scaled, graph.constant(0.5, DOUBLE)))
    bounds = [graph.constant(bound, DOUBLE) for bound in (form.lo, form.hi)]
    return graph.op("Clip", floor, *bounds, name="x.raw")


def finished(style: Style, graph: Graph, model: Model | QuantizedModel, value: Wire, integers: bool) -> ModelProto:
    """The outputs ``y`` and, of ``integers``, ``raw``, and the file around everything."""
    graph.scope = "output/"
    shape: tuple[str | int, ...] = ("N", "T", model.outputs) if model.every_step else ("N", model.outputs)
    outputs = []
    kind = FLOAT
    if integers and isinstance(model, QuantizedModel):
        raw, kind = graph.op("Cast", value, kind=INT64, to=INT64, name="raw"), DOUBLE
        value = graph.op("Mul", graph.cast(value, DOUBLE), graph.constant(model.output_format.step, DOUBLE))
        outputs.append(value_info(raw, *shape))
    scale, mean = (
        graph.cast(graph.initializer(f"output.{name}", array), kind)
        for name, array in (("scale", model.output_scale), ("mean", model.output_mean))
    )
    y = graph.op("Add", graph.op("Mul", value, scale), mean, name="y")
    outputs.insert(0, value_info(y, *shape))
    inputs = [value_info(Wire("x", FLOAT), "N", "T", model.inputs), value_info(Wire("lengths", INT64), "N")]
    for info in (*inputs, *outputs):
        info.doc_string = _DOCS[info.name]
    nodes = graph.used(outputs)
    proto = helper.make_graph(nodes, "hwrnn", inputs, outputs, graph.initializers, style.doc)
    return helper.make_model(
        proto, producer_name="hwrnn", producer_version=__version__, ir_version=style.ir_version,
        opset_imports=[helper.make_opsetid("", style.opset)],
    )  # fmt: skip


_DOCS = {
    "x": "sequences, padded at their ends to the longest: (batch, steps, features)",
    "lengths": "steps of each sequence, 1 to T",
    "y": "scores or values in the target's units",
    "raw": "the integers behind y, the same bits as the hardware's",
}


def _last(graph: Graph, value: Wire, lengths: Wire) -> Wire:
    """The vector at each sequence's last step, (N, units) of (N, T, units)."""
    last = graph.op("Sub", lengths, graph.constant(1, INT64))
    return graph.op("GatherND", value, graph.op("Unsqueeze", last, graph.constant([1], INT64)), batch_dims=1)


def _repeated(graph: Graph, value: Wire, lengths: Wire) -> Wire:
    """That vector at every step, (N, T, units)."""
    code = graph.op("Unsqueeze", _last(graph, value, lengths), graph.constant([1], INT64))
    return graph.op("Expand", code, graph.op("Shape", value, kind=INT64))


def _running(graph: Graph, x: Wire, lengths: Wire) -> Wire:
    """Whether a step (N, T, 1) lies within its sequence."""
    steps = graph.op("Shape", x, kind=INT64, start=1, end=2)
    zero, one = graph.constant(0, INT64), graph.constant(1, INT64)
    count = graph.op("Range", zero, graph.op("Squeeze", steps), one)
    inside = graph.op("Less", count, graph.op("Unsqueeze", lengths, graph.constant([1], INT64)), kind=BOOL)
    return graph.op("Unsqueeze", inside, graph.constant([2], INT64))


def _masked(graph: Graph, running: Wire, value: Wire) -> Wire:
    return graph.op("Where", running, value, graph.constant(0, value.kind), kind=value.kind)
