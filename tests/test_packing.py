"""Registers into the blocks of an ECP5: what moves, and everything that must stay."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hwrnn.rtl.packing import Packed, pack

CLOCK = 2


class Netlist:
    """A netlist in Yosys' JSON form, cell by cell."""

    def __init__(self) -> None:
        self.bits = 2
        self.module: dict[str, Any] = {"ports": {}, "cells": {}, "netnames": {}}
        self.port("clk", "input")

    def bit(self) -> int:
        self.bits += 1
        return self.bits

    def port(self, name: str, direction: str, bit: Any = None) -> int:
        bit = (CLOCK if name == "clk" else self.bit()) if bit is None else bit
        self.module["ports"][name] = {"direction": direction, "bits": [bit]}
        return bit

    def cell(self, name: str, kind: str, inputs: dict[str, Any], outputs: dict[str, Any], **parameters: str) -> None:
        self.module["cells"][name] = {
            "type": kind,
            "parameters": parameters,
            "attributes": {},
            "port_directions": dict.fromkeys(inputs, "input") | dict.fromkeys(outputs, "output"),
            "connections": {port: [bit] for port, bit in (inputs | outputs).items()},
        }

    def register(self, name: str, data: Any, clock: Any = CLOCK, ce: Any = None, lsr: Any = "0", **other: str) -> int:
        out = self.bit()
        parameters = {"GSR": "DISABLED", "CEMUX": "1" if ce is None else "CE", "CLKMUX": "CLK", "REGSET": "RESET"}
        inputs = {"CLK": clock, "DI": data, "LSR": lsr} | ({} if ce is None else {"CE": ce})
        self.cell(name, "TRELLIS_FF", inputs, {"Q": out}, **parameters | {"LSRMUX": "LSR"} | other)
        return out

    def multiplier(self, name: str, a: list[Any], b: list[Any], width: int = 2) -> list[int]:
        out = [self.bit() for _ in range(width)]
        inputs = {f"{side}{k}": bit for side, bits in (("A", a), ("B", b)) for k, bit in enumerate(bits)}
        self.cell(name, "MULT18X18D", inputs, {f"P{k}": bit for k, bit in enumerate(out)})
        return out

    def memory(self, name: str, width_b: int = 18, **clocks: Any) -> dict[str, list[int]]:
        out = {port: [self.bit() for _ in range(2)] for port in "AB"}
        pins = {"CLKA": CLOCK, "CLKB": CLOCK, "OCEA": "0", "OCEB": "1", "RSTA": "0", "RSTB": "0"} | clocks
        ports = {f"DO{port}{k}": bit for port, bits in out.items() for k, bit in enumerate(bits)}
        modes = {"REGMODE_A": "NOREG", "REGMODE_B": "NOREG", "CLKAMUX": "CLKA", "CLKBMUX": "CLKB"}
        self.cell(name, "DP16KD", pins, ports, DATA_WIDTH_B=f"{width_b:032b}", **modes)
        return out

    def pack(self) -> Packed:
        return pack({"modules": {"top": self.module}}, "top")

    def pins(self, cell: str) -> dict[str, Any]:
        return self.module["cells"][cell]["connections"]

    def parameters(self, cell: str) -> dict[str, Any]:
        return self.module["cells"][cell]["parameters"]

    @property
    def registers(self) -> set[str]:
        return {name for name, cell in self.module["cells"].items() if cell["type"] == "TRELLIS_FF"}


def multiplied(**changed: dict[str, Any]) -> tuple[Netlist, list[int]]:
    """A multiplier with a register at each input bit and two behind each output bit, to ports of the module."""
    n = Netlist()
    for name in ("x0", "x1", "y0", "y1"):
        n.port(name, "input")
    ports = {name: n.module["ports"][name]["bits"][0] for name in ("x0", "x1", "y0", "y1")}
    held = {name: n.register(f"r{name}", bit, **changed.get(f"r{name}", {})) for name, bit in ports.items()}
    product = n.multiplier("m", [held["x0"], held["x1"], held["x1"], "0"], [held["y0"], held["y1"]])
    first = [n.register(f"p{k}", bit, **changed.get(f"p{k}", {})) for k, bit in enumerate(product)]
    last = [n.register(f"q{k}", bit, **changed.get(f"q{k}", {})) for k, bit in enumerate(first)]
    for k, bit in enumerate(last):
        n.port(f"o{k}", "output", bit)
    return n, last


