"""What is wrong in the config language: one message each, with its place in the source and the places of use."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path

import pytest

from netrun.compiler.graph import State, build
from netrun.config import schema, text
from netrun.config.upgrade import parse_net, read_net
from netrun.errors import ConfigError, NetrunError

D = "def d(a, b: 2) { input_dim: [$a, $b] } "


def problems(content: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        text.parse(content, schema.NetParameter, "f")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # names and values
        ("let a: 1 input_dim: $b", '1:21: nothing here is called "b"; known are a'),
        ("name: $x", '1:7: nothing here is called "x"'),
        ("let width: 1 name: 'a$(widht + 1)'", '1:24: nothing here is called "widht"; did you mean "width"?'),
        ("let a: 1 let a: 2", "1:14: a is given twice, first in line 1; a name has one value in a file or def"),
        ("let a: 1 repeat a in 1..2 { }", "1:17: a is given twice, first in line 1"),
        ("let a: 1\nrepeat i in 1..2 { let a: 2 }", "2:24: a is given twice, first in line 1"),
        ("let true: 1", "1:5: true is a word of the language and names nothing else"),
        ("let a-b: 1", "1:5: a-b is no name: letters, digits and _ are"),
        ("let a 3", "1:7: let a wants a colon and a value: let a: 3"),
        ("let 3: 3", "1:5: 3 is no name: letters, digits and _ are"),
        ("let a: }", "1:8: a value is wanted here, got }"),
        ("let a:", "1:7: a value is wanted here, got the end of the file"),
        ("let a: { x: 3 }", "1:8: one value is wanted here, got a block"),
        ("let n: 1 let a: n + 1", "1:17: n is a bare word here; the value of that name is written $n"),
        ("let n: 1 let a: 6*n", "1:18: let a takes one value; a value that is computed stands in $(...)"),
        ("let a: 6 + 3", "1:10: let a takes one value; a value that is computed stands in $(...)"),
        ("let a: n-1", "1:8: n-1 is no value; a value that is computed stands in $(...)"),
        ("let a: (1 + 2)", "1:8: a value is wanted here, got (; a value that is computed stands in $(...)"),
        ("let a: 3n", "1:8: 3n is no number"),
        (f"input_dim: $({'9' * 5000})", "1:14: the number here is too large for any field"),
        ("include 'x\\0y'", "1:1: 'x\\x00y' is no name of a file"),
        ("let n: 1 input_dim: $n-1", "1:21: $n-1 is no value; a value that is computed stands in $(...)"),
        ("let a: [1, [2]]", "1:8: a list holds plain values, not lists"),
        ("let a: [1 2]", "1:11: a comma or ] is wanted in the list, got 2"),
        ("let a: [1, 2", "1:13: a comma or ] is wanted in the list, got the end of the file"),
        ("let a: 'x", "1:8: the quote is not closed on its line: 'x"),
        ("let a: '\\q'", "1:9: there is no escape \\q; a backslash itself is written \\\\"),
        ("let a: $", "1:8: a $ is followed by a name or a formula: $name or $(name + 1)"),
        ("let a: $(1 +)", "1:13: a number, a name or ( is wanted here, got )"),
        ("let a: $(1 + 2 ", "1:16: an operator or ) is wanted in this $(...), got the end"),
        ("let a: 1 input_dim: ${a}", "1:21: a value is written $name or $(name), and a dollar itself $$"),
        ("let a: 1 name: '${a}'", "1:17: a value is written $name or $(name), and a dollar itself $$"),
        ("let n: 1 input_dim: n",
         "1:21: input_dim wants a whole number from -2147483648 to 2147483647, got n; "
         "a value of that name is written $n"),
        ("let n: 3 input_dim: $(n / 2)",
         "1:21: input_dim wants a whole number from -2147483648 to 2147483647, got 1.5"),
        ("let n: 3 name: $n", '1:16: name wants a text in quotes, got 3; write "3"'),
        ("let p: 'TEST' state { phase: $p }", "1:30: phase wants TRAIN or TEST, got \"TEST\"; write it without quotes"),
        ("let a: 3 layer { let b: 4 } input_dim: $b", '1:40: nothing here is called "b"'),
        # repeat
        ("repeat i in 1..x { }", '1:16: nothing here is called "x"'),
        ("repeat i in 1.. { }", "1:13: this repeat has no end: write 1..3"),
        ("repeat 3 { }", "1:1: a repeat is written: repeat i in 1..3 { ... }"),
        ("repeat i 1..3 { }", "1:1: a repeat is written: repeat i in 1..3 { ... }"),
        ("repeat i in 3 { }", "1:13: repeat wants a range such as 1..3, or a list, got 3"),
        ("repeat i in 1..2.5 { }", "1:13: a range wants a whole number, got 2.5"),
        ("repeat i in 1..1e400 { }", "1:13: a range wants a whole number, got inf"),
        ("repeat i in 1..1000000000 { name: 'x' }",
         "1:13: this repeat has 1000000000 rounds, at most 10000 are accepted"),
        ("repeat i in 1..3 name: 'x'", "1:18: { is wanted here to open the body of repeat, got name"),
        ("repeat i in 1..3", "1:17: { is wanted here to open the body of repeat, got the end of the file"),
        ("repeat i in 1..3 { name: 'x'", "1:1: the body of repeat is opened here and not closed before the file ends"),
        ("repeat i in 1..10000 { repeat j in 1..10000 { } }", "1:24: the text grows beyond 1000000 words here"),
        # if
        ("let a: 1 if a { }", "1:10: if wants true, false or a comparison, got 1"),
        ("if 1 < 2 name: 'x'", "1:10: { is wanted here to open the body of if, got name"),
        ("if true { } else name: 'x'", "1:18: { is wanted here to open the body of else, got name"),
        ("if true { name: 'x'", "1:1: the body of if is opened here and not closed before the file ends"),
        # def and use
        (D + "d { a: 1 b: 2 c: 3 }", '1:54: d has no argument "c"; it takes a, b: ...'),
        (D + "d { }", "1:40: d lacks the argument a; it takes a, b: ..."),
        ("def d(a, b) { } d { }", "1:17: d lacks the arguments a, b; it takes a, b"),
        (D + "d { a: 1 a: 2 }", "1:49: the argument a is given twice"),
        (D + "d { a: { } }", "1:47: one value is wanted here, got a block"),
        (D + "d { a { } }", "1:44: d wants its arguments as name: value, got a"),
        (D + "d { a: 1", "1:40: the body of d is opened here and not closed before the file ends"),
        (D + "dd { a: 1 }", '1:40: a net has no field "dd"; did you mean "d"?'),
        (D + D + "d { a: 1 }", "1:44: def d is given twice, first in line 1"),
        ("d { } def d() { }", '1:1: a net has no field "d"; def d stands further below'),
        (D + "d < a: 1 >", '1:40: a net has no field "d"; def d is used with a block in { }'),
        (D + "d: 3", '1:40: a net has no field "d"; def d is used with a block in { }'),
        ("def layer() { }", "1:5: layer is a block of the schema; a def needs a name of its own"),
        ("def let() { }", "1:5: let is a word of the language and names nothing else"),
        ("def d { }", "1:7: def d wants its arguments in ( ) behind its name"),
        ("def d(a a) { }", "1:9: a comma or ) is wanted behind the argument a, got a"),
        ("def d(a, a) { }", "1:10: the argument a is given twice"),
        ("def d(3) { }", "1:7: the name of an argument is wanted here, got 3"),
        ("def d(a: 1 + 2) { }", "1:12: a comma or ) is wanted behind the argument a, got +"),
        ("def d(a", "1:8: a comma or ) is wanted behind the argument a, got the end of the file"),
        ("def d() name: 'x'", "1:9: { is wanted here to open the body of def d, got name"),
        ("def d() { name: 'x'\ndef e() { }", "1:1: the body of def d is opened here and not closed before the def in "
         "line 2"),
        ("layer {\ndef d() { } }", "2:1: def d stands inside what line 1 opens; a def stands outside of everything "
         "(is a } missing before it?)"),
        ("let n: 1 layer { name: 'x'", "1:10: layer x: layer is opened here and not closed before the file ends"),
        # include
        ("include 'nowhere.prototxt'", "1:1: there is no file nowhere.prototxt"),
        ("include '.'", "1:1: . is a folder, a file is wanted"),
        ("include 'nowhere.prototxt' name: '$from_there'", "1:1: there is no file nowhere.prototxt"),
    ],
)  # fmt: skip
def test_one_mistake_gives_one_message(content: str, message: str) -> None:
    found = problems(content)
    assert len(found) == 1, found
    assert found[0].startswith(f"f:{message}"), found[0]


def test_recursion_names_the_way_round() -> None:
    assert problems("def a() { b { } }\ndef b() { a { } }\na { }") == [
        "f:2:11: def a uses itself (a, b, a): it would never end\n"
        "    used at f:1:11 (b)\n"
        "    used at f:3:1 (a)"
    ]  # fmt: skip


def test_a_default_that_is_wrong_names_def_and_use() -> None:
    assert problems("def a(x: $(y + 1), y: 2) { input_dim: $x }\na { }") == [
        'f:1:12: nothing here is called "y"\n    used at f:2:1 (a)'
    ]


def test_a_mistake_in_a_body_is_told_once() -> None:
    content = "def d(n) {\n  layer { name: $n bogus: 3 }\n}\nd { n: 'a' }\nrepeat i in 1..3 { d { n: 'b$i' } }"
    assert problems(content) == [
        'f:2:20: layer a: a layer has no field "bogus"; did you mean "blobs"?\n'
        "    the same in 3 more places, first:\n"
        "    used at f:4:1 (d)"
    ]
    assert problems("repeat i in 1..2 {\n  input_dim: $j }") == [
        'f:2:14: nothing here is called "j"; known are i\n'
        "    the same in 1 more place, first:\n"
        "    repeated at f:1:1 (i = 1)"
    ]


def test_all_mistakes_in_one_pass() -> None:
    content = (
        "let a: $x\n"
        "let b: $(a + 1)\n"  # a is broken, and said to be
        "def d(n, n) { }\n"
        "d { n: 1 }\n"  # so is d
        "include 'nowhere'\n"
        "if b { }\n"
        "repeat i in 1..true { input_dim: $i }\n"
        "let c: [1, 2)\n"
    )
    assert [p.splitlines()[0] for p in problems(content)] == [
        'f:1:8: nothing here is called "x"',
        "f:3:10: the argument n is given twice",
        "f:5:1: there is no file nowhere",
        "f:7:13: a range wants a whole number, got true",
        "f:8:13: a comma or ] is wanted in the list, got )",
    ]


def test_errors_of_layers_and_of_the_graph_name_source_and_use() -> None:
    content = (
        "def conv(name, bottom, k) {\n"
        "  layer { name: $name type: 'Convolution' bottom: $bottom top: $name\n"
        "    convolution_param { num_output: 4 kernel_size: $k } }\n"
        "}\n"
        "layer { name: 'in' type: 'Input' top: 'x0' input_param { shape { dim: [1, 3, 9, 9] } } }\n"
        "repeat i in 1..2 { conv { name: 'x$i' bottom: 'x$(i - 1)' k: $(5 * i) } }\n"
        "conv { name: 'y' bottom: 'x3' k: 1 }\n"
    )
    net, source = parse_net(content, "f")
    with pytest.raises(ConfigError) as caught:
        build(net, source, State(schema.TEST))
    assert str(caught.value) == (
        "f:3:39: x2 (Convolution): kernel 10x10 does not fit its input\n"
        '    bottom "x1"   N C H W = 1 4 5 5, from layer x1 at line 2\n'
        "    needs H, W >= 10, or more pad\n"
        "    used at f:6:20 (conv)\n"
        "    repeated at f:6:1 (i = 2)\n"
        'f:2:43: y (Convolution): no blob "x3" above this layer\n'
        "    used at f:7:1 (conv)"
    )


RNN = """
let width: 8
def cell(l, x) {
  layer {
    name: "cell$l" type: "Expr" bottom: $x bottom: "h$l" top: "h$(l)_t"
    expr_param {
      weight { name: "W" shape { dim: [$(where(l == 1, 2, width)), $width] } }
      weight { name: "R" shape { dim: [$width, $width] } }
      expr: "h$(l)_t = tanh($x @ W + h$l @ R)"
    }
  }
}
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [5, 4, 2] } } }
layer {
  name: "rnn" type: "Recurrent" bottom: "x" top: "last"
  recurrent_net_param {
    repeat l in 1..3 { state { name: "h$l" next: "h$(l)_t" dim: $width if l == 3 { last: "last" } } }
    body { repeat l in 1..3 { cell { l: $l x: $(where(l > 1, "h$(l - 1)_t", "x")) } } }
  }
}
"""


def test_it_works_inside_the_body_of_a_loop_and_its_formulas() -> None:
    graph = build(*parse_net(RNN, "f"), State(schema.TEST))
    assert graph.blobs["last"].spec.shape == (4, 8)
    assert len(graph.parameters) == 6
    with pytest.raises(ConfigError) as caught:
        build(*parse_net(RNN.replace("@ R)", "@ RR)"), "f"), State(schema.TEST))
    first, *rest = str(caught.value).splitlines()
    assert first == 'f:9:7: cell1 (Expr): no value "RR"; did you mean "R"?'
    assert rest[-2:] == ["    used at f:18:31 (cell)", "    repeated at f:18:12 (l = 1)"]


def test_included_files_are_named(tmp_path: Path) -> None:
    main, other = tmp_path / "net.prototxt", tmp_path / "other.prototxt"
    main.write_text("name: 'x'\ninclude 'other.prototxt'\n")
    other.write_text("let a: 1\nnme: 'x'\n")
    with pytest.raises(ConfigError) as caught:
        read_net(main)
    what = f'{other}:2:1: a net has no field "nme"; did you mean "name"?\n    included at {main}:2:1'
    assert str(caught.value) == what
    other.write_text("name: 'y'")
    with pytest.raises(ConfigError) as caught:
        read_net(main)
    assert str(caught.value) == f"{other}:1:1: name is given twice, first in line 1\n    included at {main}:2:1"
    main.write_text("include 'other.prototxt' name: 'x'\n")
    with pytest.raises(ConfigError) as caught:
        read_net(main)
    assert str(caught.value) == f"{main}:1:26: name is given twice, first in {other}:1:1"


def test_includes_that_never_end_or_hold_no_text(tmp_path: Path) -> None:
    main, other = tmp_path / "a.prototxt", tmp_path / "b.prototxt"
    main.write_text("include 'b.prototxt'")
    other.write_text("name: 'x'\ninclude 'a.prototxt'")
    with pytest.raises(ConfigError) as caught:
        read_net(main)
    assert str(caught.value) == (
        f"{other}:2:1: {main} includes itself: it would never end\n    included at {main}:1:1"
    )  # fmt: skip
    for data, what in (
        (b"a\0", "this is a binary file"),
        (b"name: '\xff'", "the byte 0xff"),
        (b"", "the file is empty"),
    ):
        other.write_bytes(data)
        with pytest.raises(ConfigError, match=what) as caught:
            read_net(main)
        assert str(caught.value).startswith(f"{main}:1:1: {other}")


def test_depth_has_an_end() -> None:
    chain = "".join(f"def d{i}() {{ d{i + 1} {{ }} }}\n" for i in range(60)) + "def d60() { }\nd0 { }"
    assert "the config is expanded more than 40 levels deep here" in problems(chain)[0]
    assert "40 levels" in problems("if true { " * 60 + "}" * 60)[0]
    found = problems("let a0: 'xxxxxxxxxx' " + "".join(f"let a{i + 1}: '$a{i}$a{i}' " for i in range(60)))
    assert found == ["f:1:184: the text here is longer than 10000"]


def test_it_is_quick() -> None:
    started = time.process_time()
    net = text.parse("repeat i in 1..3000 { layer { name: 'l$i' top: 't$(i % 7)' } }", schema.NetParameter)[0]
    assert len(net.layer) == 3000
    assert time.process_time() - started < 3


@pytest.mark.parametrize("seed", range(80))
def test_mutated_texts_never_end_in_a_traceback(seed: int) -> None:
    rng = random.Random(seed)
    content = (
        "let n: 2 let w: [4, 8]\n"
        "def conv(name, bottom, k: 1, pad: $((k - 1) / 2)) { layer { name: $name type: 'Convolution' bottom: $bottom\n"
        "top: '$(name)' convolution_param { num_output: $(w[0] * 2) kernel_size: $k if pad > 0 { pad: $pad } } } }\n"
        "layer { name: 'in' type: 'Input' top: 'x0' input_param { shape { dim: [1, 3, 8, 8] } } }\n"
        "repeat i in 1..n { let b: 'x$(i - 1)' conv { name: 'x$i' bottom: $b k: 3 } }\n"
        "if n == 2 { layer { name: 'r' type: 'ReLU' bottom: 'x$n' top: 'r' } } else { name: 'x' }\n"
    )
    pieces = ["{", "}", "(", ")", "[", "]", "$", ":", "..", "'", "let", "def", "repeat", "in", "if", "n", "1", "^", ","]
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        content = content[:at] + rng.choice(pieces) + content[at + rng.randrange(4) :]
    with suppress(NetrunError):
        build(*parse_net(content, "f"), State(schema.TEST))
