"""The texts of errors.py, word for word."""

import sys

import pytest

from hwrnn.errors import MissingExtra, UsageError, require


def test_usage_error_is_a_value_error():
    assert issubclass(UsageError, ValueError)
    assert issubclass(MissingExtra, UsageError)


def test_require_returns_the_module():
    assert require("json.decoder", "plot").JSONDecoder


@pytest.mark.parametrize("name", ["hwrnn_no_such_module", "hwrnn_no_such_module.part"])
def test_require_names_the_extra(name):
    with pytest.raises(MissingExtra) as caught:
        require(name, "runtime")
    assert (
        str(caught.value) == f"Module '{name}' must be installed for this: run pip install 'hwrnn[runtime]'"
    )


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import hwrnn_no_such_dependency", "No module named 'hwrnn_no_such_dependency'"),
        ("raise ImportError('half loaded', name='hwrnn_broken_extra')", "half loaded"),
        ("raise ModuleNotFoundError('no', name='hwrnn_broken')", "no"),
        ("raise ImportError('libfoo.so:\\n not found')", "libfoo.so: not found"),
    ],
)
def test_require_tells_a_broken_module_from_a_missing_one(tmp_path, monkeypatch, code, reason):
    (tmp_path / "hwrnn_broken_extra.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra) as caught:
        require("hwrnn_broken_extra", "plot")
    assert str(caught.value) == (
        f"Module 'hwrnn_broken_extra' must be importable, but fails ({reason}): run pip install 'hwrnn[plot]'"
    )
    assert "hwrnn_broken_extra" not in sys.modules