def test_all_registers_of_a_multiplier_move() -> None:
    n, last = multiplied()
    assert n.pack() == Packed(flip_flops=8, inputs=2, outputs=1, pipelines=1)
    assert not n.registers
    x0, x1 = (n.module["ports"][name]["bits"][0] for name in ("x0", "x1"))
    pins = n.pins("m")
    assert [pins[f"A{k}"] for k in range(4)] == [[x0], [x1], [x1], ["0"]]
    assert [pins[f"P{k}"] for k in range(2)] == [[bit] for bit in last]
    assert (pins["CLK0"], pins["CE0"], pins["RST0"]) == ([CLOCK], ["1"], ["0"])
    for register in ("INPUTA", "INPUTB", "OUTPUT", "PIPELINE"):
        assert n.parameters("m")[f"REG_{register}_CLK"] == "CLK0"
        assert n.parameters("m")[f"REG_{register}_CE"] == "CE0"
        assert n.parameters("m")[f"REG_{register}_RST"] == "RST0"
    for pin in ("CLK0", "CE0", "RST0"):
        assert n.module["cells"]["m"]["port_directions"][pin] == "input"


def test_packing_twice_changes_nothing_more() -> None:
    n, _ = multiplied()
    n.pack()
    before = copy.deepcopy(n.module)
    assert n.pack() == Packed()
    assert n.module == before


UNFIT = {
    "enable": {"ce": 90},
    "reset": {"lsr": 90},
    "power-up value 1": {"REGSET": "SET"},
    "falling edge": {"CLKMUX": "INV"},
    "global reset": {"GSR": "ENABLED"},
}


@pytest.mark.parametrize("why", UNFIT)
@pytest.mark.parametrize(
    "which, stays", [("rx1", {"rx0", "rx1"}), ("p1", {"p0", "p1", "q0", "q1"}), ("q0", {"q0", "q1"})]
)
def test_a_register_that_is_not_plain_keeps_its_whole_port(why: str, which: str, stays: set[str]) -> None:
    n, _ = multiplied(**{which: UNFIT[why]})
    n.pack()
    assert n.registers == stays


@pytest.mark.parametrize("which, stays", [("rx1", {"rx0", "rx1"}), ("p1", {"p0", "p1", "q0", "q1"})])
def test_another_clock_keeps_a_port(which: str, stays: set[str]) -> None:
    n, _ = multiplied(**{which: {"clock": 99}})
    n.pack()
    assert n.registers == stays


def test_a_multiplier_gets_one_clock() -> None:
    other = {"clock": 99}
    n, _ = multiplied(ry0=other, ry1=other, p0=other, p1=other)
    n.pack()
    # Both sides have registers of one clock each; only one clock can be had, and the output's must be the same.
    clock = n.pins("m")["CLK0"][0]
    moved = {r for r in ("rx0", "ry0", "p0") if r not in n.registers}
    clocks = {"rx0": CLOCK, "ry0": 99, "p0": 99}
    assert moved and {clocks[r] for r in moved} == {clock}


def test_keep_stays() -> None:
    n, _ = multiplied()
    n.module["cells"]["rx0"]["attributes"]["keep"] = f"{1:032b}"
    n.pack()
    assert n.registers == {"rx0", "rx1"}


def test_an_input_register_that_something_else_reads_stays() -> None:
    n, _ = multiplied()
    n.cell("l", "LUT4", {"A": n.pins("rx0")["Q"][0]}, {"Z": n.bit()})
    n.pack()
    assert n.registers == {"rx0", "rx1"}


def test_an_input_register_that_leaves_the_module_stays() -> None:
    n, _ = multiplied()
    n.port("seen", "output", n.pins("ry1")["Q"][0])
    n.pack()
    assert n.registers == {"ry0", "ry1"}


def test_a_broadcast_register_moves_into_all_or_none() -> None:
    def two(other: Any) -> Netlist:
        n = Netlist()
        x = n.register("rx", n.port("x", "input"))
        for k, weight in enumerate(("w0", "w1")):
            bit = n.port(weight, "input")
            n.port(f"o{k}", "output", n.multiplier(f"m{k}", [x, *(other if k else [])], [bit], 1)[0])
        return n

    n = two([])
    assert n.pack() == Packed(flip_flops=1, inputs=2)
    assert n.pins("m0")["A0"] == n.pins("m1")["A0"] == n.module["ports"]["x"]["bits"]
    # A bit of one multiplier's port comes from no register, so the other multiplier must not move it either.
    n = two([50])
    assert n.pack() == Packed()
    assert n.registers == {"rx"}


