"""``hwrnn detect``: which sequences an autoencoder cannot rebuild."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hwrnn import report
from hwrnn.commands.options import data_options, number, whole

if TYPE_CHECKING:
    import numpy as np

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "score sequences by how badly an autoencoder rebuilds them, against a threshold from training data"
EXAMPLE = "hwrnn detect q.onnx --data sensor.npz --reconstruct"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("model", help="an autoencoder of hwrnn, float or quantized")
    data_options(parser)
    parser.add_argument(
        "--quantile", type=number, default=0.99, metavar="Q", help="share of training sequences below (default 0.99)"
    )
    parser.add_argument("--count", type=whole, default=5, metavar="N", help="sequences to show (default 5)")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.anomaly import Detector
    from hwrnn.checks import as_integer
    from hwrnn.commands.given import check_fits, dataset_of
    from hwrnn.onnx_io import load

    given.reconstruct = True  # the targets are never asked for here
    model, data, count = load(given.model), dataset_of(given), as_integer("Count", given.count, 1)
    check_fits(model, data)
    detector = Detector.of(model, data.train, given.quantile)
    part = data.evaluation
    scores, learnt = detector.scores(part.x, part.lengths), detector.scores(data.train.x, data.train.lengths)
    order = (-scores).argsort(kind="stable")[:count].tolist()
    labels = _labels(given)
    area = None
    if labels is not None:
        from hwrnn.training.metrics import auc

        area = auc(scores, labels)
    above = float((scores > 1).mean())
    if given.json:
        report.print_json(
            {
                "threshold": detector.threshold, "quantile": given.quantile, "train_above": float((learnt > 1).mean()),
                "sequences": len(scores), "above": above, "auc": area, "scores": scores.tolist(),
            }
        )  # fmt: skip
        return 0
    rows: list[list[Any]] = [
        ["threshold (mean square error)", f"{detector.threshold:.4g}"],
        ["sequences", len(scores)],
        ["above the threshold", f"{int((scores > 1).sum())} ({report.percent(above)})"],
    ]
    if area is not None:
        rows.append(["AUC", f"{area:.3f}"])
    print(report.table(rows))
    print()
    print(report.table([[k, f"{scores[k]:.3f}"] for k in order], ["sequence", "score (an anomaly is above 1)"]))
    return 0


def _labels(given: Any) -> np.ndarray | None:
    """Labels 0 (normal) and 1 of the sequences that are scored, where the data have such."""
    from pathlib import Path

    from hwrnn.data import DATASETS, load_dataset
    from hwrnn.readers import read_npz

    if given.data not in DATASETS and (
        Path(given.data).suffix.lower() != ".npz" or "y" not in read_npz(given.data, targets=False)
    ):
        return None
    data = load_dataset(given.data)
    labels = data.evaluation.y
    if data.task != "classification" or data.per_step or data.outputs != 2 or labels.min() == labels.max():
        return None
    return labels
