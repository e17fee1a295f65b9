"""Registers into the blocks of an ECP5: flip-flops of a netlist move into the multipliers and memories they stand at.

Yosys places every register of a design in logic. An ECP5's MULT18X18D has registers at its inputs, in its middle and
at its output, and its DP16KD one at its output; with them the block is about twice as fast (Lattice TN1267, TN1264).
This pass works on the JSON netlist between Yosys and nextpnr and changes no function: a register is moved to where its
data already pass, never across logic.

A flip-flop is moved only if

- it is plain: no enable, set or reset, power-up value 0 as the block's own, rising edge, no attribute ``keep``;
- it has the block's clock;
- everything that reads it moves with it: at an input of multipliers, all its readers are inputs that are registered
  too; behind an output, it alone reads that output;
- all bits of the block's port move, for the block has one register for all; a port with a constant 1 stays as it is,
  since the block's register would show 0 for the cycle after power-up.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Packed", "pack"]

Cell = dict[str, Any]
#: A cell and one of its ports, both by name; a port of the module has the cell name ``""``.
Pin = tuple[str, str]


@dataclass
class Packed:
    """How many flip-flops went, and into how many ports of blocks."""

    flip_flops: int = 0
    inputs: int = 0
    outputs: int = 0
    pipelines: int = 0
    memories: int = 0


@dataclass
class _Netlist:
    """The cells of a module, with who drives and who reads each bit."""

    module: dict[str, Any]
    drivers: dict[int, Pin] = field(default_factory=dict)
    readers: dict[int, list[Pin]] = field(default_factory=lambda: defaultdict(list))
    gone: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                self.connect((name, port), bits, cell["port_directions"][port] == "output")
        for port, facts in self.module["ports"].items():
            self.connect(("", port), facts["bits"], facts["direction"] == "input")

    @property
    def cells(self) -> dict[str, Cell]:
        return self.module["cells"]

    def connect(self, pin: Pin, bits: list[Any], drives: bool) -> None:
        for bit in bits:
            if isinstance(bit, int):
                if drives:
                    self.drivers[bit] = pin
                else:
                    self.readers[bit].append(pin)

    def register_driving(self, bit: Any) -> str | None:
        """The plain flip-flop whose output ``bit`` is."""
        name, port = self.drivers.get(bit, ("", ""))
        return name if name and port == "Q" and _plain(self.cells[name]) else None

    def register_behind(self, bit: Any) -> str | None:
        """The plain flip-flop that alone reads ``bit``."""
        pins = self.readers[bit]
        if len(pins) != 1 or pins[0][1] != "DI" or not pins[0][0]:
            return None
        return pins[0][0] if _plain(self.cells[pins[0][0]]) else None

    def clock(self, register: str) -> Any:
        return self.cells[register]["connections"]["CLK"][0]

    def data(self, register: str) -> Any:
        return self.cells[register]["connections"]["DI"][0]


def pack(netlist: dict[str, Any], top: str) -> Packed:
    """Move registers of the module ``top`` of a flat Yosys JSON netlist into its blocks, in place."""
    n = _Netlist(netlist["modules"][top])
    packed = Packed()
    multipliers = [name for name, cell in n.cells.items() if cell["type"] == "MULT18X18D"]
    _pack_inputs(n, multipliers, packed)
    for name in multipliers:
        for register in ("OUTPUT", "PIPELINE"):
            if not _pack_product(n, name, register):
                break
            packed.outputs += register == "OUTPUT"
            packed.pipelines += register == "PIPELINE"
    for name, cell in n.cells.items():
        if cell["type"] == "DP16KD":
            packed.memories += sum(_pack_memory(n, name, ports) for ports in _read_ports(cell))
    for name in n.gone:
        del n.cells[name]
    packed.flip_flops = len(n.gone)
    return packed


def _plain(cell: Cell) -> bool:
    """Whether a cell is a flip-flop that a block's register can stand for."""
    if cell["type"] != "TRELLIS_FF":
        return False
    given, pins = cell.get("parameters", {}), cell["connections"]
    wanted = {"CEMUX": "1", "CLKMUX": "CLK", "REGSET": "RESET", "SD": "1"}
    # What a netlist does not say has nextpnr's value, which for the enable is the signal.
    defaults = {"CEMUX": "CE" if _used(pins.get("CE")) else "1", "CLKMUX": "CLK", "REGSET": "RESET", "SD": "1"}
    if any(str(given.get(key, defaults[key])).strip() != value for key, value in wanted.items()):
        return False
    if given.get("GSR", "DISABLED") != "DISABLED" or "DI" not in pins or _used(pins.get("LSR")):
        return False
    return _truth(cell.get("attributes", {}).get("keep", "0")) == 0


def _used(bits: list[Any] | None) -> bool:
    return bool(bits) and bits[0] not in ("0", "x", "z")  # type: ignore[index]


def _truth(value: Any) -> int:
    text = str(value)
    return int(text, 2) if text and set(text) <= {"0", "1"} else 1


def _bits(cell: Cell, ports: list[str]) -> list[tuple[str, Any]]:
    """The ports that exist, with their bit each."""
    return [(port, cell["connections"][port][0]) for port in ports if cell["connections"].get(port)]


