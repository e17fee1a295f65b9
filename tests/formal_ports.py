"""What stands at the edges of a network keeps the handshake too: AXI4-Stream ports, load port, serial line.

An engine was shown to work for any producer and any consumer (``formal_engine``), so a row of them does; here are the
wires between and around them, and whole networks for runs of a bounded number of cycles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from amaranth.hdl import (
    Assert,
    Assume,
    Cat,
    ClockSignal,
    DomainRenamer,
    Module,
    Signal,
)
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from formal import Outcome, Proof
from formal_engine import numbered_class
from formal_streams import AnyReset, Harness, consume, counter, free, in_order, kept, planted, produce, reach
from networks import network_of

from hwrnn.frames import HEADER, SYNC, Identity
from hwrnn.rtl.axi import AxiStreamTop
from hwrnn.rtl.engine import Engine
from hwrnn.rtl.frames import FrameReceiver, FrameSender
from hwrnn.rtl.loading import Loader
from hwrnn.rtl.network import Network
from hwrnn.rtl.ports import Part
from hwrnn.rtl.server import Server
from hwrnn.rtl.uart import Receiver, Transmitter

__all__ = ["PROOFS"]


class Line(Part):
    """A transmitter and a receiver of bytes."""

    def __init__(self, divisor: int, sender: type = Transmitter) -> None:
        self.sender, self.receiver = sender(divisor), Receiver(divisor)
        super().__init__({"i": In(stream.Signature(8)), "data": Out(8), "valid": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """The line between them."""
        m = Module()
        m.submodules.sender, m.submodules.receiver = self.sender, self.receiver
        wiring.connect(m, wiring.flipped(self.i), self.sender.i)
        m.d.comb += [self.receiver.rx.eq(self.sender.tx), self.data.eq(self.receiver.data)]
        m.d.comb += self.valid.eq(self.receiver.valid)
        return m


def of_line(m: Module, part: Line) -> None:
    """Each byte comes out of the line."""
    moves = produce(m, part.i)
    in_order(m, moves, part.i.payload, part.valid, part.data, 2)


def of_loader(m: Module, part: Loader) -> None:
    """Each frame is answered once, and words are written only while the network is held."""
    moves, answers = produce(m, part.i), consume(m, part.o, "answer")
    m.d.comb += part.drained.eq(free(m, 1, "drained"))
    asked = Signal(range(3))
    m.d.sync += asked.eq(asked + (moves & part.i.payload.last) - answers)
    writes = Cat(getattr(part, f"write_{k}") for k in range(len(part.memories)))
    m.d.comb += [
        Assert(asked <= 1, "each frame is answered before the next one comes"),
        Assert(~part.o.valid | (asked == 1), "an answer is that to a frame"),
        Assert(~writes.any() | part.held, "nothing is written while the network runs"),
        *(Assert(~(writes[k] & writes[:k].any()), "one memory takes the word") for k in range(len(writes))),
        *(
            Assert(~write | (part.address < depth), "a word has its place")
            for write, (depth, _) in zip(writes, part.memories, strict=True)
        ),
    ]


def of_sender(m: Module, part: FrameSender) -> None:
    """A frame has its header, its payload in order, and two bytes more; what is offered stays."""
    most = 3
    leaves = consume(m, part.o)
    m.d.comb += [
        part.start.eq(free(m, 1, "starts") & part.ready), part.payload.valid.eq(free(m, 1, "has_payload")),
        part.payload.payload.eq(free(m, 8, "byte")), part.kind.eq(free(m, 8, "kind")), part.tag.eq(0x77),
        part.length.eq(free(m, 2, "length")),
    ]  # fmt: skip
    kept(m, part.payload, "payload", lambda test, _: Assume(test))
    kind, length, at = Signal(8), Signal(2), Signal(range(HEADER + most + 3))
    with m.If(part.start):
        m.d.sync += [kind.eq(part.kind), length.eq(part.length), at.eq(0)]
    with m.Elif(leaves):
        m.d.sync += at.eq(at + 1)
    header = [*SYNC, kind, 0x77, length, 0]
    for k, byte in enumerate(header):
        m.d.comb += Assert(~part.o.valid | (at != k) | (part.o.payload == byte), "the header comes first")
    taken = part.payload.valid & part.payload.ready
    within = (at >= HEADER) & (at < HEADER + length)
    m.d.comb += [
        Assert(taken == (leaves & within), "each byte of the payload leaves as it is taken"),
        Assert(~taken | (part.o.payload == part.payload.payload), "it leaves as it entered"),
        Assert(~part.o.valid | ~part.ready, "no frame begins before the last one's end"),
    ]
    began = Signal()
    with m.If(part.start):
        m.d.sync += began.eq(1)
    m.d.comb += Assert(~part.ready | ~began | (at == HEADER + length + 2), "a frame is as long as it says")


class _Bytes(Part):
    """Stands for the receiver of a line: its port shows any byte in any cycle but two in a row."""

    def __init__(self, divisor: int) -> None:
        super().__init__({"rx": In(1, init=1), "data": Out(8), "valid": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """Bytes do not come one directly behind the other."""
        m = Module()
        quiet = Signal(init=1)
        m.d.comb += [self.data.eq(free(m, 8, "any_byte")), self.valid.eq(free(m, 1, "comes") & quiet)]
        m.d.sync += quiet.eq(~self.valid)
        return m


class _Sink(Part):
    """Stands for the transmitter of a line: takes a byte in any cycle, and sees the handshake kept."""

    def __init__(self, divisor: int) -> None:
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        """Any stall."""
        m = Module()
        m.d.comb += self.i.ready.eq(free(m, 1, "takes"))
        kept(m, self.i, "sent", Assert)
        return m


def server(base: Any = Server) -> Any:
    """Between free bytes and a free network, with payloads of up to 3 bytes."""
    small = {"CAPACITY": 3}
    frames = planted(FrameReceiver, "", "", **small)
    made = planted(base, "", "", Receiver=_Bytes, Transmitter=_Sink, FrameReceiver=frames, **small)
    return made(Identity(1, 1, 1, 2, 1, 3, 3, True, True, True, False, 3, bytes(8)), 8)


def of_server(m: Module, part: Any) -> None:
    """It keeps the handshake to the network, and takes an element only to send it."""
    waits, before = Signal(), Signal(9)
    said = Cat(part.s_axis_tdata, part.s_axis_tlast)
    m.d.comb += [
        part.s_axis_tready.eq(free(m, 1, "takes")), part.m_axis_tvalid.eq(free(m, 1, "gives")),
        part.m_axis_tdata.eq(free(m, 8, "gives_data")), part.m_axis_tlast.eq(free(m, 1, "gives_last")),
    ]  # fmt: skip
    m.d.sync += [waits.eq(part.s_axis_tvalid & ~part.s_axis_tready & part.aresetn), before.eq(said)]
    with m.If(waits):
        m.d.comb += Assert(part.s_axis_tvalid & (said == before), "an element stays until the network takes it")
    stays, held = Signal(), Signal(9)
    shown = Cat(part.m_axis_tdata, part.m_axis_tlast)
    m.d.sync += [stays.eq(part.m_axis_tvalid & ~part.m_axis_tready), held.eq(shown)]
    with m.If(stays):
        m.d.comb += Assume(part.m_axis_tvalid & (shown == held))
    m.d.comb += Assert(~part.m_axis_tready | part.m_axis_tvalid, "an element is taken when there is one")


def small_network(argmax: bool = False, channels: int = 1, every_step: bool = True, base: Any = Engine) -> Any:
    """An engine of one unit and a head of two outputs, whose elements are the numbers of units."""
    model = network_of("rnn", 1, 1, 2, bits=3, every_step=every_step)[0]
    return planted(Network, "", "", Engine=numbered_class(base))(model, 2, argmax, channels=channels)


def of_network(m: Module, part: Network) -> None:
    """Output vectors are as many as the inputs imply, in order, each with its own ``last`` and channel."""
    channels, moves, leaves = part.channels, produce(m, part.i), consume(m, part.o)
    _, complete = counter(m, moves, part.model.inputs, "place")
    out, whole = counter(m, leaves, part.outputs_per_vector, "place_out")
    turn, _ = counter(m, complete, channels, "whose")
    given = complete if part.model.every_step else complete & part.i.payload.last
    token, shown = [part.i.payload.last], [part.o.payload.last]
    if channels > 1:
        token, shown = [*token, turn], [*shown, part.o.payload.channel]
    most = sum(engine.schedule.buffer + 4 * channels + 4 for engine in part.engines)
    in_order(m, given, Cat(*token), whole, Cat(*shown), most)
    with m.If(part.o.valid & part.o.payload.last):
        m.d.comb += Assert(out == part.outputs_per_vector - 1, "last stands with a vector's last element")
    if not part.argmax:
        m.d.comb += Assert(~part.o.valid | (part.o.payload.data.as_unsigned() == out), "elements leave in order")


def top(old: str = "", new: str = "") -> Any:
    """The ports around a small network, in domains whose names do not clash with the harness'."""
    base = planted(AxiStreamTop, old, new)

    class Top(base):
        def elaborate(self, platform: object) -> Any:
            """Amaranth lets no domain hide another of its name."""
            return DomainRenamer({"sync": "inside", "registered": "outside"})(super().elaborate(platform))

    return Top(small_network())


