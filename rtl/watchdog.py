"""A watchdog of both ports of a network: it tells when the stream stands still, and on which side."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from hwrnn.errors import UsageError
from hwrnn.rtl.ports import Part

__all__ = ["LONGEST", "MEANINGS", "STALLED", "Watchdog", "check_watchdog"]

#: The most cycles that a watchdog counts.
LONGEST = (1 << 32) - 1
#: What it tells, and what that means.
MEANINGS = {
    "stalled": "either of the next two",
    "stalled_input": "inside a sequence, the input has been ready and got no element in so many cycles in a row",
    "stalled_output": "an output element has been offered and not taken in so many cycles in a row",
}
STALLED = tuple(MEANINGS)


def check_watchdog(cycles: Any) -> int:
    """The number of cycles itself.

    Raises:
        UsageError: no whole number, or one outside its range.
    """
    if not isinstance(cycles, int) or isinstance(cycles, bool) or not 0 <= cycles <= LONGEST:
        raise UsageError(
            f"Watchdog must be a whole number of cycles from 1 to {LONGEST}, or 0 for none, not {cycles!r}"
        )
    return cycles


class Watchdog(Part):
    """Counts the cycles in a row in which a port waits for its partner; it touches neither stream.

    The input waits in a cycle with ``ready`` and without ``valid`` while a sequence has begun and not ended (or with
    several channels: while any has, or the round of vectors is not complete). Between two sequences nothing is owed.
    The output waits in a cycle with ``valid`` and without ``ready``.

    Args:
        cycles: N, at least 1.
        inputs: elements of an input vector.
        channels: independent sequences, whose vectors take turns.

    Ports:
        input_valid, input_ready, input_last, output_valid, output_ready: of both streams.
        stalled_input, stalled_output: the port has waited in each of the N cycles before this one, at least; so they
            fall in the cycle behind a transfer.
        stalled: either.
    """

    def __init__(self, cycles: int, inputs: int, channels: int = 1) -> None:
        self.cycles, self.inputs, self.channels = cycles, inputs, channels
        names = ("input_valid", "input_ready", "input_last", "output_valid", "output_ready")
        super().__init__({**{name: In(1) for name in names}, **{name: Out(1) for name in STALLED}})

    def elaborate(self, platform: object) -> Module:
        """The place in the sequence, and a counter for each side."""
        m = Module()
        within = self._within(m)
        starved, refused = Signal(name="starved"), Signal(name="refused")
        m.d.comb += [
            starved.eq(self.input_ready & ~self.input_valid & within),
            refused.eq(self.output_valid & ~self.output_ready),
            self.stalled.eq(self.stalled_input | self.stalled_output),
        ]
        self._count(m, starved, self.stalled_input, "input_left")
        self._count(m, refused, self.stalled_output, "output_left")
        return m

    def _within(self, m: Module) -> Signal:
        """Whether the input owes an element."""
        at = Signal(range(max(self.inputs, 2)), name="at")
        turn = Signal(range(max(self.channels, 2)), name="turn")
        inside = Signal(self.channels, name="inside")  # each channel's sequence goes on behind its last vector
        own = Array(inside)[turn] if self.channels > 1 else inside
        within, ends = Signal(name="within"), Signal(name="ends")
        m.d.comb += [within.eq(inside.any() | (at != 0) | (turn != 0)), ends.eq(at == self.inputs - 1)]
        with m.If(self.input_valid & self.input_ready):
            m.d.sync += at.eq(Mux(ends, 0, at + 1))
            with m.If(ends):
                m.d.sync += own.eq(~self.input_last)
                if self.channels > 1:
                    m.d.sync += turn.eq(Mux(turn == self.channels - 1, 0, turn + 1))
        return within

    def _count(self, m: Module, waits: Value, stalled: Any, name: str) -> None:
        """Count down while a port waits; nothing is compared but with 0."""
        left = Signal(range(max(self.cycles, 2)), init=self.cycles - 1, name=name)
        with m.If(waits):
            with m.If(left == 0):
                m.d.sync += stalled.eq(1)
            with m.Else():
                m.d.sync += left.eq(left - 1)
        with m.Else():
            m.d.sync += [left.eq(self.cycles - 1), stalled.eq(0)]
