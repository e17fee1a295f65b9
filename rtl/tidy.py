"""Verilog that people can read, from the Verilog that Yosys writes.

Amaranth and Yosys leave every alias of a signal, escaped names, names such as ``$12`` for what has none, and the next
value of each register in a block of its own. Here a module loses what nothing reads, a register gets its value where
it stands, each name becomes a plain identifier that tells what the signal is where anything tells it, ports come
first, and a memory of zeros is cleared by a loop. A memory of the style "huge" loses its initial content, for the
blocks that it stands for have none. The text is taken apart at the level of declarations, assignments,
blocks and instances; of an expression only names change, and repeated bits are counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hwrnn.rtl.names import KEYWORDS, free_name, natural, plain_name

__all__ = ["tidy"]

_NAME = r"(?:\\\S+ |[A-Za-z_][\w$]*)"
#: An attribute's string, a number, a system function, an escaped name or a plain one.
_TOKEN = re.compile(r"\"[^\"]*\"|\d*'s?[bdho][0-9a-fxz?_]+|\$\w+|\\\S+ |[A-Za-z_][\w$]*")
_DECLARATION = re.compile(rf"  (input|output|wire|reg|integer)( \[\d+:\d+\])? ({_NAME})")
_ASSIGNED = re.compile(rf"  assign ({_NAME}) ?= (.*);$")
_ALIAS = re.compile(rf"  assign ({_NAME}) ?= ({_NAME})(\[\d+:0\])?;$")
_TARGET = re.compile(rf"(?:  assign | +)({_NAME}|\{{.*?\}})(?: ?\[.*?\])* <?= ")
_REGISTER = re.compile(rf"    ({_NAME}) ?<= ({_NAME});$")
_READ = re.compile(rf"^ +(_\d+_) <= ({_NAME})\[", re.MULTILINE)
_WORD = re.compile(rf"    ({_NAME})\[\d+\] = (\d+'h0+);$")
_UNNAMED = re.compile(r"(?:\\\$\d+ |_\d+_|\\\$auto\S+ )$")
_REPEATED = re.compile(r"([\w\\$.]+ ?\[\d+\])((?:, \1)+)(?=[, ])")
_NUMBERED = re.compile(r"\$\d+ $")
_ATTRIBUTE = re.compile(r" *\(\* .* \*\)$")
_EMPTY = '  (* ram_style = "huge" *)'  # of a memory that has no initial content in hardware
_NOISE = re.compile(r" *\(\* (?:init|full_case) = \S+ \*\)$")


def tidy(text: str, ports: Sequence[str]) -> str:
    """The modules of ``text`` in order, the first being the top with its ports in the order of ``ports``."""
    texts = re.findall(r"^module .*?^endmodule$", text, re.MULTILINE | re.DOTALL)
    modules = [_Module(part) for part in texts]
    crossing = {name: name for name in ports}
    for module in modules:
        module.forget()
        module.prune()
        module.merge_registers()
        module.prune()
    return "\n".join(module.text(crossing, ports if k == 0 else ()) for k, module in enumerate(modules))


@dataclass
class _Item:
    """A declaration, an assignment, a block or an instance, by its lines."""

    lines: list[str]

    @property
    def head(self) -> str:
        """Its first line behind attributes."""
        return next((line for line in self.lines if not _ATTRIBUTE.match(line)), self.lines[0])

    @cached_property
    def kind(self) -> str:
        """``assign``, ``always``, ``initial``, ``instance`` or a declaration's keyword."""
        declared = _DECLARATION.match(self.head)
        if declared:
            return declared[1]
        word = self.head.split()[0]
        return word if word in ("assign", "always", "initial") else "instance"

    @cached_property
    def defines(self) -> set[str]:
        """The names that it declares or gives a value to."""
        declared = _DECLARATION.match(self.head)
        if declared:
            return {declared[3]}
        targets = (_TARGET.match(line) for line in self.lines) if self.kind != "instance" else ()
        return {name for target in targets if target for name in re.findall(_NAME, target[1])}

    @property
    def declares(self) -> bool:
        """Whether it is a declaration."""
        return self.kind in ("input", "output", "wire", "reg", "integer")

    @cached_property
    def tokens(self) -> list[str]:
        """Every name in it but an instance's own and those of its ports, keywords included."""
        lines = self.lines
        if self.kind == "instance":
            lines = [re.sub(rf"    \.{_NAME}", "", line) for line in lines[1:]]
        return [token for line in lines for token in _TOKEN.findall(line)]


    def computes(self, name: str) -> bool:
        """Whether it is the combinational assignment or block of this one name."""
        return self.defines == {name} and self.lines[0].startswith(("  assign", "  always @*"))


