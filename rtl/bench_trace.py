"""A record of every cycle of random traffic, which a bench plays back: it also sees what happens at another time.

Data that are right may still come later than they should, or space be refused that is there; no closed form says when a
network that is held back for a while moves on. The network itself says it here, in Amaranth's simulator.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np
from amaranth.hdl import Cat
from amaranth.sim import Simulator

from hwrnn.errors import UsageError
from hwrnn.rtl.axi import AxiStreamTop, padded
from hwrnn.rtl.network import Network

__all__ = ["LONGEST", "check_trace", "trace_holes", "trace_text"]

#: The most cycles of a record; Amaranth's simulator takes minutes for them.
LONGEST = 1_000_000
_HOLES = ("SAYS", "TASK", "LATER")
_SHARES = (1.0, 1.0, 0.9, 0.5, 0.1, 0.0, 0.0)  # of cycles in which a port's partner is willing, one of them at a time
_FRESH = 0.75  # of the sequences are none of the bench's others
_STEPS = (1, 1, 1, 2, 2, 3, 4, 6)  # of a fresh one


def check_trace(cycles: Any, weights: str = "auto") -> int:
    """The number of cycles itself.

    Raises:
        UsageError: no whole number, one outside its range, or a record of a network that has no weights at first.
    """
    if not isinstance(cycles, int) or isinstance(cycles, bool) or not 0 <= cycles <= LONGEST:
        raise UsageError(f"Trace must be a whole number of cycles from 1 to {LONGEST}, or 0 for none, not {cycles!r}")
    if cycles and weights == "spram":
        raise UsageError(f"Trace must be 0 beside weights 'spram', which are not there at first, not {cycles}")
    return cycles


def _ports(network: Network) -> tuple[list[tuple[str, int]], list[tuple[str, int]], list[tuple[str, int]]]:
    """Names and widths of the inputs, of the outputs that count in every cycle, and of those that count with valid."""
    bits = padded(network.input_format.width), padded(network.output_format.width)
    tag = (network.channels - 1).bit_length()
    given = [("aresetn", 1), ("m_axis_tready", 1), ("s_axis_tvalid", 1), ("s_axis_tlast", 1), ("s_axis_tdata", bits[0])]
    always = ["s_axis_tready", "m_axis_tvalid"]
    always += ["s_load_tready", "m_load_tvalid", "held"] if network.loadable else []
    always += AxiStreamTop(network).faults
    carried = [("m_axis_tid", tag)] if tag else []
    return given, [(name, 1) for name in always], [*carried, ("m_axis_tlast", 1), ("m_axis_tdata", bits[1])]


def trace_holes(network: Network, name: str, cycles: int) -> dict[str, str]:
    """The holes of bench.v by name, empty without a record."""
    if not cycles:
        return {f"TRACE_{hole}": "" for hole in _HOLES}
    given, always, carried = _ports(network)
    bits = [sum(width for _, width in ports) for ports in (given, always, carried)]
    names = {"held": "held_by_load"}
    holes = {
        "NAME": name,
        "CYCLES": cycles,
        "GIVEN": ", ".join(name for name, _ in given),
        "GIVEN_BITS": bits[0],
        "ALWAYS": ", ".join(names.get(name, name) for name, _ in always),
        "ALWAYS_BITS": bits[1],
        "CARRIED": ", ".join(name for name, _ in carried),
        "CARRIED_BITS": bits[2],
        "BITS": sum(bits),
    }
    text = (resources.files("hwrnn.rtl") / "bench_trace.v").read_text()
    return {
        "TRACE_SAYS": f""",
//   - trace.hex: {cycles} cycles of random traffic and short resets, in each of which every port must be as it was in
//     hwrnn's simulation""",
        "TRACE_TASK": re.sub(r"@([A-Z_]+)@", lambda hole: str(holes[hole[1]]), text),
        "TRACE_LATER": "\n    // And what was recorded.\n    play_back;\n",
    }


