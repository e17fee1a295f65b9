"""Fit a piecewise-linear function with shift-and-add slopes to the sigmoid or the tanh, at the target format.

Segments are counted for x >= 0 up to a *reach*, 8 for the sigmoid and 4 for the tanh, beyond which the fit is constant.
The last of them may slope: a pre-activation's format ends at the reach, so the constant beyond costs hardware nothing.
The negative half follows from the function's point symmetry. There are two forms, each with its method: with jumps
between the segments (``fitting_jumps``), and continuous through the centre (``fitting_continuous``). Both measure the
error on a grid of inputs *after* rounding the result to the target's fraction bits, so where rounding dominates the fit
knows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from hwrnn.activations import PiecewiseLinear, Smooth, nonlinearity
from hwrnn.fixed import Format, point_of

__all__ = ["FORMS", "Fitted", "Piece", "Target", "coarsest", "fit", "fit_for", "fitted", "shallow", "slopes_of"]

#: How segments meet; the first is the form of a fit that names none.
FORMS = ("continuous", "jumps")

_DEEPEST = 10  # the smallest power of two in a slope is 2**-10

#: ``(start, slope, intercept)`` of a segment for x >= 0.
Piece = tuple[Fraction, Fraction, Fraction]


@dataclass(frozen=True, eq=False)
class Target:
    """What is fitted, and where.

    Attributes:
        function: an object with ``value`` (float array to float array), point-symmetric, concave for x >= 0.
        centre: f(x) + f(-x): 1 for a sigmoid, 0 for a tanh.
        reach: beyond it the fit is constant.
        frac: fraction bits that results are rounded to.
        grid: fraction bits of the inputs that the error is measured on; knots have no more.
        x, y: the grid of inputs from 0 to the reach, and the function there.
    """

    function: Any
    centre: int
    reach: int
    frac: int
    grid: int
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, function: Any, frac: int) -> Target:
        """The target of a function at a format."""
        centre = round(2 * float(function.value(np.zeros(1))[0]))
        reach = 8 if centre else 4  # either is 2**-10 of the range from its limit there
        # As fine as pre-activations will be, so that between two inputs no result is a step further off.
        grid = min(max(frac, 6) + 2, 10) - centre
        x = np.arange(0, (reach << grid) + 1) / 2**grid
        return cls(function, centre, reach, frac, grid, x, np.asarray(function.value(x), np.float64))

    @property
    def limit(self) -> float:
        """What the function tends to."""
        return float(self.function.value(np.array([64.0]))[0])

    def error(self, pieces: list[Piece]) -> float:
        """The largest error after rounding, on both halves of the grid and far beyond it."""
        starts = np.array([float(p[0]) for p in pieces])
        k = np.searchsorted(starts, self.x, side="right") - 1
        exact = np.array([float(p[1]) for p in pieces])[k] * self.x + np.array([float(p[2]) for p in pieces])[k]
        exact, due = np.append(exact, float(pieces[-1][2])), np.append(self.y, self.limit)
        step = 2.0**-self.frac
        # A half rounds up, which is away from the function's centre on this half and towards it on the mirrored one.
        up, down = np.floor(exact / step + 0.5) * step, np.ceil(exact / step - 0.5) * step
        return float(max(np.abs(up - due).max(), np.abs(down - due).max()))


def slopes_of(terms: int, deepest: int = _DEEPEST) -> list[Fraction]:
    """The allowed positive slopes: ``2**-a``, and with two terms ``2**-a + 2**-b`` and their differences too."""
    powers = [Fraction(1, 1 << k) for k in range(deepest + 1)]
    slopes = set(powers)
    if terms == 2:
        slopes |= {s for a in powers for b in powers if a > b for s in (a + b, a - b)}
    return sorted(s for s in slopes if 0 < s <= Fraction(5, 4))


def shallow(slopes: list[Fraction]) -> list[list[Fraction]]:
    """Ever more of some slopes, those with few fraction bits first: their products need the narrowest adders."""
    deepest = max(point_of(s) for s in slopes)
    return [[s for s in slopes if point_of(s) <= bits] for bits in range(5, deepest)]


def coarsest(lo: float, hi: float, frac: int) -> Fraction | None:
    """The multiple of the largest power of two in ``[lo, hi]``, not finer than ``2**-frac``, or None."""
    for bits in range(frac + 1):
        n = math.ceil(lo * 2**bits)
        if n <= hi * 2**bits:
            return Fraction(n, 1 << bits)
    return None


def fit(
    function: Any, segments: int, terms: int, frac: int, form: str = FORMS[0]
) -> tuple[tuple[Fraction, ...], ...]:
    """Knots, slopes and intercepts of the fit over the whole line.

    Args:
        function: an object with ``value`` (float array to float array), point-symmetric about x = 0, concave beyond.
        segments: segments for x >= 0 up to the reach, 2 to 16.
        terms: signed powers of two in each slope, 1 or 2.
        frac: fraction bits that the result is rounded to, 2 to 24.
        form: ``continuous``: segments meet, and the first passes through the function's centre; ``jumps``: as they fit.

    Raises:
        ValueError: an argument outside its range.
    """
    from hwrnn.fitting_continuous import continuous_pieces
    from hwrnn.fitting_jumps import jumping_pieces

    limits = (("Segments", segments, 2, 16), ("Terms", terms, 1, 2), ("Fraction bits", frac, 2, 24))
    for name, value, least, most in limits:
        if not (isinstance(value, int) and least <= value <= most):
            raise ValueError(f"{name} of a fit must be a whole number between {least} and {most}, not {value!r}")
    target = Target.of(function, frac)
    pieces = (continuous_pieces if form == "continuous" else jumping_pieces)(target, segments, slopes_of(terms))
    return _mirror(pieces, target.centre)


def _mirror(pieces: list[Piece], centre: int) -> tuple[tuple[Fraction, ...], ...]:
    """Both halves: f(-x) = centre - f(x); the two innermost pieces join where they are one line."""
    right = [(slope, intercept) for _, slope, intercept in pieces]
    left = [(slope, centre - intercept) for slope, intercept in reversed(right)]
    starts = [start for start, _, _ in pieces[1:]]
    knots = [-k for k in reversed(starts)]
    if left[-1] == right[0]:
        left.pop()
    else:
        knots.append(Fraction(0))
    lines = left + right
    return tuple(knots + starts), tuple(s for s, _ in lines), tuple(b for _, b in lines)


@dataclass(frozen=True)
class Fitted(PiecewiseLinear):
    """A fitted function remembers its request, so that hardware can refit it at the format it is rounded to.

    Attributes:
        segments, terms, form: see :func:`fitted`.
        fits: the catalogue's name of the function it was fitted to; empty where it stands for that function.
    """

    segments: int = 4
    terms: int = 2
    fits: str = ""
    form: str = FORMS[0]

    def in_hardware(self, output: Format) -> PiecewiseLinear:
        return fit_for(self.fits or str(self.stands_for), self.segments, self.terms, output, self.form)


def fit_for(function: str, segments: int, terms: int, output: Format, form: str = FORMS[0]) -> PiecewiseLinear:
    """The fit for results of a format; finer than 2**-24 or coarser than 2**-4 it changes no more."""
    return fitted(function, segments, terms, min(max(output.frac, 4), 24), form)


@lru_cache(maxsize=256)
def fitted(
    function: str, segments: int, terms: int = 2, frac: int = 12, form: str = FORMS[0]
) -> PiecewiseLinear:
    """A fit of the sigmoid, the tanh or a reference form at a format.

    Args:
        function: the catalogue's name of the function to fit.
        segments: segments for x >= 0 up to the reach.
        terms: signed powers of two in a slope, 1 or 2.
        frac: fraction bits that the result is rounded to; the fit minimises the error after that rounding.
        form: ``continuous`` or ``jumps``.
    """
    target = nonlinearity(function)
    knots, slopes, intercepts = fit(target, segments, terms, frac, form)
    name = target.name  # a reference form is refitted by its own name
    if isinstance(target, Smooth):  # sigmoid and tanh have names for their fits
        parameters = [str(segments), str(terms), form]
        while len(parameters) > 1 and parameters[-1] == {2: "2", 3: FORMS[0]}[len(parameters)]:
            parameters.pop()
        name = ":".join([f"pwl_{name}", *parameters])
    return Fitted(name, target.stands_for, knots, slopes, intercepts, segments, terms, target.name, form)
