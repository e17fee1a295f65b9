"""The product of two numbers: the part's own multiplier between registers, or a tree of adders where it has none."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Shape, Signal, Value

from hwrnn.fixed import bits_for
from hwrnn.rtl.timing import Timing

__all__ = ["product"]


def product(m: Module, a: Value, b: Value, shape: Shape, timing: Timing, name: str) -> Signal:
    """``a * b``, registered ``timing.product_stages(len(a), len(b))`` times.

    No register has an enable or a reset, so that those behind a multiplier can move into it.

    Args:
        m: the module that the product is added to.
        shape: of the product; it holds every value that occurs.
        name: of the last register.
    """
    if timing.tree:
        narrow, wide = (a, b) if len(a) <= len(b) else (b, a)
        return _tree(m, narrow, wide, shape, name)
    value: Any = a * b
    for k in range(timing.product):
        last = k == timing.product - 1
        register = Signal(shape, name=name if last else f"{name}_early_{k + 1}", reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value


def _tree(m: Module, narrow: Value, wide: Value, shape: Shape, name: str) -> Signal:
    """Each bit of the narrower factor takes the other one or nothing; a level adds neighbours and ends in registers."""
    lo, hi = _interval(wide)
    terms: list[tuple[Any, int, int]] = []
    for k in range(len(narrow)):
        part = Mux(narrow[k], wide, 0)
        if k == len(narrow) - 1 and narrow.shape().signed:
            terms.append((-part, min(-hi, 0), max(-lo, 0)))
        else:
            terms.append((part, min(lo, 0), max(hi, 0)))
    level = 0
    while len(terms) > 1 or level == 0:
        apart = 1 << level  # positions between neighbours
        level += 1
        sums: list[tuple[Any, int, int]] = []
        for k in range(0, len(terms), 2):
            value, lo, hi = terms[k]
            if k + 1 < len(terms):
                high, least, most = terms[k + 1]
                value, lo, hi = value + (high << apart), lo + (least << apart), hi + (most << apart)
            last = len(terms) <= 2
            width, is_signed = bits_for(lo, hi)
            register = Signal(
                shape if last else Shape(max(width, 1), is_signed),
                name=name if last else f"{name}_level_{level}_{k // 2}",
                reset_less=True,
            )
            m.d.sync += register.eq(value)
            sums.append((register, lo, hi))
        terms = sums
    return terms[0][0]


def _interval(value: Value) -> tuple[int, int]:
    """The least and the largest number of a value's shape."""
    shape = value.shape()
    if shape.signed:
        return -1 << (shape.width - 1), (1 << (shape.width - 1)) - 1
    return 0, (1 << shape.width) - 1
