"""How good outputs are: metrics of a simulation's labels or targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.quantization import QuantizedModel

__all__ = ["Targets", "largest_difference"]


class Targets:
    """Labels or values to score outputs with.

    Args:
        y: labels (N,), or (N, T) for a model with an output at every step; for a regression values (N,), (N, outputs)
            or (N, T, outputs). A model with an output at every step may have targets for whole sequences: its last
            step counts.
        lengths: (N,).

    Raises:
        UsageError: targets that do not fit.
    """

    def __init__(self, model: QuantizedModel, y: Any, lengths: np.ndarray) -> None:
        self.model, self.lengths, self.y = model, lengths, np.asarray(y)
        self.labels = model.task == "classification"
        if self.labels:
            per_step = (len(lengths),) + ((self.y.shape[1],) if self.y.ndim == 2 else ())
            fits = self.y.dtype.kind in "iu" and self.y.shape == per_step
            self.per_step = self.y.ndim == 2
        else:
            if self.y.ndim == 1:
                self.y = self.y[:, None]
            fits = self.y.dtype.kind in "fiu" and self.y.ndim in (2, 3) and len(self.y) == len(lengths)
            fits = fits and self.y.shape[-1] == model.outputs
            self.per_step = self.y.ndim == 3
        if not fits or (self.per_step and (not model.every_step or self.y.shape[1] < lengths.max())):
            kind = "labels" if self.labels else "values"
            raise UsageError(f"Targets must be {kind} that fit the model's outputs, not of shape {np.shape(y)}")

    @property
    def metric(self) -> str:
        """``accuracy`` or ``rmse``."""
        return "accuracy" if self.labels else "rmse"

    def score(self, outputs: np.ndarray) -> float:
        """The metric of outputs (N, outputs) or (N, T, outputs); for labels also of classes without the last axis."""
        outputs = np.asarray(outputs)
        whole = 1 + self.model.every_step
        if self.labels and outputs.ndim > whole:
            outputs = outputs.argmax(axis=-1)
        y = self.y
        if self.per_step:
            valid = np.arange(y.shape[1]) < self.lengths[:, None]
            outputs, y = outputs[:, : y.shape[1]][valid[:, : outputs.shape[1]]], y[valid]
        elif self.model.every_step:
            outputs = outputs[np.arange(len(y)), self.lengths - 1]
        if self.labels:
            return float(np.mean(outputs == y))
        error = outputs.astype(np.float64) - y
        return float(np.sqrt(np.mean(error * error)))


def largest_difference(model: QuantizedModel, a: np.ndarray, b: np.ndarray, lengths: np.ndarray) -> float:
    """The largest difference between two arrays of outputs, within the lengths."""
    difference = np.abs(np.asarray(a, np.float64) - b)
    if model.every_step:
        difference = difference[np.arange(difference.shape[1]) < lengths[:, None]]
    return float(difference.max())