def _pack_inputs(n: _Netlist, multipliers: list[str], packed: Packed) -> None:
    """The input registers of all multipliers, together: one flip-flop may feed many."""
    chosen: dict[Pin, set[str]] = {}
    for name in multipliers:
        for side in "AB":
            bits = [bit for _, bit in _bits(n.cells[name], [f"{side}{k}" for k in range(18)])]
            driving = [n.register_driving(bit) for bit in bits if isinstance(bit, int)]
            registers = {register for register in driving if register is not None}
            held = n.cells[name].get("parameters", {}).get(f"REG_INPUT{side}_CLK", "NONE") != "NONE"
            clocks = {n.clock(register) for register in registers}
            if len(clocks) == 1 and None not in driving and "1" not in bits and not held:
                chosen[name, side] = registers
    while True:
        faults = [key for key, registers in chosen.items() if not _may_move(n, key, registers, chosen)]
        if not faults:
            break
        for key in faults:
            del chosen[key]
    for (name, side), registers in chosen.items():
        cell = n.cells[name]
        for port, bit in _bits(cell, [f"{side}{k}" for k in range(18)]):
            if isinstance(bit, int):
                cell["connections"][port] = [n.data(n.drivers[bit][0])]
        _enable(cell, f"INPUT{side}", n.clock(next(iter(registers))))
        n.gone |= registers
        packed.inputs += 1
    # The readers of what is left have changed: what fed a flip-flop now feeds multipliers.
    for register in {r for registers in chosen.values() for r in registers}:
        data, out = n.data(register), n.cells[register]["connections"]["Q"][0]
        if isinstance(data, int):
            n.readers[data] = [pin for pin in n.readers[data] if pin[0] != register] + n.readers[out]


def _may_move(n: _Netlist, key: Pin, registers: set[str], chosen: dict[Pin, set[str]]) -> bool:
    name, side = key
    other = chosen.get((name, "B"), set()) if side == "A" else set()
    if other and n.clock(next(iter(other))) != n.clock(next(iter(registers))):
        return False
    for register in registers:
        for reader, port in n.readers[n.cells[register]["connections"]["Q"][0]]:
            if port[:1] not in ("A", "B") or (reader, port[0]) not in chosen or not port[1:].isdigit():
                return False
    return True


def _enable(cell: Cell, register: str, clock: Any) -> None:
    """Switch a multiplier's register on."""
    cell["parameters"] |= {
        f"REG_{register}_CLK": "CLK0",
        f"REG_{register}_CE": "CE0",
        f"REG_{register}_RST": "RST0",
    }
    for port, bit in (("CLK0", clock), ("CE0", "1"), ("RST0", "0")):
        cell["connections"][port] = [bit]
        cell["port_directions"][port] = "input"


def _pack_product(n: _Netlist, name: str, register: str) -> bool:
    """One register behind a multiplier; true if it moved."""
    cell = n.cells[name]
    if cell["parameters"].get(f"REG_{register}_CLK", "NONE") != "NONE":
        return False
    clock = cell["connections"].get("CLK0", [None])[0]
    used = _moved_outputs(n, cell, [f"P{k}" for k in range(36)], clock)
    if used is None:
        return False
    _enable(cell, register, _take(n, name, used))
    return True


def _moved_outputs(n: _Netlist, cell: Cell, ports: list[str], clock: Any) -> dict[str, str] | None:
    """The flip-flop behind each used port, all of one clock (that given, unless None); None where one may not move."""
    used = {}
    for port, bit in _bits(cell, ports):
        if isinstance(bit, int) and n.readers[bit]:
            register = n.register_behind(bit)
            if register is None or register in n.gone:
                return None
            used[port] = register
    clocks = {n.clock(register) for register in used.values()}
    return used if len(clocks) == 1 and clock in (None, *clocks) else None


def _take(n: _Netlist, name: str, used: dict[str, str]) -> Any:
    """Give a block's ports the outputs of the flip-flops behind them; their clock."""
    for port, register in used.items():
        bits = n.cells[register]["connections"]["Q"]
        n.cells[name]["connections"][port] = bits
        n.connect((name, port), bits, True)
        n.gone.add(register)
    return n.clock(next(iter(used.values())))


def _read_ports(cell: Cell) -> list[str]:
    """The ports of a memory that share an output register: at 36 bits, B reads through both halves."""
    width = cell.get("parameters", {}).get("DATA_WIDTH_B", 18)
    wide = (int(width, 2) if isinstance(width, str) else width) == 36
    return ["AB"] if wide else ["A", "B"]


def _pack_memory(n: _Netlist, name: str, ports: str) -> bool:
    cell = n.cells[name]
    given, pins = cell["parameters"], cell["connections"]
    reading = ports[-1]
    clock = pins.get(f"CLK{reading}", [None])[0]
    for port in ports:
        other = pins.get(f"CLK{port}", ["0"])[0]
        if given.get(f"REGMODE_{port}", "NOREG") != "NOREG" or _used(pins.get(f"RST{port}")):
            return False
        if given.get(f"CLK{port}MUX", f"CLK{port}") != f"CLK{port}" or other not in (clock, "0"):
            return False
    used = _moved_outputs(n, cell, [f"DO{port}{k}" for port in ports for k in range(18)], clock)
    if not isinstance(clock, int) or used is None:
        return False
    _take(n, name, used)
    for port in ports:
        given[f"REGMODE_{port}"] = "OUTREG"
        # The half that does not write has an idle clock; its register needs one.
        for pin, bit in ((f"OCE{port}", "1"), (f"CLK{port}", clock)):
            pins[pin] = [bit]
            cell["port_directions"][pin] = "input"
    return True
