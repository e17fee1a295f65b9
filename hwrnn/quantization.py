"""From a float model to the frozen integer one: calibration, the choice of formats, and the weights as integers.

The result, :class:`QuantizedModel`, is the only bridge between training and hardware.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.calibration import Calibration, calibrate, fine_format, format_for
from hwrnn.cells import Cell
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.model import Layer, Model
from hwrnn.trace import trace

__all__ = ["LayerFormats", "QuantizedLayer", "QuantizedModel", "Widths", "choose_formats", "quantize"]

_LARGEST_SHIFT = 6  # of an operand before the multiplier: 8-bit operands then still fit a port of 14 bits


@dataclass(frozen=True)
class Widths:
    """The number of bits of every kind of stored value.

    Attributes:
        weights: of the matrices.
        activations: of the input, the gates and what else enters a multiplier.
        state: of the hidden state.
        cell: of a cell state, which needs integer bits.
        output: of a dense head's scores.
    """

    weights: int
    activations: int
    state: int
    cell: int
    output: int = 16

    @classmethod
    def of(cls, bits: int, **chosen: int | None) -> Widths:
        """All from one number: the cell state gets four bits more; ``chosen`` overrides where not None.

        Raises:
            UsageError: a width outside 2 to 32.
        """
        widths = {"weights": bits, "activations": bits, "state": bits, "cell": bits + 4, "output": max(16, bits)}
        widths.update({name: value for name, value in chosen.items() if value is not None})
        for name, value in {"bits": bits, **widths}.items():
            if not isinstance(value, (int, np.integer)) or not 2 <= value <= 36 or (name == "bits" and value > 32):
                what = "Bits" if name == "bits" else f"Bits of {name}"
                raise UsageError(f"{what} must be a whole number between 2 and 32, not {value!r}")
        return cls(**{name: int(value) for name, value in widths.items()})


@dataclass(frozen=True)
class LayerFormats:
    """Every format of a layer.

    Attributes:
        values: of ``x``, of each stored value by name, and of each pre-activation as ``a.GATE``.
        weights: of each gate's block of each operand, by ``(gate, operand)``.
        bias_frac: fraction bits of each gate's accumulator, at which its bias stands.
        shifts: by how many bits each operand of each phase is shifted left before it enters the multiplier, by
            ``(phase, operand)``, so that the products of all operands of a row meet at one fraction.
    """

    values: Mapping[str, Format]
    weights: Mapping[tuple[str, str], Format]
    bias_frac: Mapping[str, int]
    shifts: Mapping[tuple[int, str], int]


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer in integers.

    Attributes:
        cell: the cell with the nonlinearities that hardware computes.
        inputs, units: sizes.
        weights: int64 arrays (units, size of the operand) by ``(gate, operand)``.
        biases: int64 arrays (units,) by gate, at the accumulator's fraction.
        formats: of every value.
    """

    cell: Cell
    inputs: int
    units: int
    weights: Mapping[tuple[str, str], np.ndarray]
    biases: Mapping[str, np.ndarray]
    formats: LayerFormats

    def size_of(self, operand: str) -> int:
        """The length of an operand vector."""
        return self.inputs if operand == "x" else self.units

    @property
    def output(self) -> Format:
        """The format of the output."""
        return self.formats.values[self.cell.output]

    @property
    def multiplications(self) -> int:
        """Weight multiplications in one time step."""
        return sum(w.size for w in self.weights.values())

    @property
    def weight_bits(self) -> int:
        """Bits of all weights; biases are counted with the memories of an engine."""
        return sum(w.size * self.formats.weights[key].width for key, w in self.weights.items())

    @cached_property
    def accumulators(self) -> Mapping[str, tuple[int, int]]:
        """The interval of each gate's accumulator over all units, from its actual weights and biases.

        Every operand's format holds zero, so each term's interval does, and every partial sum lies inside too:
        an accumulator of this interval cannot overflow.
        """
        bounds = {}
        for k, phase in enumerate(self.cell.phases):
            for gate, reads in phase.gates.items():
                lo, hi = self.biases[gate].astype(object), self.biases[gate].astype(object)
                for operand in reads:
                    form, shift = self.formats.values[operand], self.formats.shifts[k, operand]
                    w = self.weights[gate, operand].astype(object)
                    a, b = w * (form.lo << shift), w * (form.hi << shift)
                    lo = lo + np.minimum(a, b).sum(axis=1)
                    hi = hi + np.maximum(a, b).sum(axis=1)
                bounds[gate] = (int(min(lo.min(), 0)), int(max(hi.max(), 0)))
        return bounds


