"""CUDA kernels compiled by g++ through the shim cuda_cpu.h: a shared library for each source."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

SHIM = Path(__file__).resolve().parent / "cuda_cpu.h"
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-w", "-ffp-contract=off")
COMPILER = shutil.which("g++")


def compiled(code: str) -> ctypes.CDLL:
    """The shared library of one source, from the cache in the system's temp folder or freshly made by g++."""
    if COMPILER is None:
        raise RuntimeError("the stand-in needs g++")
    names = list(
        dict.fromkeys(
            re.findall(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(', code)
        )
    )
    # C++ names: a kernel may be called like a function of the C library.
    code = re.sub(r'extern\s+"C"\s+__global__', "__global__", code)
    code += "\n" + "\n".join(f"KERNEL_EXPORT({name})" for name in names)
    shim = SHIM.read_text()
    key = hashlib.sha256((code + shim + " ".join(FLAGS)).encode()).hexdigest()[:24]
    target = Path(tempfile.gettempdir()) / f"netrun_cuda_cpu_{os.getuid()}" / f"{key}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}.part")
        command = [COMPILER, *FLAGS, "-shared", "-include", str(_header(shim, target.parent)), "-x", "c++", "-", "-o"]
        made = subprocess.run([*command, str(part)], input=code, text=True, capture_output=True, check=False)
        if made.returncode:
            raise RuntimeError(f"g++ refuses the kernel:\n{made.stderr[:4000]}")
        part.rename(target)
    return ctypes.CDLL(str(target))


def _header(shim: str, folder: Path) -> Path:
    """The shim with a precompiled form beside it: parsing the C++ library is most of the time of a small file."""
    place = folder / hashlib.sha256((shim + " ".join(FLAGS)).encode()).hexdigest()[:16]
    header, ready = place / "cuda_cpu.h", place / "cuda_cpu.h.gch"
    if not ready.exists():
        place.mkdir(exist_ok=True)
        header.write_text(shim)
        part = place / f"{os.getpid()}.part"
        subprocess.run([str(COMPILER), *FLAGS, "-x", "c++-header", str(header), "-o", str(part)], check=True)
        part.rename(ready)
    return header
