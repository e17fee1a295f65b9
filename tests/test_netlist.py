"""What goes into the FPGA: the netlist after synthesis and packing runs the generated folder's own bench in Icarus."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import cyclonev_cells
import ecp5_cells
import gowin_cells
import pytest
import xilinx_cells
from networks import network_of

from hwrnn.rtl import TARGETS, generate
from hwrnn.rtl.folding import fold
from hwrnn.rtl.packing import pack
from hwrnn.rtl.recipes import FAMILIES, count_cells
from hwrnn.rtl.synthesis import NETLIST, synthesize
from hwrnn.rtl.targets import Target
from hwrnn.rtl.tools import run_all, yosys_job

pytestmark = pytest.mark.fpga


def share() -> Path:
    """The folder of Yosys' cell models."""
    found = importlib.util.find_spec("pyosys")
    if found is None or found.origin is None:
        pytest.skip("pyosys of hwrnn[fpga] is not installed")
    return Path(found.origin).parent / "share"


def without(text: str, *modules: str) -> str:
    """Verilog without some of its modules."""
    for module in modules:
        text, count = re.subn(rf"^module {module}\b.*?^endmodule", "", text, flags=re.DOTALL | re.MULTILINE)
        assert count == 1, module
    return text


def cell_models(family: str) -> str:
    """Verilog of a family's cells: Yosys' models and, of blocks that it has none of, ours."""

    def files(*names: str) -> str:
        return "\n".join((share() / name).read_text() for name in names)

    match family:
        case "ice40":
            return files("ice40/cells_sim.v")
        case "ecp5":
            text = files("lattice/common_sim.vh", "lattice/ccu2c_sim.vh")
            # Icarus takes no $error where a module's items stand.
            lines = [line for line in text.splitlines() if not line.lstrip().startswith("$error")]
            return "\n".join(lines) + ecp5_cells.models()
        case "gowin":
            known = files("gowin/cells_sim.v")
            return without(known, *gowin_cells.EMPTY, *gowin_cells.WRITTEN_AGAIN) + gowin_cells.models()
        case "xilinx7":
            return without(files("xilinx/cells_sim.v"), "RAMB18E1", "RAMB36E1") + xilinx_cells.models()
        case "cyclonev":
            names = [f"intel_alm/common/{part}_sim.v" for part in ("alm", "dff", "dsp", "mem", "misc")]
            return without(files(*names), "MISTRAL_M10K") + cyclonev_cells.models()
    raise AssertionError(f"{family} has no models")


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog")
def test_gowins_alu_is_that_of_yosys(tmp_path: Path) -> None:
    pins = ".SUM({0}[2 * {1}]), .COUT({0}[2 * {1} + 1]), .I0(pins[0]), .I1(pins[1]), .I3(pins[2]), .CIN(pins[3])"
    cells = [
        f"  {module} #(.ALU_MODE({mode})) {side}_{mode} ({pins.format(side, mode)});"
        for module, side in (("ALU", "theirs"), ("OURS", "ours")) for mode in range(10)
    ]  # fmt: skip
    text = (share() / "gowin/cells_sim.v").read_text() + gowin_cells.ALU.replace("module ALU", "module OURS")
    text += "module bench;\n  reg [4:0] pins;\n  wire [19:0] theirs, ours;\n" + "\n".join(cells)
    text += "\n  initial for (pins = 0; pins < 16; pins = pins + 1) begin #1;\n"
    text += "    if (^ours === 1'bx || theirs !== ours) $display(pins);\n  end\nendmodule\n"
    (tmp_path / "bench.v").write_text(text)
    run = tmp_path / "bench"
    subprocess.run(["iverilog", "-g2005", "-s", "bench", "-o", run, tmp_path / "bench.v"], check=True)
    assert subprocess.run(["vvp", "-n", run], check=True, capture_output=True, text=True).stdout == ""


def mapped(target: Target, folder: Path, work: Path, blocks: bool = False) -> tuple[Path, dict[str, int]]:
    """The netlist of a generated folder as Verilog, as it goes to placement, and the number of its cells by type.

    Args:
        blocks: whether the weights go into block memory however few they are.
    """
    text = (folder / "net.v").read_text()
    if blocks:
        text, count = re.subn(r"^ *reg (\[\d+:0\] weights \[)", r'(* ram_style = "block" *) reg \1', text, flags=re.M)
        assert count
    (work / "network.v").write_text(text)
    netlist = synthesize(target, "net", "network.v", work)
    types = dict(count_cells(netlist, "net", FAMILIES[target.family]).types)
    if target.family == "ecp5":
        assert fold(netlist, "net")
        packed = pack(netlist, "net")
        assert packed.inputs and packed.outputs and packed.pipelines
        assert packed.memories == types.get("DP16KD", 0)
        (work / NETLIST).write_text(json.dumps(netlist))
    (work / "write.ys").write_text(f"read_json {NETLIST}\nwrite_verilog -noattr mapped.v\n")
    assert run_all([yosys_job("write.ys", "write.log", "mapped.v")], work) == [None]
    return work / "mapped.v", types


