"""The emitted Verilog: clean for other tools, legible, and the same machine as Amaranth's."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from networks import KINDS, network_of

from hwrnn.errors import UsageError
from hwrnn.golden import golden
from hwrnn.rtl import TARGETS, Network
from hwrnn.rtl.verilog import emit
from hwrnn.sim.amaranth_simulator import run_amaranth
from hwrnn.sim.stimuli import STALLS, stimulus
from hwrnn.sim.verilog import run_bench, run_verilog

icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
verilator = pytest.mark.skipif(shutil.which("verilator") is None, reason="verilator is not installed")
WAIVERS = Path(__file__).parent.parent / "rtl" / "verilator.vlt"

# cell, inputs, units, lanes and options: a lane alone, passes over the rows, more lanes than rows, layers, every step.
DESIGNS = [
    *((cell, 3, 5, lanes, {}) for cell in KINDS for lanes in (1, 4)),
    ("gru", 3, 5, 100, {}),
    ("lstm", 1, 1, 2, {}),
    ("gru", 2, 6, 3, {"layers": 2}),
    ("lstm", 2, 4, 5, {"every_step": True}),
    ("gru-reset-before", 4, 3, 6, {"layers": 2, "every_step": True}),
    ("gru", 2, 4, 6, {"outputs": None}),
]
#: Each cell with few or many lanes; with the others by name.
ONE_WIDTH = [
    pytest.param(design, marks=[pytest.mark.slow, pytest.mark.long] if k < 2 * len(KINDS) and k % 4 in (1, 2) else ())
    for k, design in enumerate(DESIGNS)
]
FEW = [DESIGNS[0], DESIGNS[5], DESIGNS[-3]]


def named(design):
    cell, inputs, units, lanes, options = design
    return "-".join([cell, str(inputs), str(units), str(lanes), *options])


def recording_of(design, which, input="always", output="always", argmax=False, lengths=(4, 1, 3)):
    cell, inputs, units, lanes, options = design
    model, x, lengths = network_of(cell, inputs, units, lengths=lengths, **options)
    raw = model.quantize_input(x)
    network = Network(model, lanes, argmax)
    fed = stimulus(network, raw, lengths, input, output)
    return network, raw, lengths, fed, run_verilog(network, fed, which)


def check_outputs(network, raw, lengths, recording):
    out = golden(network.model, raw, lengths).output
    if network.argmax:
        out = out.argmax(-1)[..., None]
    rows = [out[n, t] for n, k in enumerate(lengths) for t in range(k)] if network.model.every_step else list(out)
    assert recording.outputs.tolist() == np.concatenate(rows).tolist()
    ends = np.cumsum(lengths if network.model.every_step else np.ones_like(lengths)) * network.outputs_per_vector
    assert (np.flatnonzero(recording.last) + 1).tolist() == ends.tolist()


@icarus
@pytest.mark.parametrize("design", ONE_WIDTH, ids=named)
def test_one_sequence_takes_the_cycles_of_the_closed_forms(design):
    network, raw, lengths, _, recording = recording_of(design, "icarus", lengths=(4,))
    check_outputs(network, raw, lengths, recording)
    assert recording.input_cycles[0] == 0
    expected = network.model.inputs - 1 + 3 * network.cycles_per_step + network.latency
    assert recording.output_cycles[-1] == expected
    assert recording.cycles == expected + 1


@icarus
@pytest.mark.parametrize("design", FEW, ids=named)
@pytest.mark.parametrize("stalls", list(zip(STALLS, reversed(STALLS), strict=True)), ids="-".join)
def test_icarus_shows_the_cycles_of_amaranth_under_stalls(design, stalls):
    network, raw, lengths, fed, recording = recording_of(design, "icarus", *stalls)
    check_outputs(network, raw, lengths, recording)
    own = run_amaranth(network, fed)
    for name in ("outputs", "last", "output_cycles", "input_cycles", "cycles"):
        assert np.array_equal(getattr(recording, name), getattr(own, name)), name


@icarus
def test_arg_max_leaves_as_an_index():
    network, raw, lengths, _, recording = recording_of(DESIGNS[1], "icarus", argmax=True)
    assert network.outputs_per_vector == 1
    check_outputs(network, raw, lengths, recording)


@verilator
@pytest.mark.slow
@pytest.mark.parametrize("design", [DESIGNS[1], DESIGNS[-1]], ids=named)
def test_verilator_shows_the_cycles_of_amaranth(design):
    network, raw, lengths, fed, recording = recording_of(design, "verilator", "random", "bursts")
    check_outputs(network, raw, lengths, recording)
    own = run_amaranth(network, fed)
    assert np.array_equal(recording.output_cycles, own.output_cycles)
    assert np.array_equal(recording.input_cycles, own.input_cycles)


@icarus
def test_a_machine_that_stands_still_is_given_up(monkeypatch):
    import hwrnn.sim.verilog as module

    def stuck(*args):
        emitted = emit(*args)
        text = re.sub(r"assign s_axis_tready = .*;", "assign s_axis_tready = 1'b0;", emitted.text)
        return type(emitted)(emitted.name, emitted.network, text, emitted.tools)

    monkeypatch.setattr(module, "emit", stuck)
    _, _, _, fed, recording = recording_of(DESIGNS[1], "icarus")
    assert recording.outputs.size == recording.input_cycles.size == 0
    assert recording.cycles == min(fed.limit, fed.patience)


@icarus
def test_unknown_bits_are_no_value(monkeypatch):
    import hwrnn.sim.verilog as module

    def unknown(*args):
        emitted = emit(*args)
        text = re.sub(r"assign m_axis_tdata = .*;", "assign m_axis_tdata = 'bx;", emitted.text)
        return type(emitted)(emitted.name, emitted.network, text, emitted.tools)

    monkeypatch.setattr(module, "emit", unknown)
    network, *_, recording = recording_of(DESIGNS[1], "icarus")
    form = network.output_format
    assert recording.outputs.size
    assert not ((recording.outputs >= form.lo) & (recording.outputs <= form.hi)).any()


@icarus
def test_progress_is_told_at_both_ends():
    model, x, lengths = network_of("rnn", 2, 3)
    network = Network(model, 2)
    fed = stimulus(network, model.quantize_input(x), lengths)
    seen = []
    run_verilog(network, fed, "icarus", lambda *done: seen.append(done))
    assert seen == [(0, len(fed.data)), (len(fed.data), len(fed.data))]


def test_a_simulator_must_be_known_and_installed(monkeypatch, tmp_path):
    model, x, lengths = network_of("rnn", 2, 3)
    network = Network(model, 2)
    fed = stimulus(network, model.quantize_input(x), lengths)
    with pytest.raises(UsageError, match=r"^Verilog simulator must be one of icarus, verilator, not 'vcs'$"):
        run_verilog(network, fed, "vcs")
    monkeypatch.setenv("PATH", str(tmp_path))
    for which, package in (("icarus", "iverilog"), ("verilator", "verilator")):
        with pytest.raises(UsageError, match=rf"^Program '\w+' must be installed for this: run apt install {package}$"):
            run_verilog(network, fed, which)
        with pytest.raises(UsageError, match="must be installed"):
            run_bench(tmp_path, which)


BUILT = {
    "channels": {"channels": 3},
    "loadable": {"weights": "loadable"},
    "loadable-channels": {"weights": "loadable", "channels": 2, "argmax": True},
    "packed": {"timing": TARGETS["xc7s50"].timing},
    "halves": {"timing": TARGETS["up5k"].timing},
    "tree": {"timing": TARGETS["hx8k"].timing},
}
ASKED = [(design, None) for design in (*DESIGNS[1:12:3], *DESIGNS[-5:])]
MORE = [("lstm", 2, 4, 3, {"bits": 6}), ("gru-reset-before", 2, 3, 5, {})]
ASKED += [(design, how) for how in BUILT for design in MORE]


@pytest.mark.parametrize("design, how", ASKED, ids=lambda v: named(v) if isinstance(v, tuple) else v or "plain")
def test_other_tools_find_nothing_to_say(design, how, tmp_path):
    cell, inputs, units, lanes, options = design
    network = Network(network_of(cell, inputs, units, **options)[0], lanes, **BUILT.get(how, {}))
    text = emit(network, "network").text
    (tmp_path / "network.v").write_text(text)
    # Names are plain, and no signal has a reversed or an empty range.
    assert "\\" not in text and not re.search(r"\$(?!signed|finish)", text)
    assert not re.search(r"\[-|__", text)
    commands = {
        "iverilog": ["-Wall", "-g2005", "-o", "simulation", "network.v"],
        "verilator": ["--lint-only", "-Wall", "--top-module", "network", WAIVERS, "network.v"],
    }
    for program, options in commands.items():
        if shutil.which(program):
            done = subprocess.run([program, *options], cwd=tmp_path, capture_output=True, text=True)
            assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_ports_are_axi_stream():
    model = network_of("gru", 2, 3, bits=6)[0]
    text = emit(Network(model, 3), "network").text
    top = text[: text.index("endmodule")]
    ports = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", top, re.MULTILINE)
    assert ports == [
        ("input", "", "aclk"), ("input", "", "aresetn"),
        ("input", "7", "s_axis_tdata"), ("input", "", "s_axis_tvalid"), ("output", "", "s_axis_tready"),
        ("input", "", "s_axis_tlast"),
        ("output", "15", "m_axis_tdata"), ("output", "", "m_axis_tvalid"), ("input", "", "m_axis_tready"),
        ("output", "", "m_axis_tlast"),
    ]  # fmt: skip
    modules = re.findall(r"^module (\w+)", text, re.MULTILINE)
    assert modules[:3] == ["network", "network_network", "network_network_layer0"]
    assert {f"network_network_layer0_{part}" for part in ("front", "lanes", "drain_0")} < set(modules)
