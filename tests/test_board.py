"""A network behind a board's UART: simulated whole, placed for two boards, and as a netlist."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from networks import network_of
from simulated_board import SimulatedBoard, identity_of

from hwrnn import run_on_board
from hwrnn.cli import main
from hwrnn.compiler import CPP, compiler_available
from hwrnn.errors import UsageError
from hwrnn.frames import CAPACITY, Fault, Frame, FrameReader, Identity, Kind, encode
from hwrnn.golden import golden
from hwrnn.host import packed, unpacked
from hwrnn.rtl import Network, generate
from hwrnn.rtl.board import check_clock, design_for
from hwrnn.rtl.boards import BOARDS, board_named
from hwrnn.rtl.flow import implement
from hwrnn.rtl.placement import Placed

simulated = pytest.mark.skipif(not compiler_available(CPP), reason="there is no C++ compiler")


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


class Talk:
    """Frames to and from a simulated board, one request at a time."""

    def __init__(self, network: Network) -> None:
        self.identity = identity_of(network)
        self.board = SimulatedBoard(network)
        self.tag = 0

    def say(self, content: bytes) -> list[Frame]:
        """Bytes to the board; the frames that come back until it is silent."""
        self.board.write(content)
        reader = FrameReader(4096)
        self.board.flush()
        self.board.timeout = 0.5
        found = []
        while received := self.board.read(64):
            found += reader.feed(received)
        assert reader.skipped == 0 and not reader.waiting
        return found

    def ask(self, kind: int, payload: bytes = b"") -> list[Frame]:
        self.tag += 1
        found = self.say(encode(kind, self.tag, payload))
        assert found and {frame.tag for frame in found} == {self.tag}
        return found

    def vectors(self, kind: int, raw: np.ndarray) -> list[list[int]]:
        """The output vectors that some raw inputs bring, each with its mark of the end."""
        *outputs, answer = self.ask(kind, packed(raw, self.identity.input_bytes))
        assert (answer.kind, answer.payload) == (kind | 0x80, b"")
        assert all(frame.kind == Kind.OUTPUT for frame in outputs)
        return [[*unpacked(frame.payload[:-1], self.identity).tolist(), frame.payload[-1]] for frame in outputs]


@pytest.fixture(scope="module")
def small() -> Any:
    """A model, raw inputs, lengths, and golden's outputs."""
    model, x, lengths = network_of("gru", 2, 3, 3, bits=6)
    raw = model.quantize_input(x)
    outputs = golden(model, raw, lengths).output
    return SimpleNamespace(model=model, x=x, raw=raw, lengths=lengths, golden=outputs, network=Network(model, 2))


@pytest.fixture
def talk(small: Any) -> Any:
    made = Talk(small.network)
    yield made
    made.board.close()


@simulated
@pytest.mark.parametrize(
    "cell, inputs, outputs, bits, options",
    [
        ("lstm", 2, 3, 6, {}),
        ("gru", 3, 2, 8, {"every_step": True}),
        ("rnn", 1, 4, 16, {"argmax": True}),  # 2 bytes in
        ("ligru", 3, 1, 18, {"task": "regression", "every_step": True}),  # 3 bytes in
        ("mingru", 1, 1, 4, {"task": "regression"}),
        ("gru", 1, 2, 8, {"task": "regression", "every_step": True, "layers": 2, "encoder": 1}),
    ],
)
def test_boards_compute_the_golden_integers(cell: str, inputs: int, outputs: int, bits: int, options: Any) -> None:
    argmax = options.get("argmax", False)
    more = {name: value for name, value in options.items() if name != "argmax"}
    # The longest does not fit one request, and is cut within a time step where its vectors do not divide the room.
    model, x, lengths = network_of(cell, inputs, 3, outputs, bits=bits, lengths=(3, 1, 400, 7), **more)
    board = SimulatedBoard(Network(model, 3, argmax))
    result = run_on_board(model, board, x, lengths)
    assert result.mismatches == 0 and result.repeated == 0
    expected = golden(model, model.quantize_input(x), lengths).output
    if argmax:
        expected = expected.argmax(axis=-1)[..., None]
    assert result.outputs.tolist() == expected.tolist()
    assert result.compared == (int(lengths.sum()) if model.every_step else len(x)) * (1 if argmax else outputs)
    board.close()


