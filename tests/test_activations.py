"""Every nonlinearity: floats against exact integers against the oracle, certificates against published figures."""

from dataclasses import replace
from fractions import Fraction
from itertools import cycle, pairwise

import numpy as np
import pytest
from plain import plain_function

import oracle
from hwrnn.activations import (
    NONLINEARITIES,
    PARAMETRIC,
    PiecewiseLinear,
    Smooth,
    clip,
    clipped,
    nonlinearity,
    plainly_named,
)
from hwrnn.certificates import certify
from hwrnn.fitting import fitted
from hwrnn.fitting_general import Approximation
from hwrnn.fixed import Fixed, Format

PARAMETERS = {  # of every parametric nonlinearity; a new one must be entered here to be tested
    "leaky_relu": ("leaky_relu", "leaky_relu:1", "leaky_relu:15"),
    "pwl_sigmoid": ("pwl_sigmoid:2", "pwl_sigmoid:5:1:jumps", "pwl_sigmoid:8"),
    "pwl_tanh": ("pwl_tanh:4", "pwl_tanh:3:1", "pwl_tanh:6:2:jumps"),
    "leaky": ("leaky:0.01", "leaky:-0.25|1.5"),
    "thresholded": ("thresholded:1", "thresholded:-0.5|2.5"),
    "affine": ("affine:-2:0.25", "affine:0.3:0.1", "affine:0:0.5"),
    "hard_line": ("hard_line:-0.1875:0.5", "hard_line:0.2:0.5"),
    "scaled_tanh": ("scaled_tanh:-1.7159:0.6667", "scaled_tanh:0:1"),
    "elu": ("elu:1", "elu:-0.5|2"),
    "clip": ("clip:1.5", "clip:0.00390625", "clip:1.00390625", "clip:20"),
}
CLIPPED = ["sigmoid|3", "softplus|1.3", "plan_sigmoid|2.375", "table_tanh|1"]
ALL = [*NONLINEARITIES, *(name for base in PARAMETRIC for name in PARAMETERS[base]), *CLIPPED]
LINEAR = [name for name in ALL if isinstance(nonlinearity(name), PiecewiseLinear)]
STANDING = [n for n in LINEAR if nonlinearity(n).stands_for]
SYMMETRIC = [n for n in STANDING if nonlinearity(n).stands_for in ("sigmoid", "tanh")]
# What hardware gets a fit of that asks for no symmetry.
GENERAL = [n for n in ALL if isinstance(nonlinearity(n).in_hardware(Format(8, 7)), Approximation)]

INPUTS = [Format(16, 12), Format(16, 8), Format(8, 4), Format(8, 7), Format(12, 12, False)]
INPUTS += [Format(6, -2), Format(3, -6), Format(2, 1), Format(9, 20)]
OUTPUTS = [Format(8, 7), Format(8, 8, False), Format(16, 12), Format(4, 1), Format(2, 0), Format(10, 2)]


def exact(function, form):
    """Every raw input of a format, and the exact values as fractions."""
    raw = np.arange(form.lo, form.hi + 1)
    result = function(Fixed.of(raw, form))
    assert result.lo <= result.raw.min() and result.raw.max() <= result.hi
    return raw, result


