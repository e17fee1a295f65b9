"""A fuzzer of everything that reads model files: seeded damage, and a watch on what it does.

An input is a seed and a number (:func:`mutant`). Workers are forked from a warm process and drive the readers in it
(:func:`outcome`), under a limit of memory and of time, with a hook that sees every file that is opened; the parent
(:func:`fuzz`) ends a worker that hangs, starts another one behind an input that killed it, and saves what it finds.
``scripts/fuzz`` is its command line.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import mmap
import os
import pickle
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import fuzz_mutators as mutators
import numpy as np
import onnx
from google.protobuf.message import Error

import hwrnn
from hwrnn.errors import UsageError
from hwrnn.inspection import describe, description_table
from hwrnn.onnx_io import SEAL, digest
from hwrnn.qonnx import FORMS, quantized_proto
from hwrnn.quantization import QuantizedModel

MEMORY = 384 << 20  # bytes that a worker may take more than it had before
SECONDS = 4  # of computing for one input
_LARGEST_RUN = 1 << 16  # numbers in an array that an accepted network is run on
_MEMORY = "/dev/shm"  # files there cost no disk
_EXPENSIVE = 40  # every so many accepted models is described and run


@dataclass
class Tally:
    """What came of the inputs.

    Attributes:
        outcomes: how many ended how: ``accepted``, ``refused``, or a kind of failure.
        sentences: how many were refused with which sentence, its names and numbers left out.
        failures: kind, words, and the file of the input that was saved.
    """

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    sentences: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[tuple[str, str, Path]] = field(default_factory=list)
    seconds: float = 0.0
    computing: float = 0.0  # seconds of all processes

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values())

    @property
    def kinds(self) -> collections.Counter[str]:
        """Failures by kind and words."""
        return collections.Counter(f"{kind}: {words}" for kind, words, _ in self.failures)


# -- inputs ------------------------------------------------------------------------------------------------------------
def mutant(seeds: Sequence[tuple[str, bytes]], seed: int, number: int) -> bytes:
    """Input ``number`` of a run; one in fifty is a seed as it is."""
    rng = random.Random(seed << 40 | number)
    content, other = rng.choice(seeds)[1], rng.choice(seeds)[1]
    kind = rng.randrange(50)
    if kind == 0:
        return content
    if kind < 20:
        return mutators.damage_bytes(content, other, rng)
    found = mutators.damage_model(content, other, rng)
    if kind == 49:
        return mutators.damage_bytes(found, other, rng)
    return _sealed(found) if kind < 40 else found


def _sealed(content: bytes) -> bytes:
    """A file with the digest that belongs to it, as somebody writes it who means harm."""
    if SEAL.encode() not in content:
        return content
    try:
        model = onnx.ModelProto.FromString(content)
        for entry in model.metadata_props:
            if entry.key == SEAL:
                entry.value = digest(model)
        found: bytes = model.SerializeToString()
        return found
    except (Error, ValueError, AttributeError):  # nested too deep, or text that is none
        return content


# -- one input ---------------------------------------------------------------------------------------------------------
class Harm(Exception):
    """Something that reading a file must not do."""


class _OutOfTime(BaseException):
    """An input took too long."""


Reader = Callable[[Path, bool], None]
#: Readers of further kinds, by the suffix of the file that holds the input (``fuzz_kinds``).
OTHERS: dict[str, Reader] = {}


def readers_of(path: Path) -> Sequence[Reader]:
    """Who reads a file: of data, or of a model; a model without a trace of hwrnn's is read by the importer only."""
    if path.suffix in OTHERS:
        return (OTHERS[path.suffix],)
    if path.suffix != ".onnx":
        return (_data,)
    return (_load, _import) if b"hwrnn" in path.read_bytes() else (_import,)


def outcome(path: Path, thorough: bool = True) -> tuple[str, str]:
    """Read a file in every way there is: what came of it, and the words for it.

    ``accepted`` where every reader either took it or refused it and one took it, ``refused`` where all refused it;
    otherwise the kind of failure.
    """
    accepted, sentence = False, ""
    for reader in readers_of(path):
        try:
            with _limited(), warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", UserWarning)  # sentences for people
                reader(path, thorough)
            accepted = True
        except UsageError as error:
            sentence = str(error)
            fault = _fault_of(error)
            if fault:
                return fault, _place(error)
        except _OutOfTime as error:
            return "too slow", _place(error)
        except Harm as error:
            return "harm", str(error)
        except MemoryError as error:
            return "out of memory", _place(error)
        except BaseException as error:
            return type(error).__name__, _place(error)
    return ("accepted", "") if accepted else ("refused", _shape(sentence))


