"""Keras networks as models: ``.keras`` files, and models in memory.

A file is a zip archive of a description (``config.json``) and weights (HDF5). The description is read here first: every
object in it must be Keras' own and of a known kind, and the weights must lie in the archive. Only then Keras builds the
network, in its safe mode, which refuses code. Nothing is unpickled.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwrnn.activations import Nonlinearity, nonlinearity
from hwrnn.cells import cell_named
from hwrnn.errors import UsageError, require
from hwrnn.importing.chains import Chain, agreeing, dense_of, layer_of, softmax
from hwrnn.importing.functions import bounded, function_named
from hwrnn.importing.keras_archives import LAYERS, PASSED, RECURRENT, check_archive, unknown
from hwrnn.model import Layer, Model

__all__ = ["from_keras"]

#: Keras' names of functions to hwrnn's; its hard sigmoid is x/6 + 1/2 since version 3.
_FUNCTIONS = {
    "linear": "identity", "tanh": "tanh", "sigmoid": "sigmoid", "relu": "relu", "relu6": "relu6",
    "hard_sigmoid": "hard_sigmoid_1_6", "hard_tanh": "hard_tanh", "softsign": "softsign", "softplus": "softplus",
    "elu": "elu:1", "leaky_relu": "leaky:0.2",
}  # fmt: skip


def from_keras(source: Any, *, task: str = "classification") -> Model:
    """The float model of a Keras network, compared with what Keras computes.

    It reads (N, T, features) as Keras does. A last Softmax is left to the host, and a Masking layer to the lengths that
    a model is given; both are told by a warning.

    Args:
        source: a ``.keras`` file, or a Sequential or functional model in one row.
        task: ``classification`` or ``regression``.

    Raises:
        UsageError: a file that is not what Keras writes, or holds what is not Keras' own; a network that is not
            understood (the text names the layer and why); or one that computes something else than its layers say.
    """
    if isinstance(source, str | os.PathLike):
        return _Reader(_loaded(Path(source)), Path(source).name).model(task)
    keras = _keras()
    if not isinstance(source, keras.Model):
        raise UsageError(f"Network must be a .keras file or a Keras model, not {type(source).__name__}")
    return _Reader(source, str(source.name)).model(task)


def _keras() -> Any:
    """Keras, on torch where the back end that it would take is not there."""
    chosen = "KERAS_BACKEND" in os.environ or "keras" in sys.modules
    if not chosen and importlib.util.find_spec("tensorflow") is None and importlib.util.find_spec("torch") is not None:
        os.environ["KERAS_BACKEND"] = "torch"
        try:
            return require("keras", "keras")
        finally:
            del os.environ["KERAS_BACKEND"]
    return require("keras", "keras")


# -- files -------------------------------------------------------------------------------------------------------------
def _loaded(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"File {str(path)!r} must be readable, but is not: {error.strerror}") from error
    keras = _keras()
    check_archive(data, path.name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"File {path.name!r} must be one that Keras {keras.__version__} reads: {reason}") from error


# -- networks ----------------------------------------------------------------------------------------------------------
class _Reader:
    """Reads the layers of a network in their order.

    Attributes:
        steps: ``all``, ``last`` or ``final``, as outputs stand behind the layers so far.
        mask: the value of steps that count for nothing, or None.
        notes: what was left to the host.
    """

    def __init__(self, network: Any, name: str) -> None:
        self.network, self.name = network, name
        self.chain, self.steps = Chain(), "all"
        self.mask: float | None = None
        self.notes: list[str] = []
        self.scores = False

    def model(self, task: str) -> Model:
        """The network's model."""
        for layer in _in_order(self.network):
            if self.scores:
                raise UsageError(f"Layer {layer.name!r} must not stand behind a softmax, which ends the model")
            try:
                self.layer(layer)
            except _Fault as error:
                raise UsageError(f"Layer {layer.name!r} must {error}") from error
        model = self.chain.model(every_step=self.steps == "all", final_state=self.steps == "final", task=task)
        fixed = self.network.input_shape[1]
        model = agreeing(
            model, self.original, f"Network {self.name!r}", (False, True) if self.mask is not None else (False,),
            softmax if self.scores else np.asarray, steps=(6, 9) if fixed is None else (fixed,),
        )  # fmt: skip
        for note in self.notes:
            warnings.warn(f"Network {self.name!r}: {note}", stacklevel=3)
        return model

    def original(self, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """What Keras computes."""
        keras = _keras()
        if lengths is not None and self.mask is not None:
            x = np.where((np.arange(x.shape[1]) < lengths[:, None])[:, :, None], x, self.mask)
        return np.asarray(keras.ops.convert_to_numpy(self.network(keras.ops.convert_to_tensor(x), training=False)))

    def layer(self, layer: Any) -> None:
        kind = type(layer).__name__
        if not type(layer).__module__.startswith("keras.") or kind not in LAYERS:
            raise unknown(kind, layer.name)
        if getattr(layer, "quantization_mode", None) is not None:
            raise _Fault("have float weights, not quantized ones")
        if kind in RECURRENT:
            self.recurrent(kind, layer)
        elif kind == "Bidirectional":
            self.bidirectional(layer)
        elif kind == "TimeDistributed":
            if type(layer.layer).__name__ not in LAYERS - RECURRENT - {"Bidirectional", "TimeDistributed", "Masking"}:
                raise unknown(type(layer.layer).__name__, layer.layer.name)
            self.layer(layer.layer)
        elif kind == "Dense":
            weight = _numbers(layer.kernel).T
            self.chain.add(dense_of(weight, _numbers(layer.bias) if layer.use_bias else None))
            self.activation(layer.activation)
        elif kind == "Activation":
            self.activation(layer.activation)
        elif kind == "Softmax":
            if layer.axis not in (-1, [-1]):
                raise _Fault(f"take its softmax over the features, not over axis {layer.axis}")
            self.softmax()
        elif kind in ("ReLU", "LeakyReLU", "ELU"):
            self.chain.apply(_function_of_layer(kind, layer))
        elif kind == "Masking":
            if self.chain.layers:
                raise _Fault("be the first layer")
            self.mask = float(layer.mask_value)
            self.notes.append(f"its Masking layer ({self.mask:g}) is left out: give a model the lengths of sequences")
        elif kind not in PASSED:
            self.chain.affine(*_scale_and_offset(kind, layer))

    def activation(self, function: Callable[..., Any]) -> None:
        name = _name_of(function)
        if name in ("softmax", "log_softmax"):
            if name == "log_softmax":
                raise _Fault("end with a softmax or without, not with a log_softmax")
            self.softmax()
        else:
            self.chain.apply(_function(name))

    def softmax(self) -> None:
        self.scores = True
        self.notes.append("its softmax is left to the host, and the model gives the scores that it reads")

    def recurrent(self, kind: str, layer: Any) -> None:
        self.may_run(layer)
        made = _recurrent(kind, layer.cell, bool(layer.go_backwards))
        if layer.go_backwards and layer.return_sequences:
            raise _Fault("not return sequences from the last step to the first: go_backwards comes with one output")
        self.chain.add(made)
        self.behind(layer.return_sequences, layer.go_backwards)

    def bidirectional(self, layer: Any) -> None:
        if layer.merge_mode != "concat":
            raise _Fault(f"have merge_mode 'concat', not {layer.merge_mode!r}")
        parts = []
        for own, backwards in ((layer.forward_layer, False), (layer.backward_layer, True)):
            kind = type(own).__name__
            if kind not in RECURRENT:
                raise unknown(kind, own.name)
            if bool(own.go_backwards) != backwards:
                raise _Fault("have a forward layer that goes forwards and a backward layer that goes backwards")
            self.may_run(own)
            parts.append(_recurrent(kind, own.cell, backwards))
        self.chain.add(*parts)
        self.behind(layer.forward_layer.return_sequences, True)

    def may_run(self, layer: Any) -> None:
        if self.steps != "all":
            raise _Fault("read a sequence, not the end of one")
        if layer.stateful:
            raise _Fault("start every sequence anew (stateful=False)")
        if getattr(layer, "return_state", False):
            raise _Fault("return its output alone (return_state=False)")

    def behind(self, sequences: bool, backwards: bool) -> None:
        if not sequences:
            self.steps = "final" if backwards else "last"


class _Fault(UsageError):
    """What is wrong with a layer, as the end of a sentence that begins "Layer ... must ..."."""


def _in_order(network: Any) -> list[Any]:
    """The layers of a network in one row, those of networks inside it among them.

    Raises:
        UsageError: a subclass with a forward pass of its own, or branches.
    """
    kind = type(network).__name__
    if kind not in ("Sequential", "Functional") or not type(network).__module__.startswith("keras."):
        raise UsageError(f"Network {network.name!r} must be Sequential or functional, not {kind} with its own code")
    row = list(network.layers) if kind == "Sequential" else _row(network)
    found = []
    for layer in row:
        found += _in_order(layer) if type(layer).__name__ in ("Sequential", "Functional") else [layer]
    return found


def _row(network: Any) -> list[Any]:
    """The layers of a functional network from its input to its output."""
    config = network.get_config()
    entries = {entry["name"]: entry for entry in config["layers"]}
    ends = [list(_histories(config[end])) for end in ("input_layers", "output_layers")]
    branched = UsageError(f"Network {network.name!r} must be one row of layers, without branches and side inputs")
    if any(len(found) != 1 for found in ends):
        raise branched
    (name, _, index) = ends[1][0]
    row = []
    while True:
        entry = entries[name]
        row.append(network.get_layer(name))
        calls = entry["inbound_nodes"]
        if index != 0 or len(calls) > 1:
            raise branched
        before = [h for call in calls for h in _tensors(call)]
        if not before:
            break
        if len(before) != 1:
            raise branched
        name, _, index = before[0]
    if len(row) != len(entries):
        raise branched
    return row[::-1]


def _histories(ends: Any) -> Iterator[tuple[str, int, int]]:
    """``[name, node, tensor]`` of one end of a network, or of each of several."""
    if ends and isinstance(ends[0], str):
        yield tuple(ends)
    else:
        for end in ends:
            yield from _histories(end)


def _tensors(what: Any) -> Iterator[tuple[str, int, int]]:
    """The tensors that a call in a description reads."""
    if isinstance(what, dict):
        if what.get("class_name") == "__keras_tensor__":
            yield tuple(what["config"]["keras_history"])
            return
        what = list(what.values())
    if isinstance(what, list | tuple):
        for part in what:
            yield from _tensors(part)


def _numbers(variable: Any) -> np.ndarray:
    return np.asarray(_keras().ops.convert_to_numpy(variable), np.float64)


def _recurrent(kind: str, cell: Any, reverse: bool) -> Layer:
    """One direction: Keras' kernels are (inputs, gates * units), its gates in orders of their own."""
    w, u = _numbers(cell.kernel).T, _numbers(cell.recurrent_kernel).T
    bias = _numbers(cell.bias) if cell.use_bias else np.zeros(len(w))
    phi = _function(_name_of(cell.activation))
    if kind == "SimpleRNN":
        made, letters = cell_named("rnn"), "h"
    else:
        sigma = _function(_name_of(cell.recurrent_activation))
        letters = "ifgo" if kind == "LSTM" else "zrn"
        after = kind == "GRU" and cell.reset_after
        made = cell_named("lstm" if kind == "LSTM" else "gru" if after else "gru-reset-before")
        made = replace(made, sigma=sigma)
    made = replace(made, phi=phi)
    first, second = np.reshape(bias, (-1, len(w))) if bias.ndim == 2 else np.stack([bias, np.zeros(len(w))])
    units = u.shape[1]

    def rows(array: np.ndarray, gate: str) -> np.ndarray:
        at = letters.index({"nx": "n", "nh": "n"}.get(gate, gate)) * units
        return array[at : at + units]

    reads = {gate: operands for phase in made.phases for gate, operands in phase.gates.items()}
    weights = {(g, o): rows(w if o == "x" else u, g) for g, operands in reads.items() for o in operands}
    biases = {
        gate: ("x" in operands) * rows(first, gate) + (set(operands) != {"x"}) * rows(second, gate)
        for gate, operands in reads.items()
    }
    return layer_of(made, weights, biases, reverse=reverse)


def _name_of(function: Any) -> str:
    activations, name = _keras().activations, str(getattr(function, "__name__", ""))
    if getattr(activations, name, None) is not function:
        raise _Fault(f"have an activation of Keras by name, not {name or function!r}")
    return name


def _function(name: str) -> Nonlinearity:
    known = _FUNCTIONS.get(name)
    if known is None:
        raise _Fault(f"have an activation that hwrnn understands ({', '.join(_FUNCTIONS)}), not {name!r}")
    return nonlinearity(known)


def _function_of_layer(kind: str, layer: Any) -> Nonlinearity:
    if kind == "ELU":
        return _onnx("Elu", layer.alpha)
    if kind == "LeakyReLU":
        return _onnx("LeakyRelu", layer.negative_slope)
    most, slope, threshold = layer.max_value, float(layer.negative_slope), float(layer.threshold)
    known = bounded(0.0, most) if slope == 0 else _onnx("LeakyRelu", slope) if most is None else None
    if threshold != 0 or known is None:
        raise _Fault(f"be a ReLU without threshold and up to 1, 6 or without end, not up to {most} from {threshold}")
    return known


def _onnx(name: str, alpha: float) -> Nonlinearity:
    try:
        return function_named(name, float(alpha))
    except ValueError as error:
        raise _Fault(f"have an activation that hwrnn understands: {error}") from error


def _scale_and_offset(kind: str, layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a layer that normalises or scales multiplies with, and then adds."""
    if kind == "Rescaling":
        return np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    if kind == "BatchNormalization":
        if layer.axis not in (-1, 2):
            raise _Fault(f"normalise features, not axis {layer.axis}")
        deviation = np.sqrt(_numbers(layer.moving_variance) + layer.epsilon)
        scale = (_numbers(layer.gamma) if layer.scale else 1.0) / deviation
        return scale, (_numbers(layer.beta) if layer.center else 0.0) - _numbers(layer.moving_mean) * scale
    mean, variance = _numbers(layer.mean), _numbers(layer.variance)
    if mean.size != mean.shape[-1]:
        raise _Fault("normalise features, not steps")
    mean, deviation = mean.reshape(-1), np.maximum(np.sqrt(variance.reshape(-1)), 1e-7)
    return (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
