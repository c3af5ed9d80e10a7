"""oneDNN under the cpu device: whole programs with fused calls and layouts, against the same programs on NumPy."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.program_nets import NETS, compiled, inception, quick, residual, residual_of_one, results

import netrun
from netrun.compiler.plan import plan
from netrun.cpu import dnnl, layouts, onednn_conv
from netrun.cpu.fast import Fast
from netrun.cpu.reference import Reference
from netrun.expression import rule
from netrun.kernels import OPS
from netrun.program import Call, Program, Recorder
from netrun.session import Memory, Session
from netrun.types import PLAIN, Spec, Tensor, Window

needs_library = pytest.mark.skipif(dnnl.library() is None, reason=f"no oneDNN here: {dnnl.reason()}")


def assert_near(got: dict[str, Any], wanted: dict[str, Any], atol: float = 2e-5) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, 1e-4, atol * float(np.abs(value).max()), err_msg=name)


@needs_library
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("train", [True, False], ids=["train", "forward"])
def test_nets_equal_the_reference(name: str, train: bool) -> None:
    program, _ = compiled(NETS[name], train)
    assert_near(results(program, Fast(), runs=2), results(program, Reference()))


@needs_library
@pytest.mark.parametrize("name", NETS)
def test_nets_that_keep_everything(name: str) -> None:
    program, _ = compiled(NETS[name], keep=True)
    assert_near(results(program, Fast()), results(program, Reference()))


@needs_library
@pytest.mark.parametrize("name", NETS)
def test_same_bits_every_time(name: str) -> None:
    program, _ = compiled(NETS[name])
    once, again = results(program, Fast()), results(program, Fast(), runs=3)
    assert all(once[key].tobytes() == again[key].tobytes() for key in once)


@needs_library
def test_what_is_seen_from_outside_is_plain() -> None:
    device = Fast()
    for body in NETS.values():
        program, _ = compiled(body)
        prepared = device.prepare(program)
        assert prepared.keeps == program.keeps
        assert prepared.feeds == program.feeds
        written = {t.root for c in prepared.calls for t in c.writes()}
        assert program.keeps <= written
        for t in prepared.tensors():
            if t in program.keeps or t.kind in ("feed", "learned", "control"):
                assert t.spec.layout == PLAIN, t


@needs_library
def test_convolutions_meet_without_copies() -> None:
    """Between feed and dense layer nothing changes its layout: two copies at the border, one a way."""
    for name in ("quick", "inception", "residual"):
        program, _ = compiled(NETS[name])
        calls = Session(program, Fast()).program.calls
        copies = [c for c in calls if c.op.name == "copy" and c.reads()[0].root.kind != "learned"]
        assert len(copies) == 2, name


@pytest.mark.parametrize("numpy", [False, True], ids=["cpu", "numpy"])
def test_frozen_sessions_see_changed_parameters(numpy: bool) -> None:
    """Weights are packed once; a write through the memory or an update in another session shows in the next run."""
    program, m = compiled(inception, train=False)
    device = Fast(numpy)
    shared = Memory(device)
    frozen = Session(program, device, shared, frozen=True)
    lively = Session(program, device, shared, frozen=False)
    generator = np.random.default_rng(5)
    image = generator.standard_normal(m.feeds["in0"].shape).astype("float32")
    for t in m.learned:
        shared.write(t, generator.standard_normal(t.shape) * 0.1)
    k = Recorder()
    for t in m.learned:
        k.update([], [t], rule=rule([], ["w"], "w = 0.5 * w"))
    learning = Session(Program(tuple(k.calls)), device, shared)
    (kept,) = program.keeps
    seen = []

    def both() -> None:
        for session in (frozen, lively):
            session.feed({"in0": image})
            session.run()
        np.testing.assert_array_equal(frozen.read(kept), lively.read(kept))
        seen.append(frozen.read(kept))

    both()
    both()
    np.testing.assert_array_equal(seen[0], seen[1])
    shared.write(m.learned[0], np.ones(m.learned[0].shape))
    both()
    learning.run()
    both()
    frozen.write(m.learned[1], np.zeros(m.learned[1].shape))
    both()
    assert all(np.abs(a - b).max() > 0 for a, b in pairwise(seen[1:]))


@needs_library
@pytest.mark.parametrize("net", [residual, residual_of_one])
def test_batch_normalisation_is_one_call(net: Any) -> None:
    program, _ = compiled(net)
    names = [c.op.name for c in Fast().prepare(program).calls]
    assert names.count("batch_norm") == names.count("batch_norm_grad") == 4
    assert not {"normalize", "normalize_grad"} & set(names)
    assert_near(results(program, Fast()), results(program, Reference()))


@needs_library
def test_every_call_has_its_bytes() -> None:
    """A blocked array may take more bytes than its elements; the plan knows."""
    device = Fast()
    program, _ = compiled(inception)
    prepared = Session(program, device).program
    wide = [t for t in prepared.tensors() if device.nbytes(t.spec) > t.spec.nbytes and t.spec.layout.startswith("c")]
    assert wide, "24 channels fill up to 32"
    made = plan(prepared, device)
    assert max(made.offsets[t] + device.nbytes(t.spec) for t in made.offsets) <= made.arena


def test_layouts_by_name() -> None:
    assert layouts.nbytes(Spec((2, 24, 3, 3), layout="c16")) == 2 * 32 * 9 * 4
    assert layouts.nbytes(Spec((2, 24, 3, 3), layout="last")) == 2 * 24 * 9 * 4
    assert layouts.nbytes(Spec((2, 24), "int32", layouts.work(77))) == 77
    assert layouts.block("concat") == layouts.block("last") == layouts.block("plain") == 1


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(dnnl, "_found", None)
    monkeypatch.setattr(importlib.metadata, "files", none)
    monkeypatch.delenv("NETRUN_CPU", raising=False)
    device = Fast()
    assert device.recipes is None
    assert "onednn-cpu-gomp is not installed" in device.note
    program, _ = compiled(quick)
    assert device.prepare(program) is program
    assert_near(results(program, device), results(program, Reference()))


def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    broken = tmp_path / "libdnnl.so.3"
    broken.write_bytes(b"no library")

    class File:
        name = "libdnnl.so.3"

        def locate(self) -> Any:
            return broken

    monkeypatch.setattr(dnnl, "_found", None)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [File()])
    monkeypatch.delenv("NETRUN_CPU", raising=False)
    assert dnnl.library() is None
    assert dnnl.reason().startswith("oneDNN cannot be loaded: ")
    assert "\n" not in Fast().note


def test_the_environment_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnnl, "_found", None)
    monkeypatch.setenv("NETRUN_CPU", "numpy")
    assert Fast().recipes is None


@needs_library
@pytest.mark.parametrize(("kernel", "name"), [(3, onednn_conv.PREFERRED), (1, "")])
def test_channels_last_windows_run_in_the_fastest_implementation(kernel: int, name: str) -> None:
    lib = dnnl.library()
    assert lib is not None
    x, y = Spec((4, 20, 12, 12), layout="last"), Spec((4, 50, 13 - kernel, 13 - kernel), layout="last")
    window = Window((kernel, kernel))
    c = onednn_conv.Convolution(lib, x, Spec((50, 20, kernel, kernel)), y, window, 1)
    offered, pd = [], c.forward(c.own_x, c.own_y, bias=True)
    while True:
        offered.append(lib.implementation(pd))
        if not lib.advance(pd):
            break
    if not offered[0].startswith(onednn_conv.BATCHED):
        pytest.skip(f"the library begins with {offered[0]} here")
    picked = lib.implementation(c.best(lambda mx, my: c.forward(mx, my, bias=True)))
    assert picked == (name if name in offered else offered[0])


FORK = """
import faulthandler, os, sys
import numpy as np
from cases.program_nets import NETS, compiled, results
from netrun.cpu.fast import Fast
program, _ = compiled(NETS["lenet"])
device = Fast()
wanted = results(program, device)
child = os.fork()
if not child:
    faulthandler.dump_traceback_later(30, exit=True)
    got = results(program, device)
    os._exit(0 if all(np.array_equal(got[name], value) for name, value in wanted.items()) else 3)
assert os.waitpid(child, 0)[1] == 0
assert all(np.array_equal(value, wanted[name]) for name, value in results(program, device).items())
"""


@needs_library
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_computes_on() -> None:
    """libgomp's threads do not come along into a child, which would wait for them for ever (multiprocessing's fork)."""
    paths = os.pathsep.join((str(Path(__file__).parents[1]), str(Path(netrun.__file__).parents[1])))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


@needs_library
def test_lengths_reach_the_library_whole() -> None:
    """The size of an LRN is a 64-bit argument on the stack, where half of one would leave the rest to chance."""
    assert isinstance(dnnl._c(5), ctypes.c_int64)
    spec, kept = Spec((2, 32, 7, 7), layout="last"), Spec((2, 32, 7, 7), layout=layouts.work(0))
    attributes = {"size": 5, "alpha": 1e-2, "beta": 0.75, "k": 1.0}
    for _ in range(20):
        recipes = Fast().recipes
        assert recipes is not None
        args = Tensor("x", spec), Tensor("y", spec), Tensor("scale", kept)
        assert recipes.of(Call(OPS["lrn"], args, attributes)) is not None