def test_a_constant_one_keeps_an_input() -> None:
    n = Netlist()
    x, w = n.register("rx", n.port("x", "input")), n.port("w", "input")
    n.port("o", "output", n.multiplier("m", [x, "1"], [w], 1)[0])
    assert n.pack() == Packed()


def test_an_output_that_something_else_reads_stays() -> None:
    n, _ = multiplied()
    n.cell("l", "LUT4", {"A": n.pins("m")["P1"][0]}, {"Z": n.bit()})
    n.pack()
    assert n.registers == {"p0", "p1", "q0", "q1"}


def test_a_second_output_register_with_two_readers_moves() -> None:
    # Who reads the last register does not matter: the block drives the same net.
    n, last = multiplied()
    n.cell("l", "LUT4", {"A": last[0]}, {"Z": n.bit()})
    n.pack()
    assert not n.registers


def test_unused_outputs_do_not_matter() -> None:
    n = Netlist()
    x, w = n.port("x", "input"), n.port("w", "input")
    out = n.multiplier("m", [x], [w], 3)
    n.port("o", "output", n.register("p", out[1]))
    assert n.pack() == Packed(flip_flops=1, outputs=1)


def test_a_register_between_two_multipliers_moves_once() -> None:
    n = Netlist()
    x, w, v = (n.port(name, "input") for name in "xwv")
    between = n.register("between", n.multiplier("first", [x], [w], 1)[0])
    n.port("o", "output", n.multiplier("second", [between], [v], 1)[0])
    assert n.pack() == Packed(flip_flops=1, inputs=1)
    assert n.pins("second")["A0"] == n.pins("first")["P0"]
    assert "CLK0" not in n.pins("first")


def memory(width_b: int = 18, registers: str = "AB", **clocks: Any) -> Netlist:
    """A memory with registers behind the outputs of the ports named; the others go out as they are."""
    n = Netlist()
    for port, bits in n.memory("ram", width_b, **clocks).items():
        for k, bit in enumerate(bits):
            n.port(f"o{port}{k}", "output", n.register(f"r{port}{k}", bit) if port in registers else bit)
    return n


def test_each_port_of_a_memory_has_its_register() -> None:
    n = memory()
    assert n.pack() == Packed(flip_flops=4, memories=2)
    n = memory(registers="B")
    assert n.pack() == Packed(flip_flops=2, memories=1)
    assert (n.parameters("ram")["REGMODE_A"], n.parameters("ram")["REGMODE_B"]) == ("NOREG", "OUTREG")
    assert n.pins("ram")["OCEB"] == ["1"]


def test_a_wide_memory_has_one_register_over_both_halves() -> None:
    n = memory(36, CLKA="0")
    assert n.pack() == Packed(flip_flops=4, memories=1)
    assert (n.parameters("ram")["REGMODE_A"], n.parameters("ram")["REGMODE_B"]) == ("OUTREG", "OUTREG")
    assert n.pins("ram")["CLKA"] == [CLOCK] and n.pins("ram")["OCEA"] == ["1"]
    n = memory(36, registers="A", CLKA="0")
    assert n.pack() == Packed()


@pytest.mark.parametrize("clocks", [{"CLKA": 99}, {"RSTA": 98}])
def test_a_wide_memory_with_another_clock_or_a_reset_keeps_its_registers(clocks: dict[str, Any]) -> None:
    n = memory(36, **clocks)
    assert n.pack() == Packed()
    assert len(n.registers) == 4


def test_a_memory_on_the_other_edge_keeps_its_registers() -> None:
    n = memory()
    n.parameters("ram").update(CLKAMUX="INV", CLKBMUX="INV")
    assert n.pack() == Packed()


def test_a_memory_with_a_register_keeps_the_next() -> None:
    n = memory(registers="B")
    n.pack()
    second = n.register("second", n.pins("ram")["DOB0"][0])
    n.port("late", "output", second)
    assert n.pack() == Packed()
