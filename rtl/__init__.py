"""Gates: from a quantized model to a datapath and its Verilog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwrnn.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
