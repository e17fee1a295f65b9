"""Many networks in one build, since most of a build's time goes by whatever is built: CXXRTL, Icarus, Verilator."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from test_netlist import cell_models, share

from hwrnn.compiler import CPP, found
from hwrnn.rtl import TARGETS
from hwrnn.rtl.folding import fold
from hwrnn.rtl.network import Network
from hwrnn.rtl.packing import pack
from hwrnn.rtl.synthesis import NETLIST, synthesize
from hwrnn.rtl.tools import run_all, yosys_job
from hwrnn.rtl.verilog import emit
from hwrnn.sim import cxxrtl
from hwrnn.sim.stimuli import Recording, Stimulus
from hwrnn.sim.verilog import driver_files, program, recorded


@dataclass(frozen=True, eq=False)
class Bench:
    """A network and what it is fed with.

    Attributes:
        name: of the Verilog's top.
    """

    name: str
    network: Network
    stimulus: Stimulus

    @cached_property
    def text(self) -> str:
        """Its Verilog."""
        return emit(self.network, self.name).text


def call(line: Sequence[Any], folder: Path) -> None:
    """Run a program; AssertionError tells what a failing one said."""
    done = subprocess.run(
        [*map(str, line)], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    # Models of cells end a simulation with a FAIL where they are asked for what they do not have.
    wrong = done.returncode or "FAIL" in done.stdout
    assert not wrong, f"{Path(line[0]).name} fails: {' '.join((done.stderr or done.stdout).split())[-600:]}"


def written(benches: Sequence[Bench], folder: Path) -> list[str]:
    """The driver of each bench, and ``top``, which holds all of them; the files' names."""
    files = ["top.v"]
    (folder / "top.v").write_text(
        "module top;\n" + "".join(f"  driver_{b.name} of_{b.name} ();\n" for b in benches) + "endmodule\n"
    )
    for bench in benches:
        for file, text in driver_files(bench.network, bench.stimulus, bench.name).items():
            if file == "driver.v":
                # The first one to end must not end the others: a simulation is over when nothing happens any more.
                text = text.replace("module driver;", f"module driver_{bench.name};").replace("$finish;", "")
                text, count = re.subn(r'"(\w+\.(hex|txt))"', rf'"{bench.name}_\1"', text)
                assert count == 4
                files.append(f"{bench.name}_{file}")
            (folder / f"{bench.name}_{file}").write_text(text)
    return files


def read_back(benches: Sequence[Bench], folder: Path) -> list[Recording]:
    """What each driver recorded."""
    return [
        recorded((folder / f"{b.name}_record.txt").read_text(), b.network.output_format, b.stimulus) for b in benches
    ]


def networks_written(benches: Sequence[Bench], folder: Path) -> list[str]:
    for bench in benches:
        (folder / f"{bench.name}.v").write_text(bench.text)
    return [f"{bench.name}.v" for bench in benches]


def run_icarus(benches: Sequence[Bench], folder: Path) -> list[Recording]:
    """All emitted Verilog in one run of Icarus."""
    files = written(benches, folder) + networks_written(benches, folder)
    call([program("icarus"), "-g2005", "-s", "top", "-o", "simulation", *files], folder)
    call(["vvp", "-n", "simulation"], folder)
    return read_back(benches, folder)


def run_verilator(benches: Sequence[Bench], folder: Path) -> list[Recording]:
    """All emitted Verilog in one program of Verilator's; the runs are too short to optimise it."""
    files = written(benches, folder) + networks_written(benches, folder)
    options = ["--binary", "--timing", "-j", "1", "--top-module", "top", "-Wno-fatal", "-Wno-lint"]
    for flag in ("OPT_FAST", "OPT_SLOW", "OPT_GLOBAL"):
        options += ["-MAKEFLAGS", f"{flag}=-O0"]
    call([program("verilator"), *options, "--Mdir", "build", "-o", "simulation", *files], folder)
    call([folder / "build" / "simulation"], folder)
    return read_back(benches, folder)


