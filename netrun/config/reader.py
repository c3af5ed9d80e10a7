"""The parser behind ``text.parse``: one pass over the tokens that goes on after every error.

How it recovers: a bad value is skipped and the next field is read; an unknown field is skipped with its whole block
(brackets in balance). If the text has more opening than closing brackets, a field that the current block does not know
but an enclosing one does is taken as the place where a closing bracket was forgotten: one message that names the block
that was left open, instead of one for every line that follows.
"""

from __future__ import annotations

import contextlib
from typing import Any

from google.protobuf.message import Message

from .cursor import CLOSERS, TooMuch
from .expand import Expander
from .fields import Field, fields_of
from .forks import ENGINES
from .lexer import END, NAME, STRING, Tokens, closed, shown, unescape
from .recovery import VALUES, Block, Recovery
from .source import Mark, Source

DEEPEST = 100
"""Blocks inside blocks that are accepted."""
_ROOTS = {"NetParameter": "net", "SolverParameter": "solver"}


class Reader(Recovery):
    """Fills one message from one text. ``problems`` holds everything that was wrong."""

    def __init__(
        self,
        tokens: Tokens,
        message: Message,
        source: Source,
        lenient: bool = False,
        language: Expander | None = None,
    ) -> None:
        super().__init__(tokens, source, lenient, language)
        self.leave = DEEPEST + 1  # blocks deeper than this are being left, a bracket is missing
        name = message.DESCRIPTOR.name
        self.root = Block(message, source.root, _ROOTS.get(name, name), "", None)
        # Closing brackets that are missing in the whole text; negative if there are too many.
        self.missing = sum(map(self.texts.count, "{<")) - sum(map(self.texts.count, "}>"))
        self.last: tuple[Block, int] | None = None  # the block that was closed last, and the token that did it

    def read(self) -> None:
        """Read the whole text."""
        with contextlib.suppress(TooMuch):
            self.block(self.root)
        self.problems.sort(key=lambda p: p.at)

    # ---- blocks and fields

    def block(self, block: Block) -> None:
        """Fields up to the closing bracket (or to the end of the text)."""
        kinds, texts = self.kinds, self.texts
        while True:
            i = self.i
            if kinds[i] == NAME:
                self.field(block)
                if self.leave <= block.depth:
                    if self.leave < block.depth:
                        return
                    self.leave = DEEPEST + 1
            elif kinds[i] == END:
                if block.up:
                    self.trouble(block.mark.at, f"{block.name} is opened here and not closed before the file ends")
                    self.leave = 0
                return
            elif texts[i] in ("}", ">"):
                if block.up:
                    if texts[i] != block.closer:
                        opened = f"{block.name} of {self.line(block.mark.at)}"
                        self.report(i, f"{block.closer} is wanted here to close {opened}, got {texts[i]}")
                    self.i += 1
                    return
                self.report(i, f"{texts[i]} closes nothing: no block is open here")
                self.i += 1
            else:
                self.report(i, f"the name of a field is wanted here, got {self.shown(i)}")
                self.resume()

    def field(self, block: Block) -> None:
        """One field: its name, then a value, a block or a list, then at most one separator."""
        kinds, texts = self.kinds, self.texts
        first = self.i
        name = texts[first]
        field = block.fields.by_name.get(name) or self.mapped(block, name)
        if field is None:
            if not self.bracket(block, name):
                self.unknown(block, name)
        else:
            self.i = first + 1
            if texts[first + 1] == ":":
                self.i += 1
            elif field.message is None and kinds[first + 1] in VALUES and not self.starts_field(first + 1):
                self.report(first + 1, f"{name} wants a colon in front of its value: {name}: {field.wants}")
                block.bad.add(name)
            if texts[self.i] == "[" and field.repeated:
                self.values(block, field)
            elif field.message is None:
                self.value(block, field, first)
            else:
                self.inner(block, field, first)
        if texts[self.i] in (",", ";"):
            self.i += 1

    def values(self, block: Block, field: Field) -> None:
        """A list in square brackets, at its opening."""
        opening = self.i
        self.i += 1
        if self.texts[self.i] == "]":
            self.i += 1
            return
        while True:
            before = self.i
            if self.texts[before] == "]":
                block.bad.add(field.name)
                self.report(before, f"another value of {field.name} is wanted between the comma and ]")
                self.i += 1
                return
            if field.message is None:
                self.value(block, field, before)
            else:
                self.inner(block, field, before)
            if self.leave <= block.depth:
                return
            text = self.texts[self.i]
            if text == ",":
                self.i += 1
                continue
            if text == "]":
                self.i += 1
            elif self.i != before:
                self.report(self.i, f"the list of {field.name} wants a comma or ] here, got {self.shown(self.i)}")
                if not self.starts_field(self.i):
                    self.skip(opening, quiet=True)
            return

    def value(self, block: Block, field: Field, at: int) -> None:
        """A plain value; ``at`` is the token it will be found by."""
        i = self.i
        kind, text = self.kinds[i], self.texts[i]
        value: Any
        if field.text:
            value = self.quoted(field) if kind == STRING else None
            if kind == STRING and value is None:
                block.bad.add(field.name)
                return
        else:
            value = field.convert(kind, text)
            if value is None and field.name == "engine" and text in ENGINES:
                value = field.convert(NAME, "DEFAULT")
                self.notice(i, f"engine: {text} is of another Caffe, read as DEFAULT")
            if value is not None:
                self.i = i + 1
        if value is None:
            block.bad.add(field.name)
            self.refuse(field)
        elif field.repeated:
            getattr(block.message, field.name).append(value)
            block.mark.fields.setdefault(field.name, []).append(Mark(self.starts[at]))
        elif field.name in block.mark.fields:
            self.twice(block, field, at)
        else:
            setattr(block.message, field.name, value)
            block.mark.fields[field.name] = [Mark(self.starts[at])]

    def inner(self, block: Block, field: Field, at: int) -> None:
        """A block in braces or angle brackets; ``at`` is the token it will be found by."""
        opener = self.texts[self.i]
        if opener not in ("{", "<"):
            block.bad.add(field.name)
            self.refuse(field)
            return
        mark = Mark(self.starts[at])
        target: Message
        if field.repeated:
            target = getattr(block.message, field.name).add()
            block.mark.fields.setdefault(field.name, []).append(mark)
        else:
            target = getattr(block.message, field.name)
            if field.name in block.mark.fields:
                self.twice(block, field, at)
                target = type(target)()
            else:
                block.mark.fields[field.name] = [mark]
            target.SetInParent()
        layer = field.name in ("layer", "layers") and "name" in fields_of(target.DESCRIPTOR).by_name
        inside = Block(target, mark, field.name, CLOSERS[opener], block)
        if inside.depth > DEEPEST:
            self.report(self.i, f"blocks are nested deeper than {DEEPEST} here")
            raise TooMuch
        self.i += 1
        first = len(self.problems)
        try:
            self.block(inside)
            if self.leave > DEEPEST:
                self.last = inside, self.i - 1
                for name in inside.fields.required:
                    if name not in mark.fields and name not in inside.bad:
                        self.trouble(mark.at, f"{inside.title} lacks {name}, which has no default")
        finally:
            if layer and len(self.problems) > first:
                self.name_layer(target, self.problems[first:])

    def quoted(self, field: Field) -> str | bytes | None:
        """One text made of all the quoted pieces that follow; None (and reported) if it is wrong."""
        pieces: list[bytes] = []
        good = True
        while self.kinds[self.i] == STRING:
            token = self.texts[self.i]
            if not closed(token):
                self.report(self.i, f"the quote of {field.name} is not closed on its line: {shown(token)}")
                good = False
            else:
                try:
                    pieces.append(unescape(token))
                except ValueError as problem:
                    self.report(self.i, f"{field.name}: {problem}")
                    good = False
            self.i += 1
        whole = b"".join(pieces)
        if not good or field.binary:
            return whole if good else None
        try:
            return whole.decode()
        except UnicodeDecodeError:
            self.report(self.i - 1, f"{field.name}: the escapes in this text make bytes that are not UTF-8")
            return None

    def bracket(self, block: Block, name: str) -> bool:
        """Whether a field that the block does not have shows a closing bracket too few or too many before it.

        If so, that is reported and reading goes on in the block the field belongs to.
        """
        if not self.starts_field(self.i):
            return False
        here = f"{name} in {self.line(self.starts[self.i])}"
        if self.missing < 0 and self.last and self.last[0].up is block and name in self.last[0].fields.by_name:
            again, closing = self.last
            self.missing += 1
            self.report(closing, f"{self.texts[closing]} closes {again.name} too early: {here} belongs to it")
            self.block(again)
            return True
        outer = block.up
        while outer and name not in outer.fields.by_name:
            outer = outer.up
        if outer is None or self.missing < block.depth - outer.depth:
            return False
        self.missing -= block.depth - outer.depth
        self.trouble(
            block.mark.at,
            f"{block.name} is opened here and not closed before {here}, which belongs to the {outer.name}",
        )
        self.leave = outer.depth
        return True
