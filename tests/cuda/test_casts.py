"""Casts of parameters and gradients: few launches, in front; updates read 16-bit gradients; memory is used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from test_fusing import solver

from layers_cuda.capture import Bound
from layers_cuda.device import Cuda
from layers_cuda.merge import merged
from netrun.kernels import OPS
from netrun.program import Call
from netrun.solver import Solver
from netrun.types import Spec, Tensor

Make = Callable[..., Cuda]


def test_casts_are_in_front_and_gradients_have_none(make_device: Make) -> None:
    device = make_device()
    with Solver(solver("BF16"), device=device) as run:
        session: Any = run.sessions[0]
        calls = session.program.calls
        casts = [i for i, c in enumerate(calls) if c.op.name == "copy" and c.reads()[0].dtype != c.writes()[0].dtype]
        assert casts[:4] == [3, 4, 5, 6]  # behind the transposes of three filters: these and the matrix of ip
        assert all(i < 4 for i, c in enumerate(calls) if c.op.name == "transpose" and c.reads()[0].kind == "learned")
        assert not any(calls[i].origin.is_backward and calls[i].writes()[0].kind == "grad" for i in casts)
        read = {t.dtype for c in calls if c.op.name == "update" and c.origin.way == "*" for t in c.reads()}
        assert "bfloat16" in read
        weights = [c.reads()[0].root for c in calls if c.op.name in ("copy", "transpose")]
        assert len([t for t in weights if t.kind == "learned"]) == len({t for t in weights if t.kind == "learned"})


def cast(device: Cuda, x: Any, y: Any) -> Bound:
    call = Call(
        OPS["copy"], (Tensor("x", Spec(x.shape, x.dtype.name)), Tensor("y", Spec(y.shape, y.dtype.name))), {}, "l"
    )
    step = device.bind(call, [x, y], None)
    assert isinstance(step, Bound)
    return step


def test_casts_become_one_launch_unless_their_memory_meets(device: Cuda) -> None:
    """The second of them may write where the first has read: they then keep their order."""
    memory = device.allocate(4096)
    wide = [device.array(memory, at, Spec((32,))) for at in (0, 128, 256)]
    half = [device.array(memory, at, Spec((4, 8), "bfloat16")) for at in (1024, 1088, 1152)]
    values = [np.arange(32, dtype="float32") + 100 * i for i in range(3)]
    for array, value in zip(wide, values, strict=True):
        device.write(array, value)
    steps = merged(device, [cast(device, a, b) for a, b in zip(wide, half, strict=True)])
    assert len(steps) == 1
    steps[0]()
    for array, value in zip(half, values, strict=True):
        np.testing.assert_array_equal(device.read(array), value.reshape(4, 8))
    over = device.array(memory, 0, Spec((4, 8), "bfloat16"))  # where the first is read
    steps = merged(device, [cast(device, wide[0], half[0]), cast(device, wide[1], over)])
    assert len(steps) == 2
    for step in steps:
        step()
    np.testing.assert_array_equal(device.read(half[0]), values[0].reshape(4, 8))
    np.testing.assert_array_equal(device.read(over), values[1].reshape(4, 8))
