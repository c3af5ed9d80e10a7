"""The formulas of the config language: values, strength of the signs, and every refusal with its place."""

from __future__ import annotations

import pytest

from netrun.config.formula import Formula, FormulaError
from netrun.config.scope import Names
from netrun.config.value import Value

NAMES: dict[str, Value] = {"n": 3, "x": 0.5, "s": "ab", "yes": True, "list": [4, 5, 6], "big": 2**63}


def value(text: str) -> Value:
    names = Names()
    for name, one in NAMES.items():
        names.give(name, one, 0)
    formula = Formula(text, 0)
    node = formula.expression()
    assert formula.at == len(text.rstrip()), "all of it was read"
    return node(names)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("7 - 2 - 1", 4), ("2 ^ 3 ^ 2", 512), ("-2 ^ 2", -4), ("- - 2", 2),
        ("2 ^ -1", 0.5), ("6 / 2", 3), ("7 / 2", 3.5), ("7 // 2", 3), ("-7 // 2", -4), ("7 % 4", 3), ("1.5 * 2", 3.0),
        ("n * n - 1", 8), ("n-1", 2), ("x + n", 3.5), (".5e1", 5.0), ("1.", 1.0),
        ("1 < 2", True), ("2 <= 2", True), ("3 > 4", False), ("n >= 4", False), ("n == 3", True), ("n != 3.0", False),
        ("1 == true", False), ("s == 'ab'", True), ("s == 3", False), ("s < 'b'", True), ("list == [4, 5, 6]", True),
        ("true and not false", True), ("false or yes", True), ("not not yes", True), ("1 < 2 and 2 < 3 or 1", True),
        ("yes or 1 / 0 == 1", True), ("where(n > 1, 'a', list[9])", "a"), ("where(n > 9, 1 / 0, 2)", 2),
        ("list[1]", 5), ("list[n - 1] + 1", 7), ("len(list)", 3), ("len(s)", 2), ("[1, 2][0]", 1), ("[]", []),
        ("min(3, n, 2)", 2), ("max(1, x)", 1), ("abs(-3)", 3), ("sqrt(16)", 4.0), ("floor(2.7)", 2), ("ceil(2.1)", 3),
        ("round(2.5)", 3), ("s + '/' + \"c$n\"", "ab/c3"), ("'$(n + 1)$$'", "4$"), ("0 ^ 0", 1), ("1 ^ 1000", 1),
    ],
)  # fmt: skip
def test_values(text: str, wanted: Value) -> None:
    got = value(text)
    assert (got, type(got)) == (wanted, type(wanted))


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("nn + 1", 0, 'nothing here is called "nn"; did you mean "n"?'),
        ("1 +", 3, "a number, a name or ( is wanted here, got the end"),
        ("1 + * 2", 4, "a number, a name or ( is wanted here, got *"),
        ("(1 + 2", 6, ") is wanted here, got the end"),
        ("2n", 0, "2n: a number ends before a name begins"),
        ("1 < 2 < 3", 6, "one comparison at a time: write a < b and b < c"),
        ("$n", 0, "inside an expression names stand without $"),
        ("minn(1, 2)", 0, 'there is no function "minn"; did you mean "min"?'),
        ("min(1)", 0, "min takes 2 or more arguments, got 1"),
        ("abs(1, 2)", 0, "abs takes 1 arguments, got 2"),
        ("where(1, 2, 3)", 0, "where wants true, false or a comparison, got 1"),
        ("n and yes", 1, "and wants true, false or a comparison, got 3"),
        ("not n", 0, "not wants true, false or a comparison, got 3"),
        ("s * 2", 2, '* wants numbers, got "ab"'),
        ("s + 2", 2, '+ wants numbers, got "ab"'),
        ("yes + 1", 4, "+ wants numbers, got true"),
        ("-s", 0, '- wants numbers, got "ab"'),
        ("s < 3", 2, '< wants numbers, got "ab"'),
        ("1 / 0", 2, "/ divides by zero"),
        ("1 % 0", 2, "% divides by zero"),
        ("list[3]", 4, "index 3 is outside of the list, which has 3 values (from 0 on)"),
        ("list[-1]", 4, "index -1 is outside of the list, which has 3 values (from 0 on)"),
        ("n[0]", 1, "an index wants a list before it, got 3"),
        ("list[x]", 4, "an index wants a whole number, got 0.5"),
        ("9 ^ 9 ^ 9", 2, "^ of 9, 387420489 is no number, or too large"),
        ("big * 2", 4, "the number here is too large for any field"),
        ("(0 - 8) ^ 0.5", 8, "^ of -8, 0.5 is no number, or too large"),
        ("sqrt(0 - 1)", 0, "sqrt of -1 is no number, or too large"),
        ("1e300 * 1e300 * 0 + floor(1e400)", 20, "floor of inf is no number, or too large"),
        ("len(n)", 0, "len of 3 is no number, or too large"),
        ("[[1]]", 0, "a list holds plain values, not lists"),
        ("'$list'", 0, "a list of 3 values does not fit into a text"),
        ("'${n}'", 1, "a value is written $name or $(name), and a dollar itself $$"),
        ("'$(n'", 4, "an operator or ) is wanted in this $(...), got the end"),
        ("'\\q'", 1, "there is no escape \\q; a backslash itself is written \\\\"),
        ("(" * 31 + "1" + ")" * 31, 30, "brackets are nested deeper than 30 here"),
        ("2^" * 40 + "2", 59, "powers are nested deeper than 30 here"),
    ],
)  # fmt: skip
def test_refusals(text: str, at: int, what: str) -> None:
    with pytest.raises(FormulaError) as caught:
        value(text)
    assert (caught.value.what, caught.value.at) == (what, at)


def test_long_chains_are_read() -> None:
    assert value("+".join(["1"] * 5000)) == 5000
    assert value(" and ".join(["true"] * 5000)) is True
    assert value("not " * 5000 + "true") is True
    assert value("-" * 5001 + "1") == -1
