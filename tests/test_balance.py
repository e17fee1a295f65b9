"""Lanes chosen for a part: they fit, nothing faster does, none is wasted; and the counts behind them are Yosys' own."""

import json
import re
from dataclasses import replace
from functools import lru_cache

import pytest
from networks import diagonals, network_of
from test_flow import needs

from hwrnn.cli import main
from hwrnn.errors import TooLarge, UsageError
from hwrnn.onnx_io import save
from hwrnn.rtl import TARGETS, Network, Timing, generate
from hwrnn.rtl.balance import Needs, balance, capacity_of, needs_of
from hwrnn.rtl.engine import schedule_of
from hwrnn.rtl.flow import implement
from hwrnn.rtl.recipes import FAMILIES, count_cells
from hwrnn.rtl.resources import MemoryShape, layer_memories, memory_place
from hwrnn.rtl.synthesis import synthesize
from hwrnn.rtl.verilog import emit

STACKS = {
    "lstm": dict(cell="lstm", inputs=12, units=[16, 12], outputs=5, layers=2),
    "gru of every step": dict(cell="gru", inputs=6, units=[10, 14], outputs=3, layers=2, every_step=True),
    "mingru": dict(cell="mingru", inputs=6, units=[20, 20], outputs=4, layers=2, bits=6),
    "one layer": dict(cell="rnn", inputs=9, units=24, outputs=9),
    "no head": dict(cell="gru-reset-before", inputs=3, units=[8, 8], outputs=None, layers=2),
}


@lru_cache
def model_of(what):
    return network_of(lengths=(3,), **STACKS[what])[0]


@lru_cache
def cycles_of(what, layer, lanes, timing):
    return schedule_of(model_of(what).stack[layer], lanes, timing).cycles_per_step


def fewest(what, layer, interval, timing, most):
    """Found from below, one by one; None where not even ``most`` lanes keep up."""
    return next((n for n in range(1, most + 1) if cycles_of(what, layer, n, timing) <= interval), None)


def needs_below(what, target, interval, head):
    """Of every interval below: what the part would need for it, with the fewest lanes; found without the search."""
    model, timing = model_of(what), target.timing
    every = len(model.stack) if model.every_step or model.head is None else len(model.stack) - 1
    most = max(layer.units for layer in model.stack) * 4
    steps = {cycles_of(what, k, n, timing) for k in range(every) for n in range(1, most + 1)}
    for smaller in sorted(t for t in steps if t < interval):
        lanes = [fewest(what, k, smaller, timing, most) for k in range(every)]
        if None not in lanes:
            schedules = [schedule_of(model.stack[k], n, timing) for k, n in enumerate(lanes)]
            schedules += [schedule_of(layer, head, timing) for layer in model.stack[every:]]
            yield smaller, needs_of(model.stack, schedules, timing, target)


#: Each part with one of the networks, and with another one among the slow ones.
SQUARE = [
    pytest.param(what, name, marks=() if (k + j) % len(STACKS) == 0 else pytest.mark.slow, id=f"{what}-{name}")
    for k, name in enumerate(TARGETS) for j, what in enumerate(STACKS) if (k + j) % len(STACKS) < 2
]  # fmt: skip


@pytest.mark.parametrize("what, name", SQUARE)
def test_a_balance_is_the_fastest_that_fits_with_nothing_to_spare(what, name):
    model, target = model_of(what), TARGETS[name]
    timing, capacity = target.timing, capacity_of(target)
    try:
        found = balance(model, target)
    except TooLarge:
        tried = list(needs_below(what, target, 1 << 30, 1))
        assert tried and not any(need.within(capacity) for _, need in tried)
        return
    every = len(model.stack) if model.every_step or model.head is None else len(model.stack) - 1
    assert found.needs.within(capacity) and found.capacity == capacity
    assert found.intervals == tuple(cycles_of(what, k, n, timing) for k, n in enumerate(found.lanes))
    interval = max(found.intervals[:every])
    assert Network(model, list(found.lanes), timing=timing).cycles_per_step == interval
    assert all(fewest(what, k, interval, timing, n) == n for k, n in enumerate(found.lanes[:every]))
    if every < len(model.stack):  # a head that works once a sequence keeps up where it can
        assert found.intervals[-1] <= interval or found.lanes[-1] == fewest(what, -1, found.intervals[-1], timing, 99)
    tried = list(needs_below(what, target, interval, found.lanes[-1]))
    assert not any(need.within(capacity) for _, need in tried)
    if found.bound_by == "cells":
        assert not tried and found.next_interval is None and str(found) == "the cells' own limit: more lanes would idle"
    else:
        assert tried[-1][0] == found.next_interval and found.next_need > capacity.named(found.bound_by)
        words = rf"{found.bound_by}: {found.next_interval} cycles a step would take .* may be used"
        assert re.fullmatch(words, str(found))


