"""Fits with jumps between the segments.

For a given error bound each segment is extended as far as any allowed slope can carry it, which uses the fewest
segments for that bound; bisection over the bound gives the smallest that so many segments reach.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np

from hwrnn.fitting import Piece, Target, coarsest, shallow

__all__ = ["jumping_pieces"]

_EXTRA = 4  # fraction bits of an intercept beyond the result's
_WORTH = 1.0005  # shallower slopes may cost this factor of the error
_COARSE = 16  # points of the grid that a first look at a slope takes at once


def jumping_pieces(target: Target, segments: int, slopes: list[Fraction]) -> list[Piece]:
    """The pieces for x >= 0 of the best fit of so many segments.

    Raises:
        ValueError: so few segments that not even an error of a half is reached.
    """
    low, high = math.ldexp(1.0, -(target.frac + 1)), 0.5
    best = _cover(target, slopes, high, segments)
    if best is None:
        raise ValueError(f"Segments must be more than {segments!r} for a fit of {target.function.name}")
    while high > low * 1.0004:
        bound = math.sqrt(low * high)
        pieces = _cover(target, slopes, bound, segments)
        if pieces is None:
            low = bound
        else:
            best, high = pieces, min(bound, target.error(pieces))
    return next(filter(None, (_cover(target, few, _WORTH * high, segments) for few in shallow(slopes))), best)


def _cover(target: Target, slopes: list[Fraction], bound: float, segments: int) -> list[Piece] | None:
    """At most ``segments`` segments within the error ``bound`` up to the reach, and the constant beyond; or None."""
    x, frac = target.x, target.frac
    least, most = _allowed(target.y, bound, frac)
    lowest, highest = _allowed(np.array([target.limit]), bound, frac)
    # What a constant may be that serves from here on for ever.
    floor = np.maximum.accumulate(np.append(least, lowest)[::-1])[::-1][:-1]
    ceiling = np.minimum.accumulate(np.append(most, highest)[::-1])[::-1][:-1]
    serves = np.nonzero(floor <= ceiling)[0]
    constants = ((int(k), coarsest(float(floor[k]), float(ceiling[k]), frac)) for k in serves)
    flat = next((k for k, constant in constants if constant is not None), len(x))
    pieces: list[Piece] = []
    start = 0
    # A constant that begins before the reach is one of the segments; one that begins there is not.
    while start < flat or len(pieces) == segments:
        if start == len(x) - 1 and start >= flat:
            break
        if len(pieces) == segments:
            return None
        found = _longest(x[start:], least[start:], most[start:], slopes, frac)
        if found is None:
            return None
        pieces.append((Fraction(start, 1 << target.grid), found[1], found[2]))
        start += found[0]
    limit = coarsest(float(floor[start]), float(ceiling[start]), frac)
    assert limit is not None
    pieces.append((Fraction(start, 1 << target.grid), Fraction(0), limit))
    return _with_coarse_knots(target, pieces, least, most)


def _allowed(y: np.ndarray, bound: float, frac: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact values whose rounded ones lie within the bound: half up on this half, half down on the mirrored one."""
    step, slack = 2.0**-frac, 2.0 ** -(frac + _EXTRA + 2)
    least = np.ceil((y - bound) / step - 1e-9) * step - step / 2 + slack
    return least, np.floor((y + bound) / step + 1e-9) * step + step / 2 - slack


def _longest(
    x: np.ndarray, least: np.ndarray, most: np.ndarray, slopes: list[Fraction], frac: int
) -> tuple[int, Fraction, Fraction] | None:
    """How far a segment that starts at ``x[0]`` gets, its slope and its intercept; None where it gets nowhere."""
    # Every sixteenth point alone says how far a slope can get at most, so most slopes need no closer look.
    chosen = np.unique(np.append(np.arange(0, len(x), _COARSE), len(x) - 1))
    lines = np.array([float(slope) for slope in slopes])[:, None] * x[chosen]
    lo, hi = np.maximum.accumulate(least[chosen] - lines, 1), np.minimum.accumulate(most[chosen] - lines, 1)
    within = (lo <= hi).sum(1)
    furthest = np.append(chosen, len(x))[within] - 1
    best: tuple[int, Fraction, Fraction] | None = None
    for k in np.argsort(-furthest, kind="stable"):
        if best is not None and furthest[k] <= best[0]:
            break
        # A piece keeps the bound at the knot that ends it too: between the grid's points it reaches up to there,
        # and on the mirrored half it holds at the knot itself.
        line = float(slopes[k]) * x[: furthest[k] + 1]
        lows = np.maximum.accumulate(least[: len(line)] - line)
        highs = np.minimum.accumulate(most[: len(line)] - line)
        end = int((lows <= highs).sum()) - 1
        while end > 0 and (best is None or end > best[0]):
            intercept = coarsest(float(lows[end]), float(highs[end]), frac + _EXTRA)
            if intercept is not None:
                best = end, slopes[k], intercept
                break
            end -= 1
    return best


def _with_coarse_knots(target: Target, pieces: list[Piece], least: np.ndarray, most: np.ndarray) -> list[Piece]:
    """The same lines with every knot where fewest bits name it: wherever both neighbours keep the bound will do."""
    made = pieces[:1]
    for before, piece in pairwise(pieces):
        line = float(piece[1]) * target.x + float(piece[2])
        end = int(piece[0] * (1 << target.grid))
        wrong = np.nonzero((line < least) | (line > most))[0]
        first = max([0, *(int(k) + 1 for k in wrong if k < end)])
        earliest = max(Fraction(first, 1 << target.grid), made[-1][0] + Fraction(1, 1 << target.grid))
        if piece[0] == target.reach:
            earliest = piece[0]  # where a pre-activation's format ends no comparison is needed
        knot = coarsest(float(earliest), float(piece[0]), target.grid)
        assert knot is not None and before[0] < piece[0]
        made.append((knot, piece[1], piece[2]))
    return made
