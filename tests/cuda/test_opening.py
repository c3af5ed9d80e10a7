"""Opening a GPU: once, and with one message where something it needs is missing; what the machine is told to have."""

from __future__ import annotations

import ctypes
import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import fakecupy
import pytest
from fakelibs import Cublas, Cudnn

from layers_cuda import device as module
from layers_cuda import lazy
from layers_cuda.device import describe, open_device
from netrun.cli import main
from netrun.errors import DeviceError, UsageError


def test_libraries_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(file: str) -> Any:
        raise OSError(f"{file}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", nowhere)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(
        DeviceError, match=r"libcudnn cannot be loaded\n.*pip install nvidia-cudnn-cu13\)\n.*libcudnn.so.9"
    ):
        lazy.library("cudnn")
    found = SimpleNamespace(abs_path="/somewhere/libcudnn.so.9")
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", SimpleNamespace(load_nvidia_dynamic_lib=lambda name: found))
    monkeypatch.setattr(ctypes, "CDLL", lambda file: file)
    assert lazy.library("cudnn") == "/somewhere/libcudnn.so.9"


def test_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'cupy'", name="cupy")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UsageError, match=r'device "cuda:0" needs the Python package cupy: .*netrun-trainer\[cuda13\]'):
        open_device(0)
    assert describe() == ["a GPU needs the Python package cupy: pip install 'netrun-trainer[cuda13]'"]


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "cupy", lambda what: fakecupy)
    with pytest.raises(DeviceError, match=r'device "cuda:3": this machine has 1 GPU: cuda:0$'):
        open_device(3)
    monkeypatch.setattr(fakecupy.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(DeviceError, match='device "cuda:0": there is no CUDA device'):
        open_device(0)

    def old() -> int:
        raise fakecupy.CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    monkeypatch.setattr(fakecupy.runtime, "getDeviceCount", old)
    for driver, said in (
        (13000, "cudaErrorInsufficientDriver: CUDA driver version is insufficient"),
        (0, "NVIDIA's driver is not installed"),
        (12080, r"its driver is for CUDA 12\.8, CuPy for CUDA 13: pip install 'netrun-trainer\[cuda12\]' instead"),
        (11040, r"its driver is for CUDA 11\.4, CuPy for CUDA 13: a newer driver is needed"),
    ):
        monkeypatch.setattr(fakecupy.runtime, "driverGetVersion", lambda driver=driver: driver)
        with pytest.raises(DeviceError, match=rf'device "cuda:0": no usable GPU \({said}'):
            open_device(0)


def test_a_chip_that_cuda_has_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "cupy", lambda what: fakecupy)
    facts = {**fakecupy.runtime.getDeviceProperties(0), "major": 7, "minor": 0}
    monkeypatch.setattr(fakecupy.runtime, "getDeviceProperties", lambda index: facts)
    with pytest.raises(DeviceError, match=r'device "cuda:0": it is sm_70, which CUDA 13 has given up: .*cuda12'):
        open_device(0)
    monkeypatch.setattr(fakecupy.runtime, "runtimeGetVersion", lambda: 12080)
    assert open_device(0).chip == "stand-in"


def test_a_gpu_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets that share parameters are then on one stream; another choice of the environment has another."""
    monkeypatch.setattr(lazy, "cupy", lambda what: fakecupy)
    first = open_device(0)
    assert open_device(0) is first
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(open_device, 0).result() is first
    monkeypatch.setenv("NETRUN_CUDA_DEBUG", "1")
    assert open_device(0).debug
    assert not first.debug

    def busy(*_: object, **__: object) -> None:
        raise fakecupy.CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy")

    monkeypatch.setattr(fakecupy, "Stream", busy)
    monkeypatch.setattr(fakecupy.cuda, "Stream", busy)
    monkeypatch.setenv("NETRUN_CUDA_GEMM", "blas")
    with pytest.raises(DeviceError, match=r'^device "cuda:0": cudaErrorDevicesUnavailable'):
        open_device(0)


def test_describe(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = {"cudnn": Cudnn(), "cublas": Cublas()}

    def load(name: str) -> Any:
        if name not in libraries:
            raise DeviceError("libnccl cannot be loaded", None, [lazy.missing_line("nccl")])
        return libraries[name]

    monkeypatch.setattr(lazy, "cupy", lambda what: fakecupy)
    monkeypatch.setattr(lazy, "library", load)
    assert describe() == [
        "CuPy 14.2.0", "CUDA driver 13.0", "cuda:0  stand-in, 8 GiB, sm_90", "cudnn 9.19.0", "cublas found",
        "libnccl cannot be loaded",
        "    pip install nvidia-nccl-cu13  (for several GPUs; a run uses one)",
    ]  # fmt: skip


def test_devices_as_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """GPU, driver, cuDNN, and what is missing with the line that brings it; --gpu shows the cards alone."""

    def load(name: str) -> Any:
        if name == "nccl":
            return SimpleNamespace(ncclGetVersion=lambda at: setattr(at._obj, "value", 22809))
        raise DeviceError(f"lib{name} cannot be loaded", None, [lazy.missing_line(name)])

    monkeypatch.setattr(lazy, "cupy", lambda what: fakecupy)
    monkeypatch.setattr(lazy, "library", load)
    assert main(["devices"]) == 0
    text = capsys.readouterr().out
    for line in (
        "cuda:0     a GPU", "CUDA driver 13.0", "cuda:0  stand-in, 8 GiB, sm_90", "libcudnn cannot be loaded",
        "pip install 'netrun-trainer[cuda13]'  (or alone: pip install nvidia-cudnn-cu13)", "nccl 2.28.9",
    ):  # fmt: skip
        assert line in text
    for asked in ("0", "all"):
        assert main(["device_query", "--gpu", asked]) == 0
        assert capsys.readouterr().out == "cuda:0  stand-in, 8 GiB, sm_90\n"
    assert main(["devices", "--gpu", "0,4"]) == 2
    assert "this machine has 1 GPU" in capsys.readouterr().err


def test_importing_needs_nothing() -> None:
    """No GPU, no driver, no CUDA wheels: layers_cuda imports, and cupy only when a device is opened."""
    code = "import sys, layers_cuda.device; sys.exit(any(m.split('.')[0] in ('cupy', 'cuda') for m in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert module.lazy is lazy
