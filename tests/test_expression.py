"""Expressions: the grammar, printing, and symbolic derivatives against finite differences."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from netrun.expression import (
    FUNCTIONS,
    Apply,
    ExpressionError,
    Node,
    Num,
    Var,
    derivative,
    gradient,
    letters,
    names_in,
    parse,
    rule,
    substitute,
    text_of,
    walk,
)

MATH: dict[str, Any] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b, "neg": lambda a: -a, "lt": lambda a, b: float(a < b), "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b), "ge": lambda a, b: float(a >= b), "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b), "max": max, "min": min, "where": lambda c, a, b: a if c else b, "abs": abs,
    "sign": lambda a: float((a > 0) - (a < 0)), "floor": math.floor, "trunc": math.trunc, "exp": math.exp,
    "expm1": math.expm1, "log": math.log, "log1p": math.log1p, "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos,
    "erf": math.erf, "tanh": math.tanh, "sigmoid": lambda a: 1 / (1 + math.exp(-a)),
    "softplus": lambda a: math.log1p(math.exp(a)), "relu": lambda a, s: a if a > 0 else s * a,
    "elu": lambda a, s: a if a > 0 else s * math.expm1(a),
}  # fmt: skip


def value(node: Node, **names: float) -> float:
    if isinstance(node, Num):
        return node.value
    if isinstance(node, Var):
        return names[node.name]
    return float(MATH[node.op](*(value(a, **names) for a in node.args)))


def test_the_test_knows_every_function() -> None:
    assert set(MATH) == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("2 - 3 - 4", -5), ("2 ^ 3 ^ 2", 512), ("-2 ^ 2", -4), ("8 / 4 / 2", 1),
        ("2 * -3", -6), ("1 < 2", 1), ("1 + 1 >= 3", 0), ("where(1 > 2, 5, 6)", 6), ("max(1, min(5, 3))", 3),
        (".5 + 1e-1 + 1.", 1.6), ("2 - (3 - 4)", 3), ("2 / (8 / 4)", 1),
    ],
)  # fmt: skip
def test_meaning(text: str, wanted: float) -> None:
    assert value(parse(text)) == pytest.approx(wanted)


def random_tree(rng: random.Random, depth: int) -> Node:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([Var("a"), Var("b"), Num(rng.choice([0.5, 2.0, -3.0, 1e-5, 12345678.0, 0.1]))])
    op = rng.choice(list(FUNCTIONS))
    return Apply(op, tuple(random_tree(rng, depth - 1) for _ in range(FUNCTIONS[op])))


@pytest.mark.parametrize("seed", range(200))
def test_printing_parses_back(seed: int) -> None:
    tree = random_tree(random.Random(seed), 4)
    simplified = substitute(tree, {})
    assert parse(text_of(simplified)) == simplified


@pytest.mark.parametrize(
    "op", [op for op in FUNCTIONS if op not in {"lt", "le", "gt", "ge", "eq", "ne", "floor", "trunc"}]
)
def test_derivatives_equal_finite_differences(op: str) -> None:
    names = letters(FUNCTIONS[op])
    tree = Apply(op, tuple(Var(n) for n in names))
    for point in (
        (0.7, 1.3, 0.4),
        (1.9, 0.3, -0.8),
        *(((-0.6, 0.25, 1.1),) if op not in {"log", "sqrt", "pow"} else ()),
    ):
        at = dict(zip(names, point, strict=False))
        for name in names:
            up, down = ({**at, name: at[name] + s * 1e-6} for s in (1, -1))
            numeric = (value(tree, **up) - value(tree, **down)) / 2e-6
            assert value(derivative(tree, name), **at) == pytest.approx(numeric, rel=1e-5, abs=1e-7)
            through = gradient(tree, name, "out", "dout")
            assert value(through, **at, out=value(tree, **at), dout=2.0) == pytest.approx(
                2 * numeric, rel=1e-5, abs=1e-7
            )


def test_gradients_need_the_output_alone_where_they_can() -> None:
    for text in ("relu(a, 0)", "relu(a, 0.1)", "sigmoid(a)", "tanh(a)", "exp(a)"):
        assert "a" not in names_in(gradient(parse(text), "a", "out", "dout")), text
    assert "a" in names_in(gradient(parse("relu(a, -0.5)"), "a", "out", "dout"))  # the sign is lost in the output


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("1 +", 3, "wanted a number"), ("(1", 2, "')'"), ("foo(1)", 0, 'no function "foo"'), ("max(1)", 0, "2 arg"),
        ("1 $ 2", 2, "'$'"), ("sigmod(a)", 0, 'did you mean "sigmoid"'), ("a b", 2, "an operator"), ("", 0, "a number"),
    ],
)  # fmt: skip
def test_errors_point_at_the_place(text: str, at: int, says: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert caught.value.position == at
    assert says in str(caught.value)


def test_rules() -> None:
    assert str(rule(["g"], ["w"], "t = g * 2; w = w - t")) == "t = g * 2; w = w - t"
    with pytest.raises(ExpressionError, match='no value "q"'):
        rule(["g"], ["w"], "w = w - q")


def test_letters() -> None:
    assert letters(3) == ("a", "b", "c")
    assert len(set(letters(100))) == 100


def test_infinity_has_a_text() -> None:
    for text in ("min(a, 1e999)", "max(a, -1e999)", "a + (1e999 - 1e999)"):
        tree = parse(text)
        assert parse(text_of(tree)) == tree


def test_the_derivative_of_a_choice_is_a_choice() -> None:
    assert text_of(derivative(parse("where(a > 0, sqrt(a), 2 * a)"), "a")) == "where(a > 0, 0.5 / sqrt(a), 2)"
    assert text_of(derivative(parse("where(a > b, a, b)"), "b")) == "where(a > b, 0, 1)"


def test_parts_that_stand_in_a_tree_many_times_are_rewritten_once() -> None:
    """x -> x * x thirty times over is a tree of a billion leaves, and thirty parts."""
    tree: Node = Var("a")
    for _ in range(30):
        tree = Apply("mul", (tree, tree))
    found = substitute(tree, {Var("a"): Var("b")})
    for _ in range(30):
        assert isinstance(found, Apply)
        assert found.args[0] is found.args[1]
        found = found.args[0]
    assert found == Var("b")


def test_a_zero_keeps_its_sign_where_a_tree_is_rewritten() -> None:
    found = substitute(Apply("max", (Apply("abs", (Num(0.0),)), Apply("div", (Var("a"), Num(-0.0))))), {})
    assert math.copysign(1, [n.value for n in walk(found) if isinstance(n, Num)][-1]) == -1
