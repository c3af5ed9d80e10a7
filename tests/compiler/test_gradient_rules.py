"""Every gradient rule against finite differences in float64, from the kernels' own case table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import KernelCase
from cases.kernels import KERNELS

from netrun.compiler import gradients
from netrun.compiler.gradients import RULES, backward
from netrun.cpu.reference import Reference
from netrun.device import open_device
from netrun.program import Origin, Program, Recorder
from netrun.session import Session
from netrun.types import Spec, Tensor

STEP = 1e-6


def flatten(argument: Any) -> list[Any]:
    if argument is None:
        return []
    return list(argument) if isinstance(argument, tuple) else [argument]


class Harness:
    """The row's call, a random weighting of its float outputs as the loss, and the derived backward."""

    def __init__(self, case: KernelCase) -> None:
        self.given, attrs = case.build("float64")
        recorder = Recorder("float64")
        recorder.origin = Origin("case")
        rng = np.random.default_rng(7)
        self.inputs: dict[str, list[tuple[Tensor, Any]]] = {}
        self.outs: list[Tensor] = []
        arguments = []
        for marks, argument in zip(case.signature.arguments, self.given, strict=True):
            tensors = []
            for i, value in enumerate(flatten(argument)):
                spec = value if isinstance(value, Spec) else Spec(value.shape, value.dtype.name)
                kind = "data" if isinstance(value, Spec) else "feed"
                tensor = Tensor(f"{marks.name}{i}", spec, kind)  # type: ignore[arg-type]
                tensors.append(tensor)
                if kind == "feed":
                    self.inputs.setdefault(marks.name, []).append((tensor, value))
                elif marks.role == "w" and spec.dtype == "float64":
                    self.outs.append(tensor)
            if argument is None:
                arguments.append(None)
            else:
                arguments.append(tuple(tensors) if isinstance(argument, tuple) else tensors[0])
        getattr(recorder, case.op)(*arguments, **attrs)
        # Kernels such as ctc have outputs (slope) whose gradients no rule passes on.
        passed, every = {"y0", "loss0", "dx0", "x0", "cell0", "lse0"}, case.op in ("split", "normalize", "lrn")
        self.seeded = [t for t in self.outs if t.name in passed or every]
        self.weights = {t: rng.normal(size=t.shape) for t in self.seeded}
        seeds = {t: Tensor(f"seed {t.name}", t.spec, "control") for t in self.seeded}
        wanted = [t for want in case.wants for t, _ in self.named(want)]
        self.forward = len(recorder.calls)
        self.found = backward(recorder, list(recorder.calls), wanted, seeds=seeds.items())
        keeps = frozenset([*self.outs, *(self.found[t] for t in wanted if t in self.found)])
        feeds = {t.name: t for pairs in self.inputs.values() for t, _ in pairs}
        self.session = Session(Program(tuple(recorder.calls), feeds, keeps), Reference())
        for tensor, seed in seeds.items():
            self.session.write(seed, self.weights[tensor])

    def named(self, want: str) -> list[tuple[Tensor, Any]]:
        name, _, index = want.partition("[")
        pairs = [self.inputs[name][int(index[:-1])]] if index else self.inputs[name]
        return [(t, v) for t, v in pairs if v.dtype == np.float64]

    def loss(self) -> float:
        self.session.run()
        found = {t: self.session.read(t) for t in self.seeded}  # what is infinite (lse) does not depend on anything
        return float(sum((self.weights[t] * np.where(np.isinf(v), 0, v)).sum() for t, v in found.items()))


@pytest.mark.parametrize(
    ("case", "want"), [pytest.param(c, w, id=f"{c} d{w}") for c in KERNELS if c.op in RULES for w in c.wants]
)
def test_rule_equals_finite_differences(case: KernelCase, want: str) -> None:
    harness = Harness(case)
    for pairs in harness.inputs.values():
        for tensor, value in pairs:
            harness.session.write(tensor, value)
    rng = np.random.default_rng(3)
    for tensor, value in harness.named(want):
        harness.loss()
        gradient = harness.session.read(harness.found[tensor]) if tensor in harness.found else np.zeros(value.shape)
        for _ in range(3):
            direction = rng.normal(size=value.shape)
            ends = []
            for sign in (1, -1):
                harness.session.write(tensor, value + sign * STEP * direction)
                ends.append(harness.loss())
            harness.session.write(tensor, value)
            numeric = (ends[0] - ends[1]) / (2 * STEP)
            exact = float((gradient * direction).sum())
            scale = max(1.0, abs(exact), float(np.abs(gradient).max(initial=0)))
            assert abs(numeric - exact) < 3e-6 * scale, f"{case} d{want}: {exact} derived, {numeric} measured"


def test_every_rule_is_tried() -> None:
    tried = {case.op for case in KERNELS if case.wants}
    assert set(RULES) - tried == set()


def test_a_wrong_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: a softmax whose gradient forgets the normalising term."""

    def wrong(k: Any, g: Any, x: Tensor, y: Tensor, *, axis: int) -> None:
        k.pointwise([g.of(y), y], g.new(x), expr="a * b")

    monkeypatch.setitem(RULES, "softmax", wrong)
    case = next(c for c in KERNELS if c.op == "softmax" and c.wants)
    with pytest.raises(AssertionError):
        test_rule_equals_finite_differences(case, "x")


def test_every_rule_stands_where_the_index_says() -> None:
    families = {module.__name__.rpartition(".")[2] for module in gradients.FAMILIES}
    index = [line.split() for line in (gradients.__doc__ or "").splitlines() if line.startswith("    ")]
    listed = {name: family for family, *names in index for name in names if family in families}
    assert listed == {name: rule.__module__.rpartition(".")[2] for name, rule in RULES.items()}


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_lrn_of_which_the_scale_alone_is_used(size: int, device: str) -> None:
    """A layer of a user's own may: dx = 2 alpha / size * x * (sum of dscale where x is in the sum)."""
    recorder, shape = Recorder(), (2, 5, 3)
    x, y, scale = (Tensor(n, Spec(shape), "feed" if n == "x" else "data") for n in ("x", "y", "scale"))
    recorder.lrn(x, y, scale, size=size, alpha=0.5, beta=0.75, k=1.0)
    seed = Tensor("seed", Spec(shape), "control")
    found = backward(recorder, list(recorder.calls), [x], seeds=[(scale, seed)])
    session = Session(Program(tuple(recorder.calls), {"x": x}, frozenset({found[x]})), open_device(device))
    rng = np.random.default_rng(1)
    given, slope = rng.normal(size=shape), rng.normal(size=shape)
    session.feed({"x": given})
    session.write(seed, slope)
    session.run()
    wanted, before = np.zeros(shape), (size - 1) // 2
    for c in range(5):
        for d in range(max(0, c - before), min(5, c - before + size)):
            wanted[:, d] += slope[:, c] / size * given[:, d]
    np.testing.assert_allclose(session.read(found[x]), wanted, 1e-5, 1e-6)
