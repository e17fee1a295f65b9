"""What the test bench of a network with protected memories or a watchdog has besides: text for the holes of bench.v."""

from __future__ import annotations

import random
import re
from importlib import resources
from typing import Any

from hwrnn.rtl.network import Network
from hwrnn.rtl.watchdog import STALLED

__all__ = ["fault_holes"]

_HOLES = ("SAYS", "WIRES", "PORTS", "HOLD", "TICK", "RESET", "TASK", "IDLE", "LATER")
_LONGEST = 100_000  # cycles that a bench waits for a watchdog


def fault_holes(network: Network) -> dict[str, str]:
    """The holes by name, empty where there is nothing to fill in."""
    holes = dict.fromkeys((f"FAULT_{hole}" for hole in _HOLES), "")
    for more in (_protection(network), _watchdog(network)):
        for hole, text in more.items():
            holes[f"FAULT_{hole}"] += text
    return holes


def _template(file: str, holes: dict[str, Any]) -> str:
    text = (resources.files("hwrnn.rtl") / file).read_text()
    return re.sub(r"@([A-Z_]+)@", lambda hole: str(holes[hole[1]]), text)


def _wires(names: tuple[str, ...]) -> dict[str, str]:
    return {
        "WIRES": "".join(f"\n  wire {name};" for name in names),
        "PORTS": ",\n    " + ", ".join(f".{name}({name})" for name in names),
    }


def _protection(network: Network) -> dict[str, str]:
    """Flipped bits in every memory of weights and biases, by the names that they have in the Verilog."""
    if network.protect == "none":
        return {}
    corrects = network.protect == "secded"
    rng = random.Random(0x5EED)  # the same in every run
    flips, memories = "", 0
    for k, lanes in enumerate(engine.lanes for engine in network.engines):
        for what, words, code in (("weights", lanes.words, lanes.code), ("biases", lanes.bias_words, lanes.bias_code)):
            word = f"dut.network.layer{k}.lanes.{what}[{rng.randrange(len(words))}]"
            one, two = ((1 << a | 1 << b) for a, b in [rng.sample(range(code.width), 2)] for b in (a, b))
            masks = f"twice ? {code.width}'h{two:x} : {code.width}'h{one:x}"
            flips += f"      {memories}: {word} = {word} ^ ({masks});\n"
            memories += 1
    task = _template("bench_protect.v", {
        "FLIPS": flips,
        "CORRECTING": ", and one must be corrected" if corrects else "",
        "CORRECTS": "!twice" if corrects else "1'b0",
        "DETECTED": "twice" if corrects else "1'b1",
        "CORRECTED": " || fault_corrected !== !twice" if corrects else "",
    })  # fmt: skip
    sound = " || ".join(f"{name} !== 1'b0" for name in network.faults)
    runs = "      inject(at, 1'b0);\n" + ("      inject(at, 1'b1);\n" if corrects else "")
    return {
        "SAYS": f""",
//   - that no fault is told of sound memories, and that flipped bits in a word of each of {memories} are; a netlist
//     has no memories of these names: compile the bench with FLAT defined, and it leaves them out""",
        **_wires(network.faults),
        "TICK": f"""
      if (sound && ({sound}))
        fail("a fault is told of sound memories");""",
        "TASK": f"""
  reg sound;                      // no bit is flipped
`ifndef FLAT
  integer at;
{task}`endif
""",
        "IDLE": "\n    sound = 1'b1;",
        "LATER": f"""`ifndef FLAT
    // Flipped bits.
    for (at = 0; at < {memories}; at = at + 1) begin
{runs}    end
`endif

""",
    }


def _watchdog(network: Network) -> dict[str, str]:
    """The same count of waiting cycles in the bench, compared in every cycle."""
    cycles = network.watchdog
    if not cycles:
        return {}
    reached = cycles <= _LONGEST
    says = "and that long waits are told" if reached else "but it does not wait that long"
    return {
        "SAYS": f",\n//   - what the watchdog of {cycles} cycles tells, in every cycle, {says}",
        **_wires(STALLED),
        "HOLD": " && !hold_output",
        "TICK": """
      if (stalled_input !== (starved >= WATCHDOG) || stalled_output !== (refused >= WATCHDOG) ||
          stalled !== (stalled_input || stalled_output))
        fail("the watchdog tells something else than the ports");
      starved = s_axis_tready && !s_axis_tvalid && (open != 0 || sent % (INPUTS * CHANNELS) != 0) ? starved + 1 : 0;
      refused = m_axis_tvalid && !m_axis_tready ? refused + 1 : 0;
      if (s_axis_tvalid && s_axis_tready && sent % INPUTS == INPUTS - 1)
        open[sent/INPUTS%CHANNELS] = !s_axis_tlast;""",
        "RESET": """
      starved = 0;
      refused = 0;
      open = 0;""",
        "TASK": f"""
  localparam [31:0] WATCHDOG = {cycles};
  reg [31:0] starved, refused;    // cycles in a row in which a port waited
  reg [CHANNELS-1:0] open;        // each channel's sequence goes on behind its last vector
  reg hold_output;
"""
        + (_template("bench_watchdog.v", {}) if reached else ""),
        "IDLE": "\n    hold_output = 1'b0;",
        "LATER": "    // Long waits.\n    stand_still;\n\n" if reached else "",
    }
