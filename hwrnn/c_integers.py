"""A layer's integer arithmetic as C: an exact number that writes down what is done with it.

:class:`CNumber` flows through a cell's recorded lines as any other number does. What depends on formats alone (by how
much a value is shifted, where it saturates, the lines of a nonlinearity) becomes a run-time parameter, and steps that
some formats could do without are written nevertheless. So the text depends on the cell and on the kinds of its
nonlinearities only, and one library serves every format and every set of weights.

The statements use nothing but C99 on whole numbers: ``lift`` (times a power of two), ``floor_shift`` (divided by one,
towards minus infinity), sums, products and comparisons. None of them can overflow: their bounds are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from operator import add, mul, sub
from typing import Any, Self

from hwrnn.activations import PiecewiseLinear, Table
from hwrnn.c_source import Unprintable, floor_shift
from hwrnn.cells import Cell
from hwrnn.fixed import Number, point_of
from hwrnn.formats import LayerFormats
from hwrnn.trace import trace

__all__ = ["HELPERS", "CLayer", "CNumber", "LayerPrinter", "lasting", "print_layer"]

#: The two shifts, without undefined behaviour; ``T`` and ``U`` are the signed and the unsigned type.
HELPERS = f"""
static inline T lift(T value, T n) {{ return (T)((U)value << n); }}
{floor_shift("floor_shift", "T", "T")}"""


@dataclass
class Writer:
    """What numbers write: statements, and the parameters that they read.

    Attributes:
        statements: C, in order.
        parameters: values of ``p[0]``, ``p[1]``, ...
        bound: the largest absolute value of anything computed.
        tables: the parameter that says where a table stands, and its entries.
    """

    statements: list[str] = field(default_factory=list)
    parameters: list[int] = field(default_factory=list)
    bound: int = 0
    names: int = 0
    tables: list[tuple[int, Sequence[int]]] = field(default_factory=list)

    def table(self, entries: Sequence[int]) -> str:
        """A parameter that says from where on these stand among the parameters."""
        self.tables.append((len(self.parameters), entries))
        self.bound = max(self.bound, *map(abs, entries))
        return self.parameter(0)

    def placed(self) -> tuple[int, ...]:
        """All parameters, the tables behind the others."""
        made = [*self.parameters]
        for at, entries in self.tables:
            made[at] = len(made)
            made += entries
        return tuple(made)

    def parameter(self, value: int) -> str:
        """A new parameter."""
        self.parameters.append(value)
        self.bound = max(self.bound, abs(value))
        return f"p[{len(self.parameters) - 1}]"

    def let(self, expression: str, bound: int) -> Place:
        """A new variable."""
        self.bound = max(self.bound, bound)
        self.names += 1
        self.statements.append(f"const T n{self.names} = {expression};")
        return Place(self, f"n{self.names}")


@dataclass(frozen=True)
class Place:
    """A variable of a writer."""

    writer: Writer
    name: str

    def __str__(self) -> str:
        return self.name


class CNumber(Number):
    """An exact number whose raw value is a C variable.

    It overrides where :class:`Number` leaves out what some formats do not need, so that the text is the same for all.
    """

    __slots__ = ()

    raw: Place

    @property
    def _writer(self) -> Writer:
        return self.raw.writer

    def _let(self, expression: str, bound: int) -> Place:
        return self._writer.let(expression, bound)

    def _constant(self, value: int, frac: int) -> Self:
        return self._make(self._let(self._writer.parameter(value), abs(value)), frac, value, value)

    def _add(self, other: Self, bound: int) -> Place:
        return self._let(f"{self.raw} + {other.raw}", bound)

    def _sub(self, other: Self, bound: int) -> Place:
        return self._let(f"{self.raw} - {other.raw}", bound)

    def _mul(self, other: Self, bound: int) -> Place:
        return self._let(f"{self.raw} * {other.raw}", bound)

    def aligned(self, frac: int) -> Self:
        n = frac - self.frac
        lo, hi = self.lo << n, self.hi << n
        return self._make(self._let(f"lift({self.raw}, {self._writer.parameter(n)})", max(-lo, hi)), frac, lo, hi)

    def clipped(self, lo: int, hi: int) -> Self:
        least, most = max(lo, min(self.lo, hi)), min(hi, max(self.hi, lo))  # where only they can matter
        low, high = self._writer.parameter(least), self._writer.parameter(most)
        above = self._let(f"{self.raw} < {low} ? {low} : {self.raw}", 0)
        raw = self._let(f"{above} > {high} ? {high} : {above}", 0)
        return self._make(raw, self.frac, min(max(self.lo, lo), hi), max(min(self.hi, hi), lo))

    def rounded(self, frac: int) -> Self:
        up, down = max(frac - self.frac, 0), max(self.frac - frac, 0)
        half = (1 << down) >> 1
        lo, hi = (self.lo << up) + half, (self.hi << up) + half
        lifted, added, shift = (self._writer.parameter(n) for n in (up, half, down))
        raw = self._let(f"floor_shift(lift({self.raw}, {lifted}) + {added}, {shift})", max(-lo, hi))
        return self._make(raw, frac, lo >> down, hi >> down)

    def _line(self, slope: Fraction, intercept: Fraction) -> Self:
        frac = max(self.frac + point_of(slope), point_of(intercept))
        factor, offset = int(slope * Fraction(2) ** (frac - self.frac)), int(intercept * Fraction(2) ** frac)
        lo, hi = factor * self.lo, factor * self.hi
        self._writer.bound = max(self._writer.bound, -lo, hi)  # of the product alone
        times, plus = self._writer.parameter(factor), self._writer.parameter(offset)
        raw = self._let(f"{self.raw} * {times} + {plus}", max(-lo - offset, hi + offset))
        return self._make(raw, frac, lo + offset, hi + offset)

    def _table(self, function: PiecewiseLinear) -> Table:
        return function.at_fraction(self.frac)  # all pieces, whatever the formats reach: the text is the same then

    def _piecewise(self, knots: Sequence[int], slopes: Sequence[int], intercepts: Sequence[int], bound: int) -> Place:
        parameter, largest = self._writer.parameter, max(-self.lo, self.hi)
        if not any(slopes):  # steps of whatever number: one text for tables of about one size
            levels = next(n for n in (6, 9, 13, 20) if len(knots) < 1 << n)
            reachable = [min(max(knot, -largest - 1), largest + 1) for knot in knots]
            missing = (1 << levels) - 1 - len(knots)
            ends = [largest + 1] * missing, [intercepts[-1]] * missing
            at = self._writer.table([*reachable, *ends[0], *intercepts, *ends[1]])
            step = "0"
            for half in (1 << n for n in reversed(range(levels))):  # without branches, for all lanes at once
                beyond = f"p[{at} + {step} + {half - 1}] <= {self.raw} ? {half} : 0"
                step = str(self._let(f"{step} + ({beyond})", 1 << levels))
            return self._let(f"p[{at} + {step} + {(1 << levels) - 1}]", bound)
        slope, intercept = parameter(slopes[0]), parameter(intercepts[0])
        for knot, s, b in zip(knots, slopes[1:], intercepts[1:], strict=True):
            # A knot beyond what the value can reach may be beyond its type as well.
            at = parameter(min(max(knot, -largest - 1), largest + 1))
            slope = str(self._let(f"{self.raw} < {at} ? {slope} : {parameter(s)}", 0))
            intercept = str(self._let(f"{self.raw} < {at} ? {intercept} : {parameter(b)}", 0))
        self._writer.bound = max(self._writer.bound, largest * max(abs(s) for s in slopes))
        return self._let(f"{slope} * {self.raw} + {intercept}", bound)


@dataclass(frozen=True)
class CLayer:
    """A layer as C.

    Attributes:
        phases: of each phase the statements that stand in a loop over units and lanes, ``k`` the index of both. They
            read accumulators ``a_GATE[k]``, values ``v_NAME[k]`` and parameters ``p[n]``. ``KEEP(array, value)``
            leaves what no other phase or step reads; ``COUNT(n, before, after)`` sees the n-th stored value before and
            after it saturates.
        stored: what every step rounds and saturates, in order: ``a.GATE`` and values by name.
        parameters: of the formats, in the order of ``p``.
        bound: the largest absolute value of anything but the accumulators.
        lifts: by gate, ``(up, half)``: an accumulator ``a`` enters as ``(a << up) + half``.
    """

    phases: tuple[tuple[str, ...], ...]
    stored: tuple[str, ...]
    parameters: tuple[int, ...]
    bound: int
    lifts: dict[str, tuple[int, int]]


def lasting(cell: Cell) -> tuple[str, ...]:
    """The values of a cell that outlive the lines of their phase: states, operands, the output, what phases share."""
    lines = trace(cell)
    shared = {name for k in range(len(cell.phases)) for name in lines.crossing(k)}
    names = {*cell.states, *cell.operands, cell.output, *shared} - {"x"}
    return tuple(name for name in (*cell.states, *lines.stores) if name in names)


class LayerPrinter:
    """Walks a cell's trace, phase by phase, with a number type of C; the hooks say what becomes of values.

    Hooks: :meth:`constant`, :meth:`loaded`, :meth:`gate` and :meth:`stored` give numbers of that type.
    """

    def __init__(self, cell: Cell, formats: LayerFormats) -> None:
        self.lines, self.formats, self.lasting = trace(cell), formats, lasting(cell)

    def walk(self, phase: int) -> None:
        """The lines of a phase, which stand in a loop over units behind its products.

        Raises:
            Unprintable: a nonlinearity that is not made of lines, or an old state that is read too late.
        """
        operations, lines = self.lines.operations, self.lines
        known: dict[int, Any] = {}
        for name in lines.olds_of(phase):  # ahead of what is stored in their places
            at = lines.stores.get(name)
            if at is not None and operations[at].phase < phase:
                raise Unprintable(f"it reads the old {name!r} after storing a new one")
            known[lines.olds[name]] = self.loaded(name)
        for name in lines.crossing(phase):
            known[lines.stores[name]] = self.loaded(name)
        for index, op in enumerate(operations):
            if op.phase != phase or op.kind == "old":
                continue
            args = [known[arg] for arg in op.args]
            if op.kind == "gate":
                known[index] = self.gate(op.name)
            elif op.kind == "store":
                known[index] = self.stored(op.name, args[0])
            elif op.kind == "constant":
                known[index] = self.constant(op.value)
            elif op.kind == "apply":
                if not isinstance(op.function, PiecewiseLinear) or not op.function.shift_only:
                    raise Unprintable(f"{getattr(op.function, 'name', '')!r} is not made of lines")
                known[index] = args[0].apply(op.function)
            else:
                known[index] = {"add": add, "sub": sub, "mul": mul}[op.kind](*args)

    def constant(self, value: float) -> Number:
        """A constant of the cell's lines."""
        raise NotImplementedError

    def loaded(self, name: str) -> Number:
        """An old state, or what an earlier phase stored, of this unit."""
        raise NotImplementedError

    def gate(self, gate: str) -> Number:
        """A pre-activation of this unit, rounded to its format."""
        raise NotImplementedError

    def stored(self, name: str, value: Number) -> Number:
        """A value rounded to its format and put where it is kept, if it outlives its phase (``lasting``)."""
        raise NotImplementedError


