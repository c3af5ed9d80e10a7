"""Recurrent layers through cuDNN: which become its stacks, and that the stand-in makes of them what the CPU makes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import fakestream
import numpy as np
import pytest
from cases.layers import LAYERS, LayerCase
from fakelibs import Cublas, Cudnn

from layers_cuda import rnn
from layers_cuda.device import Cuda
from netrun.cli.timing import forward_backward
from netrun.compiler.graph import State, build
from netrun.compiler.record import record
from netrun.config import schema
from netrun.config.text import parse
from netrun.cpu.reference import Reference
from netrun.errors import DeviceError, UsageError
from netrun.program import Program
from netrun.session import Session

Make = Callable[..., Cuda]
STEPS, STREAMS, INPUTS, SIZE = 5, 3, 4, 6

BODY = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 5 dim: 3 dim: 4 }} }} }}
layer {{ name: "n" type: "{kind}" bottom: "x" {bottoms} top: "y" {tops}
  recurrent_param {{ num_output: 6 {fields} weight_filler {{ type: "xavier" }} }} }}
"""
LOSS = """
layer { name: "t" type: "DummyData" top: "t" dummy_data_param { shape { dim: 5 dim: 3 dim: WIDTH }
  data_filler { type: "constant" value: 0.3 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""


def text(kind: str, fields: str = "", width: int = SIZE, loss: bool = True, bottoms: str = "", tops: str = "") -> str:
    """A net with one recurrent layer."""
    if kind == "RNN" and "output_layer" not in fields:
        fields += " output_layer: false"
    made = BODY.format(kind=kind, fields=fields, bottoms=bottoms, tops=tops)
    return made + LOSS.replace("WIDTH", str(width)) * loss


def programs(
    net: str, precision: str = "FP32", deterministic: bool = False, dtype: str = "float32"
) -> tuple[Program, Program]:
    """Forward and backward, and forward alone."""
    message, _ = parse(net, schema.NetParameter, "net")
    message.precision = precision  # type: ignore[assignment]
    message.deterministic = deterministic
    message.force_backward = True
    graph = build(message, None, State.of(schema.NetState(phase="TRAIN")), seed=0, dtype=dtype)
    whole = forward_backward(record(graph))
    recording = record(graph)
    outputs = frozenset(recording.tensors[value] for _, value in graph.outputs)
    calls, numerics = tuple(recording.forward), whole.numerics
    return whole, Program(calls, recording.feeds, outputs, recording.initial, numerics=numerics)


def run(program: Program, device: Any) -> tuple[list[str], dict[str, Any]]:
    """The kernels that ran, and all that is kept, after two passes (the second is a graph)."""
    session = Session(program, device)
    rng = np.random.default_rng(1)
    for tensor in program.tensors():
        if tensor.kind in ("learned", "state", "control"):
            session.write(tensor, rng.normal(0, 0.4, tensor.shape).astype(tensor.dtype))
    session.feed({name: rng.normal(0, 1, t.shape).astype(t.dtype) for name, t in program.feeds.items()})
    session.run()
    session.run()
    found = {t.name: np.array(session.read(t)) for t in program.keeps}
    return [call.op.name for call in session.program.calls], found


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, make_device: Make) -> Callable[..., tuple[Cuda, Cudnn]]:
    """A function that makes a device which gives recurrent layers to its cuDNN."""

    def make(library: Cudnn | None = None) -> tuple[Cuda, Cudnn]:
        monkeypatch.setenv("NETRUN_CUDA_RNN", "cudnn")
        library = library or Cudnn()
        return make_device(cudnn=library), library

    return make


def same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(got[name], value, 2e-4, 2e-5 * scale, err_msg=name)


STACKS = {
    "lstm": ("LSTM", "", SIZE),
    "gru": ("GRU", "", SIZE),
    "rnn": ("RNN", "", SIZE),
    "rnn, relu": ("RNN", "activation: RELU", SIZE),
    "rnn with an output layer": ("RNN", "output_layer: true", SIZE),
    "lstm, three layers": ("LSTM", "num_layers: 3", SIZE),
    "gru, two layers": ("GRU", "num_layers: 2", SIZE),
    "rnn, two layers": ("RNN", "num_layers: 2", SIZE),
    "lstm, both ways": ("LSTM", "bidirectional: true", 2 * SIZE),
    "gru, both ways": ("GRU", "bidirectional: true", 2 * SIZE),
    "lstm, two layers, both ways": ("LSTM", "num_layers: 2 bidirectional: true", 2 * SIZE),
    "gru, three layers, both ways": ("GRU", "num_layers: 3 bidirectional: true", 2 * SIZE),
}


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_is_one_call_each_way(name: str, chosen: Any) -> None:
    """And the loss, and the gradients of every parameter and of the input, are the CPU's."""
    kind, fields, width = STACKS[name]
    whole, alone = programs(text(kind, fields, width))
    device, library = chosen()
    kernels, got = run(whole, device)
    assert [k for k in kernels if k.startswith("rnn")] == ["rnn_pack", "rnn_stack", "rnn_stack_grad", "rnn_unpack"]
    assert not {"lstm", "gru", "rnn", "lstm_grad", "gru_grad", "rnn_grad"} & set(kernels)
    assert library.ran == ["forward", "data", "weights"] * 2
    same(got, run(whole, Reference())[1])
    device, library = chosen()
    kernels, got = run(alone, device)
    assert [k for k in kernels if k.startswith("rnn")] == ["rnn_pack", "rnn_stack"]
    assert library.ran == ["inference"] * 2
    same(got, run(alone, Reference())[1])


