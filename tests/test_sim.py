"""What a simulation reports, and what it is asked for."""

import json
from dataclasses import replace

import numpy as np
import pytest
from networks import network_of

from hwrnn.errors import UsageError
from hwrnn.rtl.network import Network
from hwrnn.sim import SIMULATORS, STALLS, check, simulate
from hwrnn.sim.amaranth_simulator import run_amaranth
from hwrnn.sim.comparison import Difference, Expected, compare, first_of
from hwrnn.sim.stimuli import Recording, packed, stall_named, stimulus, unpacked
from hwrnn.sim.timing import typical

AMARANTH = {"simulator": "amaranth"}

# Tools rely on these.
KEYS = [
    *("sequences", "steps", "mismatches", "cycles", "cycles_per_step", "ideal_cycles_per_step"),
    *("multiplier_utilization", "accuracy", "max_abs_error_vs_float", "simulator", "simulated_cycles_per_second"),
]


def test_report():
    model, x, lengths = network_of("gru", 2, 4, lengths=(4, 1, 3))
    y = model.predict(x, lengths).argmax(-1)
    y[0] = (y[0] + 1) % 3
    seen = []
    report = simulate(model, x, lengths, y=y, lanes=4, progress=lambda *done: seen.append(done), **AMARANTH)
    plain = json.loads(json.dumps(report.to_json()))
    assert list(plain)[: len(KEYS)] == KEYS
    assert (report.sequences, report.steps, report.mismatches) == (3, 8, 0)
    assert report.accuracy == {"float": None, "fixed": pytest.approx(2 / 3), "hardware": pytest.approx(2 / 3)}
    assert plain["rmse"] == {"float": None, "fixed": None, "hardware": None}
    assert report.max_abs_error_vs_float is None and report.first_difference is None and report.fault is None
    assert report.simulator == "amaranth" and report.simulated_cycles_per_second > 0
    network = Network(model, 4)
    assert report.cycles_per_step == network.cycles_per_step and report.latency == network.latency
    assert report.ideal_cycles_per_step == network.engines[0].ideal_cycles_per_step
    assert report.multiplier_utilization == report.ideal_cycles_per_step / report.cycles_per_step
    assert report.closed_forms is True
    assert report.saturation.keys() == {f"{k}.{name}" for k, name in Network(model, 4, probed=True).probes}
    assert report.compared == 8 * 4 * (4 + 4) + 3 * (2 * 3 + 2 * 3)
    assert seen[-1] == (16, 16)
    text = str(report)
    assert "accuracy, hardware" in text and "66.7 %" in text


def test_stalled_ports_give_the_mean():
    report = simulate(*network_of("rnn"), input_stall="bursts", **AMARANTH)
    assert report.cycles_per_step == report.cycles / report.steps
    assert report.closed_forms is None and report.latency is None
    assert report.multiplier_utilization == report.ideal_cycles_per_step / report.cycles_per_step


def test_float_model():
    model, x, lengths = network_of("lstm", bits=12, every_step=True, task="regression")
    reference = model.in_float()
    y = reference.predict(x, lengths)
    report = simulate(model, x, lengths, y=y, float_model=reference, **AMARANTH)
    valid = np.arange(x.shape[1]) < lengths[:, None]
    error = (model.predict(x, lengths) - y)[valid]
    assert report.max_abs_error_vs_float == np.abs(error).max() > 0
    assert report.rmse["float"] == 0
    assert report.rmse["fixed"] == report.rmse["hardware"] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert set(report.accuracy.values()) == {None}


@pytest.mark.parametrize("argmax", [False, True])
def test_labels_of_every_step(argmax):
    model, x, lengths = network_of("rnn", 2, 3, 4, every_step=True, lengths=(4, 1, 3))
    y = np.full((3, 4), 9)
    y[:, :3] = model.predict(x, lengths).argmax(-1)[:, :3]
    report = simulate(model, x, lengths, y=y, argmax=argmax, float_model=model.in_float(), **AMARANTH)
    # Only the first sequence has a fourth step.
    assert report.accuracy["fixed"] == report.accuracy["hardware"] == 7 / 8
    assert 0 <= report.accuracy["float"] <= 1
    last = simulate(model, x, lengths, y=y[np.arange(3), lengths - 1], argmax=argmax, **AMARANTH)
    assert last.accuracy["hardware"] == 2 / 3


def test_count_limits_sequences():
    model, x, lengths = network_of("rnn", lengths=(2, 3, 1))
    report = simulate(model, x, lengths, y=np.zeros(3, int), count=2, **AMARANTH)
    assert (report.sequences, report.steps) == (2, 5)
    assert simulate(model, x, lengths, count=100, **AMARANTH).sequences == 3


def test_lengths_may_be_left_out():
    model, x, _ = network_of("rnn", lengths=(3, 3))
    assert check(model, x, **AMARANTH).steps == 6


