"""Accumulators cannot overflow: the theorem for every cell, its worst case in the lanes, and the solver's proofs."""

from __future__ import annotations

import random

import numpy as np
import pytest
from amaranth.hdl import Module, signed
from amaranth.sim import Simulator
from formal import missing
from formal_accumulators import half_of, partial_sums, proofs, range_of, small
from networks import network_of

from hwrnn.cells import CELLS
from hwrnn.rtl import lanes as lanes_module
from hwrnn.rtl.elementwise import gate_interval
from hwrnn.rtl.engine import schedule_of
from hwrnn.rtl.front import Front
from hwrnn.rtl.lanes import Lanes, sum_shape_of

PROOFS = {proof.name: proof for proof in proofs()}
EVERY_DAY = ["gru, 4 bits, 2 units, 1 lanes", "gru, 4 bits, 2 units, 1 lanes, one bit less"]


def rows_of(layer, budget):
    """The last partial sum of each gate of each unit."""
    schedule = schedule_of(layer, budget)
    for lane in range(schedule.lanes):
        rows = {}
        for column in partial_sums(layer, schedule, lane):
            if column.gate is not None:
                rows[column.gate, column.unit] = column
        yield from rows.items()


@pytest.mark.parametrize("bits", [2, 3, 8, 16])
@pytest.mark.parametrize("cell", CELLS)
def test_every_partial_sum_fits_and_no_narrower_accumulator_would_do(cell, bits):
    model = network_of(cell, 3, 5, bits=bits, seed=bits)[0]
    for layer in (model.layers[0], model.head):
        for budget in (1, 4, 30):
            schedule = schedule_of(layer, budget)
            width = sum_shape_of(layer).width
            low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
            columns = [c for lane in range(schedule.lanes) for c in partial_sums(layer, schedule, lane)]
            assert all(low <= c.least <= c.most <= high for c in columns)
            assert max(max(-1 - c.least, c.most).bit_length() for c in columns) == width - 1
            rows = dict(rows_of(layer, budget))
            assert set(rows) == {(gate, unit) for gate in layer.cell.gates for unit in range(layer.units)}
            for (gate, _), row in rows.items():
                least, most = gate_interval(layer, gate)
                assert least <= row.least <= row.most <= most


@pytest.mark.parametrize("cell", CELLS)
def test_the_worst_case_is_a_sum_of_operands_that_exist(cell):
    """Each operand at the end of its format that its weight's sign tells, multiplied and summed."""
    layer = network_of(cell, 3, 5)[0].layers[0]
    rows = dict(rows_of(layer, 4))
    for k, phase in enumerate(layer.cell.phases):
        for gate, reads in phase.gates.items():
            for unit in range(layer.units):
                for positive, end in ((True, rows[gate, unit].most), (False, rows[gate, unit].least)):
                    total = int(layer.biases[gate][unit]) + half_of(layer, gate)
                    for name in reads:
                        weights, (low, high) = layer.weights[gate, name][unit], range_of(layer, k, name)
                        total += int(weights @ np.where((weights > 0) == positive, high, low))
                    assert total == end


def summed(layer, budget, lane, worst):
    """The sums of a lane after each column of a step, where each operand is the worst for it."""
    schedule = schedule_of(layer, budget)
    lanes, front = Lanes(layer, schedule), Front(schedule)
    columns = list(partial_sums(layer, schedule, lane))
    m = Module()
    m.submodules.lanes, m.submodules.front = lanes, front
    m.d.comb += [
        *(lanes.issue.eq(front.go), lanes.start.eq(front.start), lanes.second.eq(front.second)),
        *(lanes.restart.eq(front.ends_step), front.go.eq(1)),
    ]
    if lanes.needs_place:
        m.d.comb += [lanes.row_pass.eq(front.row_pass), lanes.phase.eq(front.phase)]
    found = []

    async def bench(context):
        for cycle in range(len(columns) + schedule.mac):
            if 0 <= cycle - 2 < len(columns):
                column = columns[cycle - 2]
                least, most = range_of(layer, column.phase, column.operand)
                context.set(lanes.operand, most if (column.weight > 0) == worst else least)
            if 0 <= cycle - (schedule.mac - 1) < len(columns):
                found.append(context.get(getattr(lanes, f"sum_{lane}")))
            await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found, columns


@pytest.mark.parametrize("cell", CELLS)
def test_lanes_hold_the_worst_case(cell):
    layer = network_of(cell, 3, 5)[0].layers[0]
    for lane in range(schedule_of(layer, 4).lanes):
        found, columns = summed(layer, 4, lane, True)
        assert found == [column.most for column in columns]
    found, columns = summed(layer, 4, 0, False)
    assert found == [column.least for column in columns]


def test_a_narrower_accumulator_overflows(monkeypatch):
    layer = small("lstm", 8, 3)
    width = sum_shape_of(layer).width
    monkeypatch.setattr(lanes_module, "sum_shape_of", lambda layer: signed(width - 1))
    wrong = False
    for lane in range(schedule_of(layer, 4).lanes):
        for worst in (True, False):
            found, columns = summed(layer, 4, lane, worst)
            wrong |= found != [column.most if worst else column.least for column in columns]
    assert wrong


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
@pytest.mark.parametrize("name", EVERY_DAY)
def test_proofs(name):
    PROOFS[name].check()


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=missing() or "")
@pytest.mark.parametrize("name", random.Random(6).sample([n for n in PROOFS if n not in EVERY_DAY], 6))
def test_more_proofs(name):
    PROOFS[name].check()