@simulated
@pytest.mark.parametrize("rate", [0.98, 1.02])
def test_the_host_may_be_off_by_two_percent(rate: float, small: Any) -> None:
    board = SimulatedBoard(small.network, divisor=12, rate=rate)
    result = run_on_board(small.model, board, small.x, small.lengths)
    assert result.outputs.tolist() == small.golden.tolist() and result.repeated == 0
    board.close()


@simulated
def test_a_board_says_what_it_is(small: Any, talk: Any) -> None:
    (answer,) = talk.ask(Kind.IDENTIFY)
    found = Identity.decode(answer.payload)
    assert answer.kind == Kind.IDENTIFY.answer and found == talk.identity
    assert (found.inputs, found.outputs, found.capacity) == (2, 3, CAPACITY)
    assert not found.every_step and not found.argmax


@simulated
def test_a_sequence_in_pieces_of_any_size(small: Any, talk: Any) -> None:
    sizes = random.Random(2)
    for n, length in enumerate(small.lengths.tolist()):
        elements = small.raw[n, :length].reshape(-1)
        at = 0
        while (left := len(elements) - at) > 0:
            size = sizes.randint(1, left)
            found = talk.vectors(Kind.END if size == left else Kind.DATA, elements[at : at + size])
            at += size
        assert found == [[*small.golden[n].tolist(), 1]]


@simulated
def test_the_end_counts_only_with_a_steps_last_element(small: Any, talk: Any) -> None:
    elements = small.raw[0].reshape(-1)  # its length is that of the longest
    assert talk.vectors(Kind.END, elements[:3]) == []
    assert talk.vectors(Kind.END, elements[3:]) == [[*small.golden[0].tolist(), 1]]


