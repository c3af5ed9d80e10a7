"""Concat without copying: convolutions write their channels into the joined tensor where it lies.

Where every part of a concat along the channels is the result of a convolution that nobody else reads in the forward
pass, each convolution gets the whole tensor as its result and the attribute ``begin``, the first of its channels. The
parts have no memory of their own any more; what backward reads of one (the gradient of a ReLU reads its result) is cut
out then. So several calls write one tensor, which only this device does, after all other changes to a program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from netrun.kernels import OPS
from netrun.program import Call, Program
from netrun.types import PERSISTENT, Tensor


def joined(program: Program, takes: Callable[[Call], bool]) -> Program:
    """The program with the concats of convolutions left out.

    Args:
        takes: whether the device runs a convolution with the attribute ``begin``.
    """
    makers: dict[Tensor, Call] = {}
    readers: dict[Tensor, list[Call]] = {}
    for call in program.calls:
        if call.op.name == "conv":
            makers[call.writes()[0]] = call
        for t in dict.fromkeys(t.root for t in call.reads()):
            readers.setdefault(t, []).append(call)
    written: dict[Call, Call] = {}
    parts: dict[Tensor, tuple[Tensor, tuple[int, ...]]] = {}
    gone: set[Call] = set()
    for call in program.calls:
        if call.op.name != "concat":
            continue
        found = _parts(program, call, makers, readers)
        if found is None or not all(takes(made) for _, made, _ in found):
            continue
        gone.add(call)
        for x, made, begin in found:
            written[makers[x]] = made
            parts[x] = call.writes()[0], begin
    if not gone:
        return program
    cut: dict[Tensor, Tensor] = {}
    calls: list[Call] = []

    def with_cut(call: Call) -> Call:
        return call.map(lambda t: cut_out(t, call.origin))

    def cut_out(t: Tensor, origin: str) -> Tensor:
        if t.root not in parts:
            return t
        if t.root not in cut:
            whole, begin = parts[t.root]
            cut[t.root] = Tensor(t.root.name, t.root.spec, t.root.kind)
            calls.append(Call(OPS["slice"], (whole, cut[t.root]), {"begin": begin}, origin))
        return cut[t.root].view(t.shape)

    for call in program.calls:
        if call in written:
            calls.append(written[call])
        elif call not in gone:
            calls.append(with_cut(call))
    return program.having(calls)


def _parts(
    program: Program, call: Call, makers: dict[Tensor, Call], readers: dict[Tensor, list[Call]]
) -> list[tuple[Tensor, Call, tuple[int, ...]]] | None:
    """Each part of a concat, its convolution as it would write into the whole, and where; None if one cannot."""
    xs, y = call.args
    assert isinstance(xs, tuple)
    assert isinstance(y, Tensor)
    rank, at = len(y.shape), 0
    if y.base is not None or y.kind in PERSISTENT or len(set(xs)) < len(xs):
        return None
    found = []
    for x in xs:
        made = makers.get(x)
        if made is None or x in program.keeps or x.kind in PERSISTENT or x.dtype != y.dtype:
            return None
        axis = rank - 1 if made.attrs.get("last") else 1
        others = [c for c in readers[x] if c is not call]
        if call.attrs["axis"] % rank != axis or any(not c.origin.endswith("'") for c in others):
            return None
        changed = replace(made, args=(*made.args[:-1], y), attrs={**made.attrs, "begin": at})
        found.append((x, changed, tuple(at if i == axis else 0 for i in range(rank))))
        at += x.shape[axis]
    return found


__all__ = ["joined"]
