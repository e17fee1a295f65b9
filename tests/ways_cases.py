"""Configurations that every way of computing a network is asked for: their space, their text, a matrix of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import combinations, pairwise
from math import ceil
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.errors import NoSuchExample
from networks import network_of, started
from test_engine import TIMINGS
from test_golden import ALL

from hwrnn.cells import CELLS, cell_named
from hwrnn.errors import UsageError
from hwrnn.rtl import TARGETS
from hwrnn.rtl.network import Network
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.sim import STALLS

#: One part of each family whose netlists have models to simulate.
PARTS = ("up5k", "hx8k", "ecp5-25k-6", "gw1n-9", "xc7s15", "cyclonev")
_TIMINGS = {name.replace(" ", "-"): timing for name, timing in TIMINGS.items()}
LENGTHS = ("1", "2", "1,1", "3,1,2", "2,1,1,3", "5,2")

#: Every choice of a configuration, the simplest first: what a failure is shrunk to. Only catalogues are iterated.
SPACE: Mapping[str, tuple[Any, ...]] = {
    "cell": tuple(CELLS),
    "activation": ("default", *ALL),
    "gate": ("default", *ALL),
    **{f"{kind}_bits": tuple(range(2, 17)) for kind in ("weight", "activation", "state", "cell")},
    "inputs": tuple(range(1, 21)),
    "units": tuple(range(1, 25)),
    "layers": (1, 2, 3),
    "units2": tuple(range(1, 13)),
    "units3": tuple(range(1, 9)),
    "outputs": (0, 1, 2, 3, 5, 9),  # 0: no head
    "steps": ("last", "every"),
    "head": ("scores", "argmax"),
    "encoder": (0, 1),
    "lanes": (1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 40),
    "channels": (1, 2, 3, 4),
    "timing": ("shortest", *_TIMINGS, "part"),
    "part": PARTS,
    "states": ("zero", "any"),
    "weights": ("auto", "block", "distributed", "loadable"),
    "input_stall": STALLS,
    "output_stall": STALLS,
    "lengths": LENGTHS,
    "seed": tuple(range(100)),
}
#: What a text leaves out.
SIMPLEST = {name: choices[0] for name, choices in SPACE.items()}
_TABLE_BITS = 6  # of results of a table, which has a row for each


class Case(dict[str, Any]):
    """A configuration: one choice of each dimension of :data:`SPACE`, brought to where it can be built.

    Raises:
        ValueError: a dimension or a choice that there is not.
    """

    def __init__(self, choices: Mapping[str, Any]) -> None:
        for name, value in choices.items():
            if name not in SPACE or value not in SPACE[name]:
                raise ValueError(f"A case must have choices of {', '.join(SPACE)}, not {name}={value}")
        super().__init__(SIMPLEST | dict(choices))
        cell = CELLS[self["cell"]]
        idle = [] if cell.gated else ["gate"]
        idle += [] if "c" in cell.states else ["cell_bits"]
        idle += [f"units{k}" for k in (2, 3) if k > self["layers"]]
        if self["steps"] == "last" or self["layers"] == 1 or self["channels"] > 1:
            idle.append("encoder")
        self.update({name: SIMPLEST[name] for name in idle})
        # Yosys makes wrong netlists of several registers behind a product there, which synthesize refuses by name.
        if "-dsp" in TARGETS[self["part"]].synthesis.split() and (self.timing.product > 1 or self.timing.tree):
            self["part"] = "ecp5-25k-6"
        if any(str(self[role]).startswith("table") for role in ("activation", "gate")):
            for kind in ("activation", "state", "cell"):
                self[f"{kind}_bits"] = min(self[f"{kind}_bits"], _TABLE_BITS)

    def __str__(self) -> str:
        """The choices that are not the simplest, as ``scripts/agree --case`` takes them."""
        return " ".join(f"{name}={value}" for name, value in self.items() if value != SIMPLEST[name]) or "cell=rnn"

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.values()))

    @property
    def indices(self) -> tuple[int, ...]:
        """Where each choice stands in the space."""
        return tuple(choices.index(self[name]) for name, choices in SPACE.items())

    @property
    def stalls(self) -> tuple[str, str]:
        return self["input_stall"], self["output_stall"]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(map(int, self["lengths"].split(",")))

    @property
    def units(self) -> list[int]:
        return [self["units"], self["units2"], self["units3"]][: self["layers"]]

    @property
    def timing(self) -> Timing:
        if self["timing"] == "part":
            return TARGETS[self["part"]].timing
        return _TIMINGS.get(self["timing"], SHORTEST)

    def model(self) -> Any:
        """The quantized model, raw inputs that saturate now and then, and their lengths.

        Raises:
            UsageError: formats that no one can choose, where nothing bounds a nonlinearity.
            RuntimeWarning: floats without bounds there.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            return self._model()

    def _model(self) -> Any:
        roles = {role: self[role] for role in ("activation", "gate") if self[role] != "default"}
        kinds = ("weight", "activation", "state", "cell")
        model, x, lengths = network_of(
            self["cell"], self["inputs"], self.units, self["outputs"] or None, lengths=self.lengths, seed=self["seed"],
            widths={f"{kind}_bits": self[f"{kind}_bits"] for kind in kinds}, layers=self["layers"],
            every_step=self["steps"] == "every", encoder=self["encoder"], **roles,
        )  # fmt: skip
        raw, form = model.quantize_input(x), model.input_format
        raw[0, 0, 0], raw[-1, 0, -1] = form.hi, form.lo
        return (started(model, self["seed"]) if self["states"] == "any" else model), raw, lengths

    def network(self, model: Any, probed: bool = False) -> Network:
        """The hardware."""
        return Network(
            model, self["lanes"], self["head"] == "argmax", probed=probed, timing=self.timing,
            channels=self["channels"], weights=self["weights"],
        )  # fmt: skip

    @property
    def cost(self) -> float:
        """About how much work building and simulating it is, with 1 for a small network."""
        gates, sizes = len(cell_named(self["cell"]).gates), [self["inputs"], *self.units]
        pairs = list(pairwise(sizes))
        bits = self["weight_bits"] * max(self["activation_bits"], self["state_bits"])
        lanes = sum(min(self["lanes"], gates * units) for _, units in pairs)
        logic = self["part"] == "hx8k" or self.timing.tree or (self["part"] == "up5k" and lanes > 8)
        cycles = sum(gates * units * (reads + units) for reads, units in pairs) / self["lanes"]
        tables = sum(str(self[role]).startswith(("table", "pwl")) for role in ("activation", "gate"))
        area = lanes * (12 + bits * (1.0 if logic else 0.1)) / 120 + len(pairs) * gates / 4 + self["channels"] / 2
        area += 0.7 * (self["part"] == "xc7s15")  # reading its cells alone takes as long as a small network
        area += sum(units * gates for _, units in pairs) * self["weight_bits"] / 600 + tables
        return area * (1 + sum(self.lengths) * cycles / 2000)


