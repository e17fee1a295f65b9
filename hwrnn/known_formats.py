"""Formats that a network brought along: those of the quantized graph that it was imported from.

They stand in ``model.facts["formats"]``: ``values`` by ``"LAYER.NAME"`` and ``weights`` by ``"LAYER.GATE.OPERAND"``,
each a format as :meth:`hwrnn.fixed.Format.to_json` gives it. Quantizing takes them over what calibration would choose,
so that the integers of the file come out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from hwrnn.calibration import Calibration
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.formats import Choice, LayerFormats, Widths, choice_of, derived_formats
from hwrnn.model import Layer, Model
from hwrnn.trace import trace

__all__ = ["honoured"]

_LARGEST_SHIFT = 6


def honoured(
    model: Model, seen: Calibration, widths: Widths, formats: Sequence[LayerFormats], port: int
) -> Sequence[LayerFormats]:
    """Formats with those that the model's facts name in their place; the others follow from them or stay.

    Where products of a row would not meet at one fraction, a block of weights gets more fraction bits and as much more
    width, so it holds the same numbers.

    Raises:
        UsageError: facts that name what the model does not have, or no formats.
    """
    told = model.facts.get("formats")
    if told is None:
        return formats
    values, weights = (_read(model, told, kind) for kind in ("values", "weights"))
    choice = choice_of(model, widths, formats)
    chosen = {key: values.get(key, form) for key, form in choice.values.items()}
    made = derived_formats(model, seen, widths, Choice(chosen, choice.weights), port)
    for k, f in enumerate(made):
        sums = {f"a.{gate}": values[k, "a", gate] for gate in model.stack[k].cell.gates if (k, "a", gate) in values}
        made[k] = replace(f, values={**f.values, **sums})
    return [_met(layer, made[k], {key[1:]: form for key, form in weights.items() if key[0] == k}, port)
            for k, layer in enumerate(model.stack)]  # fmt: skip


def _read(model: Model, told: Any, kind: str) -> dict[tuple[Any, ...], Format]:
    found: dict[tuple[Any, ...], Format] = {}
    if not isinstance(told, dict) or not isinstance(told.get(kind), dict):
        raise UsageError(f"Facts must name formats of values and of weights, not {str(told)[:60]!r}: import anew")
    for name, form in told[kind].items():
        index, *rest = str(name).split(".")
        try:
            at = model.stack[int(index)]
            known: Any = {(g, o) for p in at.cell.phases for g in p.gates for o in p.gates[g]}
            if kind == "values":
                known = {("x",), *((name,) for name in trace(at.cell).stores), *(("a", g) for g in at.cell.gates)}
            if tuple(rest) not in known:
                raise ValueError(name)
            made = Format(**form)
        except (ValueError, TypeError, IndexError) as error:
            raise UsageError(f"Facts must name formats of the model's own {kind}, not {str(name)[:60]!r}") from error
        found[int(index), *rest] = made if made.signed or kind == "values" else Format(made.width + 1, made.frac)
    return found


def _met(layer: Layer, formats: LayerFormats, known: Mapping[tuple[Any, ...], Format], port: int) -> LayerFormats:
    """A layer's formats with those of some blocks of weights; the shifts that cost the fewest bits."""
    if not known:
        return formats
    weights, bias_frac, shifts = dict(formats.weights), dict(formats.bias_frac), dict(formats.shifts)
    for k, phase in enumerate(layer.cell.phases):
        blocks = {(gate, o): known.get((gate, o), formats.weights[gate, o]) for gate, o in _blocks(phase.gates)}
        if not any(key in known for key in blocks):
            continue
        most = [max(0, min(_LARGEST_SHIFT, port - formats.values[o].width)) for o in phase.operands]
        best: tuple[int, int] | None = None
        for shift in product(*(range(n + 1) for n in most)):
            if min(shift):
                continue  # a shift that all operands share changes nothing
            point = {o: formats.values[o].frac + s for o, s in zip(phase.operands, shift, strict=True)}
            meet = {
                gate: max(
                    blocks[gate, o].frac + point[o]
                    for o in reads if (gate, o) in known or not any((gate, other) in known for other in reads)
                )
                for gate, reads in phase.gates.items()
            }  # fmt: skip
            more = {(gate, o): meet[gate] - point[o] - form.frac for (gate, o), form in blocks.items()}
            cost = sum(abs(n) for n in more.values()), sum(shift)
            if best is None or cost < best:
                best = cost
                bias_frac.update(meet)
                shifts.update({(k, o): s for o, s in zip(phase.operands, shift, strict=True)})
                for key, form in blocks.items():
                    width = form.width + (more[key] if key in known else 0)
                    weights[key] = replace(form, width=width, frac=form.frac + more[key])
    return LayerFormats(formats.values, weights, bias_frac, shifts)


def _blocks(gates: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(gate, operand) for gate, reads in gates.items() for operand in reads]
