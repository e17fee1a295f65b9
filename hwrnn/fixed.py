"""Fixed-point formats and the exact number: every width is derived, and there is one rounding.

A stored value is an integer ``raw`` with a :class:`Format`; it means ``raw * 2**-frac``. A :class:`Number` is
exact: it carries its raw value, its fraction bits and the interval ``[lo, hi]`` that the raw value can take,
so that sums and products know their width. The only lossy step is :meth:`Number.to`.

What a raw value *is* decides the consumer: an integer array here (:class:`Fixed`, the golden model), a signal
in ``hwrnn.rtl.numbers``, a graph value in ``hwrnn.onnx_io``. They differ in a handful of primitives and share
the arithmetic below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np

__all__ = [
    "EXACT_FLOAT",
    "Fixed",
    "Format",
    "Number",
    "bits_for",
    "integers",
    "point_of",
    "round_half_up",
    "signed_powers",
]

#: Integers below this bound are exact in float64, whose matrix products are far faster than those of
#: integers.
EXACT_FLOAT = 2**53


def bits_for(lo: int, hi: int) -> tuple[int, bool]:
    """The least width and the signedness that hold every integer in ``[lo, hi]`` (width 0 only for 0)."""
    signed = lo < 0
    magnitude = max(max(hi, 0).bit_length(), (-lo - 1).bit_length() if signed else 0)
    return magnitude + signed, signed


def round_half_up(x: np.ndarray) -> np.ndarray:
    """``floor(x + 1/2)`` of float64 values (any shape), exactly: the float sum rounds up just below a half."""
    low = np.floor(x)
    return np.asarray(low + (x - low >= 0.5))


@dataclass(frozen=True)
class Format:
    """A fixed-point format: ``width`` bits in all, ``frac`` of them behind the binary point.

    ``frac`` may be negative or exceed ``width``: it is only a scale.

    Raises:
        ValueError: a width below 1 (below 2 where signed) or above 128.
    """

    width: int
    frac: int
    signed: bool = True

    def __post_init__(self) -> None:
        if not (isinstance(self.width, int) and isinstance(self.frac, int)):
            raise ValueError(f"Format width and frac must be integers, not {self.width!r} and {self.frac!r}")
        if not 1 + self.signed <= self.width <= 128:
            least = 1 + self.signed
            raise ValueError(f"Format width must be between {least} and 128, not {self.width!r}")

    @property
    def lo(self) -> int:
        """The smallest raw value."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        """The largest raw value."""
        return (1 << (self.width - self.signed)) - 1

    @property
    def step(self) -> float:
        """The value of one least significant bit."""
        return 2.0**-self.frac

    @property
    def min(self) -> float:
        """The smallest value."""
        return self.lo * self.step

    @property
    def max(self) -> float:
        """The largest value."""
        return self.hi * self.step

    def __str__(self) -> str:
        """Q notation, sign bit among the integer bits: ``Q4.12``; ``UQ0.8`` where unsigned."""
        return f"{'' if self.signed else 'U'}Q{self.width - self.frac}.{self.frac}"

    @property
    def ap_fixed(self) -> str:
        """The same format in the notation of high-level synthesis."""
        return f"ap_{'' if self.signed else 'u'}fixed<{self.width},{self.width - self.frac},AP_RND,AP_SAT>"

    def quantize(self, x: Any) -> np.ndarray:
        """Round half up and saturate values ``x`` (any shape, no NaN) to raw values of the same shape.

        Raw values are int64, or Python integers in an object array where the format is too wide for int64.
        """
        rounded = round_half_up(np.clip(np.asarray(x, np.float64) * 2.0**self.frac, self.lo, self.hi))
        if self.hi < EXACT_FLOAT:
            return rounded.astype(np.int64)
        # The bounds themselves are not exact in float64 here, so saturate once more as integers.
        raw = [min(max(int(value), self.lo), self.hi) for value in rounded.ravel()]
        return np.array(raw, np.int64 if self.hi < 2**63 else object).reshape(rounded.shape)

    def dequantize(self, raw: Any) -> np.ndarray:
        """The float64 values of raw integers (exact for widths up to 53)."""
        return np.asarray(raw, np.float64) * self.step

    @classmethod
    def to_hold(cls, lo: float, hi: float, width: int) -> Format:
        """The finest format of ``width`` bits that holds ``[lo, hi]``, to half a least significant bit at
        both ends.

        It is signed where ``lo < 0``. A range below ``2**-40`` counts as one of ``2**-40``.

        Raises:
            ValueError: a bound that is not finite, ``lo > hi``, or a width that no format has.
        """
        if not (math.isfinite(lo) and math.isfinite(hi) and lo <= hi):
            raise ValueError(f"Range must be finite and ordered, not [{lo!r}, {hi!r}]")
        signed = bool(lo < 0)
        magnitude = max(abs(lo), abs(hi), 2.0**-40)
        frac = width - signed - math.ceil(math.log2(magnitude)) + 1
        while True:
            fits = cls(width, frac, signed)
            if hi <= fits.max + fits.step / 2 and lo >= fits.min - fits.step / 2:
                return fits
            frac -= 1

    def to_json(self) -> dict[str, int | bool]:
        """A plain dictionary for files."""
        return {"width": self.width, "frac": self.frac, "signed": self.signed}


class Number:
    """An exact fixed-point number over some carrier; subclasses give the carrier's primitives.

    Attributes:
        raw: the carrier's value.
        frac: fraction bits.
        lo, hi: the interval that ``raw`` is proved to lie in.
    """

    __slots__ = ("frac", "hi", "lo", "raw")
    __array_ufunc__ = None  # numpy must leave `array * number` to this class

    def __init__(self, raw: Any, frac: int, lo: int, hi: int) -> None:
        if lo > hi:
            raise ValueError(f"Interval must be ordered, not [{lo}, {hi}]")
        self.raw, self.frac, self.lo, self.hi = raw, frac, lo, hi

    # -- primitives of a carrier
    # -----------------------------------------------------------------------------------
    def _make(self, raw: Any, frac: int, lo: int, hi: int) -> Self:
        return type(self)(raw, frac, lo, hi)

    def _constant(self, value: int, frac: int) -> Self:
        raise NotImplementedError

    def _add(self, other: Self, bound: int) -> Any:
        raise NotImplementedError

    def _sub(self, other: Self, bound: int) -> Any:
        raise NotImplementedError

    def _mul(self, other: Self, bound: int) -> Any:
        raise NotImplementedError

    def _left(self, n: int, bound: int) -> Any:
        raise NotImplementedError

    def _floor(self, n: int) -> Any:
        raise NotImplementedError

    def _clip(self, lo: int, hi: int) -> Any:
        raise NotImplementedError

    def _piecewise(
        self, knots: Sequence[int], slopes: Sequence[int], intercepts: Sequence[int], bound: int
    ) -> Any:
        """``slopes[k] * raw + intercepts[k]``, where ``k`` counts the knots that are ``<= raw``."""
        raise NotImplementedError

    def _finish(self) -> Self:
        """Called where a value has been rounded: hardware may end a pipeline stage here."""
        return self

    # -- the arithmetic, once
    # --------------------------------------------------------------------------------------
    @property
    def format(self) -> Format:
        """The narrowest format that holds the interval."""
        width, signed = bits_for(self.lo, self.hi)
        return Format(max(width, 1 + signed), self.frac, signed)

    def aligned(self, frac: int) -> Self:
        """The same value with ``frac`` fraction bits.

        Raises:
            ValueError: fewer fraction bits than the number has.
        """
        n = frac - self.frac
        if n < 0:
            raise ValueError(f"Fraction bits must be at least {self.frac}, not {frac!r}")
        if n == 0:
            return self
        lo, hi = self.lo << n, self.hi << n
        return self._make(self._left(n, max(-lo, hi)), frac, lo, hi)

    def scaled(self, shift: int) -> Self:
        """The value times ``2**-shift``: the same raw bits with the point moved, free in every carrier."""
        return self._make(self.raw, self.frac + shift, self.lo, self.hi)

    def _operand(self, other: Any) -> Self:
        if isinstance(other, type(self)):
            return other
        if isinstance(other, Number):
            kinds = f"{type(self).__name__} and {type(other).__name__}"
            raise TypeError(f"Operands must be of one carrier, not {kinds}")
        value = Fraction(other)
        return self._constant(value.numerator, point_of(value))

    def _meet(self, other: Any) -> tuple[Self, Self]:
        other = self._operand(other)
        frac = max(self.frac, other.frac)
        return self.aligned(frac), other.aligned(frac)

    def __add__(self, other: Any) -> Self:
        a, b = self._meet(other)
        lo, hi = a.lo + b.lo, a.hi + b.hi
        return a._make(a._add(b, max(-lo, hi)), a.frac, lo, hi)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Self:
        a, b = self._meet(other)
        lo, hi = a.lo - b.hi, a.hi - b.lo
        return a._make(a._sub(b, max(-lo, hi)), a.frac, lo, hi)

    def __rsub__(self, other: Any) -> Self:
        return self._operand(other) - self

    def __mul__(self, other: Any) -> Self:
        other = self._operand(other)
        ends = [a * b for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        lo, hi = min(ends), max(ends)
        return self._make(self._mul(other, max(-lo, hi)), self.frac + other.frac, lo, hi)

    __rmul__ = __mul__

    def clipped(self, lo: int, hi: int) -> Self:
        """Clip the raw value to ``[lo, hi]``; free where the interval already lies inside."""
        if self.lo >= lo and self.hi <= hi:
            return self
        return self._make(self._clip(lo, hi), self.frac, min(max(self.lo, lo), hi), max(min(self.hi, hi), lo))

    def rounded(self, frac: int) -> Self:
        """Round half up to ``frac`` fraction bits: ``floor(x + 1/2)`` in units of the new step."""
        n = self.frac - frac
        if n <= 0:
            return self.aligned(frac)
        return (self + self._constant(1 << (n - 1), self.frac)).floored(frac)

    def floored(self, frac: int) -> Self:
        """Drop fraction bits towards minus infinity until ``frac`` are left.

        Raises:
            ValueError: more fraction bits than the number has.
        """
        n = self.frac - frac
        if n < 0:
            raise ValueError(f"Fraction bits must be at most {self.frac}, not {frac!r}")
        return self._make(self._floor(n), frac, self.lo >> n, self.hi >> n)

    def saturated(self, format: Format) -> Self:
        """Saturate a number that already has the format's fraction bits."""
        return self.clipped(format.lo, format.hi)

    def to(self, format: Format) -> Self:
        """The one lossy step: round half up, then saturate."""
        return self.rounded(format.frac).saturated(format)._finish()

    def apply(self, function: Any) -> Self:
        """The exact value of a piecewise-linear ``function`` (see ``hwrnn.activations.PiecewiseLinear``)."""
        clip = function.as_clip()
        if clip is not None:  # one line between two bounds needs no comparison with knots
            slope, intercept, bounds = clip
            line = self._line(slope, intercept)
            # The bounds must be exact on the line's grid; a coarse grid (frac < 0) may need refining for
            # them.
            line = line.aligned(max([line.frac, *(point_of(b) for b in bounds if b)]))
            scale = Fraction(2) ** line.frac
            low = None if bounds[0] is None else int(bounds[0] * scale)
            high = None if bounds[1] is None else int(bounds[1] * scale)
            # An absent bound must not clip, also where the whole interval lies beyond the other one.
            least = min(line.lo, line.hi if high is None else high) if low is None else low
            return line.clipped(least, max(line.hi, least) if high is None else high)
        table = self._table(function)
        lo, hi = table.interval(self.lo, self.hi)
        raw = self._piecewise(table.knots, table.slopes, table.intercepts, max(-lo, hi))
        return self._make(raw, table.frac, lo, hi)

    def _table(self, function: Any) -> Any:
        """A function as integer lines, without the pieces that the interval does not reach."""
        return function.at_fraction(self.frac).within(self.lo, self.hi)

    def _line(self, slope: Fraction, intercept: Fraction) -> Self:
        """``slope * value + intercept`` for a positive slope, whose first signed power is positive too."""
        (_, shift), *rest = signed_powers(slope)
        value = self.scaled(shift)
        for sign, shift in rest:
            value = value + self.scaled(shift) if sign > 0 else value - self.scaled(shift)
        # The terms are one number, so the interval is that of the product, narrower than that of the sum.
        factor = int(slope * Fraction(2) ** (value.frac - self.frac))
        value = self._make(value.raw, value.frac, factor * self.lo, factor * self.hi)
        return value + intercept if intercept else value