def test_a_part_bounds_the_design_by_what_it_lacks():
    bounds = {name: balance(model_of("one layer"), TARGETS[name]).bound_by for name in TARGETS}
    assert bounds["up5k"] == bounds["ecp5-25k-6"] == "multipliers" and bounds["hx8k"] == "logic"
    assert bounds["ecp5-85k-6"] == "cells"
    plenty = replace(TARGETS["up5k"], multipliers=100)
    assert balance(network_of("gru", 16, 48, lengths=(1,))[0], plenty).bound_by == "block memory"


def test_another_timing_is_taken():
    model = model_of("lstm")
    found = balance(model, TARGETS["ecp5-25k-6"], Timing())
    pairs = zip(model.stack, found.lanes, strict=True)
    assert found.intervals == tuple(schedule_of(*pair).cycles_per_step for pair in pairs)
    # With products made of adders no block is taken.
    assert balance(model, TARGETS["ecp5-25k-6"], Timing(tree=True)).needs.multipliers == 0


def test_channels_are_counted():
    model, target = model_of("lstm"), TARGETS["ecp5-25k-6"]
    alone, many = (balance(model, target, channels=channels) for channels in (1, 64))
    pairs = zip(model.stack, many.lanes, strict=True)
    assert many.intervals == tuple(schedule_of(*pair, target.timing, 64).cycles_per_step for pair in pairs)
    # A state that drains behind other channels' work is not waited for; 64 of them take memory and flip-flops.
    assert max(many.intervals[:-1]) <= max(alone.intervals[:-1])
    schedules = [schedule_of(*pair, target.timing) for pair in zip(model.stack, many.lanes, strict=True)]
    less = needs_of(model.stack, schedules, target.timing, target)
    assert many.needs.flip_flops > less.flip_flops and many.needs.block_memory + many.needs.logic > less.logic


def test_what_no_number_of_lanes_makes_fit():
    large = network_of("lstm", 64, 256, lengths=(1,))[0]
    with pytest.raises(TooLarge) as caught:
        balance(large, TARGETS["up5k"])
    assert str(caught.value) == (
        "Network must need at most 30 blocks of memory for up5k, not 652 even with the fewest lanes, which is 622 too"
        " many: use fewer bits or units, or a larger part"
    )


def test_needs_compare():
    has = Needs(8, 30, 4000, 4000)
    assert Needs(8, 30, 4000, 4000).within(has) and not Needs(0, 0, 4001, 0).within(has)
    assert Needs(4, 29, 1000, 1000).worst(has) == "block memory"
    assert Needs(1, 0, 10, 10).worst(Needs(0, 30, 4000, 4000)) == "multipliers"


@pytest.mark.parametrize(
    "family, memory, place",
    [
        ("ice40", MemoryShape(256, 16, True), (1, 0, 0)),
        ("ice40", MemoryShape(257, 16, True), (2, 0, 0)),
        ("ice40", MemoryShape(8, 7, False), (0, 0, 56)),  # in flip-flops
        ("ecp5", MemoryShape(512, 36, True), (1, 0, 0)),
        ("ecp5", MemoryShape(1024, 36, True), (2, 0, 0)),
        ("ecp5", MemoryShape(64, 8, False), (0, 8, 0)),  # in LUTs
        ("ecp5", MemoryShape(64, 8, True), (0, 0, 512)),
        ("xilinx7", MemoryShape(512, 72, True), (1, 0, 0)),
        ("cyclonev", MemoryShape(256, 41, True), (2, 0, 0)),
    ],
)
def test_a_memory_has_its_place(family, memory, place):
    assert memory_place(memory, family) == place


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("what", STACKS)
def test_memories_have_the_bits_of_the_engine(what, channels):
    """The same memories as the engine's, whose banks and buffers have whole powers of two here."""
    for engine in Network(model_of(what), 5, channels=channels).engines:
        bits = sum(memory.bits for memory in layer_memories(engine.layer, engine.schedule))
        roms = sum(memory.bits for memory in layer_memories(engine.layer, engine.schedule) if memory.rom)
        word = engine.output_format.width + 1 + (channels - 1).bit_length()  # a queue keeps one outside its memory
        assert engine.memory_bits - word <= bits <= 2 * engine.memory_bits
        assert roms >= engine.lanes.memory_bits


