"""Protobuf's text format, read and written: prototxt <-> message, keeping the line and column of every field.

It accepts what protobuf's own parser for Python accepts and makes the same message of it (tests hold it to that), and
it reports every error of a text in one pass. It differs, as protobuf's parser for C++ does, in four things: escapes
that do not exist are refused (``"C:\\data"``), ``\\?`` and ``\\X41`` are read, underscores inside numbers are refused,
and so is a message that lacks a required field. Blocks may be nested 100 deep. Files may begin with a byte order mark.

A text that says ``let``, ``def``, ``repeat``, ``if`` or ``include "file"`` is expanded first (``expand.py``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import Message

from ..errors import ConfigError, Problem, Where
from . import schema
from .cursor import MOST, Trouble
from .expand import Expander
from .fields import blocks_of, fields_of
from .lexer import shown, tokenize
from .load import decode, load
from .reader import Reader
from .scope import is_extended
from .source import Mark, Source
from .write import write

__all__ = ["decode", "parse", "read", "write"]

M = TypeVar("M", bound=Message)

_OTHER_KIND = "this is a {}, a {} is wanted"

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
    text = load(file)
    return _parse(text, kind, Source(file, os.path.dirname(file), text, Mark(-1)), lenient)


def _parse(text: str, kind: type[M], source: Source, lenient: bool) -> tuple[M, Source]:
    message = kind()
    tokens = tokenize(text)
    expander = None
    if is_extended(tokens):
        expander = Expander(tokens, source, blocks_of(message.DESCRIPTOR))
        source.extended = True
        expander.expand()
        if expander.problems:
            raise ConfigError.of(_problems(expander.problems, source))
        tokens = expander.tokens
    reader = Reader(tokens, message, source, lenient, expander)
    reader.read()
    if reader.problems:
        raise ConfigError.of(_wrong_kind(reader, kind, source) or _problems(reader.problems, source))
    return message, source


def _problems(troubles: Sequence[Trouble], source: Source) -> list[Problem]:
    """A problem for each; for a mistake inside a body that was used several times only the first of them."""
    found: dict[tuple[Where, str], list[Problem]] = {}
    for trouble in troubles:
        what = f"layer {shown(trouble.layer)}: {trouble.what}" if trouble.layer else trouble.what
        where = source.at(trouble.at)
        found.setdefault((replace(where, trail=()), trouble.what), []).append(Problem(what, where))
    problems = [
        first if not others or not (first.where and first.where.trail)
        else replace(first, notes=(f"the same in {len(others)} more place{'s' if len(others) > 1 else ''}, first:",))
        for first, *others in found.values()
    ]  # fmt: skip
    if len(troubles) >= MOST:
        problems.append(Problem(f"reading stopped here, after {MOST} problems", problems[-1].where))
    return problems


def _wrong_kind(reader: Reader, kind: type[Message], source: Source) -> list[Problem]:
    """One problem in place of all, if a solver was given where a net is wanted, or the other way round."""
    if kind.DESCRIPTOR.name not in _KINDS:
        return []
    wanted, other, got = _KINDS[kind.DESCRIPTOR.name]
    unknown = {trouble.unknown for trouble in reader.problems if trouble.unknown}
    known = fields_of(other.DESCRIPTOR).by_name
    if not unknown or not unknown <= known.keys() or not source.root.fields.keys() <= known.keys():
        return []
    return [Problem(_OTHER_KIND.format(got, wanted), Where(source.file))]


def is_other_kind(error: ConfigError) -> bool:
    """Whether a file was refused because it is a solver where a net is wanted, or the other way round."""
    found = {_OTHER_KIND.format(got, wanted) for wanted, _, got in _KINDS.values()}
    return error.problems[0].what in found
