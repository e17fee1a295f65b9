"""Check bits beside the words of a memory: parity tells a flipped bit, SECDED corrects it and tells two.

SECDED is Hsiao's code (IBM J. Res. Dev. 14, 1970), an extended Hamming code whose every column has an odd number of
ones: one flipped bit gives an odd syndrome that names it, two give an even one that is not 0. The columns of the lowest
weight come first and the rows are kept equally full, which is what the gates cost. Numbers and gates take the matrix
from one place, :attr:`Code.columns`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

from amaranth.hdl import Cat, Module, Signal, Value

from hwrnn.errors import UsageError, shown
from hwrnn.rtl.delay import delayed
from hwrnn.rtl.timing import Timing

__all__ = ["MEANINGS", "PROTECTIONS", "Code", "check_protect", "checked", "corrected", "decode_stages", "with_decoder"]

#: Every choice: no check bits, one for each word, or those of a code that corrects one flipped bit and tells two.
PROTECTIONS = ("none", "parity", "secded")
#: What the outputs of a protected network mean.
MEANINGS = {
    "fault_detected": "since the reset, a wrong word of weights or biases was used",
    "fault_corrected": "since the reset, a word of weights or biases had a flipped bit, which was corrected",
}


def check_protect(protect: str) -> str:
    """The choice itself.

    Raises:
        UsageError: another word.
    """
    if protect not in PROTECTIONS:
        raise UsageError(f"Protect must be one of {', '.join(PROTECTIONS)}, not {shown(protect)}")
    return protect


_PIECE = 16  # bits of an exclusive or between two registers: two levels of LUTs


@cache
def _columns(bits: int, checks: int) -> tuple[int, ...]:
    """Columns of Hsiao's matrix for data bits: of odd weight from 3, all different, rows about equally full."""
    found: list[int] = []
    full = [0] * checks
    for weight in range(3, checks + 1, 2):
        left = set(combinations(range(checks), weight))
        while left and len(found) < bits:
            chosen = min(left, key=lambda rows: (sum(full[r] for r in rows), max(full[r] for r in rows), rows))
            left.remove(chosen)
            found.append(sum(1 << r for r in chosen))
            for r in chosen:
                full[r] += 1
    return tuple(found)


@dataclass(frozen=True)
class Code:
    """The check bits of a memory's words, which stand above the data bits.

    The first two check bits of SECDED and that of parity are inverted: a memory that reads nothing but zeros is told.

    Attributes:
        protect: of ``PROTECTIONS``.
        bits: of data in a word.
    """

    protect: str
    bits: int

    @property
    def checks(self) -> int:
        """Check bits of a word."""
        if self.protect == "none":
            return 0
        if self.protect == "parity":
            return 1
        return next(r for r in range(3, 64) if 2 ** (r - 1) - r >= self.bits)

    @property
    def width(self) -> int:
        """Bits of a stored word."""
        return self.bits + self.checks

    @property
    def columns(self) -> tuple[int, ...]:
        """The syndrome that each bit of a stored word gives when it alone is flipped."""
        if self.protect == "parity":
            return (1,) * self.width
        return (*_columns(self.bits, self.checks), *(1 << r for r in range(self.checks)))

    @property
    def inverted(self) -> int:
        """The check bits of a word of zeros."""
        return {"none": 0, "parity": 1, "secded": 3}[self.protect]

    def word(self, value: int) -> int:
        """A data word with its check bits."""
        checks = self.inverted
        for k, column in enumerate(self.columns[: self.bits]):
            checks ^= column if value >> k & 1 else 0
        return value | checks << self.bits

    def encoded(self, value: Value) -> Value:
        """The same as gates."""
        return Cat(value[: self.bits], self._rows(value, self.bits) ^ self.inverted) if self.checks else value

    def syndrome(self, stored: Value) -> Value:
        """What is wrong with a stored word; 0 if nothing is."""
        return self._rows(stored, self.width) ^ self.inverted

    def _rows(self, value: Value, bits: int) -> Value:
        columns = self.columns[:bits]
        return Cat(Cat(value[k] for k in range(bits) if columns[k] >> r & 1).xor() for r in range(self.checks))


def decode_stages(protect: str, timing: Timing) -> int:
    """Registers that correcting takes between a memory and the lanes: one, or two where sums end a stage too."""
    return (2 if timing.sums else 1) if protect == "secded" else 0


def with_decoder(timing: Timing, protect: str) -> Timing:
    """A timing with the decoder's registers among those behind the memories."""
    return replace(timing, memory=timing.memory + decode_stages(protect, timing))


def checked(m: Module, code: Code, stored: Value, valid: Value, name: str) -> Signal:
    """Whether a word has a wrong parity, some cycles later.

    Args:
        stored: the word from a register.
        valid: whether it is used.
    """
    level, k = stored, 0
    while len(level) > 1:
        k += 1
        pieces = [level[at : at + _PIECE].xor() for at in range(0, len(level), _PIECE)]
        level = Signal(len(pieces), name=f"{name}_parity_{k}", reset_less=True)
        m.d.sync += level.eq(Cat(pieces))
    late = delayed(m, valid, k, f"{name}_used", reset=True)
    found = Signal(name=f"{name}_detected")
    m.d.sync += found.eq(late & (level[0] ^ code.inverted))
    return found


def corrected(
    m: Module, code: Code, stored: Value, valid: Value, stages: int, name: str
) -> tuple[Value, Signal, Signal]:
    """The data of a word, one flipped bit of it corrected, for a register that takes them ``stages - 1`` cycles later.

    Args:
        stored: the word from a register.
        valid: whether it is used.
        stages: 1, or 2 for a register behind the syndrome.

    Returns:
        the data, and two cycles after ``stored`` whether one bit was wrong, and whether it was more.
    """
    syndrome = Signal(code.checks, name=f"{name}_syndrome")
    kept = Signal(code.checks, name=f"{name}_wrong", reset_less=True)
    used = delayed(m, valid, 1, f"{name}_used", reset=True)
    m.d.comb += syndrome.eq(code.syndrome(stored))
    m.d.sync += kept.eq(syndrome)
    names = kept if stages > 1 else syndrome
    word = delayed(m, stored[: code.bits], stages - 1, f"{name}_stored")
    data = []
    for at in range(0, code.bits, _PIECE):  # in pieces, for a simulator's compiler takes long over long concatenations
        columns = code.columns[at : min(at + _PIECE, code.bits)]
        data.append(Signal(len(columns), name=f"{name}_data_{at}"))
        m.d.comb += data[-1].eq(word[at : at + len(columns)] ^ Cat(names == column for column in columns))
    one, more = Signal(name=f"{name}_corrected"), Signal(name=f"{name}_detected")
    m.d.sync += [one.eq(used & kept.xor()), more.eq(used & kept.any() & ~kept.xor())]
    return Cat(data), one, more
