"""Where weights stand: which memories they get, and the bounds of a layer whose weights may be exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from hwrnn.errors import UsageError, shown
from hwrnn.quantization import QuantizedLayer, QuantizedModel

__all__ = ["WEIGHTS", "AnyWeights", "Spram", "attributes", "check_weights", "is_loadable", "sprams_of",
           "with_any_weights"]

#: Every choice: what the tools find best, block memory, logic; block memory or SPRAM with a load port.
WEIGHTS = ("auto", "block", "distributed", "loadable", "spram")


def check_weights(weights: str) -> str:
    """The choice itself.

    Raises:
        UsageError: another word.
    """
    if weights not in WEIGHTS:
        raise UsageError(f"Weights must be one of {', '.join(WEIGHTS)}, not {shown(weights)}")
    return weights


def is_loadable(weights: str) -> bool:
    """Whether the memories have a load port."""
    return weights in ("loadable", "spram")


#: Verilog attributes of a memory without a write port, each read by some tools: ``rom_style`` by Yosys and Vivado,
#: ``romstyle`` by Quartus, ``syn_romstyle`` by Lattice's. Yosys keeps "distributed" for memories with a write port, and
#: reads ``ram_style`` first; to others that says nothing of a memory without one.
_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "block": {"rom_style": "block", "romstyle": "M10K", "syn_romstyle": "EBR"},
    "distributed": {
        "ram_style": "registers", "rom_style": "distributed", "romstyle": "MLAB", "syn_romstyle": "distributed",
    },
    "spram": {"ram_style": "huge"},
}  # fmt: skip


def attributes(weights: str) -> dict[str, str]:
    """The Verilog attributes of a weight memory."""
    return dict(_ATTRIBUTES.get(weights, {}))


@dataclass(frozen=True)
class Spram:
    """The single-port memories of a part, which have no initial content.

    Attributes:
        count: of them.
        width, depth: of one.
    """

    count: int = 4
    width: int = 16
    depth: int = 1 << 14

    def taken(self, width: int, depth: int) -> int:
        """How many a memory takes."""
        return -(-width // self.width) * -(-depth // self.depth)


_BLOCK = 4096  # bits of a block memory where SPRAM stands beside it


def sprams_of(sizes: list[tuple[int, int]], spram: Spram = Spram()) -> list[int]:
    """How many SPRAM blocks the memory of each ``(width, depth)`` gets: the largest first, as long as there are some.

    The largest always gets some; another stays in block memory where it is smaller than one block of that.

    Raises:
        UsageError: they do not hold the largest.
    """
    given, left = [0] * len(sizes), spram.count
    largest, *others = sorted(range(len(sizes)), key=lambda k: -sizes[k][0] * sizes[k][1])
    for k in (largest, *others):
        width, depth = sizes[k]
        taken = spram.taken(width, depth)
        if taken <= left and (k == largest or width * depth >= _BLOCK):
            given[k], left = taken, left - taken
        elif k == largest:
            raise UsageError(
                f"Weights of a layer must need at most {spram.count} SPRAM blocks of {spram.width} bits by"
                f" {spram.depth:,} words, not {taken} for {depth:,} words of {width} bits: give fewer lanes or units"
            )
    return given


@dataclass(frozen=True, eq=False)
class AnyWeights(QuantizedLayer):
    """A layer with the bounds that hold for any weights and biases of its formats.

    A bias beyond its range saturates there, and that changes no pre-activation: the range is so wide that no products
    bring such a row back below where the pre-activation's format ends.
    """

    @classmethod
    def of(cls, layer: QuantizedLayer) -> AnyWeights:
        """The layer with its biases brought into their ranges."""
        values = {field.name: getattr(layer, field.name) for field in fields(QuantizedLayer)}
        made = cls(**values)
        ranges = made.bias_ranges
        values["biases"] = {gate: np.clip(bias, *ranges[gate]) for gate, bias in layer.biases.items()}
        return cls(**values)

    @cached_property
    def products(self) -> Mapping[str, tuple[int, int]]:
        """The interval of each gate's sum of products, whatever the weights."""
        bounds = {}
        for k, phase in enumerate(self.cell.phases):
            for gate, reads in phase.gates.items():
                lo = hi = 0
                for operand in reads:
                    form, shift = self.formats.values[operand], self.formats.shifts[k, operand]
                    weight = self.formats.weights[gate, operand]
                    ends = [(w * x) << shift for w in (weight.lo, weight.hi) for x in (form.lo, form.hi)]
                    lo += self.size_of(operand) * min(0, *ends)
                    hi += self.size_of(operand) * max(0, *ends)
                bounds[gate] = (lo, hi)
        return bounds

    @cached_property
    def bias_ranges(self) -> Mapping[str, tuple[int, int]]:
        """The lowest and the highest bias of each gate at the accumulator's fraction."""
        ranges = {}
        for gate, (lo, hi) in self.products.items():
            form = self.formats.values[f"a.{gate}"]
            finer = max(self.formats.bias_frac[gate] - form.frac, 0)
            reach = max(-lo, hi) + (max(-form.lo, form.hi + 1) << finer)
            # A bias is kept as int64.
            bits = min(reach.bit_length(), 62)
            ranges[gate] = (-(1 << bits), (1 << bits) - 1)
        return ranges

    @cached_property
    def accumulators(self) -> Mapping[str, tuple[int, int]]:
        """The interval of each gate's accumulator over all weights and biases of the formats."""
        return {
            gate: (lo + self.bias_ranges[gate][0], hi + self.bias_ranges[gate][1])
            for gate, (lo, hi) in self.products.items()
        }


def with_any_weights(model: QuantizedModel) -> QuantizedModel:
    """The model with the bounds of any weights."""
    head = None if model.head is None else AnyWeights.of(model.head)
    return replace(model, layers=tuple(AnyWeights.of(layer) for layer in model.layers), head=head)
