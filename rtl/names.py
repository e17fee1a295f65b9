"""Names for Verilog: plain identifiers that suit Verilog and SystemVerilog alike."""

from __future__ import annotations

import re
from itertools import count

from hwrnn.errors import UsageError

__all__ = ["free_name", "natural", "plain_name", "top_name"]

#: The reserved words of Verilog (IEEE 1364-2005) and SystemVerilog (IEEE 1800-2017).
_WORDS = """
accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind bins
binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge
else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule
endpackage endprimitive endprogram endproperty endsequence endspecify endtable endtask enum event eventually expect
export extends extern final first_match for force foreach forever fork forkjoin function generate genvar global
highz0 highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input
inside instance int integer interconnect interface intersect join join_any join_none large let liblist library local
localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0
rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
signed small soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1
sync_accept_on sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1
tri tri0 tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var
vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
"""
KEYWORDS = frozenset(_WORDS.split())


def top_name(name: str) -> str:
    """The name of a Verilog top as a person gave it.

    Raises:
        UsageError: no plain identifier, or a reserved word.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,199}", name):
        raise UsageError(f"Name must be a letter and up to 199 letters, digits and underscores, not {name!r}")
    if name in KEYWORDS:
        raise UsageError(f"Name must be no reserved word of Verilog or SystemVerilog, not {name!r}")
    return name


def plain_name(name: str) -> str:
    """A plain identifier that reads like ``name``."""
    result = re.sub(r"_+", "_", re.sub(r"\W", "_", name.strip())).strip("_")
    return f"{result}_" if result in KEYWORDS else result


def free_name(name: str, taken: set[str]) -> str:
    """``name``, or ``name`` with the first number from 2 on that nothing has taken."""
    if name not in taken:
        return name
    return next(other for k in count(2) if (other := f"{name}_{k}") not in taken)


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts ``sum_2`` before ``sum_10``."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part)
