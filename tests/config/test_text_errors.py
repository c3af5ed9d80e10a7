"""What the reader of prototxt says of mistakes: the wording, the place, all of a file in one pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.message import Message

from netrun.config import schema, text
from netrun.errors import ConfigError, UsageError

GOLDEN = Path(__file__).parents[1] / "golden"


def problems(content: str, kind: type[Message] = schema.NetParameter) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        text.parse(content, kind, "f")
    return [str(problem) for problem in caught.value.problems]


def test_the_golden_broken_texts_are_refused_exactly_where_protobuf_refuses_them() -> None:
    refused = 0
    for case in json.loads((GOLDEN / "invalid.json").read_text()):
        kind = schema.SolverParameter if case["kind"] == "solver" else schema.NetParameter
        try:
            expected: Message | None = text_format.Parse(case["text"], kind())
        except text_format.ParseError:
            expected = None
        if expected is None or not expected.IsInitialized():
            assert problems(case["text"], kind), case["what"]
            refused += 1
        else:
            assert text.parse(case["text"], kind)[0] == expected, case["what"]
    assert refused >= 5


def test_the_example_of_the_design() -> None:
    content = "\n" * 49 + 'layer {\n  type: "Convolution"\n  convolution_param {\n    bias_term: false\n'
    content = content.replace("bias_term", "num_outputs: 3\n    bias_term").replace("    num", "    num")
    assert problems(content + '  }\n  name: "conv1"\n}') == [
        'f:53:5: layer conv1: convolution_param has no field "num_outputs"; did you mean "num_output"?'
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nme: 'x'", '1:1: a net has no field "nme"; did you mean "name"?'),
        ("name: x", '1:7: name wants a text in quotes, got x; write "x"'),
        ("name 'x'", "1:6: name wants a colon in front of its value: name: a text in quotes"),
        ("name: 'a' name: 'b'", "1:11: name is given twice, first in line 1"),
        ("name: 'a\n", "1:7: the quote of name is not closed on its line: 'a"),
        ("name: 'a\\", "1:7: the quote of name is not closed on its line: 'a\\"),
        ("name: 'a\\'", "1:7: the quote of name is not closed on its line: 'a\\'"),
        ("name:", "1:5: name has no value; it wants a text in quotes"),
        ("name: '\\q'", "1:7: name: there is no escape \\q; a backslash itself is written \\\\"),
        ("name: '\\400'", "1:7: name: the escape \\400 is larger than a byte (\\377)"),
        ("name: '\\u12'", "1:7: name: the escape \\u wants 4 hexadecimal digits behind it"),
        ("name: '\\x'", "1:7: name: the escape \\x wants 1 or 2 hexadecimal digits behind it"),
        ("name: '\\ud800'", "1:7: name: the escape \\ud800 is no character of Unicode"),
        ("name: '\\xff'", "1:7: name: the escapes in this text make bytes that are not UTF-8"),
        ("force_backward: yes", "1:17: force_backward wants true or false, got yes"),
        ("force_backward: 'true'", "1:17: force_backward wants true or false, got 'true'; write it without quotes"),
        ("input_dim: 1.5", "1:12: input_dim wants a whole number from -2147483648 to 2147483647, got 1.5"),
        (
            "input_dim: 2147483648",
            "1:12: input_dim wants a whole number from -2147483648 to 2147483647, got 2147483648",
        ),
        ("input_dim: 09", "1:12: input_dim wants a whole number from -2147483648 to 2147483647, got 09"),
        ("input_dim: 1_0", "1:12: input_dim wants a whole number from -2147483648 to 2147483647, got 1_0"),
        ("input_dim: - 1", "1:12: input_dim wants a whole number from -2147483648 to 2147483647, got -"),
        ("input_dim: - 1\nname: 'x'", "1:12: input_dim wants a whole number from -2147483648 to 2147483647, got -"),
        ("input_dim { }", "1:11: input_dim wants a whole number from -2147483648 to 2147483647, got a block"),
        ("input_dim: { }", "1:12: input_dim wants a whole number from -2147483648 to 2147483647, got a block"),
        ("name: ['x']", "1:7: name wants a text in quotes and takes only one, got a list"),
        ("input_dim: [1, 2", "1:17: the list of input_dim wants a comma or ] here, got the end of the file"),
        ("input_dim: [1 2]", "1:15: the list of input_dim wants a comma or ] here, got 2"),
        ("input_dim: [1, ]", "1:16: another value of input_dim is wanted between the comma and ]"),
        ("state { phase: TRIAN }", '1:16: phase wants TRAIN or TEST, got TRIAN; did you mean "TRAIN"?'),
        ("state { phase: 'TEST' }", "1:16: phase wants TRAIN or TEST, got 'TEST'; write it without quotes"),
        ("state { phase: 7 }", "1:16: phase wants TRAIN or TEST, got 7"),
        ("layers { type: RELUU }", '1:16: type wants one of 40 names, got RELUU; did you mean "RELU"?'),
        ("state: 3", "1:8: state wants a block { ... }, got 3"),
        ("state {} state {}", "1:10: state is given twice, first in line 1"),
        ("state { level: 1", "1:1: state is opened here and not closed before the file ends"),
        ("state < level: 1 }", "1:18: > is wanted here to close state of line 1, got }"),
        ("name: 'x' }", "1:11: } closes nothing: no block is open here"),
        ("layer { clip_param { min: 1 } }", "1:9: clip_param lacks max, which has no default"),
        ("layer { kernel_size: 3 }", "it belongs into convolution_param or pooling_param"),
        ("[a.b]: 3", "1:1: the name of a field is wanted here, got ["),
        ("3: 4", "1:1: the name of a field is wanted here, got 3"),
        ("; name: 'x'", "1:1: the name of a field is wanted here, got ;"),
        ("name: 'x',, force_backward: true", "1:11: the name of a field is wanted here, got ,"),
    ],
)
def test_one_mistake_gives_one_message(content: str, message: str) -> None:
    found = problems(content)
    assert len(found) == 1, found
    assert message in found[0]


def test_all_mistakes_of_a_file_in_one_pass_with_the_name_of_their_layer() -> None:
    content = """name: conv
