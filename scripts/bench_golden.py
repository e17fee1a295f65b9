"""Utterances a second through the golden model, in compiled C and in numpy, on one core.

The data are those of Japanese Vowels (370 test utterances of 7 to 29 steps of 12 channels, repeated), the network is an
LSTM with a head of nine scores at 8 bits. Checking the input, sorting by length and writing the result are included.
Both alternate in short turns and the medians of the processor's time are compared; before that, their results must be
equal.

    python scripts/bench_golden.py [--cell lstm] [--hidden 32] [--bits 8] [--count 4096] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

from hwrnn.cells import CELLS
from hwrnn.data import load_dataset
from hwrnn.golden import Golden
from hwrnn.model import build_model
from hwrnn.quantization import quantize
from hwrnn.training.threads import single_thread_blas


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=list(CELLS), default="lstm")
    for name, value in (("hidden", 32), ("bits", 8), ("count", 4096), ("turns", 9)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    data = load_dataset("japanese-vowels")
    model = quantize(build_model(data.inputs, data.outputs, cell=args.cell, hidden=args.hidden), data, args.bits)
    assert data.test is not None
    rows = np.arange(args.count) % len(data.test.x)
    raw, lengths = model.quantize_input(data.test.x)[rows], data.test.lengths[rows]
    prepared = {"c": Golden(model, compiled=True), "numpy": Golden(model, compiled=False)}
    one, other = (golden.run(raw, lengths, keep=True) for golden in prepared.values())
    if not np.array_equal(one.output, other.output) or one.saturation != other.saturation:
        raise SystemExit("The compiled golden model differs from the one in numpy")
    if any(not np.array_equal(value, other.values[key]) for key, value in one.values.items()):
        raise SystemExit("The compiled golden model differs from the one in numpy in a value of a step")
    times: dict[str, list[float]] = {name: [] for name in prepared}
    with single_thread_blas():
        for _ in range(args.turns):
            for name, golden in prepared.items():
                start = time.process_time()
                golden.run(raw, lengths)
                times[name].append(time.process_time() - start)
    rates = {name: args.count / statistics.median(values) for name, values in times.items()}
    started = time.perf_counter()
    for _ in range(100):
        prepared["c"].exchange(model)
    exchange = (time.perf_counter() - started) / 100
    if args.json:
        about = {"cell": args.cell, "hidden": args.hidden, "bits": args.bits}
        print(json.dumps({**about, **rates, "exchange_s": exchange}))
    else:
        print(
            f"golden, {args.cell}({args.hidden}) at {args.bits} bits: {rates['c']:,.0f} utterances a second in C, "
            f"{rates['numpy']:,.0f} in numpy; exchanging weights takes {1e6 * exchange:.0f} us"
        )


if __name__ == "__main__":
    main()
