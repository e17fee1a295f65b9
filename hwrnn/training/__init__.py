"""Gradient training: a cell's one definition becomes straight-line numpy, forward and backward through time.

``plan`` says what is computed where, ``numpy_printer`` prints and runs it, ``trainer`` holds the loop over the data.
"""

from hwrnn.training.metrics import accuracy, evaluate, mae, rmse
from hwrnn.training.options import Progress
from hwrnn.training.threads import single_thread_blas
from hwrnn.training.trainer import finetune, train

__all__ = ["Progress", "accuracy", "evaluate", "finetune", "mae", "rmse", "single_thread_blas", "train"]
