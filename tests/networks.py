"""Small random networks in integers, and data that saturate them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hwrnn.cells import CELLS
from hwrnn.model import build_model
from hwrnn.quantization import quantize

#: Cells for tests that take a while. What a variant of the LSTM adds stands in that with peepholes: a second phase, an
#: operand that is an old state in one phase and new in the next. A coupled gate changes nothing but one line.
KINDS = [name for name in CELLS if not name.endswith("coupled")]
#: Cells for tests that take long: that variant too only among the slow ones.
FEW = [pytest.param(name, marks=pytest.mark.slow) if name == "lstm-peephole" else name for name in KINDS]

BACK_TO_BACK = (4, 1, 3)  # lengths: a sequence of one step between two longer ones


def diagonals(rows, columns, every=3):
    """All pairs, for ``parametrize``: those on each ``every``-th diagonal run in CI, the others by ``-m long``."""
    by_name = [pytest.mark.slow, pytest.mark.long]
    return [
        pytest.param(row, column, marks=() if (i + j) % every == 0 else by_name)
        for i, row in enumerate(rows) for j, column in enumerate(columns)
    ]  # fmt: skip


def network_of(
    cell="lstm", inputs=2, units=3, outputs=3, *, lengths=BACK_TO_BACK, seed=0, bits=8, widths=None, **options
):
    """A quantized model, float inputs (N, T, inputs) and lengths.

    The data reach twice as far as those that the formats were chosen on, and the weights are large: every kind of
    rounding and saturation happens.
    """
    rng = np.random.default_rng([seed, inputs, 0x5EED])
    model = build_model(inputs, outputs, cell=cell, hidden=units, seed=seed, **options)
    for layer in model.stack:
        for name, values in layer.parameters.items():
            values *= 2
            if name.endswith("b"):
                values += 0.3 * rng.standard_normal(values.shape)
    lengths = np.array(lengths)
    x = rng.standard_normal((len(lengths), lengths.max(), inputs)).astype(np.float32)
    calibration = SimpleNamespace(train=SimpleNamespace(x=x / 2, lengths=lengths))
    return quantize(model, calibration, bits, method="mse", **(widths or {})), x, lengths


def started(model, seed=0):
    """The model with states that start anywhere in their formats, a layer's last one at zero where it has several."""
    rng, layers = np.random.default_rng(seed), []
    for k, layer in enumerate(model.layers):
        initial = {}
        for state in layer.cell.states[: None if (seed + k) % 3 else 1]:
            form = layer.formats.values[state]
            initial[state] = rng.integers(form.lo, form.hi + 1, layer.units)
        layers.append(replace(layer, initial=initial))
    return replace(model, layers=tuple(layers))
