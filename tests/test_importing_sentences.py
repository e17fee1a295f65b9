"""Every operator that an import understands tells what it cannot: a network of one odd node for each sentence."""

import re

import numpy as np
import pytest
from foreign import CELL, FRONT, ONE, matrix, weights, write
from onnx import helper

import hwrnn
from hwrnn.errors import UsageError
from hwrnn.importing.graph import Node

GRU = FRONT + "Y, Yh = GRU<hidden_size=5>(s, W, R, B) "
CONSTANTS = {
    **{f"i{k}": np.array([k]) for k in (0, 1, 2, 3, 5, 7)}, "s0": np.array(0), "s1": np.array(1), "s9": np.array(9),
    "half": np.float32(0.5), "pair": np.array([0, 0]), "third": matrix(3), "five": matrix(5), "cube": matrix(2, 5, 5),
    "tall": matrix(7, 2), "wide": matrix(5, 2), "flat": matrix(2, 3), "m9": np.array([-9]), "zeros": np.zeros(3),
    "whole": np.array([1, 2, 3]), "noth": np.array([0, 0, 0]), "big": np.array(1 << 40), "no": np.array([False, True]),
    "minus": np.array([-3, 5]), "deep": np.ones(20, np.int64),
    "wish": np.array([5, 9]), "wish2": np.array([-1, -1]), "wish7": np.array([-1, 7]), "low": np.float32(2),
    "high": np.float32(1), "twice": np.array([1, 1, 1, 2]), "zone": np.array([1, 1, 1, 0]),
    "neg": -np.ones(5, np.float32), "empty": np.zeros(0, np.int64), "three": np.ones(3, np.float32),
    "half2": np.array([2, 2]), "u8": np.array(3, np.uint8), "eight": np.float32(8),
    "one_": np.float32(1), "z_": np.float32(0),
    "halves": np.array([0.5, 0.5], np.float32), "f8": np.ones(5, np.float32),
    "words": np.array([3, 1, 2]), "bits": np.float32(2.5), "third_": np.float32(0.3),
    "u8w": np.zeros((5, 5), np.uint8), "fives": np.full(5, 0.5, np.float32),
}  # fmt: skip

