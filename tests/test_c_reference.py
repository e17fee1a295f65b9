"""The C reference: golden's integers from plain C99, compiled without a warning, run under the sanitizers."""

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from networks import KINDS, network_of
from test_c_golden import plain_layer
from test_directions import LENGTHS, varied
from test_directions import quantized as initialised
from test_golden import ALL, extremes, quantized

from hwrnn.activations import NONLINEARITIES
from hwrnn.c_reference import Unprintable, c_reference, write_c
from hwrnn.cells import CELLS
from hwrnn.compiler import C, compiler, compiler_available
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.onnx_io import load, save
from hwrnn.rtl import generate

pytestmark = pytest.mark.skipif(not compiler_available(C), reason="no C compiler")

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Wshadow", "-Wsign-conversion", "-Werror")
SANITIZERS = ("-O0", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")  # they take long to optimise

#: Reads steps, each with ``last`` before its inputs, and writes a line for each output vector.
DRIVER = """
static void run_NAME(void)
{
    static NAME_state state;
    long long steps = 0, last = 0, value = 0;
    if (scanf("%lld", &steps) != 1)
        abort();
    NAME_init(&state);
    while (steps--) {
        X x[UPPER_INPUTS];
        Y y[UPPER_OUTPUTS];
        if (scanf("%lld", &last) != 1)
            abort();
        for (int k = 0; k < UPPER_INPUTS; k++) {
            if (scanf("%lld", &value) != 1)
                abort();
            x[k] = (X)value;
        }
        for (uint32_t n = NAME_step(&state, x, (int)last, y); n; n = NEXT) {
            printf("NAME");
            for (int k = 0; k < UPPER_OUTPUTS; k++)
                printf(" %lld", (long long)y[k]);
            printf("\\n");
        }
    }
}
"""

#: The same of a network that takes a sequence at a time, each in memory that ends where it has to.
RUN = """
static void run_NAME(void)
{
    NAME_state *const state = malloc(sizeof *state);
    X *x = malloc(1);
    long long rows = 0, last = 0, value = 0;
    size_t steps = 0;
    if (scanf("%lld", &rows) != 1)
        abort();
    while (rows--) {
        x = realloc(x, ++steps * UPPER_INPUTS * sizeof *x);
        if (scanf("%lld", &last) != 1)
            abort();
        for (size_t k = 0; k < UPPER_INPUTS; k++) {
            if (scanf("%lld", &value) != 1)
                abort();
            x[(steps - 1) * UPPER_INPUTS + k] = (X)value;
        }
        if (last) {
            const size_t vectors = EACH ? steps : 1;
            WORK *const work = malloc(UPPER_WORK(steps) * sizeof *work);
            Y *const y = malloc(vectors * UPPER_OUTPUTS * sizeof *y);
            if (NAME_run(state, x, 0, work, y) != 0 || NAME_run(state, x, steps, work, y) != vectors)
                abort();
            for (size_t t = 0; t < vectors; t++) {
                printf("NAME");
                for (size_t k = 0; k < UPPER_OUTPUTS; k++)
                    printf(" %lld", (long long)y[t * UPPER_OUTPUTS + k]);
                printf("\\n");
            }
            free(work);
            free(y);
            steps = 0;
        }
    }
    free(state);
    free(x);
}
"""


@dataclass
class Case:
    """A network, raw sequences, and what golden makes of them."""

    q: Any
    raw: np.ndarray
    lengths: np.ndarray
    argmax: bool = False

    def due(self):
        output = golden(self.q, self.raw, self.lengths).output
        output = output.argmax(-1)[..., None] if self.argmax else output
        if not self.q.every_step:
            return output.tolist()
        return [row for rows, steps in zip(output, self.lengths, strict=True) for row in rows[:steps].tolist()]

    def steps(self):
        rows = []
        for x, steps in zip(self.raw.tolist(), self.lengths.tolist(), strict=True):
            rows += [" ".join(map(str, [int(t == steps - 1), *x[t]])) for t in range(steps)]
        return "\n".join([str(len(rows)), *rows])


def compiled(folder, cases, flags, mutate=lambda text: text):
    """Build a program of all networks, with every warning an error."""
    main, calls = "#include <stdio.h>\n#include <stdlib.h>\n", ""
    for name, case in cases.items():
        made = c_reference(case.q, name, case.argmax)
        for file, text in made.files.items():
            (folder / file).write_text(mutate(text))
        more = f"{name}_more(&state, y)" if case.q.encoder else "0"
        work = re.search(r"size_t steps, (\w+) \*work", made.files[f"{name}.h"])
        filled = (RUN if work else DRIVER).replace("NEXT", more).replace("WORK *", f"{work[1] if work else ''} *")
        filled = filled.replace("EACH", str(int(case.q.every_step))).replace("UPPER", name.upper())
        filled = filled.replace("NAME", name)
        x, y = made.ports
        main += f'#include "{name}.h"\n' + re.sub(r"\bX\b", x, re.sub(r"\bY\b", y, filled))
        calls += f"    run_{name}();\n"
    (folder / "main.c").write_text(f"{main}\nint main(void)\n{{\n{calls}    return 0;\n}}\n")
    sources = ["main.c", *(f"{name}.c" for name in cases)]
    line = [*compiler(C), *WARNINGS, *flags, "-o", "program", *sources]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert not done.returncode, done.stderr[:3000]


def check(folder, cases, flags=SANITIZERS, mutate=lambda text: text):
    """Every output vector of every network equals golden's."""
    compiled(folder, cases, flags, mutate)
    given = "\n".join(case.steps() for case in cases.values())
    done = subprocess.run(["./program"], cwd=folder, input=given, capture_output=True, text=True)
    assert not done.returncode, done.stderr[:3000]
    found: dict[str, list[list[int]]] = {name: [] for name in cases}
    for line in done.stdout.splitlines():
        name, *values = line.split()
        found[name].append([int(value) for value in values])
    for name, case in cases.items():
        assert found[name] == case.due(), name


def test_every_cell_at_every_width(tmp_path):
    cases = {}
    for k, cell in enumerate(CELLS):
        for bits in [(2, 16), (4, 11), (6, 8), (3, 13)][k % 4]:
            given = quantized(cell, bits, seed=bits, outputs=3, count=6, steps=7, gain=2.0, every_step=True)
            cases[f"net_{k}_{bits}"] = Case(*given)
    check(tmp_path, cases)


@pytest.mark.slow
@pytest.mark.parametrize("cell", KINDS)
def test_every_cell_with_every_nonlinearity_at_some_width(cell, tmp_path):
    cases = {}
    for n, name in enumerate(ALL):
        roles = ({"activation": name}, {"gate": name}) if CELLS[cell].gated and n % 2 else ({"activation": name},)
        for k, options in enumerate(roles):
            given = quantized(cell, (8, 5, 11)[(n + k) % 3], seed=n, count=9, every_step=True, **options)
            cases[f"net_{n}_{k}"] = Case(*given)
    check(tmp_path, cases, ["-O1"])


def test_every_nonlinearity(tmp_path):
    """In one cell that has it in both roles: nothing of another cell could meet it in another way."""
    cases = {}
    for n, name in enumerate(ALL[:: 1 + len(ALL) // 7]):
        functions = {"activation": name, "gate": name}
        cases[f"net_{n}"] = Case(*quantized("gru", (8, 5, 12)[n % 3], seed=n, count=9, every_step=True, **functions))
    check(tmp_path, cases)


def test_layers_heads_and_codes(tmp_path):
    layers = {"inputs": 2, "hidden": [5, 3], "layers": 2, "count": 12, "steps": 9}
    code = {"every_step": True, "encoder": 1, **layers}
    cases = {
        "last": Case(*quantized("lstm", 7, seed=3, outputs=3, **layers)),
        "bare": Case(*quantized("gru", 7, seed=4, **layers)),
        "each": Case(*quantized("ligru", 7, seed=5, outputs=4, every_step=True, **layers), argmax=True),
        "first": Case(*quantized("mingru", 2, seed=5, outputs=4, **layers), argmax=True),  # with equal outputs
        "code": Case(*quantized("gru-reset-before", 8, outputs=2, **code)),
        "both": Case(*quantized("lstm", 6, **code)),
        "clip": Case(*quantized("lstm", 8, cell_clip=0.5, gain=3.0, count=9)),
        "mixed": Case(*quantized("lstm", 8, weight_bits=3, activation_bits=9, state_bits=5, cell_bits=7, seed=1)),
        **{f"ends_{k}": Case(*extremes(cell)) for k, cell in enumerate(("lstm", "gru"))},
    }
    assert len(set(cases["last"].lengths.tolist())) > 3
    check(tmp_path, cases)


def headless(q):
    """Without the last layer and the head: a dense layer is the last."""
    return replace(q, layers=q.layers[:4], head=None, output_mean=np.zeros(6), output_scale=np.ones(6))


def test_dense_layers_layers_side_by_side_and_initial_states(tmp_path):
    """Dense layers before, between and behind, two layers beside each other, and states that start elsewhere."""
    cases = {}
    for k, cell in enumerate(("lstm", "gru-reset-before")):
        model = varied(cell, every_step=bool(k), seed=k)
        forward = tuple(replace(layer, reverse=False) for layer in model.layers)
        q, raw = initialised(replace(model, layers=forward, final_state=False))
        cases[f"net_{k}"] = Case(q, raw, LENGTHS)
        cases[f"behind_{k}"] = Case(headless(q), raw, LENGTHS)
        cases[f"code_{k}"] = Case(replace(q, every_step=True, encoder=3), raw, LENGTHS)
    check(tmp_path, cases)
    alone = Case(*cases["net_1"].__dict__.values())
    alone.q = replace(alone.q, layers=tuple(replace(layer, initial={}) for layer in alone.q.layers))
    assert alone.due() != cases["net_1"].due()  # the initial states are not without effect


def test_reverse_layers_take_a_sequence_at_a_time(tmp_path):
    cases = {}
    for k, cell in enumerate(("lstm", "gru", "gru-reset-before")):  # what steps of layers go through, not their lines
        q, raw = initialised(varied(cell, every_step=bool(k % 2), seed=k))
        cases[f"net_{k}"] = Case(q, raw, LENGTHS)
    q = cases["net_0"].q
    cases["at_last"] = Case(replace(q, final_state=False), cases["net_0"].raw, LENGTHS)
    cases["behind"] = Case(headless(q), cases["net_0"].raw, LENGTHS)
    for name, outputs, options in (("bare", None, {}), ("code", 3, {"encoder": 1, "every_step": True})):
        q, raw = initialised(build_model(3, outputs, cell="gru", hidden=[3, 4], bidirectional=True, **options))
        cases[name] = Case(q, raw, LENGTHS, argmax=name == "code")
    check(tmp_path, cases)
    made = c_reference(cases["code"].q, "code").files
    assert "code_step" not in made["code.h"] and "code_init" not in made["code.h"]


def test_sums_up_to_the_last_bit(tmp_path):
    """What fills a type stays in it; one beyond takes the next, and beyond 64 bits there is no C."""
    cases = {}
    for bits in (31, 40, 63):
        form = Format(min(bits, 59), 0) if bits > 31 else Format(31, 0)
        for beyond in (-16, 16):
            biases = [0, 2**bits - 1 - 3 * 7 * 128 - 16 + beyond]
            model = plain_layer(NONLINEARITIES["relu"], [[-7] * 3] * 2, biases, Format(8, 0), form, form, 5)
            name = f"net_{bits}_{beyond + 16}"
            if bits == 63 and beyond > 0:
                with pytest.raises(Unprintable, match=r"^layer 0: it needs 65 bits and 64 are the most$"):
                    c_reference(model, name)
                continue
            cases[name] = Case(model, np.array([[[-128] * 3, [127] * 3]]), np.array([2]))
            text = c_reference(model, name).files[f"{name}.c"]
            assert ("int64_t" in text) == (bits > 31 or beyond > 0)
    check(tmp_path, cases)


def random_case(seed):
    rng = np.random.default_rng([seed, 0xC99])

    def pick(*choices):
        return choices[rng.integers(len(choices))]

    layers, cell = int(rng.integers(1, 4)), pick(*CELLS)
    every_step = bool(rng.integers(2))
    widths = {name: int(rng.integers(2, 20)) for name in ("weight_bits", "activation_bits", "state_bits")}
    options = {
        "hidden": rng.integers(1, 7, layers).tolist(), "layers": layers, "outputs": pick(None, 1, 4),
        "every_step": every_step, "encoder": pick(0, layers - 1) if every_step else 0, "inputs": pick(1, 2, 5),
        "activation": pick(*ALL), "gain": pick(0.3, 1.0, 3.0), "method": pick("mse", "max"),
        **({"gate": pick(*ALL)} if CELLS[cell].gated else {}), **(widths if rng.integers(2) else {}),
    }  # fmt: skip
    bits = int(rng.integers(2, 24))
    if any(str(options.get(role)).startswith("table") for role in ("activation", "gate")):
        bits, options = min(bits, 10), {name: value for name, value in options.items() if name not in widths}
    try:
        q, raw, lengths = quantized(cell, bits, seed=seed, count=8, steps=6, **options)
    except (RuntimeWarning, UsageError):  # where nothing bounds a nonlinearity, it grows beyond any float
        q, raw, lengths = quantized(cell, bits, seed=seed, count=8, steps=6, **options | {"gain": 0.1})
    return Case(q, raw, lengths, argmax=bool(rng.integers(2)) and options["outputs"] == 4)


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 80), marks=pytest.mark.slow)], ids=["few", "many"])
def test_random_networks(seeds, tmp_path):
    cases = {}
    for seed in seeds:
        case = random_case(seed)
        try:
            c_reference(case.q, "net")
        except Unprintable:
            continue  # more than 64 bits
        cases[f"net_{seed}"] = case
    assert len(cases) > len(seeds) // 2
    check(tmp_path, cases)


