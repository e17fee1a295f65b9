"""What a value of a foreign graph is, without computing it: a constant, or where each of its elements comes from.

A :class:`View` has axes like the tensor it stands for. Along the batch and the time axis every element comes from the
same place at another sequence or step; what is left is an array of *columns*, each the number of a channel (one unit
of one source) with a scale and an offset. So transposing, slicing, joining and reshaping act on that array, and the
elements' meaning stays known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwrnn.importing.shapes import product

if TYPE_CHECKING:
    from hwrnn.activations import Nonlinearity
    from hwrnn.model import Layer

__all__ = [
    "BATCH", "FEATURES", "NOTHING", "TIME", "Atom", "Axis", "Constant", "Dense", "Final", "Host", "Input", "Open",
    "Pass", "Pick", "Source", "Sources", "Steps", "Value", "Vector", "View", "canonical", "constant_view", "inner",
]  # fmt: skip

BATCH, TIME, FEATURES = "batch", "time", "features"
NOTHING = -1
"""The channel of an element that is its offset alone."""
_UNITS = 1 << 32


@dataclass(frozen=True)
class Open:
    """An axis along which a view is the same at every place: the batch, the time, or one that is not yet known.

    Attributes:
        role: ``BATCH``, ``TIME``, or ``INPUT.AXIS`` of a graph's input as long as nothing tells what it is.
        size: how long it is.
    """

    role: str
    size: Any


Atom = Open | int
Axis = tuple[Atom, ...]
"""What an axis of a tensor is made of, the slowest first; a whole number is a part of the columns. Empty: size 1."""


@dataclass(frozen=True, eq=False)
class Vector:
    """What a layer reads: element k is ``scale[k] * channel(columns[k]) + offset[k]``; all (K,)."""

    columns: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    @property
    def plain(self) -> bool:
        """Whether the elements are channels as they are."""
        return bool((self.columns != NOTHING).all() and (self.scale == 1).all() and (self.offset == 0).all())

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns, scale and offset."""
        return self.columns, self.scale, self.offset

    @property
    def constant(self) -> bool:
        """Whether no element depends on the network's input."""
        return bool((self.columns == NOTHING).all())


@dataclass(eq=False, kw_only=True)
class Source:
    """Something with units, one number for each sequence and, where it is ``timed``, each step."""

    number: int = -1
    units: int
    timed: bool
    kind: np.dtype = field(default_factory=lambda: np.dtype(np.float32))

    @property
    def channels(self) -> np.ndarray:
        """The numbers of its units' channels."""
        return self.number * _UNITS + np.arange(self.units)


@dataclass(eq=False, kw_only=True)
class Input(Source):
    """An input of the graph; ``axes`` are its axes' roles in the file's order."""

    name: str
    axes: tuple[Axis, ...]


@dataclass(eq=False, kw_only=True)
class Pass:
    """One direction of a recurrent node.

    Attributes:
        node: its name, for messages.
        layer: what it computes of ``operand``; its weights are as the file has them.
        initial: the states that are not constant and the same for every sequence: vectors of what they come from, or
            arrays (N, units).
        lengths: the source of the sequences' lengths, an array of them, or None where all run to the end.
        timed: whether it runs through the time of the network; else it is a single step.
    """

    node: str
    layer: Layer
    operand: Vector
    initial: dict[str, Vector | np.ndarray]
    lengths: Source | np.ndarray | None
    timed: bool = True


@dataclass(eq=False, kw_only=True)
class Steps(Source):
    """The output of a pass at every step; zero beyond a sequence's length."""

    of: Pass


@dataclass(eq=False, kw_only=True)
class Final(Source):
    """A state of a pass after the last step that it ran."""

    of: Pass
    state: str


@dataclass(eq=False, kw_only=True)
class Pick(Source):
    """A timed source at other steps.

    Attributes:
        at: a step from the first (0, 1, ...) or the last (-1, -2, ...), or None for all in the opposite order.
        lengths: the source of the lengths that the last step (``at`` -1), or the turning, is within; None: of all.
    """

    of: Source
    at: int | None
    lengths: Source | None = None


