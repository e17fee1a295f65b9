"""What a ``.keras`` archive may hold: Keras' own objects of known kinds, and its weights itself."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from hwrnn.errors import UsageError, require, shown

__all__ = ["LAYERS", "MODELS", "PASSED", "RECURRENT", "check_archive", "unknown"]

_LARGEST = 1 << 31  # bytes that an archive may unpack to
_DESCRIPTION = 1 << 24  # bytes of a description

PASSED = {"Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization",
           "InputLayer", "Identity"}  # fmt: skip
RECURRENT = {"SimpleRNN", "GRU", "LSTM"}
LAYERS = {*PASSED, *RECURRENT, "Bidirectional", "TimeDistributed", "Dense", "Activation", "ReLU", "LeakyReLU", "ELU",
           "Softmax", "BatchNormalization", "Normalization", "Rescaling", "Masking"}  # fmt: skip
MODELS = {"Sequential", "Functional", "Model"}
#: The modules that a description may name, and what of them (None: whatever they have).
_MODULES: dict[str | None, set[str] | None] = {
    None: {"__keras_tensor__", "__tuple__", "__numpy__"}, "keras": {*MODELS, "DTypePolicy"},
    "keras.models": MODELS, "keras.dtype_policies": {"DTypePolicy"}, "keras.layers": None,
    "keras.initializers": None, "keras.regularizers": None, "keras.constraints": None,
}  # fmt: skip


def check_archive(data: bytes, name: str) -> None:
    """Refuse an archive that holds anything but a network of Keras' own parts.

    Raises:
        UsageError: another file, a description of foreign objects or unknown layers, or weights that lie elsewhere.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > _LARGEST:
                raise UsageError(f"File {name!r} must unpack to at most 2 GiB")
            names = archive.namelist()
            if "config.json" not in names or "model.weights.h5" not in names:
                raise UsageError(f"File {name!r} must hold config.json and model.weights.h5, as Keras 3 writes them")
            if archive.getinfo("config.json").file_size > _DESCRIPTION:
                raise UsageError(f"File {name!r} must have a description of at most 16 MiB")
            description = json.loads(archive.read("config.json"))
            made_by = json.loads(archive.read("metadata.json")) if "metadata.json" in names else {}
            weights = archive.read("model.weights.h5")
    except UsageError:
        raise
    except Exception as error:  # zipfile and json raise a dozen kinds of them for damaged files
        raise UsageError(f"File {name!r} must be a .keras file, a zip archive that Keras wrote") from error
    version = str(made_by.get("keras_version", "")) if isinstance(made_by, dict) else ""
    if isinstance(description, dict):
        description.pop("compile_config", None)  # Keras is told not to compile
    for what in _objects(description):
        _check_object(what, name, version)
    _check_weights(weights, name)


def _objects(what: Any) -> Iterator[Mapping[str, Any]]:
    """Everything in a description that names a class, at any depth."""
    pending = [what]
    while pending:
        found = pending.pop()
        if isinstance(found, dict):
            if "class_name" in found or "module" in found or "registered_name" in found:
                yield found
            pending += found.values()
        elif isinstance(found, list):
            pending += found


def _check_object(what: Mapping[str, Any], name: str, version: str) -> None:
    module, kind = what.get("module"), what.get("class_name")
    named = isinstance(module, str | None) and isinstance(kind, str | None)
    if not named or module not in _MODULES or kind not in (_MODULES[module] or (kind,)):
        found = f"{str(kind)[:80]!r} of {str(module)[:80]!r}"
        raise UsageError(f"File {name!r} must hold objects of Keras only, not {found}")
    registered = what.get("registered_name")
    if not isinstance(registered, str | None) or registered not in (None, kind, *(MODELS if kind in MODELS else ())):
        raise UsageError(f"File {name!r} must hold no registered objects, not {str(registered)[:80]!r}")
    config = what["config"] if isinstance(what.get("config"), dict) else {}
    if module == "keras.layers" and kind not in LAYERS:
        raise unknown(str(kind)[:80], str(config.get("name"))[:80])
    if version.startswith("2.") and "hard_sigmoid" in map(str, config.values()):
        raise UsageError(
            f"File {name!r} must not have a hard_sigmoid of Keras {version[:20]}, which was x/5 + 1/2 and is x/6 + 1/2"
            " since Keras 3: write the file with Keras 3"
        )


def _check_weights(data: bytes, name: str) -> None:
    """Refuse weights that point outside their file."""
    h5py = require("h5py", "keras")
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            groups = [file]
            while groups:
                group = groups.pop()
                for key in group:
                    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                        raise UsageError(f"File {name!r} must hold its weights itself, not link to {key!r}")
                    found = group[key]
                    if isinstance(found, h5py.Group):
                        groups.append(found)
                    elif found.external or found.is_virtual:
                        raise UsageError(f"File {name!r} must hold its weights itself, not {key!r} elsewhere")
    except UsageError:
        raise
    except Exception as error:  # whatever a damaged number leads to: OSError, KeyError, OverflowError ...
        raise UsageError(f"File {name!r} must hold weights in HDF5") from error


def unknown(kind: str, name: str) -> UsageError:
    known = ", ".join(sorted(LAYERS - PASSED))
    found = kind if kind.isidentifier() else shown(kind)
    return UsageError(f"Layer {name!r} must be of a kind that hwrnn understands ({known}), not {found}")
