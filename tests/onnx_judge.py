"""What became of a network of the matrix: right, refused for the stated reason, or wrong."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx_matrix import Case, Expected, in_house, runtime

import hwrnn
from hwrnn.errors import UsageError

TOLERANCE = 1e-5
"""Largest difference between two floats that mean the same, relative to the largest number of their array or 1."""

RIGHT, REFUSED, WRONG = "right", "refused", "wrong"


@dataclass(frozen=True)
class Verdict:
    """One comparison.

    Attributes:
        case: the network.
        what: ``run``, or ``model of OUTPUT``.
        outcome: right, refused or wrong.
        reason: of a refusal the stated one, of a fault what it is.
        message: what a refusal said.
        difference: the largest, of what is right.
    """

    case: Case
    what: str
    outcome: str
    reason: str = ""
    message: str = ""
    difference: float = 0.0


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference relative to the largest expected number, or 1 where all are smaller; inf for shapes."""
    if found.shape != expected.shape or found.dtype.kind != expected.dtype.kind:
        return np.inf
    if not expected.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        most = float(np.abs(found.astype(np.float64) - expected).max())
    return most / max(1.0, float(np.abs(expected).max())) if np.isfinite(most) else np.inf


def judge(case: Case, folder: Path) -> list[Verdict]:
    """Import the network and compare: its own outputs by ``run``, and the model of each output."""
    path = folder / "network.onnx"
    path.write_bytes(case.proto.SerializeToString())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a warning says is tested where it is given
        verdicts = [_run(case, path)]
        if not case.refused and verdicts[0].outcome == RIGHT:
            verdicts += [_model(case, path, name, output) for name, output in case.outputs.items()]
    return verdicts


def _run(case: Case, path: Path) -> Verdict:
    try:
        found = hwrnn.import_onnx(path).run(case.feeds)
    except UsageError as error:
        return _refusal(case, "run", case.refused, error)
    except Exception as error:
        return Verdict(case, "run", WRONG, f"{type(error).__name__}: {error}")
    if case.refused:
        return Verdict(case, "run", WRONG, f"accepted, which had to be refused for {case.refused!r}")
    expected = runtime(case.proto, case.feeds)
    most = 0.0
    for name, value in expected.items():
        if name not in found:
            return Verdict(case, "run", WRONG, f"output {name} is missing")
        for words, other in (("ONNX Runtime's", value), ("the test's own", case.own.get(name, value))):
            off = difference(found[name], other)
            most = max(most, off)
            if not off <= TOLERANCE:
                return Verdict(case, "run", WRONG, f"output {name} differs from {words} by {off:.2g}")
    return Verdict(case, "run", RIGHT, difference=most)


def _model(case: Case, path: Path, name: str, output: Expected) -> Verdict:
    what = f"model of {name}"
    feeds = dict(case.feeds)
    try:
        if case.zero:
            try:
                _ = hwrnn.import_onnx(path, output=name).model
                return Verdict(case, what, WRONG, "a state that is an input is ignored")
            except UsageError as error:
                if not output.refused and not re.search("initial", str(error)):
                    return Verdict(case, what, WRONG, f"refused for another reason than its initial state: {error}")
            feeds |= {key: np.zeros_like(value) for key, value in feeds.items() if key.startswith("initial")}
        imported = hwrnn.import_onnx(path, output=name, initial="zero" if case.zero else None)
        x = in_house(feeds[case.x], case.x_axes)
        x = x if "f" in case.x_axes else x[..., None]
        lengths = feeds.get("lengths")
        found = imported.model.predict(x, lengths)
    except UsageError as error:
        return _refusal(case, what, output.refused, error)
    except Exception as error:
        return Verdict(case, what, WRONG, f"{type(error).__name__}: {error}")
    if output.refused:
        return Verdict(case, what, WRONG, f"accepted, which had to be refused for {output.refused!r}")
    for operator, function in output.host:
        if any(re.search(rf"\b{operator}\b", note) for note in imported.notes):
            found = function(found)
    expected = in_house(runtime(case.unrounded or case.proto, feeds)[name], output.axes)
    if "t" in output.axes and lengths is not None:  # what stands behind a sequence's end means nothing to a Model
        there = np.arange(expected.shape[1]) < lengths[:, None]
        if found.shape[:2] != there.shape:
            return Verdict(case, what, WRONG, f"shape is {found.shape}, not {expected.shape}")
        found, expected = found[there], expected[there]
    off = difference(found, expected)
    if not off <= TOLERANCE:
        return Verdict(case, what, WRONG, f"differs by {off:.2g}")
    return Verdict(case, what, RIGHT, difference=off)


def _refusal(case: Case, what: str, reason: str, error: UsageError) -> Verdict:
    if not reason:
        return Verdict(case, what, WRONG, f"refused, which has to work: {error}")
    if not re.search(reason, str(error), re.IGNORECASE):
        return Verdict(case, what, WRONG, f"refused for another reason than {reason!r}: {error}")
    return Verdict(case, what, REFUSED, reason, str(error))


def shorter(verdict: Verdict) -> str:
    """One line about a fault."""
    given = ", ".join(f"{key} {value}" for key, value in verdict.case.features.items())
    return f"{verdict.case.name}, {verdict.what}: {verdict.reason} ({given})"
