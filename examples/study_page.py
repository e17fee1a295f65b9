"""The page of the studies, ``docs/studies.md``: sections between markers, and the table of answers at its top."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.files import atomic_write

__all__ = ["STUDIES", "Section", "checked", "markdown", "paragraph", "put_section", "ranged", "spread"]

STUDIES = (
    "relu_or_tanh", "exploding_relu", "same_cost", "without_gradients", "anomaly", "few_bits", "bars",
)  # fmt: skip
"""The scripts of the studies, in the order of the page."""

_OPENING = """# Studies

What hwrnn's users ask about cheap nonlinearities and few bits, answered by measurement. Every section, table, picture
and number of this page is written by the script that its section names; `python scripts/write_studies.py` runs them
all, and `--out` keeps what was measured, so that a stopped run goes on.

In every table a figure of fixed point is that of the golden model, the integer reference. The scripts simulate the
generated hardware cycle by cycle (CXXRTL) on whole test parts, compare every stored value of every unit and step with
golden's, and stop at a difference; a column or a sentence says which networks were simulated. `a ± b` is the mean and
the sample deviation over seeds; a seed decides the initial weights, the order of the data and the noise. No network
was chosen or stopped by its test part.
"""


@dataclass(frozen=True)
class Section:
    """A study's section.

    Attributes:
        title: a heading.
        question: one or two sentences.
        answer: one to three sentences, with the figures.
        body: paragraphs and tables in Markdown.
        limits: what can't be concluded.
        caption: of the picture.
        simulated: which networks were simulated, where it is not the network of seed 0 of every row.
    """

    title: str
    question: str
    answer: str
    body: Sequence[str]
    limits: str
    caption: str = ""
    simulated: str = "of every row in fixed point the network of seed 0"

    def text(self, name: str, seeds: int, check_all: bool, picture: bool) -> str:
        """The section in Markdown, without its markers."""
        simulated = "every network in fixed point" if check_all else self.simulated
        run = "five seeds" if seeds == 5 else f"{seeds} seed{'s' * (seeds != 1)}"
        asked, answered = (" ".join(told.split()) for told in (self.question, self.answer))  # one line: read back
        parts = [
            f"## {STUDIES.index(name) + 1}. {self.title}",
            f"**Question.** {asked}",
            f"**Answer.** {answered}",
            *self.body,
        ]
        if picture:
            parts.append(f"![{self.caption or self.title}](pictures/{name}.png)")
        parts.append(f"**What this does not show.** {self.limits}")
        parts.append(f"*`python examples/{name}.py --write`; {run}. Simulated in full: {simulated}.*")
        return "\n\n".join(part.strip() for part in parts) + "\n"


def put_section(page: Path, name: str, text: str) -> None:
    """Replace a study's section on the page, which is made where it is missing, and write its table of answers anew."""
    if name not in STUDIES:
        raise UsageError(f"Study must be one of {', '.join(STUDIES)}, not {name!r}")
    sections = read_sections(page) | {name: text}
    atomic_write(page, page_text(sections))


def page_text(sections: dict[str, str]) -> str:
    """The whole page of these sections."""
    rows = []
    for number, name in enumerate(STUDIES, 1):
        if name in sections:
            title, question, answer = _told(sections[name])
            rows.append([f"[{title}](#{_anchor(f'{number}. {title}')})", question, answer])
    parts = [_OPENING.strip(), markdown(["study", "question", "answer"], rows)]
    for name in STUDIES:
        if name in sections:
            parts.append(f"{_start(name)}\n\n{sections[name].strip()}\n\n{_end(name)}")
    return "\n\n".join(parts) + "\n"


def read_sections(page: Path) -> dict[str, str]:
    """The sections that a page holds, by study; none where there is no page.

    Raises:
        UsageError: a marker without its other half.
    """
    if not page.is_file():
        return {}
    text, found = page.read_text(), {}
    for name in STUDIES:
        _, start, rest = text.partition(_start(name))
        section, end, _ = rest.partition(_end(name))
        if bool(start) != bool(end):
            raise UsageError(f"Page must hold both markers of {name!r} or none, not {str(page)!r}")
        if start:
            found[name] = section.strip() + "\n"
    return found


def _start(name: str) -> str:
    return f"<!-- study {name}: written by examples/{name}.py -->"


def _end(name: str) -> str:
    return f"<!-- end of study {name} -->"


def _told(section: str) -> tuple[str, str, str]:
    """Title, question and answer of a section."""
    found = [
        re.search(pattern, section, re.MULTILINE)
        for pattern in (r"^## \d+\. (.+)$", r"^\*\*Question\.\*\* (.+)$", r"^\*\*Answer\.\*\* (.+)$")
    ]
    title, question, answer = ("" if one is None else one.group(1) for one in found)
    return title, question, answer


def _anchor(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table, the first column to the left and the others to the right."""
    lines: list[Sequence[Any]] = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def paragraph(text: str) -> str:
    """Lines of prose, indented as the script is, in one line."""
    return " ".join(text.split())


def spread(values: Sequence[float], factor: float = 100.0, digits: int = 1) -> str:
    """Mean ± sample deviation over seeds, times a factor (100: percent); the value alone where there is one."""
    scaled = factor * np.asarray(values, np.float64)
    if len(scaled) < 2:
        return f"{scaled[0]:.{digits}f}"
    return f"{scaled.mean():.{digits}f} ± {scaled.std(ddof=1):.{digits}f}"


def ranged(values: Sequence[float], factor: float = 100.0, digits: int = 1) -> str:
    """Least to largest value over seeds."""
    scaled = factor * np.asarray(values, np.float64)
    return f"{scaled.min():.{digits}f} to {scaled.max():.{digits}f}"


def checked(results: Sequence[dict[str, Any]]) -> str:
    """How many of a row's networks were simulated: of dictionaries as ``study.fixed_point`` returns them."""
    count = sum(one["hardware"] is not None for one in results)
    return f"{count} of {len(results)}"
