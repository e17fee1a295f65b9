"""A network: recurrent layers, an optional dense head, their parameters, and the float forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from hwrnn.activations import NONLINEARITIES
from hwrnn.cells import Cell, Dense, Phase, Values, cell_named
from hwrnn.errors import UsageError
from hwrnn.initialisation import initial_matrix, initialisation

__all__ = ["Layer", "Model", "build_model", "check_input", "encoder_fault", "repeated", "standardised"]

#: Called with a value's name and its array (N, units) of one time step, for the first ``n`` sequences still
#: running.
Recorder = Callable[[str, np.ndarray, int], None]


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
    """

    cell: Cell
    inputs: int
    units: int
    parameters: dict[str, np.ndarray]

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
        order = np.argsort(-lengths, kind="stable")
        running = [int((lengths > t).sum()) for t in range(x.shape[1])]
        x = x[order]
        state = {name: np.zeros((len(x), self.units), x.dtype) for name in self.cell.states}
        out = np.zeros((*x.shape[:2], self.units), x.dtype)
        for t, n in enumerate(running):
            if n == 0:
                break
            s = self.step(x[:n, t], {name: v[:n] for name, v in state.items()}, record)
            state = {name: getattr(s, name) for name in self.cell.states}
            out[:n, t] = getattr(s, self.cell.output)
        result = np.empty_like(out)
        result[order] = out
        return result

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


@dataclass(frozen=True, eq=False)
class Stack(Generic[L]):
    """What float and integer networks share.

    Attributes:
        layers: recurrent layers, from the input on.
        head: a dense layer behind the last one, or None (then the output is the last layer's state).
        every_step: whether there is an output at every step, or only for the last of a sequence.
        task: ``classification`` or ``regression``.
        input_mean, input_scale: per-channel standardisation of the input, ``(x - mean) * scale``, float32 (inputs,).
        output_mean, output_scale: what turns an output into target units, ``y * scale + mean``, float32 (outputs,).
        encoder: how many of the layers encode. What the last of them gives at a sequence's last step, the code, is then
            the input of the next layer at every step of the sequence (Cho et al. 2014; as an autoencoder, Srivastava
            et al. 2015). 0: every layer reads each step of the one before.
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
        return self.stack[-1].units


@dataclass(frozen=True, eq=False)
class Model(Stack[Layer]):
    """A float network: a :class:`Stack`, and in ``facts`` what is known of the training, as plain JSON values."""

    facts: dict[str, Any] = field(default_factory=dict)

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """Inputs (N, T, inputs) as the first layer sees them, float32 as the hardware's host computes them."""
        return standardised(x, self.input_mean, self.input_scale)

    def predict(self, x: Any, lengths: Any = None) -> np.ndarray:
        """Scores or values, (N, outputs) or with ``every_step`` (N, T, outputs), for float ``x`` (N, T, inputs).

        Raises:
            UsageError: a wrong shape, NaN or infinite values, or lengths outside 1..T.
        """
        x, lengths = check_input(x, lengths, self.inputs)
        return self.forward(self.standardised(x), lengths) * self.output_scale + self.output_mean

    def forward(
        self,
        x: np.ndarray,
        lengths: np.ndarray,
        record: Callable[[int, str, np.ndarray, int], None] | None = None,
    ) -> np.ndarray:
        """The raw outputs for standardised inputs; ``record`` also gets each layer's index, first of all."""
        for k, layer in enumerate(self.layers):
            if record is None:
                x = layer.forward(x, lengths)
            else:
                x = layer.forward(x, lengths, lambda *value, k=k: record(k, *value))
            if k + 1 == self.encoder:
                x = repeated(x, lengths)
                if record is not None:
                    code = np.repeat(x[:, 0], lengths, axis=0)
                    record(k + 1, "x", code, len(code))
        if not self.every_step:
            x = x[np.arange(len(x)), lengths - 1]
        if self.head is not None:
            flat = x.reshape(-1, self.head.inputs)
            seen = None if record is None else lambda *value: record(len(self.layers), *value)
            x = self.head.step(flat, {}, seen).y.reshape(*x.shape[:-1], self.head.units)
        return x


def repeated(vectors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Each sequence's vector at its last step, at every step: (N, T, units) of vectors of that shape."""
    last = vectors[np.arange(len(vectors)), lengths - 1]
    return np.broadcast_to(last[:, None], vectors.shape)


def encoder_fault(encoder: int, layers: int, every_step: bool) -> str | None:
    """What is wrong with so many encoding layers, as the end of a sentence that begins "Encoder must ..."."""
    if not isinstance(encoder, (int, np.integer)) or isinstance(encoder, bool) or encoder < 0:
        return f"be a whole number of at least 0, not {encoder!r}"
    if encoder >= layers and encoder:
        return f"leave a layer that decodes, so be less than the {layers} layers, not {encoder}: add a layer"
    if encoder and not every_step:
        return f"be 0 for a network with one output for a sequence, not {encoder}: a decoder gives one at every step"
    return None


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
    chosen_init = initialisation(init)
    fault = encoder_fault(encoder, layers, every_step)
    if fault is not None:
        raise UsageError(f"Encoder must {fault}")
    try:
        chosen = cell_named(cell, gate, activation, cell_clip)
    except ValueError as error:
        raise UsageError(str(error)) from error
    rng = np.random.default_rng(seed)
    stack, width = [], inputs
    for units in sizes:
        stack.append(_new_layer(chosen, width, units, chosen_init, rng))
        width = units
    head = None if outputs is None else _new_layer(_DENSE, width, outputs, ("glorot", 1.0), rng)
    last = width if outputs is None else outputs
    one, zero = np.ones, np.zeros
    return Model(
        tuple(stack), head, every_step, task,
        zero(inputs, np.float32), one(inputs, np.float32), zero(last, np.float32), one(last, np.float32),
        encoder=int(encoder),
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
