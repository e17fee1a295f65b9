"""Evolution: it learns, depends on the seed alone, resumes bit for bit, and refuses what is not its own."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import network_of

from hwrnn.cells import CELLS
from hwrnn.cli import main
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.onnx_io import load, save
from hwrnn.quantization import QuantizedModel, quantize
from hwrnn.training import accuracy, evaluate, rmse, train
from hwrnn.training.evolution import evolve, starting_point
from hwrnn.training.population import Problem, assess, genes_of, genome_of, with_genome


def clusters(per_step: bool = False, regression: bool = False, count: int = 60) -> Dataset:
    """Three classes told apart by the mean of one feature, in sequences of 2 to 6 steps."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, count)
    x = rng.normal(0, 0.4, (count, 6, 2)).astype(np.float32)
    x[:, :, 0] += y[:, None] - 1
    lengths = rng.integers(2, 7, count)
    due: Any = np.repeat(y[:, None], 6, axis=1) if per_step else y
    if regression:
        due = np.stack([due * 10.0, due + 100.0], axis=-1)
    parts = [Split(x[a:b], due[a:b], lengths[a:b]) for a, b in ((0, 40), (40, count))]
    return Dataset.of("clusters", *parts)


def model_for(data: Dataset, **more: Any) -> Any:
    chosen = {"cell": "rnn", "hidden": 3, "task": data.task, "every_step": data.per_step, **more}
    return build_model(data.inputs, data.outputs, **chosen)


SMALL: dict[str, Any] = {"generations": 4, "population": 10, "seed": 5}


def evolved(data: Dataset, model: Any = None, **options: Any) -> QuantizedModel:
    return evolve(model or model_for(data), data, **SMALL | {"workers": 1} | options)


def errors_at_first_class(predictions: np.ndarray, targets: np.ndarray, lengths: Any) -> float:
    """An objective of a caller's own, which has no gradient: errors count where the class is 0."""
    return float(np.mean((predictions.argmax(axis=1) != targets)[targets == 0]))


@pytest.mark.parametrize("cell", CELLS)
def test_a_genome_is_all_of_a_network(cell: str) -> None:
    model, x, lengths = network_of(cell, bits=5)
    raw, genome, genes = model.quantize_input(x), genome_of(model), genes_of(model)
    assert genome.size == sum(w.size for la in model.stack for w in (*la.weights.values(), *la.biases.values()))
    assert (genes.lo <= genome).all() and (genome <= genes.hi).all() and (genes.quantum > 0).all()
    other = with_genome(model, np.random.default_rng(0).integers(genes.lo, genes.hi, endpoint=True))
    assert not np.array_equal(golden(model, raw, lengths).output, golden(other, raw, lengths).output)
    back = with_genome(other, genome)
    assert np.array_equal(golden(model, raw, lengths).output, golden(back, raw, lengths).output)
    for layer in other.stack:
        for key, w in layer.weights.items():
            form = layer.formats.weights[key]
            assert form.lo <= w.min() and w.max() <= form.hi
        # The accumulators are proved for these weights, not for those of the model before.
        for k, phase in enumerate(layer.cell.phases):
            for gate, reads in phase.gates.items():
                rows = [int(b) for b in layer.biases[gate]]
                for o in reads:
                    f, shift = layer.formats.values[o], layer.formats.shifts[k, o]
                    for u, w in enumerate(layer.weights[gate, o]):
                        rows[u] += sum(max(int(v) * f.lo << shift, int(v) * f.hi << shift) for v in w)
                assert layer.accumulators[gate][1] == max(0, *rows)


