"""A hotel's weekly cancellations as a public answer forecast them, and honestly; and what its 80 % come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwrnn import build_model
from hwrnn.data import Dataset, Split
from hwrnn.forecasting import autoregression
from hwrnn.model import Model
from hwrnn.training import mean_directional_accuracy, mean_forecast_error, rmse

__all__ = [
    "FORMS", "KNOWN", "LAGS", "LEARNT", "PUBLISHED", "SHAPES", "TRAINED", "WEEKS", "alignment", "directions_by_label",
    "directions_on_arrays", "errors", "fresh", "hotel", "windows", "yardsticks",
]  # fmt: skip

LAGS, TRAINED, KNOWN, WEEKS = 5, 80, 100, 115
LEARNT = 59
"""Windows that the public answer learnt from, as its log prints them."""

FORMS = {"published": range(KNOWN + LAGS, WEEKS), "honest": range(KNOWN, WEEKS)}
"""The weeks that each form is tested on."""

SHAPES = {"tanh": "tanh", "relu": "ReLU", "hard_tanh": "hard tanh", "relu1": "ReLU clipped at 1"}
"""The nonlinearities of candidate and cell, by hwrnn's names."""

PUBLISHED = {"tanh": (92.0, 29.0), "relu": (96.78, 9.40)}
"""RMSE and mean forecast error of the public answer; its directional accuracy is 80 % for both."""


def windows(weeks: np.ndarray, targets: Sequence[int], form: str) -> np.ndarray:
    """The five weeks before each target: five steps of one feature, or as published one step of five features."""
    cut = np.array([weeks[t - LAGS : t] for t in targets])
    return cut[:, :, None] if form == "honest" else cut[:, None, :]


def hotel(weeks: np.ndarray, form: str) -> tuple[Dataset, float, float]:
    """What a form learns from and is tested on, and the least and largest week that its scaler saw.

    The published one learns from ``LEARNT`` windows, and rescales the columns of its test windows
    by their own least and largest values.
    """
    seen = weeks[: KNOWN if form == "published" else TRAINED]
    low, high = float(seen.min()), float(seen.max())
    learnt = range(LAGS, LAGS + LEARNT) if form == "published" else range(LAGS, TRAINED)
    x = windows(weeks, FORMS[form], form)
    if form == "published":
        x = low + (high - low) * (x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0))
    y = weeks[:, None]
    parts = Split(windows(weeks, learnt, form), y[list(learnt)]), Split(x, y[list(FORMS[form])])
    return Dataset.of(f"hotel, {form}", *parts), low, high


def fresh(inputs: int, activation: str, seed: int, low: float, high: float) -> Model:
    """LSTM(4) and a dense output with smooth gates and Keras's initial values, between the scaler's two ends."""
    model = build_model(inputs, 1, hidden=4, activation=activation, gate="sigmoid", task="regression", seed=seed)
    layer = model.layers[0]
    parameters, units, rng = dict(layer.parameters), layer.units, np.random.default_rng([seed, 1])
    # Keras draws the four gates as one matrix: a narrower uniform for the input, orthogonal columns for the state.
    parameters["0.x"] = parameters["0.x"] * np.float32(np.sqrt((inputs + units) / (inputs + 4 * units)))
    parameters["0.h"] = np.linalg.qr(rng.standard_normal((4 * units, units)))[0].astype(np.float32)
    mean, scale = np.full(inputs, low, np.float32), np.full(inputs, 1 / (high - low), np.float32)
    return replace(
        model, layers=(replace(layer, parameters=parameters),), input_mean=mean, input_scale=scale,
        output_mean=mean[:1], output_scale=1 / scale[:1],
    )  # fmt: skip


def errors(weeks: np.ndarray, form: str, predictions: np.ndarray) -> dict[str, float]:
    """RMSE, mean forecast error and directional accuracy of predictions of a form's test weeks."""
    targets = np.array(FORMS[form])
    actual = weeks[targets]
    return {
        "rmse": rmse(predictions, actual),
        "bias": mean_forecast_error(predictions, actual),
        "direction": mean_directional_accuracy(predictions, actual, weeks[targets - 1]),
    }


def yardsticks(weeks: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    """What needs no network: the week before, a linear autoregression, and the average of the first 80 weeks."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    linear = autoregression(hotel(weeks, "honest")[0].train, LAGS)
    for form, targets in FORMS.items():
        x = windows(weeks, targets, "honest")
        rows = {
            "the week before": x[:, -1, 0],
            f"AR({LAGS}), least squares": linear.predict(x)[:, 0],
            f"the average of weeks 0 to {TRAINED - 1}": np.full(len(x), weeks[:TRAINED].mean()),
        }
        found[form] = {name: errors(weeks, form, predictions) for name, predictions in rows.items()}
    return found


def directions_on_arrays(actual: np.ndarray, predicted: np.ndarray) -> float:
    """The published formula on plain arrays: the share of steps that actual and predicted series take alike."""
    return float(np.mean(np.sign(np.diff(actual)) == np.sign(np.diff(predicted))))


def directions_by_label(actual: np.ndarray, predicted: np.ndarray) -> float:
    """The same formula on series that carry their positions as labels, as pandas reads it.

    ``series[1:] - series[:-1]`` subtracts what has the same *label*: labels 1 to n-2 give a value minus itself, and
    the first and the last one lack a partner and give NaN. So n-2 of n signs are 0 on both sides and agree, and two are
    NaN and do not, whatever was predicted.
    """

    def steps(series: np.ndarray) -> list[float]:
        later, earlier = dict(list(enumerate(series))[1:]), dict(list(enumerate(series))[:-1])
        return [later.get(k, np.nan) - earlier.get(k, np.nan) for k in sorted(later | earlier)]

    return float(np.mean(np.sign(steps(actual)) == np.sign(steps(predicted))))


def alignment(actual: np.ndarray, predicted: np.ndarray) -> dict[str, tuple[float, float]]:
    """Both readings of the published formula for forecasts of every quality."""
    forecasts = {
        "the network's": predicted,
        "the truth": actual,
        "the truth with every step turned round": 2 * actual[0] - actual,
        "one number for all weeks": np.full(len(actual), 300.0),
        "noise": np.random.default_rng(0).normal(300, 100, len(actual)),
    }
    return {name: (directions_on_arrays(actual, p), directions_by_label(actual, p)) for name, p in forecasts.items()}
