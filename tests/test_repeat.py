"""Between encoder and decoder: the repeated code alone, and whole networks in every simulator."""

import json
import re
import shutil

import numpy as np
import pytest
from amaranth.sim import Simulator
from networks import FEW, network_of

import hwrnn.rtl.network
from hwrnn.cells import CELLS
from hwrnn.compiler import CPP, compiler_available
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.golden import golden
from hwrnn.rtl import TARGETS, Network, generate
from hwrnn.rtl.balance import balance, needs_of
from hwrnn.rtl.repeat import Repeat
from hwrnn.sim import STALLS, check, simulate
from hwrnn.sim.amaranth_simulator import run_amaranth
from hwrnn.sim.stimuli import stall_named, stimulus
from hwrnn.sim.verilog import run_bench

icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
FORM = Format(8, 0)
RECURRENT = [cell for cell in CELLS if not cell.startswith("lstm-")]
#: units of each layer, how many encode, outputs of the head
SHAPES = [((3, 4), 1, 2), ((2, 3, 2), 2, None), ((3, 2, 1), 1, 1)]


def autoencoder(cell, shape=SHAPES[0], inputs=2, **options):
    units, encoder, outputs = shape
    return network_of(
        cell, inputs, list(units), outputs, layers=len(units), encoder=encoder, every_step=True, task="regression",
        **options,
    )  # fmt: skip


def one_each(choices):
    """Every cell with every choice; all but one of a cell are slow, and which one that is goes round."""
    return [
        pytest.param(cell, choice, marks=[] if (k - n) % len(choices) == 0 else pytest.mark.slow)
        for n, cell in enumerate(RECURRENT) for k, choice in enumerate(choices)
    ]  # fmt: skip


# -- the part alone


def run_alone(part, sequences, stalls=("always", "always")):
    """What leaves the part, as ``(element, last)``, and the cycles of the transfers at both ports."""
    elements = [
        (value, t == len(vectors) - 1 and k == part.units - 1)
        for vectors in sequences for t, vector in enumerate(vectors) for k, value in enumerate(vector)
    ]  # fmt: skip
    due = sum(min(len(vectors), part.most_steps) for vectors in sequences) * part.units
    patterns = [stall_named(kind, seed) for seed, kind in enumerate(stalls)]
    found, took, gave = [], [], []

    async def bench(ctx):
        offered = ready_before = valid_before = 0
        for cycle in range(40 * (len(elements) + due) + 400):
            if not offered and len(took) < len(elements):
                stall = patterns[0]
                offered = stall.pattern[cycle % len(stall.pattern)] and (ready_before if stall.waits else 1)
                ctx.set(part.i.payload.data, elements[len(took)][0])
                # Nobody may read it but with a vector's last element.
                noise = (len(took) + 1) % part.units != 0 and cycle % 3 == 0
                ctx.set(part.i.payload.last, int(elements[len(took)][1] or noise))
            stall = patterns[1]
            willing = stall.pattern[cycle % len(stall.pattern)] and (valid_before if stall.waits else 1)
            ctx.set(part.i.valid, int(offered))
            ctx.set(part.o.ready, int(willing))
            sampled = await ctx.tick().sample(part.i.ready, part.o.valid, part.o.payload.data, part.o.payload.last)
            _, _, ready_before, valid_before, data, last = sampled
            if offered and ready_before:
                took.append(cycle)
                offered = 0
            if willing and valid_before:
                found.append((data, last))
                gave.append(cycle)
            if len(found) == due and len(took) == len(elements) and cycle > gave[-1] + 40:
                return

    simulator = Simulator(part)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found, took, gave


def repeated(sequences, units, most):
    """What must leave."""
    found = []
    for vectors in sequences:
        count = min(len(vectors), most)
        for t in range(count):
            found += [(value, int(t == count - 1 and k == units - 1)) for k, value in enumerate(vectors[-1])]
    return found


def random_sequences(units, lengths, seed=0):
    rng = np.random.default_rng([seed, units])
    return [rng.integers(FORM.lo, FORM.hi, (n, units), endpoint=True).tolist() for n in lengths]


@pytest.mark.parametrize("output_stall", STALLS)
@pytest.mark.parametrize("input_stall", STALLS)
@pytest.mark.parametrize("units", [1, 3])
def test_back_pressure_loses_nothing(units, input_stall, output_stall):
    sequences = random_sequences(units, [3, 1, 1, 4, 2, 1, 7, 1, 2, 2])
    found, took, _ = run_alone(Repeat(FORM, units), sequences, (input_stall, output_stall))
    assert len(took) == sum(len(vectors) for vectors in sequences) * units
    assert found == repeated(sequences, units, 1 << 24)


