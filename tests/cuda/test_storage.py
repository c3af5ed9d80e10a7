"""Activations in 16 bits: every kernel that takes them, whole training runs, and the scale of the loss in float16."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpukernels
import fakecupy
import numpy as np
import pytest
import shim
from cases import KernelCase, flat, run_case
from cases.kernels import KERNELS
from test_lenet_step import batches, lenet, train

from layers_cuda import half
from layers_cuda.device import Cuda
from netrun.config.upgrade import parse_solver, read_solver
from netrun.cpu.null import Null
from netrun.cpu.reference import Reference
from netrun.errors import OutOfMemoryError
from netrun.loss_scale import FIRST, PATIENCE
from netrun.program import Call
from netrun.session import Session
from netrun.solver import Solver
from netrun.storage import ALIKE, PRODUCTS
from netrun.types import Spec, Tensor
from tests.compiler.test_recompute import solver as solver_of

Make = Callable[..., Cuda]
TYPES = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half a unit of the last place."""
NAMES = {**ALIKE, "pointwise": ("xs", "y"), "copy": ("x", "y")}
ROWS = [case for case in KERNELS if case.op in NAMES]
FIRST_ROWS = [next(case for case in ROWS if case.op == op) for op in NAMES]
"""One of each kernel; the others are compiled and run with -m exhaustive."""


def rounded(values: Any, storage: str) -> Any:
    if storage == "float16":
        return values.astype("float16").astype("float32")
    return half.values_of(half.bits_of(values))


# -------------------------------------------------------------------------------------------------------------- kernels
@pytest.mark.skipif(cpukernels.COMPILER is None, reason="no g++: the shim compiles the kernels with it")
@pytest.mark.parametrize(
    ("case", "storage"),
    [
        pytest.param(
            case, storage, marks=[] if case in FIRST_ROWS and storage == "bfloat16" else pytest.mark.exhaustive
        )
        for case in ROWS
        for storage in TYPES
    ],
    ids=str,
)
def test_kernels_on_16_bits(case: KernelCase, storage: str) -> None:
    """Against the reference on the same rounded values; the result is rounded once more."""
    given, attrs = case.build("float32")
    if any(isinstance(a, np.ndarray) and a.dtype == np.float64 for arg in given for a in flat(arg)):
        pytest.skip("a row in float64")
    names = NAMES[case.op]

    def narrow(name: str, value: Any) -> bool:
        return name in names and value.dtype == "float32"

    class Row(KernelCase):
        def build(self, dtype: str, seed: int = 1) -> Any:
            made = [
                tuple(rounded(a, storage) if isinstance(a, np.ndarray) and narrow(m.name, a) else a for a in flat(arg))
                for m, arg in zip(self.signature.arguments, given, strict=True)
            ]
            return tuple(
                v if isinstance(a, tuple) else (v[0] if v else None) for v, a in zip(made, given, strict=True)
            ), attrs

    row = Row(case.op, case.note, case.make)
    wanted = run_case(Reference(), row, "float32")
    device = Narrow(set(names), storage)
    got = run_case(device, row, "float32")
    for m in case.signature.arguments:
        if "w" in m.role:
            for ours, exact in zip(got[m.name], wanted[m.name], strict=True):
                if exact.dtype.kind != "f":
                    np.testing.assert_array_equal(ours, exact)
                    continue
                error = 2 * TYPES[storage] if m.name in names else 1e-4
                scale = float(np.abs(exact).max(initial=0)) or 1.0
                if storage == "float16" and scale > 60000:
                    continue
                np.testing.assert_allclose(ours, exact, error, 0.01 * error * scale + 1e-6, err_msg=str(case))


