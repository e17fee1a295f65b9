"""The frames that a host and a board exchange over a UART, in software; docs/uart.md says what they mean.

The hardware's side is ``hwrnn/rtl/frames.py``. Both take the numbers from here.
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

__all__ = [
    "BAUD", "CAPACITY", "HEADER", "OVERHEAD", "SLOWEST", "SYNC", "VERSION", "Fault", "Frame", "FrameReader", "Identity",
    "Kind", "checksum", "encode",
]  # fmt: skip

#: Of the protocol; a host and a board with different ones do not talk.
VERSION = 1
#: Baud rate where nobody asks for another: what the boards' USB bridges and clocks divide down to without a rest.
BAUD = 1_000_000
#: The lowest baud rate: a request takes half a second with it.
SLOWEST = 9600
#: The first bytes of every frame.
SYNC = b"\xa5\x5a"
#: Bytes before the payload, ``SYNC`` included: kind, tag, and the payload's length.
HEADER = 6
#: Bytes of a frame besides its payload.
OVERHEAD = HEADER + 2
#: Bytes of input elements that a request can carry: one block of an iCE40's memory.
CAPACITY = 512


class Kind(IntEnum):
    """What a frame is. The answer to a request K ends with a frame of the kind K + 128."""

    IDENTIFY = 1
    DATA = 2
    END = 3
    RESET = 4
    OUTPUT = 0x90
    ERROR = 0xFF

    @property
    def answer(self) -> int:
        """The kind of the last frame of the answer."""
        return self.value | 0x80


class Fault(IntEnum):
    """What a board has against a request, which then changed nothing."""

    CHECKSUM = 1
    LENGTH = 2
    KIND = 3


def checksum(content: bytes) -> int:
    """CRC-16/IBM-3740 (polynomial 0x1021, initial value 0xFFFF), often called CCITT-FALSE."""
    return binascii.crc_hqx(content, 0xFFFF)


def encode(kind: int, tag: int, payload: bytes = b"") -> bytes:
    """A frame as it goes over the line."""
    content = struct.pack("<BBH", kind, tag, len(payload)) + payload
    return SYNC + content + struct.pack(">H", checksum(content))


@dataclass(frozen=True)
class Frame:
    """A frame that arrived whole."""

    kind: int
    tag: int
    payload: bytes


class FrameReader:
    """Frames out of a stream of bytes; what is no frame with the right checksum is skipped.

    Args:
        longest: payload of the longest frame that the other side sends; a length above it is taken for garbage.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.waiting = bytearray()
        self.skipped = 0

    @property
    def wanted(self) -> int:
        """Bytes that are missing until a frame can be whole: more must not be waited for."""
        if len(self.waiting) < HEADER:
            return OVERHEAD - len(self.waiting)
        return OVERHEAD + self._length() - len(self.waiting)

    def feed(self, received: bytes) -> list[Frame]:
        """Take bytes; the frames that they complete."""
        self.waiting += received
        found = []
        while (frame := self._next()) is not None:
            found.append(frame)
        return found

    def _length(self) -> int:
        return int.from_bytes(self.waiting[4:HEADER], "little")

    def _next(self) -> Frame | None:
        while True:
            at = self.waiting.find(SYNC)
            if at < 0:
                at = len(self.waiting) - self.waiting.endswith(SYNC[:1])
            self.skipped += at
            del self.waiting[:at]
            if len(self.waiting) < OVERHEAD:
                return None
            length = self._length()
            whole = OVERHEAD + length
            if length <= self.longest:
                if len(self.waiting) < whole:
                    return None
                content, found = self.waiting[2 : whole - 2], self.waiting[whole - 2 : whole]
                if checksum(bytes(content)) == int.from_bytes(found, "big"):
                    del self.waiting[:whole]
                    return Frame(content[0], content[1], bytes(content[4:]))
            # Only the start was wrong for sure: a true frame may begin within what looked like one.
            self.skipped += 1
            del self.waiting[:1]


@dataclass(frozen=True)
class Identity:
    """What a board says of itself.

    Attributes:
        version: of the protocol.
        input_bytes, output_bytes: of an element on the line.
        inputs, outputs: elements of an input and of an output vector.
        input_bits, output_bits: of an element.
        input_signed, output_signed: whether it has a sign.
        every_step: whether a vector leaves after every time step, or only after the last of a sequence.
        argmax: whether the index of the largest output leaves instead of the outputs.
        capacity: bytes of elements that a request may carry.
        model: the first 8 bytes of the model's SHA-256.
        encoder: whether the vectors of every step leave only after the sequence's last one has come.
    """

    version: int
    input_bytes: int
    output_bytes: int
    inputs: int
    outputs: int
    input_bits: int
    output_bits: int
    input_signed: bool
    output_signed: bool
    every_step: bool
    argmax: bool
    capacity: int
    model: bytes
    encoder: bool = False

    LAYOUT: ClassVar[str] = "<BBBBHHHBB8s"
    #: Bytes of it.
    SIZE: ClassVar[int] = struct.calcsize(LAYOUT)

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> Identity:
        """Of the network that a manifest.json describes."""
        source, sink = manifest["ports"]["input"], manifest["ports"]["output"]
        return cls(
            VERSION, source["tdata_bits"] // 8, sink["tdata_bits"] // 8,
            source["elements_per_vector"], sink["elements_per_vector"],
            source["format"]["width"], sink["format"]["width"], source["format"]["signed"], sink["format"]["signed"],
            manifest["every_step"], manifest["argmax"], CAPACITY, bytes.fromhex(manifest["model_sha256"])[:8],
            manifest.get("repeat") is not None,
        )  # fmt: skip

    @classmethod
    def decode(cls, payload: bytes) -> Identity | None:
        """From the payload of an answer; None where it is none of this version."""
        if len(payload) != cls.SIZE or payload[0] != VERSION:
            return None
        version, a, b, flags, inputs, outputs, capacity, c, d, model = struct.unpack(cls.LAYOUT, payload)
        if not (a and b and inputs and outputs and capacity >= a):
            return None
        every, argmax, input_signed, output_signed, encoder = (bool(flags >> k & 1) for k in range(5))
        signs = input_signed, output_signed
        return cls(version, a, b, inputs, outputs, c, d, *signs, every, argmax, capacity, model, encoder)

    def encode(self) -> bytes:
        """The payload of an answer."""
        flags = self.every_step | self.argmax << 1 | self.input_signed << 2 | self.output_signed << 3
        flags |= self.encoder << 4
        return struct.pack(
            self.LAYOUT, self.version, self.input_bytes, self.output_bytes, flags, self.inputs, self.outputs,
            self.capacity, self.input_bits, self.output_bits, self.model,
        )  # fmt: skip

    @property
    def longest(self) -> int:
        """Payload of the longest frame of the board."""
        return max(self.SIZE, self.outputs * self.output_bytes + 1)
