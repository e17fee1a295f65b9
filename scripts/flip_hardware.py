"""The hardware whose bits scripts/flip.py flips: its registers and memories in CXXRTL, and the flips there are."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.back import rtlil

from hwrnn.compiler import CPP, shared_library
from hwrnn.golden import golden
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl import Network
from hwrnn.rtl.bit_flips import with_flipped_weight, with_layer
from hwrnn.rtl.lanes import sum_shape_of
from hwrnn.sim import cxxrtl
from hwrnn.sim.stimuli import packed, stimulus, unpacked

UNITS, LANES, WATCHDOG = 16, 16, 2000


class _Run(ctypes.Structure):
    """``Run`` of flip.cpp."""

    _fields_ = [
        ("payloads", ctypes.c_void_p), ("count", ctypes.c_int64), ("outputs", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("capacity", "expected", "patience", "item", "address", "bit", "when")),
        *((name, ctypes.c_int64) for name in ("received", "cycles", "faults")),
    ]  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A register or a memory of the hardware: its number and name, bits of a word, words."""

    number: int
    name: str
    width: int
    depth: int


@dataclass(frozen=True)
class Outcome:
    """What left the network: payloads, how many came and should, and the outputs that told of faults."""

    outputs: np.ndarray
    received: int
    expected: int
    cycles: int
    told: frozenset[str]


class Hardware:
    """A network in CXXRTL, whose bits can be flipped."""

    def __init__(self, model: QuantizedModel, protect: str) -> None:
        self.protect = protect
        self.network = network = Network(model, LANES, protect=protect, watchdog=WATCHDOG)
        self.faults = (*network.faults, "stalled")
        text = rtlil.convert(network, name="top", emit_src=False)
        written = cxxrtl._model(text)
        found = re.findall(r"^\t(?:wire|memory)<(\d+)> (\w+)(?: \{ (\d+)u \})?", written, re.MULTILINE)
        self.items = tuple(
            Item(k, member.partition("p_")[2].replace("_2e_", ".").replace("__", "_"), int(width), int(depth or 0))
            for k, (width, member, depth) in enumerate(found)
        )
        members = " ".join(f"X({member})" for _, member, _ in found)
        ports = " ".join(f"X({cxxrtl._member(name)})" for name in self.faults)
        files = resources.files("hwrnn.sim")
        pieces = (files.joinpath("slices.h").read_text(), written, cxxrtl._names(network),
                  f"#define FAULTS(X) {ports}\n#define ITEMS(X) {members}\n",
                  Path(__file__).with_name("flip.cpp").read_text())  # fmt: skip
        flags = ("-std=c++17", "-O1", "-w", "-DCXXRTL_NDEBUG", f"-I{cxxrtl._headers()}")
        self.library = shared_library(
            "flip", lambda: "".join(pieces), flags, key="\0".join(pieces), language=CPP, purpose="the campaign",
            instead="install one",
        )  # fmt: skip
        self.library.flip_new.restype = ctypes.c_void_p
        self.library.flip_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self.model = self.library.flip_new()

    def run(
        self, raw: np.ndarray, lengths: np.ndarray, item: Item | None = None, address: int = 0, bit: int = 0,
        when: int = 0,
    ) -> Outcome:  # fmt: skip
        """Run sequences with one bit flipped in the cycle ``when``."""
        given = stimulus(self.network, raw, lengths)
        payloads = packed(given, self.network.input_format)
        capacity = given.outputs + 256
        outputs = np.zeros(capacity, np.uint64)
        patience = 8 * sum(engine.cycles_per_step for engine in self.network.engines) + 2 * WATCHDOG
        run = _Run(
            payloads.ctypes.data, len(payloads), outputs.ctypes.data, capacity, given.outputs, patience,
            -1 if item is None else item.number, address, bit, when,
        )  # fmt: skip
        self.library.flip_run(self.model, ctypes.byref(run))
        told = frozenset(name for k, name in enumerate(self.faults) if run.faults >> k & 1)
        return Outcome(outputs[: min(run.received, capacity)], run.received, given.outputs, run.cycles, told)


