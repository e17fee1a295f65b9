"""Sequences through a network on a board, compared with the golden model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hwrnn import report
from hwrnn.checks import as_integer
from hwrnn.errors import UsageError
from hwrnn.frames import BAUD, SLOWEST, Identity, Kind
from hwrnn.golden import golden
from hwrnn.host import BoardClient, Port, opened
from hwrnn.model import check_input
from hwrnn.quantization import QuantizedModel

__all__ = ["BoardRun", "run_on_board"]


@dataclass(frozen=True)
class BoardRun:
    """What a board computed, beside the golden model.

    Attributes:
        identity: what the board says of itself.
        outputs: raw int64, (N, outputs) or with ``every_step`` (N, T, outputs), zero beyond a sequence's length; with
            ``argmax`` the last axis has one element, the class.
        steps: time steps of all sequences.
        compared, mismatches: output values, and how many differ from golden.
        first_difference: its sequence, its step (with ``every_step``), its output, the board's value and golden's; None
            where there is none.
        metric, golden_score, score: of golden and of the board, where there were labels or targets.
        seconds: of each sequence, from its first byte to its last answer.
        repeated: requests and sequences that had to be sent again.
        port: its name.
    """

    identity: Identity
    outputs: np.ndarray = field(repr=False)
    steps: int
    compared: int
    mismatches: int
    first_difference: dict[str, int] | None
    metric: str | None
    golden_score: float | None
    score: float | None
    seconds: np.ndarray = field(repr=False)
    repeated: int
    port: str

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, without the outputs."""
        seconds = {"mean": self.seconds.mean(), "least": self.seconds.min(), "most": self.seconds.max()}
        return {
            "port": self.port,
            "sequences": len(self.seconds),
            "steps": self.steps,
            "compared": self.compared,
            "mismatches": self.mismatches,
            "first_difference": self.first_difference,
            "metric": self.metric,
            "golden": self.golden_score,
            "board": self.score,
            "round_trip_seconds": {name: float(value) for name, value in seconds.items()},
            "repeated": self.repeated,
            "identity": asdict(self.identity) | {"model": self.identity.model.hex()},
        }

    def __str__(self) -> str:
        returns = "the class" if self.identity.argmax else f"{self.identity.outputs} outputs"
        when = "of every step" if self.identity.every_step else "of the last step"
        rows: list[list[Any]] = [
            ["board", f"model {self.identity.model.hex()}, {returns} {when}"],
            ["sequences, time steps", f"{len(self.seconds)}, {self.steps}"],
        ]
        if self.metric is not None:
            rows.append([f"{self.metric}, golden model", report.metric_text(self.metric, self.golden_score)])
            rows.append([f"{self.metric}, board", report.metric_text(self.metric, self.score)])
        rows += [
            ["output values that differ from golden", f"{self.mismatches} of {self.compared}"],
            ["round trip of a sequence", report.quantity(float(self.seconds.mean()), "s")],
            ["shortest, longest", " ".join(report.quantity(float(f(self.seconds)), "s") for f in (np.min, np.max))],
        ]
        if self.repeated:
            rows.append(["sent again after faults of the line", self.repeated])
        text = report.table(rows)
        if self.first_difference is not None:
            where = ", ".join(f"{name} {value}" for name, value in self.first_difference.items())
            text += f"\nfirst difference: {where}"
        return text


def run_on_board(
    model: QuantizedModel,
    port: str | Port,
    x: Any,
    lengths: Any = None,
    *,
    y: Any = None,
    count: int | None = None,
    baud: int = BAUD,
    timeout: float = 2.0,
    progress: Callable[[float, float, str], None] | None = None,
) -> BoardRun:
    """Run sequences on a board and compare every output value with the golden model.

    Args:
        model: the quantized model that the board's network was generated from.
        port: the name of a serial port (or a URL of pyserial), or an open one.
        x, lengths: float (N, T, inputs) and int (N,), as ``predict`` takes them.
        y: labels or targets to score with.
        count: only the first sequences.
        baud: rate of a port that is given by its name.
        timeout: seconds without a byte after which an answer counts as lost.
        progress: is called with the sequences done, their number, and words.

    Raises:
        UsageError: an argument outside its range, data that do not fit the model, a port that cannot be opened or
            fails, a board that does not answer, or one that holds another model.
        MissingExtra: pyserial is not installed, and the port was given by its name.
    """
    from hwrnn.rtl.manifest import model_hash
    from hwrnn.sim.scoring import Targets

    if not isinstance(model, QuantizedModel):
        raise UsageError("Model must be quantized to be compared with a board: quantize it first")
    x, lengths = check_input(x, lengths, model.inputs)
    if count is not None:
        count = as_integer("Count", count, 1)
        x, lengths, y = x[:count], lengths[:count], None if y is None else np.asarray(y)[:count]
    if not timeout > 0:
        raise UsageError(f"Timeout must be more than 0 seconds, not {timeout!r}")
    targets = None if y is None else Targets(model, y, lengths)
    raw = model.quantize_input(x)
    name = port if isinstance(port, str) else str(getattr(port, "name", None) or "the port")
    seconds = np.zeros(len(x))
    with opened(port, as_integer("Baud", baud, SLOWEST), timeout) as line:
        client = BoardClient(line, name, timeout)
        identity = client.identify()
        _check_model(bytes.fromhex(model_hash(model))[:8], identity, name)
        client.request(Kind.RESET)
        shape = (len(x), *((x.shape[1],) if model.every_step else ()), identity.outputs)
        outputs = np.zeros(shape, np.int64)
        for n, length in enumerate(lengths.tolist()):
            started = time.perf_counter()
            vectors = client.sequence(raw[n, :length], identity)
            seconds[n] = time.perf_counter() - started
            if model.every_step:
                outputs[n, :length] = vectors
            else:
                outputs[n] = vectors[0]
            if progress is not None:
                progress(n + 1, len(x), "sequences")
    due = golden(model, raw, lengths).output
    shown = outputs[..., 0] if identity.argmax else model.dequantize_output(outputs)
    expected = due.argmax(axis=-1)[..., None] if identity.argmax else due
    if model.every_step:
        expected = np.where((np.arange(x.shape[1]) < lengths[:, None])[..., None], expected, 0)
    metric = score = best = None
    if targets is not None and (targets.labels or not identity.argmax):
        metric, score, best = targets.metric, targets.score(shown), targets.score(model.dequantize_output(due))
    vectors_due = int(lengths.sum()) if model.every_step else len(x)
    return BoardRun(
        identity, outputs, int(lengths.sum()), vectors_due * identity.outputs, int((outputs != expected).sum()),
        _first_difference(outputs, expected), metric, best, score, seconds, client.repeated, name,
    )  # fmt: skip


def _check_model(due: bytes, identity: Identity, name: str) -> None:
    if identity.model != due:
        raise UsageError(
            f"Board on {name} must hold the model {due.hex()}, not {identity.model.hex()}: load the bitstream of this"
            " model, or give the model that it holds"
        )


def _first_difference(outputs: np.ndarray, expected: np.ndarray) -> dict[str, int] | None:
    wrong = np.argwhere(outputs != expected)
    if not len(wrong):
        return None
    at = tuple(wrong[0].tolist())
    where = {"sequence": at[0]} | ({"step": at[1]} if len(at) == 3 else {}) | {"output": at[-1]}
    return where | {"board": int(outputs[at]), "golden": int(expected[at])}
