"""Products: every pair of factors, and the cycle in which their product stands."""

import itertools

import pytest
from amaranth.hdl import Module, Shape, Signal, signed, unsigned
from amaranth.sim import Simulator

from hwrnn.errors import UsageError
from hwrnn.rtl.multiplier import packed, parted, product
from hwrnn.rtl.numbers import shape_of
from hwrnn.rtl.timing import Timing

TIMINGS = {"one": Timing(), "three": Timing(product=3), "tree": Timing(tree=True)}


def numbers(shape):
    return range(-1 << (shape.width - 1), 1 << (shape.width - 1)) if shape.signed else range(1 << shape.width)


def products_of(a_shape, b_shape, timing):
    """``(a, b, product)`` of every pair of factors, a pair a cycle."""
    m, a, b = Module(), Signal(a_shape), Signal(b_shape)
    pairs = list(itertools.product(numbers(a_shape), numbers(b_shape)))
    every = [x * y for x, y in pairs]
    result = product(m, a, b, shape_of(min(every), max(every)), timing, "result")
    stages, found = timing.product_stages(a_shape.width, b_shape.width), []

    async def bench(context):
        for x, y in pairs + pairs[:1] * stages:
            context.set(a, x)
            context.set(b, y)
            found.append(context.get(result))
            await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return [(x, y, value) for (x, y), value in zip(pairs, found[stages:], strict=True)]


@pytest.mark.parametrize("signs", list(itertools.product([False, True], repeat=2)), ids=str)
@pytest.mark.parametrize("widths", list(itertools.product(range(1, 6), repeat=2)), ids=str)
@pytest.mark.parametrize("timing", TIMINGS)
def test_every_product(timing, widths, signs):
    shapes = [Shape(width, sign) for width, sign in zip(widths, signs, strict=True)]
    assert all(x * y == value for x, y, value in products_of(*shapes, TIMINGS[timing]))


@pytest.mark.parametrize("signs", list(itertools.product([False, True], repeat=2)), ids=str)
def test_every_product_of_unequal_factors(signs):
    shapes = [Shape(width, signed) for width, signed in zip((3, 9), signs, strict=True)]
    assert all(x * y == value for x, y, value in products_of(*shapes, TIMINGS["tree"]))


def test_a_tree_has_a_stage_for_each_level():
    stages = [Timing(tree=True).product_stages(width, 16) for width in range(1, 17)]
    assert stages == [1, 1, 2, 2, 3, 3, 3, 3, *[4] * 8]
    assert [Timing(product=k).product_stages(8, 8) for k in (1, 2, 5)] == [1, 2, 5]


def test_the_shortest_pipeline():
    eight, nine = signed(8), signed(9)
    assert (Timing().multiply(eight, eight), Timing().mac(eight, eight)) == (3, 5)
    assert Timing(memory=2, operand=1, product=3).mac(eight, eight) == 9
    assert Timing(tree=True).mac(eight, nine) == 7
    assert Timing(packed=(18, 18)).mac(signed(4), eight) == 6
    assert Timing(halves=(8, 8)).mac(eight, eight) == 5


def test_what_shares_a_multiplier():
    wide, two = Timing(packed=(18, 18)), Timing(halves=(8, 8))
    # Both products of 4 and 9 bits take 13, the higher weight 5: 18.
    assert wide.sharing(signed(4), signed(9)) == wide.sharing(signed(4), unsigned(8)) == "packed"
    assert wide.sharing(signed(4), signed(10)) == wide.sharing(signed(5), signed(8)) == ""
    assert Timing(packed=(25, 18)).sharing(signed(8), signed(8)) == "packed"
    assert two.sharing(signed(8), unsigned(8)) == two.sharing(signed(2), signed(3)) == "halves"
    assert two.sharing(signed(9), signed(8)) == two.sharing(signed(8), signed(9)) == ""
    assert Timing().sharing(signed(2), signed(2)) == ""


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("weight, operand", [(1, 3), (2, 2), (3, 4), (4, 4)])
def test_every_two_products_of_one_multiplication(weight, operand, signs):
    form = Shape(operand, signs)
    apart = weight + operand + (not signs)
    m, x = Module(), Signal(form)
    low, high = Signal(signed(weight)), Signal(signed(weight))
    word = packed(m, low, high, apart, "word")
    assert len(word) == apart + weight + 1
    both = product(m, word, x, signed(2 * apart), Timing(), "both")
    first, second = parted(m, both, apart, ("first", "second"))
    cases = list(itertools.product(numbers(low.shape()), numbers(low.shape()), numbers(form)))
    found = []

    async def bench(context):
        for a, b, c in cases + cases[:1] * 2:
            for signal, value in ((low, a), (high, b), (x, c)):
                context.set(signal, value)
            found.append((context.get(first), context.get(second)))
            await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found[2:] == [(a * c, b * c) for a, b, c in cases]


@pytest.mark.parametrize(
    "option, text",
    [
        ({"memory": 0}, "Timing's memory must be a whole number from 1 to 64, not 0"),
        ({"operand": -1}, "Timing's operand must be a whole number from 0 to 64, not -1"),
        ({"product": True}, "Timing's product must be a whole number from 1 to 64, not True"),
        ({"factors": 1.0}, "Timing's factors must be a whole number from 0 to 64, not 1.0"),
        ({"product": 65}, "Timing's product must be a whole number from 1 to 64, not 65"),
        ({"factors": 10**90}, f"Timing's factors must be a whole number from 0 to 64, not 1{'0' * 59}..."),
        ({"sums": 1}, "Timing's sums must be True or False, not 1"),
        ({"tree": None}, "Timing's tree must be True or False, not None"),
        ({"tree": True, "product": 2}, "Timing's product must be 1 beside a tree, not 2"),
    ],
    ids=str,
)
def test_timing_must_be_possible(option, text):
    with pytest.raises(UsageError) as error:
        Timing(**option)
    assert str(error.value) == text
