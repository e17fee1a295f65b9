"""Functions of a limited input: ``f(clip(x, -bound, bound))``, which is what ONNX's attribute ``clip`` asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from hwrnn.activations import Nonlinearity, PiecewiseLinear, Smooth
from hwrnn.fixed import Format, point_of
from hwrnn.smooth import number_text
from hwrnn.staircase import Staircase

__all__ = ["ClippedLines", "ClippedSmooth", "clipped"]

_FINER = 4  # fraction bits of a bound in hardware beyond those of the result
_SHORT, _LONG = 12, 20  # fraction bits that a bound may have in any case, and the most


@dataclass(frozen=True)
class ClippedLines(PiecewiseLinear):
    """A piecewise-linear function of a limited input.

    Attributes:
        inner, bound: the function, and the limit of its input.
        steepness: see :attr:`PiecewiseLinear.gradients`.
    """

    inner: PiecewiseLinear
    bound: float
    steepness: tuple[Fraction, ...]

    @property
    def gradients(self) -> tuple[Fraction, ...]:
        return self.steepness

    def in_hardware(self, output: Format) -> PiecewiseLinear:
        return _in_hardware(self, self.inner, self.bound, output)


@dataclass(frozen=True)
class ClippedSmooth(Smooth):
    """A smooth function of a limited input.

    Attributes:
        inner, bound: the function, and the limit of its input.
    """

    inner: Smooth | None = None
    bound: float = math.inf

    def in_hardware(self, output: Format) -> PiecewiseLinear:
        assert self.inner is not None
        return _in_hardware(self, self.inner, self.bound, output)


@lru_cache(maxsize=256)
def clipped(function: Nonlinearity, bound: float) -> Nonlinearity:
    """The function of an input that is first limited to ``[-bound, bound]``; itself where that changes nothing.

    Raises:
        ValueError: a bound that is not a positive finite number.
    """
    if not 0 < bound < math.inf:
        raise ValueError(f"Bound of a nonlinearity's input must be a positive number, not {bound!r}")
    if isinstance(function, ClippedLines | ClippedSmooth):
        assert function.inner is not None
        return clipped(function.inner, min(bound, function.bound))
    name = f"{function.name}|{number_text(bound)}"
    stands_for = None if function.stands_for is None else f"{function.stands_for}|{number_text(bound)}"
    if isinstance(function, PiecewiseLinear):
        made = _limited(function, Fraction(bound))
        if made == (function.knots, function.slopes, function.intercepts, function.gradients):
            return function
        return ClippedLines(name, stands_for, *made[:3], function, bound, made[3])
    assert isinstance(function, Smooth)
    smooth = function

    def value(x: Any) -> Any:
        return smooth.function(np.minimum(np.maximum(x, -bound), bound))

    def slope(x: Any) -> Any:
        inside = np.minimum(np.maximum(x, -bound), bound)
        found = smooth.slope(inside if smooth.slope_from_input is not None else smooth.function(inside))
        return found * np.less_equal(-bound, x) * np.less(x, bound)

    return ClippedSmooth(
        name, stands_for, value, smooth.slope_from_value, slope, smooth.turns, inner=smooth, bound=bound
    )


_Pieces = tuple[tuple[Fraction, ...], tuple[Fraction, ...], tuple[Fraction, ...], tuple[Fraction, ...]]


def _limited(function: PiecewiseLinear, bound: Fraction) -> _Pieces:
    """Knots, slopes, intercepts and gradients of a function of a limited input."""
    knots: list[Fraction] = []
    pieces: list[tuple[Fraction, Fraction, Fraction]] = []

    def add(start: Fraction | None, piece: tuple[Fraction, Fraction, Fraction]) -> None:
        if start is None or piece != pieces[-1]:
            pieces.append(piece)
            knots.extend([] if start is None else [start])

    def flat(x: Fraction) -> tuple[Fraction, Fraction, Fraction]:
        k = sum(knot <= x for knot in function.knots)
        return Fraction(0), function.slopes[k] * x + function.intercepts[k], Fraction(0)

    lines = list(zip(function.slopes, function.intercepts, function.gradients, strict=True))
    first = sum(knot <= -bound for knot in function.knots)
    add(None, flat(-bound))
    add(-bound, lines[first])
    for k, knot in enumerate(function.knots):
        if -bound < knot < bound:
            add(knot, lines[k + 1])
    add(bound, flat(bound))
    slopes, intercepts, gradients = zip(*pieces, strict=True)
    return tuple(knots), slopes, intercepts, gradients


def _in_hardware(function: Nonlinearity, inner: Nonlinearity, bound: float, output: Format) -> PiecewiseLinear:
    """What hardware computes of the inner function, of an input limited to a bound of few fraction bits."""
    made, limit = inner.in_hardware(output), Fraction(bound)
    frac = min(max(output.frac + _FINER, _SHORT), _LONG)
    if point_of(limit) > frac:
        limit = Fraction(max(round(limit * 2**frac), 1), 2**frac)
    knots, slopes, intercepts, gradients = _limited(made, limit)
    if isinstance(made, Staircase):
        return Staircase(function.name, function.stands_for, knots, slopes, intercepts, gradients)
    return PiecewiseLinear(function.name, function.stands_for, knots, slopes, intercepts)
