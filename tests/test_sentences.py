"""Errors that no other test meets: each has its sentence here."""

import io
import re
import types
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest
from networks import network_of

import hwrnn
from hwrnn import forecasting, onnx_meta, readers, stability
from hwrnn.activations import NONLINEARITIES, Nonlinearity
from hwrnn.c_integers import print_layer
from hwrnn.c_reference import write_c
from hwrnn.c_reference_numbers import c_type, type_for
from hwrnn.c_source import Unprintable, smooth
from hwrnn.cells import CELLS, LSTM, Cell, cell_named, phase
from hwrnn.cli import main
from hwrnn.commands.given import resumable
from hwrnn.data import load_dataset
from hwrnn.errors import Damaged, UsageError
from hwrnn.fitting import fit
from hwrnn.fixed import Format
from hwrnn.formats import LayerFormats
from hwrnn.frames import Frame, Kind
from hwrnn.host import BoardClient
from hwrnn.known_formats import honoured
from hwrnn.model import build_model
from hwrnn.rtl import placement, synthesis
from hwrnn.rtl.board import _identity, design_for
from hwrnn.rtl.boards import BOARDS
from hwrnn.rtl.network import Network
from hwrnn.rtl.targets import TARGETS
from hwrnn.rtl.timing import Timing
from hwrnn.rtl.tools import ToolError
from hwrnn.sim import cxxrtl
from hwrnn.sim.stimuli import stimulus
from hwrnn.training import evolution
from hwrnn.training.c_printer import print_program
from hwrnn.training.checkpoint import load_arrays, save_arrays
from hwrnn.training.preparation import check_fits
from hwrnn.training.trainer import finetune, finetune_searching


# -- the command line --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "line, sentence",
    [
        ("train --data adding --cell gru --hidden 4 --epochs x -o m.onnx", "must be a whole number, not 'x'"),
        ("train --data adding --rate fast -o m.onnx", "must be a number, not 'fast'"),
        ("compare m.onnx --data adding --bits 8,x", "must be whole numbers with commas between, not '8,x'"),
    ],
)
def test_numbers_of_the_command_line(line, sentence, capsys):
    with pytest.raises(SystemExit) as left:
        raise SystemExit(main(line.split()))
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said


def test_a_demo_needs_a_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["demo", "--quick", "--out", str(tmp_path / "file")]) == 2
    assert "Output folder must be one that can be made and written to, not" in capsys.readouterr().err


# -- data and models ---------------------------------------------------------------------------------------------------
def archive(path, *members):
    with zipfile.ZipFile(path, "w") as made:
        for name, content in members:
            made.writestr(name, content)
    return path


def array_bytes(array, version=None):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version=version)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_of_arrays(tmp_path):
    whole = array_bytes(np.zeros((2, 3)))
    np.save(tmp_path / "alone.npy", np.zeros(3))
    (tmp_path / "alone.npy").rename(tmp_path / "alone.npz")
    for path, sentence in (
        (tmp_path / "alone.npz", "it is a single .npy array"),
        (archive(tmp_path / "many.npz", *((f"x{k}.npy", whole) for k in range(200))), "it holds more than"),
        (archive(tmp_path / "twice.npz", ("x.npy", whole), ("x.npy", whole)), "it holds 'x.npy' more than once"),
        (archive(tmp_path / "new.npz", ("x.npy", b"\x93NUMPY\x09\x00" + whole[8:])), "'x.npy' is of an unknown"),
        (archive(tmp_path / "short.npz", ("x.npy", whole[:-8])), "'x.npy' is not as long as its shape says"),
    ):
        with pytest.raises(UsageError, match=re.escape(sentence)):
            readers.read_npz(path)


