"""How many registers stand where, and what shares a multiplier: what a part asks for and the closed forms count."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from amaranth.hdl import Shape

from hwrnn.errors import UsageError, shown

__all__ = ["SHORTEST", "Timing"]


#: In one place of a path: far more than any part gains from.
MOST_REGISTERS = 64


@dataclass(frozen=True)
class Timing:
    """Registers along an engine's path; the defaults make the shortest pipeline.

    More of them raise the clock and the latency, and leave the cycles of a step as they are wherever a row's columns
    cover the drain.

    Attributes:
        memory: behind the memories of weights and operands, at least 1.
        operand: at the inputs of each lane's multiplier, besides.
        product: behind each multiplier, at least 1.
        sums: whether a sum in the element-wise path ends a stage.
        factors: at the inputs of the element-wise path's multipliers.
        tree: whether products are made of adders, with a register behind each level, for a part without multipliers.
        packed: bits of both signed operands of a multiplier that two lanes share where both their weights fit side by
            side into the first one; the products are parted behind it, which takes a register. ``(0, 0)``: none does.
        halves: bits of both operands of each half of a multiplier that makes two products by itself; ``(0, 0)``: none.

    Raises:
        UsageError: a number outside its range (registers: at most ``MOST_REGISTERS``), ``product`` beside ``tree``,
            which says how many there are, or more than one of ``tree``, ``packed`` and ``halves``.
    """

    memory: int = 1
    operand: int = 0
    product: int = 1
    sums: bool = False
    factors: int = 0
    tree: bool = False
    packed: tuple[int, int] = (0, 0)
    halves: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                if not isinstance(value, bool):
                    raise UsageError(f"Timing's {field.name} must be True or False, not {shown(value)}")
                continue
            if isinstance(field.default, tuple):
                two = isinstance(value, (tuple, list)) and len(value) == 2
                if not two or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value):
                    must = "two whole numbers of at least 0"
                    raise UsageError(f"Timing's {field.name} must be {must}, not {shown(value)}")
                object.__setattr__(self, field.name, tuple(value))
                continue
            least = int(field.name in ("memory", "product"))
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST_REGISTERS:
                must = f"a whole number from {least} to {MOST_REGISTERS}"
                raise UsageError(f"Timing's {field.name} must be {must}, not {shown(value)}")
        if self.tree and self.product != 1:
            raise UsageError(f"Timing's product must be 1 beside a tree, not {self.product}")

        if self.tree + any(self.packed) + any(self.halves) > 1:
            raise UsageError("Timing must have at most one of tree, packed and halves, not several")

    def to_json(self) -> dict[str, Any]:
        """Its attributes."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def sharing(self, weight: Shape, operand: Shape) -> str:
        """How two lanes share a multiplier: ``packed``, ``halves`` or, where each has its own, nothing."""
        if weight.width <= self.halves[0] and operand.width <= self.halves[1]:
            return "halves"
        a, b = weight.width, operand.width + (not operand.signed)
        # The lower product takes a + b bits, and the higher weight one more than its own, for the borrow of the lower.
        return "packed" if 2 * a + b + 1 <= self.packed[0] and b <= self.packed[1] else ""

    def product_stages(self, a: int, b: int) -> int:
        """Registers from the factors of ``a`` and ``b`` bits to their product."""
        return max(1, (min(a, b) - 1).bit_length()) if self.tree else self.product

    def multiply(self, weight: Shape, operand: Shape) -> int:
        """Cycles from issuing a column to its product; the first one reads."""
        parted = self.sharing(weight, operand) == "packed"
        return 1 + self.memory + self.operand + self.product_stages(weight.width, operand.width) + parted

    def mac(self, weight: Shape, operand: Shape) -> int:
        """Cycles from issuing a group's last column to its first unit's entry into the element-wise path.

        Behind the product stand the accumulator and the hold register.
        """
        return self.multiply(weight, operand) + 2


#: The shortest pipeline.
SHORTEST = Timing()
