"""A quick run of a study, and what the section that it writes must hold."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import study
import study_page


def quickly(one, folder):
    """The results of a study's quick run."""
    assert study.main(one, ["--quick", "--out", str(folder)]) == 0
    section = (folder / f"{one.name}.md").read_text()
    assert section.startswith(f"## {study_page.STUDIES.index(one.name) + 1}. ") and len(section) > 1000
    for words in ("**Question.** ", "**Answer.** ", "**What this does not show.** "):
        assert section.count(words) == 1
    assert "nan" not in section.split()
    picture = folder / f"{one.name}.png"
    assert picture.is_file() == (one.draw is not None) and (one.draw is None or picture.stat().st_size > 1000)
    return json.loads((folder / f"{one.name}.json").read_text())["results"]