@pytest.mark.parametrize("units", [1, 2, 3, 4, 7])
def test_latency_and_an_element_a_cycle(units):
    part = Repeat(FORM, units)
    _, took, gave = run_alone(part, random_sequences(units, [3]))
    assert gave[units - 1] - took[-1] == part.latency
    assert np.diff(gave).tolist() == [1] * (3 * units - 1)
    for lengths in ([1] * 9, [2] * 7, [5, 5, 5]):  # both ports are busy throughout, once the first code is there
        _, took, gave = run_alone(Repeat(FORM, units), random_sequences(units, lengths))
        assert np.diff(gave).tolist() == [1] * (sum(lengths) * units - 1)
        assert np.diff(took).tolist() == [1] * (sum(lengths) * units - 1)


@pytest.mark.parametrize("bits, units", [(2, 1), (2, 3), (3, 2)])
def test_beyond_the_most_steps_as_many_as_that_are_emitted(bits, units):
    part = Repeat(FORM, units, bits)
    most = part.most_steps
    assert most == 2**bits - 1
    sequences = random_sequences(units, [most - 1, most, most + 1, 1, 2 * most + 5, 2, 4 * most + 4, most])
    found, _, _ = run_alone(part, sequences, ("random", "random"))
    assert found == repeated(sequences, units, most)


def test_simulation_refuses_more_steps_than_are_counted(monkeypatch):
    model, x, lengths = autoencoder("rnn")
    monkeypatch.setattr(
        hwrnn.rtl.network, "repeat_of", lambda model: Repeat(model.layers[0].output, model.layers[0].units, 2)
    )
    with pytest.raises(UsageError, match=r"^Sequences must have at most 3 steps, not 4$"):
        simulate(model, x, lengths, lanes=3, simulator="amaranth")
    assert check(model, x[1:], lengths[1:], lanes=3, simulator="amaranth").mismatches == 0


# -- networks


@pytest.mark.parametrize("cell, shape", one_each(SHAPES))
def test_every_value_and_the_closed_forms(cell, shape):
    model, x, lengths = autoencoder(cell, shape)
    report = check(model, x, lengths, lanes=3, simulator="amaranth")
    assert report.mismatches == 0 and report.closed_forms and report.sequence_cycles is not None


