"""What moves elements without looking at them, and rows chosen by an index."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from netrun.program import Call
from netrun.types import Shape

from .geometry import WORDS, axes_defines, index_of, indices, type_defines, word_of
from .launch import BLOCK, CTYPES, Kernel, Step, nothing, sequence

if TYPE_CHECKING:
    from .device import Cuda

PARTS = 32
"""Tensors that one launch joins or cuts."""


# ---------------------------------------------------------------------------------------------------------- side by sid
def _joined(device: Cuda, name: str, whole: Any, parts: Sequence[Any], axis: int) -> Step:
    """Rows of ``whole`` are one row of each part after another."""
    axis %= whole.ndim
    rows = math.prod(whole.shape[:axis])
    width = whole.dtype.itemsize
    bytes_of = [p.size // max(rows, 1) * width for p in parts]
    pitch = sum(bytes_of)
    steps: list[Step] = []
    begin = 0
    for first in range(0, len(parts), PARTS):
        some, widths = parts[first : first + PARTS], bytes_of[first : first + PARTS]
        word = word_of([whole, *some], [*bytes_of, begin])
        count = rows * sum(widths) // word
        kernel = Kernel("join", name, (
            ("INDEX", CTYPES[index_of(rows * pitch)]), ("WORD", WORDS[word]),
            ("PARTS(X)", " ".join(f"X({j})" for j in range(len(some)))),
        ))  # fmt: skip
        numbers = [indices(rows * pitch, [w // word])[0] for w in widths]
        pairs = [value for pair in zip(some, numbers, strict=True) for value in pair]
        last = indices(rows * pitch, [count, pitch // word, begin // word, sum(widths) // word])
        steps.append(device.launcher.step(kernel, device.launcher.blocks(count), BLOCK, [*pairs, whole, *last]))
        begin += sum(widths)
    return sequence(steps)


def concat(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.concat, bound."""
    xs, y = args
    return _joined(device, "concat", y, xs, call.attrs["axis"])


