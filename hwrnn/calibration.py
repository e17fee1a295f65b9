"""The range of every stored value on data, and the format that loses least on it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.model import Model, check_input

if TYPE_CHECKING:
    from hwrnn.formats import LayerFormats

__all__ = ["Calibration", "Seen", "calibrate", "fine_format", "format_for", "joined", "warn_of_ranges"]

_SEQUENCES = 512  # more calibrate no better and only slower
_SAMPLES = 1 << 16  # of one value, for the search
#: A state whose largest value is more than so many times its root mean square, while that is less than as many steps
#: of a format which holds both, is out of its bits' reach. On Japanese Vowels (docs/decisions/016) an LSTM's cell state
#: has 7 to 9, a ReLU LSTM's or an IRNN's state 22 to 70.
_PEAK = 16


@dataclass(frozen=True, eq=False)
class Seen:
    """What calibration saw of one value: extremes, a sample (float64, flat), and the mean square."""

    lo: float
    hi: float
    sample: np.ndarray
    power: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """What calibration saw, by ``(layer, value)``; ``x``, ``lengths`` and ``y`` (None without targets) are its data."""

    values: Mapping[tuple[int, str], Seen]
    x: np.ndarray
    lengths: np.ndarray
    y: np.ndarray | None = None

    def __getitem__(self, key: tuple[int, str]) -> Seen:
        return self.values[key]

    def power(self, layer: int, operand: str) -> float:
        """The mean square of an operand, which weighs the errors of the weights that multiply it."""
        return max(self.values[layer, operand].power, 1e-12)


def calibrate(model: Model, split: Any) -> Calibration:
    """Run the float model over (at most 512 sequences of) a split and record every value.

    Targets that are not of the model's kind (of every step, or the last; labels or values) are left out.

    Raises:
        UsageError: data that do not fit the model, or a model whose values are not finite on them.
    """
    x, lengths = check_input(split.x, split.lengths, model.inputs)
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), _SEQUENCES)).round().astype(int))
    x, lengths = x[keep], lengths[keep]
    kept: dict[tuple[int, str], list[np.ndarray]] = {}

    def record(layer: int, name: str, value: np.ndarray, n: int) -> None:
        kept.setdefault((layer, name), []).append(value[:n].ravel())

    standard = model.standardised(x)
    model.forward(standard, lengths, record)
    valid = np.arange(x.shape[1]) < lengths[:, None]
    kept[0, "x"] = [standard[valid].ravel()]
    for k in range(1, len(model.stack)):  # an inner layer's input is the output of the ones before
        before = [part for j in model.sources(k) for part in kept[j, model.stack[j].cell.output]]
        kept.setdefault((k, "x"), before or kept[0, "x"])  # a code has been recorded
    for k, layer in enumerate(model.layers):
        for name, vector in layer.initial.items():
            kept[k, name] = [*kept[k, name], np.tile(vector, len(x))]
    y = getattr(split, "y", None)
    if y is not None and y.ndim != 1 + model.every_step + (model.task == "regression"):
        y = None  # ranges can be calibrated on data of another task
    return Calibration({key: _summary(key, v) for key, v in kept.items()}, x, lengths, None if y is None else y[keep])


def warn_of_ranges(model: Model, seen: Calibration, formats: Sequence[LayerFormats]) -> None:
    """Warn, with figures and mends, of every state whose bits resolve its typical or its largest value, not both."""
    for k, (layer, f) in enumerate(zip(model.layers, formats, strict=False)):
        for name in layer.cell.states:
            found, form = seen[k, name], f.values[name]
            largest, typical = max(-found.lo, found.hi), math.sqrt(found.power)
            steps = typical / max(largest, 1e-30) * 2.0 ** (form.width - form.signed)
            if typical < 1e-6 or largest <= _PEAK * typical or steps >= _PEAK:
                continue
            beyond = np.mean((found.sample > form.max + form.step) | (found.sample < form.min - form.step))
            bits = form.width + math.ceil(math.log2(_PEAK / steps))
            kind = "state" if name == layer.cell.output else "cell"
            clip = "a cell clip or " if "c" in layer.cell.states else ""
            saturate = f"{100 * beyond:.2g} % saturate at {form.max:.3g}"
            warnings.warn(
                f"State {name} of layer {k} reaches {largest:.3g}, {largest / typical:.0f} times its root mean square,"
                f" and {form.width} bits cannot resolve both ({saturate}): train it with {clip}a clipped nonlinearity"
                f" (relu1, relu6), with a spectral norm below 1, or give it {bits} bits (--{kind}-bits)",
                stacklevel=3,
            )


def _summary(key: tuple[int, str], parts: list[np.ndarray]) -> Seen:
    values = np.concatenate(parts)
    if not np.isfinite(values).all():
        raise UsageError(f"Model must stay finite on the data, but {key[1]!r} of layer {key[0]} does not")
    sample = values
    if len(values) > _SAMPLES:  # at random: a stride that shares a factor with the units would miss some of them
        sample = values[np.random.default_rng(0).integers(0, len(values), _SAMPLES)]
    sample = sample.astype(np.float64)
    return Seen(float(values.min()), float(values.max()), sample, float(np.mean(sample * sample)))


def joined(seen: Sequence[Seen]) -> Seen:
    """Several values as one, each counting as much as its sample."""
    sample = np.concatenate([one.sample for one in seen])
    power = float(np.average([one.power for one in seen], weights=[len(one.sample) for one in seen]))
    return Seen(min(one.lo for one in seen), max(one.hi for one in seen), sample, power)


def format_for(seen: Seen, width: int, method: str = "mse") -> Format:
    """A format of ``width`` bits for a value: ``max`` holds all that was seen, ``mse`` may saturate outliers.

    It always holds zero. A value that stayed at zero on the data says nothing of its range, and gets ``[0,
    1]``.
    """
    lo, hi = min(seen.lo, 0.0), max(seen.hi, 0.0)
    if max(-lo, hi) < 2.0**-20:
        hi = 1.0
    holds = Format.to_hold(lo, hi, width)
    if method == "max":
        return holds
    choices = [Format(width, holds.frac + k, holds.signed) for k in range(4)]

    def loss(form: Format) -> float:
        return float(np.square(form.dequantize(form.quantize(seen.sample)) - seen.sample).sum())

    return min(choices, key=loss)


def fine_format(seen: Seen, frac: int, margin: float = 2.0) -> Format:
    """A format with ``frac`` fraction bits that holds ``margin`` times what was seen, of at most 48 bits."""
    lo, hi = margin * min(seen.lo, 0.0), margin * max(seen.hi, 0.0)
    signed = bool(lo < 0)
    width = 1 + signed
    while width < 48:
        form = Format(width, frac, signed)
        if form.min <= lo and hi <= form.max + form.step:
            break
        width += 1
    return Format(width, frac, signed)
