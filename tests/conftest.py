"""``pytest --device cuda:0``: the tests that name a device, on that one.

Many tests have a turn with the device "cpu": parametrised over ``device``, or a row of test_golden.py with "cpu" in
its name. With the option that turn runs on the device given; other turns and all tests that name no device are left
out, and those marked ``gpu`` run too. ``--device stand-in`` is the device of layers_cuda on stand-ins for CuPy, cuDNN
and cuBLAS: its kernels run on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import netrun.device

STAND_IN = "stand-in"
RENAMED = pytest.StashKey[str]()
"""On a test that opens "cpu" by itself: what that shall be while it runs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    parser.addoption("--device", default="", help="run the tests that name a device on this one, and the gpu tests")
    parser.addoption("--shard", default="1/1", help="with --device: I/N runs every N-th of them, from the I-th on")


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
        name = _stand_in()
    kept = [item for item in items if item.get_closest_marker("gpu") or _moved(item, name)]
    first, shards = (int(part) for part in config.getoption("--shard").split("/"))
    kept = kept[first - 1 :: shards]
    left = set(items) - set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = kept


def _moved(item: pytest.Item, name: str) -> bool:
    """Let the test run on that device, if it is the turn of "cpu"."""
    given: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    if given.get("device") == "cpu":
        given["device"] = name
        return True
    if "cpu" in getattr(given.get("row"), "name", "").split():
        item.stash[RENAMED] = name
        return True
    return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """While a row of test_golden.py runs, "cpu" is the device of the option."""
    name = item.stash.get(RENAMED, "")
    if not name:
        return (yield)
    module = ModuleType("chosen_device")
    module.__dict__["chosen"] = lambda: netrun.device.open_device(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        patch.setitem(netrun.device._HOST, "cpu", (module.__name__, "chosen"))
        return (yield)


def _stand_in() -> str:
    """Let "cuda:0" be the stand-in in this process; returns that name."""
    sys.path.insert(0, str(Path(__file__).resolve().parent / "cuda"))
    import fakecupy
    import fakelibs

    import layers_cuda.device

    layers_cuda.device.open_device = cache(  # as the real one: the same each time
        lambda index: layers_cuda.device.Cuda(index, fakecupy, fakelibs.libraries())
    )
    return "cuda:0"
