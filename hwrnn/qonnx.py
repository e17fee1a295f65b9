"""Quantized models as other tools' quantized graphs: QONNX, whose Quant nodes round in floating point, and QDQ.

QONNX (A. Pappalardo et al., arXiv:2206.07527) knows any number of bits and rounds as told. Half a step before a Quant
that rounds down is hwrnn's rounding, half up; so with a Quant behind every stored value of every cell, in a Scan, the
graph computes golden's bits, as long as float32 holds the sums. The file defines Quant as a function of its own too, so
ONNX Runtime runs it.

QDQ, ONNX's own QuantizeLinear and DequantizeLinear, rounds half to even. Where a standard operator says a layer, its
weights, its input and its output are quantized and what lies between is not; other layers are a Scan with a pair
behind every stored value of at most 8 bits. (16 bits need operator set 21, in which ONNX Runtime 1.31 refuses int8
pairs around a Transpose.) Neither can carry golden's bits: :func:`difference` says how far they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper

from hwrnn.activations import Nonlinearity, nonlinearity
from hwrnn.cells import Phase, Values
from hwrnn.errors import UsageError, require
from hwrnn.exactness import Extent
from hwrnn.fitting import Fitted
from hwrnn.fixed import Format, bits_for
from hwrnn.golden import golden
from hwrnn.model import Layer, Model
from hwrnn.onnx_graph import Style, Written, finished, model_proto
from hwrnn.onnx_integers import EXACT_SINGLE
from hwrnn.onnx_layers import FloatWriter, LayerWriter, dense
from hwrnn.onnx_numbers import FLOAT, FloatNode, Graph, Wire
from hwrnn.onnx_standard import activation_of, standard, unsaid, unsaid_pair
from hwrnn.quantization import QuantizedLayer, QuantizedModel
from hwrnn.staircase import Staircase

__all__ = ["FORMS", "Difference", "difference", "exact", "quantized_proto"]

DOMAIN = "qonnx.custom_op.general"
_MOST_PAIR = 8


class Quants:
    """QONNX's Quant. ``exact``: half a step and rounding down, as hwrnn rounds; else half to even, as most tools do."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact

    def constant(self, graph: Graph, name: str, raw: np.ndarray, form: Format) -> Wire:
        """Constants in a format."""
        return self._quant(graph, graph.initializer(name, form.dequantize(raw).astype(np.float32)), form, "ROUND")

    def value(self, graph: Graph, wire: Wire, form: Format, name: str = "") -> Wire:
        """A computed value that stands on a grid at most half as fine as float32's, rounded to a format."""
        if self.exact:
            wire = graph.op("Add", wire, graph.constant(form.step / 2, FLOAT))
        return self._quant(graph, wire, form, "FLOOR" if self.exact else "ROUND", name)

    def anything(self, graph: Graph, wire: Wire, form: Format, name: str = "") -> Wire:
        """Any value rounded to a format: to half steps first, so that adding half a step cannot round."""
        if self.exact:
            wire = self._quant(graph, wire, Format(form.width + 1, form.frac + 1, form.signed), "FLOOR")
        return self.value(graph, wire, form, name)

    def _quant(self, graph: Graph, wire: Wire, form: Format, mode: str, name: str = "") -> Wire:
        numbers = (graph.constant(float(v), FLOAT) for v in (form.step, 0, form.width))
        return graph.op(
            "Quant", wire, *numbers, name=name, domain=DOMAIN, signed=int(form.signed), narrow=0, rounding_mode=mode
        )  # fmt: skip