class Data:
    """Test sequences in integers, and what golden makes of them."""

    def __init__(self, model: QuantizedModel, raw: np.ndarray, lengths: np.ndarray) -> None:
        self.model, self.raw, self.lengths = model, raw, lengths
        self.output = golden(model, raw, lengths).output
        self.classes = self.output.argmax(-1)

    def some(self, numbers: Any) -> Data:
        """A few of the sequences."""
        return Data(self.model, self.raw[numbers], self.lengths[numbers])


HARMLESS, SAME_CLASS, OTHER_CLASS, BROKEN, HANGS = EFFECTS = (
    "no output changed", "classes the same", "a class changed", "frames broken", "hangs",
)  # fmt: skip


def effect(output: np.ndarray, data: Data) -> str:
    """What changed outputs (N, classes) mean."""
    if (output == data.output).all():
        return HARMLESS
    return SAME_CLASS if (output.argmax(-1) == data.classes).all() else OTHER_CLASS


def effect_of(outcome: Outcome, data: Data, hardware: Hardware) -> str:
    """What became of a run: outputs of the right number and with the right ends, or not."""
    if outcome.received < outcome.expected:
        return HANGS
    values, ends = unpacked(outcome.outputs, hardware.network.output_format)
    right = np.zeros(outcome.expected, np.int64)
    right[data.output.shape[1] - 1 :: data.output.shape[1]] = 1
    if outcome.received > outcome.expected or (ends != right).any():
        return BROKEN
    return effect(values.reshape(data.output.shape), data)


# Weights and biases -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flip:
    """A flipped bit of a stored word of an engine's memory, and the model with it where it is a weight's."""

    layer: int
    what: str
    address: int
    bit: int
    value_bit: int  # of the weight or the bias; -1 for a check bit
    model: QuantizedModel | None = None


def places_of(hardware: Hardware, k: int) -> dict[tuple[int, int], tuple[str, str, int, int]]:
    """Where weights are: address and lane to gate, operand, unit and column."""
    lanes = hardware.network.engines[k].lanes
    layer, found, address = lanes.layer, {}, 0
    for p in lanes.schedule.phases:
        for group in range(p.groups):
            for q in range(p.passes):
                for lane in range(p.lanes):
                    unit = group * p.parallel + lane // p.rows_per_pass
                    row = q * p.rows_per_pass + lane % p.rows_per_pass
                    if unit >= p.units or row >= len(p.rows):
                        continue
                    at = 0
                    for name, size in p.operands:
                        for gate in p.rows[row]:
                            if name in p.phase.gates[gate]:
                                for column in range(size):
                                    found[address + at + column, lane] = gate, name, unit, column
                        at += size
                address += p.columns
    width = lanes.weight_shape.width
    for (at, lane), (gate, name, unit, column) in found.items():  # the memory itself agrees
        raw = int(layer.weights[gate, name][unit, column]) & ((1 << width) - 1)
        assert lanes.words[at] >> (lane * width) & ((1 << width) - 1) == raw
    return found


def weight_flips(hardware: Hardware) -> Iterator[Flip]:
    """Every bit of every weight that takes part."""
    model = hardware.network.model
    for k, engine in enumerate(hardware.network.engines):
        width = engine.lanes.weight_shape.width
        for (address, lane), (gate, name, unit, column) in places_of(hardware, k).items():
            for bit in range(width):
                layer = with_flipped_weight(engine.layer, (gate, name), (unit, column), bit, width)
                fits = layer is not None and sum_shape_of(layer).width <= engine.lanes.sum_shape.width
                changed = with_layer(model, k, layer) if layer is not None and fits else None
                yield Flip(k, "weights", address, lane * width + bit, bit, changed)


