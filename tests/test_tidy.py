"""Plain names and legible text, from what Yosys writes."""

import pytest

from hwrnn.errors import UsageError
from hwrnn.rtl.names import KEYWORDS, free_name, natural, plain_name, top_name
from hwrnn.rtl.tidy import tidy

SOURCE = r"""
module \top.part (\data$3 , b, clk, q, r);
  wire [3:0] \$1 ;
  reg \$auto$verilog_backend.cc:2355:dump_module$1  = 0;
  reg [3:0] \$2 ;
  (* init = 4'h0 *)
  wire [3:0] alias;
  input b;
  wire b;
  input clk;
  wire clk;
  input [3:0] \data$3 ;
  wire [3:0] \data$3 ;
  wire [7:0] \wide.extended ;
  output [3:0] q;
  reg [3:0] q = 4'h1;
  output [3:0] r;
  wire [3:0] r;
  wire [7:0] \$4 ;
  reg [3:0] \signal$12 ;
  reg [3:0] words [2:0];
  initial begin
    words[0] = 4'h0;
    words[1] = 4'h0;
    words[2] = 4'h0;
  end
  reg [3:0] _0_;
  always @(posedge clk) begin
    _0_ <= words[\data$3 ];
  end
  assign \$1  = \data$3  + 1'h1;
  assign \$4  = { \data$3 [3], \data$3 [3], \data$3 [3], \data$3 [3], \data$3  };
  assign r = \$4 [7:4] ^ _0_;
  always @(posedge clk)
    q <= \$2 ;
  always @* begin
    if (\$auto$verilog_backend.cc:2355:dump_module$1 ) begin end
    \$2  = q;
    if (b) begin
      \$2 [1:0] = \$1 [1:0];
    end
  end
  assign alias = q;
  assign \wide.extended  = \$4 ;
endmodule
"""

TIDY = """\
module top_part (
    clk, b, data_3, q, r);
  input clk;
  input b;
  input [3:0] data_3;
  output [3:0] q;
  output [3:0] r;
  reg [3:0] q = 4'h1;
  wire [3:0] t1;
  wire [7:0] wide_extended;
  reg [3:0] words_read;
  integer index;
  reg [3:0] words [2:0];
  initial for (index = 0; index < 3; index = index + 1)
    words[index] = 4'h0;
  always @(posedge clk) begin
    words_read <= words[data_3];
  end
  assign t1 = data_3 + 1'h1;
  assign wide_extended = { {4{data_3[3]}}, data_3 };
  assign r = wide_extended[7:4] ^ words_read;
  always @(posedge clk) begin
    if (b) begin
      q[1:0] <= t1[1:0];
    end
  end
endmodule
"""


def test_tidy():
    assert tidy(SOURCE, ["clk"]) == TIDY


def test_names_of_yosys_do_not_tell_its_version():
    """What Yosys names by a line of its own source text and a running number."""
    found = set()
    for place in ("opt_dff.cc:273$96", "opt_dff.cc:248$56"):
        wire = rf"\$auto${place} "
        found.add(tidy(
            f"module m(a, b);\n  input a;\n  wire a;\n  output b;\n  wire b;\n  wire {wire};\n"
            f"  assign {wire} = ~ a;\n  assign b = {wire} ^ {wire};\nendmodule\n", ["a", "b"],
        ))  # fmt: skip
    (text,) = found
    assert "wire t;" in text and "auto" not in text


def test_names():
    assert plain_name("flags.first") == "flags_first"
    assert plain_name("\\read__data$34 ") == "read_data_34"
    assert plain_name("\\reg ") == "reg_"
    assert free_name("sum", {"sum", "sum_2"}) == "sum_3"
    assert sorted(["s10", "s2", "s"], key=natural) == ["s", "s2", "s10"]
    assert top_name("a" * 200) and {"module", "logic", "input", "endmodule"} < KEYWORDS


@pytest.mark.parametrize("name", ["", "1st", "a-b", "_a", "a b", "a" * 201, "é", 3, None])
def test_a_top_has_a_plain_name(name):
    with pytest.raises(UsageError, match=r"^Name must be a letter and up to 199 letters, digits and underscores, not "):
        top_name(name)


def test_a_top_has_no_reserved_name():
    with pytest.raises(UsageError, match=r"^Name must be no reserved word of Verilog or SystemVerilog, not 'logic'$"):
        top_name("logic")
