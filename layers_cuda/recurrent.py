"""Recurrent layers by cuDNN: which calls of a program are together one stack that it computes.

The vocabulary's kernels get their inputs already multiplied; cuDNN multiplies inside, and gives gradients of weights
alone. So a stack is found as a whole: the products before each cell, the cells, and behind their adjoints the products
and sums that make the gradients of weights and inputs. All of it becomes four calls (stacks.py), or stays as it is:

- no cont, which cuDNN does not know; no peephole, no projection; at least two steps;
- a walk from the end to the start only beside one from start to end over the same input (a layer in two directions);
- nobody looks at a cell or a gate from outside (a last cell that is exposed, a net that keeps all its blobs).

Layers are one stack where nothing else reads what goes from one to the next: dropout between them parts it, so that the
masks stay those of netrun's own random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from netrun.program import Call, Program
from netrun.types import Spec, Tensor

from .rnn import Stack
from .stacks import BACKWARD, FORWARD, PACK, UNPACK
from .walks import Index, OtherError, Part, need, walks

Sizes = Callable[[Stack], tuple[int, int] | None]
"""Bytes of the block of weights and of what forward leaves for backward; None where cuDNN has nothing for a stack."""


def by_cudnn(program: Program, sizes: Sizes) -> Program:
    """The program with the recurrent stacks that cuDNN runs in its calls."""
    index = Index(program)
    parts = _chained(index, _layers(index, walks(index)))
    before: dict[Call, list[Call]] = {}
    gone: set[Call] = set()
    for part in parts:
        made = _calls(index, part, sizes)
        if made is not None:
            before.update(made)
            gone.update(part.forward, part.backward)
    if not gone:
        return program
    calls: list[Call] = []
    for call in program.calls:
        calls += before.get(call, [])
        if call not in gone:
            calls.append(call)
    return program.having(calls)


# ------------------------------------------------------------------------------------------------------------- layers
def _layers(index: Index, found_walks: Sequence[Part]) -> list[Part]:
    """Each layer: a walk from start to end, or two in both directions."""
    found: list[Part] = []
    turned = [walk for walk in found_walks if walk.reverse]
    for walk in found_walks:
        if walk.reverse:
            continue
        for other in turned:
            try:
                found.append(_both(index, walk, other))
                break
            except OtherError:
                continue
        else:
            found.append(walk)
    return found


def _both(index: Index, one: Part, other: Part) -> Part:
    """Two directions as one layer.

    Raises:
        OtherError: they are none.
    """
    need(one.stack == other.stack and one.x.root is other.x.root and one.x.shape == other.x.shape)
    need((*one.first, *other.first, *one.dfirst, *other.dfirst) == (None,) * 8)
    joins = [c for c in index.readers(one.y) if c.op.name == "concat" and c.args[0] == (one.y, other.y)]
    need(len(joins) == 1 and joins[0].attrs["axis"] % 3 == 2)
    backward = [*one.backward, *other.backward]
    for y in (one.y, other.y):
        need(index.inner(y) and set(index.readers(y)) <= {joins[0], *backward})
    weights = one.weights | {(0, 1, n): t for (_, _, n), t in other.weights.items()}
    grads = one.grads | {(0, 1, n): t for (_, _, n), t in other.grads.items()}
    forward = [*one.forward, *other.forward, joins[0]]
    stack, y = replace(one.stack, ways=2), joins[0].writes()[0]
    part = Part(stack, one.x, y, weights, grads, forward=forward, backward=backward)
    if not stack.training:
        return part
    cuts = []
    for i, walk in enumerate((one, other)):
        cut = index.writer.get(walk.dy.root) if walk.dy is not None else None
        need(cut is not None and cut.op.name == "slice" and cut.attrs["begin"] == (0, 0, i * stack.size))
        assert cut is not None
        assert walk.dy is not None
        need(index.inner(walk.dy) and set(index.readers(walk.dy)) <= set(walk.backward))
        cuts.append(cut)
    part.dy = cuts[0].reads()[0]
    need(cuts[1].reads()[0].root is part.dy.root and part.dy.shape == y.shape)
    part.backward += cuts
    need((one.dx is None) == (other.dx is None))
    if one.dx is not None and other.dx is not None:
        adds = index.readers(one.dx)
        need(len(adds) == 1 and index.readers(other.dx) == adds and index.inner(one.dx) and index.inner(other.dx))
        need(adds[0].op.name == "pointwise" and adds[0].attrs["expr"] == "a + b" and len(adds[0].reads()) == 2)
        part.dx = adds[0].writes()[0]
        part.backward += adds
    return part


# ------------------------------------------------------------------------------------------------------------- stacks
def _chained(index: Index, layers: Sequence[Part]) -> list[Part]:
    """Layers that follow one another as one."""
    found: list[Part] = []
    for layer in layers:
        if found:
            try:
                found[-1] = _on_top(index, found[-1], layer)
                continue
            except OtherError:
                pass
        found.append(layer)
    return found


def _on_top(index: Index, below: Part, above: Part) -> Part:
    """A stack and the layer that reads what it makes.

    Raises:
        OtherError: something else is between them.
    """
    s = replace(below.stack, layers=1, inputs=above.stack.inputs)
    need(s == above.stack and above.x.root is below.y.root and index.inner(below.y))
    need((*below.first, *above.first, *below.dfirst, *above.dfirst) == (None,) * 8)
    need(below.forward[0].origin == above.forward[0].origin)
    inside = {*below.forward, *below.backward, *above.forward, *above.backward}
    need(set(index.readers(below.y)) <= inside)
    if s.training:
        need(above.dx is not None and below.dy is not None and above.dx.root is below.dy.root)
        assert above.dx is not None
        need(index.inner(above.dx) and set(index.readers(above.dx)) <= set(below.backward))
    layer = below.stack.layers
    return Part(
        replace(below.stack, layers=layer + 1), below.x, above.y,
        below.weights | {(layer, way, n): t for (_, way, n), t in above.weights.items()},
        below.grads | {(layer, way, n): t for (_, way, n), t in above.grads.items()},
        dy=above.dy, dx=below.dx, forward=below.forward + above.forward, backward=above.backward + below.backward,
    )  # fmt: skip


def _calls(index: Index, part: Part, sizes: Sizes) -> dict[Call, list[Call]] | None:
    """The calls of a stack, by the call that they stand before; None where it cannot be."""
    if part.reverse:
        return None
    tensor = index.program.numerics.precision != "FP32"
    stack = replace(part.stack, tensor=tensor and part.stack.dtype == "float32")
    last = max(part.forward, key=index.position.__getitem__)
    begin = min(part.backward, key=index.position.__getitem__) if part.backward else last
    ready = part.dy is None or _written(index, part.dy) < index.position[begin]
    bytes_ = sizes(stack) if ready else None
    if bytes_ is None:
        return None
    origin = last.origin
    space, reserve = (Tensor(f"{origin}.{n}", Spec((max(size, 1),), "uint8"), "buffer")
                      for n, size in zip(("weights", "reserve"), bytes_, strict=True))  # fmt: skip
    kept = reserve if stack.training else None
    attrs, places = {"stack": stack}, tuple(part.weights)
    made = {last: [
        Call(PACK, (tuple(part.weights.values()), space), {**attrs, "places": places}, origin),
        Call(FORWARD, (part.x, space, *part.first, part.y, kept), attrs, origin),
    ]}  # fmt: skip
    if not stack.training:
        return made
    origin = begin.origin
    dspace = Tensor(f"{origin}.weights'", space.spec, "buffer") if part.grads else None
    ends = (part.x, space, *part.first, part.y, part.dy, reserve, part.dx, *part.dfirst, dspace)
    made[begin] = [Call(BACKWARD, ends, attrs, origin)]
    if dspace is not None:
        grads = tuple(part.grads.values())
        made[begin].append(Call(UNPACK, (dspace, grads), {**attrs, "places": tuple(part.grads)}, origin))
    return made


def _written(index: Index, t: Tensor) -> int:
    """Position of the call that makes a tensor, -1 where none does."""
    writer = index.writer.get(t.root)
    return -1 if writer is None else index.position[writer]
