"""``hwrnn generate``: write Verilog, manifest and test bench."""

from __future__ import annotations

import argparse
from typing import Any

from hwrnn import report
from hwrnn.commands.options import lane_count, number, whole, words

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "write Verilog, manifest and test bench"
EXAMPLE = "hwrnn generate q.onnx --lanes 16 -o verilog"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("model", help="a quantized model of hwrnn")
    parser.add_argument(
        "--lanes", type=lane_count, default=16, metavar="N",
        help="budget of multipliers (default 16); auto: by --target",
    )  # fmt: skip
    parser.add_argument("--channels", type=whole, default=1, metavar="N", help="sequences in turn (default 1)")
    parser.add_argument(
        "--target", "--device", metavar="T", help="a part: its registers, and what share the design needs"
    )
    parser.add_argument(
        "--for", dest="tools", type=words, action="extend", default=[], metavar="TOOL",
        help="add a project for vivado, quartus or radiant; again or with commas for several",
    )  # fmt: skip
    parser.add_argument("--clock", type=number, metavar="MHZ", help="of that project (default: the part's goal)")
    parser.add_argument("--weights", default="auto", metavar="W", help="auto, block, distributed, loadable or spram")
    parser.add_argument(
        "--protect", default="none", metavar="P",
        help="check bits of weights and biases: none, parity (tells a flipped bit) or secded (corrects it)",
    )  # fmt: skip
    parser.add_argument(
        "--watchdog", type=whole, default=0, metavar="CYCLES", help="tell when a port has waited so long (default: no)"
    )
    parser.add_argument(
        "--trace", type=whole, default=0, metavar="CYCLES",
        help="the bench also compares all ports in so many cycles of simulated traffic (default: no)",
    )  # fmt: skip
    parser.add_argument("--argmax", action="store_true", help="return the class instead of the scores")
    parser.add_argument("--name", help="of the Verilog module")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import quantized_model
    from hwrnn.rtl import generate

    model = quantized_model(given.model)
    more = {} if given.name is None else {"name": given.name}
    manifest = generate(
        model, given.output, lanes=given.lanes, argmax=given.argmax, channels=given.channels, target=given.target,
        weights=given.weights, protect=given.protect, watchdog=given.watchdog, trace=given.trace, tools=given.tools,
        clock=given.clock, **more,
    )  # fmt: skip
    if given.json:
        report.print_json(manifest)
        return 0
    print(generated_table(manifest, given.output))
    return 0


def generated_table(manifest: dict[str, Any], folder: str) -> str:
    """What was generated, in a few rows."""
    made = (layer["products_per_lane_multiplier_and_cycle"] for layer in manifest["layers"])
    products = ", ".join(f"{one:.3g}" for one in made)
    rows = [
        ["folder", folder],
        ["lanes asked, built", f"{manifest['lanes']['asked']}, {manifest['lanes']['built']}"],
        ["channels", manifest["channels"]],
        ["cycles a time step", manifest["cycles_per_step"]["value"]],
        ["latency in cycles", manifest["latency"]["value"]],
        ["multipliers", manifest["multipliers"]],
        ["products a lane multiplier and cycle, by layer", products],
        ["memory bits", manifest["memory_bits"]],
    ]
    if "reason" in manifest["lanes"]:
        rows.insert(2, ["lanes of each layer", ", ".join(map(str, manifest["lanes"]["budgets"]))])
    more = [["bound by", manifest["lanes"]["reason"]]] if "reason" in manifest["lanes"] else []
    more += [[project["title"], f"{project['command']} ({project['part']})"] for project in manifest["projects"]]
    return "\n".join([report.table(rows), *(f"{what}: {words}" for what, words in more)])
