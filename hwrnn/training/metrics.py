"""What a model is judged by.

Predictions and targets are arrays and are compared place by place: an index that came with them (of a pandas series)
plays no part. Steps beyond a sequence's length never count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hwrnn.errors import UsageError

__all__ = [
    "accuracy", "auc", "confusion", "evaluate", "mae", "mean_directional_accuracy", "mean_forecast_error", "rmse",
]  # fmt: skip


def _counted(values: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """The first two axes (N, T) of per-step values flattened to the steps that count; unchanged without lengths."""
    if lengths is None:
        return values
    return np.asarray(values[np.arange(values.shape[1]) < np.asarray(lengths)[:, None]])


def _classes(scores: Any, labels: Any, lengths: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The classes that scores choose and the labels, of what counts."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != labels.ndim + 1 or scores.shape[:-1] != labels.shape or 0 in scores.shape:
        due = f"{labels.shape} with a score for each class behind"
        raise UsageError(f"Scores must have the shape of the labels, {due}, none 0, not {scores.shape}")
    return _counted(np.argmax(scores, axis=-1), lengths), _counted(labels, lengths)


def accuracy(scores: np.ndarray, labels: np.ndarray, lengths: np.ndarray | None = None) -> float:
    """The share of labels whose score is the highest, 0 to 1; of equal scores the first counts.

    Args:
        scores: (N, classes), or with ``lengths`` (N, T, classes).
        labels: int (N,), or with ``lengths`` (N, T).
        lengths: (N,), for labels per step: every step within a length counts the same.

    Raises:
        UsageError: shapes that do not fit each other, or nothing to count.
    """
    chosen, labels = _classes(scores, labels, lengths)
    return float(np.mean(chosen == labels))


def confusion(scores: np.ndarray, labels: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """How often each label (row) was given each class (column), int64 (classes, classes).

    The diagonal's share of the sum is the :func:`accuracy`; a row's, the recall of its class; a column's, the
    precision. A class that never occurs has a row of zeros.

    Args:
        scores, labels, lengths: as :func:`accuracy` takes them.

    Raises:
        UsageError: as :func:`accuracy` does, or a label outside the classes that have scores.
    """
    classes = np.shape(scores)[-1] if np.ndim(scores) else 0
    chosen, labels = _classes(scores, labels, lengths)
    if labels.min() < 0 or labels.max() >= classes:
        wrong = int(labels[(labels < 0) | (labels >= classes)].flat[0])
        raise UsageError(f"Labels must be in 0..{classes - 1} as there are {classes} scores, not {wrong}")
    pairs = labels.astype(np.int64).ravel() * classes + chosen.ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _errors(values: Any, targets: Any, lengths: np.ndarray | None) -> np.ndarray:
    """Prediction minus target in double precision, of what counts."""
    values, targets = np.asarray(values, np.float64), np.asarray(targets, np.float64)
    if values.shape != targets.shape or values.size == 0:
        raise UsageError(f"Predictions must have the targets' shape {targets.shape}, none 0, not {values.shape}")
    return _counted(values, lengths) - _counted(targets, lengths)


def rmse(values: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None = None) -> float:
    """The root of the mean square error over sequences (and steps) and outputs, in the target's units.

    Args:
        values, targets: (N, outputs), or with ``lengths`` (N, T, outputs); or any one shape.
        lengths: (N,), for targets per step.

    Raises:
        UsageError: shapes that differ, or nothing to count.
    """
    error = _errors(values, targets, lengths)
    return float(np.sqrt(np.mean(error * error)))


def mae(values: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None = None) -> float:
    """The mean absolute error, over what :func:`rmse` is over."""
    return float(np.mean(np.abs(_errors(values, targets, lengths))))


def mean_forecast_error(values: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None = None) -> float:
    """The bias, the mean of prediction minus target, over what :func:`rmse` is over: above 0 where too much is
    forecast. Errors of both signs cancel, so a small one says nothing of the size of the errors.
    """
    return float(np.mean(_errors(values, targets, lengths)))


def mean_directional_accuracy(values: np.ndarray, targets: np.ndarray, previous: np.ndarray | None = None) -> float:
    """The share of forecasts that tell the sign of the change, 0 to 1.

    A forecast is right where ``sign(prediction - previous) == sign(target - previous)``: both changes start from the
    *actual* value that was known, never from the prediction before. The sign of no change is 0: where the target does
    not change, only a prediction of exactly that value is right; and persistence, which never predicts a change, is
    right only there. (Blaskowitz and Herwartz, On economic evaluation of directional forecasts, 2011.)

    Args:
        values, targets: predictions and what came, of one shape. Without ``previous``, a series (n,) or (n, outputs) in
            the order of time.
        previous: the last actual value known when each forecast was made, of that shape or one that broadcasts to it;
            None takes the target one row earlier, and then the first row is not judged.

    Raises:
        UsageError: shapes that differ, nothing to count, or fewer than 2 values without ``previous``.
    """
    # Plain arrays: pandas subtracts by label, and series shifted against each other then compare a value with itself.
    values, targets = np.asarray(values, np.float64), np.asarray(targets, np.float64)
    _errors(values, targets, None)
    if previous is None:
        if values.ndim == 0 or len(values) < 2:
            raise UsageError("Series must have at least 2 values to change between, not 1: give the previous ones")
        values, targets, before = values[1:], targets[1:], targets[:-1]
    else:
        try:
            before = np.broadcast_to(np.asarray(previous, np.float64), targets.shape)
        except ValueError:
            given = np.shape(previous)
            raise UsageError(f"Previous values must fit the targets' shape {targets.shape}, not {given}") from None
    return float(np.mean(np.sign(values - before) == np.sign(targets - before)))


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The area under the receiver operating characteristic, 0 to 1: the chance that something of class 1 gets a higher
    score than something of class 0, where equal scores count one half. 0.5 is guessing.

    Computed from mean ranks, as the statistic U of Mann and Whitney (1947) over the number of pairs (Hanley and McNeil,
    The meaning and use of the area under a ROC curve, Radiology 143, 1982).

    Args:
        scores: real (N,); only their order counts.
        labels: bool or 0 and 1, (N,).

    Raises:
        UsageError: shapes that differ, a score that is not a number, other labels, or only one class.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if labels.ndim != 1 or scores.shape != labels.shape:
        raise UsageError(f"Scores and labels must have one shape (N,), not {scores.shape} and {labels.shape}")
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        raise UsageError("Scores must be numbers, not NaN")
    if not np.isin(labels, (0, 1)).all():
        raise UsageError(f"Labels must be 0 or 1, not {labels[~np.isin(labels, (0, 1))][0].item()!r}")
    ones = int(np.count_nonzero(labels))
    zeros = len(labels) - ones
    if not ones or not zeros:
        raise UsageError(f"Labels must hold both classes, not {zeros} of class 0 and {ones} of class 1")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # the mean of the ranks that equal scores share, from 1
    u = ranks[places.ravel()][labels.astype(bool)].sum() - ones * (ones + 1) / 2
    return float(u / (ones * zeros))


def evaluate(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray], split: Any, task: str, per_step: bool
) -> dict[str, float]:
    """The metrics of a task on a split, the main one first.

    A classification's are ``accuracy`` and, where the split holds both of just two classes, ``auc`` (by the second
    score minus the first); a regression's are ``rmse``, ``mae`` and ``mean_forecast_error``.

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
        result = {"accuracy": accuracy(predictions, split.y, lengths)}
        labels = _counted(split.y, lengths)
        if predictions.shape[-1] == 2 and np.array_equal(np.unique(labels), (0, 1)):
            scores = _counted(np.asarray(predictions, np.float64), lengths)
            result["auc"] = auc(scores[:, 1] - scores[:, 0], labels)
        return result
    metrics = {"rmse": rmse, "mae": mae, "mean_forecast_error": mean_forecast_error}
    return {name: metric(predictions, split.y, lengths) for name, metric in metrics.items()}
