"""Whole or absent: what is left after success, after a failure, and what a person is told."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hwrnn import files, locks
from hwrnn.errors import UsageError
from hwrnn.files import atomic_path, atomic_write, cache_folder, replace_folder


def contents(folder: Path) -> dict[str, str]:
    return {f.relative_to(folder).as_posix(): f.read_text() for f in folder.rglob("*") if f.is_file()}


def refuse(monkeypatch, function: str, code: int):
    """Let ``os.function`` fail as a file system does; the tests may run as root, whom no permission stops."""

    def fails(*_args, **_named):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, function, fails)


@pytest.mark.parametrize(
    "content, stored", [("a\nü", "a\nü".encode()), (b"\x00\r\n", b"\x00\r\n"), ("", b"")]
)
def test_atomic_write_creates_and_replaces(tmp_path, content, stored):
    target = tmp_path / "m.onnx"
    for _ in range(2):
        atomic_write(target, content)
        assert target.read_bytes() == stored
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_atomic_path_has_the_suffix_and_the_folder_of_the_target(tmp_path):
    with atomic_path(tmp_path / "m.npz") as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".npz")
        temporary.write_text("new")
        assert not (tmp_path / "m.npz").exists()
    assert contents(tmp_path) == {"m.npz": "new"}


def test_written_files_obey_the_umask(tmp_path):
    former = os.umask(0o027)
    try:
        atomic_write(tmp_path / "f", "")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_a_failing_block_changes_nothing(tmp_path):
    (tmp_path / "f").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "f") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert contents(tmp_path) == {"f": "old"}


def test_a_killed_process_leaves_the_old_file(tmp_path):
    (tmp_path / "f").write_text("old")
    code = (
        "import os, sys; from hwrnn.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t: t.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "f")], check=False).returncode == -9
    assert (tmp_path / "f").read_text() == "old"


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_missing_parent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = "Output path must be in an existing folder, not 'a/b.onnx': create 'a' first"
    with pytest.raises(UsageError) as caught:
        atomic_write("a/b.onnx", "")
    assert str(caught.value) == told
    with pytest.raises(UsageError) as caught, replace_folder("a/b.onnx"):
        pass
    assert str(caught.value) == told


def test_parent_that_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    with pytest.raises(UsageError, match="must be in an existing folder, not 'a/b'"):
        atomic_write("a/b", "")


@pytest.mark.parametrize("name", [".", os.devnull])
def test_target_that_is_no_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        atomic_write(name, "")
    assert str(caught.value) == f"Output path must be a file, not the folder or device {name!r}"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_read_only_folder(tmp_path, monkeypatch, code):
    refuse(monkeypatch, "replace", code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        atomic_write("m.onnx", "")
    assert str(caught.value) == "Output path must be in a folder that you may write to, not 'm.onnx'"
    assert os.listdir(tmp_path) == []


def test_full_disk(tmp_path, monkeypatch):
    refuse(monkeypatch, "fsync", errno.ENOSPC)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        atomic_write("m.onnx", "")
    assert str(caught.value) == "Output path must be on a disk with room left, not 'm.onnx'"
    assert os.listdir(tmp_path) == []


def test_other_failures_keep_their_type(tmp_path, monkeypatch):
    refuse(monkeypatch, "fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        atomic_write(tmp_path / "f", "")


def generate(target: Path, **texts: str) -> None:
    with replace_folder(target) as folder:
        (folder / "sub").mkdir()
        for name, text in texts.items():
            (folder / "sub" / name).write_text(text)


def test_folder_is_listed_with_checksums(tmp_path):
    generate(tmp_path / "out", b="2", a="1")
    listing = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in listing] == ["sub/a", "sub/b"]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=True)
    assert os.listdir(tmp_path) == ["out"]


def test_folder_is_replaced_with_what_a_person_added(tmp_path):
    generate(tmp_path / "out", old="1", same="1")
    (tmp_path / "out" / "sub" / "mine").write_text("kept")
    for _ in range(2):  # the second time shows that the carried file was not taken for a generated one
        generate(tmp_path / "out", new="2", same="2")
        found = contents(tmp_path / "out")
        del found["SHA256SUMS"]
        assert found == {"sub/new": "2", "sub/same": "2", "sub/mine": "kept"}
    assert os.listdir(tmp_path) == ["out"]


def test_empty_folder_is_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    generate(tmp_path / "out", a="1")
    assert (tmp_path / "out" / "sub" / "a").exists()


def test_failing_generation_leaves_the_folder_alone(tmp_path):
    generate(tmp_path / "out", a="1")
    before = contents(tmp_path)
    with pytest.raises(RuntimeError), replace_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert contents(tmp_path) == before


def test_failing_rename_puts_the_folder_back(tmp_path, monkeypatch):
    generate(tmp_path / "out", a="1")
    before = contents(tmp_path)
    rename, calls = os.rename, []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "gone")
        rename(source, target)

    monkeypatch.setattr("hwrnn.locks._renameat2", lambda: None)  # a system that cannot swap names
    monkeypatch.setattr(files.os, "rename", second_fails)
    with pytest.raises(OSError, match="gone"):
        generate(tmp_path / "out", a="2")
    assert contents(tmp_path) == before


def test_a_folder_that_somebody_is_in_is_replaced_in_one_step(tmp_path):
    """Without the two renames between which a killed process would leave no folder."""
    generate(tmp_path / "out", a="1")
    renames = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "rename", lambda *given: renames.append(given))
        generate(tmp_path / "out", a="2")
    assert not renames and contents(tmp_path / "out")["sub/a"] == "2" and os.listdir(tmp_path) == ["out"]


def test_a_replacement_that_stopped_between_two_renames_is_mended(tmp_path, monkeypatch):
    monkeypatch.setattr("hwrnn.locks._renameat2", lambda: None)
    generate(tmp_path / "out", a="1")
    (tmp_path / "out").rename(tmp_path / ".out.0123abcd.hwrnn-old")
    (tmp_path / ".out.0123abcd.hwrnn").mkdir()
    (tmp_path / "out.0123abcd").mkdir()  # a person's
    with pytest.raises(RuntimeError), replace_folder(tmp_path / "out"):
        assert sorted(os.listdir(tmp_path))[-2:] == ["out", "out.0123abcd"]
        raise RuntimeError
    assert contents(tmp_path / "out")["sub/a"] == "1"
    assert sorted(os.listdir(tmp_path)) == ["out", "out.0123abcd"]


def test_what_killed_processes_left_is_removed(tmp_path):
    """And nothing else: not what another run is writing, and no name of a person's."""
    dead, near = tmp_path / ".m.0123abcd.hwrnn.onnx", [".m.0123abcd.onnx", ".m.hwrnn.onnx", "m.0123abcd.hwrnn.onnx"]
    for name in near:
        (tmp_path / name).write_text("mine")
    with atomic_path(tmp_path / "m.onnx") as alive:
        alive.write_text("1")
        dead.write_text("half")
        code = "import sys; from hwrnn.files import atomic_write; atomic_write(sys.argv[1], '2')"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.onnx")], check=True)
        assert alive.exists() and not dead.exists()
        assert (tmp_path / "m.onnx").read_text() == "2"
    assert (tmp_path / "m.onnx").read_text() == "1"
    assert sorted(os.listdir(tmp_path)) == sorted([*near, "m.onnx"])


