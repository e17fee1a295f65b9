"""Continuous fits with shift-and-add slopes of any continuous function, at the target format.

The fitters of the sigmoid and the tanh build on their symmetry; this one asks for nothing but a line at either end (an
asymptote, or an end where results saturate). It walks outwards from x = 0, where it takes the function's value, and
goes with each slope as far as the line stays within a bound of the function: the slopes that still do are a range that
only narrows from point to point (the "swing filter": H. Elmeleegy et al., VLDB 2009). The least bound with few enough
pieces is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np

from hwrnn.activations import Nonlinearity, PiecewiseLinear, nonlinearity
from hwrnn.fixed import Format

__all__ = ["Approximation", "general_fit"]

_PIECES = 20  # in all, about what hardware's fit of a sigmoid has
_POINTS = 32  # of the grid between 0 and 1, and between 2**k and 2**(k + 1)
_LARGEST = 12  # the grid ends at 2**12
_FAR = 2.0**20  # where a function is its asymptote
_DEEPEST = 12  # powers of two in a slope below that of the steepest one, or below 1
_BETWEEN = 8  # points between two of the grid on which the error is measured

#: ``(start, slope)`` of each piece of a walk, in its direction.
_Walk = list[tuple[Fraction, Fraction]]


@dataclass(frozen=True)
class Approximation(PiecewiseLinear):
    """A fit that is made anew for another format, by its name.

    Attributes:
        bound: of its error before results are rounded, and after they saturated.
    """

    bound: float = 0.0

    def in_hardware(self, output: Format) -> PiecewiseLinear:
        return nonlinearity(self.name).in_hardware(output)


def general_fit(function: Nonlinearity, output: Format) -> Approximation:
    """The fit of a continuous function for results of a format.

    Finer than 2**-24 or coarser than 2**-4 it changes no more, nor beyond results of 2**12.
    """
    frac, end = min(max(output.frac, 4), 24), 2.0**_LARGEST
    return _fitted(function, frac, max(output.min, -end), min(output.max, end))


@lru_cache(maxsize=1024)
def _fitted(function: Nonlinearity, frac: int, low: float, high: float) -> Approximation:
    scale = 2 ** (frac + 3)
    start = Fraction(round(float(function.value(np.zeros(1))[0]) * scale), scale)
    sides = [_Side(function, sign, 2.0**-frac, low, high) for sign in (-1, 1)]

    def walks(quarters: int) -> list[_Walk] | None:
        """Both sides within a bound of 2**(quarters / 4) quarters of a step; None where that takes too many pieces."""
        bound = 2.0 ** (quarters / 4 - frac - 2)
        made = [walk for side in sides if (walk := side.walk(start, bound)) is not None]
        return made if len(made) == len(sides) and sum(map(len, made)) <= _PIECES else None

    whole = next(n for n in range(0, 4 * 64, 4) if walks(n) is not None)
    found = next(made for n in range(max(whole - 3, 0), whole + 1) if (made := walks(n)) is not None)
    return _joined(function, start, found, sides)


class _Side:
    """The function of ``u = sign * x`` for u >= 0, on a grid.

    Attributes:
        u, y: the grid, as far as the fit has to follow the function, and the function there.
        tail: the slope beyond.
        slopes: those allowed, ascending; sums of two signed powers of two.
    """

    def __init__(self, function: Nonlinearity, sign: int, step: float, low: float, high: float) -> None:
        self.function, self.sign, self.ends = function, sign, (low, high)
        octaves = [2.0**k * (1 + np.arange(_POINTS) / _POINTS) for k in range(_LARGEST)]
        knots = [abs(float(k)) for k in getattr(function, "knots", ()) if k * sign > 0]
        kinks = np.round(np.array(knots) / step * 4) * step / 4
        u = np.unique(np.concatenate([np.arange(_POINTS) / _POINTS, *octaves, kinks[kinks < 2.0**_LARGEST]]))
        y = self.value(u)
        steepness = np.diff(y) / np.diff(u)
        self.slopes = _slopes(float(steepness.min()), float(steepness.max()))
        far = np.array([sign * _FAR])
        slope = sign * float(function.derivative(far)[0])
        self.tail = self.slopes[int(np.abs(self.slopes - slope).argmin())]
        line = self.tail * u + (float(function.value(far)[0]) - self.tail * _FAR)
        asymptotic = np.abs(y - line) <= step / 8
        saturated = (y < low - 2 * step) | (y > high + 2 * step)
        going_on = np.flatnonzero(~(asymptotic | saturated))
        end = min(int(going_on[-1]) + 2 if len(going_on) else 2, len(u))
        self.u, self.y = u[:end], y[:end]

    def value(self, u: np.ndarray) -> np.ndarray:
        """The function of ``u``."""
        return np.asarray(self.function.value(self.sign * u), np.float64)

    def walk(self, start: Fraction, bound: float) -> _Walk | None:
        """Pieces that stay within a bound of the function, from ``start`` at zero; None where there are too many."""
        at, value, walk = 0, start, list[tuple[Fraction, Fraction]]()
        u, y = self.u, self.y
        while at < len(u) - 1 and len(walk) < _PIECES:
            run, rise = u[at + 1 :] - u[at], y[at + 1 :] - float(value)
            least = np.maximum.accumulate((rise - bound) / run)
            most = np.minimum.accumulate((rise + bound) / run)
            # How many points a line of each slope passes within the bound.
            passed = np.minimum(
                np.searchsorted(least, self.slopes, side="right"), np.searchsorted(-most, -self.slopes, side="right")
            )
            furthest = int(passed.max())
            if not furthest:
                return None
            best = self.slopes[passed == furthest]
            middle = (least[furthest - 1] + most[furthest - 1]) / 2
            slope = float(self.tail if self.tail in best and furthest == len(run) else _nearest(best, middle))
            walk.append((Fraction(float(u[at])), Fraction(slope)))
            value += Fraction(slope) * Fraction(float(run[furthest - 1]))
            at += furthest
        if at < len(u) - 1:
            return None
        if walk[-1][1] != self.tail:
            walk.append((Fraction(float(u[at])), Fraction(float(self.tail))))
        return walk


def _nearest(values: np.ndarray, to: float) -> float:
    return float(values[int(np.abs(values - to).argmin())])


def _slopes(least: float, most: float) -> np.ndarray:
    """Sums of two signed powers of two from about ``least`` to about ``most``, and zero."""
    top = math.ceil(math.log2(max(abs(least), abs(most), 2.0**-20)))
    powers = 2.0 ** np.arange(min(top, 0) - _DEEPEST, top + 1)
    signed = np.concatenate([-powers, [0.0], powers])
    sums = np.unique(signed[:, None] + signed)
    first, last = np.searchsorted(sums, [least - 1e-9, most + 1e-9])
    return sums[max(first - 1, 0) : last + 1]


def _joined(function: Nonlinearity, start: Fraction, walks: list[_Walk], sides: list[_Side]) -> Approximation:
    """The pieces of both walks in order, those at zero as one where they are one line."""
    lines: list[list[tuple[Fraction, Fraction]]] = []
    for walk, side in zip(walks, sides, strict=True):
        lines.append([])
        value = start
        for k, (begins, slope) in enumerate(walk):
            lines[-1].append((side.sign * slope, value - slope * begins))
            if k + 1 < len(walk):
                value += slope * (walk[k + 1][0] - begins)
    left, right = lines
    knots = [-begins for begins, _ in reversed(walks[0][1:])]
    if left[0] == right[0]:
        left = left[1:]
    else:
        knots.append(Fraction(0))
    knots += [begins for begins, _ in walks[1][1:]]
    slopes, intercepts = zip(*reversed(left), *right, strict=True) if left else zip(*right, strict=True)
    made = Approximation(function.name, function.stands_for or function.name, tuple(knots), slopes, intercepts)
    return replace(made, bound=1.001 * max(_error(made, side) for side in sides) + 2.0**-24)


def _error(made: PiecewiseLinear, side: _Side) -> float:
    """The largest difference from the function after both saturated, also between the points of the grid."""
    shares = np.arange(_BETWEEN) / _BETWEEN
    u = np.append((side.u[:-1, None] + np.diff(side.u)[:, None] * shares).ravel(), [side.u[-1], _FAR])
    exact, found = (np.clip(y, *side.ends) for y in (side.value(u), made.value(side.sign * u)))
    return float(np.abs(exact - found).max())
