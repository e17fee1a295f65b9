"""The command line: a thin coat over the library, whose verbs are the modules of ``hwrnn.commands``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from hwrnn import __version__
from hwrnn.commands import VERBS
from hwrnn.errors import UsageError, plain

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hwrnn", description="Recurrent networks from data to checked Verilog for FPGAs.")
    parser.add_argument("--version", action="version", version=f"hwrnn {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    for name in VERBS:
        module = _module(name)
        verb = verbs.add_parser(
            name, help=module.WORDS, description=module.WORDS, epilog=f"example: {module.EXAMPLE}"
        )  # fmt: skip
        verb.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")
        module.options(verb)
    return parser


def _module(verb: str) -> Any:
    return importlib.import_module(f"hwrnn.commands.{verb.replace('-', '_')}")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; the exit code: 0, 1 for a failed comparison, 2 for a person's mistake, 128 + a signal's."""
    # Two threads of linear algebra on matrices this small are several times slower than one.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        with _ended_by_signals():
            given = _parser().parse_args(argv)
            if given.verb is None:
                _parser().print_help()
                return 2
            code = _run(given)
            sys.stdout.flush()
            return code
    except UsageError as error:
        return _said(error, 2)
    except _Signalled as error:
        return _said(f"ended by {error.args[0].name}", 128 + error.args[0])
    except KeyboardInterrupt as error:
        return _said("interrupted" + "".join(f": {words}" for words in error.args), 130)
    except BrokenPipeError:
        _drop_output()
        return 1
    except OSError as error:
        _drop_output()
        return _said(_system_words(error), 2)
    except MemoryError:
        return _said("Memory must be enough for this, and is not: use a smaller model, less data or fewer lanes", 2)


def _said(words: object, code: int) -> int:
    print(f"hwrnn: {words}", file=sys.stderr)
    return code


def _drop_output() -> None:
    """Keep Python from complaining at exit of output that nobody can take: its reader went away, or a disk is full."""
    # Only where it is the process' own, which a test's or a notebook's is not.
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _system_words(error: OSError) -> str:
    """What the system refuses that no library function has a sentence of its own for."""
    import errno

    told = plain(error)
    # Python looks for a folder for temporary files by writing to those that it knows.
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No usable temporary directory" in told:
        return f"Disk must have room left, also for temporary files (TMPDIR), but has not: {told}"
    return f"Files must be what the system lets hwrnn read and write, and one is not: {told}"


class _Signalled(BaseException):
    """The process was asked to end; carries the signal."""


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let what asks a process to end raise an exception, so that temporary files and child processes go with it."""
    import _thread
    import signal
    import threading
    import time

    def ended(number: int, _frame: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # once is enough: the cleaning is not to be disturbed
        raise _Signalled(signal.Signals(number))

    def again(number: int) -> None:
        """Wait until ``lost`` is over, for what is raised in it is dropped too."""
        while True:
            time.sleep(0.02)
            frame = sys._current_frames().get(threading.main_thread().ident or 0)
            while frame is not None and frame.f_code is not lost.__code__:
                frame = frame.f_back
            if frame is None:
                break
        os.kill(os.getpid(), number)

    def lost(found: Any) -> None:
        """An exception in a finalizer, which Python drops: the signal comes again a moment later."""
        if not isinstance(found.exc_value, _Signalled | KeyboardInterrupt):
            dropped(found)
            return
        number = signal.SIGINT
        if isinstance(found.exc_value, _Signalled):
            number = found.exc_value.args[0]
            signal.signal(number, ended)  # whoever took it, perhaps around this one, ignores it by now
        # Not threading's, which waits for the thread: here nothing may be raised any more.
        _thread.start_new_thread(again, (number,))

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    dropped = sys.unraisablehook
    main_thread = threading.current_thread() is threading.main_thread()
    taken = [number for number in known if main_thread and signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, ended)
        if main_thread:
            sys.unraisablehook = lost
        yield
    finally:
        if main_thread:
            sys.unraisablehook = dropped
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _run(given: Any) -> int:
    import warnings

    with warnings.catch_warnings():
        # A warning is a line for the person, without the place in our code that raised it.
        warnings.showwarning = lambda message, *_: print(f"hwrnn: {message}", file=sys.stderr)
        return int(_module(given.verb).run(given))


if __name__ == "__main__":
    sys.exit(main())
