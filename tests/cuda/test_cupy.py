"""What layers_cuda asks of CuPy, held against the real one; it imports without a GPU. No call of it needs one here."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

import fakecupy
import pytest

import layers_cuda
from layers_cuda.launch import OPTIONS
from layers_cuda.source import source_of

cupy: Any = pytest.importorskip("cupy", reason="needs CuPy: pip install 'netrun-trainer[cuda13]'")


def names() -> list[str]:
    """Every name behind ``xp.`` in the sources, and those that are reached by another way."""
    found = {"cuda.Device.use", "cuda.Stream.wait_event", "cuda.Stream.begin_capture", "cuda.Stream.end_capture",
             "cuda.Stream.synchronize", "cuda.Event.record", "cuda.Event.synchronize", "cuda.graph.Graph.launch",
             "cuda.driver.CUDADriverError", "cuda.function.Function.ptr", "RawModule.get_function", "RawKernel.kernel",
             "cuda.pinned_memory.PinnedMemoryPointer.ptr", "cuda.memory.MemoryPointer.ptr", "ndarray.base",
             "ndarray.get", "ndarray.view", "ndarray.reshape", "ndarray.flags", "ndarray.data"}  # fmt: skip
    for path in Path(layers_cuda.__file__).parent.glob("*.py"):
        found.update(name.strip(".") for name in re.findall(r"\bxp\.([\w.]+)", path.read_text()))
    return sorted(found)


@pytest.mark.parametrize("name", names())
def test_cupy_has_it(name: str) -> None:
    reduce(getattr, name.split("."), cupy)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("driver.launchKernel", ["f", *[f"{what}_dim_{axis}" for what in ("grid", "block") for axis in "xyz"],
                                 "shared_mem_bytes", "stream", "kernel_params", "extra"]),
        ("runtime.memcpyAsync", ["dst", "src", "size", "kind", "stream"]),
        ("runtime.memsetAsync", ["ptr", "value", "size", "stream"]),
    ],
)  # fmt: skip
def test_arguments_are_in_that_order(function: str, arguments: list[str]) -> None:
    """Compiled functions tell their arguments in the first line of what they say about themselves."""
    told = reduce(getattr, function.split("."), cupy.cuda).__doc__.splitlines()[0]
    assert re.findall(r"(\w+)(?=[,)])", told) == arguments


def test_errors_and_numbers() -> None:
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
    for kind in (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError):
        assert issubclass(kind, RuntimeError)
    kinds = [getattr(cupy.cuda.runtime, f"memcpy{way}") for way in ("HostToDevice", "DeviceToHost", "DeviceToDevice")]
    assert kinds == [1, 2, 3]


def test_what_cupy_adds_to_the_options() -> None:
    """Its own headers first; the text compiles with them as it does without."""
    nvrtc: Any = pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
    try:
        options = cupy._core.core.assemble_cupy_compiler_options(OPTIONS)
    except RuntimeError as error:  # CuPy says what to install
        pytest.skip(str(error))
    program = nvrtc.createProgram(source_of("copy", COPY), "kern.cu", (), ())
    try:
        added = ("-ftz=true", "-arch=sm_90", "--device-as-default-execution-space")
        nvrtc.compileProgram(program, (*options, *added))
        assert nvrtc.getCUBIN(program)
    finally:
        nvrtc.destroyProgram(program)


COPY = (("HALF", "1"), ("INDEX", "int"), ("IN", "float"), ("OUT", "__nv_bfloat16"), ("V", "4"))


def test_the_stand_in_has_no_names_of_its_own() -> None:
    """What it offers to layers_cuda is CuPy's."""
    for kind in ("Stream", "Event", "Device"):
        own = {name for name in vars(getattr(fakecupy, kind)) if not name.startswith("_")}
        instances = {"mark", "timed", "recorded", "captured", "ptr", "id"}
        assert not [name for name in own - instances if not hasattr(getattr(cupy.cuda, kind), name)]
