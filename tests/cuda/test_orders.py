"""Calls that are moved, put together or replaced read what they read where they stood: nets that are drawn, with states
that change between their readers, and scales that layers compute late, give the reference's numbers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases.program_nets import Maker

from layers_cuda.device import Cuda
from netrun.compiler.gradients import backward
from netrun.cpu.reference import Reference
from netrun.device import Device
from netrun.expression import rule
from netrun.program import Origin, Program, Recorder
from netrun.session import Session
from netrun.types import STRICT, Numerics, Spec, Tensor, Window

Make = Callable[..., Cuda]

N, C, S = 2, 8, 4
"""Images, channels and height of every blob."""

DECAY = rule(["x"], ["s"], "s = 0.5 * s + x")
DESCENT = rule(["g", "lr"], ["w"], "w = w - lr * g")

NEAR = {"FP32": 1e-3, "TF32": 1e-3, "BF16": 0.1, "FP16": 0.02}


class Drawn(Maker):
    """A net that grows by blobs of one shape."""

    def __init__(self, k: Recorder, seed: int = 0) -> None:
        super().__init__(k)
        self.random = random.Random(seed)
        self.states = list[Tensor]()
        self.blobs = [self.conv(self.feed(N, C, S, S), C, 3, pad=1)]

    def state(self, *shape: int) -> Tensor:
        self.states.append(Tensor(f"s{len(self.states)}", Spec(shape), "state"))
        return self.states[-1]

    def changed(self, s: Tensor, x: Tensor) -> None:
        """Bring a state up to date: of a blob, or of the sums of one."""
        if s.shape != x.shape:
            total = self.blob(C)
            self.k.reduce([x], total, expr="a * 0.03", how="sum", axes=(0, 2, 3))
            x = total
        self.k.update([x], [s], rule=DECAY)

    def hat(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is normalised, and its mean."""
        y, mean, var = self.blob(*x.shape), self.blob(1, C, 1, 1), self.blob(1, C, 1, 1)
        self.k.normalize(x, y, mean, var, axes=(0, 2, 3), eps=1e-2)
        return y, mean.view((C,))

    def scaled(self, x: Tensor, *factors: Tensor) -> Tensor:
        y, (scale, *shift) = self.blob(*x.shape), (t.view((1, C, 1, 1)) for t in factors)
        self.k.pointwise([x, scale, *shift], y, expr="a * b + c" if shift else "a * b")
        return y

    def reshaped(self, x: Tensor, expr: str) -> Tensor:
        long, made, y = self.blob(N, C, S * S, 1), self.blob(N, C, S * S, 1), self.blob(*x.shape)
        self.k.copy(x, long)
        self.k.pointwise([long], made, expr=expr)
        self.k.copy(made, y)
        return y

    def parts(self, x: Tensor) -> list[Tensor]:
        """Its two halves, and what lies across them."""
        made = [self.blob(N, C, S, S) for _ in range(3)]
        for y, begin in zip(made, (0, C, C // 2), strict=True):
            self.k.slice(x, y, begin=(0, begin, 0, 0))
        return made

    # ------------------------------------------------------------------------------------------------------- drawing
    def pick(self) -> Tensor:
        wide = [s for s in self.states if len(s.shape) == 4]
        if wide and self.random.random() < 0.2:
            return self.random.choice(wide)
        return self.random.choice(self.blobs[-3:] if self.random.random() < 0.7 else self.blobs)

    def vector(self) -> Tensor:
        """A scale or a shift: learned, computed from what is learned or from a blob, or a state."""
        how = self.random.choice(["learned", "squared", "sums", "state"])
        if how == "learned":
            return self.weight(C)
        if how == "state":
            return self.random.choice([s for s in self.states if len(s.shape) == 1] or [self.state(C)])
        made = self.blob(C)
        if how == "squared":
            self.k.pointwise([self.weight(C)], made, expr="a * a + 0.5")
        else:
            self.k.reduce([self.pick()], made, expr="a * 0.05", how="sum", axes=(0, 2, 3))
        return made

    def step(self) -> None:
        """One layer more, or a few."""
        steps = [self._conv, self._norm, self._norm, self._plain, self._plain, self._joined, self._pool, self._change]
        draw = self.random.choice(steps)
        self.k.origin = Origin(f"{draw.__name__}{len(self.k.calls)}")
        draw()

    def _conv(self) -> None:
        size = self.random.choice([1, 3])
        self.blobs.append(self.conv(self.pick(), C, size, pad=size // 2, bias=self.random.random() < 0.5))

    def _norm(self) -> None:
        y, mean = self.hat(self.pick())
        if self.random.random() < 0.4:
            self.changed(self.state(C), mean)
        if self.random.random() < 0.3:
            self.step()
        factors = [self.vector() for _ in range(self.random.choice([1, 2, 2]))]
        z = self.scaled(y, *factors)
        if factors[0].kind == "state":
            self.changed(factors[0], mean)
        self.blobs.append(self.relu(z) if self.random.random() < 0.5 else z)

    def _plain(self) -> None:
        x, how = self.pick(), self.random.choice(["relu", "add", "mul", "reshape"])
        if how == "relu":
            self.blobs.append(self.relu(x))
        elif how == "add":
            self.blobs.append(self.add(x, self.pick()))
        elif how == "mul":
            self.blobs.append(self.blob(*x.shape))
            self.k.pointwise([x, self.random.choice(self.blobs[:-1])], self.blobs[-1], expr="a * b * 0.3")
        else:
            self.blobs.append(self.reshaped(x, self.random.choice(["a * a * 0.3", "relu(a, 0)"])))

    def _joined(self) -> None:
        a, b = self.pick(), self.pick()
        if a is not b:
            y = self.concat(a, b)
            self.blobs += [self.conv(y, C, 1)] if self.random.random() < 0.5 else self.parts(y)

    def _pool(self) -> None:
        y = self.blob(N, C, S, S)
        self.k.pool_max(self.pick(), y, self.blob(*y.shape, dtype="int32"), window=Window((3, 3), (1, 1), (1, 1)))
        self.blobs.append(y)

    def _change(self) -> None:
        shape = self.random.choice([(C,), (N, C, S, S)])
        found = [s for s in self.states if s.shape == shape]
        self.changed(self.random.choice(found) if found else self.state(*shape), self.random.choice(self.blobs))


def trained(draw: Callable[[Drawn], None], seed: int = 0) -> Program:
    """Forward and, but for every fourth seed, backward and the update of what is learned."""
    k = Recorder()
    k.origin = Origin("net")
    m = Drawn(k, seed)
    draw(m)
    k.origin = Origin("end")
    y = m.dense(m.add(m.blobs[-1], m.blobs[0]), 3)
    if seed % 4 < 3:
        top, lr = Tensor("seed", y.spec, "control"), Tensor("lr", Spec(()), "control")
        read = {t.root for c in k.calls for t in c.reads()}
        learned = [w for w in m.learned if w in read]
        found = backward(k, list(k.calls), learned, seeds=[(y, top)])
        for w in learned:
            if found.get(w) is not None:
                k.origin = Origin("net").update
                k.update([found[w], lr], [w], rule=DESCENT)
    return Program(tuple(k.calls), m.feeds, frozenset({y}))


def results(program: Program, device: Device) -> dict[str, Any]:
    """The result, the states, and how far what is learned has moved, after two runs."""
    session = Session(program, device)
    generator, start = np.random.default_rng(3), {}
    for t in program.tensors():
        if t.kind in ("feed", "learned", "control", "state"):
            fan = np.sqrt(np.prod(t.shape[1:])) if t.kind == "learned" else 1.0
            start[t] = 0.01 if t.name == "lr" else (generator.standard_normal(t.shape) / fan).astype("float32")
            session.write(t, start[t])
    session.run()
    session.run()
    seen = [t for t in program.tensors() if t in program.keeps or t.kind in ("learned", "state")]
    return {t.name: session.read(t) - (start[t] if t.kind == "learned" else 0) for t in seen}


def check(program: Program, precision: str, device: Cuda) -> None:
    got = results(replace(program, numerics=Numerics(precision=precision)), device)
    exact = results(replace(program, numerics=STRICT), Reference())
    most = max(float(np.abs(v).max()) for n, v in exact.items() if n.startswith("w"))
    for name, value in exact.items():
        least = 1e-2 * most if name.startswith("w") else 0.0  # biases before a normalisation: nothing but rounding
        np.testing.assert_allclose(
            got[name], value, 0, NEAR[precision] * max(float(np.abs(value).max()), least), err_msg=name
        )


# -------------------------------------------------------------------------------------------------------------- nets
def scaled_late(m: Drawn) -> None:
    """Batch normalisation whose scale and shift are computed between it and their use."""
    y, _ = m.hat(m.blobs[0])
    factors = [m.blob(C), m.blob(C)]
    for t in factors:
        m.k.pointwise([m.weight(C)], t, expr="tanh(a) + 0.5")
    m.blobs.append(m.conv(m.relu(m.scaled(y, *factors)), C, 3, pad=1))


def scaled_by_a_state(m: Drawn) -> None:
    """The scale is a state that its statistics change: behind its use, and before it is read for the gradient."""
    s = m.state(C)
    y, mean = m.hat(m.blobs[0])
    z = m.scaled(y, s, m.weight(C))
    m.changed(s, mean)
    m.blobs.append(m.relu(z))


def reshaped_behind(m: Drawn) -> None:
    """The gradient of a rectified batch normalisation comes as a view of an array of another shape."""
    m.blobs.append(m.reshaped(m.norm(m.blobs[0], relu=True), "sin(a)"))


def state_before_it_changes(m: Drawn) -> None:
    """A convolution and a sum of a state, with a ReLU behind the layer that brings the state up to date."""
    s = m.state(N, C, S, S)
    y, z = m.conv(s, C, 3, pad=1), m.add(s, m.blobs[0])
    m.changed(s, m.blobs[0])
    m.blobs.append(m.add(m.add(m.relu(y), m.relu(z)), s))


def rectified_parts(m: Drawn) -> None:
    """A concat of rectified branches, of which its parts and what lies across them are read."""
    x = m.blobs[0]
    y = m.concat(m.relu(m.conv(x, C, 1)), m.norm(m.conv(x, C, 3, pad=1), relu=True))
    m.blobs += m.parts(y)
    m.blobs.append(m.add(m.add(m.blobs[-1], m.blobs[-2]), m.relu(m.blobs[-3])))


@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize(
    "draw", [scaled_late, scaled_by_a_state, reshaped_behind, state_before_it_changes, rectified_parts]
)
def test_what_lies_between(draw: Callable[[Drawn], None], precision: str, device: Cuda) -> None:
    check(trained(draw), precision, device)


@pytest.mark.parametrize(("precision", "seeds"), [("FP32", range(10)), ("TF32", range(10, 18))])
def test_drawn_nets(precision: str, seeds: range, make_device: Make) -> None:
    """TF32 has the layouts and forms of the 16-bit precisions, and on the stand-in float32's numbers."""

    def draw(m: Drawn) -> None:
        for _ in range(8):
            m.step()

    for seed in seeds:
        check(trained(draw, seed), precision, make_device())
