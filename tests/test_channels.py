"""Independent sequences that take turns in one network: every value, every cycle, and what fills the drain."""

import shutil

import numpy as np
import pytest
from networks import FEW, KINDS, diagonals, network_of, started

from hwrnn.errors import UsageError
from hwrnn.rtl import TARGETS, Network, generate
from hwrnn.rtl.rounds import filled, order_of
from hwrnn.rtl.schedule import MOST_CHANNELS
from hwrnn.rtl.timing import SHORTEST
from hwrnn.sim import check, simulate
from hwrnn.sim.verilog import run_bench

DEEP = TARGETS["ecp5-25k-6"].timing
LENGTHS = (4, 1, 3, 2, 6, 1, 2)


@pytest.mark.parametrize(
    ("cell", "form"), diagonals(KINDS, [(2, SHORTEST), (3, DEEP), (2, DEEP), (3, SHORTEST)], every=2)
)
def test_every_value_and_cycle(cell, form):
    channels, timing = form
    model, x, lengths = network_of(cell, 2, 3, lengths=LENGTHS)
    report = check(model, x, lengths, lanes=6, channels=channels, timing=timing, simulator="amaranth")
    assert report.mismatches == 0 and report.latency == report.promised["latency"]
    assert report.cycles_per_step == report.promised["cycles_per_step"]


@pytest.mark.parametrize("cell", ["lstm-peephole", "gru"])
def test_initial_states(cell):
    model, x, lengths = network_of(cell, 2, 3, lengths=LENGTHS)
    stalls = {"input_stall": "random", "output_stall": "bursts"} if cell == "gru" else {}
    report = check(started(model, 1), x, lengths, lanes=6, channels=2, simulator="amaranth", **stalls)
    assert report.mismatches == 0 and (stalls or report.closed_forms)


@pytest.mark.parametrize(
    ("network", "traffic"),
    diagonals(
        [("lstm", {"layers": 2}), ("gru-reset-before", {"layers": 2, "every_step": True}), ("gru-reset-before", {}),
         ("mingru", {"every_step": True})],
        [(channels, stalls) for stalls in (("random", "bursts"), ("bursts", "waits"), ("waits", "random"))
         for channels in (2, 5)],
    ),
)  # fmt: skip
def test_under_stalls(network, traffic):
    (cell, options), (channels, stalls) = network, traffic
    model, x, lengths = network_of(cell, 2, 3, lengths=LENGTHS, **options)
    check(
        model, x, lengths, lanes=5, channels=channels, simulator="amaranth", argmax=channels == 5,
        input_stall=stalls[0], output_stall=stalls[1],
    )  # fmt: skip


@pytest.mark.parametrize("cell", FEW)
def test_enough_channels_fill_every_cycle(cell):
    """From there on no lane waits; with one channel fewer it does; and the input need not be wider for it."""
    for timing in (SHORTEST, DEEP):
        model = network_of(cell, 1, 2)[0]
        engine = Network(model, 8, timing=timing).engines[0]
        enough = engine.channels_without_waiting
        assert enough > 1
        for channels in (enough, enough + 3):
            schedule = Network(model, 8, timing=timing, channels=channels).engines[0].schedule
            assert schedule.cycles_per_step == sum(p.cycles for p in schedule.phases)
        fewer = Network(model, 8, timing=timing, channels=enough - 1).engines[0].schedule
        assert fewer.cycles_per_step > sum(p.cycles for p in fewer.phases)


def test_a_network_that_is_full_anyway_needs_one_channel():
    assert Network(network_of("lstm", 12, 32)[0], 16).engines[0].channels_without_waiting == 1


def test_the_smallest_network_is_busy_in_every_cycle():
    model, x, lengths = network_of("lstm", 1, 1, lengths=(5,) * 12)
    network = Network(model, 4, timing=DEEP)
    enough = network.engines[0].channels_without_waiting
    report = check(model, x, lengths, lanes=4, channels=enough, timing=DEEP, simulator="amaranth")
    assert network.cycles_per_step > 10 and report.cycles_per_step == 2 and report.multiplier_utilization == 1


def test_one_sequence_and_many_channels():
    model, x, lengths = network_of("gru", 2, 3, lengths=(3,))
    report = check(model, x, lengths, lanes=3, channels=9, simulator="amaranth")
    assert report.sequences == 1 and report.steps == 3


