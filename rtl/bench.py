"""The self-checking test bench of a generated network: its Verilog, what it feeds in, and what must come out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np

from hwrnn.golden import golden
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.axi import padded
from hwrnn.rtl.frames import HELD, REASONS, frames_for
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
    holes: dict[str, Any] = {
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
    files = {
        "stimulus.hex": "".join(_hex(x, lengths, bits[0])),
        "expected.hex": "".join(_hex(output, steps, bits[1])),
    }
    holes |= {f"LOAD_{hole}": "" for hole in ("SAYS", "WIRES", "PORTS", "TASK", "IDLE", "FIRST", "LATER")}
    if network.loadable:
        files["load.hex"], count = _load(network)
        holes |= {**_LOAD_HOLES, "LOAD_TASK": _filled("bench_load.v", {"LOAD_BYTES": count})}
        if network.weights == "spram":
            holes["LOAD_FIRST"] = "    // There are no weights yet.\n    load;\n\n"
    return {f"{name}_tb.v": _filled("bench.v", holes), **files}


def _filled(file: str, holes: dict[str, Any]) -> str:
    """A file of this package with its holes filled."""
    text = (resources.files("hwrnn.rtl") / file).read_text()
    return re.sub(r"@([A-Z_]+)@", lambda hole: str(holes[hole[1]]), text)


#: What the bench of a network with a load port has besides.
_LOAD_HOLES = {
    "LOAD_SAYS": """,
//   - that weights can be loaded while the network is held: load.hex, in which some frames are wrong and have to be
//     refused""",
    "LOAD_WIRES": """
  reg [7:0] s_load_tdata;
  reg s_load_tvalid;
  reg s_load_tlast;
  wire s_load_tready;
  wire [7:0] m_load_tdata;
  wire m_load_tvalid;
  reg m_load_tready;
  wire held_by_load;""",
    "LOAD_PORTS": """,
    .s_load_tdata(s_load_tdata), .s_load_tvalid(s_load_tvalid), .s_load_tready(s_load_tready),
    .s_load_tlast(s_load_tlast),
    .m_load_tdata(m_load_tdata), .m_load_tvalid(m_load_tvalid), .m_load_tready(m_load_tready), .held(held_by_load)""",
    "LOAD_IDLE": """
    s_load_tdata = 0;
    {s_load_tvalid, s_load_tlast, m_load_tready} = 0;
    $readmemh("load.hex", frames);""",
    "LOAD_LATER": """    // The same weights once more, by the load port.
    load;

""",
}


def _load(network: Network) -> tuple[str, int]:
    """The network's own weights as frames, wrong ones among them, and the number of bytes."""
    frames = frames_for(network.model, network)
    word = frames[1]
    wrong = [
        (word[:-1], "length"),
        (word[:2] + b"\x01" + word[3:], "place"),
        (word[:-1] + bytes([word[-1] ^ 1]), "checksum"),
    ]
    told = [(frames[0], HELD), *((frame, HELD | REASONS.index(why)) for frame, why in wrong)]
    told += [*((frame, HELD) for frame in frames[1:-1]), (frames[-1], 0)]
    lines = []
    for number, (frame, answer) in enumerate(told):
        lines.append(f"// frame {number}, answer {answer:02x}\n")
        lines += [f"{answer:02x}_{int(k == len(frame) - 1)}_{byte:02x}\n" for k, byte in enumerate(frame)]
    return "".join(lines), sum(len(frame) for frame, _ in told)


def _hex(values: np.ndarray, lengths: np.ndarray, bits: int) -> Iterator[str]:
    """A word a line: ``last``, then the element as ``tdata`` shows it."""
    for n, length in enumerate(lengths.tolist()):
        for t in range(length):
            yield f"// sequence {n}, vector {t}\n"
            row = (values[n, t] & ((1 << bits) - 1)).tolist()
            for k, value in enumerate(row):
                last = t == length - 1 and k == len(row) - 1
                yield f"{int(last)}_{value:0{bits // 4}x}\n"
