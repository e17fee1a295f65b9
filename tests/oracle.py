"""An oracle for quantized networks that shares nothing with what it judges.

It imports nothing of the project: every formula below is typed again from its source, in exact fractions, as
textbooks write it. It is slow and meant for networks of a few units.

A network is plain data::

    {"layers": [layer, ...], "head": layer or None, "every_step": bool, "encoder": int, "final_state": bool}

    layer = {
        "cell": "lstm",                      # a key of CELLS
        "sigma": function, "phi": function,  # see `function`
        "psi": function,                     # of a cell with a state of its own: the output's
        "clip": None or a number,            # of the cell state
        "units": int,
        "formats": {value name: (width, frac, signed)},     # pre-activations are "a.GATE"
        "weights": {(gate, operand): [[int, ...] per unit]},
        "weight_frac": {(gate, operand): int},
        "biases": {gate: [int per unit]}, "bias_frac": {gate: int},
        "shifts": {(gate, operand): int},    # left shift of the operand before the multiplier
        "initial": {state: [int per unit]},  # raw; zero where not given
        "reverse": bool,                     # from the last step to the first
        "beside": bool,                      # reads what the layer before reads; outputs stand behind that one's
    }

Sequences are lists of steps, steps are lists of raw integers.
"""

from fractions import Fraction


def power(exponent):
    """2 to any whole power."""
    return Fraction(2) ** exponent


def rounded(value, form):
    """The raw integer that stores ``value``: half up, then saturation."""
    width, frac, signed = form
    doubled = 2 * value * power(frac) + 1
    raw = doubled.numerator // (2 * doubled.denominator)  # floor(v + 1/2) = floor((2 v + 1) / 2)
    smallest = -(2 ** (width - 1)) if signed else 0
    largest = 2 ** (width - 1) - 1 if signed else 2**width - 1
    return smallest if raw < smallest else largest if raw > largest else raw


def stored(value, form):
    """What ``value`` is worth after it was stored."""
    return rounded(value, form) / power(form[1])


# -- nonlinearities ----------------------------------------------------------------------------------------------


def limited(x, low, high):
    return low if x < low else high if x > high else x


def plan(x):
    """Amin, Curtis, Hayes-Gill 1997, table 1: on |x|, mirrored. A jump belongs to the upper side on both halves."""
    magnitude = -x if x < 0 else x
    if magnitude > 5:
        y = Fraction(1)
    elif magnitude > Fraction("2.375") or x == Fraction("2.375"):
        y = Fraction("0.03125") * magnitude + Fraction("0.84375")
    elif magnitude >= 1:
        y = Fraction("0.125") * magnitude + Fraction("0.625")
    else:
        y = Fraction("0.25") * magnitude + Fraction("0.5")
    return 1 - y if x < 0 else y


FUNCTIONS = {
    "identity": lambda x: x,
    "relu": lambda x: x if x > 0 else Fraction(0),
    "relu1": lambda x: limited(x, Fraction(0), Fraction(1)),
    "relu6": lambda x: limited(x, Fraction(0), Fraction(6)),
    "hard_tanh": lambda x: limited(x, Fraction(-1), Fraction(1)),
    "hard_sigmoid": lambda x: limited(x / 4 + Fraction(1, 2), Fraction(0), Fraction(1)),
    "hard_sigmoid_3_16": lambda x: limited(3 * x / 16 + Fraction(1, 2), Fraction(0), Fraction(1)),
    "hard_sigmoid_1_5": lambda x: limited(x / 5 + Fraction(1, 2), Fraction(0), Fraction(1)),
    "hard_sigmoid_1_6": lambda x: limited(x / 6 + Fraction(1, 2), Fraction(0), Fraction(1)),
    "plan_sigmoid": plan,
    "plan_tanh": lambda x: 2 * plan(2 * x) - 1,
}


def leaky(shift):
    return lambda x: x if x >= 0 else x / 2**shift


def clipped(bound):
    return lambda x: limited(x, -Fraction(bound), Fraction(bound))


def from_file(text):
    """A number of ONNX's attributes."""
    return Fraction(float(text))


def line(alpha, beta):
    return lambda x: from_file(alpha) * x + from_file(beta)


#: ONNX's activations with parameters that are piecewise linear, as the standard has them.
ONNX = {
    "leaky": lambda alpha: lambda x: x if x >= 0 else from_file(alpha) * x,
    "thresholded": lambda alpha: lambda x: x if x > from_file(alpha) else Fraction(0),
    "affine": line,
    "hard_line": lambda alpha, beta: lambda x: limited(line(alpha, beta)(x), Fraction(0), Fraction(1)),
    "scaled_tanh": lambda alpha, beta: lambda x: Fraction(0),  # of alpha = 0; every other one is smooth
}


