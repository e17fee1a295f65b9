"""The critical path in the design's own terms: from the cell names of a placed design to what stands there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["CriticalPath", "critical_path", "place_of", "signal_of"]

#: The tail that Yosys and nextpnr hang to a signal's name for the cells around it.
_TAIL = re.compile(
    r"(_(TRELLIS|LUT\d|PFUMX|L6MUX21|CCU2C|MULT\d+X\d+D?|DP16KD|SB_|DFF|ALU|MUX2_|DI\b|DO\b|WRE\b|CIN\b|RAM16SDP)|\$).*$"
)

#: What a signal is: the first pattern found in its name, module path included.
_TERMS = (
    (r"loader\.|gate\.", "load port"),
    (r"\buart\.", "UART"),
    (r"argmax", "arg-max"),
    (r"\brepeat\.", "repeated code"),
    (r"buffer\.|queue", "output queue"),
    (r"lanes\.weights", "weight memory"),
    (r"lanes\.weight", "weight register"),
    (r"lanes\.bias", "bias memory"),
    (r"lanes\.(product|both|halves|multipl)", "multiplier"),
    (r"lanes\.(operand|line|broadcast|tree)|operand_register", "operand"),
    (r"lanes\.(sum|accumulator|acc)", "accumulator"),
    (r"lanes\.(read_addr|word|address)", "address of the weight memory"),
    (r"lanes\.(start|load|valid)", "control of the lanes"),
    (r"drain_\d+\.(hold|sum_\d)", "accumulator"),
    (r"drain_\d+\.path_.*product", "element-wise multiplier"),
    (r"drain_\d+\.path_(sum|a_|beside)", "element-wise sum"),
    (r"drain_\d+\.(path_|shifted|[a-z]$|[a-z]_)", "element-wise path"),
    (r"drain_\d+\.", "control of the element-wise path"),
    (r"front\.", "issuing of columns"),
    (r"(^|layer\d+\.)(t\d+|_\d+_)$", "flow control"),  # a part of an expression
    (r"(^|layer\d+\.)[a-z]\d*(\.|$)", "old state"),
    (r"vector_|source_", "state memory"),
    (r"unit_", "memory of the cell state"),
    (r"\binputs\b", "input memory"),
    (r"credits|count|full|into|bank|ends|room|slot|oldest|(^|\.)first(_\d+)?$", "flow control"),
    (r"(s|m)_axis", "port"),
    (r"aresetn|reset|running", "reset"),
)


@dataclass(frozen=True)
class CriticalPath:
    """The slowest way between two registers.

    Attributes:
        name: in the design's own terms, such as ``weight memory to multiplier``.
        start, end: names of the cells.
        logic_ns, routing_ns: what cells and what wires take of it.
        levels: cells between both registers.
    """

    name: str
    start: str
    end: str
    logic_ns: float
    routing_ns: float
    levels: int


def signal_of(cell: str) -> str:
    """The design's signal that a cell was made for: ``network.layer0.lanes.product_3``."""
    return _TAIL.sub("", cell)


def place_of(cell: str, layers: int = 1) -> str:
    """What stands at a cell, with its layer where there are several."""
    signal = signal_of(cell)
    term = next((term for pattern, term in _TERMS if re.search(pattern, signal)), None)
    if re.search(r"\$\d+_(MULT\d|SB_MAC16)", cell):  # a block whose registers took the name of the signal away
        term = "element-wise multiplier" if "drain_" in signal else "multiplier"
    layer = re.search(r"\blayer(\d+)\b", signal)
    where = f" of layer {layer[1]}" if layer and layers > 1 else ""
    return f"{term}{where}" if term else signal


def critical_path(path: list[dict[str, Any]], layers: int = 1) -> CriticalPath | None:
    """A path of nextpnr's report; None for an empty one."""
    if not path:
        return None
    start, end = path[0]["from"]["cell"], path[-1]["to"]["cell"]
    first, last = place_of(start, layers), place_of(end, layers)
    where = re.search(r" of layer \d+$", last)
    if where and first.endswith(where[0]):
        first = first.removesuffix(where[0])
    name = f"within the {last}" if first == last.removesuffix(where[0] if where else "") else f"{first} to {last}"
    wires = sum(step["delay"] for step in path if step["type"] == "routing")
    total = sum(step["delay"] for step in path)
    levels = sum(step["type"] == "logic" for step in path)
    return CriticalPath(name, start, end, round(total - wires, 3), round(wires, 3), levels)
