"""The parts that a network can be built for: one row each.

Sources are the vendors' data sheets: iCE40 UltraPlus and iCE40 LP/HX family, ECP5 and ECP5-5G family, GW1N and GW2A
series, Spartan-7 overview (DS180), Cyclone V device overview.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwrnn.errors import UsageError
from hwrnn.rtl.timing import Timing

__all__ = ["TARGETS", "Target", "target_named"]


@dataclass(frozen=True)
class Target:
    """One part.

    Attributes:
        name: as the command line takes it.
        family: what shares tools and blocks with it: a row of ``hwrnn.rtl.recipes``.
        description: the part's own name and its logic.
        multipliers: in its blocks; a part without any builds them from logic.
        multiplier: bits of both signed operands of one.
        memory_blocks: of block memory.
        block_bits: bits of one, parity bits included where data may use them.
        luts: look-up tables of its logic.
        flip_flops: of its logic.
        goal: MHz that placement and routing aim at, above what the part gives.
        timing: where a design for this part has registers.
        synthesis: options of Yosys that name the part.
        place: options of nextpnr that name it; empty where no open tool places and routes the part.
        pins: of the package, for signals.
        block_mhz: what the data sheet gives the multipliers where nextpnr's timing model has more, else 0.
        sprams: single-port memories of 16 bits by 16,384 words without initial content.
    """

    name: str
    family: str
    description: str
    multipliers: int
    multiplier: tuple[int, int]
    memory_blocks: int
    block_bits: int
    luts: int
    flip_flops: int
    goal: int
    timing: Timing
    synthesis: str
    place: tuple[str, ...] = ()
    pins: int = 0
    block_mhz: int = 0
    sprams: int = 0

    @property
    def memory_bits(self) -> int:
        """Bits of all block memory."""
        return self.memory_blocks * self.block_bits

    def multipliers_for(self, a: int, b: int) -> int:
        """Blocks that one product of signed operands of ``a`` and ``b`` bits takes."""

        def pieces(width: int, port: int) -> int:
            # All pieces of an operand but its highest are unsigned, which costs the port its sign bit.
            return max(1, -(-(width - 1) // (port - 1)))

        m, n = self.multiplier
        return min(pieces(a, m) * pieces(b, n), pieces(a, n) * pieces(b, m))


# A register on both sides of every multiplier and one in it, and a stage for each sum: blocks with registers inside.
_DEEP = Timing(operand=1, product=2, sums=True, factors=1, packed=(18, 18))
# Its multiplier takes two weights of 8 bits beside each other; Gowin's and Intel's blocks split by themselves.
_SERIES7 = replace(_DEEP, packed=(25, 18))
_SPLIT = replace(_DEEP, packed=(0, 0))
_UP5K = Timing(sums=True, halves=(8, 8))
_HX8K = Timing(sums=True, tree=True)


def _ecp5(size: int, grade: int, luts: int, multipliers: int, memories: int) -> Target:
    return Target(
        f"ecp5-{size}k-{grade}", "ecp5", f"Lattice LFE5U-{size}F speed grade {grade}, {luts // 1000}k LUT4",
        multipliers, (18, 18), memories, 18432, luts, luts, 250 if grade == 6 else 320, _DEEP, "",
        (f"--{size}k", "--package", "CABGA381", "--speed", f"{grade}"), 197 if size == 25 else 203,
    )  # fmt: skip


_ROWS = (
    Target("up5k", "ice40", "Lattice iCE40 UP5K, 5,280 LUT4", 8, (16, 16), 30, 4096, 5280, 5280, 60, _UP5K,
           "-device u -dsp -spram", ("--up5k", "--package", "sg48"), 39, 50, 4),
    Target("hx8k", "ice40", "Lattice iCE40 HX8K, 7,680 LUT4", 0, (16, 16), 32, 4096, 7680, 7680, 170, _HX8K,
           "-device hx", ("--hx8k", "--package", "ct256"), 206),
    _ecp5(25, 6, 24288, 28, 56),
    _ecp5(25, 8, 24288, 28, 56),
    _ecp5(45, 6, 43848, 72, 108),
    _ecp5(45, 8, 43848, 72, 108),
    _ecp5(85, 6, 83640, 156, 208),
    _ecp5(85, 8, 83640, 156, 208),
    Target("gw1n-9", "gowin", "Gowin GW1N-9, 8,640 LUT4", 20, (18, 18), 26, 18432, 8640, 6480, 200, _SPLIT,
           "-family gw1n", ("--device", "GW1N-LV9PG256C6/I5", "--vopt", "family=GW1N-9C"), 163),
    Target("gw2a-18", "gowin", "Gowin GW2A-18, 20,736 LUT4", 48, (18, 18), 46, 18432, 20736, 15552, 250, _SPLIT,
           "-family gw2a", ("--device", "GW2A-LV18PG256C8/I7", "--vopt", "family=GW2A-18C"), 156),
    Target("xc7s15", "xilinx7", "AMD Spartan-7 XC7S15, 8,000 LUT6", 20, (25, 18), 10, 36864, 8000, 16000, 0, _SERIES7,
           "-family xc7"),
    Target("xc7s50", "xilinx7", "AMD Spartan-7 XC7S50, 32,600 LUT6", 120, (25, 18), 75, 36864, 32600, 65200, 0,
           _SERIES7, "-family xc7"),
    Target("cyclonev", "cyclonev", "Intel Cyclone V E A4, 18,480 ALM", 132, (18, 18), 308, 10240, 36960, 73920, 0,
           _SPLIT, "-family cyclonev"),
)  # fmt: skip

#: Every part by name.
TARGETS = {row.name: row for row in _ROWS}


def target_named(name: str, what: str = "Target") -> Target:
    """A part by name.

    Raises:
        UsageError: an unknown name.
    """
    if name not in TARGETS:
        raise UsageError(f"{what} must be one of {', '.join(TARGETS)}, not {name!r}")
    return TARGETS[name]
