"""The stream parts obey the handshake, and what enters leaves once, in order, with ``last`` where it belongs.

Each harness surrounds a part with partners that are free in every cycle: a producer that keeps only what AXI4-Stream
promises (what is offered stays until it is taken), and a consumer that takes when it likes. What is asserted follows
one arbitrary token (the solver chooses which), so it holds for all of them.

``reach`` proves without a bound by property-directed reachability (Bradley 2011, Een 2011) in ABC, which comes with
Yosys' library: it finds the invariants that an induction lacks, and checks them. What it refutes is shown by
``formal.prove``, step by step.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amaranth.asserts import AnyConst, AnySeq
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cat, ClockDomain, Elaboratable, Module, Mux, ResetInserter, Signal, Value
from formal import FormalError, Outcome, Proof, prove

from hwrnn.fixed import Format
from hwrnn.rtl.argmax import ArgMax
from hwrnn.rtl.inputs import InputVectors
from hwrnn.rtl.loading import Gate
from hwrnn.rtl.ports import OutputBuffer
from hwrnn.rtl.repeat import Repeat
from hwrnn.rtl.tools import yosys_job

__all__ = ["PROOFS", "AnyReset", "Harness", "consume", "free", "in_order", "planted", "produce", "reach"]

_SCRIPT = """
read_rtlil design.il
hierarchy -check -top top
proc
flatten
opt_expr -keepdc
opt_clean
memory_map
async2sync
chformal -lower
opt -fast -keepdc
dffunmap
setundef -undriven -anyseq
techmap
simplemap
aigmap
opt_clean
write_aiger -I -B -zinit -no-startoffset design.aig
"""


def checker() -> Path | None:
    """The program of ABC, None where Yosys' native library is not installed."""
    found = importlib.util.find_spec("pyosys")
    folders = [] if found is None else found.submodule_search_locations or []
    return next((Path(folder) / "yosys-abc" for folder in folders if (Path(folder) / "yosys-abc").exists()), None)


def reach(design: Any, *, timeout: float = 300.0, bound: int | None = None) -> Outcome:
    """Whether a reachable state breaks an assertion of a design.

    Args:
        design: an elaboratable, as for :func:`formal.prove`.
        timeout: seconds for everything.
        bound: steps; with it only runs of so many are looked at.
    """
    start = time.monotonic()

    def left() -> float:
        return max(timeout - (time.monotonic() - start), 0.1)

    with tempfile.TemporaryDirectory(prefix="reach") as name:
        folder = Path(name)
        m = Module()
        m.domains.sync = domain = ClockDomain("sync")
        m.d.comb += domain.rst.eq(0)
        m.submodules.dut = design
        (folder / "design.il").write_text(rtlil.convert(m, name="top", ports=[domain.clk]))
        (folder / "design.ys").write_text(_SCRIPT)
        job = yosys_job("design.ys", "yosys.log", "design.aig")
        command = [sys.executable, "-c", job.code, *job.arguments]
        search = "pdr" if bound is None else f"bmc3 -F {bound}"
        lines = f"read_aiger design.aig; fold; strash; scorr; dc2; orpos; print_stats; {search}; print_status"
        try:
            made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=left())
            if not (folder / "design.aig").exists():
                raise FormalError(f"Yosys must end without an error, and said: {(made.stdout + made.stderr)[-500:]}")
            found = subprocess.run(
                [str(checker()), "-c", lines], cwd=folder, capture_output=True, text=True, timeout=left()
            )
        except subprocess.TimeoutExpired:
            return Outcome("timeout", bound or 0, seconds=timeout)
    log, seconds = found.stdout, time.monotonic() - start
    said = re.search(r"Status = (-?\d+) +Frames = (-?\d+)(?:.*Frame = +(\d+))?", log)
    if said is None:
        raise FormalError(f"ABC must tell a status, and said: {(log + found.stderr)[-500:]}")
    status, frames = int(said[1]), int(said[2])
    if status == 1:
        return Outcome("proved", frames, seconds=seconds, log=log)
    if status == 0:
        shown = prove(design, mode="bmc", depth=int(said[3]) + 2, timeout=left())
        if shown.status != "refuted":
            raise FormalError(f"What ABC refutes must be refuted by bitwuzla too, but is {shown.status}")
        return shown
    if bound is not None:
        return Outcome("bounded", bound, seconds=seconds, log=log)
    # ABC's search has nothing to say where its simplification, itself an induction, has left a constant.
    if re.search(r"lat = +0 +and = +0 ", log) and prove(design, mode="bmc", depth=2).status == "bounded":
        return Outcome("proved", 1, seconds=seconds, log=log)
    return Outcome("unknown", frames, seconds=seconds, log=log)


