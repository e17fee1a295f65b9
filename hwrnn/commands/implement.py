"""``hwrnn implement``: synthesize, place and route: from Verilog to a bitstream and a report."""

from __future__ import annotations

import argparse
from typing import Any

from hwrnn import report
from hwrnn.commands.options import whole

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "synthesize, place and route: from Verilog to a bitstream and a report"
EXAMPLE = "hwrnn implement verilog --device ecp5-25k-6 --seeds 5"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("folder", metavar="DIR", help="what hwrnn generate wrote")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--device", metavar="PART", help="up5k, hx8k, ecp5-25k-6, gw1n-9, ...")
    where.add_argument("--board", metavar="B", help="icebreaker or ulx3s: behind its UART, for hwrnn run")
    parser.add_argument("--baud", type=whole, metavar="R", help="of the board's UART (default 1000000)")
    parser.add_argument("--seeds", type=whole, default=1, metavar="N", help="place and route N times (default 1)")
    parser.add_argument("--steps", type=whole, metavar="N", help="of a sequence, to report inferences a second")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.rtl.flow import implement

    result = implement(
        given.folder, given.device, board=given.board, baud=given.baud, seeds=given.seeds, steps=given.steps,
        progress=report.Progress("implement"),
    )  # fmt: skip
    if given.json:
        report.print_json(result.to_json())
    else:
        print(result)
    return 0
