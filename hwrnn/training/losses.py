"""Losses and their gradients on raw outputs of a batch, (S, outputs, batch) with S steps (1 without ``every_step``)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["LOSSES", "Loss", "arranged", "cross_entropy", "mae", "mse"]

#: ``loss(outputs, targets, lengths)`` gives the mean loss and its gradient, of the shape of ``outputs``. Where
#: ``lengths`` (batch,) are given, steps beyond them count for nothing, whatever stands there.
Loss = Callable[[np.ndarray, np.ndarray, np.ndarray | None], tuple[float, np.ndarray]]


def arranged(y: np.ndarray, per_step: bool) -> np.ndarray:
    """Targets of a data set as the losses take them: labels (S, batch), values (S, outputs, batch)."""
    if y.dtype.kind in "iu":
        return y.T if per_step else y[None]
    return y.transpose(1, 2, 0) if per_step else y.T[None]


def _within(outputs: np.ndarray, lengths: np.ndarray | None) -> tuple[np.ndarray | None, int]:
    """Which (step, sequence) count, (S, 1, batch), or None for all; and how many."""
    steps, _, batch = outputs.shape
    if lengths is None or lengths.min() >= steps:
        return None, steps * batch
    within = np.arange(steps)[:, None] < lengths
    return within[:, None], int(np.minimum(lengths, steps).sum())


def cross_entropy(scores: np.ndarray, labels: np.ndarray, lengths: np.ndarray | None) -> tuple[float, np.ndarray]:
    """The mean of -log softmax(scores) at the labels, in nats."""
    within, count = _within(scores, lengths)
    if within is not None:
        scores = np.where(within, scores, 0)
    at = labels[: len(scores), None]
    shifted = scores - scores.max(axis=1, keepdims=True)
    slope = np.exp(shifted)
    total = slope.sum(axis=1, keepdims=True)
    losses = np.log(total) - np.take_along_axis(shifted, at, 1)
    slope /= total * count
    np.put_along_axis(slope, at, np.take_along_axis(slope, at, 1) - slope.dtype.type(1 / count), 1)
    if within is not None:
        losses, slope = np.where(within, losses, 0), np.where(within, slope, 0)
    return float(losses.sum()) / count, slope


def _distance(
    values: np.ndarray,
    targets: np.ndarray,
    lengths: np.ndarray | None,
    of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> tuple[float, np.ndarray]:
    within, count = _within(values, lengths)
    error = values - targets[: len(values)]
    if within is not None:
        error = np.where(within, error, 0)
    losses, slope = of(error)
    count *= values.shape[1]
    return float(losses.sum()) / count, slope * values.dtype.type(1 / count)


def mse(values: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None) -> tuple[float, np.ndarray]:
    """The mean square error over all outputs."""
    return _distance(values, targets, lengths, lambda error: (error * error, 2 * error))


def mae(values: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None) -> tuple[float, np.ndarray]:
    """The mean absolute error over all outputs."""
    return _distance(values, targets, lengths, lambda error: (np.abs(error), np.sign(error)))


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse, "mae": mae}
