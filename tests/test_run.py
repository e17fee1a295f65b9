"""The host's side of a board: over a pseudo terminal with pyserial, and with lines that fail."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from networks import network_of
from simulated_board import SimulatedBoard, identity_of

import hwrnn
from hwrnn import run_on_board, save
from hwrnn.cli import main
from hwrnn.compiler import CPP, compiler_available
from hwrnn.errors import MissingExtra, UsageError
from hwrnn.frames import OVERHEAD, SYNC, Frame, Kind, encode
from hwrnn.golden import golden
from hwrnn.host import BoardClient, LineError, opened
from hwrnn.rtl import Network

simulated = pytest.mark.skipif(not compiler_available(CPP), reason="there is no C++ compiler")
terminal = pytest.mark.skipif(
    not hasattr(os, "openpty") or importlib.util.find_spec("serial") is None,
    reason="there are no pseudo terminals, or pyserial of hwrnn[board] is not installed",
)


@pytest.fixture(scope="module")
def small() -> Any:
    model, x, lengths = network_of("gru", 2, 3, 3, bits=6, lengths=(4, 1, 3, 2))
    outputs = golden(model, model.quantize_input(x), lengths).output
    return SimpleNamespace(
        model=model, x=x, lengths=lengths, golden=outputs, y=outputs.argmax(axis=-1), network=Network(model, 2),
        other=network_of("gru", 2, 3, 3, bits=6, seed=9)[0],
    )  # fmt: skip


@pytest.fixture
def board(small: Any) -> Iterator[SimulatedBoard]:
    made = SimulatedBoard(small.network)
    yield made
    made.close()


@contextmanager
def plugged(board: SimulatedBoard) -> Iterator[str]:
    """A simulated board behind a pseudo terminal; the name of the terminal."""
    ours, theirs = os.openpty()
    done = threading.Event()

    def pump() -> None:
        while not done.is_set():
            if select.select([ours], [], [], 0.001)[0]:
                with suppress(OSError):
                    board.write(os.read(ours, 4096))
            board.timeout = 0.1  # 2,000 cycles at a time
            if found := board.read(1):
                os.write(ours, found)

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield os.ttyname(theirs)
    finally:
        done.set()
        thread.join()
        for end in (ours, theirs):
            os.close(end)


class Silent:
    """A port with nobody behind it, or somebody who says always the same."""

    name = "COM9"

    def __init__(self, says: bytes = b"") -> None:
        self.timeout: float = 0
        self.says = says
        self.written = b""

    def read(self, size: int = 1) -> bytes:
        return (self.says * size)[:size]

    def write(self, content: bytes) -> int:
        self.written += content
        return len(content)

    def flush(self) -> None:
        pass


@simulated
@terminal
def test_over_a_terminal(small: Any, board: SimulatedBoard) -> None:
    with plugged(board) as port:
        result = run_on_board(small.model, port, small.x, small.lengths, y=small.y)
    assert result.outputs.tolist() == small.golden.tolist()
    assert (result.mismatches, result.repeated, result.compared) == (0, 0, 12)
    assert (result.metric, result.score, result.golden_score) == ("accuracy", 1.0, 1.0)
    assert result.seconds.shape == (4,) and (result.seconds > 0).all()


@pytest.fixture
def files(small: Any, tmp_path: Path) -> Any:
    save(small.model, tmp_path / "q.onnx")
    save(small.other, tmp_path / "other.onnx")
    data = {"x": small.x, "y": small.y, "lengths": small.lengths}
    np.savez(tmp_path / "data.npz", **data)
    return tmp_path


@simulated
@terminal
def test_the_verb(files: Path, board: SimulatedBoard, capsys: Any) -> None:
    line = ["run", str(files / "q.onnx"), "--data", str(files / "data.npz")]
    with plugged(board) as port:
        assert main([*line, "--port", port, "--count", "3", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert main([*line, "--port", port]) == 0
        table = capsys.readouterr().out
        assert main(["run", str(files / "other.onnx"), "--data", str(files / "data.npz"), "--port", port]) == 2
        told = capsys.readouterr().err
    assert (result["sequences"], result["mismatches"], result["compared"], result["board"]) == (3, 0, 9, 1.0)
    assert result["steps"] == 8 and result["port"] == port and result["first_difference"] is None
    assert set(result["round_trip_seconds"]) == {"mean", "least", "most"}
    assert result["identity"]["argmax"] is False and len(result["identity"]["model"]) == 16
    assert "output values that differ from golden" in table and "0 of 12" in table
    assert "must hold the model" in told and len(told.splitlines()) == 1


@simulated
@terminal
def test_a_board_that_computes_something_else_is_found(small: Any, files: Path, capsys: Any) -> None:
    # It says that it holds the model, and holds another of the same sizes.
    network = Network(network_of("gru", 2, 3, 3, bits=6, seed=1)[0], 2)
    board = SimulatedBoard(network, identity=identity_of(small.network))
    with plugged(board) as port:
        line = ["run", str(files / "q.onnx"), "--data", str(files / "data.npz"), "--port", port]
        assert main([*line, "--json"]) == 1
        result = json.loads(capsys.readouterr().out)
        assert main(line) == 1
        assert "first difference: sequence 0, output 0, board " in capsys.readouterr().out
    board.close()
    assert result["mismatches"] > 0
    first = result["first_difference"]
    assert first["golden"] == small.golden[first["sequence"], first["output"]] != first["board"]


@simulated
def test_the_board_knows_argmax(small: Any) -> None:
    board = SimulatedBoard(Network(small.model, 2, argmax=True))
    result = run_on_board(small.model, board, small.x, small.lengths, y=small.y)
    assert result.identity.argmax and result.outputs[:, 0].tolist() == small.y.tolist()
    assert (result.mismatches, result.compared, result.score) == (0, 4, 1.0)
    assert "the class of the last step" in str(result)
    board.close()


@simulated
def test_damage_on_the_way_to_the_board_is_mended(small: Any, board: SimulatedBoard) -> None:
    frames = 0

    def spoil(content: bytes) -> bytes:
        nonlocal frames
        if not content.startswith(SYNC):
            return content
        frames += 1
        damaged = bytearray(content)
        if frames == 3:
            damaged[len(content) // 2 + 3] ^= 4  # refused, and sent again
        elif frames == 5:
            damaged[0] ^= 1  # no frame at all: no answer, and the sequence is sent again
        elif frames == 8:
            damaged[5] = 1  # a frame that is longer than what there is
        return bytes(damaged)

    board.spoil = spoil
    result = run_on_board(small.model, board, small.x, small.lengths)
    assert result.outputs.tolist() == small.golden.tolist()
    assert result.repeated == 3 and frames == 11


@simulated
def test_damage_on_the_way_back_is_mended(small: Any, board: SimulatedBoard) -> None:
    heard = 0

    def spoil(content: bytes) -> bytes:
        nonlocal heard
        damaged = bytearray(content)
        for k in range(len(damaged)):
            heard += 1
            damaged[k] ^= 0x20 if heard in (60, 100, 170) else 0
        return bytes(damaged)

    board.spoil_answer = spoil
    result = run_on_board(small.model, board, small.x, small.lengths)
    assert heard > 170
    assert result.outputs.tolist() == small.golden.tolist()
    assert result.repeated >= 2


@simulated
def test_a_board_left_within_a_frame_is_found(small: Any, board: SimulatedBoard) -> None:
    board.write(encode(Kind.DATA, 1, bytes(5)) + encode(Kind.DATA, 2, bytes(300))[:40])
    result = run_on_board(small.model, board, small.x, small.lengths)
    assert result.outputs.tolist() == small.golden.tolist() and result.repeated == 0


@simulated
def test_a_line_that_stays_bad_is_one_sentence(small: Any, board: SimulatedBoard) -> None:
    def spoil(content: bytes) -> bytes:
        ends = content[2:3] == bytes([Kind.END])
        return content[:-1] + bytes([content[-1] ^ 1]) if content.startswith(SYNC) and ends else content

    board.spoil = spoil
    with pytest.raises(UsageError) as error:
        run_on_board(small.model, board, small.x, small.lengths)
    told = "Line to the port must carry frames whole, and 3 of 3 arrived damaged (a sequence was sent 3 times)"
    assert str(error.value) == told


@pytest.mark.parametrize("says", [b"", b"\x00", b"hello\r\n"])
def test_nobody_there_is_one_sentence(says: bytes, small: Any) -> None:
    with pytest.raises(UsageError) as error:
        run_on_board(small.model, Silent(says), small.x, small.lengths, timeout=0.2)
    assert str(error.value) == (
        "Board on COM9 must answer, and does not within 0.2 s: check the port, the baud rate, and that a bitstream of"
        " hwrnn implement --board is loaded"
    )


def test_somebody_who_talks_without_frames_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"^Board on COM9 must answer in frames, and sends something else$"):
        BoardClient(Silent(b"hello\r\n"), "COM9", timeout=0.1).request(Kind.IDENTIFY)


@pytest.mark.parametrize(
    "answers, told",
    [
        ([(Kind.OUTPUT, bytes(9))], "Board on the port must send vectors of 6 bytes, and did not"),
        ([(Kind.DATA, bytes(7))], "Board on the port must send vectors of 6 bytes, and did not"),
        ([], "must answer a sequence with 1 vectors, the last one marked as such, and did with 0"),
        ([(Kind.OUTPUT, bytes(7))], "a sequence with 1 vectors, the last one marked as such, and did with 1"),
    ],
)
def test_vectors_that_are_not_those_of_the_sequence(answers: Any, told: str, small: Any) -> None:
    client = BoardClient(SimpleNamespace(timeout=1.0))
    client.request = lambda kind, payload=b"": [  # type: ignore[method-assign]
        *(Frame(each, client.tag, content) for each, content in answers), Frame(kind.answer, client.tag, b"")
    ]  # fmt: skip
    with pytest.raises(LineError, match=told):
        client._sequence(np.zeros((2, small.model.inputs), np.int64), identity_of(small.network))


def test_a_late_answer_to_an_earlier_request_is_skipped() -> None:
    class Late(Silent):
        def write(self, content: bytes) -> int:
            tag = content[3]
            self.says += encode(Kind.RESET.answer, tag - 1) + encode(Kind.RESET.answer, tag)
            return len(content)

        def read(self, size: int = 1) -> bytes:
            taken, self.says = self.says[:size], self.says[size:]
            return taken

    client = BoardClient(Late(), timeout=0.1)
    for tag in (1, 2, 3):
        assert client.request(Kind.RESET) == [Frame(Kind.RESET.answer, tag, b"")]


def test_another_version_of_the_protocol_is_refused(small: Any) -> None:
    class Other(Silent):
        def read(self, size: int = 1) -> bytes:
            if len(self.written) == OVERHEAD + 512 or not self.says:
                return b""
            taken, self.says = self.says[:size], self.says[size:]
            return taken

    port = Other(encode(Kind.IDENTIFY.answer, 1, b"\x02" + bytes(19)))
    with pytest.raises(UsageError, match=r"^Board on COM9 must speak version 1 of the protocol, not 2: make its "):
        run_on_board(small.model, port, small.x, small.lengths, timeout=0.2)


@simulated
def test_another_model_is_refused(small: Any, board: SimulatedBoard) -> None:
    due, held = (identity_of(Network(model, 2)).model.hex() for model in (small.other, small.model))
    with pytest.raises(UsageError, match=f"^Board on the port must hold the model {due}, not {held}: load"):
        run_on_board(small.other, board, small.x, small.lengths)


@terminal
def test_a_port_that_is_not_there(small: Any, files: Path, capsys: Any) -> None:
    line = ["run", str(files / "q.onnx"), "--data", str(files / "data.npz"), "--port", "no/such/port"]
    assert main(line) == 2
    told = capsys.readouterr().err
    assert told.startswith("hwrnn: ")
    assert told[7:].startswith("Port must be one that can be opened at 1000000 baud, not 'no/such/port' (")
    assert len(told.splitlines()) == 1


def test_a_port_that_goes_away(small: Any) -> None:
    class Unplugged(Silent):
        def write(self, content: bytes) -> int:
            raise OSError("device disconnected")

    with pytest.raises(UsageError, match=r"^Port of the board must stay connected, but failed \(device dis.*\)$"):
        run_on_board(small.model, Unplugged(), small.x, small.lengths)


def test_pyserial_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    with pytest.raises(MissingExtra, match=r"'hwrnn\[board\]'$"), opened("COM9", 115200, 1.0):
        pass


@pytest.mark.parametrize(
    "options, told",
    [
        ({"baud": 300}, "Baud must be an integer of at least 9600, not 300"),
        ({"count": 0}, "Count must be an integer of at least 1, not 0"),
        ({"timeout": 0}, "Timeout must be more than 0 seconds, not 0"),
    ],
)
def test_options_outside_their_range(options: Any, told: str, small: Any) -> None:
    with pytest.raises(UsageError) as error:
        run_on_board(small.model, Silent(), small.x, small.lengths, **options)
    assert str(error.value) == told


def test_a_float_model_has_no_board(small: Any) -> None:
    with pytest.raises(UsageError, match=r"^Model must be quantized to be compared with a board: quantize it first$"):
        run_on_board(small.model.in_float(), Silent(), small.x)


def test_the_identity_tells_of_an_every_step_model(small: Any) -> None:
    identity = identity_of(small.network)
    assert replace(identity, every_step=True).encode() != identity.encode()
    assert hwrnn.run_on_board is run_on_board
