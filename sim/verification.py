"""The whole comparison: golden and hardware on the same sequences, every stored value of every step."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np

from hwrnn.compiler import CPP, compiler_available
from hwrnn.errors import UsageError
from hwrnn.files import atomic_path
from hwrnn.golden import golden
from hwrnn.model import Model, check_input
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.network import Network
from hwrnn.rtl.rounds import filled
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.sim.amaranth_simulator import run_amaranth
from hwrnn.sim.comparison import expected_values
from hwrnn.sim.cxxrtl import run_cxxrtl
from hwrnn.sim.findings import Findings, Runner
from hwrnn.sim.report import Report
from hwrnn.sim.scoring import Targets
from hwrnn.sim.stimuli import Progress, stimulus

__all__ = ["SIMULATORS", "check", "simulate"]

SIMULATORS = ("cxxrtl", "amaranth", "icarus", "verilator")

_AT_ONCE = 1 << 23  # values recorded in one run; more sequences are run in turn


def simulate(
    model: QuantizedModel,
    x: Any,
    lengths: Any = None,
    *,
    lanes: Any = 16,
    simulator: str | None = None,
    argmax: bool = False,
    timing: Timing = SHORTEST,
    channels: int = 1,
    input_stall: str = "always",
    output_stall: str = "always",
    count: int | None = None,
    vcd: str | os.PathLike[str] | None = None,
    seed: int = 0,
    float_model: Model | None = None,
    y: Any = None,
    network: Network | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run sequences through golden and hardware and compare every stored value of every unit and step.

    Args:
        model: the quantized model.
        x, lengths: float (N, T, inputs) and int (N,), as ``predict`` takes them.
        lanes: the budget of multipliers, as ``hwrnn.rtl.Network`` takes it.
        simulator: ``cxxrtl``, ``amaranth``, ``icarus`` or ``verilator``. None takes CXXRTL, or where there is no C++
            compiler Amaranth's own simulator with a warning. The last two run the emitted Verilog and compare only
            what leaves its port.
        argmax: whether the hardware returns the index of the largest output.
        timing: where registers stand, as a target's row has it.
        channels: sequences that take turns in the hardware; each is given to the channel that is free first, and such
            of zeros fill the last rounds.
        input_stall, output_stall: one of ``STALLS``.
        count: only the first sequences.
        vcd: a waveform file to write: of the first sequence that differs and the one before it, or of the very first.
            It comes from Amaranth's simulator and carries ``expected_NAME`` beside every probe.
        seed: of the stalls.
        float_model: to compare the outputs with.
        y: labels or targets to score with.
        network: simulated in place of a new one, with its own options; with probes for CXXRTL and Amaranth.
        progress: called with the input elements done and their number.

    Raises:
        UsageError: an argument outside its range, data that do not fit the model, or a simulator that is not there.
    """
    if not isinstance(model, QuantizedModel):
        raise UsageError("Model must be quantized to be simulated: quantize it first")
    x, lengths = check_input(x, lengths, model.inputs)
    if count is not None:
        if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < 1:
            raise UsageError(f"Count must be a whole number of at least 1, not {count!r}")
        x, lengths, y = x[:count], lengths[:count], None if y is None else np.asarray(y)[:count]
    targets = None if y is None else Targets(model, y, lengths)
    name = _chosen(simulator)
    inside = name in ("cxxrtl", "amaranth")
    if network is None:
        network = Network(model, lanes, argmax, probed=inside, timing=timing, channels=channels)
    elif not inside and network.probes:
        raise UsageError(f"Network must be made without probes to be simulated by {name}, which cannot look inside")
    run = _runner(name)
    raw, stalls = model.quantize_input(x), (input_stall, output_stall, seed)
    findings = Findings(model, network)
    steady = input_stall == output_stall == "always"
    # A waveform that cannot be written is refused before the work, not behind it.
    with nullcontext() if vcd is None else atomic_path(vcd) as waveform:
        total = int(lengths.sum()) * model.inputs
        for part in _parts(network, lengths):
            done = int(lengths[: part.start].sum()) * model.inputs
            told = None if progress is None else lambda sent, _, done=done: progress(done + sent, total)
            findings.add(run, raw[part], lengths[part], part.start, stalls, told)
        if progress is not None:
            progress(total, total)
        if steady and inside:
            findings.measure_latency(run, raw, lengths)
        report = findings.report(name, x, lengths, steady, float_model, targets)
        if waveform is not None:
            some = _of_interest(report, len(lengths))
            shown = network if inside else network.with_probes()
            _write_waveform(model, shown, raw[some], lengths[some], stalls, waveform)
    return report


def check(model: QuantizedModel, x: Any, lengths: Any = None, **options: Any) -> Report:
    """Simulate as :func:`simulate` does, and insist on golden's values and on the closed forms.

    Raises:
        AssertionError: names the first difference.
        UsageError: as :func:`simulate`.
    """
    report = simulate(model, x, lengths, **options)
    if report.fault is not None:
        raise AssertionError(f"{report.fault} ({report.mismatches} of {report.compared} values differ)")
    return report


def _chosen(simulator: str | None) -> str:
    if simulator is None:
        if compiler_available(CPP):
            return "cxxrtl"
        warnings.warn(
            "There is no C++ compiler (g++ or clang++): simulating in Amaranth's own simulator, which is slow",
            stacklevel=3,
        )
        return "amaranth"
    if simulator not in SIMULATORS:
        raise UsageError(f"Simulator must be one of {', '.join(SIMULATORS)}, not {simulator!r}")
    return simulator


def _runner(name: str) -> Runner:
    if name == "cxxrtl":
        return run_cxxrtl
    if name == "amaranth":
        return run_amaranth
    from hwrnn.sim.verilog import run_verilog

    return lambda network, stimulus, progress: run_verilog(network, stimulus, name, progress)


def _parts(network: Network, lengths: np.ndarray) -> Iterator[slice]:
    """Consecutive sequences that are simulated in one run, so that what is recorded fits into memory."""
    stack = network.model.stack
    values = sum(stack[layer].units for layer, _ in network.probes) + network.model.inputs + network.model.outputs
    first = steps = 0
    for n, length in enumerate(lengths.tolist()):
        if steps and (steps + length) * values > _AT_ONCE:
            yield slice(first, n)
            first, steps = n, 0
        steps += length
    yield slice(first, len(lengths))


def _of_interest(report: Report, sequences: int) -> slice:
    """The first sequence that differs and the one before it, or the very first."""
    if report.first_difference is None:
        return slice(0, 1)
    failing = report.first_difference.sequence
    last = sequences - 1 if failing is None else failing
    return slice(max(last - 1, 0), last + 1)


def _write_waveform(
    model: QuantizedModel,
    network: Network,
    raw: np.ndarray,
    lengths: np.ndarray,
    stalls: tuple[str, str, int],
    path: str | os.PathLike[str],
) -> None:
    raw, lengths = filled(raw, lengths, network.channels)
    result = golden(model, raw, lengths, keep=True)
    probes = expected_values(model, network, result, lengths)[: len(network.probes)]
    expected = {(one.layer, one.value): one.values for one in probes}
    run_amaranth(network, stimulus(network, raw, lengths, *stalls), vcd=path, expected=expected)
