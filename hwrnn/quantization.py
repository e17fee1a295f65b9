"""From a float model to the frozen integer one.

The result, :class:`QuantizedModel`, is the only bridge between training and hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from hwrnn.calibration import Calibration, calibrate, warn_of_ranges
from hwrnn.cells import Cell
from hwrnn.checks import as_integer
from hwrnn.directions import checked_initial
from hwrnn.errors import UsageError
from hwrnn.fixed import Format, round_half_up
from hwrnn.formats import PORT, LayerFormats, Widths, choose_formats
from hwrnn.model import Layer, Model, Stack, check_input, standardised
from hwrnn.swapping import hardware_cell, measured_swap, warn_of, with_hardware_functions

__all__ = [
    "METHODS",
    "LayerFormats",
    "QuantizedLayer",
    "QuantizedModel",
    "Widths",
    "calibrated_formats",
    "choose_formats",
    "freeze",
    "hardware_cell",
    "quantize",
    "with_hardware_functions",
]

#: How ranges are chosen; the first where nothing is said.
METHODS = ("loss", "mse", "max")
_BIAS = 2.0**61  # the largest bias in size; with formats chosen for it, none is larger


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A layer in integers.

    Attributes:
        cell: the cell with the nonlinearities that hardware computes.
        inputs, units: sizes.
        weights: int64 arrays (units, size of the operand) by ``(gate, operand)``.
        biases: int64 arrays (units,) by gate, at the accumulator's fraction.
        formats: of every value.
        initial: raw int64 (units,) by state, in its format: where a sequence starts; a state not named starts at zero.
        reverse, beside: as in ``hwrnn.model.Layer``.
    """

    cell: Cell
    inputs: int
    units: int
    weights: Mapping[tuple[str, str], np.ndarray]
    biases: Mapping[str, np.ndarray]
    formats: LayerFormats
    initial: Mapping[str, np.ndarray] = field(default_factory=dict, kw_only=True)
    reverse: bool = field(default=False, kw_only=True)
    beside: bool = field(default=False, kw_only=True)

    def size_of(self, operand: str) -> int:
        """The length of an operand vector."""
        return self.inputs if operand == "x" else self.units

    def start(self, state: str) -> np.ndarray:
        """Where a state starts, raw int64 (units,)."""
        return np.asarray(self.initial.get(state, np.zeros(self.units)), np.int64)

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

        Every operand's format holds zero, so each term's interval does, and every partial sum that starts
        at the bias lies inside too: an accumulator of this interval cannot overflow.
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


@dataclass(frozen=True, eq=False)
class QuantizedModel(Stack[QuantizedLayer]):
    """An integer network, frozen: golden, hardware and the integer graph all compute its bits.

    Attributes are those of ``hwrnn.model.Model`` with integer layers, and:
        widths: the numbers of bits it was made with.
        facts: what is known of the training, as plain JSON values.
        saturation: how often calibration data saturated each value, ``"LAYER.NAME"`` to a share of 1.
    """

    widths: Widths
    facts: dict[str, Any] = field(default_factory=dict)
    saturation: dict[str, float] = field(default_factory=dict)

    @property
    def input_format(self) -> Format:
        """The format of the input port."""
        return self.layers[0].formats.values["x"]

    @property
    def output_format(self) -> Format:
        """The format of the output port."""
        return self.stack[-1].output  # of layers side by side that of all

    @property
    def saturated(self) -> dict[str, tuple[int, int]]:
        """How many of how many values calibration data saturated, by the names of ``saturation``.

        Empty where the file does not tell how many there were, as those of hwrnn 0.1 do not.
        """
        seen = self.facts.get("calibration")
        told = [seen.get(key) for key in ("sequences", "steps")] if isinstance(seen, dict) else []
        counts = [n for n in told if isinstance(n, int) and n >= 0]
        if len(counts) < 2:
            return {}
        found = {}
        for name, share in self.saturation.items():
            k, _, value = name.partition(".")
            if k.isdecimal() and int(k) < len(self.stack) and value:
                last_only = int(k) == len(self.layers) and not self.every_step
                stored = counts[0 if last_only else 1] * self.stack[int(k)].units
                found[name] = (round(share * stored), stored)
        return found

    def quantize_input(self, x: np.ndarray) -> np.ndarray:
        """Raw int64 input (N, T, inputs) from float data: standardised in float32, then rounded half up."""
        return self.input_format.quantize(standardised(x, self.input_mean, self.input_scale))

    def dequantize_output(self, raw: np.ndarray) -> np.ndarray:
        """Scores or values in the target's units from raw outputs (..., outputs)."""
        return self.output_format.dequantize(raw) * self.output_scale + self.output_mean

    def in_float(self) -> Model:
        """The network of the integer weights in float arithmetic: what it computes if no value were ever rounded."""
        stack = []
        for layer in self.stack:
            f, parameters = layer.formats, {}
            for k, phase in enumerate(layer.cell.phases):
                for operand in phase.operands:
                    blocks = [f.weights[g, operand].dequantize(layer.weights[g, operand]) for g in phase.rows(operand)]
                    parameters[f"{k}.{operand}"] = np.concatenate(blocks).astype(np.float32)
                biases = [layer.biases[gate] * 2.0 ** -f.bias_frac[gate] for gate in phase.gates]
                parameters[f"{k}.b"] = np.concatenate(biases).astype(np.float32)
            made = Layer(layer.cell, layer.inputs, layer.units, parameters, reverse=layer.reverse, beside=layer.beside)
            initial = {s: f.values[s].dequantize(raw).astype(np.float32) for s, raw in layer.initial.items()}
            stack.append(replace(made, initial=initial))
        n = len(self.layers)
        return Model(
            tuple(stack[:n]), stack[n] if self.head is not None else None, self.every_step, self.task,
            self.input_mean, self.input_scale, self.output_mean, self.output_scale, dict(self.facts),
            encoder=self.encoder, final_state=self.final_state,
        )  # fmt: skip

    def predict(
        self, x: Any, lengths: Any = None, initial: Mapping[int, Mapping[str, Any]] | None = None
    ) -> np.ndarray:
        """The golden model's output for float data, shaped as ``Model.predict``'s; ``initial`` is rounded to formats.

        Raises:
            UsageError: a wrong shape, NaN or infinite values, or lengths outside 1..T.
        """
        from hwrnn.golden import golden

        x, lengths = check_input(x, lengths, self.inputs)
        given = {
            k: {name: self.layers[k].formats.values[name].quantize(vector) for name, vector in states.items()}
            for k, states in checked_initial(self.layers, initial, len(x)).items()
        }
        return self.dequantize_output(golden(self, self.quantize_input(x), lengths, initial=given).output)


