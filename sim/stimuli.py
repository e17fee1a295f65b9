"""What a simulation feeds a network with, what it records, and the back-pressure it applies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.rtl.network import Network
from hwrnn.rtl.rounds import order_of

__all__ = [
    "STALLS",
    "TAIL",
    "Progress",
    "Recording",
    "Stall",
    "Stimulus",
    "packed",
    "stall_named",
    "stimulus",
    "unpacked",
]

#: Called now and then with the input elements transferred so far and their number in all.
Progress = Callable[[int, int], None]

#: Cycles that a run goes on behind its last expected output, so that an output too many is seen.
TAIL = 32

_PERIOD = 4096  # of a random stall's pattern, in cycles
_BURSTS = 256  # of a pattern in bursts


@dataclass(frozen=True)
class Stall:
    """When a port's partner is willing.

    With a port's signals of cycle ``t`` written as ``valid[t]`` and ``ready[t]`` (0 before cycle 0), the output's
    partner drives ``ready[t] = pattern[t] and (valid[t - 1] or not waits)``; the input's partner raises ``valid[t]``
    when it has an element and ``pattern[t] and (ready[t - 1] or not waits)``, and holds it until the transfer,
    whatever the pattern says.

    Attributes:
        pattern: uint8 (cycles,), repeated.
        waits: whether the partner asserts only after it has seen the other side's signal in the cycle before.
    """

    pattern: np.ndarray
    waits: bool = False


#: Names of the stalls that every engine must survive.
STALLS = ("always", "random", "bursts", "waits")


def stall_named(kind: str, seed: int = 0, longest: int = 24) -> Stall:
    """A stall by name: always willing, random, in bursts, or waiting for the other side.

    Args:
        longest: burst, in cycles; one in four is half as long at least, the others are short. Only what lasts longer
            than a time step fills a network's buffers, or empties them.

    Raises:
        UsageError: an unknown name.
    """
    rng = np.random.default_rng([seed, 0x57A11])
    if kind in ("always", "waits"):
        return Stall(np.ones(1, np.uint8), kind == "waits")
    if kind == "random":
        return Stall((rng.random(_PERIOD) < 0.5).astype(np.uint8))
    if kind == "bursts":
        short, long = rng.integers(1, 24, _BURSTS), rng.integers(longest // 2, longest + 1, _BURSTS)
        lengths = np.where(rng.random(_BURSTS) < 0.25, long, short)
        return Stall(np.repeat(np.arange(_BURSTS) % 2, lengths).astype(np.uint8))
    raise UsageError(f"Stall must be one of {', '.join(STALLS)}, not {kind!r}")


@dataclass(frozen=True)
class Stimulus:
    """The elements of all sequences, one after another, as they enter the input port.

    Attributes:
        data: int64 (elements,) raw input elements.
        last: uint8 (elements,): 1 on the last element of a sequence.
        outputs: elements expected at the output port.
        steps: time steps in all.
        input, output: the stalls of both ports.
        limit: cycles after which the run is given up.
        patience: cycles without a transfer at either port after which it is given up earlier.
    """

    data: np.ndarray
    last: np.ndarray
    outputs: int
    steps: int
    input: Stall
    output: Stall
    limit: int
    patience: int


@dataclass(frozen=True)
class Recording:
    """What a run recorded. A run that was given up has fewer outputs than expected.

    Attributes:
        outputs, above, output_cycles: int64 (n,): every element transferred at the output, the bits above it (``last``,
            then the channel), and the cycle of its transfer. Cycles count from 0, the first after reset.
        input_cycles: int64 (m,): the cycle of each input element's transfer.
        cycles: cycles up to the last expected output's transfer, or to the point where the run was given up.
        probes: by ``(layer, value)``: the int64 values in order and the cycle in which each appeared; empty if not
            probed.
        seconds: wall time of the run itself, without building.
    """

    outputs: np.ndarray
    above: np.ndarray
    output_cycles: np.ndarray
    input_cycles: np.ndarray
    cycles: int
    probes: Mapping[tuple[int, str], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def last(self) -> np.ndarray:
        """``last`` of every element transferred at the output."""
        return np.where(self.above < 0, self.above, self.above & 1)

    @property
    def channels(self) -> np.ndarray:
        """The channel of every element transferred at the output."""
        return self.above >> 1


def stimulus(
    network: Network, x: np.ndarray, lengths: np.ndarray, input: str = "always", output: str = "always", seed: int = 0
) -> Stimulus:
    """The stimulus of raw inputs ``x`` (N, T, inputs) with lengths (N,).

    With several channels they are as many vectors for each, as :func:`hwrnn.rtl.rounds.filled` makes them.
    """
    if network.repeat is not None and int(lengths.max()) > network.repeat.most_steps:
        raise UsageError(f"Sequences must have at most {network.repeat.most_steps} steps, not {lengths.max()}")
    order = order_of(lengths, network.channels)
    data = np.asarray(x[order.sequences, order.steps], np.int64).reshape(-1)
    last = np.zeros((len(order.ends), x.shape[2]), np.uint8)
    last[:, -1] = order.ends
    steps = int(lengths.sum())
    vectors = steps if network.model.every_step else len(lengths)
    outputs = vectors * network.outputs_per_vector
    # Half the cycles stall at either port, or the other side's signal must come first; 16 times covers all of it.
    vector = network.cycles_per_step + network.model.inputs
    slowest = sum(engine.cycles_per_step for engine in network.engines)
    limit = 16 * (steps * vector + vectors * slowest + outputs + 4 * network.latency) + 4096
    patience = 16 * (4 * network.channels * slowest + network.latency) + 4096
    longest = max(24, 8 * max(engine.cycles_per_step for engine in network.engines))
    return Stimulus(data, last.reshape(-1), outputs, steps, stall_named(input, seed, longest),
                    stall_named(output, seed + 1, longest), limit, patience)  # fmt: skip


def packed(stimulus: Stimulus, form: Format) -> np.ndarray:
    """The payloads (uint64) of a stimulus as they enter the port: an element's bits, and ``last`` above them."""
    data = stimulus.data.astype(np.uint64) & np.uint64((1 << form.width) - 1)
    return np.asarray(data | stimulus.last.astype(np.uint64) << np.uint64(form.width))


def unpacked(payloads: np.ndarray, form: Format) -> tuple[np.ndarray, np.ndarray]:
    """The elements and what stands above them (``last``), both int64, of payloads (uint64)."""
    above = np.uint64(64 - form.width)
    raw = payloads << above
    data = raw.view(np.int64) >> np.int64(above) if form.signed else (raw >> above).view(np.int64)
    return np.asarray(data), (payloads >> np.uint64(form.width)).astype(np.int64)
