"""What a layer takes of a part's blocks without being built: multipliers and memories, as Yosys maps them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from hwrnn.quantization import QuantizedLayer
from hwrnn.rtl.elementwise import ElementWise
from hwrnn.rtl.lanes import factors, multipliers_of, sum_shape_of
from hwrnn.rtl.memories import address_bits, unit_depth, vector_depth
from hwrnn.rtl.ports import element
from hwrnn.rtl.protection import Code
from hwrnn.rtl.schedule import Schedule
from hwrnn.rtl.targets import Target
from hwrnn.rtl.timing import Timing
from hwrnn.trace import trace

__all__ = ["MemoryShape", "layer_memories", "memory_place", "multiplier_blocks", "products_of"]


#: Families whose multiplier also works as smaller ones: the bits of one, and what it takes of the whole.
_SPLIT = {"gowin": (9, Fraction(1, 2)), "cyclonev": (9, Fraction(2, 3))}


def multiplier_blocks(layer: QuantizedLayer, schedule: Schedule, timing: Timing, target: Target) -> Fraction:
    """Multiplier blocks of a part that a layer takes, element-wise products included: the one place that counts."""
    if timing.tree or not target.multipliers:
        return Fraction(0)
    count, lane = multipliers_of(layer, schedule, timing)
    widths = [(lane, count), *((pair, 1) for pair in products_of(layer, timing))]
    return sum((number * _blocks(pair, target) for pair, number in widths), Fraction(0))


def _blocks(widths: tuple[int, int], target: Target) -> Fraction:
    bits, share = _SPLIT.get(target.family, (0, Fraction(1)))
    return share if max(widths) <= bits else Fraction(target.multipliers_for(*widths))


def products_of(layer: QuantizedLayer, timing: Timing) -> list[tuple[int, int]]:
    """Bits of both operands of every element-wise product."""
    paths = (ElementWise.build(None, layer, phase, "", timing) for phase in range(len(layer.cell.phases)))
    return [pair for path in paths for pair in path.pipeline.products]


@dataclass(frozen=True)
class MemoryShape:
    """One memory: words, bits of a word, and whether nothing writes it."""

    depth: int
    width: int
    rom: bool

    @property
    def bits(self) -> int:
        """All bits."""
        return self.depth * self.width


def layer_memories(layer: QuantizedLayer, schedule: Schedule, protect: str = "none") -> Iterator[MemoryShape]:
    """The memories of a layer's engine: weights, biases, inputs, state vectors, unit values, starts, output buffer."""
    values, lanes, lines, channels = layer.formats.values, schedule.lanes, trace(layer.cell), schedule.channels
    yield MemoryShape(max(schedule.words, 2), Code(protect, lanes * factors(layer)[0].width).width, True)
    biases = sum(p.groups * p.passes * p.segments for p in schedule.phases)
    yield MemoryShape(max(biases, 2), Code(protect, lanes * sum_shape_of(layer).width).width, True)
    yield MemoryShape(schedule.slots << address_bits(layer.inputs), values["x"].width, False)
    for name in layer.cell.operands:
        if name != "x":
            yield MemoryShape(vector_depth(layer, name, channels), values[name].width, False)
    phases = range(len(layer.cell.phases))
    for name in dict.fromkeys(n for k in phases for n in (*lines.olds_of(k), *lines.crossing(k))):
        yield MemoryShape(unit_depth(layer, channels), values[name].width, False)
    for name in layer.cell.states:
        if layer.start(name).any():
            yield MemoryShape(max(layer.units, 2), values[name].width, True)
    yield MemoryShape(max(schedule.buffer, 3) - 1, element(layer.output, channels).size, False)


@dataclass(frozen=True)
class _Block:
    """A kind of block memory: address bits of its narrowest shape, widths (each halves the depth), Yosys' cost."""

    address_bits: int
    widths: tuple[int, ...]
    cost: float
    blocks: Fraction = Fraction(1)  # of the part's blocks that one takes


#: As the families' rules for Yosys have them.
_BLOCKS = {
    "ice40": (_Block(11, (2, 4, 8, 16), 64),),
    "ecp5": (_Block(14, (1, 2, 4, 9, 18, 36), 128),),
    "gowin": (_Block(14, (1, 2, 4, 9, 18, 36), 128),),
    "xilinx7": (_Block(14, (1, 2, 4, 9, 18, 36), 129, Fraction(1, 2)), _Block(15, (1, 2, 4, 9, 18, 36, 72), 257)),
}
#: Yosys' cost of a bit of a constant memory in logic; a bit of another memory costs 1.
_ROM_BIT = {"ice40": 1 / 16, "ecp5": 1 / 16, "gowin": 1 / 16, "xilinx7": 1 / 64}
#: Yosys' cost of 16 words of 4 bits in LUTs.
_LUT_RAM = {"ecp5": 4.0, "gowin": 4.0, "xilinx7": 1.5}


def memory_place(memory: MemoryShape, family: str) -> tuple[Fraction, int, int]:
    """Where Yosys puts a memory: blocks of block memory, cells of 16x4 in LUTs, bits in plain logic."""
    if family == "cyclonev":
        # Another pass, without costs: the fewest blocks of 10 kbit, if a twentieth of their bits is used.
        shapes = ((8192, 1), (4096, 2), (2048, 5), (1024, 10), (512, 20), (256, 40))
        number = min(ceil(memory.depth / depth) * ceil(memory.width / width) for depth, width in shapes)
        used = memory.bits >= number * 512
        return Fraction(number if used else 0), 0, 0 if used else memory.bits
    cheapest, place = memory.bits * (_ROM_BIT[family] if memory.rom else 1), (Fraction(0), 0, memory.bits)
    for kind in _BLOCKS[family]:
        for k, width in enumerate(kind.widths):
            rows = ceil(memory.depth / (1 << (kind.address_bits - k)))
            number = ceil(rows * memory.width / width)
            cost = kind.cost * number + 0.5 * (rows - 1) * memory.width
            if cost < cheapest:
                cheapest, place = cost, (number * kind.blocks, 0, 0)
    if family in _LUT_RAM and not memory.rom:
        rows = ceil(memory.depth / 16)
        number = ceil(rows * memory.width / 4)
        cost = _LUT_RAM[family] * number + 0.5 * (rows - 1) * memory.width
        if cost < cheapest:
            place = Fraction(0), number, 0
    return place
