"""Compare recipes by cross-validation on the training part of a data set; its test part is never looked at.

    python scripts/choose_recipe.py spoken-digits --hidden 32 noise=0.1,0.3 epochs=30,60
    python scripts/choose_recipe.py mackey-glass --hidden 16 --bits 8 finetune=20,60 finetune_rate=0.003,0.01

Each NAME=A,B,... is an option of ``hwrnn.train`` that replaces the recipe's in ``examples/recipes.py``, or with --bits
``finetune`` and ``finetune_rate`` of ``hwrnn.quantize``; all combinations are tried. Folds of a classification are
drawn at random, those of a regression are consecutive, as its windows overlap.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import numpy as np

from hwrnn import build_model, quantize, train
from hwrnn.comparing import measured
from hwrnn.data import Dataset, Split
from public_data import load
from recipes import recipe

FINETUNING = {"finetune": "finetune", "finetune_rate": "rate"}


def folds(data: Dataset, count: int) -> list[Dataset]:
    """The training part as ``count`` data sets, each with another share of it as the test part."""
    whole = data.train
    order = np.arange(len(whole))
    if data.task == "classification":
        order = np.random.default_rng(7).permutation(order)
    made = []
    for fold in np.array_split(order, count):
        parts = [Split(whole.x[rows], whole.y[rows], whole.lengths[rows]) for rows in (np.setdiff1d(order, fold), fold)]
        made.append(Dataset(f"{data.name}-fold", data.task, data.per_step, *parts))
    return made


def validated(data: Dataset, given: argparse.Namespace, chosen: dict[str, Any]) -> list[float]:
    """The metric on every fold left out, of every seed; of fixed point with ``bits``."""
    finetuning = {FINETUNING[name]: value for name, value in chosen.items() if name in FINETUNING}
    training = recipe(given.data) | {name: value for name, value in chosen.items() if name not in FINETUNING}
    values = []
    for fold in folds(data, given.folds):
        for seed in range(given.seeds):
            model = build_model(
                data.inputs, data.outputs, cell=given.cell, hidden=given.hidden, seed=seed, task=data.task,
                activation=given.activation, cell_clip=given.cell_clip,
            )  # fmt: skip
            model = train(model, fold, seed=seed, **training)
            result = model if given.bits is None else quantize(model, fold, **given.bits, **finetuning)
            values.append(measured(result, fold)[1])
    return values


def main() -> None:
    """Print the mean and its standard error for every combination."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("options", nargs="*", metavar="NAME=A,B", help="an option of training and its candidates")
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--activation")
    parser.add_argument("--cell-clip", type=float)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--bits", type=json.loads, help="a number, or JSON options of hwrnn.quantize; float without")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data-folder")
    given = parser.parse_intermixed_args()
    if isinstance(given.bits, int):
        given.bits = {"bits": given.bits}
    candidates = {}
    for option in given.options:
        name, _, values = option.partition("=")
        candidates[name] = [json.loads(value) for value in values.split(",")]
    data = load(given.data, given.data_folder)
    for values in product(*candidates.values()):
        chosen = dict(zip(candidates, values, strict=True))
        found = np.array(validated(data, given, chosen))
        error = found.std(ddof=1) / np.sqrt(len(found))
        print(f"{json.dumps(chosen)}: {found.mean():.5f} ± {error:.5f}", flush=True)


if __name__ == "__main__":
    main()