def test_a_bias_moves_in_steps_of_a_weight() -> None:
    model, _, _ = network_of("gru", bits=6)
    genes, start = genes_of(model), 0
    for layer in model.stack:
        weights = sum(w.size for w in layer.weights.values())
        assert (genes.quantum[start : start + weights] == 1).all()
        start += weights
        for gate, bias in layer.biases.items():
            forms = [form for (row, _), form in layer.formats.weights.items() if row == gate]
            unit = 2.0 ** -layer.formats.bias_frac[gate]
            there = slice(start, start + bias.size)
            assert (genes.quantum[there] * unit == max(f.step for f in forms)).all()
            assert (genes.hi[there] * unit >= max(-f.min for f in forms)).all()
            start += bias.size
    assert start == genes.lo.size


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("regression", [False, True])
def test_values_are_those_of_golden_s_predictions(per_step: bool, regression: bool) -> None:
    data = clusters(per_step, regression)
    model, part = starting_point(model_for(data, cell="gru"), data), data.train
    raw = model.quantize_input(part.x)
    predictions = model.predict(part.x, part.lengths)
    within = np.arange(6) < part.lengths[:, None] if per_step else np.full(40, True)
    if regression:
        scaled = (predictions - part.y) / model.output_scale
        loss = np.mean(scaled[within] ** 2)
        metric = rmse(predictions, part.y, part.lengths if per_step else None)
    else:
        at = np.take_along_axis(predictions, part.y[..., None], -1)[..., 0]
        loss = np.mean((np.log(np.exp(predictions).sum(-1)) - at)[within])
        metric = 1 - accuracy(predictions, part.y, part.lengths if per_step else None)

    def found(objective: Any) -> Any:
        problem = Problem(model, raw, part.y, part.lengths, per_step, objective)
        return assess(problem, genome_of(model)[None])[0].tolist()

    assert found("loss") == [pytest.approx(loss, rel=1e-6), 0]
    assert found("metric") == [pytest.approx(metric), pytest.approx(loss, rel=1e-6)]
    assert found(lambda p, y, n: np.square(p).sum()) == [pytest.approx(np.square(predictions).sum()), found("loss")[0]]


def test_it_learns_from_a_random_start_and_goes_on_from_a_trained_one() -> None:
    data = clusters()
    seen: list[Any] = []
    q = evolved(data, generations=25, population=40, progress=seen.append)
    assert evaluate(q.predict, data.evaluation, data.task, False)["accuracy"] >= 0.9
    best = [now.best for now in seen]
    assert best == sorted(best, reverse=True) and best[-1] < 0.25 * best[0] and seen[-1].loss == best[-1]
    assert seen[-1].evaluations == 40 + 24 * 38 == q.facts["evolution"]["evaluations"]
    assert q.facts["evolution"]["value"] == best[-1] and q.facts["data"] == "clusters"
    before = quantize(train(model_for(data), data, epochs=3), data, 4)
    worst = evolved(data, before, generations=1)
    better = evolved(data, before, generations=8)
    assert worst.facts["evolution"]["value"] >= better.facts["evolution"]["value"]
    assert better.stack[0].formats is before.stack[0].formats and better.saturation != before.saturation


def test_the_objective_is_what_falls() -> None:
    data = clusters()
    q = evolved(data, objective=errors_at_first_class, generations=20, population=40)
    part = data.train
    assert q.facts["evolution"]["value"] == errors_at_first_class(q.predict(part.x, part.lengths), part.y, None) == 0
    assert q.facts["evolution"]["objective"] == "errors_at_first_class"
    q = evolved(data, objective="metric", generations=12, population=20)
    share = 1 - accuracy(q.predict(part.x, part.lengths), part.y)
    assert q.facts["evolution"]["value"] == pytest.approx(share) and share < 0.2


def right(predictions: np.ndarray, targets: np.ndarray, lengths: Any) -> float:
    """What the loss is against."""
    return accuracy(predictions, targets)


def test_the_loss_decides_between_equals_only() -> None:
    data = clusters()
    q = evolved(data, objective=right, generations=8, population=40)
    assert accuracy(q.predict(data.train.x, data.train.lengths), data.train.y) < 0.1
    # Among those that are equally wrong, what the loss prefers: otherwise a constant objective would select nobody.
    seen: list[Any] = []
    evolved(data, objective=lambda *_: 7, generations=8, population=40, progress=seen.append)
    assert {now.best for now in seen} == {7} and seen[-1].loss < 0.7 * seen[0].loss


def test_the_start_itself_takes_part() -> None:
    data = clusters()
    best = evolved(data, generations=20, population=40)
    same = evolved(data, best, generations=1, spread=1.0)
    assert np.array_equal(genome_of(same), genome_of(best))


def test_every_generation_is_judged_by_other_data_where_they_are_drawn() -> None:
    data = clusters()
    seen: list[bytes] = []

    def objective(predictions: np.ndarray, targets: np.ndarray, lengths: Any) -> float:
        seen.append(targets.tobytes())
        return 0.0

    q = evolved(data, objective=objective, batch=16, spread=0.0)
    # All of them, elite included, on a batch of their generation; and two parents on all of the data in the end.
    assert len(seen) == 4 * 10 + 2 == q.facts["evolution"]["evaluations"]
    batches = [set(seen[k * 10 : k * 10 + 10]) for k in range(4)]
    assert all(len(batch) == 1 for batch in batches) and len(set.union(*batches)) == 4
    assert set(seen[40:]) == {data.train.y.tobytes()}
    seen.clear()
    evolved(data, objective=objective, batch=40)
    assert len(seen) == 10 + 3 * 8  # nothing is drawn: what is known stays known


