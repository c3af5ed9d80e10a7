"""One call for all steps: how a kernel takes one more axis in front, the time of a loop.

A call of a loop's body that does not need the step before runs once over all steps: a product over T times as many
rows, a pointwise call over T times as many values. One short rule a kernel says how; a kernel without one, or a case a
rule declines with None, is called step by step.

    @rule
    def softmax(s, x, y, *, axis):
        return s.merged(0 < axis) or ...

A rule gets a :class:`Stack` and the arguments of the call as placeholders of one step, and returns the arguments and
attributes of the call over all steps, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..kernels import Kernels
from ..program import Call
from ..types import Shape, Tensor

Found = tuple[list[Any], dict[str, Any]] | None
"""Arguments and attributes of the call over all steps."""

RULES: dict[str, Callable[..., Found]] = {}
"""The rule of every kernel that has one."""


def rule(function: Callable[..., Found]) -> Callable[..., Found]:
    """Register the rule of the kernel of the same name."""
    RULES[function.__name__.rstrip("_")] = function
    return function


class Stack:
    """Makes the arguments of a call over all steps.

    Args:
        steps: how many.
        varies: whether a tensor of the body has a value of its own in each step.
        whole: the values of such a tensor in all steps: T and the axes of the tensor.
        same: the value of a tensor that is the same in all steps.
    """

    def __init__(
        self,
        k: Kernels,
        steps: int,
        varies: Callable[[Tensor], bool],
        whole: Callable[[Tensor], Any],
        same: Callable[[Tensor], Any],
    ) -> None:
        self.k, self.steps, self.varies, self._whole, self.same = k, steps, varies, whole, same

    def front(self, x: Tensor, rank: int | None = None) -> Any:
        """T in front of the axes of x; with ``rank`` ones between, so that x broadcasts as it did. What does not vary
        stays as it is."""
        if not self.varies(x):
            return self.same(x)
        ones = (1,) * ((len(x.shape) if rank is None else rank) - len(x.shape))
        return self.k.view(self._whole(x), (self.steps, *ones, *x.shape))

    def rows(self, x: Tensor) -> Any:
        """T merged into the first axis of x."""
        return self.k.view(self._whole(x), (self.steps * x.shape[0], *x.shape[1:]))

    def all_vary(self, *xs: Tensor) -> bool:
        """True if each of them varies."""
        return all(self.varies(x) for x in xs)


def over_all(call: Call, stack: Stack) -> Found:
    """The call over all steps, or None if it has to be made step by step."""
    found = RULES.get(call.op.name)
    return None if found is None else found(stack, *call.args, **call.attrs)


@rule
def copy(s: Stack, x: Tensor, y: Tensor) -> Found:
    return [s.front(x), s.front(y)], {}


@rule
def random(s: Stack, counter: Tensor, y: Tensor, **attrs: Any) -> Found:
    return [s.same(counter), s.front(y)], attrs


@rule
def pointwise(s: Stack, xs: Sequence[Tensor], y: Tensor, *, expr: str) -> Found:
    rank = len(y.shape)
    if any(len(x.shape) > rank for x in xs):
        return None
    return [[s.front(x, rank) for x in xs], s.front(y)], {"expr": expr}


@rule
def reduce(s: Stack, xs: Sequence[Tensor], y: Tensor, *, expr: str, how: str, axes: Shape) -> Found:
    rank = max(len(x.shape) for x in xs)
    attrs = {"expr": expr, "how": how, "axes": tuple(a + 1 for a in axes)}
    return [[s.front(x, rank) for x in xs], s.front(y)], attrs


@rule
def gemm(s: Stack, a: Tensor, b: Tensor, c: Tensor | None, y: Tensor, *, ta: bool, tb: bool) -> Found:
    if c is not None and (s.varies(c) or _is_matrix(c)):
        return None
    attrs = {"ta": ta, "tb": tb}
    bias = None if c is None else s.same(c)
    if not s.varies(b) and not ta and len(a.shape) == len(b.shape) == 2:
        return [s.rows(a), s.same(b), bias, s.rows(y)], attrs
    rank = max(len(a.shape), len(b.shape))
    return [_batched(s, a, rank), _batched(s, b, rank), bias, s.front(y, rank)], attrs


def _is_matrix(c: Tensor) -> bool:
    return len(c.shape) > 1 and c.shape[-2] != 1


def _batched(s: Stack, x: Tensor, rank: int) -> Any:
    if s.varies(x):
        return s.front(x, rank)
    return s.k.view(s.same(x), (1,) * (rank + 1 - len(x.shape)) + x.shape)


@rule
def conv(s: Stack, x: Tensor, w: Tensor, b: Tensor | None, y: Tensor, **attrs: Any) -> Found:
    if s.varies(w) or (b is not None and s.varies(b)):
        return None
    return [s.rows(x), s.same(w), None if b is None else s.same(b), s.rows(y)], attrs


@rule
def conv_grad_x(s: Stack, w: Tensor, dy: Tensor, dx: Tensor, **attrs: Any) -> Found:
    return None if s.varies(w) else ([s.same(w), s.rows(dy), s.rows(dx)], attrs)


def _merged(s: Stack, *tensors: Tensor, **attrs: Any) -> Found:
    """Kernels whose first axis is a batch of samples that know nothing of each other."""
    return ([s.rows(t) for t in tensors], attrs) if s.all_vary(*tensors) else None


for _name in ("im2col", "col2im", "pool_max", "pool_avg", "pool_random", "lrn"):
    RULES[_name] = _merged


@rule
def normalize(s: Stack, *tensors: Tensor, axes: Shape, eps: float) -> Found:
    if 0 not in axes:
        return _merged(s, *tensors, axes=axes, eps=eps)
    return [s.front(t) for t in tensors], {"axes": tuple(a + 1 for a in axes), "eps": eps}


@rule
def softmax(s: Stack, x: Tensor, y: Tensor, *, axis: int) -> Found:
    if axis:
        return _merged(s, x, y, axis=axis)
    return [s.front(x), s.front(y)], {"axis": 1}


@rule
def attention(
    s: Stack, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, mask: Tensor | None, y: Tensor, lse: Tensor,
    **attrs: Any,
) -> Found:  # fmt: skip
    given = [x for x in (lengths, mask) if x is not None]
    if not s.all_vary(q, k, v) or any(x.shape[0] != (q.shape[0] if s.varies(x) else 1) for x in given):
        return None
    sights = [None if x is None else s.rows(x) if s.varies(x) else s.same(x) for x in (lengths, mask)]
    return [s.rows(q), s.rows(k), s.rows(v), *sights, s.rows(y), s.rows(lse)], attrs


@rule
def concat(s: Stack, xs: Sequence[Tensor], y: Tensor, *, axis: int) -> Found:
    return ([[s.front(x) for x in xs], s.front(y)], {"axis": axis + 1}) if s.all_vary(*xs) else None


@rule
def split(s: Stack, x: Tensor, ys: Sequence[Tensor], *, axis: int) -> Found:
    return [s.front(x), [s.front(y) for y in ys]], {"axis": axis + 1}


@rule
def slice_(s: Stack, x: Tensor, y: Tensor, *, begin: Shape) -> Found:
    return [s.front(x), s.front(y)], {"begin": (0, *begin)}


@rule
def place(s: Stack, x: Tensor, y: Tensor, *, begin: Shape) -> Found:
    return [s.front(x), s.front(y)], {"begin": (0, *begin)}


@rule
def transpose(s: Stack, x: Tensor, y: Tensor, *, axes: Shape) -> Found:
    return [s.front(x), s.front(y)], {"axes": (0, *(a + 1 for a in axes))}


@rule
def gather(s: Stack, x: Tensor, index: Tensor, y: Tensor) -> Found:
    return None if s.varies(x) else ([s.same(x), s.front(index), s.front(y)], {})


__all__ = ["RULES", "Stack", "over_all"]