def test_a_planted_fault_is_found(tmp_path):
    cases = {"net": Case(*quantized("lstm", 8, outputs=3, count=40, steps=9, gain=3.0, every_step=True))}
    check(tmp_path, cases, ["-O1"])
    text = c_reference(cases["net"].q, "net").files["net.c"]
    bias = re.search(r"layer_0_b_f\[4\] = \{\n    (-?\d+)", text)
    bound = re.search(r"> 127 \?", text)
    for old, new in ((bias[0], bias[0] + "1"), (bound[0], "> 120 ?"), (" + 128;", " + 100;")):
        assert old in text
        with pytest.raises(AssertionError, match="net"):
            check(tmp_path, cases, ["-O0"], lambda t, old=old, new=new: t.replace(old, new, 1))
    with pytest.raises(AssertionError, match=r"out of bounds|overflow on address"):
        check(tmp_path, cases, SANITIZERS, lambda t: t.replace("unit < 4", "unit < 5"))


def test_an_unsigned_state_that_starts_at_a_small_value(tmp_path):
    """Small enough for a table of a signed type; found by scripts/agree."""
    q, raw, lengths = quantized("rnn", 8, activation="relu", every_step=True)
    layer = q.layers[0]
    assert not layer.formats.values["h"].signed
    q = replace(q, layers=(replace(layer, initial={"h": np.arange(layer.units)}),))
    check(tmp_path, {"net": Case(q, raw, lengths)})


