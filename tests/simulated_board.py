"""A board without a board: the UART's hardware and the network in CXXRTL, behind an object that acts as a port.

The host's end of the line is written here a second time, bit by bit in C++, at a rate of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import resources
from typing import Any
from weakref import WeakKeyDictionary

from amaranth.back import rtlil
from amaranth.hdl import Module, ResetInserter, Signal

from hwrnn.compiler import CPP, shared_library
from hwrnn.frames import Identity
from hwrnn.rtl import Network
from hwrnn.rtl.board import ServedNetwork, network_ports
from hwrnn.rtl.manifest import manifest_of
from hwrnn.rtl.ports import Part
from hwrnn.rtl.verilog import Emitted
from hwrnn.sim.cxxrtl import _FLAGS, _headers, _model

_LIBRARIES: WeakKeyDictionary[Network, dict[tuple[Identity, int], ctypes.CDLL]] = WeakKeyDictionary()

LINE = """
#include <cxxrtl/cxxrtl.h>
#include <deque>
#include <cmath>

struct Line {
	cxxrtl_design::p_top top;
	std::deque<uint8_t> to_board, from_board;
	double bit, now = 0, sent_from = -1, heard_from = -1;
	unsigned sending = 0, hearing = 0, heard = 0;
	int64_t wrong = 0, unsettled = 0;
};

