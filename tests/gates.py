"""Gates without registers, looked at for all patterns of their inputs.

Numpy evaluates 64 patterns a word, so that functions of up to 28 inputs or so are decided by trying everything: no
solver has to be believed, and products of numbers, which solvers find hard, are as easy as anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["Cone", "Gates"]

_ALL = (np.uint64(0), ~np.uint64(0))
_CHUNK = 18  # bits of a pattern that are tried at once


class Gates:
    """And gates and registers, as an ASCII AIGER file lists them; a literal is twice the number, plus one if inverted.

    Attributes:
        inputs: name and bit by number.
        registers: next literal by number.
        ands: both literals by number.
        outputs: literals by name, the lowest bit first.
    """

    def __init__(self, text: str) -> None:
        lines = text.splitlines()
        _, inputs, registers, outputs, ands = (int(n) for n in lines[0].split()[1:6])
        rows = [[int(n) for n in line.split()] for line in lines[1 : 1 + inputs + registers + outputs + ands]]
        self.registers = {row[0] >> 1: row[1] for row in rows[inputs : inputs + registers]}
        self.ands = {row[0] >> 1: (row[1], row[2]) for row in rows[inputs + registers + outputs :]}
        self.inputs: dict[int, str] = {}
        found: dict[str, dict[int, int]] = {}
        for kind, at, name, bit in re.findall(r"^([io])(\d+) (\S+?)(?:\[(\d+)\])?$", text, re.MULTILINE):
            if kind == "i":
                self.inputs[rows[int(at)][0] >> 1] = f"{name}[{bit or 0}]"
            else:
                found.setdefault(name, {})[int(bit or 0)] = rows[inputs + registers + int(at)][0]
        self.outputs = {name: [literals[k] for k in sorted(literals)] for name, literals in found.items()}


class Cone:
    """Gates over time without registers: the value of a literal in a cycle, as gates of inputs and of cuts."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self._numbers: dict[tuple[int, int], int] = {}
        self.names: dict[int, str] = {}
        self.ands: dict[int, tuple[int, int]] = {}
        self._hashed: dict[tuple[int, int], int] = {}
        self._free: dict[str, int] = {}
        self._next = 1

    def _new(self) -> int:
        self._next += 1
        return 2 * (self._next - 1)

    def _named(self, name: str) -> int:
        if name not in self._free:
            self._free[name] = self._new()
            self.names[self._free[name] >> 1] = name
        return self._free[name]

    def cut(self, a: int, at: int, b: int, when: int, name: str) -> None:
        """Take two literals, each in its cycle and known to be equal, for one free input.

        Where one of them is constant, or was cut before, both are that.
        """
        places = [(a, at), (b, when)]
        known = [v for v in (self._known(literal, cycle) for literal, cycle in places) if v is not None]
        value = min(known) if known else self._named(name)  # constants are the least
        for literal, cycle in places:
            if literal > 1:
                self._numbers.setdefault((literal >> 1, cycle), value ^ (literal & 1))

    def _known(self, literal: int, cycle: int) -> int | None:
        number = 0 if literal < 2 else self._numbers.get((literal >> 1, cycle))
        return None if number is None else number ^ (literal & 1)

    def both(self, a: int, b: int) -> int:
        """And."""
        a, b = min(a, b), max(a, b)
        if a == 0 or a == b ^ 1:
            return 0
        if a in (1, b):
            return b
        if (a, b) not in self._hashed:
            self._hashed[a, b] = self._new()
            self.ands[self._hashed[a, b] >> 1] = a, b
        return self._hashed[a, b]

    def either(self, a: int, b: int) -> int:
        """Or."""
        return self.both(a ^ 1, b ^ 1) ^ 1

    def at(self, literal: int, cycle: int) -> int:
        """A literal's value in a cycle; what registers hold before cycle 0 is free."""
        todo = [(literal >> 1, cycle)]
        gates, numbers = self.gates, self._numbers
        while todo:
            node, when = key = todo[-1]
            if key in numbers:
                todo.pop()
            elif node == 0:
                numbers[key] = 0
            elif node in gates.inputs:
                numbers[key] = self._named(gates.inputs[node] + (f"@{when}" if when else ""))
            elif node in gates.registers:
                source = gates.registers[node]
                if when == 0:
                    numbers[key] = self._named(f"register {node}")
                elif (source >> 1, when - 1) in numbers:
                    numbers[key] = numbers[source >> 1, when - 1] ^ (source & 1)
                else:
                    todo.append((source >> 1, when - 1))
            else:
                a, b = gates.ands[node]
                need = [(n >> 1, when) for n in (a, b) if (n >> 1, when) not in numbers]
                if need:
                    todo += need
                else:
                    numbers[key] = self.both(numbers[a >> 1, when] ^ (a & 1), numbers[b >> 1, when] ^ (b & 1))
        return numbers[literal >> 1, cycle] ^ (literal & 1)

    def order(self, literal: int) -> list[int]:
        """The gates and inputs below a literal, ascending, which is an order of evaluation."""
        found, todo = set(), [literal >> 1]
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                todo += [n >> 1 for n in self.ands.get(node, ())]
        return sorted(found)

    def support(self, literal: int) -> list[str]:
        """The names of the inputs below a literal."""
        return [self.names[node] for node in self.order(literal) if node in self.names]

    def merged(self, literal: int, most: int) -> int:
        """The literal rebuilt with gates taken for one that are equal for all patterns of at most ``most`` inputs.

        Random patterns tell which might be: those products of different widths that SAT finds hard among them.
        """
        order = self.order(literal)
        below: dict[int, int] = {0: 0}
        rng = np.random.default_rng(0)
        values = {0: np.zeros(64, np.uint64)}
        for node in order:
            if node in self.ands:
                a, b = self.ands[node]
                below[node] = below[a >> 1] | below[b >> 1]
                values[node] = (values[a >> 1] ^ _ALL[a & 1]) & (values[b >> 1] ^ _ALL[b & 1])
            elif node:
                below[node] = 1 << node
                values[node] = rng.integers(0, 1 << 64, 64, np.uint64)
        classes: dict[bytes, list[int]] = {}
        flipped = {node: int(values[node][0]) & 1 for node in order}
        for node in order:
            if node in self.ands and below[node].bit_count() <= most:
                classes.setdefault((values[node] ^ _ALL[flipped[node]]).tobytes(), []).append(node)
        pairs = [(members[0], node) for members in classes.values() for node in members[1:]]
        areas = {below[a] | below[b] for a, b in pairs if (below[a] | below[b]).bit_count() <= most}
        largest = [area for area in areas if not any(area != other and area & ~other == 0 for other in areas)]
        same: dict[int, int] = {}
        for area in largest:
            asked = [(a, b) for a, b in pairs if b not in same and (below[a] | below[b]) & ~area == 0]
            for a, b in self._equal(asked, flipped):
                same[b] = 2 * a | flipped[a] ^ flipped[b]
        built: dict[int, int] = {0: 0}
        for node in order:
            if node in same:
                built[node] = built[same[node] >> 1] ^ (same[node] & 1)
            elif node in self.ands:
                a, b = self.ands[node]
                built[node] = self.both(built[a >> 1] ^ (a & 1), built[b >> 1] ^ (b & 1))
            else:
                built[node] = 2 * node
        return built[literal >> 1] ^ (literal & 1)

    def _equal(self, pairs: list[tuple[int, int]], flipped: Mapping[int, int]) -> list[tuple[int, int]]:
        """The pairs that are equal, but for what is flipped, for all patterns."""
        left = list(pairs)
        for values in self._patterns([node for pair in pairs for node in pair]):
            left = [(a, b) for a, b in left if not (values[a] ^ values[b] ^ _ALL[flipped[a] ^ flipped[b]]).any()]
        return left

    def exhaustive(self, literal: int, most: int = 22) -> dict[str, str] | None:
        """A pattern of the support for which a literal is 1, ``0`` or ``1`` by name; None where there is none.

        Of more than ``most`` inputs, those that most gates read are tried one value at a time: with constants in their
        places little is left of a product.
        """
        if literal < 2:
            return {} if literal else None
        free = [node for node in self.order(literal) if node in self.names]
        if len(free) > most:
            readers = dict.fromkeys(free, 0)
            for node in self.order(literal):
                for read in self.ands.get(node, ()):
                    if read >> 1 in readers:
                        readers[read >> 1] += 1
            fixed = sorted(free, key=lambda node: -readers[node])[: len(free) - most]
            for number in range(1 << len(fixed)):
                values = {node: number >> k & 1 for k, node in enumerate(fixed)}
                cone, rest = self.with_constants(literal, values)
                found = cone.exhaustive(rest, most)
                if found is not None:
                    return found | {self.names[node]: str(bit) for node, bit in values.items()}
            return None
        for chunk, patterns in enumerate(self._patterns([literal >> 1])):
            result = patterns[literal >> 1] ^ _ALL[literal & 1]
            if result.any():
                word = int(np.flatnonzero(result)[0])
                bits = int(result[word])
                index = (chunk << _CHUNK) + (word << 6) + (bits & -bits).bit_length() - 1
                return {self.names[node]: str(index >> k & 1) for k, node in enumerate(free)}
        return None

    def with_constants(self, literal: int, values: Mapping[int, int]) -> tuple[Cone, int]:
        """A literal where some inputs, by number, are constant, in a cone of its own."""
        cone = Cone(self.gates)
        built = {0: 0, **values}
        for node in self.order(literal):
            if node in self.ands:
                a, b = self.ands[node]
                built[node] = cone.both(built[a >> 1] ^ (a & 1), built[b >> 1] ^ (b & 1))
            elif node not in built:
                built[node] = cone._named(self.names[node])
        return cone, built[literal >> 1] ^ (literal & 1)

    def random(self, literal: int, rounds: int, seed: int = 0) -> dict[str, str]:
        """A random pattern of the support for which a literal is 1, ``0`` or ``1`` by name; empty where none is."""
        rng, order = np.random.default_rng(seed), self.order(literal)
        for _ in range(rounds):
            values = {0: np.zeros(256, np.uint64)}
            for node in order:
                if node in self.ands:
                    a, b = self.ands[node]
                    values[node] = (values[a >> 1] ^ _ALL[a & 1]) & (values[b >> 1] ^ _ALL[b & 1])
                elif node:
                    values[node] = rng.integers(0, 1 << 64, 256, np.uint64)
            result = values[literal >> 1] ^ _ALL[literal & 1]
            if result.any():
                word = int(np.flatnonzero(result)[0])
                bit = (int(result[word]) & -int(result[word])).bit_length() - 1
                return {self.names[n]: str(int(values[n][word]) >> bit & 1) for n in order if n in self.names}
        return {}

    def _patterns(self, nodes: list[int]) -> Iterator[dict[int, np.ndarray]]:
        """Values of all nodes below some, a bit for each pattern of the inputs; chunk by chunk, in the same arrays."""
        order = sorted({n for node in nodes for n in self.order(2 * node)})
        free = [node for node in order if node in self.names]
        words = 1 << max(0, min(len(free), _CHUNK) - 6)
        values: dict[int, Any] = {0: np.zeros(words, np.uint64)}
        index = np.arange(words, dtype=np.uint64)
        masks = [sum(1 << k for k in range(64) if k >> bit & 1) for bit in range(6)]
        for k, node in enumerate(free[:_CHUNK]):
            if k < 6:
                values[node] = np.full(words, masks[k], np.uint64)
            else:
                values[node] = np.where(index >> np.uint64(k - 6) & np.uint64(1), ~np.uint64(0), np.uint64(0))
        inner = [(node, *self.ands[node]) for node in order if node in self.ands]
        room = {node: np.empty(words, np.uint64) for node, _, _ in inner}
        for chunk in range(1 << max(0, len(free) - _CHUNK)):
            for k, node in enumerate(free[_CHUNK:]):
                values[node] = np.full(words, ~np.uint64(0) if chunk >> k & 1 else np.uint64(0))
            for node, a, b in inner:
                x, y = values[a >> 1], values[b >> 1]
                if a & 1 and b & 1:
                    np.bitwise_or(x, y, out=room[node])
                    np.invert(room[node], out=room[node])
                elif a & 1 or b & 1:
                    if a & 1:
                        x, y = y, x
                    np.bitwise_and(x, y, out=room[node])
                    np.bitwise_xor(x, room[node], out=room[node])
                else:
                    np.bitwise_and(x, y, out=room[node])
                values[node] = room[node]
            yield values

    def aiger(self, literal: int) -> bytes:
        """An AIGER file of one output."""
        order = self.order(literal)
        free = [n for n in order if n in self.names]
        inner = [n for n in order if n in self.ands]
        number = {0: 0, **{n: k + 1 for k, n in enumerate([*free, *inner])}}
        literals = {n: 2 * k for n, k in number.items()}
        data = bytearray(f"aig {len(free) + len(inner)} {len(free)} 0 1 {len(inner)}\n".encode())
        data += f"{literals[literal >> 1] + (literal & 1)}\n".encode()
        for n in inner:
            low, high = sorted(literals[k >> 1] + (k & 1) for k in self.ands[n])
            for delta in (literals[n] - high, high - low):
                while delta > 127:
                    data.append(delta & 127 | 128)
                    delta >>= 7
                data.append(delta)
        return bytes(data)
