"""``hwrnn demo``: the whole job on the embedded data: train, quantize, compare, generate, simulate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hwrnn import report
from hwrnn.commands.options import whole

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "the whole job on the embedded data: train, quantize, compare, generate, simulate"
EXAMPLE = "hwrnn demo --out hwrnn-demo"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("--out", default="hwrnn-demo", metavar="DIR", help="folder of the results (default hwrnn-demo)")
    parser.add_argument("--quick", action="store_true", help="less training, and a part of the test data")
    parser.add_argument("--device", metavar="PART", help="go on to a bitstream for this part (needs hwrnn[fpga])")
    parser.add_argument("--seed", type=whole, default=0, help="of the random generators (default 0)")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.demo import demo

    result = demo(Path(given.out), quick=given.quick, seed=given.seed, device=given.device)
    if given.json:
        report.print_json(result.to_json())
    else:
        print(result)
    return 1 if result.report.fault else 0