def point_of(value: Fraction) -> int:
    """The fraction bits that hold ``value`` exactly.

    Raises:
        ValueError: a value whose denominator is not a power of two.
    """
    frac = value.denominator.bit_length() - 1
    if value.denominator != 1 << frac:
        raise ValueError(f"Constant must be a multiple of a power of two, not {value}")
    return frac


def signed_powers(value: Fraction) -> tuple[tuple[int, int], ...]:
    """``value`` as the fewest signed powers of two (non-adjacent form): ``(sign, shift)`` for ``sign *
    2**-shift``.

    Raises:
        ValueError: a value whose denominator is not a power of two.
    """
    frac = point_of(value)
    n, terms, bit = value.numerator, [], 0
    while n:
        if n & 1:
            digit = 2 - (n & 3)
            terms.append((digit, frac - bit))
            n -= digit
        n >>= 1
        bit += 1
    return tuple(reversed(terms))


class Fixed(Number):
    """The exact number on numpy arrays: the golden model's carrier.

    The raw integers sit in a float64 array as long as the interval stays below 2**53, and in an array of
    Python integers beyond, so no width ever overflows.
    """

    __slots__ = ()

    @classmethod
    def of(cls, raw: Any, format: Format) -> Fixed:
        """Raw integers (any shape) of a stored value.

        Raises:
            ValueError: a raw value outside the format, or one that is not whole.
        """
        array = np.asarray(raw)
        if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
            raise ValueError("Raw values must be whole numbers, not fractions")
        if array.size and (array.min() < format.lo or array.max() > format.hi):
            raise ValueError(f"Raw values must lie in [{format.lo}, {format.hi}] for {format}")
        wide = max(-format.lo, format.hi) >= EXACT_FLOAT
        return cls(integers(array) if wide else array.astype(np.float64), format.frac, format.lo, format.hi)

    @property
    def value(self) -> np.ndarray:
        """The float64 values, of the shape of ``raw`` (exact for intervals below 2**53)."""
        return self.raw.astype(np.float64) * 2.0**-self.frac

    # The results below name their dtype: of arrays without dimensions numpy makes scalars, whose dtype it guesses.
    def _pair(self, other: Fixed, bound: int) -> tuple[np.ndarray, np.ndarray]:
        if bound < EXACT_FLOAT and self.raw.dtype != object and other.raw.dtype != object:
            return self.raw, other.raw
        return integers(self.raw), integers(other.raw)

    def _make(self, raw: Any, frac: int, lo: int, hi: int) -> Fixed:
        if raw.dtype == object and max(-lo, hi) < EXACT_FLOAT:
            raw = raw.astype(np.float64)
        return Fixed(raw, frac, lo, hi)

    def _constant(self, value: int, frac: int) -> Fixed:
        return Fixed(np.array(value, np.float64 if abs(value) < EXACT_FLOAT else object), frac, value, value)

    def _add(self, other: Fixed, bound: int) -> np.ndarray:
        a, b = self._pair(other, bound)
        return np.asarray(a + b, a.dtype)

    def _sub(self, other: Fixed, bound: int) -> np.ndarray:
        a, b = self._pair(other, bound)
        return np.asarray(a - b, a.dtype)

    def _mul(self, other: Fixed, bound: int) -> np.ndarray:
        a, b = self._pair(other, bound)
        return np.asarray(a * b, a.dtype)

    def _left(self, n: int, bound: int) -> np.ndarray:
        raw = self.raw if bound < EXACT_FLOAT else integers(self.raw)
        return np.asarray(raw * (1 << n), raw.dtype)

    def _floor(self, n: int) -> np.ndarray:
        if self.raw.dtype == object:
            return np.asarray(self.raw >> n, object)
        scaled = np.asarray(self.raw * 2.0**-n)
        return np.floor(scaled, out=scaled)

    def _clip(self, lo: int, hi: int) -> np.ndarray:
        clipped = np.asarray(np.maximum(self.raw, lo), self.raw.dtype)
        return np.minimum(clipped, hi, out=clipped)

    def _piecewise(
        self, knots: Sequence[int], slopes: Sequence[int], intercepts: Sequence[int], bound: int
    ) -> np.ndarray:
        # The product alone may be larger than the sum whose bound is given.
        wide = bound + max(abs(b) for b in intercepts) >= EXACT_FLOAT or self.raw.dtype == object
        dtype = object if wide else np.float64
        raw = integers(self.raw) if wide else self.raw
        piece = np.searchsorted(np.array(knots, dtype), raw, side="right")
        return np.asarray(np.array(slopes, dtype)[piece] * raw + np.array(intercepts, dtype)[piece])


def integers(raw: Any) -> np.ndarray:
    """Exact integers of any carrier as an array of Python integers."""
    array = np.asarray(raw)
    if array.dtype == object:
        return array
    return np.asarray(array.astype(np.int64).astype(object))
