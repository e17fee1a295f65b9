"""``hwrnn inspect``: what is in a model, or how good an approximation is."""

from __future__ import annotations

import argparse
from typing import Any

from hwrnn import report
from hwrnn.commands.options import whole
from hwrnn.errors import UsageError

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "what is in a model, or how good an approximation is"
EXAMPLE = "hwrnn inspect q.onnx   (or a nonlinearity: hwrnn inspect pwl_sigmoid:5 --bits 8)"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("file", help="a model of hwrnn, or the name of a nonlinearity")
    parser.add_argument("--bits", type=whole, metavar="B", help="measure a nonlinearity at B fraction bits")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.inspection import certificate_table, describe, description_table, looks_like_nonlinearity

    if looks_like_nonlinearity(given.file):
        result, text = certificate_table(given.file, given.bits)
    else:
        if given.bits is not None:
            raise UsageError("Bits must be given with a nonlinearity, not with a model")
        result = describe(given.file)
        text = description_table(result)
    if given.json:
        report.print_json(result)
    else:
        print(text)
    return 0
