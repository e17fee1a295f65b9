"""A cell's lines on torch tensors, in float or in the loop with quantization.

The lines come from the cell's one definition, as the nodes that training computes (``hwrnn.training.lowering``), and a
nonlinearity from its one description; torch differentiates them. Where there are formats, every value is a whole number
of its format's steps, with which floating point computes exactly where its mantissa is long enough
(``hwrnn.exactness``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.lib.mixins import NDArrayOperatorsMixin

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.cells import Cell, Phase
from hwrnn.errors import require
from hwrnn.fixed import Format
from hwrnn.formats import LayerFormats
from hwrnn.training.lowering import lower

__all__ = ["Lines", "Products", "function_of", "in_format", "on_grid", "rounded"]

#: numpy's name of a function to torch's, where they differ.
_RENAMED = {
    "absolute": "abs", "negative": "neg", "power": "pow", "clip": "clamp", "logical_and": "logical_and",
    "greater_equal": "ge", "less_equal": "le", "not_equal": "ne", "equal": "eq", "greater": "gt", "less": "lt",
}  # fmt: skip


class _Array(NDArrayOperatorsMixin):
    """A tensor that numpy's functions take, so that a nonlinearity written for arrays works on tensors."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def _call(self, name: str, args: Any) -> _Array:
        torch = require("torch", "torch")
        tensors = [a.tensor for a in args if isinstance(a, _Array)]
        kind = next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())
        given = [a.tensor if isinstance(a, _Array) else torch.as_tensor(a, dtype=kind) for a in args]
        return _Array(getattr(torch, _RENAMED.get(name, name))(*given))

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **options: Any) -> Any:
        return NotImplemented if method != "__call__" or options else self._call(ufunc.__name__, args)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return NotImplemented if options else self._call(function.__name__, args)


def function_of(function: Nonlinearity) -> Callable[[Any], Any]:
    """A nonlinearity on tensors of any shape; its gradient is the one that training takes."""
    return _piecewise(function) if isinstance(function, PiecewiseLinear) else _smooth(function)


def _smooth(function: Any) -> Callable[[Any], Any]:
    def on_tensors(numpy_function: Callable[[Any], Any], x: Any) -> Any:
        return numpy_function(_Array(x)).tensor

    slope = getattr(function, "slope_from_input", None)
    if slope is None:
        return lambda x: on_tensors(function.function, x)

    def value(x: Any) -> Any:
        # Such a function has a kink, where torch's own derivative of its parts would be none of the two slopes.
        given = x.detach()
        return on_tensors(function.function, given) + on_tensors(slope, given) * (x - given)

    return value


def _piecewise(function: PiecewiseLinear) -> Callable[[Any], Any]:
    torch = require("torch", "torch")
    tables: dict[Any, tuple[Any, ...]] = {}
    numbers = function.knots, function.slopes, function.intercepts, function.gradients

    def value(x: Any) -> Any:
        key = x.dtype, x.device
        if key not in tables:
            tables[key] = tuple(torch.tensor([float(v) for v in of], dtype=key[0], device=key[1]) for of in numbers)
        knots, slopes, intercepts, gradients = tables[key]
        piece = torch.bucketize(x.detach().contiguous(), knots, right=True)
        y = slopes[piece] * x + intercepts[piece]
        if function.gradients is function.slopes or not x.requires_grad:
            return y
        return y.detach() + gradients[piece] * (x - x.detach())

    return value


def rounded(x: Any, frac: int) -> Any:
    """Round values half up to ``frac`` fraction bits; the gradient passes straight through.

    Exact: a value and the multiple of a step next to it are equal or within a factor of two of each other, or the
    multiple is zero, so their difference and the sum are floating-point numbers (Sterbenz 1974).
    """
    torch = require("torch", "torch")
    with torch.no_grad():
        change = x.mul(2.0**frac).add_(0.5).floor_().mul_(2.0**-frac).sub_(x)
    return x + change


def _nearest(scaled: Any) -> Any:
    """``floor(x + 1/2)`` exactly, also of numbers that the float sum would round up just below a half."""
    whole = scaled.floor()
    return whole + (scaled - whole >= 0.5)


