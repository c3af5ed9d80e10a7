"""The one place that imports cupy, and the one that opens NVIDIA's libraries: both only when a GPU is asked for."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any

from netrun.errors import DeviceError, missing_extra

EXTRA = "cuda13"
"""The extra of netrun-trainer that messages name."""

OLDER = "pip install 'netrun-trainer[cuda12]' instead, with cupy-cuda13x uninstalled"
"""What to do where CUDA 13 does not run."""

_OLDEST = (7, 5)
"""The oldest chip that CUDA 13 compiles for."""

_FILES = {
    "cudnn": ("libcudnn.so.9",), "cublas": ("libcublas.so.13", "libcublas.so.12"),
    "cublasLt": ("libcublasLt.so.13", "libcublasLt.so.12"), "nccl": ("libnccl.so.2",),
}  # fmt: skip
_PACKAGES = {
    "cudnn": "nvidia-cudnn-cu13", "cublas": "nvidia-cublas", "cublasLt": "nvidia-cublas", "nccl": "nvidia-nccl-cu13",
}  # fmt: skip
_BEFORE = {"cudnn": ("cudart", "nvrtc", "cublasLt"), "cublas": ("cublasLt",), "cublasLt": (), "nccl": ("cudart",)}
"""What must be loaded first: some engines of cuDNN look for these and do not know where pip puts them."""


def cupy(what: str) -> Any:
    """The module cupy.

    Args:
        what: who needs it, for the message: 'device "cuda:0"'.

    Raises:
        UsageError: it is not installed.
        DeviceError: it is, and does not import.
    """
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        raise missing_extra(what, str(error.name), EXTRA) from None
    except ImportError as error:
        raise DeviceError(f"{what}: CuPy does not import", None, [_first_line(error), pip_line()]) from None


def library(name: str) -> Any:
    """A shared library of NVIDIA ("cudnn", "cublas", "cublasLt", "nccl") as a ctypes.CDLL: from pip's wheels, or the
    system's.

    Raises:
        DeviceError: it cannot be found or loaded; the text holds the pip line.
    """
    reasons = []
    try:
        load = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib
    except ImportError:
        load = None
    if load is not None:
        for first in _BEFORE[name]:
            try:
                load(first)
            except Exception as error:  # pathfinder has errors of its own; the library itself says what it lacks
                reasons.append(_first_line(error))
        try:
            return ctypes.CDLL(load(name).abs_path)
        except Exception as error:
            reasons.append(_first_line(error))
    for file in _FILES[name]:
        try:
            return ctypes.CDLL(file)
        except OSError as error:
            reasons.append(_first_line(error))
    raise DeviceError(f"lib{name} cannot be loaded", None, [missing_line(name), *reasons[-1:]])


def missing_line(name: str) -> str:
    """What to type where that library is missing. NCCL is in no extra: a run uses one GPU, and nothing needs it."""
    package = _PACKAGES[name]
    return f"pip install {package}  (for several GPUs; a run uses one)" if name == "nccl" else pip_line(package)


def pip_line(*packages: str) -> str:
    """What to type: ``pip install 'netrun-trainer[cuda13]'``, and which package of it is missing."""
    line = f"pip install 'netrun-trainer[{EXTRA}]'"
    return f"{line}  (or alone: pip install {' '.join(packages)})" if packages else line


def usable(xp: Any, index: int) -> str:
    """Why device ``index`` cannot be used; "" if it can."""
    runtime = xp.cuda.runtime
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        return f"no usable GPU ({_driver(runtime) or _first_line(error)})"
    if not count:
        return "there is no CUDA device"
    if index >= count:
        return f"this machine has {count} GPU{'s' if count > 1 else ''}: cuda:0{f' to cuda:{count - 1}' * (count > 1)}"
    facts = runtime.getDeviceProperties(index)
    if (facts["major"], facts["minor"]) < _OLDEST and runtime.runtimeGetVersion() >= 13000:
        return f"it is sm_{facts['major']}{facts['minor']}, which CUDA 13 has given up: {OLDER}"
    return ""


def _driver(runtime: Any) -> str:
    """What is wrong with NVIDIA's driver; "" if that is not it."""
    try:
        driver, wanted = int(runtime.driverGetVersion()), int(runtime.runtimeGetVersion())
    except runtime.CUDARuntimeError:
        return ""
    if not driver:
        return "NVIDIA's driver is not installed"
    if driver // 1000 >= wanted // 1000:
        return ""
    text = f"its driver is for CUDA {driver // 1000}.{driver % 1000 // 10}, CuPy for CUDA {wanted // 1000}"
    return f"{text}: {OLDER}" if driver >= 12000 else f"{text}: a newer driver is needed"


def _first_line(error: BaseException) -> str:
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
