"""Flip single bits of a trained network's hardware, and count what follows; ``scripts/flip`` runs it.

The network is a GRU on the built-in Japanese Vowels. A flipped weight or bias stays, and all test sequences run with
it: through golden wherever the flipped layer's accumulators provably still hold its sums, for then golden computes what
the hardware does (a sample is simulated and compared), else in the hardware itself. Every such flip is also simulated
in the protected networks, for what they tell. A flip of a register or a state happens once, in a random cycle of a
random sequence, which two others follow.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import verification
from flip_hardware import (
    EFFECTS,
    HARMLESS,
    LANES,
    PLACES,
    UNITS,
    WATCHDOG,
    Data,
    Flip,
    Hardware,
    bias_flips,
    check_flips,
    chosen,
    effect,
    effect_of,
    memory_of,
    simulated,
    transients,
    weight_flips,
)  # fmt: skip

from hwrnn import report, train
from hwrnn.data import load_dataset
from hwrnn.errors import UsageError
from hwrnn.files import atomic_path
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.quantization import QuantizedModel, quantize
from hwrnn.rtl import generate
from hwrnn.rtl.flow import implement
from hwrnn.rtl.protection import PROTECTIONS
from hwrnn.sim.stimuli import unpacked

ROOT = Path(__file__).resolve().parent.parent


def network() -> tuple[QuantizedModel, Data]:
    """The trained network and its test sequences."""
    data = load_dataset("japanese-vowels")
    model = build_model(data.inputs, data.outputs, cell="gru", hidden=UNITS, seed=0)
    quantized = quantize(train(model, data, epochs=40, seed=0), data, 8)
    part = data.evaluation
    return quantized, Data(quantized, quantized.quantize_input(part.x), part.lengths)


class Ticks:
    """Progress of a number of flips."""

    def __init__(self, what: str, total: int) -> None:
        self.bar, self.total, self.done = report.Progress(what), total, 0

    def __call__(self) -> None:
        self.done += 1
        self.bar(self.done, self.total)


def golden_equals(hardwares: dict[str, Hardware], flips: list[Flip], data: Data) -> int:
    """How many simulated runs of flipped weights gave other outputs than golden, or than no flip where corrected."""
    differ = 0
    tick = Ticks("golden against hardware", len(flips) * len(hardwares))
    for flip in flips:
        for protect, hardware in hardwares.items():
            outcome = hardware.run(data.raw, data.lengths, memory_of(hardware, flip), flip.address, flip.bit)
            model = flip.model if protect != "secded" else data.model
            expected = golden(model, data.raw, data.lengths).output.ravel()  # type: ignore[arg-type]
            values = unpacked(outcome.outputs, hardware.network.output_format)[0]
            differ += outcome.received != outcome.expected or bool((values != expected).any())
            tick()
    return differ


@dataclass
class Weights:
    """What flips of weights and biases did."""

    effects: dict[str, Counter[str]]  # of each kind of memory, unprotected
    told: dict[tuple[str, str], Counter[str]]  # by kind and protection
    by_bit: np.ndarray  # (bits, 3): flips, those of them that changed a class, and sequences whose class changed in all


Flips = dict[str, list[Flip]]


def flips_of(hardwares: dict[str, Hardware], count: int, rng: np.random.Generator) -> dict[str, Flips]:
    """The flips of each protection, those of the data the same for all."""
    plain = hardwares["none"]
    data = {
        "weights": chosen(weight_flips(plain), count, rng), "biases": chosen(bias_flips(plain), count // 16, rng),
    }  # fmt: skip
    found = {"none": data}
    for protect in ("parity", "secded"):
        found[protect] = {**data, "check bits": chosen(check_flips(hardwares[protect]), count // 4, rng)}
    return found


def measure_effects(found: Weights, plain: Hardware, flips: Flips, data: Data) -> None:
    """What flips do to the unprotected network on all test sequences."""
    for what, some in flips.items():
        tally = found.effects[what] = Counter()
        tick = Ticks(f"{what}, unprotected", len(some))
        for flip in some:
            if flip.model is None:
                kind = simulated(plain, flip, data)[0]
            else:
                output = golden(flip.model, data.raw, data.lengths).output
                kind = effect(output, data)
                changed = int((output.argmax(-1) != data.classes).sum())
                found.by_bit[flip.value_bit] += (1, changed > 0, changed)
            tally[kind] += 1
            tick()


def measure_told(found: Weights, hardwares: dict[str, Hardware], flips: dict[str, Flips], short: Data) -> None:
    """What the protected networks tell of the same flips, and what leaves them, on few sequences.

    A parity changes nothing on the way of the data: its outputs have to be those of the unprotected network.
    """
    plain = hardwares["none"]
    for protect in ("parity", "secded"):
        hardware = hardwares[protect]
        for what, some in flips[protect].items():
            tally = found.told[what, protect] = Counter(flips=len(some))
            tick = Ticks(f"{what}, {protect}", len(some))
            for flip in some:
                given = flip.address, flip.bit
                outcome = hardware.run(short.raw, short.lengths, memory_of(hardware, flip), *given)
                tally.update(outcome.told)
                tally[effect_of(outcome, short, hardware)] += 1
                if protect == "parity" and flip.value_bit >= 0:
                    same = plain.run(short.raw, short.lengths, memory_of(plain, flip), *given)
                    tally["as unprotected"] += np.array_equal(same.outputs, outcome.outputs)
                tick()


def weight_rows(found: Weights) -> list[list[Any]]:
    """The table of flips that stay; effects on all test sequences where those of the unprotected network count."""
    rows: list[list[Any]] = []
    for what in ("weights", "biases", "check bits"):
        if what in found.effects:
            effects = found.effects[what]
            rows.append([what, "none", effects.total(), 0, 0, *(effects[kind] for kind in EFFECTS)])
        for protect in ("parity", "secded"):
            told = found.told[what, protect]
            corrected = told["fault_corrected"]
            own = told if told["as unprotected"] < told["flips"] else found.effects[what]
            rows.append([what, protect, told["flips"], told["fault_detected"] + corrected, corrected,
                         *(own[kind] for kind in EFFECTS)])  # fmt: skip
    return [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]


def text_of(found: Weights, data: Data, places: list[list[Any]], sample: int, differ: int) -> str:
    """The sentences of the page."""
    right = 100 * (data.classes == np.asarray(load_dataset("japanese-vowels").evaluation.y)).mean()
    stays = sum(tally.total() for tally in found.effects.values())
    once = sum(int(row[3]) for row in places)
    return (
        f"A GRU of {UNITS} units in 8 bits, trained on the Japanese Vowels ({right:.1f} % of {len(data.lengths)} test"
        f" sequences right), with {LANES} lanes. {stays:,} bits of weights and biases were flipped for good, and"
        f" {once:,} bits of registers and states once. Of the former and of the check bits, the protected networks left"
        f" {untold(found)} untold, and SECDED left {uncorrected(found)} uncorrected. Effects of the unprotected network"
        f" are those on all test sequences, flipped weights by golden; {3 * sample} simulated runs of ten sequences"
        f" with {sample} of the flips gave golden's integers but for {differ}. The protected networks ran the shortest"
        " test sequence with every flip: the effects of SECDED and of check bits are those on it alone; with parity the"
        f" outputs were the unprotected network's but for {unlike(found)} flips, so its effects on all sequences are"
        " too. Registers and states have no check bits; the watchdog sees a partner that waits, not an engine that"
        " hangs. Harmless means harmless to these sequences. Not tried: flips in the configuration of the logic, and"
        " more than one at a time."
    )


def untold(found: Weights) -> int:
    """Flips in protected memories that nothing tells of."""
    return sum(t["flips"] - t["fault_detected"] - t["fault_corrected"] for t in found.told.values())


def uncorrected(found: Weights) -> int:
    """Flips that SECDED did not correct, or that changed its outputs."""
    own = [tally for (_, protect), tally in found.told.items() if protect == "secded"]
    return sum(t["flips"] - min(t["fault_corrected"], t[HARMLESS]) for t in own)


def unlike(found: Weights) -> int:
    """Flips of data with which a parity's network gave other outputs than the unprotected one."""
    kinds = [found.told[what, "parity"] for what in found.effects]
    return sum(t["flips"] - t["as unprotected"] for t in kinds)


