"""Choose the input noise of training by cross-validation on the training part of Japanese Vowels: 5 folds, 2 seeds.

    python scripts/choose_noise.py
"""

from __future__ import annotations

import numpy as np

from hwrnn.data import Dataset, Split, load_dataset
from hwrnn.model import build_model
from hwrnn.training import evaluate, train


def validated(cell: str, noise: float) -> float:
    """Mean accuracy (0 to 1) on the folds left out; the test part is never looked at."""
    data = load_dataset("japanese-vowels")
    whole, order = data.train, np.random.default_rng(7).permutation(len(data.train.x))
    values = []
    for fold in np.array_split(order, 5):
        rest = np.setdiff1d(order, fold)
        parts = [Split(whole.x[rows], whole.y[rows], whole.lengths[rows]) for rows in (rest, fold)]
        folded = Dataset("fold", data.task, data.per_step, *parts)
        for seed in range(2):
            clip = 2.0 if cell == "lstm" else None
            model = build_model(data.inputs, data.outputs, cell=cell, hidden=32, cell_clip=clip, seed=seed)
            trained = train(model, folded, noise=noise, seed=seed)
            values.append(evaluate(trained.predict, folded.evaluation, data.task, data.per_step)["accuracy"])
    return float(np.mean(values))


if __name__ == "__main__":
    for noise in (0.3, 0.5, 0.7):
        print(noise, *(f"{cell} {100 * validated(cell, noise):.2f} %" for cell in ("lstm", "gru")), flush=True)
