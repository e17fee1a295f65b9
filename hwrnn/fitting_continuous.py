"""Continuous fits through the centre.

A concave function is fitted by the least of some lines, one for each slope. For a given error all lines but the first
lie that error below their tangents; the fit is then nowhere too low, and it is highest above the function at the
corners. So an error belongs to each pair of neighbouring slopes alone: half the height of the corner of their tangents
above the function. The best slopes are the path through all slopes whose largest such error is least. Knots are then
rounded to a grid, as coarse as loses nothing, and moved on it while that lowers the error.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np

from hwrnn.fitting import Piece, Target, shallow

__all__ = ["continuous_pieces"]

_COARSEST = 3  # fraction bits of the coarsest grid of knots that is tried
_WORTH = 1.01  # shallower slopes and a coarser grid may each cost this factor of the error


def continuous_pieces(target: Target, segments: int, slopes: list[Fraction]) -> list[Piece]:
    """The pieces for x >= 0 of a continuous fit of so many segments."""
    sets = [np.array([0.0, *map(float, some)])[::-1] for some in (*shallow(slopes), slopes)]
    found = [_best_slopes(target, segments, some) for some in sets]
    chosen, error = next(made for made in found if made[1] <= _WORTH * found[-1][1])
    exact = [Fraction(float(s)) for s in chosen]
    fits = [_on_grid(target, exact, error, bits) for bits in range(_COARSEST, target.grid + 1)]
    least = min(fits, key=lambda made: made[0])[0]
    return next(pieces for found, pieces in fits if found <= _WORTH * least)


def _best_slopes(target: Target, segments: int, slopes: np.ndarray) -> tuple[np.ndarray, float]:
    """Falling slopes of the segments, and the error that they allow."""
    tangent = _tangents(target, slopes)
    first, corner = _first(target, slopes, tangent), _corners(target, slopes, tangent) / 2
    # The last line is the limit itself, or still rises at the reach and is highest above the function there.
    end = np.maximum(tangent + slopes * target.reach - float(target.y[-1]), 0) / 2
    # Of a slope that only touches at zero no line but the first makes any use.
    useless = tangent <= target.centre / 2
    first[:, useless] = corner[:, useless] = np.inf
    cost, steps = first.min(0), [first.argmin(0)]
    best = [(float(np.maximum(cost, end).min()), int(np.maximum(cost, end).argmin()))]
    for _ in range(segments - 2):
        through = np.maximum(cost[:, None], corner)
        cost = through.min(0)
        steps.append(through.argmin(0))
        best.append((float(np.maximum(cost, end).min()), int(np.maximum(cost, end).argmin())))
    count = min(range(len(best)), key=lambda k: best[k][0])  # there may be fewer slopes than segments
    path = [best[count][1]]
    for step in reversed(steps[: count + 1]):
        path.append(int(step[path[-1]]))
    return slopes[path[::-1]], best[count][0]


def _tangents(target: Target, slopes: np.ndarray) -> np.ndarray:
    """The intercept of each slope's tangent; of one too flat to touch, that of the line to the limit at the reach."""
    touching = (target.y - slopes[:, None] * target.x).max(1)
    return np.asarray(np.maximum(touching, target.limit - slopes * target.reach))


def _corners(target: Target, slopes: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """How high the corner of two tangents lies above the function, by their slopes; infinite unless these fall."""
    steeper = slopes[:, None] > slopes[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(steeper, (tangent[None] - tangent[:, None]) / (slopes[:, None] - slopes[None]), 0.0)
    height = tangent[:, None] + slopes[:, None] * x - target.function.value(x)
    return np.where(steeper, height, np.inf)


def _first(target: Target, slopes: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """The least error of the corner between a line through the centre and a second one, by their slopes."""
    centre = target.centre / 2
    steeper = slopes[:, None] > slopes[None]
    low = np.broadcast_to(np.maximum(tangent - centre, 0)[:, None], steeper.shape)  # no line may lie too low
    high = np.full(steeper.shape, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(40):
            error = (low + high) / 2
            rise = tangent[None] - error - centre
            x = np.maximum(np.where(steeper, rise / (slopes[:, None] - slopes[None]), 0.0), 0)
            fits = centre + slopes[:, None] * x - target.function.value(x) <= error
            low, high = np.where(fits, low, error), np.where(fits, error, high)
    return np.where(steeper, high, np.inf)


def _on_grid(target: Target, slopes: list[Fraction], error: float, bits: int) -> tuple[float, list[Piece]]:
    """The error and the pieces with knots of so many fraction bits, moved on that grid while the error falls."""
    values = np.array([float(s) for s in slopes])
    lines = _tangents(target, values) - error
    lines[0] = target.centre / 2
    ideal = -np.diff(lines) / np.diff(values)
    end = target.reach << bits
    knots = [int(np.clip(round(float(k) * 2**bits), 1, end)) for k in ideal]

    def measured(at: list[int]) -> tuple[float, list[Piece]]:
        pieces = [(Fraction(0), slopes[0], Fraction(target.centre, 2))]
        for n, slope in zip(at, slopes[1:], strict=True):
            knot = Fraction(n, 1 << bits)
            pieces.append((knot, slope, pieces[-1][2] + (pieces[-1][1] - slope) * knot))
        if slopes[-1]:
            pieces.append((Fraction(target.reach), Fraction(0), pieces[-1][2] + slopes[-1] * target.reach))
        return target.error(pieces), pieces

    best = measured(knots)
    while True:
        moves = [[n + d * (k == j) for j, n in enumerate(knots)] for k in range(len(knots)) for d in (-2, -1, 1, 2)]
        lawful = [at for at in moves if at[0] > 0 and at[-1] <= end and all(a < b for a, b in pairwise(at))]
        found = min(((*measured(at), at) for at in lawful), key=lambda made: made[0], default=None)
        if found is None or found[0] >= best[0]:
            return best
        best, knots = found[:2], found[2]
