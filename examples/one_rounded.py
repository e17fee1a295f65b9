"""What few bits do to one value of an LSTM that is float otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hwrnn import quantize
from hwrnn.calibration import calibrate
from hwrnn.cells import Values
from hwrnn.comparing import measured
from hwrnn.data import Dataset
from hwrnn.fixed import Format
from hwrnn.formats import Widths, choose_formats
from hwrnn.model import Layer, Model

__all__ = ["OneRounded", "alone"]


@dataclass(frozen=True, eq=False)
class OneRounded(Layer):
    """A float layer in which one value is rounded to a format, and no other.

    Attributes:
        value: its name; ``x`` is the input.
        form: what it is rounded to.
    """

    value: str = ""
    form: Format = field(default=Format(8, 7))

    def rounded(self, name: str, value: np.ndarray) -> np.ndarray:
        """The value, in its format where it is the one."""
        return self.form.dequantize(self.form.quantize(value)).astype(value.dtype) if name == self.value else value

    def step(self, x: np.ndarray, state: dict[str, np.ndarray], record: Any = None) -> Values:
        """One time step."""
        x = self.rounded("x", x)
        return self.cell.run(
            lambda phase, s: self.product(phase, lambda name: x if name == "x" else getattr(s, name)),
            Values(state, self.rounded),
        )


def alone(model: Model, data: Dataset, bits: int) -> dict[str, dict[str, float]]:
    """Accuracy with one kind of value at a time in ``bits`` bits, by name and calibration; and what its format loses.

    Each value's entry has its ``largest`` size on the training part and, for the formats of ``max`` and of ``mse``, the
    accuracy, the ``step`` and the share ``lost`` of its values other than zero: those smaller than half a step.
    """
    seen, widths, layer = calibrate(model, data.train), Widths.of(bits, cell=bits), model.layers[0]
    found: dict[str, dict[str, float]] = {}
    for method in ("max", "mse"):
        chosen = choose_formats(model, seen, widths, method)
        for name in ("x", "i", "f", "o", "g", "c", "t", "h"):
            form = chosen[0].values[name]
            changed = OneRounded(layer.cell, layer.inputs, layer.units, layer.parameters, name, form)
            sample, largest = np.abs(seen[0, name].sample), max(-seen[0, name].lo, seen[0, name].hi)
            found.setdefault(name, {"largest": largest}).update({
                f"{method} step": form.step,
                f"{method} lost": float(np.mean(sample[sample > 0] < form.step / 2)),
                method: measured(replace(model, layers=(changed,)), data)[1],
            })  # fmt: skip
        weights = quantize(model, data, bits, cell_bits=bits, method=method).in_float()
        found.setdefault("weights", {})[method] = measured(weights, data)[1]
    return found
