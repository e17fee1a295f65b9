"""Sizes that a file leaves open, as polynomials in named symbols, and arithmetic on constants that may hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Size", "Undecided", "equal", "folded", "product", "whole"]


class Undecided(ValueError):
    """A question about an open size whose answer depends on the size."""


class Size:
    """A size in elements: a sum of products of symbols, each of which is at least 1. Never a plain number.

    ``terms`` maps sorted symbol names to a whole coefficient: ``{("N", "T"): 2, (): 1}`` is 2 N T + 1.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[tuple[str, ...], int]) -> None:
        self.terms = {names: k for names, k in terms.items() if k}

    @staticmethod
    def of(name: str) -> Size:
        """The size that one symbol stands for."""
        return Size({(name,): 1})

    def __add__(self, other: Any) -> Any:
        found = dict(self.terms)
        for names, k in _terms(other).items():
            found[names] = found.get(names, 0) + k
        return _simple(found)

    def __mul__(self, other: Any) -> Any:
        found: dict[tuple[str, ...], int] = {}
        for a, j in self.terms.items():
            for b, k in _terms(other).items():
                names = tuple(sorted((*a, *b)))
                found[names] = found.get(names, 0) + j * k
        if len(found) > 64 or any(len(names) > 16 for names in found):
            raise Undecided("a size is too long a sum or product")
        return _simple(found)

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self + (-1 * other)

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    __radd__, __rmul__ = __add__, __mul__

    def __floordiv__(self, other: Any) -> Any:
        """Division without a remainder by one product of symbols.

        Raises:
            Undecided: where one may be left.
        """
        divisor = _terms(other)
        if len(divisor) != 1:
            raise Undecided(f"whether {other} divides {self} is not known")
        ((names, k),) = divisor.items()
        found: dict[tuple[str, ...], int] = {}
        for own, j in self.terms.items():
            left = list(own)
            for name in names:
                if name not in left:
                    raise Undecided(f"whether {other} divides {self} is not known")
                left.remove(name)
            if k == 0 or j % k:
                raise Undecided(f"whether {other} divides {self} is not known")
            found[tuple(left)] = j // k
        return _simple(found)

    def __rfloordiv__(self, other: Any) -> Any:
        raise Undecided(f"whether {self} divides {other} is not known")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __repr__(self) -> str:
        parts = ["*".join(([str(k)] if k != 1 or not names else []) + list(names)) for names, k in self.terms.items()]
        return " + ".join(parts)

    def value(self, symbols: Mapping[str, int]) -> int:
        """The number, once the symbols have numbers."""
        total = 0
        for names, k in self.terms.items():
            for name in names:
                k *= symbols[name]
            total += k
        return total


def _terms(value: Any) -> dict[tuple[str, ...], int]:
    return value.terms if isinstance(value, Size) else {(): int(value)}


def _simple(terms: dict[tuple[str, ...], int]) -> Any:
    made = Size(terms)
    if not made.terms:
        return 0
    if set(made.terms) == {()}:
        return made.terms[()]
    return made


def product(sizes: Any) -> Any:
    """The product of sizes, a number where all are."""
    total: Any = 1
    for size in sizes:
        total = total * size
    return total


def equal(a: Any, b: Any) -> bool:
    """Whether two sizes are equal, whatever their symbols stand for.

    Raises:
        Undecided: where that depends on the symbols.
    """
    difference = a - b
    if not isinstance(difference, Size):
        return bool(difference == 0)
    for sign in (1, -1):
        terms = (difference * sign).terms
        if min([k for names, k in terms.items() if names], default=0) >= 0 and sum(terms.values()) > 0:
            return False  # symbols are at least 1
    raise Undecided(f"whether {a} is {b} is not known before the network runs")


def whole(array: np.ndarray) -> list[Any]:
    """A vector of sizes as a list of plain numbers and :class:`Size`."""
    return [v if isinstance(v, Size) else int(v) for v in array.reshape(-1).tolist()]


def folded(values: Any) -> np.ndarray:
    """An array (or a single element of one) of Python objects as int64 where no open size is left in it."""
    if not isinstance(values, np.ndarray):
        single = np.empty((), object)
        single[()] = values
        values = single if isinstance(values, Size) else np.asarray(values)
    if values.dtype == object and not any(isinstance(v, Size) for v in values.reshape(-1)):
        return values.astype(np.int64)
    return values
