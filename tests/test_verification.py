"""The page of figures is what its parts say."""

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("verification", ROOT / "scripts" / "verification.py")
verification = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = verification  # a dataclass looks its module up
spec.loader.exec_module(verification)


def test_the_page_is_written_from_its_parts():
    """Nobody wrote a figure by hand, and none was recorded without the page."""
    assert (ROOT / "docs/verification.md").read_text(encoding="utf-8") == verification.page()


def test_every_part_has_its_place():
    assert {file.stem for file in (ROOT / "docs/verification").glob("*.json")} <= set(verification.PARTS)


def test_a_part_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "FOLDER", tmp_path)
    monkeypatch.setattr(verification, "PAGE", tmp_path / "page.md")
    table = verification.Table(["what", "share"], [["a|b", "2.5 %"], ["c", "**3**"]], "Shares:")
    verification.record("ways", "scripts/agree", "They *agree*.", [table], ["pictures/x.svg"])
    page = (tmp_path / "page.md").read_text()
    assert "| what | share |\n| --- | --: |\n| a\\|b | 2.5 % |\n| c | **3** |\n" in page
    assert "They *agree*." in page and "![Nine ways agree](pictures/x.svg)" in page
    assert json.loads((tmp_path / "ways.json").read_text())["command"] == "scripts/agree"