def of_top(m: Module, part: AxiStreamTop) -> None:
    """What is offered stays, but for a reset, in which both ports are quiet."""
    data = Cat(part.m_axis_tdata, part.m_axis_tlast)
    m.d.comb += [
        part.aclk.eq(ClockSignal()), part.aresetn.eq(free(m, 1, "aresetn")), part.m_axis_tready.eq(free(m, 1, "takes")),
        part.s_axis_tvalid.eq(free(m, 1, "offers")), part.s_axis_tdata.eq(free(m, 8, "any")),
        part.s_axis_tlast.eq(free(m, 1, "any_last")),
    ]  # fmt: skip
    waits, before, reset = Signal(), Signal(len(data)), Signal(init=1)
    m.d.sync += [waits.eq(part.m_axis_tvalid & ~part.m_axis_tready), before.eq(data), reset.eq(~part.aresetn)]
    with m.If(reset):
        m.d.comb += Assert(~part.m_axis_tvalid & ~part.s_axis_tready, "both ports are quiet in a reset")
    with m.Elif(waits):
        m.d.comb += Assert(part.m_axis_tvalid & (data == before), "what is offered stays until it is taken")


MADE: list[tuple[str, Callable[[], Any], Callable[..., object], int | None]] = [
    ("serial line of 2 cycles a bit", lambda: Line(2), of_line, None),
    ("loader", lambda: Loader(b"abcd", [(2, 3), (3, 4)]), of_loader, None),
    ("loader, empty at first", lambda: Loader(b"abcd", [(2, 3)], True), of_loader, None),
    ("frame sender", FrameSender, of_sender, None),
    ("server", server, of_server, None),
    ("ports of a top", top, of_top, None),
    ("network, 32 cycles", small_network, of_network, 32),
    ("network, last step, 32 cycles", partial(small_network, False, 1, False), of_network, 32),
    ("network with argmax, 36 cycles", partial(small_network, True), of_network, 36),
    ("network with argmax, 2 channels, 30 cycles", partial(small_network, True, 2), of_network, 30),
]


