"""Numbers as gates: comparisons with bounds from the high bits, and pipelined paths against integers."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.sim import Simulator

from hwrnn.activations import nonlinearity
from hwrnn.fixed import Fixed, Format
from hwrnn.rtl import numbers
from hwrnn.rtl.timing import SHORTEST, Timing


@pytest.mark.parametrize("shape", [*map(signed, range(1, 6)), *map(unsigned, range(1, 6))], ids=repr)
def test_every_value_against_every_bound(shape):
    m, value, flags = Module(), Signal(shape), {}
    for bound in range(-40, 41):
        above, below = flags[bound] = Signal(), Signal()
        m.d.comb += [above.eq(numbers._above(value, bound)), below.eq(numbers._below(value, bound))]

    async def bench(context):
        for raw in range(1 << shape.width):
            raw -= raw >> (shape.width - 1) << shape.width if shape.signed else 0
            context.set(value, raw)
            for bound, (above, below) in flags.items():
                assert (context.get(above), context.get(below)) == (raw > bound, raw < bound)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


# -- pipelines ---------------------------------------------------------------------------------------------------------
TIMINGS = {
    "shortest": SHORTEST,
    "sums registered": Timing(sums=True),
    "factors and products registered": Timing(factors=2, product=3),
    "products of adders": Timing(tree=True),
    "all of it": Timing(sums=True, factors=1, product=2),
}
WORKS = {
    "sum": lambda x, y: x + y,
    "difference": lambda x, y: y - x,
    "product": lambda x, y: x * y,
    "square": lambda x, y: x * x,
    "constants": lambda x, y: (x + Fraction(3, 4)) * (Fraction(-5, 2) - y),
    "a product meets what came before it": lambda x, y: x * y + x,
    "products of sums": lambda x, y: (x + y) * (x - y) - x * (y + Fraction(1)),
    "moved and rounded": lambda x, y: (x.aligned(6) * y).rounded(1) + x.rounded(0),
    "shifted out": lambda x, y: x.floored(-3) + y.floored(-2) * x.floored(-9),
    "below every bit": lambda x, y: x.rounded(-9) + y.rounded(-2),
    "stored": lambda x, y: (x * y - x).to(Format(5, 1)),
    "clipped": lambda x, y: x.clipped(-3, 5) * y.clipped(2, 4),
    "lines": lambda x, y: (x - y).apply(nonlinearity("relu")) + y.apply(nonlinearity("hard_sigmoid")),
    "named": lambda x, y: (x * y).named("early") + x.named("late") if isinstance(x, numbers.Wire) else x * y + x,
}
X, Y = (-9, 7), (0, 6)  # intervals of two numbers, the second of which enters a stage later


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("name", WORKS)
def test_a_path_has_the_values_of_integers_at_its_stage(name, timing):
    pairs = list(product(range(X[0], X[1] + 1), range(Y[0], Y[1] + 1)))
    pairs = [pairs[k * 37 % len(pairs)] for k in range(len(pairs))]  # neighbours differ in both
    m = Module()
    pipeline = numbers.Pipeline(m, "path", TIMINGS[timing])
    x, y = Signal(numbers.shape_of(*X)), Signal(numbers.shape_of(*Y))
    result = WORKS[name](pipeline.input(x, 2, *X), pipeline.input(y, 1, *Y, stage=1))
    first, second = (np.array(values, float) for values in zip(*pairs, strict=True))
    due = WORKS[name](Fixed(first, 2, *X), Fixed(second, 1, *Y))
    assert (result.frac, result.lo, result.hi) == (due.frac, due.lo, due.hi)
    out = Signal(numbers.shape_of(result.lo, result.hi))
    m.d.comb += out.eq(result.raw.value)
    seen = []

    async def bench(context):
        for cycle in range(len(pairs) + result.stage):
            context.set(x, pairs[cycle % len(pairs)][0])
            context.set(y, pairs[(cycle - 1) % len(pairs)][1])
            seen.append(context.get(out))
            await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen[result.stage :] == due.raw.astype(int).tolist()


def test_a_path_is_as_short_as_its_timing_lets_it():
    def stages(name):
        stage = []
        for timing in TIMINGS.values():
            pipeline = numbers.Pipeline(None, "path", timing)
            x, y = (pipeline.input(Signal(numbers.shape_of(*i)), 2, *i, stage=k) for k, i in enumerate((X, Y)))
            stage.append(WORKS[name](x, y).stage)
        return stage

    assert stages("sum") == stages("difference") == [1, 2, 1, 1, 2]
    assert stages("product") == [2, 2, 6, 3, 4]
    assert stages("square") == [1, 1, 5, 3, 3]
    assert stages("a product meets what came before it") == [2, 3, 6, 3, 5]


def test_a_path_counts_its_multipliers_by_signed_operands():
    pipeline = numbers.Pipeline(None, "path")
    x, y = (pipeline.input(Signal(numbers.shape_of(*i)), 0, *i) for i in (X, Y))
    _ = x * y, y * y
    assert pipeline.products == [(5, 4), (4, 4)]


def test_the_narrowest_shapes():
    assert [numbers.shape_of(*i) for i in ((0, 0), (0, 1), (-1, 0), (-1, 1), (0, 4))] == [
        unsigned(1), unsigned(1), signed(1), signed(2), unsigned(3),
    ]  # fmt: skip
