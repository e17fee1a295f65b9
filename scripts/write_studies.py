"""Run the studies, all or those named, and write docs/studies.md and its pictures.

    python scripts/write_studies.py [few_bits bars ...] [--seeds 5] [--jobs 2] [--all] [--out DIR]

Options go to every study; ``python examples/few_bits.py --help`` tells them. What was measured is kept, so a stopped
run goes on.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def main(arguments: list[str]) -> int:
    """Run the studies: the largest of their exit codes; one that fails does not keep the others from running."""
    sys.path.insert(0, str(EXAMPLES))
    study_page, study = importlib.import_module("study_page"), importlib.import_module("study")
    there = [name for name in study_page.STUDIES if (EXAMPLES / f"{name}.py").is_file()]
    named = [argument for argument in arguments if argument in study_page.STUDIES]
    rest = [argument for argument in arguments if argument not in named]
    codes = []
    for name in named or there:
        given = rest if "--quick" in rest else [*rest, "--write"]
        codes.append(study.main(importlib.import_module(name).STUDY, given))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