def _load(path: Path, thorough: bool) -> None:
    model = hwrnn.load(path)
    if thorough:
        _use(model, path)


def _import(path: Path, thorough: bool) -> None:
    found = hwrnn.import_onnx(path, initial="zero")
    if not thorough:
        return
    feeds = _feeds(path, found.inputs)
    if feeds is not None:
        with contextlib.suppress(UsageError), np.errstate(all="ignore"):
            found.run(feeds)
    with contextlib.suppress(UsageError):
        _use(found.model, path)


def _data(path: Path, thorough: bool) -> None:
    options = {"column": "a", "window": 2} if path.suffix == ".csv" else {}
    hwrnn.load_dataset(path, **options)


def _use(model: Any, path: Path) -> None:
    """What people do with a model once they have it."""
    with contextlib.suppress(UsageError):
        description_table(describe(model))
    if model.inputs * 6 <= _LARGEST_RUN:
        x = np.linspace(-2, 2, 6 * model.inputs, dtype=np.float32).reshape(2, 3, model.inputs)
        with contextlib.suppress(UsageError), np.errstate(all="ignore"):
            if isinstance(model, QuantizedModel):
                from hwrnn.golden import golden

                golden(model, model.quantize_input(x), np.array([3, 2]), compiled=False)
            else:
                model.predict(x, [3, 2])
    with contextlib.suppress(UsageError):
        again = path.with_name("again.onnx")
        hwrnn.save(model, again)
        hwrnn.load(again)


def _feeds(path: Path, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Small arrays for the inputs of a file, None where its own sizes are not small."""
    infos = {info.name: info.type.tensor_type for info in onnx.ModelProto.FromString(path.read_bytes()).graph.input}
    feeds = {}
    for name in names:
        if name not in infos:
            return None
        sizes = [dim.dim_value if dim.HasField("dim_value") else 2 for dim in infos[name].shape.dim]
        if np.prod([max(size, 1) for size in sizes], dtype=float) > _LARGEST_RUN:
            return None
        kind = infos[name].elem_type
        whole = kind in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
        feeds[name] = np.ones(sizes, np.int32 if kind == onnx.TensorProto.INT32 else np.int64 if whole else np.float32)
    return feeds


def _fault_of(error: UsageError) -> str:
    """What is wrong with a refusal: more than a sentence, or the memory ran out on the way to it."""
    text = str(error)
    if not text or "\n" in text or len(text) > 1000 or not text.isprintable():
        return "no sentence"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return "out of memory"
        cause = cause.__context__
    return ""


def _place(error: BaseException) -> str:
    """The error and where in the project it was raised."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}tests{os.sep}" not in f.filename]
    where = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if f"{os.sep}hwrnn{os.sep}" in f.filename][-3:]
    return f"{type(error).__name__}: {_shape(str(error))} at {' '.join(where)}"


def _shape(sentence: str) -> str:
    """A sentence without its names and numbers."""
    sentence = re.sub(r"(?<!\w)b?'(?:[^'\\]|\\.)*'?(?:\.\.\.)?|b?\"(?:[^\"\\]|\\.)*\"", "*", sentence)
    sentence = re.sub(r"-?\d[\d.e+]*", "#", sentence)
    return re.sub(r"(?:#(?:, )?)+", "#", sentence)[:240]


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def over(*_: object) -> NoReturn:
        raise _OutOfTime

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# -- the watch on other files ------------------------------------------------------------------------------------------
_HARMFUL = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.chown",
    "os.link", "os.symlink", "os.truncate", "subprocess.Popen", "socket.connect", "socket.bind",
    "pickle.find_class", "ctypes.dlopen", "urllib.Request",
}  # fmt: skip
#: What changes a path, which has to be one that the input may change.
_CHANGING = {
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree", "tempfile.mkstemp",
    "tempfile.mkdtemp", "os.utime", "os.setxattr",
}  # fmt: skip
_watched: list[str] = []  # the folder that a worker may write to, while the watch is on; and what it may read, or all
_READABLE = tuple({os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, *sys.path) if p and os.path.isdir(p)})