def pieces(knots, slopes, intercepts):
    def value(x):
        k = 0
        while k < len(knots) and x >= knots[k]:
            k += 1
        return slopes[k] * x + intercepts[k]

    return value


def function(description):
    """A function from its name (``leaky_relu:3``, ``relu|3``) or from explicit ``(knots, slopes, intercepts)``."""
    if not isinstance(description, str):
        return pieces(*description)
    if description in FUNCTIONS:
        return FUNCTIONS[description]
    if "|" in description:
        inner, bound = description.split("|")
        return lambda x: function(inner)(limited(x, -from_file(bound), from_file(bound)))
    name, *parameters = description.split(":")
    if name in ONNX:
        return ONNX[name](*parameters)
    (parameter,) = parameters
    return {"leaky_relu": lambda: leaky(int(parameter)), "clip": lambda: clipped(parameter)}[name]()


# -- cells: each takes the layer, this step's vectors and a way to save a value, and returns the new state --------


def rnn(layer, x, old, save):
    phi = function(layer["phi"])
    a = product(layer, "h", {"x": x, "h": old["h"]}, save)
    return {"h": save("h", [phi(v) for v in a])}


def taught(layer, names, reads, save):
    """The stored values of gates that are a nonlinearity of their pre-activation, all from the same operands."""
    functions = {name: function(layer["phi" if name == "g" else "sigma"]) for name in names}
    return [save(name, [functions[name](v) for v in product(layer, name, reads, save)]) for name in names]


def bounded(layer, save, values):
    """A stored cell state."""
    bound = (lambda v: v) if layer["clip"] is None else clipped(layer["clip"])
    return save("c", [bound(v) for v in values])


def shown(layer, save, o, c):
    """The stored output of a cell state."""
    psi = function(layer["psi"])
    t = save("t", [psi(v) for v in c])
    return save("h", [o[u] * t[u] for u in range(layer["units"])])


def lstm(layer, x, old, save):
    i, f, o, g = taught(layer, "ifog", {"x": x, "h": old["h"]}, save)
    c = bounded(layer, save, [f[u] * old["c"][u] + i[u] * g[u] for u in range(layer["units"])])
    return {"h": shown(layer, save, o, c), "c": c}


def lstm_coupled(layer, x, old, save):
    i, o, g = taught(layer, "iog", {"x": x, "h": old["h"]}, save)
    c = bounded(layer, save, [(1 - i[u]) * old["c"][u] + i[u] * g[u] for u in range(layer["units"])])
    return {"h": shown(layer, save, o, c), "c": c}


def lstm_peephole(layer, x, old, save):
    """Input and forget gate see the old cell state, the output gate the new one."""
    reads = {"x": x, "h": old["h"]}
    i, f = taught(layer, "if", {**reads, "c": old["c"]}, save)
    (g,) = taught(layer, "g", reads, save)
    c = bounded(layer, save, [f[u] * old["c"][u] + i[u] * g[u] for u in range(layer["units"])])
    (o,) = taught(layer, "o", {**reads, "c": c}, save)
    return {"h": shown(layer, save, o, c), "c": c}


def lstm_peephole_coupled(layer, x, old, save):
    reads = {"x": x, "h": old["h"]}
    (i,) = taught(layer, "i", {**reads, "c": old["c"]}, save)
    (g,) = taught(layer, "g", reads, save)
    c = bounded(layer, save, [(1 - i[u]) * old["c"][u] + i[u] * g[u] for u in range(layer["units"])])
    (o,) = taught(layer, "o", {**reads, "c": c}, save)
    return {"h": shown(layer, save, o, c), "c": c}


def mixed(one, z, other):
    """(1 - z) one + z other, element by element."""
    return [(1 - z[u]) * one[u] + z[u] * other[u] for u in range(len(z))]


def gru(layer, x, old, save):
    sigma, phi = function(layer["sigma"]), function(layer["phi"])
    h = old["h"]
    r = save("r", [sigma(v) for v in product(layer, "r", {"x": x, "h": h}, save)])
    z = save("z", [sigma(v) for v in product(layer, "z", {"x": x, "h": h}, save)])
    from_x = product(layer, "nx", {"x": x}, save)
    from_h = product(layer, "nh", {"h": h}, save)
    n = save("n", [phi(from_x[u] + r[u] * from_h[u]) for u in range(layer["units"])])
    return {"h": save("h", mixed(n, z, h))}


def gru_reset_before(layer, x, old, save):
    sigma, phi = function(layer["sigma"]), function(layer["phi"])
    h = old["h"]
    r = save("r", [sigma(v) for v in product(layer, "r", {"x": x, "h": h}, save)])
    z = save("z", [sigma(v) for v in product(layer, "z", {"x": x, "h": h}, save)])
    p = save("p", [r[u] * h[u] for u in range(layer["units"])])
    n = save("n", [phi(v) for v in product(layer, "n", {"x": x, "p": p}, save)])
    return {"h": save("h", mixed(n, z, h))}


