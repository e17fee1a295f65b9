"""Tables: correctly rounded for every input, smooth to whoever trains, the same bits everywhere."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from hwrnn.activations import NONLINEARITIES, nonlinearity
from hwrnn.certificates import certify
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.fixed import Fixed, Format
from hwrnn.model import build_model
from hwrnn.onnx_io import load, save
from hwrnn.quantization import quantize
from hwrnn.staircase import Staircase, staircase
from hwrnn.training.numpy_printer import _piecewise

TABLES = ("table_sigmoid", "table_tanh")


def exact(name: str, x: Fraction, frac: int) -> int:
    """The smooth function at a fraction, rounded half up, by high-precision exponentials of Python's own."""
    value = math.tanh(float(x)) if name == "table_tanh" else 1 / (1 + math.exp(-float(x)))
    return math.floor(Fraction(value) * 2**frac + Fraction(1, 2))


@pytest.mark.parametrize("frac", [0, 1, 3, 4, 7, 8, 10])
@pytest.mark.parametrize("name", TABLES)
def test_every_input_is_rounded_correctly(name, frac):
    source, output = Format(16, 11), Format(frac + 3, frac)
    function = nonlinearity(name).in_hardware(output)
    raw = np.arange(source.lo, source.hi + 1)
    result = function(Fixed.of(raw, source)).to(output)
    assert result.raw.tolist() == [exact(name, Fraction(int(n), 1 << 11), frac) for n in raw]
    assert certify(nonlinearity(name), source, output).maximum_lsb <= 0.5


@pytest.mark.parametrize("name", TABLES)
def test_in_float_a_table_is_the_smooth_function(name):
    x = np.linspace(-9, 9, 1001)
    smooth = nonlinearity(name.removeprefix("table_"))
    assert np.array_equal(nonlinearity(name).value(x), smooth.value(x))
    assert np.array_equal(nonlinearity(name).derivative(x), smooth.derivative(x))


@pytest.mark.parametrize("name", TABLES)
def test_its_gradient_is_that_of_the_smooth_function(name):
    function = nonlinearity(name).in_hardware(Format(9, 8))
    assert isinstance(function, Staircase) and not any(function.slopes) and function.shift_only
    x = np.linspace(-6, 6, 4001)
    smooth = nonlinearity(name).derivative(x)
    assert np.abs(function.derivative(x) - smooth).max() < 0.02 * smooth.max()
    value, slope = np.empty_like(x), np.empty_like(x)
    numbers = (function.knots, function.slopes, function.intercepts, function.gradients)
    _piecewise(x, *(np.array([float(v) for v in part]) for part in numbers), value, slope)
    assert np.array_equal(value, function.value(x)) and np.array_equal(slope, function.derivative(x))


def test_other_functions_train_with_their_slopes():
    for function in NONLINEARITIES.values():
        if hasattr(function, "slopes"):
            assert function.gradients == function.slopes


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_network_of_tables_is_trained_on_saved_and_read_back(cell, tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 32)
    data = Dataset.of("two", Split((rng.normal(0, 1, (32, 5, 2)) + y[:, None, None]).astype(np.float32), y))
    model = build_model(2, 2, cell=cell, hidden=4, gate="table_sigmoid", activation="table_tanh")
    before = quantize(model, data, 6, method="mse")
    after = quantize(model, data, 6, method="mse", finetune=3, rate=0.05, batch=8)
    for key, weights in before.layers[0].weights.items():
        assert not np.array_equal(weights, after.layers[0].weights[key]), "the gradient passes"
    for kept, name in ((model, "float.onnx"), (after, "fixed.onnx")):
        save(kept, tmp_path / name)
        back = load(tmp_path / name)
        assert np.array_equal(back.predict(data.train.x), kept.predict(data.train.x))
        assert back.layers[0].cell == kept.layers[0].cell


def test_pieces_that_no_input_reaches_are_left_out():
    table = staircase("sigmoid", 4).at_fraction(2)
    for lo, hi in ((-8, 7), (0, 3), (-100, -90), (5, 5), (-128, 127)):
        part = table.within(lo, hi)
        assert list(part.knots) == sorted(set(part.knots)) and all(lo < k <= hi for k in part.knots)
        for raw in range(lo, hi + 1):
            assert part.intercepts[part.piece(raw)] == table.intercepts[table.piece(raw)]
        assert part.interval(lo, hi) == table.interval(lo, hi)


def test_a_table_of_too_many_bits_is_refused():
    with pytest.raises(UsageError) as refused:
        nonlinearity("table_tanh").in_hardware(Format(16, 13))
    assert str(refused.value) == (
        "Table of tanh must have results of at most 12 fraction bits, not 13:"
        " use fewer bits, or a fit such as pwl_tanh:8"
    )