FIRST = 'layer { name: "h" type: "Input" top: "h" input_param { shape { dim: 1 dim: 3 dim: 6 } } }'


def test_a_first_state_and_its_gradient(chosen: Any) -> None:
    net = text("GRU", "expose_hidden: true state_gradient: true", bottoms='bottom: "c" bottom: "h"', tops='top: "last"')
    cont = 'layer { name: "c" type: "Input" top: "c" input_param { shape { dim: 3 } } }'
    whole, _ = programs(FIRST + cont + net)
    device, library = chosen()
    kernels, got = run(whole, device)
    assert "rnn_stack_grad" in kernels
    assert set(library.ran) == {"forward", "data", "weights"}
    same(got, run(whole, Reference())[1])


CONT = 'layer { name: "c" type: "Input" top: "c" input_param { shape { dim: 5 dim: 3 } } }'
NAMED = 'param { name: "w" } param { name: "b" } param { name: "r" }'
SHARED = (
    text("LSTM")
    + """
layer { name: "again" type: "LSTM" bottom: "x" top: "z" NAMED
  recurrent_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "more" type: "EuclideanLoss" bottom: "z" bottom: "t" top: "more" }
"""
)
OTHERS = {
    "resets": CONT + text("LSTM", bottoms='bottom: "c"'),
    "peepholes": text("LSTM", "peephole: true"),
    "a projection": text("LSTM", "projection: 6"),
    "one step": text("GRU").replace("dim: 5", "dim: 1"),
    "a last cell that is exposed": FIRST.replace('"h"', '"s"') + FIRST + CONT.replace("dim: 5 ", "") + text(
        "LSTM", "expose_hidden: true", bottoms='bottom: "c" bottom: "h" bottom: "s"', tops='top: "last" top: "cell"'),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_cudnn_does_not_compute_stays(name: str, chosen: Any) -> None:
    whole, _ = programs(OTHERS[name])
    device, library = chosen()
    kernels, got = run(whole, device)
    assert not library.ran
    assert not [k for k in kernels if k.startswith("rnn_")]
    same(got, run(whole, Reference())[1])


def test_shared_weights_add_up(chosen: Any) -> None:
    whole, _ = programs(SHARED.replace('top: "y" ', f'top: "y" {NAMED} ').replace("NAMED", NAMED))
    device, _ = chosen()
    kernels, got = run(whole, device)
    assert kernels.count("rnn_unpack") == 2
    same(got, run(whole, Reference())[1])


def test_dropout_between_layers_parts_the_stack(chosen: Any) -> None:
    """The masks are those of netrun's random numbers."""
    whole, _ = programs(text("LSTM", "num_layers: 3 dropout_ratio: 0.5"))
    device, _ = chosen()
    kernels, got = run(whole, device)
    assert kernels.count("rnn_stack") == kernels.count("rnn_stack_grad") == 3
    same(got, run(whole, Reference())[1])


def test_lengths_keep_one_direction_own(chosen: Any) -> None:
    """From the start to the end a padded sequence is a whole one; the way back begins at each sequence's own end."""
    lengths = 'layer { name: "c" type: "Input" top: "c" input_param { shape { dim: 3 } } }'
    whole, _ = programs(lengths + text("LSTM", "num_layers: 2", bottoms='bottom: "c"'))
    kernels, got = run(whole, chosen()[0])
    assert kernels.count("rnn_stack") == 1
    same(got, run(whole, Reference())[1])
    both, _ = programs(lengths + text("LSTM", "bidirectional: true", 2 * SIZE, bottoms='bottom: "c"'))
    kernels, got = run(both, chosen()[0])
    assert "lstm" in kernels
    same(got, run(both, Reference())[1])


ROWS = [case for case in LAYERS if case.type in ("LSTM", "GRU", "RNN")]


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_rows(case: LayerCase, chosen: Any) -> None:
    """Every row of the recurrent layer types; most have resets, which stay with own kernels."""
    message = case.net()
    graph = build(message, None, State.of(schema.NetState(phase=schema.Phase.Name(case.phase))), seed=0)
    whole = forward_backward(record(graph))
    same(run(whole, chosen()[0])[1], run(whole, Reference())[1])


def test_weights_are_packed_once_where_they_stay(chosen: Any) -> None:
    _, alone = programs(text("LSTM", loss=False))
    device, _ = chosen()
    session = Session(alone, device, frozen=True)
    session.feed({name: np.ones(t.shape, "float32") for name, t in alone.feeds.items()})
    session.run()
    fakestream.log.clear()
    session.run()
    session.run()
    assert "memcpy" not in fakestream.log
    assert fakestream.log.count("rnn forward") == 2


def test_own_kernels_where_the_same_bits_are_wanted_or_cudnn_refuses(chosen: Any) -> None:
    whole, _ = programs(text("LSTM"), deterministic=True)
    assert "lstm" in run(whole, chosen()[0])[0]
    library = Cudnn()
    library.refuses_rnn = True
    kernels, got = run(programs(text("LSTM"))[0], chosen(library)[0])
    assert "lstm" in kernels
    same(got, run(programs(text("LSTM"))[0], Reference())[1])


@pytest.mark.parametrize("precision", ["FP32", "TF32", "BF16", "FP16"])
def test_float32_in_every_precision(precision: str, chosen: Any) -> None:
    """In 16 bits, too, the stack computes in float32, with TF32 where tensor cores may be used."""
    whole, _ = programs(text("GRU", "num_layers: 2"), precision)
    device, library = chosen()
    kernels, got = run(whole, device)
    assert "rnn_stack" in kernels
    maths = {made["math"] for made in library.legacy.values() if made["kind"] == "rnn"}
    assert maths == {rnn.FMA_MATH if precision == "FP32" else rnn.DEFAULT_MATH}
    exact = run(programs(text("GRU", "num_layers: 2"))[0], Reference())[1]
    for name, value in exact.items():
        np.testing.assert_allclose(got[name], value, 0.03, 0.03 * max(1.0, float(np.abs(value).max())), err_msg=name)


@pytest.mark.parametrize(("precision", "computes"), [("FP32", {68}), ("TF32", {77}), ("BF16", {68, 77})])
def test_own_products_of_states(precision: str, computes: set[int], make_device: Make) -> None:
    """With TF32 where it is allowed, in 16-bit precisions too, as cuDNN has it; 68 is that of 16-bit matrices there."""
    library = Cublas()
    whole, _ = programs(text("LSTM"), precision)
    run(whole, make_device(cublas=library))
    assert set(library.computes) == computes


@pytest.mark.parametrize("name", STACKS)
def test_float64(name: str, chosen: Any) -> None:
    """To the last digits: nothing is lost on the way into the block of weights and out of it."""
    kind, fields, width = STACKS[name]
    whole, _ = programs(text(kind, fields, width), dtype="float64")
    kernels, got = run(whole, chosen()[0])
    assert "rnn_stack_grad" in kernels
    for what, exact in run(whole, Reference())[1].items():
        np.testing.assert_allclose(got[what], exact, 1e-11, 1e-12, err_msg=what)


def test_the_choice(make_device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = programs(text("LSTM"))
    assert "lstm" in run(whole, make_device())[0], "own kernels, where nobody chooses"
    monkeypatch.setenv("NETRUN_CUDA_RNN", "cuddn")
    with pytest.raises(
        UsageError, match=r'NETRUN_CUDA_RNN .* is "cuddn"; did you mean "cudnn"\? \(known: own, cudnn\)'
    ):
        make_device()


def test_an_error_names_the_stack(chosen: Any) -> None:
    class Failing(Cudnn):
        def cudnnRNNForward(self, *args: Any) -> int:
            return self._fail("out of luck", 5000)

    with pytest.raises(
        DeviceError, match=r"cudnnRNNForward: lstm 1x1, 5 steps of 3: status 5000: out of luck"
    ) as found:
        run(programs(text("LSTM"))[0], chosen(Failing())[0])
    assert "NETRUN_CUDA_RNN=own" in str(found.value)


def test_another_layout_of_weights_is_no_silent_mistake(chosen: Any) -> None:
    class Turned(Cudnn):
        def cudnnGetTensorNdDescriptor(self, d: int, most: int, kind: int, rank: int, sizes: int, strides: int) -> int:
            super().cudnnGetTensorNdDescriptor(d, most, kind, rank, sizes, strides)
            (ctypes.c_int * 3).from_address(strides)[1:] = [1, 6]
            return 0

    with pytest.raises(DeviceError, match=r"layer n: .*cuDNN 91900 keeps a matrix \(1, 6, 4\) of lstm 1x1"):
        run(programs(text("LSTM"))[0], chosen(Turned())[0])
