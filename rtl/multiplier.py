"""Products: by the part's own multiplier between registers, two by one, or by a tree of adders where it has none."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib.wiring import In, Out

from hwrnn.fixed import bits_for
from hwrnn.rtl.ports import Part
from hwrnn.rtl.timing import Timing

__all__ = ["Halves", "packed", "parted", "product"]


class Halves(Part):
    """Two weights times one operand, a cycle later: a module of its own, which a part's multiplier can replace whole.

    Ports:
        weight_0, weight_1, operand: any values.
        product_0, product_1: of the cycle before.
    """

    def __init__(self, weight: Shape, operand: Shape) -> None:
        result = signed(weight.width + operand.width + (not operand.signed))
        super().__init__(
            {
                "weight_0": In(weight),
                "weight_1": In(weight),
                "operand": In(operand),
                "product_0": Out(result),
                "product_1": Out(result),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Plain products."""
        m = Module()
        for k, weight in enumerate((self.weight_0, self.weight_1)):
            port = getattr(self, f"product_{k}")
            register = Signal(port.shape(), name=f"product_{k}", reset_less=True)
            m.d.sync += register.eq(weight * self.operand)
            m.d.comb += port.eq(register)
        return m


def packed(m: Module, low: Value, high: Value, apart: int, name: str) -> Signal:
    """Two weights in one word, ``low + high * 2**apart``; the low one's sign borrows from the high one."""
    sign = low[-1]
    word = Signal(signed(apart + len(high) + 1), name=name)
    m.d.comb += word.eq(Cat(low, sign.replicate(apart - len(low)), high - sign))
    return word


def parted(m: Module, product: Value, apart: int, names: tuple[str, str]) -> tuple[Signal, Signal]:
    """Both products of a word of two weights, a cycle later.

    Args:
        product: of the word and an operand.
        apart: bits of either product.
        names: of the registers.
    """
    low, high = (Signal(signed(apart), name=name, reset_less=True) for name in names)
    # The lower product's sign was borrowed from the higher one.
    m.d.sync += [low.eq(product[:apart]), high.eq(product[apart : 2 * apart].as_signed() + product[apart - 1])]
    return low, high


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
