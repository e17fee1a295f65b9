"""Weights that are exchanged in the running hardware: right frames change the network, wrong ones nothing."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module, ResetSignal, Signal
from amaranth.sim import Simulator
from networks import network_of

from hwrnn.errors import UsageError
from hwrnn.golden import golden
from hwrnn.rtl import Network
from hwrnn.rtl.frames import BEGIN, END, HELD, REASONS, VERSION, WORD, frames_for, joined
from hwrnn.rtl.weights import AnyWeights, sprams_of
from hwrnn.sim import check

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
            biases[gate] = rng.choice(np.array([2 * lo, hi, 2 * hi, lo]), bias.shape) if extreme else bias + rng.integers(
                lo // 8, hi // 8, bias.shape
            )
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
    assert frames[1][5:-4] == lanes.words[0].to_bytes(-(-lanes.word_bits // 8), "little")
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
