"""C++ sources into shared libraries, kept in the cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from hwrnn.errors import UsageError
from hwrnn.files import atomic_write, cache_folder

__all__ = ["compiler", "compiler_available", "shared_library"]

_NAMES = ("g++", "c++", "clang++")
_KEPT = 200  # libraries in the cache folder
_DIGEST = hashlib.sha256().digest_size


def compiler() -> tuple[str, ...] | None:
    """The command of the C++ compiler: ``CXX`` where it is set, else g++, c++ or clang++; None where there is none."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    for command in [chosen] if chosen else [[name] for name in _NAMES]:
        if shutil.which(command[0]):
            return tuple(command)
    return None


def compiler_available() -> bool:
    """Whether there is a C++ compiler."""
    return compiler() is not None


def shared_library(name: str, source: Callable[[], str], flags: Sequence[str], key: str) -> ctypes.CDLL:
    """The library that a C++ source compiles to, loaded.

    A library is built once: it is found again under everything that it was made from. A digest at its end tells a
    damaged one, which is built anew; and since files are renamed into place, two runs may build the same one at once.

    Args:
        name: of the library, for its file.
        source: gives the text of the source; only asked where the library has to be built.
        flags: of the compiler.
        key: everything that the source, and what it includes, follow from.

    Raises:
        UsageError: no compiler, or one that does not compile the source.
    """
    command = compiler()
    if command is None:
        chosen = os.environ.get("CXX", "").strip()
        what = f"CXX must name a C++ compiler, not {chosen!r}" if chosen else "A C++ compiler must be installed"
        raise UsageError(f"{what}: install g++ or clang++, or choose the simulator amaranth")
    made_from = "\0".join((*command, _version(command), *flags, key))
    digest = hashlib.sha256(made_from.encode()).hexdigest()[:32]
    path = cache_folder() / f"{name}-{digest}.so"
    for _ in range(2):
        if not _whole(path):
            atomic_write(path, _sealed(_compiled(command, source(), flags)))
            _forget_old(path)
        with suppress(OSError):  # removed by somebody else since
            return ctypes.CDLL(os.fspath(path))
        with suppress(OSError):
            path.unlink()
    raise UsageError(f"C++ compiler {command[0]!r} must make libraries that this Python can load, but does not")


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    return subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout


def _compiled(command: tuple[str, ...], source: str, flags: Sequence[str]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hwrnn-") as folder:
        file, library = Path(folder, "model.cpp"), Path(folder, "model.so")
        file.write_text(source)
        line = [*command, *flags, "-shared", "-fPIC", os.fspath(file), "-o", os.fspath(library)]
        done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode or not library.is_file():
            told = [text for text in done.stderr.splitlines() if "error" in text] or done.stderr.splitlines()
            reason = " ".join((told or ["it says nothing"])[0].replace(os.fspath(file), "model.cpp").split())
            raise UsageError(f"C++ compiler {shlex.join(command)!r} must build the simulator, but fails ({reason})")
        return library.read_bytes()


def _sealed(library: bytes) -> bytes:
    return library + hashlib.sha256(library).digest()  # a loader ignores what stands behind the last section


def _whole(path: Path) -> bool:
    """Whether a library is there and undamaged: loading half a one would end the process."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    with suppress(OSError):
        os.utime(path)  # used now, so forgotten last
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


def _forget_old(made: Path) -> None:
    """Remove the libraries that were not used for longest."""

    def age(file: Path) -> float:
        try:
            return file.stat().st_mtime
        except OSError:
            return 0.0

    name = made.name.rpartition("-")[0]
    for file in sorted(made.parent.glob(f"{name}-*.so"), key=age)[:-_KEPT]:
        with suppress(OSError):
            file.unlink()
