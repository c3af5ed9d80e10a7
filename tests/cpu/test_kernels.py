"""The fast host device against the reference, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import KernelCase, compare, flat, poisoned, run_case
from cases.kernels import KERNELS

from netrun.cpu import conv, lrn, memory, pointwise, pool
from netrun.cpu.fast import Fast
from netrun.cpu.null import Null
from netrun.cpu.reference import Reference
from netrun.device import Device, open_device
from netrun.errors import DataError, DeviceError, OutOfMemoryError
from netrun.kernels import IN_PLACE, OPS, Op
from netrun.program import Call, Origin
from netrun.types import Spec, Tensor, Window

DTYPES = ("float32", "float64")
HOSTS = ("cpu", "reference", "null")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", KERNELS, ids=str)
def test_cpu_equals_reference(case: KernelCase, dtype: str) -> None:
    compare(case, dtype, run_case(Fast(), case, dtype), run_case(Reference(), case, dtype))


@pytest.mark.parametrize("case", [c for c in KERNELS if c.note != "the logarithm is clamped"], ids=str)
def test_reference_in_float32_is_near_float64(case: KernelCase) -> None:
    """One formula, two precisions: what differs by more than rounding is computed in the wrong type somewhere."""
    single, double = (run_case(Reference(), case, dtype) for dtype in DTYPES)
    for marks in case.signature.arguments:
        if "w" in marks.role:
            for a, b in zip(single[marks.name], double[marks.name], strict=True):
                near, exact = np.clip(a, -3.4e38, 3.4e38), np.clip(b, -3.4e38, 3.4e38)  # the lowest numbers differ
                np.testing.assert_allclose(near, exact, 1e-4, 1e-5 * float(np.abs(exact).max(initial=1e-30)))


def test_every_kernel_has_a_row() -> None:
    assert set(OPS) == {case.op for case in KERNELS}


def test_rows_have_names_of_their_own() -> None:
    assert len({str(case) for case in KERNELS}) == len(KERNELS)


@pytest.mark.parametrize("case", KERNELS, ids=str)
def test_wanted_gradients_are_of_float_inputs(case: KernelCase) -> None:
    given, _ = case.build("float64")
    by_name = dict(zip((a.name for a in case.signature.arguments), given, strict=True))
    for want in case.wants:
        name, _, index = want.partition("[")
        argument = by_name[name][int(index[:-1])] if index else by_name[name]
        found = argument if isinstance(argument, tuple) else (argument,)
        assert any(isinstance(a, np.ndarray) and a.dtype == np.float64 for a in found), want


def test_same_inputs_same_bits() -> None:
    for case in KERNELS:
        if case.op in ("conv", "conv_grad_x", "conv_grad_w", "gemm", "reduce"):
            once, again = (run_case(Fast(), case, "float32") for _ in range(2))
            for name, arrays in once.items():
                for a, b in zip(arrays, again[name], strict=True):
                    assert a.tobytes() == b.tobytes(), str(case)


def test_the_workspace_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel makes memory of its own because workspace() said too little."""

    def refuse(nbytes: int) -> Any:
        raise AssertionError(f"{nbytes} bytes of scratch were missing")

    monkeypatch.setattr(memory, "_fresh", refuse)
    for case in KERNELS:
        for dtype in DTYPES:
            run_case(Fast(), case, dtype)


