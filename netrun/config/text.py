"""Protobuf's text format, read and written: prototxt <-> message, keeping the line and column of every field.

It accepts what protobuf's own parser for Python accepts and makes the same message of it (tests hold it to that), and
it reports every error of a text in one pass. It differs, as protobuf's parser for C++ does, in four things: escapes
that do not exist are refused (``"C:\\data"``), ``\\?`` and ``\\X41`` are read, underscores inside numbers are refused,
and so is a message that lacks a required field. Blocks may be nested 100 deep. Files may begin with a byte order mark.
"""

from __future__ import annotations

import os
from typing import TypeVar

from google.protobuf.message import Message

from netrun.config import schema
from netrun.config.cursor import MOST
from netrun.config.fields import fields_of
from netrun.config.lexer import END, shown, tokenize
from netrun.config.reader import Reader
from netrun.config.source import Mark, Source
from netrun.config.write import write
from netrun.errors import ConfigError, Problem, UsageError, Where

__all__ = ["decode", "parse", "read", "write"]

M = TypeVar("M", bound=Message)

_KINDS: dict[str, tuple[str, type[Message], str]] = {
    "NetParameter": ("net", schema.SolverParameter, "solver"),
    "SolverParameter": ("solver", schema.NetParameter, "net"),
}


def parse(text: str, kind: type[M], file: str = "<string>", lenient: bool = False) -> tuple[M, Source]:
    """The message a text stands for, and where its fields stand.

    Args:
        text: protobuf text format.
        kind: the message class, such as ``schema.NetParameter``.
        file: the name in messages.
        lenient: step over fields of other people's Caffe that the net stands without (``source.notices`` names them).

    Raises:
        ConfigError: the text is wrong; the error carries every problem found in it.
    """
    return _parse(text, kind, Source(file, "", text, Mark(-1)), lenient)


def read(path: str | os.PathLike[str], kind: type[M], lenient: bool = False) -> tuple[M, Source]:
    """The message in a file, and where its fields stand; ``lenient`` as in ``parse``.

    Raises:
        UsageError: there is no such file, it is a folder, or it may not be read.
        ConfigError: it is empty, no UTF-8 text, or the text is wrong.
    """
    file = os.fspath(path)
    try:
        with open(file, "rb") as stream:
            data = stream.read()
    except FileNotFoundError:
        raise UsageError(f"there is no file {file}") from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a folder, a file is wanted") from None
    except (OSError, ValueError) as problem:
        raise UsageError(f"{file} cannot be read: {getattr(problem, 'strerror', None) or problem}") from None
    text = decode(data, file)
    return _parse(text, kind, Source(file, os.path.dirname(file), text, Mark(-1)), lenient)


def decode(data: bytes, file: str) -> str:
    """The text in the bytes of a configuration file (without a byte order mark).

    Raises:
        ConfigError: there is nothing in it, or it is not UTF-8.
    """
    if b"\0" in data:
        raise ConfigError("this is a binary file, a text file (prototxt) is wanted", Where(file))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        before = data[: problem.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        raise ConfigError(
            f"the byte 0x{data[problem.start]:02x} here is not UTF-8: save the file as UTF-8 text",
            Where(file, line, column),
        ) from None
    if tokenize(text).kinds[0] == END:
        raise ConfigError("the file is empty" if not text.strip() else "the file holds only comments", Where(file))
    return text


def _parse(text: str, kind: type[M], source: Source, lenient: bool) -> tuple[M, Source]:
    message = kind()
    reader = Reader(text, message, source, lenient)
    reader.read()
    if reader.problems:
        raise ConfigError.of(_wrong_kind(reader, kind, source) or _problems(reader, source))
    return message, source


def _problems(reader: Reader, source: Source) -> list[Problem]:
    found = [
        Problem(
            f"layer {shown(trouble.layer)}: {trouble.what}" if trouble.layer else trouble.what, source.at(trouble.at)
        )
        for trouble in reader.problems
    ]
    if len(found) >= MOST:
        found.append(Problem(f"reading stopped here, after {MOST} problems", found[-1].where))
    return found


def _wrong_kind(reader: Reader, kind: type[Message], source: Source) -> list[Problem]:
    """One problem in place of all, if a solver was given where a net is wanted, or the other way round."""
    if kind.DESCRIPTOR.name not in _KINDS:
        return []
    wanted, other, got = _KINDS[kind.DESCRIPTOR.name]
    unknown = {trouble.unknown for trouble in reader.problems if trouble.unknown}
    known = fields_of(other.DESCRIPTOR).by_name
    if not unknown or not unknown <= known.keys() or not source.root.fields.keys() <= known.keys():
        return []
    return [Problem(f"this is a {got}, a {wanted} is wanted", Where(source.file))]