def quantize(
    model: Model | QuantizedModel,
    dataset: Any,
    bits: int | None = None,
    *,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    state_bits: int | None = None,
    cell_bits: int | None = None,
    method: str | None = None,
    operand_bits: int | None = None,
    within: float | None = None,
    finetune: int = 0,
    search_every: int = 0,
    formats_of: QuantizedModel | None = None,
    prove_states: bool = False,
    descent: Callable[[Any], None] | None = None,
    **training: Any,
) -> QuantizedModel:
    """Turn a float model into integers.

    Args:
        dataset: its training part calibrates the ranges.
        bits: of weights, activations and hidden state, 8 where None; the cell state gets four more. A network imported
            from a quantized graph keeps the formats of its file where no bits are given.
        weight_bits, activation_bits, state_bits, cell_bits: override ``bits`` for one kind of value.
        method: how ranges are chosen. ``loss`` (where None): those that lose least of the task's loss on the data
            (``hwrnn.search``); ``mse``: of each value's own error; ``max``: those that hold every value seen.
        operand_bits: what no operand of a multiplier may exceed by being shifted to where products meet, 16 where
            None. With that of the activations none is shifted, so that two products share a multiplier on more parts.
        within: points of the metric that fewer bits may cost; finds the bits of every tensor, from those given down
            (``hwrnn.mixed``). The path to them stands in ``facts["mixed"]`` of the result.
        finetune: epochs of quantization-aware training (``hwrnn.training.finetune``); ``training`` goes to it.
        search_every: epochs after which that training looks for formats anew; 0 keeps them frozen.
        descent: called with every step (``hwrnn.mixed.Step``) of the way to fewer bits.
        formats_of: a quantized model of the same cells and sizes that lends its formats, so that the same gates
            compute both; weights and initial states that its formats do not hold saturate, and
            ``facts["saturated_weights"]`` of the result is their number. The widths and the method are its own then.
        prove_states: make states as wide as it takes that none can saturate on any input of any length: their fractions
            come from the data, their integer bits from a proof (``hwrnn.stability``).

    Raises:
        UsageError: a width out of range, an unknown method, options of training without epochs of it, a model
            that is quantized already or differs from ``formats_of``, data that do not fit the model, or a state to be
            proved that has no bound.
    """
    chosen = {"weights": weight_bits, "activations": activation_bits, "state": state_bits, "cell": cell_bits}
    if formats_of is not None and any(v is not None for v in (bits, method, operand_bits, *chosen.values())):
        raise UsageError("Bits and method must be left out where another model gives the formats")
    widths = Widths.of(8 if bits is None else bits, **chosen) if formats_of is None else formats_of.widths
    method = METHODS[0] if method is None else method
    port = PORT
    if operand_bits is not None:
        port = as_integer("Operand bits", operand_bits, max(widths.activations, widths.state))
    if method not in METHODS:
        raise UsageError(f"Calibration method must be loss, mse or max, not {method!r}")
    if not isinstance(finetune, (int, np.integer)) or finetune < 0:
        raise UsageError(f"Fine-tuning epochs must be a whole number of at least 0, not {finetune!r}")
    if training and not finetune:
        names = ", ".join(training)
        raise UsageError(f"Options of training must come with fine-tuning epochs, not without: {names}")
    if within is not None and (formats_of is not None or method != METHODS[0]):
        raise UsageError("Points to stay within must come with the search by loss, and not with another's formats")
    if prove_states and formats_of is not None:
        raise UsageError("Proved states must be left out where another model gives the formats")
    if search_every and (formats_of is not None or not finetune):
        raise UsageError("Epochs between searches must come with fine-tuning epochs, and not with another's formats")
    from hwrnn.likeness import formats_for, saturated

    if isinstance(model, QuantizedModel):
        raise UsageError("Model must be a float model, not a quantized one")
    if within is not None or any(v is not None for v in (bits, *chosen.values())):
        model = replace(model, facts={name: fact for name, fact in model.facts.items() if name != "formats"})
    seen = calibrate(model, dataset.train)
    formats: Sequence[LayerFormats]
    facts: dict[str, Any] = {}
    if within is not None:
        from hwrnn.mixed import mixed_formats

        widths, formats, path = mixed_formats(model, seen, widths, within, port, progress=descent)
        facts["mixed"] = {"within": within, "path": [asdict(step) for step in path]}
    elif formats_of is None:
        formats = calibrated_formats(model, seen, widths, method, port)
    else:
        formats = formats_for(model, formats_of)
    ready = with_hardware_functions(model, formats)
    swapped = any(new.cell != old.cell for new, old in zip(ready.stack, model.stack, strict=True))
    if swapped and not finetune and seen.y is not None:
        loss = measured_swap(model, ready, seen, model.every_step)
        warn_of(loss, "The nonlinearities that hardware computes", "the calibration data")
    if not finetune and not prove_states:
        warn_of_ranges(model, seen, formats)
    if finetune:
        from hwrnn.training import finetune_searching

        def search(now: Model, known: Sequence[LayerFormats]) -> Sequence[LayerFormats]:
            return calibrated_formats(now, calibrate(now, dataset.train), widths, method, port, known)

        training |= {"search": search, "search_every": search_every}
        model, formats = finetune_searching(ready, dataset, formats, finetune, **training)
    if formats_of is not None:
        facts["saturated_weights"] = saturated(model, formats)
    if prove_states:
        from hwrnn.stability import freeze_proved

        result = freeze_proved(model, formats, widths, seen)
        return replace(result, facts=result.facts | facts)
    result = freeze(model, formats, widths, seen)
    return replace(result, facts=result.facts | facts)


