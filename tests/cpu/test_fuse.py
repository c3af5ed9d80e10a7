"""Calls that become one, where what lies between them must not be passed over."""

from __future__ import annotations

import numpy as np
import pytest
from cases.program_nets import Maker, compiled, results

from netrun.cpu.fast import Fast
from netrun.cpu.reference import Reference
from netrun.expression import rule
from netrun.program import Program, Recorder
from netrun.session import Session
from netrun.types import Spec, Tensor

needs_library = pytest.mark.skipif(Fast().recipes is None, reason="no oneDNN here")


def scaled_late(m: Maker) -> Tensor:
    """Batch normalisation whose scale and shift are computed between it and their use."""
    x = m.conv(m.feed(4, 3, 8, 8), 16, 3, bias=False)
    hat, mean, var, z = m.blob(*x.shape), m.blob(1, 16, 1, 1), m.blob(1, 16, 1, 1), m.blob(*x.shape)
    m.k.normalize(x, hat, mean, var, axes=(0, 2, 3), eps=1e-5)
    factors = [m.blob(16), m.blob(16)]
    for t in factors:
        m.k.pointwise([m.weight(16)], t, expr="tanh(a) + 0.5")
    m.k.pointwise([hat, *(t.view((1, 16, 1, 1)) for t in factors)], z, expr="a * b + c")
    return m.dense(m.conv(m.relu(z), 16, 3), 5)


@needs_library
@pytest.mark.parametrize("train", [True, False])
def test_a_scale_that_is_made_after_the_moments(train: bool) -> None:
    program, _ = compiled(scaled_late, train)
    got = results(program, Fast())
    for name, value in results(program, Reference()).items():
        np.testing.assert_allclose(got[name], value, 1e-3, 1e-4 * float(np.abs(value).max()), err_msg=name)


def reshaped_behind(m: Maker) -> Tensor:
    """The gradient of a rectified batch normalisation comes as a view of an array of another shape."""
    z = m.norm(m.conv(m.feed(3, 3, 8, 8), 16, 3, bias=False), relu=True)
    long, y = m.blob(3, 16, 36, 1), m.blob(3, 16, 36, 1)
    m.k.copy(z, long)
    m.k.pointwise([long], y, expr="sin(a)")
    return y


@needs_library
def test_backward_reads_a_mask_as_forward_laid_it() -> None:
    program, _ = compiled(reshaped_behind)
    norms = [c for c in Session(program, Fast()).program.calls if c.op.name.startswith("batch_norm")]
    layouts = {c.op.name: c.reads()[0].spec.layout for c in norms}
    assert len(layouts) == 2
    assert len(set(layouts.values())) == 1
    got = results(program, Fast())
    for name, value in results(program, Reference()).items():
        np.testing.assert_allclose(got[name], value, 1e-3, 1e-4 * float(np.abs(value).max()), err_msg=name)


@needs_library
def test_a_state_is_read_before_it_changes() -> None:
    """A convolution of a state and a ReLU behind the layer that brings the state up to date."""
    k = Recorder()
    m = Maker(k)
    state = Tensor("state", Spec((2, 16, 8, 8)), "state")
    y = m.conv(state, 16, 3)
    k.update([m.feed(2, 16, 8, 8)], [state], rule=rule(["x"], ["s"], "s = 0.5 * s + x"))
    z = m.relu(y)
    program = Program(tuple(k.calls), m.feeds, frozenset({z}))
    found = []
    for device in (Fast(), Reference()):
        session = Session(program, device)
        generator = np.random.default_rng(1)
        for t in [*m.learned, *m.feeds.values(), state]:
            session.write(t, generator.standard_normal(t.shape))
        session.run()
        session.run()
        found.append(session.read(z))
    np.testing.assert_allclose(found[0], found[1], 1e-4, 1e-4 * float(found[1].max()))