@simulated
def test_a_damaged_request_changes_nothing(small: Any, talk: Any) -> None:
    elements = packed(small.raw[0], 1)
    assert talk.ask(Kind.DATA, elements[:5]) == [Frame(Kind.DATA.answer, 1, b"")]
    whole = encode(Kind.END, 2, elements[5:])
    for at in range(2, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        found = talk.say(bytes(damaged))
        if not found:  # a longer frame by its length, which what comes next completes
            found = talk.say(bytes(CAPACITY))
        refusals = {(Kind.ERROR, bytes([fault])) for fault in (Fault.CHECKSUM, Fault.LENGTH)}
        assert {(frame.kind, frame.payload) for frame in found} <= refusals and found, at
    found = talk.say(whole)
    assert [unpacked(f.payload[:-1], talk.identity).tolist() for f in found[:-1]] == [small.golden[0].tolist()]


@simulated
def test_garbage_ends_with_zeros(small: Any, talk: Any) -> None:
    source = random.Random(3)
    elements = packed(small.raw[0], 1)
    for _ in range(12):
        garbage = bytes(source.choice([0xA5, 0x5A, 0, 1, 2, 3, 255]) for _ in range(source.randint(1, 40)))
        talk.say(b"\xa5\x5a\x03" * source.randint(0, 1) + garbage)
        talk.say(bytes(CAPACITY + 8))
        # Garbage may have been a request by chance, but none with the right checksum here.
        *outputs, answer = talk.ask(Kind.END, elements)
        assert answer.kind == Kind.END.answer
        assert unpacked(outputs[0].payload[:-1], talk.identity).tolist() == small.golden[0].tolist()


@simulated
def test_what_is_no_request_is_refused(small: Any, talk: Any) -> None:
    def refused(kind: int, payload: bytes = b"") -> int:
        (answer,) = talk.ask(kind, payload)
        assert answer.kind == Kind.ERROR and len(answer.payload) == 1
        return answer.payload[0]

    assert [refused(kind) for kind in (0, 5, 0x81, 255)] == [Fault.KIND] * 4
    assert refused(Kind.IDENTIFY, b"x") == refused(Kind.RESET, b"x") == refused(Kind.DATA) == Fault.LENGTH
    talk.tag += 1
    assert talk.say(encode(Kind.DATA, talk.tag, bytes(CAPACITY + 1))[:6]) == [
        Frame(Kind.ERROR, talk.tag, bytes([Fault.LENGTH]))
    ]
    assert talk.vectors(Kind.END, small.raw[0]) == [[*small.golden[0].tolist(), 1]]


@simulated
def test_elements_must_be_whole() -> None:
    model, x, lengths = network_of("rnn", 1, 2, 2, bits=16, lengths=(2,))
    talk = Talk(Network(model, 1))
    raw = model.quantize_input(x)
    content = packed(raw[0], 2)
    assert talk.ask(Kind.DATA, content[:3])[0].payload == bytes([Fault.LENGTH])
    assert talk.vectors(Kind.END, raw[0]) == [[*golden(model, raw, lengths).output[0].tolist(), 1]]
    talk.board.close()


@simulated
@pytest.mark.parametrize("elements", [1, 2, 5, 7])
def test_a_reset_drops_the_sequence_in_progress(elements: int, small: Any, talk: Any) -> None:
    for n in range(len(small.raw)):
        assert talk.vectors(Kind.DATA, small.raw[0].reshape(-1)[:elements]) == []
        assert talk.ask(Kind.RESET) == [Frame(Kind.RESET.answer, talk.tag, b"")]
        found = talk.vectors(Kind.END, small.raw[n, : small.lengths[n]])
        assert found == [[*small.golden[n].tolist(), 1]]


@simulated
def test_bytes_while_a_board_works_are_ignored(small: Any, talk: Any) -> None:
    elements = packed(small.raw[0], 1)
    found = talk.say(encode(Kind.END, 1, elements) + encode(Kind.RESET, 2)[:3])
    assert [frame.kind for frame in found] == [Kind.OUTPUT, Kind.END.answer]


# The table of boards, and what is refused.


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_is_of_its_part(name: str) -> None:
    needs("amaranth_boards")
    board = BOARDS[name]
    platform = board.make()
    target = board.target
    assert board.name == name and target.place
    device = {"iCE40UP5K": "up5k", "LFE5U-25F": "--25k", "LFE5U-45F": "--45k", "LFE5U-85F": "--85k"}[platform.device]
    assert device in (target.name, target.place[0])
    assert platform.package.lower() in (target.place[2], "bg381")
    if target.family == "ecp5":
        assert target.place[-1] == platform.speed and target.place[2] == "CABGA381"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small: Any) -> Path:
    path = tmp_path_factory.mktemp("board") / "verilog"
    generate(small.model, path, lanes=2, name="net", samples=small.x, lengths=small.lengths)
    return path


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def test_a_board_brings_pins_and_clock(folder: Path) -> None:
    needs("amaranth_boards")
    manifest = manifest_of(folder)
    design = design_for(BOARDS["icebreaker"], manifest)
    assert (design.top, design.clock_mhz, design.baud) == ("net_on_board", 12.0, 1_000_000)
    assert re.search(r"set_io uart_0__rx__io 6\nset_io uart_0__tx__io 9\nset_io clk12_0__io 35\n", design.constraints)
    assert re.search(r"^  net network \(", design.verilog, re.MULTILINE)
    design = design_for(BOARDS["ulx3s"], manifest, 115200)
    assert (design.clock_mhz, design.baud) == (25.0, 115200)
    assert 'LOCATE COMP "uart_0__rx__io" SITE "M1"' in design.constraints
    assert design_for(BOARDS["ulx3s"], manifest, 115200) == design  # the same in every run