#: what each breaks, the part with it, and what refutes it
FAULTS: list[tuple[str, Callable[[], Any], Callable[..., object]]] = [
    (
        "ports of a top, valid in a reset",
        lambda: top("self.m_axis_tvalid.eq(network.o.valid & running)", "self.m_axis_tvalid.eq(network.o.valid)"),
        of_top,
    ),
    (
        "ports of a top, ready in a reset",
        lambda: top("self.s_axis_tready.eq(network.i.ready & running)", "self.s_axis_tready.eq(network.i.ready)"),
        of_top,
    ),
    (
        "ports of a top, valid waits for the input",
        lambda: top("network.o.valid & running)", "network.o.valid & running & self.s_axis_tvalid)"),
        of_top,
    ),
    (
        "frame sender, the payload does not wait",
        lambda: planted(FrameSender, "self.payload.ready.eq(self.o.ready)", "self.payload.ready.eq(1)")(),
        of_sender,
    ),
    (
        "loader, an answer nobody takes",
        lambda: planted(Loader, "with m.If(self.o.ready):", "with m.If(1):")(b"abcd", [(2, 3)]),
        of_loader,
    ),
    (
        "server, a sample that does not wait",
        lambda: server(planted(Server, "with m.If(self.s_axis_tready):", "with m.If(1):")),
        of_server,
    ),
]


def _run(part: Callable[[], Any], claims: Callable[..., object], bound: int | None) -> Outcome:
    made = Harness(part(), claims)
    # A top has a reset of its own; the synchronizer of a line goes on in any.
    return reach(made if claims in (of_line, of_top) else AnyReset(made), bound=bound, timeout=1500)


#: by name
PROOFS = {
    name: Proof(
        "ports",
        name,
        partial(_run, part, claims, bound),
        "proved" if bound is None else "bounded",
        slow=True,
        method="reachability",
    )
    for name, part, claims, bound in MADE
}
PROOFS |= {
    f"{name} (fault)": Proof("ports", f"{name} (fault)", partial(_run, part, claims, None), "refuted", slow=True)
    for name, part, claims in FAULTS
}
