"""Formats and exact numbers against plain fractions."""

import math
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from hwrnn.activations import NONLINEARITIES, PiecewiseLinear, nonlinearity
from hwrnn.fixed import Fixed, Format, Number, bits_for, integers, point_of, round_half_up, signed_powers

settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")

FORMATS = st.builds(
    lambda width, frac, signed: Format(width + signed, frac, signed),
    st.integers(1, 40),
    st.integers(-20, 50),
    st.booleans(),
)


SHIFT_ONLY = [f for f in NONLINEARITIES.values() if isinstance(f, PiecewiseLinear) and f.shift_only]


def value_of(number, k=0):
    """The exact value of one element."""
    return Fraction(int(np.ravel(number.raw)[k])) / Fraction(2) ** number.frac


@st.composite
def numbers(draw, carrier_bits=70):
    """A number of one element, with its interval, on either carrier."""
    lo = draw(st.integers(-(2**carrier_bits), 2**carrier_bits))
    hi = draw(st.integers(lo, lo + 2 ** draw(st.integers(0, carrier_bits))))
    raw = draw(st.integers(lo, hi))
    wide = max(-lo, hi) >= 2**53
    return Fixed(np.array([raw], object if wide else np.float64), draw(st.integers(-30, 60)), lo, hi)


def assert_sound(number):
    """The value lies in the interval, and the carrier is exact for it."""
    assert number.lo <= int(number.raw[0]) <= number.hi
    assert (number.raw.dtype == object) or max(-number.lo, number.hi) < 2**53


# -- formats --------------------------------------------------------------------------------------------------------


def test_bits_for_is_minimal():
    for lo, hi in product(range(-20, 21), repeat=2):
        if lo <= hi:
            width, signed = bits_for(lo, hi)
            assert signed == (lo < 0)
            fits = [w for w in range(8) if _holds(w, signed, lo, hi)]
            assert width == fits[0]


def _holds(width, signed, lo, hi):
    if signed:
        return width >= 1 and -(2 ** (width - 1)) <= lo and hi < 2 ** (width - 1)
    return lo >= 0 and hi < 2**width


@pytest.mark.parametrize(
    ("form", "lo", "hi", "step", "q", "hls"),
    [
        (Format(16, 12), -32768, 32767, 2**-12, "Q4.12", "ap_fixed<16,4,AP_RND,AP_SAT>"),
        (Format(8, 8, False), 0, 255, 2**-8, "UQ0.8", "ap_ufixed<8,0,AP_RND,AP_SAT>"),
        (Format(8, 10), -128, 127, 2**-10, "Q-2.10", "ap_fixed<8,-2,AP_RND,AP_SAT>"),
        (Format(4, -3), -8, 7, 8, "Q7.-3", "ap_fixed<4,7,AP_RND,AP_SAT>"),
        (Format(1, 0, False), 0, 1, 1, "UQ1.0", "ap_ufixed<1,1,AP_RND,AP_SAT>"),
        (Format(2, 1), -2, 1, 0.5, "Q1.1", "ap_fixed<2,1,AP_RND,AP_SAT>"),
        (Format(64, 0), -(2**63), 2**63 - 1, 1, "Q64.0", "ap_fixed<64,64,AP_RND,AP_SAT>"),
    ],
)
def test_format_properties(form, lo, hi, step, q, hls):
    assert (form.lo, form.hi, form.step, str(form), form.ap_fixed) == (lo, hi, step, q, hls)
    assert (form.min, form.max) == (float(lo) * step, float(hi) * step)
    assert Format(**form.to_json()) == form


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 3, False), "Format width must be between 1 and 128, not 0"),
        ((1, 3), "Format width must be between 2 and 128, not 1"),
        ((129, 3), "Format width must be between 2 and 128, not 129"),
        ((8.0, 3), "Format width and frac must be integers, not 8.0 and 3"),
        ((8, "3"), "Format width and frac must be integers, not 8 and '3'"),
    ],
)
def test_format_errors(arguments, text):
    with pytest.raises(ValueError) as caught:
        Format(*arguments)
    assert str(caught.value) == text


@given(FORMATS, st.floats(-1e30, 1e30))
def test_quantize_equals_the_oracle(form, x):
    assert int(form.quantize(x)) == oracle.rounded(Fraction(x), (form.width, form.frac, form.signed))