def split(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.split, bound."""
    x, ys = args
    return _joined(device, "split", x, ys, call.attrs["axis"])


# ----------------------------------------------------------------------------------------------------------------- boxe
def _boxes(big: Shape, small: Shape, begin: Shape) -> tuple[list[int], list[int], list[int]]:
    """The sizes of both and the box's begin, an axis that the box fills merged into the one before it."""
    bigs, smalls, begins = [1], [1], [0]
    for n, m, b in zip(big, small, begin, strict=True):
        if n == m:
            bigs[-1] *= n
            smalls[-1] *= n
            begins[-1] *= n
        else:
            bigs.append(n)
            smalls.append(m)
            begins.append(b)
    if len(bigs) > 1 and bigs[0] == smalls[0] == 1:
        return bigs[1:], smalls[1:], begins[1:]
    return bigs, smalls, begins


def slice_(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.slice, bound."""
    x, y = args
    bigs, smalls, begins = _boxes(x.shape, y.shape, call.attrs["begin"])
    steps = [math.prod(bigs[j + 1 :]) for j in range(len(bigs))]
    base = sum(b * s for b, s in zip(begins, steps, strict=True))
    return _strided(device, x, y, smalls, steps, base)


def place(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.place, bound: one pass over y."""
    x, y = args
    if not y.size:
        return nothing
    if not x.size:
        return device.launcher.zero(y)
    bigs, smalls, begins = _boxes(y.shape, x.shape, call.attrs["begin"])
    width = x.dtype.itemsize
    word = word_of([x, y], [row[-1] * width for row in (bigs, smalls, begins)])
    for row in (bigs, smalls, begins):
        row[-1] = row[-1] * width // word
    count = math.prod(bigs)
    kernel = _mover("move_into_zeros", word, count, len(bigs))
    boxes = [n for pair in zip(smalls, begins, strict=True) for n in pair]
    values = [x, y, *indices(count, [count, *bigs, *boxes])]
    return device.launcher.step(kernel, device.launcher.blocks(count), BLOCK, values)


def _mover(name: str, word: int, count: int, rank: int) -> Kernel:
    return Kernel("move", name, (("INDEX", CTYPES[index_of(count)]), ("WORD", WORDS[word]), *axes_defines(rank)))


def _strided(device: Cuda, x: Any, y: Any, sizes: Sequence[int], steps: Sequence[int], base: int) -> Step:
    """y, dense of ``sizes``, from elements of x that lie ``steps`` apart, from ``base`` on."""
    if not y.size:
        return nothing
    width = x.dtype.itemsize
    word = width
    if steps[-1] == 1:
        word = word_of([x, y], [n * width for n in (sizes[-1], base, *steps[:-1])])
    sizes = [*sizes[:-1], sizes[-1] * width // word]
    steps = [*(s * width // word for s in steps[:-1]), 1 if steps[-1] == 1 else steps[-1]]
    count, most = math.prod(sizes), max(x.size, y.size) * width // word
    kernel = _mover("move_strided", word, most, len(sizes))
    values = [x, y, *indices(most, [count, base * width // word, *sizes, *steps])]
    return device.launcher.step(kernel, device.launcher.blocks(count), BLOCK, values)


# ------------------------------------------------------------------------------------------------------------- transpos
def transpose(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.transpose, bound: a copy, tiles through shared memory, or one element a thread."""
    x, y = args
    if not y.size:
        return nothing
    steps = [math.prod(x.shape[j + 1 :]) for j in range(len(x.shape))]
    runs: list[list[int]] = []  # (size, step in x) of each axis of y, those that stay together merged
    for axis in call.attrs["axes"]:
        n, step = x.shape[axis], steps[axis]
        if n == 1:
            continue
        if runs and runs[-1][1] == n * step:
            runs[-1] = [runs[-1][0] * n, step]
        else:
            runs.append([n, step])
    if len(runs) <= 1:
        return device.launcher.copy(x, y)
    swap = _swap(runs)
    if swap is None:
        return _strided(device, x, y, [n for n, _ in runs], [s for _, s in runs], 0)
    batch, rows, columns = swap
    kernel = _mover("move_transposed", x.dtype.itemsize, x.size, 1)
    tiles = batch * -(-rows // 32) * -(-columns // 32)
    values = [x, y, *indices(x.size, [batch, rows, columns])]
    return device.launcher.step(kernel, min(tiles, device.launcher.processors * 64), (32, 8), values)


def _swap(runs: Sequence[Sequence[int]]) -> tuple[int, int, int] | None:
    """(batch, rows, columns) if only the last two of three axes of x change places."""
    *outer, (columns, apart), (rows, pitch) = runs
    if apart != 1 or pitch != columns or min(rows, columns) < 2:
        return None
    if not outer:
        return 1, rows, columns
    (batch, step), *more = outer
    return (batch, rows, columns) if not more and step == rows * columns else None


# ------------------------------------------------------------------------------------------------------------------ row
def gather(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.gather, bound. An index out of range is reported by ``device.faults``; its row becomes 0."""
    x, index, y = args
    rows, width = x.shape[0], math.prod(x.shape[1:])
    most = max(x.size, y.size)
    fault = device.faults.slot(call.origin, "index", index.shape, rows)
    values = [x, index, y, fault, *indices(most, [y.size, rows, width])]
    return device.launcher.step(_rows("rows", "gather", x, index, most), device.launcher.blocks(y.size), BLOCK, values)


def scatter_add(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.scatter_add, bound: one block a row, which looks through the whole index.

    Deterministic, and costs rows * entries reads of the index from cache: 0.1 ms or so at 10,000 rows and entries.
    """
    index, x, y = args
    if not x.size:
        return device.launcher.zero(y)
    rows, width = y.shape[0], math.prod(y.shape[1:])
    most = max(x.size, y.size)
    fault = device.faults.slot(call.origin, "index", index.shape, rows)
    values = [index, x, y, fault, *indices(most, [index.size, rows, width])]
    blocks = min(rows, device.launcher.processors * 16)
    return device.launcher.step(_rows("rows", "scatter_add", x, index, most), blocks, BLOCK, values)


def merge_rows(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.merge_rows, bound: one block an entry, which looks through the whole index. Deterministic."""
    index, x, rows, y = args
    if not index.size:
        return nothing
    values = [index, x, rows, y, *indices(y.size, [index.size, math.prod(y.shape[1:])])]
    blocks = min(index.size, device.launcher.processors * 16)
    return device.launcher.step(_rows("merge_rows", "merge_rows", x, index, y.size), blocks, BLOCK, values)


def _rows(file: str, name: str, x: Any, index: Any, most: int) -> Kernel:
    types = type_defines(x.dtype.name, most, index.dtype.name)
    return Kernel(file, name, (*types, ("LABEL", CTYPES[index.dtype.name])))


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {
    "concat": concat,
    "split": split,
    "slice": slice_,
    "place": place,
    "transpose": transpose,
    "gather": gather,
    "scatter_add": scatter_add,
    "merge_rows": merge_rows,
}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {}
