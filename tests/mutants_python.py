"""Faults planted in the arithmetic's Python, one at a time: operators, comparisons, constants, the ends of intervals.

A mutant lives in a process of its own, in which an import hook compiles the changed syntax tree in the module's place;
no file is written. It is killed where one of the tests that stand beside its module fails. What nothing but an error's
condition or text reads gets no fault here: those have tests of their own.
"""

from __future__ import annotations

import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: By module its file and the tests that have to fail, as arguments of pytest: quick ones, with the oracle among them.
MODULES: dict[str, tuple[str, list[str]]] = {
    "hwrnn.fixed": ("hwrnn/fixed.py", ["tests/test_fixed.py"]),
    "hwrnn.golden": ("hwrnn/golden.py", ["tests/test_golden.py", "tests/test_directions.py", "tests/test_c_golden.py"]),
    "hwrnn.activations": ("hwrnn/activations.py", ["tests/test_activations.py"]),
    "hwrnn.c_golden": ("hwrnn/c_golden.py", ["tests/test_c_golden.py"]),
    "hwrnn.c_integers": ("hwrnn/c_integers.py", ["tests/test_c_integers.py", "tests/test_c_golden.py"]),
    "hwrnn.onnx_numbers": ("hwrnn/onnx_numbers.py", ["tests/test_onnx_io.py"]),
    "hwrnn.rtl.numbers": ("rtl/numbers.py", ["tests/test_numbers.py", "tests/test_activation_unit.py"]),
}

