"""Fits: the published table of errors, exhaustive searches that they must equal, and what a form promises."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest

from hwrnn.activations import nonlinearity
from hwrnn.certificates import certify
from hwrnn.fitting import FORMS, Fitted, fitted, slopes_of
from hwrnn.fixed import Fixed, Format

# Maximum errors on [-8, 8] of minimax fits by segments, computed independently of this code.
TABLE = {
    ("sigmoid", 1, "jumps"): {3: 0.0183, 4: 0.0114, 5: 0.0085, 6: 0.0078, 8: 0.0047},
    ("sigmoid", 2, "jumps"): {3: 0.0117, 4: 0.0063, 5: 0.0043, 6: 0.0030, 8: 0.0023},
    ("sigmoid", 2, "continuous"): {3: 0.0151, 4: 0.0083, 5: 0.0053},
    ("tanh", 1, "jumps"): {3: 0.0370, 4: 0.0229, 5: 0.0172, 6: 0.0158, 8: 0.0096},
    ("tanh", 2, "jumps"): {3: 0.0235, 4: 0.0125, 5: 0.0087, 6: 0.0057, 8: 0.0045},
}


@pytest.mark.parametrize("kind, terms, form", TABLE)
def test_fits_reach_the_table(kind, terms, form):
    for segments, due in TABLE[kind, terms, form].items():
        found = certify(fitted(kind, segments, terms, 18, form)).maximum
        assert found < due + 5e-5, (segments, found)  # the table's last digit is rounded


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["sigmoid", "tanh"])
def test_more_segments_never_fit_worse(kind, form):
    errors = [certify(fitted(kind, k, 2, 14, form), Format(16, 11), Format(16, 14)).maximum for k in range(2, 11)]
    assert all(b <= a + 2**-14 for a, b in pairwise(errors)), errors
    assert errors[-1] < errors[0] / 4


def least_errors(smooth, reach, slopes, segments):
    """The least error of 1 to ``segments`` pieces from 0 to the reach, by trying every knot on a grid."""
    x = np.arange(reach * 16 + 1) / 16
    y = smooth(x)
    error = np.full((len(x), len(x)), np.inf)  # of one piece between two points, both included
    for slope in slopes:
        rest = y - float(slope) * x
        for k in range(len(x)):
            spread = np.maximum.accumulate(rest[k:]) - np.minimum.accumulate(rest[k:])
            error[k, k:] = np.minimum(error[k, k:], spread / 2)
    best, least = np.where(x == 0, 0, np.inf), []
    for _ in range(segments):
        best = np.array([np.maximum(best[: k + 1], error[: k + 1, k]).min() for k in range(len(x))])
        least.append(best[-1])
    return least


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("kind", ["sigmoid", "tanh"])
def test_fits_with_jumps_are_optimal(kind, terms):
    """No worse than an exhaustive search and a rounding step, also between the points of the fit's grid."""
    output, reach = Format(18, 14), 8 if kind == "sigmoid" else 4
    least = least_errors(nonlinearity(kind).value, reach, [0, *slopes_of(terms)], 8)
    for segments in range(2, 9):
        function = fitted(kind, segments, terms, output.frac, "jumps")
        assert len([k for k in function.knots if 0 < k < reach]) <= segments - 1
        error = certify(function, Format(15, 10), output).maximum
        assert error <= 1.003 * least[segments - 1] + output.step, segments


@pytest.mark.parametrize("kind", [pytest.param("sigmoid", marks=pytest.mark.slow), "tanh"])
def test_continuous_fits_are_no_worse_than_an_exhaustive_search(kind):
    """Three segments, slopes that are single powers of two, knots on a coarse grid."""
    smooth, reach = nonlinearity(kind).value, 8 if kind == "sigmoid" else 4
    x, centre = np.arange(reach * 16 + 1) / 16, 0.5 if kind == "sigmoid" else 0.0
    least = np.inf
    for slopes in combinations(sorted([0.0, *map(float, slopes_of(1))], reverse=True), 3):
        for first, second in combinations(np.arange(1, reach * 8) / 8, 2):
            line = centre + slopes[0] * np.minimum(x, first) + slopes[1] * np.clip(x - first, 0, second - first)
            line += slopes[2] * np.maximum(x - second, 0)
            least = min(least, np.abs(line - smooth(x)).max())
    assert certify(fitted(kind, 3, 1, 18)).maximum <= 1.02 * least


@pytest.mark.parametrize("frac", [5, 8, 14])
@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("kind", ["sigmoid", "tanh", "hard_sigmoid_1_6", "hard_sigmoid_1_5"])
def test_continuous_fits_meet_at_their_knots_and_pass_through_the_centre(kind, terms, frac):
    for segments in (2, 3, 5, 8):
        f = fitted(kind, segments, terms, frac)
        centre = Fraction(0) if kind == "tanh" else Fraction(1, 2)
        middle = sum(k <= 0 for k in f.knots)
        assert f.intercepts[middle] == centre and 0 not in f.knots
        for k, knot in enumerate(f.knots):
            assert f.slopes[k] * knot + f.intercepts[k] == f.slopes[k + 1] * knot + f.intercepts[k + 1]
        assert all(a >= b for a, b in pairwise(f.slopes[middle:])), "concave on the right"
        assert len([k for k in f.knots if 0 < k < 8]) <= segments + (kind == "tanh") - 1


def test_a_fit_knows_the_rounding_at_its_format():
    """At few fraction bits a fit made for them is no worse than one made for many."""
    for kind in ("sigmoid", "tanh"):
        for bits in (4, 5, 6, 8):
            source, output = Format(12, 7), Format(bits + 2, bits)
            here, elsewhere = fitted(kind, 4, 2, bits), fitted(kind, 4, 2, 16)
            x = Fixed.of(np.arange(-1024, 1024), source)
            smooth = nonlinearity(kind).value(x.value)
            errors = [np.abs(f(x).to(output).value - smooth).max() for f in (here, elsewhere)]
            assert errors[0] <= errors[1] + 1e-12


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("kind", ["sigmoid", "tanh"])
def test_fitted_slopes_are_allowed_ones(kind, terms, form):
    function = fitted(kind, 6, terms, 10, form)
    assert isinstance(function, Fitted)
    assert set(function.slopes) <= {Fraction(0), *slopes_of(terms)}
    if form == "jumps":
        assert all(b.denominator <= 2**14 for b in function.intercepts)
    assert all(k.denominator <= 2**10 for k in function.knots)


@pytest.mark.parametrize("form", FORMS)
def test_a_fit_is_constant_beyond_its_reach(form):
    for kind, reach in (("sigmoid", 8), ("tanh", 4)):
        for segments in (2, 4, 8):
            low, high = fitted(kind, segments, 2, 12, form).flat_beyond
            assert low is not None and high is not None and -reach <= low == -high
