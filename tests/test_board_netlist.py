"""What goes onto a board, pins and all, as a netlist in Icarus: it answers requests as the simulated board does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from networks import network_of
from simulated_board import SimulatedBoard
from test_netlist import cell_models, share

from hwrnn.frames import FrameReader, Kind, encode
from hwrnn.golden import golden
from hwrnn.host import packed
from hwrnn.rtl import Network, generate
from hwrnn.rtl.board import design_for
from hwrnn.rtl.boards import BOARDS
from hwrnn.rtl.folding import fold
from hwrnn.rtl.packing import pack
from hwrnn.rtl.synthesis import NETLIST, synthesize
from hwrnn.rtl.tools import run_all, yosys_job

pytestmark = pytest.mark.fpga

_BIT = 10  # units of time for a cycle
_GSR = "module SGSR(input GSR, input CLK); endmodule\n"  # the models of registers begin with their initial values


def bench(top: str, clock: str, divisor: int, talk: list[tuple[bytes, bytes]]) -> str:
    """A bench that says requests one after the other, each when the answer before has had its time, and shows every
    byte that comes back."""
    bit = _BIT * divisor
    said = ""
    for request, answer in talk:
        said += "".join(f"    say(8'd{byte});\n" for byte in request) + f"    #{bit * (11 * len(answer) + 100)};\n"
    return f"""`timescale 1ns/1ns
module bench;
  reg clk = 0, rx = 1;
  wire clk_pin = clk, rx_pin = rx;
  wire tx_pin;
  {top} dut(.{clock}(clk_pin), .uart_0__rx__io(rx_pin), .uart_0__tx__io(tx_pin));
  reg [7:0] heard;
  integer j, k;
  always #{_BIT // 2} clk = ~clk;
  task say(input [7:0] one);
    begin
      rx = 0; #{bit};
      for (j = 0; j < 8; j = j + 1) begin rx = one[j]; #{bit}; end
      rx = 1; #{bit};
    end
  endtask
  initial begin
    #{_BIT * 1000};
{said}    $finish;
  end
  always begin
    @(negedge tx_pin);
    #{bit // 2};
    for (k = 0; k < 8; k = k + 1) begin #{bit}; heard[k] = tx_pin; end
    #{bit};
    if (tx_pin === 1'b1) $display("heard %02x", heard); else $display("heard no stop bit");
  end
endmodule
"""


@pytest.mark.parametrize(
    "board, baud",  # the fewest cycles a bit
    [("icebreaker", 1_500_000), pytest.param("ulx3s", 2_500_000, marks=pytest.mark.long)],
)
def test_the_netlist_of_a_board_answers(board: str, baud: int, tmp_path: Path) -> None:
    simulator, vvp = shutil.which("iverilog"), shutil.which("vvp")
    if simulator is None or vvp is None:
        pytest.skip("Icarus Verilog is not installed")
    pytest.importorskip("amaranth_boards")
    share()
    model, x, lengths = network_of("lstm", 2, 3, 2, bits=6, lengths=(2, 1))
    target = BOARDS[board].target
    generated = tmp_path / "verilog"
    manifest = generate(model, generated, lanes=2, name="net", target=target.name, samples=x, lengths=lengths)
    raw = model.quantize_input(x)
    elements = [packed(raw[n, :length], 1) for n, length in enumerate(lengths)]
    damaged = bytearray(encode(Kind.END, 4, elements[1]))
    damaged[6] ^= 1
    requests = [
        bytes(20), encode(Kind.IDENTIFY, 1),
        encode(Kind.DATA, 2, elements[0][:3]), encode(Kind.END, 3, elements[0][3:]),
        bytes(damaged), encode(Kind.DATA, 5, elements[0][:1]), encode(Kind.RESET, 6),
        encode(Kind.END, 7, elements[1]),
    ]  # fmt: skip

    simulated = SimulatedBoard(Network(model, 2, timing=target.timing))
    answers = []
    for one in requests:
        simulated.write(one)
        simulated.flush()
        answers.append(simulated.read(100))
    simulated.close()
    expected = b"".join(answers)
    outputs = [frame for frame in FrameReader(100).feed(expected) if frame.kind == Kind.OUTPUT]
    size = manifest["ports"]["output"]["tdata_bits"] // 8
    assert [frame.payload[:-1] for frame in outputs] == [
        packed(row, size) for row in golden(model, raw, lengths).output
    ]

    work = tmp_path / "work"
    work.mkdir()
    design = design_for(BOARDS[board], manifest, baud)
    shutil.copy(generated / "net.v", work / "network.v")
    (work / "board.v").write_text(design.verilog)
    netlist = synthesize(target, design.top, "network.v board.v", work)
    if target.family == "ecp5":
        fold(netlist, design.top)
        pack(netlist, design.top)
        (work / NETLIST).write_text(json.dumps(netlist))
    (work / "write.ys").write_text(f"read_json {NETLIST}\nwrite_verilog -noattr mapped.v\n")
    assert run_all([yosys_job("write.ys", "write.log", "mapped.v")], work) == [None]
    clock = next(port for port in netlist["modules"][design.top]["ports"] if port.startswith("clk"))
    talk = list(zip(requests, answers, strict=True))
    (work / "bench.v").write_text(_GSR + bench(design.top, clock, round(design.clock_mhz * 1e6 / baud), talk))
    made = [simulator, "-g2005", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", f"-I{share() / 'lattice'}", "-o", work / "bench"]
    (work / "cells.v").write_text(cell_models(target.family))
    made += [work / "bench.v", work / "mapped.v", work / "cells.v"]
    subprocess.run(made, check=True, stdin=subprocess.DEVNULL)
    done = subprocess.run(
        [vvp, "-n", work / "bench"], cwd=work, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    heard = [line.removeprefix("heard ") for line in done.stdout.splitlines() if line.startswith("heard ")]
    assert heard == [f"{byte:02x}" for byte in expected], done.stdout[-1000:]
