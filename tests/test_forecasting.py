"""Recursive forecasts against loops written out, baselines against series that obey them, and the verb."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwrnn.cli import main
from hwrnn.data import Dataset, Split, forecast_windows, load_dataset
from hwrnn.errors import UsageError
from hwrnn.forecasting import (
    Autoregression,
    autoregression,
    forecast,
    forecast_errors,
    future,
    last_window,
    persistence,
)
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.onnx_io import save
from hwrnn.quantization import quantize
from hwrnn.training import mae, mean_directional_accuracy, mean_forecast_error, rmse, train

W = 5


def told(call: Any, *args: Any) -> str:
    with pytest.raises(UsageError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    t = np.arange(120)
    return 100 + 20 * np.sin(t / 4) + 3 * np.random.default_rng(0).standard_normal(120)


@pytest.fixture(scope="module")
def data(series: np.ndarray) -> Dataset:
    return Dataset.of("waves", *forecast_windows(series, W, 1))


@pytest.fixture(scope="module")
def model(data: Dataset) -> Any:
    return train(build_model(1, 1, cell="gru", hidden=3, task="regression"), data, epochs=10)


def test_forecasts_come_back_as_input(model: Any, data: Dataset) -> None:
    windows, _ = future(data.evaluation, 4)
    found = forecast(model, windows, 4)
    values = windows.astype(np.float64)
    for k in range(4):
        due = model.predict(values)
        assert np.array_equal(found[:, k], due)
        values = np.concatenate([values[:, 1:], due[:, None]], axis=1)


def test_a_quantized_forecast_is_the_hardware_s(model: Any, data: Dataset) -> None:
    quantized = quantize(model, data, 8)
    windows, _ = future(data.evaluation, 3)
    found = forecast(quantized, windows, 3)
    raw = quantized.quantize_input(windows)
    for k in range(3):
        # The host's part between two runs of the hardware: target units, standardised again, rounded.
        out = golden(quantized, raw, np.full(len(raw), W)).output
        assert np.array_equal(quantized.dequantize_output(out), found[:, k])
        back = quantized.quantize_input(found[:, k : k + 1])
        raw = np.concatenate([raw[:, 1:], back], axis=1)
    assert not np.array_equal(found, forecast(model, windows, 3))


def test_windows_of_every_shape_and_progress(model: Any, series: np.ndarray) -> None:
    window = series[-W:]
    many = forecast(model, np.stack([window, window + 5])[:, :, None], 3)
    assert many.shape == (2, 3, 1)
    seen: list[tuple[int, int]] = []
    flat = forecast(model, window, 3, lambda *now: seen.append(now))
    assert flat.shape == (3,) and seen == [(1, 3), (2, 3), (3, 3)]
    assert np.allclose(flat, many[0, :, 0], rtol=1e-5)
    assert np.array_equal(forecast(model, window[:, None], 3), flat[:, None])
    assert persistence(window, 2).tolist() == [window[-1]] * 2
    assert persistence(window[:, None], 2).tolist() == [[window[-1]]] * 2
    assert persistence(np.arange(12).reshape(2, 3, 2), 2).tolist() == [[[4, 5]] * 2, [[10, 11]] * 2]


def test_autoregression_finds_the_weights_that_a_series_obeys() -> None:
    rng = np.random.default_rng(3)
    weights, intercept = 0.3 * rng.standard_normal((2, 2, 2)), np.array([3.0, -1.0])
    x, y = rng.standard_normal((200, 4, 2)), np.zeros((200, 2))
    for w, row in enumerate(weights):
        y += x[:, 2 + w] @ row
    found = autoregression(Split(x, y + intercept), 2)
    assert (found.order, found.inputs, found.outputs) == (2, 2, 2)
    np.testing.assert_allclose(found.weights, weights, atol=1e-6)
    np.testing.assert_allclose(found.intercept, intercept, atol=1e-6)
    assert autoregression(Split(x, y)).order == 4 and autoregression(Split(x[:40], y[:40])).order == 2
    # Fed back, a linear regression is the recurrence itself.
    line = Autoregression(np.array([[[-1.0]], [[2.0]]]), np.zeros(1))
    assert forecast(line, np.array([1.0, 3.0, 5.0]), 4).tolist() == [7, 9, 11, 13]


def test_future_and_errors_by_horizon(data: Dataset, series: np.ndarray) -> None:
    part = data.evaluation
    windows, actual = future(part, 3)
    start = len(series) - len(part)
    for n in range(len(windows)):
        assert np.allclose(windows[n, :, 0], series[start + n - W : start + n])
        assert np.allclose(actual[n, :, 0], series[start + n : start + n + 3])
    assert np.allclose(last_window(part)[:, 0], series[-W:])
    assert len(windows) == len(part) - 2
    predictions = actual + np.random.default_rng(1).standard_normal(actual.shape)
    known = windows[:, -1]
    for k, errors in enumerate(forecast_errors(predictions, actual, known)):
        there = (predictions[:, k], actual[:, k])
        assert errors == {
            "horizon": k + 1, "rmse": rmse(*there), "mae": mae(*there),
            "mean_forecast_error": mean_forecast_error(*there),
            "mean_directional_accuracy": mean_directional_accuracy(*there, known),
        }  # fmt: skip
    same = forecast_errors(persistence(windows, 3), actual, known)
    assert [one["mean_directional_accuracy"] for one in same] == [0, 0, 0]


def test_what_cannot_be_forecast_is_told(model: Any, data: Dataset, series: np.ndarray) -> None:
    window = series[:W]
    two = build_model(1, 2, cell="rnn", hidden=2, task="regression")
    assert told(forecast, two, window, 2) == (
        "Model must have as many outputs as inputs to feed forecasts back, not 2 and 1"
    )
    only = "Model must be a regression that predicts one value after a window to feed forecasts back"
    assert told(forecast, build_model(1, 1, hidden=2, every_step=True, task="regression"), window, 2) == only
    assert told(forecast, build_model(2, 2, hidden=2), np.zeros((3, 2)), 2) == only
    assert told(forecast, model, window, 0) == "Steps must be an integer of at least 1, not 0"
    due = "Window must have shape (values, 1) or (series, values, 1), none 0, not {}"
    assert told(forecast, model, np.zeros((3, 2)), 1) == due.format("(3, 2)")
    assert told(forecast, model, np.zeros(0), 1) == due.format("(0,)")
    assert told(forecast, model, [np.nan, 1.0], 1).startswith("Input must be finite")
    explosive = Autoregression(np.full((1, 1, 1), 1e30), np.zeros(1))
    assert told(forecast, explosive, window, 9) == (
        "Forecasts must stay finite, but do not 2 steps ahead: ask for fewer steps"
    )
    assert told(autoregression, data.train, 6) == "Order must be at most 5 as the windows have values, not 6"
    few = Split(data.train.x[:5], data.train.y[:5])
    assert told(autoregression, few, 5) == "Windows must be more than 5 to fit an order of 5, not 5"
    assert told(explosive.predict, np.zeros((2, 3, 1)), np.array([3, 2])).startswith("Lengths must be left out")
    assert told(future, data.evaluation, 99) == (
        "Steps must be at most 23 as the part has values to compare with, not 99"
    )
    later = forecast_windows(series, W, 2)[1]
    assert told(future, later, 2).startswith("Windows must follow each other by one value, with the value behind")
    assert told(future, load_dataset("adding").train, 2).startswith("Windows must follow each other")
    assert told(forecast_errors, np.zeros((2, 3, 1)), np.zeros((2, 2, 1)), np.zeros((2, 1))) == (
        "Forecasts and actual values must have one shape (N, steps, F), none 0, not (2, 3, 1) and (2, 2, 1)"
    )


def test_the_verb(model: Any, data: Dataset, series: np.ndarray, tmp_path: Path, capsys: Any) -> None:
    file, csv = str(tmp_path / "m.onnx"), str(tmp_path / "s.csv")
    save(model, file)
    Path(csv).write_text("value\n" + "\n".join(map(repr, series.tolist())))
    words = ["forecast", file, "--data", csv, "--column", "value", "--window", str(W), "--steps", "3"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["windows"] == len(data.evaluation) - 2 and found["order"] == 5
    assert [one["horizon"] for one in found["errors"]["persistence"]] == [1, 2, 3]
    assert found["forecast"] == pytest.approx(forecast(model, series[-W:], 3).tolist())
    first = {k: v for k, v in found["errors"]["model"][0].items() if k == "rmse"}
    windows, actual = future(data.evaluation, 3)
    assert first["rmse"] == pytest.approx(rmse(model.predict(windows), actual[:, 0]))
    assert main([*words, "--order", "2"]) == 0
    out = capsys.readouterr().out
    assert "RMSE of AR(2)" in out and len(out.splitlines()) == 7
    assert main([*words[:-1], "99"]) == 2 and "Steps must be at most 23" in capsys.readouterr().err
