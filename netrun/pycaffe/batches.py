"""Forward and backward over more samples than a net takes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ..blob import ShapeMismatchError, shape_of
from ..net import Net
from .errors import ArgumentMismatchError


class Batches(Net):
    """What ``caffe.Net`` does in batches."""

    def _wanted(self, names: Sequence[str], more: Sequence[str] | None) -> list[str]:
        """Both, once each; unknown blobs are refused before anything runs."""
        extra = [more] if isinstance(more, str) else more or ()
        wanted = list(dict.fromkeys([*names, *extra]))
        for name in wanted:
            self.blobs[name]
        return wanted

    def forward_all(self, blobs: Sequence[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Run forward over any number of samples, in batches; the last one is filled up with zeros.

        Returns:
            The outputs (and ``blobs``) for all samples, by name: arrays of their own.
        """
        count = self._samples(kwargs, self.inputs)
        found: dict[str, list[Any]] = {name: [] for name in self._wanted(self.outputs, blobs)}
        for batch in self._batch(kwargs):
            for name, values in self.forward(blobs=blobs, **batch).items():
                found[name].extend(np.atleast_1d(np.array(values)))
        return {name: np.asarray(rows[:count]) for name, rows in found.items()}

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run forward and backward over any number of samples, in batches.

        Args:
            kwargs: values of inputs and gradients of outputs.

        Returns:
            Outputs and ``blobs``; gradients of the inputs and of ``diffs``.
        """
        count = self._samples(kwargs, [*self.inputs, *self.outputs])
        outs: dict[str, list[Any]] = {name: [] for name in self._wanted(self.outputs, blobs)}
        slopes: dict[str, list[Any]] = {name: [] for name in self._wanted(self.inputs, diffs)}
        forth = self._batch({name: kwargs[name] for name in self.inputs if name in kwargs})
        back = self._batch({name: kwargs[name] for name in self.outputs if name in kwargs})
        nothing: dict[str, Any] = {}
        for given, wanted in zip_longest(forth, back, fillvalue=nothing):
            for name, values in self.forward(blobs=blobs, **given).items():
                outs[name].extend(np.atleast_1d(np.array(values)))
            for name, values in self.backward(diffs=diffs, **wanted).items():
                slopes[name].extend(np.atleast_1d(np.array(values)))
        return (
            {name: np.asarray(rows[:count]) for name, rows in outs.items()},
            {name: np.asarray(rows[:count]) for name, rows in slopes.items()},
        )

    def _samples(self, given: Mapping[str, Any], names: Sequence[str]) -> int:
        if not given or not set(given) <= set(names):
            listed = ", ".join(names) or "none"
            raise ArgumentMismatchError(f"arrays are wanted for {listed}, given {', '.join(given) or 'none'}")
        sizes = {name: shape_of(values, f'blob "{name}"')[:1] for name, values in given.items()}
        for name, size in sizes.items():
            if not size:
                raise ShapeMismatchError(f'"{name}": an array of samples is wanted, got one number')
        counts: set[int] = {size[0] for size in sizes.values()}
        if len(counts) > 1:
            raise ShapeMismatchError(f"the arrays have different numbers of samples: {sorted(counts)}")
        return counts.pop()

    def _batch(self, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if not given:
            return
        count = len(next(iter(given.values())))
        size = next(iter(self.blobs.values())).shape[0]
        for start in range(0, count, size):
            batch = {}
            for name, values in given.items():
                part = np.asarray(values[start : start + size])
                missing = size - len(part)
                if missing:
                    part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
                batch[name] = part
            yield batch


__all__ = ["Batches"]
