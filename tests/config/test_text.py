"""The reader and the writer of prototxt: values, positions, and what is written."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google import protobuf
from google.protobuf import text_format
from google.protobuf.message import Message

from netrun.config import schema, text

GOLDEN = Path(__file__).parents[1] / "golden"
recent = pytest.mark.skipif(
    int(protobuf.__version__.split(".")[0]) < 6,
    reason="before 6, protobuf read some numbers and escapes in another way",
)


def golden_texts() -> Iterator[tuple[str, str]]:
    for path in sorted(GOLDEN.rglob("*.prototxt")):
        yield str(path.relative_to(GOLDEN)), path.read_text()
    for path in sorted(GOLDEN.rglob("*.npz")):
        with np.load(path) as arrays:
            if "prototxt" in arrays:
                yield str(path.relative_to(GOLDEN)), str(arrays["prototxt"])
    for number, case in enumerate(json.loads((GOLDEN / "rules.json").read_text())):
        yield f"rules {number}", case["prototxt"]


def kind_of(name: str) -> type[Message]:
    return schema.SolverParameter if Path(name).name.startswith("solver") else schema.NetParameter


def test_every_golden_text_is_the_message_protobuf_makes_of_it_and_survives_writing() -> None:
    count = 0
    for name, content in golden_texts():
        kind = kind_of(name)
        message, _ = text.parse(content, kind, name)
        assert message == text_format.Parse(content, kind()), name
        assert text.parse(text.write(message), kind)[0] == message, name
        assert text_format.Parse(text.write(message), kind()) == message, name
        count += 1
    assert count > 300


@recent
@pytest.mark.parametrize(
    "content",
    [
        'name: "a" "b" \'c\'\n"d"',
        'name: "\\a\\b\\f\\n\\r\\t\\v\\\\\\\'\\"" input: \'"\'',
        'name: "\\101\\x41\\x4\\u00e9\\U0001F600é\\0"',
        'name: "\\xc3" "\\xa9"',
        "input_dim: 0x10 input_dim: -0x1F input_dim: 017 input_dim: -2147483648, input_dim: +7;",
        "input_dim: [1, 2 ,3] input_dim: [] input_dim: 4",
        "layer { loss_weight: [1, 1e3, 1., .5, -.5e-2, 1f, 2.5F, inf, -inf, Infinity, -infinity, 1e999, 1e-60] }",
        "layer: { phase: 1 } layer < phase: TEST > layer {} layer [{}, <>, { name: 'x' }]",
        "force_backward: t debug_info: False layer { propagate_down: [true, 1, 0, f, True] }",
        "# a comment\nname: 'x' # another\n\n#last",
        "\u00a0name:\r\n\t'x'\r\n",
        'layer { name: "x" };layer{name:"y"},',
        "name:'x'layer{top:'y'bottom:\"z\"}",
        "layer { blobs { data: 1 double_data: 0.1 shape { dim: -9223372036854775808 dim: 9223372036854775807 } } }",
    ],
)
def test_what_protobuf_accepts_is_read_the_same(content: str) -> None:
    assert text.parse(content, schema.NetParameter)[0] == text_format.Parse(content, schema.NetParameter())


def test_bytes_fields_take_any_escape() -> None:
    content = 'data: "\\377\\x00\\n" "é" label: 3'
    assert text.parse(content, schema.Datum)[0] == text_format.Parse(content, schema.Datum())
    assert text.parse(content, schema.Datum)[0].data == b"\xff\x00\n\xc3\xa9"


def test_nan_is_a_number() -> None:
    message, _ = text.parse("base_lr: nan gamma: NaN power: nanf", schema.SolverParameter)
    assert all(map(math.isnan, (message.base_lr, message.gamma, message.power)))


def test_positions_of_fields() -> None:
    content = 'name: "é" input_dim: [1,\n 2]\nlayer {\n\ttop: "a" top: "b"\n  pooling_param { stride: 2 } }'
    _, source = text.parse(content, schema.NetParameter, "f")
    assert str(source.where("name")) == "f:1:1"
    assert str(source.where("input_dim", 0)) == "f:1:23"
    assert str(source.where("input_dim", 1)) == "f:2:2"
    assert str(source.where("layer", 0)) == "f:3:1"
    assert str(source.where("layer", 0, "top", 1)) == "f:4:11"
    assert str(source.where("layer", 0, "pooling_param", "stride")) == "f:5:19"
    assert str(source.where("layer", 0, "pooling_param", "pad")) == "f:5:3", "the nearest known enclosing field"
    assert str(source.where("layer", 1)) == "f", "the file"


def test_fields_of_moved_positions_are_found_under_their_new_name() -> None:
    _, source = text.parse('layers { top: "x" }\nlayers { top: "y" }', schema.NetParameter, "f")
    source.moved(("layers", 1), ("layer", 0))
    source.moved(("layers", 0, "top", 0), ("state", "stage", 0))
    assert str(source.where("layer", 0, "top", 0)) == "f:2:10"
    assert str(source.where("state", "stage")) == "f:1:10"


def digits(number: str) -> int:
    """How many digits a number shows before its exponent, leading and trailing zeros not counted."""
    return len("".join(filter(str.isdigit, number.split("e+")[0].split("e-")[0])).strip("0"))


def test_floats_are_written_with_the_fewest_digits() -> None:
    random = np.random.default_rng(5)
    values = random.integers(0, 2**32, 3000, dtype=np.uint32).view(np.float32)
    extremes = np.array([0, -0.0, 0.1, 1, 1e-5, 16777216, 3.4028235e38, 1e-45, 1.17549435e-38], np.float32)
    for value in np.concatenate([values[np.isfinite(values)], extremes]):
        written = text.write(schema.SolverParameter(base_lr=float(value)))
        back, _ = text.parse(written, schema.SolverParameter)
        assert np.float32(back.base_lr).tobytes() == value.tobytes(), written
        if abs(value) > 1e-37:
            shortest = np.format_float_scientific(value, unique=True).split("e")[0]
            assert digits(written) <= digits(shortest), written
    message = schema.SolverParameter(base_lr=1, gamma=0.0001, power=math.inf, momentum=-math.inf, weight_decay=math.nan)
    assert text.write(message).split() == (
        ["base_lr:", "1", "gamma:", "0.0001", "power:", "inf", "momentum:", "-inf", "weight_decay:", "nan"]
    )


@recent
def test_the_writer_has_the_order_and_style_of_protobuf() -> None:
    content = 'layer { include { phase: TEST } name: "a\\n\'\\"é\\001" top: "t" convolution_param { pad: 1 pad: 2 } }'
    message, _ = text.parse(content, schema.NetParameter)
    assert text.write(message) == text_format.MessageToString(message)
    datum = schema.Datum(data=bytes(range(256)), label=-1, encoded=False)
    assert text.write(datum) == text_format.MessageToString(datum)


def test_reading_is_fast() -> None:
    layer = (
        'layer {\n  name: "c%d"\n  type: "Convolution"\n  bottom: "a"\n  top: "b"\n  convolution_param {\n    pad: 1\n'
    )
    layer += '    weight_filler {\n      type: "xavier"\n      std: 0.01\n    }\n  }\n}\n'
    content = "".join(layer % i for i in range(385))
    assert content.count("\n") > 5000
    spent = []
    for _ in range(3):  # of the processor: what else the machine does is no matter
        begin = time.process_time()
        text.parse(content, schema.NetParameter)
        spent.append(time.process_time() - begin)
    assert min(spent) < 0.3
