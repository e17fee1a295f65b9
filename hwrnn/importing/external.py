"""Data that a model file keeps in other files: read from beside it, and from nowhere else.

Exporters write large networks so. A name that leaves the model's folder, by ``..``, from the root or through a link,
is refused: whoever sent the model must not choose which of our files is read. Source: ONNX, docs/ExternalData.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath

from onnx import TensorProto

from hwrnn.errors import Damaged, shown
from hwrnn.importing.tensors import check_tensor

__all__ = ["fetch_external"]

_LARGEST = 2**31 - 1
_KEYS = ("location", "offset", "length", "checksum", "basepath")
_NUMBER_DIGITS = 19
_LONGEST_PATH = 1024


def fetch_external(tensors: Iterable[tuple[TensorProto, str]], folder: str) -> None:
    """Read the data of tensors that keep it elsewhere into the tensors themselves.

    Args:
        tensors: These tensors, each with its name in a sentence.
        folder: The model file's folder.

    Raises:
        Damaged: a path that leaves the folder or follows a link, a place that the file does not have, and more data
            than the files hold, which would fill the memory with copies.
    """
    sizes: dict[tuple[int, int], int] = {}  # of files by device and inode, for one file has many names
    total = 0
    for tensor, what in tensors:
        location, offset, length = _place(tensor, what)
        descriptor = _open(folder, location, what)
        try:
            status = os.fstat(descriptor)
            size = sizes[status.st_dev, status.st_ino] = status.st_size
            length = size - offset if length is None else length
            if length < 0 or offset + length > size:
                last = max(offset, offset + length)
                raise Damaged(f"refer to data in {shown(location)} for {what}, which ends at {size}, not {last}")
            total += length
            if total > min(2 * sum(sizes.values()), _LARGEST):
                raise Damaged(f"refer to every part of {shown(location)} about once, and to less than 2 GiB")
            content = _read(descriptor, offset, length)
        finally:
            os.close(descriptor)
        if len(content) != length:
            raise Damaged(f"refer to data that stays as it is, unlike {shown(location)}")
        tensor.raw_data = content
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        check_tensor(tensor, partial(str, what))


def _place(tensor: TensorProto, what: str) -> tuple[str, int, int | None]:
    """The file, offset and length (None: to its end) of a tensor's data."""
    given: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _KEYS or entry.key in given or not isinstance(entry.value, str):
            raise Damaged(f"say where {what} lies once, by {', '.join(_KEYS)}, not by {shown(entry.key)}")
        given[entry.key] = entry.value
    location = given.get("location", "")
    # A backslash or a colon is a path's on another system: what is safe here must be safe there.
    parts = PurePosixPath(location).parts
    if not parts or len(location) > _LONGEST_PATH or set(location) & set("\\:\0") or location.startswith("/"):
        raise Damaged(f"refer to a file beside it for {what}, not to {shown(location)}")
    if ".." in parts:
        raise Damaged(f"refer to a file in its own folder for {what}, not to {shown(location)}")
    numbers: dict[str, int] = {}
    for key in ("offset", "length"):
        text = given.get(key)
        if text is not None:
            if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS):
                raise Damaged(f"give the {key} of {what} as a whole number, not {shown(text)}")
            numbers[key] = int(text)
    return location, numbers.get("offset", 0), numbers.get("length")


def _open(folder: str, location: str, what: str) -> int:
    """A descriptor of a regular file below the folder, with no link on the way, not even one made meanwhile."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    *above, name = PurePosixPath(location).parts
    try:
        for part in above:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Damaged(f"come with {shown(location)}, no link, for {what} ({reason})") from error
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        with suppress(OSError):
            os.close(found)
        raise Damaged(f"refer to a regular file for {what}, not to {shown(location)}")
    return found


def _read(descriptor: int, offset: int, length: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(length)
