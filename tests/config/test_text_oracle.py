"""The reader against protobuf's own: random messages in random spelling, texts broken in random places, and noise."""

from __future__ import annotations

import contextlib
import random
import re
import string
import warnings
from pathlib import Path
from typing import Any

import pytest
from google import protobuf
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from netrun.config import schema, text
from netrun.config.fields import is_repeated, is_required
from netrun.errors import ConfigError, Problem

GOLDEN = Path(__file__).parents[1] / "golden"

# Where this reader is stricter than protobuf's Python parser on purpose (its C++ parser refuses these as well, except
# for the depth).
STRICTER = re.compile(
    r"which has no default"  # a missing required field, which Python leaves to serialization
    r"|there is no escape"  # Python keeps the backslash: "C:\data" would be read, and "C:\temp" would hold a tab
    r"|got \S*_"  # underscores between digits
    r"|got [^\x00-\x7f]"  # digits of other scripts
    r"|nested deeper than 100"
)


def fill(message: Message, rng: random.Random, depth: int = 0) -> Message:
    """Give a message random values in some of its fields, and in all that are required."""
    field: Any
    for field in message.DESCRIPTOR.fields:
        chance = 0.4 if len(message.DESCRIPTOR.fields) < 12 else 0.15
        if not is_required(field) and (rng.random() > chance or (field.message_type and depth > 3)):
            continue
        here: Any = getattr(message, field.name)
        for _ in range(rng.randint(1, 3) if is_repeated(field) else 1):
            if field.message_type is not None:
                target = here.add() if is_repeated(field) else here
                target.SetInParent()
                fill(target, rng, depth + 1)
            elif is_repeated(field):
                here.append(value_of(field, rng))
            else:
                setattr(message, field.name, value_of(field, rng))
    return message


