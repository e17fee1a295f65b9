"""The code, again and again: behind an encoder, a sequence's last vector once for each of its steps."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hwrnn.fixed import Format
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.memories import address_bits
from hwrnn.rtl.ports import Part, element, shape

__all__ = ["STEP_BITS", "Repeat", "repeat_of"]

#: Bits that count the steps of a sequence: a step takes several cycles, so this is hours at any clock of an FPGA.
STEP_BITS = 24


class Repeat(Part):
    """Takes every vector of a sequence, keeps the newest, and emits the last one as many times as vectors came.

    There are two banks: while one sequence's code is emitted, the next sequence is taken.

    Args:
        form: of the elements.
        units: elements of a vector.
        bits: of the counters of steps, at least 2.

    Ports:
        i: stream of elements of every step, ``last`` with the last of a sequence.
        o: stream of elements, likewise. A sequence of more than ``most_steps`` vectors is emitted as one of
            ``most_steps``.

    Both ports move an element in every cycle if their partners do, whatever the lengths.
    """

    def __init__(self, form: Format, units: int, bits: int = STEP_BITS) -> None:
        self.form, self.units, self.bits = form, units, bits
        super().__init__({"i": In(stream.Signature(element(form))), "o": Out(stream.Signature(element(form)))})

    @property
    def most_steps(self) -> int:
        """The most steps of a sequence that are emitted."""
        return (1 << self.bits) - 1

    @property
    def latency(self) -> int:
        """Cycles from the transfer of a sequence's last element to that of the first vector's last one, idle before."""
        return self.units + 1

    @property
    def depth(self) -> int:
        """Words of its memory."""
        return 2 << address_bits(self.units)

    @property
    def memory_bits(self) -> int:
        """Bits of its memory that are used."""
        return 2 * self.units * self.form.width

    def elaborate(self, platform: object) -> Module:
        """Two banks of one memory; on either side a column and a bank."""
        m = Module()
        low, final_column = address_bits(self.units), self.units - 1
        m.submodules.memory = memory = Memory(shape=shape(self.form), depth=self.depth, init=[])
        write = memory.write_port()
        read = memory.read_port()
        into, of, full = Signal(name="into"), Signal(name="of"), Signal(2, name="full")
        columns = range(max(self.units, 2))
        column, column_out = Signal(columns, name="column"), Signal(columns, name="column_out")
        # Vectors of the sequence before this one; it stays where it is told to be the most that can be kept.
        count, stuck, fresh = Signal(self.bits, name="count"), Signal(name="stuck"), Signal(name="fresh", init=1)
        # Of each bank: vectors to emit after this one, and whether there is none.
        left = [Signal(self.bits, name=f"left_{bank}") for bank in range(2)]
        final = Signal(2, name="final")
        names = ("taken", "complete", "ends", "step", "filled", "emitted")
        taken, complete, ends, step, filled, emitted = (Signal(name=name) for name in names)
        m.d.comb += [
            self.i.ready.eq(~full.bit_select(into, 1)),
            taken.eq(self.i.valid & self.i.ready),
            complete.eq(taken & (column == final_column)),
            ends.eq(complete & self.i.payload.last),
            write.addr.eq(Cat(column[:low], into)),
            write.data.eq(self.i.payload.data),
            write.en.eq(taken),
        ]
        with m.If(taken):
            m.d.sync += column.eq(Mux(complete, 0, column + 1))
        with m.If(complete):
            m.d.sync += [count.eq(count + ~stuck), stuck.eq(stuck | (count == self.most_steps - 2)), fresh.eq(0)]
        with m.If(ends):
            m.d.sync += [into.eq(~into), count.eq(0), stuck.eq(0), fresh.eq(1)]

        m.d.comb += [
            step.eq(~self.o.valid | self.o.ready),
            filled.eq(full.bit_select(of, 1)),
            emitted.eq(step & filled & (column_out == final_column)),
            read.addr.eq(Cat(column_out[:low], of)),
            read.en.eq(step),
            self.o.payload.data.eq(read.data),
        ]
        with m.If(step):
            m.d.sync += [self.o.valid.eq(filled), self.o.payload.last.eq(emitted & final.bit_select(of, 1))]
            with m.If(filled):
                m.d.sync += column_out.eq(Mux(emitted, 0, column_out + 1))
        with m.If(emitted & final.bit_select(of, 1)):
            m.d.sync += of.eq(~of)
        for bank in range(2):  # a bank is never filled and emitted in the same cycle
            with m.If(ends & (into == bank)):
                m.d.sync += [full[bank].eq(1), left[bank].eq(count), final[bank].eq(fresh)]
            with m.If(emitted & (of == bank)):
                m.d.sync += [left[bank].eq(left[bank] - 1), final[bank].eq(left[bank] == 1)]
                with m.If(final[bank]):
                    m.d.sync += full[bank].eq(0)
        return m


def repeat_of(model: QuantizedModel) -> Repeat | None:
    """What a model's decoder reads from; None without an encoder."""
    if not model.encoder:
        return None
    last = model.layers[model.encoder - 1]
    return Repeat(last.output, last.units)
