"""Registers in a row."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal

__all__ = ["delayed"]


def delayed(m: Module, value: Any, cycles: int, name: str, reset: bool = False) -> Any:
    """``value`` some cycles later, with its sign; ``reset`` for flags that must not be set after a reset."""
    for k in range(cycles):
        later = Signal(value.shape(), name=f"{name}_{k + 1}", reset_less=not reset)
        m.d.sync += later.eq(value)
        value = later
    return value