#: Nodes behind a GRU (Y: steps, 1, sequences, 5) and the sentence of the one that is odd; ``y`` is the output.
SENTENCES = {
    # -- axes
    "y = Gather<axis=4>(Y, i0)": r"\(Gather\) must have an axis between -4 and 3, not 4",
    "y = Transpose<perm=[0,1,1,2]>(Y)": r"\(Transpose\) must have a perm of its 4 axes, not \[0, 1, 1, 2\]",
    "n = Shape(x) a = Gather(n, i0) y = Unsqueeze(Y, a)": r"\(Unsqueeze\) must have known axes",
    "y = Unsqueeze(Y, pair)": r"\(Unsqueeze\) must have different axes, at most 16 in all, not \[0, 0\]",
    "q = Squeeze(wide, i0) y = Add(Y, q)": r"must drop axes of size 1 only, not \[0\] of the shape \(5, 2\)",
    "y = Squeeze(Y)": "must name the axes that it drops, because some sizes are open",
    "y = Squeeze(Y, i3)": "must drop axes of size 1 only, not axis 3 of size 5",
    "y = Flatten<axis=5>(Y)": r"\(Flatten\) must have an axis between -4 and 4, not 5",
    "y = Reshape(Y, deep)": "must have a shape of at most 16 axes",
    "y = Reshape(Y, minus)": r"\(Reshape\) must have a shape of positive sizes, not \[-3, 5\]",
    "y = Reshape(Y, wish2)": r"\(Reshape\) must have at most one size -1 in its shape",
    "q = Reshape(wide, wish7) y = Add(Y, q)": r"must have a shape that its 10 elements fill, not \[-1, 7\]",
    "q = Reshape(wide, wish) y = Add(Y, q)": r"must have a shape that its 10 elements fill, not \[5, 9\]",
    "y = Reshape(Yh, wish)": r"must have a shape of as many elements as \[1, 5, 5\], not \[5, 9\]",
    # -- parts
    "y = Slice(Y, pair, half2, pair)": r"\(Slice\) must name different axes, not \[0, 0\]",
    "y = Slice(Y, pair, half2, i3)": "must have as many starts, ends, axes and steps, and steps that are not 0",
    "y = Slice(Y, i5, i7, i3)": "must leave something of axis 3, which has size 5",
    "y = Gather<axis=3>(Y, i7)": "must have indices between -5 and 4, not 7 to 7",
    "y = Gather<axis=3>(Y, empty)": r"\(Gather\) must have at least one index",
    "y = Gather<axis=3>(Y, half)": r"must have whole numbers as indices, not float32",
    "y, z = Split<axis=3>(Y, half2)": r"\(Split\) must split its 5 elements into 2 parts, not \[2, 2\]",
    "y, z = Split<axis=3>(Y)": r"\(Split\) must split its 5 elements into 2 equal parts or say which",
    "y = GatherElements<axis=0>(Y, cube)": "must take the step at an input's lengths minus 1, the same for every f",
    "y = GatherND(Y, i0)": "must take the step at an input's lengths minus 1, with batch_dims 1",
    "y = ReverseSequence<time_axis=2, batch_axis=3>(Y, i0)": (
        "must turn a computed value whose first axes are time and batch"),
    # -- joins
    "y = Concat<axis=0>(Y, wide)": r"\(Concat\) must join values of equally many axes",
    "q = Concat<axis=0>(wide, flat) y = Add(Y, q)": "must join values of equal shapes apart from the axis",
    "y = Expand(Y, zone)": r"\(Expand\) must have a shape of positive sizes, not \[1, 1, 1, 0\]",
    "y = Expand(Y, twice)": r"\(Expand\) must have a shape that .* can be repeated to, not \[1, 1, 1, 2\]",
    "y = Tile(Y, i1)": r"\(Tile\) must have 4 positive repeats",
    "y = Tile(Y, twice)": r"\(Tile\) must repeat axes of size 1 only",
    # -- constants
    "c = Constant<value_string=\"a\">() y = Add(Y, c)": r"\(Constant\) must hold a tensor or numbers",
    "r = Range(s0, s9, s0) q = Cast<to=1>(r) y = Add(Y, q)": r"must have three numbers, the last of them not 0",
    "r = Range(s0, big, s1) q = Cast<to=1>(r) y = Add(Y, q)": r"\(Range\) must give at most 1048576 numbers",
    "q = Add(third, five) y = Add(Y, q)": "must have values of shapes that fit each other, not",
    "q = Div(whole, noth) c = Cast<to=1>(q) y = Add(Y, c)": r"\(Div\) must not divide by 0",
    "q = ReduceProd(wide) y = Add(Y, q)": r"\(ReduceProd\) must multiply the elements of one constant vector",
    "n = Shape(x) q = Cast<to=1>(n) y = Add(Y, q)": "must keep open sizes whole, not turn them into float32",
    "y = Cast<to=7>(Y)": "must not cut computed numbers to int64",
    "y = Cast<to=8>(Y)": "must turn numbers into float or whole ones, not into",
    "e = Equal(Y, Y) y = Cast<to=1>(e)": r"\(Equal\) must compare constants: hwrnn has no layer that compares comput",
    "y = Where(no, Y, Y)": "must choose between constants: hwrnn has no layer that chooses between computed values",
    "y = ConstantOfShape(m9)": "must have one value and a shape of sizes that are not negative",
    "q = Reciprocal(zeros) c = Cast<to=1>(q) y = Add(Y, c)": r"\(Reciprocal\) must give finite numbers",
    # -- products and arithmetic
    "y = MatMul(Y, tall)": "must have a matrix of 5 rows, as the value has elements, not 7",
    "q = MatMul(wide, tall) y = Add(Y, q)": "must have constant matrices that fit each other",
    "y = MatMul(wide, Y)": "must have the computed value first and the constant matrix second",
    "y = MatMul(Y, cube)": r"\(MatMul\) must have a matrix of two axes, not 3",
    "q = Squeeze(Yh, i0) y = Gemm(q, cube)": r"\(Gemm\) must have a matrix of two axes, not 3",
    "q = Gemm(wide, tall) y = Add(Y, q)": r"\(Gemm\) must have matrices that fit each other",
    "q = Squeeze(Yh, i0) y = Gemm<transA=1>(q, wide)": r"\(Gemm\) must have transA 0 for a computed value",
    "y = Gemm(Y, wide)": r"\(Gemm\) must have a computed value of two axes, not 4",
    "y = Div(five, Y)": "must have a constant among its values: hwrnn has no layer that does it with two",
    "y = Div(Y, noth5)": r"\(Div\) must divide floats by numbers that are not 0",
    "y = Add(Y, third)": "must compute with values that fit each other, not .* and .* along axis 3",
    "q = Squeeze(Yh, i0) y = BatchNormalization(q, five, five, five, neg)": (
        "must have finite vectors of one length, and a variance above 0"),
    "q = Squeeze(Yh, i0) y = BatchNormalization(q, three, three, three, three)": (
        "must have vectors of 5 elements, as the value has features, not 3"),
    "y = ReduceMean(Y)": r"\(ReduceMean\) must reduce one axis, not 4",
    # -- functions
    "y = Clip(Y, low, high)": r"\(Clip\) must have a lower bound below the upper one, not 2.0 and 1.0",
}  # fmt: skip
QUANT = "qonnx.custom_op.general.Quant"
SENTENCES |= {
    "y = QuantizeLinear(Y, halves, u8)": "must have 1 scales along axis 1, not 2",
    "y = QuantizeLinear(Y, cube, u8)": "must have a scale and a zero point of one shape, of one axis at most",
    "q = QuantizeLinear(Y, z_, u8) y = DequantizeLinear(q, half, u8)": r"\(QuantizeLinear\) must have scales above 0",
    "q = QuantizeLinear<axis=3>(Y, fives) y = DequantizeLinear(q, half, u8)": (
        "must have one scale and one zero point for a computed value"),
    "q = QuantizeLinear<axis=3>(Y, halves) y = DequantizeLinear(q, half, u8)": "have 5 scales along axis 3, not 2",
    "q = DequantizeLinear(five, half) y = Add(Y, q)": r"\(DequantizeLinear\) must read integers",
    "q = QuantizeLinear(Y, half, u8) y = DequantizeLinear<axis=3>(q, fives)": "must have one scale and one zero point",
    f"y = {QUANT}<rounding_mode=\"TULIP\">(Y, half, z_, eight)": "must have a rounding mode of ROUND, .*, not 'TULIP'",
    f"y = {QUANT}(Y, half, z_, bits)": "must have one whole number of bits, of 1 to",
    f"y = {QUANT}(Y, half, z_, one_)": "must have more than 1 bit where it is signed: BipolarQuant has one",
    f"y = {QUANT}(Y, half, third_, eight)": "must have whole zero points, one or as many as scales",
    f"y = {QUANT}(Y, fives, z_, eight)": "must have one scale and one zero point for a computed value",
    f"q = {QUANT}(words, half, z_, eight) y = Add(Y, q)": r"\(qonnx.custom_op.general.Quant\) must read floats",
}
#: The same in other operator sets: nodes -> the set and the sentence.
OTHERS = {
    "y = BatchNormalization<spatial=0>(Y, f8, f8, f8, f8)": (8, r"\(BatchNormalization\) must have spatial 1"),
    "y = Unsqueeze(Y)": (11, "Required attribute 'axes' is missing"),
    "q = DequantizeLinear<block_size=2>(u8w, fives) y = Add(Y, q)": (
        21, "must have one scale for a tensor or for each place of an axis, not for blocks"),
    "y = DequantizeLinear<output_dtype=10>(u8w, half)": (23, r"\(DequantizeLinear\) must give float32"),
    "q = QuantizeLinear<output_dtype=17>(Y, half) y = Cast<to=1>(q)": (21, "must give integers of 4, 8 or 16 bits"),
    "y, z = Split<num_outputs=3, axis=3>(Y)": (18, "must have as many outputs as num_outputs says, not 2"),
}
CONSTANTS["noth5"] = np.zeros(5, np.float32)
#: What a file's checker already tells, once more where a node is read: its attributes, and what is asked of them.
ATTRIBUTES = {
    "have a whole number as attribute 'axis'": ("Gather", {"axis": "a"}, lambda node: node.integer("axis")),
    "have the attribute 'axis'": ("Concat", {}, lambda node: node.integer("axis")),
    "have a number as attribute 'alpha'": ("Elu", {"alpha": 1}, lambda node: node.real("alpha")),
    "have a finite number as attribute 'alpha', not inf": (
        "Elu", {"alpha": float("inf")}, lambda node: node.real("alpha")),
    "have finite numbers as attribute 'offset'": (
        "Scaler", {"offset": [1.0, float("nan")]}, lambda node: node.reals("offset")),
    "have input 0": ("Relu", {}, lambda node: node.value(0)),
    "have keepdims 0 or 1, not 2": ("ReduceMean", {"keepdims": 2}, lambda node: node.flag("keepdims")),
}  # fmt: skip


