"""Expands a text in the config language into the tokens of a plain prototxt; ``netrun explain language`` is its page.

It works on tokens, before any field is known: a body may hold layers, fields, or parts of a block. Every token keeps
the offset of the passage it came from (``source.Passages``), so that whatever is wrong with it later, in the reader, in
a layer or in the graph, names the line it was written in and the places that used it. A text without the words of the
language never comes here.

It goes on after an error. A name that could not be had is broken: what uses it says nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from ..errors import ConfigError, UsageError, nearest
from .arithmetic import truth, whole
from .cursor import TooMuch
from .filler import A_PASSAGE, Filler
from .formula import Formula
from .lexer import END, NAME, NUMBER, STRING, Tokens, closed, shown
from .load import load
from .paths import check_name
from .scope import (
    BROKEN,
    HINT,
    SIGNS,
    Broken,
    Def,
    Frame,
    Names,
    Page,
    behind,
    checked,
    is_use,
    params_of,
    statement,
)
from .source import Script, Source
from .value import FormulaError, Value, text_of, tokens_of, words

DEEPEST = 40
"""Uses, repeats and includes inside each other that are accepted."""
MOST_ROUNDS = 10_000
"""Rounds of one repeat."""


class Expander(Filler):
    """Expands one text: ``tokens`` is what it becomes, ``problems`` what was wrong with it.

    Attributes:
        defs: the definitions by name; None for one that is wrong.
        known: every name that was ever given a value.
    """

    def __init__(self, tokens: Tokens, source: Source, blocks: frozenset[str]) -> None:
        super().__init__()
        self.defs: dict[str, Def | None] = {}
        self.known: set[str] = set()
        self._page = Page(source.script, source.folder, tokens)
        self._source = source
        self._blocks = blocks
        self._world = Names()

    def expand(self) -> None:
        """Do it."""
        files = (os.path.realpath(self._source.file),)
        with suppress(TooMuch):
            self._run(Frame(self._page, 0, (), files), 0, self._page.last, self._world)
        self.emit([(END, "")], len(self._source.script.text))

    # ---- tokens

    def _run(self, frame: Frame, first: int, last: int, names: Names) -> None:
        """Expand tokens [first, last) of the frame's file."""
        page, i, open_blocks = frame.page, first, [names]
        while i < last:
            self.step(frame.at(i))
            kind, text = page.kinds[i], page.texts[i]
            try:
                if kind == NAME and page.texts[i - 1] != ":":
                    word = statement(page.kinds, page.texts, i)
                    if word or (text in self.defs and is_use(page, i)):
                        handler = getattr(self, f"_{word}") if word else self._use
                        i = handler(frame, i, open_blocks[-1])
                        i += page.texts[i] in (",", ";")
                        continue
                elif text == "$":
                    value, after = self.dollar(frame, i, open_blocks[-1])
                    self.emit(tokens_of(value), frame.at(i))
                    i = after
                    continue
                elif kind == STRING and "$" in text and closed(text):
                    self.emit(tokens_of(self.filled(frame, i, open_blocks[-1])), frame.at(i))
                    i += 1
                    continue
            except FormulaError as problem:
                self.trouble(frame, problem)
                i = behind(page, i)
                continue
            if text in ("{", "<"):
                open_blocks.append(Names(open_blocks[-1], opened=frame.at(i)))
            elif text in ("}", ">") and len(open_blocks) > 1:
                open_blocks.pop()
            self.emit([(kind, text)], frame.at(i))
            i += 1

    # ---- let

    def _let(self, frame: Frame, i: int, names: Names) -> int:
        page, name = frame.page, frame.page.texts[i + 1]
        if self._again(frame, i, names.given(name)):
            return behind(page, i)
        self._free(frame, i + 1, names)
        names.give(name, BROKEN, frame.at(i))
        if page.texts[i + 2] != ":":
            raise FormulaError(f"let {name} wants a colon and a value: let {name}: 3", page.starts[i + 2])
        value, after = self.value(frame, i + 3, names)
        if page.texts[after] in SIGNS or page.kinds[after] in (NUMBER, STRING):
            raise FormulaError(f"let {name} takes one value{HINT}", page.starts[after])
        names.give(name, value, frame.at(i))
        return after

    def _again(self, frame: Frame, i: int, before: int | None) -> bool:
        """Whether token i was read before, at that offset: its file was included on two ways. Once is enough."""
        if before is None or before < 0:
            return False
        then, now = self._source.at(before), self._source.at(frame.at(i))
        return then.trail != now.trail and (then.file, then.line, then.column) == (now.file, now.line, now.column)

    def _free(self, frame: Frame, i: int, names: Names) -> None:
        """Refuse the name at token i if it can have no value, or has one already."""
        at = frame.page.starts[i]
        name = checked(frame.page.texts[i], at)
        given = names.given(name)
        if given is not None:
            first = self._source.line(given)
            raise FormulaError(f"{name} is given twice, first in {first}; a name has one value in a file or def", at)
        self.known.add(name)

    # ---- if and repeat

    def _if(self, frame: Frame, i: int, names: Names) -> int:
        page, chosen, decided = frame.page, None, False
        while True:
            formula = Formula(page.script.text, page.starts[i] + len("if"))
            test = formula.expression()
            body, end = self._body(frame, i, page.token_at(formula.at), "if")
            if not decided and truth(test(names), page.starts[i], "if"):
                chosen, decided = (body, end), True
            i = end + 1
            if page.texts[i] != "else":
                break
            i += 1
            if page.texts[i] != "if":
                body, end = self._body(frame, i - 1, i, "else")
                chosen = chosen or (body, end)
                i = end + 1
                break
        if chosen:
            self._deeper(frame, i)
            self._run(frame.inner(frame.base), *chosen, names)
        return i

    def _repeat(self, frame: Frame, i: int, names: Names) -> int:
        page, name, at = frame.page, frame.page.texts[i + 1], frame.page.starts[i]
        if page.texts[i + 2] != "in":
            raise FormulaError("a repeat is written: repeat i in 1..3 { ... }", at)
        self._free(frame, i + 1, names)
        formula = Formula(page.script.text, page.starts[i + 2] + len("in"))
        start = page.starts[i + 3]
        low, high = formula.expression(), None
        if formula.take(".."):
            if formula.peek()[1] == "{":
                raise FormulaError("this repeat has no end: write 1..3", start)
            high = formula.expression()
        body, end = self._body(frame, i, page.token_at(formula.at), "repeat")
        values = _rounds(low(names), None if high is None else high(names), start)
        self._deeper(frame, i)
        for value in values:
            self.step(frame.at(i), A_PASSAGE)
            how = f"repeated at {{}} ({name} = {words(value)})"
            base = self._source.passages.add(page.script, frame.at(i), how)
            inner = Names(names, opened=frame.at(i))
            inner.give(name, value, frame.at(i))
            self._run(frame.inner(base), body, end, inner)
        return end + 1

    def _body(self, frame: Frame, i: int, opening: int, what: str) -> tuple[int, int]:
        """The tokens of a body whose ``{`` is wanted at token ``opening``; ``what`` stands at token i."""
        page = frame.page
        if page.texts[opening] != "{":
            got = page.shown(opening)
            raise FormulaError(f"{{ is wanted here to open the body of {what}, got {got}", page.starts[opening])
        if opening not in page.closing:
            later = range(opening + 1, page.last)
            other = next((j for j in later if statement(page.kinds, page.texts, j) == "def"), None)
            until = "the file ends" if other is None else f"the def in {self._source.line(frame.at(other))}"
            raise FormulaError(f"the body of {what} is opened here and not closed before {until}", page.starts[i])
        return opening + 1, page.closing[opening]

    def _deeper(self, frame: Frame, i: int) -> None:
        if frame.depth >= DEEPEST:
            raise FormulaError(f"the config is expanded more than {DEEPEST} levels deep here", frame.page.starts[i])

    # ---- include

    def _include(self, frame: Frame, i: int, names: Names) -> int:
        page, at = frame.page, frame.page.starts[i]
        name, after = self.value(frame, i + 1, names)
        path = os.path.join(page.folder, text_of(name, at))
        try:
            check_name(path)
            real = os.path.realpath(path)
            if real in frame.files:
                raise FormulaError(f"{path} includes itself: it would never end", at)
            self._deeper(frame, i)
            script = Script(path, load(path))
        except (UsageError, ConfigError) as error:
            self.blind = True
            problem = error.problems[0]
            raise FormulaError(f"{problem.where}: {problem.what}" if problem.where else problem.what, at) from None
        base = self._source.passages.add(script, frame.at(i), "included at {}")
        inner = Frame(Page(script, os.path.dirname(path)), base, frame.defs, (*frame.files, real), frame.depth + 1)
        self._run(inner, 0, inner.page.last, names)
        return after

    # ---- def and use

    def _def(self, frame: Frame, i: int, names: Names) -> int:
        page, name, at = frame.page, frame.page.texts[i + 1], frame.page.starts[i + 1]
        if names is not self._world:
            around = self._source.line(names.opened)
            what = f"def {shown(name)} stands inside what {around} opens; a def stands outside of everything"
            raise FormulaError(f"{what} (is a }} missing before it?)", page.starts[i])
        checked(name, at)
        first = self.defs.get(name)
        if first and self._again(frame, i, first.at):
            return behind(page, i)
        if name in self.defs:
            line = f", first in {self._source.line(first.at)}" if first else ""
            raise FormulaError(f"def {name} is given twice{line}", at)
        self.defs[name] = None
        if name in self._blocks:
            raise FormulaError(f"{name} is a block of the schema; a def needs a name of its own", at)
        if page.texts[i + 2] != "(":
            raise FormulaError(f"def {name} wants its arguments in ( ) behind its name", page.starts[i + 2])
        params, after = params_of(page, i + 3)
        self.known.update(param.name for param in params)
        body, end = self._body(frame, i, after, f"def {name}")
        self.defs[name] = Def(name, page, params, body, end, frame.at(i))
        return end + 1

    def _use(self, frame: Frame, i: int, names: Names) -> int:
        page, name = frame.page, frame.page.texts[i]
        one = self.defs[name]
        if one is None:
            raise FormulaError("", page.starts[i])
        if name in frame.defs:
            path = ", ".join([*frame.defs[frame.defs.index(name) :], name])
            raise FormulaError(f"def {name} uses itself ({path}): it would never end", page.starts[i])
        self._deeper(frame, i)
        self.step(frame.at(i), A_PASSAGE)
        opening = i + (2 if page.texts[i + 1] == ":" else 1)
        first, last = self._body(frame, i, opening, name)
        before = len(self.problems)
        given = self._arguments(frame, one, first, last, names)
        lacking = [p.name for p in one.params if p.default < 0 and p.name not in given]
        if lacking:
            many = "arguments" if len(lacking) > 1 else "argument"
            raise FormulaError(f"{name} lacks the {many} {', '.join(lacking)}; {one.takes}", page.starts[i])
        if len(self.problems) > before or any(isinstance(value, Broken) for value, _ in given.values()):
            return last + 1
        base = self._source.passages.add(one.page.script, frame.at(i), f"used at {{}} ({name})")
        inner = Frame(one.page, base, (*frame.defs, name), frame.files, frame.depth + 1)
        own = Names(self._world, closed=True, opened=one.at, found=given)
        for param in one.params:
            if param.name not in own.found:
                own.give(param.name, BROKEN, frame.at(i))
                try:
                    own.give(param.name, self.value(inner, param.default, own)[0], frame.at(i))
                except FormulaError as problem:
                    self.trouble(inner, problem)
        self._run(inner, one.first, one.last, own)
        return last + 1

    def _arguments(
        self, frame: Frame, one: Def, i: int, last: int, names: Names
    ) -> dict[str, tuple[Value | Broken, int]]:
        """The values given in a use, tokens [i, last)."""
        page, given = frame.page, dict[str, tuple[Value | Broken, int]]()
        known = [p.name for p in one.params]
        while i < last:
            name, at = page.texts[i], page.starts[i]
            if page.kinds[i] != NAME or page.texts[i + 1] != ":":
                raise FormulaError(f"{one.name} wants its arguments as name: value, got {shown(name)}", at)
            value: Value | Broken = BROKEN
            try:
                if name not in known:
                    hint = nearest(name, known) or f"; {one.takes}"
                    raise FormulaError(f'{one.name} has no argument "{name}"{hint}', at)
                if name in given:
                    raise FormulaError(f"the argument {name} is given twice", at)
                value, i = self.value(frame, i + 2, names)
            except FormulaError as problem:
                self.trouble(frame, problem)
                i = page.behind_value(i + 2)
            given.setdefault(name, (value, frame.base + at))
            i += page.texts[i] in (",", ";")
        return given


def _rounds(low: Value, high: Value | None, at: int) -> Sequence[Value]:
    """The values that a repeat goes over: those of a list, or from one whole number to another."""
    if high is None:
        if not isinstance(low, list):
            raise FormulaError(f"repeat wants a range such as 1..3, or a list, got {words(low)}", at)
        return low
    first, last = whole(low, at, "a range"), whole(high, at, "a range")
    if last - first >= MOST_ROUNDS:
        raise FormulaError(f"this repeat has {last - first + 1} rounds, at most {MOST_ROUNDS} are accepted", at)
    return range(first, last + 1)
