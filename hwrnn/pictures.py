"""What people would rather see than read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hwrnn.errors import require
from hwrnn.files import atomic_path
from hwrnn.golden import golden
from hwrnn.model import Model
from hwrnn.quantization import QuantizedModel

__all__ = ["demo_picture"]


def demo_picture(path: Path, comparison: dict[str, Any], model: Model, quantized: QuantizedModel, part: Any) -> None:
    """Accuracy against bits, and one unit's states over time, float against hardware (a PNG).

    Args:
        part: the split whose longest sequence is drawn; the unit is the one whose state moves most.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "plot")
    figure_module = require("matplotlib.figure", "plot")
    figure = figure_module.Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    _accuracy(left, comparison)
    _states(right, model, quantized, part)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _accuracy(axes: Any, comparison: dict[str, Any]) -> None:
    fixed = [row for row in comparison["rows"] if row["bits"] is not None]
    float_value = comparison["rows"][0]["value"]
    places = np.arange(len(fixed))
    axes.axhline(100 * float_value, color="0.4", linestyle="--", linewidth=1, label="float")
    values = [100 * row["value"] for row in fixed]
    axes.plot(places, values, "o-", color="tab:blue", label="hardware (golden model)")
    for x, y in zip(places, values, strict=True):
        axes.annotate(f"{y:.1f}", (x, y), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
    axes.set_xticks(places, [str(row["bits"]) for row in fixed])
    # Differences of a few utterances should look like what they are.
    low, high = min(values), max(*values, 100 * float_value)
    axes.set_ylim(min(low - 1, high - 5), min(high + 2, 101))
    axes.set_xlabel("bits of weights, activations and hidden state")
    axes.set_ylabel("test accuracy in percent")
    axes.set_title("Accuracy against bits")
    axes.legend(loc="lower left")
    axes.grid(alpha=0.3)


def _states(axes: Any, model: Model, quantized: QuantizedModel, part: Any) -> None:
    longest = int(np.argmax(part.lengths))
    x, lengths = part.x[longest : longest + 1], part.lengths[longest : longest + 1]
    steps, layer = int(lengths[0]), quantized.layers[0]
    seen: dict[str, list[np.ndarray]] = {}

    def record(k: int, name: str, value: np.ndarray, n: int) -> None:
        if k == 0 and name in layer.cell.states:
            seen.setdefault(name, []).append(value[0].copy())

    model.forward(model.standardised(x), lengths, record)
    integers = golden(quantized, quantized.quantize_input(x), lengths, keep=True)
    unit = int(np.argmax(np.std(np.array(seen[layer.cell.output]), axis=0)))
    time = np.arange(1, steps + 1)
    for name, color in zip(layer.cell.states, ("tab:blue", "tab:orange"), strict=False):
        form = layer.formats.values[name]
        raw = integers.values[0, name][0, :steps, unit]
        axes.plot(time, [v[unit] for v in seen[name][:steps]], color=color, linewidth=1, label=f"{name}, float")
        axes.step(time, form.dequantize(raw), ".", where="mid", color=color, label=f"{name}, hardware ({form})")
    axes.set_xlabel("time step")
    axes.set_ylabel(f"state of unit {unit}")
    axes.set_title("One unit over time, float against hardware")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