def planted(cls: Any, old: str, new: str, **names: Any) -> Any:
    """A class whose text has one place changed, or whose module knows other classes by the same names."""
    text, known = cls.__dict__.get("planted", (None, vars(sys.modules[cls.__module__])))
    if text is None:
        text = textwrap.dedent(inspect.getsource(cls))
    assert not old or text.count(old) == 1, f"{cls.__name__} has {text.count(old)} times {old!r}"
    text, known = text.replace(old, new) if old else text, {**known, **names}
    exec(compile(text, f"<{cls.__name__}>", "exec"), known)
    made = known[cls.__name__]
    made.planted = text, known  # for a second change
    return made


def free(m: Module, width: int, name: str) -> Signal:
    """A signal that may be anything in every cycle."""
    signal = Signal(width, name=name)
    m.d.comb += signal.eq(AnySeq(width))
    return signal


def chosen(m: Module, width: int, name: str) -> Signal:
    """A signal that is anything, and stays so."""
    signal = Signal(width, name=name)
    m.d.comb += signal.eq(AnyConst(width))
    return signal


def produce(m: Module, port: Any, name: str = "i") -> Signal:
    """A producer that is free to offer anything in every cycle, and to withdraw it; whether an element is taken."""
    payload, moves = Value.cast(port.payload), Signal(name=f"{name}_moves")
    m.d.comb += [payload.eq(free(m, len(payload), f"{name}_any")), port.valid.eq(free(m, 1, f"{name}_offers"))]
    m.d.comb += moves.eq(port.valid & port.ready)
    return moves


def consume(m: Module, port: Any, name: str = "o") -> Signal:
    """A consumer that is free to take, and sees that what is offered stays; whether an element is taken."""
    moves = Signal(name=f"{name}_moves")
    m.d.comb += [port.ready.eq(free(m, 1, f"{name}_accepts")), moves.eq(port.valid & port.ready)]
    kept(m, port, name)
    return moves


def kept(m: Module, port: Any, name: str, check: Any = Assert) -> None:
    """What was offered and not taken in the cycle before is offered still, the same."""
    payload = Value.cast(port.payload)
    waits, before = Signal(name=f"{name}_waits"), Signal(len(payload), name=f"{name}_before")
    m.d.sync += [waits.eq(port.valid & ~port.ready), before.eq(payload)]
    with m.If(waits):
        m.d.comb += check(port.valid, f"{name} stays valid until it is taken")
        m.d.comb += check(payload == before, f"{name} stays the same until it is taken")


def counter(m: Module, step: Any, end: int, name: str) -> tuple[Signal, Signal]:
    """How many of ``end`` steps there were, and whether this one is the last of them."""
    at, over = Signal(range(max(end, 2)), name=name), Signal(name=f"{name}_over")
    m.d.comb += over.eq(step & (at == end - 1))
    with m.If(step):
        m.d.sync += at.eq(Mux(at == end - 1, 0, at + 1))
    return at, over


def in_order(m: Module, enters: Any, token: Any, leaves: Any, shown: Any, most: int, at_once: bool = False) -> Signal:
    """Each token that enters leaves once, in order and as it was; how many are inside.

    Args:
        token: that enters, in the cycle of ``enters``.
        shown: what leaves, in the cycle of ``leaves``.
        most: tokens that can be inside. One that were lost, again and again, would be counted beyond it.
        at_once: whether a token may leave in the cycle in which it enters.
    """
    token, shown = Value.cast(token), Value.cast(shown)
    inside, ahead = (Signal(range(most + 3), name=name) for name in ("inside", "ahead"))
    follows, gone, it = Signal(name="follows"), Signal(name="gone"), Signal(len(token), name="it")
    m.d.sync += inside.eq(inside + enters - leaves)
    m.d.comb += Assert(inside <= most, "nothing is lost")
    with m.If(leaves):
        m.d.comb += Assert((inside != 0) | (enters if at_once else 0), "nothing leaves that has not entered")
        if at_once:
            with m.If((inside == 0) & enters):
                m.d.comb += Assert(shown == token, "it leaves as it entered")
    with m.If(enters & ~follows & free(m, 1, "this_one")):
        m.d.sync += [follows.eq(1), it.eq(token), ahead.eq(inside - leaves)]
        if at_once:
            m.d.sync += gone.eq((inside == 0) & leaves)
    with m.If(follows & leaves & ~gone):
        m.d.sync += ahead.eq(ahead - 1)
        with m.If(ahead == 0):
            m.d.sync += gone.eq(1)
            m.d.comb += Assert(shown == it, "it leaves as it entered")
    return inside


