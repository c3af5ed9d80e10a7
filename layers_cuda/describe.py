"""What ``netrun devices`` says about GPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

from netrun.errors import DeviceError

from . import lazy


def describe() -> list[str]:
    """What ``netrun devices`` prints about GPUs: each one, the libraries, and what to install. Raises nothing."""
    try:
        xp = lazy.cupy("a GPU")
    except Exception as error:
        return str(error).splitlines()
    lines = [f"CuPy {xp.__version__}"]
    reason = lazy.usable(xp, 0)
    if reason:
        lines.append(reason)
    else:
        runtime = xp.cuda.runtime
        lines.append(f"CUDA driver {_version(runtime.driverGetVersion())}")
        for index in range(runtime.getDeviceCount()):
            facts = runtime.getDeviceProperties(index)
            name = facts["name"].decode() if isinstance(facts["name"], bytes) else facts["name"]
            memory = facts["totalGlobalMem"] / 2**30
            lines.append(f"cuda:{index}  {name}, {memory:.0f} GiB, sm_{facts['major']}{facts['minor']}")
    for library, ask in _VERSIONS.items():
        try:
            lines.append(f"{library} {ask(lazy.library(library))}")
        except DeviceError as error:
            lines += str(error).splitlines()[:2]
    return lines


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _cudnn_version(library: Any) -> str:
    number = int(library.cudnnGetVersion())
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


def _nccl_version(library: Any) -> str:
    number = ctypes.c_int()
    library.ncclGetVersion(ctypes.byref(number))
    return f"{number.value // 10000}.{number.value % 10000 // 100}.{number.value % 100}"


_VERSIONS: Mapping[str, Callable[[Any], str]] = {
    "cudnn": _cudnn_version,
    "cublas": lambda library: "found",
    "nccl": _nccl_version,
}
