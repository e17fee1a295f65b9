"""Logic before an ECP5's carry chains moves into them: an accumulator that takes its bias or its sum needs no LUT more.

Yosys builds ``a + f(...)`` as a chain of CCU2C with a LUT4 for f before each bit. A half of a CCU2C is itself a LUT4 of
B, C and D, whose output decides whether the carry passes or is made anew; what it is made of is that function of A and
B at C = D = 0 (as Yosys' model of the cell has it). With the other summand at A, a function f of up to three bits
goes into the half if one of its bits, put at B, leaves f at 0 while the other two are 0: the carry is then made of A
itself. That holds for a choice between two bits, and for a gate.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["fold"]

#: A sum of A and B with C = 0 and D = 1, as Yosys writes it: carry from A, passed on where A and B differ.
_SUM = 0b1001011010101010


def fold(netlist: dict[str, Any], top: str) -> int:
    """Move LUT4s of the module ``top`` of a flat Yosys JSON netlist into its carry chains, in place; their number."""
    module = netlist["modules"][top]
    cells = module["cells"]
    readers: Counter[Any] = Counter(bit for facts in module["ports"].values() for bit in facts["bits"])
    tables: dict[Any, str] = {}
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                readers.update(bits)
            elif cell["type"] == "LUT4":
                tables[bits[0]] = name
    gone = []
    for cell in cells.values():
        if cell["type"] == "CCU2C":
            for half in "01":
                for side, other in (("B", "A"), ("A", "B")):
                    bit = cell["connections"][side + half][0]
                    if readers[bit] == 1 and bit in tables and _folded(cell, half, cells[tables[bit]], other):
                        gone.append(tables[bit])
                        break
    for name in gone:
        del cells[name]
    return len(gone)


def _folded(carry: dict[str, Any], half: str, table: dict[str, Any], other: str) -> bool:
    """Put a LUT4 into the half of a carry cell that reads it; ``other`` is the port of the other summand."""
    pins, given = carry["connections"], carry["parameters"]
    if _number(given[f"INIT{half}"]) != _SUM or given[f"INJECT1_{half}"] != "NO":
        return False
    if (pins["C" + half][0], pins["D" + half][0]) != ("0", "1"):
        return False
    inputs = [table["connections"].get(port, ["0"])[0] for port in "ABCD"]
    init = _number(table["parameters"]["INIT"])
    used = [bit for bit in dict.fromkeys(inputs) if isinstance(bit, int)]

    def value(ones: set[Any]) -> int:
        return init >> sum((bit == "1" or bit in ones) << k for k, bit in enumerate(inputs)) & 1

    # Bits at B, C and D; what is not used stays 0.
    first = next((bit for bit in used if not value(set()) and not value({bit})), None)
    if first is None or len(used) > 3:
        return False
    rest = [bit for bit in used if bit != first]
    summand = pins[other + half]
    places = [first, *rest, "0", "0"][:3]
    pins |= {"A" + half: summand} | {port + half: [bit] for port, bit in zip("BCD", places, strict=True)}
    made = 0
    for index in range(16):
        ones = {bit for k, bit in enumerate(places) if index >> (k + 1) & 1}
        made |= (index & 1 ^ value(ones)) << index
    given[f"INIT{half}"] = f"{made:016b}"
    return True


def _number(init: Any) -> int:
    return int(init, 2) if isinstance(init, str) else int(init)