#: Whole networks: the ends, the nodes and the sentence; ``s`` is not given.
WHOLES = {
    "a state of two axes": ("(float[N,T,3] x)", FRONT + "y = GRU<hidden_size=5>(s, W, R, B, , wide)",
                            "must have an initial state of three axes, not 2"),
    "a state of other units": ("(float[N,T,3] x, float[1,N,4] h)", FRONT + "y = GRU<hidden_size=5>(s, W, R, B, , h)",
                               "must have initial states of 1 directions and 5 units, not"),
    "a state for other sequences": ("(float[4,T,3] x)", FRONT + "y = GRU<hidden_size=5>(s, W, R, B, , h3)",
                                    "must have initial states for each sequence, not for 3"),
    "lengths of two axes": ("(float[N,T,3] x, int32[N,1] lens)", FRONT + "y = GRU<hidden_size=5>(s, W, R, B, lens)",
                            "must have whole numbers of one axis as sequence_lens"),
    "lengths of features": ("(float[N,T,3] x)", FRONT + "q, h = GRU<hidden_size=5>(s, W, R, B) e = Squeeze(h, i0) "
                            "l = Gather<axis=1>(e, s0) y = GRU<hidden_size=5>(s, W, R, B, l)",
                            "must have whole numbers of one axis as sequence_lens"),
    "lengths of other sequences": ("(float[4,T,3] x)", FRONT + "y = GRU<hidden_size=5>(s, W, R, B, l3)",
                                   "must have sequence_lens for each sequence, not 3 of them"),
    "some of the sequences": ("(float[4,T,3] x)", FRONT + "g = Gather<axis=1>(s, s0) u = Unsqueeze(g, i1) "
                              "y = GRU<hidden_size=5>(u, W, R, B)",
                              "must read a vector of features at every step of input 'x', not parts of it along"),
    "weights of whole numbers": ("(float[N,T,3] x)", FRONT + "y = GRU<hidden_size=5>(s, Wi, R, B)",
                                 "must have finite floats as weights"),
    "weights beyond float32": ("(double[N,T,3] x)", FRONT + "y = GRU<hidden_size=5>(s, Wd, Rd, Bd)",
                               "must have weights that float32 can hold"),
    "an activation out of range": (
        "(float[N,T,3] x)", FRONT + 'y = GRU<hidden_size=5, activations=["Softplus","Affine"], activation_alpha=[2.0], '
        "activation_beta=[3.0e38]>(s, W, R, B)",
        "must have activations that hwrnn can compute: Parameters of affine must be numbers up to 65536"),
    "an output twice": ("(float[N,T,3] x)", FRONT + "y = GRU<hidden_size=5>(s, W, R, B) y = Relu(y)",
                        "must define value 'y' once, and not again as an output of node"),
    "numbers of text": ("(string[N,T,3] x)", "f = Cast<to=1>(x) y = GRU<hidden_size=5>(f, W, R, B)",
                        "Input 'x' must hold numbers, not "),
    "no shape": ("(float[] x)", "y = GRU<hidden_size=5>(x, W, R, B)",
                 "Input 'x' must say how many axes it has: export the network with shapes"),
    "too many axes": ("(float[a,b,c,d,e,f,g,h,i] x)", "y = GRU<hidden_size=5>(x, W, R, B)",
                      "Input 'x' must have at most 8 axes, not 9"),
    "no size": ("(float[N,0,3] x)", FRONT + "y = GRU<hidden_size=5>(s, W, R, B)",
                "Input 'x' must have axes of 1 to 2147483647, not of 0"),
    "two sizes of the batch": ("(float[2,T,3] x, float[3,T,3] z)", FRONT + "t = Transpose<perm=[1,0,2]>(z) "
                               "a = GRU<hidden_size=5>(s, W, R, B) b = GRU<hidden_size=5>(t, W, R, B) y = Add(a, b)",
                               "Inputs of the network must have one batch size, not 2 and 3"),
    "an axis that is two things": ("(float[N,N2,3] x)", FRONT + "a = GRU<hidden_size=5>(s, W, R, B) "
                                   "b = GRU<hidden_size=5>(x, W, R, B) y = Add(a, b)",
                                   "must have the time and nothing else along axis 0 of X"),
    "a loop": ("(float[N,T,3] x, int64 m, bool c)", "y = Loop(m, c, x) <body = b (int64 i, bool k, float[N,T,3] v) => "
               "(bool k2, float[N,T,3] w) { k2 = Identity(k) w = Relu(v) }>",
               "must be an RNN, GRU or LSTM node: a recurrence in a loop is not understood"),
    "a condition that is computed": (
        "(float[N,T,3] x, bool c)", FRONT + "q = GRU<hidden_size=5>(s, W, R, B) y = If (c) <then_branch = a () => "
        "(float[N] r) { r = Identity(q) }, else_branch = b () => (float[N] r2) { r2 = Identity(q) }>",
        "Input 'c' must hold numbers, not bool"),
    "too many numbers": ("(float[N,T,3] x)", FRONT + "q = GRU<hidden_size=5>(s, W, R, B) y = Expand(q, huge)",
                         "Network must take at most .* numbers to understand, not more"),
}
CONSTANTS |= {
    "h3": matrix(1, 3, 5), "l3": np.array([1, 2, 1], np.int32), "Wi": ONE["W"].astype(np.int32),
    "Wd": ONE["W"].astype(np.float64) * 1e300, "Rd": ONE["R"].astype(np.float64), "Bd": ONE["B"].astype(np.float64),
    "huge": np.array([1, 2**24, 1, 1]), "cond": np.array(True), "far": np.array([1e30], np.float32),
    "inf": np.float32(3e38),
}
SENTENCES |= {
    "c = Identity(five) y = Softmax(c)": r"\(Softmax\) must have a computed value",
    "y = ArgMax(five)": r"\(ArgMax\) must have a computed value",
    "t = Transpose<perm=[2,1,0,3]>(Y) y = Add(Y, t)": (
        "must compute with values that fit each other, not batch and time along axis 0"),
    "n = Shape(x) a = Gather(n, i0) b = Gather(n, i1) y = Slice(wide, i0, a)": (
        r"\(Slice\) must have known starts and ends for a constant"),
    "y = Gather(Y, pair)": "must take all steps or one along axis 0, not 2 of them",
    "q = Squeeze(Y, i1) y = ReverseSequence(q, whole)": "must turn whole sequences, or by lengths that are an input",
    "n = Shape(x) y = Clip(n, i0)": "must not bound sizes that the file leaves open",
    "n = Shape(x) y = Gemm(n, wide)": "must compute with numbers, not with sizes that the file leaves open",
    "n = Shape(x) q = Add(Y, n) y = Cast<to=1>(q)": "must compute with numbers, not with sizes that the file leaves",
    "n = Shape(x) b = Gather(n, i0) q = Unsqueeze(wide, i0) y = Expand(q, b)": (
        "must have a shape that .* can be repeated to, not .batch."),
    "y = Expand(Y, fivef)": "must have constant whole numbers as shape, not a computed value",
    "e = Less(s0, Y) y = Cast<to=1>(e)": "must have a constant as value to compare, not a computed value",
    "y = Cast<to=9>(Y)": "must not cut computed numbers to bool",
    "y = Erf(Y)": r"\(Erf\) must be of a function that hwrnn has: this one is not in its catalogue",
    "q = Add(Y, two_steps) y = Relu(q)": "must compute with values that fit each other, not 6 and time",
}
CONSTANTS |= {"fivef": matrix(5), "two_steps": matrix(6, 1, 1, 1)}

