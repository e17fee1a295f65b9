"""What a person reads: tables, numbers with their units, and progress on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

__all__ = ["Progress", "epochs_bar", "metric_text", "percent", "print_json", "quantity", "say", "table"]


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] | None = None) -> str:
    """Rows as aligned text: the first column to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in rows]
    if header is not None:
        lines.insert(0, list(header))
    widths = [max(len(line[k]) for line in lines if k < len(line)) for k in range(max(map(len, lines)))]
    text = []
    for n, line in enumerate(lines):
        pairs = zip(line, widths, strict=False)
        cells = [cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(pairs)]
        text.append("  ".join(cells).rstrip())
        if header is not None and n == 0:
            text.append("  ".join("-" * w for w in widths))
    return "\n".join(text)


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in percent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def quantity(value: float, unit: str = "") -> str:
    """A number of three digits with an SI prefix: ``1.41 M``."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")):
        if abs(value) >= factor or factor == 1e-9:
            return f"{value / factor:.3g} {prefix}{unit}".rstrip()
    return f"0 {unit}".rstrip()


def metric_text(metric: str, value: float | None) -> str:
    """An accuracy in percent, an error as a number."""
    if value is None:
        return "-"
    return percent(value) if metric == "accuracy" else f"{value:.4g}"


def print_json(value: Any) -> None:
    """One JSON object on standard output, and nothing else."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


class Progress:
    """Progress on standard error: a bar on a terminal, a line now and then elsewhere.

    Call it with what is done, the total and a few words; it prints at most ten times a second on a terminal, and every
    ``every`` seconds elsewhere.
    """

    def __init__(self, what: str, stream: TextIO | None = None, every: float = 5.0) -> None:
        self.what, self.stream, self.every = what, stream or sys.stderr, every
        self.bar = self.stream.isatty()
        self.last = self.start = time.monotonic()
        self.ended = False

    def __call__(self, done: float, total: float, words: str = "") -> None:
        now = time.monotonic()
        finished = done >= total
        if self.ended or (not finished and now - self.last < (0.1 if self.bar else self.every)):
            return
        self.ended = finished
        self.last = now
        if self.bar:
            filled = int(24 * done / max(total, 1))
            line = f"{self.what} [{'#' * filled}{'.' * (24 - filled)}] {done:g}/{total:g} {words}"
            self.stream.write(f"\r{line[:110]:<110}")
            if finished:
                self.stream.write("\n")
        else:
            self.stream.write(f"{self.what}: {done:g}/{total:g} {words}".rstrip() + f" ({now - self.start:.1f} s)\n")
        self.stream.flush()


def epochs_bar(what: str) -> Any:
    """A progress of training as a bar of epochs."""
    bar = Progress(what)

    def show(now: Any) -> None:
        held = "" if now.validation is None else f", validation {now.validation:.4f}"
        bar(now.epoch, now.epochs, f"epochs, loss {now.loss:.4f}{held}")

    return show


def say(text: str) -> None:
    """A line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)
