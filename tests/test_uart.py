"""The serial line and its frames: bit by bit in Amaranth's simulator, and in software byte by byte."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.sim import Simulator
from hypothesis import given
from hypothesis import strategies as st

from hwrnn.errors import UsageError
from hwrnn.frames import BAUD, CAPACITY, Fault, Frame, FrameReader, Identity, Kind, checksum, encode
from hwrnn.rtl.frames import FrameReceiver, FrameSender
from hwrnn.rtl.uart import Receiver, Transmitter, divisor_of

SOME = bytes(random.Random(5).sample(range(256), 24)) + b"\x00\xff\x00\x00\xff\xff\x55\xaa"


def simulate(component, *processes):
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    for process, background in processes:
        simulator.add_testbench(process, background=background)
    simulator.run()


def bits_of(content: bytes) -> list[int]:
    return [bit for byte in content for bit in (0, *(byte >> k & 1 for k in range(8)), 1)]


def received(divisor: int, levels: list[int], rate: float = 1.0, offset: float = 0.0) -> bytes:
    """What a receiver makes of a line whose bits last ``divisor / rate`` cycles."""
    dut, found = Receiver(divisor), bytearray()

    async def run(ctx):
        length = int((len(levels) + 3) * divisor / rate)
        for cycle in range(length):
            at = int((cycle + offset) * rate / divisor)
            ctx.set(dut.rx, levels[at] if at < len(levels) else 1)
            _, _, valid, data = await ctx.tick().sample(dut.valid, dut.data)
            if valid:
                found.append(data)

    simulate(dut, (run, False))
    return bytes(found)


@pytest.mark.parametrize("rate", [0.98, 1.0, 1.02])
@pytest.mark.parametrize("divisor", [8, 9, 12, 25])
def test_bytes_arrive_at_rates_that_differ(divisor: int, rate: float) -> None:
    for offset in (0.0, 0.33, 0.66):
        assert received(divisor, bits_of(SOME), rate, offset) == SOME


def test_a_rate_that_differs_by_a_tenth_is_noticed() -> None:
    assert received(8, bits_of(SOME), 1.1) != SOME


def test_what_is_no_byte_is_dropped() -> None:
    fine, broken = bits_of(b"\x5a"), [0] * 12 + [1] * 12
    # A start bit that is over before its middle is none: here a quarter of a bit.
    glitch = [1, 0] + [1] * 50
    assert received(8, [*glitch, *(bit for bit in fine for _ in range(4))], rate=4) == b"\x5a"
    # Without its stop bit a byte is dropped, and the line has to be idle before the next one.
    assert received(8, broken + fine) == b"\x5a"


@pytest.mark.parametrize("divisor", [4, 7])
def test_transmitted_bytes_have_their_bits(divisor: int) -> None:
    dut, levels = Transmitter(divisor), []

    async def feed(ctx):
        for byte in SOME:
            ctx.set(dut.i.payload, byte)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(11 * divisor)

    async def watch(ctx):
        while True:
            _, _, level = await ctx.tick().sample(dut.tx)
            levels.append(level)

    simulate(dut, (feed, False), (watch, True))
    at, found = 0, []
    while 0 in levels[at:]:
        at = levels.index(0, at)
        byte = levels[at : at + 10 * divisor]
        found += byte[::divisor]
        assert byte == [bit for bit in byte[::divisor] for _ in range(divisor)]
        at += 10 * divisor
    assert found == bits_of(SOME)


@pytest.mark.parametrize("clock, baud, divisor", [(12e6, BAUD, 12), (25e6, BAUD, 25), (12e6, 115200, 104)])
def test_rates_that_a_clock_makes(clock: float, baud: int, divisor: int) -> None:
    assert divisor_of(clock, baud) == divisor


@pytest.mark.parametrize(
    "baud, told",
    [
        (1_600_000, "Baud must be a whole number between 9600 and 1,500,000 at this clock, not 1600000"),
        (300, "Baud must be a whole number between 9600 and 1,500,000 at this clock, not 300"),
        (9.6, "Baud must be a whole number between 9600 and 1,500,000 at this clock, not 9.6"),
        (1_400_000, "Baud must be a rate that the clock of 12 MHz divides down to within 2%, not 1400000, which is"
                    " 4.8% off"),
    ],
)  # fmt: skip
def test_rates_that_it_does_not(baud: int, told: str) -> None:
    with pytest.raises(UsageError) as error:
        divisor_of(12e6, baud)
    assert str(error.value) == told


def test_the_checksum_is_the_catalogued_one() -> None:
    assert checksum(b"123456789") == 0x29B1  # the check value of CRC-16/IBM-3740


def test_a_frame_is_laid_out_as_documented() -> None:
    content = bytes([3, 77, 2, 0, 0x11, 0xFE])
    assert encode(Kind.END, 77, b"\x11\xfe") == b"\xa5\x5a" + content + struct.pack(">H", checksum(content))
    page = (Path(__file__).resolve().parent.parent / "docs/uart.md").read_text()
    assert f"`{encode(Kind.IDENTIFY, 7).hex(' ').upper()}` asks a board what it is" in page
    assert [kind.answer for kind in (Kind.IDENTIFY, Kind.DATA, Kind.END, Kind.RESET)] == [0x81, 0x82, 0x83, 0x84]


frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=20))


@given(st.lists(frames, max_size=4), st.integers(1, 9))
def test_frames_come_out_as_they_went_in(sent: list[Frame], step: int) -> None:
    line = b"".join(encode(f.kind, f.tag, f.payload) for f in sent)
    reader = FrameReader(64)
    found = [frame for at in range(0, len(line), step) for frame in reader.feed(line[at : at + step])]
    assert found == sent and reader.skipped == 0


@given(st.binary(max_size=40), frames)
def test_a_frame_behind_garbage_is_found(garbage: bytes, sent: Frame) -> None:
    # What follows ends any frame that the garbage may seem to begin.
    reader = FrameReader(20)
    found = reader.feed(garbage + encode(sent.kind, sent.tag, sent.payload) + bytes(40))
    assert sent in found


def test_the_reader_never_asks_for_more_than_the_frame() -> None:
    reader, line = FrameReader(64), encode(1, 2, b"abc")
    assert reader.wanted == 8
    assert reader.feed(b"\x00\xa5" + line[:6]) == []
    assert reader.wanted == len(line) - 6
    assert reader.feed(line[6:]) == [Frame(1, 2, b"abc")]


IDENTITY = Identity(1, 1, 2, 12, 9, 8, 15, True, False, True, False, CAPACITY, b"8 bytes.")


def test_an_identity_survives_its_frame() -> None:
    for identity in (IDENTITY, replace(IDENTITY, every_step=False, argmax=True, input_signed=False)):
        assert Identity.decode(identity.encode()) == identity
    layout = bytes([1, 1, 2, 0b0101, 12, 0, 9, 0, 0, 2, 8, 15]) + b"8 bytes."
    assert IDENTITY.encode() == layout  # docs/uart.md


def test_what_is_no_identity_is_none() -> None:
    good = IDENTITY.encode()
    assert Identity.decode(good[:-1]) is None
    assert Identity.decode(b"\x02" + good[1:]) is None
    assert Identity.decode(good[:1] + b"\x00" + good[2:]) is None


def requests_of(content: bytes, unit: int = 1) -> list[tuple[int, int, int, int, int]]:
    """Fault, kind, tag, length, and whether whole, of the requests that the hardware finds in bytes."""
    dut, found = FrameReceiver(unit), []
    shown = (dut.request, dut.fault, dut.kind, dut.tag, dut.length, dut.whole)

    async def run(ctx):
        for byte in content:
            ctx.set(dut.data, byte)
            ctx.set(dut.valid, 1)
            await ctx.tick()
            ctx.set(dut.valid, 0)
            for _ in range(4):
                _, _, request, *facts = await ctx.tick().sample(*shown)
                ctx.set(dut.done, request)
                if request:
                    found.append(tuple(facts))

    simulate(dut, (run, False))
    return list(dict.fromkeys(found))  # a request shows for a second cycle until it is done


def test_the_hardware_finds_requests() -> None:
    good = encode(2, 9, b"\x01\x02\x03")
    bad = bytearray(encode(2, 10, b"\x01\x02\x03"))
    bad[7] ^= 0x10
    long = b"\xa5\x5a\x02\x0b\x01\x02"  # a length of 513
    assert requests_of(b"\xa5\x00\xa5" + good) == [(0, 2, 9, 3, 1)]
    assert requests_of(bytes(bad)) == [(Fault.CHECKSUM, 2, 10, 3, 1)]
    assert requests_of(long) == [(Fault.LENGTH, 2, 11, 513, 1)]
    assert requests_of(good, unit=2) == [(0, 2, 9, 3, 0)]
    assert requests_of(good, unit=3) == [(0, 2, 9, 3, 1)]
    assert requests_of(bytes(bad) + good + long) == [
        (Fault.CHECKSUM, 2, 10, 3, 1), (0, 2, 9, 3, 1), (Fault.LENGTH, 2, 11, 513, 1),
    ]  # fmt: skip


def test_the_hardware_sends_what_the_software_reads() -> None:
    dut, line = FrameSender(), bytearray()
    wanted = [Frame(0x90, 3, bytes(range(7))), Frame(0x82, 4, b""), Frame(0xFF, 200, b"\x01")]

    async def run(ctx):
        for frame in wanted:
            ctx.set(dut.start, 1)
            for name, value in (("kind", frame.kind), ("tag", frame.tag), ("length", len(frame.payload))):
                ctx.set(getattr(dut, name), value)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.kind, 0)
            for byte in frame.payload:
                ctx.set(dut.payload.valid, 1)
                ctx.set(dut.payload.payload, byte)
                await ctx.tick().until(dut.payload.ready)
            ctx.set(dut.payload.valid, 0)
            await ctx.tick().until(dut.ready)

    async def watch(ctx):
        cycle = 0
        while True:
            cycle += 1
            ctx.set(dut.o.ready, cycle % 3 == 0)
            _, _, valid, byte = await ctx.tick().sample(dut.o.valid & dut.o.ready, dut.o.payload)
            if valid:
                line.append(byte)

    simulate(dut, (run, False), (watch, True))
    assert bytes(line) == b"".join(encode(f.kind, f.tag, f.payload) for f in wanted)