@dataclass
class _Module:
    """One module's items, and what they tell of names: ``hints`` for names that Yosys made up."""

    source: str
    hints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        head, body = self.source.split(");\n", 1)
        self.name = re.findall(_NAME, head)[1]
        lines = [line for line in body.splitlines()[:-1] if line.strip() and not _NOISE.match(line)]
        chunks: list[list[str]] = []
        for k, line in enumerate(lines):
            opens = line[2] not in " )" and line.strip() != "end"
            if opens and not (k and lines[k - 1].startswith("  (*")):
                chunks.append([])
            chunks[-1].append(line)
        self.items = [_Item(chunk) for chunk in chunks]

    def forget(self) -> None:
        """Drop the initial content of memories that have none in hardware."""
        empty = {name for item in self.items if _EMPTY in item.lines for name in item.defines}
        self.items = [item for item in self.items if item.kind != "initial" or not item.defines & empty]

    def prune(self) -> None:
        """Drop what no output and no instance depends on, and learn from what goes."""
        rest = [item for item in self.items if not item.declares]
        live = {name for item in self.items if item.kind in ("input", "output") for name in item.defines}
        kept: set[int] = set()
        while more := [i for i in rest if id(i) not in kept and (i.kind == "instance" or i.defines & live)]:
            kept |= {id(item) for item in more}
            live |= {name for item in more for name in item.tokens}
        for item in self.items:
            self._learn(item, live)
        self.items = [item for item in self.items if id(item) in kept or (item.declares and item.defines & live)]

    def _learn(self, item: _Item, live: set[str]) -> None:
        alias = _ALIAS.match(item.lines[0])
        if alias and not _UNNAMED.match(alias[1]):
            whole = alias[1] not in live and not alias[3]
            self.hints.setdefault(alias[2], alias[1] if whole else f"{alias[1].strip()}_full")
        for read in _READ.finditer("\n".join(item.lines)):
            self.hints.setdefault(read[1], f"{read[2].strip()}_read")
        if "$auto$verilog_backend" in item.lines[0]:
            # This register makes a simulator evaluate each block once at the start.
            self.hints.update(dict.fromkeys(item.defines, "settle"))

    def merge_registers(self) -> None:
        """Give each register its next value where it is clocked, if nothing else reads that value."""
        users: dict[str, list[_Item]] = {}
        for item in self.items:
            for name in dict.fromkeys(item.tokens) if not item.declares else ():
                users.setdefault(name, []).append(item)
        gone: set[int] = set()
        for item in self.items:
            register = _REGISTER.match(item.lines[-1]) if item.kind == "always" and len(item.lines) == 2 else None
            others = [user for user in users.get(register[2], ()) if user is not item] if register else []
            if register and len(others) == 1 and others[0].computes(register[2]):
                lines = _clocked(others[0], register[1], register[2], item.lines[0])
                if lines:
                    item.__dict__.clear()
                    item.lines = lines
                    gone.add(id(others[0]))
        self.items = [item for item in self.items if id(item) not in gone]

    def text(self, crossing: dict[str, str], order: Sequence[str]) -> str:
        """The module again, with plain names; ``crossing`` are those that other modules may use, by the old ones."""
        own = self._names(crossing)

        def plain(line: str) -> str:
            if _ATTRIBUTE.match(line):
                return line
            line = _REPEATED.sub(lambda m: f"{{{len(m[0].split(', '))}{{{m[1]}}}}}", line)
            return _TOKEN.sub(lambda token: own.get(token[0], token[0]), line)

        def key(item: _Item) -> tuple[object, ...]:
            name = plain(*item.defines)
            place = order.index(name) if name in order else len(order)
            return place, item.kind == "output", name not in ("aclk", "reset"), natural(name)

        ports = sorted((item for item in self.items if item.kind in ("input", "output")), key=key)
        names = [plain(*item.defines) for item in ports]
        memories = [item for item in self.items if item.kind == "reg" and item.lines[-1].endswith("];")]
        inner = [item for item in self.items if item.kind in ("wire", "reg") and item not in memories]
        inner = [item for item in inner if item.kind == "reg" or plain(*item.defines) not in names]
        others = [item for item in self.items if item in memories or not item.declares]
        result = [*_header(plain(self.name), names)]
        result += [plain(line) for item in (*ports, *sorted(inner, key=key)) for line in item.lines]
        if any(_loop(item) for item in others):
            result.append("  integer index;")
        result += [plain(line) for item in others for line in _loop(item) or item.lines]
        return "\n".join([*result, "endmodule", ""])

    def _names(self, crossing: dict[str, str]) -> dict[str, str]:
        lines = [line for item in self.items for line in item.lines if not _ATTRIBUTE.match(line)]
        present = dict.fromkeys(token for line in lines for token in _TOKEN.findall(line))
        ports = {name for item in self.items if item.kind in ("input", "output") for name in item.defines}
        own: dict[str, str] = {}
        for token in [self.name, *present]:
            if token[0] not in "\"$'0123456789" and token not in KEYWORDS and not _UNNAMED.match(token):
                own[token] = crossing.setdefault(token, "") or free_name(plain_name(token), set(crossing.values()))
                crossing[token] = own[token]
        taken = {"index", *own.values()}
        for token in present:
            hint = self.hints.get(token, "")
            if _UNNAMED.match(token):
                # The digits of Yosys' own names are places in its source text: other ones in the next version.
                own_digits = [] if token.startswith(r"\$auto") else re.findall(r"\d", token)
                name = plain_name(hint) if hint else "t" + "".join(own_digits)
            elif hint and not hint.endswith("_full") and _NUMBERED.search(token) and token not in ports:
                name = plain_name(hint)
            else:
                continue
            own[token] = free_name(name, taken)
            taken.add(own[token])
        return own


