"""Files of Keras and torch, by their ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwrnn.errors import UsageError, require
from hwrnn.model import Model

__all__ = ["KERAS", "TORCH", "from_file"]

KERAS, TORCH = (".keras",), (".pt", ".pth")
_SAFE = (2, 6)  # before, a file could run code in spite of weights_only (CVE-2025-32434)


def from_file(path: str, *, task: str | None = None, **options: Any) -> Model:
    """The model of a ``.keras`` file, or of a ``.pt`` or ``.pth`` file that holds a ``state_dict``.

    Nothing that a file holds is run: Keras reads it in its safe mode, and torch with ``weights_only``.

    Args:
        task: ``classification`` (where None) or ``regression``.
        options: of a torch file: ``head``, ``last``, ``final_state`` and ``cell`` of :func:`hwrnn.from_torch`.

    Raises:
        UsageError: another ending, a file that is damaged or holds something else, or options that do not belong to it.
    """
    end = Path(path).suffix.lower()
    task = task or "classification"
    if end in KERAS:
        given = [name for name, value in options.items() if value not in (None, False)]
        if given:
            raise UsageError(f"Option --{given[0].replace('_', '-')} must be given for a torch file, not for {path!r}")
        from hwrnn.importing.keras_files import from_keras

        return from_keras(path, task=task)
    if end not in TORCH:
        raise UsageError(f"File must end in {', '.join((*KERAS, *TORCH))}, not {path!r}")
    from hwrnn.importing.torch_modules import from_torch

    return from_torch(_state_dict(path), task=task, **options)


def _state_dict(path: str) -> Mapping[str, Any]:
    torch = require("torch", "torch")
    version = str(torch.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < _SAFE:
        raise UsageError(f"Module 'torch' must be 2.6 or newer to read files safely, not {version}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"File {path!r} must be readable, but is not: {error.strerror or error}") from error
    except Exception as error:  # pickles fail in any way that their authors thought of
        raise UsageError(
            f"File {path!r} must hold a state_dict, as torch.save(module.state_dict(), FILE) writes it: a whole module"
            " or anything else would run code when it is read"
        ) from error
    if not isinstance(found, Mapping):
        raise UsageError(f"File {path!r} must hold a state_dict, not {type(found).__name__}")
    return found
