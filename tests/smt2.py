"""Bitwuzla's Python module as a program that reads SMT-LIB 2 on standard input, which is what smtbmc runs.

The module's parser takes declarations, definitions and assertions as they are. It does not carry out push and pop
between two calls, so these, check-sat and get-value go through the solver's own functions. A statement that is not
known is an error, never ignored.
"""

import re
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

HELP = "usage: smt2.py [--lang smt2] [--time-limit MILLISECONDS]\nReads SMT-LIB 2 on standard input."
_MARKS = re.compile(r'\|[^|]*\||"[^"]*"|;[^\n]*|[()]')
_TO_PARSER = ("set-option", "set-logic", "set-info", "declare-fun", "declare-const", "define-fun", "assert")


def statements(lines: TextIO) -> Iterator[str]:
    """Each statement as soon as its last line is there."""
    text, depth = "", 0
    for line in lines:
        if not depth and not line.strip():
            continue
        text += line
        for mark in _MARKS.findall(line):
            depth += (mark == "(") - (mark == ")")
        if depth == 0:
            if re.sub(r";[^\n]*", "", text).strip():
                yield text.strip()
            text = ""


def terms(text: str) -> list[str]:
    """The terms of a list ``(a (f b) |c d|)``, each as it is written."""
    inner = text.strip()[1:-1]
    found, depth, start = [], 0, 0
    for mark in re.finditer(r"\|[^|]*\||[()]|[^\s()|]+", inner):
        if depth == 0:
            start = mark.start()
        depth += (mark[0] == "(") - (mark[0] == ")")
        if depth == 0:
            found.append(inner[start : mark.end()])
    return found


class Solver:
    """One session.

    Args:
        seconds: for each check; None for no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        import bitwuzla

        self.module, self.seconds = bitwuzla, seconds
        options = bitwuzla.Options()
        options.set(bitwuzla.Option.PRODUCE_MODELS, True)
        self.parser = bitwuzla.Parser(bitwuzla.TermManager(), options, base=2)
        self.waiting: list[str] = []

    def session(self) -> Any:
        """The solver with everything asserted that was read so far."""
        if self.waiting:
            self.parser.parse("\n".join(self.waiting), True, False)
            self.waiting = []
        return self.parser.bitwuzla()

    def answer(self, statement: str) -> str | None:
        """What a statement is answered with; None for nothing."""
        word, _, rest = statement[1:-1].strip().partition(" ")
        if word in _TO_PARSER:
            self.waiting.append(statement)
            return None
        solver = self.session()
        if word in ("push", "pop"):
            (solver.push if word == "push" else solver.pop)(int(rest or 1))
            return None
        if word == "check-sat":
            if self.seconds is not None:
                end = time.monotonic() + self.seconds
                solver.configure_terminator(lambda: time.monotonic() > end)
            return str(solver.check_sat())
        if word == "get-value":
            pairs = []
            for term in terms(rest):
                parsed = self.parser.parse_term(term)
                pairs.append(f"({term} {solver.get_value(parsed).str(2)})")
            return f"({' '.join(pairs)})"
        raise ValueError(f"Statement must be one that smtbmc writes, not {word!r}")


def main(arguments: list[str]) -> int:
    """Answer every statement of standard input."""
    if "--help" in arguments:
        print(HELP)
        return 0
    seconds = int(arguments[arguments.index("--time-limit") + 1]) / 1000 if "--time-limit" in arguments else None
    solver = Solver(seconds)
    for statement in statements(sys.stdin):
        if statement == "(exit)":
            return 0
        try:
            answer = solver.answer(statement)
        except Exception as error:
            text = " ".join(str(error).split()).replace('"', "'")
            print(f'(error "{text}")', flush=True)
            return 1
        if answer is not None:
            print(answer, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