@dataclass(frozen=True)
class QuantizedModel:
    """An integer network, frozen: golden, hardware and the integer graph all compute its bits.

    Attributes are those of ``hwrnn.model.Model`` with integer layers, and:
        widths: the numbers of bits it was made with.
        saturation: how often calibration data saturated each value, ``"LAYER.NAME"`` to a share of 1.
    """

    layers: tuple[QuantizedLayer, ...]
    head: QuantizedLayer | None
    every_step: bool
    task: str
    input_mean: np.ndarray
    input_scale: np.ndarray
    output_mean: np.ndarray
    output_scale: np.ndarray
    widths: Widths
    facts: dict[str, Any] = field(default_factory=dict)
    saturation: dict[str, float] = field(default_factory=dict)

    @property
    def stack(self) -> tuple[QuantizedLayer, ...]:
        """All layers in order, the head last."""
        return self.layers if self.head is None else (*self.layers, self.head)

    @property
    def inputs(self) -> int:
        """Features of an input vector."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Length of an output vector."""
        return self.stack[-1].units

    @property
    def input_format(self) -> Format:
        """The format of the input port."""
        return self.layers[0].formats.values["x"]

    @property
    def output_format(self) -> Format:
        """The format of the output port."""
        return self.stack[-1].output

    def quantize_input(self, x: np.ndarray) -> np.ndarray:
        """Raw int64 input (N, T, inputs) from float data: standardised in float32, then rounded half up."""
        standard = np.asarray((np.asarray(x, np.float32) - self.input_mean) * self.input_scale, np.float32)
        return self.input_format.quantize(standard)

    def dequantize_output(self, raw: np.ndarray) -> np.ndarray:
        """Scores or values in the target's units from raw outputs (..., outputs)."""
        return self.output_format.dequantize(raw) * self.output_scale + self.output_mean

    def predict(self, x: Any, lengths: Any = None) -> np.ndarray:
        """The golden model's output for float data, shaped as ``Model.predict``'s.

        Raises:
            UsageError: a wrong shape, NaN or infinite values, or lengths outside 1..T.
        """
        from hwrnn.golden import golden
        from hwrnn.model import check_input

        x, lengths = check_input(x, lengths, self.inputs)
        return self.dequantize_output(golden(self, self.quantize_input(x), lengths).output)


def quantize(
    model: Model,
    dataset: Any,
    bits: int = 8,
    *,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    state_bits: int | None = None,
    cell_bits: int | None = None,
    method: str = "mse",
    finetune: int = 0,
    **training: Any,
) -> QuantizedModel:
    """Turn a float model into integers.

    Args:
        dataset: its training part calibrates the ranges.
        bits: of weights, activations and hidden state; the cell state gets four more.
        weight_bits, activation_bits, state_bits, cell_bits: override ``bits`` for one kind of value.
        method: ``mse`` searches the power-of-two range that loses least on the data, ``max`` holds every value seen.
        finetune: epochs of quantization-aware training with the formats frozen; ``training`` goes to it.

    Raises:
        UsageError: a width out of range, an unknown method, or data that do not fit the model.
    """
    widths = Widths.of(
        bits, weights=weight_bits, activations=activation_bits, state=state_bits, cell=cell_bits
    )
    if method not in ("mse", "max"):
        raise UsageError(f"Calibration method must be mse or max, not {method!r}")
    if not isinstance(finetune, int) or finetune < 0:
        raise UsageError(f"Fine-tuning epochs must be a whole number of at least 0, not {finetune!r}")
    if isinstance(model, QuantizedModel):
        raise UsageError("Model must be a float model, not a quantized one")
    seen = calibrate(model, dataset.train)
    formats = choose_formats(model, seen, widths, method)
    if finetune:
        from hwrnn import training as trainer

        model = trainer.finetune(with_hardware_functions(model, formats), dataset, formats, finetune, **training)
    return freeze(model, formats, widths, seen)


