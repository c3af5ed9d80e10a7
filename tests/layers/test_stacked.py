"""One call for all steps of a loop is the same as a call for each step: every rule, on every row of its kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import KernelCase, flat
from cases.kernels import KERNELS

from netrun.cpu.reference import Reference
from netrun.layers.stacked import RULES
from netrun.layers.unroll import Unrolled
from netrun.program import Call
from netrun.types import Spec, Tensor

STEPS = 3
ROWS = [case for case in KERNELS if case.op in RULES and case.op != "random"]


def placeholders(case: KernelCase, seeds: range) -> tuple[Call, dict[Tensor, list[Any]]]:
    """The row's call on placeholders, and the values of what it reads for each seed."""
    builds = [case.build("float64", seed)[0] for seed in seeds]
    args: list[Any] = []
    values: dict[Tensor, list[Any]] = {}
    for i, argument in enumerate(builds[0]):
        found = []
        for j, value in enumerate(flat(argument)):
            spec = value if isinstance(value, Spec) else Spec(value.shape, value.dtype.name)
            tensor = Tensor(f"{i}.{j}", spec)
            if not isinstance(value, Spec):
                values[tensor] = [list(flat(build[i]))[j] for build in builds]
            found.append(tensor)
        args.append(None if argument is None else tuple(found) if isinstance(argument, tuple) else found[0])
    return Call(case.signature, tuple(args), case.build("float64", seeds[0])[1], "case"), values


@pytest.mark.parametrize("case", ROWS, ids=str)
@pytest.mark.parametrize("which", ["all", "first", "last"])
def test_all_steps_at_once(case: KernelCase, which: str) -> None:
    call, values = placeholders(case, range(1, STEPS + 1))
    if not all(len({v.shape for v in steps}) == 1 for steps in values.values()):
        pytest.skip("this row draws its shapes")
    reads = [t for t in values if values[t][0].dtype.kind == "f"] or list(values)
    if not reads:
        pytest.skip("this row reads nothing")
    chosen = {"all": reads, "first": reads[:1], "last": reads[-1:]}[which]
    stepped = {t: np.stack(values[t]) for t in chosen}
    same = {t: v[0] for t, v in values.items() if t not in stepped}
    k = Reference("float64")
    loop = Unrolled(k, [call], STEPS, same, stepped)
    wanted = [Unrolled(k, [call], 1, {**same, **{t: v[i] for t, v in stepped.items()}}, {}) for i in range(STEPS)]
    for tensor in call.writes():
        y = np.full((STEPS, *tensor.shape), 7, tensor.dtype)
        loop.values(tensor, y)
        for i, one in enumerate(wanted):
            expected = np.full((1, *tensor.shape), 7, tensor.dtype)
            one.values(tensor, expected)
            np.testing.assert_allclose(y[i], expected[0], rtol=1e-12, atol=1e-12)


def test_every_rule_is_tried() -> None:
    assert {case.op for case in ROWS} == set(RULES) - {"random"}
