"""Networks from elsewhere: what their files mean, as a model of hwrnn or refused with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwrnn.lazy import lazy_names

if TYPE_CHECKING:
    from hwrnn.importing.imported import Imported, import_onnx

__all__ = ["Imported", "import_onnx"]

_HOMES = {"Imported": "hwrnn.importing.imported", "import_onnx": "hwrnn.importing.imported"}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
