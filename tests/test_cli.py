"""The command line as a person and a program use it: tables, JSON, exit codes, one sentence for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwrnn.cli import main
from hwrnn.commands import VERBS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small trained model, its quantized form and its data."""
    path = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = rng.normal(0, 0.3, (60, 6, 2)).astype(np.float32)
    x[:, :, 0] += y[:, None] - 1
    lengths = rng.integers(2, 7, 60)
    np.savez(
        path / "d.npz",
        x=x[:40],
        y=y[:40],
        lengths=lengths[:40],
        x_test=x[40:],
        y_test=y[40:],
        lengths_test=lengths[40:],
    )
    week = np.arange(80)
    lines = "\n".join(f"{w},{np.sin(w / 4):.5f}" for w in week)
    (path / "s.csv").write_text(f"week,value\n{lines}\n")
    data = ["--data", str(path / "d.npz")]
    assert main(["train", *data, "--cell", "gru", "--hidden", "5", "--epochs", "12", "-o", str(path / "m.onnx")]) == 0
    assert main(["quantize", str(path / "m.onnx"), *data, "-o", str(path / "q.onnx")]) == 0
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of a command line."""
    capsys.readouterr()
    code = main([str(word) for word in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    """The object that a command line prints with --json, and nothing else."""
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_compare_gives_the_keys_that_tools_rely_on(folder: Path, capsys: Any) -> None:
    result = as_json(capsys, "compare", folder / "m.onnx", "--data", folder / "d.npz", "--bits", "16,4")
    assert result["metric"] == "accuracy"
    assert [(row["kind"], row["bits"]) for row in result["rows"]] == [("float", None), ("fixed", 16), ("fixed", 4)]
    assert all(0 <= row["value"] <= 1 for row in result["rows"])
    _, out, _ = run(capsys, "compare", folder / "m.onnx", "--data", folder / "d.npz", "--bits", "16,4")
    assert "hardware (golden model, bit for bit)" in out and "float simulation" in out


def test_simulate_gives_the_keys_that_tools_rely_on(folder: Path, capsys: Any) -> None:
    result = as_json(
        capsys,
        "simulate",
        folder / "q.onnx",
        "--data",
        folder / "d.npz",
        "--lanes",
        3,
        "--simulator",
        "amaranth",
        "--count",
        4,
        "--float",
        folder / "m.onnx",
        "--output-stall",
        "random",
    )
    assert result["sequences"] == 4 and result["mismatches"] == 0 and result["simulator"] == "amaranth"
    for key in ("steps", "cycles", "cycles_per_step", "ideal_cycles_per_step", "multiplier_utilization",
                "max_abs_error_vs_float", "simulated_cycles_per_second"):  # fmt: skip
        assert result[key] >= 0
    assert result["accuracy"]["fixed"] == result["accuracy"]["hardware"]
    assert set(result["accuracy"]) == {"float", "fixed", "hardware"}


@pytest.mark.parametrize("lanes", ["3", "auto"])
def test_simulate_runs_what_generate_makes_for_a_part(lanes: str, folder: Path, tmp_path: Path, capsys: Any) -> None:
    part = ["--lanes", lanes, "--target", "ecp5-25k-6"]
    made = as_json(capsys, "generate", folder / "q.onnx", *part, "-o", tmp_path / "v")
    more = ["--data", folder / "d.npz", "--count", 3, "--simulator", "amaranth"]
    ran = as_json(capsys, "simulate", folder / "q.onnx", *part, *more)
    assert ran["mismatches"] == 0 and ran["cycles_per_step"] == made["cycles_per_step"]["value"]
    assert ran["latency"] == made["latency"]["value"]


def test_quantize_generate_and_inspect(folder: Path, tmp_path: Path, capsys: Any) -> None:
    result = as_json(
        capsys,
        "quantize",
        folder / "m.onnx",
        "--data",
        folder / "d.npz",
        "--bits",
        6,
        "--cell-bits",
        9,
        "--finetune",
        2,
        "-o",
        tmp_path / "q6.onnx",
    )
    assert result["widths"]["weights"] == 6 and result["widths"]["cell"] == 9
    manifest = as_json(capsys, "generate", tmp_path / "q6.onnx", "--lanes", 2, "-o", tmp_path / "verilog")
    assert manifest["lanes"]["asked"] == 2
    assert (tmp_path / "verilog" / "manifest.json").is_file()
    assert as_json(capsys, "inspect", tmp_path / "q6.onnx")["kind"] == "quantized"
    assert as_json(capsys, "inspect", folder / "m.onnx")["kind"] == "float"
    code, out, _ = run(capsys, "inspect", "plan_sigmoid")
    assert code == 0 and "0.0189" in out


def test_forecasting_from_a_csv(folder: Path, tmp_path: Path, capsys: Any) -> None:
    data = ["--data", folder / "s.csv", "--column", "value", "--window", 6]
    result = as_json(capsys, "train", *data, "--cell", "rnn", "--hidden", 4, "--epochs", 4, "-o", tmp_path / "m.onnx")
    assert result["metric"] == "rmse"
    assert as_json(capsys, "compare", tmp_path / "m.onnx", *data, "--bits", 8)["metric"] == "rmse"


def test_an_autoencoder_from_data_to_its_hardware(folder: Path, tmp_path: Path, capsys: Any) -> None:
    with np.load(folder / "d.npz") as stored:
        arrays = dict(stored)
    arrays["x_test"] = arrays["x_test"].copy()
    odd = np.arange(20) % 4 == 0
    arrays["x_test"][odd] += np.random.default_rng(1).normal(0, 2, (int(odd.sum()), 6, 2))
    np.savez(tmp_path / "a.npz", **{**arrays, "y": arrays["y"] * 0, "y_test": odd.astype(int)})
    data = ["--data", tmp_path / "a.npz", "--reconstruct"]
    m, q = tmp_path / "m.onnx", tmp_path / "q.onnx"
    trained = as_json(
        capsys, "train", *data, "--encoder", 1, "--cell", "gru", "--hidden", "6,6", "--epochs", 30, "-o", m
    )
    assert trained["metric"] == "rmse" and trained["hidden"] == [6, 6]
    as_json(capsys, "quantize", m, *data, "-o", q)
    assert as_json(capsys, "inspect", q)["encoder"] == 1
    found = as_json(capsys, "detect", q, *data[:2], "--quantile", 0.9)
    assert found["sequences"] == 20 == len(found["scores"]) and found["train_above"] == 0.1 and found["auc"] > 0.8
    assert found["above"] == np.mean(np.array(found["scores"]) > 1)
    table = run(capsys, "detect", m, *data, "--count", 2)[1]
    assert "AUC" in table and len(table.strip().splitlines()) == 9
    simulated = as_json(capsys, "simulate", q, *data, "--count", 3, "--lanes", 4, "--simulator", "amaranth")
    assert simulated["mismatches"] == 0 and simulated["closed_forms"]
    made = as_json(capsys, "generate", q, "--lanes", 4, "-o", tmp_path / "out")
    assert made["repeat"]["encoder"] == 1
    code, _, err = run(capsys, "quantize", m, *data[:2], "-o", q)
    assert code == 2 and err.strip().endswith("an autoencoder's data need --reconstruct")
    code, _, err = run(capsys, "train", *data[:2], "--encoder", 1, "--hidden", "6,6", "-o", m)
    assert code == 2 and err.startswith("hwrnn: Encoder must be 0 for a network with one output for a sequence, not 1")


def test_a_label_at_every_step(tmp_path: Path, capsys: Any) -> None:
    """The built-in sequence to sequence, from data to its hardware, with and without an encoder."""
    for options in (["--hidden", 8], ["--hidden", "8,8", "--encoder", 1]):
        m, q, data = tmp_path / "m.onnx", tmp_path / "q.onnx", ["--data", "copy-memory"]
        trained = as_json(capsys, "train", *data, *options, "--cell", "gru", "--epochs", 2, "--batch", 100, "-o", m)
        assert trained["metric"] == "accuracy" and trained["train"] > 0.5
        as_json(capsys, "quantize", m, *data, "-o", q)
        found = as_json(capsys, "simulate", q, *data, "--count", 1, "--simulator", "amaranth")
        assert found["mismatches"] == 0 and found["closed_forms"]


def test_training_with_a_seed_repeats(folder: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("a", "b"):
        run(
            capsys,
            "train",
            "--data",
            folder / "d.npz",
            "--hidden",
            3,
            "--epochs",
            2,
            "--seed",
            5,
            "-o",
            tmp_path / name,
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(verb: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"example: hwrnn {verb}" in capsys.readouterr().out


def test_help_is_instant() -> None:
    heavy = "numpy", "onnx", "amaranth", "matplotlib"
    code = f"import sys, hwrnn.cli as c; c.main([]); sys.exit(any(m in sys.modules for m in {heavy!r}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


D, M, Q, T = "{d}/d.npz", "{d}/m.onnx", "{d}/q.onnx", "{t}"
MISTAKES: tuple[tuple[list[str], str], ...] = (
    (["train", "--data", "{d}/no.npz", "-o", T + "/m.onnx"], "no.npz"),
    (["train", "--data", "no-such-data", "-o", T + "/m.onnx"], "no-such-data"),
    (["train", "--data", M, "-o", T + "/m.onnx"], "m.onnx"),
    (["train", "--data", D, "--cell", "lsmt", "-o", T + "/m.onnx"], "Cell must be one of"),
    (["train", "--data", D, "--activation", "tanhh", "-o", T + "/m.onnx"], "Nonlinearity must be one of"),
    (["train", "--data", D, "--hidden", "0", "-o", T + "/m.onnx"], "Hidden units must be"),
    (["train", "--data", D, "--hidden", "2,2", "--layers", "3", "-o", T + "/m.onnx"], "Hidden units must be given"),
    (["train", "--data", D, "--layers", "0", "-o", T + "/m.onnx"], "Layers must be"),
    (["train", "--data", D, "--epochs", "0", "-o", T + "/m.onnx"], "pochs"),
    (["train", "--data", D, "--rate", "nan", "-o", T + "/m.onnx"], "ate"),
    (["train", "--data", D, "--init", "zeros", "-o", T + "/m.onnx"], "nitialisation"),
    (["train", "--data", D, "--cell", "gru", "--cell-clip", "2", "-o", T + "/m.onnx"], "Cell clip"),
    (["train", "--data", D, "--column", "value", "-o", T + "/m.onnx"], "olumn"),
    (["train", "--data", "{d}/s.csv", "-o", T + "/m.onnx"], "olumn"),
    (["train", "--data", "{d}/s.csv", "--column", "values", "--window", "4", "-o", T + "/m.onnx"], "olumn"),
    (["train", "--data", "{d}/s.csv", "--column", "value", "--window", "0", "-o", T + "/m.onnx"], "indow"),
    (["train", "--data", D, "--resume", "-o", T + "/m.onnx"], "heckpoint"),
    (["train", "--data", D, "-o", T + "/no/folder/m.onnx"], "folder"),
    (["train", "--data", D, "-o", T], "file"),
    (["train", "--data", D], "-o"),
    (["quantize", M, "--data", D, "--bits", "1", "-o", T + "/q.onnx"], "Bits must be a whole number between 2 and 32"),
    (["quantize", M, "--data", D, "--bits", "x", "-o", T + "/q.onnx"], "whole number"),
    (["quantize", M, "--data", D, "--method", "best", "-o", T + "/q.onnx"], "Calibration method"),
    (["quantize", M, "--data", D, "--finetune", "-1", "-o", T + "/q.onnx"], "Fine-tuning"),
    (["quantize", Q, "--data", D, "-o", T + "/q.onnx"], "Model must be a float model"),
    (["quantize", M, "--data", "japanese-vowels", "-o", T + "/q.onnx"], "Data must have 2 features"),
    (["compare", "{d}/no.onnx", "--data", D], "no.onnx"),
    (["compare", D, "--data", D], "d.npz"),
    (["compare", M, "--data", D, "--bits", "8,1"], "Bits must be"),
    (["generate", M, "-o", T + "/v"], "Model must be quantized"),
    (["generate", Q, "--lanes", "0", "-o", T + "/v"], "Lanes must be"),
    (["generate", Q, "--target", "abacus", "-o", T + "/v"], "arget must be one of"),
    (["generate", Q, "--lanes", "auto", "-o", T + "/v"], "Lanes must be a number where no target is given"),
    (["generate", Q, "--lanes", "many", "-o", T + "/v"], "must be a whole number, not 'many'"),
    (["generate", Q, "--for", "vivado,", "-o", T + "/v"], "Tool must be one of vivado, quartus, radiant, not ''"),
    (["generate", Q, "--clock", "100", "-o", T + "/v"], "Clock must come with tools"),
    (["generate", Q, "--name", "1x", "-o", T + "/v"], "ame must be"),
    (["simulate", Q, "--data", D, "--lanes", "-3"], "Lanes must be"),
    (["simulate", Q, "--data", D, "--lanes", "auto"], "Lanes must be a number where no target is given"),
    (["simulate", Q, "--data", D, "--target", "abacus"], "arget must be one of"),
    (["simulate", Q, "--data", D, "--simulator", "spice"], "imulator must be one of"),
    (["simulate", Q, "--data", D, "--count", "0"], "ount must be"),
    (["simulate", Q, "--data", D, "--input-stall", "never"], "tall must be one of"),
    (["simulate", Q, "--data", D, "--float", Q], "Model must be a float model"),
    (["inspect", "{d}/nothing"], "nothing"),
    (["inspect", Q, "--bits", "8"], "Bits must be given with a nonlinearity"),
    (["inspect", "pwl_sigmoid:99"], "egments"),
    (["fly"], "invalid choice"),
    (["demo", "--out", "{d}/d.npz"], "utput"),
    (["demo", "--device", "z80", "--out", "{t}/x"], "Device must be one of up5k"),
    (["implement", "{d}", "--device", "z80"], "Device must be one of up5k"),
)


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_mistake_costs_one_sentence(words: list[str], told: str, folder: Path, tmp_path: Path, capsys: Any) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out, err = run(capsys, *(word.format(d=folder, t=tmp_path) for word in words))
    assert (code, out) == (2, "")
    assert told in err and err.startswith("hwrnn: ") and err.count("\n") == 1 and "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before, "a half-written file stayed"


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04 cut"], ids=["empty", "foreign", "truncated"]
)
@pytest.mark.parametrize("suffix", ["npz", "csv", "onnx"])
def test_damaged_files(suffix: str, content: bytes, folder: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content)
    if suffix == "onnx":
        words = ["inspect", path]
    else:
        more = ["--column", "value", "--window", "4"] if suffix == "csv" else []
        words = ["train", "--data", path, *more, "-o", tmp_path / "m.onnx"]
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "damaged" in err or "Column must be one of" in err
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_are_not_finite(value: float, tmp_path: Path, capsys: Any) -> None:
    x = np.zeros((4, 3, 2), np.float32)
    x[1, 1, 1] = value
    np.savez(tmp_path / "d.npz", x=x, y=np.array([0, 1, 0, 1]))
    code, _, err = run(capsys, "train", "--data", tmp_path / "d.npz", "-o", tmp_path / "m.onnx")
    assert code == 2 and "finite" in err


def test_a_planted_fault_ends_with_1(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    import hwrnn.rtl.lanes as lanes

    real = lanes._packed
    monkeypatch.setattr(lanes, "_packed", lambda values, width: real([v ^ 1 for v in values], width))
    code, out, _ = run(
        capsys, "simulate", folder / "q.onnx", "--data", folder / "d.npz", "--count", 2, "--simulator", "amaranth"
    )
    assert code == 1 and "mismatches" in out


def test_output_to_a_closed_pipe_is_no_traceback(folder: Path) -> None:
    command = f"{sys.executable} -m hwrnn.cli inspect {folder / 'q.onnx'} | true"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False, env={**os.environ})
    assert "Traceback" not in done.stderr