@dataclass(eq=False, kw_only=True)
class Dense(Source):
    """``function(weights @ operand + bias)``; weights (units, K) and bias (units,) in float64."""

    operand: Vector
    weights: np.ndarray
    bias: np.ndarray
    function: Nonlinearity | None


@dataclass(eq=False, kw_only=True)
class Host(Source):
    """What stays outside the hardware: ``function`` of arrays (..., K) gives arrays (..., units).

    Attributes:
        words: what it is, for notes: ``Softmax``.
        passing: whether a model may leave it out anywhere, because it only rounds; else only at its end.
        task: what a network that ends in it is for, or None.
    """

    operand: Vector
    function: Callable[[np.ndarray], np.ndarray]
    words: str
    passing: bool = False
    task: str | None = None

    @property
    def passed(self) -> Vector:
        """What stands in its place where it is left out."""
        return self.operand


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that the file holds, or a shape: ``array`` of dtype object may hold :class:`Size`."""

    array: np.ndarray

    @property
    def known(self) -> bool:
        """Whether no open size is in it."""
        return bool(self.array.dtype != object)


@dataclass(frozen=True, eq=False)
class View:
    """A tensor of which every element's origin is known.

    Attributes:
        axes: of the tensor.
        columns, scale, offset: arrays whose axes are the whole numbers among the axes' atoms, in order.
        kind: the element type in the file.
    """

    axes: tuple[Axis, ...]
    columns: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    kind: np.dtype

    @property
    def shape(self) -> tuple[Any, ...]:
        """The sizes of the axes."""
        return tuple(product(a if isinstance(a, int) else a.size for a in axis) for axis in self.axes)

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """All axes' atoms in a row."""
        return tuple(atom for axis in self.axes for atom in axis)

    @property
    def vector(self) -> Vector:
        """The columns in a row."""
        return Vector(self.columns.reshape(-1), self.scale.reshape(-1), self.offset.reshape(-1))

    def has(self, role: str) -> bool:
        """Whether an axis of a role is among the axes."""
        return any(isinstance(atom, Open) and atom.role == role for atom in self.atoms)

    def each(self, change: Callable[[np.ndarray], np.ndarray], axes: Sequence[Axis]) -> View:
        """The view with other axes and the arrays as ``change`` gives them."""
        columns, scale, offset = (np.ascontiguousarray(change(a)) for a in (self.columns, self.scale, self.offset))
        return canonical(View(tuple(axes), columns, scale, offset, self.kind))

    def placed(self, axes: Sequence[Axis]) -> View:
        """The same elements under other axes whose whole numbers are the same."""
        return replace(self, axes=tuple(axes))


Value = Constant | View


def canonical(view: View) -> View:
    """The view with neighbouring whole numbers of an axis as one and without those that are 1."""
    axes = []
    for axis in view.axes:
        atoms: list[Atom] = []
        for atom in axis:
            if isinstance(atom, int):
                if atom == 1:
                    continue
                if atoms and isinstance(atoms[-1], int):
                    atoms[-1] *= atom
                    continue
            atoms.append(atom)
        axes.append(tuple(atoms))
    shape = inner(axes)
    columns, scale, offset = (a.reshape(shape) for a in (view.columns, view.scale, view.offset))
    return View(tuple(axes), columns, scale, offset, view.kind)


def inner(axes: Sequence[Axis]) -> tuple[int, ...]:
    """The whole numbers of axes: the shape of the columns."""
    return tuple(atom for axis in axes for atom in axis if isinstance(atom, int))


def constant_view(array: np.ndarray, kind: np.dtype | None = None) -> View:
    """A constant as a view of no source."""
    values = np.asarray(array, np.float64)
    view = View(
        tuple((size,) for size in array.shape), np.full(array.shape, NOTHING, np.int64), np.zeros(array.shape),
        values, np.dtype(array.dtype if kind is None else kind),
    )  # fmt: skip
    return canonical(view)


