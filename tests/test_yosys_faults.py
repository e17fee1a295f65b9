"""Wrong code of Yosys that we know: the faults are still there, our designs have not their shape, a guard refuses it.

A test that finds a fault gone skips and says so: then the guard may go.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from networks import network_of

from hwrnn.cli import main
from hwrnn.rtl import TARGETS, generate
from hwrnn.rtl.synthesis import NETLIST, synthesize
from hwrnn.rtl.tools import ToolError, run_all, yosys_job

pytestmark = pytest.mark.fpga

TWO_REGISTERS = """
module top(input clk, input signed [15:0] a, b, output [31:0] y);
  reg signed [15:0] ra, rb;
  reg signed [31:0] p, q;
  always @(posedge clk) begin ra <= a; rb <= b; p <= ra * rb; q <= p; end
  assign y = q;
endmodule
"""

# The same without registers before the product: Yosys 0.70 crashes.
BARE = """
module top(input clk, input signed [15:0] a, b, output [31:0] y);
  reg signed [31:0] p, q;
  always @(posedge clk) begin p <= a * b; q <= p; end
  assign y = q;
endmodule
"""

ONE_REGISTER = """
module top(input clk, input signed [15:0] a, b, output [31:0] y);
  reg signed [15:0] ra, rb;
  reg signed [31:0] p;
  always @(posedge clk) begin ra <= a; rb <= b; p <= ra * rb; end
  assign y = p;
endmodule
"""

INSTANCE = """
module top(input clk, input [15:0] a, b, output [31:0] y);
  SB_MAC16 #(.A_REG(1'b1), .B_REG(1'b1), .A_SIGNED(1'b1), .B_SIGNED(1'b1),
    .TOPOUTPUT_SELECT(2'b11), .BOTOUTPUT_SELECT(2'b11)) block (.CLK(clk), .CE(1'b1), .A(a), .B(b), .O(y));
endmodule
"""

BENCH = """
module bench;
  reg clk = 0, failed = 0;
  reg [31:0] noise = 32'h13579bdf;
  wire [31:0] y, wanted;
  mapped netlist (.clk(clk), .a(noise[15:0]), .b(noise[31:16]), .y(y));
  top source (.clk(clk), .a(noise[15:0]), .b(noise[31:16]), .y(wanted));
  integer k;
  initial begin
    for (k = 0; k < 200; k = k + 1) begin
      #5 if (k > 8 && y !== wanted) failed = 1;
      clk = 1;
      #5 clk = 0;
      noise = {noise[30:0], noise[31] ^ noise[21] ^ noise[1] ^ noise[0]} * 5 + 1;
    end
    $display("%s", failed ? "DIFFERENT" : "EQUAL");
    $finish;
  end
endmodule
"""


def share() -> Path:
    found = importlib.util.find_spec("pyosys")
    if found is None or found.origin is None:
        pytest.skip("pyosys of hwrnn[fpga] is not installed")
    return Path(found.origin).parent / "share"


def equal_after_synthesis(verilog: str, folder: Path) -> bool:
    """Whether the netlist for an UP5K does in Icarus what its source does.

    Raises:
        ToolError: synthesis failed or was refused.
    """
    simulator, vvp = shutil.which("iverilog"), shutil.which("vvp")
    if simulator is None or vvp is None:
        pytest.skip("Icarus Verilog is not installed")
    models = share() / "ice40" / "cells_sim.v"
    (folder / "source.v").write_text(verilog)
    synthesize(TARGETS["up5k"], "top", "source.v", folder)
    (folder / "write.ys").write_text(f"read_json {NETLIST}\nrename top mapped\nwrite_verilog -noattr mapped.v\n")
    assert run_all([yosys_job("write.ys", "write.log", "mapped.v")], folder) == [None]
    (folder / "bench.v").write_text(BENCH)
    command = [simulator, "-g2005", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-s", "bench", "-o", "bench"]
    subprocess.run([*command, "bench.v", "source.v", "mapped.v", models], cwd=folder, check=True)
    done = subprocess.run([vvp, "-n", "bench"], cwd=folder, check=True, capture_output=True, text=True)
    assert done.stdout.split()[-1] in ("EQUAL", "DIFFERENT")
    return done.stdout.split()[-1] == "EQUAL"


def test_one_register_behind_a_product_is_right(tmp_path: Path) -> None:
    assert equal_after_synthesis(ONE_REGISTER, tmp_path)


@pytest.mark.parametrize("verilog", [TWO_REGISTERS, BARE], ids=["constant", "crash"])
def test_two_plain_registers_behind_a_product_are_refused(verilog: str, tmp_path: Path) -> None:
    try:
        assert equal_after_synthesis(verilog, tmp_path), "a wrong netlist was not refused"
    except ToolError as error:
        assert re.search(r"conflict|pyosys was ended by SIGSEGV", str(error))
    else:
        pytest.skip("this Yosys takes two plain registers behind a product: Timing(product=2) may be used with -dsp")


def test_an_instantiated_multiplier_loses_its_registers(tmp_path: Path) -> None:
    if equal_after_synthesis(INSTANCE, tmp_path):
        pytest.skip("this Yosys keeps the registers of an instantiated SB_MAC16 under -dsp")


def test_no_row_has_a_shape_that_yosys_gets_wrong() -> None:
    rows = [target for target in TARGETS.values() if "-dsp" in target.synthesis.split()]
    assert rows
    for target in rows:
        assert target.timing.product == 1 and not target.timing.tree


@pytest.mark.parametrize("device", TARGETS)
def test_no_block_of_a_vendor_is_instantiated(device: str, tmp_path: Path) -> None:
    model, _, _ = network_of("lstm", 2, 3, 2, bits=6)
    generate(model, tmp_path / "verilog", lanes=2, name="net", target=device)
    text = (tmp_path / "verilog" / "net.v").read_text()
    modules = set(re.findall(r"^module (\w+)", text, re.MULTILINE))
    instances = set(re.findall(r"^  (\w+) (?:#\(.*\) )?\w+ \(\s*$", text, re.MULTILINE))
    assert instances and instances < modules


def test_the_timing_that_yosys_gets_wrong_is_refused(tmp_path: Path, capsys: Any) -> None:
    share()
    model, _, _ = network_of("rnn", 2, 3, 2, bits=6)
    timing = dataclasses.replace(TARGETS["up5k"].timing, product=2, halves=(0, 0))
    generate(model, tmp_path / "verilog", lanes=1, target="up5k", timing=timing)
    code, told = main(["implement", str(tmp_path / "verilog"), "--device", "up5k"]), capsys.readouterr()
    if code == 0:
        pytest.skip("this Yosys takes two plain registers behind a product: Timing(product=2) may be used with -dsp")
    assert code == 2
    assert re.search(r"^hwrnn: Tools must end without an error, but .*(conflict|SIGSEGV)", told.err, re.MULTILINE)
    assert not (tmp_path / "verilog" / "implementation-up5k").exists()
