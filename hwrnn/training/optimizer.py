"""AdamW on one vector, clipping by the global norm, and the schedules of the rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = ["SCHEDULES", "AdamW", "clip_norm", "cosine"]


class AdamW:
    """Adam with decoupled weight decay. I. Loshchilov, F. Hutter, ICLR 2019; D. Kingma, J. Ba, ICLR 2015.

    Attributes:
        first, second: the moments, of the parameters' shape and type.
        steps: updates so far.
    """

    def __init__(self, like: np.ndarray, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.first, self.second, self.steps = np.zeros_like(like), np.zeros_like(like), 0
        self._part = np.empty_like(like)

    def update(self, parameters: np.ndarray, gradient: np.ndarray, rate: float, decay: np.ndarray) -> None:
        """Move ``parameters`` in place; ``decay`` holds each one's decay per unit of rate."""
        self.steps += 1
        part, number = self._part, parameters.dtype.type
        np.multiply(gradient, number(1 - self.beta1), part)
        self.first *= number(self.beta1)
        self.first += part
        np.multiply(gradient, gradient, part)
        part *= number(1 - self.beta2)
        self.second *= number(self.beta2)
        self.second += part
        np.sqrt(self.second, part)
        part *= number(1 / math.sqrt(1 - self.beta2**self.steps))
        part += number(self.epsilon)
        np.divide(self.first, part, part)
        part *= number(rate / (1 - self.beta1**self.steps))
        parameters *= 1 - number(rate) * decay
        parameters -= part


def clip_norm(gradient: np.ndarray, limit: float) -> float:
    """Scale a gradient in place to a norm of at most ``limit``; returns the norm before.

    R. Pascanu, T. Mikolov, Y. Bengio, ICML 2013.
    """
    with np.errstate(over="ignore"):  # the caller tells a norm that is not finite
        norm = math.sqrt(float(np.dot(gradient, gradient)))
    if norm > limit:
        gradient *= gradient.dtype.type(limit / norm)
    return norm


def cosine(step: int, steps: int) -> float:
    """The share of the rate at a step of ``steps``: 1 at first, 0 after the last. Loshchilov, Hutter, ICLR 2017."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


#: The share of the rate at a step of ``steps``, by name.
SCHEDULES: dict[str, Callable[[int, int], float]] = {"cosine": cosine, "constant": lambda step, steps: 1.0}