class Harness(Elaboratable):
    """A part and what is claimed of it.

    Args:
        part: the component.
        claims: adds the partners and the assertions.
    """

    _MustUse__silence = True

    def __init__(self, part: Any, claims: Callable[[Module, Any], object]) -> None:
        self.part, self.claims = part, claims

    def elaborate(self, platform: object) -> Module:
        """The part in its harness."""
        m = Module()
        m.submodules.part = self.part
        self.claims(m, self.part)
        return m


class AnyReset(Elaboratable):
    """A harness that is reset in any cycles, with its part."""

    _MustUse__silence = True

    def __init__(self, harness: Any) -> None:
        self.harness = harness

    def elaborate(self, platform: object) -> Module:
        """Registers that a reset spares keep what they have."""
        m = Module()
        m.submodules.harness = ResetInserter(free(m, 1, "reset"))(self.harness)
        return m


FORM = Format(2, 0)


def of_output_buffer(m: Module, part: OutputBuffer) -> None:
    """Written only while fewer elements are inside than were promised."""
    m.d.comb += [part.write.eq(free(m, 1, "writes")), Value.cast(part.payload).eq(free(m, part.layout.size, "what"))]
    leaves = consume(m, part.o)
    inside = in_order(m, part.write, part.payload, leaves, part.o.payload, part.depth)
    m.d.comb += Assume(~part.write | (inside < part.depth))
    m.d.comb += Assert(part.taken == leaves, "a credit returns with each element")


def of_input_vectors(m: Module, part: InputVectors) -> None:
    """Read by somebody who begins and releases vectors in order, and follows one of them and one of its columns."""
    moves = produce(m, part.i)
    at, complete = counter(m, moves, part.inputs, "at")
    waiting, held, oldest = Signal(range(part.slots + 2)), Signal(range(part.slots + 2)), Signal(range(part.slots))
    m.d.comb += [part.begun.eq(free(m, 1, "begins")), part.released.eq(free(m, 1, "releases"))]
    m.d.comb += [Assume(~part.begun | part.present), Assume(~part.released | (held > waiting) | part.begun)]
    m.d.sync += [waiting.eq(waiting + complete - part.begun), held.eq(held + complete - part.released)]
    m.d.sync += oldest.eq(oldest + part.released)
    m.d.comb += [
        Assert(part.present == (waiting != 0), "a vector is present while one waits"),
        Assert(held <= part.slots, "no more vectors than slots"),
        Assert(part.i.ready | (held == part.slots), "while there is a slot, elements are taken"),
    ]
    # the vector that is followed: the place that it got in the row of those that are held
    follows, place, begun = Signal(), Signal(range(part.slots + 1)), Signal()
    column, it, end = chosen(m, len(part.column), "column"), Signal(part.form.width), Signal.like(part.i.payload)
    m.d.comb += [part.column.eq(column), Assume(column < part.inputs)]
    with m.If(moves & (at == column) & ~follows):
        m.d.sync += it.eq(part.i.payload.data)
    with m.If(complete & ~follows & free(m, 1, "this_one")):
        m.d.sync += [follows.eq(1), place.eq(held - part.released), end.eq(part.i.payload)]
    with m.Elif(follows & part.released):
        m.d.sync += [place.eq(place - 1), begun.eq(begun | (place == 0))]
    here, read = Signal(), Signal()
    m.d.comb += [part.slot.eq(free(m, len(part.slot), "slot"))]
    m.d.comb += here.eq(follows & ~begun & (part.slot == (oldest + place)[: len(part.slot)]))
    m.d.sync += read.eq(here)
    with m.If(here):
        m.d.comb += Assert(part.last == end.last, "its last stays with it")
        if part.channels > 1:
            m.d.comb += Assert(part.channel == end.channel, "its channel stays with it")
    with m.If(read):
        m.d.comb += Assert(part.data.as_unsigned() == it, "its elements stay in their places")


