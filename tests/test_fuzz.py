"""The fuzzer finds nothing in a few hundred inputs (a minute's worth by ``-m slow``), and does find planted faults."""

import ctypes
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import fuzz_commands
import fuzz_data
import fuzz_kinds
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


@pytest.fixture(scope="module")
def files():
    yield fuzz_kinds.folder()
    fuzz_kinds.forget()


@pytest.mark.parametrize("kind", ["checkpoint", "manifest", "keras", "command"])
def test_other_damage_harms_nothing(kind, files):
    tally = fuzz_kinds.fuzz(kind, 1, inputs=40)
    assert not tally.failures, fuzz_onnx.report(tally)
    assert tally.inputs == 40 and tally.outcomes["refused"] > 10


@pytest.mark.slow
def test_damage_of_all_kinds_harms_nothing_for_a_minute(files):
    for kind in fuzz_kinds.KINDS.values():
        tally = fuzz_kinds.fuzz(kind.name, 8, seconds=10 if kind.name == "model" else 3, jobs=2)
        assert not tally.failures, fuzz_onnx.report(tally)
        assert tally.inputs > 5  # on a machine that others use too


def test_command_lines_know_every_option(files):
    """The grammar is the parser: each verb's options come up, and the same number is the same line."""
    grammar = fuzz_commands.Grammar(files)
    lines = [grammar.line(1, number) for number in range(6000)]
    assert lines[:50] == [grammar.line(1, number) for number in range(50)]
    words = {word for line in lines for word in line}
    for verb, parser in grammar.verbs.items():
        assert verb in words
        for action in parser._actions:
            if action.option_strings and action.dest != "help":
                assert words & set(action.option_strings), (verb, action.dest)


def exit_badly(given):
    raise SystemExit(7)


def print_a_traceback(given):
    print("Traceback (most recent call last):", file=sys.stderr)
    return 0


def leave_a_half(given):
    Path(given.output).write_bytes(b"half")
    raise UsageError("Output must be better")


def leave_a_temporary(given):
    Path(given.output).with_name(".o.01234567.hwrnn.onnx").write_bytes(b"")
    return 0


def harm_a_folder(given):
    (Path(given.output).parent / "old-folder" / "mine").unlink()
    return 0


def refuse_in_silence(given):
    return 2


def print_and_refuse(given):
    print("{}")
    raise UsageError("Output must be better")


def fall(given):
    raise KeyError("output")


@pytest.mark.parametrize(
    "fault, words",
    [
        (exit_badly, "ended with 7"), (print_a_traceback, "printed a traceback"),
        (leave_a_half, "left an output that it refused"), (leave_a_temporary, "left a temporary file"),
        (harm_a_folder, "changed what a person had"), (refuse_in_silence, "refused without a sentence"),
        (print_and_refuse, "printed a result beside a refusal"), (fall, "output"),
    ],
)  # fmt: skip
def test_planted_faults_of_commands_are_found(fault, words, files, tmp_path, monkeypatch):
    monkeypatch.setattr("hwrnn.commands.export.run", fault)
    line = ["export", "{m}/m0.onnx", "-o", "{f}/o.onnx"]
    with pytest.raises((fuzz_commands.Wrong, KeyError), match=words):
        fuzz_commands.run(line, files, tmp_path)
    monkeypatch.undo()
    fuzz_commands.run(line, files, tmp_path)
    with pytest.raises(UsageError, match=r"^Form must be one of onnx, "):
        fuzz_commands.run([*line, "--form", "x"], files, tmp_path)


def test_a_fault_of_the_fuzzer_s_own_does_not_end_it(seeds):
    """An input that cannot be made, in the worker and again in the parent, which once ended a run."""

    def make(number):
        if number == 3:
            raise ZeroDivisionError
        return fuzz_onnx.mutant(seeds, 1, number)

    tally = fuzz_onnx.fuzz(make, inputs=6)
    assert tally.inputs == 6 and tally.outcomes["no input"] == 1
    [(kind, words, _)] = tally.failures
    assert kind == "no input" and "making of input 3" in words


def test_a_stack_that_is_cut_off(tmp_path):
    (tmp_path / "stack.txt").write_bytes(b'Fatal\n  File "onnx_io.py"\xff')
    assert fuzz_onnx._stack(tmp_path) == "no Python frame"
    (tmp_path / "stack.txt").write_text('  File "a/onnx_io.py", line 12 in load\n')
    assert fuzz_onnx._stack(tmp_path) == "onnx_io.py 12"


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
