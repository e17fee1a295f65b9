"""Files that are whole or absent: atomic writing, generated folders, and the cache folder.

A file is written beside its destination, flushed to the disk and renamed over it, so that neither a killed
process nor a full disk leaves half a file under the final name. Processes that write to one place at once take turns
(``hwrnn.locks``).
"""

import atexit
import errno
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hwrnn import locks
from hwrnn.errors import UsageError

CHECKSUMS = "SHA256SUMS"
"""File in a generated folder that lists what was generated, in the format of ``sha256sum --check``."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, with its suffix; leaving the block renames it to ``path``.

    The block must write the file. If it raises, the temporary file is removed and ``path`` stays as it was; what a
    killed process left is removed by the next one that writes to ``path``. A symbolic link is followed, so that the
    file it points to is the one replaced.

    Raises UsageError where ``path`` is not a regular file, or its folder is missing, read-only or full.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UsageError(f"Output path must be a file, not the folder or device {os.fspath(path)!r}")
    temporary = None
    with ExitStack() as stack:
        try:
            with _told(path):
                locks.tidy(target, once=True)
                temporary = stack.enter_context(locks.temporary_file(target))
                yield temporary
                _sync(temporary)
                os.replace(temporary, target)
                _sync(target.parent)
        finally:
            if temporary is not None:
                with suppress(FileNotFoundError, NotADirectoryError), locks.undisturbed():
                    temporary.unlink()


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before long work whether its result could be written to ``path``; nothing is left behind.

    Raises UsageError as ``atomic_path`` does.
    """
    with suppress(_Enough), atomic_path(path):
        raise _Enough


