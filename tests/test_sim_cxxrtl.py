"""CXXRTL against Amaranth's own simulator, cycle for cycle, and how its libraries are kept."""

import stat

import numpy as np
import pytest
from networks import KINDS, network_of

from hwrnn.cells import CELLS
from hwrnn.compiler import CPP, compiler, compiler_available
from hwrnn.errors import UsageError
from hwrnn.rtl.network import Network
from hwrnn.sim import STALLS, check, simulate
from hwrnn.sim.amaranth_simulator import run_amaranth
from hwrnn.sim.cxxrtl import run_cxxrtl
from hwrnn.sim.stimuli import stimulus

needs_compiler = pytest.mark.skipif(not compiler_available(CPP), reason="no C++ compiler")


def verify_same(network, stimulated):
    one, other = run_amaranth(network, stimulated), run_cxxrtl(network, stimulated)
    for name in ("outputs", "last", "output_cycles", "input_cycles"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.cycles == other.cycles and len(one.outputs) == stimulated.outputs
    assert one.probes.keys() == other.probes.keys() == network.probes.keys()
    for key, (values, cycles) in one.probes.items():
        np.testing.assert_array_equal(values, other.probes[key][0], err_msg=str(key))
        np.testing.assert_array_equal(cycles, other.probes[key][1], err_msg=str(key))


@needs_compiler
@pytest.mark.parametrize("number, cell", list(enumerate(KINDS[:6])))
def test_same_cycles_as_amaranth(number, cell):
    """One design of each cell, under every stall of either port; all of them together under all sixteen pairs."""
    options = {"outputs": (None, 1, 4)[number % 3], "every_step": number % 2 > 0, "layers": 1 + number % 2}
    widths = {"weight_bits": 3 + 2 * number, "activation_bits": 16 - 2 * number, "state_bits": 4 + number}
    model, x, lengths = network_of(cell, 1 + number, 4, widths=widths, seed=number, lengths=(3, 1), **options)
    network = Network(model, (1, 3, 5, 8, 16, 100)[number], argmax=number % 4 == 1, probed=True)
    raw = model.quantize_input(x)
    for seed, input_stall in enumerate(STALLS):
        output_stall = STALLS[(seed + number) % len(STALLS)]
        verify_same(network, stimulus(network, raw, lengths, input_stall, output_stall, seed))


@needs_compiler
def test_widest_ports_same_as_amaranth():
    model, x, lengths = network_of("lstm", bits=32, every_step=True)
    network = Network(model, 7, probed=True)
    verify_same(network, stimulus(network, model.quantize_input(x), lengths, "random", "random"))


@needs_compiler
@pytest.mark.parametrize("inputs, units, lanes, cycles", [(12, 32, 4, 1408), (12, 32, 16, 352), (6, 20, 16, 130)])
def test_figures(inputs, units, lanes, cycles):
    report = check(*network_of("lstm", inputs, units, 9, lengths=(12, 7, 1)), lanes=lanes, simulator="cxxrtl")
    assert report.cycles_per_step == report.ideal_cycles_per_step == cycles
    assert report.multiplier_utilization == 1 and report.closed_forms
    assert report.compared == 20 * 11 * units + 3 * (2 * 9 + 2 * 9)  # eleven values of a unit, two of an output


@needs_compiler
@pytest.mark.slow
def test_figures_of_all_rows_at_once():
    report = check(*network_of("lstm", 12, 32, 9, lengths=(12, 7, 1)), lanes=128, simulator="cxxrtl")
    assert report.cycles_per_step == 44 and report.multiplier_utilization == 1 and report.closed_forms


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_long_runs(cell):
    """Thousands of steps under every pair of stalls: what happens once in a thousand does happen."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, 60)
    model, x, lengths = network_of(cell, 3, 7, 5, lengths=lengths, every_step=cell in ("gru", "lstm"))
    network = Network(model, 12, probed=True)
    for seed, input_stall in enumerate(STALLS):
        for output_stall in STALLS:
            check(model, x, lengths, network=network, simulator="cxxrtl", input_stall=input_stall,
                  output_stall=output_stall, seed=seed)  # fmt: skip


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HWRNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_no_compiler(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not compiler_available(CPP)
    network = network_of("rnn", lengths=(2,))
    with pytest.raises(UsageError) as error:
        simulate(*network, simulator="cxxrtl")
    assert str(error.value) == (
        "A C++ compiler must be installed: install g++ or clang++, or choose the simulator amaranth"
    )
    with pytest.warns(UserWarning, match=r"^There is no C\+\+ compiler"):
        report = simulate(*network)
    assert report.simulator == "amaranth" and report.mismatches == 0


def test_cxx_names_the_compiler(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    assert compiler(CPP) is None
    with pytest.raises(UsageError, match=r"^CXX must name a C\+\+ compiler, not 'no-such-compiler -m64': install"):
        simulate(*network_of("rnn", lengths=(2,)), simulator="cxxrtl")
    script = tmp_path / "mine"
    script.write_text("#!/bin/sh\necho model.cpp: error: I refuse >&2\nexit 1\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", f"{script} -x")
    assert compiler(CPP) == (str(script), "-x")
    with pytest.raises(UsageError, match=r"fails \(model.cpp: error: I refuse\)$"):
        simulate(*network_of("rnn", lengths=(2,)), simulator="cxxrtl")
