"""Proofs: the tools prove what holds and find what does not, and what is proved of nonlinearities and accumulators."""

from __future__ import annotations

import importlib.util
import io
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.asserts import AnyConst, AnySeq
from amaranth.back import rtlil
from amaranth.hdl import Array, Assert, Assume, Const, Cover, Module, Signal, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component
from formal import FormalError, Proof, missing, prove
from formal_nonlinearities import CASES, NAMES, Specification, _unit, faults, fitting, proof, ways_of
from smt2 import Solver, statements, terms

from hwrnn.fixed import Format
from hwrnn.rtl import TARGETS
from hwrnn.rtl.ports import OutputBuffer
from hwrnn.rtl.timing import SHORTEST

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


class Counter(Component):
    """Counts to ``end``; what is proved of it says 10."""

    _MustUse__silence = True

    def __init__(self, end=10, clocked=False, stated=True, contradiction=False):
        self.end, self.clocked, self.stated, self.contradiction = end, clocked, stated, contradiction
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        count = Signal(4)
        go = Signal(2)
        m.d.comb += [go.eq(AnySeq(2)), Assume(go != 3), Cover(count == 9, "nine")]
        with m.If((count != self.end) & (go == 1)):
            m.d.sync += count.eq(count + 1)
        if self.stated:
            domain = m.d.sync if self.clocked else m.d.comb
            domain += Assert(count <= 10, "the count stays")
        if self.contradiction:
            m.d.comb += Assume(count == 1)
        return m


class Remembering(Component):
    """A word that was written is read back, but for 77 where there is a fault."""

    _MustUse__silence = True

    def __init__(self, fault=False, words=16):
        self.fault, self.words = fault, words
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=self.words, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        place = Signal(range(self.words))
        held = Signal(8)
        m.d.comb += [
            place.eq(AnyConst(len(place))), read.addr.eq(place),
            write.addr.eq(AnySeq(len(place))), write.data.eq(AnySeq(8)), write.en.eq(AnySeq(1)),
        ]  # fmt: skip
        here = write.en & (write.addr == place)
        with m.If(here & (write.data != 77) if self.fault else here):
            m.d.sync += held.eq(write.data)
        m.d.comb += Assert(read.data == held, "as it was written")
        return m


class TableOfSquares(Component):
    """A case table, which Yosys likes to make a memory of."""

    _MustUse__silence = True

    def __init__(self, fault=False):
        self.fault = fault
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        x = Signal(5)
        y = Signal(10)
        last = Signal(5)
        words = [n * n + (self.fault and n == 19) for n in range(32)]
        m.d.comb += x.eq(AnySeq(5))
        m.d.sync += [y.eq(Array(Const(word, 10) for word in words)[x]), last.eq(x)]
        m.d.comb += Assert(y == last * last)
        return m


def test_what_holds_is_proved_and_a_fault_is_refuted():
    assert prove(Counter()).status == "proved"
    wrong = prove(Counter(end=12), mode="bmc", depth=20)
    assert wrong.status == "refuted" and wrong.failed == ("the count stays",)
    assert wrong.trace["dut.count"] == list(range(12)) and wrong.trace["dut.go"][:11] == [1] * 11
    late = prove(Counter(end=12, clocked=True), depth=20)
    assert late.status == "refuted" and len(late.trace["dut.count"]) == 13
    assert prove(Counter(end=12), mode="bmc", depth=11).status == "bounded"


def test_an_induction_that_fails_proves_nothing():
    short = prove(Counter(end=12), depth=2)
    assert short.status == "unknown" and short.trace["dut.count"][-1] == 11
    with pytest.raises(AssertionError, match="counted must be proved"):
        Proof("counters", "counted", lambda: short).check()


def test_covers():
    assert prove(Counter(), mode="cover", depth=11).status == "covered"
    never = prove(Counter(end=8), mode="cover", depth=11)
    assert never.status == "uncovered" and never.failed == ("nine",)


def test_a_proof_of_nothing_is_an_error():
    with pytest.raises(FormalError, match="must have at least one Assert"):
        prove(Counter(stated=False))
    with pytest.raises(FormalError, match="The assumptions exclude every run"):
        prove(Counter(contradiction=True))
    with pytest.raises(ValueError, match="Mode must be one of induction, bmc, cover, not 'sat'"):
        prove(Counter(), mode="sat")
    assert prove(Counter(), timeout=0.05).status == "timeout"


