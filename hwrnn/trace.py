"""The computation of a cell as straight-line code, recorded once.

Symbols flow through the cell's lines and record them. The result, a :class:`Trace`, is a list of operations
in order, each naming the operations it reads: a shape that other code can print (numpy for training) or
analyse (which nonlinearity reads a pre-activation, which values survive a phase). It says nothing of time,
batches or matrices; those belong to the reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hwrnn.activations import Nonlinearity
from hwrnn.cells import Cell, Phase, Values

__all__ = ["Operation", "Trace", "trace"]


@dataclass(frozen=True)
class Operation:
    """One operation of a trace.

    Attributes:
        kind: ``gate`` (a pre-activation), ``old`` (an old state), ``constant``, ``add``, ``sub``, ``mul``,
            ``apply`` (a nonlinearity) or ``store`` (a named value is stored: fixed point rounds here).
        args: indices of the operations read.
        name: of a ``gate``, ``old`` or ``store``.
        function: of an ``apply``.
        value: of a ``constant``.
        phase: the index of the cell's phase in which the operation stands.
    """

    kind: str
    args: tuple[int, ...] = ()
    name: str = ""
    function: Nonlinearity | None = None
    value: float = 0.0
    phase: int = 0


@dataclass(frozen=True)
class Trace:
    """The straight-line code of one time step of one unit.

    Attributes:
        operations: in order of evaluation; ``args`` index this list.
        gates: gate name to operation.
        stores: value name to the ``store`` operation (each value is stored once a step).
        olds: old state name to its operation, where the cell reads it.
    """

    operations: tuple[Operation, ...]
    gates: Mapping[str, int]
    stores: Mapping[str, int]
    olds: Mapping[str, int]

    def readers(self, index: int) -> tuple[int, ...]:
        """The operations that read one, in order."""
        return tuple(k for k, op in enumerate(self.operations) if index in op.args)

    def crossing(self, phase: int) -> tuple[str, ...]:
        """Stored values of earlier phases that a phase's lines read, in order of storing."""
        read = {arg for op in self.operations if op.phase == phase for arg in op.args}
        earlier = (name for name, k in self.stores.items() if self.operations[k].phase < phase)
        return tuple(name for name in earlier if self.stores[name] in read)

    def olds_of(self, phase: int) -> tuple[str, ...]:
        """Old states that a phase's lines read."""
        read = {arg for op in self.operations if op.phase == phase for arg in op.args}
        return tuple(name for name, k in self.olds.items() if k in read)

    def stored_in(self, phase: int) -> tuple[str, ...]:
        """Values that a phase stores, in order."""
        return tuple(name for name, k in self.stores.items() if self.operations[k].phase == phase)


class Symbol:
    """A number that records what is done with it."""

    __slots__ = ("index", "recorder")
    __array_ufunc__ = None

    def __init__(self, recorder: _Recorder, index: int) -> None:
        self.recorder, self.index = recorder, index

    def _binary(self, kind: str, other: Any, swap: bool = False) -> Symbol:
        recorder = self.recorder
        right = other if isinstance(other, Symbol) else recorder.emit("constant", value=float(other))
        a, b = (right, self) if swap else (self, right)
        return recorder.emit(kind, (a.index, b.index))

    def __add__(self, other: Any) -> Symbol:
        return self._binary("add", other)

    def __radd__(self, other: Any) -> Symbol:
        return self._binary("add", other, swap=True)

    def __sub__(self, other: Any) -> Symbol:
        return self._binary("sub", other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: Any) -> Symbol:
        return self._binary("mul", other)

    def __rmul__(self, other: Any) -> Symbol:
        return self._binary("mul", other, swap=True)

    def apply(self, function: Nonlinearity) -> Symbol:
        """A nonlinearity of this number."""
        return self.recorder.emit("apply", (self.index,), function=function)


class _Recorder:
    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.gates: dict[str, int] = {}
        self.stores: dict[str, int] = {}
        self.phase = 0

    def emit(self, kind: str, args: tuple[int, ...] = (), **more: Any) -> Symbol:
        self.operations.append(Operation(kind, args, phase=self.phase, **more))
        return Symbol(self, len(self.operations) - 1)

    def store(self, name: str, value: Symbol) -> Symbol:
        if name in self.stores:
            raise ValueError(f"Value {name!r} must be stored once in a step, not twice")
        symbol = self.emit("store", (value.index,), name=name)
        self.stores[name] = symbol.index
        return symbol

    def product(self, phase: Phase, cell: Cell) -> dict[str, Symbol]:
        self.phase = cell.phases.index(phase)
        symbols = {gate: self.emit("gate", name=gate) for gate in phase.gates}
        self.gates.update({gate: symbol.index for gate, symbol in symbols.items()})
        return symbols


@lru_cache(maxsize=256)
def trace(cell: Cell) -> Trace:
    """Record a cell's time step.

    Raises:
        ValueError: a cell that stores a value twice in a step, or does not store one of its states or its
            output.
    """
    recorder = _Recorder()
    olds = {name: recorder.emit("old", name=name) for name in cell.states}
    cell.run(lambda phase, s: recorder.product(phase, cell), Values(olds, recorder.store))
    missing = [name for name in (*cell.states, cell.output) if name not in recorder.stores]
    if missing:
        raise ValueError(f"Cell {cell.name} must store {', '.join(missing)} in every step")
    return Trace(
        tuple(recorder.operations), recorder.gates, recorder.stores, {k: s.index for k, s in olds.items()}
    )
