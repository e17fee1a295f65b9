"""``hwrnn run``: run sequences on a board and compare with the golden model."""

from __future__ import annotations

import argparse
from typing import Any

from hwrnn import report
from hwrnn.commands.options import data_options, number, whole

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "run sequences on a board and compare with the golden model"
EXAMPLE = "hwrnn run q.onnx --port /dev/ttyUSB1 --data japanese-vowels"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("model", help="the quantized model that the board's network was generated from")
    data_options(parser)
    parser.add_argument("--port", required=True, metavar="P", help="the board's serial port: /dev/ttyUSB1, COM5, ...")
    parser.add_argument("--baud", type=whole, metavar="R", help="as given to implement (default 1000000)")
    parser.add_argument("--count", type=whole, metavar="N", help="only the first N sequences")
    parser.add_argument("--timeout", type=number, default=2.0, metavar="S", help="seconds without answer (default 2)")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_fits, dataset_of, quantized_model
    from hwrnn.on_board import run_on_board

    model, data = quantized_model(given.model), dataset_of(given)
    check_fits(model, data)
    part = data.evaluation
    more = {} if given.baud is None else {"baud": given.baud}
    result = run_on_board(
        model, given.port, part.x, part.lengths, y=part.y, count=given.count, timeout=given.timeout,
        progress=report.Progress("run"), **more,
    )  # fmt: skip
    if given.json:
        report.print_json(result.to_json())
    else:
        print(result)
    return 1 if result.mismatches else 0
