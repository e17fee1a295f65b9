"""The multiply-accumulate lanes: weights and biases stream in, finished rows stand beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib.memory import Memory, ReadPort
from amaranth.lib.wiring import In, Out

from hwrnn.quantization import QuantizedLayer
from hwrnn.rtl.delay import delayed
from hwrnn.rtl.elementwise import gate_interval, rounding_half
from hwrnn.rtl.multiplier import Halves, packed, parted, product
from hwrnn.rtl.numbers import shape_of
from hwrnn.rtl.ports import Part
from hwrnn.rtl.protection import Code, check_protect, checked, corrected, decode_stages
from hwrnn.rtl.schedule import Schedule
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.rtl.weights import attributes, is_loadable

__all__ = ["Lanes", "factors", "multipliers_of", "sum_shape_of"]


def factors(layer: QuantizedLayer) -> tuple[Shape, Shape]:
    """What enters a lane's multiplier: weights, and every operand shifted to where the products meet."""
    bounds = []
    for (_, name), shift in layer.formats.shifts.items():
        form = layer.formats.values[name]
        bounds.append((form.lo << shift, form.hi << shift))
    weight = signed(max(f.width for f in layer.formats.weights.values()))
    return weight, shape_of(min(lo for lo, _ in bounds), max(hi for _, hi in bounds))


def sum_shape_of(layer: QuantizedLayer) -> Shape:
    """The accumulators of a layer, as wide as its weights need."""
    intervals = [gate_interval(layer, gate) for gate in layer.cell.gates]
    found = shape_of(min(lo for lo, _ in intervals), max(hi for _, hi in intervals))
    return signed(found.width + (not found.signed))


