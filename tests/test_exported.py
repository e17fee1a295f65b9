"""Files of other people's exporters compute what ONNX Runtime computes, and computed when they were made.

``tests/exported`` holds them; ``scripts/make_exported`` wrote them, and its README says with which versions.
"""

import re
import warnings

import numpy as np
import onnx
import pytest
from onnx_exported import FOLDER, INDEX, exported_cases
from onnx_judge import TOLERANCE, WRONG, difference, judge, shorter
from onnx_matrix import runtime

import hwrnn

pytest.importorskip("onnxruntime")

CASES = {case.name: case for case in exported_cases()}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_right_or_refused(name, tmp_path):
    verdicts = judge(CASES[name], tmp_path)
    assert not [shorter(verdict) for verdict in verdicts if verdict.outcome == WRONG]
    assert len(verdicts) == 1 + (0 if CASES[name].refused else len(CASES[name].outputs))  # its outputs, then models


def test_most_of_them_are_right():
    refused = [name for name, case in CASES.items() if case.refused]
    assert len(CASES) == 85 and len(refused) == 16


def test_what_is_stored_tells_networks_apart():
    """Where import is right it equals the stored outputs and today's; refused files' are compared here."""
    for case in CASES.values():
        assert all(np.ptp(value) > 0 for value in case.own.values())
        if case.refused:
            found = runtime(case.proto, case.feeds)
            assert found.keys() == case.own.keys()
            assert all(difference(found[name], value) <= TOLERANCE for name, value in case.own.items())


def test_a_reset_that_pytorch_does_not_have_is_warned_of(tmp_path):
    """Exporters of some versions wrote linear_before_reset=0 for nn.GRU, which always resets after the product."""
    proto = onnx.load(FOLDER / "dynamo-gru-last.onnx")
    (node,) = [node for node in proto.graph.node if node.op_type == "GRU"]
    (attribute,) = [a for a in node.attribute if a.name == "linear_before_reset"]
    attribute.i = 0
    onnx.save(proto, tmp_path / "gru.onnx")
    with pytest.warns(UserWarning, match="linear_before_reset=0"):
        hwrnn.import_onnx(tmp_path / "gru.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hwrnn.import_onnx(FOLDER / "dynamo-gru-last.onnx")


def test_the_folder_is_small_and_names_no_machine():
    files = list(FOLDER.iterdir())
    assert sum(path.stat().st_size for path in files) < 2**20
    assert {path.stem for path in files if path.suffix == ".onnx"} == set(INDEX["files"])
    for path in files:
        assert not re.search(rb"/(tmp|home|work|root|usr)/", path.read_bytes()), path.name
