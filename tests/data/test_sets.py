"""MNIST and CIFAR-10 from the forms people have them in."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.data.cifar import NAMES, read_cifar10
from netrun.data.datum import parse
from netrun.data.idx import IMAGES, LABELS, read_idx
from netrun.data.lmdb_file import LmdbFile
from netrun.data.sets import make_cifar10, make_mnist
from netrun.data.stats import read_mean
from netrun.errors import DataError

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def read(path: Path) -> tuple[list[bytes], list[Bytes], list[int]]:
    database = LmdbFile(str(path))
    pairs = [database.read(i) for i in range(database.count)]
    database.close()
    records = [parse(value) for _, value in pairs]
    return [key for key, _ in pairs], [r.values() for r in records], [r.label for r in records]  # type: ignore[misc]


# -- MNIST -------------------------------------------------------------------------------------------------------------


def idx(magic: int, values: Bytes) -> bytes:
    return struct.pack(f">I{values.ndim}I", magic, *values.shape) + values.tobytes()


def mnist_folder(folder: Path, pack: Any = gzip.compress, suffix: str = ".gz") -> dict[str, Bytes]:
    rng = np.random.default_rng(1)
    arrays: dict[str, Bytes] = {}
    for prefix, count in (("train", 13), ("t10k", 5)):
        arrays[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte"] = rng.integers(0, 10, count, dtype=np.uint8)
    folder.mkdir(exist_ok=True)
    for name, values in arrays.items():
        (folder / f"{name}{suffix}").write_bytes(pack(idx(IMAGES if values.ndim == 3 else LABELS, values)))
    return arrays


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (bytes, "")])
def test_mnist_becomes_two_databases(pack: Any, suffix: str, tmp_path: Path) -> None:
    arrays = mnist_folder(tmp_path / "in", pack, suffix)
    told: list[tuple[str, int, int]] = []
    made = make_mnist(tmp_path / "out", tmp_path / "in", progress=lambda *at: told.append(at))
    assert [p.name for p in made] == ["mnist_train_lmdb", "mnist_test_lmdb"]
    assert told == [("mnist_train_lmdb", 13, 13), ("mnist_test_lmdb", 5, 5)]
    keys, pixels, labels = read(made[0])
    assert keys == [b"%08d" % i for i in range(13)]
    np.testing.assert_array_equal(np.stack(pixels)[:, 0], arrays["train-images-idx3-ubyte"])
    assert labels == arrays["train-labels-idx1-ubyte"].tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx(LABELS, np.zeros(3, np.uint8)), "begins with 2049, wanted 2051"),
        (
            "train-labels-idx1-ubyte",
            idx(LABELS, np.zeros(3, np.uint8)),
            "has 13 images, but .*train-labels-idx1-ubyte.gz has 3 labels",
        ),
        ("train-labels-idx1-ubyte", idx(LABELS, np.full(13, 11, np.uint8)), "label 0 is 11, wanted 0 to 9"),
        ("train-images-idx3-ubyte", idx(IMAGES, np.zeros((9, 28, 28), np.uint8))[:-5], "truncated: 7067 .* need 7072"),
        ("train-images-idx3-ubyte", idx(IMAGES, np.zeros((1, 2, 2), np.uint8)) + b"x", "longer than it should be"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0", "truncated: 6 bytes"),
        ("train-images-idx3-ubyte", b"", "begins with 0"),
    ],
)
def test_a_wrong_idx_file_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    mnist_folder(tmp_path / "in")
    path = tmp_path / "in" / f"{name}.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=message if name in message else f"{name}.*{message}"):
        make_mnist(tmp_path / "out", tmp_path / "in")


def test_a_truncated_or_absent_gz_file_is_named(tmp_path: Path) -> None:
    mnist_folder(tmp_path / "in")
    path = tmp_path / "in" / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for size in (len(whole) - 4, len(whole) // 2, 12):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
            read_idx(path, IMAGES)
    path.unlink()
    with pytest.raises(DataError, match=r"holds neither t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte\.gz"):
        make_mnist(tmp_path / "out", tmp_path / "in")
    with pytest.raises(DataError, match="nowhere is not there"):
        make_mnist(tmp_path / "out", tmp_path / "nowhere")


def test_a_set_without_images_is_refused(tmp_path: Path) -> None:
    mnist_folder(tmp_path / "in")
    (tmp_path / "in" / "train-images-idx3-ubyte").write_bytes(idx(IMAGES, np.zeros((0, 28, 28), np.uint8)))
    (tmp_path / "in" / "train-labels-idx1-ubyte").write_bytes(idx(LABELS, np.zeros(0, np.uint8)))
    with pytest.raises(DataError, match="train-images-idx3-ubyte holds no images"):
        make_mnist(tmp_path / "out", tmp_path / "in")


def test_the_real_mnist(tmp_path: Path) -> None:
    if not (SHARED / "mnist").is_dir():
        pytest.skip("the MNIST files are not beside the checkout (../shared/data/mnist)")
    test = make_mnist(tmp_path, SHARED / "mnist")[1]
    _, pixels, labels = read(test)
    assert len(labels) == 10000
    assert labels[:10] == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.stack(pixels).mean() == pytest.approx(33.79, abs=0.01)


# -- CIFAR-10 ----------------------------------------------------------------------------------------------------------


def cifar_arrays() -> dict[str, tuple[Bytes, list[int]]]:
    """Four images a batch; smooth ones, so that JPEG changes them little."""
    rng = np.random.default_rng(1)
    arrays = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        colours = rng.integers(30, 220, (4, 3, 1, 1))
        ramp = np.arange(32)[None, None, :, None] // 2 + np.arange(32)[None, None, None, :] // 4
        arrays[name] = ((colours + ramp).astype(np.uint8), rng.integers(0, 10, 4).tolist())
    return arrays


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def binary_files() -> dict[str, bytes]:
    return {
        f"cifar-10-batches-bin/{name}.bin": b"".join(
            bytes([label]) + image.tobytes() for image, label in zip(*batch, strict=True)
        )
        for name, batch in cifar_arrays().items()
    }


def pickled_files(protocol: int = 2) -> dict[str, bytes]:
    return {
        f"cifar-10-batches-py/{name}": pickle.dumps({b"data": pixels.reshape(4, 3072), b"labels": labels}, protocol)
        for name, (pixels, labels) in cifar_arrays().items()
    }


def image_files(kind: str) -> dict[str, bytes]:
    image = pytest.importorskip("PIL.Image", reason="encoding test images needs Pillow")
    files = {}
    for name, (pixels, labels) in cifar_arrays().items():
        for i, (planes, label) in enumerate(zip(pixels, labels, strict=True)):
            out = io.BytesIO()
            image.fromarray(planes.transpose(1, 2, 0)).save(out, kind, **({"quality": 98} if kind == "JPEG" else {}))
            split = "test" if name == "test_batch" else "train"
            files[f"{split}/{NAMES[label]}/{name}_{i}.{kind.lower()}"] = out.getvalue()
    return files


def sorted_rows(pixels: Any, labels: Any) -> list[tuple[int, ...]]:
    return sorted((int(label), *image.reshape(-1).tolist()) for image, label in zip(pixels, labels, strict=True))


@pytest.mark.parametrize("kind", ["binary", "pickled", "PNG", "JPEG"])
@pytest.mark.parametrize("form", ["archive", "folder", "folder with archive"])
def test_all_forms_of_cifar_agree(kind: str, form: str, tmp_path: Path) -> None:
    files = {"binary": binary_files, "pickled": pickled_files}.get(kind, lambda: image_files(kind))()
    files["readme.html"] = b"<html>"
    source = tmp_path / "cifar-10.tar.gz"
    if form == "folder":
        source = tmp_path / "in"
        for name, content in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
    else:
        source.write_bytes(tar_of(files))
    (train, labels), (test, _) = read_cifar10(source if form != "folder with archive" else tmp_path)
    arrays = cifar_arrays()
    wanted = np.concatenate([arrays[f"data_batch_{i}"][0] for i in range(1, 6)])
    wanted_labels = [label for i in range(1, 6) for label in arrays[f"data_batch_{i}"][1]]
    assert train.shape == (20, 3, 32, 32)
    assert test.shape == (4, 3, 32, 32)
    got, expected = sorted_rows(train, labels), sorted_rows(wanted, wanted_labels)
    np.testing.assert_allclose(got, expected, atol=6 if kind == "JPEG" else 0)


def test_cifar_becomes_databases_and_a_mean(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tar_of(binary_files()))
    told: list[str] = []
    made = make_cifar10(tmp_path / "out", tmp_path / "a.tar.gz", progress=lambda what, *_: told.append(what))
    assert [p.name for p in made] == ["cifar10_train_lmdb", "cifar10_test_lmdb", "mean.binaryproto"]
    assert set(told) == {"cifar10", "cifar10_train_lmdb", "cifar10_test_lmdb", "mean.binaryproto"}
    arrays = cifar_arrays()
    in_file = np.concatenate([arrays[f"data_batch_{i}"][0] for i in range(1, 6)])
    _, train, labels = read(made[0])
    file_labels = [label for i in range(1, 6) for label in arrays[f"data_batch_{i}"][1]]
    assert sorted_rows(train, labels) == sorted_rows(in_file, file_labels)
    assert not np.array_equal(np.stack(train), in_file)  # shuffled
    _, test, test_labels = read(made[1])
    np.testing.assert_array_equal(np.stack(test), arrays["test_batch"][0])
    assert test_labels == arrays["test_batch"][1]
    np.testing.assert_allclose(read_mean(str(made[2])), in_file.mean(axis=0), rtol=1e-6)
    again = make_cifar10(tmp_path / "again", tmp_path / "a.tar.gz")
    assert read(again[0])[2] == labels
    other = make_cifar10(tmp_path / "other", tmp_path / "a.tar.gz", seed=2)
    assert read(other[0])[2] != labels or not np.array_equal(read(other[0])[1], train)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("this must never run",))


def test_a_pickle_cannot_run_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = pickled_files()
    files["cifar-10-batches-py/data_batch_3"] = pickle.dumps({b"data": Evil(), b"labels": [1]}, 2)
    (tmp_path / "a.tar.gz").write_bytes(tar_of(files))
    with pytest.raises(DataError, match=r"data_batch_3 is no batch.*print, which no data set needs"):
        read_cifar10(tmp_path / "a.tar.gz")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cifar-10-batches-bin/data_batch_2.bin": b"x" * 3072}, "data_batch_2.bin has 3072 bytes, wanted a multiple"),
        ({"cifar-10-batches-bin/data_batch_2.bin": b"\x0b" + bytes(3072)}, "data_batch_2.bin: label 0 is 11, wanted"),
        ({"cifar-10-batches-bin/data_batch_2.bin": None}, "lacks data_batch_2"),
        ({"cifar-10-batches-py/data_batch_1": b"\x80\x02garbage"}, "data_batch_1 is no batch"),
        ({"x/data_batch_1": pickle.dumps({b"data": np.zeros((2, 9), np.uint8), b"labels": [1, 2]})}, "N x 3072"),
        ({"train/airplane/1.jpg": b"no image"}, "airplane/1.jpg cannot be used"),
        ({"train/plane/1.jpg": b"no image"}, "plane is no class"),
    ],
)
def test_what_is_wrong_with_cifar_is_named(change: dict[str, bytes | None], message: str, tmp_path: Path) -> None:
    files = {name: content for name, content in {**binary_files(), **change}.items() if content is not None}
    (tmp_path / "a.tar.gz").write_bytes(tar_of(files))
    with pytest.raises(DataError, match=message):
        read_cifar10(tmp_path / "a.tar.gz")


def test_what_is_no_cifar_is_refused(tmp_path: Path) -> None:
    whole = tar_of(binary_files())
    for content, message in [
        (whole[: len(whole) // 2], "cannot be read|lacks"),
        (b"garbage" * 100, "cannot be read"),
        (tar_of({"a": b"b"}), "holds no train images"),
        (tar_of({k: v for k, v in image_files("PNG").items() if k.startswith("train")}), "holds no test images"),
    ]:
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.tar\.gz.*(?:{message})"):
            read_cifar10(tmp_path / "a.tar.gz")
