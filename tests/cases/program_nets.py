"""Small nets in the kernel vocabulary alone, in the shapes that a device's ``prepare`` may fuse and lay out anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netrun.compiler.gradients import backward
from netrun.device import Device
from netrun.program import Origin, Program, Recorder
from netrun.session import Session
from netrun.types import Spec, Tensor, Window

Body = Callable[[Recorder, "Maker"], Tensor]


class Maker:
    """Tensors of a small net, by name."""

    def __init__(self, k: Recorder) -> None:
        self.k, self.learned, self.feeds = k, list[Tensor](), dict[str, Tensor]()

    def feed(self, *shape: int) -> Tensor:
        name = f"in{len(self.feeds)}"
        self.feeds[name] = Tensor(name, Spec(shape), "feed")
        return self.feeds[name]

    def weight(self, *shape: int) -> Tensor:
        self.learned.append(Tensor(f"w{len(self.learned)}", Spec(shape), "learned"))
        return self.learned[-1]

    def blob(self, *shape: int, dtype: str = "float32") -> Tensor:
        return self.k.new("t", Spec(shape, dtype), "data")

    def conv(self, x: Tensor, k: int, size: int, stride: int = 1, pad: int = 0, bias: bool = True) -> Tensor:
        window = Window((size, size), (stride, stride), (pad, pad))
        y = self.blob(x.shape[0], k, *window.output(x.shape[2:]))
        b = self.weight(k) if bias else None
        self.k.conv(x, self.weight(k, x.shape[1], size, size), b, y, window=window, groups=1)
        return y

    def relu(self, x: Tensor, slope: float = 0.0) -> Tensor:
        y = self.blob(*x.shape)
        self.k.pointwise([x], y, expr=f"relu(a, {slope})")
        return y

    def pool(self, x: Tensor, size: int, stride: int, how: str = "max", extra: int = 0) -> Tensor:
        window = Window((size, size), (stride, stride))
        out = tuple(n + extra for n in window.output(x.shape[2:]))
        y = self.blob(*x.shape[:2], *out)
        if how == "max":
            self.k.pool_max(x, y, self.blob(*y.shape, dtype="int32"), window=window)
        else:
            self.k.pool_avg(x, y, window=window, count="padded")
        return y

    def dense(self, x: Tensor, outputs: int) -> Tensor:
        flat = x.view((x.shape[0], -1))
        y = self.blob(x.shape[0], outputs)
        self.k.gemm(flat, self.weight(outputs, flat.shape[1]), self.weight(outputs), y, ta=False, tb=True)
        return y

    def norm(self, x: Tensor, relu: bool) -> Tensor:
        c = x.shape[1]
        hat, mean, var = self.blob(*x.shape), self.blob(1, c, 1, 1), self.blob(1, c, 1, 1)
        self.k.normalize(x, hat, mean, var, axes=(0, 2, 3), eps=1e-5)
        z, scale, shift = self.blob(*x.shape), self.weight(c), self.weight(c)
        self.k.pointwise([hat, scale.view((1, c, 1, 1)), shift.view((1, c, 1, 1))], z, expr="a * b + c")
        return self.relu(z) if relu else z

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        y = self.blob(*a.shape)
        self.k.pointwise([a, b], y, expr="a + b")
        return y

    def concat(self, *xs: Tensor) -> Tensor:
        y = self.blob(xs[0].shape[0], sum(x.shape[1] for x in xs), *xs[0].shape[2:])
        self.k.concat(list(xs), y, axis=1)
        return y

    def lrn(self, x: Tensor) -> Tensor:
        y = self.blob(*x.shape)
        self.k.lrn(x, y, self.blob(*x.shape), size=5, alpha=1e-2, beta=0.75, k=1.0)
        return y


def lenet(m: Maker) -> Tensor:
    x = m.pool(m.conv(m.feed(4, 1, 28, 28), 20, 5), 2, 2)
    x = m.pool(m.conv(x, 50, 5), 2, 2)
    return m.dense(m.relu(m.dense(x, 30)), 10)


def quick(m: Maker) -> Tensor:
    x = m.relu(m.pool(m.conv(m.feed(3, 3, 17, 17), 32, 5, pad=2), 3, 2))
    x = m.pool(m.relu(m.conv(x, 32, 5, pad=2), 0.1), 3, 2, "avg", extra=1)
    return m.dense(m.pool(m.relu(m.conv(x, 64, 3)), 2, 2, "avg"), 10)


def alex(m: Maker) -> Tensor:
    x = m.lrn(m.relu(m.conv(m.feed(2, 3, 33, 33), 32, 5, stride=2)))
    x = m.lrn(m.pool(x, 3, 2))
    return m.dense(m.relu(m.conv(x, 48, 3, pad=1)), 10)


def inception(m: Maker) -> Tensor:
    x = m.relu(m.conv(m.relu(m.conv(m.feed(2, 3, 10, 10), 64, 3)), 64, 3, pad=1))
    thin = m.relu(m.conv(m.relu(m.conv(x, 24, 1)), 48, 3, pad=1))
    return m.dense(m.pool(m.concat(m.relu(m.conv(x, 32, 1)), thin), 3, 2, extra=1), 10)


def odd(m: Maker) -> Tensor:
    """Channels that fill no block, an expression and a kernel the library does not have."""
    x = m.conv(m.feed(2, 5, 9, 9), 17, 3)
    y = m.blob(*x.shape)
    m.k.pointwise([x], y, expr="sin(a) + a * a")
    z = m.blob(x.shape[0], 17, 7, 7)
    m.k.transpose(m.add(x, y), z, axes=(0, 1, 3, 2))
    return m.dense(m.conv(z, 19, 3, bias=False), 10)


def residual(m: Maker, images: int = 4) -> Tensor:
    x = m.norm(m.conv(m.feed(images, 3, 12, 12), 32, 3, bias=False), relu=True)
    inner = m.norm(m.conv(x, 32, 3, pad=1, bias=False), relu=True)
    other = m.norm(m.conv(x, 32, 1, bias=False), relu=False)
    return m.dense(m.relu(m.add(m.norm(m.conv(inner, 32, 1, bias=False), relu=False), other)), 10)


def residual_of_one(m: Maker) -> Tensor:
    """A batch of one: sums over images need not name that axis."""
    return residual(m, 1)


NETS = {f.__name__: f for f in (lenet, quick, alex, inception, odd, residual)}


def compiled(body: Callable[[Maker], Tensor], train: bool = True, keep: bool = False) -> tuple[Program, Maker]:
    """Forward and backward of a net; kept are its result and the gradients of its weights, or everything."""
    k = Recorder()
    k.origin = Origin("net")
    m = Maker(k)
    y = body(m)
    keeps = {y}
    if train:
        seed = Tensor("seed", y.spec, "control")
        found = backward(k, list(k.calls), m.learned, seeds=[(y, seed)])
        keeps |= {found[w] for w in m.learned}
    if keep:
        keeps |= {t.root for c in k.calls for t in c.writes() if t.kind in ("data", "diff")}
    return Program(tuple(k.calls), m.feeds, frozenset(keeps)), m


def results(program: Program, device: Device, runs: int = 1) -> dict[str, Any]:
    """What is kept after some runs on random numbers, the same for every device."""
    session = Session(program, device)
    generator = np.random.default_rng(3)
    for t in program.tensors():
        if t.kind in ("feed", "learned", "control"):
            fan = np.sqrt(np.prod(t.shape[1:])) if t.kind == "learned" else 1.0
            session.write(t, generator.standard_normal(t.shape) / fan)
    for _ in range(runs):
        session.run()
    return {t.name: session.read(t) for t in program.keeps}
