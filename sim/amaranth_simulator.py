"""Simulation in Amaranth's own simulator: slow, but it needs nothing else, and it writes waveforms."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Signal
from amaranth.sim import Simulator

from hwrnn.files import atomic_path
from hwrnn.rtl.network import Network
from hwrnn.sim.stimuli import TAIL, Progress, Recording, Stimulus, packed, unpacked

__all__ = ["run_amaranth"]

_OFTEN = 1024  # cycles between two calls of progress


def run_amaranth(
    network: Network,
    stimulus: Stimulus,
    progress: Progress | None = None,
    *,
    vcd: str | os.PathLike[str] | None = None,
    expected: Mapping[tuple[int, str], np.ndarray] | None = None,
) -> Recording:
    """Run a network.

    Args:
        vcd: a waveform file to write.
        expected: the values that each probe should show, in order. The waveform then carries them: ``expected_NAME``
            is what the probe's value, or while it is not valid its next one, should be, and ``wrong_NAME`` is 1 in a
            cycle in which it is another.

    Raises:
        UsageError: a waveform file that cannot be written.
    """
    bench = _Bench(network, stimulus, progress, expected or {})
    if vcd is None and not expected:
        return bench.recording(_prepared(network).run(bench))
    simulator = Simulator(bench.top())
    simulator.add_clock(1e-6)
    with ExitStack() as stack:
        if vcd is not None:
            path = stack.enter_context(atomic_path(vcd))
            stack.enter_context(simulator.write_vcd(os.fspath(path)))
        simulator.add_testbench(bench.run)
        started = time.perf_counter()
        simulator.run()
        seconds = time.perf_counter() - started
    return bench.recording(seconds)


class _Prepared:
    """A simulator of a network that benches use in turn, since making one takes longer than many a run."""

    def __init__(self, network: Network) -> None:
        m = Module()
        m.submodules.network = network
        self.simulator = Simulator(m)
        self.simulator.add_clock(1e-6)
        self.used = False
        self.bench: Any = None

    async def _run(self, ctx: Any) -> None:
        await self.bench.run(ctx)

    def run(self, bench: _Bench) -> float:
        """Run a bench from the network's initial state; the seconds that it took."""
        started = time.perf_counter()
        if self.used:
            self.simulator.reset()
        else:
            self.simulator.add_testbench(self._run)
        self.used, self.bench = True, bench
        try:
            self.simulator.run()
        finally:
            self.bench = None
        return time.perf_counter() - started


def _prepared(network: Network) -> _Prepared:
    """The simulator of a network: that of its last run, where there was one."""
    kept: dict[str, Any] = network.__dict__
    found: _Prepared = kept.get("_simulator") or _Prepared(network)
    kept["_simulator"] = found
    return found


class _Probe:
    """Where a probe stands among the sampled bits, and what it has shown."""

    def __init__(self, valid: int, offset: int, width: int, expected: np.ndarray | None, shown: Signal | None) -> None:
        self.valid, self.offset, self.mask = 1 << valid, offset, (1 << width) - 1
        self.shown, self.expected = shown, iter(() if expected is None else expected.tolist())
        self.values: list[int] = []
        self.cycles: list[int] = []

    def show(self, ctx: Any) -> None:
        """Put the next expected value beside the probe."""
        if self.shown is not None and (value := next(self.expected, None)) is not None:
            ctx.set(self.shown, value)


class _Bench:
    """The partner of both ports, and what it has seen so far."""

    def __init__(
        self,
        network: Network,
        stimulus: Stimulus,
        progress: Progress | None,
        expected: Mapping[tuple[int, str], np.ndarray],
    ) -> None:
        self.network, self.stimulus, self.progress = network, stimulus, progress
        self.input_cycles: list[int] = []
        self.outputs: list[int] = []
        self.output_cycles: list[int] = []
        self.cycles = offset = 0
        self.probes: dict[tuple[int, str], _Probe] = {}
        for n, (key, port) in enumerate(network.probes.items()):
            signal = getattr(network, port)
            shown = Signal.like(signal, name=f"expected_{port}") if key in expected else None
            self.probes[key] = _Probe(n + 2, offset, len(signal), expected.get(key), shown)
            offset += len(signal)

    def top(self) -> Any:
        """The network, with the expected values beside it where they are shown."""
        m = Module()
        m.submodules.network = network = self.network
        for key, probe in self.probes.items():
            if probe.shown is not None:
                port = network.probes[key]
                wrong = Signal(name=f"wrong_{port}")
                m.d.comb += wrong.eq(getattr(network, f"{port}_valid") & (getattr(network, port) != probe.shown))
        return m

    async def run(self, ctx: Any) -> None:
        """Drive both ports in every cycle, and record what they and the probes showed in it."""
        network, stimulus, probes = self.network, self.stimulus, tuple(self.probes.values())
        source, sink, ports = network.i, network.o, network.probes.values()
        payloads = packed(stimulus, network.input_format).tolist()
        supply, demand = stimulus.input.pattern.tolist(), stimulus.output.pattern.tolist()
        flags: Any = Cat(source.ready, sink.valid, *(getattr(network, f"{port}_valid") for port in ports))
        values: Any = Cat(getattr(network, port) for port in ports)
        expected, count = stimulus.outputs, len(payloads)
        for probe in probes:
            probe.show(ctx)
        cycle = sent = quiet = input_ready = output_valid = offered = ready = 0
        driven = [-1, -1]
        while True:
            if not offered and sent < count and supply[cycle % len(supply)]:
                offered = input_ready if stimulus.input.waits else 1
                if offered:
                    ctx.set(source.payload.as_value(), payloads[sent])
            ready = demand[cycle % len(demand)] and (output_valid if stimulus.output.waits else 1)
            if driven != [offered, ready]:
                ctx.set(source.valid, offered)
                ctx.set(sink.ready, ready)
                driven = [offered, ready]
            _, _, seen, payload, shown = await ctx.tick().sample(flags, sink.payload.as_value(), values)
            input_ready, output_valid = seen & 1, seen >> 1 & 1
            quiet += 1
            if len(self.outputs) < expected:
                self.cycles = cycle + 1
            if offered and input_ready:
                self.input_cycles.append(cycle)
                offered, sent, quiet = 0, sent + 1, 0
            if ready and output_valid:
                self.outputs.append(payload)
                self.output_cycles.append(cycle)
                quiet = 0
            if seen > 3:
                for probe in probes:
                    if seen & probe.valid:
                        probe.values.append(shown >> probe.offset & probe.mask)
                        probe.cycles.append(cycle)
                        probe.show(ctx)
            cycle += 1
            if self.progress is not None and cycle % _OFTEN == 0:
                self.progress(sent, count)
            if len(self.outputs) >= expected:
                if cycle >= self.cycles + TAIL:
                    break
            elif cycle >= stimulus.limit or quiet >= stimulus.patience:
                break

    def recording(self, seconds: float) -> Recording:
        """What was seen, as arrays."""
        network = self.network
        outputs, above = unpacked(np.array(self.outputs, np.uint64), network.output_format)
        probes = {}
        for key, probe in self.probes.items():
            form = network.model.stack[key[0]].formats.values[key[1]]
            probes[key] = (unpacked(np.array(probe.values, np.uint64), form)[0], np.array(probe.cycles, np.int64))
        return Recording(
            outputs, above, np.array(self.output_cycles, np.int64), np.array(self.input_cycles, np.int64), self.cycles,
            probes, seconds,
        )  # fmt: skip
