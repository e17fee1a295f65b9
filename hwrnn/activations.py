"""Nonlinearities: piecewise-linear functions that cost shifts and adds, and the smooth ones they stand for.

A hardware nonlinearity is one object, :class:`PiecewiseLinear`: knots, slopes that are sums of at most two
signed powers of two, and intercepts. Its float value and derivative, its exact integer form (used by the
golden model, the gates and the ONNX graph alike) and its certificate all follow from that description. Adding
one is one entry in :data:`NONLINEARITIES`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from hwrnn.fixed import Format, point_of, signed_powers

__all__ = [
    "NONLINEARITIES",
    "PARAMETRIC",
    "Nonlinearity",
    "PiecewiseLinear",
    "Smooth",
    "Table",
    "clipped",
    "nonlinearity",
    "plainly_named",
]


#: Name, alpha and beta of an activation of ONNX's recurrent operators; None where it has no such parameter.
OnnxActivation = tuple[str, float | None, float | None]


@dataclass(frozen=True)
class Nonlinearity:
    """What every nonlinearity has. Call it with a float array, or with any number that has ``apply``.

    Attributes:
        name: the catalogue's name, which :func:`nonlinearity` turns into the same object again.
        stands_for: the smooth function that it approximates, for its certificate; None where it is its own.
    """

    name: str
    stands_for: str | None

    @property
    def onnx(self) -> OnnxActivation | None:
        """What ONNX calls it, and its alpha and beta; None where it has no name there or the pieces say it."""
        return None

    def __call__(self, x: Any) -> Any:
        return x.apply(self) if hasattr(x, "apply") else self.value(np.asarray(x))

    def value(self, x: np.ndarray) -> np.ndarray:
        """Float values of ``x`` (any shape), in the dtype of ``x``."""
        raise NotImplementedError

    def derivative(self, x: np.ndarray) -> np.ndarray:
        """Derivative at ``x`` (any shape); at a knot that of the piece above it."""
        raise NotImplementedError

    def in_hardware(self, output: Format) -> PiecewiseLinear:
        """The function that hardware computes where the result is rounded to ``output``."""
        raise NotImplementedError


#: ``(slope, intercept, (low, high))`` of one rising line between two bounds, None where it has no such bound.
ClippedLine = tuple[Fraction, Fraction, tuple[Fraction | None, Fraction | None]]


@dataclass(frozen=True)
class Table:
    """A piecewise-linear function on integers: ``(slopes[k] * raw + intercepts[k]) * 2**-frac``."""

    knots: tuple[int, ...]
    slopes: tuple[int, ...]
    intercepts: tuple[int, ...]
    frac: int

    def piece(self, raw: int) -> int:
        """The piece of an integer: how many knots are at or below it."""
        return bisect_right(self.knots, raw)

    def within(self, lo: int, hi: int) -> Table:
        """The table without the pieces that no integer in ``[lo, hi]`` reaches: nothing compares with their knots."""
        if (lo, hi) not in self._parts:
            first, last = self.piece(lo), self.piece(hi)
            inner = [k for k in range(first + 1, last) if self.knots[k - 1] < self.knots[k]]
            kept = dict.fromkeys([first, *inner, last])
            self._parts[lo, hi] = Table(
                tuple(self.knots[k - 1] for k in kept if k != first),
                tuple(self.slopes[k] for k in kept),
                tuple(self.intercepts[k] for k in kept),
                self.frac,
            )
        return self._parts[lo, hi]

    @cached_property
    def _parts(self) -> dict[tuple[int, int], Table]:
        return {}

    def interval(self, lo: int, hi: int) -> tuple[int, int]:
        """The exact range of the table over ``[lo, hi]``: a line is extreme at the ends of its piece."""
        points = {lo, hi}
        points.update(p for k in self.knots for p in (k - 1, k) if lo <= p <= hi)
        values = [self.slopes[k] * p + self.intercepts[k] for p in points for k in (self.piece(p),)]
        return min(values), max(values)


@dataclass(frozen=True)
class PiecewiseLinear(Nonlinearity):
    """``slopes[k] * x + intercepts[k]``, where ``k`` counts the knots that are ``<= x``.

    Raises:
        ValueError: knots that do not ascend, or a number of slopes or intercepts that is not one more than
            theirs.
    """

    knots: tuple[Fraction, ...]
    slopes: tuple[Fraction, ...]
    intercepts: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if list(self.knots) != sorted(set(self.knots)):
            raise ValueError(f"Knots must ascend, not {self.knots!r}")
        if not len(self.slopes) == len(self.intercepts) == len(self.knots) + 1:
            raise ValueError("Slopes and intercepts must be one more than the knots")

    @cached_property
    def shift_only(self) -> bool:
        """Whether hardware can compute it with shifts and one adder: short dyadic numbers, slopes of two terms."""
        # Knots may be any fraction (8/3 for 3x/16 + 1/2): integers are compared with the next one.
        try:
            short = all(point_of(value) <= _FINEST_POINT for value in (*self.slopes, *self.intercepts))
            return short and all(len(signed_powers(s)) <= 2 for s in self.slopes)
        except ValueError:
            return False

    @property
    def gradients(self) -> tuple[Fraction, ...]:
        """What training takes for the slope of each piece: its own, except where a subclass says otherwise."""
        return self.slopes

    def value(self, x: np.ndarray) -> np.ndarray:
        clip = self.as_clip()
        if clip is not None:
            slope, intercept, (low, high) = clip
            y = x * _as(slope, x) + _as(intercept, x)
            y = y if low is None else np.maximum(y, _as(low, x))
            return y if high is None else np.minimum(y, _as(high, x))
        piece = np.searchsorted(_floats(self.knots, x), x, side="right")
        return np.asarray(_floats(self.slopes, x)[piece] * x + _floats(self.intercepts, x)[piece])

    def derivative(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(_floats(self.gradients, x)[np.searchsorted(_floats(self.knots, x), x, side="right")])

    def in_hardware(self, output: Format) -> PiecewiseLinear:
        if self.shift_only:
            return self
        return _fit_for(self.name, output) if self.name in NONLINEARITIES else _general_fit(self, output)

    def as_clip(self) -> ClippedLine | None:
        """The function as one rising line between two bounds, or None where it is more than that."""
        return self._as_clip

    @cached_property
    def _as_clip(self) -> ClippedLine | None:
        sloped = [k for k, s in enumerate(self.slopes) if s]
        if len(sloped) != 1 or self.slopes[sloped[0]] < 0 or len(self.slopes) > 3:
            return None
        k = sloped[0]
        slope, intercept = self.slopes[k], self.intercepts[k]
        low = self.intercepts[k - 1] if k > 0 else None
        high = self.intercepts[k + 1] if k < len(self.knots) else None
        if k > 1 or k + 2 < len(self.slopes):
            return None
        meets_low = low is None or slope * self.knots[k - 1] + intercept == low
        meets_high = high is None or slope * self.knots[k] + intercept == high
        return (slope, intercept, (low, high)) if meets_low and meets_high else None

    def at_fraction(self, frac: int) -> Table:
        """The function on integers with ``frac`` fraction bits, exactly; knots may be any fraction.

        Raises:
            ValueError: a slope or intercept that is not a multiple of a power of two.
        """
        if frac not in self._tables:
            self._tables[frac] = self._at_fraction(frac)
        return self._tables[frac]

    @cached_property
    def _tables(self) -> dict[int, Table]:
        return {}

    def _at_fraction(self, frac: int) -> Table:
        scale = max(point_of(s) for s in self.slopes)
        out = max(frac + scale, *(point_of(b) for b in self.intercepts))
        return Table(
            tuple(math.ceil(k * Fraction(2) ** frac) for k in self.knots),
            tuple(int(s * Fraction(2) ** (out - frac)) for s in self.slopes),
            tuple(int(b * Fraction(2) ** out) for b in self.intercepts),
            out,
        )

    @property
    def flat_beyond(self) -> tuple[float | None, float | None]:
        """The inputs below and above which the function is constant; None where it never is."""
        low = float(self.knots[0]) if self.knots and not self.slopes[0] else None
        high = float(self.knots[-1]) if self.knots and not self.slopes[-1] else None
        return low, high


@dataclass(frozen=True)
class Smooth(Nonlinearity):
    """A smooth function, for float models; hardware gets a fitted approximation of it.

    Attributes:
        function, slope_from_value: numpy's ufuncs and operators only, which training prints as C too.
        slope_from_input: where the value does not say the slope.
        turns: the inputs at which the function turns from falling to rising or back.
        known_as: see :attr:`Nonlinearity.onnx`.
    """

    function: Callable[[np.ndarray], np.ndarray]
    slope_from_value: Callable[[np.ndarray], np.ndarray]
    slope_from_input: Callable[[np.ndarray], np.ndarray] | None = None
    turns: tuple[float, ...] = ()
    known_as: OnnxActivation | None = None

    @property
    def onnx(self) -> OnnxActivation | None:
        return self.known_as

    def __reduce__(self) -> tuple[Any, ...]:
        return nonlinearity, (self.name,)  # pickled by name, since most functions cannot be

    @property
    def slope(self) -> Callable[[np.ndarray], np.ndarray]:
        """The derivative, from the input where there is ``slope_from_input``, else from the value."""
        return self.slope_from_input or self.slope_from_value

    def value(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.function(x))

    def derivative(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.slope(self.function(x) if self.slope_from_input is None else x))

    def in_hardware(self, output: Format) -> PiecewiseLinear:
        # Both are point-symmetric, and have fitters that make use of it.
        return (_fit_for if self.name in ("sigmoid", "tanh") else _general_fit_named)(self.name, output)


_FINEST_POINT = 32  # fraction bits of a slope or an intercept in hardware


def _as(value: Fraction, like: np.ndarray) -> Any:
    return like.dtype.type(float(value)) if like.dtype.kind == "f" else float(value)


def _floats(values: Sequence[Fraction], like: np.ndarray) -> np.ndarray:
    return np.array([float(v) for v in values], like.dtype if like.dtype.kind == "f" else np.float64)


def _pwl(name: str, stands_for: str | None, knots: str, slopes: str, intercepts: str) -> PiecewiseLinear:
    parse = lambda text: tuple(Fraction(word) for word in text.split())  # noqa: E731
    return PiecewiseLinear(name, stands_for, parse(knots), parse(slopes), parse(intercepts))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + 0.5  # never overflows


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.absolute(x)))  # never overflows


def _softsign_slope(y: np.ndarray) -> np.ndarray:
    root = 1 - np.absolute(y)
    return root * root


def _leaky(shift: int) -> PiecewiseLinear:
    if not 1 <= shift <= 15:
        raise ValueError(f"Leaky slope must be 2**-K with K between 1 and 15, not K = {shift!r}")
    zero, slopes = Fraction(0), (Fraction(1, 1 << shift), Fraction(1))
    return PiecewiseLinear(f"leaky_relu:{shift}", None, (zero,), slopes, (zero, zero))


@lru_cache(maxsize=256)
def clip(bound: float) -> PiecewiseLinear:
    """The identity between ``-bound`` and ``bound``, constant outside: a clipped cell state.

    Raises:
        ValueError: a bound that is not a positive multiple of 1/256 up to 65536. Hardware compares with it
            exactly, and the fraction bits of, say, 1.3 would make that comparison 50 bits wider.
    """
    if not (0 < bound <= 65536 and bound * 256 == int(bound * 256)):
        raise ValueError(f"Clip must be a positive multiple of 1/256 up to 65536, not {bound!r}")
    edge, zero = Fraction(bound), Fraction(0)
    slopes, intercepts = (zero, Fraction(1), zero), (-edge, zero, edge)
    return PiecewiseLinear(f"clip:{bound:.15g}", None, (-edge, edge), slopes, intercepts)


def _fit_for(function: str, output: Format) -> PiecewiseLinear:
    from hwrnn.fitting import fit_for

    return fit_for(function, 8, 2, output)


def _general_fit(function: Nonlinearity, output: Format) -> PiecewiseLinear:
    from hwrnn.fitting_general import general_fit

    return general_fit(function, output)


def _general_fit_named(name: str, output: Format) -> PiecewiseLinear:
    return _general_fit(nonlinearity(name), output)


def clipped(function: Nonlinearity, bound: float) -> Nonlinearity:
    """The function of an input that is first limited to ``[-bound, bound]``, as ONNX's ``clip`` does.

    Raises:
        ValueError: a bound that is not a positive finite number.
    """
    from hwrnn.clipping import clipped as made

    return made(function, bound)


def _real(base: str) -> Callable[..., Nonlinearity]:
    def make(*parameters: float) -> Nonlinearity:
        from hwrnn import smooth

        return smooth.MAKERS[base](*parameters)

    return make


def _pwl_fit(function: str) -> Callable[..., Nonlinearity]:
    def make(segments: int = 4, terms: int = 2, *form: str) -> Nonlinearity:
        from hwrnn.fitting import FORMS, fitted

        if len(form) > 1 or (form and form[0] not in FORMS):
            known = " or ".join(FORMS)
            raise ValueError(f"Form of a fit must be {known}, not {':'.join(form)!r}")
        return fitted(function, segments, terms, form=form[0] if form else FORMS[0])

    return make


#: The catalogue: a name without parameters and its one description.
NONLINEARITIES: dict[str, Nonlinearity] = {
    f.name: f
    for f in (
        _pwl("identity", None, "", "1", "0"),
        _pwl("relu", None, "0", "0 1", "0 0"),
        _pwl("relu1", None, "0 1", "0 1 0", "0 0 1"),
        _pwl("relu6", None, "0 6", "0 1 0", "0 0 6"),
        _pwl("hard_tanh", "tanh", "-1 1", "0 1 0", "-1 0 1"),
        _pwl("hard_sigmoid", "sigmoid", "-2 2", "0 1/4 0", "0 1/2 1"),
        _pwl("hard_sigmoid_3_16", "sigmoid", "-8/3 8/3", "0 3/16 0", "0 1/2 1"),
        # References: their slopes are no sums of two powers of two, so hardware gets a fit of them.
        _pwl("hard_sigmoid_1_5", "sigmoid", "-5/2 5/2", "0 1/5 0", "0 1/2 1"),
        _pwl("hard_sigmoid_1_6", "sigmoid", "-3 3", "0 1/6 0", "0 1/2 1"),
        # PLAN: H. Amin, K. M. Curtis, B. R. Hayes-Gill, IEE Proc. Circuits Devices Syst. 144 (1997) 313-317.
        # It jumps by 1/256 at 19/8. The paper works on |x|; here the piece above a knot holds at the knot
        # itself, so at -19/8 alone the value is 1/256 below the paper's.
        _pwl("plan_sigmoid", "sigmoid", "-5 -19/8 -1 1 19/8 5", "0 1/32 1/8 1/4 1/8 1/32 0",
             "0 5/32 3/8 1/2 5/8 27/32 1"),
        _pwl("plan_tanh", "tanh", "-5/2 -19/16 -1/2 1/2 19/16 5/2", "0 1/8 1/2 1 1/2 1/8 0",
             "-1 -11/16 -1/4 0 1/4 11/16 1"),
        Smooth("sigmoid", "sigmoid", _sigmoid, lambda y: y * (1 - y), known_as=("Sigmoid", None, None)),
        Smooth("tanh", "tanh", np.tanh, lambda y: 1 - y * y, known_as=("Tanh", None, None)),
        Smooth("softsign", "softsign", lambda x: x / (1 + np.absolute(x)), _softsign_slope,
               known_as=("Softsign", None, None)),
        Smooth("softplus", "softplus", _softplus, lambda y: -np.expm1(-y), known_as=("Softplus", None, None)),
    )
}  # fmt: skip


#: Names that take parameters after a colon, with the defaults that stand where none are given.
PARAMETRIC: dict[str, tuple[Callable[..., Nonlinearity], tuple[float, ...]]] = {
    "leaky_relu": (_leaky, (3,)),
    "pwl_sigmoid": (_pwl_fit("sigmoid"), (4,)),
    "pwl_tanh": (_pwl_fit("tanh"), (4,)),
    "clip": (clip, (2.0,)),
    # ONNX's activations; the defaults are those of ONNX.
    "leaky": (_real("leaky"), (0.01,)),
    "thresholded": (_real("thresholded"), (1.0,)),
    "affine": (_real("affine"), (1.0, 0.0)),
    "hard_line": (_real("hard_line"), (0.2, 0.5)),
    "scaled_tanh": (_real("scaled_tanh"), (1.0, 1.0)),
    "elu": (_real("elu"), (1.0,)),
}


def _is_real(base: str) -> bool:
    """Whether the parameters of a name are any numbers; else they are whole ones."""
    return isinstance(PARAMETRIC[base][1][0], float)


def _parameter(base: str, k: int, text: str) -> Any:
    if base.startswith("pwl_") and k >= 2:
        return text  # the form of the fit
    return float(text) if _is_real(base) else int(text)


_LONGEST_NAME = 100  # of a name in a file: a longer one is of no nonlinearity


def plainly_named(name: str) -> Nonlinearity | None:
    """The nonlinearity of a name that says all of it without a fit, such as ``elu:1|3``; else None."""
    if len(name) > _LONGEST_NAME:
        return None
    inner = name.rpartition("|")[0] or name
    base = inner.partition(":")[0]
    if inner not in NONLINEARITIES and (base not in PARAMETRIC or base == "clip" or not _is_real(base)):
        return None
    try:
        return nonlinearity(name)
    except ValueError:
        return None


def nonlinearity(name: str) -> Nonlinearity:
    """The nonlinearity of a name: ``hard_tanh``, ``leaky_relu:4``, ``pwl_sigmoid:5``, ``pwl_tanh:4:1``,
    ``pwl_sigmoid:5:2:jumps``, ``hard_line:0.2:0.5``; behind a bar the bound of its input: ``sigmoid|3``.

    Raises:
        ValueError: an unknown name or parameters that do not fit it.
    """
    inner, bar, limit = str(name).rpartition("|")
    if bar:
        try:
            bound = float(limit)
        except ValueError:
            raise ValueError(f"Nonlinearity must have a number behind the bar, not {name!r}") from None
        return clipped(nonlinearity(inner), bound)
    base, *given = str(name).split(":")
    if base in NONLINEARITIES and not given:
        return NONLINEARITIES[base]
    if base not in PARAMETRIC:
        known = ", ".join([*NONLINEARITIES, *(f"{n}:K" for n in PARAMETRIC)])
        raise ValueError(f"Nonlinearity must be one of {known}, not {name!r}")
    make, default = PARAMETRIC[base]
    try:
        parameters: list[Any] = [_parameter(base, k, text) for k, text in enumerate(given)] or list(default)
        return make(*parameters)
    except TypeError as error:
        raise ValueError(f"Nonlinearity {base} must have fewer parameters, not {name!r}") from error
    except ValueError as error:
        text = str(error)
        if "invalid literal" in text or "could not convert" in text:
            kind = ("a number" if len(default) == 1 else "numbers") if _is_real(base) else "whole numbers"
            raise ValueError(f"Nonlinearity {base} must have {kind} after the colon, not {name!r}") from error
        raise


# Last, because they are built of the smooth ones: the tables enter themselves.
import hwrnn.staircase  # noqa: E402, F401
