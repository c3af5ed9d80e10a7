"""A vector added to a product is the product's own addend: one kernel call less, and none at all to wait for."""

from __future__ import annotations

from collections.abc import Sequence

from .array import Array


def joined(roots: Sequence[Array], order: Sequence[Array]) -> list[Array]:
    """The roots with ``x @ w + b`` as one operation wherever nobody else needs the product.

    Args:
        order: everything the roots are computed from, in an order in which it can be computed.
    """
    if any(node.op == "temp" for node in order):
        return list(roots)  # calls that stand as they were written
    uses: dict[int, int] = {}
    for read in [*(arg for node in order for arg in node.args), *roots]:
        uses[id(read)] = uses.get(id(read), 0) + 1
    now: dict[int, Array] = {}
    for node in order:
        args = [now[id(arg)] for arg in node.args]
        same = all(new is old for new, old in zip(args, node.args, strict=True))
        made = node if same else node.home.make(node.op, args, node.attrs, node.shape, node.dtype)
        if not same:
            uses[id(made)] = uses[id(node)]
        if node.op == "point" and node.attrs == "add":
            for product, addend in (args, args[::-1]):
                whole = _with(product, addend, uses) if _is_vector(addend, node) else None
                if whole is not None and whole.shape == node.shape:
                    uses[id(whole)] = uses[id(node)]
                    made = whole
                    break
        now[id(node)] = made
    return [now[id(root)] for root in roots]


def _is_vector(addend: Array, whole: Array) -> bool:
    return addend.op != "number" and addend.shape == whole.shape[-1:] and addend.dtype == addend.home.dtype


def _with(x: Array, addend: Array, uses: dict[int, int]) -> Array | None:
    """x + addend, added by a product inside x that nobody else reads; None if there is none."""
    if uses.get(id(x)) != 1:
        return None
    if x.op == "matmul" and len(x.args) == 2 and len(x.shape) == 2 and x.shape[-1:] == addend.shape:
        return x.home.make("matmul", [*x.args, addend], x.attrs, x.shape)
    if x.op == "view" and x.shape[-1:] == x.args[0].shape[-1:]:
        inner = _with(x.args[0], addend, uses)
        return None if inner is None else x.home.make("view", [inner], (), x.shape)
    if x.op == "point" and x.attrs == "add":
        for i in (1, 0):
            inner = _with(x.args[i], addend, uses)
            if inner is not None and inner.shape == x.args[i].shape:
                args = [inner, x.args[1]] if i == 0 else [x.args[0], inner]
                made = x.home.make("point", args, "add", x.shape)
                uses[id(made)] = 1
                return made
    return None


__all__ = ["joined"]
