"""Planted faults: the generated bench kills them, or they are proved to change nothing."""

import re
import shutil

import pytest

pytest.importorskip("pyosys")
from mutation import DESIGNS, KILLED, Mutated, generated, judged

TRACE = 3_000  # cycles, of quick tests

icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")


@pytest.fixture(scope="module")
def argmax(tmp_path_factory):
    """A network with a head and the index of its largest output, and faults of it."""
    folder = tmp_path_factory.mktemp("mutants")
    return Mutated(generated("argmax", folder / "argmax", TRACE), folder / "work", 20, 4, seed=2)


@icarus
@pytest.mark.slow
def test_faults_are_killed_or_change_nothing(argmax):
    results = argmax.results(argmax.mutants, seconds=60)
    assert [str(r.mutant) for r in results if r.end not in (*KILLED, "equal")] == []
    assert sum(r.end in KILLED for r in results) > len(results) // 2


@icarus
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "argmax"])
def test_faults_of_other_networks(name, tmp_path):
    mutated = Mutated(generated(name, tmp_path / name), tmp_path / "work", 20, 4, seed=1)
    results = mutated.results(mutated.mutants, seconds=20)
    assert [str(r.mutant) for r in results if r.end == "different"] == []
    assert sum(r.end == "undecided" for r in results) < 4  # a busy machine proves less; scripts/mutate has the time


@icarus
def test_a_fault_among_others_is_the_fault_alone(argmax):
    """What a netlist of many does with one awake is what the netlist of that one does."""
    some = argmax.mutants[::4]
    compiled = argmax.together(some)
    for mutant in some:
        assert argmax.run(compiled, mutant.number) == argmax.run(argmax.compiled(argmax.alone(mutant)))


@icarus
@pytest.mark.slow
def test_a_bench_that_compares_nothing_lets_faults_through(argmax, tmp_path):
    """The harness itself is shown to fail: what such a bench lets through is told as different."""
    bench = (argmax.work / "argmax_tb.v").read_text()
    compared = "output_element[OUTPUT_BITS-1:0] !== expected[received][OUTPUT_BITS-1:0]"
    traced = "shown !== shown_then || (m_axis_tvalid && carried !== carried_then)"
    assert bench.count(compared) == bench.count(traced) == 1
    shutil.copytree(argmax.work, tmp_path / "work")
    (tmp_path / "work" / "argmax_tb.v").write_text(bench.replace(compared, "1'b0").replace(traced, "1'b0"))
    blind = Mutated(tmp_path / "work", tmp_path / "blind", 1, 0, seed=2)
    flips = [m for m in argmax.mutants if m.kind == "content"]
    compiled = argmax.together(flips)
    wrong = next(m for m in flips if argmax.run(compiled, m.number)[0] == "wrong value")
    assert blind.run(blind.together([wrong]), wrong.number)[0] == "PASS"
    (result,) = blind.results([wrong], seconds=60)
    assert result.end == "different"


PART = """module half(input aclk, input d, output reg [1:0] q, output reg [2:0] count);
  initial begin q = 0; count = 0; end
  always @(posedge aclk) begin q <= {q[0], d}; count <= count == 4 ? 0 : count + 1; end
endmodule"""


def test_a_part_is_compared_for_all_inputs():
    """A register's bit that is never 1 makes no difference, one that depends on an input does."""
    from equivalence import equivalent

    for fault, answer in (("count[2:1] == 2 ?", "equal"), ("count[1:0] == 2 ?", "different")):
        faulty = PART.replace("count == 4 ?", fault)
        assert equivalent(PART, faulty, "half", seconds=20, payload="always", resets="free").answer == answer
    faulty = PART.replace("{q[0], d}", "{q[0], q[1]}")
    assert equivalent(PART, faulty, "half", seconds=20, payload="always", resets="free").answer == "different"


@icarus
@pytest.mark.slow
def test_a_fault_that_is_killed_is_no_equivalent_of_its_module(argmax):
    results = list(argmax.simulated(argmax.mutants))
    killed = [r.mutant for r in results if r.end in KILLED and r.mutant.kind != "content"][:1]
    assert not any(argmax.parted(mutant, 5) for mutant in killed)


def test_each_word_of_the_bench_tells_how():
    """No reason that the bench gives is taken for another."""
    assert judged("")[0] == "time-out"
    assert judged("PASS x: 3 output elements in 5 cycles; 1 cycles per step, latency 2")[0] == "PASS"
    said = {
        "output element 3 is 01, expected 02": "wrong value",
        "a sequence of 3 steps takes 5 cycles, expected 6": "cycles",
        "all sequences take 5 cycles, expected 6": "cycles",
        "line 7 of trace.hex says 1 and 0fa of the outputs, not 0 and 0fb": "trace",
        "no transfer for too long (cycle 3, input element 1, output element 2, stalls 0 and 0)": "time-out",
        "m_axis_tid is wrong (cycle 3, input element 1, output element 2, stalls 0 and 0)": "wrong value",
        "m_axis_tlast is wrong (cycle 3, input element 1, output element 2, stalls 0 and 0)": "handshake",
        "the output does not hold until ready (cycle 3, input element 1, output element 2)": "handshake",
    }
    for words, how in said.items():
        assert judged(f"FAIL x: {words}\n")[0] == how


def test_faults_are_the_same_in_every_run(argmax, tmp_path):
    again = Mutated(generated("argmax", tmp_path / "argmax", TRACE), tmp_path / "work", 20, 4, seed=2)
    assert again.mutants == argmax.mutants
    assert {m.kind for m in again.mutants} >= {"inv", "const0", "const1", "content"}
    assert all(re.match(r"-module argmax\S* |argmax\S* \w+\[\d+\] \d+$", m.where) for m in again.mutants)