def test_long_runs_go_in_parts(monkeypatch):
    model, x, lengths = network_of("rnn", every_step=True, lengths=(4, 2, 3, 4, 1))
    whole = simulate(model, x, lengths, **AMARANTH)
    monkeypatch.setattr("hwrnn.sim.verification._AT_ONCE", 50)
    seen = []
    parts = simulate(model, x, lengths, progress=lambda *done: seen.append(done), **AMARANTH)
    assert parts.cycles > whole.cycles  # each part starts idle
    for name in ("sequences", "steps", "mismatches", "compared", "cycles_per_step", "saturation", "closed_forms"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name)), name
    assert seen == sorted(seen)
    faulty = replace(model, head=replace(model.head, biases={"y": model.head.biases["y"] + (1 << 12)}))
    report = simulate(model, x, lengths, network=Network(faulty, probed=True), **AMARANTH)
    assert (report.first_difference.sequence, report.first_difference.step) == (0, 0)


def test_simulators_that_run_verilog_compare_the_port(monkeypatch):
    model, x, lengths = network_of("rnn", every_step=True)

    def stand_in(network, stimulated, which, progress):
        assert (network.budget, network.argmax, which) == (5, True, "icarus") and not network.probes
        return run_amaranth(network, stimulated, progress)

    monkeypatch.setattr("hwrnn.sim.verilog.run_verilog", stand_in)
    report = simulate(model, x, lengths, lanes=5, argmax=True, simulator="icarus")
    assert report.mismatches == 0 and report.simulator == "icarus"
    assert report.compared == 2 * lengths.sum()


@pytest.mark.parametrize(
    "change, text",
    [
        ({"simulator": "modelsim"}, "Simulator must be one of cxxrtl, amaranth, icarus, verilator, not 'modelsim'"),
        ({"input_stall": "never"}, "Stall must be one of always, random, bursts, waits, not 'never'"),
        ({"output_stall": "x"}, "Stall must be one of always, random, bursts, waits, not 'x'"),
        ({"count": 0}, "Count must be a whole number of at least 1, not 0"),
        ({"count": 2.0}, "Count must be a whole number of at least 1, not 2.0"),
        ({"y": np.zeros(2)}, "Targets must be labels that fit the model's outputs, not of shape (2,)"),
        ({"y": np.zeros((3, 4), int)}, "Targets must be labels that fit the model's outputs, not of shape (3, 4)"),
        ({"lengths": [1, 2]}, "Lengths must be 3 whole numbers, one for each sequence"),
        ({"lanes": 0}, "Lanes must be a whole number of at least 1, not 0"),
        ({"vcd": "no/such/folder.vcd"}, "Output path must be in an existing folder, not 'no/such/folder.vcd': create"
                                        " 'no/such' first"),
    ],
)  # fmt: skip
def test_usage_errors(change, text):
    model, x, lengths = network_of("rnn")
    with pytest.raises(UsageError) as error:
        simulate(model, x, **({"lengths": lengths} | AMARANTH | change))
    assert str(error.value) == text


def test_a_float_model_is_not_simulated():
    model, x, lengths = network_of("rnn")
    with pytest.raises(UsageError, match=r"^Model must be quantized to be simulated: quantize it first$"):
        simulate(model.in_float(), x, lengths)


def test_probes_are_not_seen_in_verilog():
    model, x, lengths = network_of("rnn")
    with pytest.raises(UsageError, match=r"^Network must be made without probes to be simulated by icarus, which"):
        simulate(model, x, lengths, network=Network(model, probed=True), simulator="icarus")


def test_names():
    assert SIMULATORS == ("cxxrtl", "amaranth", "icarus", "verilator")
    assert STALLS == ("always", "random", "bursts", "waits")


# The stalls themselves.


def partners(input_stall, output_stall):
    """Which cycles each port moves in when the network always could."""
    model, x, lengths = network_of("rnn", 1, 1, None, lengths=(40,), every_step=True)
    network = Network(model, 100)
    return run_amaranth(network, stimulus(network, model.quantize_input(x), lengths, input_stall, output_stall))


def test_a_ready_that_waits_comes_after_valid():
    always, waits = partners("always", "always"), partners("always", "waits")
    # One element at a time, far apart: each leaves a cycle after it was first offered.
    np.testing.assert_array_equal(waits.output_cycles, always.output_cycles + 1)


def test_a_valid_that_waits_comes_after_ready():
    always, waits = partners("always", "always"), partners("waits", "always")
    assert always.input_cycles[0] == 0 and waits.input_cycles[0] == 1


@pytest.mark.parametrize("longest", [24, 5000])
def test_bursts_are_long_on_both_sides(longest):
    pattern = stall_named("bursts", 3, longest).pattern
    edges = np.flatnonzero(np.diff(pattern)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(pattern)]]))
    assert runs.max() > longest * 0.8 and runs.min() == 1
    assert 0.3 < pattern.mean() < 0.7


def test_patterns_follow_the_seed():
    for kind in ("random", "bursts"):
        np.testing.assert_array_equal(stall_named(kind, 1).pattern, stall_named(kind, 1).pattern)
        assert stall_named(kind, 1).pattern.tobytes() != stall_named(kind, 2).pattern.tobytes()


