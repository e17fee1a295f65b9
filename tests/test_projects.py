"""Projects for vendors' tools: memories in files, scripts that Tcl runs to their end, and refusals."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from networks import FEW, network_of, started

from hwrnn.cli import main
from hwrnn.errors import UsageError
from hwrnn.onnx_io import save
from hwrnn.rtl import generate
from hwrnn.rtl.projects import TOOLS, tools_named, with_memory_files
from hwrnn.rtl.targets import TARGETS

icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
tclsh = pytest.mark.skipif(shutil.which("tclsh") is None, reason="tclsh is not installed")

# What the scripts call of each tool. A name that is not among these is a fault.
COMMANDS = {
    "vivado": {
        "create_project", "add_files", "set_property", "get_runs", "current_fileset", "launch_runs", "wait_on_run",
        "get_property", "open_run", "report_utilization", "report_timing_summary",
    },
    "quartus": {
        "load_package", "project_new", "set_global_assignment", "set_instance_assignment", "export_assignments",
        "execute_module", "project_close",
    },
    "radiant": {
        "prj_create", "prj_add_source", "prj_set_impl_opt", "prj_set_strategy_value", "prj_save", "prj_run_synthesis",
        "prj_run_map", "prj_run_par", "prj_close",
    },
}  # fmt: skip
# Every command of the tools writes a line of its arguments; runs are at 100 %.
STUBS = """
foreach command {%s} {
    proc $command {args} [string map [list NAME $command] {
        puts [list CALL NAME {*}$args]
        if {"NAME" eq "get_property"} { return %s }
        if {"NAME" eq "get_runs"} { return [lindex $args 0] }
        return NAME
    }]
}
source {%s}
"""


def made(folder: Path, tools, **options):
    return generate(network_of("gru", 3, 5)[0], folder, name="net", tools=tools, **{"lanes": 4, **options})


def run(script: Path, tool: str, work: Path, progress="100%", **environment):
    """The commands that a script gives its tool, and how it ended."""
    text = STUBS % (" ".join(sorted(COMMANDS[tool])), progress, script)
    (work / "stubs.tcl").write_text(text)
    done = subprocess.run(
        ["tclsh", "stubs.tcl"], cwd=work, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **environment}
    )
    return [line[5:] for line in done.stdout.splitlines() if line.startswith("CALL ")], done


def bench(folder: Path, work: Path, design="net_vendor.v") -> str:
    shutil.copytree(folder, work)
    files = ["net_tb.v", design]
    subprocess.run(["iverilog", "-g2005", "-Wall", "-o", "bench", *files], cwd=work, check=True)
    done = subprocess.run(["vvp", "-n", "bench"], cwd=work, check=True, capture_output=True, text=True)
    return next(line for line in done.stdout.splitlines() if line.startswith(("PASS", "FAIL")))


@icarus
@pytest.mark.parametrize("cell", FEW)
def test_the_bench_passes_with_memories_in_files(cell, tmp_path):
    model = network_of(cell, 3, 5)[0]
    starts = cell == "rnn"
    model = started(model) if starts else model
    manifest = generate(model, tmp_path / "out", lanes=3, name="net", tools=["vivado"])
    assert bench(tmp_path / "out", tmp_path / "work") == bench(tmp_path / "out", tmp_path / "plain", "net.v")
    memories = manifest["projects"][0]["memories"]
    assert len(memories) == 4 + starts and {path.name for path in (tmp_path / "out").glob("*.mem")} == set(memories)


@icarus
def test_the_bench_sees_a_wrong_word(tmp_path):
    made(tmp_path / "out", "vivado")
    file = next((tmp_path / "out").glob("*layer0_lanes_weights.mem"))
    words = file.read_text().split("\n")
    words[3] = f"{int(words[3], 16) ^ 0x10:0{len(words[3])}x}"
    file.write_text("\n".join(words))
    assert bench(tmp_path / "out", tmp_path / "work").startswith("FAIL")


def test_files_have_every_word_and_the_text_nothing_else_changed(tmp_path):
    made(tmp_path / "out", "quartus", target="cyclonev")
    plain, vendor = ((tmp_path / "out" / name).read_text() for name in ("net.v", "net_vendor.v"))
    again, files = with_memory_files(plain)
    assert again == vendor
    for name, content in files.items():
        module, memory = re.fullmatch(r"(net_\w+)_(weights|biases)\.mem", name).groups()
        body = plain[plain.index(f"module {module} (") :].partition("endmodule")[0]
        words = re.findall(rf"    {memory}\[(\d+)\] = \d+'(\w)(\w+);", body)
        depth = int(re.search(rf"{memory} \[(\d+):0\];", body)[1]) + 1
        assert [int(at) for at, _, _ in words] == list(range(depth))
        values = [int(digits, {"d": 10, "h": 16}[base]) for _, base, digits in words]
        assert [int(line, 16) for line in content.splitlines()] == values
        assert f'$readmemh("{name}", {memory}, 0, {depth - 1});' in vendor
        assert (tmp_path / "out" / name).read_text() == content
    changed = set(plain.splitlines()) ^ set(vendor.splitlines())
    assert all(re.search(r"(weights|biases)( |\[)|initial", line) for line in changed)


@tclsh
@pytest.mark.parametrize("tool", TOOLS)
def test_a_script_runs_and_names_files_that_are_there(tool, tmp_path):
    folder, work = tmp_path / "out put", tmp_path / "work"  # a space in the path has to survive
    work.mkdir()
    manifest = made(folder, tool)
    row = manifest["projects"][0]
    calls, done = run(folder / row["script"], tool, work)
    assert (done.returncode, done.stderr) == (0, "")
    text = "\n".join(calls)
    for name in (row["verilog"], row["constraints"], *(row["memories"] if tool == "vivado" else ())):
        assert f"{folder}/{name}" in text and (folder / name).is_file()
    assert row["part"] in text and row["command"].endswith(row["script"])
    called = {re.match(r"\{?(\w+)", call)[1] for call in calls}
    assert called <= COMMANDS[tool]
    if tool != "vivado":  # the tool reads memories where its project is
        assert all((work / f"net-{tool}" / name).is_file() for name in row["memories"])
    if tool == "quartus":
        virtual = [call.split("-to ")[1].strip("{}") for call in calls if "VIRTUAL_PIN" in call]
        bits = [f"s_axis_tdata[{k}]" for k in range(8)] + [f"m_axis_tdata[{k}]" for k in range(16)]
        singles = [f"{side}_axis_{port}" for side in "sm" for port in ("tvalid", "tready", "tlast")]
        assert sorted(virtual) == sorted([*bits, *singles, "aresetn"])
    calls, _ = run(folder / row["script"], tool, work, PART="another-part-1")
    assert "another-part-1" in "\n".join(calls) and row["part"] not in "\n".join(calls)


@tclsh
def test_a_failed_run_of_vivado_is_an_error(tmp_path):
    made(tmp_path / "out", "vivado")
    calls, done = run(tmp_path / "out" / "net_vivado.tcl", "vivado", tmp_path, progress="50%")
    assert done.returncode != 0 and "synth_1 did not end: 50%" in done.stderr
    assert "impl_1" not in "\n".join(calls)


def test_parts_and_clocks(tmp_path):
    assert {target for tool in TOOLS.values() for target in tool.parts} <= TARGETS.keys()
    rows = made(tmp_path / "out", ("vivado", "radiant", "vivado"), target="up5k", lanes=2)["projects"]
    assert [(row["tool"], row["part"], row["clock_mhz"]) for row in rows] == [
        ("vivado", "xc7s50csga324-1", 200), ("radiant", "iCE40UP5K-SG48I", TARGETS["up5k"].goal),
    ]  # fmt: skip
    rows = made(tmp_path / "out", ("quartus", "vivado"), target="xc7s15", clock=125.5)["projects"]
    assert [(row["part"], row["clock_mhz"]) for row in rows] == [("5CEBA4F23C7", 125.5), ("xc7s15ftgb196-1", 125.5)]
    for name in ("net_quartus.sdc", "net_vivado.xdc"):
        assert "create_clock -name aclk -period 7.968 [get_ports {aclk}]" in (tmp_path / "out" / name).read_text()
    assert made(tmp_path / "out", ())["projects"] == []
    assert not list((tmp_path / "out").glob("*.tcl")) and not list((tmp_path / "out").glob("*.mem"))


def test_what_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"^Tool must be one of vivado, quartus, radiant, not 'ise'$"):
        tools_named("ise")
    with pytest.raises(UsageError, match=r"^Clock must come with tools that it is for, not alone$"):
        made(tmp_path / "out", (), clock=100)
    for wrong in (0, -1, float("nan"), True, "100", 1e9):
        with pytest.raises(UsageError, match=r"^Clock must be a number of MHz above 0 and at most 10000, not "):
            made(tmp_path / "out", "vivado", clock=wrong)
    assert list(tmp_path.iterdir()) == []


def test_from_the_command_line(tmp_path, capsys):
    save(network_of("rnn", 2, 3)[0], tmp_path / "q.onnx")
    line = ["generate", str(tmp_path / "q.onnx"), "-o", str(tmp_path / "out"), "--name", "net", "--lanes", "2"]
    assert main([*line, "--for", "vivado,quartus", "--for", "radiant", "--clock", "80"]) == 0
    told = capsys.readouterr().out
    readme = (tmp_path / "out" / "README.md").read_text()
    for tool in TOOLS.values():
        command = f"{tool.command} net_{tool.name}.tcl"
        assert command in told and f"| {tool.title} | `{command}` | {tool.part} | 80 MHz |" in readme
        assert (tmp_path / "out" / f"net_{tool.name}.tcl").is_file()
    assert main([*line, "--for", "vivado", "--json"]) == 0
    assert [row["tool"] for row in json.loads(capsys.readouterr().out)["projects"]] == ["vivado"]
    assert main([*line, "--for", "ise"]) == 2
    assert capsys.readouterr().err == "hwrnn: Tool must be one of vivado, quartus, radiant, not 'ise'\n"
