"""The options of a training run, checked."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.training.losses import LOSSES
from hwrnn.training.optimizer import SCHEDULES

__all__ = ["Options", "Progress"]


@dataclass(frozen=True)
class Progress:
    """What a training run tells after each epoch.

    Attributes:
        epoch: epochs finished.
        epochs: epochs in all.
        loss: the mean training loss of the epoch, noise included.
        validation: the loss on the part held out, or None.
        seconds: since the run (or its resumption) began.
        gradient_norm: the largest norm of a batch's gradient in the epoch, before clipping.
    """

    epoch: int
    epochs: int
    loss: float
    validation: float | None
    seconds: float
    gradient_norm: float


@dataclass(frozen=True)
class Options:
    """Everything that decides what a run computes.

    Attributes:
        epochs, batch: passes over the data, and sequences of a step.
        rate: the learning rate at first.
        weight_decay: of the matrices, decoupled from the gradient.
        clip: the largest norm of a gradient; None for no limit.
        noise: standard deviation of the Gaussian noise on the standardised input.
        validation: the share of the training data that is held out.
        patience: epochs without a better validation loss after which the run ends with the best parameters; None never.
        seed: of the order of the data, the noise and the choice of what is held out.
        loss: ``cross_entropy``, ``mse`` or ``mae``.
        schedule: ``cosine`` lets the rate fall to zero along a cosine, ``constant`` keeps it.
        spectral_norm: the largest 2-norm of a recurrent matrix, below 1; None for no limit (``spectral.py``).

    Raises:
        UsageError: an option outside its range.
    """

    epochs: int
    batch: int
    rate: float
    weight_decay: float
    clip: float | None
    noise: float
    validation: float
    patience: int | None
    seed: int
    loss: str
    schedule: str = "cosine"
    spectral_norm: float | None = None

    def __post_init__(self) -> None:
        _whole("Epochs", self.epochs, 1)
        _whole("Batch", self.batch, 1)
        _whole("Seed", self.seed, 0)
        _real("Rate", self.rate, above=True)
        _real("Weight decay", self.weight_decay)
        _real("Noise", self.noise)
        _real("Validation", self.validation)
        if self.clip is not None:
            _real("Clip", self.clip, above=True)
        if self.spectral_norm is not None:
            _real("Spectral norm", self.spectral_norm, above=True)
            if self.spectral_norm >= 1:
                raise UsageError(f"Spectral norm must be below 1, not {self.spectral_norm!r}: such as 0.99")
        if self.validation >= 1:
            raise UsageError(f"Validation must be a share of the training data below 1, not {self.validation!r}")
        if self.patience is not None:
            _whole("Patience", self.patience, 1)
            if not self.validation:
                raise UsageError("Patience must come with a validation share above 0, such as 0.2, not with 0")
        if self.loss not in LOSSES:
            raise UsageError(f"Loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"Schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")

    @property
    def facts(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in asdict(self).items()}


def default_noise(task: str) -> float:
    """The deviation of the input noise of a task: 0.7 for a classification, 0 for a regression.

    Cross-validation on the training part of Japanese Vowels chose it: ``scripts/choose_noise.py``.
    """
    return 0.7 if task == "classification" else 0.0


def default_loss(task: str, loss: str | None) -> str:
    """The loss of a task.

    Raises:
        UsageError: one that is for the other task.
    """
    fitting = ("cross_entropy",) if task == "classification" else ("mse", "mae")
    if loss is None:
        return fitting[0]
    if loss in LOSSES and loss not in fitting:
        raise UsageError(f"Loss must be {' or '.join(fitting)} for a {task}, not {loss!r}")
    return loss


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _real(name: str, value: Any, above: bool = False) -> None:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (above and value == 0):
        raise UsageError(f"{name} must be a finite number {'above' if above else 'of at least'} 0, not {value!r}")
