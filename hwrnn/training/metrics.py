"""What a model is judged by, on variable lengths.

Targets and predictions count where they belong to a sequence: steps beyond its length never do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hwrnn.errors import UsageError

__all__ = ["accuracy", "evaluate", "mae", "rmse"]


def _counted(values: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """The first two axes (N, T) of per-step values flattened to the steps that count; unchanged without lengths."""
    if lengths is None:
        return values
    return np.asarray(values[np.arange(values.shape[1]) < np.asarray(lengths)[:, None]])


def accuracy(scores: np.ndarray, labels: np.ndarray, lengths: np.ndarray | None = None) -> float:
    """The share of labels whose score is the highest, 0 to 1; of equal scores the first counts.

    Args:
        scores: (N, classes), or with ``lengths`` (N, T, classes).
        labels: int (N,), or with ``lengths`` (N, T).
        lengths: (N,), for labels per step: every step within a length counts the same.
    """
    return float(np.mean(_counted(np.argmax(scores, axis=-1), lengths) == _counted(labels, lengths)))


def rmse(values: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None = None) -> float:
    """The root of the mean square error over sequences (and steps) and outputs, in the target's units.

    Args:
        values, targets: (N, outputs), or with ``lengths`` (N, T, outputs).
        lengths: (N,), for targets per step.
    """
    error = _counted(np.asarray(values, np.float64), lengths) - _counted(targets, lengths)
    return float(np.sqrt(np.mean(error * error)))


def mae(values: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None = None) -> float:
    """The mean absolute error, over what :func:`rmse` is over."""
    error = _counted(np.asarray(values, np.float64), lengths) - _counted(targets, lengths)
    return float(np.mean(np.abs(error)))


def evaluate(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray], split: Any, task: str, per_step: bool
) -> dict[str, float]:
    """The metrics of a task on a split: ``accuracy`` of a classification, ``rmse`` and ``mae`` of a regression.

    Args:
        predict: takes x (N, T, F) and lengths (N,), as ``Model.predict`` does.
        split: with ``x``, ``y`` and ``lengths``.

    Raises:
        UsageError: predictions whose shape does not fit the targets.
    """
    predictions = np.asarray(predict(split.x, split.lengths))
    due = split.y.shape if task == "regression" else (*split.y.shape, predictions.shape[-1])
    if predictions.shape != due:
        raise UsageError(f"Predictions must have shape {due} as the targets do, not {predictions.shape}")
    lengths = split.lengths if per_step else None
    if task == "classification":
        return {"accuracy": accuracy(predictions, split.y, lengths)}
    return {"rmse": rmse(predictions, split.y, lengths), "mae": mae(predictions, split.y, lengths)}
