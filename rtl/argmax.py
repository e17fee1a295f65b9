"""The class instead of the scores: the index of the largest element of each vector."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from hwrnn.fixed import Format, bits_for
from hwrnn.rtl.ports import Part, element, shape

__all__ = ["ArgMax"]


class ArgMax(Part):
    """The index of the largest element of each vector, the first of equals.

    Args:
        form: of the elements.
        count: elements of a vector.
        channels: independent sequences.

    The index leaves two cycles after the vector's last element was taken: one stands between whatever the elements come
    from and the comparison.
    """

    latency = 2

    def __init__(self, form: Format, count: int, channels: int = 1) -> None:
        self.form, self.count, self.channels = form, count, channels
        self.index_format = Format(max(bits_for(0, count - 1)[0], 1), 0, signed=False)
        super().__init__(
            {
                "i": In(stream.Signature(element(form, channels))),
                "o": Out(stream.Signature(element(self.index_format, channels))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Keep an element, then compare it with the largest so far."""
        m = Module()
        at, best_at, here = (Signal(range(max(self.count, 2)), name=name) for name in ("at", "best_at", "here"))
        best, candidate = (Signal(shape(self.form), name=name, reset_less=True) for name in ("best", "candidate"))
        held, begins, ends, better = (Signal(name=name) for name in ("held", "begins", "ends", "better"))
        tags = ["last", "channel"] if self.channels > 1 else ["last"]
        kept = {tag: Signal.like(self.i.payload[tag], name=f"kept_{tag}") for tag in tags}
        m.d.comb += [
            better.eq(begins | (candidate > best)),
            # A vector's last element waits until the result before it has left.
            self.i.ready.eq(~(held & ends & self.o.valid)),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.i.ready):
            m.d.sync += [
                held.eq(self.i.valid),
                candidate.eq(self.i.payload.data),
                here.eq(at),
                begins.eq(at == 0),
                ends.eq(at == self.count - 1),
                *(signal.eq(self.i.payload[tag]) for tag, signal in kept.items()),
            ]
            with m.If(self.i.valid):
                m.d.sync += at.eq(Mux(at == self.count - 1, 0, at + 1))
            with m.If(held & better):
                m.d.sync += [best.eq(candidate), best_at.eq(here)]
            with m.If(held & ends):
                m.d.sync += [self.o.valid.eq(1), self.o.payload.data.eq(Mux(better, here, best_at))]
                m.d.sync += [self.o.payload[tag].eq(signal) for tag, signal in kept.items()]
        return m