@pytest.mark.parametrize("elements", [1, 50])
def test_blocks_of_any_size_give_the_same(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of blocks are chosen for speed: small ones exercise every loop over blocks and images."""
    for module in (pointwise, pool, lrn):
        monkeypatch.setattr(module, "BLOCK", elements)
    monkeypatch.setattr(conv, "COLUMNS", elements)
    for case in KERNELS:
        given, _ = case.build("float32")
        if sum(a.size for argument in given for a in flat(argument) if isinstance(a, np.ndarray)) < 5000:
            compare(case, "float32", run_case(Fast(), case, "float32"), run_case(Reference(), case, "float32"))


@pytest.mark.parametrize("device", [Fast(), Reference()], ids=["cpu", "reference"])
@pytest.mark.parametrize("case", [c for c in KERNELS if c.op in IN_PLACE], ids=str)
def test_an_output_may_lie_over_an_input(case: KernelCase, device: Device) -> None:
    """netrun.kernels.IN_PLACE is what the planner relies on."""
    wanted = run_case(Reference(), case, "float32")
    names = [a.name for a in case.signature.arguments]
    over, out = (names.index(name) for name in IN_PLACE[case.op])
    count = len(tuple(flat(case.build("float32")[0][over])))
    for i in range(count):
        given, attrs = case.build("float32")
        shared = list(flat(given[over]))[i]
        if (shared.shape, shared.dtype.name) != (given[out].shape, given[out].dtype):
            continue
        args = [poisoned(a) if isinstance(a, Spec) else a for a in given]
        args[out] = shared
        tensors = tuple(_tensors(a) for a in args)
        call = Call(case.signature, tensors, dict(attrs))
        device.bind(call, args, device.allocate(device.workspace(call)))()
        rtol, atol = case.tolerance("float32")
        np.testing.assert_allclose(shared, wanted[names[out]][0], rtol, atol * 10, equal_nan=False)


def _tensors(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return tuple(_tensors(a) for a in argument)
    return None if argument is None else Tensor("t", Spec(argument.shape, argument.dtype.name))


# ------------------------------------------------------------------------------------------------- the table has teeth
class ForgetsTheLast(Reference):
    """Kernels that leave one element of an output as it was."""

    def softmax(self, x: Any, y: Any, *, axis: int) -> None:
        last = y.reshape(-1)[-1].copy()
        super().softmax(x, y, axis=axis)
        y.reshape(-1)[-1] = last

    def pool_max(self, x: Any, y: Any, index: Any, *, window: Window) -> None:
        last = index.reshape(-1)[-1].copy()
        super().pool_max(x, y, index, window=window)
        index.reshape(-1)[-1] = last

    def col2im(self, y: Any, x: Any, *, window: Window) -> None:
        before = x.copy()  # adds to what was there
        super().col2im(y, x, window=window)
        x += before


class SpoilsItsInput(Reference):
    def softmax(self, x: Any, y: Any, *, axis: int) -> None:
        x -= x.max(axis=axis, keepdims=True)
        super().softmax(x, y, axis=axis)


@pytest.mark.parametrize("op", ["softmax", "pool_max", "col2im"])
def test_a_forgotten_element_is_caught(op: str) -> None:
    for case in (c for c in KERNELS if c.op == op):
        with pytest.raises(AssertionError, match=op):
            compare(
                case, "float32", run_case(ForgetsTheLast(), case, "float32"), run_case(Reference(), case, "float32")
            )


def test_a_changed_input_is_caught() -> None:
    case = next(c for c in KERNELS if str(c) == "softmax: rows")
    with pytest.raises(AssertionError, match="changed its input x"):
        run_case(SpoilsItsInput(), case, "float32")


# ------------------------------------------------------------------------------------------------------------ plumbing
@pytest.mark.parametrize("name", HOSTS)
def test_opens_by_name(name: str) -> None:
    device = open_device(name)
    assert isinstance(device, Device)
    assert device.name == name


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_memory_is_aligned_and_views_share_it(name: str) -> None:
    device = open_device(name)
    block = device.allocate(1000)
    assert block.ctypes.data % 64 == 0
    part = device.array(block, 64, Spec((3, 4)))
    device.write(part, range(12))
    seen = device.view(part, (2, -1))
    assert device.read(seen).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    seen[0, 0] = 7
    assert part[0, 0] == 7
    copied = device.read(part)
    copied[0, 0] = 1
    assert part[0, 0] == 7
    assert device.array(block, 0, Spec((), "int64")).shape == ()


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_too_much_memory(name: str) -> None:
    with pytest.raises(OutOfMemoryError, match=rf"device {name}: 4,611,686,018,427,387,904 bytes do not fit"):
        open_device(name).allocate(2**62)


def test_null_has_every_shape_and_no_memory() -> None:
    device = Null()
    array = device.array(device.allocate(2**62), 2**40, Spec((2**20, 2**20)))
    assert device.view(array, (2**19, -1)).shape == (2**19, 2**21)
    small = device.array(device.allocate(8), 0, Spec((2, 3), "int32"))
    device.write(small, np.ones((3, 2)))
    with pytest.raises(ValueError, match="reshape"):
        device.write(small, np.ones(7))
    values = device.read(small)
    assert (values.shape, values.dtype, values.any()) == ((2, 3), np.int32, False)
    device.capture([device.bind(Call(OPS["fill"], (), {}, Origin("x")), [small], None)])()


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_a_kernel_a_device_lacks(name: str) -> None:
    call = Call(Op("hologram", (), ()), (), {}, Origin("conv1").backward)
    with pytest.raises(DeviceError, match=rf"layer conv1': device {name} has no kernel hologram"):
        open_device(name).bind(call, [], None)


@pytest.mark.parametrize("name", ["cpu", "reference"])
@pytest.mark.parametrize("captured", [True, False])
def test_a_label_out_of_range(name: str, captured: bool) -> None:
    device = open_device(name)
    x, label = np.zeros((3, 10), "float32"), np.array([[4], [12], [-1]], "float32")
    arrays = [x, label, np.empty_like(x), np.empty((), "float32"), np.empty((), "float32")]
    tensors = tuple(Tensor(str(i), Spec(a.shape)) for i, a in enumerate(arrays))
    call = Call(OPS["softmax_nll"], tensors, {"axis": 1, "ignore": -1, "normalize": "valid"}, Origin("loss"))
    step = device.bind(call, arrays, device.allocate(device.workspace(call)))
    with pytest.raises(DataError, match=r"layer loss: label 12 at position 1, 0 is not in 0\.\.9"):
        (device.capture([step]) if captured else step)()
    label[1] = 9
    step()
    assert arrays[3] == pytest.approx(np.log(10))


@pytest.mark.parametrize("name", ["cpu", "reference"])
@pytest.mark.parametrize("bad", [-1, 5, float("nan")])
def test_an_index_out_of_range(name: str, bad: float) -> None:
    device = open_device(name)
    arrays = [np.zeros((5, 2), "float32"), np.array([0, bad], "float32"), np.empty((2, 2), "float32")]
    call = Call(OPS["gather"], tuple(Tensor("t", Spec(a.shape)) for a in arrays), {}, Origin("embed"))
    with pytest.raises(DataError, match=rf"layer embed: index {bad:g} at position 1 is not in 0\.\.4"):
        device.bind(call, arrays, device.allocate(device.workspace(call)))()


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_infinities_are_quiet_and_come_through(name: str) -> None:
    device = open_device(name)
    x, y = np.array([0, -1, 1e30], "float32"), np.empty(3, "float32")
    tensors = ((Tensor("x", Spec((3,))),), Tensor("y", Spec((3,))))
    step = device.bind(Call(OPS["pointwise"], tensors, {"expr": "log(a) * a * a"}), [(x,), y], None)
    step()
    assert np.isnan(y[:2]).all()
    assert np.isinf(y[2])
