"""Measure hwrnn's figures and write them into the README, between its two markers."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from hwrnn.data import load_dataset
from hwrnn.errors import UsageError
from hwrnn.files import atomic_write
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.quantization import QuantizedModel, quantize
from hwrnn.report import Progress, percent, quantity
from hwrnn.rtl import Network, generate
from hwrnn.sim import simulate

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- figures: written by scripts/bench -->", "<!-- end of figures -->"
SIZES = ((12, 32, 1), (12, 32, 4), (12, 32, 16), (12, 32, 128), (6, 20, 16))
CELLS = (
    "lstm", "gru", "gru-reset-before", "rnn", "ligru", "mingru", "lstm-peephole", "lstm-coupled",
    "lstm-peephole-coupled",
)  # fmt: skip


def quantized(cell: str, inputs: int, units: int, **options: Any) -> QuantizedModel:
    """An untrained 8-bit network: cycles and bits do not depend on what was learnt."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 20, inputs)).astype(np.float32)
    part = SimpleNamespace(x=x, lengths=np.full(32, 20))
    model = build_model(inputs, 9, cell=cell, hidden=units)
    return quantize(model, SimpleNamespace(train=part), 8, method="mse", **options)


def markdown(header: list[str], rows: list[list[Any]]) -> str:
    """A table."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def engines() -> str:
    """Cycles, utilization, memory bits and generation time: closed forms that the tests hold simulation to."""
    rows = []
    for cell in CELLS:
        for inputs, units, lanes in SIZES if cell in ("lstm", "gru") else ((12, 32, 16),):
            model = quantized(cell, inputs, units)
            engine = Network(model, lanes).engines[0]
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                generate(model, Path(folder) / "out", lanes=lanes)
                seconds = time.perf_counter() - start
            ideal, cycles = engine.ideal_cycles_per_step, engine.cycles_per_step
            rows.append(
                [f"{cell}, {inputs} inputs, {units} units", lanes, engine.schedule.lanes, cycles, f"{ideal:g}",
                 percent(ideal / cycles), engine.latency, engine.memory_bits, f"{seconds:.1f} s"]
            )  # fmt: skip
    header = ["8 bits", "lanes asked", "built", "cycles a step", "ideal", "utilization", "latency", "memory bits",
              "generation"]  # fmt: skip
    return markdown(header, rows)


def speeds() -> str:
    """Golden model and simulators on Japanese Vowels through LSTM(32) with 16 lanes."""
    data = load_dataset("japanese-vowels")
    part = data.evaluation
    model = quantize(build_model(data.inputs, data.outputs, cell_clip=2.0), data, 8)
    raw = model.quantize_input(part.x)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        golden(model, raw, part.lengths)
        times.append(time.perf_counter() - start)
    rows = [["golden model, utterances a second", quantity(len(raw) / float(np.median(times)))]]
    for simulator, count in (("cxxrtl", None), ("amaranth", 2)):
        result = simulate(model, part.x, part.lengths, lanes=16, simulator=simulator, count=count)
        if result.mismatches:
            raise SystemExit(f"{simulator} differs from the golden model: {result}")
        rate = quantity(result.simulated_cycles_per_second)
        rows.append([f"{simulator}, cycles a second, every stored value compared", rate])
    return markdown(["Japanese Vowels through LSTM(32), 8 bits, 16 lanes, one core", "figure"], rows)


def script(name: str, *arguments: str) -> Any:
    """The JSON of a script beside this one."""
    command = [sys.executable, str(ROOT / "scripts" / name), "--json", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"scripts/{name} failed")
    return json.loads(done.stdout)


def training() -> str:
    """One training step against the same cell in PyTorch, each with one thread, in one run."""
    try:
        import torch  # noqa: F401
    except ImportError:
        print("bench: installing PyTorch, to compare with", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "torch==2.13.0"], check=True)
    result = script("bench_training.py")
    rows = []
    names = {"c_ms": "hwrnn, compiled C", "numpy_ms": "hwrnn, numpy", "pytorch_ms": "PyTorch eager"}
    kinds = [result["float"], result["quantized"]]
    for key, name in names.items():
        rows.append([name, *(f"{kind[key]:.2f} ms" for kind in kinds)])
    rows.append(["PyTorch eager over compiled C", *(f"{kind['ratio']:.1f}" for kind in kinds)])
    rows.append(["first step, compiling included", *(f"{kind['first_call_s']:.1f} s" for kind in kinds)])
    what = "training step: LSTM(32), 12 inputs, batch 64, 30 steps, float32, one thread"
    return markdown([what, "float", "8 bits in the loop"], rows)


def reference() -> str:
    """Utterances a second through the golden model on one core."""
    rows = []
    for cell in ("lstm", "gru"):
        result = script("bench_golden.py", "--cell", cell)
        rates = [f"{result[key]:,.0f}" for key in ("c", "numpy", "reference")]
        rows.append([f"{cell}(32), 8 bits", *rates, f"{result['reference_bytes']:,}"])
    what = "golden: Japanese Vowels utterances a second, one core"
    return markdown([what, "compiled C", "numpy", "C reference, `-O2`", "its bytes, `-Os`"], rows)


def runtime() -> str:
    """Utterances a second through exported models in ONNX Runtime."""
    header, rows = ["exported, in ONNX Runtime: Japanese Vowels utterances a second, one core"], []
    for cell in ("lstm", "gru"):
        rates = script("bench_onnx.py", "--cell", cell)["utterances_per_second"]
        header[1:] = [f"batches of {size}" for size in rates["integer"]]
        for kind, what in (("integer", "8 bits, golden's integers"), ("float", "float")):
            rows.append([f"{cell}(32), {what}", *(f"{rate:,.0f}" for rate in rates[kind].values())])
    return markdown(header, rows)


def accuracy(seeds: int) -> str:
    """Test accuracy on Japanese Vowels over seeds; fixed point is the golden model's, which is the hardware's."""
    result = script("bench_accuracy.py", "--seeds", str(seeds))
    rows = []
    for row in result["rows"]:
        cells = [f"{100 * np.mean(v):.2f} ± {100 * np.std(v, ddof=1) if len(v) > 1 else 0:.2f}" for v in row["values"]]
        rows.append([row["network"], *cells])
    header = [f"Japanese Vowels, test accuracy in percent, {seeds} seeds", *result["columns"]]
    return markdown(header, rows)


def main() -> None:
    """Measure what was asked for and write it."""
    parts = {"engines": engines, "speeds": speeds, "training": training, "golden": reference, "onnx": runtime}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[*parts, "accuracy"], action="append", help="measure a part and print it")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the accuracy (default 5)")
    given = parser.parse_args()
    progress = Progress("bench", every=0)
    chosen = given.only or [*parts, "accuracy"]
    texts = []
    for k, name in enumerate(chosen):
        progress(k, len(chosen), name)
        texts.append(accuracy(given.seeds) if name == "accuracy" else parts[name]())
    progress(len(chosen), len(chosen))
    text = "\n\n".join([*texts, f"Measured on {date.today().isoformat()} on two shared cores."])
    print(text)
    if given.only:
        return
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise UsageError(f"README must hold the markers {START!r} and {END!r}")
    atomic_write(readme, f"{before}{START}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main()
