"""Processes that are killed at random moments, and disks that are full at each of them.

A writer of :data:`WRITERS` writes its first or its second version under the same names. A forked process does so in
turn, for ever, and is ended by a signal at a random moment (:func:`kills`): under each name must then be the one
version or the other, whole; what else was left must be known for temporary, and be gone after the next writing.

A run of :data:`RUNS` is a command line that trains with a checkpoint. It is killed at random moments and resumed until
it ends (:func:`interruptions`): what it writes must be, byte for byte, what it writes undisturbed.

The command lines of :data:`VERBS` run on a disk that fills up at every call of the system in turn (:func:`full_disks`).
``scripts/kill`` is the command line.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import faulthandler
import hashlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import hwrnn
import hwrnn.rtl
from hwrnn import cli, compiler, files, locks
from hwrnn.cli import main
from hwrnn.compiler import C
from hwrnn.model import build_model
from hwrnn.training.checkpoint import Checkpoint

SIGNALS = (signal.SIGKILL,) * 6 + (signal.SIGTERM, signal.SIGINT)

@dataclass
class Tally:
    """What came of one kind of kills.

    Attributes:
        kills: how many processes were ended by a signal.
        during: how many of those left a temporary file, so were in the middle of writing.
        old, new: versions that stood under the final names, the one from before and the other.
        faults: what was wrong, with the number of the kill.
    """

    kills: int = 0
    during: int = 0
    old: int = 0
    new: int = 0
    faults: list[str] = field(default_factory=list)


# -- what is written ---------------------------------------------------------------------------------------------------
class Material:
    """Small models and data, and folders generated from them; made once, into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, 48)
        x = rng.normal(0, 0.5, (48, 5, 2)).astype(np.float32)
        x[:, :, 0] += y[:, None]
        np.savez(folder / "d.npz", x=x[:32], y=y[:32], x_test=x[32:], y_test=y[32:])
        rows = "\n".join(f"{k},{np.sin(k / 3):.4f}" for k in range(60))
        (folder / "s.csv").write_text(f"k,value\n{rows}\n")
        data = hwrnn.load_dataset(folder / "d.npz")
        self.models = [build_model(2, 2, cell=cell, hidden=3, seed=1) for cell in ("gru", "rnn")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.quantized = [hwrnn.quantize(model, data, 8, method="mse") for model in self.models]
            for k in range(2):
                hwrnn.save(self.models[k], folder / f"m{k}.onnx")
                hwrnn.save(self.quantized[k], folder / f"q{k}.onnx")
            hwrnn.rtl.generate(self.quantized[0], folder / "v", lanes=2, weights="loadable")
            hwrnn.rtl.generate(self.quantized[1], folder / "w", lanes=1)
        self.texts = [
            {file.name: file.read_bytes() for file in (folder / name).iterdir() if file.name != files.CHECKSUMS}
            for name in ("v", "w")
        ]
        self.large = [np.random.default_rng(k).normal(size=400_000).astype(np.float32) for k in range(2)]


Writer = Callable[[Material, Path, int], None]


def _float_model(material: Material, folder: Path, version: int) -> None:
    hwrnn.save(material.models[version], folder / "m.onnx")


def _quantized_model(material: Material, folder: Path, version: int) -> None:
    hwrnn.save(material.quantized[version], folder / "q.onnx")


def _checkpoint(material: Material, folder: Path, version: int) -> None:
    arrays = [material.large[version]] * 4
    Checkpoint(*arrays, state={"version": version}, identity={}).save(folder / "c.npz")


def _generated_folder(material: Material, folder: Path, version: int) -> None:
    """What generate does once its texts are made, which takes so long that few kills would hit the writing."""
    with files.replace_folder(folder / "v", stale="implementation-*") as fresh:
        for name, text in material.texts[version].items():
            (fresh / name).write_bytes(text)


def _folder_in_a_folder(material: Material, folder: Path, version: int) -> None:
    """What implement does once its tools have ended."""
    if not (folder / "v").exists():
        _generated_folder(material, folder, 0)
    with files.replace_folder(folder / "v" / "implementation-up5k") as fresh:
        (fresh / "report.json").write_text(f"{version}\n" * 2000)
        (fresh / "network.bin").write_bytes(bytes([version]) * 200_000)


def _c_folder(material: Material, folder: Path, version: int) -> None:
    _quietly("export", material.folder / f"q{version}.onnx", "--form", "c", "-o", folder / "c")


def _export(material: Material, folder: Path, version: int) -> None:
    _quietly("export", material.folder / f"q{version}.onnx", "--form", "qonnx", "-o", folder / "e.onnx")


def _frames(material: Material, folder: Path, version: int) -> None:
    model = material.folder / "q0.onnx"
    _quietly("frames", model, material.folder / "v", "-o", folder / "weights.bin")


def _compiled(material: Material, folder: Path, version: int) -> None:
    """A library of the cache folder, which is missing at first in every turn."""
    os.environ["HWRNN_CACHE"] = str(folder)
    name = f"kernel{version}"
    for file in folder.glob(f"{name}-*.so"):
        file.unlink()
    source = f"int number(void) {{ return {version}; }}"
    made = compiler.shared_library(
        name, lambda: source, ("-O0",), source, language=C, purpose="the test", instead="leave it"
    )
    assert made.number() == version


def _quietly(*words: object) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        code = main([str(word) for word in words])
    if code > 128:
        raise KeyboardInterrupt
    if code:
        raise RuntimeError(told.getvalue())


#: Name to writer, and the share of the kills that it gets.
WRITERS: Mapping[str, tuple[Writer, int]] = {
    "float model": (_float_model, 4),
    "quantized model": (_quantized_model, 4),
    "checkpoint": (_checkpoint, 4),
    "generated folder": (_generated_folder, 4),
    "implementation in a folder": (_folder_in_a_folder, 3),
    "C folder": (_c_folder, 1),
    "exported model": (_export, 1),
    "frames of weights": (_frames, 1),
    "compiled kernel": (_compiled, 2),
}


# -- kills -------------------------------------------------------------------------------------------------------------
def contents(folder: Path) -> dict[str, str]:
    """Digests of everything below a folder, by relative path."""
    found = {}
    for item in sorted(folder.rglob("*")):
        if item.is_file():
            content = item.read_bytes()
            if item.suffix == ".vcd":  # changes of one moment stand in any order: as many moments are a whole one
                content = b"%d" % content.count(b"\n#")
            found[str(item.relative_to(folder))] = hashlib.sha256(content).hexdigest()[:16]
    return found


def split(found: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What stands under final names, and what is temporary."""
    parts: tuple[dict[str, str], dict[str, str]] = {}, {}
    for name, digest in found.items():
        parts[locks.is_temporary(Path(name))][name] = digest
    return parts


def forked(work: Callable[[], object], given: Mapping[str, str] | None = None) -> int:
    """Do some work in a new process, which leads a group of its own; its number, as soon as it does.

    It ends with the exit code that the work returns, 3 for an exception.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ready, done = os.pipe()
    child = os.fork()
    if child:
        os.close(done)
        os.read(ready, 1)
        os.close(ready)
        return child
    code = 3
    try:
        os.setsid()
        locks._tidied.clear()
        os.environ.update(given or {})
        tempfile.tempdir = None  # asked of the environment again
        warnings.resetwarnings()  # lines for people here, whatever a test makes of them
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        faulthandler.enable(2)
        os.write(done, b".")
        code = int(work() or 0)
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        if not isinstance(error, cli._Signalled):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def kills(
    name: str, material: Material, count: int, seed: int, tick: Callable[[int], object] | None = None,
    only: int | None = None,
) -> Tally:  # fmt: skip
    """Kill processes that write, ``count`` times or only kill number ``only``, and look at what is left."""
    writer = WRITERS[name][0]
    tally = Tally()
    with _scratch() as root:
        folder, temporary = root / "work", root / "tmp"
        folder.mkdir()
        temporary.mkdir()
        given = {"TMPDIR": str(temporary), "HWRNN_CACHE": str(root / "cache")}
        with _environment(given):
            whole, seconds = _versions(writer, material, folder)
        for number in range(count) if only is None else [only]:
            rng = random.Random(f"{name} {seed} {number}")
            chosen = rng.choice(SIGNALS)
            before = _version_of(split(contents(folder))[0], whole)

            def write() -> NoReturn:
                with cli._ended_by_signals():
                    for turn in range(10**9):
                        writer(material, folder, turn % 2)
                raise AssertionError

            child = forked(write, given)
            time.sleep(rng.random() * 2.5 * seconds + 0.001)
            os.killpg(child, chosen) if chosen == signal.SIGKILL else os.kill(child, chosen)
            code = os.waitstatus_to_exitcode(_wait(child))
            tally.kills += 1
            if code == 3 and chosen == signal.SIGKILL:
                tally.faults.append(f"{name}, kill {number}: the process ended by itself")
            left, rest = split(contents(folder))
            tally.during += bool(rest)
            after = _version_of(left, whole)
            if after is None:
                tally.faults.append(f"{name}, kill {number} by {chosen.name}: neither version is there, but {left}")
                shutil.rmtree(folder)
                folder.mkdir()
            tally.old, tally.new = tally.old + (after == before), tally.new + (after != before)
            locks._tidied.clear()
            with _environment(given):
                writer(material, folder, 0)  # the next run
                if name == "compiled kernel":
                    writer(material, folder, 1)
            left = contents(folder)
            if left != whole[0]:
                tally.faults.append(f"{name}, kill {number} by {chosen.name}: the next run leaves {left}")
            if tick is not None:
                tick(1)
    return tally


def _versions(writer: Writer, material: Material, folder: Path) -> tuple[list[dict[str, str]], float]:
    """What each version is, and how long one takes to write."""
    whole, start = [], time.perf_counter()
    for version in (0, 1, 0, 1):
        locks._tidied.clear()
        writer(material, folder, version)
        whole.append(contents(folder))
    if writer is _compiled:  # two files, either of which may be missing
        return [whole[1]], (time.perf_counter() - start) / 4
    assert whole[:2] == whole[2:]
    return whole[:2], (time.perf_counter() - start) / 4


def _version_of(found: dict[str, str], whole: Sequence[dict[str, str]]) -> int | None:
    if len(whole) == 1:
        return 0 if found.items() <= whole[0].items() else None
    return whole.index(found) if found in whole else None


def _wait(child: int, seconds: float = 120.0, hear: Callable[[], object] = lambda: None) -> int:
    """Wait for the end of a process, whose words are taken meanwhile; its status."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        hear()
        if ended:
            return status
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGABRT)  # faulthandler writes where it is
            time.sleep(0.5)
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError("a process did not end")
        time.sleep(0.001)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="kill-"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def _environment(given: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    tempfile.tempdir = None
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None


# -- training that is interrupted --------------------------------------------------------------------------------------
_TRAIN = ("train", "--data", "{m}/d.npz", "--hidden", "3", "--epochs", "12", "--batch", "8", "-o", "{f}/out.onnx")
_TUNE = ("quantize", "{m}/m0.onnx", "--data", "{m}/d.npz", "--bits", "4", "--finetune", "12", "-o", "{f}/out.onnx")
_EVOLVE = (
    "evolve", "--data", "{m}/d.npz", "--cell", "rnn", "--hidden", "3", "--activation", "relu1", "--population", "16",
    "--generations", "8", "-o", "{f}/out.onnx",
)  # fmt: skip

#: Name to a command line that writes ``{f}/out.onnx``, and the share of the kills that it gets.
RUNS: Mapping[str, tuple[Sequence[str], int]] = {
    "training, numpy": ((*_TRAIN, "--cell", "gru", "--no-compiled", "--validation", "0.2", "--patience", "12"), 3),
    "training, compiled": ((*_TRAIN, "--cell", "lstm", "--compiled"), 3),
    "fixed point, numpy": ((*_TUNE, "--no-compiled"), 3),
    "fixed point, compiled": ((*_TUNE, "--compiled", "--search-every", "3"), 3),
    "evolution": ((*_EVOLVE, "--workers", "1", "--batch", "16", "--noise", "0.1"), 3),
    "evolution, two processes": ((*_EVOLVE, "--workers", "2"), 1),
}


def interruptions(
    name: str, material: Material, count: int, seed: int, tick: Callable[[int], object] | None = None
) -> Tally:
    """Kill a run at random moments and resume it, again and again, until ``count`` kills are done."""
    tally = Tally()
    with _scratch() as root:
        given = {"HWRNN_CACHE": str(root / "cache"), "TMPDIR": str(root)}
        folder = root / "work"
        folder.mkdir()
        words = [word.format(m=material.folder, f=folder) for word in RUNS[name][0]]
        checkpoint = folder / "checkpoint.npz"
        code, _ = _ended(words, given)
        start = time.perf_counter()
        again, told = _ended(words, given)  # with what is compiled in the cache
        seconds = time.perf_counter() - start
        if code or again:
            raise RuntimeError(told)
        due = contents(folder)
        rng = random.Random(f"{name} {seed}")
        while tally.kills < count:
            shutil.rmtree(folder)
            folder.mkdir()
            for _ in range(12):  # so that each run is interrupted several times
                more = ["--checkpoint", str(checkpoint), *(["--resume"] if checkpoint.exists() else [])]
                chosen = rng.choice(SIGNALS)
                last = tally.kills >= count
                moment = None if last else seconds * rng.choice((0.3, 1.0)) * rng.random()
                code, told = _ended([*words, *more], given, moment, chosen)
                if code == 0:
                    break
                tally.kills += 1
                if tick is not None:
                    tick(1)
                left, rest = split(contents(folder))
                tally.during += bool(rest)
                tally.new += checkpoint.exists()
                tally.old += not checkpoint.exists()
                known = {
                    -signal.SIGKILL: "", -signal.SIGTERM: "", 143: "hwrnn: ended by SIGTERM", 130: "hwrnn: interrupted"
                }  # fmt: skip
                lines = [line for line in told.splitlines() if not line.startswith(_PROGRESS)]
                if code not in known or (lines and not (len(lines) == 1 and lines[0].startswith(known[code] or "-"))):
                    tally.faults.append(f"{name}, kill {tally.kills} by {chosen.name}: ended with {code} and {told!r}")
            else:
                code, told = _ended([*words, *more], given)
                if code:
                    tally.faults.append(f"{name}, after kill {tally.kills}: ended with {code} and {told!r}")
            left = {key: value for key, value in contents(folder).items() if key != checkpoint.name}
            if left != due:
                tally.faults.append(f"{name}, after kill {tally.kills}: {left} in place of {due}")
    return tally


#: Lines on standard error that are none of an error: progress and warnings.
_PROGRESS = (
    "train:", "fine-tune:", "evolve:", "simulate:", "hwrnn: The new", "hwrnn: What the new", "hwrnn: The range",
)  # fmt: skip


def _ended(
    words: Sequence[str], given: Mapping[str, str], moment: float | None = None, chosen: int = 0,
    prepare: Callable[[], object] = lambda: None,
) -> tuple[int, str]:  # fmt: skip
    """Run a command line in a process of its own, ended by a signal after some time; its exit code and its words."""
    reading, writing = os.pipe()

    def work() -> int:
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        prepare()
        code = main(list(words))
        sys.stderr.flush()
        return code

    child = forked(work, given)
    os.close(writing)
    if moment is not None:
        time.sleep(moment)
        # Ctrl-C reaches the whole group of a terminal; other signals the process that somebody names.
        os.killpg(child, chosen) if chosen != signal.SIGTERM else os.kill(child, chosen)
    told = bytearray()
    with open(reading, "rb", buffering=0) as pipe:
        os.set_blocking(reading, False)
        status = _wait(child, hear=lambda: told.extend(pipe.read() or b""))
    return os.waitstatus_to_exitcode(status), told.decode(errors="replace")


# -- full disks --------------------------------------------------------------------------------------------------------
#: Every verb that writes: its command line, with ``{m}`` for the material and ``{f}`` for the folder that it writes to.
VERBS: Mapping[str, Sequence[str]] = {
    "train": (*_TRAIN[:5], "--epochs", "2", "--checkpoint", "{f}/c.npz", "--no-compiled", "-o", "{f}/m.onnx"),
    "quantize": ("quantize", "{m}/m0.onnx", "--data", "{m}/d.npz", "--method", "mse", "-o", "{f}/q.onnx"),
    "evolve": (*_EVOLVE[:-4], "--generations", "2", "--workers", "1", "--checkpoint", "{f}/c.npz", "-o", "{f}/q.onnx"),
    "generate": ("generate", "{m}/q1.onnx", "--lanes", "1", "-o", "{f}/v"),
    "export": ("export", "{m}/q0.onnx", "--form", "qonnx", "-o", "{f}/e.onnx"),
    "export, c": ("export", "{m}/q0.onnx", "--form", "c", "-o", "{f}/c"),
    "import": ("import", "{m}/m0.onnx", "--activations", "plan", "-o", "{f}/m.onnx"),
    "frames": ("frames", "{m}/q0.onnx", "{m}/v", "-o", "{f}/w.bin"),
    "simulate": (
        "simulate", "{m}/q1.onnx", "--data", "{m}/d.npz", "--count", "1", "--simulator", "amaranth", "--vcd",
        "{f}/w.vcd",
    ),
}  # fmt: skip

#: What a sentence of a full disk speaks of; where Yosys met it, that of the system.
_FULL = (" room ", "File too large", "No space left")
#: Calls of the system that a full disk refuses, as Python's ``os`` names them.
_CALLS = ("open", "fsync", "replace", "rename", "mkdir")


@dataclass
class Full:
    """What came of full disks: how many, how many of them were met, and what was wrong."""

    tried: int = 0
    met: int = 0
    faults: list[str] = field(default_factory=list)


def full_disks(verb: str, material: Material, tick: Callable[[int], object] | None = None) -> Full:
    """Run a verb on disks that are full at every one of its system calls, and behind so many bytes of a file."""
    found = Full()
    with _scratch() as root:
        given = {"HWRNN_CACHE": str(root / "cache"), "TMPDIR": str(root / "tmp")}
        for before in ("nothing", "an earlier result"):
            folder = root / before.replace(" ", "-")
            words = [word.format(m=material.folder, f=folder) for word in VERBS[verb]]

            def begin(folder: Path = folder, words: Sequence[str] = words, before: str = before) -> dict[str, str]:
                for path in (folder, root / "tmp"):
                    shutil.rmtree(path, ignore_errors=True)
                    path.mkdir()
                if before != "nothing":
                    code, told = _ended(words, given)
                    if code:
                        raise RuntimeError(told)
                return _without_checkpoint(contents(folder))

            def attempt(
                kind: str, k: int, folder: Path, words: Sequence[str], there: dict[str, str], due: dict[str, str],
                begin: Callable[[], object],
            ) -> bool:  # fmt: skip
                """Whether the disk's end was met."""
                code, told = _on_a_full_disk(words, given, kind, k)
                found.tried, found.met = found.tried + 1, found.met + (code != 0)
                if tick is not None:
                    tick(1)
                where, now = f"{verb}, {kind} {k} in {folder.name}", _without_checkpoint(contents(folder))
                lines = [line for line in told.splitlines() if not line.startswith(_PROGRESS)]
                good = len(lines) == 1 and lines[0].startswith("hwrnn: ") and any(words in lines[0] for words in _FULL)
                if code and not (code == 2 and good):
                    found.faults.append(f"{where}: ended with {code} and {told!r}")
                # The new ones are there where only the last of all calls was refused, that for the folder's own entry.
                if code and now not in (there, due):
                    found.faults.append(f"{where}: left {sorted(now)}, not as it was")
                rest = [name for name in os.listdir(root / "tmp") if name != ".ses"]  # of ONNX Runtime's
                if code and rest:
                    found.faults.append(f"{where}: left {rest} among the temporary files")
                if not code or now != there:
                    begin()
                return code != 0

            _ended(words, given) if begin() == {} else None
            due = _without_checkpoint(contents(folder))
            there, k = begin(), 0
            while k < 500 and attempt("calls", k, folder, words, there, due, begin):
                k += 1
            if k == 500:
                found.faults.append(f"{verb}: fails whatever room there is in {folder.name}")
            for size in range(0, 10000, 1500) if verb != "generate" else (0, 3000):
                attempt("bytes", size, folder, words, there, due, begin)
    return found


def _without_checkpoint(found: dict[str, str]) -> dict[str, str]:
    """Contents but for the checkpoint, whose earlier whole states a run rightly leaves."""
    return {name: digest for name, digest in found.items() if name != "c.npz"}


def _on_a_full_disk(words: Sequence[str], given: Mapping[str, str], kind: str, k: int) -> tuple[int, str]:
    """Run a command line on a disk without room for the k-th call, or for more than k bytes in a file."""
    import builtins

    calls = collections.Counter[str]()
    def fill() -> None:
        if kind == "bytes":
            resource.setrlimit(resource.RLIMIT_FSIZE, (k, k))
            return

        def refusing(holder: Any, name: str) -> None:
            original = getattr(holder, name)

            def refused(*given: Any, **more: Any) -> Any:
                if name == "open" and not _writes(holder, given, more):
                    return original(*given, **more)
                calls["all"] += 1
                if calls["all"] == k + 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return original(*given, **more)

            setattr(holder, name, refused)

        for name in _CALLS:
            refusing(os, name)
        refusing(builtins, "open")
        refusing(io, "open")

    return _ended(words, given, prepare=fill)


def _writes(holder: Any, given: Sequence[Any], more: Mapping[str, Any]) -> bool:
    if holder is os:
        return bool(given[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    mode = more.get("mode", given[1] if len(given) > 1 else "r")
    return bool(set(mode) & set("wax+")) and not isinstance(given[0], int)
