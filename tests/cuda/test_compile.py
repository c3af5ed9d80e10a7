"""Every .cu file compiled for every chip, without a GPU: by NVRTC's wheel, else by nvcc, else not at all."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import used
from cases import run_case
from shim import CASES, Device
from test_kernels_shim import more

from layers_cuda import source, turned
from layers_cuda.geometry import Cut
from layers_cuda.launch import OPTIONS, Kernel
from layers_cuda.summed import BODIES, SUMMED
from layers_cuda.update import together
from netrun.expression import rule
from netrun.program import Call, Origin
from netrun.types import Spec, Tensor

CHIPS = ("75", "80", "86", "89", "90", "100", "120")
NEAREST = "90"
"""The chip for which every variant is compiled."""

Variant = tuple[str, tuple[tuple[str, str], ...]]


# ------------------------------------------------------------------------------------------------------------ compilers
def _wheel_folders() -> Iterator[Path]:
    for place in map(Path, sys.path):
        yield from sorted(place.glob("nvidia/cu13")) + sorted(place.glob("nvidia/cuda_nvrtc"))


def _nvrtc() -> tuple[ctypes.CDLL, list[str]] | None:
    """The library from a pip wheel, and where the CUDA headers are."""
    headers = [str(f) for place in map(Path, sys.path) for f in sorted(place.glob("nvidia/*/include"))]
    for folder in _wheel_folders():
        for builtins in folder.glob("lib/libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins))  # the library looks for it by name and does not know where pip puts it
        for file in sorted(folder.glob("lib/libnvrtc.so.1[2-9]")):
            return ctypes.CDLL(str(file)), headers
    return None


NVRTC, NVCC = _nvrtc(), shutil.which("nvcc")
pytestmark = pytest.mark.skipif(
    NVRTC is None and NVCC is None,
    reason="no CUDA compiler: pip install nvidia-cuda-nvrtc nvidia-cuda-runtime, or nvcc",
)


def by_nvrtc(text: str, chip: str, ptx: bool = False) -> str:
    """The log of NVRTC, or the PTX it makes.

    Raises:
        AssertionError: it refuses the text.
    """
    assert NVRTC is not None
    library, headers = NVRTC
    program = ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None) == 0
    try:
        options = [
            f"--gpu-architecture={'compute' if ptx else 'sm'}_{chip}",
            *OPTIONS,
            "-ftz=true",
            "--ptxas-options=-v",
        ]
        options += [f"-I{folder}" for folder in headers]
        given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        failed = library.nvrtcCompileProgram(program, len(options), given)
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        assert not failed, f"sm_{chip}:\n{log.value.decode()[:3000]}"
        if not ptx:
            return log.value.decode()
        library.nvrtcGetPTXSize(program, ctypes.byref(size))
        made = ctypes.create_string_buffer(size.value)
        library.nvrtcGetPTX(program, made)
        return made.value.decode()
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def by_nvcc(text: str, chip: str) -> str:
    """The log of nvcc.

    Raises:
        AssertionError: it refuses the text.
    """
    options = f"-cubin -arch=sm_{chip} -std=c++17 -Xptxas -v -x cu -o {os.devnull} -".split()
    done = subprocess.run([str(NVCC), *options], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"sm_{chip}:\n{done.stderr[:3000]}"
    return done.stderr


# ------------------------------------------------------------------------------------------------------------- variants
def table(*dtypes: str) -> list[Variant]:
    """What the rows of the case table compile."""
    collector: Any = Device(collect=True, processors=132)
    for case in CASES:
        for dtype in dtypes:
            run_case(collector, case, dtype)
    for case in more():
        run_case(collector, case, "float32")
    return list(dict.fromkeys((k.file, k.defines) for k in collector.kernels))


def large() -> list[Variant]:
    """The same kernels over more than 2^30 elements, and with 16-bit tensors."""
    wide = {"int": "long long", "INDEX": "long long"}
    made: list[Variant] = []
    for file, defines in first_of_each(table("float32", "float64")):
        made.append((file, tuple((n, wide.get(n, v)) for n, v in defines)))
        if file == "pool":
            made.append((file, (*defines, ("LAST", "1"))))
        for half in ("__half", "__nv_bfloat16"):
            if dict(defines).get("STORAGE") == "float":
                made.append((file, (("HALF", "1"), *((n, half if n == "STORAGE" else v) for n, v in defines))))
            elif file in ("pointwise", "reduce", "copy", "update", "random"):
                swap = [(n, v if n == "REAL" else re.sub(r"\bfloat\b", half, v)) for n, v in defines]
                made.append((file, (("HALF", "1"), *swap)))
    return made


def many() -> Variant:
    """update_many."""
    device: Any = Device(collect=True)

    def array(*shape: int) -> Any:
        return device.array(device.allocate(4096), 0, Spec(shape))

    rules = rule(["g", "lr"], ["w", "h"], "h = 0.9*h + lr*g; w = w - h")
    rate = array()
    together(device, rules, [((array(9), rate), (array(9), array(9))) for _ in range(2)])
    kernel: Kernel = device.kernels[-1]
    return kernel.file, kernel.defines


def own() -> list[Variant]:
    """Kernels that no row of the table reaches."""
    device: Any = Device(collect=True)
    spec, line = Spec((900, 8), "bfloat16"), Spec((8,))
    x, y, total = (device.array(device.allocate(s.nbytes), 0, s) for s in (spec, spec, line))
    for told in ({}, {"cut": Cut((900, 8), 1, (0, -1))}):
        attrs = {"expr": "a * 2", "axes": (0,), **told}
        call = Call(SUMMED, ((Tensor("x", spec),), Tensor("y", spec), Tensor("t", line)), attrs, Origin("l"))
        BODIES["summed"](device, call, [(x,), y, total], device.allocate(1 << 16))
    names, form = rule(["g", "lr"], ["w", "form"], "w = w - lr * g; form = w"), Spec((2, 3, 3, 4), "bfloat16")
    g, lr, w, made = (device.array(device.allocate(s.nbytes), 0, s) for s in (form, Spec(()), Spec((2, 4, 3, 3)), form))
    turned.together(device, names, 0, [((g, lr), (w,), (made,))])
    clear = "clear", (("FIRST", "float"), ("WORD", "Bytes16"), ("CHUNK", "4096"))
    return [clear, many(), *((k.file, k.defines) for k in device.kernels)]


def first_of_each(variants: Sequence[Variant]) -> list[Variant]:
    """One of each file and type of arithmetic."""
    found: dict[Any, Variant] = {}
    for file, defines in variants:
        found.setdefault((file, dict(defines).get("REAL", "")), (file, defines))
    return list(found.values())


USE = re.compile(
    r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", re.S
)
"""Name, spilled bytes and registers of a kernel in ptxas' log."""


