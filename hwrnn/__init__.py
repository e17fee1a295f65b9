"""hwrnn: recurrent networks from data to checked Verilog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwrnn.data import load_dataset
    from hwrnn.errors import UsageError
    from hwrnn.fixed import Format
    from hwrnn.model import build_model
    from hwrnn.onnx_io import load, save
    from hwrnn.quantization import quantize
    from hwrnn.training import train

__all__ = ["Format", "UsageError", "build_model", "load", "load_dataset", "quantize", "save", "train"]

__version__ = "0.1.0"

# Where each name lives; it is imported when first asked for, so that `import hwrnn` is instant.
_HOMES = {
    "Format": "hwrnn.fixed",
    "UsageError": "hwrnn.errors",
    "build_model": "hwrnn.model",
    "load": "hwrnn.onnx_io",
    "load_dataset": "hwrnn.data",
    "quantize": "hwrnn.quantization",
    "save": "hwrnn.onnx_io",
    "train": "hwrnn.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hwrnn' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
