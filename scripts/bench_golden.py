"""Utterances a second through the golden model, in compiled C and in numpy, and through the C reference, on one core.

The data are those of Japanese Vowels (370 test utterances of 7 to 29 steps of 12 channels, repeated), the network is an
LSTM with a head of nine scores at 8 bits. Checking the input, sorting by length and writing the result are included.
All alternate in short turns and the medians of the processor's time are compared; before that, their results must be
equal. The C reference is what ``generate`` writes, an utterance after the other, compiled with ``-O2`` for any
processor of this kind; its size with ``-Os`` is that of its code and tables in the object file.

    python scripts/bench_golden.py [--cell lstm] [--hidden 32] [--bits 8] [--count 4096] [--json]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hwrnn.c_reference import c_reference
from hwrnn.cells import CELLS
from hwrnn.compiler import C, compiler
from hwrnn.data import load_dataset
from hwrnn.golden import Golden
from hwrnn.model import build_model
from hwrnn.quantization import QuantizedModel, quantize
from hwrnn.training.threads import single_thread_blas

_LOOP = """
#include "net.h"
void run(long count, long steps, const int32_t *x, const int64_t *lengths, int32_t *y)
{
    for (long n = 0; n < count; n++) {
        net_state state;
        net_init(&state);
        for (long t = 0; t < lengths[n]; t++)
            net_step(&state, x + (n * steps + t) * NET_INPUTS, t + 1 == lengths[n], y + n * NET_OUTPUTS);
    }
}
"""


def reference(model: QuantizedModel, raw: np.ndarray, lengths: np.ndarray) -> tuple[Callable[[], np.ndarray], int]:
    """The C reference over all sequences, and the bytes of its code and tables."""
    command, x = compiler(C), np.ascontiguousarray(raw, np.int32)
    assert command is not None
    y, lengths = np.zeros((len(x), model.outputs), np.int32), lengths.astype(np.int64)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**c_reference(model, "net").files, "loop.c": _LOOP}.items():
            Path(folder, name).write_text(text)
        shared = ["-std=c99", "-O2", "-shared", "-fPIC", "-o", "net.so", "net.c", "loop.c"]
        for line in (shared, ["-std=c99", "-Os", "-c", "-o", "net.o", "net.c"]):
            subprocess.run([*command, *line], cwd=folder, check=True)
        told = subprocess.run(["size", "net.o"], cwd=folder, check=True, capture_output=True, text=True).stdout
        library = ctypes.CDLL(str(Path(folder, "net.so")))
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, lengths, y)]

    def run() -> np.ndarray:
        library.run(ctypes.c_long(len(x)), ctypes.c_long(x.shape[1]), *pointers)
        return y

    return run, int(re.findall(r"\d+", told)[0])


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
    alone, size = reference(model, raw, lengths)
    if not np.array_equal(alone(), one.output):
        raise SystemExit("The C reference differs from the golden model")
    runs: dict[str, Callable[[], object]] = {"reference": alone}
    runs |= {name: lambda golden=golden: golden.run(raw, lengths) for name, golden in prepared.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    with single_thread_blas():
        for _ in range(args.turns):
            for name, run in runs.items():
                start = time.process_time()
                run()
                times[name].append(time.process_time() - start)
    rates = {name: args.count / statistics.median(values) for name, values in times.items()}
    started = time.perf_counter()
    for _ in range(100):
        prepared["c"].exchange(model)
    exchange = (time.perf_counter() - started) / 100
    if args.json:
        about = {"cell": args.cell, "hidden": args.hidden, "bits": args.bits}
        print(json.dumps({**about, **rates, "exchange_s": exchange, "reference_bytes": size}))
    else:
        print(
            f"golden, {args.cell}({args.hidden}) at {args.bits} bits: {rates['c']:,.0f} utterances a second in C, "
            f"{rates['numpy']:,.0f} in numpy; exchanging weights takes {1e6 * exchange:.0f} us; "
            f"the C reference: {rates['reference']:,.0f} utterances a second, {size:,} bytes"
        )


if __name__ == "__main__":
    main()
