"""A network of engines: layers in sequence, joined by streams, with the head behind them."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwrnn.errors import UsageError
from hwrnn.quantization import QuantizedLayer, QuantizedModel
from hwrnn.rtl.argmax import ArgMax
from hwrnn.rtl.engine import Engine, schedule_of
from hwrnn.rtl.lanes import factors
from hwrnn.rtl.load_frames import contents, identity_of
from hwrnn.rtl.loading import BYTES, Gate, Loader
from hwrnn.rtl.ports import Part, element, shape
from hwrnn.rtl.protection import Code, check_protect, with_decoder
from hwrnn.rtl.repeat import repeat_of
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.rtl.watchdog import STALLED, Watchdog, check_watchdog
from hwrnn.rtl.weights import AnyWeights, check_weights, is_loadable, sprams_of

__all__ = ["Network", "check_buildable"]


def check_buildable(model: QuantizedModel) -> None:
    """See that engines in a row compute a model.

    Raises:
        UsageError: a layer in reverse, or layers side by side.
    """
    for k, layer in enumerate(model.layers):
        if layer.reverse:
            raise UsageError(
                f"Layers must run forward in hardware, but layer {k} is a reverse one: hardware sees the steps as they"
                " come, and a reverse layer begins with the last one (golden and ONNX Runtime compute it)"
            )
    for k, layer in enumerate(model.layers):
        if layer.beside:
            raise UsageError(
                f"Layers must stand one behind the other in hardware, but layer {k} stands beside another: engines pass"
                " one stream on (golden and ONNX Runtime compute it)"
            )


def budgets_of(model: QuantizedModel, lanes: int, timing: Timing = SHORTEST, channels: int = 1) -> list[int]:
    """One budget for each layer: ``lanes`` for a recurrent one, for the head as few as do not slow them down.

    Raises:
        UsageError: a budget below 1, or channels out of their range.
    """

    def pace(layer: QuantizedLayer, budget: int) -> int:
        return schedule_of(layer, budget, timing, channels).cycles_per_step

    budgets = [lanes] * len(model.layers)
    if model.head is None:
        return budgets
    slowest = max(pace(layer, lanes) for layer in model.layers)
    # A head works once a step or once a sequence, so the rate of the steps is enough for it.
    enough = (b for b in range(1, lanes) if pace(model.head, b) <= slowest)
    return [*budgets, next(enough, lanes)]


class Network(Part):
    """A quantized model as one stream component: an engine for each layer, the code's repetition behind its encoder.

    Args:
        model: the frozen integer network.
        lanes: the budget of multipliers of every recurrent layer, where the head gets as few as keep pace with them;
            or a sequence with one budget for each layer (the head last).
        argmax: whether the index of the largest output leaves instead of the outputs (classification).
        probed: whether every stored value gets ports; see ``probes``.
        timing: where registers stand in every engine.
        channels: independent sequences that run in turn, each with its own state: at the input, vectors of channel 0, 1
            and so on make a round, again and again. A short pipeline's wait for its state is filled with the others'.
        weights: ``auto`` leaves the choice of the memories to the tools, ``block`` and ``distributed`` make it;
            ``loadable`` adds a load port, ``spram`` too, and keeps weights in memories without initial content.
        protect: ``parity`` adds a check bit to every word of weights and biases, ``secded`` as many as correct one
            flipped bit and tell two; the latter takes one cycle of latency, or two where ``timing`` has ``sums``.
        watchdog: cycles in a row of waiting at a port that are told; 0 for none (:mod:`hwrnn.rtl.watchdog`).

    Ports:
        i: stream of input elements; ``last`` with the last element of a sequence's last vector.
        o: stream of output elements (or indices), likewise; with several channels, ``channel`` tells whose.
        load, answer, held: of loadable weights: a stream of bytes (``hwrnn.rtl.load_frames``) with ``last`` on the last
            of each frame, a stream of a byte for each frame, and whether the network waits for weights.
        fault_detected: of protected memories: a wrong word was used, until the next reset.
        fault_corrected: of SECDED: a word was corrected, until the next reset.
        stalled, stalled_input, stalled_output: of a watchdog.

    Raises:
        UsageError: a budget below 1, or not one for each layer, or channels out of their range, or several beside an
            encoder; an unknown choice of weights or protection, or too many for SPRAM; a watchdog out of its range; a
            model that engines in a row do not compute (:func:`check_buildable`).
    """

    def __init__(
        self,
        model: QuantizedModel,
        lanes: Any = 16,
        argmax: bool = False,
        probed: bool = False,
        timing: Timing = SHORTEST,
        channels: int = 1,
        weights: str = "auto",
        protect: str = "none",
        watchdog: int = 0,
    ) -> None:
        check_buildable(model)
        self.protect, self.watchdog = check_protect(protect), check_watchdog(watchdog)
        decoding = with_decoder(timing, protect)
        self.model, self.argmax, self.timing, self.budget, self.channels = model, argmax, timing, lanes, channels
        self.weights, self.loadable = check_weights(weights), is_loadable(weights)
        stack = [AnyWeights.of(layer) for layer in model.stack] if self.loadable else model.stack
        budgets = list(lanes) if isinstance(lanes, (list, tuple)) else budgets_of(model, lanes, decoding, channels)
        if len(budgets) != len(stack):
            raise UsageError(f"Lanes must be given once or for each of {len(stack)} layers, not {len(budgets)} times")
        recurrent = len(model.layers)
        choices = [weights] * len(stack)
        #: SPRAM blocks of each engine's weights
        self.sprams = [0] * len(stack)
        if weights == "spram":
            self.sprams = sprams_of([_memory_of(*each, decoding, protect) for each in zip(stack, budgets, strict=True)])
            choices = ["spram" if count else "loadable" for count in self.sprams]
        self.engines = tuple(
            Engine(layer, budget, model.every_step or k != recurrent - 1, probed, timing, channels, choice, protect)
            for k, (layer, budget, choice) in enumerate(zip(stack, budgets, choices, strict=True))
        )
        if model.encoder and channels > 1:
            raise UsageError(
                f"Channels must be 1 for a network with an encoder, not {channels}: their sequences end at different"
                " times, and a decoder begins with the end"
            )
        #: between the encoder and the decoder, None without an encoder
        self.repeat = repeat_of(model)
        self.loader = Loader(self.identity, self._load_memories(), weights == "spram") if self.loadable else None
        self.picker = ArgMax(model.output_format, model.outputs, channels) if argmax else None
        self.input_format = model.input_format
        self.output_format = self.picker.index_format if self.picker else model.output_format
        #: ``(layer, value)`` to the name of its probe port; ``NAME_valid`` stands beside it.
        self.probes = {
            (k, name): f"layer{k}_{port}"
            for k, engine in enumerate(self.engines)
            for name, port in engine.probes.items()
        }
        ports: dict[str, Any] = {
            "i": In(stream.Signature(element(self.input_format))),
            "o": Out(stream.Signature(element(self.output_format, channels))),
        }
        for (k, name), port in self.probes.items():
            ports |= {port: Out(shape(stack[k].formats.values[name])), f"{port}_valid": Out(1)}
        if self.loadable:
            ports |= {"load": In(stream.Signature(BYTES)), "answer": Out(stream.Signature(8))}
            ports |= {"held": Out(1, init=int(weights == "spram"))}
        #: ports that tell of flipped bits
        self.faults = tuple(self.engines[0].faults.values())
        ports |= {name: Out(1) for name in self.faults}
        if watchdog:
            ports |= {name: Out(1) for name in STALLED}
        super().__init__(ports)

    def with_probes(self) -> Network:
        """The same network with probes."""
        return Network(self.model, self.budget, self.argmax, True, self.timing, self.channels, self.weights,
                       self.protect, self.watchdog)  # fmt: skip

    @property
    def identity(self) -> bytes:
        """What a load has to name: four bytes that change with the structure, the formats and the lanes."""
        return identity_of(self.model, [engine.lanes for engine in self.engines])

    def _load_memories(self) -> list[tuple[int, int]]:
        """``(depth, width)`` of the memories in the order in which they are loaded."""
        return [(len(words), bits) for engine in self.engines for words, bits in contents(engine.lanes)]

    @property
    def outputs_per_vector(self) -> int:
        """Elements of an output vector on the port."""
        return 1 if self.argmax else self.model.outputs

    @property
    def recurrent(self) -> tuple[Engine, ...]:
        """The engines that work every time step."""
        every = self.model.every_step or self.model.head is None
        return self.engines if every else self.engines[:-1]

    @property
    def bounding(self) -> Engine:
        """The engine that bounds the rate: the slowest of those that work every time step."""
        return max(self.recurrent, key=lambda engine: engine.cycles_per_step)

    @property
    def cycles_per_step(self) -> int:
        """Cycles of one channel's time step in steady state: those of the slowest engine that works every step."""
        return self.bounding.cycles_per_step

    @property
    def latency(self) -> int:
        """Cycles from the transfer of a one-step sequence's last input element to that of its last output element.

        The network is idle before, and the output is taken at once. With several channels the sequence is that of the
        last one, after the other ones' of the same round.
        """
        engines = sum(engine.latency + queued for engine, queued in zip(self.engines, self.queued, strict=True))
        between = 0 if self.repeat is None else self.repeat.latency
        return engines + between + (ArgMax.latency if self.argmax else 0)

    @property
    def cycles_of_later_step(self) -> int:
        """Cycles that every step but the first adds to a sequence that has the network for itself.

        An encoder's steps are all over before those of the decoder begin, so both count; of several sequences the one
        is decoded as the next is encoded, and each takes its steps times ``cycles_per_step``.
        """
        cut = self.model.encoder
        halves = [self.recurrent[:cut], self.recurrent[cut:]] if cut else [self.recurrent]
        return sum(max(engine.cycles_per_step for engine in half) for half in halves)

    def sequence_cycles(self, steps: int) -> int:
        """Cycles from the transfer of a sequence's first input element to that of its last output element.

        The network is idle before, and neither port stalls.
        """
        return self.model.inputs - 1 + (steps - 1) * self.cycles_of_later_step + self.latency

    @property
    def queued(self) -> tuple[int, ...]:
        """Of the latency, the cycles that each engine still works earlier channels of the round.

        Only an engine of several phases brings a round's vectors close together; behind it they may queue.
        """
        found: list[int] = []
        apart: int | None = None  # cycles between two vectors of a round; None: as far as they came
        for engine in self.engines:
            phases = engine.schedule.phases
            first, last = (phases[k].cycles + phases[k].gap for k in (0, -1))
            found.append(0 if apart is None else (self.channels - 1) * max(0, first - apart))
            if engine.schedule.returns:
                apart = last
            elif apart is not None:
                apart = max(apart, first)
        return tuple(found)

    @property
    def ideal_cycles_per_step(self) -> float:
        """Multiplications over lanes, of the engine that bounds the rate."""
        return self.bounding.ideal_cycles_per_step

    @property
    def lanes(self) -> int:
        """Multiplier lanes of all engines."""
        return sum(engine.schedule.lanes for engine in self.engines)

    @property
    def multipliers(self) -> int:
        """Multipliers of all engines, element-wise ones included."""
        return sum(engine.multipliers for engine in self.engines)

    @property
    def memory_bits(self) -> int:
        """Bits of all memories."""
        between = 0 if self.repeat is None else self.repeat.memory_bits
        return sum(engine.memory_bits for engine in self.engines) + between

    @property
    def spram_bits(self) -> int:
        """Bits of the memories that are in SPRAM."""
        pairs = zip(self.engines, self.sprams, strict=True)
        return sum(len(engine.lanes.words) * engine.lanes.code.width for engine, count in pairs if count)

    def elaborate(self, platform: object) -> Module:
        """Engines in a row."""
        m = Module()
        source = wiring.flipped(self.i) if self.loader is None else self._gated(m, self.loader)
        if self.channels > 1:
            source = self._tagged(m, source)
        for k, engine in enumerate(self.engines):
            m.submodules[f"layer{k}"] = engine
            wiring.connect(m, source, engine.i)
            source = engine.o
            if self.repeat is not None and k + 1 == self.model.encoder:
                m.submodules.repeat = self.repeat
                wiring.connect(m, source, self.repeat.i)
                source = self.repeat.o
            for name, port in engine.probes.items():
                for suffix in ("", "_valid"):
                    m.d.comb += getattr(self, self.probes[k, name] + suffix).eq(getattr(engine, port + suffix))
        if self.picker is not None:
            m.submodules.argmax = self.picker
            wiring.connect(m, source, self.picker.i)
            source = self.picker.o
        wiring.connect(m, source, wiring.flipped(self.o))
        for name in self.faults:
            with m.If(Cat(getattr(engine, name) for engine in self.engines).any()):
                m.d.sync += getattr(self, name).eq(1)
        if self.watchdog:
            self._watched(m)
        return m

    def _watched(self, m: Module) -> None:
        """A watchdog at both ports."""
        m.submodules.watchdog = dog = Watchdog(self.watchdog, self.model.inputs, self.channels)
        m.d.comb += [
            Cat(dog.input_valid, dog.input_ready).eq(Cat(self.i.valid, self.i.ready)),
            Cat(dog.output_valid, dog.output_ready).eq(Cat(self.o.valid, self.o.ready)),
            dog.input_last.eq(self.i.payload.last),
            *(getattr(self, name).eq(getattr(dog, name)) for name in STALLED),
        ]

    def _gated(self, m: Module, loader: Loader) -> Any:
        """The input behind a gate that the loader closes, and what it writes."""
        # No more sequences than vectors and elements that queues and pipelines have room for.
        most = sum(engine.schedule.buffer + 4 * self.channels + 4 for engine in self.engines) + 8
        m.submodules.loader = loader
        m.submodules.gate = gate = Gate(self.input_format, self.model.inputs, most, self.channels)
        wiring.connect(m, wiring.flipped(self.i), gate.i)
        wiring.connect(m, wiring.flipped(self.load), loader.i)
        wiring.connect(m, loader.o, wiring.flipped(self.answer))
        m.d.comb += [
            gate.hold.eq(loader.held),
            gate.left.eq(self.o.valid & self.o.ready & self.o.payload.last),
            loader.drained.eq(gate.drained),
            self.held.eq(loader.held),
        ]
        for k, engine in enumerate(self.engines):
            lanes = engine.lanes
            m.d.comb += [
                lanes.load_word.eq(loader.word),
                lanes.load_address.eq(loader.address),
                lanes.load_weights.eq(getattr(loader, f"write_{2 * k}")),
                lanes.load_biases.eq(getattr(loader, f"write_{2 * k + 1}")),
            ]
        return gate.o

    def _tagged(self, m: Module, source: Any) -> Any:
        """The input with the channels counted."""
        tagged = stream.Signature(element(self.input_format, self.channels)).create(path=("tagged",))
        at, channel = Signal(range(max(self.model.inputs, 2)), name="at"), Signal(range(self.channels), name="channel")
        m.d.comb += [
            tagged.valid.eq(source.valid),
            tagged.payload.data.eq(source.payload.data),
            tagged.payload.last.eq(source.payload.last),
            tagged.payload.channel.eq(channel),
            source.ready.eq(tagged.ready),
        ]
        with m.If(tagged.valid & tagged.ready):
            m.d.sync += at.eq(at + 1)
            with m.If(at == self.model.inputs - 1):
                m.d.sync += [at.eq(0), channel.eq(Mux(channel == self.channels - 1, 0, channel + 1))]
        return tagged


def _memory_of(layer: QuantizedLayer, lanes: int, timing: Timing, protect: str) -> tuple[int, int]:
    """Width and depth of a layer's memory of weights."""
    schedule = schedule_of(layer, lanes, timing)
    return Code(protect, schedule.lanes * factors(layer)[0].width).width, sum(p.cycles for p in schedule.phases)