def in_format(x: Any, form: Format) -> Any:
    """Any values rounded half up and saturated; the gradient passes to those that do not saturate."""
    torch = require("torch", "torch")
    x = torch.clamp(x, form.min, form.max)
    with torch.no_grad():
        change = _nearest(x * 2.0**form.frac).mul_(form.step).sub_(x)
    return x + change


def on_grid(master: Any, step: float, low: float, high: float, dtype: Any) -> Any:
    """Trained numbers as a format holds them, half up and saturated; the gradient passes to all of them."""
    torch = require("torch", "torch")
    master = master.to(torch.float32)  # as a model's file holds it, so that what is frozen is what was trained
    with torch.no_grad():
        nearest = _nearest(master.to(dtype).div(step)).mul_(step).clamp_(low, high)
    return nearest + (master - master.detach()).to(dtype)


class Products:
    """The pre-activations of one run over time: products with the input are made for all steps at once.

    Args:
        blocks: for each phase its gates in blocks whose pre-activations are given as one tensor.
        matrices: by phase and operand, (size of the operand, rows * units).
        biases: by phase and gate, (units,).
        x: (T, N, inputs).
    """

    def __init__(
        self,
        cell: Cell,
        units: int,
        blocks: Sequence[Sequence[tuple[str, ...]]],
        matrices: Mapping[tuple[int, str], Any],
        biases: Mapping[tuple[int, str], Any],
        x: Any,
    ) -> None:
        torch = require("torch", "torch")
        self.units, self.blocks, self.matrices = units, blocks, matrices
        self.groups: list[dict[tuple[str, ...], list[str]]] = []
        self.biases: dict[tuple[int, str], Any] = {}
        self.fed: dict[int, Any] = {}
        self.steps: dict[int, Any] = {}
        for k, phase in enumerate(cell.phases):
            first = {gate: next(o for o in phase.operands if o in reads) for gate, reads in phase.gates.items()}
            self.groups.append({})
            for operand in phase.operands:
                rows = phase.rows(operand)
                self.groups[k].setdefault(rows, []).append(operand)
                if any(first[gate] == operand for gate in rows):  # each bias is added once, with the first product
                    parts = [biases[k, g] if first[g] == operand else torch.zeros_like(biases[k, g]) for g in rows]
                    self.biases[k, operand] = torch.cat(parts)
            if "x" in phase.operands:
                self.fed[k] = x @ matrices[k, "x"] + self.biases[k, "x"]

    def all_steps(self, phase: int, stored: Mapping[str, Any]) -> list[Any]:
        """The pre-activations of a layer without state at every step, (T, N, units) of each gate in a block."""
        return self._gates(phase, stored, self.fed)

    def at(self, step: int) -> Callable[[int, Mapping[str, Any]], list[Any]]:
        """What gives the pre-activations of a phase at one step, block by block, from what is stored so far."""
        if not self.steps:  # the gradient of all slices at once is far cheaper than that of each
            self.steps = {k: value.unbind(0) for k, value in self.fed.items()}
        fed = {k: steps[step] for k, steps in self.steps.items()}
        return lambda phase, stored: self._gates(phase, stored, fed)

    def _gates(self, k: int, stored: Mapping[str, Any], fed: Mapping[int, Any]) -> list[Any]:
        torch = require("torch", "torch")
        sums: dict[tuple[str, ...], Any] = {}
        for rows, operands in self.groups[k].items():
            total: Any = None
            for operand in operands:
                if operand == "x":
                    total = fed[k]
                    continue
                start = self.biases.get((k, operand)) if total is None else total
                matrix = self.matrices[k, operand]
                total = stored[operand] @ matrix if start is None else torch.addmm(start, stored[operand], matrix)
            parts = [block for block in self.blocks[k] if block[0] in rows]
            for block, part in zip(parts, total.split([len(b) * self.units for b in parts], -1), strict=True):
                sums[block] = sums[block] + part if block in sums else part
        return [sums[block] for block in self.blocks[k]]