@pytest.mark.parametrize("form", INPUTS, ids=str)
@pytest.mark.parametrize("name", LINEAR)
def test_exact_values_equal_float_values_and_the_oracle(name, form):
    function = nonlinearity(name).in_hardware(Format(10, 9))
    raw, result = exact(function, form)
    # Floats are exact here too: 16 bits times a slope of few bits.
    assert np.array_equal(result.value, function.value(form.dequantize(raw)))
    judge = oracle.function(plain_function(function))
    scale = Fraction(2) ** result.frac
    chosen = range(0, len(raw), max(1, len(raw) // 4096))
    for k in {*chosen, len(raw) - 1}:
        assert int(result.raw[k]) == judge(Fraction(int(raw[k])) / Fraction(2) ** form.frac) * scale


@pytest.mark.slow
@pytest.mark.parametrize(("name", "output"), list(zip(LINEAR, cycle(OUTPUTS), strict=False)), ids=str)
def test_stored_values_equal_the_oracle_for_every_input(name, output):
    """Every function and every output, in turn: the rounding behind a function is the same for all."""
    form = Format(16, 11)
    function = nonlinearity(name).in_hardware(output)
    raw, result = exact(function, form)
    judge, target = oracle.function(plain_function(function)), (output.width, output.frac, output.signed)
    expected = [oracle.rounded(judge(Fraction(n, 1 << 11)), target) for n in raw.tolist()]
    assert result.to(output).raw.tolist() == expected


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_stored_values_equal_the_oracle(name, output):
    function = nonlinearity(name).in_hardware(output)
    judge, target = oracle.function(plain_function(function)), (output.width, output.frac, output.signed)
    for form in (Format(10, 6), Format(5, -1)):
        raw, result = exact(function, form)
        expected = [oracle.rounded(judge(Fraction(n) / Fraction(2) ** form.frac), target) for n in raw.tolist()]
        assert result.to(output).raw.tolist() == expected


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("form", INPUTS, ids=str)
def test_a_table_within_an_interval_compares_with_no_knot_twice_or_out_of_reach(name, form):
    table = nonlinearity(name).in_hardware(form).at_fraction(form.frac)
    part, raw = table.within(form.lo, form.hi), np.arange(form.lo, form.hi + 1)
    assert all(a < b for a, b in pairwise((form.lo, *part.knots, form.hi + 1)))
    whole, few = (
        np.array(t.slopes)[piece] * raw + np.array(t.intercepts)[piece]
        for t, piece in ((t, np.searchsorted(t.knots, raw, side="right")) for t in (table, part))
    )
    assert np.array_equal(whole, few)


@pytest.mark.parametrize("name", LINEAR)
def test_a_clipped_line_equals_its_own_knots(name):
    function = nonlinearity(name)
    if function.as_clip() is None:
        return
    x = np.arange(-(2**10), 2**10) / 2**6
    general = np.searchsorted([float(k) for k in function.knots], x, side="right")
    slopes, intercepts = ([float(v) for v in values] for values in (function.slopes, function.intercepts))
    expected = np.take(slopes, general) * x + np.take(intercepts, general)
    assert np.abs(function.value(x) - expected).max() <= 2**-50  # slopes of 1/5 and 1/6 round
    if function.shift_only:
        assert np.array_equal(function.value(x), expected)
        for form in INPUTS:
            raw = np.arange(form.lo, form.hi + 1)
            table = function.at_fraction(form.frac)
            piece = np.searchsorted(table.knots, raw, side="right")
            whole = np.array(table.slopes)[piece] * raw + np.array(table.intercepts)[piece]
            assert np.array_equal(whole * 2.0**-table.frac, function(Fixed.of(raw, form)).value)
            assert (whole.min(), whole.max()) == table.interval(form.lo, form.hi)


def test_what_is_a_clipped_line():
    clipped = {name for name in LINEAR if nonlinearity(name).as_clip() is not None}
    assert {"identity", "relu", "relu1", "relu6", "hard_tanh", "hard_sigmoid_3_16", "clip:1.5"} <= clipped
    assert not clipped & {"leaky_relu", "plan_sigmoid", "plan_tanh", "pwl_tanh:4"}
    zero, one = Fraction(0), Fraction(1)
    jumps = PiecewiseLinear("", None, (zero,), (zero, one), (zero, one))
    falls = PiecewiseLinear("", None, (zero,), (-one, zero), (zero, zero))
    flat = PiecewiseLinear("", None, (zero,), (zero, zero), (zero, one))
    assert jumps.as_clip() is falls.as_clip() is flat.as_clip() is None
    for function in (jumps, falls, flat):
        raw, result = exact(function, Format(5, 2))
        assert np.array_equal(result.value, function.value(raw / 4))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_derivatives_keep_shape_and_dtype(name, dtype):
    x = np.linspace(-9, 9, 24, dtype=dtype).reshape(2, 3, 4)
    function = nonlinearity(name)
    for result in (function.value(x), function.derivative(x), function(x)):
        assert result.shape == x.shape and result.dtype == dtype


@pytest.mark.parametrize("name", ALL)
def test_derivatives_are_slopes(name):
    function = nonlinearity(name)
    knots = [float(k) for k in getattr(function, "knots", ())]
    x = np.random.default_rng(0).uniform(-8, 8, 500)
    step = 2**-16
    near = np.min([np.abs(x - k) for k in knots], axis=0) if knots else np.ones_like(x)
    x = x[near > 2 * step]
    slope = (function.value(x + step) - function.value(x - step)) / (2 * step)
    assert np.abs(slope - function.derivative(x)).max() < 1e-8
    if knots:  # at a knot: the piece above
        assert function.derivative(np.array(knots)).tolist() == [float(s) for s in function.slopes[1:]]


@pytest.mark.parametrize("name", ALL)
def test_names_lead_back(name):
    function = nonlinearity(name)
    assert nonlinearity(function.name) == function


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("output", [Format(4, 1), Format(8, 8, False), Format(32, 31)], ids=str)
def test_hardware_functions_stay_themselves(name, output):
    """A function that hardware computes is shifts and adds, and asking again changes nothing."""
    if name.startswith("table_") and output.frac > 12:
        pytest.skip("a table has results of at most 12 bits")
    hardware = nonlinearity(name).in_hardware(output)
    assert hardware.shift_only
    assert hardware.in_hardware(output) == hardware
    assert nonlinearity(hardware.name).in_hardware(output) == hardware
    assert hardware.stands_for == nonlinearity(name).stands_for


# Maximum and mean error on [-8, 8], from the literature and computed independently of this code.
ERRORS = {
    "hard_sigmoid": (0.1192, 0.0241),
    "hard_sigmoid_1_6": (0.0692, 0.0217),
    "hard_sigmoid_1_5": (0.0759, 0.0174),
    "hard_sigmoid_3_16": (0.0650, 0.0180),
    "hard_tanh": (0.2384, 0.0241),
    "plan_sigmoid": (0.0189, 0.0059),
    "plan_tanh": (0.0379, 0.0059),
}


@pytest.mark.parametrize("name", ERRORS)
def test_certificates(name):
    found = certify(nonlinearity(name))
    assert (found.maximum, found.mean) == pytest.approx(ERRORS[name], abs=1e-4)  # its last digit
    assert (found.function, found.stands_for) == (name, nonlinearity(name).stands_for)
    smooth = np.tanh(found.at) if found.stands_for == "tanh" else 1 / (1 + np.exp(-found.at))
    assert abs(float(nonlinearity(name).value(np.array(found.at))) - smooth) == pytest.approx(found.maximum, abs=1e-12)


def test_every_approximation_has_a_certificate():
    assert {n for n, f in NONLINEARITIES.items() if f.stands_for and not isinstance(f, Smooth)} == set(ERRORS)


@pytest.mark.parametrize("name", STANDING)
def test_certificates_at_formats_include_the_rounding(name):
    source, output = Format(12, 8), Format(8, 7)
    found = certify(nonlinearity(name), source, output)
    function = nonlinearity(name).in_hardware(output)
    judge, target = oracle.function(plain_function(function)), (8, 7, True)
    smooth = nonlinearity(function.stands_for).value
    errors = [
        abs(oracle.rounded(judge(Fraction(n, 256)), target) / 128 - float(smooth(np.array(n / 256))))
        for n in range(-2048, 2048)
    ]
    assert found.maximum == max(errors)
    assert found.mean == pytest.approx(sum(errors) / len(errors), abs=1e-13)
    assert found.maximum_lsb == found.maximum * 128 and found.mean_lsb == found.mean * 128


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetry_about_zero(name):
    function = nonlinearity(name)
    centre = 1.0 if function.stands_for == "sigmoid" else 0.0
    x = (np.arange(-1024, 1024) + 0.5) / 128  # between the knots: at one, the piece above holds on both sides
    assert np.abs(function.value(-x) - (centre - function.value(x))).max() < 1e-12


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("relu:3", None),
        ("selu", None),
        ("elu|1:2", "Nonlinearity must have a number behind the bar, not 'elu|1:2'"),
        ("elu|0", "Bound of a nonlinearity's input must be a positive number, not 0.0"),
        ("elu|nan", "Bound of a nonlinearity's input must be a positive number, not nan"),
        ("elu:x", "Nonlinearity elu must have a number after the colon, not 'elu:x'"),
        ("affine:1:x", "Nonlinearity affine must have numbers after the colon, not 'affine:1:x'"),
        ("elu:1:2", "Nonlinearity elu must have fewer parameters, not 'elu:1:2'"),
        ("affine:nan:0", "Parameters of affine must be numbers up to 65536 in size, not nan"),
        ("leaky:65537", "Parameters of leaky must be numbers up to 65536 in size, not 65537.0"),
        ("leaky_relu:0", "Leaky slope must be 2**-K with K between 1 and 15, not K = 0"),
        ("leaky_relu:16", "Leaky slope must be 2**-K with K between 1 and 15, not K = 16"),
        ("leaky_relu:x", "Nonlinearity leaky_relu must have whole numbers after the colon, not 'leaky_relu:x'"),
        ("leaky_relu:2:3", "Nonlinearity leaky_relu must have fewer parameters, not 'leaky_relu:2:3'"),
        ("pwl_tanh:1", "Segments of a fit must be a whole number between 2 and 16, not 1"),
        ("pwl_tanh:17", "Segments of a fit must be a whole number between 2 and 16, not 17"),
        ("pwl_tanh:4:3", "Terms of a fit must be a whole number between 1 and 2, not 3"),
        ("pwl_tanh:4.5", "Nonlinearity pwl_tanh must have whole numbers after the colon, not 'pwl_tanh:4.5'"),
        ("pwl_tanh:4:2:smooth", "Form of a fit must be continuous or jumps, not 'smooth'"),
        ("pwl_tanh:4:2:jumps:1", "Form of a fit must be continuous or jumps, not 'jumps:1'"),
        ("clip:0", "Clip must be a positive multiple of 1/256 up to 65536, not 0.0"),
        ("clip:-1", "Clip must be a positive multiple of 1/256 up to 65536, not -1.0"),
        ("clip:1.3", "Clip must be a positive multiple of 1/256 up to 65536, not 1.3"),
        ("clip:inf", "Clip must be a positive multiple of 1/256 up to 65536, not inf"),
        ("clip:nan", "Clip must be a positive multiple of 1/256 up to 65536, not nan"),
        ("clip:two", "Nonlinearity clip must have a number after the colon, not 'clip:two'"),
    ],
)
def test_errors_of_names(name, text):
    if text is None:
        known = (
            "identity, relu, relu1, relu6, hard_tanh, hard_sigmoid, hard_sigmoid_3_16, hard_sigmoid_1_5, "
            "hard_sigmoid_1_6, plan_sigmoid, plan_tanh, sigmoid, tanh, softsign, softplus, table_sigmoid, table_tanh, "
            "leaky_relu:K, pwl_sigmoid:K, pwl_tanh:K, clip:K, leaky:K, thresholded:K, affine:K, hard_line:K, "
            "scaled_tanh:K, elu:K"
        )
        text = f"Nonlinearity must be one of {known}, not {name!r}"
    with pytest.raises(ValueError) as caught:
        nonlinearity(name)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: fitted("tanh", 4, 2, 1), "Fraction bits of a fit must be a whole number between 2 and 24, not 1"),
        (lambda: fitted("tanh", 4, 2, 25), "Fraction bits of a fit must be a whole number between 2 and 24, not 25"),
        (
            lambda: certify(nonlinearity("relu")),
            "Nonlinearity must stand for a smooth function, not for itself as 'relu' does",
        ),
        (
            lambda: certify(nonlinearity("hard_tanh"), Format(8, 5)),
            "Formats must be given for both input and output, or for none",
        ),
        (
            lambda: PiecewiseLinear("", None, (Fraction(1), Fraction(1)), (), ()),
            "Knots must ascend, not (Fraction(1, 1), Fraction(1, 1))",
        ),
        (lambda: PiecewiseLinear("", None, (), (), ()), "Slopes and intercepts must be one more than the knots"),
        (
            lambda: nonlinearity("hard_sigmoid_1_6").at_fraction(4),
            "Constant must be a multiple of a power of two, not 1/6",
        ),
    ],
)
def test_errors(make, text):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == text