@pytest.mark.parametrize("memories", ["arrays", "registers"])
def test_memories(memories):
    assert prove(Remembering(), memories=memories).status == "proved"
    wrong = prove(Remembering(fault=True), memories=memories, depth=3)
    assert wrong.status == "refuted" and wrong.failed == ("as it was written",)


def test_a_case_table_keeps_its_contents_in_the_induction():
    assert prove(TableOfSquares(), depth=2).status == "proved"
    wrong = prove(TableOfSquares(fault=True), depth=2)
    assert wrong.status == "refuted" and wrong.trace["dut.x"][-2] == 19
    assert wrong.failed[0].startswith("test_formal.py:")


class Queued(Component):
    """A queue of the house whose registers an assertion speaks of."""

    _MustUse__silence = True

    def __init__(self):
        self.level = Signal(2)
        self.word = Signal(5)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = OutputBuffer(Format(4, 2), 4)
        m.d.comb += [
            *(buffer.write.eq(AnySeq(1)), buffer.o.ready.eq(AnySeq(1)), buffer.payload.as_value().eq(AnySeq(5))),
            *(Assert(self.level <= 3, "the level"), Assert(self.word != 11, "the word")),
        ]
        return m


def test_an_assertion_may_speak_of_a_submodule_s_registers():
    design = Queued()
    seen = {"buffer.queue.inner_level": design.level, "buffer.queue.storage[1]": design.word}
    found = prove(design, mode="bmc", depth=8, memories="registers", seen=seen)
    assert found.failed == ("the word",) and found.trace["dut.buffer.queue.storage<1>"][-1] == 11
    with pytest.raises(FormalError, match=r"selection is empty: top/w:dut.buffer.queue.storage\?3\?"):
        prove(design, seen={"buffer.queue.storage[3]": design.word}, memories="registers")
    with pytest.raises(FormalError, match="ERROR"):
        prove(design, seen={"buffer.queue.inner_level": design.word}, memories="registers")


VERILOG = """
module sum(input clk, input [7:0] a, b, input go);
  reg [8:0] total = 0; reg [7:0] p = 0, q = 0;
  always @(posedge clk) if (go) begin total <= a + b; p <= a; q <= b; end
  always @* assert (total == {1'b0, p} + q);
endmodule
"""


def test_verilog():
    assert prove(VERILOG, top="sum").status == "proved"
    wrong = prove(VERILOG.replace("reg [8:0]", "reg [7:0]"), top="sum", depth=3)
    assert wrong.status == "refuted" and wrong.trace["p"][-1] + wrong.trace["q"][-1] > 255
    with pytest.raises(FormalError, match=r"yosys must end without an error, and said: .*ERROR"):
        prove(VERILOG.replace("endmodule", "endmodul\nendmodule"), top="sum")


@pytest.mark.slow
def test_without_the_native_yosys_its_webassembly_serves(monkeypatch):
    monkeypatch.setattr("hwrnn.rtl.tools._installed", lambda module: module != "pyosys")
    assert prove(Counter()).status == "proved"
    assert prove(Counter(end=12), depth=13).status == "refuted"


def test_a_missing_tool_is_told(monkeypatch):
    monkeypatch.setattr("formal.importlib.util.find_spec", lambda name: None if name == "bitwuzla" else name)
    assert missing() == "Module 'bitwuzla' must be installed for proofs: run pip install 'hwrnn[formal]'"


def test_the_script_s_table_and_its_second_run(tmp_path, capsys):
    script = script_named("prove")
    ran = []

    def counted(end, **options):
        ran.append(end)
        return prove(Counter(end=end), **options)

    proofs = [
        Proof("counters", "ten", lambda: counted(10), bits=4),
        Proof("counters", "twelve", lambda: counted(12, mode="bmc", depth=13), "refuted", bits=4),
        Proof("short", "five steps", lambda: counted(12, mode="bmc", depth=5), "bounded"),
        Proof("short", "eleven", lambda: counted(11)),
    ]
    for _ in range(2):
        rows = script.rows_of(proofs, script.run(proofs, tmp_path / "keep"))
        assert ran == [10, 12, 12, 11]
    assert [row[:6] + row[8:] for row in rows] == [
        ["counters", "1", "-", "4 to 4", "induction", "1", "0"],
        ["short", "0", "1", "-", "bounded, 5 to 5 steps", "0", "1"],
    ]
    assert "eleven must be proved" in (said := capsys.readouterr().err)
    assert "repeat it with: scripts/prove --only 'eleven'" in said