def test_inputs_beyond_their_format_saturate(tmp_path):
    q, _, _ = quantized("gru", 5, every_step=True)
    form = q.input_format
    raw = np.array([[[2**31 - 1, -(2**31), form.hi + 1], [form.lo - 1, 0, 1]]])
    case = Case(q, raw.clip(form.lo, form.hi), np.array([2]))
    due = case.due()
    case.due, case.raw = lambda: due, raw
    check(tmp_path, {"net": case})


def test_diagonal_matrices_are_vectors(tmp_path):
    """As peepholes are; an operand that is read that way needs no copy of its old values."""
    q, raw, lengths = quantized("gru", 8, hidden=5, every_step=True, count=9)
    layer = q.layers[0]
    weights = {key: np.diag(np.diag(w)) if key[1] == "h" else w for key, w in layer.weights.items()}
    q = replace(q, layers=(replace(layer, weights=weights),))
    text = c_reference(q, "net").files["net.c"]
    assert "next_h" not in text and "layer_0_w_r_h[5] =" in text
    check(tmp_path, {"net": Case(q, raw, lengths)})


def test_the_text_keeps_its_promises(tmp_path):
    """No float, no allocation, nothing of the library but <stdint.h>, nothing global that changes."""
    for k, cell in enumerate(CELLS):
        q, _, _ = quantized(cell, (8, 16)[k % 2], outputs=3, activation="table_tanh" if k == 0 else None)
        files = c_reference(q, "net").files
        for name, text in files.items():
            code = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
            assert re.findall(r"#include (.*)", code) == (["<stdint.h>"] if name == "net.h" else ['"net.h"'])
            assert not re.search(r"\b(float|double|malloc|\d+\.\d+)\b", code)
            assert not re.search(r"^static (?!const)[^(]*[;=]", code, flags=re.M)
            assert max(map(len, text.splitlines())) <= 120 and text.isascii()
        (tmp_path / "net.c").write_text(files["net.c"])
        (tmp_path / "net.h").write_text(files["net.h"])
        subprocess.run([*compiler(C), *WARNINGS, "-O2", "-c", "net.c"], cwd=tmp_path, check=True)
        names = subprocess.run(["nm", "net.o"], cwd=tmp_path, capture_output=True, text=True).stdout.split("\n")
        if names != [""]:
            assert {line.split()[-1] for line in names if " T " in line} == {"net_init", "net_step"}
            assert not [line for line in names if line[17:18] in ("B", "b", "D", "d", "C")]
            allowed = {"memset", "memcpy", "memmove", "_GLOBAL_OFFSET_TABLE_"}
            # What a compiler may call anywhere.
            assert {line.split()[-1] for line in names if " U " in line} <= allowed


