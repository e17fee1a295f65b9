"""A quantized model's formats for another model, so that the same gates compute both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.fixed import round_half_up
from hwrnn.formats import LayerFormats
from hwrnn.model import Model
from hwrnn.quantization import QuantizedModel, with_hardware_functions

__all__ = ["formats_for", "saturated"]


def formats_for(model: Model, old: QuantizedModel) -> list[LayerFormats]:
    """The formats of a quantized model for another model of its cells and sizes.

    Raises:
        UsageError: they differ in more than weights; the text says in what.
    """

    def shapes(stack: Sequence[Any]) -> list[str]:
        how = ("reverse", "beside")
        return [
            " ".join([f"{la.cell.name} {la.inputs}x{la.units}", *(word for word in how if getattr(la, word))])
            for la in stack
        ]

    def frame(stack: Any) -> list[str]:
        coded = [f"{stack.encoder} encoding"] * bool(stack.encoder)
        taken = ["every step"] * stack.every_step + ["final state"] * stack.final_state
        return ["with a head"] * (stack.head is not None) + taken + coded

    formats = [layer.formats for layer in old.stack]
    pairs: list[tuple[str, list[Any], list[Any]]] = [
        ("layers", shapes(model.stack), shapes(old.stack)),
        ("outputs", frame(model), frame(old)),
    ]
    if pairs[0][1] == pairs[0][2]:
        made = with_hardware_functions(model, formats).stack
        for layer, other in zip(made, old.stack, strict=True):
            mine, its = layer.cell.functions, other.cell.functions
            if [_pieces(f) for f in mine.values()] != [_pieces(f) for f in its.values()]:
                new, given = ([f.name for f in functions.values()] for functions in (mine, its))
                pairs.append(("nonlinearities", new, given))
            pairs.append(("limits of a cell state", [layer.cell.clip], [other.cell.clip]))
    for what, new, given in pairs:
        if new != given or what == "nonlinearities":
            raise UsageError(f"Model must have the {what} of the one that lends its formats, {given}, not {new}")
    return formats


def _pieces(function: Any) -> tuple[Any, ...]:
    """A nonlinearity as hardware has it."""
    return function.knots, function.slopes, function.intercepts


def saturated(model: Model, formats: Sequence[LayerFormats]) -> int:
    """How many weights, and numbers of initial states, lie outside their formats by more than rounding."""
    count = 0
    for layer, f in zip(model.stack, formats, strict=True):
        held = [(layer.block(*key), form) for key, form in f.weights.items()]
        held += [(vector, f.values[state]) for state, vector in layer.initial.items()]
        for values, form in held:
            raw = round_half_up(np.asarray(values, np.float64) * 2.0**form.frac)
            count += int(((raw < form.lo) | (raw > form.hi)).sum())
    return count
