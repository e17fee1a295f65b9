"""Logic into carry chains: every function of up to four bits, against the sum that it was before."""

from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import pytest

from hwrnn.rtl.folding import fold

SUM = "1001011010101010"
INPUTS = {"a": 2, "p": 3, "q": 4, "r": 5, "s": 6, "cin": 7}


def netlist_of(init: int, pins: list[Any], side: str = "B", **changes: Any) -> dict[str, Any]:
    """A LUT4 before one summand of the lower half of a CCU2C."""
    other = "A" if side == "B" else "B"
    carry = {
        f"{side}0": [20], f"{other}0": [INPUTS["a"]], "C0": ["0"], "D0": ["1"],
        "A1": ["0"], "B1": ["0"], "C1": ["0"], "D1": ["1"], "CIN": [INPUTS["cin"]],
    } | {"S0": [30], "S1": [31], "COUT": [32]}  # fmt: skip
    parameters = {"INIT0": SUM, "INIT1": SUM, "INJECT1_0": "NO", "INJECT1_1": "NO"} | changes
    table = dict(zip("ABCD", ([pin] for pin in pins), strict=True)) | {"Z": [20]}

    def directions(connections: dict[str, Any], outputs: tuple[str, ...]) -> dict[str, str]:
        return {port: "output" if port in outputs else "input" for port in connections}

    cells = {
        "table": {"type": "LUT4", "parameters": {"INIT": f"{init:016b}"}, "connections": table,
                  "port_directions": directions(table, ("Z",))},
        "carry": {"type": "CCU2C", "parameters": parameters, "connections": carry,
                  "port_directions": directions(carry, ("S0", "S1", "COUT"))},
    }  # fmt: skip
    ports = {name: {"direction": "input", "bits": [bit]} for name, bit in INPUTS.items()}
    ports |= {name: {"direction": "output", "bits": [bit]} for name, bit in (("s0", 30), ("s1", 31), ("cout", 32))}
    return {"modules": {"top": {"ports": ports, "cells": cells}}}


def behaviour(netlist: dict[str, Any]) -> list[tuple[int, ...]]:
    """Outputs for all inputs, by Yosys' model of CCU2C."""
    cells = netlist["modules"]["top"]["cells"]
    rows = []
    for values in itertools.product((0, 1), repeat=len(INPUTS)):
        bits: dict[Any, int] = {"0": 0, "1": 1, **dict(zip(INPUTS.values(), values, strict=True))}

        def look(init: str, pins: list[Any], bits: dict[Any, int] = bits) -> int:
            return int(init, 2) >> sum(bits[pin[0]] << k for k, pin in enumerate(pins)) & 1

        for cell in cells.values():
            pins, given = cell["connections"], cell["parameters"]
            if cell["type"] == "LUT4":
                bits[20] = look(given["INIT"], [pins[p] for p in "ABCD"])
        carry = cells["carry"]
        pins, given, through = carry["connections"], carry["parameters"], bits[INPUTS["cin"]]
        for half in "01":
            passes = look(given[f"INIT{half}"], [pins[p + half] for p in "ABCD"])
            makes = look(given[f"INIT{half}"][-4:], [pins[p + half] for p in "AB"])
            bits[30 + int(half)] = passes ^ through
            through = through if passes else makes
        rows.append((bits[30], bits[31], through))
    return rows


@pytest.mark.parametrize("side", "AB")
def test_every_function_of_three_bits(side: str) -> None:
    folded = 0
    pins = [INPUTS["p"], INPUTS["q"], INPUTS["r"], "0"]
    for init in range(256):
        before = netlist_of(init | init << 8, pins, side)
        after = copy.deepcopy(before)
        count = fold(after, "top")
        assert count == ("table" not in after["modules"]["top"]["cells"])
        assert behaviour(after) == behaviour(before), init
        folded += count
    # 0 where all inputs are 0: half of them; but not 1 for every input that is 1 alone: an eighth of those.
    assert folded == 128 - 16


def test_functions_of_four_bits_and_constants() -> None:
    rng = random.Random(5)
    for _ in range(300):
        pins = [rng.choice([*(INPUTS[name] for name in "pqrs"), "0", "1", "x"]) for _ in range(4)]
        before = netlist_of(rng.randrange(1 << 16), ["0" if pin == "x" else pin for pin in pins])
        after = copy.deepcopy(before)
        fold(after, "top")
        assert behaviour(after) == behaviour(before)


def test_a_choice_and_a_gate_are_folded() -> None:
    p, q, r = (INPUTS[name] for name in "pqr")
    choice = netlist_of(0b11001010_11001010, [p, q, r, "0"])  # r ? q : p
    assert fold(choice, "top") == 1
    gate = netlist_of(0b0100010001000100, [p, q, "0", "0"])  # q and not p
    assert fold(gate, "top") == 1


@pytest.mark.parametrize("changes", [{"INIT0": "1001011010100101"}, {"INJECT1_0": "YES"}])
def test_other_carries_stay(changes: dict[str, str]) -> None:
    netlist = netlist_of(0b0100010001000100, [INPUTS["p"], INPUTS["q"], "0", "0"], **changes)
    before = copy.deepcopy(netlist)
    assert fold(netlist, "top") == 0 and netlist == before


def test_what_others_read_stays() -> None:
    netlist = netlist_of(0b0100010001000100, [INPUTS["p"], INPUTS["q"], "0", "0"])
    netlist["modules"]["top"]["ports"]["seen"] = {"direction": "output", "bits": [20]}
    before = copy.deepcopy(netlist)
    assert fold(netlist, "top") == 0 and netlist == before
