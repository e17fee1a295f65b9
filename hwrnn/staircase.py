"""Tables: the sigmoid and the tanh as the correctly rounded staircase at the format of the result.

A staircase is piecewise linear with slopes of zero: it steps where the rounded smooth function does. So golden, gates,
ONNX and C compute it as they do any other function, and its error is that of the rounding, half a least significant
bit, and of the input's. In float it is the smooth function itself. In the loop with quantization its value is the
staircase and its gradient the smooth function's, which passes the rounding straight through (Y. Bengio, N. Leonard,
A. Courville, arXiv:1308.3432, 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from hwrnn.activations import NONLINEARITIES, PiecewiseLinear, Smooth, nonlinearity
from hwrnn.errors import UsageError
from hwrnn.fixed import Format

__all__ = ["Staircase", "Tabulated", "staircase"]

_FINEST = 12  # fraction bits of a result; beyond, a table has tens of thousands of steps and a fit is better
_KNOT = 24  # fraction bits of a knot, finer than any input


@dataclass(frozen=True)
class Staircase(PiecewiseLinear):
    """A piecewise constant function whose gradient is that of the smooth function it stands for.

    Attributes:
        steepness: the smooth function's mean slope over each piece.
    """

    steepness: tuple[Fraction, ...] = ()

    @property
    def gradients(self) -> tuple[Fraction, ...]:
        return self.steepness

    def in_hardware(self, output: Format) -> PiecewiseLinear:
        return nonlinearity(self.name).in_hardware(output)


@dataclass(frozen=True)
class Tabulated(Smooth):
    """A smooth function that hardware computes as a table."""

    def in_hardware(self, output: Format) -> PiecewiseLinear:
        return staircase(str(self.stands_for), output.frac)


@lru_cache(maxsize=64)
def staircase(function: str, frac: int) -> Staircase:
    """The ``sigmoid`` or the ``tanh`` rounded half up to ``frac`` fraction bits, no fewer than 0.

    Raises:
        UsageError: more than 12 fraction bits.
    """
    if frac > _FINEST:
        raise UsageError(
            f"Table of {function} must have results of at most {_FINEST} fraction bits, not {frac!r}:"
            f" use fewer bits, or a fit such as pwl_{function}:8"
        )
    scale = 2 ** max(frac, 0)
    centre, inverse = (0, math.atanh) if function == "tanh" else (1, lambda v: math.log(v / (1 - v)))
    # The value is at least n in units of the last place from where the smooth function reaches n - 1/2.
    numbers = range(1 - scale if centre == 0 else 1, scale + 1)
    knots = tuple(Fraction(math.ceil(inverse((n - 0.5) / scale) * 2**_KNOT), 1 << _KNOT) for n in numbers)
    values = tuple(Fraction(n, scale) for n in range(numbers[0] - 1, numbers[-1] + 1))
    return Staircase(
        f"table_{function}", function, knots, (Fraction(0),) * len(values), values,
        _steepness(function, np.array([float(k) for k in knots])),
    )  # fmt: skip


def _steepness(function: str, knots: np.ndarray) -> tuple[Fraction, ...]:
    ends = np.concatenate([[knots[0] - 1], knots, [knots[-1] + 1]])
    rise = np.diff(np.asarray(nonlinearity(function).value(ends)))
    return tuple(Fraction(int(v * 2**_KNOT), 1 << _KNOT) for v in (rise / np.diff(ends)).tolist())


def _entered() -> None:
    """Enter a table for each smooth function that has one."""
    for smooth in (NONLINEARITIES["sigmoid"], NONLINEARITIES["tanh"]):
        assert isinstance(smooth, Smooth)
        name = f"table_{smooth.name}"
        NONLINEARITIES[name] = Tabulated(
            name, smooth.name, smooth.function, smooth.slope_from_value, known_as=smooth.known_as
        )


_entered()
