"""What was proved and tried, part by part, and the page that says so: docs/verification.md.

Each campaign of ``scripts/`` hands its figures to :func:`record`, which keeps them as ``docs/verification/PART.json``
and writes the page anew from all of those; nobody writes a figure by hand. By itself it writes the page:

    python scripts/verification.py
"""

from __future__ import annotations

import datetime
import json
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwrnn.files import atomic_write

__all__ = ["PARTS", "Table", "record", "write_page"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "verification"
PAGE = ROOT / "docs" / "verification.md"

#: parts of the page in its order, and their headings
PARTS = {
    "formal": "Proofs",
    "equivalence": "Emitted Verilog against its design",
    "ways": "Nine ways agree",
    "drift": "Long runs",
    "mutation": "Planted faults",
    "coverage": "Coverage",
    "fuzzing": "Damaged input",
    "killing": "Killed, full, interrupted",
    "flips": "Flipped bits in hardware",
    "reproducible": "The same bytes elsewhere",
    "supply": "What is installed",
}

HEAD = """# Verification

What is proved, and what was tried until it broke. Every figure below was measured by the command that stands above it;
`scripts/verification.py` wrote this page from `docs/verification/*.json`, which those commands write.
"""


@dataclass(frozen=True)
class Table:
    """One table of the page: the first column to the left, numbers to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def markdown(self) -> str:
        """The table as text, its caption above."""
        numeric = [all(_number(row[k]) for row in self.rows) for k in range(len(self.columns))]
        lines = [_row(self.columns), _row("--:" if right else "---" for right in numeric)]
        lines += [_row(row) for row in self.rows]
        return (f"{self.caption}\n\n" if self.caption else "") + "\n".join(lines) + "\n"


def _row(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _number(cell: Any) -> bool:
    return re.fullmatch(r"-|\*{0,2}[-+]?[\d.,]+(e[-+]?\d+)?( ?[%a-zA-Z]{1,2})?\*{0,2}", str(cell)) is not None


def record(part: str, command: str, text: str, tables: Sequence[Table] = (), pictures: Sequence[str] = ()) -> None:
    """Keep one part's figures, and write the page anew.

    Args:
        part: a key of ``PARTS``.
        command: that measures the part again, as a person types it in the top folder.
        text: sentences in Markdown.
        tables: in their order.
        pictures: paths relative to ``docs``.
    """
    if part not in PARTS:
        raise ValueError(f"a part must be one of {', '.join(PARTS)}, not {part!r}")
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    said = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "python": platform.python_version(),
        "text": text,
        "tables": [asdict(table) for table in tables],
        "pictures": list(pictures),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    atomic_write(FOLDER / f"{part}.json", json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    write_page()


def write_page() -> None:
    """Write docs/verification.md from what was recorded."""
    atomic_write(PAGE, page())


def page() -> str:
    """The page's text."""
    pieces = [HEAD]
    for part, heading in PARTS.items():
        file = FOLDER / f"{part}.json"
        if not file.exists():
            continue
        said = json.loads(file.read_text(encoding="utf-8"))
        pieces.append(f"## {heading}\n")
        pieces.append(f"```\n{said['command']}\n```\n")
        pieces.append(said["text"].rstrip("\n") + "\n")
        pieces += [Table(**table).markdown() for table in said["tables"]]
        pieces += [f"![{heading}]({picture})\n" for picture in said["pictures"]]
        pieces.append(f"*Measured on {said['date']} at {said['commit']} with Python {said['python']}.*\n")
    return "\n".join(pieces)


if __name__ == "__main__":
    write_page()
    print(f"{PAGE.relative_to(ROOT)} written", file=sys.stderr)