def bit_table(found: Weights) -> verification.Table:
    """Flipped weights by their bit."""
    rows = [
        [bit, f"{flips:,}", f"{changing:,}", f"{100 * changing / flips:.1f} %", f"{sequences / flips:.2f}"]
        for bit, (flips, changing, sequences) in enumerate(found.by_bit.tolist()) if flips
    ]  # fmt: skip
    head = ["bit", "flips", "a class changed", "share", "sequences whose class changed, mean"]
    return verification.Table(head, rows, "The weights by the bit that was flipped, the last being the sign:")


def draw(found: Weights, count: int, path: Path) -> None:
    """Shares by bit of the weight.

    Args:
        count: of the test sequences.
    """
    from matplotlib.figure import Figure

    bits = np.arange(len(found.by_bit))
    flips = np.maximum(found.by_bit[:, 0], 1)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    shares = (
        ("flips that change any sequence's class", 100 * found.by_bit[:, 1] / flips),
        ("sequences whose class a flip changes, mean", 100 * found.by_bit[:, 2] / flips / count),
    )
    for axes, (title, values) in zip(figure.subplots(1, 2), shares, strict=True):
        axes.bar(bits, values)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(f"bit of the weight ({len(bits) - 1}: the sign)")
        axes.set_ylabel("percent")
        axes.set_xticks(bits)
        axes.grid(axis="y", alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def costs(model: QuantizedModel, parts: list[tuple[str, int]], seeds: int) -> list[list[Any]]:
    """What protection costs on parts: synthesis, and where nextpnr has the part its clock."""
    rows = []
    for device, lanes in parts:
        for options in ({}, {"protect": "parity"}, {"protect": "secded"}, {"watchdog": WATCHDOG}):
            words = ", ".join(map(str, (next(iter(options.values()), "none"),)))
            report.say(f"cost on {device}: {options or 'none'}")
            with tempfile.TemporaryDirectory(prefix="hwrnn-flip-") as folder:
                manifest = generate(model, Path(folder) / "out", lanes=lanes, target=device, **options)
                made = implement(Path(folder) / "out", device, seeds=seeds)
            rows.append([
                device, lanes, f"watchdog {WATCHDOG}" if "watchdog" in options else words,
                manifest["cycles_per_step"]["value"], manifest["latency"]["value"], f"{made.lut:,}", f"{made.ff:,}",
                made.cells.memories, f"{made.placed[0].fmax_mhz:.0f}" if made.placed else "-",
            ])  # fmt: skip
            print(rows[-1], flush=True)
    return rows


COST = "What it costs, the same network:"


def recorded() -> dict[str, Any]:
    """What stands on the page."""
    file = verification.FOLDER / "flips.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def measure_cost(model: QuantizedModel, parts: str, seeds: int, record: bool) -> int:
    """Measure the cost, and write it beside what is recorded."""
    pairs = [(part, int(lanes)) for part, _, lanes in (word.partition(":") for word in parts.split(","))]
    head = ["part", "lanes", "protection", "cycles a step", "latency", "LUT", "FF", "memory blocks", "MHz"]
    table = verification.Table(head, costs(model, pairs, seeds), COST)
    print(table.markdown())
    if record:
        said = recorded()
        tables = [verification.Table(**one) for one in said["tables"] if one["caption"] != COST]
        verification.record("flips", said["command"], said["text"], [*tables, table], said["pictures"])
    return 0


def main() -> int:
    """Flip, count, and write the part of the page; 1 where a flip was not told that should have been."""
    parser = argparse.ArgumentParser(prog="scripts/flip", description=__doc__)
    parser.add_argument("--count", type=int, default=6000, metavar="N", help="flips of weights (default: 6000)")
    parser.add_argument("--places", type=int, default=300, metavar="N", help="flips of each other place (default: 300)")
    parser.add_argument("--sample", type=int, default=60, metavar="N", help="flips simulated against golden (60)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of what is chosen (default: 0)")
    parser.add_argument(
        "--cost", nargs="?", const="ecp5-25k-6:16,up5k:4", metavar="PART:LANES,..",
        help="flip nothing, but measure what protection costs on parts, beside what is recorded",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of place and route (default: 1)")
    parser.add_argument("--record", action="store_true", help="write docs/verification")
    given = parser.parse_args()
    model, data = network()
    if given.cost is not None:
        return measure_cost(model, given.cost, given.seeds, given.record)
    hardwares = {protect: Hardware(model, protect) for protect in PROTECTIONS}
    rng = np.random.default_rng(given.seed)
    few = data.some(rng.choice(len(data.lengths), 10, replace=False))
    for protect, hardware in hardwares.items():
        sound = hardware.run(few.raw, few.lengths)
        if effect_of(sound, few, hardware) != HARMLESS or sound.told:
            raise RuntimeError(f"the network with {protect} differs from golden without any flip")
    provable = [flip for flip in weight_flips(hardwares["none"]) if flip.model is not None]
    sample = [provable[k] for k in rng.choice(len(provable), given.sample, replace=False)]
    differ = golden_equals(hardwares, sample, few)
    flips = flips_of(hardwares, given.count, rng)
    bits = max(engine.lanes.weight_shape.width for engine in hardwares["none"].network.engines)
    found = Weights({}, {}, np.zeros((bits, 3), np.int64))
    measure_effects(found, hardwares["none"], flips["none"], data)
    measure_told(found, hardwares, flips, data.some(np.argsort(data.lengths, kind="stable")[:1]))
    rows = weight_rows(found)
    places = []
    for protect, hardware in hardwares.items():
        tick = Ticks(f"registers and states, {protect}", given.places * (len(PLACES) - 1))
        for place, tally in transients(hardware, data, given.places, rng, tick).items():
            kinds = [tally[kind] for kind in EFFECTS]
            places.append([place, protect, f"{tally['bits']:,}", sum(kinds), tally["told"], *kinds])
    places.sort(key=lambda row: [name for name, _ in PLACES].index(row[0]))
    tables = [
        verification.Table(["memory", "protection", "flips", "told", "corrected", *EFFECTS], rows,
                           "One flipped bit that stays:"),
        bit_table(found),
        verification.Table(["place", "protection", "bits", "flips", "told", *EFFECTS], places,
                           "One bit flipped once, in a random cycle of a sequence that two others follow:"),
    ]  # fmt: skip
    text = text_of(found, data, places, len(sample), differ)
    for table in tables:
        print(table.markdown())
    print(text)
    if given.record:
        draw(found, len(data.lengths), ROOT / "docs" / "pictures" / "flips.png")
        more = "".join(f" --{name} {getattr(given, name)}" for name in ("count", "places", "sample", "seed")
                       if getattr(given, name) != parser.get_default(name))  # fmt: skip
        tables += [verification.Table(**table) for table in recorded().get("tables", ()) if table["caption"] == COST]
        command = f"scripts/flip --record{more} && scripts/flip --cost --record"
        verification.record("flips", command, text, tables, ["pictures/flips.png"])
    return int(bool(untold(found) or uncorrected(found) or unlike(found) or differ))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
