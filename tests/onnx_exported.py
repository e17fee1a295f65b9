"""The files of ``tests/exported`` as cases of the matrix, with the outputs that were stored when they were made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx_matrix import Case, Expected

FOLDER = Path(__file__).parent / "exported"
INDEX = json.loads((FOLDER / "index.json").read_text())


def softmax(values: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    shifted = np.exp(values - values.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def exported_cases() -> Iterator[Case]:
    """Every file; models are asked for of the first output, or of those that the index names."""
    stored = dict(np.load(FOLDER / "expected.npz"))
    for name, row in INDEX["files"].items():
        proto = onnx.load(FOLDER / f"{name}.onnx")
        given = {output: stored[f"{name}/y{k}"] for k, output in enumerate(row["outputs"])}
        steps = "tnh" if row.get("time_major") else "nth"
        first = row["outputs"][:1]
        host = (("Softmax", softmax),) if row.get("host") else ()
        operators = [n.op_type for n in proto.graph.node if n.op_type in ("RNN", "GRU", "LSTM")]
        yield Case(
            name, (operators or ["none"])[0], {"exporter": row["exporter"]}, proto,
            {key: stored[f"{name}/{kind}"] for key, kind in zip(row["inputs"], ("x", "lengths"), strict=False)},
            "tnf" if row.get("time_major") else "ntf",
            {name: Expected(steps if given[name].ndim == 3 else "nh", host=host) for name in row.get("models", first)},
            refused=row.get("refused", ""), own=given, x=row["inputs"][0],
        )  # fmt: skip
