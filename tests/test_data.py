"""Data sets: what is read, what is refused and in which words."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwrnn import synthetic
from hwrnn.data import DATASETS, Dataset, Split, forecast_windows, load_dataset
from hwrnn.errors import UsageError

X = np.arange(12, dtype=np.float32).reshape(2, 3, 2) + 1


def told(call) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "y, task, per_step, stored",
    [
        (np.array([0, 2], dtype=np.uint8), "classification", False, "(2,) int64"),
        (np.array([True, False]), "classification", False, "(2,) int64"),
        (np.eye(2, 3, dtype=np.int32), "classification", True, "(2, 3) int64"),
        (np.array([0.5, 1]), "regression", False, "(2, 1) float32"),
        (np.zeros((2, 4)), "regression", False, "(2, 4) float32"),
        (np.zeros((2, 3, 4), dtype=np.float16), "regression", True, "(2, 3, 4) float32"),
    ],
)
def test_targets_decide_the_task(y, task, per_step, stored):
    split = Split(X.astype(np.float64), y)
    assert (split.task, split.per_step, f"{split.y.shape} {split.y.dtype}") == (task, per_step, stored)
    assert (split.x.dtype, split.lengths.dtype, split.lengths.tolist()) == (np.float32, np.int64, [3, 3])
    data = Dataset.of("d", split)
    assert (data.inputs, data.classes is None) == (2, task == "regression")


def test_padding_becomes_zero_whatever_it_was():
    x, y = X.copy(), np.ones((2, 3, 1), dtype=np.float32)
    x[1, 2], y[1, 2] = np.nan, np.inf
    split = Split(x, y, np.array([3, 2], dtype=np.uint8))
    assert split.x[1, 2].tolist() == [0, 0]
    assert split.y[:, :, 0].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert np.isnan(x[1, 2]).all(), "the caller's array must stay as it was"
    assert Split(X, np.array([[0, 1, 2], [0, 1, -1]]), np.array([3, 2])).y[1, 2] == 0


LABELS = np.array([0, 1])


@pytest.mark.parametrize(
    "x, y, lengths, expected",
    [
        (X[0], LABELS, None, "Inputs must have a shape (sequences, steps, features) without a 0, not (3, 2)"),
        (
            X[:0],
            LABELS[:0],
            None,
            "Inputs must have a shape (sequences, steps, features) without a 0, not (0, 3, 2)",
        ),
        (
            X[:, :0],
            LABELS,
            None,
            "Inputs must have a shape (sequences, steps, features) without a 0, not (2, 0, 2)",
        ),
        (X.astype(complex), LABELS, None, "Inputs must be real numbers, not of type 'complex128'"),
        (X.astype(object), LABELS, None, "Inputs must be real numbers, not of type 'object'"),
        (X * np.nan, LABELS, None, "Inputs must be finite in single precision, not nan"),
        (X.astype(float) * 1e300, LABELS, None, "Inputs must be finite in single precision, not 1e+300"),
        (X, LABELS[:1], None, "Labels must have the shape (2,) or (2, 3), not (1,)"),
        (X, np.zeros((2, 4), int), None, "Labels must have the shape (2,) or (2, 3), not (2, 4)"),
        (
            X,
            np.array([0, -1]),
            None,
            "Labels must be class numbers in 0..65535, not -1; targets to regress must be floats",
        ),
        (
            X,
            np.array([0, 2**64 - 1], np.uint64),
            None,
            "Labels must be class numbers in 0..65535, not 18446744073709551615; targets to regress must be"
            " floats",
        ),
        (
            X,
            np.array(["a", "b"]),
            None,
            "Targets must be integers (labels) or floats (values), not of type '<U1'",
        ),
        (
            X,
            np.zeros((2, 4, 1)),
            None,
            "Targets must have the shape (2,), (2, outputs) or (2, 3, outputs), not (2, 4, 1)",
        ),
        (
            X,
            np.zeros((2, 0)),
            None,
            "Targets must have the shape (2,), (2, outputs) or (2, 3, outputs), not (2, 0)",
        ),
        (X, np.zeros(()), None, "Targets must have the shape (2,), (2, outputs) or (2, 3, outputs), not ()"),
        (X, np.array([1, np.inf]), None, "Targets must be finite in single precision, not inf"),
        (X, LABELS, np.array([3]), "Lengths must be 2 integers, one per sequence, not int64 of shape (1,)"),
        (
            X,
            LABELS,
            np.array([3.0, 2.0]),
            "Lengths must be 2 integers, one per sequence, not float64 of shape (2,)",
        ),
        (X, LABELS, np.array([3, 0]), "Lengths must be in 1..3, not 0"),
        (X, LABELS, np.array([4, 1]), "Lengths must be in 1..3, not 4"),
    ],
)
def test_unsound_splits(x, y, lengths, expected):
    assert told(lambda: Split(x, y, lengths)) == expected


def test_parts_must_agree():
    train = Split(X, LABELS)
    assert told(lambda: Dataset.of("d", train, Split(X, np.zeros(2)))) == (
        "Test part of 'd' must have task 'classification', not 'regression'"
    )
    assert told(lambda: Dataset.of("d", train, Split(X[:, :, :1], LABELS))) == (
        "Test part of 'd' must have features 2, not 1"
    )
    assert told(lambda: Dataset.of("d", train, Split(X, np.zeros((2, 3), int)))) == (
        "Test part of 'd' must have targets per step False, not True"
    )
    assert told(lambda: Dataset.of("d", Split(X, np.zeros(2)), Split(X, np.zeros((2, 2))))) == (
        "Test part of 'd' must have target width 1, not 2"
    )
    assert told(lambda: Dataset("d", "regression", False, train)) == (
        "Training part of 'd' must have task 'regression', not 'classification'"
    )


def test_one_class_is_no_task():
    assert told(lambda: Dataset.of("d", Split(X, LABELS * 0))) == (
        "Labels of 'd' must name at least 2 classes, not only 0"
    )


def test_classes_are_counted_over_both_parts():
    data = Dataset.of("d", Split(X, LABELS), Split(X, np.array([3, 0])))
    assert (data.classes, data.outputs) == (4, 4)
    assert data.evaluation is data.test
    assert Dataset.of("d", data.train).evaluation is data.train


# Files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_npz_with_a_test_part(folder):
    np.savez("speech.npz", x=X, y=LABELS, lengths=[3, 1], x_test=X[:1, :2], y_test=[1], lengths_test=[2])
    data = load_dataset(folder / "speech.npz")
    assert (data.name, data.task, data.outputs) == ("speech", "classification", 2)
    assert data.train.lengths.tolist() == [3, 1]
    assert data.evaluation.x.shape == (1, 2, 2)


def test_npz_of_training_data_only(folder):
    np.savez_compressed("d.npz", x=X, y=[0.5, 1.5])
    assert load_dataset("d.npz").test is None


def save(**arrays):
    np.savez("d.npz", **arrays)


@pytest.mark.parametrize(
    "arrays, expected",
    [
        ({}, "Data file must hold an array 'x', not only nothing"),
        ({"x": X}, "Data file must hold an array 'y', not only x"),
        (
            {"x": X, "y": LABELS, "z": X},
            "Arrays of a data file must be named x, y, lengths, x_test, y_test, lengths_test, not 'z'",
        ),
        ({"x": X, "y": LABELS, "x_test": X}, "Data file must hold an array 'y_test', not only x, y, x_test"),
        (
            {"x": X, "y": LABELS, "lengths_test": [1, 1]},
            "Data file must hold an array 'x_test', not only x, y, lengths_test",
        ),
        (
            {"x": X, "y": LABELS, "lengths": [1, 1], "x_test": X, "y_test": LABELS},
            "Data file must hold an array 'lengths_test', not only x, y, lengths, x_test, y_test",
        ),
        (
            {"x": X, "y": LABELS, "x_test": X, "y_test": LABELS, "lengths_test": [1, 1]},
            "Data file must hold an array 'lengths', not only x, y, x_test, y_test, lengths_test",
        ),
    ],
)
def test_npz_keys(folder, arrays, expected):
    save(**arrays)
    assert told(lambda: load_dataset("d.npz")) == expected


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=X, y=LABELS)
    return buffer.getvalue()


def encrypted() -> bytes:
    data = bytearray(npz_bytes())
    data[6] |= 1  # the flag "encrypted" of the first member's header
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x80\x04N.",
        npz_bytes()[:-30],
        npz_bytes()[:100],
        encrypted(),
    ],
    ids=["empty", "text", "pickle", "no directory", "truncated", "encrypted"],
)
def test_npz_that_is_none(folder, content):
    (folder / "d.npz").write_bytes(content)
    text = told(lambda: load_dataset("d.npz"))
    assert text.startswith("Data file must be a whole .npz archive of plain numbers, not 'd.npz' (")


def test_npz_with_pickles_or_a_single_array(folder):
    save(x=X, y=np.array([{}, 1], dtype=object))
    assert told(lambda: load_dataset("d.npz")) == (
        "Data file must be a whole .npz archive of plain numbers, not 'd.npz'"
        " (Object arrays cannot be loaded when allow_pickle=False)"
    )
    with open("d.npz", "wb") as file:
        np.save(file, X)
    assert told(lambda: load_dataset("d.npz")) == (
        "Data file must be a whole .npz archive of plain numbers, not 'd.npz' (it is a single .npy array)"
    )


def test_npz_with_a_member_that_is_no_array(folder):
    with zipfile.ZipFile("d.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\xff\xff")
    assert told(lambda: load_dataset("d.npz")).startswith("Data file must be a whole .npz archive")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_npz_never_surprises(folder, data):
    content = bytearray(npz_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "d.npz").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        load_dataset("d.npz")
    except UsageError as error:
        assert "\n" not in str(error)


def test_a_file_that_may_not_be_read(folder, monkeypatch):
    def refuse(*given):
        raise PermissionError(13, "Permission denied")

    (folder / "d.npz").touch()
    monkeypatch.setattr("hwrnn.readers.open", refuse, raising=False)
    assert told(lambda: load_dataset("d.npz")) == (
        "Data file must be readable, and 'd.npz' is not (Permission denied)"
    )


def test_paths(folder):
    (folder / "sub.npz").mkdir()
    assert told(lambda: load_dataset("no.npz")) == "Data file must exist, and 'no.npz' does not"
    assert (
        told(lambda: load_dataset("sub.npz"))
        == "Data file must be a file, not the folder or device 'sub.npz'"
    )
    assert told(lambda: load_dataset("iris")) == (
        "Data must be one of japanese-vowels, adding, copy-memory, mackey-glass, or a path that ends in .npz"
        " or .csv, not 'iris'"
    )


@pytest.mark.parametrize("source", ["japanese-vowels", "adding", "d.npz"])
def test_options_that_do_not_apply(folder, source):
    save(x=X, y=LABELS)
    for option in ({"column": "a"}, {"window": 3}, {"horizon": 2}):
        assert told(lambda option=option: load_dataset(source, **option)) == (
            f"Option '{next(iter(option))}' must be left out with '{source}': it is for .csv files"
        )


def test_seed_is_for_synthetic_data(folder):
    save(x=X, y=LABELS)
    for source in ("japanese-vowels", "d.npz"):
        assert told(lambda source=source: load_dataset(source, seed=1)) == (
            f"Option 'seed' must be left out with '{source}': it is for synthetic data"
        )
    assert told(lambda: load_dataset("adding", seed=-1)) == "Seed must be an integer of at least 0, not -1"
    assert told(lambda: load_dataset("adding", seed=1.5)) == "Seed must be an integer of at least 0, not 1.5"


# Forecasting


def write(text: str, encoding: str = "utf-8") -> None:
    with open("d.csv", "w", encoding=encoding, newline="") as file:
        file.write(text)


def test_windows_of_a_column(folder):
    write("week, sold\r\n" + "".join(f"{i},{i}\r\n\r\n" for i in range(20)), "utf-8-sig")
    data = load_dataset("d.csv", column="sold", window=3, horizon=2)
    assert (data.name, data.task, data.inputs, data.outputs) == ("d:sold", "regression", 1, 1)
    assert (len(data.train), len(data.test)) == (13, 3)
    assert data.train.x[0, :, 0].tolist() == [0, 1, 2]
    assert data.train.y[0].tolist() == [4]
    assert data.test.y[:, 0].tolist() == [17, 18, 19]


@given(st.integers(4, 60), st.integers(1, 60), st.integers(1, 60))
def test_no_test_target_is_seen_in_training(count, window, horizon):
    if window + horizon > count - 1:
        window, horizon = 1, 1
    train, test = forecast_windows(np.arange(count), window, horizon)
    assert max(train.x.max(), train.y.max()) < test.y.min()
    assert len(train) + len(test) == count - window - horizon + 1
    assert len(test) == max(1, (len(train) + len(test)) // 5)
    for part in (train, test):
        assert (part.y == part.x[:, -1] + horizon).all()


ROWS = "a,b\n" + "1,2\n" * 10


@pytest.mark.parametrize(
    "text, options, expected",
    [
        (ROWS, {"window": 2}, "Column must be one of 'a', 'b', not None"),
        (ROWS, {"column": "c", "window": 2}, "Column must be one of 'a', 'b', not 'c'"),
        (ROWS, {"column": "a"}, "Window must be given for 'd.csv': the number of values to forecast from"),
        (ROWS, {"column": "a", "window": 0}, "Window must be an integer of at least 1, not 0"),
        (ROWS, {"column": "a", "window": 2.5}, "Window must be an integer of at least 1, not 2.5"),
        (ROWS, {"column": "a", "window": 2, "horizon": 0}, "Horizon must be an integer of at least 1, not 0"),
        (ROWS, {"column": "a", "window": 9}, "Window plus horizon must be at most 9 for 10 values, not 10"),
        (
            ROWS,
            {"column": "a", "window": 2, "seed": 1},
            "Option 'seed' must be left out with 'd.csv': it is for synthetic data",
        ),
        ("", {"column": "a", "window": 2}, "Data file must have a header row, not be empty: 'd.csv'"),
        ("a,b,a\n", {"column": "a", "window": 2}, "Column names must differ, and 'd.csv' has 'a' 2 times"),
        (
            "a,b\n1,2\n3\n",
            {"column": "a", "window": 1},
            "Row must have 2 cells like the header, not 1: line 3 of 'd.csv'",
        ),
        (
            "a,b\n1,2\n\nx,4\n",
            {"column": "a", "window": 1},
            "Column 'a' must hold finite numbers, not 'x': line 4 of 'd.csv'",
        ),
        (
            "a,b\n1,2\nnan,4\n",
            {"column": "a", "window": 1},
            "Column 'a' must hold finite numbers, not 'nan': line 3 of 'd.csv'",
        ),
        (
            'a\n"1\n',
            {"column": "a", "window": 1},
            "Data file must be comma-separated UTF-8 text, not 'd.csv' (unexpected end of data)",
        ),
    ],
)
def test_unsound_csv(folder, text, options, expected):
    write(text)
    assert told(lambda: load_dataset("d.csv", **options)) == expected


def test_csv_that_is_no_text(folder):
    (folder / "d.csv").write_bytes(b"a\n\xff\n")
    assert told(lambda: load_dataset("d.csv", column="a", window=1)).startswith(
        "Data file must be comma-separated UTF-8 text, not 'd.csv' ("
    )


# Built-in data


def test_japanese_vowels():
    data = load_dataset("japanese-vowels")
    assert (data.inputs, data.outputs, len(data.train), len(data.test)) == (12, 9, 270, 370)
    assert np.bincount(data.train.y).tolist() == [30] * 9
    # The counts that the data set's own description gives for its test file.
    assert np.bincount(data.test.y).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = np.concatenate([data.train.lengths, data.test.lengths])
    assert (lengths.min(), lengths.max(), lengths.sum()) == (7, 29, 9961)
    # First frames of both files, as the original prints them.
    for part, first, length in (
        (data.train, [1.860936, -0.207383, 0.261557], 20),
        (data.test, [1.635533, 0.024848, 0.432087], 19),
    ):
        np.testing.assert_allclose(part.x[0, 0, :3], first, rtol=0, atol=2**-14)
        assert part.lengths[0] == length
        assert (part.x[np.arange(part.x.shape[1]) >= part.lengths[:, None]] == 0).all()


@pytest.mark.parametrize("name", DATASETS)
def test_every_built_in_loads_the_same_twice(name):
    one, two = load_dataset(name), load_dataset(name)
    for a, b in ((one.train, two.train), (one.test, two.test)):
        assert a.x.tobytes() + a.y.tobytes() == b.x.tobytes() + b.y.tobytes()


@pytest.mark.parametrize("name", ["adding", "copy-memory", "mackey-glass"])
def test_seed_draws_other_data(name):
    assert not np.array_equal(load_dataset(name, seed=0).train.x, load_dataset(name, seed=1).train.x)


def test_adding():
    x, y, lengths = synthetic.adding(np.random.default_rng(0), 3000)
    assert set(lengths.tolist()) == set(range(20, 31))
    for sequence, target, length in zip(x, y, lengths, strict=True):
        marks = sequence[:, 1]
        first, second = np.flatnonzero(marks == 1)
        assert first < 10 and second < max(10, length // 2)
        assert np.flatnonzero(marks == -1).tolist() == [0, length - 1]
        assert not sequence[length:].any()
        assert target[0] == pytest.approx(0.5 + sequence[[first, second], 0].sum() / 4, abs=1e-6)
    assert 0 <= y.min() < 0.1 and 0.9 < y.max() <= 1


def test_copy_memory():
    x, y, lengths = synthetic.copy_memory(np.random.default_rng(0), 50, symbols=4, length=5, delay=10)
    shown = x.argmax(axis=2)
    assert (x.sum(axis=2) == 1).all() and (lengths == 20).all()
    assert (shown[:, :5] == y[:, 15:]).all() and set(shown[:, :5].ravel()) == {1, 2, 3, 4}
    assert (shown[:, 14] == 5).all() and not y[:, :15].any()
    assert not shown[:, 5:14].any() and not shown[:, 15:].any()


def test_mackey_glass_converges_in_fourth_order():
    # Chaos parts any two step sizes in time; over the transient the order of the method must still show.
    def start(substeps):
        rng = np.random.default_rng(0)
        return synthetic.mackey_glass(rng, 40, substeps=substeps, transient=0)

    exact = start(160)
    coarse, fine = (np.abs(start(n) - exact).max() for n in (5, 10))
    assert fine < 1e-7
    assert 12 < coarse / fine < 20


def test_mackey_glass_as_a_task():
    data = load_dataset("mackey-glass")
    assert (data.train.x.shape, data.test.x.shape) == ((2000, 20, 1), (975, 20, 1))
    assert data.train.y[0, 0] == data.train.x[6, -1, 0]
    known = np.concatenate([data.train.x[:, 0, 0], data.train.y[-25:, 0]])
    assert known.mean() == pytest.approx(0, abs=1e-5) and known.std() == pytest.approx(1, abs=1e-5)
