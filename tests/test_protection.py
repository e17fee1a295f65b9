"""Flipped bits of weight memories: parity tells them, SECDED corrects one of a word and tells two."""

import itertools
import json
import re
import shutil
from functools import cache

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator
from networks import KINDS, network_of

from hwrnn.cli import main
from hwrnn.errors import UsageError
from hwrnn.golden import golden
from hwrnn.onnx_io import save
from hwrnn.rtl import TARGETS, Network, Timing, generate, protection
from hwrnn.rtl.balance import lanes_for
from hwrnn.rtl.board import design_for
from hwrnn.rtl.boards import BOARDS
from hwrnn.rtl.load_frames import frames_for, frames_of_folder
from hwrnn.rtl.protection import PROTECTIONS, Code, decode_stages, with_decoder
from hwrnn.rtl.resources import layer_memories
from hwrnn.rtl.weights import WEIGHTS
from hwrnn.sim import check
from hwrnn.sim.verilog import run_bench

icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
verilator = pytest.mark.skipif(shutil.which("verilator") is None, reason="verilator is not installed")
PROTECTED = [name for name in PROTECTIONS if name != "none"]


def syndrome(code, stored):
    """What is wrong with a stored word, by its own columns."""
    found = code.inverted
    for k, column in enumerate(code.columns):
        found ^= column if stored >> k & 1 else 0
    return found


def faults_of(code):
    """Flips of one bit and of two that a code takes for something else."""
    single = {column: k for k, column in enumerate(code.columns)}
    faults = [(k,) for k, column in enumerate(code.columns) if not column]
    if code.protect == "secded":
        faults += [(k,) for k, column in enumerate(code.columns) if single[column] != k]
        pairs = itertools.combinations(range(code.width), 2)
        faults += [(a, b) for a, b in pairs if (s := code.columns[a] ^ code.columns[b]) == 0 or s.bit_count() % 2]
    return faults


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 11, 12, 26, 27, 57, 64, 120, 121, 128])
def test_every_flip_of_one_bit_and_of_two_has_its_syndrome(bits):
    for protect in PROTECTED:
        code = Code(protect, bits)
        assert faults_of(code) == []
        rng = np.random.default_rng(bits)
        for value in [0, 2**bits - 1, *(int.from_bytes(rng.bytes(16), "little") % 2**bits for _ in range(5))]:
            assert code.word(value) % 2**bits == value and code.word(value) < 2**code.width
            assert syndrome(code, code.word(value)) == 0
        # A memory that shows nothing but zeros: wrong, and not taken for a flip of one bit.
        assert syndrome(code, 0) and (protect == "parity" or syndrome(code, 0).bit_count() % 2 == 0)
    assert Code("none", bits).word(1) == 1 and Code("none", bits).width == bits
    # No code of this distance has fewer check bits (Hamming bound, with the parity of all).
    checks = Code("secded", bits).checks
    assert 2 ** (checks - 1) >= bits + checks > 2 ** (checks - 2) + 1 or checks == 3


def test_a_wrong_column_is_found(monkeypatch):
    right = protection._columns(8, 5)
    for wrong in (right[1], 0b11, 0b10000, 0):
        monkeypatch.setattr(protection, "_columns", lambda bits, checks, wrong=wrong: (wrong, *right[1:]))
        assert faults_of(Code("secded", 8))


@pytest.mark.parametrize("protect", PROTECTED)
def test_gates_compute_the_code(protect):
    code = Code(protect, 21)
    m, value, stored = Module(), Signal(30), Signal(code.width)
    made, told = Signal(code.width), Signal(code.checks)
    m.d.comb += [made.eq(code.encoded(value)), told.eq(code.syndrome(stored))]
    rng = np.random.default_rng(0)

    async def bench(ctx):
        for number in rng.integers(0, 1 << 30, 200).tolist():
            ctx.set(value, number)
            assert ctx.get(made) == code.word(number % (1 << 21))
            ctx.set(stored, number % (1 << code.width))
            assert ctx.get(told) == syndrome(code, number % (1 << code.width))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


TIMINGS = {
    "shortest": Timing(), "sums": Timing(sums=True), "ecp5": TARGETS["ecp5-25k-6"].timing,
    "memory": Timing(memory=3, operand=1),
}  # fmt: skip


