"""Device "cpu": the kernels that matter, bound to NumPy and BLAS calls on memory laid out beforehand.

A module a family (conv, pool, ...) has one function a kernel: it takes the arrays and the scratch block and gives
back the step to run. What has no such function runs as the reference does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..device import Step
from ..kernels import OPS
from ..program import Call, Program
from ..types import PLAIN, Spec, Tensor, resolve_shape
from . import attention, conv, ctc, dense, dnnl, lrn, pointwise, pool, rows, sequence, shape, softmax
from .host import step_of
from .layouts import Laid, nbytes
from .memory import chain
from .onednn import GRAD_WB, Recipes
from .prepare import prepare
from .reference import Reference

BODIES: Mapping[str, Callable[..., Step]] = {
    "conv": conv.conv, "conv_grad_x": conv.conv_grad_x, "conv_grad_w": conv.conv_grad_w,
    "pool_max": pool.pool_max, "pool_max_grad": pool.pool_max_grad,
    "pool_avg": pool.pool_avg, "pool_avg_grad": pool.pool_avg_grad,
    "lrn": lrn.lrn, "lrn_grad": lrn.lrn_grad,
    "pointwise": pointwise.pointwise, "update": pointwise.update, "reduce": pointwise.reduce,
    "gemm": dense.gemm, "fill": shape.fill, "copy": shape.copy, "softmax": softmax.softmax,
    "softmax_grad": softmax.softmax_grad, "softmax_nll": softmax.softmax_nll,
    "softmax_nll_grad": softmax.softmax_nll_grad,
    "normalize": dense.normalize, "normalize_grad": dense.normalize_grad,
    "concat": shape.concat, "split": shape.split, "slice": shape.slice_, "place": shape.place,
    "transpose": shape.transpose, "random": shape.random, "ctc": ctc.ctc,
    "attention": attention.attention, "attention_grad": attention.attention_grad,
    "merge_rows": rows.merge_rows, "update_rows": rows.update_rows,
}  # fmt: skip
"""Kernel name -> function of (tensors in order, scratch, attributes by name) that gives back the step."""

WORKSPACES: Mapping[str, Callable[[Call], int]] = {
    **{op: lambda call: conv.conv_bytes(call.op.name.removesuffix("b"), call.args[:4 - ("grad" in call.op.name)],
                                         call.attrs["window"], call.attrs["groups"])
       for op in ("conv", "conv_grad_x", "conv_grad_w", "conv_grad_wb")},
    "pool_max": pool.workspace, "pool_max_grad": pool.workspace,
    "pool_avg": pool.workspace, "pool_avg_grad": pool.workspace,
    "lrn": lrn.workspace, "lrn_grad": lrn.workspace,
    "pointwise": pointwise.workspace, "update": pointwise.workspace, "reduce": pointwise.workspace,
    "update_rows": rows.workspace,
    "softmax_grad": dense.workspace, "softmax_nll": softmax.workspace, "softmax_nll_grad": softmax.workspace,
    "normalize": dense.workspace, "normalize_grad": dense.workspace,
    "attention": attention.workspace, "attention_grad": attention.workspace,
}  # fmt: skip
"""Kernel name -> scratch bytes."""


class Fast(Reference):
    """The host device that trains.

    Args:
        numpy: run everything on NumPy, even where oneDNN is at hand.
    """

    name = "cpu"
    lean = True
    """What keeps little runs faster here: calls are fused, arrays laid out (netrun.lean)."""
    joins = True
    """Starting an update takes as long as a small one: many are better one (netrun.compiler.together)."""

    def __init__(self, numpy: bool = False) -> None:
        super().__init__()
        self._library = None if numpy else dnnl.library()
        self.recipes = Recipes(self._library) if self._library is not None else None
        if self._library is not None and self._library.multiplies_halves:
            self.precisions = self.precisions | {"BF16"}

    @property
    def note(self) -> str:
        """What does the arithmetic, and why not oneDNN if it does not: one line."""
        if self.recipes is not None:
            return f"oneDNN {self.recipes.lib.version}"
        return f"NumPy {np.__version__} (no oneDNN: {dnnl.reason()})" if dnnl.reason() else f"NumPy {np.__version__}"

    def prepare(self, program: Program) -> Program:
        """With oneDNN: calls fused and layouts chosen.

        Raises:
            DeviceError: a precision that this device does not have.
        """
        self.accept(program)
        return program if self.recipes is None else prepare(program, self.recipes)

    def nbytes(self, spec: Spec) -> int:
        """Bytes of an array in its layout."""
        return nbytes(spec)

    def array(self, memory: Any, offset: int, spec: Spec) -> Any:
        """A view of ``memory`` from byte ``offset`` on. Only the library looks inside one that is not plain."""
        if spec.layout == PLAIN:
            return super().array(memory, offset, spec)
        return memory[offset : offset + nbytes(spec)]

    def laid(self, memory: Any, spec: Spec) -> Laid:
        """What ``array`` gave for a spec that is not plain, as an array to ``read``, ``write`` and ``view``."""
        return Laid(memory, spec, spec.shape)

    def view(self, array: Any, shape: Sequence[int]) -> Any:
        """The same elements under another shape."""
        if isinstance(array, Laid):
            return Laid(array.memory, array.spec, resolve_shape(shape, array.spec.count))
        return super().view(array, shape)

    def read(self, array: Any) -> Any:
        """A plain copy."""
        if not isinstance(array, Laid):
            return super().read(array)
        values = np.empty(array.spec.shape, array.spec.dtype)
        self._reorder(array.spec, replace(array.spec, layout=PLAIN), array.memory, values)
        return values.reshape(array.shape)

    def write(self, array: Any, values: Any) -> None:
        """Copy ``values``, of the same count, in."""
        if not isinstance(array, Laid):
            super().write(array, values)
            return
        plain = np.ascontiguousarray(values, array.spec.dtype).reshape(array.spec.shape)
        self._reorder(replace(array.spec, layout=PLAIN), array.spec, plain, array.memory)

    def _reorder(self, source: Spec, target: Spec, x: Any, y: Any) -> None:
        call = Call(OPS["copy"], (Tensor("x", source), Tensor("y", target)), {})
        recipe = self.recipes.of(call) if self.recipes is not None else None
        if recipe is None:
            raise TypeError(f"nothing copies {source} to {target}, though something laid it out")
        recipe.bind({"x": (x,), "y": (y,)}, np.empty(recipe.scratch, np.uint8))()

    def workspace(self, call: Call) -> int:
        """Scratch bytes of the call."""
        recipe = self.recipes.of(call) if self.recipes is not None else None
        if recipe is not None:
            return recipe.scratch
        if call.op.name in sequence.WORKSPACES:
            return sequence.WORKSPACES[call.op.name](self._library, call)
        measure = WORKSPACES.get(call.op.name)
        return measure(call) if measure else 0

    def bind(self, call: Call, args: Sequence[Any], scratch: Any) -> Step:
        """The library's primitives where it has them, else the fast body, else the reference's."""
        recipe = self.recipes.of(call) if self.recipes is not None else None
        if recipe is not None:
            pairs = zip(call.op.arguments, args, strict=True)
            arrays = {a.name: arg if isinstance(arg, tuple) else (arg,) for a, arg in pairs if arg is not None}
            return step_of(call, recipe.bind(arrays, scratch))
        if "then" in call.attrs or call.op is GRAD_WB:
            return self._apart(call, args, scratch)
        if call.op.name in sequence.BODIES:
            return step_of(call, sequence.BODIES[call.op.name](self._library, *args, scratch, **call.attrs))
        body = BODIES.get(call.op.name)
        if body is None:
            return super().bind(call, args, scratch)
        return step_of(call, body(*args, scratch, **call.attrs))

    def _apart(self, call: Call, args: Sequence[Any], scratch: Any) -> Step:
        """A fused call the library refuses, as the calls it was made of."""
        if call.op.name == GRAD_WB.name:
            _, dy, *_, db = args
            axes = tuple(i for i in range(dy.ndim) if i != 1)
            attrs = dict(call.attrs)
            first = BODIES["conv_grad_w"](*args[:3], scratch, **attrs)
            second = BODIES["reduce"]((dy,), db, scratch, expr="a", how="sum", axes=axes)
        else:
            attrs = {k: v for k, v in call.attrs.items() if k != "then"}
            first = BODIES[call.op.name](*args, scratch, **attrs)
            second = BODIES["pointwise"]((args[-1],), args[-1], None, expr=call.attrs["then"])
        return step_of(call, chain([first, second]))
