"""Layers that are a step on the host: HDF5Output."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any

from ..config.files import replacing
from ..errors import DataError, missing_extra
from ..kernels import Kernels
from ..types import Spec
from .base import Layer

DATASETS = ("data", "label")
"""Names in the file, one a bottom."""


class Hdf5Writer:
    """Rows appended to the datasets of one file, which is there, whole, after ``close``.

    Nothing is written before the first rows. If nobody closes it, the end of the program does.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        self._file: Any = None
        weakref.finalize(self, self._stack.close)

    def append(self, arrays: Sequence[Any]) -> None:
        """One more batch.

        Raises:
            DataError: the file cannot be written.
            UsageError: h5py is not installed.
        """
        try:
            if self._file is None:
                self._open(arrays)
            for name, rows in zip(DATASETS, arrays, strict=True):
                dataset = self._file[name]
                count = dataset.shape[0]
                dataset.resize(count + rows.shape[0], axis=0)
                dataset[count:] = rows
        except OSError as error:
            raise DataError(f'"{self.path}" cannot be written: {error}') from None

    def _open(self, arrays: Sequence[Any]) -> None:
        try:
            import h5py
        except ImportError:
            raise missing_extra("an HDF5Output layer", "h5py", "hdf5") from None
        stream = self._stack.enter_context(replacing(self.path))
        self._file = self._stack.enter_context(h5py.File(stream, "w"))
        for name, rows in zip(DATASETS, arrays, strict=True):
            self._file.create_dataset(name, (0, *rows.shape[1:]), rows.dtype, maxshape=(None, *rows.shape[1:]))

    def close(self) -> None:
        """Put the file in its place; the next rows begin a new one."""
        self._file = None
        self._stack.close()


class HDF5Output(Layer):
    """file["data"] = x, file["label"] = t: it writes its bottoms to the HDF5 file ``file_name``

    Bottoms: x and t, N and any further axes each. No top, and no gradient. The rows of all forward passes stand one
    after another (Caffe can write one pass only). The file takes the place of an old one when the net is closed.
    """

    param = "hdf5_output_param"
    _writer: Hdf5Writer
    bottoms = 2
    tops = 0

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        if not self.p.file_name:
            self.fail("has no file_name", hint='write hdf5_output_param { file_name: "out.h5" }, say')
        first, second = (b.shape for b in bottom)
        if not first or first[:1] != second[:1]:
            self.fail("needs as many labels as samples", bottom=[0, 1])
        before = self.context.before
        self._writer = before._writer if isinstance(before, HDF5Output) else Hdf5Writer(self.p.file_name)
        return []

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.host(list(bottom), [], fn=self._write, grad=None)

    def _write(self, xs: Sequence[Any], ys: Sequence[Any]) -> None:
        try:
            self._writer.append(xs)
        except DataError as error:
            raise DataError(
                f"{self.name} ({self.type}): {error}", self.context.locate(self.param, "file_name")
            ) from None

    def close(self) -> None:
        """Put the file in its place."""
        self._writer.close()


__all__ = ["HDF5Output"]
