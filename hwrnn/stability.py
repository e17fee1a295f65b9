"""How far the state of a recurrent network can go: proved from its weights, and measured on data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.checks import as_integer
from hwrnn.errors import UsageError
from hwrnn.fixed import Format, bits_for
from hwrnn.invariants import REACH, contraction, layer_ranges, matrix_of
from hwrnn.model import Layer, Model, check_input
from hwrnn.quantization import LayerFormats, QuantizedLayer, QuantizedModel, Widths, freeze
from hwrnn.trace import trace

if TYPE_CHECKING:
    from hwrnn.calibration import Calibration
    from hwrnn.data import Split

__all__ = [
    "REACH",
    "Measured",
    "StateBound",
    "freeze_proved",
    "layer_ranges",
    "lengthened",
    "matrix_of",
    "measure",
    "spectrum",
    "state_bounds",
    "with_proved_states",
]  # fmt: skip

_WIDEST = 64  # bits of a state
_SEQUENCES = 64  # run side by side: what is kept of them stays small at ten times the trained length


@dataclass(frozen=True)
class StateBound:
    """What is proved of a state.

    Attributes:
        layer, state: which.
        bound: no absolute value of it is ever larger; infinite where nothing is proved.
        norm: of the recurrent matrix, where the bound follows from it; else None (then it follows from the ranges of
            the cell's nonlinearities and weights).
        growing: the name of a nonlinearity without an end that lets an unbounded state grow; else None.
    """

    layer: int
    state: str
    bound: float
    norm: float | None
    growing: str | None

    @property
    def words(self) -> str:
        """The proof in a few words."""
        if math.isinf(self.bound):
            return "unbounded" + (f": {self.growing} has no upper end" if self.growing else "")
        why = "the ranges of its nonlinearities" if self.norm is None else f"||U|| = {self.norm:.4f}"
        return f"|{self.state}| <= {self.bound:.5g} proved from {why}"


def spectrum(matrix: np.ndarray) -> dict[str, float]:
    """The spectral radius and the 2-norm of a square matrix."""
    return {
        "spectral_radius": float(np.abs(np.linalg.eigvals(matrix)).max()),
        "norm": float(np.linalg.norm(matrix, 2)),
    }


def state_bounds(model: Model | QuantizedModel, reach: float = REACH) -> list[StateBound]:
    """What is proved of every state of every layer, from where its sequences start on.

    Args:
        reach: the largest absolute value of a standardised input of a float model, which the bounds then depend on. A
            quantized model's input format says it by itself.
    """
    found: list[StateBound] = []
    layers: tuple[Layer | QuantizedLayer, ...] = model.layers
    for k, (layer, box) in enumerate(zip(layers, layer_ranges(model, reach), strict=True)):
        endless = [f.name for f in reversed(layer.cell.functions.values()) if _endless(f)]
        for state in layer.cell.states:
            size = box[state].reach
            norm = contraction(layer) if endless and math.isfinite(size) else None
            found.append(StateBound(k, state, size, norm, endless[0] if endless and math.isinf(size) else None))
    return found


def _endless(function: Nonlinearity) -> bool:
    return isinstance(function, PiecewiseLinear) and function.flat_beyond[1] is None


def with_proved_states(model: QuantizedModel) -> QuantizedModel:
    """The network with states wide enough for their bounds: the same fractions, and as many integer bits as it takes.

    A pre-activation that a nonlinearity without an end reads is widened likewise, and so is whatever reads the state as
    its input. No other bit changes, so results differ only where a state would have saturated.
    ``facts["proved_states"]`` of the result tells each bound.

    Raises:
        UsageError: a state without a bound, or one that needs more than 64 bits.
    """
    bounds = state_bounds(model)
    for bound in bounds:
        if math.isinf(bound.bound):
            where = f"of layer {bound.layer} ({model.layers[bound.layer].cell.name})"
            raise UsageError(
                f"State {bound.state!r} {where} must have a bound to be proved, not none: train with"
                " --spectral-norm 0.99 (a plain rnn), a cell clip (an lstm), or a nonlinearity that ends, such as relu1"
            )
    stack: list[QuantizedLayer] = []
    for k, (layer, boxes) in enumerate(zip(model.layers, layer_ranges(model), strict=True)):
        values = dict(layer.formats.values)
        if model.sources(k):
            values["x"] = stack[model.sources(k)[0]].output
        for name, box in boxes.items() if layer.cell.states else ():
            lo, hi = box.lo.min(), box.hi.max()
            if name.startswith("a."):
                ends = _ends_beyond(layer, name.removeprefix("a."))
                lo, hi = lo if ends[0] else 0, hi if ends[1] else 0
            elif name not in layer.cell.states:
                continue
            values[name] = _widened(values[name], lo, hi, f"{name} of layer {k}")
        stack.append(replace(layer, formats=replace(layer.formats, values=values)))
        group = next(group for group in model.groups if k in group)
        if len(group) > 1 and k == group[-1]:  # the next layer reads them as one vector
            outputs = [stack[j].output for j in group]
            signed = any(form.signed for form in outputs)
            common = Format(max(form.width + signed - form.signed for form in outputs), outputs[0].frac, signed)
            for j in group:
                values = {**stack[j].formats.values, stack[j].cell.output: common}
                stack[j] = replace(stack[j], formats=replace(stack[j].formats, values=values))
    head = model.head
    if head is not None:
        values = {**head.formats.values, "x": stack[-1].output}
        head = replace(head, formats=replace(head.formats, values=values))
    facts = [{"layer": b.layer, "state": b.state, "bound": b.bound, "norm": b.norm, "proof": b.words} for b in bounds]
    return replace(model, layers=tuple(stack), head=head, facts=model.facts | {"proved_states": facts})


def freeze_proved(
    model: Model, formats: Sequence[LayerFormats], widths: Widths, seen: Calibration
) -> QuantizedModel:
    """As ``hwrnn.quantization.freeze``, with states that cannot saturate.

    A model that was trained with a spectral norm is first brought back to it where rounding its weights exceeds it.

    Raises:
        UsageError: as :func:`with_proved_states` does.
    """
    from hwrnn.golden import golden
    from hwrnn.training.network import Network
    from hwrnn.training.spectral import SpectralBound

    bound = model.facts.get("finetuning", model.facts).get("spectral_norm")
    if bound is not None:
        network = Network(model, formats)
        SpectralBound(network, float(bound)).project()
        model = network.trained()
    proved = with_proved_states(freeze(model, formats, widths))
    return replace(proved, saturation=golden(proved, proved.quantize_input(seen.x), seen.lengths).saturation)


def _ends_beyond(layer: QuantizedLayer, gate: str) -> tuple[bool, bool]:
    """Whether some reader of a pre-activation goes on falling below every input, and rising above every one."""
    lines = trace(layer.cell)
    flat: list[tuple[float | None, float | None]] = []
    for k in lines.readers(lines.gates[gate]):
        function = lines.operations[k].function
        flat.append(function.flat_beyond if isinstance(function, PiecewiseLinear) else (None, None))
    return any(low is None for low, _ in flat), any(high is None for _, high in flat)


def _widened(form: Format, lo: float, hi: float, what: str) -> Format:
    """The format with as many more integer bits as it takes to hold ``[lo, hi]``."""
    least, most = math.floor(lo / form.step), math.ceil(hi / form.step)
    signed = form.signed or least < 0
    width = max(form.width + signed - form.signed, bits_for(min(least, -1) if signed else 0, most)[0])
    if width > _WIDEST:
        raise UsageError(f"States must be proved within {_WIDEST} bits, not {width} of {what}: lower the spectral norm")
    return Format(width, form.frac, signed)


@dataclass(frozen=True)
class Measured:
    """What a network reached on data.

    Attributes:
        steps: of the longest sequence.
        states: the largest absolute value of each state over all units, sequences and steps, by ``"LAYER.NAME"``;
            infinite where the float network overflows.
        gradient: the largest norm, over batches, of the loss's gradient with respect to all parameters, before any
            clipping; None for integers.
    """

    steps: int
    states: Mapping[str, float]
    gradient: float | None


def measure(model: Model | QuantizedModel, split: Split, steps: int | None = None, batch: int = 32) -> Measured:
    """The largest state and the largest gradient of a network on data, in float64 or in golden's integers.

    Args:
        split: inputs, targets and lengths, as a data set holds them.
        steps: where given, each sequence is repeated from its start until it has this many steps (or cut to them), so
            that a network can be watched far beyond the length it was trained at.
        batch: sequences whose mean loss one gradient belongs to.

    Raises:
        UsageError: data that do not fit the model, or a number of steps or a batch below 1.
    """
    batch = as_integer("Batch", batch, 1)
    if steps is not None:
        split = lengthened(split, as_integer("Steps", steps, 1))
    x, lengths = check_input(split.x, split.lengths, model.inputs)
    states: dict[str, float] = {}

    def record(layer: int, name: str, value: np.ndarray) -> None:
        if name in model.layers[layer].cell.states:
            key, size = f"{layer}.{name}", float(np.abs(value).max())
            states[key] = max(states.get(key, 0.0), size if np.isfinite(size) else np.inf)

    for start in range(0, len(x), _SEQUENCES):
        part = slice(start, start + _SEQUENCES)
        if isinstance(model, QuantizedModel):
            from hwrnn.golden import golden

            kept = golden(model, model.quantize_input(x[part]), lengths[part], keep=True).values
            for (layer, name), raw in kept.items():
                if layer < len(model.layers):
                    record(layer, name, model.layers[layer].formats.values[name].dequantize(raw))
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            model.forward(
                model.standardised(x[part]).astype(np.float64), lengths[part],
                lambda layer, name, value, n: record(layer, name, value[:n]) if layer < len(model.layers) else None,
            )  # fmt: skip
    gradient = _largest_gradient(model, split, batch) if isinstance(model, Model) else None
    return Measured(int(lengths.max()), dict(sorted(states.items())), gradient)


def lengthened(split: Split, steps: int) -> Split:
    """Every sequence (and its targets, where each step has one) over again until it has ``steps`` steps."""
    at = np.arange(steps)[None] % np.asarray(split.lengths)[:, None]
    rows = np.arange(len(split.x))[:, None]
    y = split.y[rows, at] if split.per_step else split.y
    return replace(split, x=split.x[rows, at], y=y, lengths=np.full(len(split.x), steps))


def _largest_gradient(model: Model, split: Any, batch: int) -> float:
    from hwrnn.training.losses import LOSSES
    from hwrnn.training.network import Network
    from hwrnn.training.options import default_loss
    from hwrnn.training.preparation import prepared

    network, loss = Network(model, dtype=np.float64), LOSSES[default_loss(model.task, None)]
    largest = 0.0
    for start in range(0, len(split.x), batch):
        data = prepared(model, split, np.arange(start, min(start + batch, len(split.x))))
        every = np.arange(len(data.x))
        with np.errstate(over="ignore", invalid="ignore"):
            network.loss_and_gradient(data.x, data.lengths, data.targets(every, model.every_step), loss)
            norm = float(np.linalg.norm(network.gradient))
        largest = max(largest, norm if np.isfinite(norm) else np.inf)
    return largest
