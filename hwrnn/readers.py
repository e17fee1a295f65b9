"""Files into arrays: the .npz and .csv readers behind ``hwrnn.data``, which checks what the numbers mean."""

import csv
import math
import os
from pathlib import Path

import numpy as np

from hwrnn.errors import UsageError

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
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single .npy array")
            arrays = {key: archive[key] for key in archive.files}
    # zipfile and numpy answer a damaged archive with a dozen unrelated exceptions; all mean the same.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"Data file must be a whole .npz archive of plain numbers, not {name!r} ({reason})"
        ) from error
    unknown = [key for key in arrays if key not in NPZ_KEYS]
    if unknown:
        raise UsageError(f"Arrays of a data file must be named {', '.join(NPZ_KEYS)}, not {unknown[0]!r}")
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
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Data file must be comma-separated UTF-8 text, not {name!r} ({error})") from error
    if not rows:
        raise UsageError(f"Data file must have a header row, not be empty: {name!r}")
    header = [cell.strip() for cell in rows[0][1]]
    if column not in header:
        raise UsageError(f"Column must be one of {', '.join(map(repr, header))}, not {column!r}")
    if header.count(column) > 1:
        raise UsageError(
            f"Column names must differ, and {name!r} has {column!r} {header.count(column)} times"
        )
    index = header.index(column)
    values = []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise UsageError(
                f"Row must have {len(header)} cells like the header, not {len(row)}: line {line} of {name!r}"
            )
        values.append(_number(row[index], line, column, name))
    return np.array(values, dtype=np.float64)


def _number(cell: str, line: int, column: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"Column {column!r} must hold finite numbers, not {cell!r}: line {line} of {name!r}")
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
