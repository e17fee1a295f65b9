"""Forecasts further ahead than a model looks: its predictions are fed back as if they had come true.

Beside a model stand the two forecasts that it has to beat, persistence and a linear autoregression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hwrnn.checks import as_integer
from hwrnn.data import Split
from hwrnn.errors import UsageError

__all__ = [
    "Autoregression", "Forecaster", "autoregression", "forecast", "forecast_errors", "future", "last_window",
    "persistence",
]  # fmt: skip

_VALUES_PER_COEFFICIENT = 10  # fewer training windows than that, and a regression's order is lowered


class Forecaster(Protocol):
    """What can be asked for the next value: a float model, a quantized one (golden), an :class:`Autoregression`."""

    @property
    def inputs(self) -> int:
        """Features of a value of the series."""
        ...

    @property
    def outputs(self) -> int:
        """Features of a prediction, the same number."""
        ...

    def predict(self, x: Any, lengths: Any = None) -> np.ndarray:
        """The values (N, outputs) that follow windows (N, W, inputs), in the same units."""
        ...


def forecast(
    model: Forecaster, window: Any, steps: int, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """The next values of series, each predicted from a window that slides over the predictions before it.

    The window keeps its length, which should be that of training. A quantized model computes every step as the hardware
    does: a prediction leaves it in the target's units and is rounded to the input's format when it comes back. (These
    are iterated, not direct, forecasts: Marcellino, Stock and Watson, Journal of Econometrics 135, 2006.)

    Args:
        model: with as many outputs as inputs, in the same units: trained on windows and the values that follow.
        window: the latest values, (W,), (W, F) or, for N series side by side, (N, W, F).
        steps: how many values to forecast.
        progress: called after each step with the steps done and ``steps``.

    Returns:
        float64 (steps,), (steps, F) or (N, steps, F), as ``window`` is.

    Raises:
        UsageError: a model whose outputs are not its inputs, or that labels or has an output at every step; a window of
            another shape or with values that are not finite; or a forecast that ceases to be finite.
    """
    steps = as_integer("Steps", steps, 1)
    if model.inputs != model.outputs:
        raise UsageError(
            f"Model must have as many outputs as inputs to feed forecasts back, not {model.outputs} and {model.inputs}"
        )
    if getattr(model, "task", "regression") != "regression" or getattr(model, "every_step", False):
        raise UsageError("Model must be a regression that predicts one value after a window to feed forecasts back")
    given = np.asarray(window, np.float64)
    known = given[None, :, None] if given.ndim == 1 else given[None] if given.ndim == 2 else given
    if known.ndim != 3 or 0 in known.shape or known.shape[2] != model.inputs:
        raise UsageError(
            f"Window must have shape (values, {model.inputs}) or (series, values, {model.inputs}), none 0,"
            f" not {given.shape}"
        )
    values = known.shape[1]
    out = np.empty((len(known), steps, model.outputs))
    for k in range(steps):
        latest = np.concatenate([known, out[:, :k]], axis=1)[:, -values:]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told
            out[:, k] = model.predict(latest)
            finite = np.isfinite(out[:, k].astype(np.float32)).all()
        if not finite:
            raise UsageError(f"Forecasts must stay finite, but do not {k + 1} steps ahead: ask for fewer steps")
        if progress is not None:
            progress(k + 1, steps)
    return out[0, :, 0] if given.ndim == 1 else out[0] if given.ndim == 2 else out


def persistence(window: Any, steps: int) -> np.ndarray:
    """The forecast that nothing changes: the last value, ``steps`` times, shaped as :func:`forecast`'s result."""
    given, steps = np.asarray(window, np.float64), as_integer("Steps", steps, 1)
    if given.ndim not in (1, 2, 3) or 0 in given.shape:
        raise UsageError(
            f"Window must have shape (values,), (values, F) or (series, values, F), none 0, not {given.shape}"
        )
    axis = 1 if given.ndim == 3 else 0
    return np.repeat(np.take(given, [-1], axis), steps, axis)


@dataclass(frozen=True, eq=False)
class Autoregression:
    """A linear forecast: an intercept (F,) and weights (order, F, F) of the ``order`` latest values, oldest first."""

    weights: np.ndarray
    intercept: np.ndarray

    @property
    def order(self) -> int:
        """How many values are looked at."""
        return self.weights.shape[0]

    @property
    def inputs(self) -> int:
        """Features of a value."""
        return self.weights.shape[1]

    @property
    def outputs(self) -> int:
        """Features of a prediction."""
        return self.weights.shape[2]

    def predict(self, x: Any, lengths: Any = None) -> np.ndarray:
        """The values (N, F) that follow windows (N, W, F), W of at least ``order``.

        Raises:
            UsageError: windows of another shape, or lengths, which a regression has no use for.
        """
        x = np.asarray(x, np.float64)
        if x.ndim != 3 or x.shape[1] < self.order or x.shape[2] != self.inputs:
            raise UsageError(
                f"Windows must have shape (N, {self.order} or more, {self.inputs}) for this regression, not {x.shape}"
            )
        if lengths is not None and (np.asarray(lengths) != x.shape[1]).any():
            raise UsageError("Lengths must be left out: a regression looks at the end of whole windows")
        return np.asarray(np.einsum("nwf,wfg->ng", x[:, -self.order :], self.weights) + self.intercept)


