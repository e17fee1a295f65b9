"""A network: recurrent layers, an optional dense head, their parameters, and the float forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from hwrnn.activations import NONLINEARITIES
from hwrnn.cells import Cell, Dense, Phase, Values, cell_named
from hwrnn.directions import (
    checked_initial,
    encoder_fault,
    flipped,
    groups_of,
    last_recurrent,
    layers_fault,
    with_finals,
)
from hwrnn.errors import UsageError
from hwrnn.initialisation import initial_matrix, initialisation

__all__ = [
    "Layer",
    "LayerRun",
    "Model",
    "build_model",
    "check_input",
    "encoder_fault",
    "flipped",
    "repeated",
    "standardised",
]

#: Called with a value's name and its array (N, units) of one time step, for the first ``n`` sequences still
#: running.
Recorder = Callable[[str, np.ndarray, int], None]


@dataclass(frozen=True, eq=False)
class LayerRun:
    """What a layer computed.

    Attributes:
        steps: the output at every step, (N, T, units), zero beyond a sequence's length. A reverse layer's stands at the
            steps that it read.
        final: each state after the last step that the layer ran (step 0 of a reverse one), (N, units) by name.
    """

    steps: np.ndarray
    final: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Layer:
    """A cell with its sizes and parameters.

    Attributes:
        cell: the cell with its nonlinearities.
        inputs: features of an input vector.
        units: hidden units (outputs of a dense layer).
        parameters: ``"K.NAME"`` for phase K: the matrix of operand NAME, shape (rows * units, size of the
            operand), rows in the order of ``phase.rows(NAME)``, gate by gate; and ``"K.b"``, the biases,
            shape (gates * units,).
        initial: float32 (units,) by state: where a sequence starts; a state that is not named starts at zero.
        reverse: whether it runs from each sequence's last step to its first.
        beside: whether it reads what the layer before it reads, and its output stands behind that one's.
    """

    cell: Cell
    inputs: int
    units: int
    parameters: dict[str, np.ndarray]
    initial: Mapping[str, np.ndarray] = field(default_factory=dict, kw_only=True)
    reverse: bool = field(default=False, kw_only=True)
    beside: bool = field(default=False, kw_only=True)

    def size_of(self, operand: str) -> int:
        """The length of an operand vector."""
        return self.inputs if operand == "x" else self.units

    @staticmethod
    def shapes(cell: Cell, inputs: int, units: int) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter of a cell at given sizes."""
        shapes: dict[str, tuple[int, ...]] = {}
        for k, phase in enumerate(cell.phases):
            for operand in phase.operands:
                size = inputs if operand == "x" else units
                shapes[f"{k}.{operand}"] = (len(phase.rows(operand)) * units, size)
            shapes[f"{k}.b"] = (len(phase.gates) * units,)
        return shapes

    def block(self, gate: str, operand: str) -> np.ndarray:
        """The (units, size) view of one gate's weights of one operand, or its (units,) biases for ``"b"``."""
        for k, phase in enumerate(self.cell.phases):
            if gate in phase.gates:
                rows = tuple(phase.gates) if operand == "b" else phase.rows(operand)
                start = rows.index(gate) * self.units
                return self.parameters[f"{k}.{operand}"][start : start + self.units]
        raise KeyError(gate)

    @property
    def multiplications(self) -> int:
        """Weight multiplications in one time step."""
        return sum(p.size for name, p in self.parameters.items() if not name.endswith(".b"))

    def product(self, phase: Phase, operands: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
        """The pre-activations of a phase, gate to (N, units), from its operand vectors (N, size)."""
        k, units = self.cell.phases.index(phase), self.units
        sums = {gate: self.block(gate, "b") for gate in phase.gates}
        for name in phase.operands:
            rows = operands(name) @ self.parameters[f"{k}.{name}"].T
            for j, gate in enumerate(phase.rows(name)):
                sums[gate] = sums[gate] + rows[:, j * units : (j + 1) * units]
        return sums

    def forward(self, x: np.ndarray, lengths: np.ndarray, record: Recorder | None = None) -> np.ndarray:
        """The output at every step, (N, T, units), of inputs (N, T, inputs); zero beyond a sequence's length.

        ``record`` sees every stored value and, as ``a.GATE``, every pre-activation.
        """
        return self.run(x, lengths, record=record).steps

    def run(
        self,
        x: np.ndarray,
        lengths: np.ndarray,
        initial: Mapping[str, np.ndarray] | None = None,
        record: Recorder | None = None,
    ) -> LayerRun:
        """Outputs and last states for inputs (N, T, inputs) of given lengths.

        ``initial`` holds (N, units) by state, over the layer's constants; ``record`` sees values as in :meth:`forward`.
        """
        if not self.cell.states:
            valid = np.arange(x.shape[1]) < lengths[:, None]
            spread = np.zeros((*x.shape[:2], self.units), x.dtype)
            spread[valid] = getattr(self.step(x[valid], {}, record), self.cell.output)
            return LayerRun(spread, {})
        x = flipped(x, lengths) if self.reverse else x
        order = np.argsort(-lengths, kind="stable")
        running = [int((lengths > t).sum()) for t in range(x.shape[1])]
        x = x[order]
        state = {name: self._start(name, initial or {}, x.dtype, order) for name in self.cell.states}
        last = {name: value.copy() for name, value in state.items()}
        out = np.zeros((*x.shape[:2], self.units), x.dtype)
        for t, n in enumerate(running):
            if n == 0:
                break
            s = self.step(x[:n, t], {name: v[:n] for name, v in state.items()}, record)
            state = {name: getattr(s, name) for name in self.cell.states}
            for name, value in state.items():
                last[name][:n] = value
            out[:n, t] = getattr(s, self.cell.output)
        result = np.empty_like(out)
        result[order] = out
        final = {name: np.empty_like(value) for name, value in last.items()}
        for name, value in last.items():
            final[name][order] = value
        return LayerRun(flipped(result, lengths) if self.reverse else result, final)

    def _start(self, name: str, given: Mapping[str, np.ndarray], kind: Any, order: np.ndarray) -> np.ndarray:
        """A state before the first step, (N, units)."""
        if name in given:
            return np.asarray(given[name], kind)[order]
        constant = np.asarray(self.initial.get(name, 0), kind)
        return np.broadcast_to(constant, (len(order), self.units)).copy()

    def step(self, x: np.ndarray, state: dict[str, np.ndarray], record: Recorder | None = None) -> Values:
        """One time step on float arrays: ``x`` (n, inputs), states (n, units)."""

        def store(name: str, value: np.ndarray) -> np.ndarray:
            if record is not None:
                record(name, value, len(value))
            return value

        def product(phase: Phase, s: Values) -> dict[str, np.ndarray]:
            sums = self.product(phase, lambda name: x if name == "x" else getattr(s, name))
            if record is not None:
                for gate, value in sums.items():
                    record(f"a.{gate}", value, len(value))
            return sums

        return self.cell.run(product, Values(state, store))


#: A layer, float or quantized.
L = TypeVar("L", bound="Sized")


class Sized(Protocol):
    """What a stack asks of its layers."""

    @property
    def inputs(self) -> int:
        """Length of an input vector."""
        ...

    @property
    def units(self) -> int:
        """Length of an output vector."""
        ...

    @property
    def cell(self) -> Cell:
        """What it computes."""
        ...

    @property
    def initial(self) -> Mapping[str, np.ndarray]:
        """Where its states start, if not at zero."""
        ...

    @property
    def reverse(self) -> bool:
        """Whether it runs from the last step to the first."""
        ...

    @property
    def beside(self) -> bool:
        """Whether it reads what the layer before it reads."""
        ...


@dataclass(frozen=True, eq=False)
class Stack(Generic[L]):
    """What float and integer networks share.

    Attributes:
        layers: recurrent and dense layers, from the input on.
        head: a dense layer behind the last one, or None (then the output is the last layer's state).
        every_step: whether there is an output at every step, or only for the last of a sequence.
        task: ``classification`` or ``regression``.
        input_mean, input_scale: per-channel standardisation of the input, ``(x - mean) * scale``, float32 (inputs,).
        output_mean, output_scale: what turns an output into target units, ``y * scale + mean``, float32 (outputs,).
        encoder: how many of the layers encode. What the last of them gives at a sequence's last step, the code, is then
            the input of the next layer at every step of the sequence (Cho et al. 2014; as an autoencoder, Srivastava
            et al. 2015). 0: every layer reads each step of the one before.
        final_state: where there is one output for a sequence, whether it comes of each layer's own last state instead
            of the output at the sequence's last step; they differ for reverse layers only, so it is False without one
            in the last recurrent group.

    Raises:
        UsageError: layers that do not fit together.
    """

    layers: tuple[L, ...]
    head: L | None
    every_step: bool
    task: str
    input_mean: np.ndarray
    input_scale: np.ndarray
    output_mean: np.ndarray
    output_scale: np.ndarray
    encoder: int = field(default=0, kw_only=True)
    final_state: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        fault = layers_fault(self.layers, self.head, self.every_step, self.encoder, self.final_state)
        if fault is not None:
            raise UsageError(fault)
        if self.final_state and not any(self.layers[k].reverse for k in last_recurrent(self.layers)):
            object.__setattr__(self, "final_state", False)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The indices of the layers that stand side by side, from the input on."""
        return groups_of(self.layers)

    def sources(self, layer: int) -> tuple[int, ...]:
        """The layers whose outputs, side by side, a layer of the stack reads; none for those that read the input."""
        before: tuple[int, ...] = ()
        for group in self.groups:
            if layer in group:
                return before
            before = group
        return before

    @property
    def stack(self) -> tuple[L, ...]:
        """All layers in order, the head last."""
        return self.layers if self.head is None else (*self.layers, self.head)

    @property
    def inputs(self) -> int:
        """Features of an input vector."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Length of an output vector."""
        return sum(self.layers[k].units for k in self.groups[-1]) if self.head is None else self.head.units


@dataclass(frozen=True, eq=False)
class Model(Stack[Layer]):
    """A float network: a :class:`Stack`, and in ``facts`` what is known of the training, as plain JSON values."""

    facts: dict[str, Any] = field(default_factory=dict)

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """Inputs (N, T, inputs) as the first layer sees them, float32 as the hardware's host computes them."""
        return standardised(x, self.input_mean, self.input_scale)

    def predict(
        self, x: Any, lengths: Any = None, initial: Mapping[int, Mapping[str, Any]] | None = None
    ) -> np.ndarray:
        """Scores or values, (N, outputs) or with ``every_step`` (N, T, outputs), for float ``x`` (N, T, inputs).

        Args:
            initial: states (N, units) by layer and state, over the layers' constants.

        Raises:
            UsageError: a wrong shape, NaN or infinite values, or lengths outside 1..T.
        """
        x, lengths = check_input(x, lengths, self.inputs)
        given = checked_initial(self.layers, initial, len(x))
        return self.forward(self.standardised(x), lengths, initial=given) * self.output_scale + self.output_mean

    def run_layers(
        self, x: Any, lengths: Any = None, initial: Mapping[int, Mapping[str, Any]] | None = None
    ) -> list[LayerRun]:
        """What every one of ``layers`` computes; arguments and errors are those of :meth:`predict`."""
        x, lengths = check_input(x, lengths, self.inputs)
        runs: list[LayerRun] = []
        self._behind_layers(self.standardised(x), lengths, None, checked_initial(self.layers, initial, len(x)), runs)
        return runs

    def forward(
        self,
        x: np.ndarray,
        lengths: np.ndarray,
        record: Callable[[int, str, np.ndarray, int], None] | None = None,
        initial: Mapping[int, Mapping[str, np.ndarray]] | None = None,
    ) -> np.ndarray:
        """The raw outputs for standardised inputs; ``record`` also gets each layer's index, first of all."""
        x = self._behind_layers(x, lengths, record, initial or {}, None)
        if not self.every_step:
            x = x[np.arange(len(x)), lengths - 1]
        if self.head is not None:
            flat = x.reshape(-1, self.head.inputs)
            seen = None if record is None else lambda *value: record(len(self.layers), *value)
            x = self.head.step(flat, {}, seen).y.reshape(*x.shape[:-1], self.head.units)
        return x

    def _behind_layers(
        self,
        x: np.ndarray,
        lengths: np.ndarray,
        record: Callable[[int, str, np.ndarray, int], None] | None,
        initial: Mapping[int, Mapping[str, np.ndarray]],
        runs: list[LayerRun] | None,
    ) -> np.ndarray:
        """What the head reads, (N, T, units); ``runs`` collects what the layers compute."""
        for group in self.groups:
            found = []
            for k in group:
                seen = None if record is None else lambda *value, k=k: record(k, *value)
                found.append(self.layers[k].run(x, lengths, initial.get(k), seen))
            if runs is not None:
                runs += found
            x = found[0].steps if len(found) == 1 else np.concatenate([run.steps for run in found], axis=2)
            if self.final_state and group == last_recurrent(self.layers):
                x = with_finals(x, [self.layers[k] for k in group], lengths)
            if group[-1] + 1 == self.encoder:
                x = repeated(x, lengths)
                if record is not None:
                    code = np.repeat(x[:, 0], lengths, axis=0)
                    for k in self.groups[self.groups.index(group) + 1]:
                        record(k, "x", code, len(code))
        return x


def repeated(vectors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Each sequence's vector at its last step, at every step: (N, T, units) of vectors of that shape."""
    last = vectors[np.arange(len(vectors)), lengths - 1]
    return np.broadcast_to(last[:, None], vectors.shape)


def standardised(x: Any, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``(x - mean) * scale`` per channel (last axis), each operation in float32: float and fixed model share it."""
    return np.asarray((np.asarray(x, np.float32) - mean) * scale, np.float32)


def check_input(x: Any, lengths: Any, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs as float32 (N, T, inputs) and lengths as int64 (N,), every length T where None is given.

    Raises:
        UsageError: a wrong shape, NaN or infinite values, or lengths outside 1..T.
    """
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is told below
            x = np.asarray(x, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError("Input must be an array of numbers of shape (sequences, steps, features)") from error
    if x.ndim != 3 or 0 in x.shape:
        raise UsageError(f"Input must have shape (sequences, steps, features), none 0, not {x.shape!r}")
    if x.shape[2] != inputs:
        raise UsageError(f"Input must have {inputs} features as the model does, not {x.shape[2]}")
    if not np.isfinite(x).all():
        raise UsageError("Input must be finite: remove or fill the NaN and infinite values")
    steps = np.full(len(x), x.shape[1]) if lengths is None else np.asarray(lengths)
    if steps.shape != (len(x),) or steps.dtype.kind not in "iu":
        raise UsageError(f"Lengths must be {len(x)} whole numbers, one for each sequence")
    if steps.min() < 1 or steps.max() > x.shape[1]:
        raise UsageError(f"Lengths must be between 1 and {x.shape[1]}, not {steps.min()} to {steps.max()}")
    return x, steps.astype(np.int64)


def build_model(
    inputs: int,
    outputs: int | None,
    *,
    cell: str = "lstm",
    hidden: int | Sequence[int] = 32,
    layers: int | None = None,
    activation: str | None = None,
    gate: str | None = None,
    cell_clip: float | None = None,
    every_step: bool = False,
    task: str = "classification",
    init: str = "orthogonal",
    seed: int = 0,
    encoder: int = 0,
    bidirectional: bool = False,
    output_activation: str | None = None,
) -> Model:
    """A new network with initialised parameters.

    Args:
        inputs: features of an input vector.
        outputs: length of the dense head's output; None leaves the head out.
        cell: a name of ``hwrnn.cells.CELLS``.
        hidden: units of every layer, or a sequence with one number for each.
        layers: recurrent layers; None for as many as ``hidden`` has numbers.
        activation, gate: nonlinearities of the state and of the gates by name; the cell's defaults where
            None.
        cell_clip: bound of an LSTM's cell state.
        every_step: whether the head reads every step or the last one.
        task: ``classification`` or ``regression``.
        init: of the recurrent matrices: ``orthogonal`` (Saxe et al. 2014), ``identity`` (Le et al. 2015),
            ``glorot`` (Glorot and Bengio 2010), or ``scaled``: Gaussian, scaled to a 2-norm of 0.9. A factor may
            follow all but ``glorot``, and is that norm: ``orthogonal:0.5``, ``identity:0.9``, ``scaled:0.7``. Input
            matrices are always Glorot's.
        seed: of the random generator.
        encoder: how many of the layers encode, see :class:`Stack`; needs ``every_step``.
        bidirectional: whether each layer is a pair, one forward and one in reverse beside it, of ``hidden`` units each.
            An output for a whole sequence then comes of both ones' last states. Counts of layers are counts of pairs.
        output_activation: nonlinearity between an LSTM's cell state and its output; None for that of ``activation``.

    Raises:
        UsageError: an argument outside its range, or an unknown name.
    """
    head_size = 1 if outputs is None else outputs
    if layers is None:
        layers = max(len(hidden), 1) if isinstance(hidden, Sequence) else 1
    for name, value in (("Inputs", inputs), ("Outputs", head_size), ("Layers", layers)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
    sizes = list(hidden) if isinstance(hidden, Sequence) else [hidden] * layers
    if any(not isinstance(n, (int, np.integer)) or n < 1 for n in sizes):
        raise UsageError(f"Hidden units must be whole numbers of at least 1, not {hidden!r}")
    if len(sizes) != layers:
        raise UsageError(f"Hidden units must be given for each of the {layers} layers, not for {len(sizes)}")
    if task not in ("classification", "regression"):
        raise UsageError(f"Task must be classification or regression, not {task!r}")
    if not isinstance(bidirectional, bool):
        raise UsageError(f"Bidirectional must be True or False, not {bidirectional!r}")
    chosen_init = initialisation(init)
    fault = encoder_fault(encoder, layers, every_step)
    if fault is not None:
        raise UsageError(f"Encoder must {fault}")
    try:
        chosen = cell_named(cell, gate, activation, cell_clip, output_activation)
    except ValueError as error:
        raise UsageError(str(error)) from error
    rng = np.random.default_rng(seed)
    stack, width = [], inputs
    for units in sizes:
        for reverse in (False, True)[: 1 + bidirectional]:
            made = _new_layer(chosen, width, units, chosen_init, rng)
            stack.append(replace(made, reverse=reverse, beside=reverse))
        width = units * (1 + bidirectional)
    head = None if outputs is None else _new_layer(_DENSE, width, outputs, ("glorot", 1.0), rng)
    last = width if outputs is None else outputs
    one, zero = np.ones, np.zeros
    return Model(
        tuple(stack), head, every_step, task,
        zero(inputs, np.float32), one(inputs, np.float32), zero(last, np.float32), one(last, np.float32),
        encoder=int(encoder) * (1 + bidirectional), final_state=bidirectional and not every_step,
    )  # fmt: skip


_DENSE = Dense(phi=NONLINEARITIES["identity"])


def _new_layer(cell: Cell, inputs: int, units: int, init: tuple[str, float], rng: np.random.Generator) -> Layer:
    parameters = {}
    for name, shape in Layer.shapes(cell, inputs, units).items():
        k, operand = name.split(".")
        phase = cell.phases[int(k)]
        if operand == "b":
            blocks = [np.full(units, cell.bias.get(gate, 0.0)) for gate in phase.gates]
        else:
            kind, factor = ("glorot", 1.0) if operand == "x" else init
            blocks = [factor * initial_matrix(kind, units, shape[1], rng) for _ in phase.rows(operand)]
        parameters[name] = np.concatenate(blocks).astype(np.float32)
    return Layer(cell, inputs, units, parameters)
