"""The generated folder: its bench judges rightly, its manifest tells the truth, its bytes never differ."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import KINDS, network_of, started

import hwrnn
from hwrnn.errors import UsageError
from hwrnn.onnx_io import load, save
from hwrnn.rtl import TARGETS, Network, generate
from hwrnn.rtl.manifest import model_hash
from hwrnn.sim.verilog import run_bench

icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")

DESIGNS = {
    **{cell: (dict(cell=cell, inputs=3, units=5), dict(lanes=4)) for cell in KINDS},
    "every step": (dict(cell="gru", inputs=2, units=4, every_step=True), dict(lanes=3)),
    "two layers": (dict(cell="lstm", inputs=2, units=4, layers=2), dict(lanes=[7, 3, 1])),
    "arg-max": (dict(cell="lstm", inputs=2, units=4, outputs=5), dict(lanes=1, argmax=True)),
    "arg-max of each step": (dict(cell="rnn", inputs=1, units=4, every_step=True), dict(lanes=9, argmax=True)),
    "no head": (dict(cell="ligru", inputs=2, units=3, outputs=None), dict(lanes=6)),
    "regression": (dict(cell="gru", inputs=2, units=3, outputs=1, task="regression"), dict(lanes=2)),
    "initial states": (dict(cell="lstm-coupled", inputs=2, units=4, layers=2, started=True), dict(lanes=5)),
    "16 bits": (dict(cell="lstm", inputs=2, units=3, bits=16), dict(lanes=4)),
}


def made(folder, what="gru", **more):
    network, options = dict(DESIGNS[what][0]), DESIGNS[what][1]
    starts = network.pop("started", False)
    model = network_of(**network)[0]
    model = started(model) if starts else model
    return model, generate(model, folder, **options, **more)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@icarus
@pytest.mark.parametrize("what", DESIGNS)
def test_the_bench_passes_and_the_manifest_is_true(what, tmp_path):
    model, manifest = made(tmp_path / "out", what)
    options = DESIGNS[what][1]
    network = Network(model, options["lanes"], options.get("argmax", False))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    name = manifest["name"]
    assert set(contents(tmp_path / "out")) == {
        *(f"{name}.v", f"{name}_tb.v", "stimulus.hex", "expected.hex", f"{name}.h", f"{name}.c", f"{name}_check.c"),
        *("manifest.json", "README.md", "verilator.vlt", "SHA256SUMS"),
    }
    assert manifest["cycles_per_step"]["value"] == network.cycles_per_step
    assert manifest["latency"]["value"] == network.latency
    assert manifest["lanes"] == {"asked": options["lanes"], "built": network.lanes}
    assert manifest["ideal_cycles_per_step"] == network.ideal_cycles_per_step
    assert (manifest["multipliers"], manifest["memory_bits"]) == (network.multipliers, network.memory_bits)
    assert manifest["multiplications"] == sum(layer.multiplications for layer in model.stack)
    assert manifest["ports"]["input"]["format"]["q"] == str(model.input_format)
    assert manifest["ports"]["output"]["format"]["ap_fixed"] == network.output_format.ap_fixed
    for layer, told in zip(model.layers, manifest["layers"], strict=False):
        assert told.get("initial", {}) == {name: raw.tolist() for name, raw in layer.initial.items()}
    verdict = run_bench(tmp_path / "out", "icarus")
    cycles = f"{network.cycles_per_step} cycles per step, latency {network.latency}"
    words = re.findall(r"^\w_", (tmp_path / "out" / "expected.hex").read_text(), re.MULTILINE)
    some = int(re.search(r"SOME_OUTPUTS = (\d+)", (tmp_path / "out" / f"{name}_tb.v").read_text())[1])
    # All of them in a row, some one by one and under four kinds of stalls; more kept back, and what precedes resets.
    least = len(words) + 5 * some
    told = re.fullmatch(rf"PASS {name}: (\d+) output elements in \d+ cycles; {cycles}", verdict)
    assert least < int(told[1]) < least + 7 * len(words)


def test_closed_forms_compute_their_value(tmp_path):
    _, manifest = made(tmp_path / "out", "two layers")
    for figure in (layer[key] for layer in manifest["layers"] for key in ("cycles_per_step", "latency")):
        terms, value = figure["formula"].split(" = ")
        sums = re.sub(r"[a-z-]+", "", terms).strip()
        assert eval(re.sub(r"\s+", " ", sums)) == figure["value"] == int(value)
    assert manifest["latency"]["formula"].endswith(f" = {manifest['latency']['value']}")
    assert manifest["cycles_per_step"]["formula"].endswith(f" = {manifest['cycles_per_step']['value']}")


def test_the_input_formula_is_the_one_that_quantizes(tmp_path):
    scales = dict(input_mean=np.float32([1, -2, 0.3]), input_scale=np.float32([0.7, 2, 1.5]))
    model = replace(network_of("gru", 3, 5)[0], **scales)
    source = generate(model, tmp_path / "out", lanes=4)["ports"]["input"]
    x = np.random.default_rng(0).standard_normal((50, 1, 3)).astype(np.float32) * 3
    mean, scale = np.float32(source["mean"]), np.float32(source["scale"])
    form = source["format"]
    raw = np.floor(np.float64((x - mean) * scale) * 2 ** form["frac"] + 0.5).clip(form["raw_min"], form["raw_max"])
    assert raw.tolist() == model.quantize_input(x).tolist()
    assert source["raw"] == f"min(max(floor((x - mean) * scale * 2**{form['frac']} + 1/2), -128), 127)"


# -- the same bytes


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from networks import network_of
from hwrnn.rtl import generate
generate(network_of("lstm", 3, 5, layers=2)[0], sys.argv[1], lanes=4, target="ecp5-25k-6")
"""