def test_a_turn_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE", 0.05)
    with locks.turn(tmp_path), pytest.raises(UsageError) as caught:
        generate(tmp_path / "out", a="1")
    assert str(caught.value) == (
        f"Output folder must be free to be replaced, but another run has held {str(tmp_path)!r} for 0.05 seconds: end"
        " that run, or choose another folder"
    )


def test_without_locks_nothing_is_removed_and_nobody_waits(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    (tmp_path / ".out.0123abcd.hwrnn").mkdir()
    with locks.turn(tmp_path):
        generate(tmp_path / "out", a="1")
    assert sorted(os.listdir(tmp_path)) == [".out.0123abcd.hwrnn", "out"]


def plant(folder: Path, what: str) -> None:
    if what == "file":
        folder.write_text("")
        return
    generate(folder, a="1")
    if what == "foreign":
        (folder / "SHA256SUMS").unlink()
    elif what == "changed":
        (folder / "sub" / "a").write_text("by hand")
    elif what == "clash":
        (folder / "sub" / "b").write_text("mine")


@pytest.mark.parametrize(
    "what, told",
    [
        ("file", "Output folder must be a folder, not the file 'out'"),
        ("foreign", "Output folder must be new, empty or generated earlier, not 'out', which holds 'sub/a'"),
        (
            "changed",
            "Output folder must hold its files as they were generated, not a changed 'sub/a': move it away or"
            " choose another folder",
        ),
        (
            "clash",
            "Output folder must not hold a 'sub/b' of its own, as 'out' does: move it away or choose another"
            " folder",
        ),
    ],
)
def test_nothing_of_a_person_is_overwritten(tmp_path, monkeypatch, what, told):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "out", what)
    before = contents(tmp_path)
    with pytest.raises(UsageError) as caught:
        generate("out", a="2", b="2")
    assert str(caught.value) == told
    assert contents(tmp_path) == before


def test_the_current_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        generate(".")
    assert str(caught.value) == "Output folder must not hold the current folder, as '.' does: name a new one"


def test_cache_folder_order(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HWRNN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "hwrnn"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "hwrnn"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "hwrnn"
    monkeypatch.setenv("HWRNN_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700


def test_cache_folder_without_a_writable_place(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for name in ("HWRNN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "file"))
    folder = cache_folder()
    assert folder == cache_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert tmp_path not in folder.parents
