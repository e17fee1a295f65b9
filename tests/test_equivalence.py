"""The equivalence checker decides as it should, and emitted Verilog equals the design that it was emitted from."""

from __future__ import annotations

import numpy as np
import pytest
from gates import Cone, Gates

pytest.importorskip("pyosys")
from equivalence import Undecidable, equivalent
from equivalence_designs import DESIGNS, FAULTS, emission_verdict, planted
from equivalence_paths import PATH_FAULTS, emitted, handwritten, layer_of, path_verdict, planted_in_path

from hwrnn.cells import CELLS
from hwrnn.rtl.timing import SHORTEST, Timing

#: A stream with one place, whose payload behind the place shows whatever stood there last.
STREAM = """
module top(input clk, input rst, input [3:0] i__payload, input i__valid, output i__ready,
           output [3:0] o__payload, output o__valid, input o__ready);
  reg full = 0;
  reg [3:0] kept;
  assign i__ready = ~full | o__ready;
  assign o__valid = full;
  assign o__payload = kept;
  always @(posedge clk) begin
    if (i__ready) full <= i__valid;
    if (i__ready) kept <= i__payload + 4'd3;
    if (rst) full <= 0;
  end
endmodule
"""

COUNTER = """
module top(input clk, input rst, input go, output [3:0] count, output most);
  reg [3:0] n = 0;
  assign count = n;
  assign most = n == 9;
  always @(posedge clk) begin
    if (go) n <= n == 9 ? 0 : n + 1;
    if (rst) n <= 0;
  end
endmodule
"""


def changed(text: str, *pairs: tuple[str, str]) -> str:
    """A text with pieces replaced, each of which it holds once."""
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


EQUAL = {
    "the same": (STREAM, STREAM, {}),
    "other names": (STREAM, STREAM.replace("kept", "held").replace("full", "busy"), {}),
    "payload that nobody may look at": (
        STREAM,
        changed(STREAM, ("if (i__ready) kept", "if (i__ready & i__valid) kept")),
        {},
    ),
    "an offer that is never withdrawn": (
        STREAM,
        changed(
            STREAM,
            ("reg full = 0;", "reg full = 0, waits = 0;"),
            ("begin\n", "begin\n    waits <= i__valid & ~i__ready & ~rst;\n"),
            ("full <= i__valid;", "full <= i__valid | waits;"),
        ),
        {},
    ),
    "a state that is never reached": (COUNTER, changed(COUNTER, ("if (go) n <= n == 9", "if (go) n <= n >= 9")), {}),
    "a register turned round": (
        COUNTER,
        changed(
            COUNTER,
            ("reg [3:0] n = 0;", "reg [3:0] m = 15; wire [3:0] n = ~m;"),
            ("n <= n == 9 ? 0 : n + 1", "m <= n == 9 ? 15 : m - 1"),
            ("if (rst) n <= 0;", "if (rst) m <= 15;"),
        ),
        {},
    ),
    "a reset that happens once": (
        COUNTER,
        changed(
            COUNTER,
            ("reg [3:0] n = 0;", "reg [3:0] n = 0; reg late = 0;"),
            ("if (rst) n <= 0;", "late <= 1; if (rst & ~late) n <= 0;"),
        ),
        {},
    ),
}  # fmt: skip

