"""The command line of the fuzzer in tests/fuzz_onnx.py; ``scripts/fuzz`` runs it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import fuzz_data
import fuzz_onnx


def main() -> int:
    """Fuzz for some time, or look at one saved input; 1 where something failed."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--data", choices=list(fuzz_data.MUTANTS), help="data files in place of models")
    parser.add_argument("--minutes", type=float, default=1.0, metavar="M", help="how long (default: 1)")
    parser.add_argument("--inputs", type=int, metavar="N", help="how many inputs, in place of a time")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="of the inputs (default: the time)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes beside each other (default: 1)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where inputs that fail are saved")
    parser.add_argument("--input", type=Path, metavar="FILE", help="look at one saved input")
    given = parser.parse_args()
    if given.input is not None:
        content = given.input.read_bytes()
        tally = fuzz_onnx.fuzz(lambda _: content, suffix=given.input.suffix, inputs=1, output=given.output)
    else:
        seed = int(time.time()) if given.seed is None else given.seed
        if given.data is None:
            seeds, mutant, suffix = fuzz_onnx.all_seeds(), fuzz_onnx.mutant, ".onnx"
        else:
            seeds, mutant, suffix = fuzz_data.seeds(given.data), fuzz_data.MUTANTS[given.data], f".{given.data}"
        print(f"seed {seed}, {len(seeds)} files to damage", flush=True)
        tally = fuzz_onnx.fuzz(
            lambda number: mutant(seeds, seed, number), suffix=suffix, inputs=given.inputs,
            seconds=None if given.inputs else 60 * given.minutes, jobs=given.jobs, output=given.output,
        )  # fmt: skip
    print(fuzz_onnx.report(tally))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
