"""The one table of what is under test, and the way a row of it runs on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netrun.device import Device
from netrun.kernels import OPS, Op
from netrun.program import Call, Origin
from netrun.types import Spec, Tensor

Array = Any
Given = tuple[Any, ...]
Attributes = Mapping[str, Any]

POISON = {"f": float("nan"), "i": -77, "u": 77, "b": True}
"""What outputs hold before the kernel runs, by kind of element type."""


@dataclass(frozen=True)
class KernelCase:
    """One row: a kernel on one set of arguments.

    Attributes:
        op: the kernel's name.
        note: what is special about the row.
        make: from a generator and a float type to (arguments, attributes). An argument is an array, None, a tuple of
            arrays, or for outputs a Spec (a tuple of Specs). Arguments that are changed in place are arrays.
        wants: the arguments whose gradient can be checked by finite differences: the values stay away from kinks. An
            argument that is a tuple counts with all of its arrays of the case's float type; a single one of them is
            named "xs[1]".
        rtol, atol: instead of the defaults of ``tolerance``; atol is in units of the largest expected value.
        reason: why they are not the default.
    """

    op: str
    note: str
    make: Callable[[np.random.Generator, str], tuple[Given, Attributes]]
    wants: tuple[str, ...] = ()
    rtol: float | None = None
    atol: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.op}: {self.note}"

    @property
    def signature(self) -> Op:
        """The kernel's row of netrun.kernels.OPS."""
        return OPS[self.op]

    def build(self, dtype: str, seed: int = 1) -> tuple[Given, Attributes]:
        """Arguments and attributes; the same every time."""
        given, attrs = self.make(np.random.default_rng(seed), dtype)
        return tuple(map(_arrays, given)), attrs

    def tolerance(self, dtype: str) -> tuple[float, float]:
        """(rtol, atol) for results in that float type; atol is in units of the largest expected value."""
        rtol, atol = (1e-5, 2e-6) if dtype == "float32" else (1e-12, 1e-13)
        return rtol if self.rtol is None else self.rtol, atol if self.atol is None else self.atol


def _arrays(argument: Any) -> Any:
    """NumPy hands out scalars for shape ()."""
    if isinstance(argument, tuple):
        return tuple(map(_arrays, argument))
    return np.asarray(argument) if isinstance(argument, np.generic) else argument


KERNELS: list[KernelCase] = []
"""The table. Import it from cases.kernels, which fills it."""


def row(
    op: str,
    note: str,
    make: Callable[[np.random.Generator, str], tuple[Given, Attributes]],
    wants: Sequence[str] = (),
    **tolerance: Any,
) -> None:
    """Add a row to the table."""
    KERNELS.append(KernelCase(op, note, make, tuple(wants), **tolerance))


def flat(argument: Any) -> Iterator[Any]:
    """The arrays or Specs of one argument."""
    if isinstance(argument, tuple):
        yield from argument
    elif argument is not None:
        yield argument


def poisoned(spec: Spec) -> Array:
    """Memory that was never written: NaN, or a number that is no result."""
    return np.full(spec.shape, POISON[np.dtype(spec.dtype).kind], spec.dtype)


def run_case(
    device: Device, case: KernelCase, dtype: str, seed: int = 1, more: Attributes | None = None
) -> dict[str, list[Array]]:
    """Run the row on the device and give back every argument as it is afterwards, by name (outputs start poisoned).

    Args:
        more: attributes that only this device knows.

    Raises:
        AssertionError: an argument that is only read has changed.
    """
    given, attrs = case.build(dtype, seed)
    tensors, arrays, before = [], [], []
    for marks, argument in zip(case.signature.arguments, given, strict=True):
        values = [poisoned(v) if isinstance(v, Spec) else np.array(v) for v in flat(argument)]
        specs = [Spec(v.shape, v.dtype.name) for v in values]
        homes = [device.array(device.allocate(s.nbytes), 0, s) for s in specs]
        for home, value in zip(homes, values, strict=True):
            device.write(home, value)
        named = tuple(Tensor(f"{marks.name}{i}", s) for i, s in enumerate(specs))
        single = argument is not None and not isinstance(argument, tuple)
        tensors.append(None if argument is None else named[0] if single else named)
        arrays.append(None if argument is None else homes[0] if single else tuple(homes))
        before.append(values)
    call = Call(case.signature, tuple(tensors), {**attrs, **(more or {})}, Origin("case"))
    scratch = device.allocate(device.workspace(call))
    step = device.capture([device.bind(call, arrays, scratch)])
    step()
    device.synchronize()
    after = {}
    for marks, argument, values in zip(case.signature.arguments, arrays, before, strict=True):
        after[marks.name] = [device.read(array) for array in flat(argument)]
        if marks.role == "r":
            for old, new in zip(values, after[marks.name], strict=True):
                np.testing.assert_array_equal(new, old, f"{case}: the kernel changed its input {marks.name}")
    return after


def compare(case: KernelCase, dtype: str, got: Mapping[str, list[Array]], wanted: Mapping[str, list[Array]]) -> None:
    """Hold the outputs of a row against those of the reference.

    Raises:
        AssertionError: they differ by more than the row's tolerance, or an element was never written.
    """
    rtol, atol = case.tolerance(dtype)
    for marks in case.signature.arguments:
        if "w" not in marks.role:
            continue
        for i, (ours, reference) in enumerate(zip(got[marks.name], wanted[marks.name], strict=True)):
            what = f"{case} ({dtype}): {marks.name}[{i}]"
            assert (ours.shape, ours.dtype) == (reference.shape, reference.dtype), what
            if reference.dtype.kind != "f":
                np.testing.assert_array_equal(ours, reference, what)
            else:
                finite = np.abs(reference[np.isfinite(reference)])
                scale = float(finite.max()) if finite.size else 1.0
                np.testing.assert_allclose(ours, reference, rtol, atol * scale, equal_nan=False, err_msg=what)


__all__ = ["KERNELS", "KernelCase", "compare", "flat", "poisoned", "row", "run_case"]
