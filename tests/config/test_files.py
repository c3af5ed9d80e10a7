"""Whole files or none, and the files that names mean."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from netrun.config.files import replacing
from netrun.config.paths import resolve


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with replacing(path) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["w"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with replacing(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["w"]


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    with replacing(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with replacing(tmp_path / "w") as stream:
        stream.write(b"x")
    assert (tmp_path / "w").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "no" / "w"):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_device_is_written_to_and_stays(tmp_path: Path) -> None:
    """Who may write into /dev would otherwise have a file in the place of /dev/null."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with replacing(link) as stream:
            stream.write(b"new")
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no /dev/full")
def test_a_full_device_is_an_os_error() -> None:
    with pytest.raises(OSError, match="No space"), replacing("/dev/full") as stream:
        stream.write(b"new")
    assert Path("/dev/full").is_char_device()


def test_a_kill_in_the_middle_leaves_the_last_good_file(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from netrun.config.files import replacing
with replacing(sys.argv[1]) as stream:
    stream.write(b"first")
with replacing(sys.argv[1]) as stream:
    stream.write(b"second, and then")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "w"
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"first"


def test_names_are_relative_to_the_working_directory_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    assert resolve("net", str(there)) == "net", "nothing is anywhere"
    (there / "net").touch()
    assert resolve("net", str(there)) == str(there / "net")
    assert resolve("net", "") == "net"
    (here / "net").touch()
    assert resolve("net", str(there)) == "net"
    assert resolve(str(there / "x"), str(there)) == str(there / "x"), "absolute names stay"
    assert resolve("", str(there)) == ""
