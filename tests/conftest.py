"""``pytest --device cuda:0``: the tests that name a device, on that one.

A test that is parametrised over ``device`` has a turn with "cpu". With the option that turn runs on the device given;
other turns and all tests that name no device are left out, and those marked ``gpu`` run too. ``--device stand-in`` is
the device of layers_cuda on stand-ins for CuPy, cuDNN and cuBLAS: its kernels run on the CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

STAND_IN = "stand-in"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption("--device", default="", help="run the tests that name a device on this one, and the gpu tests")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what the option asks for."""
    name = config.getoption("--device")
    if not name:
        reason = pytest.mark.skip(reason="needs a GPU: pytest --device cuda:0")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(reason)
        return
    if name == STAND_IN:
        _stand_in()
    kept = []
    for item in items:
        given = getattr(item, "callspec", None)
        if item.get_closest_marker("gpu"):
            kept.append(item)
        elif given is not None and given.params.get("device") == "cpu":
            given.params["device"] = "cuda:0" if name == STAND_IN else name
            kept.append(item)
    left = set(items) - set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = kept


def _stand_in() -> None:
    """Let "cuda:0" be the stand-in in this process."""
    sys.path.insert(0, str(Path(__file__).resolve().parent / "cuda"))
    import fakecupy
    import fakelibs

    import layers_cuda.device

    layers_cuda.device.open_device = lambda index: layers_cuda.device.Cuda(index, fakecupy, fakelibs.libraries())