class Pairs:
    """ONNX's QuantizeLinear and DequantizeLinear, which round half to even."""

    exact = False

    def constant(self, graph: Graph, name: str, raw: np.ndarray, form: Format) -> Wire:
        """Constants in a format: integers as narrow as they may be."""
        kind = next((k for width, k in _CONSTANTS if form.width <= width), None)
        if kind is None:
            raise UsageError(
                f"Weights and biases must have at most 32 bits for the form qdq, not {form.width}: use fewer bits"
            )
        graph.initializers.append(helper.make_tensor(name, kind, raw.shape, raw.reshape(-1).tolist()))
        return graph.op("DequantizeLinear", Wire(name, kind), graph.constant(form.step, FLOAT), kind=FLOAT)

    def value(self, graph: Graph, wire: Wire, form: Format, name: str = "") -> Wire:
        """A computed value rounded to a format; a clip makes up for bits that no integer type has.

        Values of more than 8 bits stay as they are, since no quantizer of operator set 18 has as many.
        """
        if form.width > _MOST_PAIR:
            return graph.named(wire, name) if name else wire
        if form.width != _MOST_PAIR:
            wire = graph.op("Clip", wire, graph.constant(form.min, FLOAT), graph.constant(form.max, FLOAT))
        # ONNX Runtime fuses pairs, and must see that scale and zero point are scalars; outside a Scan it does not look.
        zero = graph.own_constant(0, TensorProto.INT8 if form.signed else TensorProto.UINT8)
        step = graph.own_constant(form.step, FLOAT)
        whole = graph.op("QuantizeLinear", wire, step, zero, kind=zero.kind)
        return graph.op("DequantizeLinear", whole, step, zero, kind=FLOAT, name=name)

    anything = value


_CONSTANTS = ((8, TensorProto.INT8), (32, TensorProto.INT32))


class QuantWriter(FloatWriter):
    """A quantized layer in floating point, with a quantizer behind every value that it stores."""

    def __init__(self, graph: Graph, name: str, layer: QuantizedLayer, quantizer: Quants | Pairs) -> None:
        self.quantizer, self.formats = quantizer, layer.formats
        LayerWriter.__init__(self, graph, name, layer, FLOAT, FLOAT)

    def block(self, layer: Layer | QuantizedLayer, gate: str, operand: str) -> Wire:
        assert isinstance(layer, QuantizedLayer)
        return _block(self.graph, self.quantizer, self.name, layer, gate, operand)

    def gate(self, name: str, total: Wire) -> FloatNode:
        return self.store(f"a.{name}", FloatNode(self.graph, total))

    def store(self, name: str, value: FloatNode) -> FloatNode:
        form = self.formats.values[name]
        return FloatNode(self.graph, self.quantizer.value(self.graph, value.wire, form, f"{self.name}.{name}"))


def _block(
    graph: Graph, quantizer: Quants | Pairs, name: str, layer: QuantizedLayer, gate: str, operand: str
) -> Wire:
    label = f"{name}.{gate}.{operand}"
    if operand != "b":
        return quantizer.constant(graph, label, layer.weights[gate, operand], layer.formats.weights[gate, operand])
    raw = layer.biases[gate]
    width, _ = bits_for(min(int(raw.min()), -1), int(raw.max()))
    return quantizer.constant(graph, label, raw, Format(max(width, 2), layer.formats.bias_frac[gate]))


