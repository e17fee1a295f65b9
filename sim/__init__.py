"""Simulation: the hardware against the golden model, cycle by cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwrnn.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
