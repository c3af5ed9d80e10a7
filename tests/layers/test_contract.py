"""What every layer type promises, for every row of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases.layers import LAYERS, LayerCase

from netrun.compiler.graph import inner_of
from netrun.compiler.rules import State
from netrun.cpu.reference import Reference
from netrun.kernels import OPS
from netrun.layers import Context, Layer
from netrun.program import Origin, Recorder
from netrun.types import Spec, Tensor

ROWS = pytest.mark.parametrize("case", LAYERS, ids=str)
COMPUTED = pytest.mark.parametrize("case", [c for c in LAYERS if not Layer.registry[c.type].fed], ids=str)


def make(case: LayerCase, dtype: str = "float32") -> Layer:
    if case.needs:
        pytest.importorskip(case.needs)
    message, context = case.message(), Context(phase=case.phase, dtype=dtype)
    context.inner = inner_of(message, None, State(case.phase), context)
    return Layer.registry[case.type](message, context)


def specs(case: LayerCase, dtype: str = "float32") -> list[Spec]:
    return [Spec(b.shape, dtype) for b in case.bottoms]


def own(name: str) -> set[str]:
    """The types netrun itself registers, not those of a test."""
    return {kind for kind, cls in Layer.registry.items() if cls.__module__.startswith(name)}


def test_every_type_has_a_row() -> None:
    assert own("netrun.layers") - {case.type for case in LAYERS} == set()


@pytest.mark.parametrize("kind", sorted(own("netrun.layers")))
def test_docstring_has_a_formula(kind: str) -> None:
    text = Layer.registry[kind].__doc__ or ""
    assert "=" in text.split("\n\n")[0] or kind == "Silence"
    assert "Top" in text or "top" in text
    assert "ottom" in text


@ROWS
def test_setup_is_pure_and_repeatable(case: LayerCase) -> None:
    layer = make(case)
    before = layer.message.SerializeToString(deterministic=True)
    first = layer.configure(specs(case))
    declared = [(d.name, d.spec, d.role) for d in layer.declared]
    assert len(first) == case.tops
    assert layer.configure(specs(case)) == first
    assert [(d.name, d.spec, d.role) for d in layer.declared] == declared
    assert make(case).configure(specs(case)) == first
    assert layer.message.SerializeToString(deterministic=True) == before


@COMPUTED
def test_forward_is_calls_that_write_every_top_once(case: LayerCase) -> None:
    layer = make(case)
    tops = [Tensor(f"y{i}", spec) for i, spec in enumerate(layer.configure(specs(case)))]
    bottoms = [Tensor(f"x{i}", spec, "feed") for i, spec in enumerate(specs(case))]
    layer.clock = Tensor("clock", Spec((), "int64"), "control")
    for d in layer.declared:
        setattr(layer, d.name, Tensor(d.name, d.spec, d.role))  # type: ignore[arg-type]
    recorder = Recorder()
    recorder.origin = Origin("t")
    layer.forward(recorder, bottoms, tops)
    known = {*bottoms, layer.clock, *(getattr(layer, d.name) for d in layer.declared)}
    written: list[Tensor] = []
    for call in recorder.calls:
        assert call.op.name in OPS
        assert all(t.root in known for t in call.reads()), f"{call} reads what nobody wrote"
        for t in call.writes():
            assert call.op.name == "update" or t.root not in known, f"{call} writes {t} again"
            assert call.op.name != "update" or t.root.kind in {"statistic", "state"}
            written.append(t.root)
            known.add(t.root)
    assert all(written.count(top) == 1 for top in tops)


def run(case: LayerCase, dtype: str) -> list[Any]:
    """Tops of one eager forward on the reference device; they start as NaN."""
    layer = make(case, dtype)
    rng = np.random.default_rng(3)
    bottoms = case.draw(dtype)
    tops = [np.full(s.shape, np.nan, s.dtype) for s in layer.configure([Spec(b.shape, dtype) for b in bottoms])]
    layer.clock = np.array(5, "int64")
    for d in layer.declared:
        value = 0.2 + rng.random(d.spec.shape) if d.value is None else d.value
        setattr(layer, d.name, np.asarray(value, d.spec.dtype))
    before = [b.copy() for b in bottoms]
    layer.forward(Reference(dtype), bottoms, tops)
    for old, new in zip(before, bottoms, strict=True):
        np.testing.assert_array_equal(old, new, "the layer changed a bottom")
    return tops


@COMPUTED
def test_float64_and_float32_agree(case: LayerCase) -> None:
    single, double = run(case, "float32"), run(case, "float64")
    for a, b in zip(single, double, strict=True):
        assert (a.dtype, b.dtype) == (np.float32, np.float64)
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, 1e-4, 1e-5)


@pytest.mark.parametrize("case", [c for c in LAYERS if c.single and not Layer.registry[c.type].fed], ids=str)
def test_a_batch_of_one(case: LayerCase) -> None:
    for top in run(case.with_one_sample(), "float32"):
        assert np.isfinite(top).all()
