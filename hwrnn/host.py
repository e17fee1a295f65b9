"""The host's side of a board's UART: a conversation in the frames of docs/uart.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np

from hwrnn.errors import UsageError, require
from hwrnn.frames import CAPACITY, OVERHEAD, VERSION, Fault, Frame, FrameReader, Identity, Kind, encode

__all__ = ["BoardClient", "LineError", "Port", "opened"]

_TRIES = 3  # of a request, and of a sequence, before a line is given up
_QUIET = 0.1  # seconds of silence after which nothing of an earlier conversation is on its way any more
_CHATTER = 4096  # bytes that are no frame, after which none is to be hoped for


class Port(Protocol):
    """A serial port as pyserial has it; anything with these methods serves.

    Attributes:
        timeout: seconds that ``read`` waits for all it was asked for; it returns what came. ``flush`` returns when all
            that was written is on the line.
    """

    timeout: Any

    def read(self, size: int = 1, /) -> bytes: ...

    def write(self, content: bytes, /) -> Any: ...

    def flush(self) -> Any: ...


class LineError(UsageError):
    """A board gave no answer that could be used, or none in time."""


class BoardClient:
    """A conversation with a board.

    Args:
        port: an open port.
        name: of the port, for messages.
        timeout: seconds without a byte after which an answer counts as lost.
    """

    def __init__(self, port: Port, name: str = "the port", timeout: float = 2.0) -> None:
        self.port, self.name, self.timeout = port, name, timeout
        self.reader = FrameReader(Identity.SIZE)
        self.tag = 0
        #: Requests that the board refused for their checksum, and sequences that were sent again.
        self.repeated = 0

    def identify(self) -> Identity:
        """What the board says of itself.

        Raises:
            UsageError: no answer, or one of another version of the protocol.
        """
        for _ in range(_TRIES):
            self.synchronize()
            try:
                answer = self.request(Kind.IDENTIFY)[-1]
            except LineError:
                continue
            found = Identity.decode(answer.payload)
            if found is None:
                spoken = answer.payload[0] if answer.payload else None
                raise UsageError(
                    f"Board on {self.name} must speak version {VERSION} of the protocol, not {spoken!r}: make its"
                    " bitstream anew with this version of hwrnn"
                )
            self.reader.longest = found.longest
            return found
        raise LineError(
            f"Board on {self.name} must answer, and does not within {self.timeout:g} s: check the port, the baud rate,"
            " and that a bitstream of hwrnn implement --board is loaded"
        )

    def synchronize(self) -> None:
        """End whatever frame the board takes itself to be in, and forget all answers on their way."""
        self.port.write(bytes(CAPACITY + OVERHEAD))
        self.port.flush()
        # A frame that these zeros end is answered with a complaint of its checksum.
        self.port.timeout = min(_QUIET, self.timeout)
        for _ in range(_CHATTER // 256):
            if not self.port.read(256):
                break
        self.reader.waiting.clear()

    def request(self, kind: Kind, payload: bytes = b"") -> list[Frame]:
        """Send a request; all frames of its answer.

        A request that the board refuses for its checksum is sent again.

        Raises:
            LineError: no answer, or a refusal.
        """
        for _ in range(_TRIES):
            self.tag = (self.tag + 1) % 256
            self.port.write(encode(kind, self.tag, payload))
            frames: list[Frame] = []
            while not frames or frames[-1].kind not in (kind.answer, Kind.ERROR):
                # Where the checksum is wrong, so may be the tag that comes back.
                frames += [f for f in self._frames() if f.tag == self.tag or _damaged(f)]
            if frames[-1].kind == kind.answer:
                return frames
            if not _damaged(frames[-1]):
                code = frames[-1].payload.hex()
                raise LineError(f"Board on {self.name} must take a request, and refuses it with the code {code!r}")
            self.repeated += 1
        raise LineError(f"Line to {self.name} must carry frames whole, and {_TRIES} of {_TRIES} arrived damaged")

    def _frames(self) -> list[Frame]:
        """At least one frame from the board."""
        before = self.reader.skipped
        while self.reader.skipped < before + _CHATTER:
            self.port.timeout = self.timeout
            received = self.port.read(self.reader.wanted)
            if not received:
                raise LineError(f"Board on {self.name} must answer, and does not within {self.timeout:g} s")
            found = self.reader.feed(received)
            if found:
                return found
        raise LineError(f"Board on {self.name} must answer in frames, and sends something else")

    def sequence(self, raw: np.ndarray, identity: Identity) -> np.ndarray:
        """Send one sequence, raw integers (steps, inputs); the raw output vectors (vectors, outputs).

        Where the line fails, the board drops what it has of the sequence, and all of it is sent again.

        Raises:
            LineError: it failed several times.
        """
        for attempt in range(_TRIES):
            try:
                if attempt:
                    self.repeated += 1
                    self.synchronize()
                    self.request(Kind.RESET)
                return self._sequence(raw, identity)
            except LineError as error:
                if attempt == _TRIES - 1:
                    raise LineError(f"{error} (a sequence was sent {_TRIES} times)") from error
        raise AssertionError

    def _sequence(self, raw: np.ndarray, identity: Identity) -> np.ndarray:
        content = packed(raw, identity.input_bytes)
        room = identity.capacity // identity.input_bytes * identity.input_bytes
        vectors, ends, size = [], [], identity.outputs * identity.output_bytes
        for at in range(0, len(content), room):
            kind = Kind.END if at + room >= len(content) else Kind.DATA
            for frame in self.request(kind, content[at : at + room])[:-1]:
                if frame.kind != Kind.OUTPUT or len(frame.payload) != size + 1:
                    raise LineError(f"Board on {self.name} must send vectors of {size} bytes, and did not")
                vectors.append(unpacked(frame.payload[:size], identity))
                ends.append(frame.payload[size])
        due = len(raw) if identity.every_step else 1
        if ends != [0] * (due - 1) + [1]:
            raise LineError(
                f"Board on {self.name} must answer a sequence with {due} vectors, the last one marked as such, and did"
                f" with {len(ends)}"
            )
        return np.stack(vectors)


def _damaged(frame: Frame) -> bool:
    return frame.kind == Kind.ERROR and frame.payload == bytes([Fault.CHECKSUM])


def packed(raw: np.ndarray, size: int) -> bytes:
    """Raw integers as bytes, ``size`` of each, the lowest first."""
    flat = np.ascontiguousarray(raw, "<i8").reshape(-1, 1)
    return flat.view(np.uint8)[:, :size].tobytes()


def unpacked(content: bytes, identity: Identity) -> np.ndarray:
    """The raw elements of a vector."""
    size = identity.output_bytes
    signed = identity.output_signed
    return np.array(
        [int.from_bytes(content[k : k + size], "little", signed=signed) for k in range(0, len(content), size)], np.int64
    )


@contextmanager
def opened(port: str | Port, baud: int, timeout: float) -> Iterator[Port]:
    """A port that is open, and closed behind the block where it was given by its name.

    Raises:
        UsageError: it cannot be opened, or fails within the block.
        MissingExtra: pyserial is not installed, and the port was given by its name.
    """
    if not isinstance(port, str):
        line, name, close = port, "of the board", False
    else:
        serial = require("serial", "board")
        try:
            made = serial.serial_for_url(port, baudrate=baud, timeout=timeout, write_timeout=max(timeout, 1.0))
        except (OSError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"Port must be one that can be opened at {baud} baud, not {port!r} ({reason}): name the board's serial"
                " port"
            ) from error
        # An FTDI bridge holds bytes back for 16 ms otherwise. Not every system and port has this.
        with suppress(OSError, ValueError, AttributeError, NotImplementedError):
            made.set_low_latency_mode(True)
        line, name, close = made, port, True
    try:
        yield line
    except OSError as error:
        raise UsageError(f"Port {name} must stay connected, but failed ({' '.join(str(error).split())})") from error
    finally:
        if close:
            made.close()
