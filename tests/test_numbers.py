"""Numbers as gates: comparisons with bounds, from the high bits where that is enough."""

import pytest
from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.sim import Simulator

from hwrnn.rtl import numbers


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
