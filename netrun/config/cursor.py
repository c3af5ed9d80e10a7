"""A position in the tokens of a text: stepping over what is not understood, and the list of what was wrong."""

from __future__ import annotations

from .lexer import END, NAME, SYMBOL, Tokens, shown
from .source import Source

MOST = 100
"""Problems after which reading stops."""

CLOSERS = {"{": "}", "<": ">", "[": "]"}


class Trouble:
    """A problem under way: the name of its layer is known only when the block has ended."""

    __slots__ = ("at", "layer", "unknown", "what")

    def __init__(self, at: int, what: str, unknown: str) -> None:
        self.at = at
        self.what = what
        self.unknown = unknown
        self.layer: str | None = None


class TooMuch(Exception):  # noqa: N818 - a way out of the recursion, never shown
    """The limit of problems is reached."""


class Cursor:
    """Token number ``i`` of a text, and the problems found so far."""

    def __init__(self, tokens: Tokens, source: Source) -> None:
        self.source = source
        self.kinds, self.texts, self.starts = tokens
        self.i = 0
        self.problems: list[Trouble] = []

    def starts_field(self, i: int) -> bool:
        """Whether a name here is followed by what follows the name of a field."""
        return self.kinds[i] == NAME and self.texts[i + 1] in (":", "{", "<")

    def resume(self) -> None:
        """Step over tokens up to the next field or closing bracket."""
        while True:
            if self.texts[self.i] in CLOSERS:
                self.skip(self.i)
            else:
                self.i += 1
            kind = self.kinds[self.i]
            if kind == END or self.starts_field(self.i) or (kind == SYMBOL and self.texts[self.i] in ("}", ">")):
                return

    def skip(self, opening: int, quiet: bool = False) -> None:
        """Step behind the bracket that closes the one at token ``opening`` (``quiet``: which may stand behind)."""
        stack: list[str] = [CLOSERS[self.texts[opening]]] if quiet else []
        while True:
            text = self.texts[self.i]
            if self.kinds[self.i] == END:
                if not quiet:
                    self.report(opening, f"{self.texts[opening]} is not closed before the end of the file")
                return
            if quiet and text in ("}", ">") and len(stack) == 1:
                return
            self.i += 1
            if text in CLOSERS:
                stack.append(CLOSERS[text])
            elif text == stack[-1] or text in ("}", ">"):
                while stack and stack[-1] == "]" != text:
                    stack.pop()
                if stack:
                    stack.pop()
                if not stack:
                    return

    def report(self, i: int, what: str) -> None:
        """A problem at token i."""
        self.trouble(self.starts[i], what)

    def trouble(self, at: int, what: str, unknown: str = "") -> None:
        """A problem at an offset; ``unknown`` is the field the whole text should have had.

        Raises:
            TooMuch: it was the last one that is worth reporting.
        """
        self.problems.append(Trouble(at, what, unknown))
        if len(self.problems) >= MOST:
            raise TooMuch

    def line(self, at: int) -> str:
        """``line 12`` for an offset."""
        return self.source.line(at)

    def shown(self, i: int) -> str:
        """A token in words."""
        return "the end of the file" if self.kinds[i] == END else shown(self.texts[i])
