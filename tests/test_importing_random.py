"""Random networks: what is imported computes what ONNX Runtime does; what is not is refused with a sentence."""

from collections import Counter

import numpy as np
import onnx
import pytest
from random_graphs import random_network

import hwrnn
from hwrnn.errors import UsageError, require
from hwrnn.importing import layouts
from hwrnn.importing.values import Sources


def judged(seeds, path):
    """How many networks are right, wrong (their seeds), refused, and of the right ones how many are models."""
    runtime, counts, wrong = require("onnxruntime", "runtime"), Counter(), []
    for seed in seeds:
        drawn = random_network(seed)
        if drawn is None:
            continue
        proto, x, batch_first = drawn
        onnx.save(proto, path)
        due = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        try:
            imported = hwrnn.import_onnx(path)
            found = imported.run({"x": x})["y"]
        except UsageError as error:
            assert len(str(error)) < 400 and "that fit its operator" not in str(error)  # a refusal that somebody wrote
            counts["refused"] += 1
            continue
        right = found.shape == due.shape and np.allclose(found, due, 1e-4, 1e-4)
        try:
            model = imported.model
        except UsageError:
            counts["no model"] += 1
        else:
            counts["models"] += 1
            given = x if batch_first else x.transpose(1, 0, 2)
            if model.inputs != x.shape[2]:  # where some of the sequences are taken, all are one sequence's features
                given = x.reshape(1, len(x), -1)
            values = model.predict(given)
            if not any("host" in note for note in imported.notes):  # the same numbers, in the model's layout
                right = right and values.size == due.size and np.allclose(np.sort(values, None), np.sort(due, None),
                                                                          1e-4, 1e-4)  # fmt: skip
        counts["right" if right else "wrong"] += 1
        wrong += [] if right else [seed]
    return counts, wrong


def test_random_networks_are_right_or_refused(tmp_path):
    counts, wrong = judged(range(60), tmp_path / "n.onnx")
    assert wrong == [] and counts["right"] > 15 and counts["refused"] > 15 and counts["models"] > 12


@pytest.mark.slow
def test_many_random_networks_are_right_or_refused(tmp_path):
    counts, wrong = judged(range(1000, 1700), tmp_path / "n.onnx")
    assert wrong == [] and counts["right"] > 200


def wrong_step(self, columns, at, lengths=None, real=Sources.picked):
    return real(self, columns, 0 if at == -1 else at, lengths)


def wrong_order(view, axis, indices, real=layouts.taken):
    return real(view, axis, indices[::-1] if indices.ndim else indices)


@pytest.mark.parametrize(("home", "name", "fault"), [(Sources, "picked", wrong_step), (layouts, "taken", wrong_order)])
def test_planted_faults_are_found(home, name, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(home, name, fault)
    assert judged(range(50), tmp_path / "n.onnx")[1] != []