def test_a_wrong_channel_is_found(monkeypatch):
    """States that are not kept apart, planted."""
    from hwrnn.rtl.engine import Engine

    model, x, lengths = network_of("lstm", 2, 3, lengths=LENGTHS)
    monkeypatch.setattr(Engine, "_place", lambda self, unit, channel: unit)
    report = simulate(model, x, lengths, lanes=6, channels=2, simulator="amaranth")
    assert report.mismatches and report.first_difference.value == "c"


def test_a_wrong_tag_is_found():
    from hwrnn.sim.amaranth_simulator import run_amaranth
    from hwrnn.sim.comparison import compare, expected_values
    from hwrnn.sim.stimuli import stimulus

    from hwrnn.golden import golden  # isort: skip

    model, x, lengths = network_of("rnn", 2, 3, lengths=(2, 2))
    raw = model.quantize_input(x)
    network = Network(model, 3, probed=True, channels=2)
    recording = run_amaranth(network, stimulus(network, raw, lengths))
    expected = expected_values(model, network, golden(model, raw, lengths, keep=True), lengths)
    assert compare(expected, recording)[0] == 0
    recording.above[-1] ^= 2
    count, first = compare(expected, recording)
    assert (count, first.value, first.expected, first.actual) == (1, "channel", 1, 0)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
@pytest.mark.parametrize(
    "cell, channels, options",
    [
        ("gru-reset-before", 3, {"layers": 2}),
        ("lstm", 2, {}),
        pytest.param("gru", 5, {"layers": 2, "every_step": True}, marks=pytest.mark.slow),
    ],
)
def test_the_generated_bench(cell, channels, options, tmp_path):
    model, x, lengths = network_of(cell, 2, 3, **options)
    manifest = generate(model, tmp_path / "out", lanes=6, name="net", channels=channels, argmax=channels == 5)
    assert manifest["channels"] == channels
    assert manifest["ports"]["output"]["tid_bits"] == (channels - 1).bit_length()
    assert "m_axis_tid" in (tmp_path / "out" / "README.md").read_text()
    assert run_bench(tmp_path / "out", "icarus").startswith("PASS net")
    report = simulate(model, x, lengths, lanes=6, channels=channels, simulator="icarus")
    assert report.mismatches == 0
    # A wrong tag, and a rate that is not the promised one.
    source = tmp_path / "out" / "net.v"
    good = source.read_text()
    source.write_text(good.replace("assign m_axis_tid =", "assign m_axis_tid = 1 ^"))
    assert source.read_text() != good
    assert "m_axis_tid is wrong" in run_bench(tmp_path / "out", "icarus")
    if len(manifest["layers"]) > 2:
        return  # a later layer may hold back the first one
    source.write_text(good)
    bench = tmp_path / "out" / "net_tb.v"
    bench.write_text(bench.read_text().replace("FIRST_LAYER = ", "FIRST_LAYER = 1 + "))
    assert "a round takes" in run_bench(tmp_path / "out", "icarus")


@pytest.mark.parametrize("channels", [0, MOST_CHANNELS + 1, 1.5, True])
def test_channels_out_of_range(channels):
    model = network_of("rnn")[0]
    with pytest.raises(UsageError, match=rf"^Channels must be a whole number from 1 to {MOST_CHANNELS}, not "):
        Network(model, channels=channels)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_every_vector_has_its_turn(channels):
    rng = np.random.default_rng([channels, 3])
    lengths = rng.integers(1, 9, 11)
    x = rng.integers(-9, 9, (11, 8, 2))
    full, made = filled(x, lengths, channels)
    assert made[:11].tolist() == lengths.tolist() and len(made) <= 11 + channels - 1
    assert np.array_equal(full[:11, :8], x) and not full[11:].any()
    order = order_of(made, channels)
    assert len(order.steps) == made.sum() and (order.channels == np.arange(made.sum()) % channels).all()
    assert len(set(zip(order.sequences.tolist(), order.steps.tolist(), strict=True))) == made.sum()
    for n, length in enumerate(made):
        at = np.flatnonzero(order.sequences == n)
        assert len(set(order.channels[at].tolist())) == 1 and (np.diff(at) == channels).all()
        assert order.steps[at].tolist() == list(range(length))
        assert order.ends[at].tolist() == [False] * (length - 1) + [True]
