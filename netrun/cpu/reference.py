"""Device "reference": every kernel of netrun.kernels as its definition reads, in NumPy. Slow on purpose.

This is what the fast devices are held against, and what a layer's unit test runs on: an object of the class is also
the ``k`` of ``Layer.forward``, on plain arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import random
from ..device import Step
from ..errors import DeviceError
from ..expression import Rule, letters
from ..kernels import OPS, HostStep, Kernels
from ..program import Call
from ..types import Shape
from .ctc import Alignments
from .evaluate import float_type, formula, run_rule
from .host import Host, refuse, step_of, whole_numbers
from .reference_attention import Looking
from .reference_sequence import Sequences
from .reference_windows import Windows

Array = npt.NDArray[Any]
POISON = -(2**30) - 7
"""What fresh integer memory holds in eager use: no label, no index."""


class Reference(Host, Windows, Sequences, Alignments, Looking):
    """The definition of every kernel. ``dtype`` is the float type of ``temp``."""

    name = "reference"

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = dtype

    def bind(self, call: Call, args: Sequence[Any], scratch: Any) -> Step:
        """The kernel's method on these arrays.

        Raises:
            DeviceError: the class has no body for this kernel.
        """
        method = getattr(self, call.op.name, None)
        if method is None or getattr(type(self), call.op.name) is getattr(Kernels, call.op.name, None):
            raise DeviceError(f"layer {call.origin}: device {self.name} has no kernel {call.op.name}")
        given, attrs = tuple(args), dict(call.attrs)
        return step_of(call, lambda: method(*given, **attrs))

    # ------------------------------------------------------------------------------------------------- no kernels
    def temp(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Array:
        """Fresh memory full of NaN, or of POISON where there is no NaN."""
        kind = np.dtype(self.dtype if dtype == "float32" else dtype)
        return np.full(tuple(shape), np.nan if kind.kind == "f" else POISON if kind.itemsize >= 4 else 77, kind)

    # ----------------------------------------------------------------------------------------------------- memory
    def fill(self, y: Array, *, value: float) -> None:
        y[...] = value

    def copy(self, x: Array, y: Array) -> None:
        y[...] = x.reshape(y.shape)

    # ------------------------------------------------------------------------------------------------ elementwise
    def pointwise(self, xs: Sequence[Array], y: Array, *, expr: str) -> None:
        y[...] = formula(expr, float_type([y], xs))(_named(xs))

    def reduce(self, xs: Sequence[Array], y: Array, *, expr: str, how: str, axes: Shape) -> None:
        value = formula(expr, float_type([y], xs))(_named(xs))
        whole = np.broadcast_to(value, np.broadcast_shapes(*(x.shape for x in xs)))
        # Sums in double precision do not depend on the order: what cancels in exact arithmetic cancels here.
        total = np.sum(whole, axis=axes, dtype=np.float64) if how == "sum" else np.max(whole, axis=axes)
        y[...] = total.reshape(y.shape)

    def update(self, xs: Sequence[Array], vs: Sequence[Array], *, rule: Rule) -> None:
        run_rule(rule, xs, vs)

    def update_rows(self, index: Array, xs: Sequence[Array], vs: Sequence[Array], *, rule: Rule) -> None:
        rows = whole_numbers(index)
        if (rows >= vs[0].shape[0]).any():
            refuse("index", index, rows >= vs[0].shape[0], vs[0].shape[0])
        for i, row in enumerate(rows):
            if row >= 0:
                run_rule(rule, [x if x.size == 1 else x[i, ...] for x in xs], [v[row, ...] for v in vs])

    # --------------------------------------------------------------------------------------------------- products
    def gemm(self, a: Array, b: Array, c: Array | None, y: Array, *, ta: bool, tb: bool) -> None:
        product = np.matmul(a.swapaxes(-1, -2) if ta else a, b.swapaxes(-1, -2) if tb else b)
        y[...] = product if c is None else product + c

    # ---------------------------------------------------------------------------------------------- normalisation
    def lrn(self, x: Array, y: Array, scale: Array, *, size: int, alpha: float, beta: float, k: float) -> None:
        scale[...] = k + alpha / size * _channel_sum(x * x, size)
        y[...] = x * scale**-beta

    def lrn_grad(
        self,
        x: Array,
        y: Array,
        scale: Array,
        dy: Array,
        dx: Array,
        *,
        size: int,
        alpha: float,
        beta: float,
        k: float,
    ) -> None:
        around = _channel_sum(dy * y / scale, size, mirrored=True)
        dx[...] = dy * scale**-beta - 2 * alpha * beta / size * x * around

    def normalize(self, x: Array, y: Array, mean: Array, var: Array, *, axes: Shape, eps: float) -> None:
        centre = x.mean(axis=axes, keepdims=True)
        spread = np.square(x - centre).mean(axis=axes, keepdims=True)
        y[...] = (x - centre) / np.sqrt(spread + x.dtype.type(eps))
        mean[...] = centre.reshape(mean.shape)
        var[...] = spread.reshape(var.shape)

    def normalize_grad(self, y: Array, var: Array, dy: Array, dx: Array, *, axes: Shape, eps: float) -> None:
        spread = var.reshape(dy.mean(axis=axes, keepdims=True).shape)
        part = dy - dy.mean(axis=axes, keepdims=True) - y * (dy * y).mean(axis=axes, keepdims=True)
        dx[...] = part / np.sqrt(spread + y.dtype.type(eps))

    def softmax(self, x: Array, y: Array, *, axis: int) -> None:
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        y[...] = e / e.sum(axis=axis, keepdims=True)

    def softmax_grad(self, y: Array, dy: Array, dx: Array, *, axis: int) -> None:
        dx[...] = y * (dy - (dy * y).sum(axis=axis, keepdims=True))

    # ------------------------------------------------------------------------------------------------------- loss
    def softmax_nll(
        self,
        x: Array,
        label: Array,
        prob: Array,
        loss: Array,
        norm: Array,
        *,
        axis: int,
        ignore: int | None,
        normalize: str,
    ) -> None:
        self.softmax(x, prob, axis=axis)
        rows = _positions(prob, axis)
        classes = whole_numbers(label).reshape(rows.shape[::2])
        counts = np.ones(classes.shape, bool) if ignore is None else classes != ignore
        check_labels(label, classes, counts, rows.shape[1])
        outer, _, inner = rows.shape
        sums = {"valid": counts.sum(), "full": outer * inner, "batch": outer, "none": 1}
        norm[...] = max(1, sums[normalize])
        o, i = np.nonzero(counts)
        chosen = np.maximum(rows[o, classes[o, i], i], np.finfo(prob.dtype).tiny)
        loss[...] = (-np.log(chosen).sum() / norm).reshape(loss.shape)

    def softmax_nll_grad(
        self, prob: Array, label: Array, norm: Array, dloss: Array, dx: Array, *, axis: int, ignore: int | None
    ) -> None:
        rows = _positions(prob, axis)
        classes = whole_numbers(label).reshape(rows.shape[::2])
        onehot = classes[:, None, :] == np.arange(rows.shape[1])[None, :, None]
        grad = (rows - onehot.astype(prob.dtype)) * (dloss.reshape(()) / norm.reshape(()))
        if ignore is not None:
            grad = np.where(classes[:, None, :] == ignore, grad.dtype.type(0), grad)
        dx[...] = grad.reshape(dx.shape)

    # ------------------------------------------------------------------------------------------------------ shape
    def concat(self, xs: Sequence[Array], y: Array, *, axis: int) -> None:
        y[...] = np.concatenate(xs, axis=axis)

    def split(self, x: Array, ys: Sequence[Array], *, axis: int) -> None:
        begin = 0
        for y in ys:
            y[...] = x[(slice(None),) * axis + (slice(begin, begin + y.shape[axis]),)]
            begin += y.shape[axis]

    def slice(self, x: Array, y: Array, *, begin: Shape) -> None:
        y[...] = x[_box(begin, y.shape)]

    def place(self, x: Array, y: Array, *, begin: Shape) -> None:
        y[...] = 0
        y[_box(begin, x.shape)] = x

    def transpose(self, x: Array, y: Array, *, axes: Shape) -> None:
        y[...] = x.transpose(axes)

    def gather(self, x: Array, index: Array, y: Array) -> None:
        rows = whole_numbers(index)
        bad = (rows < 0) | (rows >= x.shape[0])
        if bad.any():
            refuse("index", index, bad, x.shape[0])
        y[...] = x[rows].reshape(y.shape)

    def scatter_add(self, index: Array, x: Array, y: Array) -> None:
        rows = whole_numbers(index).reshape(-1)
        if (rows >= y.shape[0]).any():
            refuse("index", index, rows >= y.shape[0], y.shape[0])
        y[...] = 0
        np.add.at(y, rows[rows >= 0], x.reshape(rows.size, *y.shape[1:])[rows >= 0])

    def merge_rows(self, index: Array, x: Array, rows: Array, y: Array) -> None:
        first: dict[int, int] = {}
        rows[...], y[...] = -1, 0
        for i, (row, part) in enumerate(zip(whole_numbers(index).reshape(-1), x.reshape(y.shape), strict=True)):
            if row >= 0:
                home = first.setdefault(int(row), i)
                rows[home] = row
                y[home, ...] += part

    # ---------------------------------------------------------------------------------------------------- metrics
    def rank(self, x: Array, label: Array, y: Array, *, axis: int) -> None:
        rows = _positions(x, axis)
        outer, k, inner = rows.shape
        classes = whole_numbers(label).reshape(outer, inner)
        inside = (classes >= 0) & (classes < k)
        chosen = np.where(inside, classes, 0)[:, None, :]
        others = np.arange(k)[None, :, None] != chosen
        ahead = (others & (rows >= np.take_along_axis(rows, chosen, axis=1))).sum(axis=1)
        y[...] = np.where(inside, ahead, k).reshape(y.shape)

    def topk(self, x: Array, values: Array, index: Array, *, axis: int) -> None:
        reverse = np.flip(x, axis)  # a stable sort then puts the larger of two positions first
        order = np.argsort(-reverse, axis=axis, kind="stable").take(range(values.shape[axis]), axis=axis)
        values[...] = np.take_along_axis(reverse, order, axis)
        index[...] = x.shape[axis] - 1 - order

    # ----------------------------------------------------------------------------------------------------- random
    def random(self, counter: Array, y: Array, *, how: str, p: float, seed: int, stream: int) -> None:
        drawn = random.uniform(y.size, seed=seed, stream=stream, counter=int(counter.reshape(())))
        y[...] = (drawn if how == "uniform" else drawn < np.float32(p)).reshape(y.shape)

    # ------------------------------------------------------------------------------------------------------- host
    def host(
        self,
        xs: Sequence[Array],
        ys: Sequence[Array],
        *,
        fn: HostStep,
        grad: Callable[[tuple[bool, ...]], HostStep] | None,
    ) -> None:
        fn(xs, ys)


for _op in OPS:  # eager calls are as quiet as bound ones
    setattr(Reference, _op, np.errstate(all="ignore")(getattr(Reference, _op)))


# ------------------------------------------------------------------------------------------------------------- helpers
def check_labels(label: Array, classes: Array, counts: Array, k: int) -> None:
    """Refuse labels outside 0..k-1 among those that count.

    Raises:
        DataError: with the value, its position and the allowed range.
    """
    bad = counts & ((classes < 0) | (classes >= k))
    if bad.any():
        refuse("label", label, bad, k, lambda: f"the scores have {k} classes")


def _named(xs: Sequence[Array]) -> Mapping[str, Array]:
    return dict(zip(letters(len(xs)), xs, strict=True))


def _channel_sum(x: Array, size: int, mirrored: bool = False) -> Array:
    """Sum over ``size`` channels around each; an even window reaches one further up, mirrored one further down."""
    before = (size - 1) // 2
    offsets = range(-before, size - before)
    total, channels = np.zeros_like(x), x.shape[1]
    for offset in offsets:
        d = -offset if mirrored else offset
        low, high = max(0, -d), min(channels, channels - d)
        if low < high:
            total[:, low:high] += x[:, low + d : high + d]
    return total


def _positions(x: Array, axis: int) -> Array:
    """x as outer, K, inner."""
    outer = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape(outer, x.shape[axis], int(np.prod(x.shape[axis + 1 :], dtype=np.int64)))


def _box(begin: Shape, shape: Shape) -> tuple[slice, ...]:
    return tuple(slice(b, b + n) for b, n in zip(begin, shape, strict=True))