class QuantStyle(Style):
    """A quantized model in floating point.

    Args:
        operators: whether standard operators say what they can, with quantizers around them alone.
    """

    open_ended = True

    def __init__(self, model: QuantizedModel, quantizer: Quants | Pairs, operators: bool) -> None:
        super().__init__(operators)
        self.quantizer, self.model, self.floats = quantizer, model, _smoothed(model.in_float())
        bits = "computes the bits of hwrnn's integers" if quantizer.exact else "comes near hwrnn's integers"
        self.doc = f"Made by hwrnn from a quantized model: in floating point, and {bits}."

    def start(self, graph: Graph, model: Any, value: Wire) -> Wire:
        return self.quantizer.anything(graph, value, self.model.input_format, "x.quantized")

    def group(self, graph: Graph, model: Any, indices: Sequence[int], value: Wire, lengths: Wire) -> list[Written]:
        layers = [self.floats.layers[k] for k in indices]
        said = [self.operators and unsaid(one) is None for one in layers]
        if len(layers) == 2 and all(said) and not unsaid_pair(*layers):
            return [self._around(graph, indices, value, lengths)]
        return [
            self._around(graph, [k], value, lengths) if one else self.layer(graph, model, k, value, lengths, False)
            for k, one in zip(indices, said, strict=True)
        ]

    def _around(self, graph: Graph, indices: Sequence[int], value: Wire, lengths: Wire) -> Written:
        """Layers as one standard operator whose weights and outputs are quantized."""
        names = [f"layer{k}" for k in indices]
        graph.scope = f"{names[0]}/"
        layers = [self.floats.layers[k] for k in indices]
        given = dict(zip(names, (self.model.layers[k] for k in indices), strict=True))

        def block(name: str, gate: str, operand: str) -> Wire:
            return _block(graph, self.quantizer, name, given[name], gate, operand)

        run = standard(graph, names, layers, value, lengths, block)
        form = self.model.layers[indices[0]].output
        steps, final = (self.quantizer.anything(graph, wire, form) for wire in (run.steps, run.final))
        own = len(layers) == 1 and not layers[0].reverse
        return Written(steps, final if own or self.model.final_state else None, True)

    def starting(self, model: Any, index: int) -> Layer:
        return self.floats.layers[index]

    def dense(self, graph: Graph, name: str, layer: Any, value: Wire) -> Wire:
        return dense(QuantWriter(graph, name, layer, self.quantizer), value)

    def writer(self, graph: Graph, name: str, layer: Any) -> LayerWriter:
        return QuantWriter(graph, name, layer, self.quantizer)

    def finished(self, graph: Graph, model: Any, value: Wire) -> ModelProto:
        proto = finished(self, graph, model, value, False)
        proto.producer_name = "hwrnn export"  # it is none of hwrnn's own model files
        if isinstance(self.quantizer, Quants):
            proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
            proto.functions.append(_quant_function(self.opset, self.quantizer.exact))
        return proto


def _smoothed(model: Model) -> Model:
    """The model with the smooth functions that standard operators know in the place of hardware's fits of them."""

    def smooth(function: Nonlinearity) -> Nonlinearity:
        fits = isinstance(function, Fitted | Staircase) and activation_of(function) is None
        name = (function.fits if isinstance(function, Fitted) else "") or function.stands_for
        return nonlinearity(name) if fits and name else function

    def changed(layer: Layer) -> Layer:
        functions: dict[str, Any] = {role: smooth(f) for role, f in layer.cell.functions.items()}
        return replace(layer, cell=replace(layer.cell, **functions))

    return replace(model, layers=tuple(changed(layer) for layer in model.layers))


def _quant_function(opset: int, exact: bool) -> Any:
    """Quant by ONNX's operators, for runtimes that do not know it; it rounds down, or half to even."""
    make = helper.make_node

    def attribute(name: str, reads: str) -> Any:
        node = make("Constant", [], [name])
        told = node.attribute.add()
        told.name, told.ref_attr_name, told.type = "value_int", reads, AttributeProto.INT
        return node

    nodes = [
        attribute("signed_int", "signed"), attribute("narrow_int", "narrow"),
        make("CastLike", ["signed_int", "scale"], ["sign"]), make("CastLike", ["narrow_int", "scale"], ["less"]),
        make("Constant", [], ["two"], value_float=2.0), make("Constant", [], ["one"], value_float=1.0),
        make("Sub", ["bitwidth", "sign"], ["magnitude_bits"]), make("Pow", ["two", "magnitude_bits"], ["magnitude"]),
        make("Mul", ["sign", "magnitude"], ["below"]), make("Neg", ["below"], ["lowest"]),
        make("Mul", ["sign", "less"], ["narrow_below"]), make("Add", ["lowest", "narrow_below"], ["low"]),
        make("Sub", ["less", "narrow_below"], ["narrow_above"]), make("Add", ["one", "narrow_above"], ["spare"]),
        make("Sub", ["magnitude", "spare"], ["high"]),
        make("Div", ["x", "scale"], ["ratio"]), make("Add", ["ratio", "zero"], ["shifted"]),
        make("Max", ["shifted", "low"], ["raised"]), make("Min", ["raised", "high"], ["bounded"]),
        make("Floor" if exact else "Round", ["bounded"], ["whole"]),
        make("Sub", ["whole", "zero"], ["centred"]), make("Mul", ["centred", "scale"], ["y"]),
    ]  # fmt: skip
    return helper.make_function(
        DOMAIN, "Quant", ["x", "scale", "zero", "bitwidth"], ["y"], nodes, [helper.make_opsetid("", opset)],
        ["signed", "narrow", "rounding_mode"],
    )  # fmt: skip