def autoregression(split: Split, order: int | None = None) -> Autoregression:
    """Fit a linear autoregression of windows to the values behind them by least squares.

    Args:
        split: whole windows ``x`` (N, W, F) and the values ``y`` (N, F) that follow: the training part of a data set.
        order: how many of the latest values to look at; None for W, or fewer where that leaves less than ten windows
            for each of them.

    Raises:
        UsageError: targets that are not values of the series, an order outside 1..W, or no more windows than weights.
    """
    count, width, features = split.x.shape
    if split.task != "regression" or split.y.shape != (count, features) or (split.lengths != width).any():
        raise UsageError(f"Data must be whole windows with the {features} value(s) that follow each to be forecast")
    if order is None:
        order = max(1, min(width, count // (_VALUES_PER_COEFFICIENT * features)))
    order = as_integer("Order", order, 1)
    if order > width:
        raise UsageError(f"Order must be at most {width} as the windows have values, not {order}")
    if count <= order * features:
        raise UsageError(f"Windows must be more than {order * features} to fit an order of {order}, not {count}")
    x, y = split.x[:, -order:].reshape(count, -1).astype(np.float64), split.y.astype(np.float64)
    # Centred, so that a large level does not cost digits of the weights.
    weights = np.linalg.lstsq(x - x.mean(0), y - y.mean(0), rcond=None)[0]
    return Autoregression(weights.reshape(order, features, features), y.mean(0) - x.mean(0) @ weights)


def future(split: Split, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The windows of a split that have ``steps`` known values behind them, and these values.

    Args:
        split: overlapping windows in the order of time, each with the value that follows: a part of a ``.csv`` data set
            whose horizon is 1.

    Returns:
        windows (N - steps + 1, W, F) and values (N - steps + 1, steps, F), float32.

    Raises:
        UsageError: windows that do not follow each other by one value, another horizon, or fewer than ``steps``.
    """
    steps, (count, _, features) = as_integer("Steps", steps, 1), split.x.shape
    follows = split.task == "regression" and split.y.shape == (count, features)
    if (
        not follows
        or not np.array_equal(split.x[1:, :-1], split.x[:-1, 1:])
        or not np.array_equal(split.x[1:, -1], split.y[:-1])
    ):
        raise UsageError(
            "Windows must follow each other by one value, with the value behind each as its target:"
            " take a .csv file, with a horizon of 1"
        )
    if steps > count:
        raise UsageError(f"Steps must be at most {count} as the part has values to compare with, not {steps}")
    values = np.lib.stride_tricks.sliding_window_view(split.y, steps, axis=0).transpose(0, 2, 1)
    return split.x[: count - steps + 1], values


def last_window(split: Split) -> np.ndarray:
    """The latest values of a split of :func:`future`'s kind, (W, F): what a forecast beyond its end starts from."""
    return np.concatenate([split.x[-1, 1:], split.y[-1:]])


def forecast_errors(predictions: Any, actual: Any, known: Any) -> list[dict[str, float]]:
    """The errors of forecasts for each number of steps ahead.

    Args:
        predictions: (N, steps, F), as :func:`forecast` gives.
        actual: what came, of that shape.
        known: the last actual values when each forecast was made, (N, F); changes are told from them.

    Returns:
        for each horizon from 1 on ``horizon``, ``rmse``, ``mae``, ``mean_forecast_error`` and
        ``mean_directional_accuracy``, as ``hwrnn.training.metrics`` defines them.

    Raises:
        UsageError: shapes that do not fit each other.
    """
    from hwrnn.training.metrics import mae, mean_directional_accuracy, mean_forecast_error, rmse

    predictions, actual, known = (np.asarray(values, np.float64) for values in (predictions, actual, known))
    if actual.ndim != 3 or 0 in actual.shape or predictions.shape != actual.shape:
        raise UsageError(
            f"Forecasts and actual values must have one shape (N, steps, F), none 0, not {predictions.shape} and"
            f" {actual.shape}"
        )
    if known.shape != (len(actual), actual.shape[2]):
        raise UsageError(f"Known values must have shape {(len(actual), actual.shape[2])}, not {known.shape}")
    return [
        {
            "horizon": k + 1,
            "rmse": rmse(predictions[:, k], actual[:, k]),
            "mae": mae(predictions[:, k], actual[:, k]),
            "mean_forecast_error": mean_forecast_error(predictions[:, k], actual[:, k]),
            "mean_directional_accuracy": mean_directional_accuracy(predictions[:, k], actual[:, k], known),
        }
        for k in range(actual.shape[1])
    ]
