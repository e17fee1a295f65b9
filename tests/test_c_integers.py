"""The text of C integers, worked out in Python: the values of numpy's integers, and nothing beyond the bound."""

import re
from fractions import Fraction

import numpy as np
import pytest

from hwrnn.activations import PiecewiseLinear, nonlinearity
from hwrnn.c_integers import CNumber, Writer
from hwrnn.fixed import Fixed, Format

#: Intervals that lie on either side of zero, lean to one, or hold one number.
INTERVALS = [(-8, 7), (-9, 3), (-3, 9), (-12, -4), (4, 12), (0, 15), (-5, -5), (0, 0)]


class Watched(int):
    """An integer that tells the largest magnitude of what was worked out with it."""

    largest = 0

    def __new__(cls, value):
        Watched.largest = max(Watched.largest, abs(value))
        return super().__new__(cls, value)

    def __add__(self, other):
        return Watched(int(self) + int(other))

    def __sub__(self, other):
        return Watched(int(self) - int(other))

    def __mul__(self, other):
        return Watched(int(self) * int(other))


def worked_out(writer, name, value):
    """The value of the writer's last variable where the one of that name has a value, as C works it out."""
    known = {
        name: Watched(value),
        "p": [Watched(parameter) for parameter in writer.placed()],
        "lift": lambda a, n: Watched(int(a) << n),
        "floor_shift": lambda a, n: Watched(int(a) >> n),
    }
    for statement in writer.statements[1:]:
        target, text = re.fullmatch(r"const T (\w+) = (.*);", statement).groups()
        text = re.sub(r"([^()?]+) \? ([^()?:]+) : ([^()?:]+)", r"(\2 if \1 else \3)", text)
        known[target] = Watched(eval(text, {}, known))
    return int(known[f"n{writer.names}"])


def check(lo, hi, frac, work):
    """What ``work`` makes of a number in C and in numpy, for every value of an interval."""
    writer = Writer()
    number = CNumber(writer.let("x", max(-lo, hi)), frac, lo, hi)
    result = work(number)
    Watched.largest = 0
    for value in range(lo, hi + 1):
        due = work(Fixed(np.array([float(value)]), frac, lo, hi))
        assert (result.frac, result.lo, result.hi) == (due.frac, due.lo, due.hi)
        assert worked_out(writer, str(number.raw), value) == int(due.raw[0]), value
    assert Watched.largest <= writer.bound


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
@pytest.mark.parametrize("frac", [-2, 0, 3])
def test_moving_the_point_and_clipping(interval, frac):
    for other in range(frac, frac + 4):
        check(*interval, frac, lambda x, other=other: x.aligned(other))
    for other in range(frac - 5, frac + 4):
        check(*interval, frac, lambda x, other=other: x.rounded(other))
    for lo, hi in ((-4, 20), (-20, 3), (-2, 2), (-20, 20), (5, 6), (-6, -5)):
        check(*interval, frac, lambda x, lo=lo, hi=hi: x.clipped(lo, hi))


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_sums_and_products(interval):
    for other in (Fraction(3), Fraction(-5, 2), Fraction(0)):
        check(*interval, 1, lambda x, other=other: x + other)
        check(*interval, 1, lambda x, other=other: other - x)
        check(*interval, 1, lambda x, other=other: x * other)
    check(*interval, 1, lambda x: x * x - x)


def lines(*slopes, knots, first=0):
    """Lines that meet at the knots."""
    intercepts = [Fraction(first)]
    for knot, before, after in zip(knots, slopes, slopes[1:], strict=False):
        intercepts.append(intercepts[-1] + (Fraction(before) - Fraction(after)) * knot)
    return PiecewiseLinear("", None, tuple(map(Fraction, knots)), tuple(map(Fraction, slopes)), tuple(intercepts))


FUNCTIONS = {
    "relu": nonlinearity("relu"),
    "hard sigmoid": nonlinearity("hard_sigmoid"),
    "plan_tanh": nonlinearity("plan_tanh"),
    "table": nonlinearity("tanh").in_hardware(Format(4, 3)),
    "a steep line": lines(5, knots=(), first=-20),
    "a steep line far below": lines(0, 5, knots=(4,)),
    "a steep line far above": lines(0, 5, knots=(-8,)),
    "a line that ends far below": lines(0, 1, knots=(100,)),
    "a falling line": lines(-3, knots=(), first=7),
    "a line far below": lines(1, knots=(), first=-100),
    "three steep lines": lines(-7, 1, 9, knots=(-2, 3)),
    "knots out of reach": lines(2, -1, 3, 1, knots=(-60, 1, 70), first=1),
}


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
@pytest.mark.parametrize("frac", [0, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, frac, interval):
    check(*interval, frac, lambda x: x.apply(FUNCTIONS[name]))


def test_entries_that_no_value_reaches_stand_in_the_table():
    steps = PiecewiseLinear("", None, (Fraction(0),), (Fraction(0),) * 2, (Fraction(-1000), Fraction(3)))
    check(1, 2, 0, lambda x: x.apply(steps))
