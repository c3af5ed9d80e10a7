"""Reads the values of the config language: plain ones, lists, ``$name``, ``$(formula)``, and texts that hold such."""

from __future__ import annotations

from .cursor import MOST, TooMuch, Trouble
from .fields import number
from .formula import NAME as IDENTIFIER
from .formula import dollar_value, template
from .lexer import NAME, NUMBER, STRING, Tokens, shown
from .scope import HINT, SIGNS, Frame, Names
from .value import FormulaError, UnknownNameError, Value, Word, check, text_of

MOST_STEPS = 1_000_000
"""Tokens of a whole text; a round or a use counts as A_PASSAGE of them."""
A_PASSAGE = 20


class Filler:
    """Collects the tokens of the text that is made, and what was wrong.

    Attributes:
        tokens: the plain text so far.
        problems: everything that was wrong so far.
        blind: a file is missing, in which names that nobody knows may stand.
    """

    def __init__(self) -> None:
        self.tokens = Tokens([], [], [])
        self.problems: list[Trouble] = []
        self.blind = False
        self._steps = 0

    def emit(self, tokens: list[tuple[int, str]], at: int) -> None:
        """Append tokens (kind and text) that are to be found at an offset."""
        for kind, text in tokens:
            self.tokens.kinds.append(kind)
            self.tokens.texts.append(text)
            self.tokens.starts.append(at)

    def step(self, at: int, count: int = 1) -> None:
        """Count what was done.

        Raises:
            TooMuch: it is more than any net needs.
        """
        self._steps += count
        if self._steps > MOST_STEPS:
            self.problems.append(Trouble(at, f"the text grows beyond {MOST_STEPS} words here", ""))
            raise TooMuch

    def trouble(self, frame: Frame, problem: FormulaError) -> None:
        """Note what is wrong in a frame's file."""
        if problem.what and not (self.blind and isinstance(problem, UnknownNameError)):
            self.problems.append(Trouble(frame.base + problem.at, problem.what, ""))
            if len(self.problems) >= MOST:
                raise TooMuch

    # ---- values

    def value(self, frame: Frame, i: int, names: Names) -> tuple[Value, int]:
        """The value at token i, and the token behind it."""
        page = frame.page
        kind, text, at = page.kinds[i], page.texts[i], page.starts[i]
        if kind == STRING:
            parts = []
            while page.kinds[i] == STRING:
                parts.append(self.filled(frame, i, names))
                i += 1
            return check("".join(parts), at), i
        if text == "$":
            return self.dollar(frame, i, names)
        if kind == NUMBER:
            found = number(text)
            if found is None:
                raise FormulaError(f"{shown(text)} is no number{HINT if IDENTIFIER.search(text) else ''}", at)
            return check(found, at), i + 1
        if kind == NAME:
            if text in ("true", "false"):
                return text == "true", i + 1
            if not IDENTIFIER.fullmatch(text):
                raise FormulaError(f"{shown(text)} is no value{HINT}", at)
            if text in names.all():
                raise FormulaError(f"{text} is a bare word here; the value of that name is written ${text}", at)
            return Word(text), i + 1
        if text == "[":
            return self._list(frame, i, names)
        if text == "{":
            raise FormulaError("one value is wanted here, got a block", at)
        raise FormulaError(f"a value is wanted here, got {page.shown(i)}{HINT if text in SIGNS else ''}", at)

    def _list(self, frame: Frame, i: int, names: Names) -> tuple[Value, int]:
        page, at, items = frame.page, frame.page.starts[i], list[Value]()
        i += 1
        while page.texts[i] != "]":
            if items:
                if page.texts[i] != ",":
                    raise FormulaError(f"a comma or ] is wanted in the list, got {page.shown(i)}", page.starts[i])
                i += 1
            item, i = self.value(frame, i, names)
            items.append(item)
        return check(items, at), i + 1

    def dollar(self, frame: Frame, i: int, names: Names) -> tuple[Value, int]:
        """What ``$name`` or ``$(...)`` at token i stands for."""
        page, at = frame.page, frame.page.starts[i]
        if at not in page.compiled:
            page.compiled[at] = dollar_value(page.script.text, at, len(page.script.text))
        node, end = page.compiled[at]
        behind = page.token_at(end)
        if node is None:
            raise FormulaError("a $ is followed by a name or a formula: $name or $(name + 1)", at)
        if page.starts[behind - 1] + len(page.texts[behind - 1]) > end:
            rest = page.script.text[at : page.starts[behind - 1] + len(page.texts[behind - 1])]
            raise FormulaError(f"{shown(rest)} is no value{HINT}", at)
        return node(names), behind

    def filled(self, frame: Frame, i: int, names: Names) -> str:
        """The quoted text at token i with its values filled in."""
        page, at = frame.page, frame.page.starts[i]
        if at not in page.compiled:
            page.compiled[at] = template(page.script.text, at, at + len(page.texts[i])), at
        node = page.compiled[at][0]
        return text_of(node(names), at) if node else ""
