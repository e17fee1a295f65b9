"""The sequences of a bench without samples: few, and chosen so that wrong bits show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hwrnn.golden import golden
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.bit_flips import with_flipped_weight, with_layer

__all__ = ["MANY", "random_sequences"]

MANY = 16  # sequences that also fill what is kept inside
_STEPS = (4, 1, 2, 1, 3, 1, 1, 2)  # of the sequences
_MOST = 16  # times as many, of a network that is quick enough:
_CYCLES = 8_000  # that they may take in a row
_OF_CHANNELS = 4  # the most times of a network whose sequences take turns: there all of them come in every run
_TRIED = 16  # as many are tried as are taken
_ROUNDS, _CHILDREN = 12, 64  # of breeding, and in each at most
_BITS = 2_000  # that are flipped at most
_SEARCHES = 200  # for sequences that show a bit which the others do not, at most
_SEARCHED, _WORK = 8_192, 40_000_000  # those looked through each time, and their multiplications a step, at most


def random_sequences(
    model: QuantizedModel, cycles: int = 1, channels: int = 1, argmax: bool = False, thorough: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Raw inputs (N, T, inputs), the same in every run, and their lengths (N,).

    They reach over the whole input format, over a half, a quarter and an eighth of it, which saturate less, or are its
    ends. Behind the first ones stand those of many, some bred for it (:func:`_bred`), that show what the others show
    least: each of them was the best at its turn by the sum over all it shows (:func:`_shown`), each divided by how
    often it has been shown before.

    Args:
        cycles: of a step; the fewer, the more sequences.
        channels: that the sequences take turns in.
        argmax: whether only the index of the largest output is seen.
        thorough: whether each bit of a weight or bias that is flipped must show, where one of thousands of sequences
            shows it; of larger networks some thousand bits are tried. That takes seconds.
    """
    x, lengths = _random(model, cycles, channels, argmax)
    return _with_flips(model, x, lengths, argmax) if thorough else (x, lengths)


