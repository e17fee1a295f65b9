"""A plan as straight-line numpy, printed once for each plan and executed on preallocated arrays.

Every operation is one ufunc or matrix product with its output given. The views of single steps are cut once when
the arrays are allocated, so the loop over time only unpacks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.training.plan import Op, Plan, View

__all__ = ["compiled", "source_of"]

_SEARCHED = 32  # knots from which a search of the piece is faster
_UFUNCS = {"add": "add", "sub": "subtract", "mul": "multiply"}


def _clip(x: np.ndarray, low: Any, high: Any, out: np.ndarray) -> None:
    np.minimum(np.maximum(x, low, out=out), high, out=out)


def _clip_ufunc() -> Callable[..., Any]:
    """numpy's ufunc behind ``np.clip``, which does both bounds in one pass; numpy has no public name for it."""
    for module in ("numpy._core.umath", "numpy.core.umath"):
        try:
            return __import__(module, fromlist=["clip"]).clip
        except (ImportError, AttributeError):
            continue
    return _clip


def _piecewise(
    x: np.ndarray,
    knots: np.ndarray,
    slopes: np.ndarray,
    intercepts: np.ndarray,
    gradients: np.ndarray,
    out: np.ndarray,
    slope: np.ndarray,
) -> None:
    """``slope * x + intercept`` of the piece of each ``x``, and its gradient in ``slope``."""
    if len(knots) > _SEARCHED:
        index = np.searchsorted(knots, x, side="right")
    else:  # as many comparisons as knots beat a search
        piece = np.zeros(x.shape, np.uint8)
        above = np.empty(x.shape, np.bool_)
        for knot in knots:
            np.greater_equal(x, knot, above)
            np.add(piece, above.view(np.uint8), piece)
        index = piece.astype(np.intp)
    slope[...] = slopes.take(index)
    np.multiply(x, slope, out)
    np.add(out, intercepts.take(index), out)
    if gradients is not slopes:
        slope[...] = gradients.take(index)


def _gradient(d: np.ndarray, z: np.ndarray, out: np.ndarray, parts: np.ndarray) -> None:
    """``sum over t of d[t] @ z[t].T`` for d (T, rows, batch) and z (T, columns, batch), a block of steps at a time."""
    for start in range(0, len(d), len(parts)):
        n = min(len(parts), len(d) - start)
        np.matmul(d[start : start + n], z[start : start + n].transpose(0, 2, 1), out=parts[:n])
        if start == 0:
            np.add.reduce(parts[:n], axis=0, out=out)
        else:
            out += np.add.reduce(parts[:n], axis=0)


