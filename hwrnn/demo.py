"""The whole job on the embedded data: train, quantize, compare, generate, simulate, and one table at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwrnn import report
from hwrnn.comparing import comparison, comparison_table
from hwrnn.errors import MissingExtra, TooLarge, UsageError

__all__ = ["Demo", "demo"]

_LANES = 16


@dataclass(frozen=True)
class Demo:
    """What the demo measured.

    Attributes:
        comparison: as ``hwrnn compare`` gives it.
        report: of the simulation.
        network: closed forms of the generated network.
        steps: mean time steps of a sequence.
        files: what was written, name to path.
        seconds: wall time of the whole.
        implementation: what a part makes of it, where one was named.
    """

    comparison: dict[str, Any]
    report: Any
    network: Any
    steps: float
    files: dict[str, str]
    seconds: float
    implementation: Any = None

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        network = self.network
        return {
            "compare": self.comparison,
            "simulate": self.report.to_json(),
            "lanes": network.lanes,
            "multipliers": network.multipliers,
            "memory_bits": network.memory_bits,
            "cycles_per_inference": self.cycles_per_inference,
            "files": self.files,
            "seconds": round(self.seconds, 1),
        } | ({} if self.implementation is None else {"implement": self.implementation.to_json()})

    @property
    def cycles_per_inference(self) -> float:
        """Cycles between the results of sequences of mean length that follow each other without a pause."""
        return self.steps * self.network.cycles_per_step

    def __str__(self) -> str:
        result, network = self.report, self.network
        accuracy = result.accuracy

        def duration(megahertz: float) -> str:
            return report.quantity(self.cycles_per_inference / (megahertz * 1e6), "s")

        rows = [
            ["float accuracy", report.percent(accuracy["float"])],
            ["fixed-point accuracy (golden model)", report.percent(accuracy["fixed"])],
            ["hardware accuracy (simulated)", report.percent(accuracy["hardware"])],
            ["mismatches, of every value of every unit and step", result.mismatches],
            ["cycles a time step (ideal)", f"{network.cycles_per_step} ({network.ideal_cycles_per_step:g})"],
            [f"time of an inference of {self.steps:.1f} steps at 50 MHz", duration(50)],
            ["the same at 100 MHz", duration(100)],
            ["multipliers (lanes + element-wise)", f"{network.lanes} + {network.multipliers - network.lanes}"],
            ["memory bits", network.memory_bits],
        ]
        made = [] if self.implementation is None else [self.implementation.table()]
        written = [[f"{what}:", path] for what, path in self.files.items()]
        return "\n\n".join(
            [
                comparison_table(self.comparison),
                report.table(rows, ["LSTM(32), Japanese Vowels, 8 bits", "figure"]),
                *made,
                report.table(written),
                f"done in {self.seconds:.0f} s",
            ]
        )


def demo(out: Path, quick: bool = False, seed: int = 0, device: str | None = None) -> Demo:
    """Do the main job and write its results into ``out``: both models, the Verilog folder and a picture.

    Args:
        quick: a third of the training, and 60 of the 370 test utterances in the simulation.
        device: a part that the network is brought onto, with as many lanes as it has room for.

    Raises:
        UsageError: a folder that cannot be written, one that is not a folder, or what ``implement`` refuses.
    """
    from hwrnn.data import load_dataset
    from hwrnn.model import build_model
    from hwrnn.onnx_io import save
    from hwrnn.quantization import quantize
    from hwrnn.rtl.flow import implement, ready_for
    from hwrnn.sim import simulate
    from hwrnn.training import train

    start = time.monotonic()
    if device is not None:
        ready_for(device)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Output folder must be one that can be made and written to, not {str(out)!r}") from error
    data = load_dataset("japanese-vowels")
    files = {
        "float model": out / "model.onnx",
        "quantized model": out / "quantized.onnx",
        "Verilog": out / "verilog",
        "picture": out / "demo.png",
    }
    report.say("1/5 train LSTM(32) with hard nonlinearities")
    model = build_model(data.inputs, data.outputs, cell="lstm", hidden=32, cell_clip=2.0, seed=seed)
    epochs = 30 if quick else 80
    model = train(model, data, epochs=epochs, seed=seed, progress=report.epochs_bar("  train"))
    save(model, files["float model"])
    report.say("2/5 quantize to 8 bits")
    quantized = quantize(model, data, 8)
    save(quantized, files["quantized model"])
    report.say("3/5 compare float with 16, 12, 8, 6 and 4 bits")
    compared = comparison(model, data, [16, 12, 8, 6, 4], progress=report.Progress("  compare"))
    network = _generated(quantized, files["Verilog"], device)
    report.say("5/5 simulate the hardware cycle by cycle")
    part = data.evaluation
    result = simulate(
        quantized, part.x, part.lengths, y=part.y, float_model=model, network=network, count=60 if quick else None,
        progress=report.Progress("  simulate"),
    )  # fmt: skip
    steps = float(part.lengths[: result.sequences].mean())
    try:
        from hwrnn.pictures import demo_picture

        demo_picture(files["picture"], compared, model, quantized, part)
    except MissingExtra as error:
        report.say(f"no picture: {error}")
        del files["picture"]
    made = None
    if device is not None:
        report.say(f"and a bitstream for {device}")
        made = implement(files["Verilog"], device, steps=steps, progress=report.Progress("  implement"))
        if made.bitstream is not None:
            files["bitstream"] = Path(made.bitstream)
    names = {what: str(path) for what, path in files.items()}
    return Demo(compared, result, network, steps, names, time.monotonic() - start, made)


def _generated(model: Any, folder: Path, device: str | None) -> Any:
    """Write the Verilog, with as many lanes as the part has room for; the network, its values on probes."""
    from hwrnn.rtl import TARGETS, Network, generate
    from hwrnn.rtl.timing import SHORTEST

    part = None if device is None else TARGETS[device]
    lanes = 2 if part is not None and not part.multipliers else _LANES
    report.say(f"4/5 generate Verilog for {lanes} lanes")
    while True:
        try:
            generate(model, folder, lanes=lanes, target=device)
            break
        except TooLarge:
            if lanes == 1:
                raise
            lanes //= 2
            report.say(f"    that is too large for {device}: {lanes} lanes")
    return Network(model, lanes, probed=True, timing=SHORTEST if part is None else part.timing)