def test_the_header_suits_cpp(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    made = c_reference(quantized("lstm", 8, outputs=3)[0], "net")
    for name, text in made.files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.cpp").write_text(
        '#include "net.h"\n#include "net.h"\nint main() { net_state s; int32_t x[NET_INPUTS] = {}, y[NET_OUTPUTS];'
        " net_init(&s); return net_step(&s, x, 1, y) != 1; }\n"
    )
    for line in (
        [*compiler(C), "-std=c99", "-c", "net.c"],
        ["g++", "-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o", "program", "main.cpp", "net.o"],
        ["./program"],
    ):
        subprocess.run(line, cwd=tmp_path, check=True)


# -- in a generated folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("generated") / "out"
    return path, generate(network_of("gru", 3, 5, every_step=True)[0], path, lanes=4, name="Net", channels=2)


def run_check(folder, name="Net"):
    line = [*compiler(C), *WARNINGS, *SANITIZERS, "-o", "check", f"{name}_check.c", f"{name}.c"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert not done.returncode, done.stderr[:3000]
    return subprocess.run(["./check"], cwd=folder, capture_output=True, text=True)


def test_the_folder_checks_itself(folder, tmp_path):
    path, manifest = folder
    assert manifest["c"]["files"] == ["Net.h", "Net.c", "Net_check.c"] and manifest["c"]["left_out"] is None
    assert manifest["c"]["state_bytes"] == 5
    readme = (path / "README.md").read_text()
    assert "cc -std=c99 -O2 -o check Net_check.c Net.c && ./check" in readme and "| `Net.h`, `Net.c` |" in readme
    shutil.copytree(path, tmp_path / "copy")
    done = run_check(tmp_path / "copy")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"PASS Net: 0 of \d{2,} output elements differ\n", done.stdout)
    for file, old, new, code in (
        ("expected.hex", r"^0_(\w+)", r"2_\1", 1),  # the channel
        ("expected.hex", r"^1_(\w)", r"0_\1", 1),  # the end of a sequence
        ("expected.hex", r"^0_\w+", "0_1234", 1),
        ("expected.hex", r"\n.*\n\Z", "\n", 1),
        ("stimulus.hex", r"\n.*\n\Z", "\n", 2),
        ("stimulus.hex", r"\A(.|\n)*\Z", "", 1),
    ):
        whole = (path / file).read_text()
        planted = re.sub(old, new, whole, count=1, flags=re.M)
        assert planted != whole
        (tmp_path / "copy" / file).write_text(planted)
        done = subprocess.run(["./check"], cwd=tmp_path / "copy", capture_output=True, text=True)
        assert done.returncode == code and (code == 2 or done.stdout.startswith("FAIL Net: ")), (file, old)
        (tmp_path / "copy" / file).write_text(whole)
    (tmp_path / "copy" / "stimulus.hex").unlink()
    done = subprocess.run(["./check"], cwd=tmp_path / "copy", capture_output=True, text=True)
    assert done.returncode == 2 and "stimulus.hex and expected.hex must be where the program runs" in done.stderr


