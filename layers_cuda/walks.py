"""One walk over the steps, as calls of a program: the product of the inputs before it, the cell, and behind the cell's
adjoint what makes the gradients of weights and inputs. ``recurrent.py`` makes stacks of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from netrun.program import Call, Program
from netrun.types import PERSISTENT, Tensor

from .rnn import Stack
from .stacks import Place


class OtherError(Exception):
    """These calls are something else."""


def need(condition: object) -> None:
    """Raise OtherError unless that holds."""
    if not condition:
        raise OtherError


class Index:
    """Who writes and reads what."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.writer: dict[Tensor, Call] = {}
        self._readers: dict[Tensor, list[Call]] = {}
        self.position = {call: i for i, call in enumerate(program.calls)}
        for call in program.calls:
            self.writer.update((t.root, call) for t in call.writes())
            for root in dict.fromkeys(t.root for t in call.reads()):
                self._readers.setdefault(root, []).append(call)

    def readers(self, t: Tensor) -> list[Call]:
        """Calls that read it."""
        return self._readers.get(t.root, [])

    def inner(self, t: Tensor) -> bool:
        """Whether only calls of the program see it."""
        return t.root not in self.program.keeps and t.root.kind not in PERSISTENT

    def unread(self, t: Tensor) -> bool:
        """Whether nobody looks at it."""
        return self.inner(t) and not self.readers(t)


@dataclass
class Part:
    """One direction of one layer, a layer, or several: what it reads and makes, and the calls that it replaces."""

    stack: Stack
    x: Tensor
    y: Tensor
    weights: dict[Place, Tensor]
    grads: dict[Place, Tensor] = field(default_factory=dict)
    first: tuple[Tensor | None, Tensor | None] = (None, None)
    dfirst: tuple[Tensor | None, Tensor | None] = (None, None)
    dy: Tensor | None = None
    dx: Tensor | None = None
    forward: list[Call] = field(default_factory=list)
    backward: list[Call] = field(default_factory=list)
    reverse: bool = False


def walks(index: Index) -> list[Part]:
    """Every walk of a program that cuDNN could make, with its adjoint where there is one."""
    found = []
    for call in index.program.calls:
        if call.op.name in ("rnn", "lstm", "gru"):
            try:
                found.append(_walk(index, call))
            except OtherError:
                continue
    return found


def _given(call: Call) -> dict[str, Any]:
    return {a.name: arg for a, arg in zip(call.op.arguments, call.args, strict=True)}


def _walk(index: Index, cell: Call) -> Part:
    """What belongs to one rnn, lstm or gru.

    Raises:
        OtherError: cuDNN computes something else.
    """
    a, kind = _given(cell), cell.op.name
    need(a["cont"] is None and a.get("peep") is None and a.get("proj") is None)
    (steps, streams, size), dtype = a["y"].shape, a["y"].dtype
    rows, wide = steps * streams, a["x"].shape[2]
    need(steps > 1 and rows * size > 0 and dtype in ("float32", "float64"))
    product = index.writer.get(a["x"].root)
    need(product is not None and product.op.name == "gemm" and index.inner(a["x"]))
    assert product is not None
    p = _given(product)
    need(not product.attrs["ta"] and product.attrs["tb"] and index.readers(a["x"]) == [cell])
    x, w, b = p["a"], p["b"], p["c"]
    need(len(x.shape) == 2 and x.shape[0] == rows and x.shape[1] > 0 and x.dtype == dtype)
    need(w.shape == (wide, x.shape[1]) and (b is None or b.shape == (wide,)))
    weights: dict[Place, Tensor | None] = {(0, 0, "w"): w, (0, 0, "b"): b, (0, 0, "r"): a["w"], (0, 0, "d"): a.get("b")}
    part = Part(
        Stack(cell.attrs["act"] if kind == "rnn" else kind, dtype, steps, streams, x.shape[1], size),
        x, a["y"], {place: t for place, t in weights.items() if t is not None},
        first=(a["first"], a.get("first_cell")), forward=[product, cell], reverse=cell.attrs["reverse"],
    )  # fmt: skip
    hidden = [a[name] for name in ("cell", "gates") if name in a]
    seen = hidden[-1] if hidden else a["y"]
    grads = [c for c in index.readers(seen) if c.op.name == f"{kind}_grad" and _given(c)["w"].root is a["w"].root]
    need(len(grads) <= 1 and all(index.inner(t) and index.readers(t) in ([], grads) for t in hidden))
    if grads:
        _adjoint(index, part, grads[0])
    return part


