"""Exact numbers that write C with their constants in place, for the C reference (``hwrnn.c_reference``).

They write their arithmetic down as in ``hwrnn.c_integers``, but formats and weights are known here, so a shift by
nothing or a bound that cannot be reached does not appear, and each variable has the narrower of two types, ``int32_t``
or ``int64_t``, that holds its interval.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np

from hwrnn.c_source import LONGEST, Unprintable, floor_shift
from hwrnn.fixed import Number

__all__ = ["Exact", "Tables", "Term", "Writer", "bytes_of", "c_type", "helper_text", "literal", "type_for"]

_INT32, _INT64 = 2**31 - 1, 2**63 - 1
#: The types of what is stored, the narrowest first.
_TYPES = {
    f"{sign}int{bits}_t": (0 if sign else -(1 << (bits - 1)), (1 << (bits - (not sign))) - 1)
    for bits in (8, 16, 32, 64)
    for sign in ("", "u")
    if (sign, bits) != ("u", 64)
}


def c_type(lo: int, hi: int) -> str:
    """The narrowest type of stored integers in ``[lo, hi]``, signed where both would do.

    Raises:
        Unprintable: more than 64 bits.
    """
    for name, (least, most) in _TYPES.items():
        if least <= lo and hi <= most:
            return name
    raise Unprintable(_beyond(max(-lo, hi)))


def _beyond(bound: int) -> str:
    return f"it needs {bound.bit_length() + 1} bits and 64 are the most"


def literal(value: int) -> str:
    """An integer in C. The lowest one of a type has no literal of that type, but a name."""
    names = {-_INT32 - 1: "INT32_MIN", -_INT64 - 1: "INT64_MIN"}
    return names.get(int(value), str(int(value)))


def type_for(bound: int) -> str:
    """The type that arithmetic up to a bound is done in.

    Raises:
        Unprintable: more than 64 bits.
    """
    if bound > _INT64:
        raise Unprintable(_beyond(bound))
    return "int64_t" if bound > _INT32 else "int32_t"


class Tables:
    """Constant arrays of a source, and the helpers that are in use."""

    def __init__(self) -> None:
        self.arrays: dict[str, str] = {}
        self.names: dict[tuple[Any, ...], str] = {}
        self.helpers: set[str] = set()
        self.size = 0

    def array(self, name: str, values: Any) -> str:
        """A named array of one or two dimensions, of the narrowest type."""
        values = np.asarray(values)
        kind = c_type(int(values.min()), int(values.max()))
        self.size += values.size * bytes_of(kind)
        dimensions = "".join(f"[{n}]" for n in values.shape)
        rows = [values.tolist()] if values.ndim == 1 else values.tolist()
        text = ",\n".join(_wrapped(row) if values.ndim == 1 else _braced(row) for row in rows)
        self.arrays[name] = f"static const {kind} {name}{dimensions} = {{\n{text}\n}};\n"
        return name

    def shared(self, what: str, values: Sequence[int]) -> tuple[str, str]:
        """The name and the type of an array that whoever needs the same values shares."""
        key = (what, *values)
        if key not in self.names:
            self.names[key] = self.array(f"{what}_{len(self.names)}", values)
        return self.names[key], c_type(min(values), max(values))


def bytes_of(kind: str) -> int:
    """Bytes of an integer type."""
    return int("".join(filter(str.isdigit, kind))) // 8


def _wrapped(values: Iterable[int], indent: str = "    ") -> str:
    lines, line = [], indent
    for word in (literal(value) for value in values):
        if len(line) + len(word) > 118:
            lines.append(line.rstrip())
            line = indent
        line += f"{word}, "
    return "\n".join([*lines, line.rstrip(", ")])


def _braced(values: Sequence[int]) -> str:
    text = _wrapped(values, "      ")
    return f"    {{ {text.lstrip()} }}"


@dataclass
class Writer:
    """The lines of a phase: variables, each with its statement, and other statements without one."""

    tables: Tables
    lines: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0

    def let(self, kind: str, expression: str) -> str:
        """A new variable."""
        self.count += 1
        name = f"n{self.count}"
        self.lines.append((name, f"const {kind} {name} = {expression};"))
        return name

    def say(self, statement: str) -> None:
        """A statement that stays."""
        self.lines.append(("", statement))

    def taken(self) -> list[str]:
        """The statements, without variables that nothing reads; the writer is empty then."""
        kept: list[str] = []
        read: set[str] = set()
        for name, statement in reversed(self.lines):
            if not name or name in read:
                kept.append(statement)
                read.update(re.findall(r"\bn\d+\b", statement.partition("=")[2] if name else statement))
        self.lines.clear()
        return kept[::-1]


@dataclass(frozen=True)
class Term:
    """A variable or a literal of type ``kind``."""

    writer: Writer
    text: str
    kind: str

    def __str__(self) -> str:
        return self.text


class Exact(Number):
    """An exact number whose raw value is a term of C. What can only be one value is a literal."""

    __slots__ = ()

    raw: Term

    @property
    def _bound(self) -> int:
        return max(-self.lo, self.hi)

    def _make(self, raw: Term, frac: int, lo: int, hi: int) -> Self:
        if lo == hi:
            raw = Term(self.raw.writer, literal(lo), type_for(abs(lo)))
        return type(self)(raw, frac, lo, hi)

    def _let(self, kind: str, expression: str, computed: str | None = None) -> Term:
        """A variable of a type, from an expression that is computed in one as wide or wider."""
        text = expression if computed in (None, kind) else f"({kind})({expression})"
        return Term(self.raw.writer, self.raw.writer.let(kind, text), kind)

    def _constant(self, value: int, frac: int) -> Self:
        return self._make(self.raw, frac, value, value)

    def _infix(self, operator: str, other: Self, bound: int) -> Term:
        kind, kinds = type_for(bound), {self.raw.kind, other.raw.kind}
        computed = "int64_t" if "int64_t" in kinds else kind
        left = f"({kind}){self.raw}" if kind not in kinds and computed == kind else self.raw
        return self._let(kind, f"{left} {operator} {other.raw}", computed)

    def _add(self, other: Self, bound: int) -> Term:
        return self._infix("+", other, bound)

    def _sub(self, other: Self, bound: int) -> Term:
        return self._infix("-", other, bound)

    def _mul(self, other: Self, bound: int) -> Term:
        return self._infix("*", other, bound)

    def _left(self, n: int, bound: int) -> Term:
        return self._infix("*", self._constant(1 << n, 0), bound)

    def _floor(self, n: int) -> Term:
        kind, target = self.raw.kind, type_for(max(-(self.lo >> n), self.hi >> n))
        bits = 8 * bytes_of(kind)
        n = min(n, bits - 1)
        if self.lo >= 0:
            return self._let(target, f"{self.raw} >> {n}", kind)
        self.raw.writer.tables.helpers.add(f"floor_{bits}")
        return self._let(target, f"floor_{bits}({self.raw}, {n})", kind)

    def _clip(self, lo: int, hi: int) -> Term:
        text = str(self.raw)
        if self.hi > hi:
            text = f"{self.raw} > {literal(hi)} ? {literal(hi)} : {text}"
        if self.lo < lo:
            text = f"{self.raw} < {literal(lo)} ? {literal(lo)} : {text}"
        ends = min(max(self.lo, lo), hi), max(min(self.hi, hi), lo)
        return self._let(type_for(max(-ends[0], ends[1])), text, self.raw.kind)

    def _piecewise(self, knots: Sequence[int], slopes: Sequence[int], intercepts: Sequence[int], bound: int) -> Term:
        ends = [self.lo, *knots, self.hi + 1]
        reach = [
            max(abs(slope * at) + abs(intercept) for at in (start, end - 1))
            for slope, intercept, (start, end) in zip(slopes, intercepts, pairwise(ends), strict=True)
        ]
        kind, computed = type_for(bound), type_for(max(*reach, bound))
        if self.raw.kind == "int64_t":
            computed = "int64_t"
        value = f"(int64_t){self.raw}" if computed != self.raw.kind else str(self.raw)
        if len(knots) > LONGEST:
            return self._let(kind, self._searched(knots, slopes, intercepts, value), computed)
        pieces = [_line(value, slope, at) for slope, at in zip(slopes, intercepts, strict=True)]
        text = "".join(f"{self.raw} < {literal(k)} ? {p} : " for k, p in zip(knots, pieces, strict=False))
        return self._let(kind, text + pieces[-1], computed)

    def _searched(self, knots: Sequence[int], slopes: Sequence[int], intercepts: Sequence[int], value: str) -> str:
        tables = self.raw.writer.tables
        (knot, of), (rest, _) = tables.shared("knots", knots), tables.shared("intercepts", intercepts)
        tables.helpers.add(f"piece {of} {self.raw.kind}")
        at = self.raw.writer.let("int", f"piece_{of[:-2]}_{self.raw.kind[:-2]}({knot}, {len(knots)}, {self.raw})")
        if not any(slopes):
            return f"{rest}[{at}]"
        return f"{tables.shared('slopes', slopes)[0]}[{at}] * {value} + {rest}[{at}]"


def _line(value: str, slope: int, intercept: int) -> str:
    if not slope:
        return literal(intercept)
    product = value if slope == 1 else f"{value} * {literal(slope)}"
    sign = "-" if intercept < 0 else "+"
    return f"{product} {sign} {abs(intercept)}" if intercept else product


#: What a source may need before its layers, by name.
PIECE = """
/* How many of count ascending knots are at or below a value. */
static int piece_{short}_{of}(const {short}_t *knots, int count, {of}_t value)
{{
    int below = 0;
    while (count > 0) {{
        const int half = count / 2;
        if (knots[below + half] <= value) {{
            below += half + 1;
            count -= half + 1;
        }} else {{
            count = half;
        }}
    }}
    return below;
}}
"""


def helper_text(tables: Tables) -> str:
    """The helpers in use."""
    made = []
    for name in sorted(tables.helpers):
        if name.startswith("floor_"):
            made.append(floor_shift(name, f"int{name[6:]}_t", "int"))
        else:
            _, short, of = name.split()
            made.append(PIECE.format(short=short[:-2], of=of[:-2]))
    return "".join(made)
