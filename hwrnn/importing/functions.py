"""Other libraries' activation functions as nonlinearities of the catalogue: by ONNX's names, or by two bounds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hwrnn.activations import NONLINEARITIES, Nonlinearity, PiecewiseLinear, nonlinearity
from hwrnn.errors import shown
from hwrnn.onnx_standard import activation_of

__all__ = ["ACTIVATIONS", "bounded", "function_named"]

#: ONNX's names: the catalogue's name and the defaults of alpha and beta, None where there is none.
ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "Relu": ("relu", None, None),
    "Tanh": ("tanh", None, None),
    "Sigmoid": ("sigmoid", None, None),
    "Softsign": ("softsign", None, None),
    "Softplus": ("softplus", None, None),
    "LeakyRelu": ("leaky", 0.01, None),
    "ThresholdedRelu": ("thresholded", 1.0, None),
    "Elu": ("elu", 1.0, None),
    "Affine": ("affine", 1.0, 0.0),
    "ScaledTanh": ("scaled_tanh", 1.0, 1.0),
    "HardSigmoid": ("hard_line", 0.2, 0.5),
}

def short(value: float) -> str:
    """The shortest text of a float32, as the file's author typed it: ``0.2``."""
    return repr(float(str(np.float32(value))))


def _key(name: str, *parameters: float | None) -> tuple[str | float | None, ...]:
    return name, *(None if value is None else float(np.float32(value)) for value in parameters)


@lru_cache(maxsize=1)
def _own() -> dict[tuple[str | float | None, ...], Nonlinearity]:
    """Functions that have a name of their own in the catalogue, by what ONNX says them with."""
    found = {_key("ScaledTanh", 1.0, 1.0): NONLINEARITIES["tanh"]}
    named = [f for f in NONLINEARITIES.values() if isinstance(f, PiecewiseLinear)]
    for function in (*named, *(nonlinearity(f"leaky_relu:{k}") for k in range(1, 16))):
        activation = activation_of(function)
        if activation is not None and activation.clip is None:
            found[_key(activation.name, activation.alpha, activation.beta)] = function
    return found


def function_named(name: str, alpha: float | None = None, beta: float | None = None) -> Nonlinearity:
    """The nonlinearity that ONNX calls ``name``, with its parameters (the standard's defaults where None).

    Raises:
        ValueError: a name or parameter that it does not have.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"have an activation of {', '.join(ACTIVATIONS)}, not {shown(name)}")
    base, *defaults = ACTIVATIONS[name]
    chosen: list[float | None] = []
    for words, given, default in (("alpha", alpha, defaults[0]), ("beta", beta, defaults[1])):
        if given is not None and default is None and given != 0:
            raise ValueError(f"have no {words} for {name}, which has none")
        chosen.append(default if default is None or given is None else given)
    own = _own().get(_key(name, *chosen))
    return own or nonlinearity(":".join([base, *(short(value) for value in chosen if value is not None)]))


def bounded(low: float | None, high: float | None) -> Nonlinearity | None:
    """The identity between two bounds (None: without one) where the catalogue names it, else None."""
    for function in NONLINEARITIES.values():
        line = function.as_clip() if isinstance(function, PiecewiseLinear) else None
        if line is not None:
            slope, intercept, bounds = line
            if slope == 1 and not intercept and [None if b is None else float(b) for b in bounds] == [low, high]:
                return function
    return None
