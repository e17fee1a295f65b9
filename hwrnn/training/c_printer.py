"""A cell's plan as C: one step of the forward pass and one of the backward pass, in loops over time.

The plan is that of ``numpy_printer``, made with sizes and formats that stand for themselves: every row and every bound
that depends on them is printed as an expression or as a run-time parameter. So the text depends on the cell, on the
kinds of its nonlinearities, and on whether it rounds; one library serves all sizes, bits and batches.

Element-wise operations between two products are one loop over units and lanes, whose values stay in registers; what
nothing else reads is never stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from hwrnn.activations import PiecewiseLinear, Smooth
from hwrnn.c_source import LONGEST, MOVES, TANGENT, Unprintable, preamble, product, smooth
from hwrnn.cells import Cell
from hwrnn.fixed import Format
from hwrnn.trace import trace
from hwrnn.training.plan import FormatsLike, Op, Plan, View
from hwrnn.training.planning import make_plan

__all__ = ["Program", "Rows", "print_program"]

_INPUTS, _UNITS = 1000, 1_000_000  # sizes that stand for themselves: every number of rows splits into multiples of them


@dataclass(frozen=True)
class Rows:
    """A number of rows: so many times the units, so many times the inputs, and some."""

    units: int
    inputs: int
    more: int

    @classmethod
    def of(cls, number: int) -> Rows:
        units, rest = divmod(number, _UNITS)
        return cls(units, *divmod(rest, _INPUTS))

    def at(self, inputs: int, units: int) -> int:
        """The number for given sizes."""
        return self.units * units + self.inputs * inputs + self.more

    def __str__(self) -> str:
        terms = [f"{n} * {name}" for n, name in ((self.units, "units"), (self.inputs, "inputs")) if n]
        return " + ".join([*terms, str(self.more)] if self.more or not terms else terms)


@dataclass(frozen=True)
class _StandIns:
    """Formats that stand for themselves: each value's fraction and bounds are unlike any other's."""

    values: dict[str, Format]
    weights: Mapping[tuple[str, str], Format] = field(default_factory=dict)
    bias_frac: Mapping[str, int] = field(default_factory=dict)


def _stand_ins(cell: Cell) -> _StandIns:
    lines = trace(cell)
    names = ("x", *(f"a.{gate}" for gate in lines.gates), *lines.stores)
    return _StandIns({name: Format(8, 200 + 10 * k) for k, name in enumerate(names)})


@dataclass(frozen=True)
class Program:
    """A cell's plan in C.

    Attributes:
        text: of the source; it defines ``forward`` and ``backward``, see ``c_kernel``.
        plan: with rows that :class:`Rows` reads.
        buffers: names of those that the text uses, in the order of its pointers, to whether they have an axis of time.
        parameters: numbers, or what a format gives: ``(value, "scale" | "step" | "min" | "max")``.
        matrices: names of the plan's matrices and of its transposes, in the order of the text's panels.
    """

    text: str
    plan: Plan
    buffers: Mapping[str, bool]
    parameters: tuple[float | tuple[str, str], ...]
    matrices: tuple[str, ...]

    def numbers(self, formats: FormatsLike | None) -> np.ndarray:
        """The parameters for given formats, float32."""
        found = []
        for parameter in self.parameters:
            if isinstance(parameter, tuple):
                assert formats is not None
                form, what = formats.values[parameter[0]], parameter[1]
                found.append({"scale": 1 / form.step, "step": form.step, "min": form.min, "max": form.max}[what])
            else:
                found.append(parameter)
        return np.array(found, np.float32)


def _split(op: Op) -> Iterator[Op]:
    """An element-wise operation on the rows of several gates as one for each."""
    assert op.out is not None
    rows = Rows.of(op.out.rows)
    size = _UNITS if rows.units else _INPUTS
    for k in range(op.out.rows // size):

        def part(view: View, k: int = k) -> View:
            return replace(view, start=view.start + k * size, rows=size)

        args = tuple(part(a) if isinstance(a, View) else a for a in op.args)
        yield replace(op, out=part(op.out), args=args, slope=None if op.slope is None else part(op.slope))


def _overlap(a: View, b: View) -> bool:
    return a.buffer == b.buffer and a.start < b.start + b.rows and b.start < a.start + a.rows


class _Printer:
    def __init__(self, cell: Cell, rounds: bool) -> None:
        self.formats = _stand_ins(cell) if rounds else None
        self.plan = plan = make_plan(cell, _INPUTS, _UNITS, self.formats)
        back = (*plan.coefficients, *plan.reverse)
        self.scratch = {v.buffer for op in back for v in op.writes}
        self.parameters: list[float | tuple[str, str]] = []
        self.known: dict[tuple[float | tuple[str, str], ...], list[str]] = {}
        self.matrices = (*plan.matrices, *plan.transposes)
        self.buffers: dict[str, int] = {}
        self.functions: list[str] = []
        forth = self.segments((*plan.before, *plan.step))
        after = [op for op in plan.after if op.kind != "gradient"]
        self.lists = [forth, self.segments(back), self.segments(after)]
        self.made = {v: op for segment in forth for op in segment if op.kind != "product" for v in op.writes}
        self.gradients = [op for op in plan.after if op.kind == "gradient"]

    def segments(self, ops: Sequence[Op]) -> list[list[Op]]:
        """Products alone, and what stands between them split and together where rows are alike."""
        found: list[list[Op]] = []
        for op in ops:
            parts = [op] if op.kind == "product" else list(_split(op))
            for part in parts:
                last = found[-1][-1] if found else None
                joins = last is not None and last.kind != "product" and part.kind != "product"
                if joins and last is not None and last.out and part.out and last.out.rows == part.out.rows:
                    found[-1].append(part)
                else:
                    found.append([part])
        return found

    def given(self, *values: float | tuple[str, str]) -> list[str]:
        """Parameters that belong together, such as both bounds of a function; the same ones stand once.

        Single numbers are not shared, since the text must not depend on which of them happen to be equal.
        """
        if values not in self.known:
            first = len(self.parameters)
            self.parameters += values
            self.known[values] = [f"p[{first + n}]" for n in range(len(values))]
        return self.known[values]

    def bounds(self, op: Op) -> list[str]:
        for name, form in {} if self.formats is None else self.formats.values.items():
            if op.bounds == (form.min, form.max):
                return self.given((name, "min"), (name, "max"))
        low, high = (e if b is None else b for b, e in zip(op.bounds, (-math.inf, math.inf), strict=True))
        return self.given(low, high)

    def pointer(self, view: View) -> str:
        """Where a view stands at step ``t``."""
        at = self.buffers.setdefault(view.buffer, len(self.buffers))
        start = Rows.of(view.start)
        if view.buffer in self.scratch:
            return f"at[{at}] + ({start}) * lanes"
        step = "t + 1" if view.shift else "t"
        return f"at[{at}] + (({step}) * ({Rows.of(self.plan.buffers[view.buffer].rows)}) + {start}) * lanes"

    def must_store(self, view: View, segment: list[Op], at: int) -> bool:
        """Whether anything but later operations of the same segment needs what an operation writes.

        What the backward pass needs of the forward pass it computes again, which is cheaper than memory, except for
        smooth functions.
        """
        ends = (self.plan.output, self.plan.input_gradient)
        if any(_overlap(view, end) for end in ends):
            return True
        behind = segment[at + 1 :]
        if any(view in op.writes for op in behind) and not any(_overlap(view, read) for read in self.exposed(behind)):
            return False
        again = view in self.made and not (segment[at].kind == "apply" and isinstance(segment[at].function, Smooth))
        lists = self.lists[:1] if again else self.lists
        reads = [read for part in lists for other in part for read in self.exposed(other)]
        reads += [read for op in self.gradients for read in op.reads]
        return any(_overlap(view, read) for read in reads)

    def exposed(self, ops: Sequence[Op]) -> list[View]:
        """What operations read without having written it before."""
        written: set[View] = set()
        found = []
        for op in ops:
            found += [view for view in op.reads if view not in written]
            written.update(op.writes)
        return found

    def remade(self, view: View) -> Op | None:
        """The operation of the forward pass that made a value which was not stored."""
        op = self.made.get(view)
        if op is None:
            return None
        segment = next(segment for segment in self.lists[0] if any(op is other for other in segment))
        return None if self.must_store(view, segment, segment.index(op)) else op

    def element_wise(self, segment: list[Op]) -> str:
        """A function for a segment; returns its call."""
        pointers: dict[View, str] = {}
        values: dict[View, str] = {}
        body: list[str] = []

        def place(view: View) -> str:
            return pointers.setdefault(view, f"b{len(pointers)}")

        def read(arg: View | float) -> str:
            if not isinstance(arg, View):
                return self.given(float(arg))[0]
            if arg not in values:
                op = None if forth else self.remade(arg)
                if op is not None:
                    values.update(compute(op))
                else:
                    values[arg] = let(f"{place(arg)}[k]")
            return values[arg]

        def let(expression: str) -> str:
            body.append(f"const T x{len(body)} = {expression};")
            return f"x{len(body) - 1}"

        def pieces(x: str, function: PiecewiseLinear) -> list[str]:
            """The slope, the intercept and the gradient of the piece of a value."""
            knots, count = [float(k) for k in function.knots], len(function.knots)
            same = function.gradients == function.slopes
            tables = [function.slopes, function.intercepts, *[function.gradients] * (not same)]
            values = [[float(v) for v in table] for table in tables]
            found = []
            if count > LONGEST:
                levels = count.bit_length()
                size, piece = 1 << levels, ""
                values = [[*v, *[v[-1]] * (size - len(v))] for v in values]
                given = self.given(*knots, *[math.inf] * (size - 1 - count), *(v for t in values for v in t))
                first = int(given[0][2:-1])
                for step in (1 << k for k in reversed(range(levels))):
                    at = f"{first + step - 1}{piece and ' + ' + piece}"
                    body.append(f"const int32_t x{len(body)} = {piece or 0} + (p[{at}] <= {x} ? {step} : 0);")
                    piece = f"x{len(body) - 1}"
                found = [let(f"p[{first + size - 1 + k * size} + {piece}]") for k in range(len(values))]
            else:
                given = self.given(*knots, *(v for t in values for v in t))
                for k in range(len(values)):
                    table = given[count + k * (count + 1) :]
                    name = table[0]
                    for knot, entry in zip(given[:count], table[1 : count + 1], strict=True):
                        name = let(f"{x} >= {knot} ? {entry} : {name}")
                    found.append(name)
            return [*found, *found[:1] * same]

        def compute(op: Op) -> dict[View, str]:
            """What an operation writes."""
            assert op.out is not None
            if op.kind == "mask":  # the bounds of the clip again: what let its argument through
                clip = self.made[op.args[2]]  # type: ignore[index]
                x, (low, high), a = read(op.args[1]), self.bounds(clip), read(op.args[0])
                return {op.out: let(f"({x} >= {low}) & ({x} <= {high}) ? {a} : 0.0f")}
            args = [read(a) for a in op.args]
            if op.kind in ("add", "sub", "mul"):
                return {op.out: let(f"{args[0]} {dict(add='+', sub='-', mul='*')[op.kind]} {args[1]}")}
            if op.kind == "copy":
                return {op.out: args[0]}
            if op.kind == "clip":  # comparisons such that what is not a number stays so
                low, high = self.bounds(op)
                above = let(f"{args[0]} < {low} ? {low} : {args[0]}")
                return {op.out: let(f"{above} > {high} ? {high} : {above}")}
            if op.kind == "round":
                scale, step = self.fraction(op.frac)
                return {op.out: let(f"floorf({args[0]} * {scale} + 0.5f) * {step}")}
            function = op.function
            if isinstance(function, Smooth):
                own = function.function if op.kind == "apply" else function.slope
                return {op.out: let(smooth(own, args[0]))}
            if isinstance(function, PiecewiseLinear) and op.slope is not None:
                chosen = pieces(args[0], function)
                slope, (steep, intercept) = chosen[2], chosen[:2]
                return {op.slope: slope, op.out: let(f"{args[0]} * {steep} + {intercept}")}
            raise Unprintable(f"{function.name if function else op.kind!r} has no counterpart in C")

        forth = any(segment is other for other in self.lists[0])
        for at, op in enumerate(segment):
            for view, value in compute(op).items():
                values[view] = value
                if self.must_store(view, segment, at):
                    body.append(f"{place(view)}[k] = {value};")
        name = f"lines_{len(self.functions)}"
        arguments = ", ".join(f"T *restrict {n}" for n in pointers.values())
        lines = "\n        ".join(body)
        used = dict.fromkeys(re.findall(r"p\[(\d+)\]", lines))
        lines = re.sub(r"p\[(\d+)\]", r"p\1", lines)
        numbers = "".join(f"    const T p{n} = p[{n}];\n" for n in used)
        self.functions.append(f"""
