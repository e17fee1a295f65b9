"""Models as ONNX graphs: one Scan for each recurrent layer, with the cell's own lines inside.

A reverse layer stands between two ReverseSequence nodes, layers side by side meet in a Concat.

Inputs are ``x`` float32 (N, T, inputs) and ``lengths`` int64 (N,), any N and T. A float model has the output ``y``
float32; a quantized one ``y`` float64, which equals ``predict``, and ``raw`` int64, which equals ``golden``.
Outputs are (N, outputs), or (N, T, outputs) with ``every_step``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, helper

from hwrnn import __version__
from hwrnn.directions import last_recurrent
from hwrnn.fixed import Format
from hwrnn.model import Layer, Model
from hwrnn.onnx_integer_layers import layer_writer
from hwrnn.onnx_layers import dense, file_initial, file_parameter, recurrent, value_info
from hwrnn.onnx_numbers import BOOL, DOUBLE, FLOAT, INT64, Graph, Wire
from hwrnn.quantization import QuantizedLayer, QuantizedModel

__all__ = ["layer_names", "model_proto", "parameters"]

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


def model_proto(model: Model | QuantizedModel) -> ModelProto:
    """The model as an ONNX graph without metadata; equal models give equal bytes.

    Raises:
        UsageError: a nonlinearity or a number of bits that ONNX cannot express.
    """
    graph = Graph()
    x, lengths = Wire("x", FLOAT), Wire("lengths", INT64)
    mean = graph.initializer("input.mean", model.input_mean)
    scale = graph.initializer("input.scale", model.input_scale)
    value = graph.op("Mul", graph.op("Sub", x, mean), scale)
    if isinstance(model, QuantizedModel):
        value = _quantized(graph, model.input_format, value)
    taken = last_recurrent(model.layers) or model.groups[-1]
    for group in model.groups:
        found = [_layer(graph, model, k, value, lengths) for k in group]
        graph.scope = ""
        if group == taken and not model.every_step:  # dense layers behind it need no more than that
            found = [_end(graph, model, k, steps, lengths) for k, steps in zip(group, found, strict=True)]
        value = _side_by_side(graph, found)
        if group[-1] + 1 == model.encoder:
            graph.scope = "code/"
            value = _repeated(graph, value, lengths)
    graph.scope = ""
    running = _running(graph, x, lengths) if model.every_step else None
    value = value if running is None else _masked(graph, running, value)
    if model.head is not None:
        graph.scope = "head/"
        value = dense(layer_writer(graph, "head", model.head), value)
        graph.scope = ""
        if running is not None and isinstance(model, QuantizedModel):  # a float head gives its bias there
            value = _masked(graph, running, value)
    return _finished(graph, model, value)


def _layer(graph: Graph, model: Model | QuantizedModel, index: int, value: Wire, lengths: Wire) -> Wire:
    """One of ``layers``: its output at every step, (N, T, units), or (N, units) of a dense one behind the end."""
    layer, name = model.layers[index], layer_names(model)[index]
    graph.scope = f"{name}/"
    if not layer.cell.states:
        return dense(layer_writer(graph, name, layer), value)
    value = _turned(graph, value, lengths) if layer.reverse else value
    value = recurrent(layer_writer(graph, name, layer), value, layer)
    return _turned(graph, value, lengths) if layer.reverse else value


def _turned(graph: Graph, value: Wire, lengths: Wire) -> Wire:
    """Each sequence from its last step to its first; what is beyond it stays."""
    return graph.op("ReverseSequence", value, lengths, batch_axis=0, time_axis=1)


def _end(graph: Graph, model: Model | QuantizedModel, index: int, steps: Wire, lengths: Wire) -> Wire:
    """What one output for a sequence comes of, (N, units): a layer's output at the last step, or its own last one."""
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


def _finished(graph: Graph, model: Model | QuantizedModel, value: Wire) -> ModelProto:
    shape: tuple[str | int, ...] = ("N", "T", model.outputs) if model.every_step else ("N", model.outputs)
    outputs = []
    kind = FLOAT
    if isinstance(model, QuantizedModel):
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
    proto = helper.make_graph(graph.nodes, "hwrnn", inputs, outputs, graph.initializers)
    return helper.make_model(
        proto, producer_name="hwrnn", producer_version=__version__, ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )  # fmt: skip


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
