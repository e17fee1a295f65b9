"""Which sentences of errors the tests have seen: recorded while they run, judged afterwards.

With the folder ``HWRNN_MESSAGES`` in the environment (``tests/conftest.py`` looks for it) every exception that the
package makes is written down there: the statement that raises it, its text, the test. An error is *told* where a test
that met it holds a piece of its text, of two words at least, among its own strings.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHORTEST = 8
#: Errors of the house's own making against its own rules; nobody outside can cause them, and some are control flow.
INTERNAL = {"NotImplementedError", "AssertionError", "StopIteration", "Learnt", "Bound", "AttributeError"}


def _has_words(call: ast.Call) -> bool:
    return any(isinstance(node, ast.Constant) and isinstance(node.value, str) for node in ast.walk(call))


@cache
def package() -> dict[str, dict[int, tuple[int, str]]]:
    """For every file the lines of its raise statements: line -> (first line, name of what is raised)."""
    found = {}
    for folder in ("hwrnn", "rtl", "sim"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if (ROOT / folder / "rtl") in path.parents or (ROOT / folder / "sim") in path.parents:
                continue  # the links to what stands beside
            lines = {}
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                # Without words of its own it passes on what was made elsewhere, or goes to an except beside it.
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and _has_words(node.exc):
                    name = ast.unparse(node.exc.func).rpartition(".")[2]
                    for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                        lines[line] = (node.lineno, name)
            found[str(path.relative_to(ROOT))] = lines
    return found


@cache
def relative(path: str) -> str | None:
    """A file of the package as its path in the tree, links resolved."""
    real = Path(os.path.realpath(path))
    found = str(real.relative_to(ROOT)) if real.is_relative_to(ROOT) else ""
    return found if found in package() else None


def site(frame: Any, line: int) -> str | None:
    """The raise statement that a frame stands in."""
    path = relative(frame.f_code.co_filename)
    at = package()[path].get(line) if path is not None else None
    return None if at is None else f"{path}:{at[0]}"


class Recorder:
    """Writes down what is raised, each pair of statement and test file once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.process = os.getpid()
        self.file = folder / f"{self.process}.jsonl"
        self.seen: set[tuple[str, str, str]] = set()

    def write(self, place: str, text: str) -> None:
        """One error, with the test that runs."""
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
        # A child that a test forks, as the fuzzer does, is watched for whatever it writes.
        if (place, text, test) not in self.seen and os.getpid() == self.process:
            self.seen.add((place, text, test))
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"site": place, "text": text, "test": test}) + "\n")

    def made(self, error: BaseException) -> None:
        """An exception of the package's own class, while it is made."""
        frame = sys._getframe(2)
        for _ in range(8):
            place = site(frame, frame.f_lineno)
            if place is not None:
                return self.write(place, str(error))
            if frame.f_back is None:
                return None
            frame = frame.f_back
        return None

    def caught(self, error: BaseException) -> None:
        """An exception that a test expected, and what it was made from, whose words it may repeat."""
        each: BaseException | None = error
        while each is not None:
            step = each.__traceback__
            places = []
            while step is not None:
                place = site(step.tb_frame, step.tb_lineno)
                places += [place] if place else []
                step = step.tb_next
            if places:
                self.write(places[-1], str(each))
            each = each.__cause__


def watch(folder: Path) -> None:
    """Record from now on, in this process."""
    from argparse import ArgumentTypeError

    from hwrnn.errors import Damaged, UsageError
    from hwrnn.rtl.tools import ToolError

    recorder = Recorder(folder)
    for kind in (UsageError, Damaged, ToolError, ArgumentTypeError):

        def init(self: BaseException, *args: Any, made: Any = kind.__init__, **options: Any) -> None:
            made(self, *args, **options)
            recorder.made(self)

        kind.__init__ = init  # type: ignore[method-assign,assignment]
    leave = pytest.RaisesExc.__exit__

    def left(self: Any, kind: Any, error: Any, trace: Any) -> Any:
        if error is not None:
            recorder.caught(error)
        return leave(self, kind, error, trace)

    pytest.RaisesExc.__exit__ = left  # type: ignore[method-assign]


# -- afterwards --------------------------------------------------------------------------------------------------------
@cache
def strings(path: Path) -> frozenset[str]:
    """The strings of a test file and of the files beside it that it imports; of patterns also without backslashes."""
    found: set[str] = set()
    if not path.exists():
        return frozenset()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value, node.value.replace("\\", "")}
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for name in names:
            beside = path.parent / f"{name}.py"
            if beside.exists() and beside != path:
                found |= strings(beside)
    return frozenset(s.strip() for s in found if len(s.strip()) >= SHORTEST and " " in s.strip())


def pieces(text: str) -> Iterator[str]:
    """The stretches of a pattern that stand for themselves."""
    for piece in text.split(".*"):
        yield piece.strip(" ^$")


def told(text: str, test: str) -> bool:
    """Whether a test file holds a piece of an error's text, or all of it: another error may lend it its beginning."""
    held = [p for string in strings(ROOT / test) for p in pieces(string) if len(p) >= SHORTEST and " " in p]
    return any(p in text or text in p for p in held)


def missing(folder: Path) -> dict[str, str]:
    """Raise statement -> what is wrong: never met by a test, or met and its text in no test."""
    met: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            met[one["site"]].append((one["text"], one["test"]))
    found = {}
    for path, lines in package().items():
        for first, name in sorted(set(lines.values())):
            place = f"{path}:{first}"
            if name in INTERNAL or (name.startswith("_") and name[1:2].isupper() and name not in ("_Fault",)):
                continue
            if place not in met:
                found[place] = f"{name}: no test meets it"
            elif not any(told(text, test) for text, test in met[place]):
                found[place] = f"{name}: its text is in no test: {met[place][0][0]!r} ({met[place][0][1]})"
    return found


def statements() -> int:
    """How many raise statements the package has."""
    return sum(len(set(lines.values())) for lines in package().values())
