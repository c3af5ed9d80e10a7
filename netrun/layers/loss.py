"""Losses over classes and targets: SoftmaxWithLoss, EuclideanLoss, SigmoidCrossEntropyLoss, InfogainLoss.

A loss is one number, of shape (). What its sum is divided by is said once, in :func:`normalization` and
:func:`divisor`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import schema
from ..config.paths import resolve
from ..kernels import Kernels
from ..types import Spec
from .base import Layer, stop

_MODES = schema.LossParameter
_NAMES: dict[int, str] = {_MODES.VALID: "valid", _MODES.FULL: "full", _MODES.BATCH_SIZE: "batch", _MODES.NONE: "none"}


def normalization(layer: Layer, default: int = _MODES.VALID) -> str:
    """What the loss is divided by, in the words of the kernel softmax_nll: valid, full, batch or none."""
    given = layer.message.loss_param
    if given.HasField("normalization"):
        return _NAMES[given.normalization]
    if given.HasField("normalize"):
        return "valid" if given.normalize else "batch"
    return _NAMES[default]


def ignored(layer: Layer) -> int | None:
    """The label that does not count, if there is one."""
    given = layer.message.loss_param
    return given.ignore_label if given.HasField("ignore_label") else None


def counted(layer: Layer, name: str) -> str:
    """1 where the label called ``name`` counts, as an expression; labels are truncated towards zero first."""
    return "1" if ignored(layer) is None else f"(trunc({name}) != {ignored(layer)})"


def divisor(layer: Layer, k: Kernels, label: Any, mode: str, outer: int, inner: int) -> Any:
    """A tensor of one number, at least 1: what the sum over outer x inner positions is divided by."""
    norm = k.temp("norm", ())
    if mode == "valid" and ignored(layer) is not None:
        valid = k.temp("valid", ())
        k.reduce([label], valid, expr=counted(layer, "a"), how="sum", axes=tuple(range(len(label.shape))))
        k.pointwise([valid], norm, expr="max(a, 1)")
    else:
        positions = {"valid": outer * inner, "full": outer * inner, "batch": outer, "none": 1}[mode]
        k.fill(norm, value=float(max(positions, 1)))
    return norm


def check_labels(layer: Layer, bottom: Sequence[Spec], axis: int) -> tuple[int, int, int]:
    """(outer, classes, inner) of the scores; refuses labels that are not one for each position."""
    shape, label = bottom[0].shape, bottom[1].shape
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    if math.prod(label) != outer * inner or (axis > 0 and label and label[0] != shape[0]):
        layer.fail(
            f"wants {outer * inner} labels, one for each position, got {math.prod(label)}",
            bottom=[0, 1],
            hint=f"labels of all axes of the scores but axis {axis}, the classes",
        )
    return outer, shape[axis], inner


def check_targets(layer: Layer, bottom: Sequence[Spec]) -> None:
    """Refuse targets that are not as many as the values, sample by sample."""
    if bottom[0].shape[:1] != bottom[1].shape[:1] or bottom[0].count != bottom[1].count:
        layer.fail("needs as many targets as values for each sample", bottom=[0, 1])


class SoftmaxWithLoss(Layer):
    """loss = sum over the positions of -log(max(p[label], smallest normal number)) / norm, p = softmax(x)

    Bottoms: scores x, with the classes on softmax_param.axis; labels 0 .. K - 1 (fractions are cut off), one for each
    position, to which no gradient passes. Tops: the loss; if named, p (Caffe cannot build a net with it). Positions
    with ignore_label do not count. norm, at least 1: VALID the positions that count, FULL all of them, BATCH_SIZE the
    axes in front of the classes, NONE 1. A label out of range is an error on the host devices (Caffe reads whatever
    lies there).
    """

    param = "softmax_param"
    bottoms = 2
    tops = (1, 2)
    loss = True
    skips = frozenset({1})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self._axis = self.axis(self.p.axis, len(bottom[0].shape))
        check_labels(self, bottom, self._axis)
        return [self.spec(()), bottom[0]][: max(1, len(self.message.top))]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x, label = bottom
        prob = top[1] if len(top) > 1 else k.temp("prob", x.shape)
        k.softmax_nll(
            x, label, prob, top[0], k.temp("norm", ()),
            axis=self._axis, ignore=ignored(self), normalize=normalization(self),
        )  # fmt: skip


class InfogainLoss(Layer):
    """loss = sum over the positions of -sum over k of H[label,k] * log(max(p[k], 1e-20)) / norm, p = softmax(x)

    Bottoms: scores x, with the classes on infogain_loss_param.axis; labels 0 .. K - 1 (fractions are cut off), one for
    each position; the matrix H, K * K values, unless it comes from the BlobProto file ``source``. No gradient passes to
    labels and H. Tops: the loss; if named, p (Caffe: with two explicit loss weights only). A label out of range is an
    error on the host devices (Caffe reads whatever lies there). ignore_label and norm as in
    SoftmaxWithLoss. The gradient is p * sum(H[label]) - H[label] even where the logarithm is cut off at 1e-20.
    """

    param = "infogain_loss_param"
    bottoms = (2, 3)
    tops = (1, 2)
    loss = True
    skips = frozenset({1, 2})
    matrix: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        if self.message.loss_param.HasField("normalize"):
            self.fail("loss_param.normalize is not for this type", hint="write normalization: VALID or BATCH_SIZE")
        self._axis = self.axis(self.p.axis, len(bottom[0].shape))
        self._sizes = check_labels(self, bottom, self._axis)
        classes = self._sizes[1]
        if len(bottom) < 3:
            self.state("matrix", (classes, classes), self._read_matrix(classes))
        elif bottom[2].count != classes * classes:
            self.fail(f"H needs {classes} x {classes} values, got {bottom[2].count}", bottom=[0, 2])
        return [self.spec(()), bottom[0]][: max(1, len(self.message.top))]

    def _read_matrix(self, classes: int) -> Any:
        source = self.p.source
        if not source:
            self.fail("has no matrix H", hint="add a third bottom, or write infogain_loss_param { source: FILE }")
        blob = schema.BlobProto()
        try:
            blob.ParseFromString(Path(resolve(source, self.context.folder)).read_bytes())
        except OSError as error:
            self.fail(f'source "{source}" cannot be read: {error.strerror}', at="source")
        except Exception:  # protobuf's DecodeError, which has another class in each of its implementations
            self.fail(f'source "{source}" is no BlobProto', at="source")
        values = np.array(blob.data or blob.double_data, self.context.dtype)
        if values.size != classes * classes:
            self.fail(f'source "{source}": H needs {classes} x {classes} values, got {values.size}', at="source")
        return values.reshape(classes, classes)

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        outer, classes, inner = self._sizes
        prob = top[1] if len(top) > 1 else k.temp("prob", bottom[0].shape)
        k.softmax(bottom[0], prob, axis=self._axis)
        label = k.view(bottom[1], (outer, 1, inner))
        rows, sums, index = k.temp("rows", (outer, inner, classes)), k.temp("sums", (outer, inner)), label
        if ignored(self) is not None:  # any row will do there, its weight is 0
            index = k.temp("index", (outer, 1, inner))
            k.pointwise([label], index, expr=f"a * {counted(self, 'a')}")
        matrix = k.view(bottom[2], (classes, classes)) if len(bottom) > 2 else self.matrix
        k.gather(matrix, k.view(index, (outer, inner)), rows)
        k.reduce([rows], sums, expr="a", how="sum", axes=(2,))
        gain = k.temp("gain", (outer, classes, inner))
        k.transpose(rows, gain, axes=(0, 2, 1))
        norm = divisor(self, k, label, normalization(self), outer, inner)
        x, p = (k.view(t, (outer, classes, inner)) for t in (bottom[0], prob))
        # a: x, b: the same as a constant, c: p, d: H[label], e: its sum, f: the label, g: norm. The gradient in a is
        # written out: that of the logarithm would be lost where p is too small.
        slope = "(a - b) * (c * e - d)"
        k.reduce(
            [x, stop(x), stop(p), gain, k.view(sums, (outer, 1, inner)), label, norm], top[0],
            expr=f"({slope} - d * log(max(c, 1e-20))) * {counted(self, 'f')} / g", how="sum", axes=(0, 1, 2),
        )  # fmt: skip


class SigmoidCrossEntropyLoss(Layer):
    """loss = sum over the elements of -(t * log(s) + (1 - t) * log(1 - s)) / norm, s = sigmoid(x)

    Bottoms: x, any shape; targets t in 0 to 1, as many, to which no gradient passes. Top: the loss. Elements whose
    target, fractions cut off, is ignore_label do not count. norm, at least 1: BATCH_SIZE, the default, the first axis;
    FULL all elements; VALID those that count; NONE 1. The gradient is s - t.
    """

    bottoms = 2
    loss = True
    skips = frozenset({1})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        check_targets(self, bottom)
        return [self.spec(())]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        shape = bottom[0].shape
        outer = shape[0] if shape else 1
        x, target = bottom[0], k.view(bottom[1], shape)
        mode = normalization(self, _MODES.BATCH_SIZE)
        norm = divisor(self, k, target, mode, outer, math.prod(shape[1:]))
        # log(1 - s) or log(s), whichever needs no difference of large numbers.
        loss = "where(a >= 0, softplus(-a) + a * (1 - b), softplus(a) - a * b)"
        axes = tuple(range(len(shape)))
        k.reduce([x, target, norm], top[0], expr=f"{loss} * {counted(self, 'b')} / c", how="sum", axes=axes)


class EuclideanLoss(Layer):
    """loss = sum of (x - t)^2 / (2 N)

    Bottoms: x, N and any further axes; t, as many values for each of the N. Both get gradients. Top: the loss.
    """

    bottoms = 2
    loss = True

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        check_targets(self, bottom)
        return [self.spec(())]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        shape = bottom[0].shape
        target = k.view(bottom[1], shape)
        share = 0.5 / max(shape[0] if shape else 1, 1)
        axes = tuple(range(len(shape)))
        k.reduce([bottom[0], target], top[0], expr=f"(a - b) * (a - b) * {share!r}", how="sum", axes=axes)
