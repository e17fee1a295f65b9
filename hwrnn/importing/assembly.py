"""From what an output of a foreign graph comes from to a :class:`Model`: layers one behind the other, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwrnn.activations import NONLINEARITIES
from hwrnn.cells import Dense as DenseCell
from hwrnn.errors import UsageError, shown
from hwrnn.importing.operators import Interpreter
from hwrnn.importing.values import (
    NOTHING,
    Constant,
    Dense,
    Final,
    Host,
    Input,
    Pass,
    Pick,
    Source,
    Steps,
    Value,
    Vector,
)  # fmt: skip
from hwrnn.model import Layer, Model

__all__ = ["Assembly", "assembled"]

_IDENTITY = NONLINEARITIES["identity"]


@dataclass(frozen=True, eq=False)
class Assembly:
    """A model, and sentences about what it leaves to others.

    Attributes:
        members: what its layers were in the file, in their order.
        passing: what merely rounds and was left out.
    """

    model: Model
    notes: tuple[str, ...]
    members: tuple[Dense | Pass, ...] = ()
    passing: tuple[Host, ...] = ()


@dataclass(eq=False)
class _Level:
    """Layers side by side, from the output's end.

    Attributes:
        members: dense layers or passes.
        taken: what is read of them: ``steps``, ``last`` (the output at the last step) or ``final`` (each one's own).
    """

    members: list[Dense | Pass]
    taken: str

    @property
    def recurrent(self) -> bool:
        return isinstance(self.members[0], Pass)


def assembled(net: Interpreter, name: str, value: Value, task: str | None, facts: dict[str, Any]) -> Assembly:
    """The model that computes an output.

    Raises:
        UsageError: an output that is not what layers one behind the other compute, or not in float32.
    """
    builder = _Builder(net, name)
    with np.errstate(over="ignore", invalid="ignore"):
        found = builder.build(value, task, facts)
    if not all(np.isfinite(array).all() for layer in found.model.stack for array in layer.parameters.values()):
        raise builder.fault("be computed with numbers that float32 holds: scales before a layer make its own larger")
    return found


class _Builder:
    def __init__(self, net: Interpreter, name: str) -> None:
        self.net, self.sources, self.which = net, net.sources, f"Output {shown(name)}"
        self.notes: list[str] = []
        self._causal = False
        self.passing: list[Host] = []

    def fault(self, reason: str) -> UsageError:
        return UsageError(f"{self.which} must {reason}")

    def build(self, value: Value, task: str | None, facts: dict[str, Any]) -> Assembly:
        if isinstance(value, Constant) or value.vector.constant:
            raise self.fault("depend on the network's input, to be a model's")
        vector, found = self._without_host(value.vector)
        levels, base = self._levels(vector)
        if not any(level.recurrent for level in levels):
            raise self.fault("come from an RNN, GRU or LSTM node: hwrnn builds recurrent networks")
        if task is None and found is None:
            self.notes.append(
                "Nothing in the file says whether the network classifies: it is taken for a regression unless told"
                " otherwise (--task, task=)"
            )
        every_step, final, encoder = self._times(levels, vector)
        mean, scale, readers = self._standardised(levels, base, vector)
        stack: list[list[Layer]] = []
        before: Sequence[Dense | Pass] | Input = base
        for level in reversed(levels):
            stack.append([self._layer(member, before, readers, k) for k, member in enumerate(level.members)])
            before = level.members
        self._check_lengths(levels)
        head, output_mean, output_scale = self._ends(stack, levels, vector)
        layers = tuple(layer for group in stack for layer in group)
        behind = sum(len(group) for group in stack[: len(levels) - encoder]) if encoder else 0
        model = Model(
            layers, head, every_step, task or found or "regression", mean, scale, output_mean, output_scale, facts,
            encoder=behind, final_state=final,
        )  # fmt: skip
        members = tuple(member for level in reversed(levels) for member in level.members)
        return Assembly(model, tuple(self.notes), members, tuple(self.passing))

    # -- what stays outside --------------------------------------------------------------------------------------------
    def _without_host(self, vector: Vector) -> tuple[Vector, str | None]:
        """What the hardware gives to the functions at the end, and the task that they tell."""
        task = None
        while True:
            vector = self._through(vector)
            found = self.sources.of(vector.columns)
            if len(found) != 1 or not isinstance(found[0], Host):
                if any(isinstance(source, Host) for source in found):
                    raise self.fault("not mix the results of Softmax and its like with others")
                return vector, task
            host = found[0]
            self.notes.append(f"{host.words} is left to the host: the model gives what it reads")
            vector, task = host.operand, task or host.task

    def _through(self, vector: Vector) -> Vector:
        """A vector with what merely rounds left out."""
        while True:
            numbers, units = self.sources.place(vector.columns)
            passing = [s for s in self.sources.of(vector.columns) if isinstance(s, Host) and s.passing]
            self.passing += passing
            if not passing:
                return vector
            columns, scale, offset = vector.columns.copy(), vector.scale.copy(), vector.offset.copy()
            for source in passing:
                own = (numbers == source.number) & (vector.columns != NOTHING)
                inner = source.passed
                columns[own] = inner.columns[units[own]]
                offset[own] += scale[own] * inner.offset[units[own]]
                scale[own] *= inner.scale[units[own]]
            vector = Vector(columns, scale, offset)

    # -- levels --------------------------------------------------------------------------------------------------------
    def _levels(self, vector: Vector) -> tuple[list[_Level], Input]:
        """The levels from the output to the input, and the input."""
        levels: list[_Level] = []
        vectors = [vector]
        while True:
            columns = np.concatenate([v.columns for v in vectors])
            found = self.sources.of(columns)
            if not found:
                raise self.fault("depend on the network's input, to be a model's")
            inputs = [s for s in found if isinstance(s, Input)]
            if len(inputs) == len(found) == 1:
                runs = [m for level in levels for m in level.members if isinstance(m, Pass)]
                if not inputs[0].timed and any(run.timed for run in runs):
                    raise self.fault(f"read input {shown(inputs[0].name)} step by step, not one vector for a sequence")
                self._check_input(inputs[0])
                return levels, inputs[0]
            levels.append(self._level(found))
            vectors = [self._through(member.operand) for member in levels[-1].members]

    def _check_input(self, source: Input) -> None:
        """Refuse an input whose features are not a vector: one of their axes may be the steps, of which one is read."""
        places = [k for k, axis in enumerate(source.axes) if any(isinstance(atom, int) for atom in axis)]
        if len(places) > 1 and (not source.timed or places[-1] - places[0] >= len(places)):
            raise self.fault(
                f"read a vector of features at every step of input {shown(source.name)}, not parts of it along axes"
                f" {', '.join(map(str, places))}"
            )

    def _level(self, found: Sequence[Source]) -> _Level:
        """The level that some sources are of."""
        dense = [s for s in found if isinstance(s, Dense)]
        if len(dense) == len(found):
            if len({s.timed for s in dense}) > 1:
                raise self.fault("not mix what is computed at every step with what is computed once")
            return _Level(list(dense), "steps")
        taken: dict[int, tuple[Pass, set[str]]] = {}
        for source in found:
            run, kind = self._taken(source)
            taken.setdefault(id(run), (run, set()))[1].add(kind)
        kinds = {kind for _, each in taken.values() for kind in each} - {"either"}
        if len(kinds) > 1:
            raise self.fault("take one kind of results of layers side by side, not " + " and ".join(sorted(kinds)))
        return _Level([run for run, _ in taken.values()], kinds.pop() if kinds else "last")

    def _taken(self, source: Source) -> tuple[Pass, str]:
        """The pass that a source is of, and what of it."""
        if isinstance(source, Steps):
            return source.of, "steps"
        if isinstance(source, Final):
            if source.state != "h":
                raise self.fault(f"not read the cell state of {source.of.node!r}, which hardware keeps to itself")
            return source.of, "final" if source.of.layer.reverse else "either"
        if isinstance(source, Pick) and isinstance(source.of, Steps):
            run = source.of.of
            if source.at is None:
                raise self.fault(f"have the steps of {run.node!r} in the order of time, not in the opposite one")
            if source.at == -1 and run.lengths is source.lengths and run.layer.reverse:
                return run, "last"
            if source.at == -1 and source.lengths is not None and run.lengths is None and not run.layer.reverse:
                self._causal = True  # a forward layer may as well stop at the sequence's length
                return run, "either"
            if source.at == -1 and run.lengths is not None:
                raise self.fault(
                    f"take the last state (Y_h) of {run.node!r} rather than its output at the last step, which is 0"
                    " where a sequence is shorter"
                )
            raise self.fault(f"take all steps of {run.node!r} or the last one, not step {source.at}")
        raise self.fault(
            "come from layers one behind the other: here a layer reads several that are not side by side"
            " (a connection around a layer, several inputs), or steps of the input that are not all"
        )

    def _times(self, levels: Sequence[_Level], vector: Vector) -> tuple[bool, bool, int]:
        """Whether there is an output at every step, whether of final states, and how many levels decode."""
        runs = [m for level in levels for m in level.members if isinstance(m, Pass)]
        if not all(run.timed for run in runs):
            if any(run.timed or run.layer.reverse for run in runs):
                raise self.fault("come from layers that all run through the steps, or are all a single forward step")
            self.notes.append("The file computes a single step; the model runs sequences of them")
            return True, False, 0
        single = [k for k, level in enumerate(levels) if level.recurrent and level.taken != "steps"]
        if len(single) > 1:
            raise self.fault("take one step at one place of the network, not at several")
        if not single:
            return True, False, 0
        at = single[0]
        if not any(level.recurrent for level in levels[:at]):
            return False, levels[at].taken == "final", 0
        if levels[at].taken == "final":
            raise self.fault("repeat the output at the last step for a decoder, not the last state of a reverse layer")
        return True, False, at

    def _check_lengths(self, levels: Sequence[_Level]) -> None:
        runs = [m for level in levels for m in level.members if isinstance(m, Pass)]
        for run in runs:
            if isinstance(run.lengths, np.ndarray):
                raise self.fault(f"not depend on the constant sequence_lens of {run.node!r}: make them an input")
            if self._causal and run.layer.reverse:
                raise self.fault(f"have the lengths as sequence_lens of {run.node!r}, which runs in reverse")
            if run.lengths is not runs[0].lengths:
                raise self.fault("come from layers that all have the same sequence_lens")
            if run.initial:
                names = {s.name for v in run.initial.values() if isinstance(v, Vector)
                         for s in self.sources.of(v.columns) if isinstance(s, Input)}  # fmt: skip
                if names:
                    raise self.fault(
                        f"not depend on the initial states that the inputs {', '.join(map(repr, sorted(names)))} hold:"
                        " to start at zero instead, say --initial zero (initial='zero')"
                    )
                raise self.fault(
                    f"come from layers whose sequences start with the same constant state, unlike those of {run.node!r}"
                )

    # -- weights -------------------------------------------------------------------------------------------------------
    def _positions(self, vector: Vector, before: Sequence[Dense | Pass] | Input) -> tuple[np.ndarray, int]:
        """Where each element of a vector stands in what the level before gives, and how wide that is."""
        numbers, units = self.sources.place(vector.columns)
        if isinstance(before, Input):
            return np.where(vector.columns == NOTHING, -1, units), before.units
        starts, width = {}, 0
        for member in before:
            starts[id(member)] = width
            width += member.units if isinstance(member, Dense) else member.layer.units
        places = np.full(len(units), -1)
        for source in self.sources.of(vector.columns):
            member = source if isinstance(source, Dense) else self._taken(source)[0]
            own = (numbers == source.number) & (vector.columns != NOTHING)
            places[own] = starts[id(member)] + units[own]
        return places, width

    def _standardised(
        self, levels: Sequence[_Level], base: Input, vector: Vector
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """The input's mean and scale, and whether they hold what scales and shifts the input's features."""
        reading = [self._through(member.operand) for member in levels[-1].members]
        mean, scale = np.zeros(base.units), np.ones(base.units)
        seen = np.zeros(base.units, np.bool_)
        alike = True
        for operand in reading:
            places, _ = self._positions(operand, base)
            for k in np.flatnonzero(places >= 0):
                at, s = places[k], operand.scale[k]
                m = 0.0 if operand.offset[k] == 0 else -operand.offset[k] / (s or 1)
                alike &= bool(s != 0) and (not seen[at] or bool(mean[at] == m and scale[at] == s))
                seen[at], mean[at], scale[at] = True, m, s
            alike &= bool((places >= 0).all())
        ends = [a.astype(np.float32) for a in (mean, scale)]
        alike &= bool(np.isfinite(ends[0]).all() and np.isfinite(ends[1]).all() and (ends[1] != 0).all())
        if alike:
            return ends[0], ends[1], True
        return np.zeros(base.units, np.float32), np.ones(base.units, np.float32), False

    def _layer(self, member: Dense | Pass, before: Sequence[Dense | Pass] | Input, ends: bool, k: int) -> Layer:
        """A member as a layer that reads everything that the level before gives."""
        operand = self._through(member.operand)
        places, width = self._positions(operand, before)
        if isinstance(before, Input) and ends:  # the standardisation has scale and offset already
            operand = Vector(operand.columns, np.ones(len(places)), np.zeros(len(places)))
        if isinstance(member, Dense):
            weights = {"0.x": member.weights.astype(np.float32), "0.b": member.bias.astype(np.float32)}
            cell = DenseCell(phi=member.function or _IDENTITY)
            layer = Layer(cell, len(places), member.units, weights)
        else:
            layer = member.layer
        layer = replace(layer, beside=k > 0)
        straight = len(places) == width and (places == np.arange(width)).all()
        if straight and not operand.offset.any() and (operand.scale == 1).all():
            return layer
        chosen = np.zeros((len(places), width))
        self.net.spend(chosen.size)
        used = np.flatnonzero(places >= 0)
        chosen[used, places[used]] = operand.scale[used]
        parameters = dict(layer.parameters)
        for j, phase in enumerate(layer.cell.phases):
            if "x" in phase.operands:
                matrix = parameters[f"{j}.x"].astype(np.float64)
                parameters[f"{j}.x"] = (matrix @ chosen).astype(np.float32)
                shift = (matrix @ operand.offset).reshape(-1, layer.units)
                biases = parameters[f"{j}.b"].astype(np.float64).reshape(-1, layer.units)
                gates = list(phase.gates)
                for row, gate in zip(shift, phase.rows("x"), strict=True):
                    biases[gates.index(gate)] += row
                parameters[f"{j}.b"] = biases.reshape(-1).astype(np.float32)
        return replace(layer, inputs=width, parameters=parameters)

    def _ends(
        self, stack: list[list[Layer]], levels: Sequence[_Level], vector: Vector
    ) -> tuple[Layer | None, np.ndarray, np.ndarray]:
        """The head, and the mean and scale of the outputs; a last dense layer leaves the stack to be the head."""
        places, width = self._positions(vector, levels[0].members)
        straight = len(places) == width and bool((places == np.arange(width)).all())
        scale, mean = vector.scale.astype(np.float32), vector.offset.astype(np.float32)
        head: Layer | None = None
        if not straight:
            weights = np.zeros((len(places), width), np.float32)
            used = np.flatnonzero(places >= 0)
            weights[used, places[used]] = scale[used]
            head = Layer(DenseCell(phi=_IDENTITY), width, len(places), {"0.x": weights, "0.b": mean})
            return head, np.zeros(len(places), np.float32), np.ones(len(places), np.float32)
        last = levels[0]
        if not last.recurrent and len(last.members) == 1:
            (head,) = stack.pop()
        if not (np.isfinite(scale).all() and np.isfinite(mean).all() and (scale != 0).all()):
            raise self.fault("be scaled by numbers that float32 can hold and that are not 0")
        return head, mean, scale