def _watch(event: str, given: tuple[Any, ...]) -> None:
    if not _watched:
        return
    if event == "open":
        path, _, flags = given
        if not isinstance(path, str | bytes) or flags & os.O_NOFOLLOW:  # by a descriptor or without links: our own
            return
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        real = os.path.realpath(os.fsdecode(path))
        if real == os.devnull or (not writes and "" in _watched):
            return
        if not (_ours(path) if writes else real.startswith((*_watched, *_READABLE))):
            raise Harm(f"{'wrote' if writes else 'read'} {_shape(repr(real))} {real[:200]!r}")
    elif event in _CHANGING and given[-1] not in (-1, None) and isinstance(given[-1], int) and len(given) == 2:
        return  # by the descriptor of a folder, which rmtree was asked for
    elif event in _HARMFUL or (event in _CHANGING and not _ours(given[0])):
        raise Harm(f"{event} {str(given)[:200]}")


def _ours(path: str | bytes) -> bool:
    """Whether a file is one that this fuzzer lets the library write: a model that it saves again, or an output."""
    real = os.path.realpath(os.fsdecode(path))
    inside = os.path.relpath(real, _watched[0]).split(os.sep)[0]
    return inside == "out" or inside.startswith(("again.", ".again."))


def _canary(folder: Path) -> Path:
    """Files around a worker's folder that must stay as they are; the worker's folder."""
    (folder / "canary").mkdir(parents=True)
    (folder / "canary" / "secret.bin").write_bytes(b"\x2a" * 4096)
    work = folder / "work"
    work.mkdir()
    (work / "w.bin").write_bytes(bytes(4096))
    (work / "link.bin").symlink_to("../canary/secret.bin")
    return work


def _state(folder: Path) -> dict[str, Any]:
    """Names, contents and times of what must stay as it is."""
    canary = folder / "canary"
    found = {p.name: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_mode) for p in (canary, *canary.iterdir())[1:]}
    kept = folder / "work" / "w.bin"
    names = sorted(p.name for p in (folder / "work").iterdir() if p.stem not in ("mutant", "again", "out"))
    around = sorted(set(os.listdir(folder)) - {"found", "stack.txt", "tally.pickle"})
    return {**found, "w": (kept.read_bytes(), kept.stat().st_mtime_ns), "names": (around, names)}


# -- workers -----------------------------------------------------------------------------------------------------------
_SLOT = struct.Struct("<qq")  # the input that a worker is at, and how many it has seen
_POLL = 0.02  # seconds


def _made(make: Callable[[int], bytes], number: int) -> tuple[bytes, str]:
    """An input, or the words of what went wrong in making it, which is a fault of the fuzzer's own."""
    try:
        return make(number), ""
    except Exception as error:
        return b"", f"{type(error).__name__}: {_shape(str(error))} in the making of input {number}"


def _work(
    make: Callable[[int], bytes], suffix: str, first: int, step: int, stop: Callable[[int], bool], folder: Path,
    slot: memoryview, prepare: Callable[[], object] | None, readable: Sequence[str],
) -> None:  # fmt: skip
    tally = Tally()
    work = folder / "work"
    path = work / f"mutant{suffix}"
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    before = _state(folder)
    os.chdir(work)
    if prepare is not None:
        (work / "again.tmp").mkdir()
        tempfile.tempdir = str(work / "again.tmp")
        prepare()
    number, accepted = first, 0
    while not stop(number):
        _SLOT.pack_into(slot, 0, number, tally.inputs)
        content, error = _made(make, number)
        if error:
            tally.outcomes["no input"] += 1
            _keep(tally, "no input", error, content, folder, suffix, number)
            number += step
            continue
        path.write_bytes(content)
        _watched[:] = [str(work), *readable]
        kind, words = outcome(path, thorough=accepted % _EXPENSIVE == 0)
        _watched.clear()
        accepted += kind == "accepted"
        tally.outcomes[kind] += 1
        if kind == "refused":
            tally.sentences[words] += 1
        elif kind != "accepted":
            _keep(tally, kind, words, content, folder, suffix, number)
        number += step
        if number // step % 256 == 0 or stop(number):
            if _state(folder) != before:
                _keep(tally, "harm", "a file beside the model changed", content, folder, suffix, number - step)
                break
            _save(tally, folder)
    _save(tally, folder)


def _save(tally: Tally, folder: Path) -> None:
    temporary = folder / "tally.new"
    temporary.write_bytes(pickle.dumps(tally))
    temporary.rename(folder / "tally.pickle")


