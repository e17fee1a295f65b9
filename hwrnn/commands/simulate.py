"""``hwrnn simulate``: golden model, hardware and float side by side, cycle by cycle."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hwrnn import report
from hwrnn.commands.options import data_options, lane_count, whole

if TYPE_CHECKING:
    from hwrnn.quantization import QuantizedModel

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "golden model, hardware and float side by side, cycle by cycle"
EXAMPLE = "hwrnn simulate q.onnx --data japanese-vowels --lanes 16 --count 20"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("model", help="a quantized model of hwrnn")
    data_options(parser)
    parser.add_argument("--float", metavar="FILE", help="the float model to compare with (default: q's weights)")
    parser.add_argument(
        "--lanes", type=lane_count, default=16, metavar="N",
        help="budget of multipliers (default 16); auto: by --target",
    )  # fmt: skip
    parser.add_argument("--channels", type=whole, default=1, metavar="N", help="sequences in turn (default 1)")
    parser.add_argument("--target", "--device", metavar="T", help="simulate what generate makes for this part")
    parser.add_argument("--simulator", help="cxxrtl, amaranth, icarus or verilator (default cxxrtl)")
    parser.add_argument("--argmax", action="store_true", help="simulate the head that returns the class")
    parser.add_argument("--count", type=whole, metavar="N", help="only the first N sequences")
    parser.add_argument("--input-stall", default="always", help="always, random, bursts or waits (default always)")
    parser.add_argument("--output-stall", default="always", help="always, random, bursts or waits (default always)")
    parser.add_argument("--vcd", metavar="FILE", help="write a waveform with the expected values beside the actual")
    parser.add_argument("--seed", type=whole, default=0, help="of the stalls (default 0)")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_fits, dataset_of, float_model, quantized_model
    from hwrnn.sim import simulate

    model, data = quantized_model(given.model), dataset_of(given)
    check_fits(model, data)
    reference = model.in_float() if given.float is None else float_model(given.float)
    part = data.evaluation
    lanes, timing = _built(model, given.lanes, given.target, given.channels)
    result = simulate(
        model, part.x, part.lengths, y=part.y, float_model=reference, lanes=lanes, timing=timing,
        simulator=given.simulator, argmax=given.argmax, channels=given.channels, count=given.count,
        input_stall=given.input_stall,
        output_stall=given.output_stall, vcd=given.vcd, seed=given.seed, progress=report.Progress("simulate"),
    )  # fmt: skip
    if given.json:
        report.print_json(result.to_json())
    else:
        print(result)
    return 1 if result.fault else 0


def _built(model: QuantizedModel, lanes: Any, target: str | None, channels: int) -> tuple[Any, Any]:
    """The lanes and the registers that ``generate`` builds for a part."""
    from hwrnn.rtl.balance import lanes_for
    from hwrnn.rtl.targets import target_named
    from hwrnn.rtl.timing import SHORTEST

    part = None if target is None else target_named(target)
    timing = SHORTEST if part is None else part.timing
    chosen = lanes_for(model, part, timing, channels) if lanes == "auto" else None
    return (lanes if chosen is None else list(chosen.lanes)), timing
