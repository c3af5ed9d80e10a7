"""``import netrun`` costs nothing: no array library, no schema, no device."""

from __future__ import annotations

import subprocess
import sys

LIMIT_S = 0.2
HEAVY = {"numpy", "cupy", "google.protobuf", "lmdb", "h5py", "PIL", "netrun.config", "netrun.layers", "layers_cuda"}


def imported() -> tuple[float, set[str]]:
    """The processor's seconds that ``import netrun`` takes, and every module that is there then."""
    code = "import sys, time; t = time.process_time(); import netrun; print(time.process_time() - t, *sys.modules)"
    seconds, *modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    return float(seconds), set(modules)


def test_import_is_quick_and_light() -> None:
    """By the processor's time, and the best of some: how busy the machine is does not count."""
    runs = [imported() for _ in range(5)]
    assert "netrun" in runs[0][1]
    assert runs[0][1] & HEAVY == set()
    assert min(seconds for seconds, _ in runs) < LIMIT_S
