"""The golden model's values against those that hardware showed, one by one, and where the first two part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hwrnn.golden import GoldenResult
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.network import Network
from hwrnn.rtl.rounds import order_of
from hwrnn.sim.stimuli import Recording

__all__ = ["Difference", "Expected", "compare", "expected_values", "first_of"]


@dataclass(frozen=True)
class Difference:
    """One value that is not what it should be.

    Attributes:
        layer: index in the stack, the head last.
        value: its name in the cell (``a.GATE``: a pre-activation), or at the port ``output``, ``argmax``, ``last`` or
            ``channel``.
        sequence, step, unit: where; None where hardware showed more values than there should be.
        expected, actual: raw integers; None for a value that should not be, or that never came.
        cycle: of the actual value.
    """

    layer: int
    value: str
    sequence: int | None
    step: int | None
    unit: int | None
    expected: int | None
    actual: int | None
    cycle: int | None

    def __str__(self) -> str:
        """One sentence."""
        place = f"value {self.value!r} of layer {self.layer}"
        if self.expected is None:
            return f"{place} must not appear beyond the last one, but does as {self.actual} in cycle {self.cycle}"
        what = "but never came" if self.actual is None else f"not {self.actual} as in cycle {self.cycle}"
        at = f"sequence {self.sequence}, step {self.step}, unit {self.unit}"
        return f"{place} must be {self.expected} at {at}, {what}"

    def to_json(self) -> dict[str, Any]:
        """Its attributes."""
        return asdict(self)


@dataclass(frozen=True)
class Expected:
    """What one probe or port should show.

    Attributes:
        layer, value: as in :class:`Difference`.
        vectors: raw int64 (n, units), in order.
        sequences, steps: int64 (n,), where each vector belongs.
    """

    layer: int
    value: str
    vectors: np.ndarray
    sequences: np.ndarray
    steps: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """One after another."""
        return self.vectors.reshape(-1)


def expected_values(
    model: QuantizedModel, network: Network, result: GoldenResult, lengths: np.ndarray, first: int = 0
) -> list[Expected]:
    """What every probe and the output port should show for sequences of given lengths; the ports stand last.

    Args:
        first: the number of the first sequence.
    """
    order = order_of(lengths, network.channels)

    def at(layer: int, value: str, vectors: np.ndarray, every: bool) -> Expected:
        shown = order.emitted(every)
        return Expected(layer, value, vectors, shown.sequences + first, shown.steps)

    def chosen(values: np.ndarray, every: bool) -> np.ndarray:
        """Of (N, T, units) each step's vector, or of (N, units) each sequence's."""
        shown = order.emitted(every)
        return values[shown.sequences, shown.steps] if every else values[shown.sequences]

    found = []
    for layer, name in network.probes:
        every = layer < len(model.layers) or model.every_step
        values = result.values[layer, name]
        found.append(at(layer, name, chosen(values if every else values[:, 0], every), every))
    every, top = model.every_step, len(model.stack) - 1
    output = chosen(result.output, every)
    last = np.zeros((len(output), network.outputs_per_vector), np.int64)
    last[:, -1] = order.emitted(every).ends
    if network.argmax:
        output = output.argmax(axis=1)[:, None]
    found.append(at(top, "argmax" if network.argmax else "output", output, every))
    if network.channels > 1:
        tags = np.repeat(order.emitted(every).channels[:, None], last.shape[1], axis=1)
        found.append(at(top, "channel", tags, every))
    return [*found, at(top, "last", last, every)]


def compare(expected: Sequence[Expected], recording: Recording) -> tuple[int, Difference | None]:
    """The number of values that differ, lack or are too many, and the first of them in time."""
    total, found = 0, []
    for one in expected:
        if one.value in ("output", "argmax"):
            shown, cycles = recording.outputs, recording.output_cycles
        elif one.value in ("last", "channel"):
            shown = recording.last if one.value == "last" else recording.channels
            cycles = recording.output_cycles
        elif (one.layer, one.value) in recording.probes:
            shown, cycles = recording.probes[one.layer, one.value]
        else:
            continue  # this simulator does not look inside
        both = min(len(shown), len(one.values))
        wrong = np.flatnonzero(shown[:both] != one.values[:both])
        count = len(wrong) + max(len(shown), len(one.values)) - both
        total += count
        if count:
            found.append(_difference(one, int(wrong[0]) if len(wrong) else both, shown, cycles))
    return total, first_of(found)


def first_of(differences: Sequence[Difference]) -> Difference | None:
    """The first in time; values that never came stand behind all others."""

    def when(one: Difference) -> tuple[int, ...]:
        if one.cycle is not None:
            return 0, one.cycle
        return 1, one.sequence or 0, one.step or 0

    return min(differences, key=when, default=None)


def _difference(one: Expected, index: int, shown: np.ndarray, cycles: np.ndarray) -> Difference:
    actual = (int(shown[index]), int(cycles[index])) if index < len(shown) else (None, None)
    if index >= len(one.values):
        return Difference(one.layer, one.value, None, None, None, None, *actual)
    vector, unit = divmod(index, one.vectors.shape[1])
    place = int(one.sequences[vector]), int(one.steps[vector]), unit
    return Difference(one.layer, one.value, *place, int(one.values[index]), *actual)
