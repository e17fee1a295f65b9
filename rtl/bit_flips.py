"""A model with a single bit of a weight flipped: what a fault in a memory makes of it."""

from __future__ import annotations

from dataclasses import replace

from hwrnn.quantization import QuantizedLayer, QuantizedModel

__all__ = ["with_flipped_weight", "with_layer"]


def with_flipped_weight(
    layer: QuantizedLayer, key: tuple[str, str], place: tuple[int, ...], bit: int, width: int | None = None
) -> QuantizedLayer | None:
    """The layer with a bit of one weight's word flipped; None where the weight leaves its format.

    Args:
        key: gate and operand.
        place: unit and column of the weight.
        bit: of the word, from 0, the least.
        width: of the word in two's complement, which may be wider than the format; None for the format's own.
    """
    form, weights = layer.formats.weights[key], layer.weights[key].copy()
    bits = form.width if width is None else width
    value = (int(weights[place]) ^ 1 << bit) & (1 << bits) - 1
    if (form.signed or width is not None) and value >> bits - 1:
        value -= 1 << bits
    if not form.lo <= value <= form.hi:
        return None
    weights[place] = value
    return replace(layer, weights={**layer.weights, key: weights})


def with_layer(model: QuantizedModel, k: int, layer: QuantizedLayer) -> QuantizedModel:
    """The model with another layer in place of number ``k`` of its stack, whose last may be the head."""
    if k == len(model.layers):
        return replace(model, head=layer)
    return replace(model, layers=(*model.layers[:k], layer, *model.layers[k + 1 :]))
