"""The shape rules of kernels: they let every row of the case table through, and nothing that a kernel cannot do."""

from __future__ import annotations

from typing import Any

import pytest
from cases import KernelCase
from cases.kernels import KERNELS

from netrun.formula.array import FormulaError
from netrun.formula.build import Builder
from netrun.formula.rules import RULES, check
from netrun.formula.trace import REFUSED, Vocabulary
from netrun.kernels import OPS
from netrun.types import Spec, Window


def test_every_kernel_has_a_rule_or_a_reason() -> None:
    assert set(RULES) | set(REFUSED) == set(OPS)
    assert not set(RULES) & set(REFUSED)


def _shaped(build: Builder, argument: Any) -> Any:
    if isinstance(argument, tuple):
        return tuple(_shaped(build, a) for a in argument)
    return None if argument is None else build.leaf("x", argument.shape)


@pytest.mark.parametrize("case", [c for c in KERNELS if c.op in RULES], ids=str)
def test_every_row_is_let_through(case: KernelCase) -> None:
    build = Builder()
    given, attrs = case.build("float32")
    check(case.op, [_shaped(build, a) for a in given], attrs)


@pytest.mark.parametrize("case", [c for c in KERNELS if c.op in RULES], ids=str)
def test_another_shape_of_an_output_is_not(case: KernelCase) -> None:
    build = Builder()
    given, attrs = case.build("float32")
    shaped = [_shaped(build, a) for a in given]
    outs = [i for i, a in enumerate(case.signature.arguments) if "w" in a.role]
    if case.op in ("fill", "copy", "pointwise", "col2im", "conv_grad_x", "scatter_add", "place"):
        pytest.skip("what is written decides the shape")
    for i in outs:
        wrong = [Spec((*a.shape, 2, 7)) for a in (given[i] if isinstance(given[i], tuple) else (given[i],))]
        found = tuple(_shaped(build, w) for w in wrong)
        with pytest.raises(FormulaError, match=f"k.{case.op}"):
            check(case.op, [*shaped[:i], found if isinstance(given[i], tuple) else found[0], *shaped[i + 1 :]], attrs)


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "what"),
    [
        ("gemm", [(2, 3), (2, 3), None, (2, 2)], {"ta": False, "tb": False},
         "3 columns of a (2 3, ta=False) meet 2 rows"),
        ("conv", [(1, 3, 4, 4), (2, 4, 3, 3), None, (1, 2, 2, 2)], {"window": Window((3, 3)), "groups": 1},
         "w (2 4 3 3) wants K 3 3 3"),
        ("conv", [(1, 3, 4, 4), (2, 3, 9, 9), None, (1, 2, 2, 2)], {"window": Window((9, 9)), "groups": 1},
         "the window 9x9 does not fit 1 3 4 4"),
        ("conv", [(1, 3, 4, 4), (2, 3, 3, 3), None, (1, 2, 2, 2)], {"window": 3, "groups": 1}, "a netrun.types.Window"),
        ("pointwise", [[(2, 3)], (2, 3)], {"expr": "a + b"}, 'expr has no input "b": the inputs are a'),
        ("reduce", [[(2, 3)], (2,)], {"expr": "a", "how": "mean", "axes": (1,)}, 'how is "sum" or "max"'),
        ("transpose", [(2, 3), (3, 2)], {"axes": (1, 1)}, "are no order of the axes"),
        ("slice", [(2, 3), (2, 2)], {"begin": (0, 2)}, "2 2 from 0 2 on is no part of 2 3"),
        ("reduce", [[(2, 3)], (2,)], {"expr": "a", "how": "sum", "axes": 1}, "cannot have these: xs 2 3, y 2"),
    ],
)  # fmt: skip
def test_refused(op: str, shapes: list[Any], attrs: dict[str, Any], what: str) -> None:
    build = Builder()
    args = [tuple(build.leaf("x", t) for t in s) if isinstance(s, list) else s if s is None else build.leaf("x", s)
            for s in shapes]  # fmt: skip
    with pytest.raises(FormulaError) as error:
        check(op, args, attrs)
    assert what in error.value.what


def test_the_adjoints_are_refused_with_a_reason() -> None:
    build = Builder()
    k, x = Vocabulary(build), build.leaf("x", (2, 3))
    with pytest.raises(FormulaError, match="softmax_grad cannot be called here: it belongs to a gradient"):
        k.softmax_grad(x, x, k.temp("dx", (2, 3)), axis=1)
    assert "softmax" in dir(k)
    assert "softmax_grad" not in dir(k)
