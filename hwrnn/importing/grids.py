"""The grids on which other tools' quantizers put numbers, and their ways of rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hwrnn.fixed import Format

__all__ = ["MOST_BITS", "ROUNDING", "Grid", "rounded"]

MOST_BITS = 32


#: QONNX's words for rounding; its HALF_UP takes halves away from zero, unlike hwrnn's.
ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.fix,
    "ROUND_TO_ZERO": np.fix,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """The numbers ``(n - zero) * scale`` of whole ``n`` that ``width`` bits hold."""

    width: int
    signed: bool
    scale: float
    zero: int = 0
    narrow: bool = False

    @property
    def lo(self) -> int:
        """The smallest whole number."""
        return -(1 << (self.width - 1)) + self.narrow if self.signed else 0

    @property
    def hi(self) -> int:
        """The largest whole number."""
        return (1 << (self.width - self.signed)) - 1 - (self.narrow and not self.signed)

    @property
    def format(self) -> Format | None:
        """The grid as a format; None where its scale is no power of two or its zero is not 0."""
        mantissa, exponent = math.frexp(self.scale)
        fits = mantissa == 0.5 and not self.zero and 1 + self.signed <= self.width
        return Format(self.width, 1 - exponent, self.signed) if fits else None

    def rounded(self, x: np.ndarray, mode: str = "ROUND") -> np.ndarray:
        """Float numbers on the grid, computed in float32 as runtimes do."""
        return rounded(x, [self], np.zeros(np.shape(x), np.int64), mode)


def rounded(x: np.ndarray, grids: Sequence[Grid], places: np.ndarray, mode: str = "ROUND") -> np.ndarray:
    """Float numbers on their grids, ``grids[places]``; whatever is computed is computed in float32, as runtimes do."""
    scale = np.array([g.scale for g in grids], np.float32)[places]
    zero, lo, hi = (np.array([v(g) for g in grids], np.float32)[places] for v in
                    (lambda g: g.zero, lambda g: g.lo, lambda g: g.hi))  # fmt: skip
    with np.errstate(over="ignore"):  # what is beyond every float becomes the grid's end, and infinity if that is too
        whole = ROUNDING[mode](np.asarray(x, np.float32) / scale)
        return np.asarray((np.clip(whole + zero, lo, hi) - zero) * scale, np.float32)
