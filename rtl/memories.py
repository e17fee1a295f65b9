"""How deep an engine's memories are: whoever builds them and whoever counts them asks here."""

from __future__ import annotations

from hwrnn.quantization import QuantizedLayer

__all__ = ["address_bits", "unit_depth", "vector_depth"]


def address_bits(size: int) -> int:
    """Address bits of a vector."""
    return max(size - 1, 0).bit_length()


def vector_depth(layer: QuantizedLayer, name: str, channels: int) -> int:
    """Words of an operand vector: of each channel, and a state twice, for the old one is read as the new is written."""
    banks = 1 + (name in layer.cell.states)
    return max(banks * channels << address_bits(layer.units), 2)


def unit_depth(layer: QuantizedLayer, channels: int) -> int:
    """Words of a value that the element-wise path reads back: one for each unit of each channel."""
    return max(layer.units if channels == 1 else channels << address_bits(layer.units), 2)
