"""Toggle coverage counts what it says, and a bit is called constant only with a proof."""

import shutil

import pytest
import toggles

DUMP = """$timescale 1ns $end
$scope module n_tb $end
$scope module dut $end
$var wire 1 ! one $end
$var reg 4 " four [3:0] $end
$var wire 1 # still $end
$scope module inner $end
$var wire 1 ! again $end
$upscope $end
$upscope $end
$upscope $end
$enddefinitions $end
#0
0!
bx "
0#
#1
1!
b1 "
#2
b1000 "
#3
b11 "
0!
#4
b0 "
"""
SOURCE = """module n(input clk, input up, output [3:0] y, output never);
    reg [3:0] count = 0;
    // Counts by two, so that the lowest bit stays; and never passes ten.
    always @(posedge clk) if (up) count <= count == 10 ? 0 : count + 2;
    assign y = count;
    assign never = count > 12;
endmodule
"""


def test_a_bit_counts_that_rose_and_fell(tmp_path):
    (tmp_path / "x.vcd").write_text(DUMP)
    found = toggles.counted(tmp_path / "x.vcd")
    # Bit 0 fell and rose, bit 1 rose and fell, bit 3 likewise; bit 2 stood, and so did one signal.
    assert (found.bits, found.both) == (6, 4)
    assert found.missing == (("four", 4, (2,)), ("still", 1, (0,)))


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
def test_constants_are_proved():
    asked = [("y", bit) for bit in range(4)] + [("never", 0), ("count", 3)]
    assert toggles.constant_bits(SOURCE, "n", asked) == {("y", 0), ("never", 0)}
    assert toggles.constant_bits(SOURCE.replace("== 10", "== 12"), "n", asked) == {("y", 0), ("never", 0)}
    assert toggles.constant_bits(SOURCE.replace("== 10", "== 14"), "n", asked) == {("y", 0)}