class Narrow(shim.Device):
    """The shim with 16-bit tensors in the place of float32 ones, for the arguments of these names."""

    def __init__(self, names: set[str], storage: str) -> None:
        super().__init__()
        self.names, self.storage = names, storage
        self.count = 0

    def bind(self, call: Call, args: Any, scratch: Any) -> Any:
        before: list[Callable[[], None]] = []
        after: list[Callable[[], None]] = []

        def small(name: str, array: Any) -> Any:
            if name not in self.names or array.dtype.name != "float32":
                return array
            spec = Spec(tuple(array.shape), self.storage)
            made = self.array(self.allocate(spec.nbytes), 0, spec)
            before.append(lambda: self.write(made, self.read(array)))
            after.append(lambda: self.write(array, self.read(made)))
            return made

        marks = call.op.arguments
        placed = [
            tuple(small(m.name, a) for a in arg)
            if isinstance(arg, tuple)
            else arg
            if arg is None
            else small(m.name, arg)
            for m, arg in zip(marks, args, strict=True)
        ]  # fmt: skip
        tensors = tuple(
            tuple(Tensor("t", Spec(a.shape, a.dtype.name)) for a in arg)
            if isinstance(arg, tuple)
            else None if arg is None else Tensor("t", Spec(arg.shape, arg.dtype.name))
            for arg in placed
        )  # fmt: skip
        narrow_call = Call(call.op, tensors, call.attrs, call.origin)
        body = super().bind(narrow_call, placed, self.allocate(max(self.workspace(narrow_call), 1)))

        def run() -> None:
            for step in before:
                step()
            body()
            for step in after:
                step()

        return run


def test_bits_go_there_and_back() -> None:
    values = np.array([0, -0.0, 1, -1.5, 3.1415927, 1e-40, np.inf, -np.inf, np.nan, 3.4e38], np.float32)
    found = half.values_of(half.bits_of(values))
    np.testing.assert_allclose(found[:9], values[:9], 2.0**-8, 1e-38)
    assert np.isinf(found[9])


# ---------------------------------------------------------------------------------------------------------------- whole
def plans(file: Any, precision: str) -> Session:
    message, source = read_solver(str(file))
    message.precision = precision  # type: ignore[assignment]
    with Solver(message, device=Null(), source=source) as solver:
        return solver.sessions[0]


def test_memory_halves() -> None:
    message = solver_of(False)
    found = []
    for precision in ("FP32", "BF16"):
        message.precision = precision  # type: ignore[assignment]
        with Solver(message, device=Null()) as solver:
            found.append(solver.sessions[0])
    wide, narrow = found
    assert narrow.plan.arena < 0.62 * wide.plan.arena
    tensors = {t.name: t for t in narrow.program.tensors()}
    assert tensors["norm1"].dtype == "bfloat16"
    assert all(t.dtype != "bfloat16" for t in tensors.values() if t.kind in ("learned", "grad", "history", "statistic"))
    for name in ("loss", "ip", "bn1.batch_mean", "bn1.batch_variance"):
        assert tensors[name].dtype == "float32", name


@pytest.mark.parametrize("precision", ["BF16", "FP16"])
def test_products_work_on_16_bits(precision: str) -> None:
    message = solver_of(False)
    message.precision = precision  # type: ignore[assignment]
    with Solver(message, device=Null()) as solver:
        calls = solver.sessions[0].program.calls
    kinds = {c.op.name for c in calls}
    assert {"conv", "conv_grad_x", "conv_grad_w", "lrn", "normalize", "concat", "pool_max"} <= kinds
    for call in calls:
        for name in PRODUCTS.get(call.op.name, ()):
            t: Any = call.argument(name)
            assert t is None or t.dtype in TYPES, str(call)
        for names in (ALIKE.get(call.op.name, ()),):
            given = [t for n in names for t in flat(call.argument(n))]
            assert len({t.dtype for t in given}) <= 1, str(call)


