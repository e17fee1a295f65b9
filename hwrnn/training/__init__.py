"""Gradient training: a cell's one definition becomes straight-line numpy, forward and backward through time.

``plan`` says what is computed where, ``numpy_printer`` prints and runs it, ``trainer`` holds the loop over the data.
"""

from hwrnn.training.metrics import (
    accuracy,
    auc,
    confusion,
    evaluate,
    mae,
    mean_directional_accuracy,
    mean_forecast_error,
    rmse,
)
from hwrnn.training.options import Progress
from hwrnn.training.threads import single_thread_blas
from hwrnn.training.trainer import finetune, finetune_searching, train

__all__ = [
    "Progress", "accuracy", "auc", "confusion", "evaluate", "finetune", "finetune_searching", "mae",
    "mean_directional_accuracy", "mean_forecast_error", "rmse", "single_thread_blas", "train",
]  # fmt: skip