def choose_formats(model: Model, seen: Calibration, widths: Widths, method: str = "mse") -> list[LayerFormats]:
    """The formats of every layer of the stack, from the input on."""
    formats: list[LayerFormats] = []
    for index, layer in enumerate(model.stack):
        if index == 0:
            source = format_for(seen[0, "x"], widths.activations, method)
        else:
            source = formats[-1].values[model.stack[index - 1].cell.output]
        values = _value_formats(layer, index, seen, widths, method, source)
        formats.append(_weight_formats(layer, values, widths, index, seen, method))
    return formats


def _value_formats(
    layer: Layer, index: int, seen: Calibration, widths: Widths, method: str, source: Format
) -> dict[str, Format]:
    cell, values = layer.cell, {"x": source}
    lines = trace(cell)
    for name in lines.stores:
        width = widths.activations
        if not cell.states:
            width = widths.output
        elif name == cell.output:
            width = widths.state
        elif name in cell.states:
            width = widths.cell
        values[name] = format_for(seen[index, name], width, method)
    for gate, at in lines.gates.items():
        range_ = seen[index, f"a.{gate}"]
        readers = [lines.operations[k] for k in lines.readers(at)]
        function = readers[0].function if len(readers) == 1 and readers[0].kind == "apply" else None
        if function is not None:
            after = [lines.operations[k] for k in lines.readers(lines.readers(at)[0])]
            if len(after) == 1 and after[0].kind == "store":
                values[f"a.{gate}"] = _before(function, values[after[0].name], range_)
                continue
        if any(op.kind == "mul" for op in readers):
            values[f"a.{gate}"] = format_for(range_, widths.activations + 2, method)
        else:
            values[f"a.{gate}"] = fine_format(range_, max(f.frac for n, f in values.items() if n in lines.stores) + 1)
    return values


def _before(function: Nonlinearity, output: Format, range_: Any) -> Format:
    """The format of a pre-activation that a nonlinearity reads: as wide as it takes to lose next to nothing.

    Its step is at most half the one that moves the output by one step, and it ends where the function is flat or its
    result saturates, or at twice the largest value seen.
    """
    hardware = function.in_hardware(output)
    steepest = max(abs(float(s)) for s in hardware.slopes)
    frac = output.frac + math.ceil(math.log2(steepest)) + 1
    lo, hi = 2 * float(range_.lo), 2 * float(range_.hi)
    flat_lo, flat_hi = hardware.flat_beyond
    ends = {"lo": (hardware.slopes[0], output.min), "hi": (hardware.slopes[-1], output.max)}
    bounds = {}
    for end, (slope, limit) in ends.items():
        intercept = float(hardware.intercepts[0 if end == "lo" else -1])
        bounds[end] = (limit + (-1 if end == "lo" else 1) * output.step - intercept) / float(slope) if slope else None
    lo = max(lo, flat_lo if flat_lo is not None else bounds["lo"])
    hi = min(hi, flat_hi if flat_hi is not None else bounds["hi"])
    return fine_format(replace(range_, lo=min(lo, hi, 0.0), hi=max(lo, hi, 2.0**-frac)), frac, margin=1.0)


