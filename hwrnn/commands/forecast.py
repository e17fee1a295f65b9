"""``hwrnn forecast``: what comes next in a series, and how wrong that was on the test part."""

from __future__ import annotations

import argparse
from typing import Any

from hwrnn import report
from hwrnn.commands.options import whole

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "forecast a series several steps ahead, beside persistence and a linear autoregression"
EXAMPLE = "hwrnn forecast m.onnx --data weeks.csv --column Cancellations --window 5 --steps 4"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("model", help="a model of hwrnn that was trained on such windows, float or quantized")
    group = parser.add_argument_group("data")
    group.add_argument("--data", required=True, metavar="F", help="a .csv file")
    group.add_argument("--column", required=True, metavar="NAME", help="column of the series")
    group.add_argument("--window", required=True, type=whole, metavar="W", help="values that a forecast starts from")
    parser.add_argument("--steps", type=whole, default=1, metavar="N", help="values to forecast (default 1)")
    parser.add_argument("--order", type=whole, metavar="P", help="of the regression (default: by window and data)")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_fits
    from hwrnn.data import load_dataset
    from hwrnn.forecasting import autoregression, forecast, forecast_errors, future, last_window, persistence
    from hwrnn.onnx_io import load

    model, data = load(given.model), load_dataset(given.data, column=given.column, window=given.window)
    check_fits(model, data)
    windows, actual = future(data.evaluation, given.steps)
    regression = autoregression(data.train, given.order)
    progress = report.Progress("forecast")
    known, linear = windows[:, -1], f"AR({regression.order})"
    errors = {
        "model": forecast_errors(forecast(model, windows, given.steps, progress), actual, known),
        "autoregression": forecast_errors(forecast(regression, windows, given.steps), actual, known),
        "persistence": forecast_errors(persistence(windows, given.steps), actual, known),
    }
    latest = last_window(data.evaluation)
    ahead = forecast(model, latest, given.steps)[:, 0].tolist()
    if given.json:
        report.print_json(
            {"windows": len(windows), "order": regression.order, "errors": errors, "forecast": ahead}
        )  # fmt: skip
        return 0
    header = ["steps ahead", "forecast", "RMSE", "MAE", "bias", "direction", f"RMSE of {linear}", "of persistence"]
    rows = [
        [
            one["horizon"], f"{value:.5g}", f"{one['rmse']:.4g}", f"{one['mae']:.4g}",
            f"{one['mean_forecast_error']:+.3g}", report.percent(one["mean_directional_accuracy"]),
            f"{ar['rmse']:.4g}", f"{same['rmse']:.4g}",
        ]
        for value, one, ar, same in zip(
            ahead, errors["model"], errors["autoregression"], errors["persistence"], strict=True
        )
    ]  # fmt: skip
    print(report.table(rows, header))
    print(f"\nForecast: what follows the last row of the file. Errors: over {len(windows)} windows of the test part.")
    return 0