def test_an_archive_that_grows(tmp_path, monkeypatch):
    path = archive(tmp_path / "x.npz", ("x.npy", array_bytes(np.zeros(4000))))
    monkeypatch.setattr(readers, "_LARGEST", 0)
    monkeypatch.setattr(readers, "_MOST_GROWTH", 1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x.npy", array_bytes(np.zeros(4000)))
    with pytest.raises(UsageError, match="it says that it holds more than 1 times its size"):
        readers.read_npz(path)


def test_models_and_data_of_different_kinds():
    data = load_dataset("japanese-vowels")
    for model, sentence in (
        (build_model(12, 9, cell="gru", hidden=2, task="regression"), "Model must be for classification as .* is"),
        (build_model(11, 9, cell="gru", hidden=2), "Model must have 12 inputs for 'japanese-vowels', not 11"),
        (build_model(12, 8, cell="gru", hidden=2), "Model must have 9 outputs for 'japanese-vowels', not 8"),
        (build_model(12, 9, cell="gru", hidden=2, every_step=True), "Model must give an output for the last step as"),
    ):
        with pytest.raises(UsageError, match=sentence):
            check_fits(model, data)


def test_what_fine_tuning_takes():
    data = load_dataset("japanese-vowels")
    model = build_model(12, 9, cell="gru", hidden=2)
    formats = [layer.formats for layer in hwrnn.quantize(model, data).stack]
    with pytest.raises(UsageError, match="Formats must be given for each of the 2 layers, not for 1"):
        finetune(model, data, formats[:1])
    with pytest.raises(UsageError, match=r"Options of fine-tuning must be among .*, not 'tulip'"):
        finetune(model, data, formats, tulip=1)
    with pytest.raises(UsageError, match=r"Epochs between searches must be a whole number of at least 0, not 1\.5"):
        finetune_searching(model, data, formats, search_every=1.5)


def test_known_formats_of_nothing():
    model = build_model(2, 2, cell="gru", hidden=2)
    told = {"values": {"0.tulip": {"width": 8, "frac": 4, "signed": True}}, "weights": {}}
    part = types.SimpleNamespace(x=np.zeros((2, 3, 2), np.float32), lengths=np.array([3, 3]))
    data = types.SimpleNamespace(train=part)
    with pytest.raises(UsageError, match=r"[Ff]ormat"):
        hwrnn.quantize(replace(model, facts={"formats": told}), data)
    assert honoured  # what quantize calls


def test_parameters_by_gate():
    layer = build_model(2, 2, cell="gru", hidden=2).layers[0]
    with pytest.raises(KeyError, match="no such gate"):
        raise KeyError("no such gate") from _raised(lambda: layer.block("q", "x"))
    with pytest.raises(ValueError, match="Gate nonlinearity must be given to a cell with gates, not to 'rnn'"):
        cell_named("rnn", sigma=NONLINEARITIES["relu"])
    with pytest.raises(ValueError, match=r"Cell must be one of .*, not 'tulip'"):
        cell_named("tulip")


def _raised(call):
    with pytest.raises(KeyError) as caught:
        call()
    return caught.value


def test_cells_of_nobody(tmp_path):
    @dataclass(frozen=True)
    class Own(LSTM):
        pass

    model = build_model(2, 2, cell="lstm", hidden=2)
    own = Own(sigma=model.layers[0].cell.sigma, phi=model.layers[0].cell.phi)
    odd = replace(model, layers=(replace(model.layers[0], cell=own),))
    with pytest.raises(UsageError, match="Cell must be in the catalogue to be saved, not Own"):
        hwrnn.save(odd, tmp_path / "m.onnx")
    assert "Own" not in CELLS


def test_a_model_of_more_than_a_file_holds(tmp_path, monkeypatch):
    def too_large(proto):
        raise ValueError("too large")

    monkeypatch.setattr("hwrnn.onnx_io.digest", too_large)
    with pytest.raises(UsageError, match=r"Model must fit a file of 2 GiB, not .* parameters that large"):
        hwrnn.save(build_model(2, 2, cell="gru", hidden=2), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


LINE = {"name": "f", "knots": [], "slopes": ["1"], "intercepts": ["0"]}
DESCRIPTIONS = {
    "describe 'f' as a nonlinearity of an input limited to a positive number": {
        "name": "f", "of": {"name": "relu"}, "limit": -1.0},
    "name a function of the catalogue that 'f' fits, not 'tulip'": LINE | {"segments": 1, "terms": 1, "fits": "tulip"},
    "name a function of the catalogue that 'f' stands for, not 0": LINE | {"stands_for": 0},
    "describe the form of fit 'f' as ": LINE | {"segments": 1, "terms": 1, "fits": "", "form": "round"},
    "describe the bound of fit 'f' as a positive number, not -1.0": LINE | {"bound": -1.0},
    "describe the steepness of 'f' for each of its 1 pieces": LINE | {"steepness": []},
    "describe 'name' by at most": {"name": "f" * 5000},
}  # fmt: skip


@pytest.mark.parametrize("sentence", DESCRIPTIONS)
def test_descriptions_of_functions(sentence):
    with pytest.raises(Damaged, match=re.escape(sentence)):
        onnx_meta._read_function(DESCRIPTIONS[sentence])


def test_numbers_that_are_not_finite():
    with pytest.raises(Damaged, match="hold finite numbers, unlike parameter 'W'"):
        onnx_meta._finite(np.array([np.nan]), "W")


@dataclass(frozen=True)
class Own(Nonlinearity):
    def value(self, x):
        return x


class Late(Cell):
    """Its second phase reads the old state, which the first one has replaced."""

    name = "late"
    phases = (phase("first", n="x h"), phase("second", m="x"))
    output = "y"

    def first(self, a, s):
        object.__setattr__(self, "old", s.h)
        s.h = self.phi(a.n)

    def second(self, a, s):
        s.y = self.old + a.m


class Unread(Cell):
    """Stores a value that nothing reads."""

    name = "unread"
    phases = (phase("combine", h="x h"),)

    def combine(self, a, s):
        s.h = self.phi(a.h)
        s.q = self.sigma(a.h)


def test_cells_that_there_is_no_c_for(tmp_path):
    values = {name: Format(8, 4) for name in ("x", "h", "y", "a.n", "a.m")}
    with pytest.raises(Unprintable, match="it reads the old 'h' after storing a new one"):
        print_layer(Late(), LayerFormats(values, {}, {"n": 8, "m": 8}, {}))
    with pytest.raises(Unprintable, match="'own' has no counterpart in C"):
        print_program(Unread(sigma=Own("own", None)), False)
    model = network_of("gru")[0]
    smooth = replace(model.layers[0].cell, phi=NONLINEARITIES["tanh"])
    model = replace(model, layers=(replace(model.layers[0], cell=smooth),))
    with pytest.raises(UsageError, match=r"does not \(layer 0: 'tanh' is not made of lines\)"):
        write_c(model, tmp_path / "c", "net")


def test_fits_of_what_grows():
    class Steep(Own):
        def value(self, x):
            return 1000 * np.tanh(x)

    with pytest.raises(ValueError, match="Segments must be more than 2 for a fit of steep"):
        fit(Steep("steep", None), 2, 1, 2, "jumps")


def test_wide_formats():
    with pytest.raises(UsageError, match=r"States must be proved within .* bits, not .* of 'h': lower the"):
        stability._widened(Format(8, 4), -1e30, 1e30, "'h'")
    model = network_of("lstm")[0]
    formats = model.layers[0].formats
    formats = replace(formats, values={**formats.values, "c": Format(60, 40)})
    wide = replace(model, layers=(replace(model.layers[0], formats=formats),))
    with pytest.raises(UsageError, match="Stored values must have at most 54 bits to be saved, not 60 as 'c' has"):
        hwrnn.save(wide, "m.onnx")
    with pytest.raises(Unprintable, match="bits"):
        c_type(0, 1 << 70)
    with pytest.raises(Unprintable, match="bits"):
        type_for(1 << 70)
    with pytest.raises(Unprintable, match="a smooth function does what has no counterpart in C"):
        smooth(lambda x: x.tulip(), "x")
    with pytest.raises(Unprintable, match="a smooth function gives no number of C"):
        smooth(lambda x: 3, "x")
    with pytest.raises(Unprintable, match="'arctan' has no counterpart in C"):
        smooth(np.arctan, "x")


# -- forecasts ---------------------------------------------------------------------------------------------------------
def test_shapes_of_forecasts():
    with pytest.raises(UsageError, match=r"Window must have shape \(values,\), \(values, F\) or \(series, values, F\)"):
        forecasting.persistence(np.zeros((1, 2, 3, 4)), 2)
    model = build_model(1, 1, cell="gru", hidden=2, task="regression")
    with pytest.raises(UsageError, match=r"Window must have shape \(values, 1\) or \(series, values, 1\), none 0, not"):
        forecasting.forecast(model, np.zeros((3, 2)), 2)
    with pytest.raises(UsageError, match=r"Known values must have shape \(2, 1\), not \(3,\)"):
        forecasting.forecast_errors(np.zeros((2, 3, 1)), np.zeros((2, 3, 1)), np.zeros(3))
    with pytest.raises(UsageError, match=r"Data must be whole windows with the 12 .* that follow each to be"):
        forecasting.autoregression(load_dataset("japanese-vowels").train)
    series = np.sin(np.arange(80.0))
    windows = np.lib.stride_tricks.sliding_window_view(series, 6)
    split = types.SimpleNamespace(
        x=windows[:, :5, None].astype(np.float32), y=windows[:, 5:].astype(np.float32), task="regression",
        lengths=np.full(len(windows), 5),
    )  # fmt: skip
    fitted = forecasting.autoregression(split, 3)
    with pytest.raises(UsageError, match=r"Windows must have shape \(N, 3 or more, 1\) for this regression"):
        fitted.predict(np.zeros((2, 2, 1)))


# -- training ----------------------------------------------------------------------------------------------------------
def test_checkpoints_of_another_kind(tmp_path, monkeypatch):
    save_arrays(tmp_path / "c.npz", "gradient", {"a": np.zeros(2)}, {}, {})
    due = {"a": (np.dtype(np.float64), (2,))}
    with pytest.raises(UsageError, match="Checkpoint must be a whole file that training wrote, not "):
        load_arrays(tmp_path / "c.npz", "evolution", due, {})

    def denied(*given, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "load", denied)
    with pytest.raises(UsageError, match="Checkpoint must be readable, not '"):
        load_arrays(tmp_path / "c.npz", "gradient", due, {})


def test_who_interrupts_a_run_is_told_how_it_goes_on(tmp_path):
    path = str(tmp_path / "c.npz")
    (tmp_path / "c.npz").touch()
    told = re.escape(f"the same command with --resume goes on from {path!r}")
    with pytest.raises(KeyboardInterrupt, match=told), resumable(types.SimpleNamespace(checkpoint=path)):
        raise KeyboardInterrupt
    for none in (None, tmp_path / "never.npz"):
        with pytest.raises(KeyboardInterrupt, match=r"^$"), resumable(types.SimpleNamespace(checkpoint=none)):
            raise KeyboardInterrupt


def test_processes_that_end(monkeypatch):
    from concurrent.futures.process import BrokenProcessPool

    with (
        pytest.raises(UsageError, match="Processes must be able to start and to stay: put a script's own work below"),
        evolution._sender(None, 2, "accuracy"),
    ):
        raise BrokenProcessPool("gone")


# -- hardware ----------------------------------------------------------------------------------------------------------
def test_timings():
    with pytest.raises(UsageError, match="Timing's halves must be two whole numbers of at least 0, not 3"):
        Timing(halves=3)
    with pytest.raises(UsageError, match="Timing's tree must be True or False, not 2"):
        Timing(tree=2)
    with pytest.raises(UsageError, match="Timing's product must be 1 beside a tree, not 2"):
        Timing(tree=True, product=2)
    with pytest.raises(UsageError, match="Timing must have at most one of tree, packed and halves, not several"):
        Timing(tree=True, halves=(4, 4))


def test_networks_that_no_board_takes():
    board = BOARDS["icebreaker"]
    pytest.importorskip("amaranth_boards")
    with pytest.raises(UsageError, match="Network must have one channel for a board, not 2: generate it without"):
        design_for(board, {"channels": 2})
    with pytest.raises(UsageError, match="Network must have weights that stay for a board, not 'load': its UART"):
        design_for(board, {"load": True, "weights": "load"})


def test_vectors_that_are_too_wide_for_a_board(monkeypatch):
    wide = types.SimpleNamespace(inputs=10**6, outputs=1, output_bytes=1, input_bytes=1)
    monkeypatch.setattr("hwrnn.rtl.board.Identity", types.SimpleNamespace(of=lambda manifest: wide))
    with pytest.raises(UsageError, match=r"Network must have vectors of at most .* elements in and bytes out"):
        _identity({})


def test_a_placement_that_does_not_fit(monkeypatch, tmp_path):
    target = TARGETS["up5k"]
    fault = ToolError("nextpnr ended with an error", "ERROR: Unable to place cell 'a'")
    monkeypatch.setattr(placement, "run_all", lambda *given: [fault])
    with pytest.raises(UsageError, match=r"Network must fit up5k, and nextpnr finds that it does not .*: give fewer"):
        placement.place(target, "n.json", tmp_path, [1], False, None)
    monkeypatch.setattr(placement, "run_all", lambda *given: [None])
    (tmp_path / "timing-1.json").write_text('{"fmax": {}, "critical_paths": []}')
    (tmp_path / "placement-1.log").touch()
    with pytest.raises(ToolError, match="nextpnr reported no clock rate"):
        placement.place(target, "n.json", tmp_path, [1], False, None)


def test_synthesis_without_a_netlist(monkeypatch, tmp_path):
    monkeypatch.setattr(synthesis, "run_all", lambda *given: [None])
    (tmp_path / synthesis.SYNTHESIS_LOG).touch()
    (tmp_path / "in.v").touch()
    for content in ("", "[]", '{"modules": {"other": {}}}'):
        (tmp_path / synthesis.NETLIST).write_text(content)
        with pytest.raises(ToolError, match=f"Yosys wrote no netlist of top into {re.escape(synthesis.NETLIST)}"):
            synthesis.synthesize(TARGETS["ecp5-25k-6"], "top", "in.v", tmp_path)


def test_logic_that_does_not_settle():
    """C++ says so where a second evaluation changes a value; here a stand-in for it says so."""

    def run(model, settings, chunk):
        settings._obj.unsettled = 1
        return 1

    model, x, lengths = network_of("rnn", lengths=(1,))
    network = Network(model, 1)
    given = stimulus(network, model.quantize_input(x), lengths)
    with pytest.raises(RuntimeError, match="logic did not settle in one evaluation: it has a combinational loop"):
        cxxrtl._run(types.SimpleNamespace(hwrnn_run=run), None, network, given, None)


def test_boards_that_answer_oddly():
    client = BoardClient(types.SimpleNamespace(timeout=1, write=len, reset_input_buffer=lambda: None))
    client._frames = lambda: [Frame(Kind.ERROR, client.tag, b"\x07")]
    with pytest.raises(UsageError, match="Board on the port must take a request, and refuses it with the code '07'"):
        client.request(Kind.DATA, b"")
    model = network_of("gru", 2, 3, 3)[0]
    assert model.inputs == 2
