"""Layers of the golden model in compiled C: what ``hwrnn.golden`` runs where there is a compiler and enough to do."""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from hwrnn.c_integers import HELPERS, CLayer, print_layer
from hwrnn.c_source import PANEL, Unprintable, flags, preamble, product
from hwrnn.cells import Cell
from hwrnn.compiler import C, compiler_available, library_cached, shared_library
from hwrnn.errors import UsageError
from hwrnn.formats import LayerFormats
from hwrnn.quantization import QuantizedLayer, QuantizedModel
from hwrnn.trace import trace

__all__ = ["CompiledLayer", "chosen_layers", "compiled_layers", "number_for", "printed", "same_structure"]

_LANES = 32  # sequences side by side: two vectors of 32-bit integers where they have 512 bits
_LIMITS = {"int32_t": 2**31 - 1, "int64_t": 2**62}  # the wider one keeps a bit in hand
_LEAST = 20_000_000  # multiplications that numpy needs some hundredths of a second for
_COMPILING = 1_500_000_000  # multiplications that numpy needs about as long for as a compiler for a library
_LIBRARIES: dict[str, ctypes.CDLL] = {}  # by their text
_SPENT: Counter[str] = Counter()  # multiplications that numpy did since there was no library of a text


def _source(cell: Cell, phases: tuple[tuple[str, ...], ...], stored: tuple[str, ...], number: str) -> str:
    """The library of a cell: one function that runs a layer over sequences."""
    gates, values = cell.gates, tuple(dict.fromkeys((*cell.states, *trace(cell).stores)))
    arrays = [f"a_{gate}" for gate in gates] + [f"v_{name}" for name in values]
    text = [preamble(number), f"typedef u{number} U;", HELPERS, product(), f"enum {{ LANES = {_LANES} }};"]
    text.append("""
#define KEEP(array, value) do { if (keep) (array)[k] = (value); } while (0)
#define COUNT(n, before, after) counts[(n) * LANES + l] += ((before) != (after)) & running[l]
""")
    for k, statements in enumerate(phases):
        body = "\n            ".join(statements)
        used = dict.fromkeys(re.findall(r"\bp\[(\d+)\]", body))  # ahead of the loop: no choice may depend on a load
        body = re.sub(r"\bp\[(\d+)\]", r"p\1", body)
        numbers = "".join(f"    const T p{n} = p[{n}];\n" for n in used)
        named = [name for name in arrays if f"{name}[k]" in body or f"KEEP({name}," in body]
        pointers = ", ".join(f"T *restrict {name}" for name in named)
        text.append(f"""
static inline __attribute__((always_inline)) void lines_{k}(const int keep, long units, const T *restrict p,
    const T *restrict running, T *restrict counts, {pointers})
{{
{numbers}    for (long u = 0; u < units; u++)
        INDEPENDENT
        for (long l = 0; l < LANES; l++) {{
            const long k = u * LANES + l;
            {body}
        }}
}}
APART void phase_{k}(int keep, long units, const T *p, const T *running, T *counts, T **at)
{{
    if (keep)
        lines_{k}(1, units, p, running, counts, {', '.join(f'at[{arrays.index(n)}]' for n in named)});
    else
        lines_{k}(0, units, p, running, counts, {', '.join(f'at[{arrays.index(n)}]' for n in named)});
}}
""")
    of_states = [arrays.index(f"v_{name}") for name in cell.states]
    taken = (f"        take(at[{n}], states[{k}] + start * units, live, units);\n" for k, n in enumerate(of_states))
    left = (f"put(states[{k}] + (start + l) * units, at[{n}] + l, 1, 1, units);" for k, n in enumerate(of_states))
    begun, ended = "".join(taken), ""
    if of_states:
        ended = "            for (long l = live - 1; l >= 0 && lengths[start + l] == t + 1; l--) {\n"
        ended += "".join(f"                {line}\n" for line in left) + "            }\n"
    places = [f"a_{name[2:]}" if name.startswith("a.") else f"v_{name}" for name in stored]
    keeping = "".join(
        f"            if (keep) put(kept[{n}] + first, at[{arrays.index(place)}], live, steps, units);\n"
        for n, place in enumerate(places)
    )
    steps = "".join(_phase_calls(cell, k, arrays) for k in range(len(cell.phases)))
    output = arrays.index(f"v_{cell.output}")
    text.append(f"""
/* The units of one step, lanes innermost, to the places of that step: units innermost, a sequence after another. */
APART void put(T *restrict to, const T *restrict from, long live, long steps, long units)
{{
    for (long l = 0; l < live; l++)
        for (long u = 0; u < units; u++)
            to[l * steps * units + u] = from[u * LANES + l];
}}

/* States as they stand in a file of sequences, to where a step reads them. */
APART void take(T *restrict to, const T *restrict from, long live, long units)
{{
    memset(to, 0, units * LANES * sizeof(T));
    for (long l = 0; l < live; l++)
        for (long u = 0; u < units; u++)
            to[u * LANES + l] = from[l * units + u];
}}

APART void begin(T *restrict sums, const T *restrict bias, long rows)
{{
    for (long r = 0; r < rows; r++)
        for (long l = 0; l < LANES; l++)
            sums[r * LANES + l] = bias[r];
}}

long room(long inputs, long units) {{ return (inputs + {len(arrays)} * units + {len(stored)} + 1) * LANES; }}

/* Sequences x (count, steps, inputs), the longest first; out and kept[...] (count, steps, units), zero at first;
   states[...] (count, units) before the first step, and then after the last one of each sequence. */
void run(long keep, long count, long steps, long inputs, long units, const T *x, const int64_t *lengths, const T *p,
         const T *bias, const T **weights, T **states, T *out, T **kept, int64_t *clipped,
         T *work)
{{
    T *z = work, *running = z + inputs * LANES, *counts = running + LANES, *at[{len(arrays)}];
    for (int n = 0; n < {len(arrays)}; n++)
        at[n] = counts + {len(stored)} * LANES + n * units * LANES;
    memset(z, 0, inputs * LANES * sizeof(T));
    for (long start = 0; start < count; start += LANES) {{
        long live = count - start < LANES ? count - start : LANES;
        memset(counts, 0, {len(stored)} * LANES * sizeof(T));
{begun}        for (long t = 0; t < lengths[start]; t++) {{
            const long first = (start * steps + t) * units;
            while (lengths[start + live - 1] <= t)
                live--;
            for (long l = 0; l < LANES; l++)
                running[l] = l < live;
            for (long l = 0; l < live; l++)
                for (long f = 0; f < inputs; f++)
                    z[f * LANES + l] = x[((start + l) * steps + t) * inputs + f];
{steps}            put(out + first, at[{output}], live, steps, units);
{keeping}{ended}        }}
        for (int n = 0; n < {len(stored)}; n++)
            for (long l = 0; l < LANES; l++)
                clipped[n] += counts[n * LANES + l];
    }}
}}
""")
    return "".join(text)


