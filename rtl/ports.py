"""The shape of a stream's payload and the small parts that streams need."""

from __future__ import annotations

from amaranth.hdl import Module, signed, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from hwrnn.fixed import Format

__all__ = ["OutputBuffer", "Part", "element", "shape"]


def shape(form: Format) -> object:
    """The Amaranth shape of a format's raw value."""
    return signed(form.width) if form.signed else unsigned(form.width)


def element(form: Format, channels: int = 1) -> data.StructLayout:
    """The payload of a stream: one element, and ``last`` on the last element of a sequence's last vector.

    With several channels ``channel`` tells whose vector it is.
    """
    tag = {"channel": range(channels)} if channels > 1 else {}
    return data.StructLayout({"data": shape(form), "last": 1, **tag})


class Part(wiring.Component):
    """A component of the datapath, which is also made to be asked for its figures alone.

    Amaranth warns of a component that nobody builds; here that is no mistake.
    """

    _MustUse__silence = True


class OutputBuffer(Part):
    """A queue whose space was promised before its elements were made, so that it never refuses one.

    An element written in one cycle is offered ``hwrnn.rtl.schedule.OUTPUT_STAGES`` cycles later.

    Args:
        form: of the elements.
        depth: elements that it can be promised.
        channels: independent sequences.
    """

    def __init__(self, form: Format, depth: int, channels: int = 1) -> None:
        self.layout, self.depth = element(form, channels), depth
        super().__init__(
            {
                "write": In(1),
                "payload": In(self.layout),
                "o": Out(stream.Signature(self.layout)),
                "taken": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The queue is Amaranth's own."""
        m = Module()
        # Of 2 elements, one stands at the output and the memory behind has addresses of no bits.
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=self.layout.size, depth=max(self.depth, 3))
        m.d.comb += [
            queue.w_data.eq(self.payload.as_value()),
            queue.w_en.eq(self.write),
            self.o.payload.as_value().eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
            self.taken.eq(self.o.valid & self.o.ready),
        ]
        return m
