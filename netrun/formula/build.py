"""Makes the arrays of a formula: every operation's shape rule, and each operation once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..expression import FUNCTIONS as POINTWISE
from ..types import Shape
from .array import Array, FormulaError, Written, broadcast, words

_FOLD: Mapping[str, Callable[..., float]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b, "neg": lambda a: -a, "abs": abs, "max": max, "min": min, "floor": math.floor,
    "trunc": math.trunc, "exp": math.exp, "log": math.log, "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
}  # fmt: skip


class Builder:
    """Makes the arrays of one formula: shapes are checked here, and an operation made twice is made once.

    ``dtype`` is the element type of everything computed.
    """

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = dtype
        self.looked: list[Array] = []
        """Arrays whose shape a formula asked for: they are used, even where no value is."""
        self.written: dict[int, Written] = {}
        """What writes each temp, by the id of the temp."""
        self._known: dict[Any, Array] = {}

    def make(self, op: str, args: Sequence[Array], attrs: Any, shape: Sequence[int], dtype: str = "") -> Array:
        """The node of that operation."""
        key = (op, tuple(map(id, args)), attrs, tuple(shape))
        if key not in self._known:
            self._known[key] = Array(self, op, tuple(args), attrs, tuple(shape), dtype or self.dtype)
        return self._known[key]

    def leaf(self, name: str, shape: Sequence[int], dtype: str = "") -> Array:
        """An input."""
        return self.make("leaf", (), name, shape, dtype)

    def table(self, values: Sequence[float]) -> Array:
        """Numbers that never change, one axis."""
        return self.make("table", (), tuple(values), (len(values),))

    def number(self, value: float) -> Array:
        """One number known now."""
        return self.make("number", (), (float(value), math.copysign(1, value)), ())

    def array(self, value: Any) -> Array:
        """An array from an array or a number.

        Raises:
            FormulaError: it is neither.
        """
        if isinstance(value, Array):
            return value
        if isinstance(value, (bool, int, float)) or (hasattr(value, "__float__") and not getattr(value, "shape", ())):
            return self.number(float(value))
        if isinstance(value, (tuple, list)):
            raise FormulaError(f"wants one value, got a list of {len(value)}")
        raise FormulaError(f"wants an array or a number, got a {type(value).__name__}")

    def whole(self, value: Any, what: str) -> int:
        """A whole number that is known now.

        Raises:
            FormulaError: it is no such number.
        """
        if isinstance(value, Array) and value.op == "number":
            value = value.attrs[0]
        if isinstance(value, Array) or not isinstance(value, (int, float)) or not float(value).is_integer():
            got = f"an array of {words(value.shape)}" if isinstance(value, Array) else f"{value!r}"
            raise FormulaError(f"{what} has to be a whole number that is known beforehand, got {got}")
        return int(value)

    def axis(self, value: Any, rank: int, what: str = "axis") -> int:
        """A canonical axis from one that may count from the end.

        Raises:
            FormulaError: there is no such axis.
        """
        axis = self.whole(value, what)
        if not -rank <= axis < rank:
            axes = f"{rank} axes" if rank != 1 else "1 axis"
            hint = f": 0 to {rank - 1}, or -1 to -{rank} from the end" if rank else ""
            raise FormulaError(f"{what} {axis} does not exist, the value has {axes}{hint}")
        return axis % rank

    # ------------------------------------------------------------------------------------------------- elementwise
    def point(self, function: str, *given: Any) -> Array:
        """A function of :data:`netrun.expression.FUNCTIONS` (or "id") element by element; inputs broadcast.

        Raises:
            FormulaError: the shapes do not broadcast.
        """
        args = [self.array(g) for g in given]
        assert function == "id" or len(args) == POINTWISE[function]
        if all(a.op == "number" for a in args) and function in _FOLD:
            try:
                value = _FOLD[function](*(a.attrs[0] for a in args))
                if isinstance(value, (bool, int, float)) and value == value:
                    return self.number(float(value))
            except (ValueError, ZeroDivisionError, OverflowError):
                pass
        return self.make("point", args, function, broadcast([a.shape for a in args]))

    def real(self, x: Any) -> Array:
        """The value in the formula's own element type."""
        x = self.array(x)
        return x if x.dtype == self.dtype else self.point("id", x)

    def widen(self, x: Any, shape: Sequence[int]) -> Array:
        """The value repeated along the axes in which it is shorter.

        Raises:
            FormulaError: it does not broadcast to that shape.
        """
        x = self.array(x)
        if broadcast([x.shape, tuple(shape)]) != tuple(shape):
            raise FormulaError(f"the shape {words(x.shape)} does not broadcast to {words(shape)}")
        return x if x.shape == tuple(shape) else self.make("point", [x], "id", shape)

    # -------------------------------------------------------------------------------------------------- reductions
    def axes(self, x: Array, axis: Any) -> Shape:
        """The axes that ``axis`` names: None for all, a number, or a list of them."""
        if axis is None:
            return tuple(range(x.ndim))
        listed = axis if isinstance(axis, (tuple, list)) else [axis]
        found = [self.axis(a, x.ndim) for a in listed]
        if len(set(found)) != len(found):
            raise FormulaError(f"an axis is named twice in {', '.join(str(self.whole(a, 'axis')) for a in listed)}")
        return tuple(sorted(found))

    def reduce(self, how: str, x: Any, axis: Any = None, keepdims: Any = None) -> Array:
        """The sum or maximum over axes; see functions.py for what keepdims means."""
        x = self.array(x)
        axes = self.axes(x, axis)
        keep = axis is not None if keepdims is None else bool(self.whole(keepdims, "keepdims"))
        if any(x.shape[i] == 0 for i in axes) and how == "max":
            raise FormulaError(f"no maximum over an axis of length 0 of {words(x.shape)}")
        kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        found = self.make("reduce", [x], (how, axes), kept) if axes else self.real(x)
        return found if keep else self.view(found, [n for i, n in enumerate(x.shape) if i not in axes])

    # ---------------------------------------------------------------------------------------------------- products
    def matmul(self, a: Any, b: Any) -> Array:
        """The matrix product of the last two axes as in NumPy; a single axis is a row or a column.

        Raises:
            FormulaError: the inner lengths differ, or the axes before do not broadcast.
        """
        a, b = self.real(a), self.real(b)
        if not a.ndim or not b.ndim:
            raise FormulaError(f"@ wants at least 1 axis on both sides, got {words(a.shape)} and {words(b.shape)}")
        row, column = a.ndim == 1, b.ndim == 1
        left = self.view(a, (1, *a.shape)) if row else a
        right = self.view(b, (*b.shape, 1)) if column else b
        if left.shape[-1] != right.shape[-2]:
            hint = ""
            if right.shape[-1] == left.shape[-1]:
                hint = "; .T exchanges the last two axes"
            raise FormulaError(
                f"@ cannot multiply {words(a.shape)} and {words(b.shape)}: {left.shape[-1]} columns meet "
                f"{right.shape[-2]} rows{hint}"
            )
        y = self._product(left, right)
        shape = [*y.shape[:-2], *(() if row else (y.shape[-2],)), *(() if column else (y.shape[-1],))]
        return self.view(y, shape)

    def _product(self, a: Array, b: Array) -> Array:
        outer = broadcast([a.shape[:-2], b.shape[:-2]])
        m, n = a.shape[-2], b.shape[-1]
        if math.prod(b.shape[:-2]) == 1:  # one matrix for all rows
            rows, flat = self.view(a, (math.prod(a.shape[:-1]), a.shape[-1])), self.view(b, b.shape[-2:])
            return self.view(self._gemm(rows, flat), (*outer, m, n))
        if a.shape[:-2] != outer and math.prod(a.shape[:-2]) != 1:
            a = self.widen(a, (*outer, *a.shape[-2:]))
        if b.shape[:-2] != outer:
            b = self.widen(b, (*outer, *b.shape[-2:]))
        batch = [self.view(x, (math.prod(x.shape[:-2]), *x.shape[-2:])) for x in (a, b)]
        return self.view(self._gemm(*batch), (*outer, m, n))

    def _gemm(self, a: Array, b: Array) -> Array:
        (a, ta), (b, tb) = _untransposed(a), _untransposed(b)
        m, n = a.shape[-1 if ta else -2], b.shape[-2 if tb else -1]
        outer = broadcast([a.shape[:-2], b.shape[:-2]])
        return self.make("matmul", [a, b], (ta, tb), (*outer, m, n))

    # ------------------------------------------------------------------------------------------------------- shape
    def view(self, value: Any, shape: Sequence[int]) -> Array:
        """The same elements under another shape of the same count."""
        x = self.real(value)
        if tuple(shape) == x.shape:
            return x
        if x.op == "view":
            return self.view(x.args[0], shape)
        return self.make("view", [x], (), shape)

    def reshape(self, x: Any, sizes: Sequence[Any]) -> Array:
        """The same elements under another shape: one size may be -1.

        Raises:
            FormulaError: the counts differ.
        """
        x = self.array(x)
        shape = [self.whole(n, "a size") for n in sizes]
        rest = math.prod(n for n in shape if n != -1)
        if shape.count(-1) == 1 and rest > 0 and x.count % rest == 0:
            shape = [x.count // rest if n == -1 else n for n in shape]
        if math.prod(shape) != x.count or min(shape, default=0) < 0:
            raise FormulaError(f"{words(x.shape)} ({x.count} values) cannot take the shape {words(shape)}")
        return self.view(x, shape)

    def transpose(self, value: Any, axes: Sequence[Any]) -> Array:
        """Axis i of the result is axis axes[i]."""
        x = self.real(value)
        order = tuple(self.axis(a, x.ndim) for a in axes)
        if sorted(order) != list(range(x.ndim)):
            raise FormulaError(f"the axes {words(order)} are no order of the {x.ndim} axes of {words(x.shape)}")
        if order == tuple(range(x.ndim)):
            return x
        return self.make("transpose", [x], order, [x.shape[a] for a in order])

    def part(self, value: Any, axis: int, start: int, length: int) -> Array:
        """``length`` entries of an axis from ``start`` on."""
        x = self.real(value)
        if length == x.shape[axis]:
            return x
        shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
        return self.make("slice", [x], tuple(start if i == axis else 0 for i in range(x.ndim)), shape)

    def index(self, x: Array, index: Any) -> Array:
        """x[index] as in NumPy with numbers, slices without step, ``...`` and None.

        Raises:
            FormulaError: an index reaches beyond its axis, or is of another kind.
        """
        items = list(index) if isinstance(index, tuple) else [index]
        if sum(item is Ellipsis for item in items) > 1:
            raise FormulaError("more than one ... in an index")
        taken = sum(item is not None and item is not Ellipsis for item in items)
        if taken > x.ndim:
            raise FormulaError(f"{taken} indices for the {x.ndim} axes of {words(x.shape)}")
        at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
        items[at : at + 1] = [slice(None)] * (x.ndim - taken)
        shape: list[int] = []
        axis = 0
        for item in items:
            if item is None:
                shape.append(1)
                continue
            start, length, stays = self._range(item, x.shape[axis], axis)
            x = self.part(x, axis, start, length)
            if stays:
                shape.append(length)
            axis += 1
        return self.view(x, shape)

    def _range(self, item: Any, size: int, axis: int) -> tuple[int, int, bool]:
        if not isinstance(item, slice):
            at = self.whole(item, "an index")
            if not -size <= at < size:
                raise FormulaError(f"index {at} is beyond axis {axis}, whose length is {size}")
            return at % size, 1, False
        if item.step is not None and self.whole(item.step, "a step") != 1:
            raise FormulaError("slices have no step but 1")
        ends = [
            default if end is None else self.whole(end, "the end of a slice")
            for end, default in ((item.start, 0), (item.stop, size))
        ]
        first, last = (n + size if n < 0 else n for n in ends)
        if not 0 <= first < last <= size:
            why = "is empty" if 0 <= last <= first <= size else "reaches beyond it"
            raise FormulaError(f"the slice {ends[0]}:{ends[1]} of axis {axis}, whose length is {size}, {why}")
        return first, last - first, True

    def concat(self, xs: Sequence[Any], axis: Any) -> Array:
        """The values one after another along an axis.

        Raises:
            FormulaError: their other axes differ.
        """
        parts = [self.real(x) for x in xs]
        if not parts:
            raise FormulaError("concat wants at least one value")
        at = self.axis(axis, parts[0].ndim)
        for x in parts:
            same = x.ndim == parts[0].ndim and all(
                n == m for i, (n, m) in enumerate(zip(x.shape, parts[0].shape, strict=False)) if i != at
            )
            if not same:
                raise FormulaError(
                    f"concat along axis {at}: {words(parts[0].shape)} and {words(x.shape)} differ elsewhere"
                )
        if len(parts) == 1:
            return parts[0]
        shape = list(parts[0].shape)
        shape[at] = sum(x.shape[at] for x in parts)
        return self.make("concat", parts, at, shape)


def _untransposed(x: Array) -> tuple[Array, bool]:
    """What a transposition of the last two axes was made from, and whether there was one."""
    swap = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    return (x.args[0], True) if x.op == "transpose" and x.attrs == swap else (x, False)


__all__ = ["Builder"]
