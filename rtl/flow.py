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
from hwrnn.rtl.board import BoardDesign, check_clock, design_for
from hwrnn.rtl.boards import Board, board_named
from hwrnn.rtl.folding import fold
from hwrnn.rtl.implementation import Implementation
from hwrnn.rtl.names import top_name
from hwrnn.rtl.packing import pack
from hwrnn.rtl.paths import critical_path
from hwrnn.rtl.placement import BOARD_PINS, bitstream, constraints, place
from hwrnn.rtl.recipes import FAMILIES
from hwrnn.rtl.synthesis import NETLIST, SYNTHESIS_LOG, check_fits, synthesize
from hwrnn.rtl.targets import Target, target_named
from hwrnn.rtl.tools import ToolError, check_installed, versions, without_places, yosys_package

__all__ = ["implement", "ready_for"]

#: Called with what is done, the total, and words.
Progress = Callable[[float, float, str], None]


def implement(
    folder: str | os.PathLike[str],
    device: str | None = None,
    *,
    board: str | None = None,
    baud: int | None = None,
    seeds: int = 1,
    steps: float | None = None,
    progress: Progress | None = None,
) -> Implementation:
    """Bring a generated network onto a part, or onto a board behind its UART.

    The folder gets a folder ``implementation-DEVICE`` (or ``-BOARD``) with the bitstream, ``report.json`` and the
    tools' logs; it is whole or as it was. For parts that no open tool places, it holds the report of synthesis alone.

    Args:
        folder: what :func:`hwrnn.rtl.generate` wrote.
        device: a part (``hwrnn.rtl.TARGETS``); either this or a board.
        board: a board (``hwrnn.rtl.boards.BOARDS``), whose UART then takes samples and returns results.
        baud: rate of the board's UART; None for the board's own.
        seeds: runs of place and route, with seeds from 1; the best is kept and all are reported.
        steps: time steps of a sequence, to tell inferences a second; where None the report tells steps alone.
        progress: is called with what is done, the total and words while the tools run.

    Raises:
        UsageError: a folder that generate did not write, an unknown part or board, a network too large for it or too
            slow for the board's clock, a tool that failed, or (``MissingExtra``) one that is not installed.
    """
    chosen = _chosen(device, board, baud)
    target = ready_for(str(device) if chosen is None else chosen.part)
    seeds = as_integer("Seeds", seeds, 1)
    if steps is not None and not (isinstance(steps, (int, float)) and 1 <= steps < float("inf")):
        raise UsageError(f"Steps must be a number of at least 1, not {steps!r}")
    manifest, verilog = _generated(Path(folder))
    try:
        design = None if chosen is None else design_for(chosen, manifest, baud)
    except (KeyError, TypeError, AttributeError) as error:
        raise _foreign(folder) from error
    if manifest.get("weights") == "spram" and not target.sprams:
        raise UsageError(f"Network must have weights other than 'spram' for {device}, which has no such memory")
    stages = 1 + (seeds + 1 if target.place else 0)
    final = Path(folder) / f"implementation-{device or board}"

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
            result = _run(target, manifest, work, seeds, tell, design)
        except ToolError as error:
            kept = Path(tempfile.mkdtemp(prefix="hwrnn-failed-")) / "log"
            kept.write_text(error.log)
            raise UsageError(f"Tools must end without an error, but {error} (their log: {str(kept)!r})") from error
        kept_files = [SYNTHESIS_LOG]
        if result.placed:
            best = result.placed[0].seed
            kept_files += [str(result.bitstream), f"placement-{best}.log", f"timing-{best}.json"]
        for file in kept_files:
            if file == result.bitstream:
                shutil.copy(work / file, out / file)
            else:  # paths of this machine's packages say nothing anywhere else
                packages = [yosys_package(), *_packages(target)]
                (out / file).write_bytes(without_places((work / file).read_bytes(), packages))
        result = replace(result, folder=str(final), steps=steps)
        # The file beside it, wherever the folder goes.
        (out / "report.json").write_text(json.dumps(result.to_json(), indent=2) + "\n")
        made = None if result.bitstream is None else str(final / result.bitstream)
        result = replace(result, bitstream=made)
    tell(stages, "done")
    return result


def _chosen(device: str | None, board: str | None, baud: int | None) -> Board | None:
    if (device is None) == (board is None):
        raise UsageError("Device or board must be given, and not both: name a part or a board")
    if board is None and baud is not None:
        raise UsageError(f"Baud must be given with a board, not with the device {device!r}")
    return None if board is None else board_named(board)


def ready_for(device: str) -> Target:
    """The part of that name, with all tools for it installed.

    Raises:
        UsageError: an unknown part.
        MissingExtra: a tool that is not installed.
    """
    target = target_named(device, "Device")
    yosys_package()
    check_installed(_packages(target))
    return target


def _packages(target: Target) -> list[str]:
    family = FAMILIES[target.family]
    return [module for module, _ in (family.placer, family.packer) if module]


def _foreign(folder: str | os.PathLike[str]) -> UsageError:
    return UsageError(f"Folder must be one that hwrnn generate wrote, with a manifest.json, not {os.fspath(folder)!r}")


def _generated(folder: Path) -> tuple[dict[str, Any], Path]:
    """The manifest and the Verilog file of a generated folder."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        name = top_name(manifest["name"])
        int(manifest["cycles_per_step"]["value"]), int(manifest["latency"]["value"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise _foreign(folder) from error
    verilog = folder / f"{name}.v"
    if not verilog.is_file():
        raise UsageError(f"Folder must hold {verilog.name!r} as its manifest.json says, and {str(folder)!r} does not")
    return manifest, verilog


def _run(
    target: Target,
    manifest: dict[str, Any],
    work: Path,
    seeds: int,
    tell: Callable[[float, str], object],
    design: BoardDesign | None,
) -> Implementation:
    """Everything between the Verilog and the bitstream, in the working folder."""
    family, name = FAMILIES[target.family], manifest["name"] if design is None else design.top
    sources = "network.v"
    if design is not None:
        (work / "board.v").write_text(design.verilog)
        sources += " board.v"
    netlist = synthesize(target, name, sources, work, lambda done: tell(done * 0.99, "synthesis"))
    cells = check_fits(target, netlist, name)
    synthesized = Implementation(
        target=target, network=manifest, cells=cells, lut=cells.luts, ff=cells.flip_flops, placed=(), path=None,
        bitstream=None, folder="", tools=versions([yosys_package(), *_packages(target)]), design=design,
    )  # fmt: skip
    if not target.place:
        return synthesized
    if design is None:
        constraints(target, netlist["modules"][name]["ports"], "aclk", work)
    else:
        (work / BOARD_PINS).write_text(design.constraints)
    if target.family == "ecp5":
        fold(netlist, name)
        pack(netlist, name)
        (work / NETLIST).write_text(json.dumps(netlist))
    words = f"place and route, seeds 1 to {seeds}" if seeds > 1 else "place and route"
    placed = place(target, NETLIST, work, range(1, seeds + 1), lambda done: tell(1 + done, words), design is not None)
    best = placed[0]
    if design is not None:
        check_clock(design, best)
    tell(1 + seeds, "bitstream")
    return replace(
        synthesized,
        lut=best.used[family.logic]["used"],
        ff=best.used[family.registers]["used"] if family.registers else cells.flip_flops,
        placed=tuple(placed),
        path=critical_path(best.path, len(manifest.get("layers", ()))),
        bitstream=bitstream(target, best.design, manifest["name"], work),
    )
