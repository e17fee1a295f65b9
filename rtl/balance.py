"""Lanes for every layer of a stack, so that their initiation intervals meet and a part is used as far as it goes.

A stack is as fast as its slowest layer, so lanes that make one layer faster than the others are wasted. The balance is
the least interval T such that the part holds every layer with the fewest lanes that keep up with T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import Any

from hwrnn.errors import TooLarge, UsageError
from hwrnn.quantization import QuantizedLayer, QuantizedModel
from hwrnn.rtl.engine import schedule_of
from hwrnn.rtl.logic import logic_of, logic_of_code
from hwrnn.rtl.network import check_buildable
from hwrnn.rtl.protection import with_decoder
from hwrnn.rtl.repeat import Repeat, repeat_of
from hwrnn.rtl.resources import MemoryShape, layer_memories, memory_place, multiplier_blocks
from hwrnn.rtl.schedule import Schedule
from hwrnn.rtl.targets import Target
from hwrnn.rtl.timing import Timing

__all__ = ["Balance", "Needs", "balance", "capacity_of", "lanes_for", "needs_of"]

#: What ``Balance.bound_by`` says where nothing of the part is used up.
CELLS = "cells"


@dataclass(frozen=True)
class Needs:
    """What a design takes of a part, or may take of it."""

    multipliers: int
    block_memory: int
    logic: int
    flip_flops: int

    def within(self, capacity: Needs) -> bool:
        """Whether nothing is more than in ``capacity``."""
        return all(self.named(name) <= capacity.named(name) for name in _COUNTED)

    def worst(self, capacity: Needs) -> str:
        """The name of what is the largest share of ``capacity``."""
        return max(_COUNTED, key=lambda name: self.named(name) / max(capacity.named(name), 1))

    def named(self, name: str) -> int:
        """One of ``multipliers``, ``block memory``, ``logic``, ``flip-flops``."""
        return int(getattr(self, name.replace(" ", "_").replace("-", "_")))


#: What a design takes, and its unit.
_COUNTED = {
    "multipliers": "multipliers", "block memory": "blocks of memory", "logic": "LUTs", "flip-flops": "flip-flops",
}  # fmt: skip

#: The share of a part's logic that a design may take by the model, so that placing and routing still succeed.
FILL = 0.92


def capacity_of(target: Target) -> Needs:
    """What a design may take of a part."""
    return Needs(
        target.multipliers, target.memory_blocks, int(FILL * target.luts), int(FILL * target.flip_flops)
    )  # fmt: skip


def needs_of(
    layers: Sequence[QuantizedLayer],
    schedules: Sequence[Schedule],
    timing: Timing,
    target: Target,
    code: Repeat | None = None,
    protect: str = "none",
) -> Needs:
    """What a stack, and what repeats its code, take of a part.

    Args:
        timing: with the decoder's registers.
        protect: check bits of the memories of weights and biases.
    """
    multipliers = blocks = Fraction(0)
    luts = flip_flops = 0.0
    for layer, schedule in zip(layers, schedules, strict=True):
        multipliers += multiplier_blocks(layer, schedule, timing, target)
        for memory in layer_memories(layer, schedule, protect):
            blocks += memory_place(memory, target.family)[0]
        more = logic_of(layer, schedule, timing, target, protect)
        luts, flip_flops = luts + more[0], flip_flops + more[1]
    if code is not None:
        place = memory_place(MemoryShape(code.depth, code.form.width, False), target.family)
        more = logic_of_code(*place[1:])
        blocks, luts, flip_flops = blocks + place[0], luts + more[0], flip_flops + more[1]
    return Needs(ceil(multipliers), ceil(blocks), ceil(luts), ceil(flip_flops))


@dataclass(frozen=True)
class Balance:
    """Lanes chosen for a part.

    Attributes:
        lanes: the budget of each layer, the head's last.
        intervals: cycles that each layer takes for a time step, or the head for a vector.
        needs: what all layers take of the part, by :mod:`hwrnn.rtl.resources`.
        capacity: what a design may take of the part.
        bound_by: ``multipliers``, ``block memory``, ``logic`` or ``flip-flops``: what a smaller interval has too little
            of; or ``cells``: no number of lanes makes the slowest layer faster.
        next_interval: the next smaller interval, None where there is none.
        next_need: what that would take of what bounds the design, None likewise.
    """

    lanes: tuple[int, ...]
    intervals: tuple[int, ...]
    needs: Needs
    capacity: Needs
    bound_by: str
    next_interval: int | None
    next_need: int | None

    def __str__(self) -> str:
        if self.next_interval is None:
            return "the cells' own limit: more lanes would idle"
        has = self.capacity.named(self.bound_by)
        need = f"{self.next_need:,} {_COUNTED[self.bound_by]}"
        return f"{self.bound_by}: {self.next_interval} cycles a step would take {need}, and {has:,} may be used"

    def to_json(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {
            "budgets": list(self.lanes), "intervals": list(self.intervals), "bound_by": self.bound_by,
            "reason": str(self), "needs": asdict(self.needs), "capacity": asdict(self.capacity),
        }  # fmt: skip


def balance(
    model: QuantizedModel, target: Target, timing: Timing | None = None, channels: int = 1, protect: str = "none"
) -> Balance:
    """The lanes of each layer with which a part runs a model fastest.

    Args:
        timing: where registers stand; where None the target's choice.
        channels: independent sequences that take turns.
        protect: check bits of the memories of weights and biases.

    Raises:
        UsageError: a model that engines in a row do not compute.
        TooLarge: the part does not hold the model even with the fewest lanes; the text says what is missing.
    """
    check_buildable(model)
    timing = with_decoder(target.timing if timing is None else timing, protect)
    capacity = capacity_of(target)
    layers = [_Choices(layer, timing, target, channels) for layer in model.stack]
    # A head that works once a sequence does not bound the rate of the steps, but keeps up with it where it can.
    bounding = layers if model.every_step or model.head is None else layers[:-1]
    least = max(choices.fastest for choices in bounding)
    intervals = sorted({t for choices in bounding for t in choices.intervals if t >= least})
    refused: tuple[int, Needs] | None = None
    for interval in intervals:
        lanes = tuple(choices.fewest(max(interval, choices.fastest)) for choices in layers)
        schedules = [schedule_of(layer, n, timing, channels) for layer, n in zip(model.stack, lanes, strict=True)]
        needs = needs_of(model.stack, schedules, timing, target, repeat_of(model), protect)
        if needs.within(capacity):
            taken = tuple(schedule.cycles_per_step for schedule in schedules)
            bound, at, need = CELLS, None, None
            if refused is not None:
                at, bound = refused[0], refused[1].worst(capacity)
                need = refused[1].named(bound)
            return Balance(lanes, taken, needs, capacity, bound, at, need)
        refused = interval, needs
    assert refused is not None
    bound = refused[1].worst(capacity)
    has, need = capacity.named(bound), refused[1].named(bound)
    raise TooLarge(
        f"Network must need at most {has:,} {_COUNTED[bound]} for {target.name}, not {need:,} even with the fewest"
        f" lanes, which is {need - has:,} too many: use fewer bits or units, or a larger part"
    )


def lanes_for(
    model: QuantizedModel, target: Target | None, timing: Timing, channels: int = 1, protect: str = "none"
) -> Balance:
    """The balance that ``lanes="auto"`` asks for.

    Raises:
        UsageError: no target, whose multipliers, memory and logic the lanes could meet.
    """
    if target is None:
        raise UsageError("Lanes must be a number where no target is given, not 'auto': name the part")
    return balance(model, target, timing, channels, protect)


@dataclass(frozen=True)
class _Choices:
    """What a layer can choose from."""

    layer: QuantizedLayer
    timing: Timing
    target: Target
    channels: int

    @cached_property
    def cycles(self) -> dict[int, int]:
        """Cycles of a step by budget of lanes, up to one interval more than the part could hold."""
        useful = self.layer.units * max(len(phase.gates) for phase in self.layer.cell.phases)
        # No multiplier makes more than two products, and a lane without one takes more than 20 LUTs.
        possible = 2 * self.target.multipliers or self.target.luts // 20
        found: dict[int, int] = {}
        for lanes in range(1, useful + 1):
            cycles = schedule_of(self.layer, lanes, self.timing, self.channels).cycles_per_step
            beyond = lanes > possible and cycles < min(found.values())
            found[lanes] = cycles
            if beyond:
                break
        return found

    @property
    def intervals(self) -> set[int]:
        """Every interval that some number of lanes gives."""
        return set(self.cycles.values())

    @property
    def fastest(self) -> int:
        """The least of them."""
        return min(self.cycles.values())

    def fewest(self, interval: int) -> int:
        """The fewest lanes that take at most ``interval`` cycles."""
        return next(n for n, cycles in self.cycles.items() if cycles <= interval)
