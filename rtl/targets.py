"""The parts that a network can be built for: one row each.

Sources are the vendors' data sheets: iCE40 UltraPlus and iCE40 LP/HX family, ECP5 and ECP5-5G family, GW1N and GW2A
series, Spartan-7 overview (DS180), Cyclone V device overview.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwrnn.errors import UsageError

__all__ = ["TARGETS", "Target", "target_named"]


@dataclass(frozen=True)
class Target:
    """One part.

    Attributes:
        name: as the command line takes it.
        family: what shares tools and blocks with it.
        description: the part's own name and its logic.
        multipliers: in its blocks; a part without any builds them from logic.
        multiplier: bits of both signed operands of one.
        memory_blocks: of block memory.
        block_bits: bits of one, parity bits included where data may use them.
    """

    name: str
    family: str
    description: str
    multipliers: int
    multiplier: tuple[int, int]
    memory_blocks: int
    block_bits: int

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


_ROWS = (
    Target("up5k", "ice40", "Lattice iCE40 UP5K, 5,280 LUT4", 8, (16, 16), 30, 4096),
    Target("hx8k", "ice40", "Lattice iCE40 HX8K, 7,680 LUT4", 0, (16, 16), 32, 4096),
    Target("ecp5-25k-6", "ecp5", "Lattice LFE5U-25F speed grade 6, 24k LUT4", 28, (18, 18), 56, 18432),
    Target("ecp5-25k-8", "ecp5", "Lattice LFE5U-25F speed grade 8, 24k LUT4", 28, (18, 18), 56, 18432),
    Target("ecp5-45k-6", "ecp5", "Lattice LFE5U-45F speed grade 6, 44k LUT4", 72, (18, 18), 108, 18432),
    Target("ecp5-85k-6", "ecp5", "Lattice LFE5U-85F speed grade 6, 84k LUT4", 156, (18, 18), 208, 18432),
    Target("ecp5-85k-8", "ecp5", "Lattice LFE5U-85F speed grade 8, 84k LUT4", 156, (18, 18), 208, 18432),
    Target("gw1n-9", "gowin", "Gowin GW1N-9, 8,640 LUT4", 20, (18, 18), 26, 18432),
    Target("gw2a-18", "gowin", "Gowin GW2A-18, 20,736 LUT4", 48, (18, 18), 46, 18432),
    Target("xc7s15", "xilinx7", "AMD Spartan-7 XC7S15, 8,000 LUT6", 20, (25, 18), 10, 36864),
    Target("cyclonev", "cyclonev", "Intel Cyclone V E A4, 18,480 ALM", 132, (18, 18), 308, 10240),
)

#: Every part by name.
TARGETS = {row.name: row for row in _ROWS}


def target_named(name: str) -> Target:
    """A part by name.

    Raises:
        UsageError: an unknown name.
    """
    if name not in TARGETS:
        raise UsageError(f"Target must be one of {', '.join(TARGETS)}, not {name!r}")
    return TARGETS[name]