@pytest.mark.parametrize("more", ["", "iter_size: 2 clip_gradients: 5"])
@pytest.mark.parametrize("precision", ["TF32", "BF16", "FP16"])
def test_a_net_of_all_kinds_trains(precision: str, more: str, make_device: Make) -> None:
    """Batch norm, LRN, dropout, concat, both poolings, a sum: near float32 on the CPU."""
    found = []
    for kind, device in ((precision, make_device()), ("FP32", "reference")):
        message = solver_of(False, more)
        message.precision = kind  # type: ignore[assignment]
        with Solver(message, device=device) as solver:
            scaling = solver.training.scaling
            if scaling is not None:
                solver.sessions[0].write(scaling.excess, np.float32(256 - FIRST))
            losses = []
            for _ in range(4):
                solver.step(1)
                losses.append(solver.losses[-1])
            found.append(losses)
    near = {"TF32": 1e-5, "BF16": 0.06, "FP16": 0.02}[precision]  # the stand-in for cuDNN does not round to TF32
    np.testing.assert_allclose(found[0], found[1], near)


def test_weights_stay_float32_masters(make_device: Make, tmp_path: Path) -> None:
    """A step too small for 16 bits is not lost."""
    _, before = train(lenet(tmp_path, 2, "precision: BF16"), make_device(), 1, 2)
    _, after = train(lenet(tmp_path, 2, "precision: BF16"), make_device(), 2, 2)
    moved = np.abs(after["ip1.weight"] - before["ip1.weight"])
    small = moved[(moved > 0) & (moved < 2.0**-9 * np.abs(before["ip1.weight"]))]
    assert small.size > 1000


# ----------------------------------------------------------------------------------------------------------- loss scale
def test_an_overflow_changes_nothing_and_halves_the_scale(make_device: Make, tmp_path: Path) -> None:
    lines: list[str] = []
    log = lambda text, source, level="I": lines.append(text)  # noqa: E731
    with Solver(lenet(tmp_path, 2, "precision: FP16 display: 1"), device=make_device(), log=log) as solver:
        scaling, session, values = solver.training.scaling, solver.sessions[0], next(batches(2))
        assert scaling is not None
        session.feed(values)
        solver.step(1)
        weights = [solver.memory.read(t) for t in solver.training.recording.parameters.values()]
        session.write(scaling.excess, np.float32(2.0**30 - FIRST))
        solver.step(1)
        assert float(session.read(scaling.excess)) + FIRST == 2.0**29
        for tensor, value in zip(solver.training.recording.parameters.values(), weights, strict=True):
            np.testing.assert_array_equal(solver.memory.read(tensor), value)
        session.write(scaling.excess, np.float32(0))
        session.write(scaling.since, np.float32(PATIENCE - 1))
        solver.step(1)
        assert float(session.read(scaling.excess)) == FIRST
        assert float(session.read(scaling.since)) == 0
        assert any((solver.memory.read(t) != v).any() for t, v in
                   zip(solver.training.recording.parameters.values(), weights, strict=True))  # fmt: skip
    told = [float(m[1]) for m in (re.search(r"loss scale = (\S+)", line) for line in lines) if m]
    assert told == pytest.approx([FIRST, 2.0**29, 2 * FIRST], 1e-5)


@pytest.mark.parametrize("iter_size", [1, 2])
def test_a_loss_that_nothing_learns_from(iter_size: int, make_device: Make) -> None:
    """No gradient is looked at, so all of them are finite: parameters stay, the scale does not fall."""
    text = f"""net_param {{ precision: FP16
      layer {{ name: "d" type: "DummyData" top: "x" dummy_data_param {{ shape {{ dim: 4 dim: 3 }} }} }}
      layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "p" inner_product_param {{ num_output: 2
        weight_filler {{ value: 1 }} }} }}
      layer {{ name: "s" type: "Silence" bottom: "p" }}
      layer {{ name: "r" type: "Reduction" bottom: "x" top: "r" loss_weight: 1 }} }}
      base_lr: 0.1 lr_policy: "fixed" weight_decay: 0.5 iter_size: {iter_size}"""
    with Solver(parse_solver(text)[0], device=make_device()) as solver:
        solver.step(2)
        assert solver.training.scaling is not None
        assert solver.runners[0].session.read(solver.training.scaling.excess) == 0
        weight = next(iter(solver.training.recording.parameters.values()))
        assert solver.memory.read(weight) == pytest.approx(0.95**2)  # decay alone


