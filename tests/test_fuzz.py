"""The fuzzer finds nothing in a few hundred inputs (a minute's worth by ``-m slow``), and does find planted faults."""

import ctypes
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import fuzz_data
import fuzz_onnx
import numpy as np
import pytest
from onnx import ModelProto

import hwrnn
from hwrnn.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
EXPORTED = Path(__file__).parent / "exported"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Own files and three of other exporters."""
    own = fuzz_onnx.own_seeds(tmp_path_factory.mktemp("seeds"), fuzz_onnx.CELLS)
    return own + fuzz_onnx.exported_seeds(EXPORTED, largest=4000)[::7]


def run(seeds, seed, **options):
    return fuzz_onnx.fuzz(lambda number: fuzz_onnx.mutant(seeds, seed, number), **options)


def test_an_input_is_known_by_its_number(seeds):
    for number in range(30):
        first = fuzz_onnx.mutant(seeds, 3, number)
        assert first == fuzz_onnx.mutant(seeds, 3, number)
    assert len({fuzz_onnx.mutant(seeds, 3, number) for number in range(300)}) > 250


def test_damaged_files_harm_nothing(seeds):
    tally = run(seeds, 1, inputs=600)
    assert not tally.failures, fuzz_onnx.report(tally)
    assert tally.inputs == 600
    assert tally.outcomes["accepted"] > 30 and tally.outcomes["refused"] > 300
    assert len(tally.sentences) > 60


@pytest.mark.parametrize("kind", fuzz_data.MUTANTS)
def test_damaged_data_harms_nothing(kind):
    files, mutant = fuzz_data.seeds(kind), fuzz_data.MUTANTS[kind]
    for _, content in files:
        whole = fuzz_onnx.fuzz(lambda _, content=content: content, suffix=f".{kind}", inputs=1)
        assert whole.outcomes == {"accepted": 1}
    tally = fuzz_onnx.fuzz(lambda number: mutant(files, 1, number), suffix=f".{kind}", inputs=300)
    assert not tally.failures, fuzz_onnx.report(tally)
    assert tally.outcomes["refused"] > 100 and tally.outcomes["accepted"] > 10 and len(tally.sentences) > 10


@pytest.mark.slow
def test_damaged_files_harm_nothing_for_a_minute():
    seed = int(time.time())
    tally = run(fuzz_onnx.all_seeds(), seed, seconds=25, jobs=2)
    assert not tally.failures, fuzz_onnx.report(tally)
    assert tally.inputs > 500  # on a machine that others use too


def crash(path):
    ctypes.string_at(0)


def loop(path):
    while True:
        pass


def hang(path):
    time.sleep(1000)


def take(path):
    np.ones(1 << 29)


def take_and_tell(path):
    try:
        take(path)
    except MemoryError as error:
        raise UsageError("Model file must be smaller") from error


def peek(path):
    Path("../canary/secret.bin").read_bytes()


def write(path):
    Path("../canary/secret.bin").write_bytes(b"")


def write_beside(path):
    Path("w.bin").write_bytes(b"")


def execute(path):
    subprocess.run(["true"], check=True)


def unpickle(path):
    pickle.loads(pickle.dumps(os.getcwd))


def fail(path):
    raise KeyError("model")


def babble(path):
    raise UsageError("Model file must be good:\n  it is not")


def warn(path):
    np.float32(1e38) * np.float32(1e38)


@pytest.mark.parametrize(
    "fault, kind",
    [
        (crash, "killed by signal 11"), (hang, "hang"), (loop, "too slow"), (take, "out of memory"),
        (take_and_tell, "out of memory"), (peek, "harm"), (write, "harm"), (write_beside, "harm"), (execute, "harm"),
        (unpickle, "harm"), (fail, "KeyError"), (babble, "no sentence"), (warn, "RuntimeWarning"),
    ],
)  # fmt: skip
def test_planted_faults_are_found_and_saved(fault, kind, tmp_path, monkeypatch):
    marked = ModelProto(producer_name="hwrnn", doc_string="marked").SerializeToString()

    def load(path):
        if b"marked" in Path(path).read_bytes():
            fault(path)
        raise UsageError("Model file must be right")

    monkeypatch.setattr(hwrnn, "load", load)
    monkeypatch.setattr(fuzz_onnx, "SECONDS", 0.2)
    tally = fuzz_onnx.fuzz(
        lambda number: marked if number == 2 else b"hwrnn", inputs=4, output=tmp_path / "found",
        patience=0.4 if fault is hang else 20,
    )  # fmt: skip
    [(found, words, path)] = tally.failures
    assert (found, path.read_bytes()) == (kind, marked), words
    assert tally.inputs == 4 and f"repeat: scripts/fuzz --input {path}" in fuzz_onnx.report(tally)


def test_the_command_line(tmp_path):
    program = [sys.executable, ROOT / "scripts" / "fuzz.py"]
    (tmp_path / "x.onnx").write_bytes(b"x")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*program, "--input", tmp_path / "x.onnx"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "1 inputs" in done.stdout and "0 failures of 0 kinds" in done.stdout
