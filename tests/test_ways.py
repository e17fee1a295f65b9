"""Nine ways of computing a network agree, and a fault in any of them is told by its name."""

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_netlist
import ways
from hypothesis import given, settings
from ways_cases import CELLS, Case, cases, coverage, matrix, parsed, shrunk

import oracle
from hwrnn.compiler import CPP, C, compiler_available
from hwrnn.sim import STALLS

EVERYDAY = 20

tools = pytest.mark.skipif(
    not all(map(shutil.which, ("iverilog", "verilator"))) or not all(map(compiler_available, (C, CPP))),
    reason="a simulator or a compiler is not installed",
)


CYCLES = {"amaranth", "cxxrtl", "icarus", "verilator", "netlist"}


def agree_on(cases, chosen):
    """Some cases, in one build of each of some ways."""
    for verdict in ways.run(cases, chosen):
        assert not verdict.differences, f"scripts/agree --case '{verdict.case}'\n{verdict.differences}"
        assert set(verdict.values) == chosen and min(verdict.values.values()) > 0
        assert set(verdict.cycles) == chosen & CYCLES and min(verdict.cycles.values()) > 0
        assert verdict.closed == ("cxxrtl" in chosen)


@tools
@pytest.mark.parametrize("part", range(2))
def test_ways_agree(part):
    agree_on(matrix(EVERYDAY)[part::2], set(ways.WAYS) - {"netlist"})


@tools
@pytest.mark.fpga
@pytest.mark.parametrize("part", range(5))
def test_netlists_agree(part):
    """The ninth way, of the same cases: synthesis takes longer than all others together."""
    agree_on(matrix(EVERYDAY)[part::5], {"golden", "amaranth", "netlist"})


def test_the_everyday_cases_are_the_first_of_the_matrix():
    few = matrix(6)
    assert few == matrix(4) + few[4:] and len(set(few)) == 6
    assert tuple(parsed(str(case)) for case in few) == few


@pytest.mark.slow
def test_the_matrix_has_every_choice():
    chosen = matrix()
    singles, (pairs, of_pairs) = coverage(chosen)
    assert len(set(chosen)) == 200
    assert all(found == possible for found, possible in singles.values()), singles
    assert pairs > 0.99 * of_pairs
    assert {case.stalls for case in chosen} == {(a, b) for a in STALLS for b in STALLS}
    for cell in CELLS:
        for port in ("input_stall", "output_stall"):
            assert {case[port] for case in chosen if case["cell"] == cell} == set(STALLS), (cell, port)


# -- planted faults: the way is told by name, and the case shrinks

SMALL = Case({"cell": "gru", "units": 2, "outputs": 2, "lengths": "2,1,1,3", "input_stall": "random", "lanes": 4})


@pytest.fixture(scope="module")
def seen():
    return ways.observed([SMALL], ways.WAYS)


def flipped(values, at=0):
    changed = np.array(values)
    changed[at] ^= 1
    return changed


@tools
@pytest.mark.slow
@pytest.mark.parametrize("name", ways.COMPUTATIONS)
def test_a_flipped_bit_is_told_by_the_name_of_its_way(seen, name):
    (setup,), found = seen
    one = {computation: several[0] for computation, several in found.items()}
    assert not ways.compared(setup, one).differences
    wrong = replace(one[name], outputs=flipped(one[name].outputs))
    assert list(ways.compared(setup, one | {name: wrong}).differences) == [ways.COMPUTATIONS[name][0]]


@tools
@pytest.mark.parametrize("name", ["amaranth", "cxxrtl", "icarus", "verilator", "netlist"])
@pytest.mark.parametrize("what", ["input_cycles", "output_cycles", "above"])
def test_a_wrong_cycle_or_flag_is_told_by_the_name_of_its_way(seen, name, what):
    (setup,), found = seen
    one = {computation: several[0] for computation, several in found.items()}
    recording = one[name].recording
    wrong = replace(recording, **{what: flipped(getattr(recording, what), -1)})
    assert list(ways.compared(setup, one | {name: replace(one[name], recording=wrong)}).differences) == [name]


@pytest.mark.parametrize("name", ["golden", "compiled", "oracle", "amaranth"])
def test_a_stored_value_that_no_output_shows_is_compared(name):
    def change(case, one):
        return replace(one, inside=one.inside | {(0, "r"): flipped(one.inside[0, "r"])})

    (verdict,) = ways.run([SMALL], ["golden", "oracle", "amaranth"], {name: change})
    assert list(verdict.differences) == [ways.COMPUTATIONS[name][0]]
    assert "value 'r' of layer 0 0 is" in verdict.differences[ways.COMPUTATIONS[name][0]][0]


def test_a_wrong_rounding_in_the_oracle_is_found(monkeypatch):
    right = oracle.rounded
    monkeypatch.setattr(oracle, "rounded", lambda value, form: right(value - oracle.power(-form[1] - 3), form))
    (verdict,) = ways.run([SMALL], ["oracle", "amaranth"])
    assert list(verdict.differences) == ["oracle"]


