"""The self-checking test bench of a generated network: its Verilog, what it feeds in, and what must come out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np

from hwrnn.golden import golden
from hwrnn.rtl.axi import padded
from hwrnn.rtl.bench_faults import fault_holes
from hwrnn.rtl.bench_sequences import MANY
from hwrnn.rtl.bench_trace import trace_holes, trace_text
from hwrnn.rtl.load_frames import HELD, REASONS, frames_for
from hwrnn.rtl.network import Network
from hwrnn.rtl.rounds import Order, filled, order_of

__all__ = ["bench_files", "check_file"]

_SOME = 8  # sequences that also come one by one, and under every kind of stall
# What the bench says of the cycles that it checks.
_ONE = """\
from the first input element of a sequence of T steps to its last output element, the network idle before
//     and no stalls, INPUTS - 1 + (T - 1) * LATER_STEP + LATENCY"""
_SEVERAL = """\
between two input vectors of a channel, without stalls, CHANNELS * CYCLES_PER_STEP, or as long as there is room
//     behind the first layer, CHANNELS * FIRST_LAYER at least; and m_axis_tid with every element"""
_LONG = 3  # steps that it takes to see a steady state


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


def bench_files(
    network: Network, name: str, version: str, x: np.ndarray, lengths: np.ndarray, trace: int = 0
) -> dict[str, str]:
    """The bench, its stimulus and the golden outputs, text by file name, from raw inputs (N, T, inputs).

    Args:
        trace: cycles of random traffic that are recorded and played back.
    """
    model, channels = network.model, network.channels
    x, lengths = timed(x, lengths)
    if channels > 1:
        # A steady state shows behind the vectors that fill what lies before the slowest engine.
        wanted = channels * (4 * len(network.engines) + 4)
        times = -(-wanted // int(lengths.sum()))
        x, lengths = filled(np.tile(x, (times, 1, 1)), np.tile(lengths, times), channels)
    order = order_of(lengths, channels)

    def part(name: str, sequences: int) -> dict[str, int]:
        # Of channels, whose sequences take turns, all.
        many = sequences if channels == 1 else len(lengths)
        outputs = int((shown.sequences < many).sum()) * network.outputs_per_vector
        return {f"{name}_ELEMENTS": int(lengths[:many].sum()) * model.inputs, f"{name}_OUTPUTS": outputs}

    shown = order.emitted(model.every_step)
    output = golden(model, x, lengths).output
    if network.argmax:
        output = output.argmax(-1)[..., None]
    if not model.every_step:
        output = np.repeat(output[:, None], lengths.max(), axis=1)
    bits = padded(network.input_format.width), padded(network.output_format.width)
    tag = (channels - 1).bit_length()
    slowest = channels * sum(engine.cycles_per_step for engine in network.engines)
    holes: dict[str, Any] = {
        "NAME": name,
        "VERSION": version,
        "INPUT_BITS": bits[0],
        "OUTPUT_BITS": bits[1],
        "INPUTS": model.inputs,
        "ELEMENTS": int(lengths.sum()) * model.inputs,
        "OUTPUTS": len(shown.ends) * network.outputs_per_vector,
        **part("SOME", _SOME),
        **part("MANY", MANY),
        "CHANNELS": channels,
        "TAG_BITS": tag,
        "TAG_WIRE": f"  wire [{tag - 1}:0] m_axis_tid;\n" if tag else "",
        "TAG_PORT": ",\n    .m_axis_tid(m_axis_tid)" if tag else "",
        "TAG": "m_axis_tid, " if tag else "",
        "CYCLES": _ONE if channels == 1 else _SEVERAL,
        "CYCLES_PER_STEP": network.cycles_per_step,
        "LATER_STEP": network.cycles_of_later_step,
        "FIRST_LAYER": network.engines[0].cycles_per_step,
        "LATENCY": network.latency,
        "WHOLE": _whole(network, lengths),
        # Each kind of stall at the input meets each one at the output.
        "TURNS": -(-4 // min(len(lengths), _SOME)),
        # Bursts hold back at most 32 cycles an element, and a transfer at one port may wait for a few steps.
        "PATIENCE": 8 * (slowest + network.latency + 64),
    }
    files = {
        "stimulus.hex": "".join(_hex(x, replace(order, channels=0 * order.channels), bits[0])),
        "expected.hex": "".join(_hex(output, shown, bits[1])),
    }
    holes |= {f"LOAD_{hole}": "" for hole in ("SAYS", "WIRES", "PORTS", "TASK", "IDLE", "FIRST", "LATER")}
    holes |= fault_holes(network) | trace_holes(network, name, trace)
    if trace:
        files["trace.hex"] = trace_text(network, trace, x, lengths)
    if network.loadable:
        files["load.hex"], count = _load(network)
        holes |= {**_LOAD_HOLES, "LOAD_TASK": _filled("bench_load.v", {"LOAD_BYTES": count})}
        if network.weights == "spram":
            holes["LOAD_FIRST"] = "    // There are no weights yet.\n    load;\n\n"
    return {f"{name}_tb.v": _filled("bench.v", holes), **files}


def _whole(network: Network, lengths: np.ndarray) -> int:
    """Cycles from the first input element to the last output element of all sequences in a row; 0 where not known.

    A head that works once a sequence may hold short ones back; of several channels, rounds are timed.
    """
    slower = any(engine.cycles_per_step > network.cycles_per_step for engine in network.engines)
    if network.channels > 1 or network.repeat is not None or slower:
        return 0
    return network.sequence_cycles(int(lengths.sum()))


def check_file(network: Network, name: str, version: str, ports: tuple[str, str]) -> dict[str, str]:
    """A program that feeds a network's C the stimulus of the bench, by its file name.

    Args:
        ports: the types of the elements of input and output vectors in C.
    """
    holes = {
        "NAME": name,
        "VERSION": version,
        "MACRO": name.upper(),
        "INPUT_BITS": padded(network.input_format.width),
        "OUTPUT_BITS": padded(network.output_format.width),
        "CHANNELS": network.channels,
        "X": ports[0],
        "Y": ports[1],
        "NEXT": f"{name}_more(&states[channel], y)" if network.model.encoder else "0",
    }
    return {f"{name}_check.c": _filled("check.c", holes)}


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


def _hex(values: np.ndarray, order: Order, bits: int) -> Iterator[str]:
    """A word a line: the channel and ``last``, then the element as ``tdata`` shows it."""
    columns = (order.sequences, order.steps, order.channels, order.ends)
    for n, t, channel, ends in zip(*(column.tolist() for column in columns), strict=True):
        yield f"// sequence {n}, vector {t}\n"
        row = (values[n, t] & ((1 << bits) - 1)).tolist()
        for k, value in enumerate(row):
            yield f"{2 * channel + (ends and k == len(row) - 1):x}_{value:0{bits // 4}x}\n"