def calibrated_formats(
    model: Model,
    seen: Calibration,
    widths: Widths,
    method: str,
    operand_bits: int = PORT,
    known: Sequence[LayerFormats] | None = None,
) -> Sequence[LayerFormats]:
    """The formats by a method of :data:`METHODS`; the search by loss goes on from ``known`` ones.

    Those that an imported network brought along (``hwrnn.known_formats``) come before any method's.
    """
    from hwrnn.known_formats import honoured
    from hwrnn.search import search_formats

    found: Sequence[LayerFormats]
    if method != "loss":
        found = choose_formats(model, seen, widths, method, operand_bits)
    else:
        found = search_formats(model, seen, widths, operand_bits, known)
    return honoured(model, seen, widths, found, operand_bits)


def freeze(
    model: Model, formats: Sequence[LayerFormats], widths: Widths, seen: Calibration | None = None
) -> QuantizedModel:
    """Round a model's parameters to its formats."""
    stack = []
    for layer, f in zip(model.stack, formats, strict=True):
        weights = {key: form.quantize(layer.block(*key)) for key, form in f.weights.items()}
        biases = {
            gate: np.clip(round_half_up(layer.block(gate, "b").astype(np.float64) * 2.0**frac), -_BIAS, _BIAS).astype(
                np.int64
            )
            for gate, frac in f.bias_frac.items()
        }
        cell = hardware_cell(layer.cell, f)
        made = QuantizedLayer(cell, layer.inputs, layer.units, weights, biases, f, reverse=layer.reverse)
        initial = {state: f.values[state].quantize(vector) for state, vector in layer.initial.items()}
        stack.append(replace(made, initial=initial, beside=layer.beside))
    n = len(model.layers)
    quantized = QuantizedModel(
        tuple(stack[:n]), stack[n] if model.head is not None else None, model.every_step, model.task,
        model.input_mean, model.input_scale, model.output_mean, model.output_scale, widths, dict(model.facts),
        encoder=model.encoder, final_state=model.final_state,
    )  # fmt: skip
    if seen is None:
        return quantized
    from hwrnn.golden import golden

    result = golden(quantized, quantized.quantize_input(seen.x), seen.lengths)
    calibration = {"sequences": len(seen.x), "steps": int(seen.lengths.sum())}
    return replace(quantized, saturation=result.saturation, facts=quantized.facts | {"calibration": calibration})