X3 = "(float[N,T,3] x)"
STACK = FRONT + CELL + "q = Squeeze(Y, i1) "
TIMES = "n = Shape(s) t = Gather(n, i0) e = Concat<axis=0>(t, i1, i1) "
TWO_INPUTS = "(float[N,T,3] x, {} z)"
LENS = "(float[N,T,3] x, int64[N] lens)"
#: The same where what is odd is no model, or needs inputs of its own.
WHOLES |= {
    "Softmax beside what it reads": (X3, STACK + "p = Softmax(q) y = Concat<axis=2>(p, q)",
                                     "Output 'y' must not mix the results of Softmax and its like with others"),
    "steps and what is computed once": (
        X3, STACK + TIMES + "d = Relu(q) f = Relu(Yh) g = Expand(f, e) y = Concat<axis=2>(d, g)",
        "Output 'y' must not mix what is computed at every step with what is computed once"),
    "a single step behind steps": (X3, FRONT + CELL + "y = GRU<hidden_size=5>(Yh, W5, R5, B5)",
                                   "must come from layers that all run through the steps, or are all a single forward"),
    "two codes": (X3, FRONT + CELL + TIMES + "g = Expand(Yh, e) Z, y = GRU<hidden_size=5>(g, W5, R5, B5)",
                  "must take one step at one place of the network, not at several"),
    "the code of a reverse layer": (
        X3, FRONT + 'Y, Yh = GRU<hidden_size=5, direction="reverse">(s, W, R, B) ' + TIMES +
        "g = Expand(Yh, e) y = GRU<hidden_size=5>(g, W5, R5, B5)",
        "must repeat the output at the last step for a decoder, not the last state of a reverse layer"),
    "lengths behind a reverse layer": (
        LENS, FRONT + 'Y = GRU<hidden_size=5, direction="reverse">(s, W, R, B) q = Squeeze(Y, i1) '
        "Z = GRU<hidden_size=5>(q, W5, R5, B5) z = Squeeze(Z, i1) t = Transpose<perm=[1,0,2]>(z) m = Sub(lens, i1) "
        "k = Unsqueeze(m, i1) y = GatherND<batch_dims=1>(t, k)",
        "must have the lengths as sequence_lens of 'the_GRU_1', which runs in reverse"),
    "lengths of one layer": (
        "(float[N,T,3] x, int32[N] lens)", FRONT + "Y = GRU<hidden_size=5>(s, W, R, B, lens) q = Squeeze(Y, i1) "
        "Z, y = GRU<hidden_size=5>(q, W5, R5, B5)", "must come from layers that all have the same sequence_lens"),
    "an output times 0": (X3, STACK + "y = Mul(q, z_)",
                          "must be scaled by numbers that float32 can hold and that are not 0"),
    "sequences and steps of one number": (
        "(float[4,4,3] x)", STACK + "t = Transpose<perm=[1,0,2]>(q) y = Add(q, t)",
        "must compute with values whose batch, time and features lie alike along axis 0"),
    "a vector normalised": (
        TWO_INPUTS.format("float[N]"), FRONT + CELL + "y = BatchNormalization(z, one_, one_, one_, one_)",
        "must have features along axis 1"),
    "truth values": ("(int32[N,T,3] x)", "c = Cast<to=9>(x) f = Cast<to=1>(c) y = GRU<hidden_size=5>(f, W, R, B)",
                     "must not turn computed numbers into truth values"),
    "a condition of two": (X3, FRONT + CELL + "y = If (no) <then_branch = a () => (float[N] r) { r = Identity(Y) }, "
                           "else_branch = b () => (float[N] r2) { r2 = Identity(Y) }>",
                           "must have a condition that is known before the network runs"),
    "constants for each step": (
        "(float[4,6,3] x)", FRONT + CELL + "y = Concat<axis=3>(Y, rows)",
        "must have constants that are the same for every sequence and step, unlike those along axis 0"),
    "twice the batch": (
        X3, FRONT + CELL + "n = Shape(x) b = Gather(n, i0) b2 = Mul(b, i2) e = Concat<axis=0>(b2, i1, i1) "
        "g = Gather<axis=1>(Yh, s0) u = Expand(five, e) y = Add(Yh, u)",
        r"must repeat along the batch or the time, not to 2\*batch elements"),
    "one sequence beside four": (
        "(float[4,T,3] x, float[T,3] z)", FRONT + CELL + "u = Unsqueeze(z, i1) y = GRU<hidden_size=5>(u, W, R, B)",
        "must read all 4 sequences"),
    "lengths that are computed": ("(float[N,T,3] x, int32[N] lens)",
                                  FRONT + "more = Add(lens, l1) y = GRU<hidden_size=5>(s, W, R, B, more)",
                                  "must have an input of the network or a constant as sequence_lens"),
    "a state for each step": (
        "(float[T,3] x)", "u = Unsqueeze(x, i1) Y = GRU<hidden_size=5>(u, W, R, B) q = Squeeze(Y, i1) "
        "t = Transpose<perm=[1,0,2]>(q) y = GRU<hidden_size=5>(u, W, R, B, , t)",
        "must have the batch along axis 1 of its initial states"),
    "computed states as features": (
        "(float[4,T,3] x, float[20] z)", FRONT + "m = MatMul(z, square) h = Reshape(m, states) "
        "y = GRU<hidden_size=5>(s, W, R, B, , h)", "must have the batch along axis 1 of its initial states"),
    "open features": (TWO_INPUTS.format("float[N,F]"), FRONT + CELL + "y = ReduceMean<axes=[1]>(z)",
                      "Input 'z' must have a fixed number of features: export it with one"),
    "turned by computed lengths": (LENS, STACK + "more = Add(lens, i1) y = ReverseSequence(q, more)",
                                   "must turn whole sequences, or by lengths that are an input of the network"),
}  # fmt: skip
CONSTANTS |= {
    **weights(inputs=5, name="5"), "rows": matrix(6, 1, 4, 2), "l1": np.array([1], np.int32), "square": matrix(20, 20),
    "states": np.array([1, 4, 5]), "thousand": np.full(5, 1000, np.float32),
}
SENTENCES |= {
    "n = Shape(x) y = Where(n, five, five)": r"\(Where\) must have a constant condition",
    "c = Exp(thousand) y = Mul(Y, c)": r"\(Mul\) must scale by finite numbers",
    "y = Div(Y, tiny)": r"\(Div\) must scale by finite numbers",
    "q = Squeeze(Yh, i0) y = BatchNormalization<training_mode=1>(q, f8, f8, f8, f8)": (
        "must have training_mode 0: export the network for inference"),
    "n = Shape(x) m = ReduceMean(n) c = Cast<to=1>(m) y = Add(Y, c)": (
        r"\(ReduceMean\) must compute with numbers, not with sizes that the file leaves open"),
    "n = Shape(x) y = Relu(n)": "must not depend on sizes that the file leaves open: it computes with one of them",
    "y = LeakyRelu<alpha=1.0e9>(Y)": "must have a function that hwrnn knows: Parameters of leaky must be numbers up to",
    "y = qonnx.custom_op.general.BipolarQuant(Y, half)": (
        "must quantize weights: hwrnn has no sign function as a nonlinearity"),
    f"q = {QUANT}(five, halves, z_, eight) y = Add(Y, q)": r"must have scales that fit the shape \(5,\), not \(2,\)",
}
CONSTANTS["tiny"] = np.array(1e-310)