def run_netlists(benches: Mapping[Bench, str], folder: Path) -> dict[Bench, Recording]:
    """The netlist of each bench for its part, simulated family by family."""
    found: dict[Bench, Recording] = {}
    families: dict[str, list[Bench]] = {}
    for bench, part in benches.items():
        families.setdefault(TARGETS[part].family, []).append(bench)
        netlist_of(bench, part, folder)
    for family, some in families.items():
        files = written(some, folder) + [f"{bench.name}_mapped.v" for bench in some]
        (folder / "cells.v").write_text(cell_models(family))
        # Yosys' models of iCE40 give unconnected pins their defaults by means that Icarus does not have.
        options = ["-g2012" if family == "cyclonev" else "-g2005", "-DNO_ICE40_DEFAULT_ASSIGNMENTS"]
        options += [f"-I{share() / 'lattice'}", "-s", "top", "-o", "simulation"]
        call([program("icarus"), *options, *files, "cells.v"], folder)
        call(["vvp", "-n", "simulation"], folder)
        found |= dict(zip(some, read_back(some, folder), strict=True))
    return found


def netlist_of(bench: Bench, part: str, folder: Path) -> None:
    """Write the netlist of a network as it goes to placement."""
    (folder / "network.v").write_text(bench.text)
    netlist = synthesize(TARGETS[part], bench.name, "network.v", folder)
    if TARGETS[part].family == "ecp5":
        fold(netlist, bench.name)
        pack(netlist, bench.name)
        (folder / NETLIST).write_text(json.dumps(netlist))
    mapped = f"{bench.name}_mapped.v"
    (folder / "write.ys").write_text(f"read_json {NETLIST}\nwrite_verilog -noattr {mapped}\n")
    (fault,) = run_all([yosys_job("write.ys", "write.log", mapped)], folder)
    assert fault is None, fault


class _Part:
    """One network's functions of a library of many, by the names that ``hwrnn.sim.cxxrtl`` calls."""

    def __init__(self, library: ctypes.CDLL, number: int) -> None:
        self.hwrnn_new, self.hwrnn_delete, self.hwrnn_run = (
            getattr(library, f"hwrnn_{number}_{name}") for name in ("new", "delete", "run")
        )
        self.hwrnn_new.restype = ctypes.c_void_p
        self.hwrnn_delete.argtypes, self.hwrnn_delete.restype = [ctypes.c_void_p], None
        self.hwrnn_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]


def build_cxxrtl(networks: Sequence[Network], folder: Path, changed: Callable[[str], str] = lambda text: text) -> None:
    """Build the classes of all networks at once, where ``run_cxxrtl`` finds them.

    Args:
        changed: what is made of the C++, to plant faults.
    """
    files = resources.files("hwrnn.sim")
    pieces = [files.joinpath("slices.h").read_text(), "#include <cstdint>\n"]
    driver = files.joinpath("driver.cpp").read_text()
    for k, network in enumerate(networks):
        model = cxxrtl._model(rtlil.convert(network, name="top", emit_src=False))
        names = cxxrtl._names(network)
        text = f"namespace run_{k} {{\n{driver}\n}}\n".replace("hwrnn_", f"hwrnn_{k}_")
        macros = "".join(f"#undef {name}\n" for name in re.findall(r"^#define (\w+)", names + driver, re.MULTILINE))
        pieces.append((model + names + text).replace("cxxrtl_design", f"design_{k}") + macros)
    (folder / "models.cpp").write_text(changed("".join(pieces)))
    # The runs are too short to optimise for; nor to copy CXXRTL's functions to wherever they are called, which they ask
    # for even so and which takes a quarter of the time.
    flags = ["-O0" if flag == "-O2" else flag for flag in cxxrtl._FLAGS] + ["-D__always_inline__=__unused__"]
    line = [*found(CPP, "there is no other way"), *flags, f"-I{cxxrtl._headers()}", "-shared", "-fPIC", "models.cpp"]
    call([*line, "-o", "models.so"], folder)
    library = ctypes.CDLL(str(folder / "models.so"))
    for k, network in enumerate(networks):
        cxxrtl._LIBRARIES[network] = _Part(library, k)  # type: ignore[assignment]
