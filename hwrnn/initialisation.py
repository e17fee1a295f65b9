"""Initial weight matrices. Orthogonal: Saxe et al. 2014; identity: Le et al. 2015; glorot: Glorot and Bengio 2010."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwrnn.errors import UsageError

__all__ = ["initial_matrix", "initialisation"]

#: Initialisations of a recurrent matrix and their factors where none is given.
_FACTORS = {"orthogonal": 1.0, "identity": 1.0, "scaled": 0.9}


def initialisation(text: Any) -> tuple[str, float]:
    """The kind and the factor of a text such as ``orthogonal`` or ``scaled:0.9``.

    Raises:
        UsageError: another kind, or a factor outside 0 to 16.
    """
    if text == "glorot":
        return "glorot", 1.0
    kind, colon, number = str(text).partition(":")
    try:
        factor = float(number) if colon else _FACTORS[kind]
        if kind in _FACTORS and 0 < factor <= 16:
            return kind, factor
    except (KeyError, ValueError):
        pass
    known = "glorot, orthogonal[:S], identity[:S] or scaled[:S] with S above 0 up to 16"
    raise UsageError(f"Initialisation must be {known}, not {text!r}")


def initial_matrix(kind: str, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """A float64 matrix (rows, columns) of a kind: ``identity``, ``orthogonal``, ``scaled`` (2-norm 1) or ``glorot``."""
    if kind == "identity":
        return np.eye(rows, columns)
    if kind == "orthogonal":
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))
        return q if rows >= columns else q.T
    if kind == "scaled":
        gaussian = rng.standard_normal((rows, columns))
        return gaussian / float(np.linalg.norm(gaussian, 2))
    limit = np.sqrt(6.0 / (rows + columns))
    return rng.uniform(-limit, limit, (rows, columns))