APART void {name}(long count, const T *restrict p, {arguments})
{{
{numbers}    INDEPENDENT
    for (long k = 0; k < count; k++) {{
        {lines}
    }}
}}
""")
        rows = Rows.of(segment[0].out.rows) if segment[0].out else Rows(0, 0, 0)
        return f"{name}(({rows}) * lanes, p, {', '.join(self.pointer(v) for v in pointers)});"

    def fraction(self, frac: int) -> list[str]:
        assert self.formats is not None
        name = next(name for name, form in self.formats.values.items() if form.frac == frac)
        return self.given((name, "scale"), (name, "step"))

    def calls(self, segments: list[list[Op]]) -> list[str]:
        found = []
        for segment in segments:
            op = segment[0]
            if op.kind != "product":
                found.append(self.element_wise(segment))
                continue
            assert op.out is not None
            (source,) = op.reads
            rows, columns = Rows.of(op.out.rows), Rows.of(source.rows)
            panels = f"panels[{self.matrices.index(op.matrix)}]"
            places = f"{self.pointer(source)}, {self.pointer(op.out)}"
            found.append(f"product(0, {rows}, {columns}, lanes, lanes, {panels}, {places});")
        return found

    def program(self) -> Program:
        forward, backward, after = (self.calls(part) for part in self.lists)
        across: dict[str, str] = {}
        gradients, begins, ends = [], [], []
        for op in self.gradients:
            d, z = op.reads
            whole, rows, columns = (Rows.of(n) for n in (self.plan.buffers[z.buffer].rows, d.rows, z.rows))
            n = self.matrices.index(op.matrix)
            stride = f"UP({whole}) + VL"  # a row of operands may be read beyond its end
            if z.buffer not in across:
                across[z.buffer] = f"across[{len(across)}]"
                source = self.pointer(View(z.buffer, 0, self.plan.buffers[z.buffer].rows))
                gradients.append(f"transpose({whole}, lanes, {stride}, {source}, {across[z.buffer]});")
            gradients.append(
                f"outer(1, {rows}, lanes, UP({columns}), {stride}, {self.pointer(d)},"
                f" {across[z.buffer]} + {Rows.of(z.start)}, sums[{n}]);"
            )
            begins.append(f"memset(sums[{n}], 0, ({rows}) * ({stride}) * sizeof(T));")
            ends.append(f"put({rows}, {columns}, {stride}, sums[{n}], gradients[{n}]);")
        carried = [
            f"memset({self.pointer(v)}, 0, ({Rows.of(v.rows)}) * lanes * sizeof(T));" for v in self.plan.carried
        ]
        join = "\n        ".join
        sizes = {n: tuple(map(Rows.of, size)) for n, size in self.plan.matrices.items()}
        for op in (op for part in self.lists for segment in part for op in segment if op.kind == "product"):
            assert op.out is not None
            sizes[op.matrix] = (Rows.of(op.out.rows), Rows.of(op.reads[0].rows))
        packed = [
            f"pack({sizes[name][0]}, {sizes[name][1]}, matrices[{n}], panels[{n}]);"
            for n, name in enumerate(self.matrices)
        ]
        forth = len(self.plan.matrices)
        functions = f"""