class OnlySubmit:
    """The least executor: its work passes through a pickle, as to another machine, and begins when it is asked for."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        work = pickle.dumps((fn, args))
        self.sent.append(len(work))

        class Later:
            def result(self) -> Any:
                fn, args = pickle.loads(work)
                return pickle.loads(pickle.dumps(fn(*args)))

        return Later()


@pytest.mark.parametrize("options", [{}, {"batch": 16, "noise": 0.3, "objective": "metric"}])
def test_the_result_depends_on_the_seed_alone(options: dict[str, Any]) -> None:
    data = clusters()
    whole = genome_of(evolved(data, **options))
    least = OnlySubmit()
    assert np.array_equal(whole, genome_of(evolved(data, executor=least, workers=3, **options)))
    # The problem is sent with a chunk, not with an individual.
    assert len(least.sent) == 3 * SMALL["generations"] + 2 * ("batch" in options)  # two parents, at the end
    with ThreadPoolExecutor(3) as pool:
        assert np.array_equal(whole, genome_of(evolved(data, executor=pool, workers=None, **options)))
    assert not np.array_equal(whole, genome_of(evolved(data, seed=6, **options)))


def test_processes_of_its_own_give_the_same() -> None:
    data = clusters()
    options: dict[str, Any] = {"objective": errors_at_first_class}
    assert np.array_equal(genome_of(evolved(data, **options)), genome_of(evolved(data, workers=2, **options)))


class Stop(Exception):
    """Interrupts a run from its progress."""


@pytest.mark.parametrize("options", [{}, {"batch": 16, "noise": 0.3}])
@pytest.mark.parametrize("after", [1, 3])
def test_a_resumed_run_equals_the_uninterrupted_one(options: dict[str, Any], after: int, tmp_path: Path) -> None:
    data, file = clusters(), tmp_path / "c.npz"
    whole = evolved(data, **options)

    def interrupt(now: Any) -> None:
        if now.generation == after:
            raise Stop

    with pytest.raises(Stop):
        evolved(data, checkpoint=file, progress=interrupt, **options)
    seen: list[Any] = []
    resumed = evolved(data, checkpoint=file, resume=True, progress=seen.append, **options)
    assert [now.generation for now in seen] == list(range(after + 1, 5))
    assert np.array_equal(genome_of(resumed), genome_of(whole)) and resumed.facts == whole.facts
    again = evolved(data, checkpoint=file, resume=True, **options)  # nothing is left to do
    assert np.array_equal(genome_of(again), genome_of(whole))


def test_only_the_run_s_own_checkpoint_is_taken(tmp_path: Path) -> None:
    data, file = clusters(), str(tmp_path / "c.npz")
    evolved(data, checkpoint=file)

    def told(**options: Any) -> str:
        with pytest.raises(UsageError) as caught:
            evolved(**{"data": data, "checkpoint": file, "resume": True, **options})
        return str(caught.value)

    due = "Checkpoint must be of the same {0}, not {1!r}: give the {0} it began with"
    assert told(seed=1) == due.format("options", file)
    assert told(objective="metric") == due.format("options", file)
    assert told(data=clusters(count=50)) == due.format("data", file) or "model" in told(data=clusters(count=50))
    assert told(model=model_for(data, seed=9)) == due.format("model", file)
    assert told(checkpoint=None) == "Resume must come with the path of a checkpoint"
    assert told(checkpoint="none.npz").startswith("Checkpoint must exist to resume from it, not 'none.npz'")
    other = str(tmp_path / "t.npz")
    train(model_for(data), data, epochs=1, checkpoint=other)
    assert told(checkpoint=other).startswith("Checkpoint must be a whole file that training wrote")
    with np.load(file, allow_pickle=False) as stored:
        arrays = dict(stored)
    for wrong in ({"genomes": arrays["genomes"][1:]}, {"values": np.full((10, 2), np.nan)}):
        np.savez(other, **arrays | wrong)
        assert told(checkpoint=other).startswith("Checkpoint must be a whole file that training wrote")


@pytest.mark.parametrize(
    "options, text",
    [
        ({"generations": 0}, "Generations must be an integer of at least 1, not 0"),
        ({"population": 1}, "Population must be an integer of at least 2, not 1"),
        ({"elite": 10}, "Elite must be smaller than the population of 10, not 10"),
        ({"elite": 0}, "Elite must be an integer of at least 1, not 0"),
        ({"survivors": 0}, "Survivors must be above 0 and at most 1, not 0"),
        ({"rate": (0.5, 0)}, "Rate must be above 0 and at most 1, not 0"),
        ({"step": 0.1}, "Step must be a pair, of the first generation and of the last, not 0.1"),
        ({"spread": -1}, "Spread must be a finite number of at least 0, not -1"),
        ({"noise": float("nan")}, "Noise must be a finite number of at least 0, not nan"),
        ({"batch": 0}, "Batch must be an integer of at least 1, not 0"),
        ({"seed": -1}, "Seed must be an integer of at least 0, not -1"),
        ({"workers": 0}, "Workers must be an integer of at least 1, not 0"),
        ({"objective": "f1"}, "Objective must be loss, metric or a function, not 'f1'"),
        ({"objective": lambda *_: float("inf")}, "Objective must give one finite number, not inf"),
        ({"objective": lambda *_: np.zeros(2)}, "Objective must give one finite number, not array([0., 0.])"),
        ({"objective": lambda *_: 0, "workers": 2}, "Objective must be a function of a module to be sent"),
        ({"executor": 3}, "Executor must have a method submit as those of concurrent.futures do, not 3"),
        ({"bits": 99}, "Bits must be a whole number"),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        evolved(clusters(), **options)
    assert str(caught.value).startswith(text) and "\n" not in str(caught.value)


def dies(predictions: np.ndarray, targets: np.ndarray, lengths: Any) -> float:
    """An objective that takes its process with it."""
    os._exit(1)


@pytest.mark.slow
def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(UsageError) as caught:
        evolved(clusters(), objective=dies, workers=2)
    assert str(caught.value) == (
        "Processes must be able to start and to stay: put a script's own work below"
        " if __name__ == '__main__', or give workers=1"
    )


def test_more_that_is_wrong() -> None:
    data = clusters()
    with pytest.raises(UsageError, match="Bits must be left out with a model that is quantized already"):
        evolved(data, starting_point(model_for(data), data), bits=8)
    with pytest.raises(UsageError, match="Reach must be a finite number above 0, not 0"):
        starting_point(model_for(data), data, reach=0)
    with pytest.raises(UsageError, match="Model must have 2 inputs for 'clusters', not 3"):
        evolved(data, build_model(3, 3, hidden=2))


def as_json(capsys: Any, *words: Any) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    out = capsys.readouterr()
    assert "evolve: 3/3 generations" in out.err
    return json.loads(out.out)


def test_the_verb(tmp_path: Path, capsys: Any) -> None:
    data, file, first = clusters(), tmp_path / "d.npz", tmp_path / "q.onnx"
    parts = {f"{k}{end}": v for end, part in (("", data.train), ("_test", data.test)) for k, v in vars(part).items()}
    np.savez(file, **parts)
    words = ["evolve", "--data", file, "--generations", 3, "--population", 10, "--workers", 1]
    network = ["--cell", "gru", "--hidden", 3, "--weight-bits", 4, "--objective", "metric", "-o", first]
    found = as_json(capsys, *words, *network)
    q = load(first)
    assert isinstance(q, QuantizedModel) and q.widths.weights == 4 and q.layers[0].cell.name == "gru"
    assert q.facts["evolution"]["objective"] == found["objective"] == "metric"
    measured = evaluate(q.predict, data.evaluation, "classification", False)["accuracy"]
    assert found["test"] == measured and found["value"] == pytest.approx(1 - found["train"])
    second = as_json(capsys, *words, first, "--seed", 1, "-o", tmp_path / "r.onnx")
    assert second["start"] == found["test"] and second["evaluations"] == 26
    save(train(model_for(data), data, epochs=1), tmp_path / "m.onnx")
    third = as_json(capsys, *words, tmp_path / "m.onnx", "--bits", 5, "-o", tmp_path / "s.onnx")
    assert third["metric"] == "accuracy" and load(tmp_path / "s.onnx").widths.weights == 5  # type: ignore[union-attr]
    assert main([*map(str, words), "--hidden", "2", "-o", str(tmp_path / "t.onnx")]) == 0
    assert "networks judged" in capsys.readouterr().out
    for more, text in (
        ([first, "--cell", "gru"], "Option --cell must be left out with a model to begin with"),
        ([first, "--encoder", 1], "Option --encoder must be left out with a model to begin with"),
        ([first, "--bidirectional"], "Option --bidirectional must be left out with a model to begin with"),
        ([first, "--weight-bits", 4], "Option --weight-bits must be left out with a quantized model"),
        (["--objective", "f1"], "Objective must be loss, metric or a function, not 'f1'"),
    ):
        assert main([*map(str, [*words, *more]), "-o", str(tmp_path / "x.onnx")]) == 2
        assert text in capsys.readouterr().err
