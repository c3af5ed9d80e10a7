"""The schema against Caffe's: tests/golden/schema.tsv lists every field and enum value that Caffe has."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto

from netrun.config import explain, schema
from netrun.config.schema._load import read_descriptors

GOLDEN = Path(__file__).parents[1] / "golden"
WEIGHTS = [*sorted(GOLDEN.glob("**/*.caffemodel")), *sorted(GOLDEN.glob("**/*.binaryproto"))]
STATES = sorted(GOLDEN.glob("**/*.solverstate"))

Row = tuple[str, str, str, str, str, str]


def caffe() -> dict[tuple[str, str, str], Row]:
    """(kind, message or enum, name) -> (number, label, type, default, packed, deprecated), all as text."""
    with (GOLDEN / "schema.tsv").open(newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if not row[0].startswith("#")]
    return {(kind, owner, name): tuple(rest) for kind, owner, name, *rest in rows}


def ours() -> dict[tuple[str, str, str], Row]:
    """The same of the descriptors that the message classes are made from."""
    found: dict[tuple[str, str, str], Row] = {}
    for file in read_descriptors("schema.desc").file:
        assert file.package == "netrun"
        for message in file.message_type:
            assert [*message.nested_type, *message.oneof_decl, *message.extension, *message.extension_range] == []
            found.update(fields(message))
            for enum in message.enum_type:
                found.update(values(f"{message.name}.{enum.name}", enum))
        for enum in file.enum_type:
            found.update(values(enum.name, enum))
    return found


def fields(message: DescriptorProto) -> Iterator[tuple[tuple[str, str, str], Row]]:
    for field in message.field:
        label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
        kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        row = (
            str(field.number),
            label,
            field.type_name.removeprefix(".netrun.") or kind,
            field.default_value,
            "packed" if field.options.packed else "",
            "deprecated" if field.options.deprecated else "",
        )
        yield ("field", message.name, field.name), row


def values(owner: str, enum: EnumDescriptorProto) -> Iterator[tuple[tuple[str, str, str], Row]]:
    for value in enum.value:
        yield ("value", owner, value.name), (str(value.number), "", "", "", "", "")


def test_everything_of_caffe_is_there_and_means_the_same() -> None:
    theirs, mine = caffe(), ours()
    assert len(theirs) == 534
    assert {key: mine.get(key) for key in theirs} == theirs


def test_what_caffe_lacks_has_a_number_that_caffe_never_uses() -> None:
    theirs = caffe()
    messages = {owner for kind, owner, _ in theirs if kind == "field"}
    enums = {owner for kind, owner, _ in theirs if kind == "value"}
    own = {key: int(row[0]) for key, row in ours().items() if key not in theirs}
    assert [key for key in own if key[0] == "value" and key[1] in enums] == []
    assert [key for key, number in own.items() if key[1] in messages and number < explain.OWN_FIELDS] == []
    assert ("field", "LayerParameter", "option") in own


def test_every_declaration_has_a_comment() -> None:
    index = explain.index()
    bare = [m.name for m in index.messages.values() if not m.comment]
    bare += [e.name for e in index.enums.values() if not e.comment]
    bare += [f"{f.owner}.{f.name}" for m in index.messages.values() for f in m.fields if not f.comment]
    bare += [f"{v.owner}.{v.name}" for e in index.enums.values() for v in e.values if not v.comment]
    assert bare == []
    assert {(f.owner, f.name) for m in index.messages.values() for f in m.fields} == {
        (owner, name) for kind, owner, name in ours() if kind == "field"
    }


def test_no_comment_hangs_on_the_wrong_declaration() -> None:
    """protoc takes a comment right behind a declaration, with an empty line after it, for that declaration's own."""
    files = read_descriptors("comments.desc").file
    assert [x.trailing_comments for f in files for x in f.source_code_info.location if x.trailing_comments] == []


def test_both_compiled_files_hold_the_same_schema() -> None:
    with_comments = read_descriptors("comments.desc")
    for file in with_comments.file:
        file.ClearField("source_code_info")
    assert with_comments == read_descriptors("schema.desc")


def test_classes_enums_and_values_have_their_names() -> None:
    net = schema.NetParameter(name="n")
    layer = net.layer.add(name="c", phase=schema.TEST)
    layer.pooling_param.pool = schema.PoolingParameter.AVE
    layer.option.add(key="k", value="v")
    assert schema.Phase.Name(layer.phase) == "TEST"
    assert schema.PoolingParameter.PoolMethod.Value("AVE") == layer.pooling_param.pool
    assert schema.NetParameter.FromString(net.SerializeToString()) == net
    assert schema.SolverParameter().device == "auto"
    assert schema.SolverParameter().momentum2 == pytest.approx(0.999)


@pytest.mark.parametrize("path", [*WEIGHTS, *STATES], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_files_written_by_caffe_read_and_write_byte_for_byte(path: Path) -> None:
    """Nothing in them is unknown to the schema, and nothing is written another way."""
    if path in STATES:
        kind = schema.SolverState
    else:
        kind = schema.BlobProto if path.suffix == ".binaryproto" else schema.NetParameter
    data = path.read_bytes()
    message = kind.FromString(data)
    message.DiscardUnknownFields()
    assert message.SerializeToString(deterministic=True) == data
