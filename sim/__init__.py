"""Simulation: the hardware against the golden model, cycle by cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwrnn.sim.report import Report
    from hwrnn.sim.stimuli import STALLS
    from hwrnn.sim.verification import SIMULATORS, check, simulate

__all__ = ["SIMULATORS", "STALLS", "Report", "check", "simulate"]

# Where each name lives; it is imported when first asked for.
_HOMES = {
    "Report": "hwrnn.sim.report",
    "SIMULATORS": "hwrnn.sim.verification",
    "STALLS": "hwrnn.sim.stimuli",
    "check": "hwrnn.sim.verification",
    "simulate": "hwrnn.sim.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hwrnn.sim' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
