"""The frame of the studies: results kept, pages written, hardware compared; and the readers of outside data."""

import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from study_runs import quickly  # noqa: E402

import public_data  # noqa: E402
import study  # noqa: E402
import study_page  # noqa: E402
from hwrnn.comparing import measured  # noqa: E402
from hwrnn.compiler import CPP, compiler_available  # noqa: E402
from hwrnn.data import load_dataset  # noqa: E402
from hwrnn.errors import UsageError  # noqa: E402
from hwrnn.model import build_model  # noqa: E402
from hwrnn.quantization import quantize  # noqa: E402
from hwrnn.rtl import Network  # noqa: E402
from hwrnn.sim import verification  # noqa: E402


def counted(place, word, seed):
    """Work that leaves a trace, so that a test sees whether it was done again."""
    with (place.out / "trace").open("a") as file:
        file.write(f"{word}{seed} ")
    return {"value": seed / 10, "hardware": None}


def measure(run):
    tasks = [{"word": "a", "seed": seed} for seed in run.seeds]
    return {"rows": run.each(counted, tasks)}


def write(results):
    values = [row["value"] for row in results["rows"]]
    table = study_page.markdown(["what", "percent"], [["all", study_page.spread(values)]])
    return study_page.Section("A title", "Is it\nso?", f"It is {study_page.spread(values)}.", [table], "The rest.")


SMALL = study.Study("few_bits", measure, write)


