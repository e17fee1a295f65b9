"""The values of a foreign graph in numbers, computed from what is known of their elements' origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwrnn.errors import UsageError, shown
from hwrnn.importing.operators import Interpreter
from hwrnn.importing.shapes import Size
from hwrnn.importing.values import (
    BATCH,
    NOTHING,
    TIME,
    Constant,
    Dense,
    Final,
    Host,
    Input,
    Open,
    Pass,
    Pick,
    Source,
    Steps,
    Value,
    Vector,
)  # fmt: skip
from hwrnn.model import LayerRun, flipped

__all__ = ["Evaluation"]


class Evaluation:
    """One run of a graph; arrays are (N, T, units) of timed sources and (N, units) of others."""

    def __init__(self, net: Interpreter, feeds: Mapping[str, Any]) -> None:
        self._net = net
        self._feeds = {name: np.asarray(value) for name, value in feeds.items()}
        for name in self._feeds:
            if name not in net.inputs:
                known = ", ".join(shown(n) for n in net.inputs)
                raise UsageError(f"Inputs must be those of the network, {known}, not {name!r}")
        self._sizes: dict[str, int] = {}
        for name, array in self._feeds.items():
            self._check(net.inputs[name], array)
        self._done: dict[int, np.ndarray] = {}
        self._runs: dict[int, LayerRun] = {}

    def _check(self, source: Input, array: np.ndarray) -> None:
        which = f"Input {shown(source.name)}"
        if array.dtype.kind not in ("f" if source.kind.kind == "f" else "iu") and array.dtype.kind not in "iu":
            raise UsageError(f"{which} must hold {source.kind} numbers, not {array.dtype}")
        if array.ndim != len(source.axes) or 0 in array.shape:
            raise UsageError(f"{which} must have {len(source.axes)} axes, none of size 0, not the shape {array.shape}")
        for axis, size in zip(source.axes, array.shape, strict=True):
            for atom in axis:
                due = atom if isinstance(atom, int) else self._sizes.get(atom.role, atom.size)
                if not isinstance(due, Size) and due != size:
                    raise UsageError(f"{which} must have {due} {_words(atom)}, not {size} as in {array.shape}")
                if isinstance(atom, Open):
                    self._sizes[atom.role] = size
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UsageError(f"{which} must be finite: remove or fill the NaN and infinite values")

    def size(self, role: str) -> int:
        """The number of sequences or steps."""
        known = self._net.sizes.get(role)
        return self._sizes.get(role, known if isinstance(known, int) else 1)

    # -- outputs -------------------------------------------------------------------------------------------------------
    def output(self, value: Value, kind: np.dtype | None) -> np.ndarray:
        """A value as the tensor of the file, in its element type (``kind``: the one that the file declares)."""
        if isinstance(value, Constant):
            if value.known:
                return np.array(value.array)
            symbols = dict(self._sizes)
            return np.vectorize(lambda v: v.value(symbols) if isinstance(v, Size) else v, [np.int64])(value.array)
        flat = self.vector(value.vector)
        timed, has_time = self._timed(value.vector), value.has(TIME)
        n, t = self.size(BATCH), self.size(TIME)
        if value.vector.constant:
            flat = flat[:1]
        if (n > 1 and not value.has(BATCH) and len(flat) > 1) or (timed and flat.shape[1] > 1 and not has_time):
            raise UsageError("Output must keep the batch and the time among its axes, where there is more than one")
        grid = flat.reshape(len(flat), flat.shape[1] if timed else 1, *value.columns.shape)
        grid = np.broadcast_to(grid, (n if value.has(BATCH) else 1, t if has_time else 1, *value.columns.shape))
        order, shape, column = [], [], 2
        for axis in value.axes:
            total = 1
            for atom in axis:
                if isinstance(atom, int):
                    order.append(column)
                    column += 1
                    total *= atom
                else:
                    order.append(0 if atom.role == BATCH else 1)
                    total *= n if atom.role == BATCH else t
            shape.append(total)
        order = [k for k in (0, 1) if k not in order] + order
        return np.ascontiguousarray(grid.transpose(order).reshape(shape).astype(value.kind if kind is None else kind))

    # -- sources -------------------------------------------------------------------------------------------------------
    def _timed(self, vector: Vector) -> bool:
        return self._net.sources.timed(vector.columns)

    def vector(self, vector: Vector) -> np.ndarray:
        """(N, T, K), or (N, K) where nothing in it is timed."""
        found = self._net.sources.of(vector.columns)
        numbers, units = self._net.sources.place(vector.columns)
        timed = self._timed(vector)
        kind = np.int64 if found and all(s.kind.kind in "iu" for s in found) and vector.plain else np.float32
        shape = (self.size(BATCH), *((self.size(TIME),) if timed else ()), len(vector.columns))
        result = np.zeros(shape, kind)
        for source in found:
            own = np.flatnonzero((numbers == source.number) & (vector.columns != NOTHING))
            array = self.source(source)
            result[..., own] = (array[:, None] if timed and not source.timed else array)[..., units[own]]
        if not vector.plain:
            result = result * vector.scale.astype(kind) + vector.offset.astype(kind)
        return result

    def source(self, source: Source) -> np.ndarray:
        """All units of a source."""
        if source.number not in self._done:
            self._done[source.number] = self._computed(source)
        return self._done[source.number]

    def _computed(self, source: Source) -> np.ndarray:
        if isinstance(source, Input):
            return self._input(source)
        if isinstance(source, Steps):
            return self._pass(source.of).steps
        if isinstance(source, Final):
            return self._pass(source.of).final[source.state]
        if isinstance(source, Pick):
            return self._pick(source)
        if isinstance(source, Dense):
            sums = self.vector(source.operand) @ source.weights.T.astype(np.float32) + source.bias.astype(np.float32)
            return sums if source.function is None else source.function.value(sums)
        if isinstance(source, Host):
            return source.function(self.vector(source.operand))
        raise TypeError(type(source).__name__)

    def _input(self, source: Input) -> np.ndarray:
        if source.name not in self._feeds:
            raise UsageError(f"Input {shown(source.name)} must be given, to compute what depends on it")
        array = self._feeds[source.name]
        roles = [next((a.role for a in axis if isinstance(a, Open)), None) for axis in source.axes]
        unknown = [r for r in roles if r not in (None, BATCH, TIME)]
        if unknown:
            raise UsageError(f"Input {shown(source.name)} must be read by a recurrent node, which names its axes")
        order = [roles.index(r) for r in (BATCH, TIME) if r in roles]
        moved = array.transpose(order + [k for k, r in enumerate(roles) if r is None])
        n = array.shape[roles.index(BATCH)] if BATCH in roles else 1
        shape = (n, array.shape[roles.index(TIME)], source.units) if TIME in roles else (n, source.units)
        found = moved.reshape(shape).astype(np.int64 if source.kind.kind in "iu" else np.float32)
        return np.broadcast_to(found, (self.size(BATCH), *found.shape[1:]))

    def _pass(self, run: Pass) -> LayerRun:
        if id(run) not in self._runs:
            x = self.vector(run.operand)
            x = x if self._timed(run.operand) else np.repeat(x[:, None], self.size(TIME) if run.timed else 1, axis=1)
            lengths = np.full(len(x), x.shape[1]) if run.lengths is None else self._lengths(run.lengths, x.shape[1])
            if len(lengths) != len(x):
                raise UsageError(f"Input must hold {len(lengths)} sequences, as sequence_lens does, not {len(x)}")
            initial = {}
            for state, start in run.initial.items():
                found = start if isinstance(start, np.ndarray) else self.vector(start)
                if len(found) != len(x):
                    raise UsageError(f"Input must hold {len(found)} sequences, as the initial states do, not {len(x)}")
                initial[state] = found
            self._runs[id(run)] = run.layer.run(x.astype(np.float32), lengths, initial)
        return self._runs[id(run)]

    def _lengths(self, given: Source | np.ndarray, steps: int) -> np.ndarray:
        lengths = given if isinstance(given, np.ndarray) else self.source(given)[:, 0]
        if lengths.min() < 1 or lengths.max() > steps:
            raise UsageError(f"Lengths must be between 1 and {steps}, not {lengths.min()} to {lengths.max()}")
        return lengths.astype(np.int64)

    def _pick(self, source: Pick) -> np.ndarray:
        steps = self.source(source.of)
        if source.at is not None and source.lengths is not None:
            return steps[np.arange(len(steps)), self._lengths(source.lengths, steps.shape[1]) - 1]
        if source.at is not None:
            if not -steps.shape[1] <= source.at < steps.shape[1]:
                raise UsageError(f"Input must have more than {steps.shape[1]} steps, to have step {source.at}")
            return steps[:, source.at]
        if source.lengths is None:
            return steps[:, ::-1]
        return flipped(steps, self._lengths(source.lengths, steps.shape[1]))


def _words(atom: Open | int) -> str:
    if isinstance(atom, int):
        return "features"
    return "sequences" if atom.role == BATCH else "steps"


