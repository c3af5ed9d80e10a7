"""sparse_gradient: an iteration changes the rows of a table that it used, by the rule of the solver, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.compiler.graph import build
from netrun.config.upgrade import parse_net, parse_solver
from netrun.net_solver import NetSolver
from netrun.solver import Solver
from netrun.training import compile_training
from netrun.types import PERSISTENT

Array = Any
ROWS, WIDTH, N, T, STEPS = 11, 3, 2, 4, 5
RNG = np.random.default_rng(3)
TABLE = RNG.standard_normal((ROWS, WIDTH)).astype("float32")
INDEX = RNG.integers(0, 7, (STEPS, N, T)).astype("float32")  # rows 7.. are never used; some occur several times
WANTED = RNG.standard_normal((STEPS, N, T, WIDTH)).astype("float32")

EMBED = """layer {{ name: "words" type: "Embed" bottom: "x" top: "y" {more}
  embed_param {{ num_output: 3 input_dim: 11 bias_term: false sparse_gradient: {sparse} }} }}"""
NET = """
layer { name: "in" type: "Input" top: "x" top: "t"
  input_param { shape { dim: 2 dim: 4 } shape { dim: 2 dim: 4 dim: 3 } } }
EMBED
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
SOLVER = 'lr_policy: "fixed" max_iter: 99 snapshot_after_train: false random_seed: 1 '


class Run:
    """A solver after ``STEPS`` iterations: table, history, log, and what it was compiled to."""

    def __init__(
        self, options: str, sparse: bool = True, net: str = NET, device: str = "cpu", more: str = "",
        kind: type[Solver] = Solver,
    ) -> None:  # fmt: skip
        embed = EMBED.format(sparse=str(sparse).lower(), more=more)
        text = f"net_param {{ {net.replace('EMBED', embed)} }} {SOLVER} {options}"
        self.lines: list[str] = []
        self.tables: list[Array] = []
        with kind(parse_solver(text)[0], device=device, log=lambda line, *_: self.lines.append(line)) as solver:
            self.training = solver.training
            recording = self.training.recording
            self.table = next(t for p, t in recording.parameters.items() if p.layer == "words")
            solver.memory.write(self.table, TABLE)
            if kind is NetSolver:
                solver.memory.renew()  # type: ignore[attr-defined]
            for i in range(STEPS):
                for value, array in zip(recording.graph.inputs, (INDEX[i], WANTED[i]), strict=True):
                    if kind is NetSolver:
                        solver.net.blobs[value.blob].data[...] = array  # type: ignore[attr-defined]
                    else:
                        solver.runners[0].session.write(recording.tensors[value], array)
                solver.step(1)
                self.tables.append(np.array(solver.memory.read(self.table)))
            owner = next(p for p in recording.parameters if p.layer == "words")
            self.history = [np.array(solver.memory.read(t)) for t in self.training.history[owner]]
            self.saved = [solver.runners[0].session.read(t) for t in self.training.saved.values()]

    @property
    def notices(self) -> list[str]:
        return [line for line in self.lines if "sparse_gradient of" in line]


Rule = Callable[[Array, Array, list[Array], int], Array]
"""(rows, their gradients, their history, number of the iteration from 1) -> the new rows; history changes in place."""


def momentum(w: Array, g: Array, s: list[Array], t: int) -> Array:
    s[0][...] = 0.9 * s[0] + 0.1 * (g + 0.02 * w)
    return w - s[0]


def nesterov(w: Array, g: Array, s: list[Array], t: int) -> Array:
    old = s[0].copy()
    s[0][...] = 0.8 * s[0] + 0.1 * g
    return w + 0.8 * old - 1.8 * s[0]


def adagrad(w: Array, g: Array, s: list[Array], t: int) -> Array:
    s[0] += g**2
    return w - 0.1 * g / (np.sqrt(s[0]) + 1e-6)


def adam(w: Array, g: Array, s: list[Array], t: int) -> Array:
    s[0][...] = 0.9 * s[0] + 0.1 * g
    s[1][...] = 0.99 * s[1] + 0.01 * g**2
    return w - 0.1 * np.sqrt(1 - 0.99**t) / (1 - 0.9**t) * s[0] / (np.sqrt(s[1]) + 1e-6)


def adamw(w: Array, g: Array, s: list[Array], t: int) -> Array:
    return adam(w, g, s, t) - 0.1 * 0.02 * w


CASES: dict[str, tuple[str, Rule]] = {
    "SGD": ("momentum: 0.9 weight_decay: 0.02", momentum),
    "Nesterov": ("momentum: 0.8", nesterov),
    "AdaGrad": ("delta: 1e-6", adagrad),
    "Adam": ("momentum: 0.9 momentum2: 0.99 delta: 1e-6", adam),
    "AdamW": ("momentum: 0.9 momentum2: 0.99 delta: 1e-6 weight_decay: 0.02", adamw),
}


