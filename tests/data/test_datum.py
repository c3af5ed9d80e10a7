"""The parser of records against the protobuf library, and against damage."""

from __future__ import annotations

import random

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from netrun.config import schema
from netrun.data.datum import Plain, RecordError, pack, parse


def some_datum(draw: random.Random) -> schema.Datum:
    datum = schema.Datum()
    for field in ("channels", "height", "width", "label"):
        if draw.random() < 0.8:
            setattr(datum, field, draw.choice([0, 1, 3, 127, 128, 300, -1, 2**31 - 1, -(2**31)]))
    if draw.random() < 0.7:
        datum.data = draw.randbytes(draw.choice([0, 1, 5, 130, 1000]))
    if draw.random() < 0.5:
        datum.float_data.extend(draw.choices([0.0, -1.5, 1e30, 7.25], k=draw.choice([1, 3, 200])))
    if draw.random() < 0.5:
        datum.encoded = draw.random() < 0.5
    return datum


def assert_same(value: bytes, datum: schema.Datum) -> None:
    record = parse(value)
    assert (record.channels, record.height, record.width) == (datum.channels, datum.height, datum.width)
    assert record.data == datum.data
    assert record.label == datum.label
    assert record.encoded == datum.encoded
    floats = np.empty(0, np.float32) if record.floats is None else record.floats
    np.testing.assert_array_equal(floats, np.array(datum.float_data, np.float32))


def test_reads_what_protobuf_writes() -> None:
    draw = random.Random(1)
    for _ in range(300):
        datum = some_datum(draw)
        if value := datum.SerializeToString():
            assert_same(value, datum)


def test_reads_concatenated_records_as_protobuf_does() -> None:
    # Later fields replace earlier ones, float_data appends, in any order of fields.
    draw = random.Random(2)
    for _ in range(200):
        value = b"".join(some_datum(draw).SerializeToString() for _ in range(3))
        if value:
            assert_same(value, schema.Datum.FromString(value))


def test_reads_packed_floats_and_skips_unknown_fields() -> None:
    floats = np.array([1.5, -2.0, 3.25], "<f4").tobytes()
    unknown = b"\x78\x96\x01" + b"\x7a\x03abc" + b"\x7d1234" + b"\x7912345678"
    value = unknown + b"\x32" + bytes([len(floats)]) + floats + unknown + b"\x28\x05"
    assert parse(value).floats is not None
    assert_same(value, schema.Datum.FromString(value))


def test_damaged_bytes_raise_only_record_errors_and_never_disagree_with_protobuf() -> None:
    draw = random.Random(3)
    accepted = 0
    for _ in range(3000):
        value = bytearray(some_datum(draw).SerializeToString())
        for _ in range(draw.choice([1, 2, 8])):
            if value:
                value[draw.randrange(len(value))] = draw.randrange(256)
        if draw.random() < 0.3:
            del value[draw.randrange(len(value) + 1) :]
        try:
            record = parse(bytes(value))
        except RecordError:
            continue
        accepted += 1
        try:
            datum = schema.Datum.FromString(bytes(value))
        except DecodeError:
            continue  # protobuf refuses some numbers of fields that we pass over
        assert record.data == datum.data
        assert record.label == datum.label
    assert accepted > 100


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (b"\x22\x05ab", "cut off"),
        (b"\x28", "cut off"),
        (b"\x35\x00\x00", "cut off"),
        (b"\x32\x03abc", "not a multiple of 4"),
        (b"\x00\x01", "field number 0"),
        (b"\x2b", "wire type 3"),
        (b"\x28" + b"\xff" * 12, "starts no number"),
    ],
)
def test_says_what_is_wrong_with_the_bytes(value: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        parse(value)


@pytest.mark.parametrize(
    ("datum", "reason"),
    [
        (schema.Datum(channels=3, height=-2, width=4, data=b"x"), "3x-2x4.*positive"),
        (schema.Datum(channels=1, height=2, width=2, data=b"abc"), "3 bytes of pixels, but 1x2x2 needs 4"),
        (schema.Datum(channels=1, height=2, width=2, float_data=[1.0]), "1 values, but 1x2x2 needs 4"),
        (schema.Datum(channels=1, height=2, width=2), "0 values, but 1x2x2 needs 4"),
        (schema.Datum(channels=2**31 - 1, height=2**31 - 1, width=2**31 - 1, data=b"abc"), "needs"),
    ],
)
def test_says_what_is_wrong_with_the_sizes(datum: schema.Datum, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        parse(datum.SerializeToString()).values()


def test_packs_as_protobuf_does() -> None:
    for label in (0, 1, 127, 128, 70000, -1):
        datum = schema.Datum(channels=3, height=10, width=130, data=bytes(3900), label=label)
        assert pack((3, 10, 130), bytes(3900), label) == datum.SerializeToString()


def test_the_short_cut_for_plain_records_agrees_with_parsing() -> None:
    draw = random.Random(4)
    pixels = bytes(range(200))
    first = pack((2, 10, 10), pixels, 3)
    plain = Plain.of(first, parse(first))
    assert plain is not None
    tails = [b"", b"\x28\x05", b"\x28\x05\x38\x00", b"\x38\x00", b"\x28\x80\x01", b"\x28" + b"\xff" * 9 + b"\x01"]
    odd = [b"\x38\x01", b"\x28\x05\x08\x09", b"\x28", b"\x28\x80", b"\x22\x01a", b"\x28\x05\x28\x06"]
    frame = first[: -len(b"\x28\x03") - 200]
    for tail in tails:
        value = frame + draw.randbytes(200) + tail
        got = plain.split(value)
        assert got is not None
        record = parse(value)
        assert (bytes(got[0]), got[1]) == (record.data, record.label)
    for tail in odd:
        assert plain.split(frame + pixels + tail) is None
    assert plain.split(frame + pixels[:-1]) is None
    assert plain.split(b"\x08\x01" + first[2:]) is None


@pytest.mark.parametrize(
    "value",
    [
        b"\x28\x07" + pack((1, 2, 2), b"abcd", 0)[:-2],  # the label stands first
        schema.Datum(channels=1, height=2, width=2, data=b"abcd", encoded=True).SerializeToString(),
        schema.Datum(channels=1, height=2, width=2, float_data=[0.0] * 4).SerializeToString(),
    ],
)
def test_records_in_another_form_take_no_short_cut(value: bytes) -> None:
    assert Plain.of(value, parse(value)) is None
