"""The generated test bench: what it feeds in, and that it tells every fault."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from networks import network_of

from hwrnn.errors import UsageError
from hwrnn.golden import golden
from hwrnn.rtl import generate
from hwrnn.rtl.bench import timed
from hwrnn.rtl.bench_sequences import random_sequences
from hwrnn.sim.verilog import run_bench

icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
verilator = pytest.mark.skipif(shutil.which("verilator") is None, reason="verilator is not installed")

GRU = dict(cell="gru", inputs=3, units=5)


@icarus
def test_samples_become_the_stimulus(tmp_path):
    model, x, lengths = network_of(**GRU)
    generate(model, tmp_path / "out", lanes=4, samples=x, lengths=lengths)
    words = [w for w in (tmp_path / "out" / "expected.hex").read_text().split("\n") if w and w[0] != "/"]
    bits = 16
    values = [int(word[2:], 16) for word in words]
    expected = golden(model, model.quantize_input(x), lengths).output.ravel()
    assert values == [int(v) & ((1 << bits) - 1) for v in expected]
    assert [word[0] for word in words] == ["0", "0", "1"] * 3
    assert run_bench(tmp_path / "out", "icarus").startswith("PASS")
    # All of one step, as in the hotel's protocol: a longer sequence is made of them.
    generate(model, tmp_path / "out", lanes=4, samples=x[:, :1])
    assert run_bench(tmp_path / "out", "icarus").startswith("PASS")


def test_a_bench_times_one_step_and_several():
    x = np.arange(12).reshape(2, 3, 2)
    both, steps = timed(x, np.array([2, 2]))
    assert steps.tolist() == [2, 2, 3, 1]
    assert both[2].tolist() == [[0, 1], [2, 3], [6, 7]] and both[3, 0].tolist() == [0, 1]
    assert timed(x, np.array([1, 3]))[1].tolist() == [1, 3]


def flipped_weight(text):
    at = text.index("'h", text.index("weights[3] = ")) + 2
    return text[:at] + f"{int(text[at], 16) ^ 1:x}" + text[at + 1 :]


def replaced(pattern, by):
    return lambda text: re.sub(pattern, by, text, count=1)


FAULTS = {
    "a weight": ("gru.v", flipped_weight, "output element"),
    "ready never": ("gru.v", replaced(r"assign s_axis_tready = .*;", "assign s_axis_tready = 1'b0;"), "no transfer"),
    "ready always": ("gru.v", replaced(r"assign s_axis_tready = .*;", "assign s_axis_tready = 1'b1;"), "a reset"),
    "valid never": ("gru.v", replaced(r"assign m_axis_tvalid = .*;", "assign m_axis_tvalid = 1'b0;"), "no transfer"),
    "valid always": ("gru.v", replaced(r"assign m_axis_tvalid = .*;", "assign m_axis_tvalid = 1'b1;"), "a reset"),
    "valid unknown": ("gru.v", replaced(r"assign m_axis_tvalid = .*;", "assign m_axis_tvalid = 1'bx;"), "unknown"),
    "last": ("gru.v", replaced(r"assign m_axis_tlast = .*;", "assign m_axis_tlast = 1'b1;"), "tlast is wrong"),
    "ready ignored": ("gru.v", replaced(r"\((m_axis_tready)\)", "(1'b1)"), "does not hold"),
    "no reset": ("gru.v", replaced(r"reset <= ~ aresetn", "reset <= 1'b0"), ""),
    "a result": ("expected.hex", replaced(r"\n1_\w+", "\n1_1234"), "output element 2 is"),
    "a result missing": ("expected.hex", lambda text: text[: text.rindex("//")], "not in this folder"),
    "no stimulus": ("stimulus.hex", lambda text: "", "not in this folder"),
    "latency": ("gru_tb.v", replaced(r"LATENCY = \d+", "LATENCY = 1"), "cycles, expected"),
    "cycles per step": ("gru_tb.v", replaced(r"LATER_STEP = \d+", "LATER_STEP = 1"), "steps takes"),
}


@pytest.fixture(scope="module")
def gru(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "gru"
    generate(network_of(**GRU)[0], folder, lanes=4, name="gru")
    return folder


@icarus
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails(fault, gru, tmp_path):
    file, change, reason = FAULTS[fault]
    shutil.copytree(gru, tmp_path / "gru")
    text = (gru / file).read_text()
    assert change(text) != text
    (tmp_path / "gru" / file).write_text(change(text))
    verdict = run_bench(tmp_path / "gru", "icarus")
    assert verdict.startswith("FAIL gru: ") and reason in verdict


def later(text):
    """While the output waits, the input is refused for a while: what is transferred stays the same."""
    waits = "m_axis_tvalid & ~m_axis_tready ? waited + 5'd1 : 5'd0"
    more = f"reg [4:0] waited = 0;\n  always @(posedge aclk) waited <= {waits};\n  "
    text = text.replace("s_axis_tvalid & running", "s_axis_tvalid & running & ~waited[4]", 1)
    return re.sub(r"assign s_axis_tready = (.*);", rf"{more}assign s_axis_tready = (\1) & ~waited[4];", text)


@icarus
@pytest.mark.slow
def test_only_a_trace_finds_what_comes_later(tmp_path):
    model, verilogs = network_of("gru", 2, 2, bits=4)[0], []
    for trace, reason in ((0, None), (2_500, "of trace.hex says")):
        folder = tmp_path / str(trace)
        manifest = generate(model, folder, lanes=4, name="gru", trace=trace)
        verilogs.append((folder / "gru.v").read_text())
        verilog = verilogs[0]
        assert verilogs[-1] == verilog  # it is the bench's alone
        assert manifest.get("trace_cycles", 0) == trace == len(lines_of(folder / "trace.hex"))
        assert run_bench(folder, "icarus").startswith("PASS gru: ")
        (folder / "gru.v").write_text(later(verilog))
        verdict = run_bench(folder, "icarus")
        assert verdict.startswith("PASS gru: ") if reason is None else reason in verdict


def lines_of(file):
    return file.read_text().split() if file.exists() else []


@icarus
def test_a_trace_that_is_changed_or_missing_fails(tmp_path):
    manifest = generate(network_of("gru", 2, 2, bits=4)[0], tmp_path / "out", lanes=4, name="n", trace=400)
    lines = lines_of(tmp_path / "out" / "trace.hex")
    ready = 1 << manifest["ports"]["output"]["tdata_bits"] + 2  # above valid, last and data
    missing, wrong = lines[:-1], [*lines[:-1], f"{int(lines[-1], 16) ^ ready:x}"]
    for changed, reason in ((missing, "trace.hex is not in this folder"), (wrong, "line 400 of trace.hex")):
        (tmp_path / "out" / "trace.hex").write_text("\n".join(changed))
        assert run_bench(tmp_path / "out", "icarus").startswith("FAIL n: " + reason)


@icarus
@pytest.mark.parametrize("options", [
    dict(weights="loadable", protect="parity"), pytest.param(dict(channels=2, watchdog=20), marks=pytest.mark.slow),
    pytest.param(dict(samples=True), marks=pytest.mark.slow),
], ids=["loadable", "channels", "samples"])  # fmt: skip
def test_a_trace_beside_other_options(options, tmp_path):
    model, x, lengths = network_of("lstm", 2, 2, bits=4, every_step=True)
    if options.pop("samples", False):
        options = dict(samples=x, lengths=lengths)
    generate(model, tmp_path / "out", lanes=4, name="n", trace=1_000, **options)
    assert run_bench(tmp_path / "out", "icarus").startswith("PASS n: ")


def test_a_trace_is_a_number_of_cycles_of_a_network_with_weights(tmp_path):
    model = network_of(**GRU)[0]
    for trace in (-1, 1_000_001, True, 1.5, "10"):
        words = f"Trace must be a whole number of cycles from 1 to 1000000, or 0 for none, not {trace!r}"
        with pytest.raises(UsageError, match=f"^{re.escape(words)}$"):
            generate(model, tmp_path / "out", trace=trace)
    with pytest.raises(UsageError, match=r"^Trace must be 0 beside weights 'spram', which are not there at first,"):
        generate(model, tmp_path / "out", trace=5, weights="spram", target="up5k", lanes=4)
    assert not (tmp_path / "out").exists()


def test_sequences_saturate_outputs_and_show_flipped_bits():
    """What one of thousands of random sequences does, the bench's few do."""
    model = network_of("gru", 2, 3, 2, bits=4)[0]
    form = model.stack[-1].formats.values["y"]
    few, thorough = (random_sequences(model, 22, thorough=thorough) for thorough in (False, True))
    assert golden(model, *few).output.max() == form.hi
    assert np.array_equal(thorough[0][: len(few[0])], few[0]) and len(few[0]) < len(thorough[0]) < 1.1 * len(few[0])
    layer = model.layers[0]
    bias = {**layer.biases, "r": layer.biases["r"] ^ np.array([0, 1, 0])}
    wrong = replace(model, layers=(replace(layer, biases=bias),))
    seen = [bool((golden(wrong, *given).output != golden(model, *given).output).any()) for given in (few, thorough)]
    assert seen == [False, True]


