"""Downloads against a server on this machine: resuming, checksums, mirrors."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netrun.data.download import content_digest, download
from netrun.data.sets import MNIST_FILES, make_mnist
from netrun.errors import DataError

CONTENT = bytes(range(256)) * 1500
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``; notes every request; ``cut`` ends answers early, ``ranges`` says whether parts are served."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.cut: list[int] = []
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.requests.append((self.path, asked))
        content = self.server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        start = 0
        if self.server.ranges and (match := re.fullmatch(r"bytes=(\d+)-", asked)):
            start = int(match[1])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = self.server.cut.pop(0) if self.server.cut else len(content)
        self.wfile.write(content[start:stop])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_fetches_checks_and_reports(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"] = CONTENT
    told: list[tuple[str, int, int]] = []
    target = tmp_path / "new" / "a.bin"
    assert download([server.url + "a.bin"], target, SHA256, progress=lambda *at: told.append(at)) == target
    assert target.read_bytes() == CONTENT
    assert told[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert names(target.parent) == ["a.bin"]
    download([server.url + "a.bin"], target, SHA256)
    assert len(server.requests) == 1  # it is there and right


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_resumed(ranges: bool, server: Server, tmp_path: Path) -> None:
    server.files["a.bin"], server.ranges, server.cut = CONTENT, ranges, [100_000, 250_000]
    download([server.url + "a.bin"], tmp_path / "a.bin", SHA256, pause=0)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=100000-", "bytes=250000-"]


def test_a_later_call_resumes_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"], server.cut = CONTENT, [1000]
    with pytest.raises(DataError, match="ended after 1000 of 384000 bytes"):
        download([server.url + "a.bin"], tmp_path / "a.bin", SHA256, attempts=1)
    download([server.url + "a.bin"], tmp_path / "a.bin", SHA256)
    assert server.requests[-1] == ("/a.bin", "bytes=1000-")
    assert names(tmp_path) == ["a.bin"]


def test_a_stale_part_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"], server.cut = CONTENT, [1000]
    with pytest.raises(DataError):
        download([server.url + "a.bin"], tmp_path / "a.bin", SHA256, attempts=1)
    (part,) = tmp_path.iterdir()
    for stale in (b"?" * 1000, b"?" * len(CONTENT), CONTENT + b"?"):
        part.write_bytes(stale)
        download([server.url + "a.bin"], tmp_path / "a.bin", SHA256, pause=0)
        assert (tmp_path / "a.bin").read_bytes() == CONTENT
        (tmp_path / "a.bin").unlink()


def test_a_wrong_checksum_is_refused_and_the_next_mirror_tried(server: Server, tmp_path: Path) -> None:
    server.files["bad"], server.files["good"] = CONTENT[::-1], CONTENT
    urls = [server.url + name for name in ("absent", "bad", "good")]
    download(urls, tmp_path / "a.bin", SHA256, attempts=2, pause=0)
    assert [path for path, _ in server.requests] == ["/absent"] * 2 + ["/bad"] * 2 + ["/good"]
    assert names(tmp_path) == ["a.bin"]
    with pytest.raises(DataError) as caught:
        download(urls[:2], tmp_path / "b.bin", SHA256, attempts=1)
    text = str(caught.value)
    assert "b.bin could not be downloaded" in text
    assert f"{urls[0]}: the server says 404" in text
    assert f"{urls[1]}: the file there has another checksum" in text
    assert "--from DIR" in text
    assert names(tmp_path) == ["a.bin"]


def test_a_silent_or_absent_server_is_a_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(DataError, match="refused"):
        download([f"http://127.0.0.1:{port}/x"], tmp_path / "x", SHA256, attempts=1)
    with pytest.raises(DataError, match="could not be downloaded"):
        download(["nonsense"], tmp_path / "x", SHA256, attempts=1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(DataError, match="timed out"):
            download([url], tmp_path / "x", SHA256, attempts=1, timeout=0.1)


def test_the_checksum_of_the_content_does_not_depend_on_the_compression(tmp_path: Path) -> None:
    for level in (1, 9):
        (tmp_path / "a.gz").write_bytes(gzip.compress(CONTENT, level))
        assert content_digest(tmp_path / "a.gz") == SHA256
    (tmp_path / "a.gz").write_bytes(gzip.compress(CONTENT)[:-20])
    assert content_digest(tmp_path / "a.gz") == ""
    (tmp_path / "a.gz").write_bytes(CONTENT)
    assert content_digest(tmp_path / "a.gz") == ""


def test_mnist_is_downloaded_checked_and_made(server: Server, tmp_path: Path) -> None:
    shared = Path(__file__).parents[2].parent / "shared" / "data" / "mnist"
    if not shared.is_dir():
        pytest.skip("the MNIST files are not beside the checkout (../shared/data/mnist)")
    for name in MNIST_FILES:
        server.files[f"{name}.gz"] = (shared / f"{name}.gz").read_bytes()
    made = make_mnist(tmp_path, mirrors=(server.url,))
    assert [p.name for p in made] == ["mnist_train_lmdb", "mnist_test_lmdb"]
    assert len(server.requests) == 4
    make_mnist(tmp_path, mirrors=(server.url,))
    assert len(server.requests) == 4
