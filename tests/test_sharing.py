"""Two lanes in one multiplier: the same integers, half the multipliers."""

import json

import pytest
from networks import KINDS, diagonals, network_of

from hwrnn.rtl import TARGETS, Network, generate
from hwrnn.rtl.sharing import kept_out, share
from hwrnn.rtl.synthesis import script_of
from hwrnn.rtl.timing import Timing
from hwrnn.rtl.verilog import emit
from hwrnn.sim import check

WAYS = {
    "packed": (Timing(packed=(18, 18)), 4),
    "packed, 8 bits": (TARGETS["xc7s50"].timing, 6),
    "halves": (TARGETS["up5k"].timing, 6),
    "halves, deep": (Timing(halves=(8, 8), memory=2, operand=1, product=3), 6),
}


@pytest.mark.parametrize(
    ("cell", "form"),
    diagonals([cell for cell in KINDS if "peephole" not in cell], [(w, n) for w in WAYS for n in (5, 8)], every=2),
)
def test_the_golden_integers(cell, form):
    way, lanes = form
    timing, bits = WAYS[way]
    model, x, lengths = network_of(cell, 2, 3, bits=bits)
    network = Network(model, lanes, probed=True, timing=timing)
    for engine in network.engines:
        assert engine.lanes.multipliers == -(-engine.schedule.lanes // 2)
    report = check(model, x, lengths, network=network, simulator="amaranth")
    assert report.cycles_per_step == network.cycles_per_step


def test_lanes_whose_factors_are_too_wide_have_their_own():
    model = network_of("lstm", 2, 3, bits=12)[0]
    for timing in (Timing(packed=(18, 18)), Timing(halves=(8, 8))):
        engine = Network(model, 8, timing=timing).engines[0]
        assert engine.lanes.multipliers == engine.schedule.lanes


def test_the_manifest_counts_multipliers_and_their_products(tmp_path):
    model = network_of("lstm", 12, 32, bits=6)[0]
    manifest = generate(model, tmp_path / "out", lanes=8, name="net", target="up5k")
    layer = manifest["layers"][0]
    assert (layer["lanes"], layer["multipliers"]) == (8, 4 + 3)
    assert layer["products_per_lane_multiplier_and_cycle"] == 2.0
    assert manifest["target"]["used"]["multipliers"] == 4 + 3 + 1  # and one of the head


def test_synthesis_leaves_such_modules_alone_and_the_netlist_gets_blocks():
    model = network_of("rnn", 2, 3, bits=6)[0]
    text = emit(Network(model, 3, timing=TARGETS["up5k"].timing), "net").text
    boxes = kept_out(text)
    assert [box.removeprefix("net_network_") for box in boxes] == [
        "layer0_lanes_halves_0", "layer0_lanes_halves_1", "layer1_lanes_halves_0",
    ]  # fmt: skip
    script = script_of(TARGETS["up5k"], "net", "in.v", list(boxes))
    assert script.index("blackbox") < script.index("synth_ice40")
    assert "blackbox" not in script_of(TARGETS["up5k"], "net", "in.v")
    assert set(boxes.values()) == {True}
    model = network_of("rnn", 2, 3, bits=6, activation="relu")[0]
    unsigned = emit(Network(model, 3, timing=TARGETS["up5k"].timing), "n")
    assert not kept_out(unsigned.text)["n_network_layer1_lanes_halves_0"]
    pins = {"aclk": [2], "operand": [3, 4], "weight_0": [5, 6, 7], "product_0": [8, 9, 10, 11, 12]}
    cell = {"type": "net_halves_0", "connections": pins, "parameters": {}, "port_directions": {}}
    netlist = {"modules": {"top": {"cells": {"it": cell}, "ports": {}}, "net_halves_0": {}}}
    assert share(netlist, "top", {"net_halves_0": True}) == 1
    assert "net_halves_0" not in netlist["modules"] and cell["type"] == "SB_MAC16"
    made = cell["connections"]
    assert made["A"] == [5, 6, 7, 7, 7, 7, 7, 7] + ["0"] * 8 and made["B"] == [3] + [4] * 7 + [3] + [4] * 7
    assert made["O"][:5] == [8, 9, 10, 11, 12] and len(set(made["O"])) == 32
    assert int(cell["parameters"]["B_SIGNED"], 2) == int(cell["parameters"]["MODE_8x8"], 2) == 1
    json.dumps(netlist)
