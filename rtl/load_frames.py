"""The bytes that bring weights into a network: its frames, their checksum, and what the network answers.

The format is described in docs/loading.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwrnn.errors import UsageError, shown
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.identity import structure
from hwrnn.rtl.weights import AnyWeights

if TYPE_CHECKING:
    from hwrnn.rtl.lanes import Lanes
    from hwrnn.rtl.network import Network

__all__ = ["BEGIN", "END", "HELD", "REASONS", "VERSION", "WORD", "contents", "frames_for",
           "frames_of_folder", "identity_of", "joined"]

VERSION = 1
BEGIN, WORD, END = b"BWE"
#: What the answer to a frame says in its low bits: 0 accepted, else why it was refused.
REASONS = ("accepted", "length", "place", "checksum")
HELD = 0x80  # in an answer: the network is held, for it has no complete weights


def identity_of(model: QuantizedModel, lanes: Sequence[Lanes]) -> bytes:
    """Four bytes that tell which weights fit: of the structure, the formats and the order of the words."""
    content: dict[str, Any] = {
        "version": VERSION,
        "structure": structure(model),
        "memories": [
            {
                "phases": [[[list(row) for row in p.rows], p.parallel, p.passes] for p in part.schedule.phases],
                "widths": [part.weight_shape.width, part.sum_shape.width],
                "words": [len(part.words), len(part.bias_words)],
            }
            for part in lanes
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()[:4]


def contents(lanes: Lanes) -> list[tuple[list[int], int]]:
    """The words of an engine's weight and bias memory, each with its bits."""
    count = lanes.schedule.lanes
    return [(lanes.words, count * lanes.weight_shape.width), (lanes.bias_words, count * lanes.sum_shape.width)]


def frames_for(model: QuantizedModel, network: Network) -> list[bytes]:
    """The frames that bring a model's weights and biases into a network with a load port.

    Each is one AXI4-Stream packet: ``tlast`` stands with its last byte. The network answers each with a byte.

    Args:
        model: of the same cells, sizes and formats as the network's: ``hwrnn.quantize`` with ``formats_of`` makes one.
        network: with weights ``loadable`` or ``spram``.

    Raises:
        UsageError: a network without a load port, or a model that differs from its own in more than weights.
    """
    from hwrnn.rtl.lanes import Lanes

    if not network.loadable:
        raise UsageError("Network must have weights 'loadable' or 'spram' to be loaded, not " + repr(network.weights))
    difference = _difference(structure(network.model), structure(model))
    if difference:
        raise UsageError(
            f"Model must have the network's cells, sizes and formats, but {difference} differs: quantize it with the"
            " formats of the network's model"
        )
    parts = [Lanes(AnyWeights.of(layer), engine.schedule, engine.timing, network.weights)
             for layer, engine in zip(model.stack, network.engines, strict=True)]  # fmt: skip
    bodies = [bytes([BEGIN, VERSION]) + identity_of(model, parts)]
    memories = [memory for part in parts for memory in contents(part)]
    for target, (words, bits) in enumerate(memories):
        for address, word in enumerate(words):
            head = bytes([WORD, target]) + address.to_bytes(3, "little")
            bodies.append(head + word.to_bytes(-(-bits // 8), "big"))
    bodies.append(bytes([END]))
    frames, total = [], 0
    for body in bodies:
        total = zlib.crc32(body, total)  # of everything since the begin frame, checksums left out
        frames.append(body + total.to_bytes(4, "little"))
    return frames


def frames_of_folder(model: QuantizedModel, folder: str | os.PathLike[str]) -> list[bytes]:
    """The frames that bring a model into the Verilog of a generated folder.

    Raises:
        UsageError: a folder that generate did not write, Verilog without a load port, or a model that does not fit it.
    """
    from hwrnn.rtl.network import Network
    from hwrnn.rtl.timing import Timing

    path = Path(folder) / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        load, weights = manifest["load"], manifest["weights"]
        identity = load["identity"] if load else ""
        lanes = manifest["lanes"].get("budgets", manifest["lanes"]["asked"])
        timing, argmax, hashed = manifest["timing"], bool(manifest["argmax"]), str(manifest["model_sha256"])
        timing = Timing(**timing)
        channels = int(manifest["channels"])
        protect = str((manifest.get("protection") or {"memories": "none"})["memories"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(
            f"Folder must be one that hwrnn generate wrote, with a manifest.json, not {str(folder)!r}"
        ) from error
    if not load:
        found = shown(weights)
        raise UsageError(f"Verilog must be generated with weights 'loadable' or 'spram' to be loaded, not {found}")
    network = Network(model, lanes, argmax, timing=timing, channels=channels, weights=weights, protect=protect)
    if network.identity.hex() != identity:
        raise UsageError(
            f"Model must have the cells, sizes and formats of the network in {str(folder)!r}: quantize it with the"
            f" formats of that network's model, of SHA-256 {hashed}"
        )
    return frames_for(model, network)


def joined(frames: Sequence[bytes]) -> bytes:
    """Frames as a file: before each, its length in two bytes, the low one first."""
    return b"".join(len(frame).to_bytes(2, "little") + frame for frame in frames)


def _difference(own: Any, other: Any, where: str = "") -> str:
    """What differs between two structures, in words; empty where nothing does."""
    if isinstance(own, dict) and isinstance(other, dict) and own.keys() == other.keys():
        pairs = [(f"{where} {key!r}".strip(), own[key], other[key]) for key in own]
    elif isinstance(own, list) and isinstance(other, list) and len(own) == len(other):
        pairs = [(f"{where} {k}".strip(), a, b) for k, (a, b) in enumerate(zip(own, other, strict=True))]
    else:
        return "" if own == other else where
    return next((found for name, a, b in pairs if (found := _difference(a, b, name))), "")
