"""What a layer takes of a part's logic without being built: a model of look-up tables and flip-flops.

Logic is a sum of sizes that stand in the layer, each times a figure of the family. The figures were fitted to Yosys'
counts of nine to fourteen networks (LSTM, GRU, RNN and minGRU of 5 to 32 units, 1 to 16 lanes, 6 to 16 bits) and then
raised, so that none of these was more than the model says; it says up to 45 % too much, mostly less than 20 %.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from hwrnn.quantization import QuantizedLayer
from hwrnn.rtl.lanes import factors, sum_shape_of
from hwrnn.rtl.protection import Code
from hwrnn.rtl.resources import layer_memories, memory_place, products_of
from hwrnn.rtl.schedule import Schedule
from hwrnn.rtl.targets import Target
from hwrnn.rtl.timing import Timing
from hwrnn.trace import trace

__all__ = ["logic_of", "logic_of_code"]


@dataclass(frozen=True)
class Sizes:
    """Sizes that a layer's logic grows with.

    Attributes:
        engine: 1.
        sums: bits of the accumulators of all lanes.
        hold: bits of the rows that wait side by side for the element-wise path.
        stored: bits of the pre-activations and stored values of a unit.
        lane_products: products of the bits of both factors, over the lanes whose multipliers are logic.
        path_products: the same, over the element-wise multipliers.
        rom: bits of constant memories in logic.
        ram: bits of other memories in flip-flops.
        lut_ram: memories of 16x4 in LUTs.
    """

    engine: float
    sums: float = 0
    hold: float = 0
    stored: float = 0
    lane_products: float = 0
    path_products: float = 0
    rom: float = 0
    ram: float = 0
    lut_ram: float = 0

    def times(self, other: Sizes) -> float:
        """The sum of the products of all sizes."""
        return sum(getattr(self, field.name) * getattr(other, field.name) for field in fields(self))


@dataclass(frozen=True)
class Model:
    """A family's look-up tables and flip-flops for each of the sizes; on an iCE40 LUTs are logic cells."""

    luts: Sizes
    flip_flops: Sizes


#: By family, and whether its products are made of logic; where that row is missing, the iCE40's LUT4 serve.
_MODELS = {
    ("ice40", False): Model(
        Sizes(engine=171, hold=1.63, stored=5.44, rom=0.14, ram=0.7),  # its multiplier also accumulates
        Sizes(engine=12, hold=2, stored=7.09, ram=1.31),
    ),
    ("ice40", True): Model(
        Sizes(engine=424, sums=8.05, hold=1.51, lane_products=1.2, path_products=4.44, ram=1),
        Sizes(engine=272, sums=3.52, hold=3.64, lane_products=0.31, path_products=3.02, ram=1),
    ),
    ("ecp5", False): Model(
        Sizes(engine=92, sums=1.93, hold=1.33, stored=2.89, rom=0.08, lut_ram=4),
        Sizes(engine=25, sums=1.1, hold=4.94, stored=7.5, ram=1),
    ),
    ("gowin", False): Model(
        Sizes(engine=97, sums=2.47, hold=0.86, stored=2.99, rom=0.06, lut_ram=4),
        Sizes(engine=25, sums=1.11, hold=4.92, stored=7.5, ram=1),
    ),
    ("xilinx7", False): Model(
        Sizes(engine=73, sums=1.16, hold=1.06, stored=0.26, rom=0.07, lut_ram=2),
        Sizes(engine=86, sums=0.85, hold=1.77, stored=3.48, ram=1),
    ),
    ("cyclonev", False): Model(
        Sizes(engine=235, sums=1.39, hold=2.23, stored=4.26, rom=0.06),
        Sizes(engine=38, sums=3.96, hold=2.58, stored=7.19, ram=1.05),
    ),
}


def _sizes_of(layer: QuantizedLayer, schedule: Schedule, timing: Timing, target: Target, protect: str) -> Sizes:
    weight, operand = factors(layer)
    width, formats = sum_shape_of(layer).width, layer.formats.values
    soft = timing.tree or not target.multipliers
    stored = [f"a.{gate}" for gate in layer.cell.gates] + list(trace(layer.cell).stores)
    built = layer_memories(layer, schedule, protect)
    memories = [(memory.rom, *memory_place(memory, target.family)[1:]) for memory in built]
    return Sizes(
        engine=1,
        sums=schedule.lanes * width,
        hold=sum(p.parallel * len(p.phase.gates) for p in schedule.phases) * width,
        stored=sum(formats[name].width for name in stored),
        lane_products=schedule.lanes * weight.width * operand.width if soft else 0,
        path_products=sum(a * b for a, b in products_of(layer, timing)) if soft else 0,
        rom=sum(bits for rom, _, bits in memories if rom),
        ram=sum(bits for rom, _, bits in memories if not rom),
        lut_ram=sum(cells for _, cells, _ in memories),
    )


def logic_of(
    layer: QuantizedLayer, schedule: Schedule, timing: Timing, target: Target, protect: str = "none"
) -> tuple[float, float]:
    """Look-up tables (on an iCE40 logic cells) and flip-flops that a layer takes of a part."""
    soft = timing.tree or not target.multipliers
    model = _MODELS.get((target.family, soft), _MODELS["ice40", True])
    sizes = _sizes_of(layer, schedule, timing, target, protect)
    turns = _turns(schedule)
    luts, flip_flops = _checking(layer, schedule, protect)
    return model.luts.times(sizes) + turns + luts, model.flip_flops.times(sizes) + turns + flip_flops


def _checking(layer: QuantizedLayer, schedule: Schedule, protect: str) -> tuple[float, float]:
    """Look-up tables and flip-flops that check the words of weights and biases."""
    widths = [schedule.lanes * shape.width for shape in (factors(layer)[0], sum_shape_of(layer))]
    stored = sum(Code(protect, width).width for width in widths)
    luts, flip_flops = _CHECKING[protect]
    return luts * stored, flip_flops * stored


#: Look-up tables and flip-flops for each bit of a stored word of weights and of biases.
_CHECKING = {"none": (0.0, 0.0), "parity": (0.5, 0.2), "secded": (4.0, 2.2)}


def _turns(schedule: Schedule) -> int:
    """Bits that tell channels apart: in each slot of the input, along the path, and whose sequence begins."""
    if schedule.channels == 1:
        return 0
    tag = (schedule.channels - 1).bit_length()
    return schedule.channels + tag * (schedule.slots + schedule.mac + sum(schedule.depths))


def logic_of_code(cells: int, bits: int) -> tuple[float, float]:
    """Look-up tables and flip-flops of what repeats a code (``hwrnn.rtl.repeat``), mostly its counters.

    Fitted to Yosys' counts for codes of 3, 16 and 64 elements of 8 bits on six families, none of which is more.

    Args:
        cells: 16x4 memories in LUTs that its vectors are in.
        bits: of its vectors that are in flip-flops.
    """
    return 200.0 + 10.0 * cells + bits, 120.0 + bits
