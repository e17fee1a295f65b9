"""Float against fixed point on data: the metric for each number of bits, as the hardware computes it."""

from __future__ import annotations

from typing import Any

from hwrnn import report
from hwrnn.data import Dataset
from hwrnn.model import Model
from hwrnn.quantization import QuantizedModel, quantize

__all__ = ["comparison", "comparison_table", "measured"]


def measured(model: Model | QuantizedModel, data: Dataset, on_train: bool = False) -> tuple[str, float]:
    """The metric's name and value on the evaluation part (or the training part) of a data set."""
    from hwrnn.training import evaluate

    part = data.train if on_train else data.evaluation
    name, value = next(iter(evaluate(model.predict, part, data.task, data.per_step).items()))
    return name, value


def comparison(
    model: Model, data: Dataset, bits: list[int], method: str | None = None, progress: Any = None
) -> dict[str, Any]:
    """Float and each number of bits: the golden model's metric, and what float arithmetic on rounded weights gives."""
    metric, value = measured(model, data)
    rows: list[dict[str, Any]] = [{"kind": "float", "bits": None, "value": value}]
    for k, b in enumerate(bits):
        result = quantize(model, data, b, method=method)
        guess = measured(result.in_float(), data)[1]
        rows.append({"kind": "fixed", "bits": b, "value": measured(result, data)[1], "float_simulation": guess})
        if progress is not None:
            progress(k + 1, len(bits), f"{b} bits")
    return {"metric": metric, "rows": rows}


def comparison_table(result: dict[str, Any]) -> str:
    """A column for float and for each number of bits."""
    metric, rows = result["metric"], result["rows"]
    header = [metric, *("float" if row["bits"] is None else f"{row['bits']} bits" for row in rows)]
    guess, golden = ["float simulation (rounded weights only)"], ["hardware (golden model, bit for bit)"]
    for row in rows:
        guess.append(report.metric_text(metric, row.get("float_simulation", row["value"])))
        golden.append("-" if row["bits"] is None else report.metric_text(metric, row["value"]))
    return report.table([guess, golden], header)