def _runs(cell: Cell, phase: int, operand: str) -> list[list[str]]:
    """The gates that read an operand, in runs whose rows are neighbours."""
    order = list(cell.phases[phase].gates)
    runs: list[list[str]] = []
    for gate in cell.phases[phase].rows(operand):
        if runs and order.index(gate) == order.index(runs[-1][-1]) + 1:
            runs[-1].append(gate)
        else:
            runs.append([gate])
    return runs


@lru_cache(maxsize=256)
def _products(cell: Cell) -> list[tuple[int, str, list[str]]]:
    """Every product: its phase, its operand and its gates."""
    return [
        (k, operand, run)
        for k, phase in enumerate(cell.phases)
        for operand in phase.operands
        for run in _runs(cell, k, operand)
    ]


def _phase_calls(cell: Cell, phase: int, arrays: Sequence[str]) -> str:
    gates = tuple(cell.phases[phase].gates)
    first, number = arrays.index(f"a_{gates[0]}"), len(gates)
    lines = [f"begin(at[{first}], bias + {first} * units, {number} * units);"]
    for n, (k, operand, run) in enumerate(_products(cell)):
        if k == phase:
            z, size = ("z", "inputs") if operand == "x" else (f"at[{arrays.index(f'v_{operand}')}]", "units")
            out = f"at[{arrays.index(f'a_{run[0]}')}]"
            lines.append(f"product(1, {len(run)} * units, {size}, LANES, LANES, weights[{n}], {z}, {out});")
    lines.append(f"phase_{phase}(keep, units, p, running, counts, at);")
    return "".join(f"            {line}\n" for line in lines)


@lru_cache(maxsize=512)
def _printed(cell: Cell, values: tuple[Any, ...], bias_frac: tuple[Any, ...]) -> CLayer:
    return print_layer(cell, LayerFormats(dict(values), {}, dict(bias_frac), {}))


