"""Casts of parameters and gradients in few launches: a net in 16 bits has two for every parameter.

Gradients are read in 16 bits by the updates themselves. Parameters that are small are brought into the form that the
iteration wants at its beginning, where merge.py makes one launch of all the casts.
"""

from __future__ import annotations

from netrun.kernels import CHANGES
from netrun.program import Call, Program
from netrun.storage import SMALL
from netrun.types import PERSISTENT, Tensor


def cast_together(program: Program) -> Program:
    """The program with casts of gradients left out and those of small parameters in front."""
    return program if program.visible else _early(_without_gradients(program))


def _without_gradients(program: Program) -> Program:
    readers: dict[Tensor, list[Call]] = {}
    for call in program.calls:
        for root in dict.fromkeys(t.root for t in call.reads()):
            readers.setdefault(root, []).append(call)
    instead: dict[Tensor, Tensor] = {}
    gone: set[Call] = set()
    for call in program.calls:
        if call.op.name != "copy":
            continue
        x, y = call.tensors()
        passing = y.base is None and y not in program.keeps
        passing = passing and y.kind not in PERSISTENT and x.root.kind not in PERSISTENT
        after = readers.get(y, [])
        if passing and after and x.dtype != y.dtype and all(_takes(reader, y) for reader in after):
            instead[y] = x
            gone.add(call)
    if not gone:
        return program

    def put(t: Tensor) -> Tensor:
        return instead[t.root].view(t.shape) if t.root in instead else t

    return program.having(call.map(put) for call in program.calls if call not in gone)


def _takes(reader: Call, y: Tensor) -> bool:
    """Whether a call can read another type in the place of y: an update, or what adds up all of it."""
    return reader.op.name == "update" or (reader.op.name == "reduce" and y.spec.count == reader.reads()[0].spec.count)


def _early(program: Program) -> Program:
    """Transposes and casts of small parameters in front, the casts behind all transposes."""
    changed: set[Tensor] = set()
    ready: set[Tensor] = set()
    turned: list[Call] = []
    cast: list[Call] = []
    rest: list[Call] = []
    for call in program.calls:
        name = call.op.name
        if name in ("copy", "transpose"):
            x, y = call.tensors()
            root = x.root
            known = (root.kind == "learned" and root not in changed and root.spec.nbytes <= SMALL) or root in ready
            free = y.base is None and y not in program.keeps and y.kind not in PERSISTENT
            if known and free and not (name == "transpose" and root in ready):
                (cast if name == "copy" else turned).append(call)
                ready.add(y)
                continue
        if name in CHANGES:
            changed.update(t.root for t in call.writes())
        rest.append(call)
    return program.having([*turned, *cast, *rest])


__all__ = ["cast_together"]
