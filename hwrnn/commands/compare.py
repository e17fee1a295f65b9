"""``hwrnn compare``: accuracy of float against fixed point, side by side."""

from __future__ import annotations

import argparse
from typing import Any

from hwrnn import report
from hwrnn.commands.options import data_options, wholes

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "accuracy of float against fixed point, side by side"
EXAMPLE = "hwrnn compare m.onnx --data japanese-vowels --bits 16,12,8,6,4"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("model", help="a float model of hwrnn")
    data_options(parser)
    parser.add_argument("--bits", type=wholes, default=[16, 12, 8, 6, 4], metavar="B,B", help="default 16,12,8,6,4")
    parser.add_argument("--method", help="calibration: loss, mse or max (default loss)")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_fits, dataset_of, float_model
    from hwrnn.comparing import comparison, comparison_table

    model, data = float_model(given.model), dataset_of(given)
    check_fits(model, data)
    result = comparison(model, data, given.bits, given.method)
    if given.json:
        report.print_json(result)
    else:
        print(comparison_table(result))
    return 0
