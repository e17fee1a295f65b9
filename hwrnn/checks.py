"""Numbers and arrays from outside: brought to the one form that the project computes with, or refused."""

import operator

import numpy as np

from hwrnn.errors import UsageError

MAX_CLASSES = 65536
"""A label from here on is taken for a measurement stored as integers, not for a class."""


def as_integer(what: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise UsageError(f"{what} must be an integer of at least {least}, not {value!r}")
    return number


def as_lengths(lengths: np.ndarray | None, count: int, steps: int) -> np.ndarray:
    if lengths is None:
        return np.full(count, steps, dtype=np.int64)
    lengths = np.asarray(lengths)
    if lengths.shape != (count,) or lengths.dtype.kind not in "iu":
        raise UsageError(
            f"Lengths must be {count} integers, one per sequence, not {lengths.dtype} of shape"
            f" {lengths.shape}"
        )
    wrong = lengths[(lengths < 1) | (lengths > steps)]
    if wrong.size:
        raise UsageError(f"Lengths must be in 1..{steps}, not {int(wrong[0])}")
    return lengths.astype(np.int64)


def as_targets(y: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Labels int64 (N,) or (N, T), or values float32 (N, outputs) or (N, T, outputs), zero where padded."""
    count, steps = padding.shape
    if y.dtype.kind in "iub":
        if y.shape not in ((count,), (count, steps)):
            raise UsageError(f"Labels must have the shape ({count},) or ({count}, {steps}), not {y.shape}")
        labels = np.where(padding, 0, y) if y.ndim == 2 else y
        wrong = labels[(labels < 0) | (labels >= MAX_CLASSES)]
        if wrong.size:
            raise UsageError(
                f"Labels must be class numbers in 0..{MAX_CLASSES - 1}, not {int(wrong[0])}; targets"
                " to regress must be floats"
            )
        return labels.astype(np.int64)
    if y.dtype.kind != "f":
        raise UsageError(
            f"Targets must be integers (labels) or floats (values), not of type {str(y.dtype)!r}"
        )
    if y.ndim == 1:
        y = y[:, None]
    if y.ndim not in (2, 3) or 0 in y.shape or y.shape[:-1] not in ((count,), (count, steps)):
        raise UsageError(
            f"Targets must have the shape ({count},), ({count}, outputs) or ({count}, {steps}, outputs),"
            f" not {y.shape}"
        )
    return as_float32("Targets", np.where(padding[:, :, None], 0, y) if y.ndim == 3 else y)


def as_float32(what: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    wrong = values[~np.isfinite(narrow)]
    if wrong.size:
        raise UsageError(f"{what} must be finite in single precision, not {wrong[0].item()!r}")
    return narrow
