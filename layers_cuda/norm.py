"""Normalisation: lrn across channels, normalize over any axes, and their adjoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.program import Call
from netrun.types import Shape, Spec

from . import batch
from .geometry import Axes, Defines, indices, real_of, type_defines
from .launch import BLOCK, Kernel, Step, nothing, sequence
from .pointwise import expression
from .reduce import Layout, layout

if TYPE_CHECKING:
    from .device import Cuda

CHUNK = 32
"""Channels that one thread of lrn runs along: src/lrn.cu."""


# ----------------------------------------------------------------------------------------------------------------- lrn
def _lrn(device: Cuda, name: str, call: Call, tensors: Sequence[Any], *last: float) -> Step:
    x = tensors[0]
    images, channels, inner = x.shape[0], x.shape[1], int(np.prod(x.shape[2:], dtype=np.int64))
    if call.attrs.get("last"):
        images, channels, inner = int(np.prod(x.shape[:-1], dtype=np.int64)), x.shape[-1], 1
    size, beta = call.attrs["size"], call.attrs["beta"]
    quarters = int(beta * 4) if beta in (0.5, 0.75, 1.0) else 0
    kernel = Kernel("lrn", name, (
        *type_defines(x.dtype.name, x.size), ("SIZE", str(size)), ("QUARTERS", str(quarters)),
    ))  # fmt: skip
    runs = images * -(-channels // CHUNK) * inner
    real = np.dtype(real_of([x.dtype.name])).type
    values = [*tensors, *indices(x.size, [images, channels, inner])]
    numbers = [real(v) for v in (call.attrs["alpha"] / size, beta, *last)]
    return device.launcher.step(kernel, device.launcher.blocks(runs), BLOCK, [*values, *numbers])


def lrn(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.lrn, bound."""
    return _lrn(device, "lrn", call, args, call.attrs["k"])


def lrn_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.lrn_grad, bound."""
    return _lrn(device, "lrn_grad", call, args)


# ----------------------------------------------------------------------------------------------------------- normalize
def _plan(device: Cuda, shape: Shape, axes: Shape) -> Layout:
    """How to walk; where nothing is reduced, every element is a group of its own."""
    found = layout(shape, [shape], axes, device.launcher.processors)
    if found is not None:
        return found
    count = int(np.prod(shape, dtype=np.int64))
    return Layout(Axes((count, 1), (3,)), 1, count, 1, 1, 1, 1, 1)


def _alone(plan: Layout) -> bool:
    """Whether a group of threads does everything for its results, so that one launch is enough."""
    return plan.rows == 1


def _kernel(name: str, dtype: str, plan: Layout) -> Kernel:
    extra: Defines = plan.defines()
    return Kernel("normalize", name, (*type_defines(dtype, plan.axes.count), *extra))


def normalize(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.normalize, bound."""
    x, y, mean, var = args
    axes, eps = call.attrs["axes"], call.attrs["eps"]
    if not x.size:
        return nothing
    plan, dtype, launch = _plan(device, x.shape, axes), x.dtype.name, device.launcher.step
    real = real_of([dtype])
    numbers, sizes, count = [plan.outputs, plan.length], plan.axes.sizes, plan.axes.count
    if _alone(plan):
        values = [*args, *indices(count, numbers), np.dtype(real).type(eps), *indices(count, sizes)]
        return launch(_kernel("normalize", dtype, plan), plan.grid, BLOCK, values)
    inverse = device.array(scratch, 0, Spec(_kept(x.shape, axes), real))
    made = batch.moments(device, x, mean, var, inverse, axes, eps, scratch[_line(inverse.nbytes) :])
    given = [x, mean.reshape(inverse.shape), inverse]
    return sequence([made, expression(device, given, y, "(a - b) * c")])


def normalize_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.normalize_grad, bound."""
    y, var, dy, dx = args
    axes, eps = call.attrs["axes"], call.attrs["eps"]
    if not y.size:
        return nothing
    plan, dtype, launch = _plan(device, y.shape, axes), y.dtype.name, device.launcher.step
    real = real_of([dtype])
    numbers, sizes, count = [plan.outputs, plan.length], plan.axes.sizes, plan.axes.count
    if _alone(plan):
        values = [*args, *indices(count, numbers), np.dtype(real).type(eps), *indices(count, sizes)]
        return launch(_kernel("normalize_grad", dtype, plan), plan.grid, BLOCK, values)
    kept = Spec(_kept(y.shape, axes), real)
    total, product = (device.array(scratch, i * _line(kept.nbytes), kept) for i in range(2))
    made = batch.sums(device, [dy, y], total, product, "a", "b", axes, scratch[2 * _line(kept.nbytes) :])
    given = [dy, y, total, product, var.reshape(kept.shape)]
    share = 1 / plan.length
    return sequence(
        [made, expression(device, given, dx, f"(a - c * {share!r} - b * d * {share!r}) / sqrt(e + {eps!r})")]
    )


def _line(nbytes: int) -> int:
    return -(-nbytes // 256) * 256


def _kept(shape: Shape, axes: Shape) -> Shape:
    gone = {a % len(shape) for a in axes}
    return tuple(1 if i in gone else n for i, n in enumerate(shape))


def workspace(device: Cuda, call: Call) -> int:
    """Bytes of the partial results of normalize and normalize_grad."""
    x: Any = call.args[0]
    if not x.spec.count:
        return 0
    axes = call.attrs["axes"]
    if _alone(_plan(device, x.shape, axes)):
        return 0
    sides = 2 * _line(8 * int(np.prod(_kept(x.shape, axes), dtype=np.int64)))
    return sides + batch.scratch_bytes(device, x.shape, [x.shape], axes)


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {
    "lrn": lrn,
    "lrn_grad": lrn_grad,
    "normalize": normalize,
    "normalize_grad": normalize_grad,
}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {"normalize": workspace, "normalize_grad": workspace}
