"""What the source archive and the wheel hold. Both are built here, offline, from a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from netrun.version import __version__

ROOT = Path(__file__).parents[1]
PARTS = ("netrun", "layers_cuda", "proto", "configs", "tools", "tests", ".ci")
SCHEMA = "netrun/config/schema"
COMPILED = {
    f"{SCHEMA}/{name}" for name in ("schema.desc", "comments.desc", "layer_pb2.pyi", "legacy_pb2.pyi", "netrun_pb2.pyi")
}

pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True)


def build(tree: Path, out: Path, *kinds: str) -> list[Path]:
    """Run the `build` tool without an environment of its own; the files that it made."""
    pytest.importorskip("build", reason="the tool `build` is not installed (it is in the extra test)")
    done = run(
        sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(out), str(tree), cwd=tree.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout that can be built in without touching it."""
    copy = tmp_path_factory.mktemp("checkout") / "source"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, copy)
        elif path.name in PARTS:
            shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def archives(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from it."""
    wheel, sdist = build(tree, tmp_path_factory.mktemp("dist"))
    return sdist, wheel


def sources(tree: Path, *folders: str) -> set[str]:
    """The Python and CUDA files in these folders, relative to the tree."""
    found = (path for folder in folders for path in (tree / folder).rglob("*"))
    return {path.relative_to(tree).as_posix() for path in found if path.suffix in {".py", ".cu", ".cuh"}}


def test_wheel_holds_both_packages_and_nothing_else(tree: Path, archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert archives[1].name == f"netrun_trainer-{__version__}-py3-none-any.whl"
    assert names == sources(tree, "netrun", "layers_cuda") | COMPILED | {"netrun/py.typed", "layers_cuda/py.typed"}


def test_wheel_says_what_it_is(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        info = f"netrun_trainer-{__version__}.dist-info"
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        commands = wheel.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert metadata["Name"] == "netrun-trainer"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "BSD-2-Clause"
    assert metadata["Requires-Python"] == ">=3.10"
    core = {re.split("[<>=;]", line)[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert core == {"numpy", "protobuf", "lmdb", "onednn-cpu-gomp"}  # the last one where its wheel exists
    assert "netrun = netrun.cli:main" in commands


def test_source_archive_builds_tests_and_trains(tree: Path, archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[0]) as sdist:
        top = f"netrun_trainer-{__version__}/"
        names = {m.name.removeprefix(top) for m in sdist.getmembers() if m.isfile()}
    wanted = {path.name for path in tree.iterdir() if path.is_file() and not path.name.startswith(".")}
    wanted |= {
        path.relative_to(tree).as_posix()
        for folder in ("proto", "tests", "configs", "tools")
        for path in (tree / folder).rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".caffemodel", ".solverstate", ".h5"}
    }
    wanted |= sources(tree, "netrun", "layers_cuda") | {"tests/golden/weights/plain.caffemodel"}
    assert wanted - names == set()
    assert names & COMPILED == set()
    assert [name for name in names if name.endswith(".pyc") or name.startswith(("build/", "dist/"))] == []


def test_leftovers_of_earlier_builds_stay_out(tree: Path, tmp_path: Path) -> None:
    """Stale descriptors beside the sources and modules of an old build must not get into a wheel."""
    shutil.copytree(tree, tmp_path / "used")
    old_module = tmp_path / "used/build/lib/netrun/gone.py"
    old_module.parent.mkdir(parents=True)
    old_module.touch()
    (tmp_path / "used" / SCHEMA / "schema.desc").write_bytes(b"")
    (wheel_file,) = build(tmp_path / "used", tmp_path / "dist", "--wheel")
    with zipfile.ZipFile(wheel_file) as wheel:
        assert "netrun/gone.py" not in wheel.namelist()
        files = FileDescriptorSet.FromString(wheel.read(f"{SCHEMA}/schema.desc")).file
    assert [file.name for file in files] == [f"{SCHEMA}/{name}.proto" for name in ("layer", "legacy", "netrun")]


def test_without_the_schema_compiler_the_build_says_what_to_install(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "grpc_tools.py").write_text("raise ImportError('no module grpc_tools')")
    done = run(
        sys.executable, "setup.py", "build_py", "--build-lib", str(tmp_path / "lib"), cwd=tree, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode != 0
    assert "python -m pip install grpcio-tools" in done.stderr
    assert "Traceback" not in done.stderr