def value_of(field: FieldDescriptor, rng: random.Random) -> Any:
    if field.enum_type is not None:
        return rng.choice([value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_STRING:
        return "".join(rng.choice(string.printable + "äß€😀") for _ in range(rng.randint(0, 8)))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.randint(0, 8))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice([0.0, -0.0, 1.0, 0.1, 1e-30, -2.5e20, float("inf"), rng.gauss(0, 1), rng.gauss(0, 1e-6)])
    low = -(2**31) if field.type == FieldDescriptor.TYPE_INT32 else 0
    return rng.choice([low, 0, 1, 5, 2**31 - 1, rng.randint(low, 2**31 - 1)])


@pytest.mark.parametrize("kind", [schema.NetParameter, schema.SolverParameter, schema.SolverState, schema.Datum])
def test_random_messages_in_every_spelling(kind: type[Message]) -> None:
    rng = random.Random(f"messages {kind.DESCRIPTOR.name}")
    for _ in range(60):
        message = fill(kind(), rng)
        own = text.write(message)
        assert text_format.Parse(own, kind()) == message
        assert text.parse(own, kind)[0] == message
        spelling = text_format.MessageToString(
            message,
            as_utf8=rng.random() < 0.5,
            as_one_line=rng.random() < 0.5,
            pointy_brackets=rng.random() < 0.5,
            use_short_repeated_primitives=rng.random() < 0.5,
            use_index_order=rng.random() < 0.5,
            force_colon=rng.random() < 0.5,
        )
        assert text.parse(spelling, kind)[0] == message


def outcome(content: str, kind: type[Message]) -> tuple[Message | None, tuple[Problem, ...]]:
    """The message, or the problems; anything else that is raised fails the test."""
    try:
        return text.parse(content, kind)[0], ()
    except ConfigError as error:
        return None, error.problems


def compare(content: str, kind: type[Message]) -> bool | None:
    """Read a text with both; True or False if both accept or refuse, None if only this reader refuses, as listed."""
    wanted: Message | None = None
    with contextlib.suppress(text_format.ParseError), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, for escapes that do not exist
        wanted = text_format.Parse(content, kind())
    got, refusals = outcome(content, kind)
    assert all(problem.where and "\n" not in problem.what for problem in refusals)
    if wanted is None:
        assert refusals, f"only this reader accepts {content!r}"
        return False
    if refusals:
        assert all(STRICTER.search(problem.what) for problem in refusals), (content, [str(p) for p in refusals])
        return None
    assert got is not None
    assert text_format.MessageToString(got) == text_format.MessageToString(wanted), content  # nan is equal as text
    return True


BASES = [
    (GOLDEN / "e2e" / "net.prototxt", schema.NetParameter),
    (GOLDEN / "upgrade" / "v0_simple.old.prototxt", schema.NetParameter),
    (GOLDEN / "upgrade" / "v1_share_mode.old.prototxt", schema.NetParameter),
    (GOLDEN / "e2e" / "solver.prototxt", schema.SolverParameter),
]
PIECES = re.compile(r"\s+|[A-Za-z_]\w*|[-+.\w]+|\"[^\"\n]*\"|.", re.DOTALL)
SPICE = [
    *"{}<>[]:;,#\"'\\-+._ \n\t\0é",
    *("inf", "nan", "-inf", "1f", "0x1F", "017", "08", "1e400", "1.5", "-1", "99999999999", "true", "t", "MAX", "TEST"),
    *('"x"', "'y'", '"\\', '"\\x4"', "layer {", "layers", "name:", "clip_param {}", "[1,2]", "{}", "<>", "1__2", "+5"),
]


def mutated(content: str, rng: random.Random) -> str:
    """A text with one to three pieces deleted, doubled, swapped, or replaced by something that may or may not fit."""
    pieces = PIECES.findall(content)
    for _ in range(rng.randint(1, 3)):
        i, j = rng.randrange(len(pieces)), rng.randrange(len(pieces))
        action = rng.randrange(5)
        if action == 0:
            del pieces[i]
        elif action == 1:
            pieces.insert(i, pieces[j])
        elif action == 2:
            pieces[i], pieces[j] = pieces[j], pieces[i]
        elif action == 3:
            pieces[i] = rng.choice(SPICE)
        else:
            pieces.insert(i, rng.choice(SPICE))
        if not pieces:
            return ""
    return "".join(pieces)


@pytest.mark.parametrize(("path", "kind"), BASES, ids=lambda value: getattr(value, "name", None))
def test_broken_files_are_refused_when_protobuf_refuses_them(path: Path, kind: type[Message]) -> None:
    rng = random.Random(f"broken {path.name}")
    content = path.read_text()
    answers = [compare(mutated(content, rng), kind) for _ in range(600)]
    assert answers.count(True) > 50
    assert answers.count(False) > 200


def test_broken_random_messages() -> None:
    rng = random.Random("broken messages")
    for _ in range(150):
        content = text_format.MessageToString(fill(schema.NetParameter(), rng), as_one_line=rng.random() < 0.5)
        if content:
            compare(mutated(content, rng), schema.NetParameter)


@pytest.mark.skipif(int(protobuf.__version__.split(".")[0]) < 6, reason="before 6, protobuf read octal floats")
def test_single_values_of_every_spelling() -> None:
    rng = random.Random("values")
    fields = [
        "name: ",
        "force_backward: ",
        "input_dim: ",
        "state { phase: ",
        "layer { loss_weight: ",
        "layer { blobs { dim: ",
    ]
    alphabet = "0123456789abcdefxXinfnaetruTEST.-+\"'\\ _"
    for _ in range(4000):
        value = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 6)))
        field = rng.choice(fields)
        compare(field + value + "}" * field.count("{"), schema.NetParameter)


def test_noise_ends_in_problems_or_in_a_message(tmp_path: Path) -> None:
    rng = random.Random("noise")
    content = (GOLDEN / "e2e" / "net.prototxt").read_bytes()
    path = tmp_path / "net.prototxt"
    for _ in range(300):
        data = bytearray(content)
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(len(data))] = (
                rng.randrange(256) if rng.random() < 0.3 else rng.choice(b"{}[]<>:\"'#\\,a1")
            )
        path.write_bytes(data[: rng.randint(1, len(data))])
        with contextlib.suppress(ConfigError):
            text.read(path, schema.NetParameter)
    for _ in range(300):
        noise = "".join(rng.choice(SPICE) for _ in range(rng.randint(1, 200)))
        message, refusals = outcome(noise, schema.NetParameter)
        assert (message is None) == bool(refusals)
