"""The network as a Verilog top: flat AXI4-Stream ports (Arm IHI 0051) instead of Amaranth's streams."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib.wiring import In, Out

from hwrnn.rtl.network import Network
from hwrnn.rtl.ports import Part
from hwrnn.rtl.watchdog import STALLED

__all__ = ["AxiStreamTop", "padded"]


def padded(width: int) -> int:
    """The width of a ``tdata`` that carries elements of ``width`` bits: whole bytes."""
    return -(-width // 8) * 8

_LOAD_PORTS = {
    "s_load_tdata": In(8),
    "s_load_tvalid": In(1),
    "s_load_tready": Out(1),
    "s_load_tlast": In(1),
    "m_load_tdata": Out(8),
    "m_load_tvalid": Out(1),
    "m_load_tready": In(1),
    "held": Out(1),
}


class AxiStreamTop(Part):
    """A network between two AXI4-Stream ports; it adds no cycle.

    Args:
        network: with one element per transfer on both streams; its probes, if any, stay inside.

    Ports:
        aclk: clock of everything.
        aresetn: synchronous, active low; it acts one cycle later, and while it does ``s_axis_tready`` and
            ``m_axis_tvalid`` are low. A part that honours initial values also starts without it.
        s_axis_tdata: the raw input element in the low bits; the bits above are ignored.
        s_axis_tlast: with the last element of a sequence's last vector; ignored with all others.
        m_axis_tdata: the raw output element, sign-extended or zero-extended as its format says.
        m_axis_tlast: with the last element of a sequence's last output vector.
        m_axis_tid: of a network with several channels: the one whose output it is.

    And of a network with a load port:
        s_load_tdata: a byte of a frame; s_load_tlast stands with each frame's last.
        m_load_tdata: the answer to a frame.
        held: the network waits for weights.

    And those of :class:`hwrnn.rtl.Network` that tell of faults: ``fault_detected``, ``fault_corrected``, ``stalled``,
    ``stalled_input``, ``stalled_output``.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        #: ports that tell of faults
        self.faults = (*network.faults, *(STALLED if network.watchdog else ()))
        super().__init__(
            {
                "aclk": In(1),
                "aresetn": In(1),
                "s_axis_tdata": In(padded(network.input_format.width)),
                "s_axis_tvalid": In(1),
                "s_axis_tready": Out(1),
                "s_axis_tlast": In(1),
                "m_axis_tdata": Out(padded(network.output_format.width)),
                "m_axis_tvalid": Out(1),
                "m_axis_tready": In(1),
                "m_axis_tlast": Out(1),
                **(_LOAD_PORTS if network.loadable else {}),
                **({"m_axis_tid": Out(range(network.channels))} if network.channels > 1 else {}),
                **{name: Out(1) for name in self.faults},
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The network in a clock domain of its own."""
        m = Module()
        m.submodules.network = network = self.network
        # The reset is registered, so that it may be spread over the part as the clock allows.
        registered = ClockDomain("registered", reset_less=True, local=True)
        sync = ClockDomain("sync", local=True)
        m.domains += [registered, sync]
        registered.clk = sync.clk = self.aclk
        reset = Signal(init=1)
        m.d.registered += reset.eq(~self.aresetn)
        sync.rst = reset
        running = Signal()
        m.d.comb += [
            running.eq(~reset),
            network.i.payload.data.eq(self.s_axis_tdata),
            network.i.payload.last.eq(self.s_axis_tlast),
            network.i.valid.eq(self.s_axis_tvalid & running),
            self.s_axis_tready.eq(network.i.ready & running),
            self.m_axis_tdata.eq(network.o.payload.data),  # extended by its sign, where it has one
            self.m_axis_tlast.eq(network.o.payload.last),
            self.m_axis_tvalid.eq(network.o.valid & running),
            network.o.ready.eq(self.m_axis_tready),
        ]
        if network.loadable:
            m.d.comb += [
                network.load.payload.data.eq(self.s_load_tdata),
                network.load.payload.last.eq(self.s_load_tlast),
                network.load.valid.eq(self.s_load_tvalid & running),
                self.s_load_tready.eq(network.load.ready & running),
                self.m_load_tdata.eq(network.answer.payload),
                self.m_load_tvalid.eq(network.answer.valid & running),
                network.answer.ready.eq(self.m_load_tready),
                self.held.eq(network.held),
            ]
        if network.channels > 1:
            m.d.comb += self.m_axis_tid.eq(network.o.payload.channel)
        m.d.comb += [getattr(self, name).eq(getattr(network, name)) for name in self.faults]
        return m
