"""What stands between a board's UART and a network: it takes requests, feeds the network, and answers."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwrnn.frames import CAPACITY, Fault, Identity, Kind
from hwrnn.rtl.frames import FrameReceiver, FrameSender
from hwrnn.rtl.ports import Part
from hwrnn.rtl.uart import Receiver, Transmitter

__all__ = ["Server"]

_RESET = 8  # cycles that a reset of the network lasts; it is registered once


class Server(Part):
    """A network's partner on both of its AXI4-Stream ports, behind a serial line.

    One request is worked at a time. Its elements enter the network only when all of them are there and the checksum is
    right. Every output vector that they complete leaves in a frame of its own, then comes the request's own answer; so
    between two requests the network holds no output, and the line is silent.

    Args:
        identity: of the network.
        divisor: cycles of a bit.

    Ports:
        rx, tx: the line.
        aresetn: of the network, active low, for a request to reset it.
        s_axis_*: to the network's input.
        m_axis_*: from its output.
    """

    def __init__(self, identity: Identity, divisor: int) -> None:
        self.identity, self.divisor = identity, divisor
        super().__init__(
            {
                "rx": In(1, init=1), "tx": Out(1, init=1), "aresetn": Out(1, init=1),
                "s_axis_tdata": Out(8 * identity.input_bytes), "s_axis_tvalid": Out(1), "s_axis_tready": In(1),
                "s_axis_tlast": Out(1),
                "m_axis_tdata": In(8 * identity.output_bytes), "m_axis_tvalid": In(1), "m_axis_tready": Out(1),
                "m_axis_tlast": In(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """The four parts of the line, and two state machines: what to send, and what to feed."""
        m = Module()
        identity = self.identity
        m.submodules.receiver = receiver = Receiver(self.divisor)
        m.submodules.transmitter = transmitter = Transmitter(self.divisor)
        m.submodules.requests = requests = FrameReceiver(identity.input_bytes)
        m.submodules.answers = answers = FrameSender()
        wiring.connect(m, answers.o, transmitter.i)
        m.d.comb += [
            receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx),
            requests.data.eq(receiver.data), requests.valid.eq(receiver.valid),
            answers.tag.eq(requests.tag),
        ]  # fmt: skip
        feed, fed, vectors = (Signal(name=name) for name in ("feed", "fed", "vectors"))
        self._feeder(m, requests, feed, fed, vectors)
        self._responder(m, requests, answers, feed, fed, vectors)
        return m

    def _feeder(self, m: Module, requests: FrameReceiver, feed: Signal, fed: Signal, vectors: Signal) -> None:
        """From ``feed`` to ``fed``, put the request's elements into the network; ``vectors`` counts its answers."""
        identity = self.identity
        unit = identity.input_bytes
        at = Signal(range(CAPACITY + 1))
        place = Signal(range(max(unit, 2)))
        feature = Signal(range(max(identity.inputs, 2)))
        element = Signal(8 * unit)
        final = Signal()
        m.d.comb += [
            requests.address.eq(at), self.s_axis_tdata.eq(element),
            final.eq(at == requests.length), self.s_axis_tlast.eq(final & (requests.kind == Kind.END)),
        ]  # fmt: skip
        with m.FSM(name="feeder"):
            with m.State("IDLE"):
                m.d.sync += at.eq(0)
                with m.If(~self.aresetn):
                    m.d.sync += feature.eq(0)
                with m.If(feed):
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += at.eq(at + 1)
                m.next = "BYTE"
            with m.State("BYTE"):
                m.d.sync += element.eq(Cat(element[8:], requests.byte))  # the lowest byte comes first
                m.d.sync += place.eq(place + 1)
                with m.If(place == unit - 1):
                    m.d.sync += place.eq(0)
                    m.next = "OFFER"
                with m.Else():
                    m.next = "READ"
            with m.State("OFFER"):
                m.d.comb += self.s_axis_tvalid.eq(1)
                with m.If(self.s_axis_tready):
                    m.d.sync += feature.eq(feature + 1)
                    with m.If(feature == identity.inputs - 1):
                        m.d.sync += feature.eq(0)
                        m.d.comb += vectors.eq(1 if identity.every_step and not identity.encoder else self.s_axis_tlast)
                    with m.If(final):
                        m.next = "FED"
                    with m.Else():
                        m.next = "READ"
            with m.State("FED"):
                m.d.comb += fed.eq(1)
                with m.If(~feed):
                    m.next = "IDLE"

    def _responder(
        self, m: Module, requests: FrameReceiver, answers: FrameSender, feed: Signal, fed: Signal, vectors: Signal
    ) -> None:
        """Decide on a request, and send what there is to send."""
        identity = self.identity
        facts = identity.encode()
        fault = Signal(8)
        index = Signal(range(len(facts)))
        facts_at = Array(Const(b, 8) for b in facts)
        place = Signal(range(max(identity.output_bytes, 2)))
        element = Signal(range(identity.outputs + 1))
        last = Signal()
        # Output vectors that the network still owes; behind an encoder, the last one of a sequence stands for all.
        due = Signal(range(CAPACITY + 1))
        sent = Signal()  # a frame for one of them is complete
        pause = Signal(range(_RESET))
        payload = answers.payload
        taken = Signal()
        m.d.comb += taken.eq(payload.valid & payload.ready)
        m.d.sync += due.eq(due + vectors - sent)

        def begin(kind: object, length: int) -> None:
            m.d.comb += [answers.start.eq(1), answers.kind.eq(kind), answers.length.eq(length)]

        def end() -> None:
            with m.If(answers.ready):
                m.d.comb += requests.done.eq(1)
                m.next = "WAIT"

        with m.FSM(name="responder") as fsm:
            with m.State("WAIT"):
                m.d.sync += [index.eq(0), pause.eq(_RESET - 1), fault.eq(Fault.LENGTH)]
                with m.If(requests.request):
                    with m.If(requests.fault != 0):
                        m.d.sync += fault.eq(requests.fault)
                        m.next = "FAULT"
                    with m.Else(), m.Switch(requests.kind):
                        with m.Case(Kind.IDENTIFY, Kind.RESET):
                            with m.If(requests.length != 0):
                                m.next = "FAULT"
                            with m.Elif(requests.kind == Kind.RESET):
                                m.next = "RESET"
                            with m.Else():
                                m.next = "IDENTITY"
                        with m.Case(Kind.DATA, Kind.END):
                            with m.If(requests.whole):
                                m.next = "FEED"
                            with m.Else():
                                m.next = "FAULT"
                        with m.Default():
                            m.d.sync += fault.eq(Fault.KIND)
                            m.next = "FAULT"
            with m.State("FAULT"):
                begin(Kind.ERROR, 1)
                m.next = "FAULT SENT"
            with m.State("FAULT SENT"):
                m.d.comb += [payload.valid.eq(1), payload.payload.eq(fault)]
                end()
            with m.State("IDENTITY"):
                begin(Kind.IDENTIFY.answer, len(facts))
                m.next = "IDENTITY SENT"
            with m.State("IDENTITY SENT"):
                m.d.comb += [payload.valid.eq(1), payload.payload.eq(facts_at[index])]
                with m.If(taken):
                    m.d.sync += index.eq(index + 1)
                end()
            with m.State("RESET"):
                m.d.comb += self.aresetn.eq(0)
                m.d.sync += pause.eq(pause - 1)
                with m.If(pause == 0):
                    m.next = "ANSWER"
            with m.State("FEED"):
                m.d.sync += [element.eq(0), place.eq(0)]
                with m.If(self.m_axis_tvalid):
                    begin(Kind.OUTPUT, identity.outputs * identity.output_bytes + 1)
                    m.next = "OUTPUT"
                with m.Elif(fed & (due == 0)):
                    m.next = "ANSWER"
            with m.State("OUTPUT"):
                m.d.comb += payload.valid.eq(self.m_axis_tvalid)
                m.d.comb += payload.payload.eq(self.m_axis_tdata.word_select(place, 8))
                with m.If(taken):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == identity.output_bytes - 1):
                        m.d.comb += self.m_axis_tready.eq(1)
                        m.d.sync += [place.eq(0), element.eq(element + 1), last.eq(self.m_axis_tlast)]
                        with m.If(element == identity.outputs - 1):
                            m.next = "LAST"
            with m.State("LAST"):
                m.d.comb += [payload.valid.eq(1), payload.payload.eq(last)]
                with m.If(answers.ready):
                    m.d.comb += sent.eq(last if identity.encoder else 1)
                    m.next = "FEED"
            with m.State("ANSWER"):
                begin(requests.kind | 0x80, 0)
                m.next = "ANSWERED"
            with m.State("ANSWERED"):
                end()
            m.d.comb += feed.eq(fsm.ongoing("FEED") | fsm.ongoing("OUTPUT") | fsm.ongoing("LAST"))