def _weight_formats(
    layer: Layer, values: Mapping[str, Format], widths: Widths, index: int, seen: Calibration, method: str
) -> LayerFormats:
    weights: dict[tuple[str, str], Format] = {}
    bias_frac: dict[str, int] = {}
    shifts: dict[tuple[int, str], int] = {}
    for k, phase in enumerate(layer.cell.phases):
        finest = {
            (gate, operand): _weight_frac(layer.block(gate, operand), widths.weights, method)
            for gate, reads in phase.gates.items() for operand in reads
        }  # fmt: skip
        best: tuple[float, int, tuple[int, ...], dict[str, int]] | None = None
        for shift in product(range(_LARGEST_SHIFT + 1), repeat=len(phase.operands)):
            if min(shift):
                continue  # a shift that all operands share changes nothing
            point = {o: values[o].frac + s for o, s in zip(phase.operands, shift, strict=True)}
            meet = {g: min(finest[g, o] + point[o] for o in reads) for g, reads in phase.gates.items()}
            loss = 0.0
            for gate, reads in phase.gates.items():
                for operand in reads:
                    w = layer.block(gate, operand)
                    form = Format(widths.weights, meet[gate] - point[operand])
                    error = form.dequantize(form.quantize(w)) - w
                    loss += float((error * error).sum()) * seen.power(index, operand)
            if best is None or (loss, sum(shift)) < best[:2]:
                best = (loss, sum(shift), shift, meet)
        assert best is not None  # the shift of all zeros always stands
        for operand, amount in zip(phase.operands, best[2], strict=True):
            shifts[k, operand] = amount
        for gate, reads in phase.gates.items():
            bias_frac[gate] = best[3][gate]
            for operand in reads:
                frac = best[3][gate] - values[operand].frac - shifts[k, operand]
                weights[gate, operand] = Format(widths.weights, frac)
    return LayerFormats(dict(values), weights, bias_frac, shifts)


def _weight_frac(w: np.ndarray, width: int, method: str) -> int:
    """The fraction bits that lose least on a block of weights."""
    holds = Format.to_hold(-float(np.abs(w).max()) or -1.0, 0.0, width)
    if method == "max":
        return holds.frac
    choices = [Format(width, holds.frac + k) for k in range(3)]
    return min(choices, key=lambda f: float(np.square(f.dequantize(f.quantize(w)) - w).sum())).frac


def with_hardware_functions(model: Model, formats: Sequence[LayerFormats]) -> Model:
    """The model with the nonlinearities that hardware will compute."""
    stack = [replace(la, cell=hardware_cell(la.cell, f)) for la, f in zip(model.stack, formats, strict=True)]
    n = len(model.layers)
    return replace(model, layers=tuple(stack[:n]), head=None if model.head is None else stack[n])


def hardware_cell(cell: Cell, formats: LayerFormats) -> Cell:
    """The cell with its nonlinearities as shifts and adds, each fitted at the finest format that stores its result."""
    lines, finest = trace(cell), {}
    for name, at in lines.stores.items():
        for k in lines.operations[at].args:
            function = lines.operations[k].function
            if function is not None:
                known = finest.get(function.name)
                if known is None or formats.values[name].frac > known.frac:
                    finest[function.name] = formats.values[name]

    def made(function: Nonlinearity) -> PiecewiseLinear:
        return function.in_hardware(finest.get(function.name, Format(8, 7)))

    return replace(cell, sigma=made(cell.sigma), phi=made(cell.phi))


def freeze(
    model: Model, formats: Sequence[LayerFormats], widths: Widths, seen: Calibration | None = None
) -> QuantizedModel:
    """Round a model's parameters to its formats."""
    stack = []
    for layer, f in zip(model.stack, formats, strict=True):
        weights = {key: form.quantize(layer.block(*key)) for key, form in f.weights.items()}
        biases = {
            gate: np.floor(layer.block(gate, "b").astype(np.float64) * 2.0**frac + 0.5).astype(np.int64)
            for gate, frac in f.bias_frac.items()
        }
        stack.append(QuantizedLayer(hardware_cell(layer.cell, f), layer.inputs, layer.units, weights, biases, f))
    n = len(model.layers)
    quantized = QuantizedModel(
        tuple(stack[:n]), stack[n] if model.head is not None else None, model.every_step, model.task,
        model.input_mean, model.input_scale, model.output_mean, model.output_scale, widths, dict(model.facts),
    )  # fmt: skip
    if seen is None:
        return quantized
    from hwrnn.golden import golden

    result = golden(quantized, quantized.quantize_input(seen.x), seen.lengths)
    return replace(quantized, saturation=result.saturation)
