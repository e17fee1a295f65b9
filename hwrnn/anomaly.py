"""Anomalies as what a network that learnt normal data cannot rebuild: reconstruction errors, scores, a threshold.

The network is a recurrent autoencoder (``build_model(..., encoder=N)``) trained on normal sequences with the inputs as
targets (``load_dataset(..., reconstruct=True)``). It works the same in float and in fixed point, where ``predict`` is
golden, and from outputs that hardware gave. (Malhotra et al., LSTM-based encoder-decoder for multi-sensor anomaly
detection, 2016.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwrnn.checks import as_integer
from hwrnn.errors import UsageError
from hwrnn.model import Model, check_input
from hwrnn.quantization import QuantizedModel

__all__ = ["Detector", "reconstruction_errors", "sample_scores", "sliding_windows"]


def reconstruction_errors(
    model: Model | QuantizedModel, x: Any, lengths: Any = None, outputs: Any = None
) -> np.ndarray:
    """How badly each sequence is rebuilt: float64 (N,).

    The error is the mean of the squared differences between output and input over the steps within the sequence's
    length and over the features, each in units of the deviation that the feature had in the training data.

    Args:
        x: float (N, T, inputs).
        lengths: int (N,); every sequence has T steps where None.
        outputs: what the model gave for them, (N, T, inputs) in the data's units, of hardware, say; None to ask it.

    Raises:
        UsageError: a model that does not rebuild its input, or data that do not fit it.
    """
    if model.task != "regression" or not model.every_step or model.inputs != model.outputs:
        raise UsageError(
            "Model must be a regression with as many outputs as inputs at every step to rebuild its input: train it"
            " with data that are reconstructed"
        )
    x, lengths = check_input(x, lengths, model.inputs)
    given = np.asarray(model.predict(x, lengths) if outputs is None else outputs, np.float64)
    if given.shape != x.shape:
        raise UsageError(f"Outputs must have shape {x.shape} as the inputs do, not {given.shape}")
    squares = np.square((given - x) / model.output_scale).mean(axis=2)
    within = np.arange(x.shape[1]) < lengths[:, None]
    return np.asarray(np.where(within, squares, 0).sum(axis=1) / lengths)


@dataclass(frozen=True)
class Detector:
    """A model and the error from which on a sequence counts as an anomaly.

    Attributes:
        model: a float or quantized autoencoder.
        threshold: of :func:`reconstruction_errors`.
    """

    model: Model | QuantizedModel
    threshold: float

    @classmethod
    def of(cls, model: Model | QuantizedModel, split: Any, quantile: float = 0.99) -> Detector:
        """The detector whose threshold a share of normal sequences stays under.

        Args:
            split: normal sequences, as a rule the training part of a data set.
            quantile: that share; 1 takes the largest error.

        Raises:
            UsageError: a share outside 0 to 1, or what :func:`reconstruction_errors` refuses.
        """
        if not isinstance(quantile, (int, float)) or isinstance(quantile, bool) or not 0 < quantile <= 1:
            raise UsageError(f"Quantile must be above 0 and at most 1, not {quantile!r}")
        threshold = float(np.quantile(reconstruction_errors(model, split.x, split.lengths), quantile))
        if not threshold > 0:
            raise UsageError("Normal sequences must be rebuilt with some error for a threshold, not exactly")
        return cls(model, threshold)

    def scores(self, x: Any, lengths: Any = None, outputs: Any = None) -> np.ndarray:
        """The anomaly score of each sequence, float64 (N,): its error over the threshold, so an anomaly is above 1.

        Arguments and errors are those of :func:`reconstruction_errors`.
        """
        return reconstruction_errors(self.model, x, lengths, outputs) / self.threshold


def sliding_windows(series: Any, steps: int, width: int = 1, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cut a series into overlapping sequences of steps of several samples each.

    Args:
        series: (samples,).
        steps: of a window.
        width: samples of a step, the features.
        stride: samples between the starts of two windows.

    Returns:
        windows float64 (N, steps, width), and where each starts, int64 (N,).

    Raises:
        UsageError: a series that is no row of finite numbers or is shorter than a window, or a size below 1.
    """
    steps, width, stride = (
        as_integer(name, value, 1) for name, value in (("Steps", steps), ("Width", width), ("Stride", stride))
    )
    values = np.asarray(series)
    if values.ndim != 1 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise UsageError(f"Series must be a row of finite numbers, not {values.dtype} of shape {values.shape}")
    if len(values) < steps * width:
        raise UsageError(f"Series must be at least as long as a window of {steps * width}, not {len(values)}")
    starts = np.arange(0, len(values) - steps * width + 1, stride)
    windows = values.astype(np.float64)[starts[:, None] + np.arange(steps * width)]
    return windows.reshape(len(starts), steps, width), starts


def sample_scores(scores: Any, starts: Any, window: int, samples: int) -> np.ndarray:
    """A score for every sample of a series: the mean over the windows that hold it, float64 (samples,).

    Args:
        scores: of the windows, (N,).
        starts: as :func:`sliding_windows` gives them.
        window: samples of a window.
        samples: of the series; one that no window holds gets NaN.

    Raises:
        UsageError: scores and starts that do not belong together, or windows beyond the series.
    """
    values, begins = np.asarray(scores, np.float64), np.asarray(starts)
    window, samples = as_integer("Window", window, 1), as_integer("Samples", samples, 1)
    if values.ndim != 1 or begins.shape != values.shape or begins.dtype.kind not in "iu":
        raise UsageError(f"Scores must have one start each, not shapes {values.shape} and {begins.shape}")
    if len(begins) and (begins.min() < 0 or begins.max() + window > samples):
        raise UsageError(f"Windows must lie within the {samples} samples, not reach to {begins.max() + window}")
    total, count = np.zeros(samples + 1), np.zeros(samples + 1)
    for array, weights in ((total, values), (count, np.ones_like(values))):
        np.add.at(array, begins, weights)
        np.add.at(array, begins + window, -weights)
    covered = np.rint(np.cumsum(count)[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(covered > 0, np.cumsum(total)[:-1] / covered, np.nan))
