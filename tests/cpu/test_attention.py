"""Attention on device cpu, forward and backward in one program: in pieces, with kept weights, as products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netrun.compiler.gradients import backward
from netrun.cpu import attention, dnnl, fuse_attention
from netrun.cpu.fast import Fast
from netrun.cpu.reference import Reference
from netrun.program import Origin, Program, Recorder
from netrun.session import Session
from netrun.types import Spec, Tensor

needs_library = pytest.mark.skipif(dnnl.library() is None, reason=f"no oneDNN here: {dnnl.reason()}")
SIZES = (3, 4, 40, 40, 8, 6)


def program(sizes: tuple[int, ...], lengths: bool, causal: bool, train: bool = True, seen: bool = False) -> Any:
    """Queries, keys and values that a call has made; ``seen``: the queries are kept, as blobs of an open net are."""
    n, h, tq, tk, d, dv = sizes
    r = Recorder()
    r.origin = Origin("a")
    given = [Tensor(name, Spec((n, h, *s)), "feed") for name, s in (("q", (tq, d)), ("k", (tk, d)), ("v", (tk, dv)))]
    made = [r.temp(f"{x.name}2", x.shape) for x in given]
    for x, y in zip(given, made, strict=True):
        r.pointwise([x], y, expr="a + 0.25")
    far = Tensor("far", Spec((n, 1, 1)), "feed")
    y, dy, lse = r.temp("y", (n, h, tq, dv)), Tensor("dy", Spec((n, h, tq, dv)), "feed"), r.temp("lse", (n, h, tq))
    r.attention(*made, far if lengths else None, None, y, lse, scale=0.5, causal=causal)
    keeps = [y]
    if train:
        found = backward(r, list(r.calls), given, seeds=[(y, dy)])
        keeps += [found[x] for x in given]
    feeds = {t.name: t for t in (*given, far, dy)}
    return Program(tuple(r.calls), feeds, frozenset([*keeps, *([made[0]] if seen else [])])), keeps


def outcome(session: Session, keeps: list[Tensor], foul: float = 0.0) -> list[Any]:
    rng = np.random.default_rng(3)
    for name, tensor in sorted(session.program.feeds.items()):
        values = rng.standard_normal(tensor.shape).astype("float32")
        if name == "far":
            values = np.array([40, 17, 0], "float32").reshape(3, 1, 1)
        elif name in "kv" and foul:
            values[1, :, 17:], values[2] = foul, foul
        session.write(tensor, values)
    session.run()
    return [session.read(t) for t in keeps]


def ops(session: Session) -> list[str]:
    return [call.op.name for call in session.program.calls]


@needs_library
@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize(("lengths", "causal"), [(False, False), (True, False), (False, True), (True, True)])
def test_equals_the_reference(lengths: bool, causal: bool, pieces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if pieces:  # nothing is kept, and every loop has several turns
        for name in ("MOST", "FEW"):
            monkeypatch.setattr(fuse_attention, name, 0)
        for name, value in (("SCORES", 300), ("FEWEST", 5), ("CAUSAL", 7)):
            monkeypatch.setattr(attention, name, value)
    made, keeps = program(SIZES, lengths, causal)
    got, wanted = Session(made, Fast()), Session(made, Reference())
    apart = not (lengths or causal or pieces)
    assert ("attention_keep" in ops(got)) == (not apart and not pieces)
    assert ("softmax" in ops(got)) == apart
    for foul in (0.0, np.nan, 1e30) if lengths else (0.0,):
        for a, b in zip(outcome(got, keeps, foul), outcome(wanted, keeps, foul), strict=True):
            np.testing.assert_allclose(a, b, 1e-4, 1e-5)


@needs_library
@pytest.mark.parametrize("train", [True, False])
def test_what_may_change_in_between_is_not_relied_on(train: bool) -> None:
    """A script may write to kept queries between forward and backward."""
    for lengths in (False, True):
        found = Session(program(SIZES, lengths, False, train, seen=True)[0], Fast())
        assert ("attention_keep" in ops(found)) is False
        assert ("softmax" in ops(found)) == (not train and not lengths)


@pytest.mark.parametrize("numpy", [True, False])
def test_what_is_no_number_comes_through(numpy: bool) -> None:
    """In what a query may look at, and nowhere else."""
    rng = np.random.default_rng(1)
    device = Fast(numpy)
    for name, j, causal in (("k", 2, True), ("v", 2, True), ("q", 2, True), ("k", 2, False), ("v", 0, False)):
        x = {n: rng.standard_normal((1, 2, 5, 4)).astype("float32") for n in "qkv"}
        x[name][0, 1, j, 1] = np.nan
        y, lse = np.zeros((1, 2, 5, 4), "float32"), np.zeros((1, 2, 5), "float32")
        made = Recorder()
        tensors = [Tensor(n, Spec(a.shape), "feed") for n, a in (*x.items(), ("y", y), ("lse", lse))]
        made.attention(*tensors[:3], None, None, *tensors[3:], scale=1.0, causal=causal)
        call = made.calls[0]
        args = [*x.values(), None, None, y, lse]
        device.bind(call, args, device.allocate(device.workspace(call)))()
        lost = np.isnan(y).any(axis=3)[0, 1]
        wanted = np.arange(5) == j if name == "q" else np.arange(5) >= (j if causal else 0)
        assert (lost == wanted).all(), (name, causal)
        assert np.isfinite(y[0, 0]).all()
