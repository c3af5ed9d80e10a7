"""The scripts of configs/python run, and find what they say."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "configs" / "python"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(SCRIPTS) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_surgery(script: Any) -> None:
    assert script("surgery").main() < 1e-5


def test_filters(script: Any, tmp_path: Path) -> None:
    assert script("filters").main("f.png") == "f.png"
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_finetune(script: Any) -> None:
    before, after = script("finetune").main()
    assert before < 0.8 < after


def test_python_layer(script: Any) -> None:
    assert script("python_layer").main() < 1e-5


def test_netspec(script: Any) -> None:
    first, last = script("netspec").main()
    assert last < 0.5 * first


@pytest.mark.parametrize("name", ["python_layer", "surgery"])
def test_as_programs(name: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "differ" in found.stdout
