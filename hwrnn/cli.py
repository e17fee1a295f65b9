"""The command line: a thin coat over the library. Everything heavy is imported inside the verbs."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn

from hwrnn import __version__
from hwrnn.errors import UsageError

__all__ = ["main"]

_EXAMPLES = {
    "demo": "hwrnn demo --out hwrnn-demo",
    "train": "hwrnn train --data japanese-vowels --cell gru --hidden 32 -o m.onnx",
    "quantize": "hwrnn quantize m.onnx --data japanese-vowels --bits 8 -o q.onnx",
    "compare": "hwrnn compare m.onnx --data japanese-vowels --bits 16,12,8,6,4",
    "generate": "hwrnn generate q.onnx --lanes 16 -o verilog",
    "frames": "hwrnn frames q_new.onnx verilog -o weights.bin",
    "simulate": "hwrnn simulate q.onnx --data japanese-vowels --lanes 16 --count 20",
    "implement": "hwrnn implement verilog --device ecp5-25k-6 --seeds 5",
    "run": "hwrnn run q.onnx --port /dev/ttyUSB1 --data japanese-vowels",
    "inspect": "hwrnn inspect q.onnx   (or a nonlinearity: hwrnn inspect pwl_sigmoid:5 --bits 8)",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see {self.prog} --help)")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def _wholes(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas between, not {text!r}") from None


def _lanes(text: str) -> int | str:
    return text if text == "auto" else _whole(text)


def _words(text: str) -> list[str]:
    return text.split(",")


def _data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--data", required=True, metavar="D", help="a built-in name, an .npz or a .csv file")
    group.add_argument("--column", metavar="NAME", help="column of a .csv to forecast")
    group.add_argument("--window", type=_whole, metavar="W", help="time steps of a window of a .csv")
    group.add_argument("--horizon", type=_whole, metavar="H", help="steps ahead to forecast (default 1)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hwrnn", description="Recurrent networks from data to checked Verilog for FPGAs.")
    parser.add_argument("--version", action="version", version=f"hwrnn {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)

    def verb(name: str, words: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=words, description=words, epilog=f"example: {_EXAMPLES[name]}")
        made.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")
        return made

    demo = verb("demo", "the whole job on the embedded data: train, quantize, compare, generate, simulate")
    demo.add_argument("--out", default="hwrnn-demo", metavar="DIR", help="folder of the results (default hwrnn-demo)")
    demo.add_argument("--quick", action="store_true", help="less training, and a part of the test data")
    demo.add_argument("--device", metavar="PART", help="go on to a bitstream for this part (needs hwrnn[fpga])")
    demo.add_argument("--seed", type=_whole, default=0, help="of the random generators (default 0)")

    train = verb("train", "train a recurrent network")
    _data(train)
    train.add_argument("--cell", default="lstm", help="rnn, lstm, gru, gru-reset-before, ligru, mingru")
    train.add_argument("--hidden", type=_wholes, default=[32], metavar="N[,N]", help="units of each layer (default 32)")
    train.add_argument("--layers", type=_whole, metavar="N", help="recurrent layers (default: as many as --hidden has)")
    train.add_argument("--activation", metavar="F", help="nonlinearity of the state (default: the cell's)")
    train.add_argument("--gate", metavar="F", help="nonlinearity of the gates (default: hard_sigmoid)")
    train.add_argument("--cell-clip", type=_number, metavar="C", help="keep an LSTM's cell state between -C and C")
    train.add_argument("--init", default="orthogonal", help="recurrent matrices: orthogonal, identity or glorot")
    train.add_argument("--loss", help="cross_entropy, mse or mae (default: by the task)")
    train.add_argument("--epochs", type=_whole, metavar="N", help="passes over the data")
    train.add_argument("--batch", type=_whole, metavar="N", help="sequences in a mini-batch")
    train.add_argument("--rate", type=_number, metavar="R", help="learning rate")
    train.add_argument("--noise", type=_number, metavar="S", help="deviation of Gaussian noise added to the input")
    train.add_argument("--validation", type=_number, metavar="V", help="share of the training data held out")
    train.add_argument("--patience", type=_whole, metavar="N", help="stop after N epochs without a better validation")
    train.add_argument("--checkpoint", metavar="FILE", help="write a checkpoint (.npz) after every epoch")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint, bit for bit")
    train.add_argument("--seed", type=_whole, default=0, help="of the random generators (default 0)")
    train.add_argument("-o", "--output", required=True, metavar="FILE", help="the model, an ONNX file")

    quantize = verb("quantize", "turn a float model into integers")
    quantize.add_argument("model", help="a float model of hwrnn")
    _data(quantize)
    _widths(quantize)
    quantize.add_argument("--like", metavar="FILE", help="take the formats of this quantized model, not --bits")
    quantize.add_argument("--finetune", type=_whole, default=0, metavar="N", help="epochs of training in fixed point")
    quantize.add_argument("-o", "--output", required=True, metavar="FILE", help="the quantized model, an ONNX file")

    compare = verb("compare", "accuracy of float against fixed point, side by side")
    compare.add_argument("model", help="a float model of hwrnn")
    _data(compare)
    compare.add_argument("--bits", type=_wholes, default=[16, 12, 8, 6, 4], metavar="B,B", help="default 16,12,8,6,4")
    compare.add_argument("--method", default="mse", help="calibration: mse or max (default mse)")

    generate = verb("generate", "write Verilog, manifest and test bench")
    generate.add_argument("model", help="a quantized model of hwrnn")
    generate.add_argument(
        "--lanes", type=_lanes, default=16, metavar="N", help="budget of multipliers (default 16); auto: by --target"
    )
    generate.add_argument("--channels", type=_whole, default=1, metavar="N", help="sequences in turn (default 1)")
    generate.add_argument(
        "--target", "--device", metavar="T", help="a part: its registers, and what share the design needs"
    )
    generate.add_argument(
        "--for", dest="tools", type=_words, action="extend", default=[], metavar="TOOL",
        help="add a project for vivado, quartus or radiant; again or with commas for several",
    )  # fmt: skip
    generate.add_argument("--clock", type=_number, metavar="MHZ", help="of that project (default: the part's goal)")
    generate.add_argument("--weights", default="auto", metavar="W", help="auto, block, distributed, loadable or spram")
    generate.add_argument("--argmax", action="store_true", help="return the class instead of the scores")
    generate.add_argument("--name", help="of the Verilog module")
    generate.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder")

    frames = verb("frames", "write the weights of another model for the load port of generated Verilog")
    frames.add_argument("model", help="a quantized model of the same structure and formats (hwrnn quantize --like)")
    frames.add_argument("folder", metavar="DIR", help="what hwrnn generate --weights loadable (or spram) wrote")
    frames.add_argument("-o", "--output", required=True, metavar="FILE", help="the frames, a length before each")

    simulate = verb("simulate", "golden model, hardware and float side by side, cycle by cycle")
    simulate.add_argument("model", help="a quantized model of hwrnn")
    _data(simulate)
    simulate.add_argument("--float", metavar="FILE", help="the float model to compare with (default: q's own weights)")
    simulate.add_argument(
        "--lanes", type=_lanes, default=16, metavar="N", help="budget of multipliers (default 16); auto: by --target"
    )
    simulate.add_argument("--channels", type=_whole, default=1, metavar="N", help="sequences in turn (default 1)")
    simulate.add_argument("--target", "--device", metavar="T", help="simulate what generate makes for this part")
    simulate.add_argument("--simulator", help="cxxrtl, amaranth, icarus or verilator (default cxxrtl)")
    simulate.add_argument("--argmax", action="store_true", help="simulate the head that returns the class")
    simulate.add_argument("--count", type=_whole, metavar="N", help="only the first N sequences")
    simulate.add_argument("--input-stall", default="always", help="always, random, bursts or waits (default always)")
    simulate.add_argument("--output-stall", default="always", help="always, random, bursts or waits (default always)")
    simulate.add_argument("--vcd", metavar="FILE", help="write a waveform with the expected values beside the actual")
    simulate.add_argument("--seed", type=_whole, default=0, help="of the stalls (default 0)")

    implement = verb("implement", "synthesize, place and route: from Verilog to a bitstream and a report")
    implement.add_argument("folder", metavar="DIR", help="what hwrnn generate wrote")
    where = implement.add_mutually_exclusive_group(required=True)
    where.add_argument("--device", metavar="PART", help="up5k, hx8k, ecp5-25k-6, gw1n-9, ...")
    where.add_argument("--board", metavar="B", help="icebreaker or ulx3s: behind its UART, for hwrnn run")
    implement.add_argument("--baud", type=_whole, metavar="R", help="of the board's UART (default 1000000)")
    implement.add_argument("--seeds", type=_whole, default=1, metavar="N", help="place and route N times (default 1)")
    implement.add_argument("--steps", type=_whole, metavar="N", help="of a sequence, to report inferences a second")

    run = verb("run", "run sequences on a board and compare with the golden model")
    run.add_argument("model", help="the quantized model that the board's network was generated from")
    _data(run)
    run.add_argument("--port", required=True, metavar="P", help="the board's serial port: /dev/ttyUSB1, COM5, ...")
    run.add_argument("--baud", type=_whole, metavar="R", help="as given to implement (default 1000000)")
    run.add_argument("--count", type=_whole, metavar="N", help="only the first N sequences")
    run.add_argument("--timeout", type=_number, default=2.0, metavar="S", help="seconds without an answer (default 2)")

    inspect = verb("inspect", "what is in a model, or how good an approximation is")
    inspect.add_argument("file", help="a model of hwrnn, or the name of a nonlinearity")
    inspect.add_argument("--bits", type=_whole, metavar="B", help="measure a nonlinearity at B fraction bits")
    return parser


def _widths(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("widths")
    group.add_argument("--bits", type=_whole, metavar="B", help="of every kind of value (default 8)")
    for kind in ("weight", "activation", "state", "cell"):
        group.add_argument(f"--{kind}-bits", type=_whole, metavar="B", help=f"of the {kind} values instead of --bits")
    group.add_argument("--method", help="calibration: mse or max (default mse)")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; the exit code: 0, 1 for a failed comparison, 2 for a person's mistake."""
    # Two threads of linear algebra on matrices this small are several times slower than one.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        given = _parser().parse_args(argv)
        if given.verb is None:
            _parser().print_help()
            return 2
        return _run(given)
    except UsageError as error:
        print(f"hwrnn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hwrnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(given: Any) -> int:
    import warnings

    from hwrnn import commands

    with warnings.catch_warnings():
        # A warning is a line for the person, without the place in our code that raised it.
        warnings.showwarning = lambda message, *_: print(f"hwrnn: {message}", file=sys.stderr)
        return int(getattr(commands, f"run_{given.verb}")(given))


if __name__ == "__main__":
    sys.exit(main())