@pytest.mark.parametrize("bits", [1, 2, 5, 30])
def test_quantize_rounds_ties_up(bits):
    form = Format(40, bits)
    ties = (np.arange(-9, 9) + 0.5) * form.step
    assert form.quantize(ties).tolist() == list(range(-8, 10))


def test_quantize_is_exact_where_float_addition_is_not():
    form = Format(60, 0)
    for x in (0.5 - 2**-54, -0.5 - 2**-53, 2.0**52 + 1, -(2.0**52) - 1, 2.0**53 - 1, -0.0, -1e-300, 1.5):
        assert int(form.quantize(x)) == oracle.rounded(Fraction(x), (60, 0, True)), x
    assert round_half_up(np.array([0.5 - 2**-54])).tolist() == [0.0]


@pytest.mark.parametrize("form", [Format(64, 0), Format(64, 0, False), Format(63, 3), Format(80, 9), Format(54, -2)])
def test_quantize_saturates_wide_formats(form):
    raw = form.quantize([[math.inf, -math.inf], [1e300, -1e300]])
    assert raw.tolist() == [[form.hi, form.lo], [form.hi, form.lo]]


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.integers(2, 40))
def test_to_hold_is_the_finest_that_holds(a, b, width):
    lo, hi = sorted((a, b))
    form = Format.to_hold(lo, hi, width)
    assert form.width == width and form.signed == (lo < 0)
    assert holds(form, lo, hi)
    if max(abs(lo), abs(hi)) >= 2**-40:
        assert not holds(Format(width, form.frac + 1, form.signed), lo, hi)


def holds(form, lo, hi):
    half = Fraction(form.step) / 2
    return Fraction(form.min) - half <= Fraction(lo) and Fraction(hi) <= Fraction(form.max) + half


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((1, 0), "Range must be finite and ordered, not [1, 0]"),
        ((0, math.inf), "Range must be finite and ordered, not [0, inf]"),
        ((math.nan, 1), "Range must be finite and ordered, not [nan, 1]"),
    ],
)
def test_to_hold_errors(bounds, text):
    with pytest.raises(ValueError) as caught:
        Format.to_hold(*bounds, 8)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("bounds", "form"),
    [
        ((-1, 1), "Q2.6"), ((-1, 0.996), "Q1.7"), ((0, 1), "UQ1.7"), ((-2, 0), "Q2.6"), ((0, 1000), "UQ10.-2"),
        # Half a step beyond either end is held, and nothing more.
        ((-1, 127.5 / 128), "Q1.7"), ((-128.5 / 128, 0), "Q1.7"), ((0, 255.5 / 256), "UQ0.8"),
        ((-1, math.nextafter(127.5 / 128, 1)), "Q2.6"), ((math.nextafter(-128.5 / 128, -2), 0), "Q2.6"),
    ],
)  # fmt: skip
def test_to_hold_examples(bounds, form):
    assert str(Format.to_hold(*bounds, 8)) == form


# -- numbers --------------------------------------------------------------------------------------------------------


@given(numbers(), numbers())
def test_sum_difference_and_product_are_exact(a, b):
    x, y = value_of(a), value_of(b)
    for result, expected in ((a + b, x + y), (a - b, x - y), (a * b, x * y)):
        assert value_of(result) == expected
        assert_sound(result)


@given(numbers(), st.integers(-(2**60), 2**60), st.integers(-8, 12))
def test_constants_are_exact(a, n, frac):
    constant, x = Fraction(n) / Fraction(2) ** frac, value_of(a)
    for result, expected in (
        (a + constant, x + constant),
        (constant + a, x + constant),
        (a - constant, x - constant),
        (constant - a, constant - x),
        (a * constant, x * constant),
        (constant * a, x * constant),
    ):
        assert value_of(result) == expected
        assert_sound(result)


@given(numbers(), st.integers(-20, 20), st.integers(0, 30))
def test_shifts_are_exact(a, shift, more):
    assert value_of(a.scaled(shift)) == value_of(a) / Fraction(2) ** shift
    assert value_of(a.aligned(a.frac + more)) == value_of(a)
    assert_sound(a.aligned(a.frac + more))


@given(numbers(), FORMATS)
def test_to_equals_the_oracle(a, form):
    result = a.to(form)
    assert int(result.raw[0]) == oracle.rounded(value_of(a), (form.width, form.frac, form.signed))
    assert result.frac == form.frac and form.lo <= result.lo and result.hi <= form.hi
    assert_sound(result)