def printed(layer: QuantizedLayer) -> CLayer:
    """A layer's statements and parameters.

    Raises:
        Unprintable: a layer that there is no C for.
    """
    formats = layer.formats
    return _printed(layer.cell, tuple(formats.values.items()), tuple(formats.bias_frac.items()))


def _blocks(layer: QuantizedLayer) -> list[np.ndarray]:
    """The matrix of each product."""
    return [np.concatenate([layer.weights[gate, o] for gate in run]) for _, o, run in _products(layer.cell)]


def number_for(
    layer: QuantizedLayer, made: CLayer | None = None, blocks: Sequence[np.ndarray] | None = None
) -> str:
    """The narrowest type that holds everything a layer computes, from its formats and its actual weights.

    Args:
        made, blocks: what :func:`printed` and the layer's products give, where that is known.

    Raises:
        Unprintable: a layer that there is no C for, or one that needs more than 62 bits.
    """
    made, gates, units, formats = made or printed(layer), layer.cell.gates, layer.units, layer.formats
    reach = np.abs(np.concatenate([layer.biases[gate] for gate in gates]).astype(np.float64))
    blocks = _blocks(layer) if blocks is None else blocks
    for (k, operand, run), block in zip(_products(layer.cell), blocks, strict=True):
        form, start = formats.values[operand], gates.index(run[0]) * units
        most = float(max(-form.lo, form.hi)) * 2.0 ** formats.shifts[k, operand]
        reach[start : start + len(block)] += np.abs(block).sum(axis=1, dtype=np.float64) * most
    largest = reach.reshape(len(gates), units).max(axis=1).tolist()
    lifts = (made.lifts[gate] for gate in gates)
    needed = max(made.bound, *(sums * 2.0**up + half for sums, (up, half) in zip(largest, lifts, strict=True)))
    for number, limit in _LIMITS.items():
        if needed <= limit * (1 - 1e-9):  # the sums above are rounded
            return number
    raise Unprintable(f"it needs {math.ceil(math.log2(needed)) + 1} bits and 62 are the most")


@lru_cache(maxsize=64)
def _text(cell: Cell, phases: tuple[tuple[str, ...], ...], stored: tuple[str, ...], number: str) -> str:
    return _source(cell, phases, stored, number)


def _library(text: str) -> ctypes.CDLL:
    if text not in _LIBRARIES:
        library = shared_library(
            "golden", lambda: text, flags(), text, language=C, purpose="the golden model",
            instead="leave compiled out, since numpy computes the same",
        )  # fmt: skip
        library.room.argtypes, library.room.restype = [ctypes.c_long] * 2, ctypes.c_long
        library.run.argtypes, library.run.restype = [ctypes.c_long] * 5 + [ctypes.c_void_p] * 10, None
        _LIBRARIES[text] = library
    return _LIBRARIES[text]


def _name(layer: QuantizedLayer) -> str:
    """The text of a layer's library."""
    made = printed(layer)
    return _text(layer.cell, made.phases, made.stored, number_for(layer))


def same_structure(one: QuantizedModel, other: QuantizedModel) -> bool:
    """Whether two models have the same cells and sizes, so that one can take the other's place."""
    shapes = [[(la.cell, la.inputs, la.units, la.reverse, la.beside) for la in m.stack] for m in (one, other)]
    frames = [(m.every_step, m.head is None, m.encoder, m.final_state) for m in (one, other)]
    return shapes[0] == shapes[1] and frames[0] == frames[1]


def compiled_layers(
    model: QuantizedModel, compiled: bool | None, old: Sequence[CompiledLayer] | None = None
) -> list[CompiledLayer] | None:
    """The layers of a model in C; None where that cannot be or is not wanted.

    Args:
        compiled: True insists on it, False declines.
        old: layers of the same structure, which take the new weights.

    Raises:
        UsageError: insisted on, without a compiler or for a model that there is no C for.
    """
    if compiled is False or (compiled is None and old is None and not compiler_available(C)):
        return None
    made: list[CompiledLayer] = []
    try:
        for k, layer in enumerate(model.stack):
            if old is None:
                made.append(CompiledLayer(layer))
            else:
                old[k].load(layer)
                made.append(old[k])
    except Unprintable as error:
        if compiled:
            must = f"Model must fit the integers of C to run compiled, but layer {len(made)} does not"
            raise UsageError(f"{must} ({error}): leave compiled out, since numpy computes the same") from error
        return None
    except UsageError:
        if compiled:
            raise
        return None  # a compiler that does not work is none
    return made


