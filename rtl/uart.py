"""An asynchronous serial line: 8 data bits, no parity, one stop bit, the lowest bit first."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from hwrnn.errors import UsageError
from hwrnn.frames import SLOWEST
from hwrnn.rtl.ports import Part

__all__ = ["Receiver", "Transmitter", "divisor_of"]

_LEAST = 8  # cycles of a bit: with fewer, a receiver that is 2 % off may miss the middle of the last one
_MOST = 0.02  # share by which the rate may be off


def divisor_of(clock_hz: float, baud: int) -> int:
    """Cycles of a bit.

    Raises:
        UsageError: a rate that is too high for the clock, or that it does not divide down to.
    """
    highest = int(clock_hz // _LEAST)
    if not isinstance(baud, int) or isinstance(baud, bool) or not SLOWEST <= baud <= highest:
        raise UsageError(f"Baud must be a whole number between {SLOWEST} and {highest:,} at this clock, not {baud!r}")
    divisor = round(clock_hz / baud)
    off = abs(clock_hz / divisor / baud - 1)
    if off > _MOST:
        raise UsageError(
            f"Baud must be a rate that the clock of {clock_hz / 1e6:g} MHz divides down to within {_MOST:.0%}, not"
            f" {baud}, which is {off:.1%} off"
        )
    return divisor


class Receiver(Part):
    """Bytes from a line.

    A bit is read in its middle, counted from the falling edge of the start bit, so both sides' rates may differ by 2 %
    where a bit has 8 cycles or more.
    A byte without its stop bit is dropped, and so is a start bit that is over before its middle.

    Args:
        divisor: cycles of a bit.

    Ports:
        rx: the line, which is idle at 1; it may change at any time.
        data: the byte.
        valid: for one cycle with each byte; nobody can hold it back.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "data": Out(8), "valid": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """Count cycles and bits from the edge on."""
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        cycles = Signal(range(self.divisor))
        bits = Signal(range(10))
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.sync += [cycles.eq((self.divisor - 1) // 2), bits.eq(0)]
                with m.If(~line):
                    m.next = "BITS"
            with m.State("BITS"):
                with m.If(cycles != 0):
                    m.d.sync += cycles.eq(cycles - 1)
                with m.Else():
                    m.d.sync += [cycles.eq(self.divisor - 1), bits.eq(bits + 1)]
                    with m.If(bits == 0), m.If(line):
                        m.next = "IDLE"
                    with m.Elif(bits == 9):
                        m.d.comb += self.valid.eq(line)
                        with m.If(line):
                            m.next = "IDLE"
                        with m.Else():
                            m.next = "BROKEN"
                    with m.Else():
                        m.d.sync += self.data.eq(Cat(self.data[1:], line))
            with m.State("BROKEN"), m.If(line):  # idle before the next start bit
                m.next = "IDLE"
        return m


class Transmitter(Part):
    """Bytes onto a line, one in ``10 * divisor + 1`` cycles.

    Args:
        divisor: cycles of a bit.

    Ports:
        i: stream of bytes.
        tx: the line.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        """A shift register that ones follow."""
        m = Module()
        cycles = Signal(range(self.divisor))
        bits = Signal(range(11))
        shift = Signal(9, init=-1)
        m.d.comb += [self.tx.eq(shift[0]), self.i.ready.eq(bits == 0)]
        with m.If(bits == 0):
            m.d.sync += cycles.eq(self.divisor - 1)
            with m.If(self.i.valid):
                m.d.sync += [shift.eq(Cat(Const(0, 1), self.i.payload)), bits.eq(10)]
        with m.Elif(cycles != 0):
            m.d.sync += cycles.eq(cycles - 1)
        with m.Else():
            m.d.sync += [shift.eq(Cat(shift[1:], Const(1, 1))), bits.eq(bits - 1), cycles.eq(self.divisor - 1)]
        return m
