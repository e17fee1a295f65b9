"""Accuracy of recurrent networks with hard nonlinearities on Japanese Vowels, over several seeds.

One recipe for all cells and seeds, ``hwrnn.training.train``'s defaults on the official split. A seed decides the
initial weights, the order of the data and the noise; no run is chosen or stopped by its test accuracy.

    python scripts/bench_accuracy.py [--cells lstm gru] [--seeds 5] [--hidden 32] [--json]
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from hwrnn.cells import CELLS
from hwrnn.data import Dataset, load_dataset
from hwrnn.model import build_model
from hwrnn.training import evaluate, train


def float_accuracy(dataset: Dataset, cell: str, hidden: int, layers: int, seed: int, cell_clip: float | None) -> float:
    """Test accuracy (0 to 1) of one network trained with the default recipe."""
    clip = cell_clip if "c" in CELLS[cell].states else None
    model = build_model(
        dataset.inputs, dataset.outputs, cell=cell, hidden=hidden, layers=layers, cell_clip=clip, seed=seed
    )
    trained = train(model, dataset, seed=seed)
    return evaluate(trained.predict, dataset.evaluation, dataset.task, dataset.per_step)["accuracy"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=["lstm", "gru"])
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--cell-clip", type=float, default=2.0, help="bound of an LSTM's cell state; 0 for none")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    dataset = load_dataset("japanese-vowels")
    rows = []
    for cell in args.cells:
        start = time.perf_counter()
        values = [
            100 * float_accuracy(dataset, cell, args.hidden, args.layers, seed, args.cell_clip or None)
            for seed in range(args.seeds)
        ]
        seconds = (time.perf_counter() - start) / args.seeds
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=min(1, args.seeds - 1)))
        rows.append({"cell": cell, "hidden": args.hidden, "float": values, "mean": mean, "deviation": deviation,
                     "seconds_per_seed": seconds})  # fmt: skip
        if not args.json:
            each = " ".join(f"{v:.1f}" for v in values)
            print(f"{cell:18} {mean:5.2f} ± {deviation:.2f} %   ({each})   {seconds:.1f} s a seed", flush=True)
    if args.json:
        print(json.dumps({"data": dataset.name, "metric": "accuracy", "rows": rows}))


if __name__ == "__main__":
    main()