def test_the_scale_is_part_of_a_snapshot(make_device: Make, tmp_path: Path) -> None:
    file = lenet(tmp_path, 2, f'precision: FP16 snapshot_prefix: "{tmp_path}/s"')
    with Solver(file, device=make_device()) as solver:
        solver.sessions[0].feed(next(batches(2)))
        assert solver.training.scaling is not None
        solver.sessions[0].write(solver.training.scaling.excess, np.float32(-FIRST / 2))
        solver.step(1)
        _, state = solver.snapshot()
    with Solver(file, device=make_device()) as solver:
        solver.restore(state)
        assert solver.training.scaling is not None
        assert float(solver.sessions[0].read(solver.training.scaling.excess)) == -FIRST / 2
        assert float(solver.sessions[0].read(solver.training.scaling.since)) == 1


@pytest.mark.parametrize("more", ["", "iter_size: 2"])
def test_what_is_shown_is_not_scaled(more: str, make_device: Make, tmp_path: Path) -> None:
    """The gradients of debug_info, and what a snapshot keeps of the update, are those of the loss itself."""
    shown: list[list[float]] = []
    moved: list[list[np.ndarray[Any, Any]]] = []
    for precision in ("FP16", "FP32"):
        lines: list[str] = []
        log = lambda text, source, level="I", lines=lines: lines.append(text)  # noqa: E731
        options = f"precision: {precision} debug_info: true display: 1 snapshot_diff: true {more}"
        with Solver(lenet(tmp_path, 2, options), device=make_device(), log=log) as solver:
            solver.sessions[0].feed(next(batches(2)))
            solver.step(1)
            moved.append([solver.runners[0].session.read(t) for t in solver.training.saved.values()])
        told = [line for line in lines if "[Backward]" in line]
        shown.append([float(n) for line in told for n in re.findall(r"-?\d[\d.]*(?:e[-+]\d+)?(?=[,)]|$)", line)])
    assert len(shown[0]) > 10
    np.testing.assert_allclose(shown[0], shown[1], 0.02)
    assert len(moved[0]) == 8
    for ours, exact in zip(*moved, strict=True):  # as a whole: a maximum may be another one in 16 bits
        assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(exact), 0.02)


def test_out_of_memory_offers_what_fits(make_device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch, 16 bits, recomputing: each with its bytes. The stand-in refuses single blocks above what it has."""
    message = solver_of(False)
    with Solver(message, device=make_device()) as solver:
        arena = solver.sessions[0].plan.arena
    device = make_device()
    assert device.blas is not None  # its workspace is larger than this net
    monkeypatch.setattr(fakecupy, "FREE", int(0.95 * arena))
    monkeypatch.setattr(fakecupy.runtime, "memGetInfo", lambda: (fakecupy.FREE, fakecupy.FREE))
    with pytest.raises(OutOfMemoryError) as caught:
        Solver(message, device=device)
    text = str(caught.value)
    assert caught.value.exit_code == 5
    assert "device cuda:0: the net takes" in text
    for name in ("batch", "recompute: true", "precision: BF16", "precision: BF16 recompute: true"):
        assert re.search(rf"\n {{6}}{name} ", text), text
    assert re.search(r"precision: BF16 +[\d.]+ KiB: fits", text), text
    message.precision = "BF16"  # type: ignore[assignment]
    Solver(message, device=device).close()


def test_what_a_library_lacks_is_out_of_memory_too(make_device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    device = make_device()
    monkeypatch.setattr(fakecupy, "FREE", 1 << 20)
    with pytest.raises(OutOfMemoryError):
        Solver(solver_of(False), device=device)