def checked(model, x, lengths, stalls, **options):
    network = Network(model, probed=True, **options)
    for stall in stalls:
        check(model, x, lengths, network=network, simulator="amaranth", input_stall=stall, output_stall=stall)
    return network


@pytest.mark.parametrize("cell", KINDS)
def test_outputs_and_closed_forms_with_secded(cell):
    timing = TIMINGS[("shortest", "ecp5")[KINDS.index(cell) % 2]]
    checked(*network_of(cell, 1, 2, lengths=(2, 1)), ("always", "random"), lanes=3, protect="secded", timing=timing)


@pytest.mark.slow
@pytest.mark.parametrize("timing", ["sums", "memory"])
@pytest.mark.parametrize("cell", KINDS)
def test_outputs_and_closed_forms(cell, timing):
    for k, protect in enumerate(PROTECTED):
        options = dict(lanes=2 + 3 * k, protect=protect, timing=TIMINGS[timing], weights=("auto", "loadable")[k])
        checked(*network_of(cell, 1 + k, 2, lengths=(2, 1)), ("always", "bursts"), **options)


def test_parity_takes_no_cycle():
    model, x, lengths = network_of("gru", 1, 2, lengths=(2, 1))
    plain = Network(model, 2, channels=2)
    network = checked(model, x, lengths, ("random", "always"), lanes=2, protect="parity", channels=2)
    assert (network.latency, network.cycles_per_step) == (plain.latency, plain.cycles_per_step)
    for timing in TIMINGS.values():
        stages = decode_stages("secded", timing)
        assert stages == 1 + timing.sums and with_decoder(timing, "secded").memory == timing.memory + stages
        assert with_decoder(timing, "parity") == timing


@pytest.mark.slow
def test_the_compiled_simulator_computes_the_code():
    model, x, lengths = network_of("gru", 2, 3, outputs=None)
    network = Network(model, 9, protect="secded", probed=True)
    check(model, x, lengths, network=network, simulator="cxxrtl", input_stall="random", output_stall="bursts")


def test_memory_bits_count_the_check_bits():
    model = network_of("gru", 3, 5)[0]
    plain = Network(model, 4)
    for protect in PROTECTED:
        network = Network(model, 4, protect=protect)
        more = 0
        for engine in network.engines:
            lanes = engine.lanes
            for words, code in ((lanes.words, lanes.code), (lanes.bias_words, lanes.bias_code)):
                more += len(words) * code.checks
            roms = [memory for memory in layer_memories(engine.layer, engine.schedule, protect) if memory.rom]
            assert sum(memory.bits for memory in roms[:2]) == lanes.memory_bits
        assert network.memory_bits == plain.memory_bits + more
    loadable = Network(model, 4, weights="loadable")
    assert Network(model, 4, weights="loadable", protect="secded").identity == loadable.identity


class Hardware:
    """A tiny network whose memories can be changed as it runs."""

    def __init__(self, protect, monkeypatch, timing="shortest", steps=2):
        made = []

        class Kept(Memory):
            def __init__(self, **options):
                super().__init__(**options)
                made.append(self)

        monkeypatch.setattr("hwrnn.rtl.lanes.Memory", Kept)
        self.model, x, _ = network_of("rnn", 1, 2, outputs=None, bits=4)
        self.raw = self.model.quantize_input(x[:1, :steps])[0]
        self.expected = golden(self.model, self.raw[None], np.array([steps])).output.ravel().tolist()
        self.network = Network(self.model, 1, protect=protect, timing=TIMINGS[timing])
        self.domain = ClockDomain("sync")
        m = Module()
        m.domains += self.domain
        m.submodules.network = self.network
        self.simulator = Simulator(m)
        self.simulator.add_clock(1e-6)
        lane = self.network.engines[0].lanes
        sides = ((lane.words, lane.code), (lane.bias_words, lane.bias_code))
        self.memories = [(memory, *side) for memory, side in zip(made, sides, strict=True)]

    async def outputs(self, ctx):
        """What a sequence gives behind a reset, and what is told then."""
        network, faults = self.network, ("fault_detected", "fault_corrected")
        ctx.set(self.domain.rst, 1)
        await ctx.tick()
        ctx.set(self.domain.rst, 0)
        elements = self.raw.ravel().tolist()
        outputs, sent = [], 0
        ctx.set(network.o.ready, 1)
        while len(outputs) < len(self.expected):
            if sent < len(elements):
                ctx.set(network.i.payload, {"data": elements[sent], "last": sent == len(elements) - 1})
            ctx.set(network.i.valid, sent < len(elements))
            taken, valid, payload = ctx.get(network.i.ready), ctx.get(network.o.valid), ctx.get(network.o.payload.data)
            sent += taken
            if valid:
                outputs.append(payload)
            await ctx.tick()
        return outputs, [ctx.get(getattr(network, name)) for name in faults[: len(network.faults)]]

    def run(self, bits):
        """Every flip of some bits of a word, in turn: yields what follows from it."""
        found = []

        async def bench(ctx):
            assert await self.outputs(ctx) == (self.expected, [0] * len(self.network.faults))
            for memory, words, code in self.memories:
                for address, word in enumerate(words):
                    for places in itertools.combinations(range(code.width), bits):
                        stored = code.word(word)
                        ctx.set(memory.data[address], stored ^ sum(1 << k for k in places))
                        found.append((places, *(await self.outputs(ctx))))
                        ctx.set(memory.data[address], stored)
            assert await self.outputs(ctx) == (self.expected, [0] * len(self.network.faults))

        self.simulator.add_testbench(bench)
        self.simulator.run()
        return found


