"""``netrun devices``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform

from ..compiler.summary import size_text, table
from ..device import open_device
from ..errors import NetrunError
from . import results

_EXTRAS = (
    ("PIL", "images", "JPEG and PNG images"),
    ("h5py", "hdf5", "HDF5 weights and data"),
    ("plyvel", "leveldb", "LevelDB databases"),
)


def run(args: argparse.Namespace) -> int:
    """Print what can run here; returns the exit code.

    Raises:
        DeviceError, UsageError: a GPU asked for with --gpu cannot be used.
    """
    if args.gpu:
        numbers = "0" if args.gpu == "all" else args.gpu
        for number in numbers.split(","):
            open_device(f"cuda:{number}")
        lines = [line for line in _gpu() if line.startswith("cuda:")]
        wanted = [f"cuda:{number}" for number in args.gpu.split(",")]
        chosen = [line for line in lines if args.gpu == "all" or line.split()[0] in wanted]
        if args.json:
            results.print_json(chosen)
        else:
            print("\n".join(chosen))
        return 0
    gpu, reason = "", ""
    try:
        gpu = open_device("cuda:0").name
    except NetrunError as error:
        reason = str(error).partition("\n")[0].removeprefix('device "cuda:0": ')
    missing = {extra: what for module, extra, what in _EXTRAS if importlib.util.find_spec(module) is None}
    processor, cores, memory = _processor(), os.cpu_count() or 1, _memory()
    if args.json:
        results.print_json(
            {
                "cpu": {"name": processor, "cores": cores, "memory_bytes": memory},
                "devices": ["cpu", "reference", "null", *([gpu] if gpu else [])],
                "gpu_missing": reason,
                "gpu": _gpu(),
                "missing_extras": sorted(missing),
            }
        )
        return 0
    size = f", {size_text(memory)}" if memory else ""
    rows = [
        ("cpu", f"{processor}, {cores} core{'s' if cores > 1 else ''}{size}"),
        ("", getattr(open_device("cpu"), "note", "")),
        ("reference", "NumPy, plain and slow: what the others are held against"),
        ("null", "no arithmetic: plans, and measures what netrun itself costs"),
        (gpu or "cuda", "a GPU" if gpu else f"none: {reason}"),
    ]
    if gpu or importlib.util.find_spec("cupy") is not None:
        rows += [("", line) for line in _gpu()]
    rows += [("", f"{what} need pip install 'netrun-trainer[{extra}]'") for extra, what in missing.items()]
    print("\n".join(table(rows)))
    return 0


def _gpu() -> list[str]:
    """What the CUDA layers say of driver, libraries and cards; found by name, as a CPU-only install may lack them."""
    lines: list[str] = importlib.import_module("layers_cuda.device").describe()
    return lines


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    """Bytes of memory; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
