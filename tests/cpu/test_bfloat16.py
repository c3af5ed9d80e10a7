"""precision BF16 on device cpu: what is stored in 16 bits, and how far results may be from those in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases.program_nets import NETS, Maker, compiled, results

from netrun.compiler.plan import plan
from netrun.config.schema import TRAIN
from netrun.config.upgrade import parse_net
from netrun.cpu import dnnl
from netrun.cpu.fast import Fast
from netrun.cpu.layouts import is_half
from netrun.cpu.reference import Reference
from netrun.errors import DeviceError
from netrun.expression import rule
from netrun.net import Net
from netrun.program import Program, Recorder
from netrun.session import Session
from netrun.solver import Solver
from netrun.types import Numerics, Spec, Tensor

ROOT = Path(__file__).parents[2]
HALVES = Numerics("BF16")
LIBRARY = dnnl.library()
needs_halves = pytest.mark.skipif(
    LIBRARY is None or not LIBRARY.multiplies_halves, reason="this processor does not multiply bfloat16, or no oneDNN"
)


def halved(name: str, train: bool = True) -> tuple[Program, Program]:
    program, _ = compiled(NETS[name], train)
    return program, replace(program, numerics=HALVES)


@needs_halves
@pytest.mark.parametrize("name", NETS)
def test_results_are_near(name: str) -> None:
    """A bfloat16 has 8 significant bits: some layers deep, a hundredth of the length of each vector is what is lost.

    A maximum or a ReLU may decide otherwise here and there, which changes gradients more.
    """
    program, wanted = halved(name)
    got, exact = results(wanted, Fast(), runs=2), results(program, Reference())
    assert got.keys() == exact.keys()
    for key, value in exact.items():
        lost = np.linalg.norm(got[key] - value) / np.linalg.norm(value)
        assert lost < (0.15 if "'" in key else 0.03), (key, lost)
    assert any(not np.array_equal(got[key], exact[key].astype(np.float32)) for key in exact)


@needs_halves
def test_activations_take_half_the_room() -> None:
    program, wanted = halved("residual")
    device = Fast()
    prepared = device.prepare(wanted)
    assert any(is_half(t.spec.layout) for t in prepared.tensors())
    assert all(not is_half(t.spec.layout) for t in prepared.keeps | set(prepared.feeds.values()))
    assert all(t.kind != "learned" or t.spec.layout == "plain" for t in prepared.tensors())
    assert plan(prepared, device).arena < 0.7 * plan(device.prepare(program), device).arena


@needs_halves
def test_training_reaches_the_same_accuracy(tmp_path: Path) -> None:
    """The digits net, 300 iterations with three seeds: within a point of float32 and far from chance. A single training
    moves by four of the 360 test images with the number of threads alone."""

    def score(precision: str, seed: int) -> float:
        with Solver(str(ROOT / "configs/digits/solver.prototxt")) as solver:
            message = solver.message
        message.precision, message.random_seed = precision, seed
        message.max_iter, message.snapshot_prefix, message.test_interval = 300, str(tmp_path / "d"), 10**6
        message.snapshot_after_train = False
        with Solver(message, folder=str(ROOT / "configs/digits")) as solver:
            solver.solve()
            outputs = {o.name: float(o.values.mean()) for o in solver.test()}
        return outputs["accuracy"]

    scores = {precision: [score(precision, seed) for seed in (1, 2, 3)] for precision in ("FP32", "BF16")}
    assert min(map(min, scores.values())) > 0.95
    assert abs(sum(scores["FP32"]) - sum(scores["BF16"])) < 0.03


def products(rows: int, inputs: int, outputs: int, train: bool = True, layers: int = 2) -> tuple[str, int]:
    """Which products of the last of some fully connected layers are of 16-bit factors, and the copies of its weights.

    f: forward, w: gradient of the weights, x: gradient of the input.
    """

    def body(m: Maker) -> Tensor:
        x = m.feed(rows, inputs)
        for _ in range(layers - 1):
            x = m.relu(m.dense(x, inputs))
        return m.dense(x, outputs)

    program, maker = compiled(body, train)
    calls = Fast().prepare(replace(program, numerics=HALVES)).calls
    w = maker.learned[-2]
    copies = [c for c in calls if c.op.name == "copy" and c.reads()[0].root is w and is_half(c.writes()[0].spec.layout)]
    forms = {(False, True): "f", (True, False): "w", (False, False): "x"}
    found = ""
    for call in calls:
        halves = all(is_half(t.spec.layout) for t in call.tensors()[:2])
        if call.op.name == "gemm" and {w.shape, (rows, outputs)} & {t.shape for t in call.tensors()} and halves:
            found += forms[call.attrs["ta"], call.attrs["tb"]]
    return found, len(copies)


@needs_halves
@pytest.mark.parametrize(
    ("rows", "train", "wanted"),
    [
        (64, True, ("fxw", 1)), (16, True, ("fxw", 1)), (12, True, ("fxw", 1)), (8, True, ("fx", 1)),
        (4, True, ("", 0)), (3, True, ("", 0)), (32, False, ("f", 1)), (4, False, ("f", 1)), (3, False, ("", 0)),
    ],
)  # fmt: skip
def test_products_that_gain_more_than_the_copies_cost(rows: int, train: bool, wanted: tuple[str, int]) -> None:
    """One copy of the weights serves forward and backward; where nothing changes them it costs nothing."""
    assert products(rows, 1152, 1000, train) == wanted


@needs_halves
@pytest.mark.parametrize("rows", [16, 64])
def test_products_too_small_for_a_copy(rows: int) -> None:
    assert products(rows, 64, 64) == ("", 0)
    assert products(rows, 500, 10) == ("", 0)


@needs_halves
@pytest.mark.parametrize(("rows", "gradient"), [(16, False), (40, True)])
def test_the_first_layer_weighs_its_weights_alone(rows: int, gradient: bool) -> None:
    """No gradient of its input shares their copy: 16 rows forward do not pay for it, 40 do."""
    found, copies = products(rows, 1152, 1000, layers=1)
    assert (found, copies) == ("fw" if gradient else "w", int(gradient))


@needs_halves
def test_copies_of_parameters_follow_their_updates() -> None:
    """A product after the update reads the new weights, in the same program."""
    k, rows, size = Recorder(), 64, 256
    x, w = Tensor("x", Spec((rows, size)), "feed"), Tensor("w", Spec((size, size)), "learned")
    before, after = (k.new("y", Spec((rows, size)), "data") for _ in range(2))
    k.gemm(x, w, None, before, ta=False, tb=True)
    k.update([], [w], rule=rule([], ["w"], "w = 0.5 * w"))
    k.gemm(x, w, None, after, ta=False, tb=True)
    session = Session(Program(tuple(k.calls), {"x": x}, frozenset({before, after}), numerics=HALVES), Fast())
    assert [c.op.name for c in session.program.calls].count("copy") == 3
    generator = np.random.default_rng(4)
    for t in (x, w):
        session.write(t, generator.standard_normal(t.shape))
    session.run()
    assert np.abs(session.read(before)).max() > 10
    np.testing.assert_array_equal(session.read(after), session.read(before) / 2)


@needs_halves
def test_layers_that_run_alone_see_changed_weights() -> None:
    """In a net in Python weights may change between forward and backward: no copy of them outlives its layer."""
    text = """force_backward: true precision: BF16
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 64 dim: 256 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
      inner_product_param { num_output: 256 bias_term: false weight_filler { type: "xavier" } } }
    layer { name: "z" type: "ReLU" bottom: "y" top: "z" }
    """
    net = Net(parse_net(text)[0], TRAIN)
    net.blobs["x"].data[...] = 1
    net.forward()
    net.params["ip"][0].data[...] = 0.5
    net.blobs["z"].data[...] = 1
    net.blobs["z"].diff[...] = 1
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, 128)


def test_numpy_refuses() -> None:
    _, wanted = halved("lenet")
    with pytest.raises(DeviceError, match="device cpu: no precision BF16 here, only FP32 and TF32"):
        Fast(numpy=True).prepare(wanted)