class _Enough(Exception):
    """Leaves an atomic write without a result."""


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8, line ends as given) to ``path``, whole or not at all.

    Raises UsageError as ``atomic_path`` does.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replace_folder(path: str | os.PathLike[str], stale: str | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; leaving the block puts it in the place of ``path``.

    The finished folder holds a ``SHA256SUMS`` of what was generated. An earlier folder is replaced only where
    its own ``SHA256SUMS`` shows that nothing a person changed gets lost: generated files must be unaltered,
    and files that are not on the list are carried over. If the block raises, ``path`` stays as it was.

    Generated folders in it whose names match the pattern ``stale`` were made of what is replaced: they are not carried
    over, and likewise must hold nothing of a person's.

    Raises UsageError where ``path`` is no such folder, or its parent is missing, read-only or full.
    """
    target = Path(os.path.realpath(path))
    with locks.turn(target.parent):
        locks.recover(target)
        _to_carry(target, os.fspath(path), stale)
    fresh = None
    with ExitStack() as stack:
        try:
            with _told(path):
                locks.tidy(target)
                fresh = stack.enter_context(locks.temporary_folder(target))
                yield fresh
                generated = _files(fresh)
                atomic_write(fresh / CHECKSUMS, "".join(f"{_digest(fresh / f)}  {f}\n" for f in generated))
                with locks.turn(target.parent):
                    # Asked again, since another process may have had its turn while the block ran.
                    _carry(_to_carry(target, os.fspath(path), stale), target, fresh, os.fspath(path))
                    for item in (fresh, *fresh.rglob("*")):
                        if not item.is_symlink():
                            _sync(item)
                    with locks.undisturbed():
                        locks.put_in_place(fresh, target)
                        _sync(target.parent)
        finally:
            if fresh is not None:
                with locks.undisturbed():
                    shutil.rmtree(fresh, ignore_errors=True)


def _to_carry(target: Path, name: str, stale: str | None) -> list[str]:
    """What a person put into a folder that is to be replaced."""
    carried = _carried(target, name)
    if stale is not None and target.is_dir():
        carried = _without_stale(carried, [folder for folder in sorted(target.glob(stale)) if folder.is_dir()])
    return carried


def _carry(carried: list[str], target: Path, fresh: Path, shown: str) -> None:
    for name in carried:
        if (fresh / name).exists():
            raise UsageError(
                f"Output folder must not hold a {name!r} of its own, as {shown!r}"
                " does: move it away or choose another folder"
            )
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(target / name, fresh / name, follow_symlinks=False)


def cache_folder() -> Path:
    """The folder for what may be rebuilt at any time (compiled kernels and simulators); created if missing.

    The first writable one of ``HWRNN_CACHE``, ``XDG_CACHE_HOME/hwrnn`` and ``~/.cache/hwrnn``; where none is,
    a private temporary folder that lasts as long as this process. Source: XDG Base Directory Specification.
    """
    candidates = [Path(folder) for folder in [os.environ.get("HWRNN_CACHE")] if folder]
    # The specification asks to ignore a relative XDG_CACHE_HOME; without a home "~" stays as it is.
    bases = [os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")]
    candidates += [Path(base, "hwrnn") for base in bases if os.path.isabs(base)]
    for folder in candidates:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder.absolute()
    return _temporary_cache()


@functools.cache
def _temporary_cache() -> Path:
    # Never a fixed name below a shared folder: another user could put a library there that we would load.
    folder = tempfile.mkdtemp(prefix="hwrnn-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _carried(target: Path, name: str) -> list[str]:
    """Relative paths of the files in ``target`` that a person put there."""
    if not target.exists():
        return []
    if not target.is_dir():
        raise UsageError(f"Output folder must be a folder, not the file {name!r}")
    here = Path.cwd()
    if here == target or target in here.parents:
        raise UsageError(f"Output folder must not hold the current folder, as {name!r} does: name a new one")
    present = _files(target)
    if not present:
        return []
    listing = target / CHECKSUMS
    if not listing.is_file():
        raise UsageError(
            f"Output folder must be new, empty or generated earlier, not {name!r}, which holds {present[0]!r}"
        )
    try:
        lines = listing.read_text().splitlines()
    except UnicodeDecodeError:
        lines = [""]
    digests = {file: digest for digest, _, file in (line.partition("  ") for line in lines)}
    for file, digest in digests.items():
        if file in present and _digest(target / file) != digest:
            raise UsageError(
                f"Output folder must hold its files as they were generated, not a changed {file!r}:"
                " move it away or choose another folder"
            )
    return [file for file in present if file not in digests and file != CHECKSUMS]


def _without_stale(carried: list[str], stale: list[Path]) -> list[str]:
    """The files that are not in the generated folders ``stale``; refuses a folder that a person changed or added to."""
    for folder in stale:
        own = _carried(folder, str(folder))
        if own:
            raise UsageError(
                f"Output folder must not hold files of a person's in a generated folder, as {own[0]!r} in"
                f" {str(folder)!r}: move them away or choose another folder"
            )
    names = tuple(f"{folder.name}/" for folder in stale)
    return [file for file in carried if not file.startswith(names)]


def _files(folder: Path) -> list[str]:
    """Sorted relative POSIX paths of everything below ``folder`` that is not itself a real folder."""
    return sorted(
        item.relative_to(folder).as_posix()
        for item in folder.rglob("*")
        if (item.is_symlink() or not item.is_dir()) and not locks.is_temporary(item.relative_to(folder))
    )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what a file system refuses for the output ``path`` into a sentence; pass everything else on."""
    name = os.fspath(path)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        parent = Path(name).parent
        if parent.is_dir():
            raise UsageError(
                f"Output path must stay while a run writes to it, but the folder of {name!r} was replaced meanwhile:"
                " run it again"
            ) from error
        raise UsageError(
            f"Output path must be in an existing folder, not {name!r}: create {str(parent)!r} first"
        ) from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UsageError(
                f"Output path must be in a folder that you may write to, not {name!r}"
            ) from error
        if error.errno in _FULL:
            raise UsageError(f"Output path must be on a disk with room left, not {name!r}") from error
        raise
