"""Networks put together of arrays: what readers of other libraries' networks share.

A :class:`Chain` takes layers in the order in which a network applies them, and carries the scales and offsets between
them along until a layer's weights take them over.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hwrnn.activations import Nonlinearity, nonlinearity
from hwrnn.cells import Cell, Dense
from hwrnn.errors import UsageError
from hwrnn.model import Layer, Model

__all__ = ["Chain", "agreeing", "dense_of", "layer_of", "log_softmax", "softmax"]

_IDENTITY = nonlinearity("identity")
_AGREES = 1e-4  # of the largest output: float32 is a hundred times better, a wrong weight a hundred times worse


def layer_of(
    cell: Cell,
    weights: Mapping[tuple[str, str], np.ndarray],
    biases: Mapping[str, np.ndarray],
    *,
    reverse: bool = False,
) -> Layer:
    """A layer from its blocks: (units, size) by gate and operand, and biases (units,) by gate.

    Raises:
        UsageError: numbers that are not finite in float32.
    """
    parameters = {}
    for k, phase in enumerate(cell.phases):
        for operand in phase.operands:
            parameters[f"{k}.{operand}"] = np.concatenate([weights[gate, operand] for gate in phase.rows(operand)])
        parameters[f"{k}.b"] = np.concatenate([biases[gate] for gate in phase.gates])
    gate, operand = next((g, o) for g, o in weights if o == "x")
    units, inputs = weights[gate, operand].shape
    return Layer(cell, inputs, units, _in_float32(parameters), reverse=reverse)


def dense_of(weight: np.ndarray, bias: np.ndarray | None, function: Nonlinearity = _IDENTITY) -> Layer:
    """A dense layer of a matrix (outputs, inputs) and biases (outputs,), zero where None."""
    units, inputs = weight.shape
    made = {"0.x": np.asarray(weight), "0.b": np.zeros(units) if bias is None else np.asarray(bias)}
    return Layer(Dense(phi=function), inputs, units, _in_float32(made))


def softmax(x: np.ndarray) -> np.ndarray:
    """Of the last axis, ``exp(x)`` over its sum."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def log_softmax(x: np.ndarray) -> np.ndarray:
    """The logarithm of :func:`softmax`."""
    shifted = x - x.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _in_float32(parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with np.errstate(over="ignore"):
        made = {name: np.asarray(values).astype(np.float32) for name, values in parameters.items()}
    if not all(np.isfinite(values).all() for values in made.values()):
        raise UsageError("Weights must be finite and within float32")
    return made


@dataclass
class Chain:
    """The layers so far.

    Attributes:
        layers: in order.
        scale, offset: what the features are multiplied with and then shifted by on their way to the next layer, float64
            (width,) or of no dimensions.
    """

    layers: list[Layer] = field(default_factory=list)
    scale: np.ndarray = field(default_factory=lambda: np.ones(()))
    offset: np.ndarray = field(default_factory=lambda: np.zeros(()))
    _input: tuple[np.ndarray, np.ndarray] = field(default_factory=lambda: (np.ones(()), np.zeros(())))
    _stack: int = 0  # layers side by side at the end

    @property
    def width(self) -> int | None:
        """Features of what the next layer reads; None before the first layer."""
        return sum(layer.units for layer in self.layers[len(self.layers) - self._stack :]) if self.layers else None

    def add(self, *beside: Layer) -> None:
        """Put layers behind the others, side by side.

        Raises:
            UsageError: inputs that are not what stands before them.
        """
        for layer in beside:
            if self.width is not None and layer.inputs != self.width:
                raise UsageError(f"Layer must read the {self.width} features before it, not {layer.inputs}")
        if not self.layers and np.all(self.scale != 0):
            self._input = self.scale, self.offset
        else:
            beside = tuple(_rescaled(layer, self.scale, self.offset) for layer in beside)
        self.scale, self.offset = np.ones(()), np.zeros(())
        self.layers += [replace(layer, beside=k > 0) for k, layer in enumerate(beside)]
        self._stack = len(beside)

    def affine(self, scale: np.ndarray | float, offset: np.ndarray | float) -> None:
        """Multiply the features and then shift them."""
        self.scale, self.offset = self.scale * scale, self.offset * scale + offset

    def apply(self, function: Nonlinearity) -> None:
        """Apply a nonlinearity to every feature.

        Raises:
            UsageError: one before the first layer, where the number of features is not known.
        """
        if function == _IDENTITY:
            return
        if self.width is None:
            raise UsageError("Nonlinearity must come behind a layer, not before the first")
        last = self.layers[-1]
        if last.cell == Dense(phi=_IDENTITY) and self._stack == 1:
            weight = np.asarray(self.scale).reshape(-1, 1) * last.parameters["0.x"]
            self.layers[-1] = dense_of(weight, last.parameters["0.b"] * self.scale + self.offset, function)
            self.scale, self.offset = np.ones(()), np.zeros(())
        else:
            self.add(dense_of(np.eye(self.width), None, function))

    def model(self, *, every_step: bool, final_state: bool = False, task: str = "classification") -> Model:
        """The model; scales and offsets behind the last layer bring outputs into the target's units.

        Raises:
            UsageError: no recurrent layer, or a task that there is none of.
        """
        if task not in ("classification", "regression"):
            raise UsageError(f"Task must be classification or regression, not {task!r}")
        if not any(layer.cell.states for layer in self.layers):
            raise UsageError("Network must have a recurrent layer, not none")
        has_head = self._stack == 1 and not self.layers[-1].cell.states
        layers, head = (self.layers[:-1], self.layers[-1]) if has_head else (self.layers, None)
        first, last = self.layers[0].inputs, self.width or 0
        scale, offset = (np.broadcast_to(v, first).astype(np.float64) for v in self._input)
        after, shift = (np.broadcast_to(v, last).astype(np.float32) for v in (self.scale, self.offset))
        mean = (-offset / scale).astype(np.float32)
        return Model(
            tuple(layers), head, every_step, task, mean, scale.astype(np.float32), shift, after, final_state=final_state
        )


def _rescaled(layer: Layer, scale: np.ndarray, offset: np.ndarray) -> Layer:
    """The layer that reads ``x * scale + offset`` where the given one reads ``x``."""
    if np.all(scale == 1) and np.all(offset == 0):
        return layer
    made = dict(layer.parameters)
    for k, phase in enumerate(layer.cell.phases):
        if "x" not in phase.operands:
            continue
        weight = layer.parameters[f"{k}.x"].astype(np.float64)
        made[f"{k}.x"] = weight * scale
        shift = (weight @ np.broadcast_to(offset, layer.inputs)).reshape(-1, layer.units)
        bias = layer.parameters[f"{k}.b"].astype(np.float64).reshape(-1, layer.units)
        for gate, own in zip(phase.rows("x"), shift, strict=True):
            bias[list(phase.gates).index(gate)] += own
        made[f"{k}.b"] = bias.ravel()
    return replace(layer, parameters=_in_float32(made))


def agreeing(
    model: Model,
    original: Callable[[np.ndarray, np.ndarray | None], np.ndarray],
    what: str,
    lengths: Sequence[bool] = (False,),
    finish: Callable[[np.ndarray], np.ndarray] = np.asarray,
    mend: str = "",
    steps: Sequence[int] = (6, 9),
) -> Model:
    """The model, where it computes on random data what the network computes that it was read from.

    Args:
        original: the network's own outputs for inputs (N, T, inputs) and lengths (N,) or None.
        what: the network's name in the message.
        lengths: whether to try with lengths, without, or both.
        finish: what the network does with a model's outputs and the model leaves to the host.
        mend: a remedy for the message.
        steps: lengths of the sequences to try.

    Raises:
        UsageError: outputs that differ.
    """
    rng = np.random.default_rng(0x70C4)
    for with_lengths, (n, t) in [(chosen, (3 - k, t)) for chosen in lengths for k, t in enumerate(steps)]:
        x = rng.standard_normal((n, t, model.inputs)) / np.where(model.input_scale, model.input_scale, 1)
        x = (x + model.input_mean).astype(np.float32)
        ends = np.maximum(np.arange(t, t - n, -1), 1) if with_lengths else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the other library, on how it computes
            due = np.array(original(x, ends), np.float64)
        found = finish(model.predict(x, ends))
        if ends is not None and model.every_step:
            due[np.arange(t) >= ends[:, None]] = found[np.arange(t) >= ends[:, None]] = 0
        if due.size != found.size:
            raise UsageError(f"{what} must give outputs of shape {found.shape} as its layers do, not {due.shape}")
        error = np.abs(due.reshape(found.shape) - found).max()
        if not error <= _AGREES * max(np.abs(due).max(), 1e-3):
            raise UsageError(
                f"{what} must compute what its layers say, but its own outputs are up to {error:.3g} away from theirs"
                + (f": {mend}" if mend else "")
            )
    return model
