"""``import netrun`` costs nothing: no array library, no schema, no device."""

from __future__ import annotations

import subprocess
import sys

LIMIT_S = 0.2
HEAVY = {"numpy", "cupy", "google.protobuf", "lmdb", "h5py", "PIL", "netrun.config", "netrun.layers", "layers_cuda"}


def imported() -> dict[str, int]:
    """Every module that ``import netrun`` loads, with the microseconds that it and what it loads took."""
    command = [sys.executable, "-X", "importtime", "-c", "import netrun"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    # "import time:   self [us] | cumulative | module", the module indented by its depth
    rows = [line.removeprefix("import time:").split("|") for line in lines if line.startswith("import time:")]
    return {module.strip(): int(total) for _, total, module in rows if total.strip().isdigit()}


def test_import_is_quick_and_light() -> None:
    runs = [imported() for _ in range(5)]
    assert set(runs[0]) & HEAVY == set()
    # the best of them, since a busy machine slows down some
    assert min(run["netrun"] for run in runs) < LIMIT_S * 1e6