@pytest.mark.parametrize("cell", FEW)
@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 16))])
def test_back_pressure(cell, seed):
    """Every pair of stalls, over the cells."""
    turned = (seed + 5 * list(CELLS).index(cell)) % 16
    input_stall, output_stall = STALLS[turned // 4], STALLS[turned % 4]
    model, x, lengths = autoencoder(cell, SHAPES[seed % 3], seed=seed, lengths=(3, 1, 1, 4, 2))
    check(
        model, x, lengths, lanes=(2, 5, 12)[seed % 3], simulator="amaranth", seed=seed, input_stall=input_stall,
        output_stall=output_stall,
    )  # fmt: skip


FORMS = [(100, "ecp5-25k-6"), ([9, 1, 1], "ecp5-25k-6"), ([1, 9, 2], "hx8k")]
FORMS += [(lanes, name) for lanes in (1, 4) for name in ("up5k", "ecp5-25k-6", "xc7s15")]


@pytest.mark.parametrize("cell, form", one_each(FORMS))
def test_sequences_take_their_closed_forms(cell, form):
    """Alone, for any number of steps; and one after another, where both halves of the network work at once."""
    lanes, name = form
    model, x, _ = autoencoder(cell, lengths=(6,))
    raw, count = model.quantize_input(x), 5
    network = Network(model, lanes, timing=TARGETS[name].timing)  # one, whose simulator is made once
    for steps in (1, 3):
        recording = run_amaranth(network, stimulus(network, raw[:, :steps], np.array([steps])))
        assert recording.output_cycles[-1] - recording.input_cycles[0] == network.sequence_cycles(steps)
    for steps in (1, 3):
        rows = np.repeat(raw[:, :steps], count, axis=0)
        recording = run_amaranth(network, stimulus(network, rows, np.full(count, steps)))
        ends = recording.output_cycles[steps * network.outputs_per_vector - 1 :: steps * network.outputs_per_vector]
        assert len(ends) == count
        assert np.diff(ends).tolist()[1:] == [steps * network.cycles_per_step] * (count - 2)


SLOW_DECODER, SLOW_ENCODER = [9, 1, 1], [1, 9, 2]
BY_NAME = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize(
    ("simulator", "lanes"),
    [
        pytest.param("cxxrtl", SLOW_DECODER, id="cxxrtl-slow decoder"),
        pytest.param("icarus", SLOW_DECODER, id="icarus-slow decoder", marks=pytest.mark.slow),
        pytest.param("icarus", SLOW_ENCODER, id="icarus-slow encoder", marks=pytest.mark.slow),
        pytest.param("verilator", SLOW_ENCODER, id="verilator-slow encoder", marks=pytest.mark.slow),
        pytest.param("cxxrtl", SLOW_ENCODER, id="cxxrtl-slow encoder", marks=BY_NAME),
        pytest.param("verilator", SLOW_DECODER, id="verilator-slow decoder", marks=BY_NAME),
    ],
)
def test_other_simulators(simulator, lanes):
    there = compiler_available(CPP) if simulator == "cxxrtl" else shutil.which(simulator.replace("icarus", "iverilog"))
    if not there:
        pytest.skip(f"{simulator} is not installed")
    model, x, lengths = autoencoder("gru", lengths=(9, 1, 9, 8, 2, 9))
    for stalls in (("always", "always"), ("random", "waits"), ("waits", "bursts")):
        report = check(
            model, x, lengths, lanes=lanes, simulator=simulator, input_stall=stalls[0], output_stall=stalls[1]
        )
        assert report.mismatches == 0
        assert report.closed_forms is (True if stalls[0] == "always" else None)


def test_a_classification_with_the_largest_output(tmp_path):
    """From a sequence to one of labels: the decoder's scores, or the largest one's index, at every step."""
    model, x, lengths = network_of("gru", 2, [3, 4], 3, layers=2, encoder=1, every_step=True)
    for argmax in (False, True):
        assert check(model, x, lengths, lanes=4, simulator="amaranth", argmax=argmax).mismatches == 0


def test_channels_are_refused():
    model = autoencoder("rnn")[0]
    with pytest.raises(UsageError, match=r"^Channels must be 1 for a network with an encoder, not 3: "):
        Network(model, 3, channels=3)


# -- generated folders


@icarus
@pytest.mark.parametrize("cell, weights", one_each(["auto", "loadable"]))
def test_the_bench_passes_and_the_manifest_tells_the_cycles(cell, weights, tmp_path):
    model, x, lengths = autoencoder(cell)
    manifest = generate(
        model, tmp_path / "out", lanes=5, name="net", weights=weights, samples=x[:2] if weights == "loadable" else None,
        lengths=lengths[:2] if weights == "loadable" else None,
    )  # fmt: skip
    assert run_bench(tmp_path / "out", "icarus").startswith("PASS net")
    network, told = Network(model, 5, weights=weights), manifest["repeat"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["repeat"] == told
    assert told["most_steps"] == 2**24 - 1 and told["elements"] == 3 and told["encoder"] == 1
    for steps in (1, 7):
        alone = re.sub(r"inputs", "", told["sequence_alone"]["formula"])
        alone = re.sub(r"max\((\d+)\)", r"\1", alone)
        assert eval(alone, {"T": steps, "max": max}) == network.sequence_cycles(steps)
        row = told["sequence_in_a_row"]["formula"].split(",")[0]
        assert eval(row, {"T": steps}) == steps * network.cycles_per_step
    assert manifest["memory_bits"] == sum(e.memory_bits for e in network.engines) + told["memory_bits"]
    assert "encodes a sequence and then decodes it" in (tmp_path / "out" / "README.md").read_text()
    # A decoder that is slower than promised is found.
    bench = tmp_path / "out" / "net_tb.v"
    bench.write_text(bench.read_text().replace("LATER_STEP = ", "LATER_STEP = 1 + "))
    assert "steps takes" in run_bench(tmp_path / "out", "icarus")


def test_lanes_are_balanced_over_encoder_and_decoder():
    model, target = autoencoder("gru", ((6, 9), 1, 2))[0], TARGETS["up5k"]
    found = balance(model, target)
    network = Network(model, list(found.lanes), timing=target.timing)
    assert network.cycles_per_step == max(found.intervals)
    schedules = [engine.schedule for engine in network.engines]
    without = needs_of(model.stack, schedules, target.timing, target)
    assert found.needs == needs_of(model.stack, schedules, target.timing, target, network.repeat)
    assert found.needs.logic > without.logic and found.needs.flip_flops > without.flip_flops


def test_golden_and_hardware_part_where_the_code_is_not_repeated(monkeypatch):
    """A fault planted in what the hardware is compared with: the layer behind reads every step."""
    import hwrnn.golden as module

    model, x, lengths = autoencoder("gru")
    monkeypatch.setattr(module, "repeated", lambda vectors, lengths: vectors)
    report = simulate(model, x, lengths, lanes=4, simulator="amaranth")
    assert report.mismatches and report.first_difference.layer == 1
    monkeypatch.undo()
    assert simulate(model, x, lengths, lanes=4, simulator="amaranth").mismatches == 0
    assert golden(model, model.quantize_input(x), lengths).output.any()
