"""The self-checking test bench of a generated network: its Verilog, what it feeds in, and what must come out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

import numpy as np

from hwrnn.golden import golden
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.axi import padded
from hwrnn.rtl.network import Network

__all__ = ["bench_files", "random_sequences"]

_STEPS = (4, 1, 2)  # of the sequences of a bench without samples
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
    model = network.model
    x, lengths = timed(x, lengths)
    output = golden(model, x, lengths).output
    if network.argmax:
        output = output.argmax(-1)[..., None]
    if not model.every_step:
        output = output[:, None]
    bits = padded(network.input_format.width), padded(network.output_format.width)
    steps = lengths if model.every_step else np.ones_like(lengths)
    slowest = sum(engine.cycles_per_step for engine in network.engines)
    holes = {
        "NAME": name,
        "VERSION": version,
        "INPUT_BITS": bits[0],
        "OUTPUT_BITS": bits[1],
        "INPUTS": model.inputs,
        "ELEMENTS": int(lengths.sum()) * model.inputs,
        "OUTPUTS": int(steps.sum()) * network.outputs_per_vector,
        "CYCLES_PER_STEP": network.cycles_per_step,
        "LATENCY": network.latency,
        # Bursts hold back at most 32 cycles an element, and a transfer at one port may wait for a few steps.
        "PATIENCE": 64 * (slowest + network.latency + 64),
    }
    text = (resources.files("hwrnn.rtl") / "bench.v").read_text()
    bench = re.sub(r"@([A-Z_]+)@", lambda hole: str(holes[hole[1]]), text)
    return {
        f"{name}_tb.v": bench,
        "stimulus.hex": "".join(_hex(x, lengths, bits[0])),
        "expected.hex": "".join(_hex(output, steps, bits[1])),
    }


def _hex(values: np.ndarray, lengths: np.ndarray, bits: int) -> Iterator[str]:
    """A word a line: ``last``, then the element as ``tdata`` shows it."""
    for n, length in enumerate(lengths.tolist()):
        for t in range(length):
            yield f"// sequence {n}, vector {t}\n"
            row = (values[n, t] & ((1 << bits) - 1)).tolist()
            for k, value in enumerate(row):
                last = t == length - 1 and k == len(row) - 1
                yield f"{int(last)}_{value:0{bits // 4}x}\n"