@given(numbers(), st.integers(0, 40))
def test_floor_is_towards_minus_infinity(a, less):
    result = a.floored(a.frac - less)
    assert int(result.raw[0]) == math.floor(value_of(a) * Fraction(2) ** (a.frac - less))
    assert_sound(result)


def test_intervals_are_tight():
    """Over all raw values of small formats, every interval's ends are reached."""
    a_form, b_form = Format(4, 2), Format(3, 1, False)
    grid = np.array(list(product(range(a_form.lo, a_form.hi + 1), range(b_form.lo, b_form.hi + 1))))
    a, b = Fixed.of(grid[:, 0], a_form), Fixed.of(grid[:, 1], b_form)
    wanted = Format(3, 0)
    for result in (a + b, a - b, b - a, a * b, a.to(wanted), (a * b).to(wanted), a.rounded(-1)):
        assert (result.raw.min(), result.raw.max()) == (result.lo, result.hi)
    for name in ("relu", "relu1", "hard_sigmoid", "hard_sigmoid_3_16", "plan_sigmoid", "plan_tanh", "leaky_relu"):
        result = a.apply(nonlinearity(name))
        assert (result.raw.min(), result.raw.max()) == (result.lo, result.hi), name


@pytest.mark.parametrize(
    ("raw", "expected"), [(-5, -1), (-4, -1), (-3, -1), (-2, 0), (-1, 0), (1, 0), (2, 1), (3, 1), (5, 1), (6, 2)]
)
def test_half_rounds_up_also_below_zero(raw, expected):
    assert Fixed.of([raw], Format(4, 2)).rounded(0).raw.tolist() == [expected]


def test_saturation_at_both_ends():
    a = Fixed.of(np.arange(-128, 128), Format(8, 0))
    for form in (Format(4, 0), Format(4, 0, False), Format(2, -3), Format(3, 2)):
        expected = [oracle.rounded(Fraction(n), (form.width, form.frac, form.signed)) for n in range(-128, 128)]
        assert a.to(form).raw.tolist() == expected


def test_the_widest_format():
    assert Format(128, 0).hi == 2**127 - 1


def test_clipping_to_its_own_ends_is_free():
    a = Fixed.of([3, -2], Format(8, 3))
    assert a.clipped(a.lo, a.hi) is a and a.clipped(a.lo - 1, a.hi) is a and a.clipped(a.lo + 1, a.hi) is not a


def test_the_narrowest_format():
    assert Fixed.of([0], Format(8, 3)).clipped(0, 0).format == Format(1, 3, False)
    assert (Fixed.of([0], Format(8, 3)) * Fixed.of([0], Format(8, 3))).format == Format(16, 6)
    assert Fixed.of([0], Format(36, 3)) * Fixed.of([0], Format(36, 3))


@settings(max_examples=400)
@given(numbers(60), st.sampled_from(SHIFT_ONLY))
def test_functions_are_exact_on_any_interval(a, function):
    result = a.apply(function)
    assert value_of(result) == oracle.function(function.name)(value_of(a))
    assert_sound(result)


@pytest.mark.parametrize("name", ["relu", "leaky_relu:2", "hard_tanh", "plan_sigmoid", "relu6"])
@pytest.mark.parametrize(("lo", "hi"), [(-100, -50), (-50, 0), (0, 60), (50, 100), (700, 800)])
def test_functions_on_one_sided_intervals(name, lo, hi):
    raw = np.arange(lo, hi + 1)
    result = Fixed(raw.astype(float), 4, lo, hi).apply(nonlinearity(name))
    expected = [oracle.function(name)(Fraction(n, 16)) for n in raw.tolist()]
    assert [value_of(result, k) for k in range(len(raw))] == expected
    assert result.raw.min() == result.lo and result.raw.max() == result.hi


@pytest.mark.parametrize("slope", [Fraction(5, 8), Fraction(3, 8), Fraction(11, 16), Fraction(7)])
def test_lines_of_several_powers(slope):
    """Powers of two that are added and such that are subtracted, below a bound."""
    below = PiecewiseLinear("", None, (Fraction(0),), (slope, Fraction(0)), (Fraction(0), Fraction(0)))
    raw = np.arange(-20, 9)
    result = Fixed(raw.astype(float), 3, -20, 8).apply(below)
    assert [value_of(result, k) for k in range(len(raw))] == [min(slope * int(n) / 8, 0) for n in raw]


