"""Layers that move values or rename axes and compute nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from ..kernels import Kernels
from ..types import Shape, Spec
from .base import Layer


def chosen_axis(layer: Layer, old: str, rank: int) -> int:
    """The axis of Concat or Slice: ``axis``, or its ``old`` form, which is never negative.

    Raises:
        ShapeError: both are given, or there is no such axis.
    """
    if layer.has("axis") and layer.has(old):
        layer.fail(f"has both axis and {old}", at=old, hint="write axis alone")
    if layer.has(old):
        value = int(getattr(layer.p, old))
        return layer.axis(value, rank, old)
    return layer.axis(layer.p.axis, rank)


class Concat(Layer):
    """y = the bottoms one behind the other along ``axis``

    Bottoms: one or more, of the same shape but for that axis. Top: their lengths along it add up.
    """

    param = "concat_param"
    bottoms = (1, None)

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        self._axis = axis = chosen_axis(self, "concat_dim", len(shape))
        for i, other in enumerate(bottom):
            if len(other.shape) != len(shape):
                self.fail("its bottoms need the same number of axes", bottom=[0, i])
            if any(a != b for d, (a, b) in enumerate(zip(shape, other.shape, strict=True)) if d != axis):
                self.fail(f"its bottoms may differ along axis {axis} only", at="axis", bottom=[0, i])
        length = sum(b.shape[axis] for b in bottom)
        return [self.spec((*shape[:axis], length, *shape[axis + 1 :]), bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        if len(bottom) == 1:
            k.copy(bottom[0], top[0])
        else:
            k.concat(bottom, top[0], axis=self._axis)


class Slice(Layer):
    """y_i = x from slice_point[i-1] to slice_point[i] along ``axis``; without points in equal parts

    Bottom: any shape. Tops: one or more; their lengths along the axis add up to the bottom's.
    """

    param = "slice_param"
    tops = (1, None)

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, parts = bottom[0].shape, len(self.message.top)
        self._axis = axis = chosen_axis(self, "slice_dim", len(shape))
        points = [0, *self.p.slice_point, shape[axis]]
        if len(points) == 2:
            if shape[axis] % parts:
                what = f"axis {axis} (length {shape[axis]}) cannot be cut into {parts} equal parts"
                self.fail(what, bottom=0, hint="say where to cut with slice_point")
            points = list(range(0, shape[axis] + 1, max(shape[axis] // parts, 1)))
        if len(points) != parts + 1:
            what = f"has {parts} tops and {len(points) - 2} slice_points"
            self.fail(what, at="slice_point", hint=f"{parts} tops want {parts - 1}, or none for equal parts")
        if any(b <= a for a, b in itertools.pairwise(points)):
            text = ", ".join(map(str, points[1:-1]))
            what = f"slice_points {text} have to rise and stay below {shape[axis]}, the length of axis {axis}"
            self.fail(what, at="slice_point", bottom=0)
        lengths = [b - a for a, b in itertools.pairwise(points)]
        return [self.spec((*shape[:axis], n, *shape[axis + 1 :]), bottom[0].dtype) for n in lengths]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        if len(top) == 1:
            k.copy(bottom[0], top[0])
        else:
            k.split(bottom[0], top, axis=self._axis)


class Split(Layer):
    """y_i = x for every top

    Bottom: any shape. Tops: one or more, of the same shape. A net needs no such layer: a blob may be read many times.
    """

    tops = (1, None)
    in_place = False

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        return [bottom[0]] * max(1, len(self.message.top))

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        for y in top:
            k.copy(bottom[0], y)


class Silence(Layer):
    """no y: it reads its bottoms, so that they are no outputs of the net

    Bottoms: one or more, any shapes. No top; no gradient comes from here.
    """

    bottoms = (1, None)
    tops = 0

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        return []

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        pass


class _Renamed(Layer):
    """y = x under another shape."""

    type = ""
    in_place = False

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.copy(bottom[0], top[0])


class Flatten(_Renamed):
    """y = x with the axes from ``axis`` to ``end_axis`` as one

    Bottom: any shape. Top: the same values in the same order; not in place. With end_axis right in front of axis a new
    axis of length 1 stands before ``axis``.
    """

    param = "flatten_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        first = self.axis(self.p.axis, len(shape))
        last = self.axis(self.p.end_axis, len(shape), "end_axis")
        if last < first - 1:
            self.fail(f"end_axis {self.p.end_axis} comes before axis {self.p.axis}", at="end_axis", bottom=0)
        flat = math.prod(shape[first : last + 1])
        return [self.spec((*shape[:first], flat, *shape[last + 1 :]), bottom[0].dtype)]


class Reshape(_Renamed):
    """y = x with ``num_axes`` axes from ``axis`` on replaced by ``shape``

    Bottom: any shape. Top: the same values in the same order. In shape, 0 keeps the length of the axis in the same
    place, counted from ``axis``, and -1, at most once, is computed. A negative axis counts from behind the last: -1
    appends. Not in place.
    """

    param = "reshape_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, wanted = bottom[0].shape, [int(n) for n in self.p.shape.dim]
        rank, axes = len(shape), self.p.num_axes
        first = self.p.axis if self.p.axis >= 0 else rank + 1 + self.p.axis
        if not 0 <= first <= rank:
            self.fail(f"axis {self.p.axis} does not exist: the bottom has {rank} axes", at="axis", bottom=0)
        if axes < -1 or first + axes > rank:
            self.fail(f"num_axes {axes} from axis {first} on reaches beyond the last axis", at="num_axes", bottom=0)
        last = rank if axes == -1 else first + axes
        if any(n < -1 for n in wanted) or wanted.count(-1) > 1:
            text = " ".join(map(str, wanted))
            self.fail(f"shape {text}: 0 keeps an axis, -1, at most once, is computed", at="shape")
        new = [self._kept(shape, first + i) if n == 0 else n for i, n in enumerate(wanted)]
        if -1 in new:
            fixed = math.prod(n for n in new if n != -1)
            count = math.prod(shape[first:last])
            if fixed == 0 or count % fixed:
                self.fail(f"{count} values cannot be divided by {fixed}, the other axes of shape", at="shape", bottom=0)
            new[new.index(-1)] = count // fixed
        made = (*shape[:first], *new, *shape[last:])
        if math.prod(made) != math.prod(shape):
            text = " ".join(map(str, made))
            what = f"the shape {text} holds {math.prod(made)} values, the bottom {math.prod(shape)}"
            self.fail(what, at="shape", bottom=0, hint="one axis of shape may be -1: it is computed")
        return [self.spec(made, bottom[0].dtype)]

    def _kept(self, shape: Shape, axis: int) -> int:
        if axis >= len(shape):
            self.fail(f"shape has a 0 for axis {axis}, which the bottom does not have", at="shape", bottom=0)
        return shape[axis]


class Tile(Layer):
    """y = ``tiles`` copies of x one behind the other along ``axis``

    Bottom: any shape. Top: the axis is ``tiles`` times as long.
    """

    param = "tile_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        axis, tiles = self.axis(self.p.axis, len(shape)), self.p.tiles
        if tiles < 1:
            self.fail(f"tiles is {tiles}, and has to be at least 1", at="tiles", hint="write tiles: 2, say")
        outer, inner = math.prod(shape[:axis]), math.prod(shape[axis:])
        self._x, self._y = (outer, 1, inner), (outer, tiles, inner)
        return [self.spec((*shape[:axis], shape[axis] * tiles, *shape[axis + 1 :]), bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([k.view(bottom[0], self._x)], k.view(top[0], self._y), expr="a")


class Crop(Layer):
    """y = the part of x that starts at ``offset`` and has, from ``axis`` on, the size of the second bottom

    Bottoms: x, and a reference of as many axes, of which the shape alone counts: no gradient passes to it. Top: the
    axes of x before ``axis``, those of the reference from there on. One offset holds for all axes that are cut.
    """

    param = "crop_param"
    bottoms = 2
    skips = frozenset({1})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, reference = bottom[0].shape, bottom[1].shape
        if len(shape) != len(reference):
            self.fail("its bottoms need the same number of axes", bottom=[0, 1])
        first = self.axis(self.p.axis, len(shape))
        offsets, cut = list(self.p.offset), len(shape) - first
        if len(offsets) not in (0, 1, cut):
            what = f"offset is given {len(offsets)} times, {cut} axes are cut"
            self.fail(what, at="offset", hint="give it once, or once for each axis from `axis` on")
        if len(offsets) <= 1:
            offsets = (offsets or [0]) * cut
        self._begin = (*(0 for _ in range(first)), *offsets)
        for axis in range(first, len(shape)):
            if self._begin[axis] + reference[axis] > shape[axis]:
                what = f"offset {self._begin[axis]} and length {reference[axis]} reach beyond axis {axis}"
                self.fail(f"{what}, {shape[axis]} long", at="offset", bottom=[0, 1])
        return [self.spec((*shape[:first], *reference[first:]), bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.slice(bottom[0], top[0], begin=self._begin)


class BatchReindex(Layer):
    """y[i] = x[index[i]]

    Bottoms: x, N and any further axes; index, one axis of numbers 0 .. N - 1 (fractions are cut off; others are an
    error on the host devices), to which no gradient passes. Top: the length of index, then the further axes of x.
    """

    bottoms = 2
    skips = frozenset({1})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, index = bottom[0].shape, bottom[1].shape
        if len(index) != 1 or not shape:
            self.fail("wants samples and one axis of indices", bottom=[0, 1])
        return [self.spec((*index, *shape[1:]), bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.gather(bottom[0], bottom[1], top[0])