@pytest.mark.parametrize("name", WHOLES)
def test_a_network_that_is_odd_as_a_whole(name, tmp_path):
    inputs, text, sentence = WHOLES[name]
    constants = {k: v for k, v in {**ONE, **CONSTANTS}.items() if re.search(rf"\b{k}\b", text)}
    path = write(tmp_path / "n.onnx", text, constants, ends=f"{inputs} => (float y)")
    with pytest.raises(UsageError, match=sentence):
        _ = hwrnn.import_onnx(path).model


@pytest.mark.parametrize("text", OTHERS)
def test_what_a_node_of_another_operator_set_cannot_is_told(text, tmp_path):
    opset, sentence = OTHERS[text]
    constants = {k: v for k, v in {**ONE, **CONSTANTS}.items() if re.search(rf"\b{k}\b", GRU + text)}
    path = write(tmp_path / "n.onnx", GRU + text, constants, opset, ends="(float[N,T,3] x) => (float y)")
    with pytest.raises(UsageError, match=sentence):
        hwrnn.import_onnx(path)


@pytest.mark.parametrize("sentence", ATTRIBUTES)
def test_what_is_asked_of_a_node(sentence):
    kind, attributes, asked = ATTRIBUTES[sentence]
    node = Node(helper.make_node(kind, [], ["y"], name="n", **attributes), 17, [])
    with pytest.raises(UsageError, match=re.escape(f"Node 'n' ({kind}) must {sentence}")):
        asked(node)


def test_an_attribute_stands_once():
    proto = helper.make_node("Elu", ["x"], ["y"], name="n", alpha=1.0)
    proto.attribute.append(proto.attribute[0])
    with pytest.raises(UsageError, match="must name attribute 'alpha' once"):
        Node(proto, 17, [None])


@pytest.mark.parametrize("text", SENTENCES)
def test_what_a_node_cannot_is_told(text, tmp_path):
    constants = {k: v for k, v in {**ONE, **CONSTANTS}.items() if re.search(rf"\b{k}\b", GRU + text)}
    path = write(tmp_path / "n.onnx", GRU + text, constants, ends="(float[N,T,3] x) => (float y)")
    with pytest.raises(UsageError, match=SENTENCES[text]):
        hwrnn.import_onnx(path)
