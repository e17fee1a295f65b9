"""The plan of a layer's training: which operation reads and writes which rows of which buffer.

A plan is what stands between a cell's trace and a program text. It names buffers and lists operations on
them, once in the order of the forward pass and once in that of the backward pass; it knows nothing of numpy, of
the number of time steps or of the size of a batch. A printer (``numpy_printer``) turns it into a program.

Every buffer is feature-major: (steps, rows, batch), or (rows, batch) for scratch that one time step uses. Rows
of one gate lie side by side, so gates that get the same treatment are one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hwrnn.activations import Nonlinearity
from hwrnn.fixed import Format

__all__ = ["Buffer", "FormatsLike", "Op", "Plan", "View"]


class FormatsLike(Protocol):
    """The formats of a layer, as ``hwrnn.formats.LayerFormats`` holds them."""

    @property
    def values(self) -> Mapping[str, Format]:
        """Of each stored value by name, of each pre-activation as ``a.GATE``, of the input as ``x``."""

    @property
    def weights(self) -> Mapping[tuple[str, str], Format]:
        """Of each block of weights by ``(gate, operand)``."""

    @property
    def bias_frac(self) -> Mapping[str, int]:
        """Fraction bits of each gate's biases."""


@dataclass(frozen=True)
class View:
    """``rows`` rows of a buffer from row ``start``, at the step of the loop plus ``shift``."""

    buffer: str
    start: int
    rows: int
    shift: int = 0

    def joined(self, other: View) -> View | None:
        """The rows of both, where ``other`` follows directly; else None."""
        follows = replace(self, start=self.start + self.rows, rows=other.rows) == other
        return replace(self, rows=self.rows + other.rows) if follows else None


@dataclass(frozen=True)
class Buffer:
    """An array of ``rows`` rows, with or without an axis of time.

    Attributes:
        steps: ``None`` for scratch of one step; else how many steps it holds more than the sequence has: 1 for a
            state, whose first step is the initial value.
    """

    name: str
    rows: int
    steps: int | None = 0


@dataclass(frozen=True)
class Op:
    """One operation; ``args`` are views or numbers.

    Kinds: ``add``, ``sub``, ``mul``, ``copy``; ``clip`` to ``bounds``; ``round`` half up to ``frac`` fraction bits;
    ``apply`` a ``function``, of which piecewise-linear ones write their slope to ``slope``; ``slope`` of a smooth
    ``function`` from its value; ``mask``: the first argument where the other two are equal, else zero; ``product``:
    ``matrix`` times the argument; ``gradient``: the sum over time of the first argument times the second one
    transposed, into the gradient of ``matrix``.
    """

    kind: str
    out: View | None
    args: tuple[View | float, ...]
    function: Nonlinearity | None = None
    bounds: tuple[float | None, float | None] = (None, None)
    frac: int = 0
    matrix: str = ""
    slope: View | None = None

    @property
    def reads(self) -> tuple[View, ...]:
        """The views read."""
        return tuple(a for a in self.args if isinstance(a, View))

    @property
    def writes(self) -> tuple[View, ...]:
        """The views written."""
        return tuple(v for v in (self.out, self.slope) if v is not None)

    def joined(self, other: Op) -> Op | None:
        """One operation that does both, where the rows of ``other`` follow those of this one; else None."""
        if self.out is None or other.out is None or self.kind in ("product", "gradient"):
            return None
        if replace(other, out=self.out, args=self.args, slope=self.slope) != self or len(self.args) != len(other.args):
            return None
        args: list[View | float] = []
        for a, b in zip(self.args, other.args, strict=True):
            joined: Any = a if a == b and not isinstance(a, View) else None
            if isinstance(a, View) and isinstance(b, View):
                joined = a.joined(b)
            if joined is None:
                return None
            args.append(joined)
        out = self.out.joined(other.out)
        slope = self.slope.joined(other.slope) if self.slope and other.slope else None
        if out is None or (self.slope is not None and slope is None):
            return None
        return replace(self, out=out, args=tuple(args), slope=slope)


@dataclass(frozen=True)
class Plan:
    """Everything a printer needs.

    Attributes:
        recurrent: whether the lists ``step`` and ``reverse`` run in a loop over time, or at once for all steps.
        buffers: by name.
        before: forward operations on all time steps at once, ahead of the loop.
        step: forward operations of one time step.
        coefficients: backward operations on all steps at once, ahead of the reverse loop.
        reverse: backward operations of one time step.
        after: backward operations on all steps at once: gradients of the matrices, and of the input.
        inputs: where the input stands, (steps, inputs, batch), once for each phase that reads it.
        output: where the output stands.
        output_gradient: where the gradient of the output is expected.
        input_gradient: where that of the input is left.
        ones: rows that must hold 1 at every step; their weights are the biases.
        carried: scratch that must be zero when the reverse loop starts.
        starts: by state, the views whose first step holds where a sequence starts.
        matrices: name to (rows, columns); their gradients have the same shapes.
        transposes: name to (phase, operand), matrices that the backward pass multiplies with.
    """

    recurrent: bool
    buffers: Mapping[str, Buffer]
    before: tuple[Op, ...]
    step: tuple[Op, ...]
    coefficients: tuple[Op, ...]
    reverse: tuple[Op, ...]
    after: tuple[Op, ...]
    inputs: tuple[View, ...]
    output: View
    output_gradient: View
    input_gradient: View
    ones: tuple[View, ...]
    carried: tuple[View, ...]
    starts: Mapping[str, tuple[View, ...]]
    matrices: Mapping[str, tuple[int, int]]
    transposes: Mapping[str, tuple[int, str]]

    @property
    def operations(self) -> Iterator[Op]:
        """All operations, in order."""
        for part in (self.before, self.step, self.coefficients, self.reverse, self.after):
            yield from part


def join_blocks(ops: list[Op]) -> list[Op]:
    """Join operations that treat neighbouring rows alike, where moving the later one ahead disturbs nothing."""
    ops = list(ops)
    i = 0
    while i < len(ops):
        for j in range(i + 1, len(ops)):
            both = ops[i].joined(ops[j])
            if both is not None and not any(_disturbs(ops[j], op) for op in ops[i + 1 : j]):
                ops[i] = both
                del ops[j]
                i = -1  # a longer block may now meet another
                break
        i += 1
    return ops


def _disturbs(moved: Op, passed: Op) -> bool:
    """Whether ``moved`` must stay behind ``passed``."""
    return any(
        _overlap(a, b)
        for mine, theirs in ((moved.reads, passed.writes), (moved.writes, passed.reads), (moved.writes, passed.writes))
        for a in mine
        for b in theirs
    )


def _overlap(a: View, b: View) -> bool:
    if a.buffer != b.buffer or a.shift != b.shift:
        return False
    return a.start < b.start + b.rows and b.start < a.start + a.rows