class _Printer:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.constants: dict[str, tuple[str, Any]] = {}
        self.scratch: dict[View, str] = {}

    def constant(self, kind: str, value: Any) -> str:
        for name, known in self.constants.items():
            if known == (kind, value):
                return name
        name = f"k{len(self.constants)}"
        self.constants[name] = (kind, value)
        return name

    def view(self, view: View | float, bulk: bool) -> str:
        if not isinstance(view, View):
            return self.constant("number", float(view))
        name = f"{view.buffer}_{view.start}_{view.rows}" + ("_next" if view.shift else "")
        if self.plan.buffers[view.buffer].steps is None and self.plan.recurrent:
            self.scratch[view] = name
            return name
        return f"all_{name}" if bulk else name

    def op(self, op: Op, bulk: bool) -> Iterable[str]:
        args = [self.view(a, bulk) for a in op.args]
        out = "" if op.out is None else self.view(op.out, bulk)
        if op.kind in _UFUNCS:
            yield f"{_UFUNCS[op.kind]}({args[0]}, {args[1]}, {out})"
        elif op.kind == "copy":
            yield f"positive({args[0]}, {out})"
        elif op.kind == "clip":
            low = self.constant("number", -np.inf if op.bounds[0] is None else op.bounds[0])
            high = self.constant("number", np.inf if op.bounds[1] is None else op.bounds[1])
            yield f"clip({args[0]}, {low}, {high}, {out})"
        elif op.kind == "round":
            scale, step, half = (self.constant("number", v) for v in (2.0**op.frac, 2.0**-op.frac, 0.5))
            yield f"multiply({args[0]}, {scale}, {out})"
            yield f"add({out}, {half}, {out})"
            yield f"floor({out}, {out})"
            yield f"multiply({out}, {step}, {out})"
        elif op.kind == "apply" and isinstance(op.function, PiecewiseLinear):
            function = op.function
            pieces = function.knots, function.slopes, function.intercepts, function.gradients
            tables = [self.constant("table", numbers) for numbers in pieces]
            yield f"piecewise({args[0]}, {', '.join(tables)}, {out}, {self.view(op.slope or 0.0, bulk)})"
        elif op.kind == "apply":
            yield f"{out}[...] = {self.constant('value', op.function)}({args[0]})"
        elif op.kind == "slope":
            yield f"{out}[...] = {self.constant('slope', op.function)}({args[0]})"
        elif op.kind == "mask":
            yield f"equal({args[1]}, {args[2]}, mask)"
            yield f"copyto({out}, mask)" if op.args[0] == 1.0 else f"multiply({args[0]}, mask, {out})"
        elif op.kind == "product":
            yield f"matmul({op.matrix}, {args[0]}, {out})"
        else:
            yield f"gradient({args[0]}, {args[1]}, gradient_{op.matrix}, parts_{op.matrix})"

    def function(self, name: str, bulk: tuple[Op, ...], loop: tuple[Op, ...], after: tuple[Op, ...]) -> list[str]:
        """One function: the operations on all steps, the loop, and again operations on all steps."""
        backward = name == "backward"
        lines = [f"def {name}(steps):"]
        if not self.plan.recurrent:
            bulk, loop = bulk + loop, ()
        views = dict.fromkeys(v for op in (*bulk, *after) for v in (*op.reads, *op.writes))
        for view in views:
            text = self.view(view, True)
            if text.startswith("all_"):
                lines.append(f"    {text} = {self.cut(view, 'steps')}")
        if any(op.kind == "mask" for op in bulk):
            lines.append("    mask = masks[:steps]")
        lines += [f"    {line}" for op in bulk for line in self.op(op, True)]
        if loop:
            for view in self.plan.carried if backward else ():
                lines.append(f"    {self.view(view, False)}.fill(0)")
            names, order = f"{name}_views", "[steps - 1 :: -1]" if backward else "[:steps]"
            lines.append(f"    for {', '.join(self.stepped(loop))}, in {names}{order}:")
            lines += [f"        {line}" for op in loop for line in self.op(op, False)]
        lines += [f"    {line}" for op in after for line in self.op(op, True)]
        return [*lines, ""]

    def stepped(self, loop: tuple[Op, ...]) -> dict[str, View]:
        """The views that move with the loop, by name."""
        views = dict.fromkeys(v for op in loop for v in (*op.reads, *op.writes))
        return {self.view(v, False): v for v in views if self.plan.buffers[v.buffer].steps is not None}

    def cut(self, view: View, end: str) -> str:
        """A view of all steps, cut from its buffer; ``end`` says how many."""
        steps = f"{view.shift}:{end}" + (f" + {view.shift}" if view.shift else "")
        return f"buffers[{view.buffer!r}][{steps}, {view.start}:{view.start + view.rows}]"


def source_of(plan: Plan) -> tuple[str, dict[str, tuple[str, Any]]]:
    """The program text, and the constants that it names: (kind, value) by name."""
    printer = _Printer(plan)
    functions = printer.function("forward", plan.before, plan.step, ())
    functions += printer.function("backward", plan.coefficients, plan.reverse, plan.after)
    setup = [f"{name} = matrices[{name!r}]" for name in (*plan.matrices, *plan.transposes)]
    for name in plan.matrices:
        setup += [f"gradient_{name} = gradients[{name!r}]", f"parts_{name} = parts[{name!r}]"]
    for view, name in printer.scratch.items():
        setup.append(f"{name} = buffers[{view.buffer!r}][{view.start}:{view.start + view.rows}]")
    if plan.recurrent:
        for name, loop in (("forward", plan.step), ("backward", plan.reverse)):
            cuts = ", ".join(printer.cut(v, "capacity") for v in printer.stepped(loop).values())
            setup.append(f"{name}_views = list(zip({cuts}))")
    return "\n".join([*setup, "", *functions]), printer.constants


@lru_cache(maxsize=256)
def _code(text: str) -> Any:
    return compile(text, "<hwrnn plan>", "exec")


def compiled(plan: Plan, dtype: np.dtype[Any], names: Mapping[str, Any]) -> tuple[Callable[[int], None], ...]:
    """The functions ``forward(steps)`` and ``backward(steps)`` on given arrays.

    Args:
        dtype: of the arrays.
        names: ``buffers``, ``matrices``, ``gradients`` and ``parts``, arrays by name; ``masks``, a bool array; and
            ``capacity``, the steps that the arrays hold.
    """
    text, constants = source_of(plan)
    functions = (*_UFUNCS.values(), "positive", "floor", "equal", "matmul", "copyto")
    scope: dict[str, Any] = {name: getattr(np, name) for name in functions}
    scope |= {"clip": _clip_ufunc(), "piecewise": _piecewise, "gradient": _gradient, **names}
    for name, (kind, value) in constants.items():
        scope[name] = _constant(kind, value, dtype)
    exec(_code(text), scope)
    return scope["forward"], scope["backward"]


def _constant(kind: str, value: Any, dtype: np.dtype[Any]) -> Any:
    if kind == "number":
        return np.array(value, dtype)  # an array of no dimensions costs a ufunc less than a scalar
    if kind == "table":
        return np.array([float(v) for v in value], dtype)
    function: Nonlinearity = value
    return function.value if kind == "value" else function.slope  # type: ignore[attr-defined]
