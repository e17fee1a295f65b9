"""The activation unit: every input's bits as golden has them, whichever way is built, and what either costs."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from hwrnn.activations import NONLINEARITIES, PARAMETRIC, nonlinearity
from hwrnn.fixed import Fixed, Format
from hwrnn.model import build_model
from hwrnn.quantization import quantize
from hwrnn.rtl import activation
from hwrnn.rtl.activation import Applied, as_stored, is_table, line_luts, table_luts
from hwrnn.rtl.elementwise import ElementWise, depth_of
from hwrnn.rtl.numbers import Pipeline
from hwrnn.rtl.ports import shape
from hwrnn.rtl.timing import SHORTEST, Timing

NAMES = [*NONLINEARITIES, *PARAMETRIC, "pwl_tanh:5:1:jumps"]
CASES = [
    (Format(6, 3), Format(3, 3, False)),
    (Format(7, 3), Format(4, 3)),
    (Format(9, 5), Format(5, 4)),
    (Format(5, 2, False), Format(4, 2)),
    (Format(10, 9), Format(8, 7)),
]


def simulated(function, source: Format, output: Format, timing: Timing = SHORTEST) -> list[int]:
    m = Module()
    pipeline = Pipeline(m, "u", timing)
    from amaranth.hdl import Signal

    x = Signal(shape(source))
    wire = as_stored(pipeline.input(x, source.frac, source.lo, source.hi).apply(function), output).named("y")
    found = []

    async def bench(context):
        for raw in range(source.lo, source.hi + 1):
            context.set(x, raw)
            for _ in range(wire.stage):
                await context.tick()
            found.append(context.get(wire.raw.value))

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


@pytest.mark.parametrize("built", ["table", "lines"])
@pytest.mark.parametrize("source, output", CASES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_input_has_golden_s_bits(name, source, output, built, monkeypatch):
    monkeypatch.setattr(activation, "is_table", lambda value, form: built == "table" and isinstance(value, Applied))
    function = nonlinearity(name).in_hardware(output)
    raw = np.arange(source.lo, source.hi + 1)
    expected = function(Fixed.of(raw, source)).to(output).raw
    assert simulated(function, source, output) == expected.tolist()


def test_a_wrong_entry_is_found(monkeypatch):
    entries = activation._entries
    monkeypatch.setattr(activation, "_entries", lambda *a: (*entries(*a)[:5], entries(*a)[5] + 1, *entries(*a)[6:]))
    monkeypatch.setattr(activation, "is_table", lambda value, form: True)
    source, output = Format(7, 3), Format(4, 3)
    function = nonlinearity("pwl_sigmoid:4").in_hardware(output)
    expected = function(Fixed.of(np.arange(-64, 64), source)).to(output).raw
    assert simulated(function, source, output) != expected.tolist()


def test_the_rule_takes_a_table_where_inputs_are_narrow():
    def choice(name: str, bits: int) -> bool:
        source, output = Format(bits + 3, bits - 1), Format(bits, bits, False)
        function = nonlinearity(name).in_hardware(output)
        return is_table(Pipeline(None, "u").input(None, source.frac, source.lo, source.hi).apply(function), output)

    assert [choice("pwl_sigmoid:4", bits) for bits in (3, 4, 5, 6, 8, 10)] == [True] * 4 + [False] * 2
    assert all(choice("table_sigmoid", bits) for bits in (3, 4, 5, 6, 8))
    # Counted by hand: 8 entries of which the low bit alone is no constant; 16 entries, both bits the same.
    identity = nonlinearity("leaky_relu:1")
    assert table_luts(identity, 0, 0, 1, Format(2, 0)) == 1
    assert table_luts(identity, 1, 0, 15, Format(4, -1)) == 3 and line_luts(identity, 1, 0, 15, Format(4, -1)) > 3


@pytest.mark.parametrize("timing", [SHORTEST, Timing(sums=True)], ids=["shortest", "sums"])
def test_depth_and_manifest_follow_what_is_built(timing):
    x = np.random.default_rng(0).uniform(-2, 2, (8, 5, 2)).astype(np.float32)

    class data:
        class train:
            pass

    data.train.x, data.train.lengths = x, np.full(8, 5)
    depths = {}
    for bits in (4, 8):
        model = build_model(2, 2, cell="lstm", hidden=3, gate="pwl_sigmoid:4", activation="pwl_tanh:4")
        model = quantize(model, data, bits, method="mse")
        path = ElementWise.build(None, model.layers[0], 0, "p", timing)
        depths[bits] = (path.depth,)
        assert depth_of(model.layers[0], timing) == depths[bits]
        built = {name: path.units[name] for name in ("i", "f", "o", "g")}
        assert set(built.values()) == ({"table"} if bits == 4 else {"lines"}), built