void forward(long steps, long inputs, long units, long lanes, T **at, const T *p, const T **matrices, T **panels)
{{
    {join(packed[:forth])}
    for (long t = 0; t < steps; t++) {{
        {join(forward)}
    }}
}}

void backward(long steps, long inputs, long units, long lanes, T **at, const T *p, const T **matrices, T **panels,
              T **gradients, T **across, T **sums, long whole)
{{
    {join(packed[forth:])}
    {join([*carried, *begins])}
    for (long t = steps - 1; t >= 0; t--) {{
        {join([*backward, *gradients])}
        if (whole) {{
        {join(after)}
        }}
    }}
    {join(ends)}
}}
"""
        outer = product("outer", "w[(i < live ? r + i : r) * cols + c]")
        text = "".join([preamble("float"), TANGENT, product(), outer, MOVES, *self.functions, functions])
        buffers = {name: name not in self.scratch for name in self.buffers}
        return Program(text, self.plan, buffers, tuple(self.parameters), self.matrices)


@lru_cache(maxsize=128)
def print_program(cell: Cell, rounds: bool) -> Program:
    """The program of a cell.

    Args:
        rounds: whether it rounds values to formats.

    Raises:
        Unprintable: a nonlinearity that has no counterpart in C.
    """
    return _Printer(cell, rounds).program()
