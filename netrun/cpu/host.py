"""What every device on the host shares: memory that is NumPy arrays, and steps that are Python calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..device import Step
from ..errors import DataError, DeviceError, OutOfMemoryError
from ..program import Call, Origin, Program
from ..types import Spec, resolve_shape

Array = npt.NDArray[Any]

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""


class Quiet:
    """A step that gives no floating-point warnings: inf and nan are values here, and a diverged loss is reported by
    whoever reads it. ``Host.capture`` takes the bodies and is quiet once for all of them.
    """

    __slots__ = ("body",)

    def __init__(self, body: Step) -> None:
        self.body = body

    def __call__(self) -> None:
        with np.errstate(all="ignore"):
            self.body()


class Host:
    """Memory, transfers and capture of netrun.device.Device; ``bind`` is the subclasses'."""

    name = "host"
    ahead = 0

    precisions: frozenset[str] = frozenset({"FP32", "TF32"})
    """What programs may ask for. TF32 is a permission to round, so computing in float32 keeps to it."""

    def prepare(self, program: Program) -> Program:
        """The program as it is: nothing to fuse, no layout but the plain one.

        Raises:
            DeviceError: a precision that is not among ``precisions``.
        """
        self.accept(program)
        return program

    def accept(self, program: Program) -> None:
        """Refuse a program whose precision this device does not have.

        Raises:
            DeviceError: see above.
        """
        wanted = program.numerics.precision
        if wanted not in self.precisions:
            known = " and ".join(p for p in ("FP32", "TF32", "BF16", "FP16") if p in self.precisions)
            notes = ["--precision FP32 goes before what net and solver say", "--device cuda:0 computes in all of them"]
            if wanted == "BF16":
                notes.append(
                    "device cpu has it with oneDNN and a processor that multiplies bfloat16 (avx512_bf16, amx)"
                )
            raise DeviceError(f"device {self.name}: no precision {wanted} here, only {known}", None, notes)

    def workspace(self, call: Call) -> int:
        """No scratch."""
        return 0

    def allocate(self, nbytes: int) -> Array:
        """An uninitialised, 64-byte aligned block.

        Raises:
            OutOfMemoryError: the operating system refuses.
        """
        try:
            block = np.empty(nbytes + ALIGNMENT, np.uint8)
        except (MemoryError, ValueError):
            raise OutOfMemoryError(f"device {self.name}: {nbytes:,} bytes do not fit into memory") from None
        shift = -block.ctypes.data % ALIGNMENT
        return block[shift : shift + nbytes]

    def array(self, memory: Any, offset: int, spec: Spec) -> Array:
        """A view of ``memory`` from byte ``offset`` (a multiple of the element size) on."""
        part: Array = memory[offset : offset + spec.nbytes].view(spec.dtype).reshape(spec.shape)
        return part

    def view(self, array: Any, shape: Sequence[int]) -> Any:
        """The same elements under another shape; one -1 is worked out.

        Raises:
            ValueError: the count differs, or the elements do not lie as one block, so that a copy would be needed.
        """
        seen = array.reshape(resolve_shape(shape, array.size))
        if array.size and not np.may_share_memory(seen, array):
            raise ValueError(f"an array with strides {array.strides} cannot be seen as {tuple(shape)}")
        return seen

    def capture(self, steps: Sequence[Step]) -> Step:
        """A loop over the steps."""
        bodies = [step.body if isinstance(step, Quiet) else step for step in steps]

        def run() -> None:
            with np.errstate(all="ignore"):
                for body in bodies:
                    body()

        return run

    def write(self, array: Any, values: Any) -> None:
        """Copy ``values``, of the same count, in."""
        array[...] = np.asarray(values).reshape(array.shape)

    def read(self, array: Any) -> Array:
        """A copy."""
        copied: Array = array.copy()
        return copied

    def later(self, array: Any) -> Callable[[], Array]:
        """The copy is there at once."""
        values = self.read(array)
        return lambda: values

    def synchronize(self) -> None:
        """Nothing runs later than it is called."""


CHECKED = frozenset({"softmax_nll", "ctc", "gather", "scatter_add", "update_rows"})
"""Kernels that raise DataError for values out of range."""


def step_of(call: Call, body: Step) -> Quiet:
    """The body as a step; a DataError in it names the layer."""
    return Quiet(_naming(call.origin, body) if call.op.name in CHECKED and call.origin.name else body)


def _naming(origin: Origin, body: Step) -> Step:
    def step() -> None:
        try:
            body()
        except DataError as error:
            problem = error.problems[0]
            raise DataError(f"layer {origin}: {problem.what}", problem.where, problem.notes) from None

    return step


def whole_numbers(values: Array) -> npt.NDArray[np.int64]:
    """Labels and indices as integers, truncated towards zero. What is no number at all becomes a huge negative one."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.int64)


def refuse(what: str, values: Array, bad: Array, classes: int, hint: Callable[[], str] | None = None) -> None:
    """Raise DataError for the first bad one of ``values``.

    Args:
        what: "label" or "index".
        bad: truth values, one an element of ``values`` in the same order.
        classes: values 0 .. classes - 1 are allowed.
        hint: a last line of the message.
    """
    flat = int(np.flatnonzero(bad)[0])
    position = np.unravel_index(flat, values.shape)
    where = ", ".join(str(int(p)) for p in position)
    notes = (f"{int(bad.sum())} of {bad.size} are out of range",) + ((hint(),) if hint else ())
    raise DataError(
        f"{what} {values.reshape(-1)[flat].item():g} at position {where or '0'} is not in 0..{classes - 1}", None, notes
    )