def of_argmax(m: Module, part: ArgMax) -> None:
    """An index for each vector, that of its largest element."""
    moves, leaves = produce(m, part.i), consume(m, part.o)
    at, complete = counter(m, moves, part.count, "place")
    best, where, index = Signal.like(part.i.payload.data), Signal.like(at), Signal.like(part.o.payload.data)
    larger = Signal()
    m.d.comb += [larger.eq((at == 0) | (part.i.payload.data > best)), index.eq(Mux(larger, at, where))]
    with m.If(moves & larger):
        m.d.sync += [best.eq(part.i.payload.data), where.eq(at)]
    given, shown = Cat(index, Value.cast(part.i.payload)[part.form.width :]), part.o.payload
    in_order(m, complete, given, leaves, shown, 2)


def of_repeat(m: Module, part: Repeat) -> None:
    """Of one arbitrary sequence: as many vectors, each with the last one's element in one arbitrary column."""
    moves, leaves = produce(m, part.i), consume(m, part.o)
    at, complete = counter(m, moves, part.units, "place")
    out, whole = counter(m, leaves, part.units, "place_out")
    ends, left = Signal(), Signal()
    m.d.comb += [ends.eq(complete & part.i.payload.last), left.eq(leaves & part.o.payload.last)]
    column = chosen(m, len(at), "column")
    element_in, count = Signal(part.form.width), Signal(part.bits)
    m.d.comb += Assume(column < part.units)
    with m.If(moves & (at == column)):
        m.d.sync += element_in.eq(part.i.payload.data)
    with m.If(complete):
        m.d.sync += count.eq(Mux(ends, 0, Mux(count == part.most_steps - 1, count, count + 1)))
    inside, ahead = Signal(range(6)), Signal(range(6))
    follows, gone, it, owed = Signal(), Signal(), Signal(part.form.width), Signal(part.bits)
    m.d.sync += inside.eq(inside + ends - left)
    # two banks, and the last element of one before, at the port
    m.d.comb += Assert(inside <= 3, "nothing is lost")
    m.d.comb += Assert(~part.o.valid | (inside != 0), "nothing leaves that has not entered")
    with m.If(part.o.valid & part.o.payload.last):
        m.d.comb += Assert(out == part.units - 1, "last stands with a vector's last element")
    with m.If(ends & ~follows & free(m, 1, "this_one")):
        m.d.sync += [follows.eq(1), ahead.eq(inside - left), owed.eq(count)]
        m.d.sync += it.eq(Mux(column == at, part.i.payload.data, element_in))
    with m.If(follows & ~gone & part.o.valid & (ahead == 0)):
        m.d.comb += Assert(part.o.payload.last == ((owed == 0) & (out == part.units - 1)), "as many vectors as came")
        m.d.comb += Assert(
            (out != column) | (part.o.payload.data.as_unsigned() == it), "each is the last one that came"
        )
    with m.If(follows & ~gone & leaves):
        with m.If(left):
            m.d.sync += [ahead.eq(ahead - 1), gone.eq(ahead == 0)]
        with m.If((ahead == 0) & whole):
            m.d.sync += owed.eq(owed - 1)


def of_gate(m: Module, part: Gate) -> None:
    """Nothing is added, and it is drained only while no sequence is on its way."""
    moves, leaves = produce(m, part.i), Signal()
    m.d.comb += [part.o.ready.eq(free(m, 1, "o_accepts")), leaves.eq(part.o.valid & part.o.ready)]
    m.d.comb += [part.hold.eq(free(m, 1, "hold")), part.left.eq(free(m, 1, "left"))]
    in_order(m, moves, part.i.payload, leaves, part.o.payload, 0, at_once=True)


def _proof(kind: str, name: str, part: Callable[[], Any], claims: Callable[..., object], **options: Any) -> Proof:
    made = lambda: reach(AnyReset(Harness(part(), claims)))  # noqa: E731
    return Proof(kind, name, made, method="reachability", **options)


