"""The config language: what each of its words expands to, where its positions lead, and that plain texts stay plain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from netrun.config import schema, text
from netrun.config.explain import explain
from netrun.config.lexer import tokenize
from netrun.config.reader import Reader
from netrun.config.scope import WORDS, is_extended
from netrun.config.source import Mark, Source
from netrun.config.upgrade import parse_net, read_net, read_solver

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIGS = Path(__file__).parents[2] / "configs"


def net(content: str) -> schema.NetParameter:
    return text.parse(content, schema.NetParameter, "f")[0]


def means(content: str, plain: str, kind: type[Message] = schema.NetParameter) -> None:
    """The text stands for the plain one; and so does what is written of it."""
    got = text.parse(content, kind, "f")[0]
    assert got == text.parse(plain, kind)[0]
    assert text.parse(text.write(got), kind)[0] == got


# ------------------------------------------------------------------------------------------------------------- values
@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("let a: 3 input_dim: $a", "input_dim: 3"),
        ("let a: 3, input_dim: $a; input_dim: $a", "input_dim: 3 input_dim: 3"),
        ("let a: 0x10 let b: -7 input_dim: $a input_dim: $b", "input_dim: 16 input_dim: -7"),
        ("let a: 'x' name: $a", "name: 'x'"),
        ("let a: 'x' 'y' name: $a", "name: 'xy'"),
        ("let a: 'x' name: '$a' '/' '$a'", "name: 'x/x'"),
        ("let a: true force_backward: $a", "force_backward: true"),
        ("let a: TEST state { phase: $a }", "state { phase: TEST }"),
        ("let a: [1, 2, 3] input_dim: $a", "input_dim: [1, 2, 3]"),
        ("let a: [] input_dim: $a", "input_dim: []"),
        ("let a: 2 input_dim: [1, $a, $(a + 1)]", "input_dim: [1, 2, 3]"),
        ("let a: 1e-3 layer { loss_weight: $a }", "layer { loss_weight: 0.001 }"),
        ("let a: 0.1 layer { loss_weight: $(-a) }", "layer { loss_weight: -0.1 }"),
        ("let a: inf layer { loss_weight: $a }", "layer { loss_weight: inf }"),
        ("let a: 2 name: 'res$(a)b $a. $$a 5$ $5'", "name: 'res2b 2. $a 5$ $5'"),
        ("let a: 0.5 let b: 2.0 name: '$a $b $(a < b)'", "name: '0.5 2.0 true'"),
        ('let a: "q\\"\\n\\101é" name: "<$a>"', 'name: "<q\\"\\n\\101é>"'),
        ("let a: '$$' name: '$a$a'", "name: '$$'"),
        ("let a: 3 layer { let b: $(a + 1) top: '$b' } layer { let b: 9 top: '$b' }",
         "layer { top: '4' } layer { top: '9' }"),
        ("let a: 3 # a comment\n name: '$( a # no\n)'", None),
        ("let a: 3 let b: $(a # three\n + 1) input_dim: $b", "input_dim: 4"),
    ],
)  # fmt: skip
def test_values(value: str, plain: str | None) -> None:
    if plain is None:
        with pytest.raises(text.ConfigError):
            net(value)
    else:
        means(value, plain)


def test_repeat() -> None:
    means("repeat i in 1..3 { input_dim: $i }", "input_dim: [1, 2, 3]")
    means("let n: 2 repeat i in n - 1..2*n { input_dim: $i }", "input_dim: [1, 2, 3, 4]")
    means("repeat i in 1..0 { input_dim: $i } name: 'x'", "name: 'x'")
    means("let w: [8, 16] repeat x in w { input_dim: $x } repeat x in [5] { input_dim: $x }", "input_dim: [8, 16, 5]")
    means("repeat a in ['x', 'y'] { repeat i in 1..2 { input: '$a$i' } }", "input: ['x1', 'x2', 'y1', 'y2']")
    means("repeat i in 0..1 { let j: $(i * 2) input_dim: $j }", "input_dim: [0, 2]")
    means("layer { repeat i in 1..2 { bottom: 'b$i' } top: 't' }", "layer { bottom: ['b1', 'b2'] top: 't' }")


def test_if() -> None:
    pick = "if a < 1 { name: 'small' } else if a == 1 { name: 'one' } else { name: 'big' }"
    for value, name in ((0, "small"), (1, "one"), (2, "big")):
        means(f"let a: {value} {pick}", f"name: '{name}'")
    means("if false { nonsense } name: 'x'", "name: 'x'")
    means("if 1 < 2 { let a: 3 } else { let a: 4 } input_dim: $a", "input_dim: 3")
    means("let a: MAX if a == 'MAX' { name: 'x' }", "name: 'x'")
    means("if not (1 > 2) and true { name: 'x' }", "name: 'x'")


def test_def() -> None:
    one = "def d(a, b: 2, c: $(b + 1)) { input_dim: [$a, $b, $c] } "
    means(one + "d { a: 1 }", "input_dim: [1, 2, 3]")
    means(one + "d: { b: 5, a: 1; c: 0 }", "input_dim: [1, 5, 0]")
    means(
        "def d() { param { lr_mult: 2 } } layer { d {} d {}, }", "layer { param { lr_mult: 2 } param { lr_mult: 2 } }"
    )
    means("let k: 3 def d(a) { input_dim: $(a * k) } repeat k1 in 1..2 { d { a: $k1 } }", "input_dim: [3, 6]")
    means("let a: 3 def d(a) { let b: $a input_dim: $b } d { a: 4 } input_dim: $a", "input_dim: [4, 3]")
    means("def a(x) { b { x: $(x + 1) } } def b(x) { input_dim: $x } a { x: 1 }", "input_dim: 2")
    means("def p(how: MAX) { layer { pooling_param { pool: $how } } } p {} p { how: AVE }",
          "layer { pooling_param { pool: MAX } } layer { pooling_param { pool: AVE } }")  # fmt: skip
    means("def layer_name(name) { name: $name } layer_name { name: 'x' }", "name: 'x'")
    means("def never(a) { $a $b nonsense { } } name: 'x'", "name: 'x'")


def test_a_def_may_be_called_as_a_plain_field_is() -> None:
    """``pool`` is a field, and no block: as a def it is used with a block, so the two are told apart."""
    means(
        "def pool(p) { layer { pooling_param { pool: $p } } } pool { p: AVE }", "layer { pooling_param { pool: AVE } }"
    )


def test_solvers_too() -> None:
    means("let epoch: 100 max_iter: $(20 * epoch) stepvalue: [$(10 * epoch), $(15 * epoch)] lr_policy: 'multistep'",
          "max_iter: 2000 stepvalue: 1000 stepvalue: 1500 lr_policy: 'multistep'", schema.SolverParameter)  # fmt: skip


def test_include(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "net.prototxt").write_text('include "inner/defs.prototxt"\nlet n: 2\nd { a: $n }\n')
    (tmp_path / "inner" / "defs.prototxt").write_text('include "more.prototxt" def d(a) { input_dim: $(a + m) }')
    (tmp_path / "inner" / "more.prototxt").write_text('let m: 40\nname: "more"\n')
    got, _ = text.read(tmp_path / "net.prototxt", schema.NetParameter)
    assert got == schema.NetParameter(name="more", input_dim=[42])
    (tmp_path / "solver.prototxt").write_text(
        'let net: "net" net: "$net.prototxt" let s: "rate" include "$s.prototxt" max_iter: 5'
    )
    (tmp_path / "rate.prototxt").write_text("base_lr: 0.5 lr_policy: 'fixed'")
    solver, source = read_solver(tmp_path / "solver.prototxt")
    assert (solver.base_lr, solver.net, solver.max_iter) == (0.5, "net.prototxt", 5)
    assert str(source.where("base_lr")) == f"{tmp_path / 'rate.prototxt'}:1:1"


def test_a_file_of_definitions_may_be_included_on_two_ways(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text("include 'a.prototxt' include 'b.prototxt' a {} b {}")
    (tmp_path / "a.prototxt").write_text("include 'common.prototxt' def a() { one { x: $k } }")
    (tmp_path / "b.prototxt").write_text("include 'common.prototxt' def b() { one { x: 4 } }")
    (tmp_path / "common.prototxt").write_text("let k: 3 def one(x) { input_dim: $x }")
    assert list(text.read(tmp_path / "net.prototxt", schema.NetParameter)[0].input_dim) == [3, 4]


def test_include_is_still_the_rule_of_a_layer(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("let p: TEST layer { include { phase: $p } include: { stage: 'x' } }")
    layer = text.read(tmp_path / "a", schema.NetParameter)[0].layer[0]
    assert [rule.phase for rule in layer.include] == [schema.TEST, schema.TRAIN]


def test_old_forms_are_upgraded_after_they_are_expanded() -> None:
    got, source = parse_net("repeat i in 1..2 { layers { type: RELU name: 'r$i' bottom: 'x' top: 'x' } } input: 'x' "
                            "input_dim: [1, 2, 3, 4]")  # fmt: skip
    assert [layer.type for layer in got.layer] == ["Input", "ReLU", "ReLU"]
    assert source.where("layer", 2).trail == ("repeated at <string>:1:1 (i = 2)",)


# ---------------------------------------------------------------------------------------------------------- positions
def test_every_field_knows_its_line_and_its_uses() -> None:
    content = (
        "def conv(name, n) {\n"
        "  layer { name: $name\n"
        "    convolution_param { num_output: $n } }\n"
        "}\n"
        "name: 'x'\n"
        "repeat i in 1..2 {\n"
        "  conv { name: 'c$i' n: $i }\n"
        "}\n"
    )
    source = text.parse(content, schema.NetParameter, "f")[1]
    assert str(source.where("name")) == "f:5:1"
    assert source.where("name").trail == ()
    found = source.where("layer", 1, "convolution_param", "num_output")
    assert (str(found), found.trail) == ("f:3:25", ("used at f:7:3 (conv)", "repeated at f:6:1 (i = 2)"))
    assert str(source.view("layer", 0).where("name")) == "f:2:11"


def test_values_with_brackets_do_not_disturb_the_trail() -> None:
    source = text.parse("repeat s in ['{}', '}{0}'] { input: '$s' }", schema.NetParameter, "f")[1]
    assert source.where("input", 1).trail == ('repeated at f:1:1 (s = "}{0}")',)


# -------------------------------------------------------------------------------------------------- plain stays plain
def plain_texts() -> Iterator[tuple[str, str]]:
    for path in sorted(GOLDEN.rglob("*.prototxt")):
        yield path.name, path.read_text()
    for path in sorted(GOLDEN.rglob("*.npz")):
        with np.load(path) as arrays:
            if "prototxt" in arrays:
                yield path.name, str(arrays["prototxt"])
    for case in json.loads((GOLDEN / "rules.json").read_text()):
        yield "rules", case["prototxt"]
    for case in json.loads((GOLDEN / "invalid.json").read_text()):
        yield "solver" if case["kind"] == "solver" else "net", case["text"]


def marks(mark: Mark) -> tuple[int, dict[str, list[object]]]:
    return mark.at, {name: [marks(m) for m in found] for name, found in mark.fields.items()}


def test_plain_texts_never_come_to_the_expander() -> None:
    """Same message, same positions: the reader gets the very tokens of the text."""
    count = 0
    for name, content in plain_texts():
        assert not is_extended(tokenize(content)), name
        count += 1
    assert count > 300


def test_a_plain_text_that_is_expanded_all_the_same_is_what_it_was() -> None:
    """The expander copies what is not its own: message and positions are those of the reader alone."""
    for name, content in plain_texts():
        kind = schema.SolverParameter if name.startswith("solver") else schema.NetParameter
        alone = kind()
        source = Source("f", "", content, Mark(-1))
        reader = Reader(tokenize(content), alone, source)
        reader.read()
        if reader.problems or "$" in content:
            continue
        both, expanded = text.parse(f"{content}\nif true {{ }}", kind)
        assert both == alone, name
        assert marks(expanded.root) == marks(source.root), name


@pytest.mark.parametrize(
    "content",
    [
        "layer { python_param { param_str: \"{'a': $x ${y} $(z)}\" } }",
        "layer { include { phase: TEST } include: { stage: 'let x: 3' } }",
        "name: 'def' # let a: 3",
        "let: 3",
        "def { x: 3 }",
        "repeat { }",
        "if: { }",
        "let { width: 3 }",
        "layer { phase: let }",
    ],
)
def test_fields_and_texts_that_look_like_the_language(content: str) -> None:
    assert not is_extended(tokenize(content))


def test_dollars_of_a_plain_net_stay() -> None:
    assert net("layer { python_param { param_str: '$x $(y) ${z} $$' } }").layer[0].python_param.param_str == (
        "$x $(y) ${z} $$"
    )


def test_no_field_of_the_schema_has_a_name_of_the_language_but_include() -> None:
    seen: set[str] = set()

    def names(descriptor: Descriptor) -> Iterator[str]:
        if descriptor.full_name not in seen:
            seen.add(descriptor.full_name)
            for field in descriptor.fields:
                yield field.name
                if field.message_type is not None:
                    yield from names(field.message_type)

    every = {*names(schema.NetParameter.DESCRIPTOR), *names(schema.SolverParameter.DESCRIPTOR)}
    assert WORDS & every == {"include"}


# -------------------------------------------------------------------------------------------------------- what ships
def test_the_short_googlenet_is_the_long_one() -> None:
    folder = CONFIGS / "imagenet" / "googlenet"
    short = folder / "short_train_val.prototxt"
    assert read_net(short)[0] == read_net(folder / "train_val.prototxt")[0]
    assert len(short.read_text().splitlines()) < 120


def test_the_page_names_every_word() -> None:
    page = explain("language")
    for word in ("let name: value", "def name(", "repeat i in", "if formula", 'include "', "$(formula)", "where("):
        assert word in page
    assert explain("let") == page
    assert max(map(len, page.splitlines())) <= 120
