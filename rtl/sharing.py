"""Two products in one multiplier of an iCE40 UltraPlus: its SB_MAC16 has two halves of 8 by 8 bits.

Yosys does not use them. So modules of two products (:class:`hwrnn.rtl.multiplier.Halves`) stay out of synthesis as
black boxes, and become blocks in the netlist behind it. (Instantiated before, a block loses its registers: Yosys 0.70.)
"""

from __future__ import annotations

import re
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


def kept_out(verilog: str) -> list[str]:
    """The modules of a Verilog text that synthesis is to leave alone."""
    return [name for name in re.findall(r"^module (\w+)", verilog, re.MULTILINE) if HALVES.search(name)]


def share(netlist: dict[str, Any], top: str) -> int:
    """Replace the black boxes of a netlist by blocks; their number."""
    boxes = {name: module for name, module in netlist["modules"].items() if HALVES.search(name)}
    count = 0
    for cell in netlist["modules"][top]["cells"].values():
        box = boxes.get(cell["type"])
        if box is None:
            continue
        pins = cell["connections"]
        operand = _extended(pins["operand"], _is_signed(box, "operand"))
        # The last lane of an odd number has no neighbour.
        weights = [_extended(pins.get(f"weight_{k}", ["0"]), True) for k in (0, 1)]
        connections: dict[str, list[Any]] = {port: ["0"] * width for port, width in _WIDTHS.items()}
        connections |= {"A": weights[0] + weights[1], "B": operand + operand, "CLK": pins["aclk"], "CE": ["1"]}
        products = [pins.get(f"product_{k}", []) for k in (0, 1)]
        spare = iter(_nobody(netlist, top, 32))
        connections["O"] = [bit for half in products for bit in (*half, *islice(spare, 16 - len(half)))]
        settings = {**_SET, "B_SIGNED": int(_is_signed(box, "operand"))}
        cell["type"] = "SB_MAC16"
        cell["parameters"] = {name: f"{value:032b}" for name, value in settings.items()}
        cell["connections"] = connections
        cell["port_directions"] = {port: "output" if port == "O" else "input" for port in connections}
        count += 1
    for name in boxes:
        del netlist["modules"][name]
    return count


def _extended(bits: list[Any], is_signed: bool) -> list[Any]:
    return [*bits, *[bits[-1] if is_signed else "0"] * (8 - len(bits))]


def _is_signed(box: dict[str, Any], port: str) -> bool:
    return bool(int(str(box["ports"][port].get("signed", 0))))


def _nobody(netlist: dict[str, Any], top: str, count: int) -> list[int]:
    """Bits that nothing reads."""
    module = netlist["modules"][top]
    used = [bit for cell in module["cells"].values() for bits in cell["connections"].values() for bit in bits]
    used += [bit for port in module["ports"].values() for bit in port["bits"]]
    first = 1 + max((bit for bit in used if isinstance(bit, int)), default=1)
    return list(range(first, first + count))
