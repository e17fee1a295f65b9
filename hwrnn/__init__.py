"""hwrnn: recurrent networks from data to checked Verilog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwrnn.lazy import lazy_names

if TYPE_CHECKING:
    from hwrnn.data import load_dataset
    from hwrnn.errors import UsageError
    from hwrnn.fixed import Format
    from hwrnn.forecasting import forecast
    from hwrnn.importing.imported import import_onnx
    from hwrnn.importing.keras_files import from_keras
    from hwrnn.importing.torch_modules import from_torch
    from hwrnn.model import build_model
    from hwrnn.on_board import run_on_board
    from hwrnn.onnx_io import load, save
    from hwrnn.quantization import quantize
    from hwrnn.training import train
    from hwrnn.training.evolution import evolve

__all__ = [
    "Format", "UsageError", "build_model", "evolve", "forecast", "from_keras", "from_torch", "import_onnx", "load",
    "load_dataset", "quantize", "run_on_board", "save", "train",
]  # fmt: skip

__version__ = "0.1.0"

# Where each name lives; it is imported when first asked for, so that `import hwrnn` is instant.
_HOMES = {
    "Format": "hwrnn.fixed",
    "UsageError": "hwrnn.errors",
    "build_model": "hwrnn.model",
    "evolve": "hwrnn.training.evolution",
    "forecast": "hwrnn.forecasting",
    "import_onnx": "hwrnn.importing.imported",
    "from_keras": "hwrnn.importing.keras_files",
    "from_torch": "hwrnn.importing.torch_modules",
    "load": "hwrnn.onnx_io",
    "load_dataset": "hwrnn.data",
    "quantize": "hwrnn.quantization",
    "run_on_board": "hwrnn.on_board",
    "save": "hwrnn.onnx_io",
    "train": "hwrnn.training",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
