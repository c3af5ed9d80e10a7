"""CTC by cuDNN for the sequences that it is for, by the own kernels for the others, in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import KernelCase, compare, run_case
from cases.kernels import KERNELS
from fakelibs import REFERENCE, Cudnn

from layers_cuda.device import Cuda
from netrun.errors import DataError, DeviceError
from netrun.kernels import OPS
from netrun.program import Call, Origin
from netrun.types import Spec, Tensor

Make = Callable[..., Cuda]
ROWS = [case for case in KERNELS if case.op == "ctc"]


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, make_device: Make) -> Callable[..., tuple[Cuda, Cudnn]]:
    """A function that makes a device which gives CTC to its cuDNN."""

    def make(library: Cudnn | None = None) -> tuple[Cuda, Cudnn]:
        monkeypatch.setenv("NETRUN_CUDA_CTC", "cudnn")
        library = library or Cudnn()
        return make_device(cudnn=library), library

    return make


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_equals_the_reference(case: KernelCase, chosen: Any) -> None:
    """Several lengths, none, repetitions, labels that do not fit: each sequence goes where it belongs."""
    device, library = chosen()
    compare(case, "float32", run_case(device, case, "float32"), run_case(REFERENCE, case, "float32"))
    assert bool(library.classified) == (case.build("float32")[1]["blank"] == 0)
    device, library = chosen()
    compare(case, "float64", run_case(device, case, "float64"), run_case(REFERENCE, case, "float64"))
    assert not library.classified


def test_own_kernels_where_nobody_chooses_or_cudnn_refuses(make_device: Make, chosen: Any) -> None:
    library = Cudnn()
    run_case(make_device(cudnn=library), ROWS[1], "float32")
    assert not library.classified
    library.refuses_ctc = True
    device, _ = chosen(library)
    compare(ROWS[1], "float32", run_case(device, ROWS[1], "float32"), run_case(REFERENCE, ROWS[1], "float32"))
    assert not library.classified


def _run(device: Cuda, label: Any, steps: Any) -> Any:
    """The losses of random scores, twice from one graph."""
    n = len(label)
    values = [np.random.default_rng(0).standard_normal((6, n, 5)).astype("float32"), np.asarray(label, "float32"),
              np.asarray(steps, "float32"), np.full(n, len(label[0]), "float32")]  # fmt: skip
    specs = [*(Spec(v.shape) for v in values), Spec((n,)), Spec((6, n, 5))]
    arrays = [device.array(device.allocate(s.nbytes), 0, s) for s in specs]
    call = Call(OPS["ctc"], tuple(Tensor("t", s) for s in specs), {"blank": 0}, Origin("ctc"))
    step = device.capture([device.bind(call, arrays, device.allocate(device.workspace(call)))])
    for array, value in zip(arrays, values, strict=False):
        device.write(array, value)
    step()
    step()
    return device.read(arrays[4])


def test_a_label_out_of_range(chosen: Any) -> None:
    """It is reported as ever, and cuDNN never sees it."""
    device, library = chosen()
    with pytest.raises(DataError, match=r"label 7 at position 1, 1 is not in 0\.\.4"):
        _run(device, [[1, 2], [3, 7]], [6, 6])
    assert library.classified == [2, 2]


def test_a_blank_among_the_labels(chosen: Any, make_device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [[1, 2], [3, 0], [4, 4]], [6, 6, 3]
    found = _run(chosen()[0], *given)
    monkeypatch.delenv("NETRUN_CUDA_CTC")
    np.testing.assert_allclose(found, _run(make_device(), *given), 1e-5)


def test_an_error_names_the_call(chosen: Any) -> None:
    class Failing(Cudnn):
        def cudnnCTCLoss_v8(self, *args: Any) -> int:
            return self._fail("out of luck", 5000)

    with pytest.raises(DeviceError, match=r"cuDNN: CTC of \(6, 1, 5\): status 5000: out of luck") as found:
        _run(chosen(Failing())[0], [[1]], [6])
    assert "NETRUN_CUDA_CTC=own" in str(found.value)