layer {
  bottm: "a"
  bogus { deep { deeper: [1, 2] } }
  convolution_param { num_output: "abc" kernel_size: 3 pad: -1 }
  pooling_param { pool: MIN stride: 5 stride: 2 }
  name: "conv1"
}
layers { type: CONV name: "old" }
layers { layer { type: 3 name: "older" } }
layer { phase: 9 }
"""
    assert problems(content) == [
        'f:1:7: name wants a text in quotes, got conv; write "conv"',
        'f:3:3: layer conv1: a layer has no field "bottm"; did you mean "bottom"?',
        'f:4:3: layer conv1: a layer has no field "bogus"; did you mean "blobs"?',
        'f:5:35: layer conv1: num_output wants a whole number from 0 to 4294967295, got "abc"',
        "f:5:61: layer conv1: pad wants a whole number from 0 to 4294967295, got -1",
        "f:6:25: layer conv1: pool wants MAX, AVE or STOCHASTIC, got MIN",
        "f:6:39: layer conv1: stride is given twice, first in line 6",
        'f:9:16: layer old: type wants one of 40 names, got CONV; did you mean "CONCAT"?',
        'f:10:24: layer older: type wants a text in quotes, got 3; write "3"',
        "f:11:16: phase wants TRAIN or TEST, got 9",
    ]


def test_nothing_in_a_file_breaks_a_message_into_lines_or_reaches_the_terminal() -> None:
    assert problems("layer { phase: \x1b name: 'a\\n\\033[2J' }") == [
        "f:1:16: layer a\\n\\x1b[2J: phase wants TRAIN or TEST, got \\x1b"
    ]
    assert problems("input_dim: '\x07'" + "\r" * 3)[0].endswith("got '\\x07'")
    assert problems("name: " + "x" * 500)[0].endswith(f'got {"x" * 57}...; write "{"x" * 57}..."')


def test_a_forgotten_bracket_names_the_block_that_was_left_open_and_nothing_else() -> None:
    inner = 'layer {\n  name: "c"\n  convolution_param {\n    num_output: 3\n  top: "c"\n}\nlayer { name: "d" }\n'
    assert problems(inner) == [
        "f:3:3: layer c: convolution_param is opened here and not closed before top in line 5, "
        "which belongs to the layer"
    ]
    outer = 'layer {\n  name: "c"\n  convolution_param {\n    num_output: 3\n  }\nlayer { name: "d" }\nlayer { }\n'
    assert problems(outer) == [
        "f:1:1: layer c: layer is opened here and not closed before layer in line 6, which belongs to the net"
    ]


def test_a_bracket_too_many_names_where_the_block_was_closed() -> None:
    content = 'layer {\n  name: "c"\n  relu_param { } }\n  top: "c"\n  bottom: "b"\n}\nlayer { name: "d" }\n'
    assert problems(content) == ["f:3:18: } closes layer too early: top in line 4 belongs to it"]


def test_a_solver_where_a_net_is_wanted() -> None:
    assert problems('net: "n"\nbase_lr: 0.1\nmax_iter: 3') == ["f: this is a solver, a net is wanted"]
    assert problems('name: "n" layer { }', schema.SolverParameter) == ["f: this is a net, a solver is wanted"]


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (
            'type: "GroupNorm" group_norm_param { groups: 2 }',
            'a layer has no field "group_norm_param"; GroupNorm layers have normalization_param',
        ),
        (
            'type: "GroupNorm" norm_param { groups: 2 }',
            'norm_param has no field "groups"; GroupNorm layers have normalization_param',
        ),
        (
            'type: "Recurrent" recurrent_param { state { } }',
            'recurrent_param has no field "state"; Recurrent layers have recurrent_net_param',
        ),
        (
            'type: "GroupNorm" normalization_param { group: 2 }',
            'normalization_param has no field "group"; did you mean "groups"?',
        ),
        (
            'type: "InnerProduct" innerproduct_param { }',
            'a layer has no field "innerproduct_param"; did you mean "inner_product_param"?',
        ),
        ('type: "Embed" num_output: 3', 'a layer has no field "num_output"; it belongs into embed_param'),
        ('type: "Nonsense" lstm_param { }', 'a layer has no field "lstm_param"; did you mean "loss_param"?'),
    ],
)
def test_a_block_of_another_type_tells_the_one_that_the_type_has(layer: str, said: str) -> None:
    assert [p.partition(": ")[2] for p in problems(f"layer {{ {layer} }}")] == [said]


def test_deep_nesting_ends_in_a_message() -> None:
    unknown = "a {" * 5000 + "}" * 5000
    assert problems(unknown) == ['f:1:1: a net has no field "a"']
    known = "nested_type {" * 5000 + "}" * 5000
    assert problems(known, descriptor_pb2.DescriptorProto) == ["f:1:1313: blocks are nested deeper than 100 here"]
    assert problems("layer {" * 5000) != []
    assert problems("layer: [" * 5000) != []


def test_a_file_of_nonsense_stops_after_a_hundred_problems() -> None:
    found = problems("abc: 1\n" * 500)
    assert len(found) == 101
    assert found[-1] == "f:100:1: reading stopped here, after 100 problems"


def test_files_that_are_no_prototxt(tmp_path: Path) -> None:
    def message(name: str, data: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            text.read(path, schema.NetParameter)
        assert len(caught.value.problems) == 1
        return str(caught.value).removeprefix(str(path))

    assert message("empty", b"") == ": the file is empty"
    assert message("blank", b" \n\t") == ": the file is empty"
    assert message("comment", b"# hello\n") == ": the file holds only comments"
    assert message("binary", b"\x0a\x00abc") == ": this is a binary file, a text file (prototxt) is wanted"
    assert message("latin", 'name: "x"\n# caf\xe9'.encode("latin-1")) == (
        ":2:6: the byte 0xe9 here is not UTF-8: save the file as UTF-8 text"
    )
    with pytest.raises(UsageError, match="there is no file"):
        text.read(tmp_path / "missing", schema.NetParameter)
    with pytest.raises(UsageError, match="is a folder"):
        text.read(tmp_path, schema.NetParameter)
    with pytest.raises(UsageError, match="cannot be read"):
        text.read("a\0b", schema.NetParameter)
    (tmp_path / "marked").write_bytes(b'\xef\xbb\xbfname: "x"')
    net, source = text.read(tmp_path / "marked", schema.NetParameter)
    assert net.name == "x"
    assert source.folder == str(tmp_path)