@icarus
def test_the_readme_tells_how_to_run_icarus(gru, tmp_path):
    commands = re.findall(r"^    (.*)$", (gru / "README.md").read_text(), re.MULTILINE)
    shutil.copytree(gru, tmp_path / "gru")
    done = subprocess.run(commands[0], shell=True, cwd=tmp_path / "gru", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("PASS") == 1


@verilator
@pytest.mark.slow
def test_the_readme_tells_how_to_run_verilator(gru, tmp_path):
    commands = re.findall(r"^    (.*)$", (gru / "README.md").read_text(), re.MULTILINE)
    shutil.copytree(gru, tmp_path / "gru")
    for command in commands[1:3]:
        done = subprocess.run(command, shell=True, cwd=tmp_path / "gru", capture_output=True, text=True)
        assert done.returncode == 0 and "%Warning" not in done.stderr
    assert done.stdout.startswith("PASS gru")


@verilator
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [pytest.param(dict(layers=2, every_step=True), marks=pytest.mark.long), dict(outputs=5, argmax=True)],
    ids="-".join,
)
def test_the_bench_judges_in_verilator(options, tmp_path):
    argmax = options.pop("argmax", False)
    generate(network_of("lstm", 2, 4, **options)[0], tmp_path / "out", lanes=3, name="n", argmax=argmax, trace=500)
    assert run_bench(tmp_path / "out", "verilator").startswith("PASS n: ")
    if argmax:
        return  # a build takes most of the time
    path = tmp_path / "out" / "expected.hex"
    path.write_text(re.sub(r"^1_.", "1_f", path.read_text(), count=1, flags=re.M).replace("1_f", "1_e", 1))
    assert run_bench(tmp_path / "out", "verilator").startswith("FAIL n: output element")


@icarus
def test_a_bench_is_run_in_a_generated_folder_only(tmp_path):
    with pytest.raises(UsageError, match=r"^Folder must be one that generate wrote, with one bench NAME_tb\.v, not "):
        run_bench(tmp_path, "icarus")
