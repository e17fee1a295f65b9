"""The boards that a network can be built for: one row each, on the board files of amaranth-boards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwrnn.errors import UsageError, require
from hwrnn.frames import BAUD
from hwrnn.rtl.targets import TARGETS, Target

__all__ = ["BOARDS", "Board", "board_named"]


@dataclass(frozen=True)
class Board:
    """One board.

    Attributes:
        name: as the command line takes it.
        description: the board's own name, its part and its oscillator.
        module, platform: the class of amaranth-boards that knows its pins.
        part: the row of ``hwrnn.rtl.TARGETS`` that stands on it.
        uart: name and number of the resource that the host is connected to.
        baud: rate where nobody asks for another.
    """

    name: str
    description: str
    module: str
    platform: str
    part: str
    uart: tuple[str, int] = ("uart", 0)
    baud: int = BAUD

    @property
    def target(self) -> Target:
        """Its part."""
        return TARGETS[self.part]

    def make(self) -> Any:
        """A fresh platform, for one design.

        Raises:
            MissingExtra: amaranth-boards is not installed.
        """
        return getattr(require(self.module, "board"), self.platform)()


def _ulx3s(size: int) -> Board:
    name = "ulx3s" if size == 85 else f"ulx3s-{size}f"
    about = f"ULX3S {size}F (ECP5 LFE5U-{size}F, 25 MHz, UART over the FTDI chip of US1)"
    return Board(name, about, "amaranth_boards.ulx3s", f"ULX3S_{size}F_Platform", f"ecp5-{size}k-6")


_ROWS = (
    Board("icebreaker", "iCEBreaker (iCE40 UP5K, 12 MHz, UART over the second port of the FTDI chip)",
          "amaranth_boards.icebreaker", "ICEBreakerPlatform", "up5k"),
    _ulx3s(25),
    _ulx3s(45),
    _ulx3s(85),
)  # fmt: skip

#: Every board by name.
BOARDS = {row.name: row for row in _ROWS}


def board_named(name: str) -> Board:
    """A board by name.

    Raises:
        UsageError: an unknown name.
    """
    if name not in BOARDS:
        raise UsageError(f"Board must be one of {', '.join(BOARDS)}, not {name!r}")
    return BOARDS[name]