def test_parity_tells_every_flipped_bit(monkeypatch):
    hardware = Hardware("parity", monkeypatch)
    found = hardware.run(1)
    assert len(found) == sum(len(words) * code.width for _, words, code in hardware.memories) > 40
    assert all(told == [1] for _, _, told in found)
    assert any(outputs != hardware.expected for _, outputs, _ in found)


@pytest.mark.parametrize("timing", ["shortest", "sums"])
def test_secded_corrects_every_flipped_bit(timing, monkeypatch):
    hardware = Hardware("secded", monkeypatch, timing)
    found = hardware.run(1)
    assert len(found) == sum(len(words) * code.width for _, words, code in hardware.memories) > 70
    assert all(outputs == hardware.expected and told == [0, 1] for _, outputs, told in found)


def test_secded_tells_every_two_flipped_bits(monkeypatch):
    found = Hardware("secded", monkeypatch, steps=1).run(2)
    assert len(found) > 300 and all(told[0] for _, _, told in found)


def test_a_wrong_column_is_found_in_the_hardware(monkeypatch):
    right = protection._columns

    @cache
    def wrong(bits, checks):
        first, _, *others = right(bits, checks)
        return first, first, *others

    monkeypatch.setattr(protection, "_columns", wrong)
    hardware = Hardware("secded", monkeypatch)
    assert {places for places, outputs, _ in hardware.run(1) if outputs != hardware.expected} >= {(0,), (1,)}


FORMS = {
    **{f"{form} {protect}": (protect, dict(weights=form)) for form in WEIGHTS[:-1] for protect in PROTECTED},
    "spram secded": ("secded", dict(weights="spram", target="up5k")),
    "channels": ("secded", dict(channels=3, watchdog=9)),
    "arg-max": ("parity", dict(argmax=True, watchdog=33)),
}
FEW = ("loadable secded", "channels")


@icarus
@pytest.mark.parametrize("form", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in FORMS])
def test_the_bench_passes(form, tmp_path):
    protect, options = FORMS[form]
    layers = {"layers": 2} if form == "block parity" else {"outputs": 2 if "argmax" in options else None}
    model = network_of("gru", 1, 2, **{"outputs": None} | layers)[0]
    manifest = generate(model, tmp_path / "out", name="n", lanes=2, protect=protect, **options)
    assert run_bench(tmp_path / "out", "icarus").startswith("PASS")
    told = manifest["protection"]
    assert told["memories"] == protect and told["watchdog_cycles"] == options.get("watchdog", 0)
    assert "fault_detected" in told["outputs"] and ("fault_corrected" in told["outputs"]) == (protect == "secded")
    text = (tmp_path / "out" / "README.md").read_text()
    assert all(f"| `{port}` | out | 1 |" in text for port in told["outputs"])
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["protection"] == told
    header = (tmp_path / "out" / "n.v").read_text().split("\n\n")[0]
    assert f"protect={protect!r}" in header
    if manifest["load"]:
        network = Network(model, 2, weights=options["weights"])
        assert frames_of_folder(model, tmp_path / "out") == frames_for(model, network)


