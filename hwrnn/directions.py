"""How the layers of a network stand to each other: which way they run, side by side or one behind the other.

A layer runs forward or, ``reverse``, from each sequence's last step to its first; an entry that stands ``beside`` the
one before it reads what that one reads, and their outputs stand side by side. A bidirectional layer (M. Schuster, K.
Paliwal, IEEE Trans. Signal Processing 45 (1997) 2673-2681) is a forward entry and a reverse one beside it. Every
consumer runs a reverse layer as "flip, run forward, flip".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hwrnn.errors import UsageError

__all__ = [
    "checked_initial",
    "encoder_fault",
    "flipped",
    "groups_of",
    "how_layers_run",
    "last_recurrent",
    "layers_fault",
    "with_finals",
]


def flipped(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sequences (N, T, F) from their last step to their first; what is beyond a sequence's length stays in place."""
    steps, ends = np.arange(x.shape[1]), np.asarray(lengths)[:, None]
    return x[np.arange(len(x))[:, None], np.where(steps < ends, ends - 1 - steps, steps)]


def groups_of(layers: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    """The indices of layers in groups that stand side by side, from the input on."""
    groups: list[tuple[int, ...]] = []
    for k, layer in enumerate(layers):
        groups[-1:] = [(*groups[-1], k)] if layer.beside and groups else [*groups[-1:], (k,)]
    return tuple(groups)


def last_recurrent(layers: Sequence[Any]) -> tuple[int, ...]:
    """The last group that has a layer with a state; behind it come dense layers only. Empty where there is none."""
    found = [group for group in groups_of(layers) if any(layers[k].cell.states for k in group)]
    return found[-1] if found else ()


def with_finals(steps: np.ndarray, layers: Sequence[Any], lengths: np.ndarray) -> np.ndarray:
    """The outputs (N, T, units) of layers side by side with each one's own last output at each sequence's last step.

    That of a reverse layer stands at step 0; a forward layer's is there already.
    """
    result, start = steps.copy(), 0
    for layer in layers:
        if layer.reverse:
            units = slice(start, start + layer.units)
            result[np.arange(len(result)), lengths - 1, units] = steps[:, 0, units]
        start += layer.units
    return result


def how_layers_run(stack: Any) -> list[Any]:
    """What tells two networks of the same cells and sizes apart by how they run; empty where all run as ever."""
    found: list[Any] = [
        (k, layer.reverse, layer.beside, *((s, np.asarray(v).tolist()) for s, v in sorted(layer.initial.items())))
        for k, layer in enumerate(stack.layers) if layer.reverse or layer.beside or layer.initial
    ]  # fmt: skip
    return found + ["final state"] * stack.final_state


def encoder_fault(encoder: int, layers: int, every_step: bool) -> str | None:
    """What is wrong with so many encoding layers, as the end of a sentence that begins "Encoder must ..."."""
    if not isinstance(encoder, (int, np.integer)) or isinstance(encoder, bool) or encoder < 0:
        return f"be a whole number of at least 0, not {encoder!r}"
    if encoder >= layers and encoder:
        return f"leave a layer that decodes, so be less than the {layers} layers, not {encoder}: add a layer"
    if encoder and not every_step:
        return f"be 0 for a network with one output for a sequence, not {encoder}: a decoder gives one at every step"
    return None


def layers_fault(
    layers: Sequence[Any], head: Any | None, every_step: bool, encoder: int, final_state: bool
) -> str | None:
    """What is wrong with how layers are put together, as a sentence; None where nothing is."""
    if not layers:
        return "Layers must be at least one, not none"
    if layers[0].beside:
        return "Layer 0 must not stand beside another, since there is none before it: leave beside out"
    groups = groups_of(layers)
    width, source = layers[0].inputs, "the input"
    for group in groups:
        for k in group:
            if layers[k].inputs != width:
                return f"Layer {k} must have the {width} inputs that {source} gives, not {layers[k].inputs}"
            fault = _layer_fault(layers[k])
            if fault is not None:
                return f"Layer {k} must {fault}"
        width, source = sum(layers[k].units for k in group), "layer " + " and ".join(map(str, group))
    if head is not None:
        if head.inputs != width:
            return f"Head must have the {width} inputs that {source} gives, not {head.inputs}"
        fault = "not stand beside a layer: put it into the layers" if head.beside else _layer_fault(head)
        if fault is not None:
            return f"Head must {fault}"
    fault = encoder_fault(encoder, len(layers), every_step)
    if fault is not None:
        return f"Encoder must {fault}"
    if encoder and encoder not in [group[0] for group in groups]:
        return f"Encoder must end where layers side by side end, not between them, as {encoder} does"
    if final_state and every_step:
        return "Final state must be False for a network with an output at every step, not True"
    return None


def _layer_fault(layer: Any) -> str | None:
    """What is wrong with a layer's direction or initial states, as the end of "Layer K must ..."."""
    if layer.reverse and not layer.cell.states:
        return f"not be reverse, since a {layer.cell.name} layer has no state that runs through the steps"
    for name, vector in layer.initial.items():
        fault = _state_fault(layer, name, np.asarray(vector), (layer.units,))
        if fault is not None:
            return fault
    return None


def _state_fault(layer: Any, name: str, vector: np.ndarray, shape: tuple[int, ...]) -> str | None:
    if name not in layer.cell.states:
        known = " or ".join(layer.cell.states) or "none, having no state"
        return f"have initial states of {known}, not of {name!r}"
    if vector.shape != shape:
        return f"have an initial state {name!r} of shape {shape}, not {vector.shape}"
    if vector.dtype.kind not in "fiu" or not np.isfinite(vector).all():
        return f"have finite numbers in initial state {name!r}"
    return None


def checked_initial(
    layers: Sequence[Any], initial: Mapping[int, Mapping[str, Any]] | None, sequences: int
) -> dict[int, dict[str, np.ndarray]]:
    """Initial states given for a call, by layer and state, as arrays (sequences, units).

    Raises:
        UsageError: an unknown layer or state, a wrong shape, or NaN or infinite values.
    """
    found: dict[int, dict[str, np.ndarray]] = {}
    for k, states in (initial or {}).items():
        if not isinstance(k, (int, np.integer)) or not 0 <= k < len(layers):
            raise UsageError(f"Initial states must be given for layers 0 to {len(layers) - 1}, not for {k!r}")
        found[int(k)] = {name: np.asarray(vector) for name, vector in states.items()}
        for name, vector in found[int(k)].items():
            fault = _state_fault(layers[k], name, vector, (sequences, layers[k].units))
            if fault is not None:
                raise UsageError(f"Layer {k} must {fault}")
    return found
