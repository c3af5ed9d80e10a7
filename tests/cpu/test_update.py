"""The solver's update through oneDNN: which rules it takes, what it makes of them, and that the numbers stay."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_solver
from netrun.cpu import dnnl, onednn_update
from netrun.cpu.dnnl import Unsupported
from netrun.cpu.fast import Fast
from netrun.cpu.onednn_update import chains, links
from netrun.cpu.recipe import Recipe
from netrun.cpu.reference import Reference
from netrun.cpu.update_terms import Assignment, Made, Term, assignments
from netrun.device import Device
from netrun.expression import Rule, rule
from netrun.kernels import OPS
from netrun.net_solver import NetSolver
from netrun.program import Call
from netrun.solver import Solver
from netrun.types import Spec, Tensor
from netrun.updates import METHODS, told, update_rule

needs_library = pytest.mark.skipif(dnnl.library() is None, reason=f"no oneDNN here: {dnnl.reason()}")
SINGLES = frozenset({"lr", "scale", "trust", "correction"})
SIZES = (1, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000)
"""Around a chunk of 64 elements."""


def sgd(lr_mult: float = 1.0, decay_mult: float = 1.0, **fields: Any) -> Rule:
    return update_rule(schema.SolverParameter(**{"type": "SGD", "momentum": 0.9, **fields}), lr_mult, decay_mult)


DECAYED = {"weight_decay": 5e-4}
SQUARES = ("AdaGrad", "RMSProp", "AdaDelta", "Adam", "AdamW")


def squares(kind: str, decay: float, **fields: Any) -> Rule:
    momentum = {} if kind in ("AdaGrad", "RMSProp") else {"momentum": 0.9}
    return update_rule(schema.SolverParameter(type=kind, weight_decay=decay, **momentum, **fields), 2.0, 1.0)


RULES: dict[str, Rule] = {
    "momentum": sgd(),
    "decay": sgd(**DECAYED),
    "no momentum": sgd(momentum=0.0, **DECAYED),
    "neither": sgd(momentum=0.0),
    "multipliers": sgd(2.0, 0.5, **DECAYED),
    "a bias": sgd(2.0, 0.0, **DECAYED),
    "a decay far from the gradient": sgd(weight_decay=1e-9),
    "the step kept": (lambda r: rule(r.inputs, [*r.variables, "last"], "; ".join([*told(r), "last = moved"])))(
        sgd(2.0, **DECAYED)
    ),
    "Nesterov": update_rule(schema.SolverParameter(type="Nesterov", momentum=0.9, weight_decay=0.1), 2.0, 1.0),
    "LARS": update_rule(schema.SolverParameter(type="LARS", momentum=0.9, weight_decay=0.1), 1.0, 1.0),
    "a running mean": rule(["raw"], ["w"], "w = 0.999 * w + raw / 3"),
    "arrays only": rule(["raw"], ["w", "h"], "w = raw + h; h = -h - 2 * raw"),
    **{kind: squares(kind, 0.1) for kind in SQUARES},
    **{f"{kind} without decay": squares(kind, 0.0) for kind in SQUARES},
    "squares": rule(["raw"], ["w"], "w = w + raw * raw"),
    "a rate on itself": rule(["raw", "lr"], ["w"], "w = w - lr * w + raw"),
    "its own square": rule(["raw"], ["w", "h"], "q = w * w; w = 0.5 * w - w * w + 0.1 * raw; h = h + q / 3 - 2"),
    "many": rule(["raw", "lr"], ["w", "h"], "w = -(raw * h * -w) / (4 + raw * raw) / (sqrt(9 * h * h) + 2) * lr"),
    "roots": rule(["raw"], ["w", "h"], "w = raw + sqrt(sqrt(raw * raw + 1)); h = sqrt((w * w + 1) / (raw * raw + 2))"),
    "two scales": rule(["raw", "lr", "scale"], ["w", "h"], "w = w + lr * raw - scale * h; h = lr * lr * w"),
}
"""Rules that the library runs."""

LEFT: dict[str, Rule] = {
    "L1": sgd(regularization_type="L1", **DECAYED),
    "rate 0": sgd(0.0, **DECAYED),
    "one over an array": rule(["raw"], ["w"], "w = w + 1 / raw"),
    "an unknown function": rule(["raw"], ["w"], "w = w + raw * exp(raw)"),
    "a quotient": rule(["raw", "lr"], ["w"], "w = w + raw / lr"),
    "a number is added": rule(["raw", "lr"], ["w"], "w = w + raw + lr"),
    "a constant": rule(["raw"], ["w"], "w = 0"),
    "itself alone": rule(["raw"], ["w"], "w = 0.5 * w"),
    "what cancels": rule(["raw"], ["w"], "w = w + raw - raw"),
    "copies": rule(["raw"], ["w", "h"], "old = w; w = raw; h = old"),
    "a huge number": rule(["raw"], ["w"], "w = w + 1e31 * raw"),
}
"""Rules that stay with NumPy."""


def called(rules: Rule, shape: tuple[int, ...], dtype: str = "float32", number: tuple[int, ...] = ()) -> Call:
    xs = tuple(Tensor(n, Spec(number if n in SINGLES else shape, dtype)) for n in rules.inputs)
    return Call(OPS["update"], (xs, tuple(Tensor(n, Spec(shape, dtype)) for n in rules.variables)), {"rule": rules})


def recipe_of(call: Call) -> Recipe | None:
    recipes = Fast().recipes
    assert recipes is not None
    return recipes.of(call)


def run(device: Device, call: Call, times: int = 2, **given: float) -> dict[str, Any]:
    """The variables after some runs on random numbers. ``given``: values of inputs, everywhere."""
    generator = np.random.default_rng(7)
    arrays: list[tuple[Any, ...]] = []
    for argument in call.args:
        assert isinstance(argument, tuple)
        arrays.append(tuple(device.array(device.allocate(t.spec.nbytes), 0, t.spec) for t in argument))
        for t, array in zip(argument, arrays[-1], strict=True):
            drawn = generator.standard_normal(t.shape)
            device.write(array, np.full(t.shape, given[t.name]) if t.name in given else drawn)
    step = device.bind(call, arrays, device.allocate(device.workspace(call)))
    for _ in range(times):
        step()
    return {t.name: device.read(a) for t, a in zip(call.writes(), arrays[1], strict=True)}


# ----------------------------------------------------------------------------------------------------------- the rules
def test_what_a_rule_means() -> None:
    found = assignments(sgd(2.0, 0.5, weight_decay=0.25, momentum=0.5), SINGLES)
    assert found == [
        Assignment("h", 0.5, (Term("raw", ("lr", "scale"), 2.0), Term("w", ("lr",), 0.25))),
        Assignment("w", 1.0, (Term("h", (), -1.0),)),
    ]
    (chain,) = chains(found[0].terms)
    assert list(links(chain)) == [("mul", "scale"), ("scale", 8.0), ("add", "w"), ("mul", "lr"), ("scale", 0.25)]


def test_what_adam_means() -> None:
    rules = squares("Adam", 0.25, momentum2=0.5, delta=0.125)
    g, m, v, root, w = assignments(rules, SINGLES)
    assert g == Assignment(g.target, 0.0, (Term("raw", ("scale",), 1.0), Term("w", (), 0.25)))
    assert [t.array for t in m.terms] == [g.target]
    assert v == Assignment("v", 0.5, (Term(Made("mul", g.target, g.target), (), 0.5),))
    assert root.terms == (Term(Made("", "v", root=True), (), 1.0), Term("", (), 0.125))
    assert w == Assignment("w", 1.0, (Term(Made("div", "m", root.target), ("correction", "lr"), -2.0),))
    (chain,) = chains(root.terms)
    assert list(links(chain)) == [("shift", 0.125)]


def test_old_values_are_kept() -> None:
    nesterov = update_rule(schema.SolverParameter(type="Nesterov", momentum=0.5), 1.0, 1.0)
    copy, h, w = assignments(nesterov, SINGLES)
    assert copy.is_copy
    assert copy.terms == (Term("h", (), 1.0),)
    assert h.own == 0.5
    assert w == Assignment("w", 1.0, (Term("h", (), -1.5), Term(copy.target, (), 0.5)))


def test_terms_too_far_apart_are_added_one_by_one() -> None:
    h, _ = assignments(sgd(weight_decay=1e-9), SINGLES)
    assert [[t.array for t in chain] for chain in chains(h.terms)] == [["raw"], ["w"]]
    other = [Term("a", ("lr",), 1.0), Term("b", ("scale",), 1.0), Term("c", (), 1.0)]
    assert [[t.array for t in chain] for chain in chains(other)] == [["a", "c"], ["b"]]


@pytest.mark.parametrize("name", RULES)
def test_rules_that_are_sums(name: str) -> None:
    assert assignments(RULES[name], SINGLES)


@pytest.mark.parametrize("name", set(LEFT) - {"copies"})
def test_rules_that_are_none(name: str) -> None:
    with pytest.raises(Unsupported):
        assignments(LEFT[name], SINGLES)


@needs_library
@pytest.mark.parametrize("kind", METHODS)
def test_the_solvers_that_the_library_runs(kind: str) -> None:
    message = schema.SolverParameter(type=kind, weight_decay=0.1)
    rules = update_rule(message, 1.0, 0.0)  # without decay: LARS needs no trust ratio
    taken = recipe_of(called(rules, (64,))) is not None
    assert taken == (kind != "Lion")


# --------------------------------------------------------------------------------------------------------- the numbers
def assert_near(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, 1e-5, 1e-6, err_msg=name)


@needs_library
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RULES)
def test_equals_the_reference(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_update, "CHUNK", 64)
    monkeypatch.setattr(onednn_update, "SHARED", 64)
    call = called(RULES[name], (size,), number=(1,) * (size % 2 + size == 1))
    assert recipe_of(call) is not None
    given = {"v": 0.5, "u": 0.5} | ({"h": 0.25} if name.startswith(SQUARES) else {})  # no root of what is below 0
    assert_near(run(Fast(), call, **given), run(Reference(), call, **given))


@needs_library
@pytest.mark.parametrize("name", LEFT)
def test_the_rest_stays_as_it_was(name: str) -> None:
    call = called(LEFT[name], (40,))
    assert recipe_of(call) is None
    given = {"raw": 1e-3} if name == "a huge number" else {}
    assert_near(run(Fast(), call, **given), run(Reference(), call, **given))


@needs_library
@pytest.mark.parametrize("name", ["decay", "Nesterov", "Adam", "AdamW", "AdaDelta"])
def test_chunks_and_threads_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = called(RULES[name], (7, 100, 501))
    device = Fast()
    recipe = recipe_of(call)
    assert recipe is not None
    assert not recipe.alone
    whole = run(device, call)
    for chunk, alone in ((1 << 20, True), (30_000, False), (48, True)):
        monkeypatch.setattr(onednn_update, "CHUNK", chunk)
        monkeypatch.setattr(onednn_update, "SHARED", chunk)
        monkeypatch.setattr(onednn_update, "ALONE", alone * 10**6)
        monkeypatch.setattr(onednn_update, "sharers", lambda count: 3)
        for key, value in run(Fast(), call).items():
            assert value.tobytes() == whole[key].tobytes()


@needs_library
@pytest.mark.parametrize(
    "given", [{"raw": np.inf, "scale": 0.0}, {"raw": np.inf, "lr": 0.0}, {"raw": np.nan}, {"w": np.inf}, {"h": np.nan}]
)
@pytest.mark.parametrize("name", ["decay", "momentum", "no momentum", "Nesterov", *SQUARES])
def test_what_is_not_finite_comes_through(name: str, given: dict[str, float]) -> None:
    """As where a clipped gradient is infinite: its scale is 0, and the parameters show that something went wrong."""
    call = called(RULES[name], (40,))
    assert recipe_of(call) is not None
    given = {"v": 0.0, "u": 0.0} | given | ({"h": 0.0} if name in SQUARES and "h" not in given else {})
    with np.errstate(all="ignore"):
        wanted = run(Reference(), call, 1, **given)
    for key, value in run(Fast(), call, 1, **given).items():
        np.testing.assert_array_equal(np.isfinite(value), np.isfinite(wanted[key]))
        np.testing.assert_array_equal(np.isnan(value), np.isnan(wanted[key]))


# ---------------------------------------------------------------------------------------------------------- the arrays
@needs_library
def test_arrays_that_stay_with_numpy() -> None:
    rules = RULES["decay"]
    assert recipe_of(called(rules, (8, 5))) is not None
    assert recipe_of(called(rules, (8, 5), "float64")) is None
    assert recipe_of(called(rules, (8, 5), "int64")) is None
    assert recipe_of(called(rules, (0, 5))) is None
    assert recipe_of(called(rules, (8, 5), number=(5,))) is None
    call = called(rules, (8,))
    args: Any = call.args
    xs, (w, _) = args
    short = Tensor("h", Spec((4, 2)))
    assert recipe_of(Call(call.op, (xs, (w, short)), call.attrs)) is None


@needs_library
def test_memory_that_is_given_twice() -> None:
    """A recipe is found by shapes alone, so one that was made for other memory must not serve."""
    recipes = Fast().recipes
    assert recipes is not None
    call = called(RULES["decay"], (8,))
    assert recipes.of(call) is not None
    args: Any = call.args
    (raw, *numbers), (w, h) = args
    for xs, vs in (((w, *numbers), (w, h)), ((raw, *numbers), (w, w)), ((h.view((8,)), *numbers), (w, h))):
        assert recipes.of(Call(call.op, (xs, vs), call.attrs)) is None


@needs_library
def test_a_small_one_wakes_nobody() -> None:
    lib = dnnl.library()
    assert lib is not None
    before = lib.threads()
    lib.use_threads(3)
    try:
        small = called(RULES["decay"], (50,))
        args: Any = small.args
        recipe = recipe_of(small)
        assert recipe is not None
        assert recipe.alone
        seen: list[int] = []
        recipe.host(lambda address, arrays: lambda: seen.append(lib.threads()))
        arrays = {"xs": [np.ones(t.shape, "f") for t in args[0]], "vs": [np.ones(50, "f"), np.ones(50, "f")]}
        recipe.bind(arrays, np.empty(recipe.scratch + 1, np.uint8))()
        assert seen == [1]
        assert lib.threads() == 3
        failing = Recipe(lib)
        failing.alone = True
        failing.host(lambda address, arrays: lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            failing.bind({}, None)()
        assert lib.threads() == 3
    finally:
        lib.use_threads(before)


# ----------------------------------------------------------------------------------------------------------- a training
NET = """
net_param {
  layer { name: "in" type: "DummyData" top: "x" top: "t" dummy_data_param {
    shape { dim: 6 dim: 30 } shape { dim: 6 dim: 20 } data_filler { type: "constant" value: 0.5 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" param { } param { lr_mult: 2 decay_mult: 0 }
    inner_product_param { num_output: 20 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 3 } } }
  layer { name: "frozen" type: "InnerProduct" bottom: "y" top: "z" param { lr_mult: 0 } param { lr_mult: 0 }
    inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "z" bottom: "t" top: "loss" }
}
lr_policy: "step" gamma: 0.5 stepsize: 2 base_lr: 0.01 max_iter: 100 snapshot_after_train: false random_seed: 1
weight_decay: 0.01 momentum: 0.9
"""
TRAININGS = {
    "SGD": "",
    "clipped": "clip_gradients: 0.5",
    "several passes": "iter_size: 3 clip_gradients: 0.5",
    "L1": 'regularization_type: "L1"',
    "Nesterov": 'type: "Nesterov"',
    "diffs": "snapshot_diff: true",
    "without momentum": "momentum: 0",
    "Adam": 'type: "Adam" iter_size: 2 clip_gradients: 0.5',
    "AdamW": 'type: "AdamW"',
    "AdaDelta": 'type: "AdaDelta" delta: 1e-6',
}


def trained(text: str, device: str, kind: type[Solver] = Solver) -> list[Any]:
    base = re.sub(r"momentum: \S+", "", NET) if "momentum" in text else NET
    message, _ = parse_solver(base + text)
    with kind(message, device=device) as solver:
        solver.step(6)
        found = [solver.memory.read(t) for t in solver.training.recording.parameters.values()]
        found += [solver.memory.read(t) for row in solver.training.history.values() for t in row]
        if isinstance(solver, NetSolver):
            found += [np.array(blob.diff) for blobs in solver.net.params.values() for blob in blobs]
        return found


@needs_library
@pytest.mark.parametrize("kind", [Solver, NetSolver])
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training(name: str, kind: type[Solver]) -> None:
    for ours, wanted in zip(
        trained(TRAININGS[name], "cpu", kind), trained(TRAININGS[name], "reference", kind), strict=True
    ):
        np.testing.assert_allclose(ours, wanted, 2e-5, 2e-6)
