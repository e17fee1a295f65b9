"""Gates: from a quantized model to a datapath and its Verilog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwrnn.rtl.generator import generate
    from hwrnn.rtl.network import Network
    from hwrnn.rtl.targets import TARGETS
    from hwrnn.rtl.timing import Timing

__all__ = ["TARGETS", "Network", "Timing", "generate"]

# Where each name lives; it is imported when first asked for.
_HOMES = {
    "Network": "hwrnn.rtl.network",
    "TARGETS": "hwrnn.rtl.targets",
    "Timing": "hwrnn.rtl.timing",
    "generate": "hwrnn.rtl.generator",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hwrnn.rtl' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
