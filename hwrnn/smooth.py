"""ONNX's activations with parameters: lines of any slope, and smooth functions.

A line of ONNX is piecewise linear like any other, with whatever numbers a file has; where hardware cannot say them
exactly it gets a fit. The definitions are those of https://onnx.ai/onnx/operators/onnx__LSTM.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from hwrnn.activations import Nonlinearity, OnnxActivation, PiecewiseLinear, Smooth

__all__ = ["MAKERS", "Line", "number_text"]

_LARGEST = 65536.0  # of a parameter; hardware's numbers would only grow with it


@dataclass(frozen=True)
class Line(PiecewiseLinear):
    """A piecewise-linear activation of ONNX."""

    known_as: OnnxActivation | None = None

    @property
    def onnx(self) -> OnnxActivation | None:
        return self.known_as


def number_text(value: float) -> str:
    """The shortest text that gives the number back: ``3``, ``0.1``, ``1e-05``."""
    return repr(float(value)).removesuffix(".0")


def _checked(base: str, *parameters: float) -> str:
    """The name with its parameters.

    Raises:
        ValueError: a parameter that is no number, or too large.
    """
    for value in parameters:
        if not abs(value) <= _LARGEST:
            raise ValueError(f"Parameters of {base} must be numbers up to {_LARGEST:.0f} in size, not {value!r}")
    return ":".join([base, *map(number_text, parameters)])


def _line(name: str, known_as: OnnxActivation, knots: list[Fraction], *lines: tuple[Fraction, Fraction]) -> Line:
    """A piecewise-linear function from ``(slope, intercept)`` of its pieces."""
    slopes, intercepts = zip(*lines, strict=True)
    made = Line(name, None, tuple(knots), slopes, intercepts, known_as)
    return made if made.shift_only else Line(name, name, tuple(knots), slopes, intercepts, known_as)


@lru_cache(maxsize=256)
def leaky(alpha: float) -> Nonlinearity:
    """``x`` from zero on, ``alpha x`` below."""
    name, zero = _checked("leaky", alpha), Fraction(0)
    return _line(name, ("LeakyRelu", alpha, None), [zero], (Fraction(alpha), zero), (Fraction(1), zero))


@lru_cache(maxsize=256)
def thresholded(alpha: float) -> Nonlinearity:
    """``x`` above ``alpha``, else zero."""
    name, zero = _checked("thresholded", alpha), Fraction(0)
    # Above, not from alpha on: the knot is the next float32, and the next integer in hardware.
    knot = np.nextafter(np.float32(alpha), np.float32(np.inf)) if alpha else 0.0
    return _line(name, ("ThresholdedRelu", alpha, None), [Fraction(float(knot))], (zero, zero), (Fraction(1), zero))


@lru_cache(maxsize=256)
def affine(alpha: float, beta: float = 0.0) -> Nonlinearity:
    """``alpha x + beta``."""
    return _line(_checked("affine", alpha, beta), ("Affine", alpha, beta), [], (Fraction(alpha), Fraction(beta)))


@lru_cache(maxsize=256)
def hard_line(alpha: float, beta: float = 0.5) -> Nonlinearity:
    """``alpha x + beta`` between 0 and 1; ONNX calls it HardSigmoid."""
    name, known_as = _checked("hard_line", alpha, beta), ("HardSigmoid", alpha, beta)
    slope, intercept, zero, one = Fraction(alpha), Fraction(beta), Fraction(0), Fraction(1)
    if not alpha:
        return _line(name, known_as, [], (zero, min(max(intercept, zero), one)))
    ends = [(-intercept / slope, zero), ((one - intercept) / slope, one)]
    (first, low), (last, high) = sorted(ends)
    return _line(name, known_as, [first, last], (zero, low), (slope, intercept), (zero, high))


@lru_cache(maxsize=256)
def scaled_tanh(alpha: float, beta: float = 1.0) -> Nonlinearity:
    """``alpha tanh(beta x)``."""
    name, known_as = _checked("scaled_tanh", alpha, beta), ("ScaledTanh", alpha, beta)
    if not alpha:
        return _line(name, known_as, [], (Fraction(0), Fraction(0)))
    return Smooth(
        name, name, lambda x: alpha * np.tanh(beta * x), lambda y: beta * (alpha - y * y / alpha), known_as=known_as
    )


@lru_cache(maxsize=256)
def elu(alpha: float) -> Nonlinearity:
    """``x`` from zero on, ``alpha (exp(x) - 1)`` below. D.-A. Clevert et al., ICLR 2016."""

    def slope(x: Any) -> Any:
        return np.less(x, 0) * (alpha * np.exp(np.minimum(x, 0)) - 1) + 1

    return Smooth(
        _checked("elu", alpha), _checked("elu", alpha),
        lambda x: np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0)),
        lambda y: np.full_like(y, math.nan),  # a falling elu has two slopes for a value
        slope, (0.0,), ("Elu", alpha, None),
    )  # fmt: skip


#: By the base of their names.
MAKERS: dict[str, Callable[..., Nonlinearity]] = {
    "leaky": leaky, "thresholded": thresholded, "affine": affine, "hard_line": hard_line, "scaled_tanh": scaled_tanh,
    "elu": elu,
}  # fmt: skip
