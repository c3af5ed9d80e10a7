"""Values of blobs into files: .npy, .npz, HDF5, or a database of float records, as Caffe's extract_features writes."""

from __future__ import annotations

import math
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..config import schema
from ..config.files import replacing
from ..errors import DataError, missing_extra
from .write import WRITERS

Array = npt.NDArray[Any]

HDF5_ENDINGS = (".h5", ".hdf5")


def write_features(
    out: str | os.PathLike[str], batches: Iterable[Mapping[str, Array]], backend: str = ""
) -> list[Path]:
    """Writes the batches of every blob one below the other; returns what was made.

    ``out`` ending in .npz, .h5 or .hdf5 is a file with an array for each blob. Else it is a folder with a .npy file
    for each ("/" in a name becomes "_"). With ``backend`` "lmdb" or "leveldb" it is a database (of several blobs: a
    folder with a database for each), of float records C x H x W with the keys 0000000000, 0000000001...

    A blob without axes counts as one row. Nothing is under its name before it is complete; what is there is replaced.

    Raises:
        DataError: there are no batches, the shapes of rows differ, or the disk refuses.
        UsageError: an extra (h5py, plyvel) is needed and not installed.
    """
    target = Path(out)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", suffix=".partial") as folder:
            # The values wait on the disk: they may be more than the memory, and no kind of file takes them by turns.
            spools: dict[str, _Spool] = {}
            try:
                for batch in batches:
                    for name, values in batch.items():
                        if name not in spools:
                            spools[name] = _Spool(name, Path(folder) / str(len(spools)))
                        spools[name].add(values)
                arrays = {name: spool.array() for name, spool in spools.items()}
                if not arrays:
                    raise DataError(f"there are no batches to write into {target}")
                return _write(target, arrays, backend)
            finally:
                for spool in spools.values():
                    spool.close()
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror or error}") from None


class _Spool:
    """The rows of one blob on their way."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._stream: IO[bytes] = path.open("wb")
        self._row: tuple[int, ...] | None = None
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        self._rows = 0

    def add(self, values: Array) -> None:
        rows = np.ascontiguousarray(values).reshape(np.shape(values) or (1,))
        if self._row is None:
            self._row, self._dtype = rows.shape[1:], rows.dtype
        if rows.shape[1:] != self._row:
            raise DataError(f'rows of blob "{self._name}" have changed from {self._row} to {rows.shape[1:]}')
        self._stream.write(rows.tobytes())
        self._rows += len(rows)

    def array(self) -> Array:
        self._stream.close()
        if not self._rows:
            raise DataError(f'blob "{self._name}" has no rows')
        return np.memmap(self._path, self._dtype, "r", shape=(self._rows, *(self._row or ())))

    def close(self) -> None:
        self._stream.close()


def _write(target: Path, arrays: dict[str, Array], backend: str) -> list[Path]:
    if backend:
        paths = {name: target / _file_name(name) if len(arrays) > 1 else target for name in arrays}
        for name, array in arrays.items():
            WRITERS[backend](paths[name], _records(array))
        return list(paths.values())
    ending = target.suffix.lower()
    if ending in HDF5_ENDINGS:
        _write_hdf5(target, arrays)
        return [target]
    if ending == ".npz":
        # Not np.savez, whose own parameters are names that a blob may have.
        with replacing(target) as stream, zipfile.ZipFile(stream, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        return [target]
    target.mkdir(exist_ok=True)
    made = []
    for name, array in arrays.items():
        made.append(target / f"{_file_name(name)}.npy")
        with replacing(made[-1]) as stream:
            np.save(stream, array)
    return made


def _write_hdf5(target: Path, arrays: dict[str, Array]) -> None:
    try:
        import h5py
    except ImportError:
        raise missing_extra(f"writing {target}", "h5py", "hdf5") from None
    with replacing(target) as stream, h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)


def _file_name(blob: str) -> str:
    return blob.replace("/", "_")


def _records(array: Array) -> Iterator[tuple[bytes, schema.Datum]]:
    shape = [*array.shape[1:4], 1, 1, 1][:3]
    if array.ndim > 4:
        shape[2] = math.prod(array.shape[3:])
    for number, row in enumerate(array):
        datum = schema.Datum(channels=shape[0], height=shape[1], width=shape[2])
        datum.float_data.extend(np.asarray(row, np.float32).reshape(-1).tolist())
        yield b"%010d" % number, datum


__all__ = ["HDF5_ENDINGS", "write_features"]
