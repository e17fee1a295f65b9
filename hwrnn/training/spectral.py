"""The recurrent matrices of a run, kept at or below a 2-norm by projection after every update.

A network whose recurrent matrix has a norm below 1 forgets: it is a contraction where its nonlinearity is
1-Lipschitz, so its state stays bounded for sequences of any length (:mod:`hwrnn.stability`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.fixed import round_half_up
from hwrnn.training.network import Network

__all__ = ["SpectralBound", "clipped_norm"]

_SHRINK = 0.98  # how fast the level falls, at the slowest, until the rounded matrix keeps the bound


def clipped_norm(matrices: np.ndarray, bound: float) -> np.ndarray:
    """Matrices (..., n, n) with every singular value above ``bound`` lowered to it, in float64.

    That is the nearest matrix, in the Frobenius norm, of all that keep the bound. J. Miller, M. Hardt, "Stable
    Recurrent Models", ICLR 2019, train with this projection.
    """
    left, values, right = np.linalg.svd(matrices.astype(np.float64))
    return np.asarray((left * np.minimum(values, bound)[..., None, :]) @ right)


def _norms(matrices: np.ndarray) -> np.ndarray:
    """The 2-norms of (..., n, n) in float64; the eigenvalues of the Gram matrix cost a quarter of the singular ones."""
    wide = matrices.astype(np.float64)
    largest = np.linalg.eigvalsh(np.swapaxes(wide, -1, -2) @ wide)[..., -1]
    return np.asarray(np.sqrt(np.maximum(largest, 0)))


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The recurrent matrices of one layer, one for each gate and operand.

    Attributes:
        index: where they stand in the network's masters, (blocks, units, units).
        grid: step, lowest and highest value of each entry's format, of that shape; None in float.
    """

    index: np.ndarray
    grid: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    def rounded(self, matrices: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """What the integer machine multiplies with; ``chosen`` says which of the blocks are given."""
        if self.grid is None:
            return matrices
        step, low, high = (part[chosen] for part in self.grid)
        return np.clip(round_half_up(matrices.astype(np.float64) / step) * step, low, high)


class SpectralBound:
    """Keeps the 2-norm of every recurrent matrix of a network at or below a bound.

    In training with quantization the bound holds for the *rounded* matrix: where the nearest one in float64 that keeps
    the bound does not keep it after rounding, a lower level is taken, until it does.

    Args:
        network: whose masters are changed in place.
        bound: between 0 and 1, both excluded.

    Raises:
        UsageError: a network without a recurrent matrix.
    """

    def __init__(self, network: Network, bound: float) -> None:
        self.network, self.bound = network, bound
        self.blocks: list[_Blocks] = []
        for layer, part in zip(network.layers, network.parts, strict=True):
            gates = [(g, o) for p in layer.cell.phases for g, reads in p.gates.items() for o in reads if o != "x"]
            if gates:
                index = np.stack([layer.layout.block(gate, operand) for gate, operand in gates])
                grid = None if layer.grid is None else tuple(bounds[index] for bounds in layer.grid)
                self.blocks.append(_Blocks(index + part.start, grid))
        if not self.blocks:
            names = ", ".join(dict.fromkeys(layer.cell.name for layer in network.layers))
            raise UsageError(f"Spectral norm must be given to a network with recurrent matrices, not to {names}")

    def project(self) -> None:
        """Bring every recurrent matrix that exceeds the bound back to it."""
        masters = self.network.masters
        for blocks in self.blocks:
            found = masters[blocks.index]
            if not np.isfinite(found).all():
                continue  # the run notices by itself that it has diverged
            level = self._level(masters.dtype, found.shape[-1])
            norms = _norms(blocks.rounded(found, np.arange(len(found))))
            over = np.nonzero(norms > self.bound)[0]
            if blocks.grid is not None:  # the masters keep it too, or they would drift away from what they round to
                over = np.nonzero((norms > self.bound) | (_norms(found) > self.bound))[0]
            levels = np.full(len(found), level)
            while len(over):
                kept = np.stack([clipped_norm(found[k], levels[k]) for k in over]).astype(masters.dtype)
                masters[blocks.index[over]] = kept
                norms = _norms(blocks.rounded(kept, over))
                still = norms > self.bound
                over, norms = over[still], norms[still]
                levels[over] *= np.minimum(_SHRINK, self.bound / norms)

    def _level(self, dtype: np.dtype[Any], units: int) -> float:
        """The bound less what rounding the entries to ``dtype`` may add to the norm."""
        return self.bound * (1 - math.sqrt(units) * float(np.finfo(dtype).eps))
