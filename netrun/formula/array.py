"""Arrays that are not computed yet: a graph of operations with their shapes, in which equal parts are one node."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..types import Shape

if TYPE_CHECKING:
    from .build import Builder


class FormulaError(ValueError):
    """Something in a formula that cannot be: one line, and lines that help."""

    def __init__(self, what: str, notes: Sequence[str] = (), at: tuple[int, int, int] | None = None) -> None:
        super().__init__(what)
        self.what, self.notes, self.at = what, tuple(notes), at
        """``at``: number of the text, first and last character."""


def words(shape: Sequence[int]) -> str:
    """A shape as a message shows it: ``4 3 8 8``."""
    return " ".join(map(str, shape)) or "one number"


class Array:
    """One operation of a formula, or one of its inputs. Arithmetic, comparison, ``@`` and slicing make new ones.

    Attributes:
        op: leaf, table, number, point, reduce, matmul, view, transpose, slice, concat, gather, softmax, normalize,
            stop, or temp (what a kernel call of a Python layer writes).
        args: the operations it reads.
        attrs: what else it is made from, hashable.
        shape: length of every axis.
    """

    __slots__ = ("args", "attrs", "dtype", "home", "op", "shape")

    def __init__(self, home: Builder, op: str, args: tuple[Array, ...], attrs: Any, shape: Shape, dtype: str) -> None:
        self.home, self.op, self.args, self.attrs, self.shape, self.dtype = home, op, args, attrs, shape, dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def T(self) -> Array:
        """The last two axes exchanged."""
        if self.ndim < 2:
            raise FormulaError(f".T wants at least 2 axes, got the shape {words(self.shape)}")
        return self.home.transpose(self, (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2))

    def __repr__(self) -> str:
        return f"<{self.op} {words(self.shape)}>"

    # ------------------------------------------------------------------------------------------------- as in Python
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise FormulaError("a value is not known while the formula is recorded: choose with where(test, yes, no)")

    def __iter__(self) -> Iterator[Array]:
        if not self.shape:
            raise FormulaError("a single number has no parts")
        return (self[i] for i in range(self.shape[0]))

    def __getitem__(self, index: Any) -> Array:
        return self.home.index(self, index)

    def __add__(self, other: Any) -> Array:
        return self.home.point("add", self, other)

    def __radd__(self, other: Any) -> Array:
        return self.home.point("add", other, self)

    def __sub__(self, other: Any) -> Array:
        return self.home.point("sub", self, other)

    def __rsub__(self, other: Any) -> Array:
        return self.home.point("sub", other, self)

    def __mul__(self, other: Any) -> Array:
        return self.home.point("mul", self, other)

    def __rmul__(self, other: Any) -> Array:
        return self.home.point("mul", other, self)

    def __truediv__(self, other: Any) -> Array:
        return self.home.point("div", self, other)

    def __rtruediv__(self, other: Any) -> Array:
        return self.home.point("div", other, self)

    def __pow__(self, other: Any) -> Array:
        return self.home.point("pow", self, other)

    def __rpow__(self, other: Any) -> Array:
        return self.home.point("pow", other, self)

    def __neg__(self) -> Array:
        return self.home.point("neg", self)

    def __abs__(self) -> Array:
        return self.home.point("abs", self)

    def __matmul__(self, other: Any) -> Array:
        return self.home.matmul(self, other)

    def __lt__(self, other: Any) -> Array:
        return self.home.point("lt", self, other)

    def __le__(self, other: Any) -> Array:
        return self.home.point("le", self, other)

    def __gt__(self, other: Any) -> Array:
        return self.home.point("gt", self, other)

    def __ge__(self, other: Any) -> Array:
        return self.home.point("ge", self, other)

    def __eq__(self, other: object) -> Array:  # type: ignore[override]
        return self.home.point("eq", self, other)

    def __ne__(self, other: object) -> Array:  # type: ignore[override]
        return self.home.point("ne", self, other)


@dataclass(frozen=True)
class Written:
    """A kernel call that a Python layer wrote down itself; tensors among its arguments are arrays."""

    op: str
    args: tuple[Any, ...]
    attrs: Mapping[str, Any]

    def arrays(self) -> list[Array]:
        """All arrays among the arguments, outputs too."""
        return [a for arg in self.args for a in (arg if isinstance(arg, tuple) else (arg,)) if a is not None]


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape that all of them broadcast to, as in NumPy.

    Raises:
        FormulaError: there is none; it names two of them and the axis.
    """
    rank = max(map(len, shapes), default=0)
    result: list[int] = []
    for axis in range(-rank, 0):
        sizes = [(s[axis], s) for s in shapes if len(s) >= -axis]
        length, first = next(((n, s) for n, s in sizes if n != 1), (1, ()))
        for n, s in sizes:
            if n not in (1, length):
                raise FormulaError(
                    f"the shapes {words(first)} and {words(s)} do not broadcast: axis {axis} has the lengths "
                    f"{length} and {n}"
                )
        result.append(length)
    return tuple(result)


__all__ = ["Array", "FormulaError", "Written", "broadcast", "words"]
