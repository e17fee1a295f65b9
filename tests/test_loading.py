"""Weights that are exchanged in the running hardware: right frames change the network, wrong ones nothing."""

import json
import re
import shutil
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.hdl import Module, ResetSignal, Signal
from amaranth.sim import Simulator
from networks import network_of

from hwrnn.cli import main
from hwrnn.errors import UsageError
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.onnx_io import load
from hwrnn.quantization import quantize
from hwrnn.rtl import TARGETS, Network, generate
from hwrnn.rtl.load_frames import BEGIN, END, HELD, VERSION, WORD, frames_for, frames_of_folder, joined
from hwrnn.rtl.weights import AnyWeights, sprams_of
from hwrnn.sim import check
from hwrnn.sim.verilog import run_bench

icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
ACCEPTED, LENGTH, PLACE, CHECKSUM = range(4)


def other(model, seed=1, extreme=False):
    """A model of the same formats with other weights: random ones, or the largest in size of random signs."""
    rng = np.random.default_rng(seed)

    def drawn(form, size):
        if extreme:
            return rng.choice(np.array([form.lo, form.hi]), size)
        return rng.integers(form.lo, form.hi, size, np.int64, endpoint=True)

    def changed(layer):
        weights = {key: drawn(layer.formats.weights[key], w.shape) for key, w in layer.weights.items()}
        ranges = AnyWeights.of(layer).bias_ranges
        biases = {}
        for gate, bias in layer.biases.items():
            lo, hi = ranges[gate]
            if extreme:
                biases[gate] = rng.choice(np.array([2 * lo, hi, 2 * hi, lo]), bias.shape)
            else:
                biases[gate] = bias + rng.integers(lo // 8, hi // 8, bias.shape)
        return replace(layer, weights=weights, biases=biases)

    head = None if model.head is None else changed(model.head)
    return replace(model, layers=tuple(changed(layer) for layer in model.layers), head=head)


def expected(model, raw, lengths):
    """The golden output of each sequence, flat."""
    out = golden(model, raw, lengths).output
    return [out[n, : k if model.every_step else None].ravel().tolist() for n, k in enumerate(lengths)]


class Board:
    """A network with a partner at each port, each in a process of its own; every one may stall at random."""

    def __init__(self, network, stalls=None):
        self.network, self.cycle = network, 0
        self.rng = None if stalls is None else np.random.default_rng(stalls)
        self.outputs, self.ends, self.answers, self.begun = [], [], [], []
        self.feeding, self.frames = [], []

    def pause(self):
        return 0 if self.rng is None else int(self.rng.integers(0, 3)) * int(self.rng.integers(0, 2))

    async def wait(self, ctx, signal, cycles=100_000):
        for _ in range(cycles):
            if ctx.get(signal):
                return
            await ctx.tick()
        raise AssertionError("nothing happens")

    async def send(self, ctx, port, payloads):
        for payload in payloads:
            for _ in range(self.pause()):
                await ctx.tick()
            ctx.set(port.payload, payload)
            ctx.set(port.valid, 1)
            await self.wait(ctx, port.ready)
            await ctx.tick()
            ctx.set(port.valid, 0)

    async def feed(self, ctx, raw, lengths):
        """Sequences, one after the other; ``begun`` keeps whether the network had been loaded when each began."""
        for n, steps in enumerate(lengths):
            elements = raw[n, :steps].ravel().tolist()
            payloads = [{"data": e, "last": k == len(elements) - 1} for k, e in enumerate(elements)]
            await self.send(ctx, self.network.i, payloads[:1])
            self.begun.append(len(self.answers))
            await self.send(ctx, self.network.i, payloads[1:])

    async def load(self, ctx, frames):
        """Frames, each when the one before it has been answered; the answers."""
        got = []
        for frame in frames:
            payloads = [{"data": byte, "last": k == len(frame) - 1} for k, byte in enumerate(frame)]
            await self.send(ctx, self.network.load, payloads)
            for _ in range(self.pause()):
                await ctx.tick()
            ctx.set(self.network.answer.ready, 1)
            await self.wait(ctx, self.network.answer.valid)
            got.append(ctx.get(self.network.answer.payload))
            await ctx.tick()
            ctx.set(self.network.answer.ready, 0)
            self.answers.append(got[-1])
        return got

    async def take(self, ctx):
        """Take outputs, for ever."""
        port = self.network.o
        while True:
            ctx.set(port.ready, 1 if self.rng is None else int(self.rng.integers(0, 2)))
            if ctx.get(port.valid) and ctx.get(port.ready):
                self.outputs.append(ctx.get(port.payload.data))
                if ctx.get(port.payload.last):
                    self.ends.append(len(self.outputs))
            await ctx.tick()

    def run(self, *processes, design=None):
        """Until all processes have ended; outputs are taken meanwhile."""
        simulator = Simulator(design or self.network)
        simulator.add_clock(1e-6)
        for process in processes:
            simulator.add_testbench(process)
        simulator.add_testbench(self.take, background=True)
        simulator.run()

    async def rest(self, ctx, count):
        """Until ``count`` sequences have left."""
        for _ in range(200_000):
            if len(self.ends) >= count:
                return
            await ctx.tick()
        raise AssertionError("the outputs do not come")

    def sequences(self):
        starts = [0, *self.ends[:-1]]
        return [self.outputs[a:b] for a, b in zip(starts, self.ends, strict=True)]


def small(cell="lstm", lanes=4, weights="loadable", **options):
    model, x, lengths = network_of(cell, 2, 3, **options)
    return model, Network(model, lanes, weights=weights), model.quantize_input(x), lengths


def test_the_bytes_are_those_of_the_documents():
    model, network, *_ = small()
    frames = frames_for(model, network)
    lanes = network.engines[0].lanes
    assert frames[0][:6] == bytes([BEGIN, VERSION]) + network.identity
    assert frames[1][:5] == bytes([WORD, 0, 0, 0, 0])
    assert frames[1][5:-4] == lanes.words[0].to_bytes(-(-lanes.word_bits // 8), "big")
    assert frames[-1][0] == END and len(frames[-1]) == 5
    assert len(frames) == 2 + sum(len(e.lanes.words) + len(e.lanes.bias_words) for e in network.engines)
    file = joined(frames[:2])
    assert file[:2] == bytes([10, 0]) and file[2:12] == frames[0] and file[12] == len(frames[1])


@pytest.mark.parametrize("stalls", [None, 1, 2])
@pytest.mark.parametrize(
    "cell, lanes, options",
    [
        ("lstm", 4, {}),
        ("gru", 1, {"every_step": True}),
        ("gru-reset-before", 100, {"outputs": None}),
        ("rnn", 3, {"layers": 2}),
    ],
)
def test_a_load_changes_the_network(cell, lanes, options, stalls):
    model, network, raw, lengths = small(cell, lanes, **options)
    second = other(model)
    before, after = expected(model, raw, lengths), expected(second, raw, lengths)
    assert before != after
    board = Board(network, stalls)
    frames = frames_for(second, network)

    async def all_of_it(ctx):
        await board.feed(ctx, raw, lengths)
        await board.rest(ctx, len(lengths))
        answers = await board.load(ctx, frames)
        assert answers == [HELD] * (len(frames) - 1) + [ACCEPTED]
        await board.feed(ctx, raw, lengths)
        await board.rest(ctx, 2 * len(lengths))
        assert await board.load(ctx, frames_for(model, network)) == answers
        await board.feed(ctx, raw, lengths)
        await board.rest(ctx, 3 * len(lengths))

    board.run(all_of_it)
    assert board.sequences() == before + after + before


def flipped(frame, byte, bit=0):
    return frame[:byte] + bytes([frame[byte] ^ 1 << bit]) + frame[byte + 1 :]


def wrong_frames(frames):
    """Wrong frames by what is wrong with them, for the beginning and for the place of the second word."""
    begin, word, later, end = frames[0], frames[2], frames[3], frames[-1]
    outside = {
        "a word without a beginning": (word, PLACE),
        "an end without a beginning": (end, PLACE),
        "a beginning for another network": (flipped(begin, 3), PLACE),
        "a beginning of another version": (flipped(begin, 1), PLACE),
        "a beginning with a flipped checksum": (flipped(begin, len(begin) - 1), CHECKSUM),
        "a short beginning": (begin[:-1], LENGTH),
        "a long beginning": (begin + b"\0", LENGTH),
        "a single byte": (begin[:1], LENGTH),
        "no known kind": (b"x" + begin[1:], LENGTH),
    }
    inside = {
        "another address": (flipped(word, 2), PLACE),
        "an address beyond the memory": (flipped(word, 4, 7), PLACE),
        "another memory": (flipped(word, 1), PLACE),
        "no such memory": (flipped(word, 1, 7), PLACE),
        "the word after": (later, PLACE),
        "the word before": (frames[1], PLACE),
        "an end too early": (end, PLACE),
        "a flipped bit of the word": (flipped(word, 5, 3), CHECKSUM),
        "a flipped bit of the checksum": (flipped(word, len(word) - 2), CHECKSUM),
        "a word of another load": (word[:-4] + bytes(4), CHECKSUM),
        "a truncated word": (word[:-1], LENGTH),
        "only the head of a word": (word[:4], LENGTH),
        "a byte too many": (word + b"\0", LENGTH),
        "two frames as one": (word + later, LENGTH),
        "hundreds of bytes": (word * 40, LENGTH),
        "no known kind": (flipped(word, 0, 7), LENGTH),
    }
    return outside, inside


@pytest.mark.parametrize("stalls", [None, 3])
def test_a_wrong_frame_changes_nothing(stalls):
    model, network, raw, lengths = small()
    second = other(model)
    frames = frames_for(second, network)
    outside, inside = wrong_frames(frames)
    board = Board(network, stalls)

    async def all_of_it(ctx):
        for k, (what, (frame, reason)) in enumerate(outside.items()):
            assert await board.load(ctx, [frame]) == [reason], what
            if k % 3 == 0:
                await board.feed(ctx, raw, lengths)
        await board.rest(ctx, 3 * len(lengths))
        assert board.sequences() == 3 * expected(model, raw, lengths)
        await board.load(ctx, frames[:2])
        for what, (frame, reason) in inside.items():
            assert await board.load(ctx, [frame]) == [HELD | reason], what
        # The load goes on where it was, as if there had been no wrong frame.
        assert await board.load(ctx, frames[2:-1]) == [HELD] * (len(frames) - 3)
        for frame, reason in ((frames[-2], PLACE), (flipped(frames[-1], 1), CHECKSUM), (frames[-1] + b"E", LENGTH)):
            assert await board.load(ctx, [frame]) == [HELD | reason]
        assert await board.load(ctx, frames[-1:]) == [ACCEPTED]
        await board.feed(ctx, raw, lengths)
        await board.rest(ctx, 4 * len(lengths))

    board.run(all_of_it)
    assert board.sequences() == 3 * expected(model, raw, lengths) + expected(second, raw, lengths)


def test_every_flipped_bit_is_refused():
    model, network, *_ = small("rnn", 2, outputs=None)
    frames = frames_for(model, network)
    board = Board(network)

    async def all_of_it(ctx):
        await board.load(ctx, frames[:3])
        for k in range(8 * len(frames[3])):
            (answer,) = await board.load(ctx, [flipped(frames[3], k // 8, k % 8)])
            assert answer & HELD and answer & 3, k
        assert await board.load(ctx, frames[3:]) == [HELD] * (len(frames) - 4) + [ACCEPTED]

    board.run(all_of_it)


def test_a_right_checksum_does_not_save_a_wrong_frame():
    model, network, *_ = small("rnn", 2, outputs=None)
    frames = frames_for(model, network)
    board = Board(network)

    def signed(body, before=b""):
        """A frame of that body behind a frame."""
        total = zlib.crc32(body, int.from_bytes(before[-4:], "little"))
        return body + total.to_bytes(4, "little")

    async def all_of_it(ctx):
        assert signed(frames[0][:-4]) == frames[0] and signed(frames[2][:-4], frames[1]) == frames[2]
        for k in range(8, 48):  # version and identity
            assert await board.load(ctx, [signed(flipped(frames[0], k // 8, k % 8)[:-4])]) == [PLACE], k
        for body in (frames[0][:-5], frames[0][:-4] + b"\0", b"", frames[-1][:-4] * 2):
            assert await board.load(ctx, [signed(body)]) == [LENGTH], body
        await board.load(ctx, frames[:2])
        for k in range(8, 40):  # memory and address
            frame = signed(flipped(frames[2], k // 8, k % 8)[:-4], frames[1])
            answers = await board.load(ctx, [frame])
            assert answers == [HELD | PLACE], k
        for body in (frames[2][:-5], frames[2][:-4] + b"\0", frames[2][:4], b"\0" + frames[2][1:-4]):
            assert await board.load(ctx, [signed(body, frames[1])]) == [HELD | LENGTH], body
        assert await board.load(ctx, [signed(frames[-1][:-4], frames[1])]) == [HELD | PLACE]
        assert await board.load(ctx, frames[2:]) == [HELD] * (len(frames) - 3) + [ACCEPTED]

    board.run(all_of_it)


def test_words_of_two_loads_do_not_mix():
    model, network, *_ = small()
    first, second = (frames_for(other(model, seed), network) for seed in (1, 2))
    board = Board(network)

    async def all_of_it(ctx):
        await board.load(ctx, first[:4])
        answers = await board.load(ctx, second[4:])
        assert answers[0] == HELD | CHECKSUM and all(a & HELD and a & 3 for a in answers)
        # Starting again is possible at any time.
        assert await board.load(ctx, second) == [HELD] * (len(second) - 1) + [ACCEPTED]

    board.run(all_of_it)


@pytest.mark.parametrize("stalls", [None, 4, 5])
@pytest.mark.parametrize("start", [0, 3, 40, 90])
def test_a_load_waits_for_the_running_sequence_and_holds_the_next(start, stalls):
    model, network, raw, lengths = small("gru", 2)
    second = other(model)
    frames = frames_for(second, network)
    board = Board(network, stalls)
    many = 4
    raws, steps = np.concatenate([raw] * many), np.concatenate([lengths] * many)

    async def feeder(ctx):
        await board.feed(ctx, raws, steps)
        await board.rest(ctx, len(steps))

    async def loader(ctx):
        await ctx.tick().repeat(start + 1)
        await board.load(ctx, frames[:1])
        # The answer comes when all that had begun has left.
        assert len(board.ends) == len(board.begun)
        assert await board.load(ctx, frames[1:]) == [HELD] * (len(frames) - 2) + [ACCEPTED]

    board.run(feeder, loader)
    old, new = expected(model, raws, steps), expected(second, raws, steps)
    done = [answers == len(frames) or answers == len(frames) - 1 for answers in board.begun]
    assert done == sorted(done) and done[-1] and (start == 0 or not done[0])
    assert board.sequences() == [new[k] if loaded else old[k] for k, loaded in enumerate(done)]


def test_a_reset_in_a_load_keeps_the_network_held():
    model, network, raw, lengths = small("rnn", 2)
    frames = frames_for(other(model), network)
    board = Board(network)
    m = Module()
    m.submodules.network = network
    restart = Signal()
    m.d.comb += ResetSignal("sync").eq(restart)

    async def all_of_it(ctx):
        await board.load(ctx, frames[:5])
        ctx.set(restart, 1)
        await ctx.tick()
        ctx.set(restart, 0)
        await ctx.tick()
        assert ctx.get(network.held) and not ctx.get(network.i.ready)
        assert await board.load(ctx, frames[5:6]) == [HELD | PLACE]
        ctx.set(network.i.valid, 1)
        await ctx.tick().repeat(50)
        assert not ctx.get(network.i.ready)
        ctx.set(network.i.valid, 0)
        assert await board.load(ctx, frames) == [HELD] * (len(frames) - 1) + [ACCEPTED]
        await board.feed(ctx, raw, lengths)
        await board.rest(ctx, len(lengths))

    board.run(all_of_it, design=m)
    assert board.sequences() == expected(other(model), raw, lengths)


@pytest.mark.parametrize("cell, options", [("lstm", {}), ("gru", {"every_step": True}), ("mingru", {"bits": 4})])
@pytest.mark.parametrize("lanes", [1, 7])
def test_the_worst_weights_overflow_nothing(cell, options, lanes):
    model, x, lengths = network_of(cell, 3, 5, **options)
    for seed in range(2):
        worst = other(model, seed, extreme=True)
        network = Network(worst, lanes, weights="loadable", probed=True)
        assert network.identity == Network(model, lanes, weights="loadable").identity
        report = check(worst, x, lengths, network=network, simulator="amaranth")
        assert report.mismatches == 0 and report.compared > 0 and report.closed_forms


@pytest.mark.parametrize("part", ["ecp5-25k-6", "gw1n-9", "up5k"])
def test_the_worst_weights_in_shared_multipliers(part):
    model, x, lengths = network_of("gru", 3, 5, bits=4)
    worst = other(model, 5, extreme=True)
    network = Network(worst, 7, weights="loadable", probed=True, timing=TARGETS[part].timing)
    assert check(worst, x, lengths, network=network, simulator="amaranth").mismatches == 0


def test_bounds_of_any_weights_are_those_of_the_formats():
    model, *_ = network_of("lstm", 3, 5)
    layer = AnyWeights.of(model.layers[0])
    highest = {key: np.full_like(w, layer.formats.weights[key].lo) for key, w in layer.weights.items()}
    for gate, (lo, hi) in AnyWeights.of(replace(layer, weights=highest)).accumulators.items():
        own = replace(model.layers[0], weights=highest, biases={g: b * 0 for g, b in layer.biases.items()})
        assert own.accumulators[gate][1] == layer.products[gate][1]
        assert (lo, hi) == layer.accumulators[gate]
        bias = layer.bias_ranges[gate]
        assert hi == layer.products[gate][1] + bias[1] and lo == layer.products[gate][0] + bias[0]


def test_a_network_of_spram_waits_for_its_first_weights():
    model, network, raw, lengths = small(weights="spram")
    assert network.sprams == [2, 0]
    frames = frames_for(model, network)
    board = Board(network, 6)

    async def feeder(ctx):
        await board.feed(ctx, raw, lengths)
        await board.rest(ctx, len(lengths))

    async def loader(ctx):
        assert ctx.get(network.held)
        await ctx.tick().repeat(100)
        assert not board.begun
        assert await board.load(ctx, frames[1:2] + frames[-1:]) == [HELD | PLACE] * 2
        assert await board.load(ctx, frames) == [HELD] * (len(frames) - 1) + [ACCEPTED]

    board.run(feeder, loader)
    assert board.sequences() == expected(model, raw, lengths)


def test_spram_goes_to_the_largest_memories():
    assert sprams_of([(32, 1408), (8, 288)]) == [2, 0]
    assert sprams_of([(8, 600), (32, 1408)]) == [1, 2]
    assert sprams_of([(64, 1408), (8, 600)]) == [4, 0]
    assert sprams_of([(16, 40_000)]) == [3]
    words = (
        r"^Weights of a layer must need at most 4 SPRAM blocks of 16 bits by 16,384 words, not 5 for 100 words of 80"
        r" bits: give fewer lanes or units$"
    )
    with pytest.raises(UsageError, match=words):
        sprams_of([(8, 600), (80, 100)])


def test_what_does_not_fit_is_refused():
    model, network, *_ = small()
    words = r"^Weights must be one of auto, block, distributed, loadable, spram, not 'rom'$"
    with pytest.raises(UsageError, match=words):
        Network(model, 4, weights="rom")
    with pytest.raises(UsageError, match=r"^Network must have weights 'loadable' or 'spram' to be loaded, not 'auto'$"):
        frames_for(model, Network(model, 4))
    layer = model.layers[0]
    finer = replace(layer.formats, bias_frac={g: f + (g == "i") for g, f in layer.formats.bias_frac.items()})
    words = (
        r"^Model must have the network's cells, sizes and formats, but 'layers' 0 'biases' 'i' differs: quantize it"
        r" with the formats of the network's model$"
    )
    with pytest.raises(UsageError, match=words):
        frames_for(replace(model, layers=(replace(layer, formats=finer),)), network)
    with pytest.raises(UsageError, match="'layers' differs"):
        frames_for(replace(model, head=None), network)


@pytest.mark.parametrize("stalls", ["always", "random"])
@pytest.mark.parametrize("simulator", ["amaranth", "cxxrtl", "icarus"])
def test_a_loadable_network_is_also_a_network(simulator, stalls):
    model, x, lengths = network_of("gru", 3, 4)
    network = Network(model, 4, weights="loadable", probed=simulator != "icarus")
    report = check(model, x, lengths, network=network, simulator=simulator, input_stall=stalls, output_stall=stalls)
    assert report.mismatches == 0



@pytest.mark.parametrize("cell", ["lstm", "gru-reset-before"])
def test_a_load_waits_until_all_channels_are_between_sequences(cell):
    model, x, _ = network_of(cell, 2, 3, lengths=(4, 4))
    raw = model.quantize_input(x)
    network = Network(model, 4, weights="loadable", channels=2)
    second = other(model)
    frames = frames_for(second, network)
    board = Board(network, 7)
    # Channel 0 has sequences of 2 steps and channel 1 one of 4: only after the fourth round do both end.
    ends = {0: (1, 3), 1: (3,)}

    async def feeder(ctx):
        for _ in range(2):
            for t in range(4):
                for channel in range(2):
                    row = raw[channel, t].tolist()
                    last = t in ends[channel]
                    payloads = [{"data": e, "last": last and k == len(row) - 1} for k, e in enumerate(row)]
                    await board.send(ctx, network.i, payloads)
                    board.begun.append(len(board.answers))
        await board.rest(ctx, 6)

    async def loader(ctx):
        for _ in range(500):
            if board.begun:
                break
            await ctx.tick()
        assert await board.load(ctx, frames) == [HELD] * (len(frames) - 1) + [ACCEPTED]

    board.run(feeder, loader)
    assert board.begun == [0] * 8 + [len(frames)] * 8

    def of(m):
        halves = np.stack([raw[0, :2], raw[0, 2:]])
        return sorted([*expected(m, halves, np.array([2, 2])), *expected(m, raw[1:], np.array([4]))])

    shown = board.sequences()
    assert sorted(shown[:3]) == of(model) and sorted(shown[3:]) == of(second)


@icarus
def test_the_bench_of_channels(tmp_path):
    model, *_ = network_of("lstm", 2, 3)
    generate(model, tmp_path / "verilog", lanes=4, name="net", weights="loadable", channels=3)
    assert run_bench(tmp_path / "verilog", "icarus").startswith("PASS net")
    assert frames_of_folder(other(model), tmp_path / "verilog")


@icarus
@pytest.mark.parametrize("weights", ["loadable", "spram", "block", "distributed"])
def test_the_bench_of_a_folder(weights, tmp_path):
    model, *_ = network_of("lstm", 2, 3)
    target = "up5k" if weights == "spram" else None
    folder = tmp_path / "verilog"
    options = {"lanes": 4, "name": "net", "weights": weights, "target": target}
    manifest = generate(model, folder, **options)
    assert run_bench(folder, "icarus").startswith("PASS net")
    loads = weights in ("loadable", "spram")
    assert manifest["weights"] == weights and bool(manifest["load"]) == loads == (folder / "load.hex").exists()
    text, readme = (folder / "net.v").read_text(), (folder / "README.md").read_text()
    assert ("s_load_tdata" in text) == ("## Loading weights" in readme) == ("`s_load_tdata`" in readme) == loads
    assert f"weights={weights!r}" in text
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    generate(model, folder, **options)
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}
    if loads:
        # The other model's weights by the same port: what the bench expects is that model's then.
        second = other(model)
        frames = frames_of_folder(second, folder)
        assert frames == frames_for(second, Network(model, 4, weights=weights))


@icarus
def test_the_bench_finds_a_fault_of_the_load_port(tmp_path):
    model, *_ = network_of("rnn", 2, 3)
    generate(model, tmp_path / "verilog", lanes=2, name="net", weights="loadable")
    verilog = tmp_path / "verilog" / "net.v"
    text = verilog.read_text()
    for fault, verdict in (
        ((r"crc <= \{.*\};", "crc <= 32'd0;"), "another answer"),
        ((r"(assign open_? = ).*;", r"\g<1>1'b1;"), "not held"),
        ((r"(assign drained = ).*;|(drained <= ).*;", r"\g<2>1'b0;"), "nothing for too long"),
    ):
        changed, count = re.subn(*fault, text)
        assert count >= 1, fault
        verilog.write_text(changed)
        found = run_bench(tmp_path / "verilog", "icarus")
        assert found.startswith("FAIL net") and verdict in found, found


@icarus
@pytest.mark.parametrize("weights, target", [("loadable", None), ("spram", "up5k")])
def test_another_model_in_the_verilog(weights, target, tmp_path):
    """The bench of the other model's folder, run on this one's Verilog with that one's frames."""
    model, *_ = network_of("gru", 2, 3)
    second = other(model)
    for name, each in (("own", model), ("other", second)):
        generate(each, tmp_path / name, lanes=4, name="net", weights=weights, target=target)
    assert (tmp_path / "own" / "expected.hex").read_text() != (tmp_path / "other" / "expected.hex").read_text()
    texts = [(tmp_path / name / "net.v").read_text() for name in ("own", "other")]
    shutil.copy(tmp_path / "own" / "net.v", tmp_path / "other" / "net.v")
    bench = tmp_path / "other" / "net_tb.v"
    if weights == "loadable":
        assert run_bench(tmp_path / "other", "icarus").startswith("FAIL net")
        words = "    // Resets at many places"
        assert bench.read_text().count(words) == 1
        bench.write_text(bench.read_text().replace(words, "    load;\n" + words))
    else:
        assert texts[0].split("module net_network_layer0_lanes")[0] != texts[0]
    assert run_bench(tmp_path / "other", "icarus").startswith("PASS net")


@pytest.mark.parametrize("target", [None, "hx8k", "ecp5-25k-6"])
def test_spram_is_refused_where_there_is_none(target, tmp_path):
    words = rf"^Weights must be 'spram' only for a target that has it \(up5k\), not for {target or 'any'}$"
    with pytest.raises(UsageError, match=words):
        generate(network_of()[0], tmp_path / "x", weights="spram", target=target)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"^Lanes must be given as a number beside weights 'spram', not as 'auto'$"):
        generate(network_of()[0], tmp_path / "x", lanes="auto", weights="spram", target="up5k")


@icarus
@pytest.mark.parametrize("weights", ["block", "loadable"])
def test_with_lanes_and_projects_of_a_target(weights, tmp_path):
    model, *_ = network_of("lstm", 2, 3)
    options = {"lanes": "auto", "target": "ecp5-25k-6", "tools": ["vivado"], "weights": weights, "name": "net"}
    generate(model, tmp_path / "v", **options)
    assert run_bench(tmp_path / "v", "icarus").startswith("PASS net")
    text = (tmp_path / "v" / "net_vendor.v").read_text()
    assert text.count('(* rom_style = "block" *)') == (4 if weights == "block" else 0)
    if weights == "loadable":
        assert frames_of_folder(other(model), tmp_path / "v")


def test_a_folder_must_be_of_a_network_that_the_model_fits(tmp_path):
    model, *_ = network_of("rnn", 2, 3)
    with pytest.raises(UsageError, match=r"^Folder must be one that hwrnn generate wrote"):
        frames_of_folder(model, tmp_path)
    generate(model, tmp_path / "fixed", lanes=2)
    with pytest.raises(UsageError, match=r"^Verilog must be generated with weights 'loadable' or 'spram' to be loaded"):
        frames_of_folder(model, tmp_path / "fixed")
    generate(model, tmp_path / "open", lanes=2, weights="loadable")
    with pytest.raises(UsageError, match=r"^Model must have the cells, sizes and formats of the network in "):
        frames_of_folder(network_of("rnn", 2, 4)[0], tmp_path / "open")
    assert frames_of_folder(other(model), tmp_path / "open")


def test_formats_of_another_model():
    old, x, lengths = network_of("lstm", 3, 5, seed=1)
    model = build_model(3, 3, cell="lstm", hidden=5, seed=2)
    for values in model.layers[0].parameters.values():
        values *= 5
    data = SimpleNamespace(train=SimpleNamespace(x=x, lengths=lengths))
    new = quantize(model, data, formats_of=old)
    assert [layer.formats for layer in new.stack] == [layer.formats for layer in old.stack]
    assert new.widths == old.widths
    network = Network(old, 4, weights="loadable")
    assert Network(new, 4, weights="loadable").identity == network.identity
    assert frames_for(new, network) != frames_for(old, network)
    beyond = 0
    for layer, float_layer in zip(new.stack, model.stack, strict=True):
        for key, form in layer.formats.weights.items():
            w = float_layer.block(*key).astype(float)
            beyond += int(((w < form.min - form.step / 2) | (w >= form.max + form.step / 2)).sum())
    assert new.facts["saturated_weights"] == beyond > 0
    tame = build_model(3, 3, cell="lstm", hidden=5, seed=2)
    assert quantize(tame, data, formats_of=new).facts["saturated_weights"] == 0
    words = r"^Bits and method must be left out where another model gives the formats$"
    for options in ({"bits": 8}, {"cell_bits": 9}, {"method": "max"}):
        with pytest.raises(UsageError, match=words):
            quantize(model, data, formats_of=old, **options)
    for other_model, what in (
        (build_model(3, 3, cell="lstm", hidden=6), r"layers .*\['lstm 3x5', 'dense 5x3'\], not \['lstm 3x6', "),
        (build_model(3, 3, cell="lstm", hidden=5, gate="plan_sigmoid"), "nonlinearities"),
        (build_model(3, 3, cell="lstm", hidden=5, cell_clip=3.0), "limits of a cell state"),
        (build_model(3, 3, cell="lstm", hidden=5, every_step=True), "outputs"),
    ):
        with pytest.raises(UsageError, match=f"^Model must have the {what}"):
            quantize(other_model, data, formats_of=old)


def test_from_the_command_line(tmp_path, capsys):
    def run(line):
        code = main([word.replace("@", f"{tmp_path}/") for word in line.split()])
        return code, capsys.readouterr()

    for seed in (0, 1):
        line = f"train --data adding --hidden 4 --cell gru --epochs 1 --seed {seed} -o @m{seed}.onnx --json"
        assert run(line)[0] == 0
    assert run("quantize @m0.onnx --data adding -o @q0.onnx --json")[0] == 0
    code, said = run("quantize @m1.onnx --data adding --like @q0.onnx -o @q1.onnx --json")
    saturated = load(tmp_path / "q1.onnx").facts["saturated_weights"]
    assert code == 0 and json.loads(said.out)["saturated_weights"] == saturated
    assert run("generate @q0.onnx --lanes 3 --weights loadable -o @v --json")[0] == 0
    code, said = run("frames @q1.onnx @v -o @w.bin --json")
    content = (tmp_path / "w.bin").read_bytes()
    frames = frames_for(load(tmp_path / "q1.onnx"), Network(load(tmp_path / "q0.onnx"), 3, weights="loadable"))
    assert code == 0 and content == joined(frames)
    told = {"file": str(tmp_path / "w.bin"), "frames": len(frames), "bytes": len(content)}
    assert json.loads(said.out) == told
    for line, words in (
        ("frames @q1.onnx @v -o @none/w.bin", "hwrnn: Output path must be in an existing folder"),
        ("frames @q1.onnx @ -o @w.bin", "hwrnn: Folder must be one that hwrnn generate wrote"),
        ("quantize @m1.onnx --data adding --like @q0.onnx --bits 6 -o @q2.onnx", "hwrnn: Bits and method must be left"),
        ("generate @q0.onnx --weights spram -o @x", "hwrnn: Weights must be 'spram' only for a target that has it"),
    ):
        code, said = run(line)
        assert code == 2 and said.err.startswith(words) and said.err.count("\n") == 1, said.err
    assert (tmp_path / "w.bin").read_bytes() == content
    assert not (tmp_path / "x").exists() and not (tmp_path / "q2.onnx").exists()
