"""Calibration by the task's loss: power-of-two ranges that lose least of what the network is for.

The error of a value says little of what it costs: an outlier that saturates may decide a class, a step that looks
coarse may decide nothing. So the search runs golden's integers on the calibration data and judges formats by the loss
of the outputs. It starts from the formats that ``hwrnn.calibration`` chooses value by value and moves one range at a
time to the neighbouring power of two. How well that generalises, and against what: docs/decisions/013.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwrnn.calibration import Calibration
from hwrnn.fixed import Format
from hwrnn.formats import PORT, Choice, LayerFormats, Widths, choice_of, derived_formats, first_choice
from hwrnn.golden import golden
from hwrnn.model import Model
from hwrnn.quantization import freeze

__all__ = ["Judge", "best_choice", "search_formats"]

#: Of the outputs' mean square error against the float model's, in units of their variance, beside the task's loss: on a
#: set that float classifies without a fault the loss alone rewards odd ranges that enlarge the scores.
_OUTPUT_WEIGHT = 1.0
#: The share of the loss that a move must gain, or the range stays as it is: less is noise of the data.
_GAIN = 0.02
_ROUNDS = 4


class Judge:
    """The loss of a choice of formats on calibration data, by golden's integers; every choice is run once.

    Args:
        model: the float model, whose weights are rounded and whose outputs are the reference.
        seen: its calibration; without targets (``seen.y`` None) the error against the float model alone counts.
        widths: the bits of every value.
        operand_bits: see :func:`hwrnn.formats.choose_formats`.
    """

    def __init__(self, model: Model, seen: Calibration, widths: Widths, operand_bits: int = PORT) -> None:
        from hwrnn.training.losses import LOSSES, arranged
        from hwrnn.training.options import default_loss

        self.model, self.seen, self.widths, self.operand_bits = model, seen, widths, operand_bits
        self.reference = model.forward(model.standardised(seen.x), seen.lengths).astype(np.float64)
        self.targets = None
        if seen.y is not None:
            y = seen.y
            if y.dtype.kind == "f":
                y = (y - model.output_mean) / model.output_scale
            self.targets = arranged(y, model.every_step)
            known = model.facts.get("loss")
            self.loss = LOSSES[default_loss(model.task, known if known in LOSSES else None)]
        self.within = np.ones(self.reference.shape[:-1], bool)
        if model.every_step:
            self.within = np.arange(seen.x.shape[1]) < seen.lengths[:, None]
        valid = self.reference[self.within]
        self.power = max(float(np.mean(np.square(valid - valid.mean(0)))), 1e-30)
        self.judged: dict[Any, float] = {}
        #: the float model's loss
        self.floor = self.of(self.reference)

    def of(self, outputs: np.ndarray) -> float:
        """The task's loss of outputs shaped as the model's, in the units of training, and their weighted error."""
        error = float(np.mean(np.square((outputs - self.reference)[self.within]))) / self.power
        if self.targets is None:
            return error
        lengths = self.seen.lengths if self.model.every_step else None
        scores = outputs.transpose(1, 2, 0) if self.model.every_step else outputs.T[None]
        return self.loss(scores, self.targets, lengths)[0] + _OUTPUT_WEIGHT * error

    def may_fall(self, loss: float) -> bool:
        """Whether a loss is so far above the float model's that a choice which gains is worth a search."""
        return loss - self.floor > max(_GAIN * loss, 1e-9)

    def formats(self, choice: Choice) -> list[LayerFormats]:
        """All formats of a choice."""
        return derived_formats(self.model, self.seen, self.widths, choice, self.operand_bits)

    def __call__(self, choice: Choice) -> float:
        """The loss of a choice."""
        formats = self.formats(choice)
        key = tuple((*f.values.values(), *f.weights.values(), *f.shifts.values()) for f in formats)
        if key not in self.judged:  # two choices may lead to the same formats
            self.judged[key] = self.loss_of(formats)
        return self.judged[key]

    def loss_of(self, formats: list[LayerFormats]) -> float:
        """The loss of formats."""
        return self.of(self.outputs(formats))

    def outputs(self, formats: list[LayerFormats]) -> np.ndarray:
        """What golden computes on the calibration data, as floats in the units of training."""
        frozen = freeze(self.model, formats, self.widths)
        raw = golden(frozen, frozen.quantize_input(self.seen.x), self.seen.lengths).output
        return frozen.output_format.dequantize(raw)


def search_formats(
    model: Model,
    seen: Calibration,
    widths: Widths,
    operand_bits: int = PORT,
    known: Sequence[LayerFormats] | None = None,
    rounds: int = _ROUNDS,
    progress: Callable[[int, int], None] | None = None,
) -> list[LayerFormats]:
    """The formats of every layer that lose least of the task's loss on the calibration data.

    Args:
        seen: of ``model`` on the data.
        widths, operand_bits: see :func:`hwrnn.formats.choose_formats`.
        known: formats that the model was trained with; the search begins there.
        rounds: passes over all ranges at most; the search ends before where one changes nothing.
        progress: called with the ranges tried and their number at most.
    """
    judge = Judge(model, seen, widths, operand_bits)
    start = None if known is None else choice_of(model, widths, known)
    return judge.formats(best_choice(judge, start, rounds, progress))


def best_choice(
    judge: Judge,
    known: Choice | None = None,
    rounds: int = _ROUNDS,
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """Coordinate descent from the known choice, or else from the better of those by ``mse`` and by ``max``.

    A range moves only where the loss falls by more than 2 %, and none where float itself has hardly less.
    """
    if known is None:
        starts = [first_choice(judge.model, judge.seen, judge.widths, method) for method in ("mse", "max")]
        known = starts[0]
        if judge.may_fall(judge(known)) and judge(starts[1]) < (1 - _GAIN) * judge(known):
            known = starts[1]
    best, least = known, judge(known)
    ranges, before = [*best.values, *best.weights], math.inf
    total = rounds * len(ranges)
    for n in range(total):
        if n % len(ranges) == 0:
            if least == before:
                break
            before = least
        if not judge.may_fall(least):
            break
        # Only a move by one: the range beyond is reached in the next round if it is still better.
        for choice in _neighbours(best, ranges[n % len(ranges)]):
            if judge(choice) < (1 - _GAIN) * least:
                best, least = choice, judge(choice)
        if progress is not None:
            progress(n + 1, total)
    if progress is not None:
        progress(total, total)
    return best


def _neighbours(choice: Choice, key: Any) -> Iterator[Choice]:
    """The choices with half and with twice the range of one value or block of weights."""
    for step in (1, -1):
        if len(key) == 3:
            yield replace(choice, weights={**choice.weights, key: choice.weights[key] + step})
        else:
            form = choice.values[key]
            moved = Format(form.width, form.frac + step, form.signed)
            yield replace(choice, values={**choice.values, key: moved})
