"""Options that several verbs share, and the kinds of words that options take. Imports nothing heavy."""

from __future__ import annotations

import argparse

__all__ = ["data_options", "lane_count", "network_options", "number", "whole", "wholes", "width_options", "words"]


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None


def number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def wholes(text: str) -> list[int]:
    """Whole numbers with commas between."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas between, not {text!r}") from None


def lane_count(text: str) -> int | str:
    """A number of lanes, or ``auto``."""
    return text if text == "auto" else whole(text)


def words(text: str) -> list[str]:
    """Words with commas between."""
    return text.split(",")


def data_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """What data there are."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", required=required, metavar="D", help="a built-in name, an .npz or a .csv file")
    group.add_argument("--column", metavar="NAME", help="column of a .csv to forecast")
    group.add_argument("--window", type=whole, metavar="W", help="time steps of a window of a .csv")
    group.add_argument("--horizon", type=whole, metavar="H", help="steps ahead to forecast (default 1)")
    group.add_argument("--reconstruct", action="store_true", help="the inputs are the targets: for an autoencoder")


def network_options(parser: argparse.ArgumentParser) -> None:
    """What network to begin with; each is None where it was left out."""
    group = parser.add_argument_group("network")
    group.add_argument("--cell", help="rnn, lstm, gru, gru-reset-before, ligru, mingru (default lstm)")
    group.add_argument("--hidden", type=wholes, metavar="N[,N]", help="units of each layer (default 32)")
    group.add_argument("--layers", type=whole, metavar="N", help="recurrent layers (default: as many as --hidden has)")
    pairs = "each layer as a pair, one of them in reverse"
    group.add_argument("--bidirectional", action="store_true", default=None, help=pairs)
    group.add_argument("--encoder", type=whole, metavar="N", help="layers that encode; the others decode")
    group.add_argument("--activation", metavar="F", help="nonlinearity of the state (default: the cell's)")
    group.add_argument("--gate", metavar="F", help="nonlinearity of the gates (default: hard_sigmoid)")
    group.add_argument("--cell-clip", type=number, metavar="C", help="keep an LSTM's cell state between -C and C")
    group.add_argument("--init", metavar="I", help="orthogonal (the default), identity, scaled[:S] or glorot")


def width_options(parser: argparse.ArgumentParser) -> None:
    """How many bits every kind of value gets."""
    group = parser.add_argument_group("widths")
    group.add_argument("--bits", type=whole, metavar="B", help="of every kind of value (default 8)")
    for kind in ("weight", "activation", "state", "cell"):
        group.add_argument(f"--{kind}-bits", type=whole, metavar="B", help=f"of the {kind} values instead of --bits")
    group.add_argument("--operand-bits", type=whole, metavar="B", help="of a product's operand at most (default 16)")
    group.add_argument("--method", help="calibration: loss, mse or max (default loss)")
