"""What goes into the FPGA: the netlist after synthesis and packing runs the generated folder's own bench in Icarus."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ecp5_cells import models
from networks import network_of

from hwrnn.rtl import TARGETS, generate
from hwrnn.rtl.packing import pack
from hwrnn.rtl.synthesis import NETLIST, synthesize
from hwrnn.rtl.tools import run_all, yosys_job

pytestmark = pytest.mark.fpga


def share() -> Path:
    """The folder of Yosys' cell models."""
    found = importlib.util.find_spec("pyosys")
    if found is None or found.origin is None:
        pytest.skip("pyosys of hwrnn[fpga] is not installed")
    return Path(found.origin).parent / "share"


def cell_models(family: str, folder: Path) -> list[Path]:
    """Files with Verilog of a family's cells."""
    if family == "ice40":
        return [share() / "ice40" / "cells_sim.v"]
    text = (share() / "lattice" / "common_sim.vh").read_text() + (share() / "lattice" / "ccu2c_sim.vh").read_text()
    # Icarus takes no $error where a module's items stand; our blocks come from a file of ours.
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("$error")]
    (folder / "cells.v").write_text("\n".join(lines) + models())
    return [folder / "cells.v"]


def verdict_of(device: str, generated: Path, folder: Path, packs: bool | None = None) -> tuple[str, dict]:
    """The last line of a generated folder's bench on the netlist that a part gets, and the netlist.

    Args:
        packs: whether ECP5's memories get their registers; None where that does not matter.
    """
    simulator, vvp = shutil.which("iverilog"), shutil.which("vvp")
    if simulator is None or vvp is None:
        pytest.skip("Icarus Verilog is not installed")
    share()
    target = TARGETS[device]
    work = folder / "work"
    work.mkdir()
    shutil.copy(generated / "net.v", work / "network.v")
    netlist = synthesize(target, "net", "network.v", work)
    if target.family == "ecp5":
        packed = pack(netlist, "net")
        assert packed.inputs and packed.outputs and packed.pipelines
        assert packs is None or bool(packed.memories) == packs
        (work / NETLIST).write_text(json.dumps(netlist))
    (work / "write.ys").write_text(f"read_json {NETLIST}\nwrite_verilog -noattr mapped.v\n")
    assert run_all([yosys_job("write.ys", "write.log", "mapped.v")], work) == [None]
    files = [generated / "net_tb.v", work / "mapped.v", *cell_models(target.family, work)]
    # Yosys' models of iCE40 give unconnected pins their defaults by means that Icarus does not have.
    made = [simulator, "-g2005", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", f"-I{share() / 'lattice'}", "-o", work / "bench"]
    made += files
    subprocess.run(made, check=True, stdin=subprocess.DEVNULL)
    done = subprocess.run(
        [vvp, "-n", work / "bench"], cwd=generated, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return done.stdout.splitlines()[-1], netlist


@pytest.mark.parametrize(
    "device, cell, lanes, units",
    [
        ("up5k", "lstm", 2, 5),  # SB_MAC16, registers inside
        ("hx8k", "gru", 2, 4),  # multipliers of logic
        ("ecp5-25k-6", "lstm", 4, 5),
        ("ecp5-25k-6", "gru", 8, 16),  # weights in DP16KD
    ],
)
def test_the_netlist_gives_the_golden_integers(device: str, cell: str, lanes: int, units: int, tmp_path: Path) -> None:
    share()
    model, x, lengths = network_of(cell, 3, units, 2, bits=6, lengths=(2, 1))
    generated = tmp_path / "verilog"
    generate(model, generated, lanes=lanes, name="net", target=device, samples=x, lengths=lengths)
    verdict, _ = verdict_of(device, generated, tmp_path, units == 16)
    assert verdict.startswith("PASS net"), verdict