def _clocked(source: _Item, register: str, value: str, clock: str) -> list[str]:
    """The block of a register whose next value ``source`` computes, or nothing where that is read in between."""
    assigned = _ASSIGNED.match(source.lines[0])
    if assigned:
        return [clock, f"    {register} <= {assigned[2]};"]
    body = []
    for line in source.lines[1:-1]:
        if "$auto$verilog_backend" in line:
            continue
        at = re.match(rf"( +){re.escape(value)}((?: ?\[.*?\])?) = (.*)$", line)
        if at:
            line = f"{at[1]}{register}{at[2]} <= {at[3]}"
        if value in _TOKEN.findall(line):
            return []
        if not (at and not at[2] and at[3].rstrip(";").strip() == register.strip()):
            body.append(line)
    return [f"{clock} begin", *body, "  end"]


def _loop(item: _Item) -> list[str]:
    """A loop in place of a memory's initial zeros, else nothing."""
    words = [_WORD.match(line) for line in item.lines[1:-1]]
    if item.kind != "initial" or len(words) < 2 or not words[0] or not all(words):
        return []
    count, memory, zero = len(words), words[0][1], words[0][2]
    return [f"  initial for (index = 0; index < {count}; index = index + 1)", f"    {memory}[index] = {zero};"]


def _header(name: str, ports: Sequence[str]) -> list[str]:
    lines = [f"module {name} ("]
    for k, port in enumerate(ports):
        text = f"{port}," if k + 1 < len(ports) else f"{port});"
        if k and len(lines[-1]) + len(text) < 116:
            lines[-1] += f" {text}"
        else:
            lines.append(f"    {text}")
    return lines
