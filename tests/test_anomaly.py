"""Reconstruction errors, detectors and windows, against sums typed out here."""

import numpy as np
import pytest
from networks import network_of

import hwrnn
from hwrnn.anomaly import Detector, reconstruction_errors, sample_scores, sliding_windows
from hwrnn.data import Dataset, Split, load_dataset, reconstructed
from hwrnn.errors import UsageError
from hwrnn.model import build_model
from hwrnn.quantization import quantize
from hwrnn.training.metrics import auc

RNG = np.random.default_rng(5)


def told(call):
    with pytest.raises(UsageError) as caught:
        call()
    return str(caught.value)


def waves(count, odd=0, seed=0):
    """Noisy sines of two features and 4 to 10 steps; the last ``odd`` of them are noise alone."""
    rng = np.random.default_rng([seed, count])
    x = np.sin(0.7 * np.arange(10) + rng.uniform(0, 6, (count, 1)))[:, :, None] * [1.0, 30.0]
    x[count - odd :] = rng.standard_normal((odd, 10, 2)) * [1.0, 30.0]
    return x + rng.normal(0, 0.02, x.shape) * [1.0, 30.0], rng.integers(4, 11, count)


@pytest.fixture(scope="module")
def trained():
    data = Dataset.of("waves", *(Split(x, x, lengths) for x, lengths in (waves(120), waves(60, odd=20, seed=1))))
    model = build_model(2, 2, cell="gru", hidden=[8, 8], encoder=1, every_step=True, task="regression")
    return hwrnn.train(model, data, epochs=60, noise=0.0), data


def test_errors_are_mean_squares_within_the_length(trained):
    model, data = trained
    x, lengths = data.test.x, data.test.lengths
    found, outputs = reconstruction_errors(model, x, lengths), model.predict(x, lengths)
    for n, length in enumerate(lengths):
        terms = [
            ((float(outputs[n, t, f]) - float(x[n, t, f])) / float(model.output_scale[f])) ** 2
            for t in range(length) for f in range(2)
        ]  # fmt: skip
        assert found[n] == pytest.approx(sum(terms) / len(terms), rel=1e-6)
    beyond = x.copy()
    beyond[np.arange(10) >= lengths[:, None]] = 1e3
    assert np.array_equal(reconstruction_errors(model, beyond, lengths), found)
    assert np.array_equal(reconstruction_errors(model, x, lengths, outputs), found)
    assert reconstruction_errors(model, x, lengths, outputs + model.output_scale).mean() > found.mean() + 0.5
    whole = reconstruction_errors(model, x[:3, :4])
    assert np.array_equal(whole, reconstruction_errors(model, x[:3, :4], [4, 4, 4]))


@pytest.mark.parametrize("bits", [None, 8])
def test_a_detector_finds_what_is_no_wave(trained, bits):
    model, data = trained
    model = model if bits is None else quantize(model, data, bits)
    detector = Detector.of(model, data.train, 0.95)
    learnt = detector.scores(data.train.x, data.train.lengths)
    assert (learnt > 1).sum() == 6  # 5 % of 120
    scores = detector.scores(data.test.x, data.test.lengths)
    labels = np.arange(60) >= 40
    assert auc(scores, labels) > 0.95 and (scores[labels] > 1).mean() > 0.6
    assert Detector.of(model, data.train, 1).scores(data.train.x, data.train.lengths).max() == 1


def test_scores_of_hardware_are_those_of_golden(trained):
    model, data = trained
    quantized = quantize(model, data, 6)
    detector, part = Detector.of(quantized, data.train), data.test
    outputs = quantized.predict(part.x, part.lengths)
    scores = detector.scores(part.x, part.lengths)
    assert np.array_equal(detector.scores(part.x, part.lengths, outputs), scores)
    assert not np.array_equal(scores, Detector.of(model, data.train).scores(part.x, part.lengths))


def test_models_and_data_that_do_not_suit(trained):
    model, data = trained
    for other in (
        build_model(2, 2, every_step=True),
        build_model(2, 2, task="regression"),
        build_model(2, 3, every_step=True, task="regression"),
        network_of("gru", 2, 3, 3, every_step=True)[0],
    ):
        assert told(lambda other=other: reconstruction_errors(other, data.test.x)).startswith(
            "Model must be a regression with as many outputs as inputs at every step to rebuild its input: "
        )
    x = data.test.x[:2]
    text = told(lambda: reconstruction_errors(model, x, None, np.zeros((2, 10, 1))))
    assert text == "Outputs must have shape (2, 10, 2) as the inputs do, not (2, 10, 1)"
    for quantile in (0, 1.1, -1, "most", True, float("nan")):
        assert told(lambda q=quantile: Detector.of(model, data.train, q)) == (
            f"Quantile must be above 0 and at most 1, not {quantile!r}"
        )


