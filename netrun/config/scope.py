"""What the expansion of a config keeps in mind: files cut into tokens, names with values, definitions, its place."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from ..errors import nearest
from .formula import NAME as IDENTIFIER
from .formula import RESERVED, Node
from .lexer import END, NAME, STRING, Tokens, shown, tokenize
from .source import NOWHERE, Script
from .value import FormulaError, UnknownNameError, Value

HINT = "; a value that is computed stands in $(...)"
FEW = 8
"""Names that a message lists, if none is like the one it got."""
SIGNS = frozenset("*/%^(=!")
"""Signs behind a value that show that more was meant."""


class Page:
    """One file: its tokens, its brackets in pairs, and its formulas, compiled once."""

    def __init__(self, script: Script, folder: str, tokens: Tokens | None = None) -> None:
        self.script = script
        self.folder = folder
        self.kinds, self.texts, self.starts = tokens or tokenize(script.text)
        self.compiled: dict[int, tuple[Node | None, int]] = {}
        self.closing: dict[int, int] = {}  # token of an opening bracket -> token of the one that closes it
        stacks: dict[str, list[int]] = {"}": [], "]": [], ")": []}
        for i, text in enumerate(self.texts):
            if text in ("{", "[", "("):
                stacks[{"{": "}", "[": "]", "(": ")"}[text]].append(i)
            elif stacks.get(text):
                self.closing[stacks[text].pop()] = i

    @property
    def last(self) -> int:
        """The number of tokens, without the end."""
        return len(self.texts) - 1

    def shown(self, i: int) -> str:
        """A token in words."""
        return "the end of the file" if self.kinds[i] == END else shown(self.texts[i])

    def token_at(self, offset: int) -> int:
        """The first token at an offset or behind it."""
        return bisect_left(self.starts, offset)

    def opening(self, i: int) -> int:
        """The first ``{`` from token i on (the end of the file if there is none)."""
        while i < self.last and self.texts[i] != "{":
            i += 1
        return i

    def behind_block(self, i: int) -> int:
        """The token behind the block whose ``{`` is the first from token i on."""
        return self.closing.get(self.opening(i), self.last - 1) + 1

    def behind_value(self, i: int) -> int:
        """The token behind the value at token i."""
        if self.kinds[i] == STRING:
            while self.kinds[i] == STRING:
                i += 1
            return i
        if self.texts[i] == "$":
            i += 1
        return min(self.closing.get(i, i) + 1, self.last)


class Param(NamedTuple):
    """An argument of a def, and the token its default begins at (-1: it has none)."""

    name: str
    default: int


@dataclass(frozen=True)
class Def:
    """A named piece of config: the tokens [first, last) of its file."""

    name: str
    page: Page
    params: tuple[Param, ...]
    first: int
    last: int
    at: int
    """Where it stands, as an offset among the passages."""

    @property
    def takes(self) -> str:
        """The arguments in words."""
        names = ", ".join(p.name + ("" if p.default < 0 else ": ...") for p in self.params)
        return f"it takes {names}" if names else "it takes no arguments"


@dataclass(frozen=True)
class Frame:
    """A passage that is being expanded: which file, at which base, and what is being expanded around it."""

    page: Page
    base: int
    defs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    depth: int = 0

    def at(self, i: int) -> int:
        """The offset of token i among the passages."""
        return self.base + self.page.starts[i]

    def inner(self, base: int) -> Frame:
        """The same file at another base, one level further in."""
        return replace(self, base=base, depth=self.depth + 1)


class Broken:
    """Stands for a value that could not be had; what is wrong with it was said already."""


BROKEN = Broken()


Given: TypeAlias = dict[str, tuple[Value | Broken, int]]
"""Names with their values and where they were given."""


@dataclass
class Names:
    """The names that have a value in one block.

    Attributes:
        up: the block around it.
        closed: the body of a def: names around it may be given anew.
        opened: the offset of what opened the block.
    """

    up: Names | None = None
    closed: bool = False
    opened: int = NOWHERE
    found: Given = field(default_factory=dict)

    def value(self, name: str, at: int) -> Value:
        """The value of a name that stands at offset ``at`` of its file.

        Raises:
            FormulaError: there is none.
        """
        scope: Names | None = self
        while scope:
            if name in scope.found:
                value = scope.found[name][0]
                if isinstance(value, Broken):
                    raise FormulaError("", at)
                return value
            scope = scope.up
        known = list(dict.fromkeys(self.all()))
        some = f"; known are {', '.join(known)}" if 0 < len(known) <= FEW else ""
        raise UnknownNameError(f'nothing here is called "{name}"{nearest(name, known) or some}', at)

    def all(self) -> list[str]:
        """Every name that has a value here, the nearest first."""
        own = [name for name, (value, _) in self.found.items() if not isinstance(value, Broken)]
        return [*own, *(self.up.all() if self.up else ())]

    def given(self, name: str) -> int | None:
        """Where the name was given in this file or def; None if it was not."""
        scope: Names | None = self
        while scope:
            if name in scope.found:
                return scope.found[name][1]
            scope = None if scope.closed else scope.up
        return None

    def give(self, name: str, value: Value | Broken, at: int) -> None:
        """Give a name its value."""
        self.found[name] = (value, at)


def checked(name: str, at: int) -> str:
    """A name that a let, a def, an argument or a repeat may give.

    Raises:
        FormulaError: it may not.
    """
    if not IDENTIFIER.fullmatch(name):
        raise FormulaError(f"{shown(name)} is no name: letters, digits and _ are", at)
    if name in RESERVED or name in WORDS:
        raise FormulaError(f"{name} is a word of the language and names nothing else", at)
    return name


def params_of(page: Page, i: int) -> tuple[tuple[Param, ...], int]:
    """The arguments of a def, from the token behind its ``(`` on, and the token behind its ``)``.

    Raises:
        FormulaError: one is wrong.
    """
    params: dict[str, Param] = {}
    while page.texts[i] != ")":
        at = page.starts[i]
        if page.kinds[i] != NAME:
            raise FormulaError(f"the name of an argument is wanted here, got {page.shown(i)}", at)
        name = checked(page.texts[i], at)
        if name in params:
            raise FormulaError(f"the argument {name} is given twice", at)
        i += 1
        params[name] = Param(name, -1)
        if page.texts[i] == ":":
            params[name] = Param(name, i + 1)
            i = page.behind_value(i + 1)
        if page.texts[i] == ",":
            i += 1
        elif page.texts[i] != ")":
            what = f"a comma or ) is wanted behind the argument {name}, got {page.shown(i)}"
            raise FormulaError(what + (HINT if page.texts[i] in SIGNS else ""), page.starts[i])
    return tuple(params.values()), i + 1


def statement(kinds: list[int], texts: list[str], i: int) -> str:
    """The word of the language that token i is, or an empty text.

    A field may have the same name: that is followed by a colon, a bracket or a quarrel with the reader.
    """
    text = texts[i]
    if text not in WORDS or kinds[i] != NAME or texts[i - 1] == ":":
        return ""
    kind, follows = kinds[i + 1], texts[i + 1]
    if text == "include":
        return text if kind == STRING else ""
    if text == "if":
        return text if kind not in (0,) and follows not in (":", "{", "<", "[", "}", ">", ",", ";", "]") else ""
    return text if kind == NAME or (kind not in (0, STRING) and follows[:1].isdigit()) else ""


WORDS = frozenset(("let", "def", "repeat", "if", "include"))


def is_extended(tokens: Tokens) -> bool:
    """Whether a text says anything in the language beyond plain prototxt."""
    kinds, texts, _ = tokens
    if WORDS.isdisjoint(texts) and "$" not in texts:
        return False
    return "$" in texts or any(statement(kinds, texts, i) for i in range(len(texts) - 1))


def is_use(page: Page, i: int) -> bool:
    """Whether token i, the name of a def, opens a block: so it is used. A field of that name has a value."""
    return page.texts[i + 1] == "{" or (page.texts[i + 1] == ":" and page.texts[i + 2] == "{")


def behind(page: Page, i: int) -> int:
    """The token behind the statement, use or value at token i, whatever is wrong in it."""
    word = statement(page.kinds, page.texts, i)
    if word == "let":
        return page.behind_value(i + (3 if page.texts[i + 2] == ":" else 2))
    if word == "include":
        return page.behind_value(i + 1)
    if not word:
        return page.behind_value(i) if page.kinds[i] != NAME else page.behind_block(i)
    i = page.behind_block(i)
    while word == "if" and page.texts[i] == "else":
        i = page.behind_block(i)
    return i