extern "C" {

Line *line_new(double bit) {
	Line *line = new Line;
	line->bit = bit;
	line->top.p_rx.set<uint8_t>(1);
	return line;
}

void line_delete(Line *line) { delete line; }

void line_write(Line *line, const uint8_t *bytes, int64_t count) {
	line->to_board.insert(line->to_board.end(), bytes, bytes + count);
}

int64_t line_read(Line *line, uint8_t *bytes, int64_t count) {
	int64_t n = 0;
	for (; n < count && !line->from_board.empty(); n++) {
		bytes[n] = line->from_board.front();
		line->from_board.pop_front();
	}
	return n;
}

int64_t line_faults(Line *line) { return line->wrong + line->unsettled; }

// Run until as many bytes have come from the board as are wanted, or for some cycles at most.
int64_t line_run(Line *line, int64_t cycles, int64_t wanted) {
	int64_t k = 0;
	// With -1, run until all that the host has to say is said.
	auto waits = [&] {
		if (wanted < 0)
			return !line->to_board.empty() || line->sent_from >= 0;
		return (int64_t)line->from_board.size() < wanted;
	};
	for (; k < cycles && waits(); k++, line->now += 1) {
		// What the host says: a start bit, eight bits, a stop bit.
		int rx = 1;
		if (line->sent_from < 0 && !line->to_board.empty()) {
			line->sent_from = line->now;
			line->sending = line->to_board.front();
			line->to_board.pop_front();
		}
		if (line->sent_from >= 0) {
			int at = (int)floor((line->now - line->sent_from) / line->bit);
			rx = at == 0 ? 0 : at <= 8 ? line->sending >> (at - 1) & 1 : 1;
			if (line->now + 1 - line->sent_from >= 10 * line->bit)
				line->sent_from = -1;
		}
		line->top.p_rx.set<uint8_t>(rx);
		line->top.p_clk.set<uint8_t>(0);
		line->top.prev_p_clk.set<uint8_t>(0);
		line->top.p_clk.set<uint8_t>(1);
		if (!line->top.eval())
			line->unsettled++;
		// What the host hears, each bit in its middle.
		int tx = line->top.TX.get<uint8_t>() & 1;
		if (line->heard_from < 0 && !tx) {
			line->heard_from = line->now;
			line->hearing = line->heard = 0;
		}
		if (line->heard_from >= 0 && line->now >= line->heard_from + (line->heard + 0.5) * line->bit) {
			if (line->heard == 0 && tx)
				line->wrong++;
			else if (line->heard == 9) {
				if (tx)
					line->from_board.push_back(line->hearing);
				else
					line->wrong++;
			} else if (line->heard > 0)
				line->hearing |= tx << (line->heard - 1);
			line->heard++;
			if (line->heard == 10)
				line->heard_from = -1;
		}
		line->top.commit();
	}
	return k;
}

}
"""


class InOneDomain(Part):
    """A network with the ports of its Verilog top, in the clock domain around it: simulators of events may see the
    edges of a clock that is handed on late."""

    def __init__(self, network: Network, identity: Identity) -> None:
        self.network = network
        super().__init__(network_ports(identity))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        network = self.network
        reset = Signal(init=1)
        m.d.sync += reset.eq(~self.aresetn)
        m.submodules.network = ResetInserter(reset)(network)
        m.d.comb += [
            network.i.payload.data.eq(self.s_axis_tdata),
            network.i.payload.last.eq(self.s_axis_tlast),
            network.i.valid.eq(self.s_axis_tvalid & ~reset),
            self.s_axis_tready.eq(network.i.ready & ~reset),
            self.m_axis_tdata.eq(network.o.payload.data),
            self.m_axis_tlast.eq(network.o.payload.last),
            self.m_axis_tvalid.eq(network.o.valid & ~reset),
            network.o.ready.eq(self.m_axis_tready),
        ]
        return m


def identity_of(network: Network) -> Identity:
    """As a board of that network gives it."""
    return Identity.of(manifest_of(Emitted("net", network, "", {}), network.lanes, None))


class SimulatedBoard:
    """A network's board, as an object with a serial port's methods.

    Args:
        divisor: cycles of a bit.
        rate: the host's rate over the board's.
        identity: what it says it is, where that is not the truth.
        cycles_per_second: simulated cycles that a second of a reader's patience lasts.
    """

    def __init__(
        self,
        network: Network,
        divisor: int = 4,
        rate: float = 1.0,
        cycles_per_second: int = 20_000,
        identity: Identity | None = None,
    ) -> None:
        identity = identity_of(network) if identity is None else identity
        self.divisor = divisor
        made = _LIBRARIES.setdefault(network, {})
        if (identity, divisor) not in made:
            made[identity, divisor] = _library(ServedNetwork(identity, InOneDomain(network, identity), divisor))
        self.library = made[identity, divisor]
        self.line = ctypes.c_void_p(self.library.line_new(ctypes.c_double(divisor / rate)))
        self.cycles_per_second = cycles_per_second
        self.timeout = 1.0
        self.cycles = 0
        self.written = bytearray()
        self.answered = bytearray()
        #: What becomes of bytes on their way to the board, and from it.
        self.spoil: Callable[[bytes], bytes] = bytes
        self.spoil_answer: Callable[[bytes], bytes] = bytes

    def write(self, content: bytes) -> int:
        self.written += content
        sent = self.spoil(bytes(content))
        self.library.line_write(self.line, sent, ctypes.c_int64(len(sent)))
        return len(content)

    def read(self, size: int = 1) -> bytes:
        limit = int(self.timeout * self.cycles_per_second)
        self.cycles += self.library.line_run(self.line, ctypes.c_int64(limit), ctypes.c_int64(size))
        buffer = ctypes.create_string_buffer(size)
        count = self.library.line_read(self.line, buffer, ctypes.c_int64(size))
        assert self.library.line_faults(self.line) == 0
        found = self.spoil_answer(buffer.raw[:count])
        self.answered += found
        return found

    def flush(self) -> None:
        self.library.line_run(self.line, ctypes.c_int64(len(self.written) * 20 * self.divisor), ctypes.c_int64(-1))

    def close(self) -> None:
        if self.line:
            self.library.line_delete(self.line)
            self.line = None


def _library(top: Any) -> ctypes.CDLL:
    text = rtlil.convert(top, name="top", emit_src=False)
    model = _model(text)
    slices = (resources.files("hwrnn.sim") / "slices.h").read_text()
    # An output that is a register stands in the class as a wire, another one as a value.
    tx = "p_tx.curr" if "wire<1> p_tx" in model else "p_tx"
    library = shared_library(
        "uart", lambda: slices + model + LINE.replace("TX", tx), (*_FLAGS, f"-I{_headers()}"), key=text + LINE,
        language=CPP, purpose="the simulator", instead="choose the simulator amaranth",
    )  # fmt: skip
    library.line_new.restype = ctypes.c_void_p
    library.line_read.restype = library.line_run.restype = library.line_faults.restype = ctypes.c_int64
    return library
