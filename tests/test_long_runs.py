"""Networks that run for long: no value leaves its proven range, and hardware still equals golden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from long_runs import INPUTS, NETWORKS, drift, escapes, pair, proven, raw_inputs, run

from hwrnn.compiler import CPP, compiler_available
from hwrnn.sim import check

LONG = 100_000


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_value_leaves_its_proven_range(name, bits):
    """And the states stay near those of the float network, at first and where nobody pushes them."""
    found = drift(name, bits, (10, 1000))
    assert found.faults == []
    for state, reached in found.reached.items():
        assert 0 < reached <= found.bound[state] < np.inf
        first, later = found.largest[state].T
        assert (first <= later).all() and (found.mean[state] <= later).all()
        assert first.max() < 64 * 2.0**-bits * max(1, found.bound[state]), "ten steps"


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_nor_in_a_hundred_thousand_steps(name):
    quantized = pair(name, 8, seed=1)[1]
    bounds = proven(quantized)
    for part in run(None, quantized, raw_inputs(quantized, LONG, seed=1)):
        assert escapes(part, bounds) == []


@pytest.mark.parametrize("name, state", [("rnn", "h"), ("lstm", "c"), ("gru", "h")])
def test_a_bound_that_is_one_too_small_is_found(name, state):
    model, quantized = pair(name, 8)
    bounds = proven(quantized)
    (part,) = run(model, quantized, raw_inputs(quantized, 2000))
    assert escapes(part, bounds) == []
    step = quantized.layers[0].formats.values[state].step
    box = bounds[state]
    for planted in (replace(box, hi=box.hi - step), replace(box, lo=box.lo + step)):
        (fault,) = escapes(part, bounds | {state: planted})
        assert fault.startswith(f"{state}[") and "outside [" in fault and " input" in fault


def test_long_runs_go_on_where_they_were(monkeypatch):
    """In stretches or at once: the same integers, and the same floats."""
    model, quantized = pair("lstm-peephole", 8)
    raw = raw_inputs(quantized, 500)
    (whole,) = run(model, quantized, raw)
    monkeypatch.setattr("long_runs._CHUNK", 130)
    parts = list(run(model, quantized, raw))
    assert [part.start for part in parts] == [0, 130, 260, 390]
    for kind in ("integers", "floats"):
        for name, values in getattr(whole, kind).items():
            np.testing.assert_array_equal(np.concatenate([getattr(p, kind)[name] for p in parts], axis=1), values)


def test_inputs_reach_the_ends_of_their_format():
    quantized = pair("gru", 8)[1]
    raw = raw_inputs(quantized, 3000)
    assert raw.shape == (len(INPUTS), 3000, 3)
    form = quantized.input_format
    assert set(np.unique(raw[2])) == {form.lo, form.hi} and len(np.unique(raw[1], axis=0)) == 1
    assert raw.min() == form.lo and raw.max() == form.hi and raw[0].std() > form.hi / 4


def _hardware(name: str, bits: int, steps: int) -> int:
    """Cycles that hardware took for one long sequence of each kind, every value compared with golden's."""
    quantized = pair(name, bits)[1]
    raw = raw_inputs(quantized, steps)
    x = quantized.input_format.dequantize(raw).astype(np.float32)
    assert (quantized.quantize_input(x) == raw).all()
    report = check(quantized, x, np.full(len(raw), steps), lanes=16, simulator="cxxrtl")
    assert report.steps == 3 * steps
    return int(report.cycles)


@pytest.mark.skipif(not compiler_available(CPP), reason="no C++ compiler")
def test_hardware_equals_golden_over_a_hundred_thousand_cycles():
    assert _hardware("lstm", 8, 1600) >= LONG


@pytest.mark.slow
@pytest.mark.skipif(not compiler_available(CPP), reason="no C++ compiler")
def test_hardware_equals_golden_over_millions_of_cycles():
    assert _hardware("gru", 16, LONG // 3) >= 10 * LONG