def test_sequences_that_are_rebuilt_exactly_have_no_threshold():
    model = build_model(1, 1, cell="rnn", hidden=[1, 1], encoder=1, every_step=True, task="regression")
    for layer in model.stack:
        for values in layer.parameters.values():
            values[...] = 0
    zeros = Split(np.zeros((3, 4, 1)), np.zeros((3, 4, 1)))
    assert told(lambda: Detector.of(model, zeros)) == (
        "Normal sequences must be rebuilt with some error for a threshold, not exactly"
    )


# -- windows


@pytest.mark.parametrize("steps, width, stride, samples", [(3, 2, 1, 11), (2, 1, 3, 10), (1, 1, 1, 4), (4, 3, 5, 12)])
def test_windows_and_the_scores_of_samples(steps, width, stride, samples):
    series = RNG.standard_normal(samples)
    windows, starts = sliding_windows(series, steps, width, stride)
    size = steps * width
    assert starts.tolist() == list(range(0, samples - size + 1, stride))
    for window, start in zip(windows, starts, strict=True):
        assert window.shape == (steps, width) and np.array_equal(window.ravel(), series[start : start + size])
    scores = RNG.uniform(0, 4, len(starts))
    found = sample_scores(scores, starts, size, samples)
    for k in range(samples):
        holding = [v for v, start in zip(scores, starts, strict=True) if start <= k < start + size]
        assert np.isnan(found[k]) if not holding else found[k] == pytest.approx(np.mean(holding))


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: sliding_windows([[1.0]], 1), "Series must be a row of finite numbers, not float64 of shape (1, 1)"),
        (lambda: sliding_windows([np.nan], 1), "Series must be a row of finite numbers, not float64 of shape (1,)"),
        (lambda: sliding_windows(["a"], 1), "Series must be a row of finite numbers, not <U1 of shape (1,)"),
        (lambda: sliding_windows([1, 2, 3], 2, 2), "Series must be at least as long as a window of 4, not 3"),
        (lambda: sliding_windows([1, 2, 3], 0), "Steps must be an integer of at least 1, not 0"),
        (lambda: sliding_windows([1, 2, 3], 1, 1, 0), "Stride must be an integer of at least 1, not 0"),
        (lambda: sample_scores([1.0], [0, 1], 1, 3), "Scores must have one start each, not shapes (1,) and (2,)"),
        (lambda: sample_scores([1.0], [2], 2, 3), "Windows must lie within the 3 samples, not reach to 4"),
    ],
)
def test_windows_that_do_not_suit(call, text):
    assert told(call) == text


# -- data whose targets are the inputs


def test_inputs_as_targets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, lengths = waves(5)
    np.savez("plain.npz", x=x, lengths=lengths, x_test=x[:2], lengths_test=lengths[:2])
    np.savez("labels.npz", x=x, y=[0, 1, 0, 1, 0], lengths=lengths)
    np.savez("whole.npz", x=np.arange(12).reshape(2, 3, 2))
    (tmp_path / "s.csv").write_text("day,sold\n" + "".join(f"{k},{k % 5}\n" for k in range(30)))
    for data in (
        load_dataset("plain.npz", reconstruct=True),
        load_dataset("labels.npz", reconstruct=True),
        load_dataset("whole.npz", reconstruct=True),
        load_dataset("s.csv", column="sold", window=4, reconstruct=True),
        load_dataset("japanese-vowels", reconstruct=True),
        load_dataset("adding", reconstruct=True, seed=3),
        reconstructed(load_dataset("copy-memory")),
    ):
        assert (data.task, data.per_step, data.outputs) == ("regression", True, data.inputs)
        for part in (data.train, data.test):
            assert part is None or np.array_equal(part.x, part.y)
    assert load_dataset("plain.npz", reconstruct=True).test.lengths.tolist() == lengths[:2].tolist()
    plain, own = load_dataset("japanese-vowels"), load_dataset("japanese-vowels", reconstruct=True)
    assert np.array_equal(plain.test.x, own.test.x) and np.array_equal(plain.test.lengths, own.test.lengths)
    assert told(lambda: load_dataset("plain.npz")).startswith("Data file must hold an array 'y'")
    assert told(lambda: load_dataset("s.csv", column="sold", window=4, horizon=2, reconstruct=True)) == (
        "Option 'horizon' must be left out where the inputs are the targets: nothing is forecast"
    )
