"""The activation unit: a nonlinearity as comparisons and adders, or, where that is the smaller, as a table in LUTs.

Both compute the same bits: the table's entries are what the exact arithmetic of :mod:`hwrnn.fixed` makes of every
input, rounding and saturation included. The choice is by a count of LUTs with four inputs on either side. *Table*: each
bit of the result is a tree of blocks of 16 entries and of choices between two, where equal blocks and equal choices are
built once, which is what logic synthesis finds in a function that saturates. *Lines*: a comparison takes half an input
bit a knot; choosing the intercept and the terms of a slope takes a LUT a bit for every two further pieces, and adding
them and the rounding one a bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from amaranth.hdl import Array, Const, Mux, Shape, Value

from hwrnn.fixed import Fixed, Format, Number, bits_for
from hwrnn.rtl.numbers import Staged, Wire, shape_of, signed_powers_of

__all__ = ["Applied", "as_stored", "is_table", "line_luts", "table_luts"]

_WIDEST = 12  # bits of an input that a table is considered for
_CASE = 64  # half of the choices of the largest case


class Applied(Wire):
    """A nonlinearity of a wire, whose comparisons and adders are built once something needs the exact value."""

    __slots__ = ("_built", "function", "source")

    def __init__(self, source: Wire, function: Any) -> None:
        table = source._table(function)
        self.function, self.source = function, source
        self._built: Staged | None = None
        self.frac = table.frac
        self.lo, self.hi = table.interval(source.lo, source.hi)

    @property
    def raw(self) -> Staged:
        """The exact value."""
        if self._built is None:
            self._built = Number.apply(self.source, self.function).raw
        return self._built


def as_stored(value: Wire, form: Format) -> Wire:
    """A value rounded and saturated to a format, by the smaller of the two ways where it is a nonlinearity's."""
    if not is_table(value, form):
        return value.rounded(form.frac).saturated(form)
    assert isinstance(value, Applied)
    source = value.source
    entries = _entries(value.function, source.frac, source.lo, source.hi, form)
    signal, width = source.raw.value, len(source.raw.value)
    # By the bits of the input as they stand; for inputs that never occur the nearest entry will do.
    numbers = [n - (1 << width) if signal.shape().signed and n >> (width - 1) else n for n in range(1 << width)]
    words = [entries[min(max(n, source.lo), source.hi) - source.lo] for n in numbers]
    chosen = _looked_up(signal.as_unsigned(), words, shape_of(min(entries), max(entries)))
    raw = source._loose("table", chosen, source.raw.stage)
    return source._make(raw, form.frac, min(entries), max(entries))


def _looked_up(index: Value, words: list[int], shape: Shape) -> Value:
    """The word of an index. Yosys would put a case of many choices into a block memory, so it is made of small ones."""
    if len(set(words)) == 1:
        return Const(words[0], shape)
    half = len(words) // 2
    if half < _CASE:
        return Array(Const(word, shape) for word in words)[index]
    low, high = (_looked_up(index[:-1], part, shape) for part in (words[:half], words[half:]))
    return low if words[:half] == words[half:] else Mux(index[-1], high, low)


def is_table(value: Wire, form: Format) -> bool:
    """Whether what is stored of a value is built as a table."""
    if not isinstance(value, Applied):
        return False
    source = value.source
    if bits_for(source.lo, source.hi)[0] > _WIDEST:
        return False
    given = value.function, source.frac, source.lo, source.hi, form
    return table_luts(*given) < line_luts(*given)


@lru_cache(maxsize=256)
def _entries(function: Any, frac: int, lo: int, hi: int, form: Format) -> tuple[int, ...]:
    """What is stored for every input from ``lo`` to ``hi``."""
    exact = Number.apply(Fixed(np.arange(lo, hi + 1, dtype=np.float64), frac, lo, hi), function)
    return tuple(int(n) for n in exact.to(form).raw.tolist())


@lru_cache(maxsize=256)
def table_luts(function: Any, frac: int, lo: int, hi: int, form: Format) -> int:
    """LUTs of four inputs that a table takes."""
    entries = np.array(_entries(function, frac, lo, hi, form))
    width, signed = bits_for(lo, hi)
    raw = np.arange(1 << width)
    value = np.where(raw >> (width - 1) & 1, raw - (1 << width), raw) if signed else raw
    words = entries[np.clip(value, lo, hi) - lo]
    count = 0
    seen: set[tuple[int, ...]] = set()
    for bit in range(max(bits_for(int(entries.min()), int(entries.max()))[0], 1)):
        blocks = [tuple(block) for block in (words >> bit & 1).reshape(-1, min(16, len(words))).tolist()]
        while True:
            fresh = {b for b in blocks if len(set(b)) > 1} - seen
            count += len(fresh)
            seen |= fresh
            if len(blocks) == 1:
                break
            pairs = zip(blocks[::2], blocks[1::2], strict=True)
            blocks = [a if a == b else (*a, *b) for a, b in pairs]
    return count


@lru_cache(maxsize=256)
def line_luts(function: Any, frac: int, lo: int, hi: int, form: Format) -> int:
    """LUTs of four inputs that comparisons, choices and adders take."""
    table = function.at_fraction(frac).within(lo, hi)
    width = bits_for(lo, hi)[0]
    terms = max(len(signed_powers_of(s)) for s in table.slopes)
    total = bits_for(*table.interval(lo, hi))[0]
    knots = len(table.knots)
    compare = knots * -(-width // 2)
    choose = (terms + 1) * total * -(-knots // 2)
    return compare + choose + terms * total + bits_for(form.lo, form.hi)[0]
