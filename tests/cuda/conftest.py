"""A GPU that is not there: the device of layers_cuda on stand-ins for CuPy, cuDNN and cuBLAS.

The kernels are the real .cu files, compiled by g++ through a shim and executed on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cpukernels
import fakecupy
import fakelibs

from layers_cuda.device import Cuda


@pytest.fixture
def make_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Cuda]:
    """A function that makes stand-in devices; keywords replace libraries by name. Skips where there is no g++."""
    if cpukernels.COMPILER is None:
        pytest.skip("no g++: the stand-in GPU compiles its kernels with it")
    for name in ("ADD", "CTC", "DEBUG", "GEMM", "RNN", "TUNE"):
        monkeypatch.delenv(f"NETRUN_CUDA_{name}", raising=False)
    monkeypatch.setenv("NETRUN_CUDA_CACHE", str(tmp_path))

    def make(**libraries: Any) -> Cuda:
        return Cuda(0, fakecupy, fakelibs.libraries(**libraries))

    return make


@pytest.fixture
def device(make_device: Callable[..., Cuda]) -> Cuda:
    """A stand-in GPU."""
    return make_device()
