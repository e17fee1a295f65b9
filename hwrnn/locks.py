"""Temporary names that their owner holds a lock on, so that what a killed process left is known and removed; and turns.

The locks are those of ``flock``, which end with the process that holds them, however it ends. Where the file system has
none, nothing is removed and nobody waits.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from hwrnn.errors import UsageError

if sys.platform != "win32":
    import fcntl

__all__ = [
    "is_temporary", "put_in_place", "recover", "temporary_file", "temporary_folder", "tidy", "turn",
    "undisturbed",
]  # fmt: skip

_PATIENCE = 60.0  # seconds to wait for another process' turn, which lasts milliseconds
_ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_NAME = re.compile(r"\..*\.[0-9a-f]{8}\.hwrnn(-old)?(\..*)?")
_tidied: set[tuple[int, Path]] = set()


def is_temporary(path: PurePath) -> bool:
    """Whether a relative path is one that this module made, or below it."""
    return any(_NAME.fullmatch(part) for part in path.parts)


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """An empty file beside ``target`` with its suffix, whose lock is held; whoever asked for it removes it."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
    with _held(target, lambda path: os.open(path, flags, 0o666)) as path:
        yield path


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target``, whose lock is held; whoever asked for it removes it."""

    def made(path: Path) -> int:
        path.mkdir()
        return os.open(path, os.O_RDONLY)

    with _held(target, made) as path:
        yield path


@contextmanager
def _held(target: Path, made: Callable[[Path], int]) -> Iterator[Path]:
    path, descriptor = _made(target, made)
    try:
        yield path
    finally:
        os.close(descriptor)


def _made(target: Path, made: Callable[[Path], int]) -> tuple[Path, int]:
    """A new path with its lock held: made again where somebody tidied it away before it was locked."""
    tries = 0
    while True:
        path, tries = target.with_name(_named(target, secrets.token_hex(4))), tries + 1
        try:
            descriptor = made(path)
        except (FileExistsError, FileNotFoundError):
            if tries < 20 and path.parent.is_dir():
                continue
            raise
        _lock(descriptor)
        try:
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return path, descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _named(target: Path, token: str, old: str = "") -> str:
    # A file system takes names of 255 bytes; the suffix tells libraries what to write.
    stem, suffix = target.stem[:40], target.suffix if len(target.suffix) < 20 else ""
    return f".{stem}.{token}.hwrnn{old}{suffix}"


def tidy(target: Path, once: bool = False) -> None:
    """Remove what killed processes left beside ``target``; ``once`` in the life of this process, for many writes."""
    if once and (os.getpid(), target) in _tidied:
        return
    _tidied.add((os.getpid(), target))
    for path in _left(target):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _lock(descriptor, wait=False):
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


def _left(target: Path, old: str = "") -> list[Path]:
    start, end = (re.escape(part) for part in _named(target, "\0", old).split("\0"))
    ours = re.compile(f"{start}[0-9a-f]{{8}}{end}")
    with suppress(OSError):
        return [target.with_name(name) for name in os.listdir(target.parent) if ours.fullmatch(name)]
    return []


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Let one process at a time replace what is in ``folder``.

    Raises:
        UsageError: another one did not end its turn for a minute.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # whoever writes there will be told
        yield
        return
    try:
        until = time.monotonic() + _PATIENCE
        while _lock(descriptor, wait=False) is False:
            if time.monotonic() > until:
                raise UsageError(
                    f"Output folder must be free to be replaced, but another run has held {os.fspath(folder)!r} for"
                    f" {_PATIENCE:g} seconds: end that run, or choose another folder"
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool = True) -> bool | None:
    """Lock an open file or folder: whether that went, which it does not while another holds it; None for no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off the signals that ask this process to end, for moments in which an exception would do harm.

    One raised inside ``shutil.rmtree`` becomes another one there, and a half-removed folder stays.
    """
    if threading.current_thread() is not threading.main_thread():  # the only one in which signals raise
        yield
        return
    came: list[int] = []
    # A mask would not do: a signal is delivered to any thread without one, and raises in this one.
    ours = [number for number in _ASKING if signal.getsignal(number) is not None]  # others are not Python's to restore
    before = {number: signal.signal(number, lambda given, frame: came.append(given)) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def put_in_place(fresh: Path, target: Path) -> None:
    """Let the folder ``fresh`` be ``target``; an earlier ``target`` is at ``fresh`` afterwards.

    In one step where the system can swap names (Linux), so that a process that is killed leaves one of both. Elsewhere
    in two, and :func:`recover` mends what stops between them.
    """
    if not target.exists():
        os.rename(fresh, target)
        return
    if _exchange(fresh, target):
        return
    former = target.with_name(_named(target, secrets.token_hex(4), "-old"))
    os.rename(target, former)
    try:
        os.rename(fresh, target)
    except BaseException:
        os.rename(former, target)
        raise
    shutil.rmtree(former, ignore_errors=True)


def recover(target: Path) -> None:
    """Bring back a folder whose replacement stopped half way, and remove one whose replacement is there."""
    for former in _left(target, "-old"):
        if target.exists():
            shutil.rmtree(former, ignore_errors=True)
        else:
            os.rename(former, target)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step (renameat2(2), RENAME_EXCHANGE); False where the system cannot."""
    function = _renameat2()
    if function is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if function(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), os.fspath(other))


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    with suppress(OSError, AttributeError, TypeError):
        function = ctypes.CDLL(None, use_errno=True).renameat2
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
        function.restype = ctypes.c_int
        found: Callable[..., int] = function
        return found
    return None
