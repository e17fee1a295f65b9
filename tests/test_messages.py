"""The record of errors' texts sees what is missing."""

import json

import messages
import pytest

from hwrnn.fixed import Format


def recorded(tmp_path, *lines):
    told = [{"site": site, "text": text, "test": test} for site, text, test in lines]
    (tmp_path / "1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    return messages.missing(tmp_path)


def some_statement():
    path = "hwrnn/fixed.py"
    return f"{path}:{min(first for first, name in messages.package()[path].values() if name == 'ValueError')}"


def test_an_error_that_no_test_meets_is_missing(tmp_path):
    absent = recorded(tmp_path)
    assert absent[some_statement()] == "ValueError: no test meets it"
    assert len(absent) > messages.statements() - 60  # the house's own assertions are left out


def test_a_text_has_to_be_in_the_test_that_meets_it(tmp_path):
    where, here = some_statement(), "tests/test_messages.py"
    assert "its text is in no test" in recorded(tmp_path, (where, "Tulips must be red", "tests/test_files.py"))[where]
    assert "its text is in no test" in recorded(tmp_path, (where, "Tulipsmustbered", here))[where]
    assert where not in recorded(tmp_path, (where, "Tulips must be red, not 'blue'", here))


def test_patterns_hold_pieces_of_texts():
    assert list(messages.pieces("^must be .*, not 3$")) == ["must be", ", not 3"]


def test_who_raised_is_found(tmp_path):
    recorder = messages.Recorder(tmp_path)
    with pytest.raises(ValueError, match="Format width") as caught:
        Format(0, 0)
    recorder.caught(caught.value)
    line = json.loads(next(tmp_path.glob("*.jsonl")).read_text())
    assert line["test"] == "tests/test_messages.py" and line["text"] == str(caught.value)
    assert line["site"].startswith("hwrnn/fixed.py:")


def test_what_an_error_was_made_from_is_found_too(tmp_path):
    recorder = messages.Recorder(tmp_path)
    with pytest.raises(RuntimeError, match="Tulips must be red") as caught:
        try:
            Format(0, 0)
        except ValueError as error:
            raise RuntimeError(f"Tulips must be red ({error})") from error
    recorder.caught(caught.value)
    (line,) = map(json.loads, next(tmp_path.glob("*.jsonl")).read_text().splitlines())
    assert line["site"].startswith("hwrnn/fixed.py:") and line["text"].startswith("Format width")