@tools
def test_a_wrong_constant_in_the_verilog_is_found(monkeypatch):
    """In what simulators of Verilog read alone."""
    setup = ways.Setup.of(SMALL, 0)
    text, count = wrong_bias(setup.bench.text)
    assert count
    setup.bench.__dict__["text"] = text
    monkeypatch.setattr(ways.Setup, "of", lambda case, number: setup)
    (verdict,) = ways.run([SMALL], ["oracle", "amaranth", "onnxruntime", "icarus"])
    assert list(verdict.differences) == ["icarus"]


def wrong_bias(text):
    """Verilog with one bit of the first bias flipped."""
    import re

    return re.subn(r"(biases\[0\] = \d+'[hb])([0-9a-f]+)", lambda m: m[1] + f"{int(m[2], 16) ^ 4:x}", text, count=1)


def test_a_fault_shrinks_to_its_smallest_case():
    looked = []

    def planted(case):
        looked.append(case)
        return case["units"] > 3 and case["cell"] == "gru"

    big = parsed(
        "cell=gru activation=plan_tanh weight_bits=9 inputs=11 units=17 layers=3 units2=5 outputs=3 steps=every lanes=6"
        " channels=2 timing=part part=xc7s15 states=any input_stall=bursts output_stall=waits lengths=5,2 seed=77"
    )
    assert str(shrunk(big, planted)) == "cell=gru units=4"
    assert len(looked) < 100


def test_a_fault_in_one_way_shrinks(monkeypatch):
    def change(case, one):
        wrong = case["units"] > 3 and case["cell"] == "gru"
        return replace(one, outputs=flipped(one.outputs)) if wrong else one

    big = parsed("cell=gru weight_bits=9 inputs=5 units=7 outputs=3 steps=every lanes=6 output_stall=waits seed=7")
    assert ways.fails(big, ["oracle"], {"oracle": change})
    smallest = shrunk(big, lambda case: ways.fails(case, ["oracle"], {"oracle": change}))
    assert str(smallest) == "cell=gru units=4"


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(cases())
def test_any_case_has_a_text(case):
    assert parsed(str(case)) == case and case.cost > 0


def test_a_text_of_no_case_is_refused():
    with pytest.raises(ValueError, match=r"^A case must have choices of cell, .*, not units=99$"):
        parsed("cell=gru units=99")
    with pytest.raises(ValueError, match=r"not unit=3$"):
        parsed("unit=3")


# -- the command line

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def agree(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("agree", ROOT / "scripts" / "agree.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "agree", module)
    spec.loader.exec_module(module)
    return module


def test_one_case_by_its_text(agree, capsys):
    assert agree.main(["--case", "cell=ligru units=2", "--ways", "golden,oracle,amaranth"]) == 0
    assert " cycles agree" in capsys.readouterr().out


def test_a_failure_prints_the_command_that_repeats_it(agree, capsys, monkeypatch):
    def wrong(value, form):
        return right(value, form) ^ 1

    right = oracle.rounded
    monkeypatch.setattr(oracle, "rounded", wrong)
    monkeypatch.setattr(agree, "ProcessPoolExecutor", Beside)
    assert agree.main(["--count", "2", "--ways", "oracle,amaranth", "--no-record"]) == 1
    out = capsys.readouterr().out
    command = out.splitlines()[out.splitlines().index("the first of 2, in its smallest form:") + 1].strip()
    assert command.startswith("scripts/agree --case '") and "oracle: " in out
    assert agree.main(["--case", command.split("'")[1], "--ways", "oracle,amaranth"]) == 1
    monkeypatch.undo()
    assert agree.main(["--case", command.split("'")[1], "--ways", "oracle,amaranth"]) == 0


def test_a_run_goes_on_from_what_was_kept(agree, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(agree, "ProcessPoolExecutor", Beside)
    given = ["--ways", "golden,oracle", "--keep", str(tmp_path / "kept"), "--no-record"]
    assert agree.main(["--count", "2", *given]) == 0
    first, run, looked = capsys.readouterr().out, ways.run, []
    monkeypatch.setattr(ways, "run", lambda cases, *rest: looked.extend(cases) or run(cases, *rest))
    assert agree.main(["--count", "2", *given]) == 0
    assert not looked and capsys.readouterr().out == first
    assert agree.main(["--count", "3", *given]) == 0
    assert looked == [matrix(3)[2]]
    monkeypatch.setattr(agree, "_sources", lambda: b"another")
    agree._state.cache_clear()
    assert agree.main(["--count", "3", *given]) == 0
    assert len(looked) == 4
    monkeypatch.undo()
    agree._state.cache_clear()


@pytest.mark.fpga
def test_a_state_names_the_models_of_a_netlist(agree, monkeypatch):
    before = {family: agree._state(family) for family in (None, "ice40", "gowin", "xilinx7")}
    assert len(set(before.values())) == 4
    monkeypatch.setattr(test_netlist.xilinx_cells, "models", lambda: "")
    agree._state.cache_clear()
    assert [family for family in before if agree._state(family) != before[family]] == ["xilinx7"]
    agree._state.cache_clear()


class Beside:
    """A pool that works in this process, where a fault can be planted."""

    def __init__(self, jobs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*arguments))
        return future
