"""Accuracy of recurrent networks with hard nonlinearities on Japanese Vowels, in float and in fixed point.

One recipe for all cells and seeds, the defaults of ``hwrnn.training.train`` and ``hwrnn.quantize`` on the official
split. A seed decides the initial weights, the order of the data and the noise; no run is chosen or stopped by its test
accuracy. Fixed point is the golden model's, which the hardware equals bit for bit.

    python scripts/bench_accuracy.py [--cells lstm gru] [--seeds 5] [--bits 16 8 6 4] [--unshifted 8] [--json]
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from hwrnn.cells import CELLS
from hwrnn.data import Dataset, load_dataset
from hwrnn.model import build_model
from hwrnn.quantization import quantize
from hwrnn.training import evaluate, train


def accuracies(
    dataset: Dataset, cell: str, hidden: int, forms: list[dict[str, int]], seed: int, clip: float | None
) -> list[float]:
    """Test accuracy (0 to 1) of one trained network: float, then with each of the options of ``quantize``."""
    clip = clip if "c" in CELLS[cell].states else None
    model = build_model(dataset.inputs, dataset.outputs, cell=cell, hidden=hidden, cell_clip=clip, seed=seed)
    trained = train(model, dataset, seed=seed)
    models = [trained, *(quantize(trained, dataset, **form) for form in forms)]
    return [evaluate(m.predict, dataset.evaluation, dataset.task, dataset.per_step)["accuracy"] for m in models]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=["lstm", "gru"])
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 8, 6, 4])
    parser.add_argument("--unshifted", type=int, nargs="*", default=[8], help="bits with operands that are not shifted")
    parser.add_argument("--cell-clip", type=float, default=2.0, help="bound of an LSTM's cell state; 0 for none")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    dataset, clip = load_dataset("japanese-vowels"), args.cell_clip or None
    forms = [{"bits": b} for b in args.bits] + [{"bits": b, "operand_bits": b} for b in args.unshifted]
    columns = ["float", *(f"{b} bits" for b in args.bits), *(f"{b} bits, operands too" for b in args.unshifted)]
    rows = []
    for cell in args.cells:
        runs = [accuracies(dataset, cell, args.hidden, forms, seed, clip) for seed in range(args.seeds)]
        values = [list(column) for column in zip(*runs, strict=True)]
        rows.append({"network": f"{cell}({args.hidden})", "values": values})
        if not args.json:
            means = [
                f"{name} {100 * np.mean(v):.2f} ± {100 * np.std(v, ddof=min(1, len(v) - 1)):.2f}"
                for name, v in zip(columns, values, strict=True)
            ]
            print(f"{cell}({args.hidden}):  " + ",  ".join(means), flush=True)
    if args.json:
        print(json.dumps({"data": dataset.name, "metric": "accuracy", "columns": columns, "rows": rows}))


if __name__ == "__main__":
    main()