#: Faults that change no result, and why: module, the line they stand in, the expression as it is and with the fault.
EQUIVALENT: dict[tuple[str, str, str, str], str] = {
    (
        "hwrnn.fixed", "return np.array(raw, np.int64 if self.hi < 2**63 else object).reshape(rounded.shape)",
        "self.hi < 2 ** 63", "self.hi <= 2 ** 63",
    ): "a format's upper end is odd",
    ("hwrnn.fixed", "if self.hi < EXACT_FLOAT:", "self.hi < EXACT_FLOAT", "self.hi <= EXACT_FLOAT"): (
        "a format's upper end is odd"
    ),
    ("hwrnn.golden", "t = x.shape[1] if model.every_step else 1", "1", "2"): "the first of the steps is what is given",
    (
        "hwrnn.golden", "max(-lo, hi) + int(np.abs(layer.biases[gate]).max()) < EXACT_FLOAT",
        "max(-lo, hi) + int(np.abs(layer.biases[gate]).max()) < EXACT_FLOAT",
        "max(-lo, hi) + int(np.abs(layer.biases[gate]).max()) <= EXACT_FLOAT",
    ): "2**53 itself is exact in float64",
    (
        "hwrnn.c_golden",
        "_COMPILING = 1_500_000_000  # multiplications that numpy needs about as long for as a compiler for a library",
        "1500000000", "1500000001",
    ): "from how much work on C runs: its integers are those of numpy, and the figure is an estimate",
    (
        "hwrnn.c_golden", "if needed <= limit * (1 - 1e-9):  # the sums above are rounded",
        "needed <= limit * (1 - 1e-09)", "needed < limit * (1 - 1e-09)",
    ): "a margin of a billionth: at its very edge either type holds the sums, and the integers are the same",
    (
        "hwrnn.onnx_numbers", "label = name or (text if len(text) <= 24 else f\"{array.size}_numbers\")",
        "len(text) <= 24", "len(text) < 24",
    ): "how long the name of a constant may be",
    (
        "hwrnn.onnx_numbers",
        "self._constants[key] = self.initializer(label if known == 1 else f\"{label}#{known}\", array)",
        "1", "2",
    ): "which of two constants of the same text has a number in its name",
    ("hwrnn.onnx_numbers", "self._count += 1", "1", "2"): "the numbers in names",
    ("hwrnn.onnx_numbers", 'return self._op("Add", other, swap=True)', "True", "False"): "a sum is the same either way",
    ("hwrnn.rtl.numbers", "self._counts[kind] = self._counts.get(kind, 0) + 1", "1", "2"): "the numbers in names",
    (
        "hwrnn.rtl.numbers", "self._counts[kind] = self._counts.get(kind, 0) + 1",
        "self._counts.get(kind, 0) + 1", "self._counts.get(kind, 0) - 1",
    ): "the numbers in names",
    (
        "hwrnn.rtl.numbers", 'return Signal(shape, name=f"{self.prefix}_{name}", reset_less=True)', "True", "False",
    ): "a reset of registers whose values nobody takes before they are written",
    **{
        ("hwrnn.rtl.numbers", "shape = shape_of(max(lo, self.lo), min(hi, self.hi))", before, after): (
            "more bits, which are cut off behind the choice"
        )
        for before, after in (("max(lo, self.lo)", "min(lo, self.lo)"), ("min(hi, self.hi)", "max(hi, self.hi)"))
    },
    **{
        ("hwrnn.rtl.numbers", "if bound < 0 or bound + 1 != 1 << low or low >= len(magnitude):", before, after): (
            "the comparison in full, which says the same in more gates"
        )
        for before, after in (("1 << low", "1 >> low"), ("1", "2"))
    },
    ("hwrnn.rtl.numbers", "negative, low = _sign(value), (-bound).bit_length() - 1", "-bound", "+bound"): (
        "a magnitude has as many bits with either sign"
    ),
    ("hwrnn.rtl.numbers", "if bound > 0 or -bound != 1 << low or low >= len(magnitude):", "0", "1"): (
        "the negative of 1 is no power of two"
    ),
    **{
        ("hwrnn.rtl.numbers", "if bound > 0 or -bound != 1 << low or low >= len(magnitude):", before, after): (
            "the comparison in full, which says the same in more gates"
        )
        for before, after in (("-bound", "+bound"), ("1", "2"))
    },
    **{
        ("hwrnn.rtl.numbers", f"if {before}:", before, after): "a comparison that is never true"
        for before, after in (("self.hi > hi", "self.hi >= hi"), ("self.lo < lo", "self.lo <= lo"))
    },
    ("hwrnn.onnx_numbers", 'return self._op("Mul", other, swap=True)', "True", "False"): (
        "a product is the same either way"
    ),
    (
        "hwrnn.rtl.numbers", "parts.append(Const(0) if sign == 0 else part if sign > 0 else -part)",
        "sign > 0", "sign >= 0",
    ): "0 is told apart before",
    ("hwrnn.c_integers", "return self.parameter(0)", "0", "1"): "the place of the table is put there later",
    (
        "hwrnn.c_golden", '_LIMITS = {"int32_t": 2**31 - 1, "int64_t": 2**62}  # the wider one keeps a bit in hand',
        "2 ** 31 - 1", "2 ** 31 + 1",
    ): "less than the billionth that is kept in hand",
    (
        "hwrnn.c_golden", "if runs and order.index(gate) == order.index(runs[-1][-1]) + 1:",
        "order.index(runs[-1][-1]) + 1", "order.index(runs[-1][-1]) - 1",
    ): "one product for each gate in place of one for neighbours: the same sums",
    (
        "hwrnn.c_golden", "if min(_SPENT[text] for text in missing) < _COMPILING:",
        "min((_SPENT[text] for text in missing))", "max((_SPENT[text] for text in missing))",
    ): "from how much work on C runs",
    (
        "hwrnn.c_integers", 'above = self._let(f"{self.raw} < {low} ? {low} : {self.raw}", 0)', "0", "1",
    ): "the bound of one of two numbers, which have their own",
    (
        "hwrnn.c_integers", "bound = max(writer.bound, *(max(-f.lo, f.hi) for f in formats.values.values()))",
        "-f.lo", "+f.lo",
    ): "a format's ends differ by one, which is less than the billionth that is kept in hand",
    (
        "hwrnn.c_integers", 'slope = str(self._let(f"{self.raw} < {at} ? {slope} : {parameter(s)}", 0))', "0", "1",
    ): "the bound of one of two numbers, which have their own",
    (
        "hwrnn.c_integers",
        'intercept = str(self._let(f"{self.raw} < {at} ? {intercept} : {parameter(b)}", 0))', "0", "1",
    ): "the bound of one of two numbers, which have their own",
    (
        "hwrnn.c_integers", 'return CNumber(Place(self.writer, ""), 0, 0, 0)._operand(value)', "0", "1",
    ): "a number that only lends its carrier",
    **{
        (
            "hwrnn.c_integers", 'raw = self._let(f"{self.raw} * {times} + {plus}", max(-lo - offset, hi + offset))',
            before, after,
        ): "the same bound is given where the line is aligned, which comes next"
        for before, after in (("-lo - offset", "-lo + offset"), ("-lo", "+lo"))
    },
    (
        "hwrnn.c_integers", "ends = [largest + 1] * missing, [intercepts[-1]] * missing", "-1", "+1",
    ): "what stands behind the last step is not reached",
    ("hwrnn.c_integers", "at = parameter(min(max(knot, -largest - 1), largest + 1))", "1", "2"): (
        "a knot beyond every value, by one or by two"
    ),
    (
        "hwrnn.c_integers",
        'sums = CNumber(self.writer.let(f"a_{gate}[k]", 0), self.formats.bias_frac[gate], 0, 0)', "0", "1",
    ): "bounds and intervals of one, where whoever loads the weights checks the sums",
}
#: A class whose objects nobody changes, and lengths that are compared for a fault in the house: no arithmetic.
FROZEN, STRICT = "@dataclass(frozen=True)", "strict=True)"