def script_named(name):
    path = Path(__file__).resolve().parent.parent / "scripts"
    sys.path.insert(0, str(path))  # where it finds verification.py
    spec = importlib.util.spec_from_file_location(f"script_{name}", path / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(script)
    finally:
        sys.path.remove(str(path))
    return script


def test_the_solver_as_a_program():
    text = '(set-logic QF_BV)\n(declare-fun |a ( b| ()\n  Bool) ; a ) comment\n(set-info :note "a ) b")\n\n(exit)\n'
    read = list(statements(io.StringIO(text)))
    assert [line.partition(" ")[0] for line in read] == ["(set-logic", "(declare-fun", "(set-info", "(exit)"]
    assert terms("((f |x y| a) b |c )|)") == ["(f |x y| a)", "b", "|c )|"]

    solver = Solver()
    for line in ("(set-logic QF_BV)", "(declare-fun x () (_ BitVec 4))", "(assert (bvult x #x3))"):
        assert solver.answer(line) is None
    assert solver.answer("(check-sat)") == "sat"
    solver.answer("(push 1)")
    solver.answer("(assert (bvugt x #x1))")
    assert solver.answer("(check-sat)") == "sat"
    assert solver.answer("(get-value (x (bvadd x #x1)))") == "((x #b0010) ((bvadd x #x1) #b0011))"
    solver.answer("(assert (distinct x #x2))")
    assert solver.answer("(check-sat)") == "unsat"
    solver.answer("(pop 1)")
    assert solver.answer("(check-sat)") == "sat"
    with pytest.raises(ValueError, match="must be one that smtbmc writes, not 'get-proof'"):
        solver.answer("(get-proof)")


# -- nonlinearities ----------------------------------------------------------------------------------------------


def chosen(seed, count, most):
    """Some of the proofs of nonlinearities with inputs of at most so many bits."""
    rng = random.Random(seed)
    found = []
    while len(found) < count:
        name = rng.choice(NAMES)
        source, output = rng.choice(CASES) if rng.random() < 0.3 else fitting(name, rng.randrange(2, most - 2))
        found.append(proof(name, source, output, rng.choice(list(ways_of(name, source, output)))))
    return found


@pytest.mark.parametrize("one", chosen(6, 3, 9), ids=lambda one: one.name)
def test_a_nonlinearity_in_a_stream(one):
    one.check()


@pytest.mark.slow
@pytest.mark.parametrize("one", chosen(7, 10, 13), ids=lambda one: one.name)
def test_nonlinearities_in_streams(one):
    one.check()


FAULTS = {fault.name: fault for fault in faults()}
FEW = ["tanh with a wrong value, lines", "table_tanh with a wrong knot, table", "plan_tanh with a wrong credit, lines"]


@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in list(FAULTS)[-5:] if name not in FEW)]
)
def test_a_wrong_nonlinearity_is_refuted(name):
    FAULTS[name].check()


def test_every_nonlinearity_has_a_planted_fault():
    assert all(any(name.startswith(f"{one} with a wrong value") for name in FAULTS) for one in NAMES)


@pytest.mark.parametrize("name", ["plan_tanh", "table_sigmoid", "leaky:-0.25"])
def test_the_specification_s_lines_are_its_table(name, monkeypatch):
    source, output = Format(9, 5), Format(5, 4)
    specification = Specification(name, source, output)

    class Both(Component):
        _MustUse__silence = True

        def elaborate(self, platform):
            m = Module()
            x = Signal(signed(9))
            m.d.comb += x.eq(AnySeq(9))
            monkeypatch.setattr("formal_nonlinearities._LITERAL", 9)
            literal = specification.gates(m, x)
            monkeypatch.setattr("formal_nonlinearities._LITERAL", 8)
            m.d.comb += Assert(literal == specification.gates(m, x))
            return m

    assert prove(Both({})).status == "proved"


def test_of_a_timing_only_the_sums_matter():
    """So that a unit is proved for every part."""

    def text(name, timing):
        m = Module()
        x = Signal(signed(7))
        wire = _unit(m, name, *CASES[1], False, timing, x)
        return rtlil.convert(m, ports=[x, wire.raw.value], emit_src=False)

    timings = {target.timing for target in TARGETS.values()}
    for name in NAMES:
        plain = {sums: text(name, replace(SHORTEST, sums=sums)) for sums in (False, True)}
        assert all(text(name, timing) == plain[timing.sums] for timing in timings)
