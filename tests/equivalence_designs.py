"""Small networks of every form that the Verilog may take, and faults to plant in a text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from amaranth.back import rtlil
from equivalence import Verdict, equivalent
from networks import network_of, started

from hwrnn.cells import CELLS
from hwrnn.rtl.axi import AxiStreamTop
from hwrnn.rtl.network import Network
from hwrnn.rtl.timing import Timing
from hwrnn.rtl.verilog import emit

__all__ = ["DESIGNS", "FAULTS", "emission_verdict", "planted"]

NAME = "network"

#: What a network takes of a design's options; the others are the model's.
OF_NETWORK = ("argmax", "channels", "timing", "weights", "protect", "watchdog")


def design(
    cell: str = "gru", inputs: int = 1, units: Any = 2, bits: int = 3, lanes: Any = 3, **options: Any
) -> Network:
    """A network of small numbers; what the model takes apart from what the network takes."""
    of_network = {key: options.pop(key) for key in OF_NETWORK if key in options}
    begun = options.pop("begun", False)
    model = network_of(cell, inputs, units, options.pop("outputs", 2), bits=bits, **options)[0]
    return Network(started(model) if begun else model, lanes, **of_network)


def _designs() -> dict[str, Callable[[], Network]]:
    forms: dict[str, dict[str, Any]] = {f"{cell}, 1 lane": {"cell": cell, "lanes": 1} for cell in CELLS}
    forms |= {f"{cell}, 8 lanes": {"cell": cell, "lanes": 8} for cell in CELLS}
    forms |= {
        "one unit": {"cell": "rnn", "units": 1, "outputs": 1, "lanes": 1},
        "index of the largest": {"argmax": True, "outputs": 3},
        "every step": {"every_step": True},
        "two layers": {"cell": "rnn", "units": [2, 3], "layers": 2},
        "states that start anywhere": {"cell": "lstm", "begun": True},
        "a clipped cell state": {"cell": "lstm", "cell_clip": 1.0},
        "two channels": {"cell": "rnn", "channels": 2},
        "three channels of two phases": {"cell": "gru-reset-before", "channels": 3},
        "encoder and decoder": {
            "cell": "rnn", "units": [2, 2], "layers": 2, "encoder": 1, "every_step": True, "task": "regression",
        },
        "many registers": {"timing": Timing(memory=2, operand=1, product=2, sums=True, factors=1)},
        "multipliers of adders": {"cell": "rnn", "timing": Timing(sums=True, tree=True)},
        "two products in a multiplier": {"cell": "rnn", "lanes": 4, "timing": Timing(packed=(18, 18))},
        "multipliers in halves": {"cell": "rnn", "lanes": 4, "timing": Timing(sums=True, halves=(8, 8))},
        "weights in blocks": {"cell": "rnn", "weights": "block"},
        "loadable weights": {"cell": "rnn", "units": 1, "outputs": 1, "lanes": 1, "weights": "loadable"},
        "protected weights": {"cell": "rnn", "protect": "secded"},
        "a watchdog": {"cell": "rnn", "watchdog": 20},
        "fitted nonlinearities": {"cell": "gru", "activation": "plan_tanh", "gate": "plan_sigmoid"},
        "4 inputs, 4 units, 5 bits": {"cell": "lstm", "inputs": 4, "units": 4, "bits": 5, "lanes": 4},
    }  # fmt: skip
    return {name: lambda options=options: design(**options) for name, options in forms.items()}


#: Each with a name, made when it is called.
DESIGNS = _designs()


def emission_verdict(network: Network, change: Callable[[str], str] = str, seconds: float = 120) -> Verdict:
    """Whether the Verilog of a network, read again, does what the network as Amaranth elaborates it does.

    Args:
        network: whose RTLIL is the original.
        change: what happens to the Verilog before it is read.
        seconds: that the search may take.
    """
    text = emit(network, NAME).text
    return equivalent(
        rtlil.convert(AxiStreamTop(network), name=NAME, emit_src=False), change(text), NAME, seconds=seconds
    )


def _constant(found: re.Match[str]) -> str:
    bits, digits = int(found[1]), int(found[2], 16)
    return f"{bits}'h{digits ^ 1:x}"


def _swapped(found: re.Match[str]) -> str:
    return f"{found[3]} {found[2]} {found[1]}" if found[2] else f"? {found[5]} : {found[4]}"


#: Kinds of faults: a pattern of Verilog and what stands in its place.
FAULTS: dict[str, tuple[str, Callable[[re.Match[str]], str]]] = {
    "a constant": (r"(?<=[=+\-?:] )(\d+)'h([0-9a-f]+)(?=[; ])", _constant),
    "an operator": (r"(?<= )(\+|-|&|\||==|<=|>=|<|>)(?= [\w$])", lambda m: _OTHER[m[1]]),
    "swapped operands": (
        r"([\w'$()\[\]:]+) (-|>=|<|>) ([\w'$()\[\]:]+)(?=[; ])|\? ([^?:;]+) : ([^?:;]+)(?=;)", _swapped
    ),
}
_OTHER = {"+": "-", "-": "+", "&": "|", "|": "&", "==": "!=", "<=": "<", ">=": ">", "<": "<=", ">": ">="}


def planted(text: str, kind: str, seed: int) -> tuple[str, str]:
    """A text with one fault of a kind in an assignment, and the line before and behind.

    Raises:
        ValueError: there is no place for it.
    """
    pattern, replacement = FAULTS[kind]
    lines = text.splitlines()
    places = []
    for k, line in enumerate(lines):
        if re.match(r"  assign | +\w+(\[.*?\])? (<=|=) ", line):
            start = re.search(r" <?= ", line)
            places += [(k, found) for found in re.finditer(pattern, line) if start and found.start() >= start.end() - 1]
    if not places:
        raise ValueError(f"there is no place for {kind}")
    k, found = places[int(np.random.default_rng(seed).integers(len(places)))]
    before = lines[k]
    lines[k] = before[: found.start()] + replacement(found) + before[found.end() :]
    return "\n".join([*lines, ""]), f"{before.strip()} -> {lines[k].strip()}"
