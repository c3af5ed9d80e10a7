"""The text of a configuration file."""

from __future__ import annotations

from ..errors import ConfigError, Where
from .files import reading
from .lexer import END, tokenize


def load(file: str) -> str:
    """The text in a file; as ``decode``.

    Raises:
        UsageError: there is no such file, it is a folder, or it may not be read.
        ConfigError: it is empty, or no UTF-8 text.
    """
    with reading(file) as stream:
        data = stream.read()
    return decode(data, file)


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