def ligru(layer, x, old, save):
    sigma, phi = function(layer["sigma"]), function(layer["phi"])
    z = save("z", [sigma(v) for v in product(layer, "z", {"x": x, "h": old["h"]}, save)])
    n = save("n", [phi(v) for v in product(layer, "n", {"x": x, "h": old["h"]}, save)])
    return {"h": save("h", mixed(n, z, old["h"]))}


def mingru(layer, x, old, save):
    sigma, phi = function(layer["sigma"]), function(layer["phi"])
    z = save("z", [sigma(v) for v in product(layer, "z", {"x": x}, save)])
    n = save("n", [phi(v) for v in product(layer, "n", {"x": x}, save)])
    return {"h": save("h", mixed(old["h"], z, n))}


def dense(layer, x, old, save):
    phi = function(layer["phi"])
    return {"y": save("y", [phi(v) for v in product(layer, "y", {"x": x}, save)])}


CELLS = {
    "rnn": rnn,
    "lstm": lstm,
    "gru": gru,
    "gru-reset-before": gru_reset_before,
    "ligru": ligru,
    "mingru": mingru,
    "lstm-peephole": lstm_peephole,
    "lstm-coupled": lstm_coupled,
    "lstm-peephole-coupled": lstm_peephole_coupled,
    "dense": dense,
}


def states(cell):
    return () if cell == "dense" else ("h", "c") if "lstm" in cell else ("h",)


def product(layer, gate, operands, save):
    """The stored pre-activations of a gate: bias and matrix products of vectors of values, summed exactly."""
    sums = [Fraction(b) / power(layer["bias_frac"][gate]) for b in layer["biases"][gate]]
    for name, vector in operands.items():
        frac = layer["formats"][name][1]
        # The multipliers' products must meet at the accumulator's fraction, or hardware could not add them.
        meets = layer["weight_frac"][gate, name] + frac + layer["shifts"][gate, name]
        assert meets == layer["bias_frac"][gate], (gate, name)
        scale = power(layer["weight_frac"][gate, name])
        for u, row in enumerate(layer["weights"][gate, name]):
            assert len(row) == len(vector)
            sums[u] += sum(Fraction(w) * v for w, v in zip(row, vector, strict=True)) / scale
    assert {key[1] for key in layer["weights"] if key[0] == gate} == set(operands), gate
    return save(f"a.{gate}", sums)


def run_layer(layer, sequence):
    """Run one sequence of raw vectors; a list with, for every step, the raw integers of every value by name."""
    cell = layer["cell"]
    old = {}
    for name in states(cell):
        start = layer["initial"].get(name, [0] * layer["units"])
        old[name] = [Fraction(r) / power(layer["formats"][name][1]) for r in start]
    trail = []
    for raw in reversed(sequence) if layer["reverse"] else sequence:
        seen = {}

        def save(name, values, seen=seen):
            form = layer["formats"][name]
            assert name not in seen and len(values) == layer["units"]
            seen[name] = [rounded(v, form) for v in values]
            return [r / power(form[1]) for r in seen[name]]

        x = [Fraction(r) / power(layer["formats"]["x"][1]) for r in raw]
        old = CELLS[cell](layer, x, old, save)
        trail.append(seen)
    return trail[::-1] if layer["reverse"] else trail


def run(network, sequence):
    """Run one sequence; the raw output (every step's, or the last one's) and every layer's trail."""
    trails, layers = [], network["layers"]
    recurrent = max((k for k, layer in enumerate(layers) if layer["cell"] != "dense"), default=-1)
    for k, layer in enumerate(layers):
        if not layer["beside"]:
            reads, sequence, last = sequence, [[] for _ in sequence], []
        trails.append(run_layer(layer, reads))
        outputs = [seen["y" if layer["cell"] == "dense" else "h"] for seen in trails[-1]]
        sequence = [before + own for before, own in zip(sequence, outputs, strict=True)]
        last = last + outputs[0 if layer["reverse"] else -1]
        if k + 1 == len(layers) or not layers[k + 1]["beside"]:
            if k + 1 == network["encoder"]:
                sequence = [sequence[-1] for _ in sequence]
            if network["final_state"] and k >= recurrent and last:
                sequence, recurrent = [*sequence[:-1], last], len(layers)
    if not network["every_step"]:
        sequence = sequence[-1:]
    if network["head"] is not None:
        trails.append(run_layer(network["head"], sequence))
        sequence = [seen["y"] for seen in trails[-1]]
    return (sequence if network["every_step"] else sequence[0]), trails


def arg_max(scores):
    """The index of the largest score, the first of equals."""
    best = 0
    for k in range(1, len(scores)):
        if scores[k] > scores[best]:
            best = k
    return best
