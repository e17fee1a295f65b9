"""Killed processes, interrupted training and full disks: nothing half-written, everything resumes. A few of each.

``scripts/kill`` does a thousand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import killing
import pytest

from hwrnn import cli, files, processes
from hwrnn.cli import main
from hwrnn.rtl import tools

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return killing.Material(tmp_path_factory.mktemp("killing") / "material")


QUICK = ("float model", "checkpoint", "generated folder", "implementation in a folder")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in killing.WRITERS]
)
def test_kills_leave_one_version_or_the_other(name, material):
    tally = killing.kills(name, material, 8, seed=1)
    assert not tally.faults and tally.kills == 8


@contextlib.contextmanager
def plain_path(path):
    """What somebody would write who never heard of power cuts."""
    yield Path(path)


@pytest.mark.parametrize("name", ["checkpoint", "C folder"])
def test_a_plain_write_is_found(name, material, monkeypatch):
    monkeypatch.setattr(files, "atomic_path", plain_path)
    monkeypatch.setattr("hwrnn.training.checkpoint.atomic_path", plain_path)
    if name == "C folder":
        monkeypatch.setattr("hwrnn.c_reference.replace_folder", plain_folder)
    tally = killing.Tally()
    for seed in range(10):
        tally = killing.kills(name, material, 10, seed)
        if tally.faults:
            break
    assert any("neither version is there" in fault for fault in tally.faults)


@contextlib.contextmanager
def plain_folder(path):
    Path(path).mkdir(exist_ok=True)
    yield Path(path)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "training, numpy" else pytest.mark.slow) for name in killing.RUNS]
)
def test_an_interrupted_run_equals_the_uninterrupted_one(name, material):
    if "compiled" in name and not killing.compiler.compiler_available(killing.C):
        pytest.skip("no C compiler")
    tally = killing.interruptions(name, material, 6, seed=1)
    assert not tally.faults and tally.kills >= 6


def test_a_resumed_run_that_goes_on_elsewhere_is_found(material, monkeypatch):
    """A generator of random numbers that a checkpoint forgets."""
    from hwrnn.training.run import Run

    restore = Run.restore

    def forgetful(self, checkpoint):
        state = self.rng.bit_generator.state
        restore(self, checkpoint)
        self.rng.bit_generator.state = state

    monkeypatch.setattr(Run, "restore", forgetful)
    tally = killing.interruptions("training, numpy", material, 12, seed=1)
    assert any(" in place of " in fault for fault in tally.faults)


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=() if verb == "import" else pytest.mark.slow) for verb in killing.VERBS]
)
def test_a_full_disk(verb, material):
    if verb == "generate":
        pytest.skip("takes minutes: scripts/kill does it")
    found = killing.full_disks(verb, material)
    assert not found.faults and found.met > 8


def test_a_plain_write_on_a_full_disk_is_found(material, monkeypatch):
    monkeypatch.setattr(files, "atomic_path", plain_path)
    assert any("not as it was" in fault for fault in killing.full_disks("import", material).faults)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_output_that_nobody_can_take():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hwrnn.cli", "inspect", "relu"], stdout=full, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("hwrnn: Disk must have room left, also for temporary files (TMPDIR), but")


def test_what_the_system_refuses_is_a_sentence(monkeypatch, capsys):
    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("hwrnn.commands.inspect.run", broken)
    assert main(["inspect", "relu"]) == 2
    told = "Files must be what the system lets hwrnn read and write, and one is not: [Errno 5] Input/output error"
    assert capsys.readouterr().err == f"hwrnn: {told}\n"


def test_too_little_memory_is_a_sentence(monkeypatch, capsys):
    def large(*_):
        raise MemoryError

    monkeypatch.setattr("hwrnn.commands.inspect.run", large)
    assert main(["inspect", "relu"]) == 2
    told = "hwrnn: Memory must be enough for this, and is not: use a smaller model, less data or fewer lanes\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_process_that_is_asked_to_end(number, code, monkeypatch, capsys):
    def wait(*_):
        os.kill(os.getpid(), number)
        signal.pause()

    monkeypatch.setattr("hwrnn.commands.inspect.run", wait)
    assert main(["inspect", "relu"]) == code
    assert capsys.readouterr().err == f"hwrnn: ended by {number.name}\n"
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_finalizer_is_not_lost(number):
    """Python drops what is raised there."""

    class Ended:
        def __del__(self):
            os.kill(os.getpid(), number)
            for _ in range(1000):  # chances for a handler to run
                pass

    before, handler = sys.unraisablehook, signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's own workers ignore it
    try:
        with pytest.raises((cli._Signalled, KeyboardInterrupt)), cli._ended_by_signals(), cli._ended_by_signals():
            Ended()
            time.sleep(10)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert sys.unraisablehook is before


@pytest.mark.parametrize("where", ["program", "job"])
def test_a_signal_while_a_program_starts_leaves_none_running(where, tmp_path, monkeypatch):
    started = []

    class Started(subprocess.Popen):
        def __init__(self, *words, **options):
            super().__init__(*words, **options)
            started.append(self)
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):  # chances for a handler to run
                pass

    monkeypatch.setattr(subprocess, "Popen", Started)
    with pytest.raises(cli._Signalled), cli._ended_by_signals():
        if where == "program":
            processes.run_program(["sleep", "1000"])
        else:
            tools.run_all([tools.Job("time", "import time; time.sleep(1000)", (), "log", "made")], tmp_path)
    [process] = started
    assert process.returncode == -signal.SIGKILL


def test_a_signal_in_the_middle_of_cleaning_waits(tmp_path, monkeypatch):
    """An exception inside rmtree would become another one, and half a folder would stay."""
    remove = shutil.rmtree

    def disturbed(path, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # chances for a handler to run
            pass
        remove(path, **options)

    monkeypatch.setattr(files.shutil, "rmtree", disturbed)
    with pytest.raises(cli._Signalled), cli._ended_by_signals(), files.replace_folder(tmp_path / "v") as fresh:
        (fresh / "a").write_text("half")
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_an_interrupted_run_says_how_it_goes_on(material, tmp_path, monkeypatch, capsys):
    words = ["train", "--data", str(material.folder / "d.npz"), "--hidden", "2", "--epochs", "9", "--no-compiled"]
    words += ["-o", str(tmp_path / "m.onnx"), "--checkpoint", str(tmp_path / "c.npz")]

    def interrupt(_what):
        def show(now):
            if now.epoch == 3:
                raise KeyboardInterrupt

        return show

    monkeypatch.setattr("hwrnn.report.epochs_bar", interrupt)
    assert main(words) == 130
    told = f"hwrnn: interrupted: the same command with --resume goes on from {str(tmp_path / 'c.npz')!r}\n"
    assert capsys.readouterr().err == told
    monkeypatch.undo()
    assert main([*words, "--resume"]) == 0


def test_a_fine_tuning_without_a_checkpoint_is_not_resumed(material, tmp_path, capsys):
    words = ["quantize", material.folder / "m0.onnx", "--data", material.folder / "d.npz", "-o", tmp_path / "q"]
    assert main([*map(str, words), "--finetune", "2", "--resume"]) == 2
    told = "hwrnn: Resume must come with the path of a checkpoint: give --checkpoint FILE\n"
    assert capsys.readouterr().err == told
    assert main([*map(str, words), "--checkpoint", str(tmp_path / "c")]) == 2
    assert "Options of training must come with fine-tuning epochs" in capsys.readouterr().err
