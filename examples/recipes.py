"""The recipes of training, one for each data set: what every study of it trains with unless its question is that.

Chosen by cross-validation on the training parts (``scripts/choose_noise.py`` shows how), never by a test part.
"""

from __future__ import annotations

from typing import Any

__all__ = ["QAT", "RECIPES", "recipe"]

RECIPES: dict[str, dict[str, Any]] = {
    "japanese-vowels": {"epochs": 80, "batch": 32, "rate": 0.01, "noise": 0.7},
    "spoken-digits": {"epochs": 30, "batch": 64, "rate": 0.01, "noise": 0.5},
    "italy-power-demand": {"epochs": 150, "batch": 16, "rate": 0.003, "noise": 0.3},
    "gunpoint": {"epochs": 150, "batch": 16, "rate": 0.01, "noise": 0.1},
    "seattle-weather": {"epochs": 60, "batch": 32, "rate": 0.003, "noise": 0.0, "weight_decay": 0.6},
    "arterial-pressure": {"epochs": 200, "batch": 32, "rate": 0.01, "noise": 0.0},
    "mackey-glass": {"epochs": 60, "batch": 32, "rate": 0.01, "noise": 0.0},
}
"""Options of ``hwrnn.train`` by the data set's name."""

QAT: dict[str, dict[str, Any]] = {
    "japanese-vowels": {"finetune": 40},
    "spoken-digits": {"finetune": 20},
    "arterial-pressure": {"finetune": 100, "rate": 0.01},
    "mackey-glass": {"finetune": 800, "rate": 0.02},
}
"""Options of ``hwrnn.quantize`` for quantization-aware training, by the data set's name."""


def recipe(data: str, quick: bool = False) -> dict[str, Any]:
    """The options of ``hwrnn.train`` for a data set; ``quick`` trains for two epochs, which shows nothing but runs."""
    return RECIPES[data] | ({"epochs": 2} if quick else {})