def test_the_check_of_a_code_and_of_an_arg_max(tmp_path):
    code = network_of("rnn", 2, [3, 4], outputs=2, layers=2, encoder=1, every_step=True)[0]
    for model, options in ((code, {}), (network_of("rnn", 1, 4, outputs=3)[0], {"argmax": True})):
        generate(model, tmp_path / "out", lanes=2, name="code", **options)
        done = run_check(tmp_path / "out", "code")
        assert done.returncode == 0 and done.stdout.startswith("PASS code: 0 of ")
        shutil.rmtree(tmp_path / "out")


def test_a_model_too_wide_has_no_c_but_verilog(tmp_path):
    model = network_of("rnn", 2, 2, bits=32)[0]
    with pytest.warns(UserWarning, match=r"^The folder has no C of the network: layer 0: it needs \d+ bits and 64 are"):
        manifest = generate(model, tmp_path / "out", name="wide")
    assert manifest["c"]["files"] == [] and manifest["c"]["left_out"].startswith("layer 0: it needs ")
    assert (tmp_path / "out" / "wide.v").is_file() and not list((tmp_path / "out").glob("*.[ch]"))
    assert f"The folder has none: {manifest['c']['left_out']}." in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UsageError) as caught:
        write_c(model, tmp_path / "c", "wide")
    told = f"Model must fit the integers of C, but does not ({manifest['c']['left_out']}): use fewer bits"
    assert str(caught.value) == told and not (tmp_path / "c").exists()


