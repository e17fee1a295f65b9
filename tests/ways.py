"""Nine ways of computing a quantized network, side by side: the same values, and where there are cycles the same ones.

Golden (in numpy and in compiled C), the oracle, Amaranth's simulator, CXXRTL, Icarus and Verilator on the emitted
Verilog, Icarus on the netlist after synthesis, ONNX Runtime, and the C reference. ``run`` compares them on cases of
``ways_cases``; ``scripts/agree`` is its command line.
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from plain import plain
from test_c_reference import Case as Reference
from test_c_reference import compiled
from ways_builds import Bench, build_cxxrtl, run_icarus, run_netlists, run_verilator
from ways_cases import Case

import oracle
from hwrnn.errors import UsageError, require
from hwrnn.golden import golden
from hwrnn.onnx_io import save
from hwrnn.rtl.network import Network
from hwrnn.rtl.rounds import filled, order_of
from hwrnn.sim.amaranth_simulator import run_amaranth
from hwrnn.sim.comparison import expected_values
from hwrnn.sim.cxxrtl import run_cxxrtl
from hwrnn.sim.stimuli import Recording, Stimulus, stimulus
from hwrnn.sim.verification import check

#: The nine, and what the page calls them.
WAYS = {
    "golden": "golden (numpy and compiled C)",
    "oracle": "oracle (fractions)",
    "amaranth": "Amaranth's simulator",
    "cxxrtl": "CXXRTL",
    "icarus": "Icarus",
    "verilator": "Verilator",
    "netlist": "netlist after synthesis",
    "onnxruntime": "ONNX Runtime",
    "c": "C reference",
}


@dataclass
class Setup:
    """What all ways of one case share."""

    case: Case
    model: Any
    raw: np.ndarray
    lengths: np.ndarray
    bench: Bench

    @classmethod
    def of(cls, case: Case, number: int) -> Setup:
        model, raw, lengths = case.model()
        network = case.network(model)
        raw, lengths = filled(raw, lengths, case["channels"])
        stimulated = stimulus(network, raw, lengths, *case.stalls, case["seed"])
        return cls(case, model, raw, lengths, Bench(f"network_{number}", network, stimulated))

    @cached_property
    def probed(self) -> Network:
        """The network with probes."""
        return self.case.network(self.model, probed=True)

    @property
    def name(self) -> str:
        return self.bench.name

    @property
    def stimulus(self) -> Stimulus:
        return self.bench.stimulus

    @property
    def x(self) -> np.ndarray:
        """The inputs as floats, without loss."""
        x = (self.raw * 2.0**-self.model.input_format.frac).astype(np.float32)
        assert (self.model.quantize_input(x) == self.raw).all()
        return x

    def shown(self, values: np.ndarray, every: bool, lengths: np.ndarray) -> np.ndarray:
        """Vectors (N, T, n), or (N, n) of last steps, in the order in which hardware emits them."""
        order = order_of(lengths, self.case["channels"]).emitted(every)
        return values[order.sequences, order.steps] if every else values[order.sequences]


@dataclass
class Seen:
    """What one way computed.

    Attributes:
        outputs: of the port, vector by vector in the order in which hardware emits them.
        inside: every stored value by layer and name, likewise.
        recording: of a way that has cycles.
        fault: why there is nothing.
        seconds: of a processor.
        closed: whether closed forms were compared in a run without stalls, and held.
    """

    outputs: np.ndarray | None = None
    inside: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)
    recording: Recording | None = None
    fault: str = ""
    seconds: float = 0.0
    closed: bool | None = None


def _of_arrays(setup: Setup, output: np.ndarray, inside: Mapping[tuple[int, str], np.ndarray]) -> Seen:
    model, lengths = setup.model, setup.lengths
    outputs = setup.shown(output, model.every_step, lengths)
    if setup.case["head"] == "argmax":
        outputs = outputs.argmax(-1)[:, None]
    values = {}
    for (layer, name), array in inside.items():
        every = layer < len(model.layers) or model.every_step
        values[layer, name] = setup.shown(array if every else array[:, 0], every, lengths).reshape(-1)
    return Seen(outputs.reshape(-1), values)


def _of_recording(recording: Recording, closed: bool | None = None) -> Seen:
    inside = {key: values for key, (values, _) in recording.probes.items()}
    return Seen(recording.outputs, inside, recording, closed=closed)


# -- the ways: each takes the setups and a folder, and gives what was seen of each ---------------------------------


def by_golden(setups: Sequence[Setup], folder: Path, compiled: bool = False) -> list[Seen]:
    results = [golden(s.model, s.raw, s.lengths, keep=True, compiled=compiled) for s in setups]
    return [_of_arrays(s, result.output, result.values) for s, result in zip(setups, results, strict=True)]


def by_compiled(setups: Sequence[Setup], folder: Path) -> list[Seen]:
    return by_golden(setups, folder, True)


def by_oracle(setups: Sequence[Setup], folder: Path) -> list[Seen]:
    return [_by_oracle(setup) for setup in setups]


def _by_oracle(setup: Setup) -> Seen:
    model, network = setup.model, plain(setup.model)
    shape = (len(setup.lengths), int(setup.lengths.max()))
    output = np.zeros((*shape[: 1 + model.every_step], model.outputs), np.int64)
    inside: dict[tuple[int, str], np.ndarray] = {}
    for n, length in enumerate(setup.lengths.tolist()):
        found, trails = oracle.run(network, setup.raw[n, :length].tolist())
        output[(n, slice(length)) if model.every_step else n] = found
        for layer, trail in enumerate(trails):
            for t, seen in enumerate(trail):
                for name, values in seen.items():
                    inside.setdefault((layer, name), np.zeros((*shape, len(values)), np.int64))[n, t] = values
    return _of_arrays(setup, output, inside)


def by_amaranth(setups: Sequence[Setup], folder: Path) -> list[Seen]:
    return [_of_recording(run_amaranth(s.probed, s.stimulus)) for s in setups]


def by_cxxrtl(setups: Sequence[Setup], folder: Path) -> list[Seen]:
    build_cxxrtl([setup.probed for setup in setups], folder)
    found = [_of_recording(run_cxxrtl(s.probed, s.stimulus)) for s in setups]
    for setup, seen in zip(setups, found, strict=True):
        report = check(setup.model, setup.x, setup.lengths, network=setup.probed, simulator="cxxrtl")
        seen.closed = report.closed_forms
    return found


def by_icarus(setups: Sequence[Setup], folder: Path) -> list[Seen]:
    return [_of_recording(recording) for recording in run_icarus([s.bench for s in setups], folder)]


def by_verilator(setups: Sequence[Setup], folder: Path) -> list[Seen]:
    return [_of_recording(recording) for recording in run_verilator([s.bench for s in setups], folder)]


def by_netlist(setups: Sequence[Setup], folder: Path) -> list[Seen]:
    found = run_netlists({s.bench: s.case["part"] for s in setups}, folder)
    return [_of_recording(found[s.bench]) for s in setups]


def by_onnxruntime(setups: Sequence[Setup], folder: Path) -> list[Seen]:
    runtime, found = require("onnxruntime", "runtime"), []
    for setup in setups:
        path = folder / f"{setup.name}.onnx"
        save(setup.model, path)
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (raw,) = session.run(["raw"], {"x": setup.x, "lengths": setup.lengths})
        found.append(_of_arrays(setup, raw, {}))
    return found


def by_c(setups: Sequence[Setup], folder: Path) -> list[Seen]:
    cases = {s.name: Reference(s.model, s.raw, s.lengths, s.case["head"] == "argmax") for s in setups}
    compiled(folder, cases, ["-O0"])
    given = "\n".join(case.steps() for case in cases.values())
    done = subprocess.run([folder / "program"], cwd=folder, input=given, capture_output=True, text=True, check=True)
    rows: dict[str, list[list[int]]] = {name: [] for name in cases}
    for line in done.stdout.splitlines():
        name, *values = line.split()
        rows[name].append([int(value) for value in values])
    found = []
    for setup in setups:
        vectors, every = np.array(rows[setup.name], np.int64), setup.model.every_step
        if every:
            first = np.cumsum(setup.lengths) - setup.lengths
            at = first[:, None] + np.minimum(np.arange(setup.lengths.max()), setup.lengths[:, None] - 1)
            vectors = vectors[at]
        found.append(Seen(setup.shown(vectors, every, setup.lengths).reshape(-1)))
    return found


#: Every computation and the way that it belongs to.
COMPUTATIONS: dict[str, tuple[str, Callable[[Sequence[Setup], Path], list[Seen]]]] = {
    "golden": ("golden", by_golden),
    "compiled": ("golden", by_compiled),
    "oracle": ("oracle", by_oracle),
    "amaranth": ("amaranth", by_amaranth),
    "cxxrtl": ("cxxrtl", by_cxxrtl),
    "icarus": ("icarus", by_icarus),
    "verilator": ("verilator", by_verilator),
    "netlist": ("netlist", by_netlist),
    "onnxruntime": ("onnxruntime", by_onnxruntime),
    "c": ("c", by_c),
}

#: Turns what a computation saw into something else: a planted fault.
Spoil = Mapping[str, Callable[[Case, Seen], Seen]]


def _seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _computed(name: str, setups: Sequence[Setup]) -> list[Seen]:
    """What a computation saw; where it fails for several, of each alone."""
    started = _seconds()
    try:
        with tempfile.TemporaryDirectory(prefix="hwrnn-") as folder:
            found = COMPUTATIONS[name][1](setups, Path(folder))
    except (AssertionError, UsageError, RuntimeError, ValueError, IndexError, OSError, subprocess.SubprocessError) as e:
        if len(setups) > 1:
            return [_computed(name, [setup])[0] for setup in setups]
        return [Seen(fault=" ".join(str(e).split())[:500] or repr(e), seconds=_seconds() - started)]
    seconds = (_seconds() - started) / len(setups)
    return [replace(seen, seconds=seconds) for seen in found]


@dataclass
class Verdict:
    """One case.

    Attributes:
        differences: sentences by way; none of a way that agrees.
        values, cycles, seconds: by way, numbers of values and cycles compared, and seconds of a processor.
        closed: whether closed forms were compared.
    """

    case: Case
    differences: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    cycles: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    closed: bool = False

    def blame(self, computation: str, sentence: str) -> None:
        self.differences.setdefault(COMPUTATIONS[computation][0], []).append(f"{computation}: {sentence}")


def run(cases: Iterable[Case], ways: Iterable[str] = WAYS, spoil: Spoil | None = None) -> list[Verdict]:
    """Compute cases in several ways and compare; golden in numpy is always among them.

    Raises:
        UsageError: a case that cannot be built.
    """
    setups, seen = observed(cases, ways)
    for name, change in (spoil or {}).items():
        seen[name] = [change(s.case, one) for s, one in zip(setups, seen[name], strict=True)]
    return [compared(setup, {name: found[k] for name, found in seen.items()}) for k, setup in enumerate(setups)]


def observed(cases: Iterable[Case], ways: Iterable[str]) -> tuple[list[Setup], dict[str, list[Seen]]]:
    """The cases set up, and by computation what was seen of each."""
    setups = [Setup.of(case, number) for number, case in enumerate(cases)]
    chosen = {"golden", *ways}
    return setups, {name: _computed(name, setups) for name, (way, _) in COMPUTATIONS.items() if way in chosen}


def compared(setup: Setup, seen: Mapping[str, Seen]) -> Verdict:
    """Every value against that of the others: what most computations say is right, or of equally many the first."""
    verdict = Verdict(setup.case)
    for name, one in seen.items():
        way = COMPUTATIONS[name][0]
        verdict.seconds[way] = verdict.seconds.get(way, 0.0) + one.seconds
        values = sum(len(v) for v in (one.outputs, *one.inside.values()) if v is not None)
        verdict.values[way] = verdict.values.get(way, 0) + values
        if one.recording is not None:
            probes = sum(len(cycles) for _, cycles in one.recording.probes.values())
            verdict.cycles[way] = len(one.recording.input_cycles) + len(one.recording.output_cycles) + probes
        if one.fault:
            verdict.blame(name, one.fault)
        if one.closed is False:
            verdict.blame(name, "cycles without stalls are not those of the closed forms")
        verdict.closed |= one.closed is True
    right = {name: one for name, one in seen.items() if not one.fault}
    _vote(verdict, "output", {name: one.outputs for name, one in right.items()})
    for key in dict.fromkeys(key for one in right.values() for key in one.inside):
        shown = {name: one.inside[key] for name, one in right.items() if key in one.inside}
        _vote(verdict, f"value {key[1]!r} of layer {key[0]}", shown)
    recordings = {name: one.recording for name, one in right.items() if one.recording is not None}
    expected = expected_values(setup.model, setup.bench.network, _result(setup), setup.lengths)
    tags = {one.value: one.values for one in expected}
    for name, recording in recordings.items():
        verdict.values[COMPUTATIONS[name][0]] += len(tags["last"])
        if not np.array_equal(recording.last, tags["last"]):
            verdict.blame(name, "last does not stand where sequences end")
        if "channel" in tags and not np.array_equal(recording.channels, tags["channel"]):
            verdict.blame(name, "channels are not in turn")
    for what in ("input_cycles", "output_cycles"):
        _vote(verdict, what.replace("_", " "), {name: getattr(r, what) for name, r in recordings.items()})
    for key in dict.fromkeys(key for r in recordings.values() for key in r.probes):
        shown = {name: r.probes[key][1] for name, r in recordings.items() if key in r.probes}
        _vote(verdict, f"cycle of value {key[1]!r} of layer {key[0]}", shown)
    return verdict


def _result(setup: Setup) -> Any:
    return golden(setup.model, setup.raw, setup.lengths)


def _vote(verdict: Verdict, what: str, shown: Mapping[str, Any]) -> None:
    """Blame each whose numbers are not those of most."""
    counts: dict[bytes, list[str]] = {}
    for name, values in shown.items():
        counts.setdefault(np.asarray(values, np.int64).tobytes(), []).append(name)
    if len(counts) < 2:
        return
    most = max(counts.values(), key=len)
    due = np.asarray(shown[most[0]], np.int64)
    for name in shown:
        if name not in most:
            verdict.blame(name, _first(what, due, np.asarray(shown[name], np.int64), most[0]))


def _first(what: str, due: np.ndarray, values: np.ndarray, other: str) -> str:
    if len(due) != len(values):
        return f"{what} has {len(values)} numbers, where {other} has {len(due)}"
    wrong = np.flatnonzero(due != values)
    at = int(wrong[0])
    return f"{what} {at} is {values[at]}, where {other} has {due[at]} ({len(wrong)} of {len(due)} differ)"


def fails(case: Case, ways: Iterable[str], spoil: Spoil | None = None) -> bool:
    """Whether ways of a case differ; a case that cannot be built does not fail."""
    try:
        return bool(run([case], ways, spoil)[0].differences)
    except (UsageError, RuntimeWarning):
        return False