def _random(model: QuantizedModel, cycles: int, channels: int, argmax: bool) -> tuple[np.ndarray, np.ndarray]:
    times = min(max(_CYCLES // (sum(_STEPS) * cycles), 1), _MOST if channels == 1 else _OF_CHANNELS)
    count, first = times * len(_STEPS), min(MANY, times * len(_STEPS))
    if count == first:
        return _pool(model, count), np.tile(_STEPS, times)
    x, lengths = _bred(model, _pool(model, count * _TRIED), np.tile(_STEPS, times * _TRIED), argmax)
    shown = _shown(model, x, lengths, argmax)
    before = 1 + shown[:first].sum(0)
    chosen = list(range(first))
    shown[:first] = 0
    while len(chosen) < count:
        best = int((shown @ (1 / before)).argmax())
        before += shown[best]
        shown[best] = 0
        chosen.append(best)
    return x[chosen], lengths[chosen]


def _pool(model: QuantizedModel, count: int) -> np.ndarray:
    """Raw inputs (count, T, inputs) of five kinds in turn."""
    form = model.input_format
    rng = np.random.default_rng(0x5EED)
    x = np.zeros((count, max(_STEPS), model.inputs), np.int64)
    for n in range(count):
        lo, hi = form.lo >> n % 5, form.hi >> n % 5
        x[n] = rng.integers(lo, hi, x[n].shape, np.int64, endpoint=True)
        if n % 5 == 4:
            x[n] = np.where(x[n] < 0, form.lo, form.hi) if form.lo < 0 else form.hi * (x[n] % 2)
    return x


def _bred(model: QuantizedModel, x: np.ndarray, lengths: np.ndarray, argmax: bool) -> tuple[np.ndarray, np.ndarray]:
    """The sequences with others behind them, whose values reach further.

    In each round the sequence in which a unit is nearest to an end, or with ``argmax`` the two largest outputs are
    nearest to each other, gets a child: itself with a vector's elements made anew. What few of random inputs do, such
    as saturate an output, so is done.
    """
    form, rng = model.input_format, np.random.default_rng(0xB8ED)
    wanted = _reached(model, x, lengths, argmax)
    for _ in range(_ROUNDS):
        parents = wanted.argmax(0)
        parents = parents[:_CHILDREN] if len(parents) > _CHILDREN else parents
        children, steps = x[parents].copy(), lengths[parents]
        at = np.arange(len(parents)), rng.integers(0, steps)
        fresh = rng.integers(form.lo, form.hi, (len(parents), model.inputs), np.int64, endpoint=True)
        children[at] = np.where(rng.random(fresh.shape) < 0.5, fresh, children[at])
        x, lengths = np.concatenate([x, children]), np.concatenate([lengths, steps])
        wanted = np.concatenate([wanted, _reached(model, children, steps, argmax)])
    return x, lengths


def _reached(model: QuantizedModel, x: np.ndarray, lengths: np.ndarray, argmax: bool) -> np.ndarray:
    """How far each sequence goes (N, aims): the outputs' ends first, then those of all that is inside."""
    result = golden(model, x, lengths, keep=True)
    steps = np.arange(x.shape[1]) < lengths[:, None]
    aims = []
    for values in reversed(list(result.values.values())):
        there = (steps if values.shape[1] == x.shape[1] else steps[:, :1])[..., None]
        most = int(np.abs(values).max())
        aims += [np.where(there, values, -most).max(1), np.where(there, -values, -most).max(1)]
    if argmax:
        aims[:0] = [-margin for margin in _margins(result.output).values()]
    return np.concatenate(aims, axis=1)


def _margins(output: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """By pair of outputs (N, 1): how far the lesser of both is from the largest of all, at the least of the steps."""
    low = output.max(-1, keepdims=True) - output
    found = {}
    for one in range(output.shape[-1]):
        for other in range(one):
            found[other, one] = np.maximum(low[..., one], low[..., other]).reshape(len(output), -1)
    return {pair: margin.min(1, keepdims=True) for pair, margin in found.items()}


def _shown(model: QuantizedModel, x: np.ndarray, lengths: np.ndarray, argmax: bool) -> np.ndarray:
    """What each sequence shows (N, facts).

    That is of every unit of every value at how many steps it is within the ends, where a wrong bit of a sum shows, and
    whether it is at either end; with ``argmax`` also of each two outputs whether they are nearly the same.
    """
    result = golden(model, x, lengths, keep=True)
    steps = (np.arange(x.shape[1]) < lengths[:, None])[..., None]
    facts = []
    for values in result.values.values():
        there = steps if values.shape[1] == x.shape[1] else steps[:, :1]
        low, high = ((values == end((0, 1))) & there for end in (values.min, values.max))
        facts += [(there & ~low & ~high).sum(1), low.any(1), high.any(1)]
    if argmax:
        for margin in _margins(result.output).values():
            facts.append(margin <= np.quantile(margin, 1 / _TRIED))
    return np.concatenate(facts, axis=1).astype(np.float64)


def _with_flips(
    model: QuantizedModel, x: np.ndarray, lengths: np.ndarray, argmax: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The sequences with others behind them, in which such flipped bits show as show in none of them."""
    flips = list(_flips(model))
    multiplications = sum(layer.multiplications for layer in model.stack)
    times = max(1, min(_SEARCHED, _WORK // multiplications) // len(_STEPS))
    many, steps = _bred(model, _pool(model, times * len(_STEPS)), np.tile(_STEPS, times), argmax)
    right, right_of_many = _seen(model, x, lengths, argmax), _seen(model, many, steps, argmax)
    chosen: list[int] = []
    searches = 0
    for flip in flips[:: -(-len(flips) // _BITS)]:
        wrong = _flipped(model, flip)
        if wrong is None or searches == _SEARCHES or (_seen(wrong, x, lengths, argmax) != right).any():
            continue
        if not chosen or not (_seen(wrong, many[chosen], steps[chosen], argmax) != right_of_many[chosen]).any():
            differ = (_seen(wrong, many, steps, argmax) != right_of_many).reshape(len(many), -1).any(1)
            chosen += np.flatnonzero(differ)[:1].tolist()
            searches += 1
    return np.concatenate([x, many[chosen]]), np.concatenate([lengths, steps[chosen]])


def _seen(model: QuantizedModel, x: np.ndarray, lengths: np.ndarray, argmax: bool) -> np.ndarray:
    """What leaves the network, 0 beyond a sequence's end."""
    output = golden(model, x, lengths).output
    return output.argmax(-1) if argmax else output


@dataclass(frozen=True)
class _Flip:
    """A bit of a weight, or where ``operand`` is None of a bias."""

    layer: int
    gate: str
    operand: str | None
    place: tuple[int, ...]
    bit: int


def _flips(model: QuantizedModel) -> Iterator[_Flip]:
    """Every bit of every weight and bias."""
    for k, layer in enumerate(model.stack):
        for (gate, operand), weights in layer.weights.items():
            for place in np.ndindex(weights.shape):
                for bit in range(layer.formats.weights[gate, operand].width):
                    yield _Flip(k, gate, operand, place, bit)
        for gate, biases in layer.biases.items():
            lo, hi = layer.accumulators[gate]
            for place in np.ndindex(biases.shape):
                for bit in range(min(max(-lo, hi).bit_length(), 62)):
                    yield _Flip(k, gate, None, place, bit)


def _flipped(model: QuantizedModel, flip: _Flip) -> QuantizedModel | None:
    """The model with that bit flipped; None where the weight leaves its format."""
    layer = model.stack[flip.layer]
    if flip.operand is not None:
        changed = with_flipped_weight(layer, (flip.gate, flip.operand), flip.place, flip.bit)
        return None if changed is None else with_layer(model, flip.layer, changed)
    biases = layer.biases[flip.gate].copy()
    biases[flip.place] ^= 1 << flip.bit
    return with_layer(model, flip.layer, replace(layer, biases={**layer.biases, flip.gate: biases}))
