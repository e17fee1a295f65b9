"""Certificates: how far an approximation is from the smooth function that it stands for, at the formats of hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hwrnn.activations import Nonlinearity, nonlinearity
from hwrnn.fixed import Fixed, Format

__all__ = ["Certificate", "certify"]


@dataclass(frozen=True)
class Certificate:
    """The error of an approximation against a smooth function.

    Attributes:
        function, stands_for: names of the approximation and of the smooth function.
        maximum, mean: of the absolute error.
        at: the input with the largest error.
        maximum_lsb, mean_lsb: in least significant bits of the output; None without an output format.
        bound: what a fit of any function promises of the error before rounding, at this output format; else None.
    """

    function: str
    stands_for: str
    maximum: float
    mean: float
    at: float
    maximum_lsb: float | None = None
    mean_lsb: float | None = None
    bound: float | None = None


def certify(
    function: Nonlinearity, source: Format | None = None, output: Format | None = None, reach: float = 8.0
) -> Certificate:
    """Measure an approximation against the smooth function it stands for, over ``[-reach, reach]``.

    With formats given, every representable input within reach is tried through the exact integer form and the
    rounding to ``output``, so the figure is that of the hardware; without, a float grid of 2**-10 and the knots.

    Raises:
        ValueError: a function that stands for none, or only one of the formats given.
    """
    if function.stands_for is None:
        raise ValueError(f"Nonlinearity must stand for a smooth function, not for itself as {function.name!r} does")
    if (source is None) != (output is None):
        raise ValueError("Formats must be given for both input and output, or for none")
    if source is None or output is None:
        knots = [float(k) for k in getattr(function, "knots", ()) if abs(k) <= reach]
        x = np.union1d(np.arange(-reach, reach + 2**-11, 2**-10), knots)
        y, bound = function.value(x), None
    else:
        low = max(source.lo, math.ceil(-reach * 2.0**source.frac))
        raw = np.arange(low, min(source.hi, math.floor(reach * 2.0**source.frac)) + 1)
        x = source.dequantize(raw)
        y = function.in_hardware(output)(Fixed.of(raw, source)).to(output).value
        bound = getattr(function.in_hardware(output), "bound", None)
    error = np.abs(y - nonlinearity(function.stands_for).value(x))
    lsb = None if output is None else output.step
    worst, mean = float(error.max()), float(error.mean())
    return Certificate(
        function.name, function.stands_for, worst, mean, float(x[error.argmax()]),
        None if lsb is None else worst / lsb, None if lsb is None else mean / lsb, bound,
    )  # fmt: skip
