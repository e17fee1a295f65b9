"""``hwrnn frames``: write the weights of another model for the load port of generated Verilog."""

from __future__ import annotations

import argparse
from typing import Any

from hwrnn import report

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "write the weights of another model for the load port of generated Verilog"
EXAMPLE = "hwrnn frames q_new.onnx verilog -o weights.bin"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("model", help="a quantized model of the same structure and formats (hwrnn quantize --like)")
    parser.add_argument("folder", metavar="DIR", help="what hwrnn generate --weights loadable (or spram) wrote")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the frames, a length before each")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_output, quantized_model
    from hwrnn.files import atomic_write
    from hwrnn.rtl.load_frames import frames_of_folder, joined

    check_output(given.output)
    frames = frames_of_folder(quantized_model(given.model), given.folder)
    content = joined(frames)
    atomic_write(given.output, content)
    if given.json:
        report.print_json({"file": given.output, "frames": len(frames), "bytes": len(content)})
        return 0
    print(report.table([["file", given.output], ["frames", len(frames)], ["bytes", len(content)]]))
    return 0
