"""Two products in one multiplier of an iCE40 UltraPlus: its SB_MAC16 has two halves of 8 by 8 bits.

Yosys does not use them. So modules of two products (:class:`hwrnn.rtl.multiplier.Halves`) stay out of synthesis as
black boxes, and become blocks in the netlist behind it. (Instantiated before, a block loses its registers: Yosys 0.70.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

__all__ = ["HALVES", "kept_out", "share"]

#: What the names of such modules end with.
HALVES = re.compile(r"_halves_\d+$")

_SET = {
    "TOP_8x8_MULT_REG": 1, "BOT_8x8_MULT_REG": 1, "TOPOUTPUT_SELECT": 2, "BOTOUTPUT_SELECT": 2, "MODE_8x8": 1,
    "A_SIGNED": 1,
}  # fmt: skip
_WIDTHS = {
    "A": 16, "B": 16, "C": 16, "D": 16, "CLK": 1, "CE": 1, "IRSTTOP": 1, "IRSTBOT": 1, "ORSTTOP": 1, "ORSTBOT": 1,
    "AHOLD": 1, "BHOLD": 1, "CHOLD": 1, "DHOLD": 1, "OHOLDTOP": 1, "OHOLDBOT": 1, "OLOADTOP": 1, "OLOADBOT": 1,
    "ADDSUBTOP": 1, "ADDSUBBOT": 1, "CI": 1,
}  # fmt: skip


def kept_out(verilog: str) -> dict[str, bool]:
    """The modules of a Verilog text that synthesis is to leave alone, and whether the operand of each has a sign."""
    modules = re.findall(r"^module (\w+)(.*?)^endmodule", verilog, re.MULTILINE | re.DOTALL)
    return {name: "$signed(operand)" in text for name, text in modules if HALVES.search(name)}


def share(netlist: dict[str, Any], top: str, boxes: Mapping[str, bool]) -> int:
    """Replace the black boxes of a netlist, as :func:`kept_out` found them, by blocks; their number."""
    count = 0
    for cell in netlist["modules"][top]["cells"].values():
        if cell["type"] not in boxes:
            continue
        # aclk on an AXI4-Stream top, clk in a design of Amaranth's own.
        clock = next(cell["connections"][name] for name in ("aclk", "clk") if name in cell["connections"])
        pins, is_signed = cell["connections"], boxes[cell["type"]]
        operand = _extended(pins["operand"], is_signed)
        # The last lane of an odd number has no neighbour.
        weights = [_extended(pins.get(f"weight_{k}", ["0"]), True) for k in (0, 1)]
        connections: dict[str, list[Any]] = {port: ["0"] * width for port, width in _WIDTHS.items()}
        connections |= {"A": weights[0] + weights[1], "B": operand + operand, "CLK": clock, "CE": ["1"]}
        products = [pins.get(f"product_{k}", []) for k in (0, 1)]
        spare = iter(_nobody(netlist, top, 32))
        connections["O"] = [bit for half in products for bit in (*half, *islice(spare, 16 - len(half)))]
        settings = {**_SET, "B_SIGNED": int(is_signed)}
        cell["type"] = "SB_MAC16"
        cell["parameters"] = {name: f"{value:032b}" for name, value in settings.items()}
        cell["connections"] = connections
        cell["port_directions"] = {port: "output" if port == "O" else "input" for port in connections}
        count += 1
    for name in boxes:
        netlist["modules"].pop(name, None)
    return count


def _extended(bits: list[Any], is_signed: bool) -> list[Any]:
    return [*bits, *[bits[-1] if is_signed else "0"] * (8 - len(bits))]


def _nobody(netlist: dict[str, Any], top: str, count: int) -> list[int]:
    """Bits that nothing reads."""
    module = netlist["modules"][top]
    used = [bit for cell in module["cells"].values() for bits in cell["connections"].values() for bit in bits]
    used += [bit for port in module["ports"].values() for bit in port["bits"]]
    first = 1 + max((bit for bit in used if isinstance(bit, int)), default=1)
    return list(range(first, first + count))