DIFFERENT = {
    "a constant": (STREAM, changed(STREAM, ("4'd3", "4'd2")), {}, ["o__payload"]),
    "a ready that doesn't wait": (STREAM, changed(STREAM, ("~full | o__ready", "1'b1")), {}, ["i__ready"]),
    "payload that nobody may look at": (
        *EQUAL["payload that nobody may look at"][:2], {"payload": "always"}, ["o__payload"],
    ),
    "a reset that happens again": (*EQUAL["a reset that happens once"][:2], {"resets": "any"}, ["count"]),
    "the last count": (COUNTER, changed(COUNTER, ("most = n == 9", "most = n == 10")), {}, ["most"]),
    "what stood there first": (
        changed(COUNTER, ("reg [3:0] n = 0;", "reg [3:0] n = 0; reg z;"), ("count = n;", "count = n ^ z;")),
        changed(COUNTER, ("reg [3:0] n = 0;", "reg [3:0] n = 0; reg z;"), ("count = n;", "count = n ^ ~z;")),
        {},
        ["count"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_equal(name):
    gold, gate, options = EQUAL[name]
    assert equivalent(gold, gate, "top", seconds=20, **options).answer == "equal"


@pytest.mark.parametrize("name", DIFFERENT)
def test_different(name):
    gold, gate, options, ports = DIFFERENT[name]
    verdict = equivalent(gold, gate, "top", seconds=20, **options)
    assert verdict.answer == "different" and verdict.differing == ports


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("posedge clk", "negedge clk"),
        ("posedge clk", "posedge clk & go"),
        ("output most", "output [1:0] most"),
        ("always @(posedge clk) begin", "always @* if (clk) begin"),
        ("assign most = n == 9;", "\\$_DFF_N_ later (.C(clk), .D(n == 9), .Q(most));"),
        ("assign most = n == 9;", "\\$_DFF_PP0_ later (.C(go), .R(rst), .D(n == 9), .Q(most));"),
    ],
)
def test_what_is_not_modelled_is_not_decided(old, new):
    with pytest.raises(Undecidable):
        equivalent(COUNTER, changed(COUNTER, (old, new)), "top", seconds=20)


def test_emitted_verilog_equals_its_design():
    assert emission_verdict(DESIGNS["one unit"]()).answer == "equal"


SEVERAL = [kind if kind == "an operator" else pytest.param(kind, marks=pytest.mark.slow) for kind in FAULTS]


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_fault_in_emitted_verilog_is_found(kind):
    verdict = emission_verdict(DESIGNS["one unit"](), lambda text: planted(text, kind, 3)[0])
    assert verdict.answer == "different" and verdict.differing


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru-reset-before, 8 lanes", "index of the largest", "two channels"])
def test_emitted_verilog_of_a_form_equals_its_design(name):
    assert emission_verdict(DESIGNS[name]()).answer == "equal"


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_written_by_hand(cell):
    """A new cell needs Verilog that somebody wrote from its equations, without looking at what hwrnn makes of them."""
    assert handwritten(cell).exists(), f"Cell {cell} must have Verilog written by hand in tests/handwritten/{cell}.v"


#: Cells that take longer; a new one is tested always.
SELDOM = {"lstm", "gru", "gru-reset-before", "ligru", "lstm-peephole", "lstm-coupled", "lstm-peephole-coupled"}
PATHS = [pytest.param(cell, marks=pytest.mark.slow) if cell in SELDOM else cell for cell in [*CELLS, "dense"]]


@pytest.mark.parametrize("cell", PATHS)
def test_path_equals_what_was_written_by_hand(cell):
    layer = layer_of(cell)
    for index in range(len(layer.cell.phases)):
        verdict = path_verdict(layer, index)
        assert verdict.answer == "equal", (index, verdict)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "timing", "options"),
    [
        ("gru", Timing(product=2, sums=True, factors=1), {}),
        ("lstm", Timing(sums=True, tree=True), {"cell_clip": 1.0}),
        ("lstm-coupled", SHORTEST, {"activation": "relu", "gate": "hard_sigmoid_3_16", "output_activation": "relu1"}),
        ("mingru", SHORTEST, {"bits": 6}),
        ("gru", SHORTEST, {"bits": 3}),  # a bit of a pre-activation is constant
    ],
    ids=["registers", "clip", "functions", "bits", "constant"],
)
def test_path_of_a_form_equals_what_was_written_by_hand(cell, timing, options):
    assert path_verdict(layer_of(cell, **options), 0, timing).answer == "equal"


@pytest.mark.parametrize("kind", PATH_FAULTS)
def test_a_fault_in_a_path_is_found(kind):
    layer = layer_of("mingru")
    verdict = path_verdict(layer, 0, path=planted_in_path(emitted(layer, 0), kind, 1))
    assert verdict.answer == "different" and verdict.trace


def test_a_fault_in_what_was_written_by_hand_is_found():
    """The rounding of the product, half down: only the textbook's half up equals the path."""
    layer, text = layer_of("rnn"), handwritten("rnn").read_text()
    verdict = path_verdict(layer, 0, cell=changed(text, ("(acc_h, a)", "(acc_h - 1'sb1, a)")))
    assert verdict.answer == "different" and verdict.trace


def test_a_delay_too_much_is_found():
    layer = layer_of("rnn")
    longer = emitted(layer, 0, Timing(sums=True))
    assert longer != emitted(layer, 0)
    assert path_verdict(layer, 0, path=longer).answer == "different"


def random_cone(rng, inputs: int, gates: int) -> tuple[Cone, int]:
    """Gates over time with a register, and a literal in its third cycle."""
    numbers = list(range(1, inputs + 2))  # the last one is the register
    lines = [f"aag {inputs + 1 + gates} {inputs} 1 1 {gates}", *(str(2 * n) for n in numbers[:-1])]
    rows = []
    for n in range(inputs + 2, inputs + 2 + gates):
        a, b = rng.choice(numbers[-12:], 2) * 2 + rng.integers(0, 2, 2)
        rows.append(f"{2 * n} {max(a, b)} {min(a, b)}")
        numbers.append(n)
    lines += [f"{2 * inputs + 2} {2 * numbers[-2]}", str(2 * numbers[-1] + 1), *rows]
    lines += [f"i{k} in[{k}]" for k in range(inputs)] + ["o0 out"]
    cone = Cone(Gates("\n".join(lines)))
    return cone, cone.at(cone.gates.outputs["out"][0], 2)


def test_gates_are_what_they_compute():
    """Every pattern by plain Python, against what numpy tries and what merging leaves."""
    rng = np.random.default_rng(1)
    for trial in range(12):
        cone, literal = random_cone(rng, 2 + trial % 4, 12)
        free = [n for n in cone.order(literal) if n in cone.names]

        def value(number, pattern, cone=cone, free=free):
            node = number >> 1
            if node == 0:
                bit = 0
            elif node in cone.ands:
                bit = value(cone.ands[node][0], pattern) & value(cone.ands[node][1], pattern)
            else:
                bit = pattern >> free.index(node) & 1
            return bit ^ number & 1

        ones = [p for p in range(1 << len(free)) if value(literal, p)]
        for most in (18, 1):
            found = cone.exhaustive(literal, most)
            assert (found is None) == (not ones)
            if found is not None:
                assert sum(int(found.get(cone.names[node], "0")) << k for k, node in enumerate(free)) in ones
        merged = cone.merged(literal, 24)
        assert [value(merged, p) for p in range(1 << len(free))] == [int(p in ones) for p in range(1 << len(free))]
        assert cone.exhaustive(cone.both(literal, merged ^ 1)) is None
