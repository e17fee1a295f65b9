"""Other people's programs, run so that one which cannot start, hangs, fails or never stops talking costs a sentence."""

from __future__ import annotations

import math
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hwrnn import locks
from hwrnn.errors import UsageError, plain

__all__ = [
    "LIMIT", "LONGEST", "Ended", "cannot_start", "end_group", "how_it_ended", "run_program", "seconds_allowed",
    "too_long",
]  # fmt: skip

#: The variable of the environment with the seconds that a program may take.
LIMIT = "HWRNN_TOOL_SECONDS"
_SECONDS = 3600.0
#: Bytes that a program may write before it is ended: logs of real tools have a few million.
LONGEST = 1 << 28


@dataclass(frozen=True)
class Ended:
    """What a program left behind: its exit code (negative: the signal that ended it) and what it wrote."""

    code: int
    output: str
    errors: str


def seconds_allowed() -> float:
    """How many seconds a program may take.

    Raises:
        UsageError: the variable ``HWRNN_TOOL_SECONDS`` holds no positive number.
    """
    text = os.environ.get(LIMIT, "")
    if not text:
        return _SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"Variable {LIMIT} must be a number of seconds above 0, not {text!r}")
    return seconds


def cannot_start(name: str, error: OSError) -> UsageError:
    """The sentence for a program that the system does not start."""
    return UsageError(f"Program {name!r} must be one that can be started, but is not ({plain(error)})")


def too_long(name: str, seconds: float) -> UsageError:
    """The sentence for a program that was ended because it took too long."""
    return UsageError(
        f"Program {name!r} must end within {seconds:g} seconds, and did not: set {LIMIT} for it to take longer"
    )


def run_program(
    command: Sequence[str], *, folder: str | os.PathLike[str] | None = None, given: str = "", most: float = math.inf
) -> Ended:
    """Run a program to its end, and end it with everything that it started where it takes too long.

    Args:
        command: its path or name, and its arguments.
        folder: where it runs; None for the current folder.
        given: its standard input.
        most: seconds, where it may take fewer than ``HWRNN_TOOL_SECONDS`` allows.

    Raises:
        UsageError: a program that cannot be started, that takes too long, or that writes without end.
    """
    seconds = min(seconds_allowed(), most)
    name = Path(command[0]).name
    process = None
    try:
        # A signal between the start of a program and its keeping would leave it running.
        with tempfile.TemporaryFile() as stdin, locks.undisturbed():
            stdin.write(given.encode())
            stdin.seek(0)
            try:
                # A session of its own is a process group of its own, so that a compiler's parts end with it.
                process = subprocess.Popen(
                    list(command), cwd=folder, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise cannot_start(name, error) from error
        output, errors = _listen(process, name, seconds)
        return Ended(process.wait(), output.decode(errors="replace"), errors.decode(errors="replace"))
    except BaseException:
        if process is not None:
            with locks.undisturbed():
                end_group(process)
        raise
    finally:
        for stream in (process.stdout, process.stderr) if process is not None else ():
            if stream is not None:
                stream.close()


def _listen(process: subprocess.Popen[bytes], name: str, seconds: float) -> tuple[bytes, bytes]:
    """Everything that a program writes, until it has ended."""
    heard = {process.stdout: bytearray(), process.stderr: bytearray()}
    deadline, last = time.monotonic() + seconds, math.inf
    with selectors.DefaultSelector() as selector:
        for stream in heard:
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() or process.poll() is None:
            now = time.monotonic()
            if now > deadline:
                raise too_long(name, seconds)
            if process.poll() is not None:
                last = min(last, now + 1)  # whom it left behind may hold the pipes open for ever
                if now > last:
                    break
            if not selector.get_map():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(min(deadline - now, 1))
            for key, _ in selector.select(min(deadline - now, 0.2)):
                piece = os.read(key.fd, 1 << 16)
                if not piece:
                    selector.unregister(key.fileobj)
                heard[key.fileobj] += piece  # type: ignore[index]  # one of the two streams
            if sum(map(len, heard.values())) > LONGEST:
                raise UsageError(f"Program {name!r} must write less than {LONGEST >> 20} MB, and was ended")
    output, errors = heard.values()
    return bytes(output), bytes(errors)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a program that leads a process group, with everything that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def how_it_ended(code: int) -> str:
    """An exit code in words: ``ended with 1``, or ``was ended by SIGKILL``."""
    if code >= 0:
        return f"ended with {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
