"""Channels last: every kernel that is told of it, and whole programs in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import KernelCase, flat, run_case
from cases.kernels import KERNELS
from fakelibs import Cudnn

from layers_cuda.device import Cuda
from layers_cuda.layout import CONVOLUTIONS, TOLD, channels_last, forth
from layers_cuda.prepare import prepare
from netrun.cpu.reference import Reference
from netrun.program import Call, Origin, Program, Recorder
from netrun.session import Session
from netrun.types import Numerics, Spec, Tensor, Window

Make = Callable[..., Cuda]
NAMES = {**TOLD, **CONVOLUTIONS}


def rank_of(case: KernelCase) -> int:
    given, _ = case.build("float32")
    names = [m.name for m in case.signature.arguments]
    return len(given[names.index(NAMES[case.op][0])].shape)


ROWS = [case for case in KERNELS if case.op in NAMES and rank_of(case) in (4, 5)]


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_kernels_with_channels_last(case: KernelCase, device: Cuda) -> None:
    """The same numbers in another order."""
    given, attrs = case.build("float32")
    names = NAMES[case.op]

    def moved(name: str, value: Any) -> Any:
        if name not in names or value is None:
            return value
        if isinstance(value, Spec):
            return replace(value, shape=forth(value.shape))
        return np.ascontiguousarray(np.moveaxis(value, 1, -1))

    class Row(KernelCase):
        def build(self, dtype: str, seed: int = 1) -> Any:
            return tuple(moved(m.name, a) for m, a in zip(self.signature.arguments, given, strict=True)), attrs

    wanted = run_case(Reference(), case, "float32")
    if 0 in [n for arg in given for a in flat(arg) for n in a.shape]:
        pytest.skip("nothing in it")
    got = run_case(device, Row(case.op, case.note, case.make), "float32", more={"last": True})
    for m in case.signature.arguments:
        if "w" in m.role:
            exact = wanted[m.name][0]
            ours = np.moveaxis(got[m.name][0], -1, 1) if m.name in names else got[m.name][0]
            scale = float(np.abs(exact).max(initial=1)) if exact.dtype.kind == "f" else 1.0
            np.testing.assert_allclose(ours, exact, 2e-5, 1e-5 * scale, err_msg=str(case))


def chain() -> Program:
    """conv, a factor for each channel, a factor for each place, conv: the second factor cannot be seen as N S C."""
    k = Recorder()
    x, w, v = (
        Tensor(n, Spec(s), "learned") for n, s in (("x", (2, 3, 6, 6)), ("w", (4, 3, 3, 3)), ("v", (5, 4, 3, 3)))
    )
    channel, place = Tensor("channel", Spec((4, 1, 1)), "learned"), Tensor("place", Spec((1, 4, 6, 6)), "learned")
    a, b, c = (Tensor(n, Spec((2, 4, 6, 6))) for n in "abc")
    d, e, s = Tensor("d", Spec((2, 5, 6, 6))), Tensor("e", Spec((2, 5))), Tensor("s", Spec((5,)))
    window = Window((3, 3), pad=(1, 1))
    k.origin = Origin("l")
    k.conv(x, w, None, a, window=window, groups=1)
    k.pointwise([a, channel], b, expr="a * b")
    k.pointwise([b, place], c, expr="a + b")
    k.conv(c, v, None, d, window=window, groups=1)
    k.reduce([d], e, expr="a", how="sum", axes=(2, 3))
    k.reduce([d], s, expr="a * a", how="max", axes=(0, 2, 3))
    return Program(tuple(k.calls), {}, frozenset([e, s, c]))


def values(session: Session, program: Program) -> list[Any]:
    rng = np.random.default_rng(0)
    for t in program.persistent():
        if t.kind == "learned":
            session.write(t, rng.standard_normal(t.shape))
    session.run()
    return [session.read(t) for t in sorted(program.keeps, key=lambda t: t.name)]


@pytest.mark.parametrize("refuses", [None, lambda kind, bias, relu, dtype: True], ids=["plans", "no plans"])
def test_borders(refuses: Any, make_device: Make) -> None:
    program = chain()
    device = make_device(cudnn=Cudnn(refuses))
    lower = replace(program, numerics=Numerics("TF32"))
    for got, exact in zip(
        values(Session(lower, device), lower), values(Session(program, Reference()), program), strict=True
    ):
        np.testing.assert_allclose(got, exact, 1e-4, 1e-4)


def test_what_is_said() -> None:
    made = channels_last(chain(), lambda call: True)
    told = [str(c) for c in made.calls]
    assert sum("last=True" in line for line in told) == 2
    assert any("channel[1x1x4]" in line or "channel[1x1x1x4]" in line for line in told)
    assert any(line.endswith("axes=(1,2)") for line in told), "sums over the place alone stay in the layout"
    kept = next(c for c in made.calls if c.op.name == "pointwise" and c.writes()[0].name == "c")
    assert kept.writes()[0].shape == (2, 4, 6, 6), "a kept tensor is plain"


def test_strict_float32_stays_plain() -> None:
    program = chain()
    made = prepare(program, lambda call: True)
    assert [c.op.name for c in made.calls] == ["conv", "pointwise", "conv", "reduce", "reduce"]
    assert not any("last" in c.attrs for c in made.calls)
    assert channels_last(program, lambda call: False) is program


def test_the_library_sees_strides(make_device: Make) -> None:
    """The filter of a plan lies K S C, its image N S C."""
    library = Cudnn()
    device = make_device(cudnn=library)
    x, w, y = (Tensor(n, Spec(s)) for n, s in (("x", (2, 6, 6, 3)), ("w", (4, 3, 3, 3)), ("y", (2, 4, 4, 4))))
    call = Call(_conv(), (x, w, None, y), {"window": Window((3, 3)), "groups": 1, "last": True}, Origin("l"))
    device.workspace(call)
    strides = {tuple(d.values[903]) for d in library.descriptors.values() if d.kind == 17 and 903 in d.values}
    assert (108, 1, 18, 3) in strides
    assert (27, 1, 9, 3) in strides


def _conv() -> Any:
    return next(c for c in chain().calls if c.op.name == "conv").op