def test_default_parameters():
    assert nonlinearity("leaky_relu") == nonlinearity("leaky_relu:3")
    assert nonlinearity("pwl_sigmoid") == nonlinearity("pwl_sigmoid:4:2") == nonlinearity("pwl_sigmoid:4:2:continuous")
    assert nonlinearity("pwl_tanh:5:1:continuous").name == "pwl_tanh:5:1"
    assert nonlinearity("clip") == clip(2) == nonlinearity("clip:2")
    assert clip(2).name == "clip:2"


def limited(f, bound):
    return lambda x: f(np.clip(x, -bound, bound))


# The definitions of ONNX's text, typed from it.
DEFINITIONS = {
    "leaky:0.01": lambda x: np.where(x >= 0, x, 0.01 * x),
    "leaky:-0.3": lambda x: np.where(x >= 0, x, -0.3 * x),
    "thresholded:1.25": lambda x: np.where(x > 1.25, x, 0),
    "thresholded:-0.5": lambda x: np.where(x > -0.5, x, 0),
    "thresholded:0": lambda x: np.where(x > 0, x, 0),
    "affine:0.3:0.1": lambda x: 0.3 * x + 0.1,
    "affine:-2:0.25": lambda x: -2 * x + 0.25,
    "hard_line:0.2:0.5": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard_line:-0.2:0.3": lambda x: np.clip(-0.2 * x + 0.3, 0, 1),
    "hard_line:0:3": lambda x: np.ones_like(x),
    "scaled_tanh:1.7159:0.6667": lambda x: 1.7159 * np.tanh(0.6667 * x),
    "elu:0.3": lambda x: np.where(x >= 0, x, 0.3 * (np.exp(np.minimum(x, 0)) - 1)),
    "elu:-0.5": lambda x: np.where(x >= 0, x, -0.5 * (np.exp(np.minimum(x, 0)) - 1)),
    "softsign": lambda x: x / (1 + abs(x)),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "sigmoid|1.5": limited(lambda x: 1 / (1 + np.exp(-x)), 1.5),
    "elu:1|0.5|2": limited(lambda x: np.where(x >= 0, x, np.exp(x) - 1), 0.5),
    "thresholded:1|2": limited(lambda x: np.where(x > 1, x, 0), 2),
    "plan_sigmoid|1": limited(NONLINEARITIES["plan_sigmoid"].value, 1),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_values_are_those_of_the_definition(name):
    x = np.arange(-64 * 8, 64 * 8 + 1) / 64  # the thresholds and bounds are among them
    for dtype, error in ((np.float32, 2e-6), (np.float64, 1e-14)):
        found = nonlinearity(name).value(x.astype(dtype))
        assert np.abs(found - DEFINITIONS[name](x)).max() <= error


def test_a_limit_that_changes_nothing_is_none():
    assert clipped(nonlinearity("hard_tanh"), 1.5) is nonlinearity("hard_tanh")
    assert clipped(nonlinearity("hard_tanh"), 1) is nonlinearity("hard_tanh")
    assert clipped(nonlinearity("hard_tanh"), 0.5).name == "hard_tanh|0.5"
    assert clipped(clipped(nonlinearity("tanh"), 2), 3) is nonlinearity("tanh|2")


@pytest.mark.parametrize("output", [Format(8, 7), Format(8, 4), Format(6, 6, False), Format(16, 12)], ids=str)
@pytest.mark.parametrize("name", GENERAL)
def test_a_general_fit_keeps_its_bound(name, output):
    """Of every input of 14 bits, and far beyond; where results saturate so does the function."""
    function, source = nonlinearity(name), Format(14, 8)
    hardware = function.in_hardware(output)
    if not isinstance(hardware, Approximation):
        return  # at these formats hardware can say it
    for form in (source, Format(12, -2)):
        x = np.arange(form.lo, form.hi + 1)
        found = hardware(Fixed.of(x, form)).to(output).value
        due = np.clip(function.value(form.dequantize(x)), output.min, output.max)
        assert np.abs(found - due).max() <= hardware.bound + output.step / 2
    assert certify(function, source, output).bound == hardware.bound
    assert hardware.bound <= (1.5 if output.frac <= 7 else 128) * output.step
    assert len(hardware.slopes) <= 20


def test_a_planted_fault_breaks_a_fits_bound():
    function, output = nonlinearity("softplus"), Format(8, 4)
    hardware = function.in_hardware(output)
    wrong = replace(hardware, intercepts=tuple(b + Fraction(1, 8) for b in hardware.intercepts))
    x = np.arange(-1024, 1024) / 256
    assert np.abs(wrong.value(x) - function.value(x)).max() > hardware.bound + output.step / 2


def test_a_name_may_be_a_hundred_characters_long():
    name = "elu:1." + 94 * "0"
    assert len(name) == 100 and plainly_named(name) is not None and plainly_named(f"{name}0") is None


def test_where_functions_are_constant():
    slopes, intercepts = [0, 1, 2, 0], [-2, 0, 0, 6]
    bent = PiecewiseLinear("", None, *(tuple(map(Fraction, values)) for values in ([-2, 0, 3], slopes, intercepts)))
    assert bent.flat_beyond == (-2.0, 3.0)
    assert nonlinearity("relu").flat_beyond == (0.0, None)


def test_parameters_that_are_left_out_are_those_of_onnx():
    # HardSigmoid's are 0.2 and 0.5, LeakyRelu's 0.01, the others' 1; Affine and ScaledTanh have none there.
    due = {"leaky": "0.01", "thresholded": "1", "affine": "1:0", "hard_line": "0.2:0.5", "scaled_tanh": "1:1"}
    due["elu"] = "1"
    x = np.linspace(-6, 6, 97)
    for base, parameters in due.items():
        assert np.array_equal(nonlinearity(base).value(x), nonlinearity(f"{base}:{parameters}").value(x))
    for name in ("elu:1|3", "tanh|2", "hard_line:0.25:0.5|1.5"):
        named = plainly_named(name)
        assert named is not None and np.array_equal(named.value(x), nonlinearity(name).value(x))
    assert plainly_named("pwl_tanh:4|3") is None and plainly_named("elu:1|") is None
