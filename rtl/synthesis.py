"""From Verilog to a netlist of a family's cells, by Yosys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hwrnn.errors import UsageError
from hwrnn.rtl.recipes import FAMILIES, Cells, count_cells
from hwrnn.rtl.sharing import kept_out, share
from hwrnn.rtl.targets import Target
from hwrnn.rtl.tools import ToolError, run_all, yosys_job

__all__ = ["NETLIST", "SYNTHESIS_LOG", "check_fits", "check_log", "script_of", "synthesize"]

NETLIST = "netlist.json"
SYNTHESIS_LOG = "synthesis.log"


def script_of(target: Target, top: str, verilog: str, boxes: Sequence[str] = ()) -> str:
    """Yosys' script for a part: from the file ``verilog`` to ``NETLIST``, with modules left as black boxes."""
    command = f"{FAMILIES[target.family].command} {target.synthesis}".strip()
    kept = f"blackbox {' '.join(boxes)}\n" if boxes else ""
    if "-dsp" in target.synthesis:
        # The adder in an iCE40's multiplier has 32 bits; Yosys 0.70 puts a wider sum there too, with bit 32 constant.
        kept += "setattr -set keep 1 */w:*sum_* */s:33:9999 %i\n"
    return f"read_verilog {verilog}\n{kept}{command} -top {top}\nflatten\nclean\ncheck\nwrite_json {NETLIST}\n"


def synthesize(
    target: Target, top: str, verilog: str, folder: Path, tick: Callable[[int], object] | None = None
) -> dict[str, Any]:
    """The netlist of ``verilog``, a file in the working folder; it stays there as ``NETLIST``, with a log.

    Raises:
        MissingExtra: Yosys is not installed.
        ToolError: Yosys failed, or its log tells of a conflict between drivers.
    """
    texts = (folder / file for file in verilog.split())
    boxes = kept_out("".join(text.read_text() for text in texts)) if any(target.timing.halves) else {}
    (folder / "synthesis.ys").write_text(script_of(target, top, verilog, list(boxes)))
    fault = run_all([yosys_job("synthesis.ys", SYNTHESIS_LOG, NETLIST)], folder, tick)[0]
    if fault is not None:
        raise fault
    check_log((folder / SYNTHESIS_LOG).read_text(errors="replace"))
    netlist: dict[str, Any] = _netlist(folder / NETLIST, top)
    if boxes:
        share(netlist, top, boxes)
        (folder / NETLIST).write_text(json.dumps(netlist))
    return netlist


def _netlist(file: Path, top: str) -> dict[str, Any]:
    try:
        netlist: dict[str, Any] = json.loads(file.read_text())
        netlist["modules"][top]["cells"], netlist["modules"][top]["ports"]
    except (ValueError, KeyError, TypeError) as error:
        log = (file.parent / SYNTHESIS_LOG).read_text(errors="replace")
        raise ToolError(f"Yosys wrote no netlist of {top} into {file.name}", log) from error
    return netlist


def check_log(log: str) -> None:
    """Raise ToolError where a log of Yosys has a line on a conflict.

    Yosys 0.23 and 0.70 warn so, and go on, where two plain registers in a row stand behind a product for an iCE40's
    multiplier: the output becomes constant 0.
    """
    for line in log.splitlines():
        if re.search(r"\bconflict", line, re.IGNORECASE):
            raise ToolError(f"Yosys made a netlist with a conflict, which is wrong: {line.strip()}", log)


def check_fits(target: Target, netlist: dict[str, Any], top: str) -> Cells:
    """Count a netlist's cells.

    Raises:
        UsageError: they are more than the part has; the text says what is too large and by how much.
    """
    cells = count_cells(netlist, top, FAMILIES[target.family])
    for need, has, what, remedy in (
        (cells.multipliers, target.multipliers, "multipliers", "give fewer lanes"),
        (cells.memories, target.memory_blocks, "blocks of memory", "use fewer bits or units"),
        (cells.sprams, target.sprams, "SPRAM blocks", "give fewer lanes or units"),
        (cells.luts, target.luts, "LUTs", "give fewer lanes or use fewer bits"),
        (cells.flip_flops, target.flip_flops, "flip-flops", "give fewer lanes or use fewer bits"),
    ):
        if need > has:
            raise UsageError(
                f"Network must need at most {has:,} {what} for {target.name}, not {need:,}, which is {need - has:,} too"
                f" many: {remedy}, or take a larger part"
            )
    return cells
