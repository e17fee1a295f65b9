"""The command line: a thin coat over the library, whose verbs are the modules of ``hwrnn.commands``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any, NoReturn

from hwrnn import __version__
from hwrnn.commands import VERBS
from hwrnn.errors import UsageError

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
    """Run a command line; the exit code: 0, 1 for a failed comparison, 2 for a person's mistake."""
    # Two threads of linear algebra on matrices this small are several times slower than one.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        given = _parser().parse_args(argv)
        if given.verb is None:
            _parser().print_help()
            return 2
        return _run(given)
    except UsageError as error:
        print(f"hwrnn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hwrnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(given: Any) -> int:
    import warnings

    with warnings.catch_warnings():
        # A warning is a line for the person, without the place in our code that raised it.
        warnings.showwarning = lambda message, *_: print(f"hwrnn: {message}", file=sys.stderr)
        return int(_module(given.verb).run(given))


if __name__ == "__main__":
    sys.exit(main())