def run(bench: Path, netlist: Path, family: str, work: Path) -> str:
    """The last line that a bench prints beside a netlist."""
    simulator, vvp = shutil.which("iverilog"), shutil.which("vvp")
    if simulator is None or vvp is None:
        pytest.skip("Icarus Verilog is not installed")
    (work / "cells.v").write_text(cell_models(family))
    # Yosys' models of iCE40 give unconnected pins their defaults by means that Icarus does not have.
    options = ["-g2012" if family == "cyclonev" else "-g2005", "-DNO_ICE40_DEFAULT_ASSIGNMENTS"]
    options += [f"-I{share() / 'lattice'}", "-s", bench.stem]
    made = [simulator, *options, "-o", work / "bench", bench, netlist, work / "cells.v"]
    subprocess.run(made, check=True, stdin=subprocess.DEVNULL)
    done = subprocess.run(
        [vvp, "-n", work / "bench"], cwd=bench.parent, check=True, capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "device, cell, lanes, units, bits, holds",
    [
        ("up5k", "lstm", 2, 5, 6, "SB_MAC16"),  # registers inside
        pytest.param("up5k", "rnn", 2, 3, 16, "SB_MAC16", marks=pytest.mark.long),  # sums wider than the block's adder
        ("up5k", "rnn", 2, 4, 6, "SB_RAM40_4K"),
        pytest.param("hx8k", "gru", 2, 4, 6, "", marks=pytest.mark.long),  # multipliers of logic
        ("ecp5-25k-6", "lstm", 4, 3, 8, "MULT18X18D"),
        ("ecp5-25k-6", "rnn", 2, 4, 6, "DP16KD"),
        ("gw1n-9", "gru", 4, 4, 6, "MULT9X9"),
        pytest.param("gw1n-9", "lstm", 4, 2, 8, "MULT18X18", marks=pytest.mark.long),
        pytest.param("gw2a-18", "rnn", 2, 4, 6, "SPX9", marks=pytest.mark.long),
        ("xc7s15", "lstm", 4, 3, 6, "DSP48E1"),
        ("xc7s15", "rnn", 2, 4, 6, "RAMB18E1"),
        pytest.param("cyclonev", "lstm", 4, 2, 8, "MISTRAL_MUL18X18", marks=pytest.mark.long),
        ("cyclonev", "rnn", 8, 16, 6, "MISTRAL_M10K"),
    ],
)
def test_the_netlist_gives_the_golden_integers(
    device: str, cell: str, lanes: int, units: int, bits: int, holds: str, tmp_path: Path
) -> None:
    target = TARGETS[device]
    # A sequence of three steps and one of one step are what the bench counts cycles on.
    model, x, lengths = network_of(cell, 3, units, 2, bits=bits, lengths=(3, 1))
    generated, work = tmp_path / "verilog", tmp_path / "work"
    generate(model, generated, lanes=lanes, name="net", target=device, samples=x, lengths=lengths)
    work.mkdir()
    in_blocks = bool(holds) and any(re.fullmatch(pattern, holds) for pattern in FAMILIES[target.family].memories)
    netlist, types = mapped(target, generated, work, in_blocks)
    assert not holds or types[holds]
    verdict = run(generated / "net_tb.v", netlist, target.family, work)
    assert verdict.startswith("PASS net"), verdict


@pytest.mark.parametrize(
    "device, cell, units",
    [
        ("up5k", "rnn", 3),
        ("ecp5-25k-6", "gru", 3),
        pytest.param("hx8k", "mingru", 3, marks=pytest.mark.long),
        pytest.param("ecp5-25k-6", "rnn", 18, marks=pytest.mark.long),
    ],
)
def test_an_autoencoders_netlist_gives_the_golden_integers(device: str, cell: str, units: int, tmp_path: Path) -> None:
    """With the code between encoder and decoder in flip-flops, in LUTs, and in more than 16 words of them."""
    target = TARGETS[device]
    model, x, lengths = network_of(
        cell, 2, [units, 2], 2, layers=2, encoder=1, every_step=True, task="regression", bits=6, lengths=(3, 1)
    )
    generated, work = tmp_path / "verilog", tmp_path / "work"
    generate(model, generated, lanes=2, name="net", target=device, samples=x, lengths=lengths)
    work.mkdir()
    netlist, _ = mapped(target, generated, work)
    verdict = run(generated / "net_tb.v", netlist, target.family, work)
    assert verdict.startswith("PASS net"), verdict