def compile_them(jobs: Sequence[tuple[Variant, str]], report: dict[str, set[int]]) -> list[str]:
    """Compile; give back the kernels that spill registers to memory."""
    run = by_nvrtc if NVRTC else by_nvcc

    def one(job: tuple[Variant, str]) -> list[str]:
        (file, defines), chip = job
        spills = []
        for name, stores, loads, registers in USE.findall(run(source.source_of(file, defines), chip)):
            report[name].add(int(registers))
            if int(stores) or int(loads):
                spills.append(f"{name} on sm_{chip} with {dict(defines)}")
        return spills

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [text for texts in pool.map(one, jobs) for text in texts]


def test_every_file_is_compiled() -> None:
    compiled = {file for file, _ in [*table("float32"), *own()]}
    assert compiled | {"precision"} == set(source.files())  # test_device.py compiles that one


def test_files_compile_without_spills(capsys: pytest.CaptureFixture[str]) -> None:
    """Registers of every kernel are printed; one that spills fails."""
    report: dict[str, set[int]] = defaultdict(set)
    variants = [*first_of_each(table("float32")), *own(), ("precision", (("STORAGE", "__half"),))]
    spills = compile_them([(v, NEAREST) for v in variants], report)
    with capsys.disabled():
        print(f"\nsm_{NEAREST} registers:", ", ".join(f"{n} {max(r)}" for n, r in sorted(report.items())))
    assert not spills
    assert set(report) >= {name for file, _ in variants for name in source.kernels_of(file)}