class Sources:
    """The sources of one graph, by number."""

    def __init__(self) -> None:
        self._all: list[Source] = []
        self._picked: dict[tuple[int, int | None, int | None], Source] = {}
        self._final: dict[tuple[int, str], Source] = {}

    def add(self, source: Source) -> Source:
        """Give a source its number."""
        source.number = len(self._all)
        self._all.append(source)
        return source

    def of(self, columns: np.ndarray) -> list[Source]:
        """The sources of channels, each once, in the order of their first channel; none for ``NOTHING``."""
        numbers = dict.fromkeys((columns[columns != NOTHING] // _UNITS).reshape(-1).tolist())
        return [self._all[n] for n in numbers]

    def place(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each channel's source and unit, as numbers; -1 and some unit for ``NOTHING``."""
        return columns // _UNITS, columns % _UNITS

    def vector(self, source: Source) -> Vector:
        """All units of a source."""
        return Vector(source.channels, np.ones(source.units), np.zeros(source.units))

    def timed(self, columns: np.ndarray) -> bool:
        """Whether any of the channels has a value at every step."""
        return any(source.timed for source in self.of(columns))

    def view(self, source: Source, axes: Sequence[Axis]) -> View:
        """A source as a tensor; the whole numbers among the axes give its units in order."""
        shape = inner(axes)
        columns = source.channels.reshape(shape)
        return canonical(View(tuple(axes), columns, np.ones(shape), np.zeros(shape), source.kind))

    def picked(self, columns: np.ndarray, at: int | None, lengths: Source | None = None) -> np.ndarray:
        """Channels at other steps, see :class:`Pick`; those without steps stay as they are."""
        flat = columns.reshape(-1)
        found = flat.copy()
        numbers, units = self.place(flat)
        for source in self.of(flat):
            if source.timed:
                own = numbers == source.number
                found[own] = self._pick(source, at, lengths).channels[units[own]]
        return found.reshape(columns.shape)

    def _pick(self, source: Source, at: int | None, lengths: Source | None) -> Source:
        key = (source.number, at, None if lengths is None else lengths.number)
        if key not in self._picked:
            self._picked[key] = self._picked_anew(source, at, lengths)
        return self._picked[key]

    def _picked_anew(self, source: Source, at: int | None, lengths: Source | None) -> Source:
        timed = at is None
        if isinstance(source, Dense | Host):
            # What is computed step by step may as well be computed of the steps that are taken.
            operand = source.operand
            moved = Vector(self.picked(operand.columns, at, lengths), operand.scale, operand.offset)
            if isinstance(source, Dense):
                return self.add(Dense(
                    units=source.units, timed=timed, operand=moved, weights=source.weights, bias=source.bias,
                    function=source.function,
                ))  # fmt: skip
            return self.add(replace(source, number=-1, timed=timed, operand=moved))
        if isinstance(source, Pick) and at is None and lengths is source.lengths:
            return source.of  # turned twice
        if isinstance(source, Pick) and at is not None and lengths is None and source.lengths is None:
            return self._pick(source.of, -1 - at, None)
        if isinstance(source, Pick) and at == -1 and lengths is not None and lengths is source.lengths:
            return self._pick(source.of, 0, None)
        if isinstance(source, Steps) and at == 0 and source.of.layer.reverse:
            return self.final(source.of, "h")
        if isinstance(source, Steps) and at == -1 and not source.of.layer.reverse and source.of.lengths is lengths:
            return self.final(source.of, "h")
        return self.add(Pick(units=source.units, timed=timed, kind=source.kind, of=source, at=at, lengths=lengths))

    def final(self, run: Pass, state: str) -> Source:
        """A state of a pass after its last step, the same source whenever it is asked for."""
        key = (id(run), state)
        if key not in self._final:
            self._final[key] = self.add(Final(units=run.layer.units, timed=False, of=run, state=state))
        return self._final[key]