def test_the_hardware_of_a_manifest_is_that_of_its_network(folder: Path, small: Any) -> None:
    manifest = manifest_of(folder)
    assert Identity.of(manifest) == identity_of(small.network)
    assert Identity.of(manifest).model.hex() == manifest["model_sha256"][:16]


def test_what_a_board_cannot_do_is_one_sentence(folder: Path, tmp_path: Path, small: Any) -> None:
    needs("amaranth_boards")
    manifest = manifest_of(folder)
    generate(small.model, tmp_path / "four", lanes=2, channels=4)
    with pytest.raises(UsageError) as error:
        design_for(BOARDS["icebreaker"], manifest_of(tmp_path / "four"))
    assert str(error.value) == "Network must have one channel for a board, not 4: generate it without --channels"
    with pytest.raises(UsageError, match=r"^Baud must be a whole number between 9600 and 1,500,000 at this clock"):
        design_for(BOARDS["icebreaker"], manifest, 2_000_000)
    with pytest.raises(UsageError, match=r"^Board must be one of icebreaker, ulx3s-25f, .*, not 'de0'$"):
        board_named("de0")
    for given in ({}, {"device": "up5k", "board": "icebreaker"}):
        with pytest.raises(UsageError, match=r"^Device or board must be given, and not both: name a part or a board$"):
            implement(folder, **given)
    with pytest.raises(UsageError, match=r"^Baud must be given with a board, not with the device 'up5k'$"):
        implement(folder, "up5k", baud=115200)
    assert not list(folder.glob("implementation-*"))


def test_the_command_line_takes_a_device_or_a_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["implement", "x"]) == 2
    assert "one of the arguments --device --board is required" in capsys.readouterr().err
    assert main(["implement", "x", "--device", "up5k", "--board", "icebreaker"]) == 2
    assert "not allowed with argument --device" in capsys.readouterr().err


def test_boards_need_their_extra(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "amaranth_boards.icebreaker", None)
    with pytest.raises(UsageError, match=r"^Module 'amaranth_boards.icebreaker' must be .*'hwrnn\[board\]'$"):
        design_for(BOARDS["icebreaker"], manifest_of(folder))


def test_a_design_slower_than_the_board_is_refused(folder: Path) -> None:
    needs("amaranth_boards")
    design = design_for(BOARDS["icebreaker"], manifest_of(folder))
    placed = Placed(1, 12.1, 0, {}, [], "")
    check_clock(design, placed)
    with pytest.raises(UsageError) as error:
        check_clock(design, replace(placed, fmax_mhz=11.9))
    assert str(error.value) == (
        "Network must run at the 12 MHz of icebreaker, and its best seed reaches 11.9 MHz: try more seeds, or generate"
        " it with the board's part as the target"
    )
    with pytest.raises(UsageError, match=r"reaches 12\.1 MHz with 3 hold violations: try more seeds"):
        check_clock(design, replace(placed, hold_violations=3))


# With the tools.


@pytest.mark.fpga
@pytest.mark.parametrize("name", ["icebreaker", "ulx3s"])
def test_a_board_gets_a_bitstream(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("amaranth_boards", "pyosys"):
        needs(module)
    model, _, _ = network_of("rnn", 2, 3, 2, bits=6)
    path = tmp_path / "verilog"
    generate(model, path, lanes=1, target=BOARDS[name].part)
    assert main(["implement", str(path), "--board", name, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert Path(result["bitstream"]).parent == path / f"implementation-{name}"
    assert Path(result["bitstream"]).stat().st_size > 10_000
    clock = {"icebreaker": 12, "ulx3s": 25}[name]
    assert result["board"] == {"name": name, "clock_mhz": clock, "baud": 1_000_000, "uart_steps_per_second": 50_000}
    assert result["device"] == BOARDS[name].part and result["fmax_mhz"] > 2 * clock
    assert result["steps_per_second"] == pytest.approx(clock * 1e6 / result["cycles_per_step"], rel=1e-6)
