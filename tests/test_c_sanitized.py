"""Printed C under the sanitizers of addresses and of undefined behaviour, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwrnn.compiler import C, compiler

FLAGS = ("-O1", "-g", "-w", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

GOLDEN = """
from test_golden import quantized
from hwrnn.golden import golden
from test_c_golden import assert_same

for cell, bits, options in (
    ("lstm", 8, {"activation": "leaky_relu"}), ("gru-reset-before", 4, {}), ("gru", 16, {"gate": "plan_sigmoid"}),
):
    q, raw, lengths = quantized(cell, bits, inputs=3, hidden=5, outputs=3, count=37, steps=7, gain=2.0, **options)
    raw[::3] = q.input_format.lo
    assert_same(golden(q, raw, lengths, keep=True, compiled=False), golden(q, raw, lengths, keep=True, compiled=True))
"""

TRAINING = """
import numpy as np
from hwrnn.formats import Widths
from hwrnn.model import build_model
from hwrnn.quantization import with_hardware_functions
from test_training_compiled import assert_same, check
from test_training_quantized import X, formats_for

for cell, options in (("gru-reset-before", {"activation": "tanh"}), ("gru", {"gate": "plan_sigmoid"})):
    check(build_model(3, 4, cell=cell, hidden=(5, 3), layers=2, every_step=True, seed=3, **options))
model = build_model(3, 4, cell="lstm", hidden=6, seed=3)
formats = formats_for(model, Widths.of(6))
labels = np.random.default_rng(1).integers(0, 4, (1, len(X)))
lengths = np.array([7, 1, 4, 7, 2, 6, 3, 5])
assert_same(with_hardware_functions(model, formats), X, lengths, labels, "cross_entropy", formats)
"""

OVERRUN = """
from hwrnn import c_golden
room = c_golden._source
c_golden._source = lambda *given: room(*given).replace("+ 1) * LANES; }", "- 3) * LANES; }")
"""


def run(script, tmp_path):
    """Run a script whose libraries are built with sanitizers."""
    command = compiler(C)
    if command is None:
        pytest.skip("no C compiler")
    runtime = subprocess.run([*command, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(runtime):
        pytest.skip("the compiler has no address sanitizer")
    patch = f"import hwrnn.c_source\nhwrnn.c_source.flags = lambda: {FLAGS!r}\n"
    tests = Path(__file__).parent
    environment = {
        **os.environ, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "HWRNN_CACHE": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]), "OPENBLAS_NUM_THREADS": "1",
        "PYTHONMALLOC": "malloc",
    }  # fmt: skip
    line = [sys.executable, "-c", patch + script]
    return subprocess.run(line, env=environment, capture_output=True, text=True, errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize("script", [GOLDEN, TRAINING], ids=["golden", "training"])
def test_nothing_is_undefined(script, tmp_path):
    done = run(script, tmp_path)
    assert not done.returncode, done.stderr[-2000:]
    assert list(tmp_path.glob("*.so"))


@pytest.mark.slow
def test_a_planted_overrun_is_found(tmp_path):
    done = run(OVERRUN + GOLDEN, tmp_path)
    assert done.returncode and "AddressSanitizer: heap-buffer-overflow" in done.stderr
