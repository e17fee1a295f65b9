"""Standard ONNX networks are imported right or refused for the stated reason, by comparison with ONNX Runtime.

Every day a seeded share of the matrix; the whole of it, and the onnx package's own node tests, by ``-m slow``.
"""

import collections
import dataclasses
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import onnx_judge
import pytest
from onnx_judge import REFUSED, RIGHT, TOLERANCE, WRONG, difference, judge, shorter
from onnx_layouts import layout_case
from onnx_matrix import EVERY_FUNCTION, OPERATORS, Setting, bare, choices, operator_cases, runtime, settings
from onnx_nodes import node_cases
from onnx_plain import computed
from onnx_refusals import refused_cases
from onnx_surroundings import FRONTS, HEADS, HOSTS, TAILS, plans, surrounded_cases
from onnx_wholes import whole_cases

import hwrnn
from hwrnn.errors import UsageError
from hwrnn.importing import layouts, recurrent
from hwrnn.importing.functions import function_named
from hwrnn.importing.graph import Node

pytest.importorskip("onnxruntime")

FAMILIES = {
    "operator": operator_cases, "surroundings": surrounded_cases, "wholes": whole_cases, "refused": refused_cases,
}  # fmt: skip
EVERY_DAY = 7
"""Every seventh network is judged every day."""


def verdicts_of(makers, folder):
    return [verdict for maker in makers for verdict in judge(maker(), folder)]


def faults(verdicts):
    return [shorter(verdict) for verdict in verdicts if verdict.outcome == WRONG]


