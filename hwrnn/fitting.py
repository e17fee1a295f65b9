"""Fit a piecewise-linear function with shift-and-add slopes to the sigmoid or the tanh, at the target format.

The method: for a given error bound each segment is extended as far as any allowed slope can carry it, which
uses the fewest segments for that bound; bisection over the bound then gives the smallest bound that
``segments`` segments reach. The bound is checked on every point of a grid *after* rounding the result to the
target's fraction bits, so where rounding dominates the fit knows it. The negative half follows from the
function's point symmetry.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["fit"]

_REACH = 8  # the smooth functions are within 2**-11 of their limits beyond
_GRID = 7  # fraction bits of the grid of inputs; knots fall on it
_EXTRA = 4  # fraction bits of an intercept beyond the result's


def slopes_of(terms: int, deepest: int = 8) -> list[Fraction]:
    """The allowed positive slopes: ``2**-a``, and with two terms ``2**-a + 2**-b`` and their differences too."""
    powers = [Fraction(1, 1 << k) for k in range(deepest + 1)]
    slopes = set(powers)
    if terms == 2:
        slopes |= {s for a in powers for b in powers if a > b for s in (a + b, a - b)}
    return sorted(s for s in slopes if 0 < s <= Fraction(5, 4))


def fit(function: Any, segments: int, terms: int, frac: int) -> tuple[tuple[Fraction, ...], ...]:
    """Knots, slopes and intercepts of the fit over the whole line.

    Args:
        function: an object with ``value`` (float array to float array), point-symmetric about x = 0.
        segments: segments for x >= 0, the saturated one among them, 2 to 16.
        terms: signed powers of two in each slope, 1 or 2.
        frac: fraction bits that the result is rounded to, 2 to 24.

    Raises:
        ValueError: an argument outside its range.
    """
    limits = (("Segments", segments, 2, 16), ("Terms", terms, 1, 2), ("Fraction bits", frac, 2, 24))
    for name, value, least, most in limits:
        if not (isinstance(value, int) and least <= value <= most):
            raise ValueError(f"{name} of a fit must be a whole number between {least} and {most}, not {value!r}")
    x = np.arange(0, (_REACH << _GRID) + 1) / 2**_GRID
    y = np.asarray(function.value(x), np.float64)
    centre = round(2 * float(function.value(np.zeros(1))[0]))  # f(x) + f(-x): 1 for a sigmoid, 0 for a tanh
    slopes = slopes_of(terms)
    low, high = math.ldexp(1.0, -(frac + 1)), 0.5
    best = None
    for _ in range(24):
        bound = math.sqrt(low * high)
        pieces = _cover(x, y, slopes, bound, frac, segments)
        if pieces is None:
            low = bound
        else:
            best, high = pieces, bound
    if best is None:
        best = _cover(x, y, slopes, 0.5, frac, segments)
    if best is None:
        raise ValueError(f"Segments must be more than {segments!r} for a fit of {function.name}")
    return _mirror(best, centre)


def _cover(
    x: np.ndarray, y: np.ndarray, slopes: list[Fraction], bound: float, frac: int, segments: int
) -> list[tuple[Fraction, Fraction, Fraction]] | None:
    """``(start, slope, intercept)`` of at most ``segments`` segments within the error ``bound``, or None."""
    step = 2.0**-frac
    slack = 2.0 ** -(frac + _EXTRA + 2)
    # Rounded values within the bound, as an interval of exact values (half up on this side, half down on the
    # mirror).
    least = np.ceil((y - bound) / step - 1e-9) * step - step / 2 + slack
    most = np.floor((y + bound) / step + 1e-9) * step + step / 2 - slack
    # The last segment is constant, from as early as the bound allows; it need not be the function's own
    # limit.
    floor, ceiling = np.maximum.accumulate(least[::-1])[::-1], np.minimum.accumulate(most[::-1])[::-1]
    both = zip(floor.tolist(), ceiling.tolist(), strict=True)
    constants = [_coarsest(lo, hi, frac) if lo <= hi else None for lo, hi in both]
    saturated = next((k for k, c in enumerate(constants) if c is not None), len(x) - 1)
    limit = constants[saturated]
    if limit is None:
        return None
    pieces: list[tuple[Fraction, Fraction, Fraction]] = []
    start = 0
    while start < saturated:
        if len(pieces) == segments - 1:
            return None
        found = None
        for slope in slopes:
            # A piece keeps the bound at the knot that ends it too: between the grid's points it reaches up to there,
            # and on the mirrored half it holds at the knot itself.
            line = float(slope) * x[start : saturated + 1]
            lo = np.maximum.accumulate(least[start : saturated + 1] - line)
            hi = np.minimum.accumulate(most[start : saturated + 1] - line)
            bad = np.nonzero(lo > hi)[0]
            end = (int(bad[0]) if len(bad) else len(lo)) - 1
            while end > 0:
                intercept = _coarsest(float(lo[end]), float(hi[end]), frac + _EXTRA)
                if intercept is not None:
                    break
                end -= 1
            if end > 0 and intercept is not None and (found is None or end > found[0]):
                found = (end, slope, intercept)
        if found is None:
            return None
        pieces.append((Fraction(start, 1 << _GRID), found[1], found[2]))
        start += found[0]
    pieces.append((Fraction(saturated, 1 << _GRID), Fraction(0), limit))
    return pieces


def _coarsest(lo: float, hi: float, frac: int) -> Fraction | None:
    """The multiple of the largest power of two in ``[lo, hi]``, not finer than ``2**-frac``."""
    for bits in range(frac + 1):
        n = math.ceil(lo * 2**bits)
        if n <= hi * 2**bits:
            return Fraction(n, 1 << bits)
    return None


def _mirror(
    pieces: list[tuple[Fraction, Fraction, Fraction]], centre: int
) -> tuple[tuple[Fraction, ...], ...]:
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
