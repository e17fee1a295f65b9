"""Torch's activations as nonlinearities, and what stands behind a recurrent module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwrnn.activations import Nonlinearity, nonlinearity
from hwrnn.errors import UsageError, require
from hwrnn.importing.chains import Chain, dense_of
from hwrnn.importing.functions import bounded, function_named
from hwrnn.importing.torch_modules import numbers

__all__ = ["Refused", "add_head", "function_of_module", "function_of_name"]


class Refused(UsageError):
    """Something in a forward pass that is not understood; the text is the end of a sentence."""


def function_of_module(module: Any) -> Nonlinearity:
    """The nonlinearity that a torch module computes."""
    nn, kind = require("torch", "torch").nn, type(module).__name__
    if not type(module).__module__.startswith("torch.nn"):
        raise Refused(f"have modules that hwrnn understands, not {kind}")
    if isinstance(module, nn.LeakyReLU):
        return _onnx("LeakyRelu", module.negative_slope)
    if isinstance(module, nn.ELU):
        return _onnx("Elu", module.alpha)
    if isinstance(module, nn.Hardtanh) and not isinstance(module, nn.ReLU6):
        return _hard(module.min_val, module.max_val)
    if isinstance(module, nn.Softplus) and (module.beta, module.threshold) != (1, 20):
        raise Refused("have a Softplus with a beta of 1 and a threshold of 20")
    return function_of_name(kind.lower(), [], {})


_FUNCTIONS = {
    "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "relu6": "relu6", "hardsigmoid": "hard_sigmoid_1_6",
    "softsign": "softsign", "softplus": "softplus", "identity": "identity",
}  # fmt: skip


def function_of_name(name: str, rest: list[Any], options: Mapping[str, Any]) -> Nonlinearity:
    """The nonlinearity of a torch function with its arguments."""
    options = {k: v for k, v in options.items() if k != "inplace"}
    if name == "leaky_relu":
        return _onnx("LeakyRelu", options.get("negative_slope", rest[0] if rest else 0.01))
    if name == "elu":
        return _onnx("Elu", options.get("alpha", rest[0] if rest else 1.0))
    if name == "hardtanh" and len(rest) != 1:
        low, high = rest[:2] or (options.get("min_val", -1.0), options.get("max_val", 1.0))
        return _hard(low, high)
    if name in _FUNCTIONS and not rest and not options:
        return nonlinearity(_FUNCTIONS[name])
    raise Refused(f"use operations that hwrnn understands, not {name}")


def _hard(low: float, high: float) -> Nonlinearity:
    known = bounded(low, high)
    if known is None:
        raise Refused(f"have a Hardtanh from -1 to 1, 0 to 1 or 0 to 6, not {low} to {high}")
    return known


def _onnx(name: str, alpha: float) -> Nonlinearity:
    try:
        return function_named(name, float(alpha))
    except ValueError as error:
        raise Refused(f"use a nonlinearity of hwrnn's: {error}") from error


def add_head(chain: Chain, head: Any) -> None:
    """Put what is behind a recurrent module into a chain: Linear layers, activations and dropout.

    Raises:
        UsageError: anything else.
    """
    nn = require("torch", "torch").nn
    if not isinstance(head, nn.Module):
        raise UsageError(f"Head must be a Linear layer, or a Sequential of such layers and activations, not {head!r}")
    for module in head if isinstance(head, nn.Sequential) else [head]:
        if type(module) is nn.Linear:
            chain.add(dense_of(numbers(module.weight), None if module.bias is None else numbers(module.bias)))
        elif not isinstance(module, nn.Identity) and not type(module).__name__.startswith("Dropout"):
            try:
                chain.apply(function_of_module(module))
            except Refused as error:
                raise UsageError(f"Head must {error}") from error
