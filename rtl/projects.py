"""What vendors' tools need beside the Verilog: a project's script, the clock, and memories that they read.

Each tool gets a script in its own Tcl that makes a project of the block alone, without pads and pins, and takes it
through synthesis, placement and routing. Vivado (UG901) and Quartus Prime (Design Recommendations) document that they
read the contents of a memory by ``$readmemh``, and designs for Radiant rely on it: so ``NAME_vendor.v`` is the same
design with the words of its memories in files of one word a line. The memory is declared from 0 upwards and its limits
are given, because readings of the standard differ on where a file begins in a memory declared downwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hwrnn.errors import UsageError
from hwrnn.rtl.targets import Target

__all__ = ["TOOLS", "Tool", "clock_checked", "project_files", "tools_named", "with_memory_files"]


@dataclass(frozen=True)
class Tool:
    """One vendor's tool.

    Attributes:
        name: as ``generate --for`` takes it, and the template's.
        title: as its vendor writes it.
        command: the program that runs a script, up to the script's name.
        constraints: suffix of the file with the clock.
        parts: what the tool calls a part of ``hwrnn.rtl.TARGETS``.
        part: the part without such a target.
        clock: MHz without such a target or where it has no goal.
    """

    name: str
    title: str
    command: str
    constraints: str
    parts: dict[str, str]
    part: str
    clock: int


_ROWS = (
    Tool(
        "vivado", "Vivado", "vivado -mode batch -source", "xdc",
        {"xc7s15": "xc7s15ftgb196-1", "xc7s50": "xc7s50csga324-1"}, "xc7s50csga324-1", 200,
    ),
    Tool("quartus", "Quartus Prime", "quartus_sh -t", "sdc", {"cyclonev": "5CEBA4F23C7"}, "5CEBA4F23C7", 150),
    # Radiant has no ECP5: that is Diamond's.
    Tool("radiant", "Lattice Radiant", "radiantc", "sdc", {"up5k": "iCE40UP5K-SG48I"}, "LIFCL-40-8BG400C", 150),
)  # fmt: skip

#: Every tool by name.
TOOLS = {tool.name: tool for tool in _ROWS}


def tools_named(names: str | Sequence[str]) -> tuple[Tool, ...]:
    """Tools by name, each once.

    Raises:
        UsageError: an unknown name.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in TOOLS:
            raise UsageError(f"Tool must be one of {', '.join(TOOLS)}, not {name!r}")
    return tuple(TOOLS[name] for name in dict.fromkeys(names))


def clock_checked(clock: float | None, tools: Sequence[Tool]) -> float | None:
    """The MHz of a constraint.

    Raises:
        UsageError: no such number, or one without a tool that it is for.
    """
    if clock is None:
        return None
    if not tools:
        raise UsageError("Clock must come with tools that it is for, not alone")
    if isinstance(clock, bool) or not isinstance(clock, (int, float)) or not 0 < clock <= 10_000:
        raise UsageError(f"Clock must be a number of MHz above 0 and at most 10000, not {clock!r}")
    return clock


_ARRAY = r"^  reg (\[\d+:0\] )?({memory}) \[(\d+):0\];$"
_CONTENTS = re.compile(r"^  initial begin\n((?:    (\w+)\[\d+\] = \d+'[bdh]\w+;\n)+)  end\n", re.MULTILINE)
_WORD = re.compile(r"\[(\d+)\] = (\d+)'([bdh])(\w+);")
_BASES = {"b": 2, "d": 10, "h": 16}


def with_memory_files(text: str) -> tuple[str, dict[str, str]]:
    """A design whose memories take their words from files, and the files.

    Args:
        text: of all modules, as :func:`hwrnn.rtl.verilog.emit` writes them.

    Returns:
        the text, and of every file ``MODULE_MEMORY.mem`` the words in hexadecimal digits, one a line.
    """
    files: dict[str, str] = {}

    def module(match: re.Match[str]) -> str:
        name, body = match[1], match[0]
        for found in list(_CONTENTS.finditer(body)):
            memory = found[2]
            array = re.search(_ARRAY.format(memory=memory), body, re.MULTILINE)
            if array is None:
                raise AssertionError(f"memory {memory} of {name} has no declaration")
            last = int(array[3])
            words = {int(at): int(digits, _BASES[base]) for at, _, base, digits in _WORD.findall(found[1])}
            width = int(array[1][1:-4]) + 1 if array[1] else 1
            file = f"{name}_{memory}.mem"
            files[file] = "".join(f"{words.get(at, 0):0{-(-width // 4)}x}\n" for at in range(last + 1))
            body = body.replace(array[0], f"  reg {array[1] or ''}{memory} [0:{last}];")
            body = body.replace(found[0], f'  initial $readmemh("{file}", {memory}, 0, {last});\n')
        return body

    return re.sub(r"^module (\w+).*?^endmodule$", module, text, flags=re.MULTILINE | re.DOTALL), files


def project_files(
    name: str,
    text: str,
    tools: Iterable[Tool],
    target: Target | None,
    clock: float | None,
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The files for the tools, and what the manifest says of them.

    Args:
        name: of the top.
        text: of the design, the top first, with or without a header.
        target: gives the part to a tool that has it.
        clock: MHz of ``aclk``; where None the target's goal, or a figure that suits the tool's own part.

    Returns:
        the files by name, and for each tool its name, part, clock, files and the command that runs it.
    """
    tools = tuple(tools)
    if not tools:
        return {}, []
    design, memories = with_memory_files(text)
    files = {f"{name}_vendor.v": design, **memories}
    rows = []
    for tool in tools:
        part = tool.part if target is None else tool.parts.get(target.name, tool.part)
        goal = target.goal if target is not None and target.name in tool.parts else 0
        mhz = clock or goal or tool.clock
        script, constraints = f"{name}_{tool.name}.tcl", f"{name}_{tool.name}.{tool.constraints}"
        holes = {
            "NAME": name,
            "PART": part,
            "MEMORIES": "".join(f"\n    {file}" for file in memories) + "\n",
            "PORTS": "".join(f"\n    {bit}" for bit in _port_bits(text)) + "\n",
        }
        files[script] = _filled(f"{tool.name}.tcl", holes)
        files[constraints] = _clock(tool, mhz)
        rows.append({
            "tool": tool.name, "title": tool.title, "part": part, "clock_mhz": mhz, "script": script,
            "constraints": constraints, "verilog": f"{name}_vendor.v", "memories": list(memories),
            "command": f"{tool.command} {script}",
        })  # fmt: skip
    return files, rows


def _filled(template: str, holes: dict[str, str]) -> str:
    text = (resources.files("hwrnn.rtl") / template).read_text()
    return re.sub(r"@([A-Z]+)@", lambda hole: holes[hole[1]], text)


def _port_bits(text: str) -> list[str]:
    """Every bit of every port of the top but the clock."""
    top = text[: text.index("\nendmodule")]
    found = re.findall(r"^  (?:input|output) (?:reg |wire )?(?:\[(\d+):0\] )?(\w+);", top, re.MULTILINE)
    bits = []
    for high, port in found:
        if port != "aclk":
            bits += [f"{port}[{k}]" for k in range(int(high) + 1)] if high else [port]
    return bits


def _clock(tool: Tool, mhz: float) -> str:
    lines = [
        f"# {mhz:g} MHz, for {tool.title}. The ports are inside a chip, so nothing is asked of them.",
        f"create_clock -name aclk -period {1000 / mhz:.3f} [get_ports {{aclk}}]",
    ]
    if tool.name == "quartus":
        lines.append("derive_clock_uncertainty")
    return "\n".join(lines) + "\n"
