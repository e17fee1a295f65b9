"""The load port: frames come in byte by byte, and a word is written once its frame has proved right.

A begin frame holds the network's input, an end frame releases it; between them every word of every memory has to come,
in order. So no sequence ever meets weights of two models, and a frame that is wrong in anything changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hwrnn.fixed import Format
from hwrnn.rtl.load_frames import BEGIN, END, VERSION, WORD
from hwrnn.rtl.ports import Part, element

__all__ = ["BYTES", "Gate", "Loader"]

#: The payload of the load port.
BYTES = data.StructLayout({"data": 8, "last": 1})

_POLYNOMIAL = 0xEDB88320  # of CRC-32 (IEEE 802.3), lowest power first
_RIGHT = 0xDEBB20E3  # what the register holds after a message and its own checksum
_ONES = (1 << 32) - 1
_BEGIN_LENGTH, _WORD_EXTRA, _END_LENGTH = 1 + 1 + 4 + 4, 1 + 1 + 3 + 4, 1 + 4


def _crc(register: int, byte: int) -> int:
    """One byte through the register."""
    register ^= byte
    for _ in range(8):
        register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
    return register


def _crc_gates(register: Value, byte: Value) -> Value:
    """The same as gates: it is linear, so what each bit alone gives tells which bits meet in an exclusive or."""
    inputs = [*register, *byte]
    alone = [_crc(1 << k, 0) for k in range(32)] + [_crc(0, 1 << k) for k in range(8)]
    return Cat(Cat(bit for bit, given in zip(inputs, alone, strict=True) if given >> k & 1).xor() for k in range(32))


class Loader(Part):
    """Takes frames, writes words, and answers each frame with a byte.

    Args:
        identity: four bytes that a begin frame has to name.
        memories: ``(depth, width)`` of each, in the order in which their words come.
        empty: whether there are no weights at first, so that the network is held until some have been loaded.

    Ports:
        i: stream of bytes; ``last`` with the last of a frame.
        o: stream of answers (``hwrnn.rtl.load_frames``); that to a begin frame comes once the network is at rest.
        held: the network may begin no sequence. A reset leaves it as it is, for it leaves the memories as they are.
        drained: no sequence is on its way.
        write_K: memory K takes the word.
        address, word: of what is written.
    """

    def __init__(self, identity: bytes, memories: Sequence[tuple[int, int]], empty: bool = False) -> None:
        self.identity, self.memories, self.empty = identity, list(memories), empty
        deepest, widest = (max(sizes) for sizes in zip(*memories, strict=True))
        super().__init__(
            {
                "i": In(stream.Signature(BYTES)),
                "o": Out(stream.Signature(8)),
                "held": Out(1, init=int(empty)),
                "drained": In(1),
                **{f"write_{k}": Out(1) for k in range(len(self.memories))},
                "address": Out(range(max(deepest, 2))),
                "word": Out(widest),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """A state for the bytes of a frame, and some for its verdict."""
        m = Module()
        lengths = [_WORD_EXTRA + -(-width // 8) for _, width in self.memories]
        longest = max(*lengths, _BEGIN_LENGTH)
        held = Signal(init=int(self.empty), name="holds", reset_less=True)
        loading, complete = Signal(name="loading"), Signal(name="complete")
        target = Signal(range(max(len(lengths), 2)), name="target")
        at = Signal(range(longest + 2), name="at")
        is_begin, is_word, is_end, ends = (Signal(name=name) for name in ("is_begin", "is_word", "is_end", "ends"))
        header, astray, fits = (Signal(name=name) for name in ("header", "astray", "fits"))
        in_place, whole, accepted = (Signal(name=name) for name in ("in_place", "whole", "accepted"))
        byte, reason = Signal(8, name="taken"), Signal(2, name="reason")
        crc, chain = Signal(32, name="crc"), Signal(32, name="chain")
        # A frame's last bytes, the last one lowest: a word comes with its highest byte first, so that words of any size
        # end up above the checksum.
        tail = Signal(len(self.word) // -8 * -8 + 32, name="tail", reset_less=True)
        m.d.comb += [self.held.eq(held), self.word.eq(tail[32:])]
        checksum = Cat(tail.word_select(k, 8) for k in reversed(range(4)))

        expected = Signal(8, name="expected")
        address = Cat(self.address, Const(0, 24 - len(self.address)))
        writes = [getattr(self, f"write_{k}") for k in range(len(self.memories))]
        named = Array([Const(VERSION, 8), *(Const(value, 8) for value in self.identity)])
        placed = Array([Cat(target, Const(0, 8 - len(target))), *(address.word_select(k, 8) for k in range(3))])
        field = Signal(range(8), name="field")
        m.d.comb += field.eq(at - 1)
        length = Signal(range(longest + 1), name="length")
        with m.FSM(name="state"):
            # Three cycles for a byte, so that little stands between two registers.
            with m.State("BYTE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [byte.eq(self.i.payload.data), ends.eq(self.i.payload.last)]
                with m.If(self.i.valid):
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += expected.eq(Mux(is_begin, named[field], placed[field]))
                m.d.sync += header.eq((is_begin & (at <= 5)) | (is_word & (at <= 4)))
                with m.If(at == 0):
                    m.d.sync += [is_begin.eq(byte == BEGIN), is_word.eq(byte == WORD), is_end.eq(byte == END)]
                    m.d.sync += [header.eq(0), crc.eq(Mux(byte == BEGIN, Const(_ONES, 32), ~chain))]
                m.next = "TAKE"
            with m.State("TAKE"):
                m.d.sync += [tail.eq(Cat(byte, tail)), crc.eq(_crc_gates(crc, byte))]
                with m.If(at <= longest):
                    m.d.sync += at.eq(at + 1)
                with m.If(header & (byte != expected)):
                    m.d.sync += astray.eq(1)
                m.d.sync += length.eq(Mux(is_begin, _BEGIN_LENGTH, Mux(is_end, _END_LENGTH, Array(lengths)[target])))
                m.next = "BYTE"
                with m.If(ends):
                    m.next = "WEIGH"
            with m.State("WEIGH"):
                m.d.sync += [
                    fits.eq((at == length) & (is_begin | is_word | is_end)),
                    in_place.eq(~astray & (is_begin | (loading & Mux(is_end, complete, ~complete)))),
                    whole.eq(crc == _RIGHT),
                ]
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += accepted.eq(fits & in_place & whole)
                m.d.sync += reason.eq(Mux(~fits, 1, Mux(~in_place, 2, Mux(~whole, 3, 0))))
                m.next = "ACT"
            with m.State("ACT"):
                m.next = "ANSWER"
                with m.If(accepted):
                    m.d.sync += chain.eq(checksum)
                    with m.If(is_begin):
                        m.d.sync += [held.eq(1), loading.eq(1), complete.eq(0), target.eq(0), self.address.eq(0)]
                        m.next = "REST"
                    with m.Elif(is_end):
                        m.d.sync += [held.eq(0), loading.eq(0)]
                    with m.Else():
                        m.d.sync += [write.eq(target == k) for k, write in enumerate(writes)]
                        m.next = "WRITE"
            with m.State("WRITE"):
                m.d.sync += [write.eq(0) for write in writes]
                self._advance(m, target, complete)
                m.next = "ANSWER"
            with m.State("REST"), m.If(self.drained):
                m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(Cat(reason, Const(0, 5), held))]
                with m.If(self.o.ready):
                    m.d.sync += [at.eq(0), astray.eq(0), accepted.eq(0)]
                    m.next = "BYTE"
        return m

    def _advance(self, m: Module, target: Signal, complete: Signal) -> None:
        """To the next word, or past the last."""
        m.d.sync += self.address.eq(self.address + 1)
        with m.Switch(target):
            for k, (depth, _) in enumerate(self.memories):
                with m.Case(k), m.If(self.address == depth - 1):
                    m.d.sync += self.address.eq(0)
                    m.d.sync += complete.eq(1) if k + 1 == len(self.memories) else target.eq(k + 1)


class Gate(Part):
    """Lets sequences in, or holds the next ones back, and knows when all have left; it adds no cycle.

    Args:
        form: of the elements.
        inputs: elements of a vector.
        most: sequences that can be on their way at a time.
        channels: independent sequences, whose vectors take turns.

    Ports:
        i, o: the stream before and behind.
        hold: no sequence may begin; what has begun goes on. With several channels that is until all are between two
            sequences at the end of a round, for a round needs a vector of each.
        left: the last output element of a sequence is taken.
        drained: it holds, and every sequence has left.
    """

    def __init__(self, form: Format, inputs: int, most: int, channels: int = 1) -> None:
        self.inputs, self.most, self.channels = inputs, most, channels
        super().__init__(
            {
                "i": In(stream.Signature(element(form))),
                "o": Out(stream.Signature(element(form))),
                "hold": In(1),
                "left": In(1),
                "drained": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Count elements of a vector, vectors of a round, and sequences."""
        m = Module()
        count = Signal(range(max(self.inputs, 2)), name="count")
        turn = Signal(range(max(self.channels, 2)), name="turn")
        inside = Signal(self.channels, name="inside")  # each channel's sequence has begun and not ended
        pending = Signal(range(self.most + 1), name="pending")
        own = Array(inside)[turn] if self.channels > 1 else inside
        names = ("open", "moved", "running", "ends", "begins")
        open_, moved, running, ends, begins = (Signal(name=name) for name in names)
        m.d.comb += [
            running.eq(inside.any() | (turn != 0) if self.channels > 1 else inside),
            open_.eq(running | ~self.hold),
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & open_),
            self.i.ready.eq(self.o.ready & open_),
            moved.eq(self.o.valid & self.o.ready),
            ends.eq(count == self.inputs - 1),
            begins.eq(moved & ~own),
        ]
        with m.If(moved):
            m.d.sync += [count.eq(Mux(ends, 0, count + 1)), own.eq(~(ends & self.i.payload.last))]
            if self.channels > 1:
                with m.If(ends):
                    m.d.sync += turn.eq(Mux(turn == self.channels - 1, 0, turn + 1))
        m.d.sync += pending.eq(pending + begins - self.left)
        m.d.sync += self.drained.eq(self.hold & ~running & (pending == 0))
        return m