def trace_text(network: Network, cycles: int, x: np.ndarray, lengths: np.ndarray) -> str:
    """``trace.hex``, a cycle a line: what was given, what came in any case, and what came with a valid, else 0.

    Args:
        x: raw sequences (N, T, inputs), which come among others.
        lengths: int (N,).
    """
    top = AxiStreamTop(network)
    given, always, carried = _ports(network)
    inputs, shown, payload = (
        Cat(getattr(top, name) for name, _ in reversed(group)) for group in (given, always, carried)
    )
    widths = [len(inputs), len(shown), len(payload)]
    digits = -(-sum(widths) // 4)
    traffic = _Traffic(network, x, lengths)
    lines = []

    async def run(ctx: Any) -> None:
        def edge() -> None:
            ctx.set(top.aclk, 1)
            ctx.set(top.aclk, 0)

        for resets in (1, 1, 1, 1, 0):  # it acts one cycle later
            ctx.set(top.aresetn, not resets)
            edge()
        for _ in range(cycles):
            word = 0
            for value, (_, width) in zip(traffic.given(), given, strict=True):
                word = word << width | value
            ctx.set(inputs, word)
            seen, valid = ctx.get(shown), ctx.get(top.m_axis_tvalid)
            traffic.seen(ctx.get(top.s_axis_tready))
            line = (word << widths[1] | seen) << widths[2] | (ctx.get(payload) if valid else 0)
            lines.append(f"{line:0{digits}x}\n")
            edge()

    simulator = Simulator(top)
    simulator.add_testbench(run)
    simulator.run()
    return "".join(lines)


class _Traffic:
    """The partners of both ports: each is willing for a random share of a random while, and resets come in between.

    Args:
        x, lengths: of :func:`trace_text`.
    """

    def __init__(self, network: Network, x: np.ndarray, lengths: np.ndarray) -> None:
        self.network, self.x, self.lengths = network, x, lengths
        self.rng = random.Random(0x5EED)  # the same in every run
        slowest = network.channels * sum(engine.cycles_per_step for engine in network.engines)
        #: cycles of a while: within a vector, within a step, and until all is full or empty
        self.whiles = (8, slowest + 8, 2 * (slowest + network.latency) + 64, 12 * (slowest + network.latency))
        self.mask = (1 << network.input_format.width) - 1
        self.bits = padded(network.input_format.width)
        self.left = [0, 0]  # cycles of the input's and of the output's while
        self.share = [1.0, 1.0]
        self.resets = self.until = 0  # cycles of a reset, and until the next one
        self.start()

    def start(self) -> None:
        """Nothing is kept, and the next reset is far or near."""
        self.elements = self.stream()
        self.offered: tuple[int, int] | None = None
        self.until = self.rng.randrange(1, self.whiles[2] << self.rng.randrange(6))

    def stream(self) -> Iterator[tuple[int, int]]:
        """Elements without end, as ``tdata`` and ``tlast`` show them."""
        channels, rng = self.network.channels, self.rng
        left: list[list[list[int]]] = [[] for _ in range(channels)]
        while True:
            for vectors in left:
                if not vectors:
                    vectors += self.sequence()
                vector = vectors.pop(0)
                for k, value in enumerate(vector):
                    above = rng.getrandbits(self.bits) << self.network.input_format.width
                    last = rng.getrandbits(1) if k < len(vector) - 1 else not vectors
                    yield (value & self.mask | above) & (1 << self.bits) - 1, int(last)

    def sequence(self) -> list[list[int]]:
        """One of those given, or a fresh one, over a share of the input format."""
        rng, form = self.rng, self.network.input_format
        if rng.random() >= _FRESH:
            n = rng.randrange(len(self.x))
            vectors: list[list[int]] = self.x[n, : self.lengths[n]].tolist()
            return vectors
        less = rng.randrange(4)
        lo, hi = form.lo >> less, form.hi >> less
        return [[rng.randint(lo, hi) for _ in range(self.network.model.inputs)] for _ in range(rng.choice(_STEPS))]

    def willing(self, port: int) -> bool:
        """Whether a port's partner is, in this cycle."""
        if self.left[port] == 0:
            self.left[port] = self.rng.randint(1, self.rng.choice(self.whiles))
            self.share[port] = self.rng.choice(_SHARES)
        self.left[port] -= 1
        return self.rng.random() < self.share[port]

    def given(self) -> tuple[int, int, int, int, int]:
        """What the ports are given: reset, ready, and the input's valid, last and data."""
        if self.until == 0:
            self.start()
            self.resets = self.rng.choice((1, 1, 1, 2, 3))
        self.until -= self.resets == 0
        ready, willing = self.willing(1), self.willing(0)
        if self.resets:
            self.resets -= 1
            return 0, 0, 0, self.rng.getrandbits(1), self.rng.getrandbits(self.bits)
        if self.offered is None and willing:
            self.offered = next(self.elements)
        data, last = self.offered or (self.rng.getrandbits(self.bits), self.rng.getrandbits(1))
        return 1, int(ready), int(self.offered is not None), last, data

    def seen(self, ready: int) -> None:
        """The input's answer: an element that was taken is no longer offered."""
        if ready:
            self.offered = None