def by_hand(rule: Rule, carried: int, limit: float = np.inf) -> tuple[list[Array], list[Array]]:
    """The tables and the last history of a loop over rows, in float64."""
    table, history = TABLE.astype("float64"), [np.zeros((ROWS, WIDTH)) for _ in range(carried)]
    found = []
    for i in range(STEPS):
        sums: dict[int, Array] = {}
        for n in range(N):
            for t in range(T):
                row = int(INDEX[i, n, t])
                sums[row] = sums.get(row, 0) + (table[row] - WANTED[i, n, t]) / N
        length = np.sqrt(sum((g**2).sum() for g in sums.values()))
        for row, g in sums.items():
            state = [h[row] for h in history]
            table[row] = rule(table[row], g * min(1, limit / length), state, i + 1)
        found.append(table.copy())
    return found, history


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize("kind", CASES)
def test_the_lazy_form_of_a_rule(kind: str, limit: float | None, device: str) -> None:
    options, rule = CASES[kind]
    clip = f"clip_gradients: {limit}" if limit else ""
    got = Run(f'type: "{kind}" base_lr: 0.1 {options} {clip}', device=device)
    tables, history = by_hand(rule, len(got.history), limit or np.inf)
    np.testing.assert_allclose(got.tables, tables, 1e-5, 1e-6)
    np.testing.assert_allclose(got.history, history, 1e-5, 1e-6)
    np.testing.assert_array_equal(got.tables[-1][7:], TABLE[7:])
    assert not got.notices


@pytest.mark.parametrize("clip", ["", "clip_gradients: 0.5"])
def test_sgd_without_momentum_is_the_dense_one(clip: str) -> None:
    sparse, dense = (Run(f"base_lr: 0.1 {clip}", on) for on in (True, False))
    np.testing.assert_allclose(sparse.tables, dense.tables, 1e-6, 1e-7)


def test_on_the_reference_bit_for_bit() -> None:
    sparse, dense = (Run("base_lr: 0.1", on, device="reference") for on in (True, False))
    np.testing.assert_array_equal(sparse.tables, dense.tables)


def test_nothing_of_the_size_of_the_table_is_made() -> None:
    program = Run('type: "Adam" base_lr: 0.1 momentum: 0.9 clip_gradients: 1').training.step
    assert not [t for t in program.tensors() if t.shape == (ROWS, WIDTH) and t.kind not in PERSISTENT]
    touching = [c.op.name for c in program.calls if any(t.shape == (ROWS, WIDTH) for t in c.tensors())]
    assert touching == ["gather", "update_rows"]


def test_what_no_gradient_reaches_stays() -> None:
    """Weight decay acts on the rows that were used: none, where the table is not trained."""
    got = Run('type: "Adam" base_lr: 0.1 momentum: 0.9 weight_decay: 0.1', more="param { lr_mult: 0 }")
    np.testing.assert_array_equal(got.tables[-1], TABLE)
    assert not np.any(got.history)


def test_a_bias_and_layers_behind_are_trained_as_ever() -> None:
    net = NET.replace("EMBED", EMBED.format(sparse="SPARSE", more="").replace("bias_term: false", ""))
    net = net.replace('bottom: "y" bottom', 'bottom: "z" bottom').replace('{ name: "loss"', """
      { name: "ip" type: "InnerProduct" bottom: "y" top: "z" inner_product_param { num_output: 3 axis: 2
        weight_filler { type: "xavier" } } } layer { name: "loss" """)  # fmt: skip
    runs = [Run("base_lr: 0.1", net=net.replace("SPARSE", on)) for on in ("true", "false")]
    np.testing.assert_allclose(runs[0].tables, runs[1].tables, 1e-5, 1e-6)


def test_snapshot_diff_holds_what_was_subtracted() -> None:
    got = Run('type: "Adam" base_lr: 0.1 momentum: 0.9 snapshot_diff: true')
    np.testing.assert_allclose(got.saved[0], got.tables[-2] - got.tables[-1], 1e-5, 1e-6)
    unused = sorted(set(range(ROWS)) - set(INDEX[-1].astype(int).flat))
    assert not got.saved[0][unused].any()


ADAM = 'type: "Adam" base_lr: 0.1 momentum: 0.9 weight_decay: 0.01'


@pytest.mark.parametrize("more", ["recompute: true", "debug_info: true display: 1", "snapshot_diff: true"])
def test_options_that_look_or_save_memory_change_nothing(more: str) -> None:
    plain, other = Run(ADAM), Run(f"{ADAM} {more}")
    np.testing.assert_array_equal(plain.tables, other.tables)
    assert not other.notices


def test_debug_info_shows_the_whole_gradient() -> None:
    got, dense = (Run("base_lr: 0.1 debug_info: true display: 1", on) for on in (True, False))
    shown = [[line for line in run.lines if "Layer words, param blob 0 diff" in line] for run in (got, dense)]
    assert len(shown[0]) == STEPS
    assert shown[0] == shown[1]