def bias_flips(hardware: Hardware) -> Iterator[Flip]:
    """Every bit of every bias word up to its lanes' last."""
    for k, engine in enumerate(hardware.network.engines):
        width = engine.lanes.sum_shape.width
        for address in range(len(engine.lanes.bias_words)):
            for bit in range(engine.lanes.bias_word_bits):
                yield Flip(k, "biases", address, bit, bit % width)


def check_flips(hardware: Hardware) -> Iterator[Flip]:
    """Every check bit."""
    for k, engine in enumerate(hardware.network.engines):
        lanes = engine.lanes
        for what, words, code in (("weights", lanes.words, lanes.code), ("biases", lanes.bias_words, lanes.bias_code)):
            for address in range(len(words)):
                for bit in range(code.bits, code.width):
                    yield Flip(k, what, address, bit, -1)


def memory_of(hardware: Hardware, flip: Flip) -> Item:
    """The memory that a flip is in."""
    return next(item for item in hardware.items if item.name == f"layer{flip.layer}.lanes.{flip.what}")


def chosen(flips: Iterator[Flip], count: int, rng: np.random.Generator) -> list[Flip]:
    """Some of the flips, or all."""
    every = list(flips)
    return every if len(every) <= count else [every[k] for k in sorted(rng.choice(len(every), count, replace=False))]


def simulated(hardware: Hardware, flip: Flip, data: Data) -> tuple[str, frozenset[str]]:
    """What a flip that is there from the start does, and what is told of it."""
    outcome = hardware.run(data.raw, data.lengths, memory_of(hardware, flip), flip.address, flip.bit)
    return effect_of(outcome, data, hardware), outcome.told


# Registers and states ------------------------------------------------------------------------------------------------

#: Places by what names hold, the first that fits.
PLACES = (
    ("weights and biases", r"lanes\.(weights|biases)$"),
    ("decoder and what it tells", r"^fault_|lanes\.((weights|biases)_|checked|reading)"),
    ("watchdog", r"^watchdog\."),
    ("state memory", r"\.vector_\w+$"),
    ("unit values", r"\.unit_\w+$"),
    ("input vectors", r"inputs\.memory$"),
    ("output queue", r"buffer\."),
    ("accumulators and their rows", r"lanes\.(sum|total|first|held)_\d|drain_\d\.(hold|kept)_"),
    ("words, operands, products", r"lanes\.(weight|product|pair|both|read|line|bias_line|bias_data)|operand"),
    ("element-wise path", r"drain_\d\.(?!.*(flags|valid|unit|done|left|first|emits|index|count))"),
    ("control", r""),
)


def place_of(item: Item) -> str:
    """The place of a register or a memory."""
    return next(place for place, names in PLACES if re.search(names, item.name))


def transients(
    hardware: Hardware, data: Data, count: int, rng: np.random.Generator, tick: Any
) -> dict[str, Counter[str]]:
    """Flips of each place but the memories of weights, in a random cycle: by effect, and ``told``."""
    by_place: dict[str, list[tuple[Item, int]]] = {}
    for item in hardware.items:
        by_place.setdefault(place_of(item), []).append((item, item.width * max(item.depth, 1)))
    found: dict[str, Counter[str]] = {}
    for place in (name for name, _ in PLACES[1:] if name in by_place):
        sizes = np.array([bits for _, bits in by_place[place]])
        tally = found[place] = Counter(bits=int(sizes.sum()))
        for _ in range(count):
            item = by_place[place][rng.choice(len(sizes), p=sizes / sizes.sum())][0]
            some = data.some(rng.choice(len(data.lengths), 3, replace=False))
            within = int(some.lengths[0]) * hardware.network.cycles_per_step
            address, bit = int(rng.integers(max(item.depth, 1))), int(rng.integers(item.width))
            outcome = hardware.run(some.raw, some.lengths, item, address, bit, int(rng.integers(within)))
            tally[effect_of(outcome, some, hardware)] += 1
            tally["told"] += bool(outcome.told)
            tick()
    return found
