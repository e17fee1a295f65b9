"""The kinds of input that the fuzzer in ``fuzz_onnx`` drives, and how they share a campaign."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_commands
import fuzz_data
import fuzz_onnx

import hwrnn
from hwrnn.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: for tables.
        suffix: of the file that holds an input.
        share: of the inputs of a campaign.
        maker: gives the maker of inputs of a seed, once the files to damage are there.
        options: of :func:`fuzz_onnx.fuzz`.
    """

    name: str
    suffix: str
    share: int
    maker: Callable[[int], Callable[[int], bytes]]
    options: dict[str, Any] = field(default_factory=dict)


@cache
def folder() -> Path:
    """Small files of every sort, made once by this process."""
    path = Path(tempfile.mkdtemp(prefix="fuzz-files-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fuzz_commands.prepare(path)
    return path


def forget() -> None:
    """Remove those files."""
    if folder.cache_info().currsize:
        shutil.rmtree(folder(), ignore_errors=True)
        folder.cache_clear()


def _damaged(seeds: Callable[[], Sequence[tuple[str, bytes]]], mutant: fuzz_data.Mutant) -> Any:
    def maker(seed: int) -> Callable[[int], bytes]:
        files = seeds()
        return lambda number: mutant(files, seed, number)

    return maker


def _commands(seed: int) -> Callable[[int], bytes]:
    grammar = fuzz_commands.Grammar(folder())
    return lambda number: fuzz_commands.encoded(grammar.line(seed, number))


def _checkpoints() -> list[tuple[str, bytes]]:
    return [("training", (folder() / "c.npz").read_bytes())]


def _manifests() -> list[tuple[str, bytes]]:
    return [(name, (folder() / name / "manifest.json").read_bytes()) for name in ("v", "w")]


def _archives() -> list[tuple[str, bytes]]:
    """Archives as Keras writes them, with weights that are none where h5py is not there."""
    layer = {
        "module": "keras.layers", "class_name": "LSTM", "registered_name": None,
        "config": {"name": "lstm", "units": 3, "activation": "tanh", "return_sequences": True},
    }  # fmt: skip
    network = {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "s", "layers": [layer, {**layer, "class_name": "GRU"}]},
    }  # fmt: skip
    weights = io.BytesIO()
    try:
        import h5py
        import numpy as np

        with h5py.File(weights, "w") as file:
            file.create_dataset("layers/lstm/cell/vars/0", data=np.zeros((2, 12), "f4"))
    except ImportError:
        weights.write(b"\x89HDF\r\n\x1a\n" + bytes(200))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", json.dumps(network))
        file.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        file.writestr("model.weights.h5", weights.getvalue())
    return [("lstm", archive.getvalue())]


# -- readers -----------------------------------------------------------------------------------------------------------
def _run_command(path: Path, thorough: bool) -> None:
    fuzz_commands.run(fuzz_commands.decoded(path.read_bytes()), folder(), path.parent)


def _resume(path: Path, thorough: bool) -> None:
    """Go on from a checkpoint, with the network and the data that the seed began with."""
    from hwrnn.training import train

    model, data = _begun()
    again = path.with_name("again.npz")
    again.write_bytes(path.read_bytes())
    train(model, data, epochs=1, seed=0, compiled=False, checkpoint=again, resume=True)


@cache
def _begun() -> tuple[Any, Any]:
    data = hwrnn.load_dataset(folder() / "d.npz")
    return hwrnn.build_model(data.inputs, data.outputs, hidden=2, seed=0), data


def _use_folder(path: Path, thorough: bool) -> None:
    """Frames for a generated folder, and what brings it onto a board up to the first tool."""
    from hwrnn.rtl.flow import implement
    from hwrnn.rtl.load_frames import frames_of_folder

    made = path.with_name("again.v")
    if not made.exists():
        shutil.copytree(folder() / "v", made)
    (made / "manifest.json").write_bytes(path.read_bytes())
    read = False
    try:
        frames_of_folder(_loaded(), made)
        read = True
    except UsageError as error:
        told = error
    with suppress(UsageError):
        implement(made, board="icebreaker")
    if not read:
        raise told


@cache
def _loaded() -> Any:
    return hwrnn.load(folder() / "q0.onnx")


def _look_into_archive(path: Path, thorough: bool) -> None:
    """What keeps Keras from files that are not its own; Keras itself is not called."""
    from hwrnn.importing.keras_archives import check_archive

    check_archive(path.read_bytes(), path.name)


fuzz_onnx.OTHERS.update(
    {".args": _run_command, ".checkpoint": _resume, ".manifest": _use_folder, ".keras": _look_into_archive}
)


def _warm() -> None:
    """Load what readers import, and the files they compare with, before the watch is on."""
    import hwrnn.rtl.flow
    import hwrnn.rtl.load_frames
    import hwrnn.training.evolution  # noqa: F401

    with suppress(ImportError):
        import h5py  # noqa: F401

    _begun(), _loaded()
    fuzz_commands.alone()


_ALL = {"prepare": _warm, "readable": ("",)}
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("model", ".onnx", 70, _damaged(fuzz_onnx.all_seeds, fuzz_onnx.mutant)),
        Kind("npz", ".npz", 7, _damaged(lambda: fuzz_data.seeds("npz"), fuzz_data.damaged_npz)),
        Kind("csv", ".csv", 7, _damaged(lambda: fuzz_data.seeds("csv"), fuzz_data.damaged_csv)),
        Kind("checkpoint", ".checkpoint", 5, _damaged(_checkpoints, fuzz_data.damaged_checkpoint), _ALL),
        Kind("manifest", ".manifest", 4, _damaged(_manifests, fuzz_data.damaged_text), _ALL),
        Kind("keras", ".keras", 5, _damaged(_archives, fuzz_data.damaged_keras), _ALL),
        Kind("command", ".args", 2, _commands, _ALL),
    )
}


def fuzz(kind: str, seed: int, **options: Any) -> fuzz_onnx.Tally:
    """Drive the readers of a kind with its inputs."""
    chosen = KINDS[kind]
    if chosen.options:
        folder()  # made by the parent, for all workers
    return fuzz_onnx.fuzz(chosen.maker(seed), suffix=chosen.suffix, **chosen.options, **options)
