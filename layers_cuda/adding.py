"""Gradients added to what is there: the sum of several contributions without a pass of its own.

A blob that several layers read has a gradient of several contributions. The first is written into the sum's place; a
convolution or a product that comes later adds to that (beta = 1 in cuDNN and cuBLAS) as it writes. So n contributions
take 2n - 1 passes over memory instead of 2n + 1. A sum within an expression (fusing.py) takes no pass of its own, and
stays. The same for filters that several layers share, and for the sums of gradients that outlive a pass (iter_size),
which a kernel sets to zero in front of an iteration's first pass.

Several calls then write one tensor: only this device does that, after all other changes to a program. Those that add
have the attribute ``add``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.expression import Apply, Node, Var, letters, parse, rule
from netrun.kernels import Argument, Op
from netrun.program import SOLVER, Call, Program
from netrun.types import PERSISTENT, Tensor

from .geometry import WORDS, word_of
from .launch import BLOCK, CTYPES, Kernel, Launch, Step, nothing
from .update import CHUNK, constant

if TYPE_CHECKING:
    from .device import Cuda

ADDERS = frozenset({"conv", "conv_grad_x", "conv_grad_w", "gemm"})
"""Kernels that can add to what their result holds."""

MOST_ROUNDED = 8
"""Contributions to a 16-bit sum at most: every one rounds all that came before it."""

CLEAR = Op("clear", (Argument("first", "r", False, False), Argument("sums", "rw", True, False)), ())
"""Sets the sums to zero where ``first`` is not 0, and leaves them alone where it is."""

_FIRST = rule(["g", "first"], ["total"], "total = where(first, 0, total) + g")
"""The update that adds the gradient of one pass to a sum over several."""

Takes = Callable[[Call], bool]


def added(program: Program, takes: Takes) -> Program:
    """The program with convolutions and products that add to gradients.

    A program whose layers may run one by one, with somebody looking at what is between them, stays as it is.

    Args:
        takes: whether the device runs a call with the attribute ``add``.
    """
    return program if program.visible else _Adding(program, takes).run()


def adds(program: Program, takes: Takes) -> Callable[[Call], bool]:
    """Tells of a call whether ``added`` will have its sum made by others: a plain sum whose last contribution can be
    added to the rest. Several that read it should then read it, and not compute it again each."""
    makers = {t.root: (i, call) for i, call in enumerate(program.calls) for t in call.writes()}

    def told(call: Call) -> bool:
        if not is_sum(call) or any(t.root not in makers for t in call.reads()):
            return False
        _, last = max((makers[t.root] for t in call.reads()), key=lambda found: found[0])
        return _may_add(last) and takes(_onto(last))

    return told


def _onto(call: Call) -> Call:
    return replace(call, attrs={**call.attrs, "add": True})


def is_sum(call: Call) -> bool:
    """Whether a call is the plain sum of at least two tensors of one shape and type."""
    if call.op.name != "pointwise" or "cut" in call.attrs:
        return False
    given, (y,) = call.reads(), call.writes()
    alike = all(t.shape == y.shape and t.root.spec.count == y.spec.count and t.dtype == y.dtype for t in given)
    names = sorted(_terms(parse(call.attrs["expr"])))
    return alike and len(given) > 1 and names == sorted(letters(len(given)))


def _terms(tree: Node) -> list[str]:
    """The names that are added up; one that no tensor has where there is anything else."""
    if isinstance(tree, Var):
        return [tree.name]
    if isinstance(tree, Apply) and tree.op == "add":
        return [name for arg in tree.args for name in _terms(arg)]
    return [""]


def _may_add(call: Call) -> bool:
    """Whether it is one of the kernels, with nothing behind the product that is no sum."""
    if call.op.name not in ADDERS or call.attrs.get("relu") or call.attrs.get("add"):
        return False
    if call.op.name == "conv":
        return call.argument("b") is None and "begin" not in call.attrs
    return call.op.name != "gemm" or call.argument("c") is None


class _Adding:
    def __init__(self, program: Program, takes: Takes) -> None:
        self.program, self._takes = program, takes
        self.calls: list[Call | None] = list(program.calls)
        self.readers: dict[Tensor, list[int]] = {}
        self.writers: dict[Tensor, list[int]] = {}
        for i, call in enumerate(program.calls):
            for root in dict.fromkeys(t.root for t in call.reads()):
                self.readers.setdefault(root, []).append(i)
            for root in dict.fromkeys(t.root for t in call.writes()):
                self.writers.setdefault(root, []).append(i)

    def run(self) -> Program:
        for i, call in enumerate(self.program.calls):
            if is_sum(call):
                self._sum(i)
        cleared: dict[Tensor, list[Tensor]] = {}
        for i, call in enumerate(self.program.calls):
            if call.op.name == "update" and call.attrs["rule"] == _FIRST:
                self._over_passes(i, cleared)
        clears = [Call(CLEAR, (first, tuple(sums)), {}, SOLVER.backward) for first, sums in cleared.items()]
        calls = [*clears, *(call for call in self.calls if call is not None)]
        return self.program.having(calls) if calls != list(self.program.calls) else self.program

    def _own(self, t: Tensor, reader: int) -> bool:
        """Whether only that call reads the tensor, and nobody sees it after the run."""
        root = t.root
        passing = root not in self.program.keeps and root.kind not in PERSISTENT
        return passing and self.readers[root] == [reader] and bool(self.writers.get(root))

    def _adding(self, at: int, to: Tensor, of: Tensor) -> Call | None:
        """The call at that place adding to ``to`` instead of making ``of``; None where it cannot."""
        call = self.calls[at]
        if call is None or not _may_add(call) or call.writes()[0].spec.count != of.root.spec.count:
            return None
        made = _putting(_onto(call), of, to)
        return made if self._takes(made) else None

    def _sum(self, i: int) -> None:
        call = self.calls[i]
        assert call is not None
        given, y = call.reads(), call.writes()[0].root
        mine = sorted((t for t in given if self._own(t, i)), key=lambda t: self.writers[t.root][-1])
        while len(mine) > 1:
            base, *others = mine
            after = self.writers[base.root][-1]
            late: dict[Tensor, tuple[int, Call]] = {}
            for t in others:
                (at, *more) = self.writers[t.root]
                made = self._adding(at, y, t) if not more and at > after else None
                if made is not None and (y.dtype in ("float32", "float64") or len(late) + 1 < MOST_ROUNDED):
                    late[t] = at, made
            if late:
                self._put(i, base, late)
                return
            mine = others

    def _put(self, i: int, base: Tensor, late: dict[Tensor, tuple[int, Call]]) -> None:
        """Have the later ones add to the first, and the sum add what is left of it."""
        call = self.calls[i]
        assert call is not None
        y = call.writes()[0].root
        left = [t for t in call.reads() if t not in late]
        target = y if len(left) == 1 else base.root
        places = [*self.writers[base.root], *(at for at, _ in late.values())]
        for at, made in late.values():
            self.calls[at] = _putting(made, y, target)
        for at in self.writers[base.root]:
            first = self.calls[at]
            assert first is not None
            self.calls[at] = _putting(first, base, target)
        if len(left) > 1:
            self.calls[i] = replace(
                call, args=(tuple(left), call.args[1]), attrs={"expr": " + ".join(letters(len(left)))}
            )
            places.append(i)
        else:
            self.calls[i] = None
            self.writers[y] = sorted(places)
            return
        self.writers[base.root] = sorted(set(places) - {i})

    def _over_passes(self, i: int, cleared: dict[Tensor, list[Tensor]]) -> None:
        """The gradient of a pass is added to the sum over passes by the call that makes it."""
        call = self.calls[i]
        assert call is not None
        (g, first), (total,) = call.reads()[:2], call.writes()
        touched = [*self.readers.get(total.root, []), *self.writers.get(total.root, [])]
        if not self._own(g, i) or set(touched) != {i} or g.dtype != total.dtype or g.spec.count != total.spec.count:
            return
        found = []
        for at in self.writers[g.root]:
            maker = self.calls[at]
            assert maker is not None
            if maker.attrs.get("add"):
                found.append((at, _putting(maker, g, total.root)))
                continue
            made = self._adding(at, total.root, g)
            if made is None:
                return
            found.append((at, made))
        for at, made in found:
            self.calls[at] = made
        self.calls[i] = None
        cleared.setdefault(first, []).append(total)


def _putting(call: Call, old: Tensor, new: Tensor) -> Call:
    """The call with one tensor in the place of another."""
    return call.map(lambda t: new.root.view(t.shape) if t.root is old.root else t)


def clear(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """clear, bound."""
    first, sums = args
    arrays = [a for a in sums if a.size]
    if not arrays:
        return nothing
    word = word_of(arrays, [a.nbytes for a in arrays])
    rows = [(a.data.ptr, a.nbytes // word) for a in arrays]
    chunks = [(i, at) for i, (_, count) in enumerate(rows) for at in range(0, count, CHUNK)]
    kernel = Kernel(
        "clear", "clear", (("FIRST", CTYPES[first.dtype.name]), ("WORD", WORDS[word]), ("CHUNK", str(CHUNK)))
    )
    tables = [constant(device, np.array(values, np.int64)) for values in (rows, chunks)]
    return Launch.of((tables, arrays), device.launcher.step(kernel, len(chunks), BLOCK, [first, *tables]))


BODIES: Mapping[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"clear": clear}
"""Beside those of the vocabulary."""

__all__ = ["BODIES", "CLEAR", "added", "adds"]
