"""What only a GPU can show: ``pytest --device cuda:0`` runs these besides the tests that name a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_rnn
from cases import KernelCase, compare, run_case
from cases.kernels import KERNELS
from test_adding import INCEPTION, SHARED, trained
from test_adding import solver as adding
from test_kept import inputs, pair, same
from test_slices import BRANCHES, NET, SLICED, losses, ops, solver

from layers_cuda.blas import Product
from layers_cuda.conv import Case
from layers_cuda.dnn_ctc import Ctc
from layers_cuda.plans import CAP
from layers_cuda.precision import PRECISIONS
from netrun.config.upgrade import read_solver
from netrun.cpu.reference import Reference
from netrun.device import open_device
from netrun.errors import DataError, OutOfMemoryError
from netrun.expression import rule
from netrun.kernels import OPS
from netrun.program import Call, Origin
from netrun.solver import Solver
from netrun.types import Spec, Tensor, Window
from netrun.varying import Varying

pytestmark = pytest.mark.gpu
DIGITS = Path(__file__).resolve().parents[2] / "configs" / "digits"


def rows(op: str) -> list[KernelCase]:
    """The rows of one kernel."""
    return [case for case in KERNELS if case.op == op]


@pytest.fixture(scope="module")
def gpu(request: pytest.FixtureRequest) -> Any:
    """The device of the option."""
    name = request.config.getoption("--device")
    return open_device("cuda:0" if name == "stand-in" else name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", sorted({case.op for case in KERNELS}))
def test_equals_the_reference(op: str, dtype: str, gpu: Any) -> None:
    """Every row of a kernel, in strict float32 and in float64."""
    for case in rows(op):
        compare(case, dtype, run_case(gpu, case, dtype), run_case(Reference(), case, dtype))


@pytest.mark.parametrize(("precision", "tolerance"), [("TF32", 2e-3), ("BF16", 1.6e-2), ("FP16", 2e-3)])
@pytest.mark.parametrize("op", ["conv", "conv_grad_x", "conv_grad_w", "gemm"])
def test_products_in_lower_precision(op: str, precision: str, tolerance: float, gpu: Any) -> None:
    """Within a few roundings of the operands' type, in units of the largest result."""
    for case in rows(op):
        found = run_case(gpu, case, "float32", more={"precision": precision})
        wanted = run_case(Reference(), case, "float32")
        for name, arrays in wanted.items():
            for got, exact in zip(found[name], arrays, strict=True):
                scale = float(np.abs(exact).max(initial=1))
                np.testing.assert_allclose(got, exact, tolerance, tolerance * scale, err_msg=f"{case}: {name}")


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("precision", ["FP32", "TF32", "BF16", "FP16"])
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_a_product_with_its_bias(kind: str, precision: str, relu: bool, gpu: Any) -> None:
    """cuBLASLt has an algorithm for it, and makes of it what cuBLAS and a kernel make, in a graph as well."""
    assert gpu.lt is not None, "no cuBLASLt, or NETRUN_CUDA_GEMM=blas"
    rng = np.random.default_rng(0)
    shapes = ((96, 200), (72, 200), (72,), (96, 72))
    values = [rng.standard_normal(s).astype("float32") for s in shapes]
    arrays = [gpu.array(gpu.allocate(Spec(s, kind).nbytes), 0, Spec(s, kind)) for s in shapes]
    for array, value in zip(arrays, values, strict=True):
        gpu.write(array, value)
    a, b, c, y = arrays
    step = gpu.lt.step(a, b, c, y, Product(96, 72, 200, False, True), PRECISIONS[precision], relu)
    assert step is not None, "the heuristics know no algorithm"
    both = gpu.capture([step])
    exact = values[0] @ values[1].T + values[2]
    exact = np.maximum(exact, 0) if relu else exact
    tolerance = 1e-5 if (kind, precision) == ("float32", "FP32") else 2e-2
    for _ in range(2):
        gpu.write(y, np.full(shapes[3], np.nan, "float32"))
        both()
        found = gpu.read(y).astype("float32")
        np.testing.assert_allclose(found, exact, tolerance, tolerance * float(np.abs(exact).max()))
    assert both.parts[0].graph is not None


