"""Utterances a second through exported models in ONNX Runtime, on one thread.

The data are those of Japanese Vowels (370 test utterances of 7 to 29 steps of 12 channels), the network is an LSTM with
a head of nine scores. The integer graph's results must equal golden's, and the float graph's those of ``predict`` to
1e-4. Batches of every size asked for are cut from the test part; every batch is padded to its own longest utterance.

    python scripts/bench_onnx.py [--cell lstm] [--hidden 32] [--bits 8] [--batches 1,32,370] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hwrnn.cells import CELLS
from hwrnn.data import load_dataset
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.onnx_io import save
from hwrnn.quantization import quantize

Batch = dict[str, np.ndarray]


def session_of(path: str) -> Any:
    """A file in ONNX Runtime on one thread of the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def batches(x: np.ndarray, lengths: np.ndarray, size: int) -> list[Batch]:
    """The data in batches, each padded to its own longest sequence."""
    parts = [slice(k, k + size) for k in range(0, len(x), size)]
    return [{"x": x[p, : lengths[p].max()], "lengths": lengths[p]} for p in parts]


def seconds(run: Callable[[], Any], turns: int) -> float:
    """The median of the processor's time of a few turns after one to warm up."""
    run()
    times = []
    for _ in range(turns):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=list(CELLS), default="lstm")
    for name, value in (("hidden", 32), ("bits", 8), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batches", default="1,32,370")
    parser.add_argument("--activation")
    parser.add_argument("--gate")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    data = load_dataset("japanese-vowels")
    test = data.test
    assert test is not None
    model = build_model(
        data.inputs, data.outputs, cell=args.cell, hidden=args.hidden, activation=args.activation, gate=args.gate
    )
    quantized = quantize(model, data, args.bits, method="mse")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, one in (("float", model), ("integer", quantized)):
            path = str(Path(folder) / f"{kind}.onnx")
            save(one, path)
            session = session_of(path)
            whole = {"x": test.x, "lengths": test.lengths}
            if kind == "integer":
                expected = golden(quantized, quantized.quantize_input(test.x), test.lengths).output
                if not np.array_equal(session.run(["raw"], whole)[0], expected):
                    raise SystemExit("The integer graph differs from golden")
            elif np.abs(session.run(["y"], whole)[0] - model.predict(test.x, test.lengths)).max() > 1e-4:
                raise SystemExit("The float graph differs from the model")
            for size in map(int, args.batches.split(",")):
                parts = batches(test.x, test.lengths, size)
                taken = seconds(lambda s=session, p=parts: [s.run(["y"], part) for part in p], args.turns)
                found.setdefault(kind, {})[str(size)] = round(len(test.x) / taken, 1)
    if args.json:
        about = {"cell": args.cell, "hidden": args.hidden, "bits": args.bits}
        print(json.dumps({**about, "utterances_per_second": found}))
        return
    print(f"{args.cell}({args.hidden}) in ONNX Runtime {onnxruntime.__version__}, one thread, utterances a second")
    for kind, rates in found.items():
        bits = f" at {args.bits} bits" if kind == "integer" else ""
        print(f"  {kind}{bits}: " + ", ".join(f"{rate:,.0f} in batches of {size}" for size, rate in rates.items()))


if __name__ == "__main__":
    main()
