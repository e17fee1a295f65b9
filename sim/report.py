"""What a simulation found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hwrnn.report import percent, quantity, table
from hwrnn.sim.comparison import Difference

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """What a simulation found.

    Attributes:
        sequences, steps: simulated.
        mismatches: values that hardware showed otherwise than golden, or not at all, or too many.
        cycles: from reset to the last output.
        cycles_per_step: measured in steady state; with a stalled port the mean over the run.
        ideal_cycles_per_step: multiplications over lanes of the engine that bounds the rate.
        multiplier_utilization: ideal over measured cycles.
        accuracy: of ``float``, ``fixed`` (golden) and ``hardware``, shares of 1; None where there are no labels or no
            float model, or hardware's outputs are not complete.
        max_abs_error_vs_float: of the outputs in the target's units; None without a float model.
        simulator: the one that ran.
        simulated_cycles_per_second: without building.
        rmse: like ``accuracy``, for a regression, in the target's units.
        compared: values that were compared.
        first_difference: the first mismatch in time, or None.
        latency: measured on one time step alone; None where it was not.
        promised: ``cycles_per_step`` and ``latency`` in closed form.
        closed_forms: whether both equal what was measured; None where nothing could be.
        saturation: share of saturated values by ``"LAYER.NAME"``, in golden.
        sequence_cycles: of a network with an encoder, from the first input element to the last output element of the
            first sequence of several steps, alone; ``promised`` has it too. None where it was not measured.
    """

    sequences: int
    steps: int
    mismatches: int
    cycles: int
    cycles_per_step: float
    ideal_cycles_per_step: float
    multiplier_utilization: float
    accuracy: dict[str, float | None]
    max_abs_error_vs_float: float | None
    simulator: str
    simulated_cycles_per_second: float
    rmse: dict[str, float | None]
    compared: int
    first_difference: Difference | None
    latency: int | None
    promised: dict[str, int]
    closed_forms: bool | None
    saturation: dict[str, float]
    sequence_cycles: int | None = None

    @property
    def fault(self) -> str | None:
        """What is wrong, in a sentence; None where hardware computes golden's values in the promised time."""
        if self.first_difference is not None:
            return str(self.first_difference)
        if self.closed_forms is False:
            due = f"{self.promised['cycles_per_step']} cycles a step and {self.promised['latency']} of latency"
            taken = f"{self.cycles_per_step:g} and {self.latency}"
            if self.sequence_cycles is not None:
                due += f" and {self.promised['sequence_cycles']} for a sequence alone"
                taken += f" and {self.sequence_cycles}"
            return f"hardware must take {due}, not {taken}"
        return None

    def to_json(self) -> dict[str, Any]:
        """The attributes, as plain values under the same names."""
        return asdict(self)

    def __str__(self) -> str:
        """A table."""
        rows: list[list[Any]] = [
            ["sequences, time steps", f"{self.sequences}, {self.steps}"],
            ["simulator", f"{self.simulator}, {quantity(self.simulated_cycles_per_second)}cycles/s"],
            ["values compared", self.compared],
            ["mismatches", self.mismatches],
        ]
        for name, metric in (("accuracy", self.accuracy), ("error (RMSE)", self.rmse)):
            for kind, value in metric.items():
                if value is not None:
                    rows.append([f"{name}, {kind}", percent(value) if metric is self.accuracy else f"{value:.4g}"])
        if self.max_abs_error_vs_float is not None:
            rows.append(["largest difference from float", f"{self.max_abs_error_vs_float:.4g}"])
        rows += [
            ["cycles", self.cycles],
            ["cycles a time step (promised, ideal)", f"{self.cycles_per_step:g} ({self.promised['cycles_per_step']},"
                                                     f" {self.ideal_cycles_per_step:g})"],
            ["multiplier utilization", percent(self.multiplier_utilization)],
        ]  # fmt: skip
        if self.latency is not None:
            rows.append(["latency in cycles (promised)", f"{self.latency} ({self.promised['latency']})"])
        if self.sequence_cycles is not None:
            due = self.promised["sequence_cycles"]
            rows.append(["cycles of a sequence alone (promised)", f"{self.sequence_cycles} ({due})"])
        text = table(rows)
        return text if self.fault is None else f"{text}\n\n{self.fault[0].upper()}{self.fault[1:]}."