TIED = NET.replace('layer { name: "loss"', """
  layer { name: "again" type: "Embed" bottom: "x" top: "other" param { name: "w" } embed_param {
    num_output: 3 input_dim: 11 bias_term: false } }
  layer { name: "no" type: "Silence" bottom: "other" } layer { name: "loss\"""")  # fmt: skip


@pytest.mark.parametrize(
    ("options", "net", "why"),
    [
        (f"{ADAM} iter_size: 2", NET, "iter_size 2 adds up the gradients of several batches"),
        ('type: "LARS" base_lr: 0.1 weight_decay: 0.1', NET, "LARS measures the whole table"),
        (ADAM, TIED, "layers words, again use the table together"),
    ],
)
def test_where_the_gradient_is_dense_all_the_same(options: str, net: str, why: str) -> None:
    more = 'param { name: "w" }' if net is TIED else ""
    got, dense = (Run(options, on, net, more=more) for on in (True, False))
    assert got.notices == [f"sparse_gradient of layer words has no effect, its gradient is dense: {why}"]
    np.testing.assert_array_equal(got.tables, dense.tables)
    assert not dense.notices


def test_a_net_that_shows_its_diffs_has_all_of_them() -> None:
    got, dense = (Run(ADAM, on, kind=NetSolver) for on in (True, False))
    assert got.notices == ["sparse_gradient of layer words has no effect, its gradient is dense: a net that shows its "
                           "diffs has all of it"]  # fmt: skip
    np.testing.assert_array_equal(got.tables, dense.tables)


LOOP = """
layer { name: "in" type: "Input" top: "x" top: "t"
  input_param { shape { dim: 2 dim: 4 } shape { dim: 2 dim: 4 dim: 3 } } }
layer { name: "words" type: "Recurrent" bottom: "x" top: "y" recurrent_net_param {
  state { name: "h" next: "y" dim: 3 } body {
    layer { name: "e" type: "Embed" bottom: "BOTTOM" top: "e" embed_param {
      num_output: 3 input_dim: 11 bias_term: false sparse_gradient: true } }
    layer { name: "y" type: "Expr" bottom: "e" bottom: "h" top: "y" expr_param { expr: "e + h" } } } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""


def test_in_a_loop() -> None:
    """What needs no state is looked up once for all steps; otherwise a line says why the gradient is dense."""
    got = Run("base_lr: 0.1", net=LOOP.replace("BOTTOM", "x"))
    dense = Run("base_lr: 0.1", net=LOOP.replace("BOTTOM", "x").replace("sparse_gradient: true", ""))
    assert not got.notices
    assert "update_rows" in [call.op.name for call in got.training.step.calls]
    np.testing.assert_allclose(got.tables, dense.tables, 1e-5, 1e-6)
    step = """layer { name: "i" type: "Expr" bottom: "x" bottom: "h" top: "i" expr_param {
      expr: "x + 0.001 * sigmoid(sum(h, axis=1, keepdims=0))" } }"""
    stepwise = LOOP.replace("BOTTOM", "i").replace("body {", f"body {{ {step}")
    other = Run("base_lr: 0.1", net=stepwise)
    assert other.notices[0].endswith("its gradient is dense: it is used 2 times in an iteration")
    np.testing.assert_allclose(other.tables, dense.tables, 1e-5, 1e-6)


def test_half_precision_guards_the_rows() -> None:
    text = NET.replace("EMBED", EMBED.format(sparse="true", more="")) + " precision: FP16"
    message, source = parse_net(text)
    training = compile_training(build(message, source), parse_solver(f"net: 'x' {SOLVER} base_lr: 0.1")[0])
    (call,) = [c for c in training.step.calls if c.op.name == "update_rows"]
    assert training.scaling is not None
    assert call.args[1][-1] is training.scaling.finite  # type: ignore[index]
    assert call.attrs["rule"].inputs[-1] == "finite"


def test_a_resumed_training_goes_on(tmp_path: Path) -> None:
    drawn = 'dummy_data_param { data_filler { type: "uniform" max: 9 } data_filler { type: "gaussian" }'
    net = NET.replace("EMBED", EMBED.format(sparse="true", more=""))
    net = net.replace('type: "Input"', 'type: "DummyData"').replace("input_param {", drawn)
    text = f'net_param {{ {net} }} {SOLVER} {ADAM} snapshot_prefix: "{tmp_path}/s"'
    with Solver(parse_solver(text)[0]) as whole:
        whole.step(3)
        _, state = whole.snapshot()
        whole.step(2)
        table = next(iter(whole.training.recording.parameters.values()))
        wanted = whole.memory.read(table)
    with Solver(parse_solver(text)[0]) as rest:
        rest.restore(state)
        rest.step(2)
        np.testing.assert_array_equal(rest.memory.read(next(iter(rest.training.recording.parameters.values()))), wanted)
