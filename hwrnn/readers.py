"""Files into arrays: the .npz and .csv readers behind ``hwrnn.data``, which checks what the numbers mean."""

import csv
import math
import os
import zipfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hwrnn.errors import UsageError, plain, shown

_LARGEST = 1 << 26
_MOST_GROWTH = 256  # a compressed archive of padded sequences may be mostly zeros
_MOST_NAMES = 20  # of columns in a sentence, of arrays in a file
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

NPZ_KEYS = ("x", "y", "lengths", "x_test", "y_test", "lengths_test")


def read_npz(path: str | os.PathLike[str], targets: bool = True) -> dict[str, np.ndarray]:
    """The arrays of a data set file, some of ``NPZ_KEYS``; object arrays are refused, nothing is unpickled.

    ``targets`` says whether y must be there.

    Raises UsageError where the file cannot be read whole, or a key is unknown or missing.
    """
    name = os.fspath(path)
    _check_file(name)
    try:
        with open(name, "rb") as file:
            check_archive(file)
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single .npy array")
            arrays = {key: archive[key] for key in archive.files}
    # zipfile and numpy answer a damaged archive with a dozen unrelated exceptions; all mean the same.
    except Exception as error:
        raise UsageError(
            f"Data file must be a whole .npz archive of plain numbers, not {name!r} ({plain(error)})"
        ) from error
    unknown = [key for key in arrays if key not in NPZ_KEYS]
    if unknown:
        raise UsageError(f"Arrays of a data file must be named {', '.join(NPZ_KEYS)}, not {shown(unknown[0])}")
    required = ["x", "y"]
    if any(key.endswith("_test") for key in arrays):
        has_lengths = any(key.startswith("lengths") for key in arrays)
        # Lengths in one part only would take the other part's padding for data.
        required += ["x_test", "y_test", *(["lengths", "lengths_test"] if has_lengths else [])]
    for key in required:
        if key not in arrays and (targets or not key.startswith("y")):
            raise UsageError(
                f"Data file must hold an array {key!r}, not only {', '.join(arrays) or 'nothing'}"
            )
    return arrays


def check_archive(file: BinaryIO) -> None:
    """Find out whether the arrays of an archive are as large as they say, and not of another size than the file."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        file.seek(0)
        return  # numpy says what else it may be
    size = file.seek(0, os.SEEK_END)
    with archive:
        if len(archive.infolist()) > _MOST_NAMES:
            raise ValueError(f"it holds more than {_MOST_NAMES} arrays")
        if sum(member.file_size for member in archive.infolist()) > _LARGEST + _MOST_GROWTH * size:
            raise ValueError(f"it says that it holds more than {_MOST_GROWTH} times its size")
        for member in archive.infolist():
            if archive.namelist().count(member.filename) > 1:
                raise ValueError(f"it holds {shown(member.filename)} more than once")
            with archive.open(member) as stream:
                read = _HEADERS.get(np.lib.format.read_magic(stream))
                if read is None:
                    raise ValueError(f"{shown(member.filename)} is of an unknown version")
                sizes, _, kind = read(stream)
                if not kind.hasobject and stream.tell() + math.prod(sizes) * kind.itemsize != member.file_size:
                    raise ValueError(f"{shown(member.filename)} is not as long as its shape says")
    file.seek(0)


def read_column(path: str | os.PathLike[str], column: str | None) -> np.ndarray:
    """One column of a comma-separated file with a header row: (rows,) float64, all finite.

    Raises UsageError where the file is not readable UTF-8 text, has no such column, or a row has another
    number of cells than the header or holds no finite number there. Empty lines are passed over.
    """
    name = os.fspath(path)
    _check_file(name)
    try:
        with open(name, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            return _column(((reader.line_num, row) for row in reader if row), column, name)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Data file must be comma-separated UTF-8 text, not {name!r} ({plain(error)})") from error


def _column(rows: Iterator[tuple[int, list[str]]], column: str | None, name: str) -> np.ndarray:
    """The numbers of a column of rows with their lines; a row at a time, for cells take many times their text."""
    header = [cell.strip() for cell in next(rows, (0, []))[1]]
    if not header:
        raise UsageError(f"Data file must have a header row, not be empty: {name!r}")
    if column not in header:
        known = ", ".join(map(shown, header[:_MOST_NAMES])) + (", ..." if len(header) > _MOST_NAMES else "")
        raise UsageError(f"Column must be one of {known}, not {column!r}")
    if header.count(column) > 1:
        raise UsageError(f"Column names must differ, and {name!r} has {column!r} {header.count(column)} times")
    index = header.index(column)
    values = array("d")
    for line, row in rows:
        if len(row) != len(header):
            raise UsageError(
                f"Row must have {len(header)} cells like the header, not {len(row)}: line {line} of {name!r}"
            )
        values.append(_number(row[index], line, column, name))
    return np.array(values)


def _number(cell: str, line: int, column: str, name: str) -> float:
    try:
        value = float(cell) if cell.isascii() and "_" not in cell else math.nan  # Python's float takes 1_0 and ٣
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"Column {column!r} must hold finite numbers, not {shown(cell)}: line {line} of {name!r}")
    return value


def _check_file(name: str) -> None:
    if not Path(name).exists():
        raise UsageError(f"Data file must exist, and {name!r} does not")
    if not Path(name).is_file():
        raise UsageError(f"Data file must be a file, not the folder or device {name!r}")
    try:
        with open(name, "rb"):
            pass
    except OSError as error:
        raise UsageError(f"Data file must be readable, and {name!r} is not ({error.strerror})") from error
