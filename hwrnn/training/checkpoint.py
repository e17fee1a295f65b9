"""Checkpoints: everything that a run needs to go on as if it had never stopped. ``.npz`` files without pickles."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.files import atomic_path
from hwrnn.readers import check_archive

__all__ = ["Checkpoint", "digest", "foreign", "load_arrays", "save_arrays"]

_KIND = "hwrnn training checkpoint 1"
_ARRAYS = ("masters", "first", "second", "best")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after an epoch.

    Attributes:
        masters, first, second, best: parameters, Adam's moments, and the best parameters so far; (size,) each.
        state: the rest as plain JSON values: epochs and updates done, the generator's state, the best loss.
        identity: digests of the ``model``, ``data`` and ``options`` that the run began with.
    """

    masters: np.ndarray
    first: np.ndarray
    second: np.ndarray
    best: np.ndarray
    state: dict[str, Any]
    identity: dict[str, str]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all.

        Raises:
            UsageError: a path that cannot be written.
        """
        save_arrays(path, _KIND, {name: getattr(self, name) for name in _ARRAYS}, self.state, self.identity)

    @classmethod
    def load(cls, path: str | os.PathLike[str], identity: dict[str, str], size: int) -> Checkpoint:
        """Read the checkpoint of a run that began with ``identity`` and has ``size`` parameters.

        Raises:
            UsageError: no such file, one that is no whole checkpoint, or one of another model, data or options.
        """
        due = dict.fromkeys(_ARRAYS, (np.dtype(np.float32), (size,)))
        arrays, state = load_arrays(path, _KIND, due, identity)
        return cls(**arrays, state=state, identity=identity)


def save_arrays(
    path: str | os.PathLike[str], kind: str, arrays: Mapping[str, np.ndarray], state: Any, identity: dict[str, str]
) -> None:
    """Write arrays and plain JSON values, whole or not at all.

    Raises:
        UsageError: a path that cannot be written.
    """
    about = json.dumps({"kind": kind, "state": state, "identity": identity})
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, about=np.array(about), **arrays)  # type: ignore[arg-type]  # of any kind, not its own option


def load_arrays(
    path: str | os.PathLike[str],
    kind: str,
    due: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    identity: dict[str, str],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays, of the types and shapes that are ``due``, and the state of a run that began with ``identity``.

    Raises:
        UsageError: no such file, one that is no whole checkpoint of this kind, or one of another identity.
    """
    name = os.fspath(path)
    if not Path(name).is_file():
        raise UsageError(f"Checkpoint must exist to resume from it, not {name!r}: leave resume out to begin")
    try:
        # numpy leaves a file that it cannot read open, so it is opened here.
        with open(name, "rb") as stream:
            check_archive(stream)
            stored = np.load(stream, allow_pickle=False)
            about = json.loads(str(stored["about"][()]))
            arrays = {key: stored[key] for key in due}
        if about["kind"] != kind:
            raise ValueError
        state, found = dict(about["state"]), dict(about["identity"])
    except PermissionError as error:
        raise UsageError(f"Checkpoint must be readable, not {name!r}") from error
    # zipfile, numpy and json answer a damaged file with a dozen unrelated exceptions; all mean the same.
    except Exception as error:
        raise foreign(name) from error
    for part, value in identity.items():
        if found.get(part) != value:
            raise UsageError(f"Checkpoint must be of the same {part}, not {name!r}: give the {part} it began with")
    for key, (kind_of_number, shape) in due.items():
        if arrays[key].shape != shape or arrays[key].dtype != kind_of_number or not np.isfinite(arrays[key]).all():
            raise foreign(name)
    return arrays, state


def foreign(path: str | os.PathLike[str]) -> UsageError:
    """The sentence for a file that is no checkpoint."""
    name = os.fspath(path)
    return UsageError(f"Checkpoint must be a whole file that training wrote, not {name!r}: leave resume out to begin")


def digest(*parts: Any) -> str:
    """A digest of arrays and of anything with a faithful ``repr``."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype} {part.shape} ".encode())
            found.update(np.ascontiguousarray(part).data)
        else:
            found.update(repr(part).encode())
    return found.hexdigest()
