"""The top of a board: a generated network behind the board's UART, and what the tools need to build it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal
from amaranth.lib import io
from amaranth.lib.wiring import In, Out

from hwrnn.errors import UsageError
from hwrnn.frames import CAPACITY, Identity
from hwrnn.rtl.boards import Board
from hwrnn.rtl.placement import Placed
from hwrnn.rtl.ports import Part
from hwrnn.rtl.server import Server
from hwrnn.rtl.uart import divisor_of

__all__ = ["BoardDesign", "NetworkInstance", "ServedNetwork", "check_clock", "design_for", "network_ports"]

_MOST = 65_000  # elements of a vector: a frame counts its bytes, and the identity its elements, in 16 bits


def network_ports(identity: Identity) -> dict[str, Any]:
    """The ports of a generated network's Verilog top."""
    return {
        "aclk": In(1), "aresetn": In(1),
        "s_axis_tdata": In(8 * identity.input_bytes), "s_axis_tvalid": In(1), "s_axis_tready": Out(1),
        "s_axis_tlast": In(1),
        "m_axis_tdata": Out(8 * identity.output_bytes), "m_axis_tvalid": Out(1), "m_axis_tready": In(1),
        "m_axis_tlast": Out(1),
    }  # fmt: skip


class NetworkInstance(Part):
    """A generated network, from its Verilog.

    Args:
        name: of the Verilog module.
        identity: of the network.
    """

    def __init__(self, name: str, identity: Identity) -> None:
        self.name = name
        super().__init__(network_ports(identity))

    def elaborate(self, platform: object) -> Instance:
        """Nothing but the module."""
        ports = self.signature.members.items()
        named = {("i_" if port.flow == In else "o_") + name: getattr(self, name) for name, port in ports}
        return Instance(self.name, **named)


class ServedNetwork(Part):
    """A network behind a serial line.

    Args:
        identity: of the network.
        network: a component with the ports of :func:`network_ports`.
        divisor: cycles of a bit.

    Ports:
        rx, tx: the line.
    """

    def __init__(self, identity: Identity, network: Any, divisor: int) -> None:
        self.identity, self.network, self.divisor = identity, network, divisor
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        """Server and network, wire by wire."""
        m = Module()
        m.submodules.uart = server = Server(self.identity, self.divisor)
        m.submodules.network = network = self.network
        m.d.comb += [
            server.rx.eq(self.rx), self.tx.eq(server.tx),
            network.aclk.eq(ClockSignal()),
            network.aresetn.eq(server.aresetn & ~ResetSignal(allow_reset_less=True)),
        ]  # fmt: skip
        for name, port in network.signature.members.items():
            if "axis" in name:
                a, b = getattr(network, name), getattr(server, name)
                m.d.comb += a.eq(b) if port.flow == In else b.eq(a)
        return m


class _Top(Part):
    """A served network on a board's pins."""

    def __init__(self, board: Board, served: ServedNetwork) -> None:
        self.board, self.served = board, served
        super().__init__({})

    def elaborate(self, platform: Any) -> Module:
        """Buffers at both pins; the platform brings clock and reset."""
        m = Module()
        pins = platform.request(*self.board.uart, dir="-")
        m.submodules.rx_pin = rx = io.Buffer("i", pins.rx)
        m.submodules.tx_pin = tx = io.Buffer("o", pins.tx)
        m.submodules.served = self.served
        m.d.comb += [self.served.rx.eq(rx.i), tx.o.eq(self.served.tx)]
        return m


@dataclass(frozen=True)
class BoardDesign:
    """What the tools need.

    Attributes:
        board: its name.
        top: name of the Verilog top.
        verilog: of everything around the network.
        constraints: pins and clock, as nextpnr reads them for the family.
        clock_mhz: of the board's oscillator.
        baud: rate that was asked for; the line's own is the clock over a whole number.
    """

    board: str
    top: str
    verilog: str
    constraints: str
    clock_mhz: float
    baud: int


def design_for(board: Board, manifest: dict[str, Any], baud: int | None = None) -> BoardDesign:
    """The design around a generated network.

    Args:
        manifest: the content of its manifest.json.
        baud: of the UART; None for the board's.

    Raises:
        UsageError: a network of several channels, with a load port, with outputs that tell of faults or with too wide
            vectors, or a baud rate that the clock cannot make.
        MissingExtra: amaranth-boards is not installed.
    """
    platform = board.make()
    if manifest.get("channels", 1) not in (1, None):
        raise UsageError(
            f"Network must have one channel for a board, not {manifest['channels']}: generate it without --channels"
        )
    if manifest.get("load"):
        raise UsageError(
            f"Network must have weights that stay for a board, not {manifest['weights']!r}: its UART does not load any"
        )
    if manifest.get("protection"):
        raise UsageError(
            "Network must have no outputs that tell of faults for a board, whose UART does not read them: generate it"
            " without --protect and --watchdog"
        )
    identity = _identity(manifest)
    rate = board.baud if baud is None else baud
    clock = float(platform.default_clk_frequency)
    top = f"{manifest['name']}_on_board"
    served = ServedNetwork(identity, NetworkInstance(manifest["name"], identity), divisor_of(clock, rate))
    # Amaranth calls it the debug Verilog because its own scripts read RTLIL; it is the same design.
    plan = platform.prepare(_Top(board, served), top, emit_src=False, debug_verilog=True)
    constraints = next(text for file, text in plan.files.items() if file in (f"{top}.pcf", f"{top}.lpf"))
    return BoardDesign(board.name, top, _text(plan.files[f"{top}.debug.v"]), _text(constraints), clock / 1e6, rate)


def check_clock(design: BoardDesign, placed: Placed) -> None:
    """Refuse a placed design that is slower than the board's clock, or has paths too short for it.

    Raises:
        UsageError: it is.
    """
    if placed.hold_violations or placed.fmax_mhz < design.clock_mhz:
        held = f" with {placed.hold_violations} hold violations" if placed.hold_violations else ""
        raise UsageError(
            f"Network must run at the {design.clock_mhz:g} MHz of {design.board}, and its best seed reaches"
            f" {placed.fmax_mhz:.1f} MHz{held}: try more seeds, or generate it with the board's part as the target"
        )


def _identity(manifest: dict[str, Any]) -> Identity:
    identity = Identity.of(manifest)
    widest = max(identity.inputs, identity.outputs * identity.output_bytes)
    if widest > _MOST or identity.input_bytes > CAPACITY:
        raise UsageError(
            f"Network must have vectors of at most {_MOST:,} elements in and bytes out for a board, not {widest:,}"
        )
    return identity


def _text(content: Any) -> str:
    return content.decode() if isinstance(content, bytes) else str(content)
