"""How far the state of a recurrent network can go: measured on data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwrnn.checks import as_integer
from hwrnn.model import Model
from hwrnn.quantization import QuantizedModel

if TYPE_CHECKING:
    from hwrnn.data import Split

__all__ = ["Measured", "measure", "repeated"]

_SEQUENCES = 64  # run side by side: what is kept of them stays small at ten times the trained length


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
    from hwrnn.model import check_input

    batch = as_integer("Batch", batch, 1)
    if steps is not None:
        split = repeated(split, as_integer("Steps", steps, 1))
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


def repeated(split: Split, steps: int) -> Split:
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
