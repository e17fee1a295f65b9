"""The equivalence checker decides as it should, and emitted Verilog equals the design that it was emitted from."""

from __future__ import annotations

import pytest

pytest.importorskip("pyosys")
from equivalence import Undecidable, equivalent

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
    ],
)
def test_what_is_not_modelled_is_not_decided(old, new):
    with pytest.raises(Undecidable):
        equivalent(COUNTER, changed(COUNTER, (old, new)), "top", seconds=20)
