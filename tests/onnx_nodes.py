"""The node tests of RNN, GRU and LSTM inside the onnx package as cases of the matrix, with their own outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, numpy_helper
from onnx_matrix import OPERATORS, Case, Expected

PARAMETERS = ("W", "R", "B", "initial_h", "initial_c", "P")


def node_cases() -> Iterator[Case]:
    """All 18 of them; what they give as inputs besides X and sequence_lens becomes a constant.

    The onnx package collects by a global list, so it is asked for everything, and what belongs here is picked.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its tests of other operators warn of overflows
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    for test in found:
        operators = [node.op_type for node in test.model.graph.node]
        if operators[0] in OPERATORS and len(operators) == 1:
            inputs, outputs = test.data_sets[0]
            yield _case(operators[0], test.name, test.model, inputs, outputs)


def _case(
    operator: str, name: str, model: ModelProto, inputs: list[np.ndarray], outputs: list[np.ndarray]
) -> Case:  # fmt: skip
    proto = ModelProto()
    proto.CopyFrom(model)
    feeds = {value.name: array for value, array in zip(model.graph.input, inputs, strict=True)}
    del proto.graph.input[:]
    for value in model.graph.input:
        if value.name in PARAMETERS:
            proto.graph.initializer.append(numpy_helper.from_array(feeds.pop(value.name), value.name))
        else:
            proto.graph.input.append(value)
    feeds = {"x" if key == "X" else "lengths" if key == "sequence_lens" else key: v for key, v in feeds.items()}
    for holder in (*proto.graph.node, proto.graph):
        for k, value in enumerate(holder.input):
            if getattr(value, "name", value) in ("X", "sequence_lens"):
                new = "x" if getattr(value, "name", value) == "X" else "lengths"
                if isinstance(value, str):
                    holder.input[k] = new
                else:
                    value.name = new
    layout = any(a.name == "layout" and a.i == 1 for a in proto.graph.node[0].attribute)
    axes = {"Y": "ntdh" if layout else "tdnh"}
    given = {value.name: array for value, array in zip(model.graph.output, outputs, strict=True)}
    expected = {
        key: Expected(axes.get(key, "ndh" if layout else "dnh"), "cell state" if key == "Y_c" else "") for key in given
    }
    return Case(name, operator, {"node test": name}, proto, feeds, "ntf" if layout else "tnf", expected, own=given)
