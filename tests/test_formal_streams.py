"""Streams lose nothing and double nothing: proofs of every part and of small engines, and faults that refute them."""

import formal_engine
import formal_streams
import pytest
from formal import missing
from formal_streams import checker

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(checker() is None, reason="needs pyosys, which brings ABC"),
]

PROOFS = {**formal_streams.PROOFS, **formal_engine.PROOFS}


@pytest.mark.parametrize(
    "name", [n if not p.slow else pytest.param(n, marks=pytest.mark.slow) for n, p in PROOFS.items()]
)
def test_streams(name):
    PROOFS[name].check()