@pytest.mark.parametrize("precision", ["FP32", "TF32"])
@pytest.mark.parametrize("name", test_rnn.STACKS)
def test_a_recurrent_stack_by_cudnn(name: str, precision: str, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of gates and weights, both directions, gradients; run call by call, then as a graph (a call that cannot
    be captured warns, and a warning fails)."""
    monkeypatch.setattr(gpu, "_recurrent", "cudnn")
    kind, fields, width = test_rnn.STACKS[name]
    for program in test_rnn.programs(test_rnn.text(kind, fields, width), precision):
        kernels, found = test_rnn.run(program, gpu)
        assert "rnn_stack" in kernels, "cuDNN does not take it"
        for what, exact in test_rnn.run(program, Reference())[1].items():
            scale = (1e-4 if precision == "FP32" else 1e-2) * max(1.0, float(np.abs(exact).max(initial=0)))
            np.testing.assert_allclose(found[what], exact, 0, scale, err_msg=what)


@pytest.mark.parametrize("case", rows("ctc"), ids=str)
def test_ctc_by_cudnn(case: KernelCase, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call by call and as a graph; sequences of other lengths, and those that cuDNN is not for, in one batch."""
    by_cudnn = Ctc(gpu.dnn)
    monkeypatch.setattr(gpu, "ctc", by_cudnn, raising=False)
    assert by_cudnn.workspace((6, 2, 5)) is not None, "cuDNN does not take it"
    wanted = run_case(Reference(), case, "float32")
    compare(case, "float32", run_case(gpu, case, "float32"), wanted)
    capture = gpu.capture

    def replayed(steps: Any) -> Any:
        run = capture(steps)
        return lambda: [run() for _ in range(3)]

    monkeypatch.setattr(gpu, "capture", replayed)
    compare(case, "float32", run_case(gpu, case, "float32"), wanted)


def test_training_is_captured_and_learns(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits net: a graph from the second iteration on, the CPU's losses at first, its accuracy in the end."""
    monkeypatch.chdir(DIGITS)
    losses = []
    for device in (gpu, "cpu"):
        with Solver("solver.prototxt", device=device) as solver:
            solver.step(3)
            losses.append(list(solver.losses))
            if device is gpu:
                session: Any = solver.sessions[0]
                parts = (session._now.session if isinstance(session, Varying) else session)._run.parts
                assert all(part.graph is not None for part in parts)
                solver.step(297)
                accuracy = next(float(o.values) for o in solver.test() if o.name == "accuracy")
                assert accuracy > 0.93
    np.testing.assert_allclose(losses[0], losses[1], 1e-3)


def test_same_seed_same_bits(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DIGITS)
    message, source = read_solver("solver.prototxt")
    message.deterministic = True
    found = []
    for _ in range(2):
        with Solver(message, device=gpu, source=source) as solver:
            solver.step(5)
            tensors = solver.training.recording.parameters.values()
            found.append([solver.memory.read(t).tobytes() for t in tensors])
    assert found[0] == found[1]


def test_the_host_runs_ahead_of_a_batch(gpu: Any) -> None:
    """Batches written one after another arrive in order, whatever slot and stream they take."""
    array = gpu.array(gpu.allocate(16 << 20), 0, Spec((4 << 20,)))
    total = gpu.array(gpu.allocate(4), 0, Spec(()))
    one = Spec(())
    attrs = {"rule": rule(["x"], ["s"], "s = s + x")}
    add = Call(OPS["update"], ((Tensor("x", one),), (Tensor("s", one),)), attrs)
    first = array[:1].reshape(())
    step = gpu.bind(add, [(first,), (total,)], None)
    gpu.write(total, 0.0)
    for i in range(20):
        gpu.write(array, np.full(4 << 20, i, "float32"))
        step()
    assert float(gpu.read(total)) == sum(range(20))


def test_too_much_memory(gpu: Any) -> None:
    with pytest.raises(OutOfMemoryError, match=r"bytes do not fit \([\d,]+ of [\d,]+ bytes are free\)"):
        gpu.allocate(2**44)


def test_a_label_out_of_range(gpu: Any) -> None:
    x, label = np.zeros((3, 10), "float32"), np.array([4, 12, 1], "float32")
    specs = [Spec(x.shape), Spec(label.shape), Spec(x.shape), Spec(()), Spec(())]
    arrays = [gpu.array(gpu.allocate(s.nbytes), 0, s) for s in specs]
    gpu.write(arrays[0], x)
    gpu.write(arrays[1], label)
    attrs = {"axis": 1, "ignore": None, "normalize": "valid"}
    call = Call(OPS["softmax_nll"], tuple(Tensor("t", s) for s in specs), attrs, Origin("loss"))
    gpu.bind(call, arrays, gpu.allocate(gpu.workspace(call)))()
    with pytest.raises(DataError, match=r"layer loss: label 12 at position 1 is not in 0\.\.9"):
        gpu.synchronize()
    gpu.synchronize()


@pytest.mark.parametrize("precision", ["FP32", "TF32", "BF16"])
@pytest.mark.parametrize("op", ["conv", "gemm"])
def test_what_is_no_number_is_not_rectified_away(op: str, precision: str, gpu: Any) -> None:
    """A ReLU that a library applies lets NaN through, as our own does: a training that is lost must say so."""
    shapes = {"conv": ((2, 8, 6, 6), (8, 8, 3, 3), (8,), (2, 8, 4, 4)), "gemm": ((64, 64), (64, 64), (64,), (64, 64))}[
        op
    ]
    attrs: dict[str, Any] = {"relu": True, "precision": precision}
    attrs |= {"window": Window((3, 3)), "groups": 1} if op == "conv" else {"ta": False, "tb": True}
    arrays = [gpu.array(gpu.allocate(Spec(s).nbytes), 0, Spec(s)) for s in shapes]
    for array in arrays[:3]:
        gpu.write(array, np.full(array.shape, np.nan if array is arrays[0] else 1, "float32"))
    call = Call(OPS[op], tuple(Tensor("t", Spec(s)) for s in shapes), attrs, Origin("l"))
    gpu.bind(call, arrays, gpu.allocate(max(gpu.workspace(call), 1)))()
    assert np.isnan(gpu.read(arrays[3])).all()


def test_every_offered_plan_is_right(gpu: Any) -> None:
    """Not the first alone: tuning may choose any of them."""
    rng = np.random.default_rng(0)
    x, w, y = (4, 8, 15, 13), (12, 4, 3, 3), (4, 12, 8, 7)
    window = Window((3, 3), (2, 2), (1, 1))
    values = [rng.standard_normal(s).astype("float32") for s in (x, w, y)]
    reference = Reference()
    for kind, written in (("fprop", 2), ("dgrad", 0), ("wgrad", 1)):
        problem = Case(kind, x, w, y, "float32", window, 2).problem()
        assert problem is not None
        wanted = np.empty_like(values[written])
        given = [v for i, v in enumerate(values) if i != written]
        if kind == "fprop":
            reference.conv(*given, None, wanted, window=window, groups=2)
        else:
            run = reference.conv_grad_x if kind == "dgrad" else reference.conv_grad_w
            run(*given, wanted, window=window, groups=2)
        for plan in gpu.dnn.plans(problem, CAP):
            arrays = [gpu.array(gpu.allocate(v.nbytes), 0, Spec(v.shape)) for v in values]
            for array, value in zip(arrays, values, strict=True):
                gpu.write(array, value)
            gpu.write(arrays[written], np.full_like(wanted, np.nan))
            gpu.dnn.step(plan, arrays, gpu.allocate(max(plan.workspace, 1)))()
            scale = float(np.abs(wanted).max())
            np.testing.assert_allclose(gpu.read(arrays[written]), wanted, 1e-4, 1e-5 * scale, err_msg=f"{kind} {plan}")


@pytest.mark.parametrize("precision", ["TF32", "BF16", "FP16"])
def test_training_in_sixteen_bits(precision: str, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits net reaches its accuracy in every precision."""
    monkeypatch.chdir(DIGITS)
    message, source = read_solver("solver.prototxt")
    message.precision = precision  # type: ignore[assignment]
    with Solver(message, device=gpu, source=source) as solver:
        solver.step(300)
        accuracy = next(float(o.values) for o in solver.test() if o.name == "accuracy")
    assert accuracy > 0.93


@pytest.mark.parametrize(("precision", "near"), [("TF32", 5e-3), ("BF16", 0.05), ("FP16", 0.02)])
def test_a_net_that_keeps_its_blobs_in_another_form(precision: str, near: float, gpu: Any) -> None:
    """What lies there in 16 bits and with channels last is seen plain, whole passes and parts of them."""
    ours, exact = pair(gpu, precision)
    rng = np.random.default_rng(5)
    value, slope = (rng.standard_normal((2, n, 8, 8)).astype("float32") for n in (8, 10))
    for net in (ours, exact):
        for _ in range(2):  # the second pass is a graph
            net.clear_param_diffs()
            net.forward(**inputs())
            net.backward()
    same(ours, exact, near)
    for net in (ours, exact):
        net.blobs["relu1"].data = value
        net.forward(start="b")
        net.blobs["cat"].diff = slope
        net.backward(start="cat", end="b")
    same(ours, exact, near)


@pytest.mark.parametrize(("precision", "near"), [("FP32", 1e-4), ("TF32", 2e-2), ("BF16", 0.05)])
@pytest.mark.parametrize(
    "net", [NET, BRANCHES, SLICED.replace("AXIS", "1")], ids=["convolutions", "branches", "slices"]
)
def test_parts_of_a_concat(net: str, precision: str, near: float, gpu: Any) -> None:
    """Written and read in place."""
    with Solver(solver(precision, net), device=gpu) as run, Solver(solver("FP32", net), device="cpu") as plain:
        assert "concat" not in ops(run)
        np.testing.assert_allclose(losses(run), losses(plain), near, 1e-6)


@pytest.mark.parametrize("more", ["", "iter_size: 2"])
@pytest.mark.parametrize(("precision", "near"), [("FP32", 1e-4), ("TF32", 2e-2), ("BF16", 0.05)])
@pytest.mark.parametrize("net", [INCEPTION, SHARED], ids=["inception", "shared"])
def test_gradients_are_added(net: str, precision: str, near: float, more: str, gpu: Any) -> None:
    """By cuDNN and cuBLAS, to what is there."""
    _, got, values = trained(adding(net, precision, more), gpu)
    _, wanted, exact = trained(adding(net, "FP32", more), "cpu")
    np.testing.assert_allclose(got, wanted, near, near / 100)
    for value, right in zip(values, exact, strict=True):
        np.testing.assert_allclose(value, right, 0, near * max(1.0, float(np.abs(right).max())))
