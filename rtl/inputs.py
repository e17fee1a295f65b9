"""The input vectors of an engine: filled element by element while earlier ones are worked."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hwrnn.fixed import Format
from hwrnn.rtl.memories import address_bits
from hwrnn.rtl.ports import Part, element, shape

__all__ = ["InputVectors"]


class InputVectors(Part):
    """A ring of vectors.

    Args:
        form: of the elements.
        inputs: elements of a vector.
        channels: independent sequences; with several, each vector keeps the channel that came with it.
        slots: vectors in the ring, a power of two.

    Ports:
        i: stream of input elements.
        slot, column: what is read; ``data`` is it a cycle later.
        present: whether a vector has come whose work has not begun.
        begun: the work at the oldest of those can go on without ``present``; it may be a slot's release too.
        released: the oldest vector is not needed any more.
        last, channel: of the vector in ``slot``.
    """

    def __init__(self, form: Format, inputs: int, channels: int = 1, slots: int = 2) -> None:
        self.form, self.inputs, self.channels, self.slots = form, inputs, channels, slots
        super().__init__(
            {
                "i": In(stream.Signature(element(form, channels))),
                "slot": In(range(slots)),
                "column": In(range(max(inputs, 2))),
                "data": Out(shape(form)),
                "present": Out(1),
                "begun": In(1),
                "released": In(1),
                "last": Out(1),
                **({"channel": Out(range(channels))} if channels > 1 else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """One memory, and counters of the vectors in it."""
        m = Module()
        low = address_bits(self.inputs)
        m.submodules.memory = memory = Memory(shape=shape(self.form), depth=self.slots << low, init=[])
        count = Signal(range(max(self.inputs, 2)))
        into = Signal(range(self.slots))
        # Vectors whose work has not begun, and those that take a slot.
        coming = Signal(range(self.slots + 1))
        held = Signal(range(self.slots + 1))
        complete = Signal()
        lasts = Signal(self.slots)
        write = memory.write_port()
        read = memory.read_port()
        taken = self.i.valid & self.i.ready
        m.d.comb += [
            # A power of two: the highest bit tells that all are taken.
            self.i.ready.eq(~held[-1]),
            write.addr.eq(Cat(count[:low], into)),
            write.data.eq(self.i.payload.data),
            write.en.eq(taken),
            complete.eq(taken & (count == self.inputs - 1)),
            read.addr.eq(Cat(self.column[:low], self.slot)),
            self.data.eq(read.data),
            self.present.eq(coming != 0),
            self.last.eq(Array(lasts)[self.slot]),
        ]
        m.d.sync += [coming.eq(coming + complete - self.begun), held.eq(held + complete - self.released)]
        with m.If(taken):
            m.d.sync += count.eq(count + 1)
        with m.If(complete):
            m.d.sync += [count.eq(0), into.eq(into + 1), lasts.bit_select(into, 1).eq(self.i.payload.last)]
        if self.channels > 1:
            tags = Array(Signal(range(self.channels), name=f"channel_{slot}") for slot in range(self.slots))
            m.d.comb += self.channel.eq(tags[self.slot])
            with m.If(complete):
                m.d.sync += tags[into].eq(self.i.payload.channel)
        return m