def multipliers_of(layer: QuantizedLayer, schedule: Schedule, timing: Timing) -> tuple[int, tuple[int, int]]:
    """How many multipliers the lanes take, and the bits of both their factors as signed numbers.

    Where two weights are packed, the first factor holds both.
    """
    weight, operand = factors(layer)
    sharing = timing.sharing(weight, operand)
    count = -(-schedule.lanes // 2) if sharing else schedule.lanes
    bits = operand.width + (not operand.signed)
    return count, (2 * weight.width + bits + 1 if sharing == "packed" else weight.width, bits)


class Lanes(Part):
    """``schedule.lanes`` multipliers with their memories.

    A column is issued in cycle 0 (``issue``, ``start``: the first column of a row's first or second gate). The caller
    drives ``operand`` in cycle ``1 + timing.memory``. The sums with a column in them stand in cycle
    ``schedule.mac - 1``, ``first`` beside them for rows of two gates.

    Args:
        layer: weights, biases, formats.
        schedule: the arrangement, for the same timing.
        timing: registers before, in and behind the multipliers.
        weights: what memories they get, of ``hwrnn.rtl.weights.WEIGHTS``; ``spram`` makes that of the biases loadable.
        protect: check bits of their words, of ``hwrnn.rtl.protection.PROTECTIONS``.

    Where the memories are protected, ``detected`` and ``corrected`` (the latter of SECDED only) tell of each word
    that the lanes take, some cycles later. Loadable memories have ports ``load_word``, ``load_address``,
    ``load_weights`` and ``load_biases``, which write a word; nothing may be issued before the second cycle after
    that.
    """

    def __init__(
        self,
        layer: QuantizedLayer,
        schedule: Schedule,
        timing: Timing = SHORTEST,
        weights: str = "auto",
        protect: str = "none",
    ) -> None:
        self.layer, self.schedule, self.timing, self.weights = layer, schedule, timing, weights
        self.protect = check_protect(protect)
        self.sum_shape = sum_shape_of(layer)
        self.weight_shape, self.operand_shape = factors(layer)
        self.words, self.bias_words = self._contents()
        everywhere = sum(p.passes for p in schedule.phases)
        #: how the words of both memories are stored
        self.code, self.bias_code = Code(protect, self.word_bits), Code(protect, self.bias_word_bits)
        #: ports that tell of words that were read wrong
        self.told = {"none": (), "parity": ("detected",), "secded": ("detected", "corrected")}[protect]
        #: whether phase and pass decide what a lane does with ``second``
        self.needs_place = any(0 < len(self._splits(lane)) < everywhere for lane in range(schedule.lanes))
        place = {
            "row_pass": In(range(max(2, *(p.passes for p in schedule.phases)))),
            "phase": In(range(max(len(schedule.phases), 2))),
        }
        super().__init__(
            {
                "issue": In(1),
                "restart": In(1),  # with issue: the words begin anew behind this one
                # with restart: the phase whose words follow
                **({"base": In(range(len(schedule.phases)))} if schedule.returns else {}),
                "start": In(1),  # with issue: a row's first gate starts
                "second": In(1),  # with issue: a row's second gate starts
                **(place if self.needs_place else {}),
                "operand": In(self.operand_shape),
                **{f"sum_{n}": Out(self.sum_shape) for n in range(schedule.lanes)},
                **{f"first_{n}": Out(self.sum_shape) for n in range(schedule.lanes) if self._splits(n)},
                **(self._load_ports() if is_loadable(weights) else {}),
                **{name: Out(1) for name in self.told},
            }
        )

    def _load_ports(self) -> dict[str, Any]:
        deepest = max(len(self.words), len(self.bias_words))
        return {
            "load_word": In(max(self.word_bits, self.bias_word_bits)),
            "load_address": In(range(max(deepest, 2))),
            "load_weights": In(1),
            "load_biases": In(1),
        }

    def _splits(self, lane: int) -> list[tuple[int, int]]:
        """The ``(phase, pass)`` in which a lane works a row of two gates."""
        found = []
        for k, p in enumerate(self.schedule.phases):
            if lane < p.lanes:
                for q in range(p.passes):
                    row = q * p.rows_per_pass + lane % p.rows_per_pass
                    if row < len(p.rows) and len(p.rows[row]) > 1:
                        found.append((k, q))
        return found

    @property
    def word_bits(self) -> int:
        """Bits of a word of weights."""
        return self.schedule.lanes * self.weight_shape.width

    @property
    def bias_word_bits(self) -> int:
        """Bits of a word of biases."""
        return self.schedule.lanes * self.sum_shape.width

    @property
    def multipliers(self) -> int:
        """Multipliers that the lanes take."""
        return multipliers_of(self.layer, self.schedule, self.timing)[0]

    @property
    def memory_bits(self) -> int:
        """Bits of the weight and bias memories, check bits included."""
        return len(self.words) * self.code.width + len(self.bias_words) * self.bias_code.width

    def _contents(self) -> tuple[list[int], list[int]]:
        """The words of the weight and the bias memory, in the order in which a time step reads them."""
        layer, lanes = self.layer, self.schedule.lanes
        words: list[int] = []
        biases: list[int] = []
        #: where the words and the biases of each phase begin
        self.starts, self.bias_starts = [], []
        for p in self.schedule.phases:
            self.starts.append(len(words))
            self.bias_starts.append(len(biases))
            for group in range(p.groups):
                for q in range(p.passes):
                    block = np.zeros((p.columns, lanes), np.int64)
                    sums = np.zeros((p.segments, lanes), object)
                    for lane in range(p.lanes):
                        unit = group * p.parallel + lane // p.rows_per_pass
                        row = q * p.rows_per_pass + lane % p.rows_per_pass
                        if unit >= p.units or row >= len(p.rows):
                            continue
                        for segment, gate in enumerate(p.rows[row]):
                            sums[segment, lane] = int(layer.biases[gate][unit]) + rounding_half(layer, gate)
                            at = 0
                            for name, size in p.operands:
                                if name in p.phase.gates[gate]:
                                    block[at : at + size, lane] = layer.weights[gate, name][unit]
                                at += size
                    words += [_packed(line, self.weight_shape.width) for line in block.tolist()]
                    biases += [_packed(line, self.sum_shape.width) for line in sums.tolist()]
        return words, biases

    def _at_base(self, starts: list[int]) -> Any:
        """Where the words of the phase ``base`` begin."""
        return Array(Const(start) for start in starts)[self.base] if self.schedule.returns else 0

    def elaborate(self, platform: object) -> Module:
        """Memory, its registers, product, accumulator."""
        m = Module()
        lanes = self.schedule.lanes
        word = Signal(range(max(len(self.words), 2)))
        bias_word = Signal(range(max(len(self.bias_words), 2)))
        starting = Signal()
        m.d.comb += starting.eq(self.start | self.second)
        with m.If(self.issue):
            m.d.sync += word.eq(Mux(self.restart, self._at_base(self.starts), word + 1))
            with m.If(self.restart):
                m.d.sync += bias_word.eq(self._at_base(self.bias_starts))
            with m.Elif(starting):
                m.d.sync += bias_word.eq(bias_word + 1)
        read, read_bias = self._memories(m, word)
        # The bias is needed with the product: delay its address, which is narrow, not the word.
        timing, multiply = self.timing, self.schedule.mac - 2
        decoding = decode_stages(self.protect, timing)
        bias_at = delayed(m, bias_word, multiply - 2 - decoding, "bias_word")
        m.d.comb += read_bias.addr.eq(bias_at)

        valid = delayed(m, self.issue, multiply, "valid", reset=True)
        start = delayed(m, self.start, multiply, "start")
        second = delayed(m, self.second, multiply, "second")
        if self.needs_place:
            phase = delayed(m, self.phase, multiply, "phase")
            row_pass = delayed(m, self.row_pass, multiply, "row_pass")
        line: Value = delayed(m, read.data, timing.memory - max(decoding, 1), "line")
        operand = delayed(m, self.operand, timing.operand, "operand")
        bias_line: Value = delayed(m, read_bias.data, 1, "bias_line")
        if self.protect != "none":
            line, bias_line = self._protected(m, line, bias_line, starting, decoding)
        terms = self._products(m, line, operand)
        for lane in range(lanes):
            bias = Signal(self.sum_shape, name=f"bias_{lane}")
            m.d.comb += bias.eq(bias_line.word_select(lane, self.sum_shape.width))
            term = terms[lane]
            total = Signal(self.sum_shape, name=f"total_{lane}", reset_less=True)
            load = Signal(name=f"load_{lane}")
            m.d.comb += load.eq(start)
            splits = self._splits(lane)
            if splits:
                turn = Signal(name=f"turn_{lane}")
                here = [(phase == k) & (row_pass == q) for k, q in splits] if self.needs_place else [Const(1)]
                m.d.comb += turn.eq(second & Cat(*here).any())
                m.d.comb += load.eq(start | turn)
                first = Signal(self.sum_shape, name=f"held_{lane}", reset_less=True)
                with m.If(valid & turn):
                    m.d.sync += first.eq(total)
                m.d.comb += getattr(self, f"first_{lane}").eq(first)
            with m.If(valid):
                m.d.sync += total.eq(Mux(load, bias, total) + term)
            m.d.comb += getattr(self, f"sum_{lane}").eq(total)
        return m

    def _protected(
        self, m: Module, line: Value, bias_line: Value, starting: Signal, decoding: int
    ) -> tuple[Value, Value]:
        """Data for the registers of weights and, if they are corrected, for one in front of the biases' use.

        Args:
            line: the stored word of weights, for parity in the cycle before they are in their registers.
            bias_line: the stored word of biases, as many cycles before its use as decoding takes.
            starting: with ``issue``: a word of biases will be used.
            decoding: registers that it takes.
        """
        code, bias_code, multiply = self.code, self.bias_code, self.schedule.mac - 2
        uses_bias = Signal(name="uses_bias")
        m.d.comb += uses_bias.eq(self.issue & starting)
        if not decoding:
            stored = delayed(m, line, 1, "checked")
            reads = delayed(m, self.issue, 1 + self.timing.memory, "reading", reset=True)
            reads_bias = delayed(m, uses_bias, multiply, "reading_bias", reset=True)
            found = [checked(m, code, stored, reads, "weights")]
            found.append(checked(m, bias_code, bias_line, reads_bias, "biases"))
        else:
            reads = delayed(m, self.issue, 1 + self.timing.memory - decoding, "reading", reset=True)
            reads_bias = delayed(m, uses_bias, multiply - decoding, "reading_bias", reset=True)
            line, *told = corrected(m, code, line, reads, decoding, "weights")
            data, *told_bias = corrected(m, bias_code, bias_line, reads_bias, decoding, "biases")
            bias_line = delayed(m, data, 1, "bias_data")
            m.d.comb += self.corrected.eq(told[0] | told_bias[0])
            found = [told[1], told_bias[1]]
        m.d.comb += self.detected.eq(found[0] | found[1])
        return line, bias_line

    def _memories(self, m: Module, word: Signal) -> tuple[ReadPort, ReadPort]:
        """The read ports of weights and biases, the weights' with its address."""
        weights, loadable = self.weights, is_loadable(self.weights)
        first = weights != "spram"
        m.submodules.weights = rows = _memory(self.words if first else [], len(self.words), self.code, weights)
        others = "loadable" if loadable else weights
        m.submodules.biases = biases = _memory(self.bias_words, len(self.bias_words), self.bias_code, others)
        read = rows.read_port()
        read_bias = biases.read_port()
        address = Signal(word.shape(), name="address")
        m.d.comb += [address.eq(word), read.addr.eq(address)]
        if not loadable:
            return read, read_bias
        write = rows.write_port()
        write_bias = biases.write_port()
        if first:
            m.d.comb += write.addr.eq(self.load_address)
        else:  # one port, so one address
            m.d.comb += [address.eq(Mux(self.load_weights, self.load_address, word)), write.addr.eq(address)]
        m.d.comb += write_bias.addr.eq(self.load_address)
        # Without a read in the cycle of a write, the tools need no logic for what it would have to show.
        reads, reads_bias = Signal(name="reads"), Signal(name="reads_bias")
        m.d.comb += [
            *(write.data.eq(self.code.encoded(self.load_word)), write.en.eq(self.load_weights)),
            *(reads.eq(~self.load_weights), read.en.eq(reads)),
            *(write_bias.data.eq(self.bias_code.encoded(self.load_word)), write_bias.en.eq(self.load_biases)),
            *(reads_bias.eq(~self.load_biases), read_bias.en.eq(reads_bias)),
        ]
        return read, read_bias

    def _products(self, m: Module, line: Value, operand: Signal) -> list[Value]:
        """Each lane's product, ``schedule.mac - 2`` cycles after its column was issued.

        Args:
            line: the word of weights, in cycle ``timing.memory``.
            operand: ``1 + timing.operand`` cycles later.
        """
        timing, form = self.timing, self.weight_shape
        width = form.width + self.operand_shape.width + (not self.operand_shape.signed)
        sharing = timing.sharing(form, self.operand_shape)
        weights = [Signal(form, name=f"weight_{lane}", reset_less=True) for lane in range(self.schedule.lanes)]
        for lane, weight in enumerate(weights):
            m.d.sync += weight.eq(line.word_select(lane, form.width))
        if not sharing:
            later = (delayed(m, weight, timing.operand, weight.name) for weight in weights)
            return [product(m, w, operand, signed(width), timing, f"product_{k}") for k, w in enumerate(later)]
        terms: list[Value] = []
        for lane in range(0, len(weights), 2):
            low, *others = weights[lane : lane + 2]
            high = others[0] if others else Const(0, form)
            if sharing == "packed":
                pair = packed(m, low, high, width, f"pair_{lane // 2}")
                word = delayed(m, pair, timing.operand, pair.name)
                both = product(m, word, operand, signed(2 * width), timing, f"both_{lane // 2}")
                terms += parted(m, both, width, (f"product_{lane}", f"product_{lane + 1}"))
            else:
                m.submodules[f"halves_{lane // 2}"] = halves = Halves(form, self.operand_shape)
                m.d.comb += [
                    halves.weight_0.eq(delayed(m, low, timing.operand, low.name)),
                    halves.weight_1.eq(delayed(m, high, timing.operand, high.name) if others else 0),
                    halves.operand.eq(operand),
                ]
                for k, one in enumerate((halves.product_0, halves.product_1)):
                    terms.append(delayed(m, one, timing.product - 1, f"product_{lane + k}"))
        return terms[: len(weights)]


def _packed(values: list[int], width: int) -> int:
    word = 0
    for k, value in enumerate(values):
        word |= (int(value) & ((1 << width) - 1)) << (k * width)
    return word


def _memory(words: list[int], depth: int, code: Code, weights: str) -> Memory:
    stored = [code.word(word) for word in words]
    return Memory(shape=code.width, depth=max(depth, 2), init=stored, attrs=attributes(weights))