def chosen_layers(model: QuantizedModel, work: int, compiled: bool | None) -> list[CompiledLayer] | None:
    """The layers of a model in C where asked for, or where ``work`` multiplications pay for it; else None.

    Work that would not pay alone adds up: once numpy took about as long as a compiler does, the compiler is called.

    Raises:
        UsageError: as :func:`compiled_layers` does.
    """
    if compiled is None:
        if work < _LEAST or not compiler_available(C):
            return None
        try:
            missing = {text for text in map(_name, model.stack) if not _at_hand(text)}
        except Unprintable:
            return None
        if missing:
            _SPENT.update(dict.fromkeys(missing, work))
            if min(_SPENT[text] for text in missing) < _COMPILING:
                return None
    return compiled_layers(model, compiled)


def _at_hand(text: str) -> bool:
    return text in _LIBRARIES or library_cached("golden", flags(), text, language=C)


class CompiledLayer:
    """A layer in compiled C, with weights that can be exchanged.

    Raises:
        Unprintable: a layer that there is no C for, or one that needs more than 62 bits.
        UsageError: no compiler, or one that fails.
    """

    def __init__(self, layer: QuantizedLayer) -> None:
        self.made, self.libraries = printed(layer), dict[str, ctypes.CDLL]()
        self.layer = layer
        self.load(layer)

    def load(self, layer: QuantizedLayer) -> None:
        """Take the weights, biases and formats of a layer; cheap where cell and sizes stay the same."""
        if layer.cell is not self.layer.cell or layer.formats is not self.layer.formats:
            # Fraction by fraction, such a key costs more to hash than the weights to pack: not for new weights alone.
            self.made, self.libraries = printed(layer), {}
        blocks, shifts = _blocks(layer), layer.formats.shifts
        made, number = self.made, number_for(layer, self.made, blocks)
        if number not in self.libraries:
            self.libraries[number] = _library(_text(layer.cell, made.phases, made.stored, number))
        self.layer, self.stored, self.library = layer, made.stored, self.libraries[number]
        self.dtype = np.dtype(number.removesuffix("_t"))
        self.parameters = np.array(made.parameters, self.dtype)
        self.bias = np.concatenate([layer.biases[gate] for gate in layer.cell.gates]).astype(self.dtype)
        shifted = (block << shifts[k, o] for (k, o, _), block in zip(_products(layer.cell), blocks, strict=True))
        self.panels = [_panels(block, self.dtype) for block in shifted]
        self.work = np.empty(self.library.room(layer.inputs, layer.units), self.dtype)

    def run(
        self, x: np.ndarray, lengths: np.ndarray, clipped: np.ndarray, keep: bool, initial: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Run sequences ``x`` (n, T, inputs), sorted by falling length; zero where one has ended.

        Args:
            clipped: int64, what saturated of each of ``stored``, is added to.
            initial: raw states (n, units) over the layer's constants.

        Returns:
            the output (n, T, units), what is kept by name, of the same shape, and each state after a sequence's end.
        """
        layer = self.layer
        count, steps = x.shape[:2]
        x, lengths = np.ascontiguousarray(x, self.dtype), np.ascontiguousarray(lengths, np.int64)
        shape = (count, steps, layer.units)
        out = np.zeros(shape, self.dtype)
        kept = {name: np.zeros(shape, self.dtype) for name in self.stored} if keep else {}
        states = {name: np.empty((count, layer.units), self.dtype) for name in layer.cell.states}
        for name, state in states.items():
            state[...] = initial[name] if name in initial else layer.start(name)
        self.library.run(
            keep, count, steps, layer.inputs, layer.units, x.ctypes.data, lengths.ctypes.data,
            self.parameters.ctypes.data, self.bias.ctypes.data, _pointers(self.panels),
            _pointers(list(states.values())), out.ctypes.data,
            _pointers(list(kept.values())), clipped.ctypes.data, self.work.ctypes.data,
        )  # fmt: skip
        return out, kept, states


def _pointers(arrays: list[np.ndarray]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))


def _panels(matrix: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """A matrix (rows, columns) as (rows / PANEL, columns, PANEL), with rows of zero at its end."""
    rows, columns = matrix.shape
    padded = np.zeros((-(-rows // PANEL) * PANEL, columns), dtype)
    padded[:rows] = matrix
    return np.ascontiguousarray(padded.reshape(-1, PANEL, columns).transpose(0, 2, 1))
