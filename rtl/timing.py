"""How many registers stand where: what a part needs for its speed, and what the closed forms count."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hwrnn.errors import UsageError

__all__ = ["SHORTEST", "Timing"]


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

    Raises:
        UsageError: a number outside its range, or ``product`` beside ``tree``, which says how many there are.
    """

    memory: int = 1
    operand: int = 0
    product: int = 1
    sums: bool = False
    factors: int = 0
    tree: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                if not isinstance(value, bool):
                    raise UsageError(f"Timing's {field.name} must be True or False, not {value!r}")
                continue
            least = int(field.name in ("memory", "product"))
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(f"Timing's {field.name} must be a whole number of at least {least}, not {value!r}")
        if self.tree and self.product != 1:
            raise UsageError(f"Timing's product must be 1 beside a tree, not {self.product}")

    def product_stages(self, a: int, b: int) -> int:
        """Registers from the factors of ``a`` and ``b`` bits to their product."""
        return max(1, (min(a, b) - 1).bit_length()) if self.tree else self.product

    def multiply(self, a: int, b: int) -> int:
        """Cycles from issuing a column to its product, of factors of ``a`` and ``b`` bits; the first one reads."""
        return 1 + self.memory + self.operand + self.product_stages(a, b)

    def mac(self, a: int, b: int) -> int:
        """Cycles from issuing a group's last column to its first unit's entry into the element-wise path.

        Behind the product stand the accumulator and the hold register.
        """
        return self.multiply(a, b) + 2


#: The shortest pipeline.
SHORTEST = Timing()