def test_a_study_is_measured_once_and_goes_on_where_it_stopped(tmp_path, capsys):
    assert study.main(SMALL, ["--seeds", "2", "--out", str(tmp_path)]) == 0
    assert "| all | 5.0 ± 7.1 |" in capsys.readouterr().out
    assert study.main(SMALL, ["--seeds", "3", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "trace").read_text() == "a0 a1 a2 "
    kept = json.loads((tmp_path / "few_bits.json").read_text())
    assert [row["value"] for row in kept["results"]["rows"]] == [0.0, 0.1, 0.2]
    assert "(`a ± b`" not in (tmp_path / "few_bits.md").read_text()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--seeds", "0"], "Seeds must be at least 1, not 0"),
        (["--jobs", "-1"], "Jobs must be at least 1, not -1"),
        (["--quick", "--write"], "Page must be written from a whole study of two seeds or more: leave out --write"),
        (["--seeds", "1", "--write"], "Page must be written from a whole study of two seeds or more"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tmp_path, capsys, arguments, words):
    assert study.main(SMALL, [*arguments, "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_missing_data_stop_a_study_before_its_work(tmp_path, capsys):
    needs = study.Study("few_bits", measure, write, data=("japanese-vowels", "spoken-digits"))
    assert study.main(needs, ["--out", str(tmp_path / "out"), "--data-folder", str(tmp_path)]) == 2
    assert "File 'fsdd_mfcc13_q8.npz' must be in a data folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert study.main(needs, ["--quick", "--out", str(tmp_path / "out")]) == 0


def test_a_difference_of_the_hardware_stops_the_study(tmp_path, capsys):
    def differs(run):
        raise study.HardwareDiffers("Hardware differs from golden: h of unit 3")

    assert study.main(study.Study("few_bits", differs, write), ["--out", str(tmp_path)]) == 1
    assert "Hardware differs from golden: h of unit 3" in capsys.readouterr().err
    assert not (tmp_path / "few_bits.json").exists()


@pytest.fixture(scope="module")
def small():
    data = load_dataset("japanese-vowels")
    return quantize(build_model(data.inputs, data.outputs, cell="rnn", hidden=2), data, 4), data


def test_fixed_point_is_goldens_and_the_hardwares(small):
    model, data = small
    plain = study.fixed_point(model, data, check=False)
    assert plain == {"value": measured(model, data)[1], "hardware": None}
    if not compiler_available(CPP):
        pytest.skip("CXXRTL needs a C++ compiler")
    found = study.fixed_point(model, data, check=True, count=3, lanes=1)
    assert found["value"] == plain["value"]
    assert found["hardware"]["sequences"] == 3 and found["hardware"]["values"] > found["hardware"]["steps"] > 3


def test_other_hardware_is_found(small, monkeypatch):
    if not compiler_available(CPP):
        pytest.skip("CXXRTL needs a C++ compiler")
    model, data = small
    layer = model.layers[0]
    flipped = replace(layer, weights={key: -w for key, w in layer.weights.items()})
    other = replace(model, layers=(flipped,))
    monkeypatch.setattr(verification, "Network", lambda model, *given, **options: Network(other, *given, **options))
    with pytest.raises(study.HardwareDiffers, match="Hardware differs from golden: "):
        study.fixed_point(model, data, check=True, count=3, lanes=1)


def test_processes_give_the_same_results(tmp_path):
    assert len({process for process, _ in _squares(tmp_path / "two", jobs=2)} - {os.getpid()}) > 0
    assert [result for _, result in _squares(tmp_path / "one", jobs=1)] == [0, 1, 4, 9]
    assert [result for _, result in _squares(tmp_path / "two", jobs=1)] == [0, 1, 4, 9]  # what the processes kept


def _squares(folder, jobs):
    run = study.Run(study.Place(folder, "few_bits"), (0,), jobs=jobs)
    return run.each(squared, [{"number": n} for n in range(4)])


def squared(place, number):
    return [os.getpid(), number**2]


#: Studies whose tests of their own run them.
ELSEWHERE = {
    "relu_or_tanh": "test_studies_relu.py", "exploding_relu": "test_studies_relu.py",
    "without_gradients": "test_studies_evolution.py", "anomaly": "test_studies_anomaly.py",
}  # fmt: skip


def test_every_study_is_run():
    for name, file in ELSEWHERE.items():
        assert f"quickly({name}.STUDY" in (ROOT / "tests" / file).read_text()


@pytest.mark.slow
@pytest.mark.skipif(not compiler_available(CPP), reason="CXXRTL needs a C++ compiler")
@pytest.mark.parametrize("name", [name for name in study_page.STUDIES if name not in ELSEWHERE])
def test_a_study_runs_quickly(name, tmp_path, capsys):
    one = importlib.import_module(name).STUDY
    assert one.name == name
    quickly(one, tmp_path)
    assert (tmp_path / f"{name}.md").read_text() in capsys.readouterr().out


def test_sections_replace_each_other_and_the_table_of_answers_follows(tmp_path):
    page = tmp_path / "studies.md"
    text = write({"rows": [{"value": 0.5}, {"value": 0.7}]}).text("few_bits", 5, False, False)
    study_page.put_section(page, "few_bits", text)
    study_page.put_section(page, "bars", text.replace("A title", "Other").replace("6.", "7."))
    study_page.put_section(page, "few_bits", text.replace("It is", "It was"))
    whole = page.read_text()
    assert whole.count("<!-- study few_bits") == whole.count("<!-- end of study few_bits") == 1
    assert "| [A title](#6-a-title) | Is it so? | It was 60.0 ± 14.1. |" in whole
    assert "| [Other](#7-other) | Is it so? | It is 60.0 ± 14.1. |" in whole
    assert study_page.page_text(study_page.read_sections(page)) == whole
    page.write_text(whole.replace("<!-- end of study bars -->", ""))
    with pytest.raises(UsageError, match="Page must hold both markers of 'bars' or none"):
        study_page.read_sections(page)


def test_the_page_is_what_its_sections_make():
    page = ROOT / "docs" / "studies.md"
    if not page.is_file():
        pytest.skip("the page is not written yet")
    sections = study_page.read_sections(page)
    assert study_page.page_text(sections) == page.read_text()
    for name, text in sections.items():
        assert (ROOT / "examples" / f"{name}.py").is_file()
        assert f"`python examples/{name}.py --write`" in text
        if f"pictures/{name}.png" in text:
            assert (ROOT / "docs" / "pictures" / f"{name}.png").stat().st_size < 100_000


@pytest.mark.parametrize("name", public_data.PUBLIC)
def test_outside_data_have_their_official_parts(name):
    try:
        data = public_data.load(name)
    except public_data.MissingData as error:
        pytest.skip(str(error))
    sizes = {
        "spoken-digits": (2700, 300, 64, 13),
        "hotel-weekly": (95, 15, 5, 1),
        "seattle-weather": (1082, 365, 14, 4),
        "italy-power-demand": (67, 1029, 24, 1),
        "gunpoint": (50, 150, 30, 5),
        "arterial-pressure": (1137, 1860, 16, 4),
    }
    assert (len(data.train), len(data.test), *data.train.x.shape[1:]) == sizes[name]


def test_seattle_asks_for_the_next_day():
    try:
        data, (days, years) = public_data.load("seattle-weather"), public_data.seattle_weather()
    except public_data.MissingData as error:
        pytest.skip(str(error))
    first = int(np.argmax(years == 2015))
    assert np.array_equal(data.test.x[0], days[first - 14 : first].astype(np.float32))
    assert data.test.y[0, 0] == np.float32(days[first, 1])


def test_missing_data_are_told_with_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(public_data.MissingData, match="name its folder with --data-folder or in HWRNN_DATA"):
        public_data.load("spoken-digits", tmp_path)
    with pytest.raises(UsageError, match="Data folder must be an existing folder, not"):
        public_data.load("spoken-digits", tmp_path / "none")
    monkeypatch.setenv("HWRNN_DATA", str(tmp_path))
    with pytest.raises(public_data.MissingData):
        public_data.hotel_cancellations()
    monkeypatch.setattr(public_data.importlib.metadata, "distribution", _absent)
    with pytest.raises(public_data.MissingData, match=r"pip install --no-deps aeon==1\.6\.0"):
        public_data.load("gunpoint")


def _absent(name):
    raise public_data.importlib.metadata.PackageNotFoundError(name)
