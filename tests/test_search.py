"""Calibration by the task's loss: what moves, what stays, and what it is judged by."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from networks import FEW

from hwrnn import search
from hwrnn.calibration import calibrate
from hwrnn.data import Dataset, Split, load_dataset
from hwrnn.fixed import Format
from hwrnn.formats import Choice, Widths, choose_formats, derived_formats, first_choice
from hwrnn.golden import golden
from hwrnn.model import Model, build_model
from hwrnn.quantization import METHODS, freeze, quantize
from hwrnn.search import Judge, best_choice, search_formats
from hwrnn.training import train
from hwrnn.training.losses import LOSSES

BITS = 4


def data(n: int = 40, steps: int = 6, task: str = "classification", per_step: bool = False) -> Dataset:
    """Sequences that the sign of their first channel's mean (or its running sum) labels."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, steps + 1, n)
    x = rng.standard_normal((n, steps, 3)).astype(np.float32)
    x[np.arange(steps) >= lengths[:, None]] = 1e3  # nothing there may count
    sums = np.where(np.arange(steps) < lengths[:, None], x[..., 0], 0).cumsum(axis=1)
    if not per_step:
        sums = sums[:, -1]
    y = (sums > 0).astype(np.int64) if task == "classification" else sums[..., None].astype(np.float32)
    return Dataset("sums", task, per_step, Split(x, y, lengths))


def model_for(part: Dataset, cell: str = "lstm", **options: object) -> Model:
    """A network with weights of several sizes."""
    model = build_model(
        3, part.outputs, cell=cell, hidden=5, seed=1, task=part.task, every_step=part.per_step, **options
    )  # fmt: skip
    rng = np.random.default_rng(1)
    for layer in model.stack:
        for p in layer.parameters.values():
            p += 0.4 * rng.standard_normal(p.shape).astype(np.float32)
    return model


CASES = [("classification", False), ("classification", True), ("regression", False), ("regression", True)]


@pytest.mark.parametrize(("task", "per_step"), CASES)
def test_the_judge_computes_the_loss_of_goldens_outputs(task, per_step):
    part = data(task=task, per_step=per_step)
    model, widths = model_for(part), Widths.of(BITS)
    seen = calibrate(model, part.train)
    judge = Judge(model, seen, widths)
    choice = first_choice(model, seen, widths, "mse")
    q = freeze(model, judge.formats(choice), widths)
    outputs = q.output_format.dequantize(golden(q, q.quantize_input(part.train.x), part.train.lengths).output)
    exact = model.predict(part.train.x, part.train.lengths)
    pairs = [(o, e, y) for o, e, y in zip(outputs, exact, part.train.y, strict=True)]
    if per_step:
        pairs = [
            (o[t], e[t], y[t])
            for (o, e, y), n in zip(pairs, part.train.lengths, strict=True) for t in range(n)
        ]  # fmt: skip
    o, e, y = (np.array([pair[k] for pair in pairs], np.float64) for k in range(3))
    error = np.mean((o - e) ** 2) / np.mean((e - e.mean(axis=0)) ** 2)
    if task == "classification":
        due = -np.mean([row[int(k)] - np.log(np.exp(row).sum()) for row, k in zip(o, y, strict=True)])
    else:
        due = np.mean((o - y) ** 2)
    assert judge(choice) == pytest.approx(due + error, rel=1e-5)


@pytest.mark.parametrize("cell", FEW)
@pytest.mark.parametrize("method", ["mse", "max"])
def test_the_search_never_ends_above_where_it_starts(cell, method):
    part = data()
    model, widths = model_for(part, cell), Widths.of(3)
    seen = calibrate(model, part.train)
    judge = Judge(model, seen, widths)
    best = best_choice(judge, rounds=2)
    start = first_choice(model, seen, widths, method)
    assert judge(best) <= judge(start) * 1.0201
    assert judge.formats(best) == search_formats(model, seen, widths, rounds=2)  # and it is deterministic


def test_the_search_finds_a_planted_fault():
    """A cell state that calibration saw far too large is brought back to where it belongs."""
    part = data(120)
    model = train(model_for(part), part, epochs=12, noise=0.0)
    seen, widths = calibrate(model, part.train), Widths.of(BITS, cell=BITS)
    for name, factor in (("c", 8.0), ("g", 8.0)):
        old = seen.values[0, name]
        wrong = replace(old, lo=old.lo * factor, hi=old.hi * factor, sample=old.sample * factor)
        planted = replace(seen, values={**seen.values, (0, name): wrong})
        judge = Judge(model, planted, widths)
        start, best = first_choice(model, planted, widths, "mse"), best_choice(judge)
        assert best.values[0, name].frac - start.values[0, name].frac >= 1
        assert judge(best) < 0.8 * judge(start)


