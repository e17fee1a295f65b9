"""From a data set to what a run trains on: checks, the part held out, standardisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.model import Model, Stack
from hwrnn.training.losses import arranged

if TYPE_CHECKING:
    from hwrnn.data import Dataset, Split

__all__ = ["Part", "check_fits", "hold_out", "prepared", "standardised_to"]


@dataclass(frozen=True, eq=False)
class Part:
    """Sequences as a network takes them: ``x`` (N, T, F) and ``y`` standardised, in float32, and ``lengths`` (N,)."""

    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray

    def targets(self, rows: np.ndarray, per_step: bool) -> np.ndarray:
        """The targets of some sequences as the losses take them."""
        return arranged(self.y[rows], per_step)


def check_fits(model: Stack[Any], dataset: Dataset) -> None:
    """See that a model and a data set are of one kind.

    Raises:
        UsageError: another task, width of input or output, or one output for all steps where each has a target.
    """
    if model.task != dataset.task:
        raise UsageError(f"Model must be for {dataset.task} as {dataset.name!r} is, not for {model.task}")
    if model.inputs != dataset.inputs:
        raise UsageError(f"Model must have {dataset.inputs} inputs for {dataset.name!r}, not {model.inputs}")
    if model.outputs != dataset.outputs and not (dataset.classes and model.outputs > dataset.outputs):
        raise UsageError(f"Model must have {dataset.outputs} outputs for {dataset.name!r}, not {model.outputs}")
    if model.every_step != dataset.per_step:
        due, given = ("every step", "the last one") if dataset.per_step else ("the last step", "every one")
        raise UsageError(f"Model must give an output for {due} as {dataset.name!r} has targets, not for {given}")


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the sequences to train on and of those held out: of every class the same share, seeded.

    Raises:
        UsageError: a share that leaves no sequence on one side.
    """
    count = len(dataset.train.x)
    if not share:
        return np.arange(count), np.arange(0)
    rng = np.random.default_rng([seed, 1])  # not the stream that orders the batches
    labels = np.zeros(count, np.int64)
    if dataset.task == "classification" and not dataset.per_step:
        labels = dataset.train.y
    order = rng.permutation(count)
    rank = np.empty(count)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    held = max(1, round(share * count))
    if held >= count:
        raise UsageError(f"Validation must leave sequences to train on, not hold out {held} of {count}")
    chosen = order[np.argsort(rank[order], kind="stable")]
    return np.sort(chosen[held:]), np.sort(chosen[:held])


def standardised_to(model: Model, split: Split, rows: np.ndarray) -> Model:
    """The model with the standardisation of some sequences: mean 0 and variance 1 of every channel within the lengths.

    The outputs of a regression are standardised likewise. A channel that never changes keeps its scale.
    """
    x, y, lengths = split.x[rows], split.y[rows], split.lengths[rows]
    within = np.arange(x.shape[1]) < lengths[:, None]
    mean, deviation = _moments(x[within])
    model = replace(model, input_mean=mean, input_scale=(1 / deviation).astype(np.float32))
    if model.task == "classification":
        zero = np.zeros(model.outputs, np.float32)
        return replace(model, output_mean=zero, output_scale=zero + 1)
    mean, deviation = _moments(y[within] if y.ndim == 3 else y)
    return replace(model, output_mean=mean, output_scale=deviation)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = values.astype(np.float64)
    mean, deviation = values.mean(0), values.std(0)
    deviation = np.where(deviation > 1e-6 * np.maximum(1, np.abs(mean)), deviation, 1.0)
    return mean.astype(np.float32), deviation.astype(np.float32)


def prepared(model: Model, split: Split, rows: np.ndarray) -> Part:
    """Some sequences of a split, standardised as the model does."""
    x = model.standardised(split.x[rows])
    y = split.y[rows]
    if y.dtype.kind == "f":
        y = ((y - model.output_mean) / model.output_scale).astype(np.float32)
    return Part(x, y, split.lengths[rows])