def _adjoint(index: Index, part: Part, grad: Call) -> None:
    """Take in the adjoint of a cell and what is made of its result."""
    g, stack = _given(grad), part.stack
    part.stack, part.dy = replace(stack, training=True), g["dy"]
    need(g["cont"] is None and g.get("dcell") is None and grad.attrs["reverse"] == part.reverse)
    need("dout" not in g or index.unread(g["dout"]))
    ends = [(g[name], part.first[i]) for i, name in enumerate(("dfirst", "dfirst_cell")) if name in g]
    need(all(first is not None or index.unread(t) for t, first in ends))
    wanted = [None if index.unread(t) else t for t, _ in ends]
    part.dfirst = wanted[0], wanted[1] if len(wanted) > 1 else None
    part.backward.append(grad)
    of_input, of_state = g["dx"], g.get("du", g["dx"])
    need(index.inner(of_input) and index.inner(of_state))
    for slope in dict.fromkeys((of_input, of_state)):
        for call in index.readers(slope):
            _take(index, part, call, slope is of_input, slope is of_state)


def _take(index: Index, part: Part, call: Call, of_input: bool, of_state: bool) -> None:
    """One of the calls that read the gradient of what goes into the gates."""
    a, s = _given(call), part.stack
    rows, wide = s.steps * s.streams, part.weights[0, 0, "w"].shape[0]
    part.backward.append(call)
    if call.op.name == "gemm" and call.attrs["ta"] and not call.attrs["tb"]:
        need(a["c"] is None and a["a"].shape == (rows, wide))
        if of_input and a["b"].root is part.x.root:
            need(a["b"].shape == part.x.shape)
            return _give(part, "w", a["y"])
        need(of_state)
        _before(index, part, a["b"], call)
        return _give(part, "r", a["y"])
    if call.op.name == "gemm":
        plain = not call.attrs["ta"] and not call.attrs["tb"] and a["c"] is None and a["a"].shape == (rows, wide)
        need(plain and of_input and part.dx is None and _same(a["b"], part.weights[0, 0, "w"]))
        part.dx = a["y"]
        return None
    if call.op.name == "slice":  # GRU: its own bias of the new state
        need(of_state and s.mode == "gru" and call.attrs["begin"] == (0, 0, 2 * s.size) and index.inner(a["y"]))
        (total,) = index.readers(a["y"]) if len(index.readers(a["y"])) == 1 else [call]
        part.backward.append(total)
        need(_is_sum(total, (0, 1), a["y"].shape))
        return _give(part, "d", total.writes()[0])
    need(of_input and _is_sum(call, (0,), (rows, wide)))
    return _give(part, "b", call.writes()[0])


def _same(a: Tensor, b: Tensor) -> bool:
    return a.root is b.root and a.shape == b.shape


def _is_sum(call: Call, axes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether it is a plain sum over the leading axes of one tensor, that of all steps and streams."""
    if call.op.name != "reduce" or (call.attrs["expr"], call.attrs["how"]) != ("a", "sum"):
        return False
    reads = call.reads()
    whole = len(reads) == 1 and reads[0].shape == shape and call.writes()[0].spec.count == shape[-1]
    return whole and tuple(i % len(shape) for i in call.attrs["axes"]) == axes


def _give(part: Part, name: str, made: Tensor) -> None:
    place = (0, 0, name)
    need(place in part.weights and place not in part.grads)
    part.grads[place] = made


def _before(index: Index, part: Part, t: Tensor, reader: Call) -> None:
    """Take in the calls that make the states before each step out of y and the first state."""
    s, made = part.stack, index.writer.get(t.root)
    need(made is not None and t.spec.count == part.y.spec.count and index.inner(t) and index.readers(t) == [reader])
    assert made is not None
    moved = list(made.reads())
    first = part.first[0]
    if made.op.name == "concat" and made.attrs["axis"] == 0 and first is not None and len(moved) == 2:
        at = 1 if part.reverse else 0
        need(moved.pop(at).root is first.root)
    else:
        begin = (0, 0, 0) if part.reverse else (1, 0, 0)
        need(made.op.name == "place" and made.attrs["begin"] == begin and first is None)
    cut = index.writer.get(moved[0].root)
    need(cut is not None and cut.op.name == "slice" and index.readers(moved[0]) == [made] and index.inner(moved[0]))
    assert cut is not None
    need(cut.reads()[0].root is part.y.root and cut.attrs["begin"] == ((1, 0, 0) if part.reverse else (0, 0, 0)))
    need(cut.writes()[0].shape == (s.steps - 1, s.streams, s.size))
    part.backward += [made, cut]