PARTS: list[tuple[str, Callable[[], Any], Callable[..., object]]] = [
    ("output buffer, 1 element", lambda: OutputBuffer(FORM, 1), of_output_buffer),
    ("output buffer, 5 elements", lambda: OutputBuffer(FORM, 5), of_output_buffer),
    ("output buffer, 4 elements, 3 channels", lambda: OutputBuffer(FORM, 4, 3), of_output_buffer),
    ("input vectors of 1", lambda: InputVectors(FORM, 1), of_input_vectors),
    ("input vectors of 3", lambda: InputVectors(FORM, 3), of_input_vectors),
    ("input vectors of 2, 4 slots, 2 channels", lambda: InputVectors(FORM, 2, 2, 4), of_input_vectors),
    ("argmax of 1", lambda: ArgMax(FORM, 1), of_argmax),
    ("argmax of 3, 2 channels", lambda: ArgMax(FORM, 3, 2), of_argmax),
    ("repeat of 1", lambda: Repeat(FORM, 1, 2), of_repeat),
    ("repeat of 3", lambda: Repeat(FORM, 3, 3), of_repeat),
    ("gate", lambda: Gate(FORM, 2, 3), of_gate),
]

SLOW = ("output buffer, 5 elements", "input vectors of 2, 4 slots, 2 channels", "repeat of 3")

#: what each breaks, the part with it, and what refutes it
FAULTS: list[tuple[str, Callable[[], Any], Callable[..., object]]] = [
    (
        "output buffer, what is offered is withdrawn",
        lambda: planted(OutputBuffer, "valid.eq(queue.r_rdy)", "valid.eq(queue.r_rdy & ~self.write)")(FORM, 3),
        of_output_buffer,
    ),
    (
        "output buffer, it does not wait for ready",
        lambda: planted(OutputBuffer, "r_en.eq(self.o.ready)", "r_en.eq(1)")(FORM, 3),
        of_output_buffer,
    ),
    (
        "output buffer, less deep than was promised",
        lambda: planted(OutputBuffer, "depth=max(self.depth, 3)", "depth=self.depth - 1")(FORM, 4),
        of_output_buffer,
    ),
    (
        "input vectors, it does not wait for a slot",
        lambda: planted(InputVectors, "self.i.ready.eq(~held[-1])", "self.i.ready.eq(1)")(FORM, 2),
        of_input_vectors,
    ),
    (
        "input vectors, last of any element",
        lambda: planted(
            InputVectors,
            "with m.If(complete):\n            m.d.sync += [count",
            "with m.If(taken):\n            m.d.sync += [count",
        )(FORM, 2),
        of_input_vectors,
    ),
    (
        "argmax, it does not wait for ready",
        lambda: planted(ArgMax, "self.i.ready.eq(~(held & ends & self.o.valid))", "self.i.ready.eq(1)")(FORM, 2),
        of_argmax,
    ),
    (
        "argmax, the last of equals",
        lambda: planted(ArgMax, "candidate > best", "candidate >= best")(FORM, 2),
        of_argmax,
    ),
    (
        "repeat, it does not wait for a bank",
        lambda: planted(Repeat, "self.i.ready.eq(~full.bit_select(into, 1))", "self.i.ready.eq(1)")(FORM, 1, 2),
        of_repeat,
    ),
    (
        "repeat, it does not wait for ready",
        lambda: planted(Repeat, "step.eq(~self.o.valid | self.o.ready)", "step.eq(1)")(FORM, 1, 2),
        of_repeat,
    ),
    (
        "repeat, no last",
        lambda: planted(Repeat, "payload.last.eq(emitted & final.bit_select(of, 1))", "payload.last.eq(0)")(FORM, 1, 2),
        of_repeat,
    ),
    (
        "gate, the producer does not wait",
        lambda: planted(Gate, "self.i.ready.eq(self.o.ready & open_)", "self.i.ready.eq(self.o.ready)")(FORM, 2, 3),
        of_gate,
    ),
]

#: by name
PROOFS = {name: _proof("stream parts", name, *made, slow=name in SLOW) for name, *made in PARTS}
PROOFS |= {
    f"{name} (fault)": _proof("stream parts", f"{name} (fault)", *made, expect="refuted") for name, *made in FAULTS
}
