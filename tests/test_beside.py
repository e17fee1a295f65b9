"""Two runs beside each other in one folder: each ends well, with the result of a run alone, or with a sentence."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import killing
import pytest

from hwrnn import files, locks
from hwrnn.errors import UsageError
from hwrnn.files import replace_folder


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return killing.Material(tmp_path_factory.mktemp("beside") / "material")


@pytest.fixture
def given(tmp_path):
    for name in ("cache", "tmp", "work"):
        (tmp_path / name).mkdir()
    return {"HWRNN_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}


def beside(given, *lines):
    """Run command lines at once; what each ended with, and said."""
    ended = [None] * len(lines)

    def one(k, words):
        ended[k] = killing._ended([str(word) for word in words], given)

    threads = [threading.Thread(target=one, args=(k, words)) for k, words in enumerate(lines)]
    # One fork at a time: each waits in its thread for the end of its own process.
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for code, told in ended:
        assert code == 0 or (code == 2 and told.splitlines()[-1].startswith("hwrnn: ") and "Traceback" not in told)
    return [code for code, _ in ended]


def test_two_trainings_into_one_file(material, given, tmp_path):
    folder = tmp_path / "work"
    words = [word.format(m=material.folder, f=folder) for word in killing._TRAIN]
    words += ["--no-compiled", "--checkpoint", str(folder / "c.npz")]
    assert beside(given, words) == [0]
    alone = killing.contents(folder)
    assert beside(given, words, words) == [0, 0]
    assert killing.contents(folder) == alone


def test_two_compilations_into_one_cache(material, given, tmp_path):
    if not killing.compiler.compiler_available(killing.C):
        pytest.skip("no C compiler")
    words = [word.format(m=material.folder, f=tmp_path / "work") for word in killing._TRAIN]
    other = [*words[:-1], str(tmp_path / "work" / "other.onnx")]
    assert beside(given, [*words, "--compiled"], [*other, "--compiled"]) == [0, 0]
    found = killing.contents(tmp_path / "work")
    assert found["out.onnx"] == found["other.onnx"] and len(found) == 2
    assert not [name for name in os.listdir(tmp_path / "cache") if name.startswith(".")]


@pytest.mark.slow
def test_two_simulations_filling_one_cache(material, given):
    words = ["simulate", material.folder / "q1.onnx", "--data", material.folder / "d.npz", "--count", 1]
    assert beside(given, words, words) == [0, 0]


@pytest.mark.slow
def test_two_generations_into_one_folder(material, given, tmp_path):
    folder = tmp_path / "work" / "v"
    lines = [["generate", material.folder / f"q{k}.onnx", "--lanes", 1, "-o", folder] for k in range(2)]
    alone = []
    for line in lines:
        assert beside(given, line) == [0]
        alone.append(killing.contents(folder))
    (folder / "mine").write_text("kept")
    assert beside(given, *lines) == [0, 0]
    found = killing.contents(folder)
    assert found.pop("mine") and found in alone
    assert os.listdir(tmp_path / "work") == ["v"]


def replaced_at_once(target, threads=4, times=4):
    """Threads that replace one folder; what went wrong, in words."""
    faults = []

    def replace(k, times):
        try:
            for _ in range(times):
                with replace_folder(target) as fresh:
                    for name in "abc":
                        (fresh / name).write_text(str(k))
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")

    replace("start", 1)
    (target / "mine").write_text("kept")
    running = [threading.Thread(target=replace, args=(k, times)) for k in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    found = {path.name: path.read_text() for path in target.iterdir()} if target.exists() else {}
    if found.get("mine") != "kept":
        faults.append("what a person put there is lost")
    if {*found} != {*"abc", "mine", files.CHECKSUMS} or len({found[name] for name in "abc"}) != 1:
        faults.append(f"the folder is not one version: {found}")
    if os.listdir(target.parent) != [target.name]:
        faults.append(f"left over: {os.listdir(target.parent)}")
    return faults


@pytest.fixture
def slow_renames(monkeypatch):
    """A system that cannot swap names, and is slow between the two renames that it needs instead."""
    monkeypatch.setattr(locks, "_renameat2", lambda: None)
    rename = os.rename

    def slowly(*given):
        rename(*given)
        time.sleep(0.02)

    monkeypatch.setattr(locks.os, "rename", slowly)


def test_many_replacements_of_one_folder(tmp_path):
    assert not replaced_at_once(tmp_path / "v")


def test_many_replacements_by_two_renames(tmp_path, slow_renames):
    assert not replaced_at_once(tmp_path / "v")


def test_replacements_that_do_not_take_turns_are_found(tmp_path, slow_renames, monkeypatch):
    """A planted fault: between the two renames others see no folder."""
    monkeypatch.setattr(locks, "turn", lambda folder: contextlib.nullcontext())
    assert replaced_at_once(tmp_path / "v")


def test_a_folder_that_is_replaced_around_a_run(tmp_path):
    """What generate does beside implement: a result of Verilog that is gone goes too, with a sentence."""
    outer = tmp_path / "v"
    with replace_folder(outer) as fresh:
        (fresh / "network.v").write_text("1")
    with (
        pytest.raises(UsageError, match=r"^Output path must stay while a run writes to it, but the folder of "),
        replace_folder(outer / "implementation-up5k") as inner,
    ):
        (inner / "report.json").write_text("{}")
        with replace_folder(outer, stale="implementation-*") as fresh:
            (fresh / "network.v").write_text("2")
        (inner / "log").write_text("more")
    assert sorted(p.name for p in outer.iterdir()) == [files.CHECKSUMS, "network.v"]
    assert os.listdir(tmp_path) == ["v"]


def test_two_writers_of_one_file(tmp_path):
    path, faults = Path(tmp_path, "m"), []

    def write(k):
        try:
            for _ in range(20):
                locks._tidied.clear()
                files.atomic_write(path, str(k) * 5000)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and len(set(path.read_text())) == 1 and os.listdir(tmp_path) == ["m"]