def test_a_gain_within_noise_keeps_the_simpler_choice(monkeypatch):
    part = data()
    model, widths = model_for(part), Widths.of(BITS)
    seen = calibrate(model, part.train)
    start = first_choice(model, seen, widths, "mse")
    noise = iter(1 - 0.019 * np.random.default_rng(0).random(10_000))
    judge = Judge(model, seen, widths)
    monkeypatch.setattr(judge, "loss_of", lambda formats: next(noise))
    monkeypatch.setattr(judge, "floor", 0.0)
    assert best_choice(judge) == start


def test_where_float_is_no_better_nothing_is_tried(monkeypatch):
    part = data()
    model, widths = model_for(part), Widths.of(16)
    seen = calibrate(model, part.train)
    judge = Judge(model, seen, widths)
    assert judge.formats(best_choice(judge)) == choose_formats(model, seen, widths)
    assert len(judge.judged) == 1
    assert judge.floor == pytest.approx(
        LOSSES["cross_entropy"](model.predict(part.train.x, part.train.lengths).T[None], part.train.y[None], None)[0]
    )


def test_without_targets_the_float_outputs_are_the_measure():
    part = data()
    bare = SimpleNamespace(x=part.train.x, lengths=part.train.lengths)
    model, widths = model_for(part), Widths.of(BITS)
    judge = Judge(model, calibrate(model, bare), widths)
    choice = first_choice(model, judge.seen, widths, "max")
    q = freeze(model, judge.formats(choice), widths)
    exact = model.predict(bare.x, bare.lengths)
    error = np.mean((q.predict(bare.x, bare.lengths) - exact) ** 2) / np.mean((exact - exact.mean(axis=0)) ** 2)
    assert judge.floor == 0 and judge(choice) == pytest.approx(error, rel=1e-5)
    assert judge(best_choice(judge)) < error


def test_a_choice_decides_every_format():
    part = data()
    model, widths = model_for(part, "gru"), Widths.of(BITS)
    seen = calibrate(model, part.train)
    choice = first_choice(model, seen, widths, "mse")
    before = derived_formats(model, seen, widths, choice)
    assert (0, "a.nh") in choice.values and choice.values[0, "a.nh"].width == BITS + 2
    for key, form in choice.values.items():
        moved = Choice({**choice.values, key: Format(form.width, form.frac - 1, form.signed)}, choice.weights)
        assert derived_formats(model, seen, widths, moved)[key[0]].values[key[1]].frac == form.frac - 1
    for index, gate, operand in choice.weights:
        coarser = choice.weights[index, gate, operand] - 3
        moved = Choice(choice.values, {**choice.weights, (index, gate, operand): coarser})
        made = derived_formats(model, seen, widths, moved)[index].weights[gate, operand]
        assert made.frac <= coarser < before[index].weights[gate, operand].frac


def test_a_judge_runs_equal_formats_once(monkeypatch):
    part = data()
    model, widths = model_for(part), Widths.of(BITS)
    judge = Judge(model, calibrate(model, part.train), widths)
    runs: list[object] = []
    monkeypatch.setattr(search, "golden", lambda *given: runs.append(given) or golden(*given))
    choice = first_choice(model, judge.seen, widths, "mse")
    assert judge(choice) == judge(choice) and len(runs) == 1


def test_progress_is_told_to_its_end():
    part = data()
    model, widths = model_for(part), Widths.of(3)
    told: list[tuple[int, int]] = []
    search_formats(model, calibrate(model, part.train), widths, rounds=1, progress=lambda *now: told.append(now))
    assert told[-1][0] == told[-1][1] and told == sorted(told)


@pytest.mark.slow
def test_by_loss_is_best_on_japanese_vowels():
    """Mean of three seeds at 3 bits: by the loss at least as good as by each value's error, and far above max."""
    part = load_dataset("japanese-vowels")
    found = {method: [] for method in METHODS}
    for seed in range(3):
        model = train(build_model(12, 9, cell="gru", hidden=16, seed=seed), part, epochs=40, seed=seed)
        for method in METHODS:
            q = quantize(model, part, 3, method=method)
            scores = q.predict(part.test.x, part.test.lengths)
            found[method].append(np.mean(scores.argmax(axis=1) == part.test.y))
    loss, mse, most = (np.mean(found[method]) for method in ("loss", "mse", "max"))
    assert loss >= mse - 0.005 and loss > most + 0.05, found
