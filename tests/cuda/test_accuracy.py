"""tools/gpu/accuracy.py, which tools/gpu_check.sh trains MNIST and CIFAR-10 with: on other data, for two iterations."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("accuracy", ROOT / "tools" / "gpu" / "accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["accuracy"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """LeNet's files in a folder of their own, tested on one batch."""
    folder = tmp_path / "configs" / "mnist"
    shutil.copytree(ROOT / "configs" / "mnist", folder, ignore=shutil.ignore_patterns("*_lmdb"))
    solver = folder / "solver.prototxt"
    solver.write_text(solver.read_text().replace("test_iter: 100 ", "test_iter: 1 "))
    return folder.parent


def idx(path: Path, values: np.ndarray) -> None:  # type: ignore[type-arg]
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes())


def test_without_data(tool: ModuleType, configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--prepare"], []):
        given = ["mnist", "--device", "cpu", "--configs", str(configs), "--data", str(tmp_path / "gone"), *more]
        assert tool.main(given) == tool.ABSENT
        assert "left out" in capsys.readouterr().out


def test_the_accuracy_decides(
    tool: ModuleType, configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files become databases, once; the verdict is the exit status."""
    data = tmp_path / "data" / "mnist"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("train", "t10k"):
        idx(data / f"{name}-images-idx3-ubyte", rng.integers(0, 256, (100, 28, 28), np.uint8))
        idx(data / f"{name}-labels-idx1-ubyte", rng.integers(0, 10, 100).astype(np.uint8))
    given = ["mnist", "--device", "cpu", "--configs", str(configs), "--data", str(data.parent), "--iterations", "2"]
    assert tool.main([*given, "--prepare"]) == 0
    shutil.rmtree(data)
    assert tool.main(given) == 1
    assert "mnist on cpu, FP32: accuracy 0." in (text := capsys.readouterr().out)
    assert "0.988 MISSED; 2 iterations" in text
    monkeypatch.setitem(tool.TASKS, "mnist", tool.Task(tool.TASKS["mnist"].solver, tool.TASKS["mnist"].databases, 0.0))
    assert tool.main(given) == 0
    assert not list(configs.rglob("*.caffemodel"))
