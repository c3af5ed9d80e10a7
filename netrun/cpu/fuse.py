"""Calls that the library runs as one: what follows a convolution, sums of bias gradients, batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..expression import Var, letters, parse, substitute, text_of
from ..program import Call, Program
from ..types import PERSISTENT, Shape, Spec, Tensor
from . import frequencies, points
from .dnnl import Unsupported
from .fuse_attention import keeping
from .layouts import CHANNELS_LAST, work
from .onednn import BATCH_NORM, BATCH_NORM_GRAD, CONV_KEEP, CONV_THEN, GRAD_WB, GRADS, Recipes
from .onednn_norm import mask_bytes
from .onednn_pointwise import LONGEST, chain_of, operand_shapes


def fused(program: Program, recipes: Recipes) -> Program:
    """The program with fused calls."""
    return keeping(_fuse_bias_gradients(_fuse_chains(_Norms(program, recipes).fused(), recipes)), recipes)


def readers_of(program: Program) -> dict[Tensor, list[Call]]:
    """The calls that read each tensor, in order."""
    found: dict[Tensor, list[Call]] = {}
    for call in program.calls:
        for root in dict.fromkeys(t.root for t in call.reads()):
            found.setdefault(root, []).append(call)
    return found


class _Writers:
    """Where each tensor of a program is written: what may not be read earlier or later than it was."""

    def __init__(self, program: Program) -> None:
        self._at: dict[Tensor, list[int]] = {}
        for i, call in enumerate(program.calls):
            for root in {t.root for t in call.writes()}:
                self._at.setdefault(root, []).append(i)

    def change(self, tensors: Sequence[Tensor], first: int, last: int) -> bool:
        """Whether a call behind number ``first`` and before number ``last`` writes one of the tensors."""
        return any(first < i < last for t in tensors for i in self._at.get(t.root, ()))


def paired(program: Program, recipes: Recipes) -> Program:
    """Both gradients of a convolution as one call, where that shares work, also with its forward."""
    calls: list[Call] = []
    forward: list[int] = []
    # what somebody may write between forward and backward
    open_ = {*program.keeps, *(home.tensor.root for home in program.homes.values())}
    for call in program.calls:
        both = _both(calls[-1], call) if calls else None
        if both is None or recipes.of(both) is None:
            if call.op.name == "conv":
                forward.append(len(calls))
            calls.append(call)
            continue
        calls[-1] = both
        x, at = both.args[0], next((i for i in forward if _same(calls[i], both)), None)
        if at is not None and isinstance(x, Tensor) and x.root not in open_ and x.root.kind not in PERSISTENT:
            size = frequencies.kept(both) if frequencies.takes(both) else points.kept(both)
            values = Tensor(f"{x.name}.values", Spec((size,), "uint8", work(size)), "buffer")
            keeping = replace(calls[at], op=CONV_KEEP, args=(*calls[at].args, values))
            later = replace(both, args=(values, *both.args[1:]))
            if size and recipes.of(keeping) is not None and recipes.of(later) is not None:
                calls[at], calls[-1] = keeping, later
    return program.having(calls)


def _same(forward: Call, both: Call) -> bool:
    """Whether a call is the forward convolution of those gradients, computed as they are."""
    x, w, *_ = forward.args
    given = x is both.args[0] and w is both.args[1] and _alike(forward, both)
    return given and all(forward.attrs[name] == both.attrs[name] for name in both.attrs)


def _alike(*calls: Call) -> bool:
    """Whether calls are computed at the same points, or frequencies, of their arguments."""
    return any(all(map(way.takes, calls)) for way in (frequencies, points))


def _both(first: Call, second: Call) -> Call | None:
    """Two calls that follow each other as onednn.GRADS, if they are the two gradients of one convolution and share what
    they make of dy."""
    found = {call.op.name: call for call in (first, second)}
    if set(found) != {GRAD_WB.name, "conv_grad_x"} or first.attrs != second.attrs:
        return None
    weights, inputs = found[GRAD_WB.name], found["conv_grad_x"]
    x, dy, dw, db = weights.args
    w, seed, dx = inputs.args
    if seed is not dy or not _alike(weights, inputs):
        return None
    return Call(GRADS, (x, w, dy, dw, db, dx), first.attrs, first.origin)


def _fuse_chains(program: Program, recipes: Recipes) -> Program:
    """What only pointwise calls do to the result of a convolution or product becomes a part of that call.

    A product takes a ReLU alone. A convolution takes any chain: a constant batch normalisation with its scale and
    shift, a sum with another branch, a ReLU.
    """
    readers, writers, calls = readers_of(program), _Writers(program), list(program.calls)
    number = {id(call): i for i, call in enumerate(calls)}
    gone: set[int] = set()
    for i, call in enumerate(program.calls):
        if call.op.name not in ("conv", "gemm"):
            continue
        made, at, grown = call.writes()[0], i, call
        while True:
            after = readers.get(made.root, [])
            if made.root in program.keeps or made.root.kind in PERSISTENT or len(after) != 1:
                break
            if calls[number[id(after[0])]] is not after[0]:
                break  # another convolution has taken it
            if writers.change(grown.reads(), at, number[id(after[0])]):
                break  # a state, which is to be read as it was
            longer = _with(grown, made, after[0])
            if longer is None or recipes.of(longer) is None:
                break
            gone.add(at)
            at, grown, made = number[id(after[0])], longer, longer.writes()[0]
            calls[at] = grown
    return program.having(c for i, c in enumerate(calls) if i not in gone)


def _with(call: Call, made: Tensor, after: Call) -> Call | None:
    """The call with what ``after`` does to its result, where that is possible."""
    out = after.writes()[0]
    if after.op.name != "pointwise" or out.base is not None or out.dtype != made.dtype or out.kind in PERSISTENT:
        return None
    xs = after.reads()
    own = [name for name, x in zip(letters(len(xs)), xs, strict=True) if x.root is made.root]
    if len(own) != 1 or out.spec.count != made.spec.count:
        return None
    rest = {name: x for name, x in zip(letters(len(xs)), xs, strict=True) if name != own[0]}
    if rest and (call.op.name == "gemm" or not operand_shapes(list(rest.values()), out) or out.shape != made.shape):
        return None
    *before, _ = call.args
    others: tuple[Tensor, ...] = ()
    if call.op is CONV_THEN:
        *before, given = before
        assert isinstance(given, tuple)
        others = given
    names = letters(1 + len(others) + len(rest))
    fresh = dict(zip(rest, names[1 + len(others) :], strict=True))
    inner = parse(call.attrs.get("then", "a"))
    tree = substitute(parse(after.attrs["expr"]), {Var(own[0]): inner, **{Var(n): Var(f) for n, f in fresh.items()}})
    try:
        found = chain_of(tree, "a")
    except Unsupported:
        return None
    wide = sum(t.shape == out.shape for t in (*others, *rest.values()))
    if found.start != "a" or not 0 < len(found.links) <= LONGEST or wide > 1:
        return None
    attrs = {**call.attrs, "then": text_of(tree)}
    others += tuple(rest.values())
    if not others:
        return replace(call, args=(*before, out.view(made.shape)), attrs=attrs)
    return replace(call, op=CONV_THEN, args=(*before, others, out), attrs=attrs)


def _fuse_bias_gradients(program: Program) -> Program:
    """The gradient of a convolution's bias is summed while that of its weights is."""
    calls = list(program.calls)
    grads = {
        c.args[1].root: i for i, c in enumerate(calls) if c.op.name == "conv_grad_w" and isinstance(c.args[1], Tensor)
    }
    gone: set[int] = set()
    for i, call in enumerate(calls):
        if call.op.name != "reduce" or call.attrs["expr"] != "a":
            continue
        dy, db = call.reads()[0], call.writes()[0]
        at = grads.get(dy.root)
        if (
            at is None
            or at > i
            or calls[at].origin != call.origin
            or calls[at].op is GRAD_WB
            or db.dtype != "float32"
            or dy.dtype != "float32"
        ):
            continue
        seed = calls[at].args[1]
        assert isinstance(seed, Tensor)
        others = tuple(axis for axis in range(len(dy.shape)) if axis != 1)
        if seed.shape != dy.shape or not _sums_over(call, others) or db.spec.count != dy.shape[1]:
            continue
        calls[at] = replace(calls[at], op=GRAD_WB, args=(*calls[at].args, db))
        gone.add(i)
    return program.having(c for i, c in enumerate(calls) if i not in gone)


