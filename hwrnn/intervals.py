"""The range of every value of a cell in one time step, from the ranges of its input and its old state.

Interval arithmetic on the trace of a cell, one interval for each unit. Between two nonlinearities the lines of a cell
are multilinear (each value at most once in a product), and a multilinear function is extreme at a corner of its box,
so ``n + z (h - n)`` keeps within ``n`` and ``h`` where a naive interval would leave both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.cells import Cell
from hwrnn.trace import trace

__all__ = ["HUGE", "LOST", "Box", "ranges", "through"]

#: Stands for infinity: larger than any proved value, and small enough that a product of three stays finite.
HUGE = 1e100
#: A bound beyond this is none.
LOST = 1e12


@dataclass(frozen=True, eq=False)
class Box:
    """An interval for each unit: ``lo`` and ``hi``, float64 (units,).

    Attributes:
        length: what the Euclidean norm of all units together never exceeds, where more is known than the intervals say.
    """

    lo: np.ndarray
    hi: np.ndarray
    length: float = np.inf

    @classmethod
    def within(cls, reach: np.ndarray) -> Box:
        """``[-reach, reach]``."""
        return cls(-np.asarray(reach, np.float64), np.asarray(reach, np.float64))

    def hull(self, other: Box) -> Box:
        """The least box around both."""
        return Box(np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi))

    def meet(self, other: Box) -> Box:
        """What is in both; they must overlap."""
        return Box(np.maximum(self.lo, other.lo), np.minimum(self.hi, other.hi))

    def holds(self, other: Box) -> bool:
        """Whether ``other`` lies inside."""
        return bool((other.lo >= self.lo).all() and (other.hi <= self.hi).all())

    @property
    def reach(self) -> float:
        """The largest absolute value; infinite where nothing useful is known."""
        largest = float(np.maximum(-self.lo, self.hi).max(initial=0))
        return largest if largest < LOST else np.inf


def through(function: Nonlinearity, box: Box) -> Box:
    """The range of a nonlinearity over a box."""
    ends = [function.value(box.lo), function.value(box.hi)]
    lo, hi = np.minimum(*ends), np.maximum(*ends)
    if not isinstance(function, PiecewiseLinear):
        for turn in getattr(function, "turns", ()):
            inside, value = (box.lo < turn) & (turn < box.hi), float(function.value(np.array(turn)))
            lo, hi = np.where(inside, np.minimum(lo, value), lo), np.where(inside, np.maximum(hi, value), hi)
        return Box(lo, hi)
    for k, knot in enumerate(function.knots):
        inside = (box.lo < float(knot)) & (float(knot) <= box.hi)
        for piece in (k, k + 1):  # a function may jump at a knot: both lines count there
            value = float(function.slopes[piece] * knot + function.intercepts[piece])
            lo, hi = np.where(inside, np.minimum(lo, value), lo), np.where(inside, np.maximum(hi, value), hi)
    return Box(lo, hi)


#: A multilinear function: the atoms of each product, in order, to its coefficient.
_Multilinear = dict[tuple[int, ...], float]


class _Step:
    """The ranges of one time step, operation by operation."""

    def __init__(self) -> None:
        self.atoms: list[Box] = []

    def atom(self, box: Box) -> _Multilinear:
        self.atoms.append(box)
        return {(len(self.atoms) - 1,): 1.0}

    def box(self, value: _Multilinear) -> Box:
        """The range: the least and the largest value at the corners of the box of its atoms."""
        names = sorted({name for term in value for name in term})
        found: list[np.ndarray] = []
        for corner in product(*((self.atoms[n].lo, self.atoms[n].hi) for n in names)):
            at = dict(zip(names, corner, strict=True))
            found.append(np.asarray(sum(c * math.prod(at[n] for n in term) for term, c in value.items()), np.float64))
        corners = np.nan_to_num(np.stack(found), nan=np.nan, posinf=HUGE, neginf=-HUGE)
        lost = np.isnan(corners).any(0)
        return Box(np.where(lost, -HUGE, corners.min(0)), np.where(lost, HUGE, corners.max(0)))

    def multiplied(self, a: _Multilinear, b: _Multilinear) -> _Multilinear:
        if {n for term in a for n in term} & {n for term in b for n in term}:
            b = self.atom(self.box(b))  # a square is no longer multilinear: one factor counts as independent
        made: _Multilinear = {}
        for p, c in a.items():
            for q, d in b.items():
                term = tuple(sorted(p + q))
                made[term] = made.get(term, 0.0) + c * d
        return made


def ranges(
    cell: Cell,
    gate: Callable[[str, Mapping[str, Box]], Box],
    states: Mapping[str, Box],
    inputs: Box,
    stored: Callable[[str, Box], Box] = lambda name, box: box,
) -> dict[str, Box]:
    """The range of every stored value by name, and of every pre-activation as ``a.GATE``.

    Args:
        gate: the range of a gate's pre-activation from those of the operands by name, ``x`` among them.
        states: the ranges of the old states.
        inputs: of the input, (inputs,).
        stored: what storing makes of the range of a value: rounding.
    """
    lines, step = trace(cell), _Step()
    known: dict[str, Box] = {"x": inputs, **states}
    found: dict[str, Box] = {}
    values: list[_Multilinear] = []
    phase = 0
    for op in lines.operations:
        if op.phase != phase:  # a later phase reads what the earlier ones stored
            phase = op.phase
            known = {**known, **{name: box for name, box in found.items() if not name.startswith("a.")}}
        args = [values[k] for k in op.args]
        if op.kind == "old":
            values.append(step.atom(states[op.name]))
        elif op.kind == "gate":
            found[f"a.{op.name}"] = stored(f"a.{op.name}", gate(op.name, known))
            values.append(step.atom(found[f"a.{op.name}"]))
        elif op.kind == "constant":
            values.append({(): op.value})
        elif op.kind == "apply":
            assert op.function is not None
            values.append(step.atom(through(op.function, step.box(args[0]))))
        elif op.kind == "store":
            found[op.name] = stored(op.name, step.box(args[0]))
            values.append(step.atom(found[op.name]))
        elif op.kind == "mul":
            values.append(step.multiplied(*args))
        else:
            sign = 1.0 if op.kind == "add" else -1.0
            terms = args[0].keys() | args[1].keys()
            values.append({t: args[0].get(t, 0.0) + sign * args[1].get(t, 0.0) for t in terms})
    return found
