"""The closed forms of cycles and latency, measured."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from hwrnn.rtl.network import Network
from hwrnn.rtl.rounds import order_of
from hwrnn.sim.stimuli import Recording

__all__ = ["measured_latency", "rate_is_bounded_by_steps", "step_distances", "typical"]


def step_distances(network: Network, recording: Recording, lengths: np.ndarray) -> np.ndarray:
    """Cycles between consecutive time steps of a channel's sequence, int64 (n,), at the engine that bounds the rate.

    Seen at the last unit of its output where that is probed, else at the input port, which the network throttles to its
    own rate as soon as everything before that engine is full; of a decoder at the output port, for what stands between
    it and the input takes whole sequences.
    """
    engine = network.engines.index(network.bounding)
    layer = network.bounding.layer
    key = (engine, layer.cell.output)
    channels = network.channels
    sequences = order_of(lengths, channels).sequences
    if key in recording.probes:
        times, full = recording.probes[key][1][layer.units - 1 :: layer.units], 0
    elif network.repeat is not None and engine >= network.model.encoder:
        count = network.outputs_per_vector
        times, full = recording.output_cycles[count - 1 :: count], 0
    else:
        times = recording.input_cycles[network.model.inputs - 1 :: network.model.inputs]
        full = 4 * channels * (engine + 1)
        if engine:  # the vectors that the engines before hold back grow by what they are faster a step
            faster = max(e.cycles_per_step for e in network.engines[:engine])
            full = ceil(full / (1 - faster / network.cycles_per_step))
    sequences = sequences[: len(times)]
    # A channel's next step comes a round later.
    distances = (times[channels:] - times[:-channels])[sequences[channels:] == sequences[:-channels]]
    return np.asarray(distances[full:])


def typical(distances: Sequence[np.ndarray], channels: int = 1) -> float | None:
    """The distance found most often, of which each channel has its part; None where there is none."""
    every = np.concatenate([np.empty(0, np.int64), *distances])
    if not len(every):
        return None
    found, counts = np.unique(every, return_counts=True)
    most = int(found[counts.argmax()])
    return most // channels if most % channels == 0 else most / channels


def rate_is_bounded_by_steps(network: Network, lengths: np.ndarray) -> bool:
    """Whether the head, where it works once for a sequence, is done before the next one ends."""
    if network.engines[-1] in network.recurrent:
        return True
    # Sequences of all channels may end in one round.
    steps = int(lengths.min()) if network.channels == 1 else 1
    return network.engines[-1].cycles_per_step <= steps * network.cycles_per_step


def measured_latency(recording: Recording, outputs: int) -> int | None:
    """Cycles from the last input's transfer to that of the last of so many outputs; None where it never came."""
    if len(recording.outputs) < outputs or not len(recording.input_cycles):
        return None
    return int(recording.output_cycles[outputs - 1] - recording.input_cycles[-1])
