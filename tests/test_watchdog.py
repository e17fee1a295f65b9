"""The watchdog: it tells exactly when a port has waited for N cycles, and in a stream that runs never."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator
from networks import network_of

from hwrnn.errors import UsageError
from hwrnn.golden import golden
from hwrnn.rtl import Network, generate
from hwrnn.rtl.verilog import emit
from hwrnn.rtl.watchdog import STALLED


def trace_of(network, raw, lengths, supply, demand):
    """Every cycle's ports and what the watchdog tells, and the elements that leave."""
    payloads = [
        (int(value), int(t == length - 1 and k == raw.shape[2] - 1))
        for n, length in enumerate(lengths)
        for t in range(length)
        for k, value in enumerate(raw[n, t])
    ]
    seen, outputs, supply, demand = [], [], list(map(int, supply)), list(map(int, demand))

    async def bench(ctx):
        sent = offered = 0
        for cycle in range(len(supply)):
            offered |= int(sent < len(payloads) and supply[cycle])
            if offered:
                ctx.set(network.i.payload, dict(zip(("data", "last"), payloads[sent], strict=True)))
            ctx.set(network.i.valid, offered)
            ctx.set(network.o.ready, demand[cycle])
            taken, valid = ctx.get(network.i.ready), ctx.get(network.o.valid)
            told = [ctx.get(getattr(network, name)) for name in STALLED]
            seen.append((offered, taken, payloads[sent][1] if offered else 0, valid, demand[cycle], told))
            if valid and demand[cycle]:
                outputs.append(ctx.get(network.o.payload.data))
            if offered and taken:
                sent, offered = sent + 1, 0
            await ctx.tick()

    m = Module()
    m.submodules.network = network
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen, outputs


def told_wrong(seen, cycles, inputs, channels=1):
    """The cycles in which the watchdog does not tell what the ports say."""
    wrong, starved, refused, sent = [], 0, 0, 0
    inside = [False] * channels
    for cycle, (valid, ready, last, output, taken, told) in enumerate(seen):
        expected = [starved >= cycles, refused >= cycles]
        if told != [any(expected), *expected]:
            wrong.append(cycle)
        owed = any(inside) or sent % (inputs * channels)
        starved = starved + 1 if ready and not valid and owed else 0
        refused = refused + 1 if output and not taken else 0
        if valid and ready:
            sent += 1
            if sent % inputs == 0:
                inside[(sent // inputs - 1) % channels] = not last
    return wrong


def stalled_run(cycles, inputs=2, channels=1, seed=0, **options):
    """A network under long stalls of both ports."""
    model, x, _ = network_of("gru", inputs, 3, lengths=(3, 3, 3, 3))
    lengths = [1, 3, 2, 2] if channels == 1 else [2, 2]
    rng = np.random.default_rng([seed, cycles, channels])
    patterns = []
    for most, beyond in ((3, 60), (20, 4)):
        bursts = rng.integers(1, 2 * cycles + beyond, 800)
        bursts[1::2] = rng.integers(1, most, 400)
        patterns.append(np.repeat(np.arange(800) % 2, bursts)[:1200])
    network = Network(model, 2, watchdog=cycles, channels=channels, **options)
    raw = model.quantize_input(x)
    seen, outputs = trace_of(network, raw[: len(lengths)], lengths, *patterns)
    return model, raw, lengths, seen, outputs


@pytest.mark.parametrize(("cycles", "inputs", "options"), [
    (1, 2, {}), (2, 1, {}), (7, 2, {}), (16, 3, {"weights": "loadable"}), (37, 2, {"protect": "secded"}),
])  # fmt: skip
def test_the_count_is_exact(cycles, inputs, options):
    model, raw, lengths, seen, outputs = stalled_run(cycles, inputs, **options)
    assert told_wrong(seen, cycles, inputs) == []
    told = np.array([one[-1] for one in seen])
    assert told.any(axis=0).all() and not told.all(axis=0).any()
    expected = golden(model, raw[: len(lengths)], np.array(lengths)).output
    assert outputs == expected.ravel().tolist()
    # A count that is off by one is found.
    assert told_wrong(seen, cycles + 1, inputs) and (cycles == 1 or told_wrong(seen, cycles - 1, inputs))


def test_the_count_is_exact_with_channels():
    _, _, _, seen, _ = stalled_run(5, 2, channels=2)
    assert told_wrong(seen, 5, 2, channels=2) == [] and told_wrong(seen, 6, 2, channels=2)


def test_it_never_rises_in_a_stream_that_runs():
    model, x, _ = network_of("gru", 2, 3, lengths=(3,) * 6)
    raw = model.quantize_input(x)
    always = np.ones(900, int)
    seen, outputs = trace_of(Network(model, 2, watchdog=1), raw, [3, 1, 2, 3, 1, 2], always, always)
    assert len(outputs) == 6 * 3
    assert not any(any(told) for *_, told in seen)
    # And between two sequences nothing is owed, however long that is.
    seen, _ = trace_of(Network(model, 2, watchdog=1), raw, [2], always, always)
    assert len(seen) == 900 and not any(any(told) for *_, told in seen)


def test_none_by_default():
    model = network_of("rnn", 1, 2, outputs=None)[0]
    text = emit(Network(model, 2), "n").text
    assert "watchdog" not in text and "stalled" not in text
    network = Network(model, 2, watchdog=100)
    assert "n_network_watchdog" in emit(network, "n").text and network.with_probes().watchdog == 100


@pytest.mark.parametrize("cycles", [-1, 1.5, True, 1 << 32, "8"])
def test_what_is_refused(cycles, tmp_path):
    model = network_of("gru", 2, 3)[0]
    sentence = f"Watchdog must be a whole number of cycles from 1 to 4294967295, or 0 for none, not {cycles!r}"
    with pytest.raises(UsageError, match=sentence):
        Network(model, 2, watchdog=cycles)
    with pytest.raises(UsageError, match=sentence):
        generate(model, tmp_path / "out", watchdog=cycles)