class Lines:
    """The element-wise lines of a cell.

    What is done alike to gates that stand next to each other is done once, to all of them.

    Attributes:
        folded: gate to (slope, intercept), which its weights and biases take over.
        blocks: for each phase its gates in blocks that are treated alike.
    """

    def __init__(self, cell: Cell, formats: LayerFormats | None) -> None:
        lowered = lower(cell, formats)
        self.nodes, self.folded = lowered.nodes, lowered.folded
        self.functions = {
            k: function_of(node.function) for k, node in enumerate(self.nodes) if node.function is not None
        }
        self.readers: dict[int, list[int]] = {}
        for k, node in enumerate(self.nodes):
            for a in node.args:
                self.readers.setdefault(a, []).append(k)
        self.chains = {gate: self._chain(at) for gate, at in lowered.gates.items()}
        self.gates = lowered.gates
        self.blocks = [self._blocks(phase) for phase in cell.phases]
        done = {k for gate, at in lowered.gates.items() for k in (at, *self.chains[gate])}
        self.rest = [k for k in range(len(self.nodes)) if k not in done]
        self.begins = [min(at for gate, at in lowered.gates.items() if gate in phase.gates) for phase in cell.phases]

    def _chain(self, at: int) -> list[int]:
        """The nodes that a pre-activation alone goes through, up to where it is stored or meets something else."""
        found: list[int] = []
        while len(self.readers.get(at, ())) == 1:
            (at,) = self.readers[at]
            if len(self.nodes[at].args) != 1:
                break
            found.append(at)
            if self.nodes[at].kind == "store":
                break
        return found

    def _blocks(self, phase: Phase) -> list[tuple[str, ...]]:
        blocks: list[tuple[str, ...]] = []
        for gate in phase.gates:
            if blocks and self._treatment(blocks[-1][-1], phase) == self._treatment(gate, phase):
                blocks[-1] = (*blocks[-1], gate)
            else:
                blocks.append((gate,))
        return blocks

    def _treatment(self, gate: str, phase: Phase) -> Any:
        return phase.gates[gate], [replace(self.nodes[k], args=(), name="") for k in self.chains[gate]]

    def step(
        self, product: Callable[[int, Mapping[str, Any]], Iterable[Any]], old: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One time step: every stored value by name.

        Args:
            product: the pre-activations of a phase, a tensor for each of its blocks, from what is stored so far.
            old: the old state.
        """
        stored, values, phase = dict(old), dict[int, Any](), 0
        for k in self.rest:
            while phase < len(self.begins) and self.begins[phase] < k:
                self._begin(phase, product(phase, stored), stored, values)
                phase += 1
            node = self.nodes[k]
            args = [values[a] for a in node.args]
            if node.kind == "old":
                values[k] = old[node.name]
            elif node.kind == "constant":
                values[k] = node.value
            elif node.kind == "mul":
                values[k] = args[0] * args[1]
            elif node.kind in ("add", "sub"):
                values[k] = args[0] + args[1] if node.kind == "add" else args[0] - args[1]
            else:
                values[k] = self._treated(k, args[0])
                if node.kind == "store":
                    stored[node.name] = values[k]
        for later in range(phase, len(self.begins)):
            self._begin(later, product(later, stored), stored, values)
        return stored

    def _begin(self, phase: int, sums: Iterable[Any], stored: dict[str, Any], values: dict[int, Any]) -> None:
        """Take each block of pre-activations as far as it goes alone."""
        for block, value in zip(self.blocks[phase], sums, strict=True):
            for k in self.chains[block[0]]:
                value = self._treated(k, value)
            for gate, part in zip(block, value.chunk(len(block), -1) if len(block) > 1 else (value,), strict=True):
                at = (self.gates[gate], *self.chains[gate])[-1]
                values[at] = part
                if self.nodes[at].kind == "store":
                    stored[self.nodes[at].name] = part

    def _treated(self, k: int, x: Any) -> Any:
        node = self.nodes[k]
        if node.kind == "apply":
            return self.functions[k](x)
        if node.kind == "round":
            return rounded(x, node.frac)
        return require("torch", "torch").clamp(x, *node.bounds) if node.kind == "clip" else x