@pytest.fixture(scope="session")
def everything() -> list[Variant]:
    """What the tables reach, and what programs of every layer and net really use, in every precision."""
    return list(dict.fromkeys([*table("float32"), *large(), *own(), *used.variants()]))


def one_of_each_form(variants: Sequence[Variant]) -> list[Variant]:
    """One for each file, set of names that are defined, and types: variants that differ in sizes or formulas alone
    differ in nothing that a chip could refuse."""
    found: dict[Any, Variant] = {}
    for file, defines in variants:
        types = tuple(v for n, v in defines if n in ("REAL", "STORAGE", "INDEX"))
        found.setdefault((file, frozenset(n for n, _ in defines), types), (file, defines))
    return list(found.values())


@pytest.mark.parametrize(
    ("chip", "all_of_them"),
    [*(pytest.param(c, False, marks=pytest.mark.slow, id=c) for c in CHIPS),
     pytest.param(NEAREST, True, marks=pytest.mark.exhaustive, id="all")],
)  # fmt: skip
def test_every_variant_compiles(
    chip: str, all_of_them: bool, everything: list[Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    """One of each form for every chip; before a release all of them for one. No list of them is kept by hand."""
    report: dict[str, set[int]] = defaultdict(set)
    chosen = everything if all_of_them else one_of_each_form(everything)
    spills = compile_them([(v, chip) for v in chosen], report)
    with capsys.disabled():
        print(f"\nsm_{chip}, {len(chosen)} variants, registers at most:",
              ", ".join(f"{n} {max(r)}" for n, r in sorted(report.items())))  # fmt: skip
    assert not spills


@pytest.mark.skipif(NVRTC is None, reason="reads PTX, which needs NVRTC: pip install nvidia-cuda-nvrtc")
def test_float_kernels_compute_in_float() -> None:
    """No function fell for the double of the C library, nothing indexes registers, and packs travel as 16 bytes."""
    wide = set()
    for file, defines in first_of_each(table("float32")):
        if dict(defines).get("REAL") != "float" or file == "loss":  # the sum of losses takes its divisor as a double
            continue
        for entry in by_nvrtc(source.source_of(file, defines), NEAREST, ptx=True).split(".visible .entry ")[1:]:
            name = entry.split("(")[0]
            body = [line.strip() for line in entry.splitlines()]
            assert not [
                line for line in body if ".f64" in line and not line.startswith((".param", ".reg", "ld.param"))
            ], name
            assert not [line for line in body if line.startswith(("ld.local", "st.local"))], name
            wide |= {name for line in body if re.match(r"(ld|st)\.global\S*\.v4", line)}
    assert wide >= {"pointwise", "update"}


def test_a_spill_would_be_seen() -> None:
    text = """extern "C" __global__ void __launch_bounds__(1024, 2) hungry(float *x) {
      float v[64];
      for (int r = 0; r < 3; ++r) {
        #pragma unroll
        for (int i = 0; i < 64; ++i) v[i] = x[i * 1024 + threadIdx.x] * (r ? v[63 - i] : 1.0f);
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x + r] = v[i] + v[(i * 7) % 64];
        __syncthreads();
      }
    }"""
    log = (by_nvrtc if NVRTC else by_nvcc)(text, NEAREST)
    assert any(int(stores) for _, stores, _, _ in USE.findall(log)), log