def parsed(text: str) -> Case:
    """The case of a text.

    Raises:
        ValueError: something else.
    """
    choices = {}
    for word in text.split():
        name, _, value = word.partition("=")
        choices[name] = next((one for one in SPACE.get(name, ()) if str(one) == value), value)
    return Case(choices)


def cases() -> st.SearchStrategy[Case]:
    """Any configuration; the first choices of the space are the simplest."""
    return st.tuples(*(st.integers(0, len(choices) - 1) for choices in SPACE.values())).map(_at)


def _at(indices: Iterable[int]) -> Case:
    return Case({name: choices[k] for (name, choices), k in zip(SPACE.items(), indices, strict=False)})


def shrunk(case: Case, fails: Callable[[Case], bool], tries: int = 150) -> Case:
    """The simplest case that Hypothesis finds from a failing one, and that fails too.

    Args:
        tries: how many cases are looked at.
    """
    known = {case: True}

    def look(one: Case) -> bool:
        if one not in known and len(known) <= tries:
            known[one] = fails(one)
        return known.get(one, False)

    # Hypothesis shrinks what it finds in its database: the failing case is put there, with a choice too many, since it
    # takes one that is exact for shrunk already.
    options = settings(
        database=InMemoryExampleDatabase(), max_examples=10 * tries, deadline=None, report_multiple_bugs=False,
        phases=(Phase.reuse, Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    key = str(case).encode()
    exact = st.tuples(*(st.integers(k, k) for k in case.indices), st.integers(0, 1))
    find(exact, lambda _: True, settings=options, database_key=key)
    try:
        find(cases(), look, settings=settings(options, phases=(Phase.reuse, Phase.shrink)), database_key=key)
    except NoSuchExample:
        return case
    return min(
        (one for one, failed in known.items() if failed), key=lambda one: sum(one.indices) + 100 * len(str(one).split())
    )


def _pairs(case: Case) -> set[tuple[Any, ...]]:
    """The choices of a case, and those pairs of them that a matrix of some hundred cases can hold."""
    few = [name for name in SPACE if len(SPACE[name]) <= len(CELLS) and name not in ("seed", "units3")]
    found: set[tuple[Any, ...]] = {(name, value) for name, value in case.items() if name != "seed"}
    return found | {(a, case[a], b, case[b]) for a, b in combinations(few, 2)}


@cache
def matrix(
    count: int = 200, everyday: int = 20, seed: int = 6, most: tuple[float, float] = (2.2, 5.0)
) -> tuple[Case, ...]:
    """Random cases, the first ones small; each is of many the one with most choices and pairs that are new.

    Args:
        most: the cost of one of the first and of the others.
    """
    rng = np.random.default_rng([seed, 0xA9])
    chosen: list[Case] = []
    seen: set[tuple[Any, ...]] = set()
    while len(chosen) < count:
        limit = most[len(chosen) >= everyday]
        drawn: list[Case] = []
        while len(drawn) < 12:
            one = _at(rng.integers(0, [len(choices) for choices in SPACE.values()]))
            if one.cost > limit:  # fewer units rather than fewer of the others
                one = Case(one | {"units": ceil(one["units"] / 4), "inputs": ceil(one["inputs"] / 3)})
            if one.cost <= limit:
                drawn.append(one)
        drawn.sort(key=lambda one: -sum(10 if len(new) == 2 else 1 for new in _pairs(one) - seen))
        for one in drawn:
            try:
                one.network(one.model()[0])
            except (UsageError, RuntimeWarning, FloatingPointError):
                continue
            chosen.append(one)
            seen |= _pairs(one)
            break
    return tuple(chosen)


def coverage(chosen: Iterable[Case]) -> tuple[dict[str, tuple[int, int]], tuple[int, int]]:
    """By dimension, how many choices cases have and how many there are; likewise of pairs of the small dimensions."""
    chosen = list(chosen)
    seen = set().union(*map(_pairs, chosen))
    single = {name: (sum((name, v) in seen for v in SPACE[name]), len(SPACE[name])) for name in SPACE if name != "seed"}
    few = {name for name in SPACE if len(SPACE[name]) <= len(CELLS) and name not in ("seed", "units3")}
    total = sum(len(SPACE[a]) * len(SPACE[b]) for a, b in combinations(sorted(few), 2))
    return single, (sum(len(one) == 4 for one in seen), total)
