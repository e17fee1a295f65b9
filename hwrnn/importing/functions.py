"""ONNX's activation functions as nonlinearities of the catalogue."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from hwrnn.activations import NONLINEARITIES, Nonlinearity, nonlinearity
from hwrnn.errors import shown

__all__ = ["ACTIVATIONS", "function_named"]

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

#: What the catalogue calls some of them with other words.
_OWN: dict[tuple[str, ...], str] = {
    ("hard_line", "0.2", "0.5"): "hard_sigmoid_1_5",
    ("hard_line", "0.25", "0.5"): "hard_sigmoid",
    ("hard_line", "0.1875", "0.5"): "hard_sigmoid_3_16",
    ("hard_line", "1.0", "0.0"): "relu1",
    ("affine", "1.0", "0.0"): "identity",
    ("scaled_tanh", "1.0", "1.0"): "tanh",
}


def short(value: float) -> str:
    """The shortest text of a float32, as the file's author typed it: ``0.2``."""
    return repr(float(str(np.float32(value))))


def function_named(name: str, alpha: float | None = None, beta: float | None = None) -> Nonlinearity:
    """The nonlinearity that ONNX calls ``name``, with its parameters.

    Raises:
        ValueError: a name or parameter that it does not have.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"have an activation of {', '.join(ACTIVATIONS)}, not {shown(name)}")
    base, *defaults = ACTIVATIONS[name]
    texts = []
    for words, given, default in (("alpha", alpha, defaults[0]), ("beta", beta, defaults[1])):
        if given is not None and default is None and given != 0:
            raise ValueError(f"have no {words} for {name}, which has none")
        if default is not None:
            texts.append(short(default if given is None else given))
    own = _OWN.get((base, *texts))
    if base == "leaky" and texts:
        slope = Fraction(texts[0])
        if slope.numerator == 1 and 2 <= slope.denominator <= 2**15 and slope.denominator.bit_count() == 1:
            own = f"leaky_relu:{slope.denominator.bit_length() - 1}"
    return NONLINEARITIES[own] if own in NONLINEARITIES else nonlinearity(own or ":".join([base, *texts]))
