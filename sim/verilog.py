"""Simulation of the emitted Verilog in Icarus or Verilator, second opinions that share nothing with Amaranth."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from importlib import resources
from pathlib import Path

import numpy as np

from hwrnn.errors import UsageError, plain
from hwrnn.fixed import Format
from hwrnn.processes import how_it_ended, run_program
from hwrnn.rtl.axi import padded
from hwrnn.rtl.network import Network
from hwrnn.rtl.verilog import emit
from hwrnn.sim.stimuli import TAIL, Progress, Recording, Stall, Stimulus

__all__ = ["driver_files", "recorded", "run_bench", "run_verilog"]

#: Each simulator's program and the Debian package that brings it.
_PROGRAMS = {"icarus": ("iverilog", "iverilog"), "verilator": ("verilator", "verilator")}
#: Options for Verilog that is no one's to read: Verilator takes a style that it warns of for an error.
_QUIET: dict[str, list[str]] = {"icarus": [], "verilator": ["-Wno-fatal", "-Wno-lint"]}


def run_verilog(network: Network, stimulus: Stimulus, which: str, progress: Progress | None = None) -> Recording:
    """Run a stimulus on the Verilog that a network emits; probes, if any, are not recorded.

    Args:
        which: ``icarus`` or ``verilator``.
        progress: called before and after, since a simulator reports nothing between.

    Raises:
        UsageError: another simulator, or one that is not installed.
    """
    program(which)
    emitted = emit(network, "network")
    count = len(stimulus.data)
    if progress is not None:
        progress(0, count)
    with tempfile.TemporaryDirectory(prefix="hwrnn-") as name:
        folder = Path(name)
        (folder / "network.v").write_text(emitted.text)
        for file, text in driver_files(network, stimulus, "network").items():
            (folder / file).write_text(text)
        seconds = _run(folder, which, "driver", [*_QUIET[which], "driver.v", "network.v"])[1]
        try:
            found = recorded((folder / "record.txt").read_text(), network.output_format, stimulus, seconds)
        except (OSError, ValueError, IndexError, OverflowError) as error:
            raise _no_record(which) from error
    if progress is not None:
        progress(count, count)
    return found


def _no_record(which: str) -> UsageError:
    return UsageError(f"Simulator must record what it simulates, but {which} left no such record: install it again")


def driver_files(network: Network, stimulus: Stimulus, name: str) -> dict[str, str]:
    """The text by file of a bench, the module ``driver``, that runs a stimulus on a network's top of the name ``name``.

    It writes ``record.txt``, which :func:`recorded` reads.
    """
    width, form = padded(network.input_format.width), network.output_format
    digits = -(-(width + 1) // 4)
    words = (stimulus.data & ((1 << width) - 1)) | stimulus.last.astype(np.int64) << width
    files = {
        "driver.v": _driver(stimulus, name, width, padded(form.width), network),
        "stimulus.hex": "".join(f"{word:0{digits}x}\n" for word in words.tolist()),
    }
    for file, stall in (("supply", stimulus.input), ("demand", stimulus.output)):
        files[f"{file}.hex"] = "".join(f"{flag}\n" for flag in stall.pattern.tolist())
    return files


def recorded(text: str, form: Format, stimulus: Stimulus, seconds: float = 0.0) -> Recording:
    """What the bench of :func:`driver_files` wrote of a network with outputs of a format."""
    record = text.split("\n")
    input_cycles = [int(line[2:]) for line in record if line.startswith("i")]
    transfers = [[*line.split(), "0"][:5] for line in record if line.startswith("o")]
    output_cycles = np.array([int(cycle) for _, cycle, *_ in transfers], np.int64)
    # An X, which only Icarus knows, becomes a value that no element has.
    raw = [int(value, 16) if re.fullmatch("[0-9a-f]+", value) else None for _, _, value, *_ in transfers]
    outputs = np.array([_NOTHING if v is None else _signed(v, form.width, form.signed) for v in raw], np.int64)
    above = np.array([_above(last, tag) for *_, last, tag in transfers], np.int64)
    if len(outputs) >= stimulus.outputs:
        cycles = int(output_cycles[stimulus.outputs - 1]) + 1
    else:
        cycles = _given_up(stimulus, input_cycles, output_cycles)
    return Recording(outputs, above, output_cycles, np.array(input_cycles, np.int64), cycles, {}, seconds)


_NOTHING = -(1 << 62)


def _above(last: str, channel: str) -> int:
    """What stands above an element; -1 for an X."""
    if last not in ("0", "1") or not channel.isdecimal():
        return -1
    return int(last) + 2 * int(channel)


def _signed(value: int, width: int, signed: bool) -> int:
    """The element in the low bits of ``tdata``."""
    value &= (1 << width) - 1
    return value - (1 << width) if signed and value >> (width - 1) else value


def _given_up(stimulus: Stimulus, input_cycles: list[int], output_cycles: np.ndarray) -> int:
    seen = max([-1, *input_cycles[-1:], *output_cycles[-1:].tolist()])
    return min(stimulus.limit, seen + 1 + stimulus.patience)


#: A load port on which nothing comes: left open it would be unknown in Icarus.
_NO_LOAD = """,
    .s_load_tdata(8'd0), .s_load_tvalid(1'b0), .s_load_tlast(1'b0), .m_load_tready(1'b0)"""


def _driver(stimulus: Stimulus, name: str, input_bits: int, output_bits: int, network: Network) -> str:
    channels = network.channels
    holes = {
        "NAME": name,
        "INPUT_BITS": input_bits,
        "OUTPUT_BITS": output_bits,
        "ELEMENTS": len(stimulus.data),
        "OUTPUTS": stimulus.outputs,
        "LIMIT": stimulus.limit,
        "PATIENCE": stimulus.patience,
        "TAIL": TAIL,
        "TID": "" if channels == 1 else ",\n    .m_axis_tid(m_axis_tid)",
        "LOAD": _NO_LOAD if network.loadable else "",
        "CHANNEL": "0" if channels == 1 else "m_axis_tid",
        "TID_BITS": max((channels - 1).bit_length(), 1),
        **_stall("SUPPLY", stimulus.input),
        **_stall("DEMAND", stimulus.output),
    }
    text = (resources.files("hwrnn.sim") / "driver.v").read_text()
    return re.sub(r"@([A-Z_]+)@", lambda hole: str(holes[hole[1]]), text)


def _stall(port: str, stall: Stall) -> dict[str, int | str]:
    return {port: len(stall.pattern), f"{port}_WAITS": f"1'b{int(stall.waits)}"}


def run_bench(folder: str | os.PathLike[str], which: str) -> str:
    """Run the bench of a generated folder; the line that it ends with, ``PASS ...`` or ``FAIL ...``.

    Nothing is written into the folder.

    Args:
        which: ``icarus`` or ``verilator``.

    Raises:
        UsageError: another simulator, one that is not installed, or a folder without a bench.
    """
    program(which)
    source = Path(folder)
    benches = sorted(source.glob("*_tb.v"))
    if len(benches) != 1:
        raise UsageError(f"Folder must be one that generate wrote, with one bench NAME_tb.v, not {os.fspath(folder)!r}")
    top = benches[0].stem
    with tempfile.TemporaryDirectory(prefix="hwrnn-") as name:
        files = [file for suffix in ("v", "hex", "vlt") for file in sorted(source.glob(f"*.{suffix}"))]
        for file in files:
            shutil.copy(file, name)
        waivers = ["verilator.vlt"] if which == "verilator" else []
        output = _run(Path(name), which, top, [*waivers, benches[0].name, f"{top.removesuffix('_tb')}.v"])[0]
    verdicts = [line for line in output.splitlines() if line.startswith(("PASS", "FAIL"))]
    return verdicts[0] if len(verdicts) == 1 else f"FAIL the bench ended with {len(verdicts)} verdicts"


def program(which: str) -> str:
    """The path of a simulator's program.

    Raises:
        UsageError: no such simulator, or not installed.
    """
    if which not in _PROGRAMS:
        raise UsageError(f"Verilog simulator must be one of {', '.join(_PROGRAMS)}, not {which!r}")
    name, package = _PROGRAMS[which]
    found = shutil.which(name)
    if found is None:
        raise UsageError(f"Program {name!r} must be installed for this: run apt install {package}")
    return found


def _run(folder: Path, which: str, top: str, files: list[str]) -> tuple[str, float]:
    """Compile and run in ``folder``: what it printed, and the seconds of the run itself."""
    command = program(which)
    if which == "icarus":
        _call(folder, [command, "-g2005", "-s", top, "-o", "simulation", *files])
        run = ["vvp", "-n", "simulation"]
    else:
        options = ["--binary", "--timing", "-j", "1", "--top-module", top]
        _call(folder, [command, *options, "--Mdir", "build", "-o", "simulation", *files])
        run = ["build/simulation"]
    started = time.perf_counter()
    output = _call(folder, run)
    return output, time.perf_counter() - started


def _call(folder: Path, command: list[str]) -> str:
    done = run_program(command, folder=folder)
    if done.code:
        said = done.errors if done.errors.strip() else done.output
        told = plain(said, 400) if said.strip() else f"it {how_it_ended(done.code)}"
        raise UsageError(f"Simulator must compile and run the Verilog, but {Path(command[0]).name} fails: {told}")
    return done.output