# -- on its own


def test_c_alone_is_the_same_in_every_run(folder, tmp_path):
    model = network_of("gru", 3, 5, every_step=True)[0]
    save(model, tmp_path / "q.onnx")
    made = write_c(load(tmp_path / "q.onnx"), tmp_path / "out", "Net")
    for name, text in made.files.items():
        assert (tmp_path / "out" / name).read_text() == text == (folder[0] / name).read_text()
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"Net.h", "Net.c", "SHA256SUMS"}


@pytest.mark.parametrize(
    "name, options, text",
    [
        ("2nd", {}, "Name must be a letter and up to 199 letters, digits and underscores, not '2nd'"),
        (None, {}, "Name must be a letter and up to 199 letters, digits and underscores, not None"),
        ("net", {"argmax": True}, "Argmax must be for a model of the task classification, not regression"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(name, options, text, tmp_path):
    model = network_of("gru", 2, 3, outputs=1, task="regression")[0]
    with pytest.raises(UsageError) as caught:
        write_c(model, tmp_path / "out", name, **options)
    assert str(caught.value) == text
    with pytest.raises(UsageError, match=r"^Model must be quantized to become C: quantize it first$"):
        write_c(model.in_float(), tmp_path / "out", "net")
    assert list(tmp_path.iterdir()) == []