#: What takes an operator's place.
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
CALLS = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "floor": "ceil", "ceil": "floor"}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        module: that it stands in.
        number: among those of the module, from 0.
        line: of the file.
        before, after: the smallest expression around it, as Python writes it.
    """

    module: str
    number: int
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.module}:{self.number} (line {self.line}): {self.before} -> {self.after}"


class Sites(ast.NodeVisitor):
    """The places of a module where a fault can stand, in order: a node, and what changes it."""

    def __init__(self) -> None:
        self.found: list[tuple[ast.expr, Any]] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name not in ("__repr__", "__str__"):
            for child in node.body[bool(ast.get_docstring(node)) :]:
                self.visit(child)
            for child in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                self.visit(child)

    def visit_Raise(self, node: ast.Raise) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if not (len(node.body) == 1 and isinstance(node.body[0], ast.Raise)):
            self.visit(node.test)
        for child in [*node.body, *node.orelse]:
            self.visit(child)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        # Of text and of types an operator means something else.
        words = (ast.JoinedStr, ast.Constant)
        texts = any(isinstance(n, words) and type(getattr(n, "value", "")) in (str, type(None)) for n in ast.walk(node))
        if type(node.op) in OPERATORS and not texts:
            self.found.append((node, lambda n: setattr(n, "op", OPERATORS[type(n.op)]())))
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for k, op in enumerate(node.ops):
            if type(op) in OPERATORS:
                self.found.append((node, lambda n, k=k: n.ops.__setitem__(k, OPERATORS[type(n.ops[k])]())))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.found.append((node, lambda n: setattr(n, "op", OPERATORS[type(n.op)]())))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub):
            self.found.append((node, lambda n: setattr(n, "op", ast.UAdd())))
        elif isinstance(node.op, ast.Not):
            self.found.append((node, lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if type(node.value) in (int, float):
            self.found.append((node, lambda n: setattr(n, "value", n.value + 1)))
        elif type(node.value) is bool:
            self.found.append((node, lambda n: setattr(n, "value", not n.value)))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in CALLS:
            field = "attr" if isinstance(node.func, ast.Attribute) else "id"
            self.found.append((node, lambda n: setattr(n.func, field, CALLS[name])))
        self.generic_visit(node)


def source_of(module: str) -> str:
    """A module's text."""
    return (ROOT / MODULES[module][0]).read_text(encoding="utf-8")


def sites(tree: ast.Module) -> list[tuple[ast.expr, Any]]:
    """Where faults can stand."""
    visitor = Sites()
    for statement in tree.body:
        names = [getattr(target, "id", "") for target in getattr(statement, "targets", [])]
        if "__all__" not in names:
            visitor.visit(statement)
    return visitor.found


def mutants(module: str) -> Iterator[Mutant]:
    """All faults of a module."""
    for number, (node, change) in enumerate(sites(ast.parse(source_of(module)))):
        after = copy.deepcopy(node)
        change(after)
        yield Mutant(module, number, node.lineno, ast.unparse(node), ast.unparse(after))


def changed(module: str, number: int) -> ast.Module:
    """The module's syntax tree with one fault."""
    tree = ast.parse(source_of(module))
    node, change = sites(tree)[number]
    change(node)
    return ast.fix_missing_locations(tree)


class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Brings a module with a fault in when it is imported."""

    def __init__(self, module: str, number: int) -> None:
        self.module, self.number = module, number

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """The module's, with this object as its loader."""
        if name != self.module:
            return None
        return importlib.util.spec_from_file_location(name, ROOT / MODULES[name][0], loader=self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """As Python does it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed tree."""
        code = compile(changed(self.module, self.number), str(ROOT / MODULES[self.module][0]), "exec")
        exec(code, module.__dict__)


def survives(module: str, number: int | None, seconds: float = 300) -> bool:
    """Whether the module's tests pass with a fault of that number, None for none.

    A fault that keeps them from ending is killed after ``seconds``.
    """
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "-m", "not slow"]
    planted = "" if number is None else f"sys.meta_path.insert(0, mutants_python.Hook({module!r}, {number})); "
    code = f"import sys, pytest, mutants_python; {planted}sys.exit(pytest.main({[*options, *MODULES[module][1]]!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def end_of(mutant: Mutant) -> str:
    """``killed``, ``equivalent`` or ``survived``."""
    line = source_of(mutant.module).splitlines()[mutant.line - 1].strip()
    strict = mutant.before == "True" and line.count("True") == line.count(STRICT) == 1
    if line == FROZEN or strict or (mutant.module, line, mutant.before, mutant.after) in EQUIVALENT:
        return "equivalent"
    return "survived" if survives(mutant.module, mutant.number) else "killed"
