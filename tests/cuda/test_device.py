"""The device itself: memory, transfers, capture, several nets on it; test_opening.py has how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fakecupy
import fakestream
import numpy as np
import pytest
from fakebase import bits_of, wide_of

from layers_cuda import lazy, transfer
from layers_cuda.capture import Bound, Captured
from layers_cuda.device import Cuda
from layers_cuda.launch import Kernel, nothing, sequence
from layers_cuda.source import files, kernels_of, source_of
from netrun.config.upgrade import parse_net
from netrun.device import Device
from netrun.errors import DeviceError, OutOfMemoryError, UsageError
from netrun.kernels import OPS, Op
from netrun.net import Net
from netrun.program import Call, Origin
from netrun.types import Spec, Tensor, Window

Make = Callable[..., Cuda]


# -------------------------------------------------------------------------------------------------------------- memory
def test_is_a_device(device: Cuda) -> None:
    assert isinstance(device, Device)
    assert (device.name, device.chip) == ("cuda:0", "stand-in")


def test_memory_is_aligned_and_views_share_it(device: Cuda) -> None:
    block = device.allocate(1000)
    assert block.data.ptr % 256 == 0
    part = device.array(block, 64, Spec((3, 4)))
    device.write(part, range(12))
    assert device.read(device.view(part, (2, -1))).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    copied = device.read(part)
    copied[0, 0] = 9
    assert device.read(part)[0, 0] == 0
    assert device.array(block, 0, Spec((), "int64")).shape == ()
    assert device.array(block, 128, Spec((0, 3))).shape == (0, 3)


def test_too_much_memory(device: Cuda) -> None:
    with pytest.raises(OutOfMemoryError, match=r"device cuda:0: 1,099,511,627,776 bytes do not fit \(8,589,934,592 of"):
        device.allocate(2**40)


@pytest.mark.parametrize("count", [0, 1, 64, 65, 5000, (1 << 18) + 3, (5 << 18) + 1])
def test_values_arrive_however_large(count: int, device: Cuda) -> None:
    array = device.array(device.allocate(4 * count), 0, Spec((count,)))
    for round_ in range(7):  # the ring of slots and the slots of its own come round
        values = np.arange(count, dtype="int64") + round_
        device.write(array, values)
        values[:] = -1
        np.testing.assert_array_equal(device.read(array), (np.arange(count) + round_).astype("float32"))


def test_a_large_value_written_again_travels_ahead(device: Cuda) -> None:
    array = device.array(device.allocate(4 << 20), 0, Spec((1 << 20,)))
    kinds = []
    for i in range(6):
        fakestream.log.clear()
        device.write(array, np.full(1 << 20, i))
        kinds.append(len(fakestream.log))
    assert kinds == [1, 1, 1, 2, 2, 2], "through the ring at first, then host to buffer and buffer to home"


def test_few_arrays_have_slots_of_their_own(device: Cuda) -> None:
    uploads = device._uploads
    block = device.allocate((transfer.OWNERS + 2) << 22)
    arrays = [device.array(block, i << 22, Spec((1 << 20,))) for i in range(transfer.OWNERS + 2)]
    shorter = device.array(block, (transfer.OWNERS + 1) << 22, Spec((1 << 19,)))
    for array in [*arrays, shorter]:
        for i in range(transfer.OFTEN + 1):
            device.write(array, np.full(array.shape, i))
        assert (device.read(array) == transfer.OFTEN).all()
        assert len(uploads._own) <= transfer.OWNERS


def test_a_slot_waits_for_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    monkeypatch.setattr(fakecupy.Event, "synchronize", lambda self: waited.append(self))
    uploads = transfer.Uploads(fakecupy, fakecupy.Stream())
    number = fakecupy.empty((), "float32")
    for i in range(transfer.SMALL_SLOTS + 2):
        uploads.write(number, i)
    assert len(waited) == 2


def test_values_of_another_count(device: Cuda) -> None:
    with pytest.raises(ValueError, match="reshape"):
        device.write(device.array(device.allocate(64), 0, Spec((2, 3))), np.ones(7))


# ------------------------------------------------------------------------------------------------------------ launching
def test_arguments_must_have_exact_types(device: Cuda) -> None:
    y = device.array(device.allocate(64), 0, Spec((16,)))
    kernel = Kernel("precision", "widen")
    for wrong, name in ((16, "int"), (1.5, "float"), (np.zeros(3), "ndarray")):
        with pytest.raises(TypeError, match=rf"kernel widen: argument 1 is a {name}, wanted a device array or a NumPy"):
            device.launcher.step(kernel, 1, 32, [y, wrong])
    with pytest.raises(ValueError, match="argument 0 is not contiguous"):
        device.launcher.step(kernel, 1, 32, [y[::2], y, np.int64(3)])
    with pytest.raises(ValueError, match=r"refuses the grid \(1, 70000, 1\)"):
        device.launcher.step(kernel, (1, 70000), 32, [y, y, np.int64(3)])
    with pytest.raises(ValueError, match="of \\(2048, 1, 1\\) threads"):
        device.launcher.step(kernel, 1, 2048, [y, y, np.int64(3)])


def test_no_blocks_is_no_launch(device: Cuda) -> None:
    assert device.launcher.step(Kernel("precision", "widen"), 0, 32, []) is nothing
    assert sequence([nothing, nothing]) is nothing
    assert device.launcher.blocks(0) == 0
    assert device.launcher.blocks(1) == 1


def test_copies_and_zeros(device: Cuda) -> None:
    a, b = (device.array(device.allocate(64), 0, Spec((16,))) for _ in range(2))
    device.write(a, range(16))
    device.launcher.copy(a, b)()
    device.launcher.zero(a)()
    assert device.read(b).tolist() == list(range(16))
    assert not device.read(a).any()
    with pytest.raises(ValueError, match="64 bytes do not go into 32"):
        device.launcher.copy(a, b[:8])


@pytest.mark.parametrize(("storage", "ctype"), [("float16", "__half"), ("bfloat16", "__nv_bfloat16")])
def test_sixteen_bits_round_to_even(storage: str, ctype: str, device: Cuda) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [rng.standard_normal(4000) * 10.0 ** rng.integers(-9, 6, 4000), [0, 1e30, -1e30, 65519, 1e-8]]
    )
    single = values.astype("float32")
    with np.errstate(over="ignore"):
        wanted = single.astype("float16").view("uint16") if storage == "float16" else bits_of(single)
    x, small, back = (fakecupy.empty(single.shape, t) for t in ("float32", "uint16", "float32"))
    device.write(x, single)
    for name, a, b in (("narrow", x, small), ("widen", small, back)):
        kernel = Kernel("precision", name, (("STORAGE", ctype),))
        device.launcher.step(kernel, 4, 256, [a, b, np.int64(single.size)])()
    np.testing.assert_array_equal(device.read(small), wanted)
    exact = wanted.view("float16").astype("float32") if storage == "float16" else wide_of(wanted, "float32")
    np.testing.assert_array_equal(device.read(back), exact)


def test_sources_flatten() -> None:
    assert "precision" in files()
    assert kernels_of("precision") == ["narrow", "widen"]
    text = source_of("precision", (("STORAGE", "__half"),))
    assert text.startswith('#define STORAGE __half\n#line 1 "precision.cu"\n')
    for file in files():
        assert '#include "' not in source_of(file)
        assert kernels_of(file), file
    with pytest.raises(ValueError, match="the define A is not one line"):
        source_of("precision", (("A", "1\n#include <x>"),))


# -------------------------------------------------------------------------------------------------------------- capture
def counting(device: Cuda) -> tuple[list[int], Any]:
    ran: list[int] = []
    return ran, lambda: fakestream.submit("count", lambda: ran.append(1))


def test_first_by_call_then_as_a_graph(device: Cuda) -> None:
    fakestream.log.clear()
    ran, step = counting(device)
    run = device.capture([step, step])
    totals = []
    for _ in range(4):
        run()
        totals.append(len(ran))
    assert totals == [2, 4, 6, 8], "a capture itself runs nothing, each run runs all"
    assert isinstance(run, Captured)
    assert fakestream.log.count("graph") == 3


def test_python_steps_cut_the_graph(device: Cuda) -> None:
    ran, step = counting(device)
    x, y = (device.array(device.allocate(12), 0, Spec((3,))) for _ in range(2))
    tensors = tuple((Tensor(n, Spec((3,))),) for n in "xy")

    def double(xs: Any, ys: Any) -> None:
        ys[0][...] = 2 * xs[0]

    call = Call(OPS["host"], tensors, {"fn": double, "grad": None}, Origin("python1"))
    steps = [step, device.bind(call, [(x,), (y,)], None), step, step]
    run = device.capture(steps)
    assert isinstance(run, Captured)
    assert len(run.parts) == 3
    for i in range(4):
        device.write(x, [i, 1, 2])
        fakestream.log.clear()
        run()
        assert device.read(y).tolist() == [2 * i, 2, 4]
        assert fakestream.log.count("graph") == (0 if i == 0 else 2)
    assert len(ran) == 12


def test_what_cannot_be_captured_runs_call_by_call(device: Cuda) -> None:
    ran, step = counting(device)
    run = device.capture([step, lambda: fakestream.refuse_in_capture("a host call")])
    run()
    with pytest.warns(UserWarning, match="device cuda:0 runs call by call, without a CUDA graph: .*a host call"):
        run()
    run()
    assert len(ran) == 3
    assert not device.stream.is_capturing()


def test_debug_names_the_call(make_device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRUN_CUDA_DEBUG", "1")
    device = make_device()

    def broken() -> None:
        raise fakecupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    call = Call(OPS["fill"], (Tensor("conv1", Spec((3,))),), {"value": 1.0}, Origin("conv1").backward)
    with pytest.raises(
        DeviceError, match=r"cuda:0: call 0, conv1': conv1 <- fill \| value=1.0\n.*illegal memory access"
    ):
        device.capture([Bound(call, [], broken)])()


# ------------------------------------------------------------------------------------------------------------- messages
def test_a_kernel_it_lacks(device: Cuda) -> None:
    call = Call(Op("hologram", (), ()), (), {}, Origin("conv1").backward)
    with pytest.raises(DeviceError, match="layer conv1': device cuda:0 has no kernel hologram"):
        device.bind(call, [], None)
    assert device.workspace(call) == 0


def test_a_library_that_is_missing(make_device: Make) -> None:
    def load(name: str) -> Any:
        raise DeviceError(f"lib{name} cannot be loaded", None, [lazy.pip_line("nvidia-cudnn-cu13")])

    device = Cuda(0, fakecupy, load)
    arrays = [device.array(device.allocate(4096), 0, Spec(s)) for s in ((1, 2, 4, 4), (3, 2, 3, 3), (1, 3, 2, 2))]
    tensors = [Tensor(n, Spec(a.shape)) for n, a in zip("xwy", arrays, strict=True)]
    attrs = {"window": Window((3, 3)), "groups": 1}
    call = Call(OPS["conv"], (tensors[0], tensors[1], None, tensors[2]), attrs, Origin("conv1"))
    with pytest.raises(DeviceError) as caught:
        device.bind(call, [arrays[0], arrays[1], None, arrays[2]], device.allocate(1))
    assert str(caught.value) == (
        "layer conv1: conv on device cuda:0: libcudnn cannot be loaded\n"
        "    pip install 'netrun-trainer[cuda13]'  (or alone: pip install nvidia-cudnn-cu13)"
    )


# ----------------------------------------------------------------------------------------------------------------- nets
def test_nets_of_one_device_in_many_threads(device: Cuda) -> None:
    """Each net in a thread of its own: what one captures holds nothing of the others, and all are right."""
    message = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2
          weight_filler { type: "xavier" } } }
        layer { name: "tanh" type: "TanH" bottom: "ip" top: "tanh" }"""
    parsed = parse_net(message, "net")[0]
    values = np.random.default_rng(0).standard_normal((2, 3)).astype("float32")
    nets = [Net(parsed, device=device, seed=i) for i in range(3)]
    wanted = [np.tanh(values @ net.params["ip"][0].data.T) for net in nets]

    def work(i: int) -> None:
        for round_ in range(40):
            net = Net(parsed, device=device, seed=i) if round_ % 10 == 0 else nets[i]
            np.testing.assert_allclose(net.forward(x=values)["tanh"], wanted[i], 1e-4, 1e-6)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))


def test_nets_on_two_streams_share_nothing(make_device: Make) -> None:
    message = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2 } }"""
    parsed = parse_net(message, "net")[0]
    device = make_device()
    one, two, three = (Net(parsed, device=d) for d in (device, device, make_device()))
    two.share_with(one)
    with pytest.raises(UsageError, match="nets that share parameters on cuda:0 have to be on one open device"):
        three.share_with(one)