# ---------------------------------------------------------------------------------------------------------------- norms
_RECTIFIED = "relu(a, 0.0)"
_MASKED = "a * where(b > 0, 1, 0)"


class _Norms:
    """normalize, scale and shift, and a ReLU after them become one call; so does what backward makes of them."""

    def __init__(self, program: Program, recipes: Recipes) -> None:
        self.program, self.recipes = program, recipes
        self.readers, self.writers = readers_of(program), _Writers(program)
        self.place = {id(call): i for i, call in enumerate(program.calls)}
        self.change: dict[int, Call | None] = {}

    def fused(self) -> Program:
        """The program with the pattern replaced wherever it stands alone."""
        for call in self.program.calls:
            if call.op.name == "normalize":
                self._try(call)
        calls = [self.change.get(i, call) for i, call in enumerate(self.program.calls)]
        return self.program.having(c for c in calls if c is not None)

    def _own(self, t: Tensor) -> bool:
        return t.base is None and t not in self.program.keeps and t.kind not in PERSISTENT and t.dtype == "float32"

    def _free(self, call: Call) -> bool:
        return self.place[id(call)] not in self.change

    def _only(self, calls: Sequence[Call], op: str, expr: str | None = None) -> Call | None:
        """The one call of that kind among some, if there is exactly one."""
        found = [c for c in calls if c.op.name == op and (expr is None or c.attrs["expr"] == expr)]
        return found[0] if len(found) == 1 else None

    def _try(self, first: Call) -> None:
        x, hat, mean, var = first.tensors()
        if not self._own(hat) or not 3 <= len(x.shape) <= 5 or first.attrs["axes"] != (0, *range(2, len(x.shape))):
            return
        after = self.readers.get(hat, [])
        scaling = self._only(after, "pointwise", "a * b + c")
        if scaling is None or scaling.reads()[0].root is not hat or scaling.writes()[0].shape != x.shape:
            return
        _, scale, shift = scaling.reads()
        if (
            scale.spec.count != x.shape[1]
            or shift.spec.count != x.shape[1]
            or not _wide(scale, x)
            or not _wide(shift, x)
        ):
            return
        if self.writers.change((scale, shift), self.place[id(first)], self.place[id(scaling)]):
            return  # they are made after the moments: by layers of the net's own
        z = scaling.writes()[0]
        rectifier = self._after(z)
        out = z if rectifier is None else rectifier.writes()[0]
        rest = [c for c in after if c is not scaling]
        backward = self._backward(rest, scale, rectifier is not None) if rest else []
        if backward is None or out.base is not None:
            return
        self._replace(first, scaling, rectifier, backward, (x, scale, shift, out, mean, var))

    def _after(self, z: Tensor) -> Call | None:
        """The ReLU that alone reads z."""
        after = self.readers.get(z.root, [])
        alone = self._own(z) and len(after) == 1 and after[0].op.name == "pointwise"
        found = after[0] if alone and after[0].attrs["expr"] == _RECTIFIED else None
        return found if found is not None and found.writes()[0].base is None else None

    def _backward(self, rest: Sequence[Call], scale: Tensor, rectified: bool) -> list[Call] | None:
        """[mask of the ReLU,] gradient through the scale, sums for scale and shift, gradient of normalize; or None."""
        sums, last = self._only(rest, "reduce", "a * b"), self._only(rest, "normalize_grad")
        if sums is None or last is None or len(rest) != 2:
            return None
        inner, dz = last.reads()[2], sums.reads()[0]
        makers = [c for c in self.program.calls if inner.root in c.writes()]
        scaled = self._only(makers, "pointwise", "a * b")
        if scaled is None or not self._own(inner.root) or len(self.readers[inner.root]) != 1:
            return None
        if scaled.reads()[0].root is not dz.root or scaled.reads()[1].root is not scale.root:
            return None
        around = [c for c in self.readers[dz.root] if c is not scaled and c is not sums]
        # Two branches of a sum have one gradient, and each its own sum of it: any of them is the right number.
        free = [c for c in around if c.op.name == "reduce" and c.attrs["expr"] == "a" and self._free(c)]
        shift = min(free, key=lambda c: c.origin != sums.origin, default=None)
        axes = last.attrs["axes"]
        if shift is None or any(not _sums_over(c, axes) for c in (sums, shift)):
            return None
        if not rectified:
            return [scaled, sums, shift, last]
        masks = [c for c in self.program.calls if dz.root in c.writes()]
        mask = self._only(masks, "pointwise", _MASKED)
        if mask is None or len(around) != 1 or not self._own(dz.root):
            return None
        return [mask, scaled, sums, shift, last]

    def _replace(
        self, first: Call, scaling: Call, rectifier: Call | None, backward: Sequence[Call], tensors: Sequence[Tensor]
    ) -> None:
        x, scale, shift, out, mean, var = tensors
        attrs = {**first.attrs, "relu": rectifier is not None}
        size = mask_bytes(self.recipes.lib, x.spec, ("c16", "c8", CHANNELS_LAST, "plain")) if attrs["relu"] else 0
        kept = size if backward else 0
        mask = Tensor(f"{out.name}.mask", Spec((max(1, kept),), "uint8", work(kept)), "buffer")
        vectors = [_vector(t) for t in (scale, shift, mean, var)]
        made = Call(BATCH_NORM, (x, *vectors[:2], out, *vectors[2:], mask), attrs, scaling.origin)
        replaced = {id(first): made, id(scaling): None}
        if rectifier is not None:
            replaced[id(rectifier)] = None
        if backward:
            dy = backward[0].reads()[0]
            *_, sums, shifts, last = backward
            args = (x, vectors[2], vectors[3], vectors[0], mask, dy, last.writes()[0], _vector(sums.writes()[0]),
                    _vector(shifts.writes()[0]))  # fmt: skip
            grad = Call(BATCH_NORM_GRAD, args, attrs, last.origin)
            replaced.update({id(c): None for c in backward})
            # where the first of them stood, so that the sums are there for whoever reads them next
            replaced[id(min(backward, key=lambda c: self.place[id(c)]))] = grad
            if self.recipes.of(grad) is None:
                return
        if self.recipes.of(made) is None:
            return
        self.change.update({self.place[i]: call for i, call in replaced.items()})


def _sums_over(reduction: Call, axes: Shape) -> bool:
    """Whether a reduce call adds up along these axes. One of length 1, a batch of one image, may be named or not."""
    shape, found = reduction.reads()[0].shape, reduction.attrs["axes"]
    return reduction.attrs["how"] == "sum" and all(shape[i] == 1 for i in {*axes} ^ {*found})


def _wide(vector: Tensor, x: Tensor) -> bool:
    """Whether a vector lies along the channels of x."""
    shape = (1,) * (len(x.shape) - len(vector.shape)) + vector.shape
    return shape[1] == x.shape[1] and all(n == 1 for i, n in enumerate(shape) if i != 1)


def _vector(t: Tensor) -> Tensor:
    return t.view((t.spec.count,))