def wrong(makers, folder):
    return len(faults(verdicts_of(makers, folder)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_share_of_the_matrix_is_right_or_refused(family, tmp_path):
    verdicts = verdicts_of(itertools.islice(FAMILIES[family](), 0, None, EVERY_DAY), tmp_path)
    assert not faults(verdicts)
    counted = collections.Counter(verdict.outcome for verdict in verdicts)
    assert counted[REFUSED if family == "refused" else RIGHT] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_matrix_is_right_or_refused(family, tmp_path):
    makers = list(FAMILIES[family]())
    assert len(makers) >= {"operator": 450, "surroundings": 210, "wholes": 80, "refused": 150}[family]
    assert not faults(verdicts_of(makers, tmp_path))


@pytest.mark.slow
def test_node_tests_of_the_onnx_package(tmp_path):
    cases = list(node_cases())
    assert collections.Counter(case.operator for case in cases) == dict.fromkeys(OPERATORS, 6)
    verdicts = [verdict for case in cases for verdict in judge(case, tmp_path)]
    assert not faults(verdicts)
    assert sum(verdict.what == "run" and verdict.outcome == RIGHT for verdict in verdicts) == 18


@pytest.mark.slow
def test_onnx_runtime_computes_the_text_of_the_standard_but_for_a_clip():
    clipped = 0
    for maker in operator_cases():
        case = maker()
        found = runtime(case.proto, case.feeds)
        for name, value in computed(case.proto, case.feeds).items():
            assert difference(found[name], value) <= TOLERANCE, case.name
        text = computed(case.proto, case.feeds, clip_before_h=True)
        if any(difference(found[name], value) > TOLERANCE for name, value in text.items()):
            assert case.operator == "LSTM" and case.features["clip"] != "none"
            clipped += 1
    assert clipped > 5


def walks(numbers, folder):
    """How many random walks of layout operators are right, how many are refused; what is wrong."""
    counted, faults = collections.Counter(), []
    path = folder / "walk.onnx"
    for number in numbers:
        case = layout_case(number)
        path.write_bytes(case.proto.SerializeToString())
        try:
            imported = hwrnn.import_onnx(path)
            found = imported.run(case.feeds)["y"]
        except UsageError:
            counted[REFUSED] += 1
            continue
        expected = runtime(case.proto, case.feeds)["y"]
        counted[RIGHT] += 1
        if not difference(found, expected) <= TOLERANCE:
            faults.append(number)
        try:
            predicted = imported.model.predict(case.feeds["x"].swapaxes(0, 1))
        except UsageError:
            continue
        counted["model"] += 1  # the same numbers, as hwrnn lays them out
        if not difference(np.sort(predicted, None), np.sort(expected, None)) <= TOLERANCE:
            faults.append(number)
    return counted, faults


@pytest.mark.parametrize("numbers", [range(60), pytest.param(range(60, 800), marks=pytest.mark.slow)], ids=len)
def test_random_walks_of_layout_operators(numbers, tmp_path):
    counted, faults = walks(numbers, tmp_path)
    assert not faults
    assert min(counted[RIGHT], counted[REFUSED], counted["model"]) > len(numbers) / 4


def test_a_walk_that_loses_its_way_is_seen(tmp_path, monkeypatch):
    real = layouts.taken
    monkeypatch.setattr(layouts, "taken", lambda view, axis, indices: real(view, axis, np.flip(indices)))
    assert walks(range(60), tmp_path)[1]


# -- the matrix meets everything ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_choice_meets_the_operator_and_most_pairs_meet(operator):
    drawn, table = settings(operator, 150), choices(operator)
    plain = {key: set(values) for key, values in table.items()}
    met = collections.defaultdict(set)
    for setting in drawn:
        for a, b in itertools.combinations(plain, 2):
            met[a, b].add((getattr(setting, a), getattr(setting, b)))
    for key, values in plain.items():
        assert {getattr(setting, key) for setting in drawn} == values, key
    pairs = sum(len(plain[a]) * len(plain[b]) for a, b in met)
    assert sum(map(len, met.values())) >= 0.9 * pairs


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_activation_meets_every_place(operator):
    places = collections.defaultdict(set)
    for setting in settings(operator, 150):
        if setting.activations == "written":
            for k, function in enumerate(setting.places()):
                places[k].add(function)
    assert len(places) == 2 * {"RNN": 1, "GRU": 2, "LSTM": 3}[operator]
    for met in places.values():
        assert met == set(EVERY_FUNCTION)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_part_meets_the_operator(operator):
    drawn = plans(operator, 70)
    for key, table in (("front", FRONTS), ("tail", TAILS), ("head", HEADS), ("host", HOSTS)):
        assert {getattr(plan, key) for plan in drawn} == set(table)


# -- a fault is seen ---------------------------------------------------------------------------------------------------
def test_noise_is_told_from_faults():
    y = np.array([1.0, -3.0], np.float32)
    assert difference(y + np.float32(2e-6), y) < TOLERANCE < difference(y + np.float32(1e-4), y)
    assert difference(y[:1], y) == difference(y * np.nan, y) == difference(y.astype(np.int64), y) == np.inf


def chosen(operator, count=12, **given):
    """Makers of networks of one operator with a feature."""
    drawn = [Setting(operator, hidden=3 + k % 4, steps=4, lengths="input", **given) for k in range(count)]
    return [lambda k=k, setting=setting: bare(f"planted {k}", setting, k) for k, setting in enumerate(drawn)]


def no_parameters(which):
    """``_layer`` of the importer with zeros for an argument: 4 the biases, 5 the peepholes."""
    real = recurrent._layer
    return lambda *given: real(*(value * 0 if k == which else value for k, value in enumerate(given)))


def answers(name, value):
    """An attribute that always has one value."""
    real = Node.flag
    return lambda node, asked, *default: real(node, asked, *default) * 0 + value if asked == name else real(
        node, asked, *default)  # fmt: skip


def no_alpha(name, alpha=None, beta=None):
    return function_named(name, None if alpha is None else alpha / 2, beta)


def other_order(cell, order):
    said = recurrent.OPERATORS[cell]
    return recurrent.OPERATORS | {cell: dataclasses.replace(said, gates=tuple(said.gates[k] for k in order))}


LEAKY = (("LeakyRelu", 0.25),) * 6
PLANTED = {
    "gates of an LSTM in another order": ("LSTM", {}, (recurrent, "OPERATORS", other_order("lstm", (0, 2, 1, 3)))),
    "gates of a GRU in another order": ("GRU", {"linear_before_reset": 1}, (
        recurrent, "OPERATORS", other_order("gru", (1, 0, 2)))),
    "biases ignored": ("RNN", {}, (recurrent, "_layer", no_parameters(4))),
    "peepholes ignored": ("LSTM", {"peepholes": True}, (recurrent, "_layer", no_parameters(5))),
    "clip ignored": ("GRU", {"clip": 0.4}, (recurrent, "clipped", lambda function, bound: function)),
    "lengths ignored": ("GRU", {}, (recurrent, "lengths_of", lambda node, *given: node.optional(4) and None)),
    "initial states ignored": ("LSTM", {"initial_h": "constant"}, (
        recurrent, "initial_of", lambda node, net, k, *given: node.optional(k) and None)),
    "direction ignored": ("RNN", {"direction": "reverse"}, (
        recurrent, "_DIRECTIONS", recurrent._DIRECTIONS | {"reverse": (False,)})),
    "directions exchanged": ("LSTM", {"direction": "bidirectional"}, (
        recurrent, "_DIRECTIONS", recurrent._DIRECTIONS | {"bidirectional": (True, False)})),
    "input_forget ignored": ("LSTM", {"input_forget": 1}, (Node, "flag", answers("input_forget", 0))),
    "reset before the product": ("GRU", {"linear_before_reset": 1}, (
        Node, "flag", answers("linear_before_reset", 0))),
    "reset after the product": ("GRU", {"linear_before_reset": 0}, (Node, "flag", answers("linear_before_reset", 1))),
    "another alpha": ("LSTM", {"activations": "written", "functions": LEAKY}, (
        recurrent, "function_named", no_alpha)),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_counted_as_wrong(fault, tmp_path, monkeypatch):
    operator, given, patch = PLANTED[fault]
    makers = chosen(operator, 4, **given)
    assert wrong(makers, tmp_path) == 0
    monkeypatch.setattr(*patch)
    assert wrong(makers, tmp_path) >= len(makers) - 1  # a network may have nothing that tells them apart


def test_an_unexpected_refusal_and_an_unexpected_import_are_wrong(tmp_path):
    (maker,) = chosen("LSTM", 1)
    case = maker()
    (verdict,) = judge(dataclasses.replace(case, refused="W"), tmp_path)
    assert (verdict.outcome, verdict.reason) == (WRONG, "accepted, which had to be refused for 'W'")
    refused = next(m() for m in refused_cases())
    assert judge(refused, tmp_path)[0].outcome == REFUSED
    assert "refused, which has to work" in judge(dataclasses.replace(refused, refused=""), tmp_path)[0].reason
    assert "for another reason" in judge(dataclasses.replace(refused, refused="tulip"), tmp_path)[0].reason
    outputs = {name: dataclasses.replace(output, refused="W") for name, output in case.outputs.items()}
    assert [v.outcome for v in judge(dataclasses.replace(case, outputs=outputs), tmp_path)] == [RIGHT, WRONG, WRONG]
    own = {name: np.ones_like(value) for name, value in runtime(case.proto, case.feeds).items()}
    assert "differs from the test's own" in judge(dataclasses.replace(case, own=own), tmp_path)[0].reason


def test_the_page_counts_by_feature_and_names_faults(tmp_path):
    script = Path(__file__).parent.parent / "scripts" / "write_conformance.py"
    spec = importlib.util.spec_from_file_location("write_conformance", script)
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    makers = chosen("GRU", 3, clip=0.4)
    right = verdicts_of(makers, tmp_path)
    bad = dataclasses.replace(right[0], outcome=WRONG, reason="differs | by 3")
    refused = verdicts_of(itertools.islice(refused_cases(), 2), tmp_path)
    groups = {"the operator alone": [*right, bad], "with surroundings": [], "must be refused": refused}
    text = writer.page(groups, {"title": refused}, 1e-7, onnx_judge)
    assert "| the operator alone | 3 | 10 | 9 | 0 | 1 |" in text
    assert "| clip | 0.4 |  | 3 / 0 / 1 |  |" in text
    assert "| planted 0 | run | differs \\| by 3 |" in text
    assert "| title | RNN | Node" in text
    groups["the operator alone"] = right
    assert "## Wrong" not in writer.page(groups, {"title": refused}, 1e-7, onnx_judge)
