"""A quantized model as the plain data that the oracle takes."""

from hwrnn.activations import PiecewiseLinear, nonlinearity
from hwrnn.fitting import Fitted
from hwrnn.fitting_general import Approximation
from hwrnn.quantization import QuantizedLayer, QuantizedModel
from hwrnn.staircase import Staircase


def plain_function(function):
    """By name, except a fit or a table, which only its numbers describe."""
    assert isinstance(function, PiecewiseLinear)
    inner = nonlinearity(function.name.partition("|")[0])
    made = isinstance(function, Fitted | Staircase | Approximation)
    if made or not (isinstance(inner, PiecewiseLinear) and inner.shift_only) or isinstance(inner, Fitted):
        return list(function.knots), list(function.slopes), list(function.intercepts)
    return function.name


def plain_layer(layer: QuantizedLayer) -> dict:
    """One layer."""
    formats = layer.formats
    shifts = {
        (gate, operand): formats.shifts[k, operand]
        for k, phase in enumerate(layer.cell.phases)
        for gate, reads in phase.gates.items()
        for operand in reads
    }
    return {
        "cell": layer.cell.name,
        "sigma": plain_function(layer.cell.sigma),
        "phi": plain_function(layer.cell.phi),
        "psi": plain_function(layer.cell.phi if layer.cell.psi is None else layer.cell.psi),
        "clip": layer.cell.clip,
        "units": layer.units,
        "formats": {name: (f.width, f.frac, f.signed) for name, f in formats.values.items()},
        "weights": {key: w.tolist() for key, w in layer.weights.items()},
        "weight_frac": {key: f.frac for key, f in formats.weights.items()},
        "biases": {gate: b.tolist() for gate, b in layer.biases.items()},
        "bias_frac": dict(formats.bias_frac),
        "shifts": shifts,
        "initial": {state: raw.tolist() for state, raw in layer.initial.items()},
        "reverse": layer.reverse,
        "beside": layer.beside,
    }


def plain(model: QuantizedModel) -> dict:
    """The whole network."""
    return {
        "layers": [plain_layer(layer) for layer in model.layers],
        "head": None if model.head is None else plain_layer(model.head),
        "every_step": model.every_step,
        "encoder": model.encoder,
        "final_state": model.final_state,
    }