class _Printer(LayerPrinter):
    def __init__(self, cell: Cell, formats: LayerFormats) -> None:
        super().__init__(cell, formats)
        self.writer = Writer()
        self.counted: list[str] = []
        self.lifts: dict[str, tuple[int, int]] = {}

    def phase(self, phase: int) -> tuple[str, ...]:
        first = len(self.writer.statements)
        self.walk(phase)
        return tuple(self.writer.statements[first:])

    def say(self, statement: str) -> None:
        self.writer.statements.append(statement)

    def constant(self, value: float) -> CNumber:
        return CNumber(Place(self.writer, ""), 0, 0, 0)._operand(value)

    def loaded(self, name: str) -> CNumber:
        form = self.formats.values[name]
        return CNumber(self.writer.let(f"v_{name}[k]", max(-form.lo, form.hi)), form.frac, form.lo, form.hi)

    def gate(self, gate: str) -> CNumber:
        name, form = f"a.{gate}", self.formats.values[f"a.{gate}"]
        # What the accumulator holds depends on the weights: whoever loads them checks it against ``lifts``.
        sums = CNumber(self.writer.let(f"a_{gate}[k]", 0), self.formats.bias_frac[gate], 0, 0)
        n = sums.frac - form.frac
        self.lifts[gate] = max(-n, 0), (1 << max(n, 0)) >> 1
        result = self.saturated(name, CNumber(sums.rounded(form.frac).raw, form.frac, form.lo - 1, form.hi + 1))
        self.say(f"KEEP(a_{gate}, {result.raw});")
        return result

    def stored(self, name: str, value: Number) -> CNumber:
        assert isinstance(value, CNumber)
        result = self.saturated(name, value.rounded(self.formats.values[name].frac))
        place = result.raw
        self.say(f"v_{name}[k] = {place};" if name in self.lasting else f"KEEP(v_{name}, {place});")
        return result

    def saturated(self, name: str, value: CNumber) -> CNumber:
        result = value.saturated(self.formats.values[name])
        self.say(f"COUNT({len(self.counted)}, {value.raw}, {result.raw});")
        self.counted.append(name)
        return result


def print_layer(cell: Cell, formats: LayerFormats) -> CLayer:
    """The statements of a layer, with the parameters of its formats.

    Raises:
        Unprintable: a nonlinearity that is not made of lines.
    """
    printer = _Printer(cell, formats)
    phases = tuple(printer.phase(k) for k in range(len(cell.phases)))
    writer = printer.writer
    bound = max(writer.bound, *(max(-f.lo, f.hi) for f in formats.values.values()))
    return CLayer(phases, tuple(printer.counted), writer.placed(), bound, printer.lifts)