def test_generate_asks_for_a_part_and_says_what_bounds(tmp_path, capsys):
    model = model_of("lstm")
    for options in (dict(lanes="auto"), dict(lanes="some", target="up5k")):
        with pytest.raises(UsageError, match=r"^Lanes must be a "):
            generate(model, tmp_path / "out", **options)
    manifest = generate(model, tmp_path / "out", lanes="auto", target="ecp5-25k-6", name="net")
    found = balance(model, TARGETS["ecp5-25k-6"])
    lanes = manifest["lanes"]
    assert (lanes["asked"], lanes["budgets"], lanes["built"]) == ("auto", list(found.lanes), sum(found.lanes))
    assert (lanes["bound_by"], lanes["intervals"]) == (found.bound_by, list(found.intervals))
    assert manifest["target"]["used"]["multipliers"] == found.needs.multipliers
    text = (tmp_path / "out" / "net.v").read_text()
    assert f"lanes={list(found.lanes)}" in text  # to write it again without a search
    assert str(found) in (tmp_path / "out" / "README.md").read_text()
    save(model, tmp_path / "q.onnx")
    line = ["generate", str(tmp_path / "q.onnx"), "--lanes", "auto", "-o", str(tmp_path / "out"), "--name", "net"]
    assert main([*line, "--device", "ecp5-25k-6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == manifest
    assert main([*line, "--target", "ecp5-25k-6"]) == 0
    assert f"\nbound by: {found}\n" in capsys.readouterr().out
    assert main(line) == 2
    assert capsys.readouterr().err == (
        "hwrnn: Lanes must be a number where no target is given, not 'auto': name the part\n"
    )


@pytest.mark.fpga
@pytest.mark.parametrize(
    ("name", "design"),
    diagonals(
        ["up5k", "hx8k", "ecp5-25k-6", "gw1n-9", "xc7s15", "cyclonev"],
        [("lstm", 1), ("gru of every step", 1), ("lstm", 5)],
    ),
)
def test_counts_are_those_of_yosys_and_the_logic_errs_upwards(name, design, tmp_path):
    needs(name)
    what, channels = design
    model, target = model_of(what), TARGETS[name]
    network = Network(model, [5, 4, 2], timing=target.timing, channels=channels)
    (tmp_path / "network.v").write_text(emit(network, "net").text)
    cells = count_cells(synthesize(target, "net", "network.v", tmp_path), "net", FAMILIES[target.family])
    need = needs_of(model.stack, [engine.schedule for engine in network.engines], target.timing, target)
    assert (cells.multipliers, cells.memories) == (need.multipliers, need.block_memory)
    print(name, what, "LUT", cells.luts, need.logic, "FF", cells.flip_flops, need.flip_flops)
    assert cells.luts <= need.logic and cells.flip_flops <= need.flip_flops <= 1.5 * cells.flip_flops
    # An iCE40's logic cells are LUTs and the flip-flops that have none.
    most = cells.luts + cells.flip_flops if target.family == "ice40" else 1.5 * cells.luts
    assert need.logic <= most


@pytest.mark.fpga
@pytest.mark.parametrize(
    "name", ["up5k", pytest.param("hx8k", marks=pytest.mark.long), pytest.param("ecp5-25k-6", marks=pytest.mark.long)]
)
def test_what_was_chosen_really_fits_and_uses_the_part(name, tmp_path):
    needs(name)
    manifest = generate(model_of("gru of every step"), tmp_path / "out", lanes="auto", target=name)
    made = implement(tmp_path / "out", name)
    used = {"multipliers": made.cells.multipliers, "logic": made.lut}[manifest["lanes"]["bound_by"]]
    has = {"multipliers": made.target.multipliers, "logic": made.target.luts}[manifest["lanes"]["bound_by"]]
    print(name, manifest["lanes"], used, has)
    assert made.bitstream is not None and used >= 0.6 * has