def test_payloads_there_and_back():
    model, x, lengths = network_of("rnn", bits=32)
    network = Network(model)
    stimulated = stimulus(network, model.quantize_input(3 * x), lengths)
    form = network.input_format
    assert form.signed and form.width == 32 and stimulated.data.min() < 0
    data, last = unpacked(packed(stimulated, form), form)
    np.testing.assert_array_equal(data, stimulated.data)
    np.testing.assert_array_equal(last, stimulated.last)
    assert stimulated.last.sum() == len(lengths)
    unsigned = replace(form, signed=False)
    np.testing.assert_array_equal(unpacked(packed(stimulated, form), unsigned)[0], stimulated.data % 2**32)


# The comparison itself.


def shown(values, cycles=None):
    values = np.array(values, np.int64)
    cycles = np.arange(len(values)) if cycles is None else np.array(cycles)
    none = np.empty(0, np.int64)
    return Recording(none, none, none, none, 0, {(0, "h"): (values, cycles)})


EXPECTED = [Expected(0, "h", np.arange(6).reshape(3, 2), np.array([4, 4, 5]), np.array([0, 1, 0]))]


@pytest.mark.parametrize(
    "values, count, first",
    [
        ([0, 1, 2, 3, 4, 5], 0, None),
        ([0, 1, 2, 9, 4, 8], 2, Difference(0, "h", 4, 1, 1, 3, 9, 3)),
        ([0, 1, 2, 3, 4], 1, Difference(0, "h", 5, 0, 1, 5, None, None)),
        ([], 6, Difference(0, "h", 4, 0, 0, 0, None, None)),
        ([0, 1, 2, 3, 4, 5, 6], 1, Difference(0, "h", None, None, None, None, 6, 6)),
        ([7, 1, 2, 3, 4, 5, 6], 2, Difference(0, "h", 4, 0, 0, 0, 7, 0)),
    ],
)
def test_compare(values, count, first):
    assert compare(EXPECTED, shown(values)) == (count, first)


def test_the_first_difference_is_the_first_in_time():
    late, early = Difference(0, "h", 0, 0, 0, 1, 2, 50), Difference(1, "c", 3, 0, 0, 1, 2, 20)
    never = Difference(0, "a", 0, 0, 0, 1, None, None)
    assert first_of([late, never, early]) is early
    assert first_of([never, late]) is late
    assert first_of([]) is None


def test_differences_in_words():
    assert str(Difference(1, "c", 3, 2, 7, -5, 6, 20)) == (
        "value 'c' of layer 1 must be -5 at sequence 3, step 2, unit 7, not 6 as in cycle 20"
    )
    assert str(Difference(0, "h", 0, 1, 2, 3, None, None)).endswith("unit 2, but never came")
    assert str(Difference(0, "h", None, None, None, None, 3, 9)) == (
        "value 'h' of layer 0 must not appear beyond the last one, but does as 3 in cycle 9"
    )


def test_typical_distance():
    assert typical([np.array([5, 4]), np.array([4])]) == 4
    assert typical([]) is typical([np.array([], int)]) is None


# Waveforms.


def changes(path):
    """Signal name to the values that it settled at, of a VCD file."""
    names, found, now = {}, {}, {}
    for line in path.read_text().splitlines():
        words = line.split()
        if line.startswith("$var"):
            names[words[3]] = words[4]
            found[words[4]] = []
        elif line.startswith("#"):
            for name, value in now.items():
                found[name].append(value)
            now = {}
        elif words and words[0][0] in "01":
            now[names[line[1:]]] = int(line[0])
        elif words and words[0][0] == "b":
            now[names[words[1]]] = int(words[0][1:], 2)
    return found


def test_waveform_without_a_fault(tmp_path):
    model, x, lengths = network_of("lstm", lengths=(2, 3))
    path = tmp_path / "w.vcd"
    simulate(model, x, lengths, vcd=path, **AMARANTH)
    found = changes(path)
    ports = Network(model, probed=True).probes.values()
    assert {f"expected_{port}" for port in ports} <= found.keys()
    assert all(set(found[f"wrong_{port}"]) == {0} for port in ports)
    assert found["expected_layer0_probe_c"] and list(tmp_path.iterdir()) == [path]


def test_waveform_of_a_fault(tmp_path):
    model, x, lengths = network_of("rnn", lengths=(2, 3, 1), outputs=2)
    faulty = replace(model, head=replace(model.head, biases={"y": model.head.biases["y"] + [0, 1 << 12]}))
    path = tmp_path / "w.vcd"
    report = simulate(model, x, lengths, network=Network(faulty, probed=True), vcd=path, **AMARANTH)
    found = changes(path)
    assert report.first_difference.layer == 1
    assert 1 in found["wrong_layer1_probe_a_y"] and 1 in found["wrong_layer1_probe_y"]
    assert set(found["wrong_layer0_probe_h"]) == {0}
