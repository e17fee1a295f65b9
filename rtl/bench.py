"""The self-checking test bench of a generated network: its Verilog, what it feeds in, and what must come out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources

import numpy as np

from hwrnn.golden import golden
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.axi import padded
from hwrnn.rtl.network import Network
from hwrnn.rtl.rounds import Order, filled, order_of

__all__ = ["bench_files", "random_sequences"]

_STEPS = (4, 1, 2)  # of the sequences of a bench without samples
# What the bench says of the cycles that it checks.
_ONE = """\
from the first input element of a sequence of T steps to its last output element, the network idle before
//     and no stalls, INPUTS - 1 + (T - 1) * CYCLES_PER_STEP + LATENCY"""
_SEVERAL = """\
between two input vectors of a channel, without stalls, CHANNELS * CYCLES_PER_STEP, or as long as there is room
//     behind the first layer, CHANNELS * FIRST_LAYER at least; and m_axis_tid with every element"""
_LONG = 3  # steps that it takes to see a steady state


def random_sequences(model: QuantizedModel) -> tuple[np.ndarray, np.ndarray]:
    """Raw inputs over the whole input format, (N, T, inputs), the same in every run, and their lengths (N,)."""
    form = model.input_format
    rng = np.random.default_rng(0x5EED)
    shape = (len(_STEPS), max(_STEPS), model.inputs)
    return rng.integers(form.lo, form.hi, shape, np.int64, endpoint=True), np.array(_STEPS)


def timed(x: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sequences, and where they have none of one step or none of several, one made from their vectors.

    The bench needs both: the one takes the latency, the other the cycles of a step as well.
    """
    steps, wanted = int(lengths.max()), []
    if steps < _LONG:
        vectors = x[np.arange(x.shape[1]) < lengths[:, None]]
        wanted.append(np.resize(vectors, (_LONG, x.shape[2])))
    if lengths.min() > 1:
        wanted.append(x[0, :1])
    longest = max([steps, *(len(w) for w in wanted)])
    result = np.zeros((len(x) + len(wanted), longest, x.shape[2]), np.int64)
    result[: len(x), :steps] = x[:, :steps]
    for k, vectors in enumerate(wanted):
        result[len(x) + k, : len(vectors)] = vectors
    return result, np.array([*lengths.tolist(), *(len(w) for w in wanted)], np.int64)


def bench_files(network: Network, name: str, version: str, x: np.ndarray, lengths: np.ndarray) -> dict[str, str]:
    """The bench, its stimulus and the golden outputs, text by file name, from raw inputs (N, T, inputs)."""
    model, channels = network.model, network.channels
    x, lengths = timed(x, lengths)
    if channels > 1:
        # A steady state shows behind the vectors that fill what lies before the slowest engine.
        wanted = channels * (4 * len(network.engines) + 4)
        times = -(-wanted // int(lengths.sum()))
        x, lengths = filled(np.tile(x, (times, 1, 1)), np.tile(lengths, times), channels)
    order = order_of(lengths, channels)
    shown = order.emitted(model.every_step)
    output = golden(model, x, lengths).output
    if network.argmax:
        output = output.argmax(-1)[..., None]
    if not model.every_step:
        output = np.repeat(output[:, None], lengths.max(), axis=1)
    bits = padded(network.input_format.width), padded(network.output_format.width)
    tag = (channels - 1).bit_length()
    slowest = channels * sum(engine.cycles_per_step for engine in network.engines)
    holes = {
        "NAME": name,
        "VERSION": version,
        "INPUT_BITS": bits[0],
        "OUTPUT_BITS": bits[1],
        "INPUTS": model.inputs,
        "ELEMENTS": int(lengths.sum()) * model.inputs,
        "OUTPUTS": len(shown.ends) * network.outputs_per_vector,
        "CHANNELS": channels,
        "TAG_BITS": tag,
        "TAG_WIRE": f"  wire [{tag - 1}:0] m_axis_tid;\n" if tag else "",
        "TAG_PORT": ",\n    .m_axis_tid(m_axis_tid)" if tag else "",
        "TAG": "m_axis_tid, " if tag else "",
        "CYCLES": _ONE if channels == 1 else _SEVERAL,
        "CYCLES_PER_STEP": network.cycles_per_step,
        "FIRST_LAYER": network.engines[0].cycles_per_step,
        "LATENCY": network.latency,
        # Bursts hold back at most 32 cycles an element, and a transfer at one port may wait for a few steps.
        "PATIENCE": 64 * (slowest + network.latency + 64),
    }
    text = (resources.files("hwrnn.rtl") / "bench.v").read_text()
    bench = re.sub(r"@([A-Z_]+)@", lambda hole: str(holes[hole[1]]), text)
    return {
        f"{name}_tb.v": bench,
        "stimulus.hex": "".join(_hex(x, replace(order, channels=0 * order.channels), bits[0])),
        "expected.hex": "".join(_hex(output, shown, bits[1])),
    }


def _hex(values: np.ndarray, order: Order, bits: int) -> Iterator[str]:
    """A word a line: the channel and ``last``, then the element as ``tdata`` shows it."""
    columns = (order.sequences, order.steps, order.channels, order.ends)
    for n, t, channel, ends in zip(*(column.tolist() for column in columns), strict=True):
        yield f"// sequence {n}, vector {t}\n"
        row = (values[n, t] & ((1 << bits) - 1)).tolist()
        for k, value in enumerate(row):
            yield f"{2 * channel + (ends and k == len(row) - 1):x}_{value:0{bits // 4}x}\n"