def test_functions_bounded_above_only():
    zero, one = Fraction(0), Fraction(1)
    below = PiecewiseLinear("", None, (zero,), (one, zero), (zero, zero))  # min(x, 0)
    assert below.as_clip() == (1, 0, (None, 0))
    for lo, hi in ((-5, -2), (-3, 4), (2, 6)):
        raw = np.arange(lo, hi + 1)
        result = Fixed(raw.astype(float), 0, lo, hi).apply(below)
        assert result.raw.tolist() == np.minimum(raw, 0).tolist()
        assert (result.lo, result.hi) == (min(lo, 0), min(hi, 0))


@pytest.mark.parametrize("bits", [52, 53, 62, 63, 64, 65])
def test_constants_aligned_beyond_every_integer_type(bits):
    """A constant has no dimensions, and numpy would make a machine integer of it, which wraps."""
    x = Fixed.of([5], Format(4, bits))
    for constant in (1, -1, Fraction(3, 4), -2):
        assert value_of(x + constant) == Fraction(5, 2**bits) + constant
        assert value_of(constant - x) == constant - Fraction(5, 2**bits)


def test_a_product_beyond_float_whose_sum_is_not():
    # 3 x + b with x near 2**52: the product needs 54 bits, the sum 20.
    function = PiecewiseLinear(
        "", None, (Fraction(0),), (Fraction(1), Fraction(3)), (Fraction(0), Fraction(-3 * 2**52))
    )
    x = 2**52 + 2**18 + 1
    result = Fixed(np.array([float(x)]), 0, x - 9, x + 9).apply(function)
    assert int(result.raw[0]) == 3 * (2**18 + 1)


def test_carriers():
    narrow, wide = Fixed.of([3], Format(53, 0)), Fixed.of([2**60 + 1], Format(64, 0))
    assert narrow.raw.dtype == np.float64 and wide.raw.dtype == object
    assert (wide + narrow).raw.tolist() == [2**60 + 4]
    assert (narrow * wide).raw.tolist() == [3 * (2**60 + 1)]
    assert wide.to(Format(20, -45)).raw.dtype == np.float64  # narrow again, fast again
    assert wide.value.tolist() == [2.0**60]
    assert Fixed.of([-3, 5], Format(8, 2)).value.tolist() == [-0.75, 1.25]
    assert Fixed.of([-3, 5], Format(8, -2)).value.tolist() == [-12, 20]
    assert integers(narrow.raw).tolist() == [3] and type(integers(narrow.raw)[0]) is int


class Other(Number):
    """A carrier of another kind."""


def test_mixed_carriers_are_refused():
    with pytest.raises(TypeError) as caught:
        Fixed.of([1], Format(4, 0)) + Other(1, 0, 0, 1)
    assert str(caught.value) == "Operands must be of one carrier, not Fixed and Other"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Fixed.of([8], Format(4, 0)), "Raw values must lie in [-8, 7] for Q4.0"),
        (lambda: Fixed.of([-1], Format(4, 2, False)), "Raw values must lie in [0, 15] for UQ2.2"),
        (lambda: Fixed.of([0.5], Format(4, 0)), "Raw values must be whole numbers, not fractions"),
        (lambda: Fixed(np.zeros(1), 0, 3, 2), "Interval must be ordered, not [3, 2]"),
        (lambda: Fixed.of([1], Format(4, 2)).aligned(1), "Fraction bits must be at least 2, not 1"),
        (lambda: Fixed.of([1], Format(4, 2)).floored(3), "Fraction bits must be at most 2, not 3"),
        (lambda: point_of(Fraction(1, 3)), "Constant must be a multiple of a power of two, not 1/3"),
        (
            lambda: Fixed.of([1], Format(4, 2)) + Fraction(2, 5),
            "Constant must be a multiple of a power of two, not 2/5",
        ),
    ],
)
def test_number_errors(make, text):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == text


@given(st.integers(-(2**20), 2**20), st.integers(-5, 20))
def test_signed_powers_are_the_fewest(n, frac):
    value = Fraction(n) / Fraction(2) ** frac
    terms = signed_powers(value)
    assert sum(sign * Fraction(2) ** -shift for sign, shift in terms) == value
    shifts = [shift for _, shift in terms]
    assert all(b - a >= 2 for a, b in pairwise(shifts))  # non-adjacent, hence minimal


def test_numpy_leaves_the_arithmetic_to_the_number():
    a = Fixed.of([1, 2], Format(8, 1))
    assert (2 * a).raw.tolist() == [2, 4] and (Fraction(1, 2) - a).raw.tolist() == [0, -1]
    with pytest.raises(TypeError):
        np.ones(2) * a
