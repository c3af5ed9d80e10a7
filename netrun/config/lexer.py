"""Cuts a text in protobuf's text format into tokens, and reads the escapes inside its quotes."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import printable

END, NAME, NUMBER, STRING, SYMBOL = range(5)
"""The kinds of tokens. A number may still be a wrong one (``1.2.3``), a string may lack its closing quote."""

# Blanks and comments match without a group. No alternative can be left half-way, so nothing is tried twice.
_TOKEN = re.compile(
    r"""(?: ([A-Za-z_][0-9A-Za-z_+-]*)
          | ((?:[0-9+-]|\.[0-9])[0-9A-Za-z_.+-]*)
          | ("(?:[^"\\\n]+|\\.)*(?:"|\\?)|'(?:[^'\\\n]+|\\.)*(?:'|\\?))
          | \#[^\n]*
          | (\S)
        )\s* | \s+""",
    re.VERBOSE,
)


class Tokens(NamedTuple):
    """The tokens of a text as three lists of the same length; the last token is END with an empty text."""

    kinds: list[int]
    texts: list[str]
    starts: list[int]


def tokenize(text: str) -> Tokens:
    """Every token of a text with its kind and its offset. Never fails: what is no token is a one-character SYMBOL."""
    kinds: list[int] = []
    texts: list[str] = []
    starts: list[int] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastindex
        if kind:
            kinds.append(kind)
            texts.append(match[kind])
            starts.append(match.start())
    kinds.append(END)
    texts.append("")
    starts.append(len(text))
    return Tokens(kinds, texts, starts)


def shown(text: str, most: int = 60) -> str:
    """A piece of a file as a message may show it: on one line, not too long, nothing that a terminal would obey."""
    text = text if len(text) <= most else text[: most - 3] + "..."
    return printable(text)


_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([abfnrtv\\'\"?])|(.?))", re.DOTALL
)
_SIMPLE = dict(zip("abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))


def closed(token: str) -> bool:
    """Whether a STRING token ends with its own, unescaped quote."""
    if len(token) < 2 or token[-1] != token[0]:
        return False
    body = token[1:-1]
    return (len(body) - len(body.rstrip("\\"))) % 2 == 0


def unescape(token: str) -> bytes:
    """The bytes a closed STRING token stands for.

    Raises:
        ValueError: an escape that does not exist or does not fit into a byte or a character; the text says which.
    """
    body = token[1:-1]
    if "\\" not in body:
        return body.encode()
    parts: list[bytes] = []
    end = 0
    for match in _ESCAPE.finditer(body):
        parts.append(body[end : match.start()].encode())
        end = match.end()
        octal, two, four, eight, simple, other = match.groups()
        if simple:
            parts.append(bytes([_SIMPLE[simple]]))
        elif octal or two:
            code = int(octal, 8) if octal else int(two, 16)
            if code > 255:
                raise ValueError(f"the escape {match[0]} is larger than a byte (\\377)")
            parts.append(bytes([code]))
        elif four or eight:
            code = int(four or eight, 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise ValueError(f"the escape {match[0]} is no character of Unicode")
            parts.append(chr(code).encode())
        elif other in ("u", "U", "x", "X"):
            digits = {"u": "4", "U": "8"}.get(other, "1 or 2")
            raise ValueError(f"the escape \\{other} wants {digits} hexadecimal digits behind it")
        else:
            raise ValueError(f"there is no escape \\{shown(other)}; a backslash itself is written \\\\")
    parts.append(body[end:].encode())
    return b"".join(parts)