def _keep(tally: Tally, kind: str, words: str, content: bytes, folder: Path, suffix: str, number: int) -> None:
    path = folder / "found" / f"{re.sub('[^a-zA-Z]+', '-', kind)}-{number}{suffix}"
    if sum((kind, words) == found[:2] for found in tally.failures) < 3:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    tally.failures.append((kind, words, path))


def fuzz(
    make: Callable[[int], bytes], *, suffix: str = ".onnx", inputs: int | None = None, seconds: float | None = None,
    jobs: int = 1, output: Path | None = None, patience: float = 20.0, prepare: Callable[[], object] | None = None,
    readable: Sequence[str] = (), first: int = 0,
) -> Tally:  # fmt: skip
    """Drive the readers with inputs ``make(0)``, ``make(1)``, ... until a number of them or of seconds.

    Args:
        make: an input by its number.
        suffix: of the files: ``.onnx``, ``.npz`` or ``.csv``.
        inputs: how many, or None.
        seconds: how long, or None.
        jobs: processes beside each other.
        output: where inputs that fail are saved; None for a new temporary folder where there are any.
        patience: seconds after which a worker that does not answer is ended: code of a library that hangs.
        prepare: is called in each worker first.
        readable: starts of further paths that an input may have read; with an empty one it may have all read.
        first: the number to begin with, to go on behind an earlier run.
    """
    total, start, before = Tally(), time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    root = Path(tempfile.mkdtemp(prefix="fuzz-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
    shared = mmap.mmap(-1, _SLOT.size * jobs)
    view = memoryview(shared)
    if not any(hook is _watch for hook in _hooks):
        sys.addaudithook(_watch)
        _hooks.append(_watch)

    def stop(number: int) -> bool:
        late = seconds is not None and time.monotonic() - start > seconds
        return late or (inputs is not None and number >= first + inputs)

    def launch(job: int, begin: int) -> tuple[int, Path]:
        folder = root / f"{job}-{begin}"
        _canary(folder)
        _SLOT.pack_into(view, job * _SLOT.size, -1, 0)
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child, folder
        code = 1
        try:
            slot = view[job * _SLOT.size : (job + 1) * _SLOT.size]
            with open(folder / "stack.txt", "w") as stack:
                faulthandler.enable(stack)
                _work(make, suffix, begin, jobs, stop, folder, slot, prepare, readable)
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)

    running = {job: launch(job, first + job) for job in range(jobs)}
    seen: dict[int, tuple[int, int]] = {}
    waited: collections.Counter[int] = collections.Counter()  # polls, for the clock also runs while a machine stands
    while running:
        time.sleep(_POLL)
        for job, (child, folder) in list(running.items()):
            number, computed = _SLOT.unpack_from(view, job * _SLOT.size)
            waited[job] = waited[job] + 1 if (number, computed) == seen.get(job) else 0
            seen[job] = (number, computed)
            hangs = number >= 0 and waited[job] * _POLL > patience
            if hangs:
                os.kill(child, signal.SIGABRT)  # faulthandler writes where it is
                time.sleep(0.2)
                os.kill(child, signal.SIGKILL)
            ended, status = os.waitpid(child, 0 if hangs else os.WNOHANG)
            if not ended:
                continue
            del running[job]
            tally = Tally()
            if (folder / "tally.pickle").exists():
                tally = pickle.loads((folder / "tally.pickle").read_bytes())
            _add(total, tally)
            if not hangs and os.waitstatus_to_exitcode(status) == 0:
                continue
            kind = "hang" if hangs else f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "exit"
            if number < 0:
                raise RuntimeError(f"Fuzzer must work itself, and ended ({kind})")
            lost = Tally(outcomes=collections.Counter({kind: 1}))
            begun = int(folder.name.split("-")[1])
            lost.outcomes["not counted"] = (number - begun) // jobs - tally.inputs
            _keep(lost, kind, _stack(folder), _made(make, number)[0], folder, suffix, number)
            _add(total, lost)
            if not stop(number + jobs):
                running[job] = launch(job, number + jobs)
    total.seconds = time.monotonic() - start
    output = output or (Path(tempfile.mkdtemp(prefix="fuzz-found-")) if total.failures else None)
    for k, (kind, words, path) in enumerate(total.failures):
        if output is not None and path.exists():
            output.mkdir(parents=True, exist_ok=True)
            total.failures[k] = (kind, words, Path(shutil.copy(path, output)))
    shutil.rmtree(root)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total.computing = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return total


_hooks: list[Any] = []


def _stack(folder: Path) -> str:
    text = (folder / "stack.txt").read_text(errors="replace")  # cut off anywhere, where the process was killed
    found = re.search(r'(\w+\.py)", line (\d+)', text)
    return " ".join(found.groups()) if found else "no Python frame"


def _add(total: Tally, more: Tally) -> None:
    total.outcomes += more.outcomes
    total.sentences += more.sentences
    total.failures += more.failures


def report(tally: Tally) -> str:
    """A tally in words."""
    rate, core = (tally.inputs / max(seconds, 1e-9) for seconds in (tally.seconds, tally.computing))
    lines = [f"{tally.inputs} inputs in {tally.seconds:.0f} s, {rate:.0f} a second, {core:.0f} a second of a core"]
    lines += [f"{count:9d}  {kind}" for kind, count in tally.outcomes.most_common()]
    lines.append(f"{len(tally.sentences)} distinct sentences, the most frequent ones:")
    lines += [f"{count:9d}  {sentence}" for sentence, count in tally.sentences.most_common(25)]
    kinds = tally.kinds
    lines.append(f"{len(tally.failures)} failures of {len(kinds)} kinds")
    for words, count in kinds.most_common():
        path = next((p for kind, w, p in tally.failures if f"{kind}: {w}" == words and p.exists()), None)
        lines.append(f"{count:9d}  {words}\n           repeat: scripts/fuzz --input {path}")
    return "\n".join(lines)


# -- seeds -------------------------------------------------------------------------------------------------------------
def exported_seeds(folder: Path, largest: int = 32768) -> list[tuple[str, bytes]]:
    """Files of other exporters."""
    return [(p.name, p.read_bytes()) for p in sorted(folder.glob("*.onnx")) if p.stat().st_size <= largest]


def node_test_seeds() -> list[tuple[str, bytes]]:
    """The node tests of the recurrent operators in the onnx package, their weights as tensors of the file."""
    from onnx.backend.test.case.node import collect_testcases

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for case in cases:
        model = case.model
        if any(node.op_type in ("RNN", "GRU", "LSTM") for node in model.graph.node):
            given = case.data_sets[0][0]
            for info, value in list(zip(model.graph.input, given, strict=True))[1:]:
                model.graph.initializer.append(onnx.numpy_helper.from_array(value, info.name))
            del model.graph.input[1:]
            found.append((case.name, model.SerializeToString()))
    return found


def own_seeds(folder: Path, cells: Mapping[str, dict[str, Any]]) -> list[tuple[str, bytes]]:
    """Small files of hwrnn's own, float and quantized."""
    from hwrnn.data import Dataset, Split
    from hwrnn.model import build_model
    from hwrnn.quantization import quantize

    x = np.random.default_rng(0).normal(size=(6, 4, 2)).astype(np.float32)
    data = Dataset.of("noise", Split(x, np.arange(6) % 2, np.full(6, 4)))
    found = []
    for name, chosen in cells.items():
        model = build_model(2, 2, **{"hidden": 2, "seed": 1, **chosen})
        for kind, one in (("float", model), ("quantized", quantize(model, data, 6, method="mse"))):
            path = folder / "seed.onnx"
            hwrnn.save(one, path)
            found.append((f"{name} {kind}", path.read_bytes()))
            path.unlink()
        if name in ("rnn", "lstm"):  # as other tools read them
            for form in FORMS:
                with contextlib.suppress(UsageError):
                    found.append((f"{name} {form}", quantized_proto(one, form).SerializeToString()))
    return found


CELLS: Mapping[str, dict[str, Any]] = {
    "rnn": {"cell": "rnn"}, "gru": {"cell": "gru"}, "lstm": {"cell": "lstm", "cell_clip": 4.0},
    "fits": {"cell": "ligru", "activation": "pwl_tanh:4", "gate": "plan_sigmoid", "every_step": True},
    "layers": {"cell": "mingru", "layers": 2}, "both": {"cell": "gru", "bidirectional": True, "every_step": True},
    "peephole": {"cell": "lstm-peephole", "output_activation": "hard_tanh"},
}  # fmt: skip


def all_seeds() -> list[tuple[str, bytes]]:
    """Own files, the node tests of ONNX, and files of other exporters."""
    with tempfile.TemporaryDirectory() as folder:
        own = own_seeds(Path(folder), CELLS)
    return own + node_test_seeds() + exported_seeds(Path(__file__).parent / "exported")
