"""What the parts of a simulation found, gathered into its report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from hwrnn.golden import golden
from hwrnn.model import Model
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.network import Network
from hwrnn.rtl.rounds import filled, order_of
from hwrnn.sim.comparison import Difference, compare, expected_values, first_of
from hwrnn.sim.report import Report
from hwrnn.sim.scoring import Targets, largest_difference
from hwrnn.sim.stimuli import Progress, Recording, Stall, Stimulus, stimulus
from hwrnn.sim.timing import measured_latency, rate_is_bounded_by_steps, step_distances, typical

__all__ = ["Findings", "Runner"]

Runner = Callable[[Network, Stimulus, Progress | None], Recording]


@dataclass
class Findings:
    """What the parts of a simulation found."""

    model: QuantizedModel
    network: Network
    mismatches: int = 0
    compared: int = 0
    cycles: int = 0
    seconds: float = 0.0
    differences: list[Difference] = field(default_factory=list)
    distances: list[np.ndarray] = field(default_factory=list)
    saturations: list[tuple[np.ndarray, dict[str, float]]] = field(default_factory=list)
    golden: list[np.ndarray] = field(default_factory=list)
    hardware: list[np.ndarray] | None = field(default_factory=list)  # None: some outputs never came
    latency: int | None = None
    alone: int | None = None
    alone_steps: int = 1

    def add(
        self,
        run: Runner,
        raw: np.ndarray,
        lengths: np.ndarray,
        first: int,
        stalls: tuple[str, str, int],
        progress: Progress | None,
    ) -> None:
        """Simulate and compare some sequences, the first of them with the number ``first``."""
        network, model = self.network, self.model
        count = len(lengths)
        raw, lengths = filled(raw, lengths, network.channels)
        result = golden(model, raw, lengths, keep=bool(network.probes))
        expected = expected_values(model, network, result, lengths, first)
        stimulated = stimulus(network, raw, lengths, *stalls)
        recording = run(network, stimulated, progress)
        mismatches, difference = compare(expected, recording)
        self.mismatches += mismatches
        self.compared += sum(len(one.values) for one in expected)
        self.differences += [] if difference is None else [difference]
        self.cycles += recording.cycles
        self.seconds += recording.seconds
        self.distances.append(step_distances(network, recording, lengths))
        self.saturations.append((lengths, result.saturation))
        self.golden.append(result.output[:count])
        if self.hardware is None or len(recording.outputs) != stimulated.outputs:
            self.hardware = None
            return
        vectors = recording.outputs.reshape(-1, network.outputs_per_vector)
        shown = np.zeros((*result.output.shape[:-1], vectors.shape[1]), np.int64)
        order = order_of(lengths, network.channels).emitted(model.every_step)
        shown[(order.sequences, order.steps) if model.every_step else order.sequences] = vectors
        self.hardware.append(shown[:count])

    def measure_latency(self, run: Runner, raw: np.ndarray, lengths: np.ndarray) -> None:
        """Run one time step alone; with several channels one of each, element by element after a long pause.

        With an encoder, the first sequence of several steps alone too.
        """
        channels = self.network.channels
        several = np.flatnonzero(lengths > 1)[:1]
        if self.network.repeat is not None and len(several):
            self.alone_steps = int(lengths[several[0]])
            whole = stimulus(self.network, raw[several], lengths[several])
            recording = run(self.network, whole, None)
            if len(recording.outputs) >= whole.outputs:
                self.alone = int(recording.output_cycles[whole.outputs - 1] - recording.input_cycles[0])
        raw, lengths = filled(raw[:1, :1], np.ones(1, np.int64), channels)
        one = stimulus(self.network, raw, lengths)
        if channels > 1:
            pause = np.zeros(one.patience // 16, np.uint8)
            pause[-1] = 1
            one = replace(one, input=Stall(pause), limit=one.limit + len(pause) * len(one.data))
        self.latency = measured_latency(run(self.network, one, None), one.outputs)

    def report(
        self,
        name: str,
        x: np.ndarray,
        lengths: np.ndarray,
        steady: bool,
        float_model: Model | None,
        targets: Targets | None,
    ) -> Report:
        """Everything together."""
        model, network = self.model, self.network
        steps = int(lengths.sum())
        fixed = model.dequantize_output(np.concatenate(self.golden))
        hardware = None
        if self.hardware is not None:
            hardware = np.concatenate(self.hardware)
            hardware = hardware[..., 0] if network.argmax else model.dequantize_output(hardware)
        predicted = None if float_model is None else float_model.predict(x, lengths)
        scores: dict[str, dict[str, float | None]] = {
            metric: {"float": None, "fixed": None, "hardware": None} for metric in ("accuracy", "rmse")
        }
        if targets is not None:
            for kind, outputs in (("float", predicted), ("fixed", fixed), ("hardware", hardware)):
                if outputs is not None and not (network.argmax and kind == "hardware" and not targets.labels):
                    scores[targets.metric][kind] = targets.score(outputs)
        error = None
        if predicted is not None:
            shown = fixed if hardware is None or network.argmax else hardware
            error = largest_difference(model, shown, predicted, lengths)
        measured = typical(self.distances, network.channels) if steady else self.cycles / steps
        promised = {"cycles_per_step": network.cycles_per_step, "latency": network.latency}
        if self.alone is not None:
            promised["sequence_cycles"] = network.sequence_cycles(self.alone_steps)
        rate = network.cycles_per_step if measured is None else measured
        holds = None
        if steady and not self.differences:
            pairs: list[tuple[float | None, int]] = [(self.latency, network.latency)]
            pairs.append((self.alone, network.sequence_cycles(self.alone_steps)))
            if rate_is_bounded_by_steps(network, lengths):
                pairs.append((measured, network.cycles_per_step))
            known = [found == due for found, due in pairs if found is not None]
            holds = all(known) if known else None
        ideal = network.bounding.ideal_cycles_per_step
        return Report(
            len(lengths), steps, self.mismatches, self.cycles, rate, ideal, ideal / rate, scores["accuracy"], error,
            name, self.cycles / max(self.seconds, 1e-9), scores["rmse"], self.compared, first_of(self.differences),
            self.latency, promised, holds, self._saturation(),
            self.alone,
        )  # fmt: skip

    def _saturation(self) -> dict[str, float]:
        """The shares of all parts, each weighed by the vectors that it worked."""
        shares: dict[str, float] = {}
        for place in self.saturations[0][1]:
            head = int(place.split(".")[0]) == len(self.model.layers) and not self.model.every_step
            weights = [len(lengths) if head else int(lengths.sum()) for lengths, _ in self.saturations]
            found = [saturation[place] for _, saturation in self.saturations]
            shares[place] = float(np.average(found, weights=weights))
        return shares