def test_bytes_depend_on_nothing_else(tmp_path):
    found = []
    for seed in ("0", "1"):
        place = tmp_path / f"place{seed}"
        place.mkdir()
        command = [sys.executable, "-c", SCRIPT, "out" + seed, str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, cwd=place, env=environment, check=True)
        found.append(contents(place / ("out" + seed)))
    assert found[0] == found[1]
    text = b"\n".join(found[0].values()).decode()
    for path in (str(tmp_path), str(Path.home()) + "/", str(Path(hwrnn.__file__).parent), sys.prefix, "/tmp"):
        assert path not in text
    assert not re.search(r"\\(?!n)", text)
    assert not re.search(r"\b20[2-9]\d-\d\d", text)  # no date
    for line in found[0]["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(found[0][name]).hexdigest() == digest


def test_the_hash_is_of_the_model_alone(tmp_path):
    model = network_of("gru", 2, 3)[0]
    save(model, tmp_path / "m.onnx")
    assert model_hash(load(tmp_path / "m.onnx")) == model_hash(model)
    layer = model.layers[0]
    weights = {key: w.copy() for key, w in layer.weights.items()}
    next(iter(weights.values()))[1, 1] += 1
    lstm, own = (network_of("lstm", 2, 3, output_activation=name)[0] for name in (None, "relu"))
    assert model_hash(lstm) != model_hash(own)
    others = [
        replace(model, layers=(replace(layer, weights=weights),)),
        replace(model, every_step=True),
        replace(model, input_scale=model.input_scale * 2),
        network_of("gru", 2, 3, bits=7)[0],
    ]
    assert len({model_hash(other) for other in [model, *others]}) == 5


def test_a_folder_is_replaced_only_where_nothing_is_lost(tmp_path):
    folder = tmp_path / "out"
    made(folder)
    (folder / "notes.txt").write_text("mine")
    made(folder, "lstm")
    assert (folder / "notes.txt").read_text() == "mine" and (folder / "hwrnn_lstm_3_5_3.v").exists()
    assert not (folder / "hwrnn_gru_3_5_3.v").exists()
    before = contents(folder)
    path = folder / "hwrnn_lstm_3_5_3.v"
    path.write_text(path.read_text() + "// mine\n")
    with pytest.raises(UsageError, match=r"as they were generated, not a changed 'hwrnn_lstm_3_5_3\.v'"):
        made(folder)
    assert set(contents(folder)) == set(before)


# -- mistakes


@pytest.mark.parametrize(
    "options, text",
    [
        (dict(lanes=0), "Lanes must be a whole number of at least 1, not 0"),
        (dict(lanes=[4]), "Lanes must be given once or for each of 2 layers, not 1 times"),
        (dict(lanes=2.5), "Lanes must be a whole number of at least 1, not 2.5"),
        (dict(name="2nd"), "Name must be a letter and up to 199 letters, digits and underscores, not '2nd'"),
        (dict(name="module"), "Name must be no reserved word of Verilog or SystemVerilog, not 'module'"),
        (dict(target="xc7z"), f"Target must be one of {', '.join(TARGETS)}, not 'xc7z'"),
        (dict(lengths=[1]), "Lengths must come with samples, not without"),
        (dict(samples=np.zeros((1, 2, 5))), "Input must have 3 features as the model does, not 5"),
        (dict(samples=np.full((1, 2, 3), np.nan)), "Input must be finite: remove or fill the NaN and infinite values"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(options, text, tmp_path):
    model = network_of("gru", 3, 5)[0]
    with pytest.raises(UsageError) as caught:
        generate(model, tmp_path / "out", **options)
    assert str(caught.value) == text
    assert list(tmp_path.iterdir()) == []


def test_models_that_do_not_suit(tmp_path):
    model = network_of("gru", 2, 3, outputs=1, task="regression")[0]
    with pytest.raises(UsageError, match=r"^Argmax must be for a model of the task classification, not regression$"):
        generate(model, tmp_path / "out", argmax=True)
    with pytest.raises(UsageError, match=r"^Model must be quantized to become Verilog: quantize it first$"):
        generate(model.in_float(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_do_not_suit(tmp_path):
    model = network_of("rnn", 2, 3)[0]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("all of it")
    with pytest.raises(UsageError, match=r"^Output folder must be new, empty or generated earlier, .*'thesis\.tex'$"):
        generate(model, foreign)
    with pytest.raises(UsageError, match=r"^Output path must be in an existing folder, not "):
        generate(model, tmp_path / "none" / "out")
    if os.geteuid() != 0:  # root may write anywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(UsageError, match=r"^Output path must be in a folder that you may write to, not "):
            generate(model, locked / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["foreign"], ["foreign", "locked"])
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]


def test_importing_the_package_stays_light():
    code = "import sys, hwrnn.rtl; assert not {'amaranth', 'numpy'} & set(sys.modules); dir(hwrnn.rtl)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hwrnn.rtl.nothing  # noqa: B018