@verilator
@pytest.mark.slow
def test_the_bench_passes_in_verilator(tmp_path):
    model = network_of("rnn", 1, 2, outputs=None)[0]
    generate(model, tmp_path / "out", lanes=1, protect="secded", watchdog=12)
    assert run_bench(tmp_path / "out", "verilator").startswith("PASS")


@icarus
@pytest.mark.parametrize("fault", ["a column", "never told", "always told", "a check bit"])
def test_the_bench_finds_faults(fault, tmp_path, monkeypatch):
    if fault == "a column":  # of the numbers alone: gates and contents disagree
        word = Code.word
        monkeypatch.setattr(Code, "word", lambda code, value: word(code, value) ^ (value & 1) << code.bits + 4)
    generate(network_of("rnn", 1, 2, outputs=None)[0], tmp_path / "out", name="n", lanes=1, protect="secded")
    monkeypatch.undo()
    path = tmp_path / "out" / "n.v"
    text = path.read_text()
    if fault == "never told":
        text = re.sub(r"(fault_detected\w* <= )1'h1;", r"\1 1'h0;", text, count=1)
    if fault == "always told":
        text = re.sub(r"(fault_corrected\w* <= )1'h0;", r"\1 1'h1;", text, count=1)
    if fault == "a check bit":
        at = text.index("'h", text.index("biases[1] = ")) + 2
        text = text[:at] + f"{int(text[at], 16) ^ 1:x}" + text[at + 1 :]
    assert fault == "a column" or text != path.read_text()
    path.write_text(text)
    assert run_bench(tmp_path / "out", "icarus").startswith("FAIL n: ")


def test_what_is_refused(tmp_path, capsys):
    model = network_of("gru", 2, 3)[0]
    sentence = "Protect must be one of none, parity, secded, not 'ecc'"
    with pytest.raises(UsageError, match=sentence):
        Network(model, 2, protect="ecc")
    with pytest.raises(UsageError, match=sentence):
        generate(model, tmp_path / "out", protect="ecc")
    save(model, tmp_path / "q.onnx")
    line = ["generate", str(tmp_path / "q.onnx"), "-o", str(tmp_path / "out")]
    assert main([*line, "--protect", "ecc"]) == 2
    assert sentence in capsys.readouterr().err
    assert main([*line, "--lanes", "2", "--protect", "secded", "--watchdog", "100"]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert list(manifest["protection"]["outputs"]) == [
        "fault_detected", "fault_corrected", "stalled", "stalled_input", "stalled_output",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="Network must have no outputs that tell of faults for a board, whose UART"):
        design_for(next(iter(BOARDS.values())), manifest)


def test_nothing_changes_where_nothing_is_asked_for(tmp_path):
    model = network_of("rnn", 1, 2, outputs=None)[0]
    for name, options in {"a": {}, "b": {"protect": "none", "watchdog": 0}}.items():
        generate(model, tmp_path / name, name="n", **options)
    for path in (tmp_path / "a").iterdir():
        text = path.read_text()
        assert text == (tmp_path / "b" / path.name).read_text()
        assert not any(word in text for word in ("fault_", "stalled", "watchdog", "protect"))


@pytest.mark.slow
def test_lanes_of_a_target_leave_room(tmp_path):
    model = network_of("gru", 3, 24, bits=8)[0]
    needs = [lanes_for(model, TARGETS["up5k"], TARGETS["up5k"].timing, 1, protect).needs for protect in PROTECTIONS]
    assert needs[0].block_memory <= needs[2].block_memory and needs[0].logic != needs[2].logic
    manifest = generate(model, tmp_path / "out", lanes="auto", target="up5k", protect="secded", tools=["radiant"])
    assert manifest["lanes"]["needs"]["logic"] == needs[2].logic
    for row in manifest["protection"]["words"]:
        file = next((tmp_path / "out").glob(f"*layer{row['layer']}_lanes_{row['what']}.mem"))
        words = file.read_text().split()
        assert len(words) == row["words"] and len(words[0]) == -(-(row["data_bits"] + row["check_bits"]) // 4)
