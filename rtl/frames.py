"""The frames of docs/uart.md in hardware: requests out of bytes, answers into bytes.

The software's side is ``hwrnn/frames.py``, where the numbers come from.
"""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Signal
from amaranth.lib import stream
from amaranth.lib.crc.catalog import CRC16_IBM_3740
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hwrnn.frames import CAPACITY, HEADER, SYNC, Fault
from hwrnn.rtl.ports import Part

__all__ = ["FrameReceiver", "FrameSender"]


class FrameReceiver(Part):
    """Requests out of bytes, each shown only when it is whole and its checksum right.

    Bytes outside frames are skipped, and so are all that arrive between a request and ``done``.

    Args:
        unit: bytes of an element.

    Ports:
        data, valid: a byte, for one cycle.
        request: there is a request, or one that is faulty; it stays until ``done``.
        fault: what is wrong with it, 0 for nothing.
        kind, tag, length: of its header.
        whole: the payload is a whole number of elements, and not empty.
        address, byte: of the payload; the byte comes a cycle after its address.
        done: forget the request and listen.
    """

    def __init__(self, unit: int) -> None:
        self.unit = unit
        super().__init__(
            {
                "data": In(8), "valid": In(1),
                "request": Out(1), "fault": Out(8),
                "kind": Out(8), "tag": Out(8), "length": Out(16), "whole": Out(1),
                "address": In(range(CAPACITY)), "byte": Out(8),
                "done": In(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """One state for each part of a frame."""
        m = Module()
        m.submodules.crc = crc = CRC16_IBM_3740(data_width=8).create()
        m.submodules.payload = payload = Memory(shape=8, depth=CAPACITY, init=[])
        read = payload.read_port()
        write = payload.write_port()
        at = Signal(range(CAPACITY))
        left = Signal(range(CAPACITY + 1))
        place = Signal(range(max(self.unit, 2)))  # of a byte within its element
        m.d.comb += [
            read.addr.eq(self.address), self.byte.eq(read.data),
            write.addr.eq(at), write.data.eq(self.data),
            crc.data.eq(self.data), self.whole.eq((place == 0) & (self.length != 0)),
        ]  # fmt: skip
        with m.FSM(name="state") as state:
            taken = self.valid & ~state.ongoing("FIRST") & ~state.ongoing("SECOND")
            m.d.comb += crc.valid.eq(taken)
            with m.State("FIRST"):
                m.d.comb += crc.start.eq(1)
                m.d.sync += [at.eq(0), place.eq(0), self.fault.eq(0)]
                with m.If(self.valid & (self.data == SYNC[0])):
                    m.next = "SECOND"
            with m.State("SECOND"):
                with m.If(self.valid & (self.data == SYNC[1])):
                    m.next = "KIND"
                with m.Elif(self.valid & (self.data != SYNC[0])):
                    m.next = "FIRST"
            for name, field, then in (
                ("KIND", self.kind, "TAG"),
                ("TAG", self.tag, "LOW"),
                ("LOW", self.length[:8], "HIGH"),
                ("HIGH", self.length[8:], "LENGTH"),
            ):
                with m.State(name), m.If(self.valid):
                    m.d.sync += field.eq(self.data)
                    m.next = then
            with m.State("LENGTH"):  # no byte arrives so soon after another
                m.d.sync += left.eq(self.length)
                with m.If(self.length > CAPACITY):
                    m.d.sync += self.fault.eq(Fault.LENGTH)
                    m.next = "REQUEST"
                with m.Elif(self.length == 0):
                    m.next = "CHECK"
                with m.Else():
                    m.next = "PAYLOAD"
            with m.State("PAYLOAD"), m.If(self.valid):
                m.d.comb += write.en.eq(1)
                m.d.sync += [at.eq(at + 1), left.eq(left - 1), place.eq(place + 1)]
                with m.If(place == self.unit - 1):
                    m.d.sync += place.eq(0)
                with m.If(left == 1):
                    m.next = "CHECK"
            with m.State("CHECK"), m.If(self.valid):
                m.next = "SUM"
            with m.State("SUM"), m.If(self.valid):
                m.next = "COMPARE"
            with m.State("COMPARE"):
                with m.If(~crc.match_detected):
                    m.d.sync += self.fault.eq(Fault.CHECKSUM)
                m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.request.eq(1)
                with m.If(self.done):
                    m.next = "FIRST"
        return m


class FrameSender(Part):
    """Answers into bytes.

    Ports:
        start: for one cycle, while ``ready``: send a frame of this ``kind`` and ``length``.
        tag: of the frame, until ``ready``.
        ready: no frame is on its way; the last byte of the one before may still be in the transmitter.
        payload: stream of its bytes.
        o: stream of bytes to the transmitter.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1), "ready": Out(1),
                "kind": In(8), "tag": In(8), "length": In(16),
                "payload": In(stream.Signature(8)), "o": Out(stream.Signature(8)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Header, payload, checksum."""
        m = Module()
        m.submodules.crc = crc = CRC16_IBM_3740(data_width=8).create()
        count = Signal(range(HEADER))
        kind = Signal(8)
        left = Signal(16)
        header = Array([*(Const(b, 8) for b in SYNC), kind, self.tag, left[:8], left[8:]])
        sent = Signal()
        m.d.comb += [sent.eq(self.o.valid & self.o.ready), crc.data.eq(self.o.payload)]
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.comb += [self.ready.eq(1), crc.start.eq(1)]
                m.d.sync += [count.eq(0), kind.eq(self.kind), left.eq(self.length)]
                with m.If(self.start):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(header[count])]
                m.d.comb += crc.valid.eq(sent & (count >= len(SYNC)))
                with m.If(sent):
                    m.d.sync += count.eq(count + 1)
                    with m.If(count == HEADER - 1):
                        m.next = "PAYLOAD"
            with m.State("PAYLOAD"):
                m.d.sync += count.eq(0)
                with m.If(left == 0):
                    m.next = "SUM"
                with m.Else():
                    m.d.comb += [self.o.valid.eq(self.payload.valid), self.o.payload.eq(self.payload.payload)]
                    m.d.comb += [self.payload.ready.eq(self.o.ready), crc.valid.eq(sent)]
                    with m.If(sent):
                        m.d.sync += left.eq(left - 1)
            with m.State("SUM"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(count == 0):
                    m.d.comb += self.o.payload.eq(crc.crc[8:])
                with m.Else():
                    m.d.comb += self.o.payload.eq(crc.crc[:8])
                with m.If(sent):
                    m.d.sync += count.eq(1)
                    with m.If(count == 1):
                        m.next = "IDLE"
        return m
