"""C and C++ sources into shared libraries, kept in the cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hwrnn.errors import UsageError, plain
from hwrnn.files import atomic_write, cache_folder
from hwrnn.processes import how_it_ended, run_program

__all__ = [
    "CPP", "C", "Language", "compiler", "compiler_available", "found", "identity", "library_cached", "native",
    "shared_library",
]  # fmt: skip

_KEPT = 200  # libraries in the cache folder
_PROBE = 60.0  # seconds that a compiler may take to tell its version
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Language:
    """A language to compile.

    Attributes:
        name: for sentences.
        variable: of the environment, that names the compiler.
        commands: compilers to look for where it is not set, in order.
        install: what to tell somebody who has none.
        suffix: of a source.
        option: the language as compilers' ``-x`` takes it.
    """

    name: str
    variable: str
    commands: tuple[str, ...]
    install: str
    suffix: str
    option: str


C = Language("C", "CC", ("gcc", "cc", "clang"), "gcc or clang", ".c", "c")
CPP = Language("C++", "CXX", ("g++", "c++", "clang++"), "g++ or clang++", ".cpp", "c++")


def compiler(language: Language) -> tuple[str, ...] | None:
    """The command of a compiler: what the language's variable says where it is set, else the first one found."""
    chosen = shlex.split(os.environ.get(language.variable, ""))
    for command in [chosen] if chosen else [[name] for name in language.commands]:
        if shutil.which(command[0]):
            return tuple(command)
    return None


def compiler_available(language: Language) -> bool:
    """Whether there is a compiler."""
    return compiler(language) is not None


def found(language: Language, instead: str) -> tuple[str, ...]:
    """The command of a compiler.

    Raises:
        UsageError: no compiler; the sentence ends with what to do ``instead`` of installing one.
    """
    command = compiler(language)
    if command is None:
        chosen = os.environ.get(language.variable, "").strip()
        missing = f"A {language.name} compiler must be installed"
        what = f"{language.variable} must name a {language.name} compiler, not {chosen!r}" if chosen else missing
        raise UsageError(f"{what}: install {language.install}, or {instead}")
    return command


def native(language: Language) -> tuple[str, ...]:
    """The flag that lets a compiler use every instruction of this CPU; empty where it has none."""
    command = compiler(language)
    for flag in ("-march=native", "-mcpu=native"):
        if command is not None and _macros(command, language.option, flag):
            return (flag,)
    return ()


def shared_library(
    name: str,
    source: Callable[[], str],
    flags: Sequence[str],
    key: str,
    *,
    language: Language,
    purpose: str,
    instead: str,
) -> ctypes.CDLL:
    """The library that a source compiles to, loaded.

    A library is built once: it is found again under everything that it was made from, with flags of :func:`native` also
    the instructions that this CPU has, so that a cache folder may be carried to another machine. A digest at its end
    tells a damaged one, which is built anew; and since files are renamed into place, two runs may build the same one at
    once.

    Args:
        name: of the library, for its file.
        source: gives the text of the source; only asked where the library has to be built.
        flags: of the compiler.
        key: everything that the source, and what it includes, follow from.
        language: of the source.
        purpose: what is built, for the sentence of a compiler that fails, such as ``"the simulator"``.
        instead: how to do without a compiler, for the sentence where there is none.

    Raises:
        UsageError: no compiler, or one that does not compile the source.
    """
    command = found(language, instead)
    path = _path(name, command, flags, key, language)
    for _ in range(2):
        if not _whole(path):
            atomic_write(path, _sealed(_compiled(command, source(), flags, language, purpose)))
            _forget_old(path)
        with suppress(OSError):  # removed by somebody else since
            return ctypes.CDLL(os.fspath(path))
        with suppress(OSError):
            path.unlink()
    made = f"{language.name} compiler {command[0]!r}"
    raise UsageError(f"{made} must make libraries that this Python can load, but does not")


def library_cached(name: str, flags: Sequence[str], key: str, *, language: Language) -> bool:
    """Whether :func:`shared_library` would not have to build."""
    command = compiler(language)
    return command is not None and _whole(_path(name, command, flags, key, language))


def identity(flags: Sequence[str], key: str, *, language: Language) -> str:
    """A digest of all that decides what a library computes: its source, the compiler, its flags and the CPU.

    Raises:
        UsageError: no compiler.
    """
    return _digest(found(language, "numpy is enough without one"), flags, key, language)


def _digest(command: tuple[str, ...], flags: Sequence[str], key: str, language: Language) -> str:
    instructions = [_macros(command, language.option, flag) for flag in flags if flag.endswith("=native")]
    made_from = "\0".join((*command, _version(command), *flags, *instructions, key))
    return hashlib.sha256(made_from.encode()).hexdigest()[:32]


def _path(name: str, command: tuple[str, ...], flags: Sequence[str], key: str, language: Language) -> Path:
    return cache_folder() / f"{name}-{_digest(command, flags, key, language)}.so"


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    return run_program([*command, "--version"], most=_PROBE).output


@functools.cache
def _macros(command: tuple[str, ...], option: str, flag: str) -> str:
    """The macros that a compiler predefines under a flag, which name every extension that it may use; "" on failure."""
    line = [*command, flag, "-x", option, "-dM", "-E", os.devnull]
    done = run_program(line, most=_PROBE)
    return "\n".join(sorted(done.output.splitlines())) if not done.code else ""


def _compiled(command: tuple[str, ...], source: str, flags: Sequence[str], language: Language, purpose: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hwrnn-") as folder:
        file, library = Path(folder, "model").with_suffix(language.suffix), Path(folder, "model.so")
        file.write_text(source)
        line = [*command, *flags, "-shared", "-fPIC", os.fspath(file), "-o", os.fspath(library), "-lm"]
        done = run_program(line)
        if done.code or not library.is_file():
            lines = [text for text in done.errors.splitlines() if text.strip()]
            told = [text for text in lines if "error" in text] or lines or [f"it {how_it_ended(done.code)}"]
            reason = plain(told[0].replace(os.fspath(file), file.name))
            made = f"{language.name} compiler {shlex.join(command)!r}"
            raise UsageError(f"{made} must build {purpose}, but fails ({reason})")
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