#: The forms that a quantized model can be written in besides hwrnn's own, and what to say of each.
FORMS = {
    "qonnx": "QONNX: a Quant node behind every stored value",
    "qonnx-standard": "QONNX: Quant nodes around standard operators where they say a layer",
    "qdq": "QuantizeLinear and DequantizeLinear around standard operators where they say a layer",
}


def quantized_proto(model: QuantizedModel, form: str) -> ModelProto:
    """A quantized model in one of :data:`FORMS`.

    Raises:
        UsageError: a model that is not quantized, an unknown form, or bits that the form does not have.
    """
    if not isinstance(model, QuantizedModel):
        raise UsageError(f"Model must be quantized for the form {form}, not a float one: run hwrnn quantize first")
    if form not in FORMS:
        raise UsageError(f"Form must be one of {', '.join(FORMS)}, not {form!r}")
    quantizer: Quants | Pairs = Pairs() if form == "qdq" else Quants(exact=form == "qonnx")
    return model_proto(model, QuantStyle(model, quantizer, form != "qonnx"))


def exact(model: QuantizedModel) -> bool:
    """Whether float32 holds every number of a model, so that the form ``qonnx`` computes golden's bits."""
    return all(_reach(layer) < EXACT_SINGLE for layer in model.stack)


def _reach(layer: QuantizedLayer) -> int:
    """The largest whole number that a layer's lines need."""
    sums = (
        max(-lo, hi) + int(np.abs(layer.biases[gate]).max()) for gate, (lo, hi) in layer.accumulators.items()
    )
    largest, formats = [max(sums)], layer.formats

    def product(phase: Phase, s: Values) -> dict[str, Any]:
        return {
            gate: store(f"a.{gate}", Extent(largest, formats.bias_frac[gate], *layer.accumulators[gate]))
            for gate in phase.gates
        }

    def store(name: str, value: Any) -> Any:
        return value.to(formats.values[name])

    olds = {
        name: Extent(largest, form.frac, form.lo, form.hi)
        for name, form in formats.values.items() if name in layer.cell.states
    }  # fmt: skip
    layer.cell.run(product, Values(olds, store))
    return largest[0]


@dataclass(frozen=True)
class Difference:
    """How far outputs are from golden's, in least significant bits of the output.

    Attributes:
        largest, mean: of the absolute differences.
        share: of the outputs that differ.
        outputs: how many were compared.
    """

    largest: float
    mean: float
    share: float
    outputs: int


def difference(model: QuantizedModel, proto: ModelProto, x: np.ndarray, lengths: np.ndarray) -> Difference:
    """Run a form in ONNX Runtime and golden on the same inputs (N, T, inputs) and lengths (N,).

    Raises:
        MissingExtra: without ONNX Runtime.
    """
    runtime = require("onnxruntime", "runtime")
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": np.asarray(x, np.float32), "lengths": np.asarray(lengths, np.int64)})
    raw = golden(model, model.quantize_input(x), lengths).output
    scale = model.output_scale.astype(np.float64)
    steps = (found.astype(np.float64) - model.output_mean) / np.where(scale == 0, 1, scale) / model.output_format.step
    if model.every_step:
        inside = np.arange(x.shape[1]) < np.asarray(lengths)[:, None]
        steps, raw = steps[inside], raw[inside]
    off = np.abs(steps - raw)
    off = np.where(off < 2.0**-7, 0, off)  # what float32 loses of y itself
    return Difference(float(off.max()), float(off.mean()), float((off > 0).mean()), int(off.size))
