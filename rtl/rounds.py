"""The order in which the vectors of several sequences enter a network with channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Order", "filled", "order_of"]


@dataclass(frozen=True)
class Order:
    """Vectors in the order in which they enter, and in which their results leave.

    Attributes:
        sequences, steps: int64 (n,), which vector it is.
        channels: int64 (n,), the channel of each.
        ends: bool (n,), whether it is its sequence's last.
    """

    sequences: np.ndarray
    steps: np.ndarray
    channels: np.ndarray
    ends: np.ndarray

    def emitted(self, every_step: bool) -> Order:
        """Those with an output vector: all, or the last ones of their sequences."""
        if every_step:
            return self
        at = np.flatnonzero(self.ends)
        return Order(self.sequences[at], self.steps[at], self.channels[at], self.ends[at])


def _loads(lengths: np.ndarray, channels: int) -> tuple[list[list[int]], np.ndarray]:
    """The sequences of each channel, each given to the one that is free first, and every channel's steps."""
    given: list[list[int]] = [[] for _ in range(channels)]
    loads = np.zeros(channels, np.int64)
    for n, length in enumerate(lengths.tolist()):
        free = int(loads.argmin())
        given[free].append(n)
        loads[free] += length
    return given, loads


def filled(x: np.ndarray, lengths: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The sequences with such of zeros behind them that all channels get as many vectors.

    Args:
        x: raw (N, T, inputs).
        lengths: int (N,).
    """
    loads = _loads(lengths, channels)[1]
    lacking = np.sort(loads.max() - loads)[::-1]
    lacking = lacking[lacking > 0]
    steps = max(x.shape[1], int(lacking.max(initial=0)))
    result = np.zeros((len(x) + len(lacking), steps, x.shape[2]), x.dtype)
    result[: len(x), : x.shape[1]] = x
    return result, np.concatenate([lengths, lacking])


def order_of(lengths: np.ndarray, channels: int = 1) -> Order:
    """The order of sequences of given lengths, which :func:`filled` has made even."""
    given = _loads(lengths, channels)[0]
    sequences = np.stack([np.repeat(own, lengths[own]) for own in given], axis=1)
    steps = np.stack([np.concatenate([np.arange(lengths[n]) for n in own]) for own in given], axis=1)
    flat, at = sequences.reshape(-1), steps.reshape(-1)
    turns = np.tile(np.arange(channels), len(sequences))
    return Order(flat, at, turns, at == lengths[flat] - 1)
