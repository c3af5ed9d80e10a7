"""Where every field of a parsed file stood, so that any later complaint can name a line."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ..errors import Where
from .lexer import STRING, tokenize, unescape

Path_ = tuple[str | int, ...]
"""The way from the message to one of its fields; a repeated field carries its index:
``("layer", 3, "convolution_param", "num_output")``."""

NOWHERE = -1


def steps(path: Sequence[str | int]) -> list[tuple[str, int]]:
    """A path as field names with indices; a name without an index means the first."""
    found: list[tuple[str, int]] = []
    for part in path:
        if isinstance(part, str):
            found.append((part, 0))
        elif found:
            found[-1] = (found[-1][0], part)
    return found


def _decoded(body: str) -> int:
    """How many characters the inside of a quoted text stands for; an escape that is not whole yet counts for none."""
    if "\\" not in body:
        return len(body)
    try:
        return len(unescape(f'"{body}"').decode(errors="ignore"))
    except ValueError:
        return _decoded(body[: body.rindex("\\")])


class Mark:
    """The position of one field (an offset into the text) and, if it is a message, of the fields inside it."""

    __slots__ = ("at", "fields")

    def __init__(self, at: int = NOWHERE, fields: dict[str, list[Mark]] | None = None) -> None:
        self.at = at
        self.fields: dict[str, list[Mark]] = {} if fields is None else fields

    def all(self, name: str) -> list[Mark]:
        """The marks of a field, one for each time it stands in the text."""
        return self.fields.get(name, [])

    def child(self, name: str, index: int = 0) -> Mark:
        """The mark of one field; a bare mark at this position where nothing is known of it."""
        marks = self.fields.get(name, [])
        return marks[index] if 0 <= index < len(marks) else Mark(self.at)

    def take(self, name: str) -> list[Mark]:
        """Remove the marks of a field and return them."""
        return self.fields.pop(name, [])

    def put(self, name: str, marks: Sequence[Mark]) -> None:
        """Append marks to a field (nothing happens for an empty list)."""
        if marks:
            self.fields.setdefault(name, []).extend(marks)


class Script:
    """A text with its file's name: the line and column of every offset."""

    __slots__ = ("_lines", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._lines: list[int] | None = None

    def place(self, offset: int) -> tuple[int, int]:
        """The line and the column of an offset."""
        if self._lines is None:
            self._lines = [0]
            for line in self.text.split("\n"):
                self._lines.append(self._lines[-1] + len(line) + 1)
        number = bisect_right(self._lines, offset)
        return number, offset - self._lines[number - 1] + 1


class Passages:
    """The passages that a text was put together from, one behind the other: every offset leads back to its file.

    The first is the text itself, whose offsets are its own. Each further one is a whole file again, at the offsets from
    its base on, with the offset of the place that called for it: a use of a ``def``, a round of a ``repeat``, an
    ``include``.
    """

    def __init__(self, script: Script) -> None:
        self._bases = [0]
        self._found: list[tuple[Script, int, str]] = [(script, NOWHERE, "")]
        self._end = len(script.text) + 1

    def add(self, script: Script, at: int, how: str) -> int:
        """A further passage; ``how`` words its place of use, with {} for the position. Returns its base."""
        base = self._end
        self._bases.append(base)
        self._found.append((script, at, how))
        self._end += len(script.text) + 1
        return base

    def text_from(self, offset: int) -> str:
        """The text of its file from an offset on."""
        index = bisect_right(self._bases, offset) - 1
        return self._found[index][0].text[offset - self._bases[index] :]

    def where(self, offset: int) -> Where:
        """The position an offset stands for, and the places that led there."""
        script, line, column, at, how = self._place(offset)
        trail: list[str] = []
        while at >= 0:
            used, row, place, at, outer = self._place(at)
            trail.append(how.replace("{}", str(Where(used.file, row, place)), 1))
            how = outer
        return Where(script.file, line, column, tuple(trail))

    def _place(self, offset: int) -> tuple[Script, int, int, int, str]:
        index = bisect_right(self._bases, offset) - 1
        script, at, how = self._found[index]
        return (script, *script.place(offset - self._bases[index]), at, how)


class Source:
    """The positions of one parsed text.

    Attributes:
        file: the name shown to people.
        folder: the folder of the file, for resolving the relative names in it; "" for the working directory and for
            texts that come from no file.
        script: the text itself.
        passages: what it was put together from; one passage, the text, if it is a plain one.
        extended: it is in the config language, its texts may hold values.
        root: the mark of the message itself; upgrades move its branches along with the fields.
        notices: what an upgrade changed, a sentence each.
    """

    def __init__(self, file: str, folder: str = "", text: str = "", root: Mark | None = None) -> None:
        self.file = file
        self.folder = folder
        self.root = Mark() if root is None else root
        self.notices: list[str] = []
        self.script = Script(file, text)
        self.passages = Passages(self.script)
        self.extended = False

    def at(self, offset: int) -> Where:
        """The line and column of an offset into the text; the file as a whole for a negative one."""
        return Where(self.file) if offset < 0 else self.passages.where(offset)

    def line(self, offset: int) -> str:
        """``line 12`` for an offset; ``common.prototxt:12:3`` if it stands in another file."""
        where = self.at(offset)
        return f"line {where.line}" if where.file == self.file else str(where)

    def where(self, *path: str | int) -> Where:
        """The position of a field, or of the nearest enclosing one that is known, or the file."""
        mark, known = self.root, self.root.at
        for name, index in steps(path):
            marks = mark.fields.get(name)
            if marks is None or not 0 <= index < len(marks):
                break
            mark = marks[index]
            if mark.at >= 0:
                known = mark.at
        return self.at(known)

    def inside(self, offset: int, *path: str | int) -> Where:
        """The position of one character of a text value, counted in the value; of its field if that is not known."""
        mark = self.root
        for name, index in steps(path):
            mark = mark.child(name, index)
        if mark.at < 0:
            return self.where(*path)
        tokens = tokenize(self.passages.text_from(mark.at))
        if STRING not in tokens.kinds[:4]:
            return self.where(*path)
        at = tokens.kinds.index(STRING)
        while tokens.kinds[at] == STRING:
            token, start = tokens.texts[at], mark.at + tokens.starts[at]
            if self.extended and "$" in token:  # it stands for another text
                return self.where(*path)
            length = _decoded(token[1:-1])
            if offset < length or tokens.kinds[at + 1] != STRING:
                body = 0
                while body < len(token) - 2 and _decoded(token[1 : 1 + body + 1]) <= offset:
                    body += 1
                return self.at(start + 1 + body)
            offset -= length
            at += 1
        return self.where(*path)

    def moved(self, old: Sequence[str | int], new: Sequence[str | int]) -> None:
        """Let the field that is now called ``new`` be found where ``old`` stood; an existing ``new`` is replaced.

        ``old`` itself stays findable. An index beyond the end of ``new`` appends.
        """
        mark = self.root
        for name, index in steps(old):
            mark = mark.child(name, index)
        *parents, (last, place) = steps(new)
        parent = self.root
        for name, index in parents:
            marks = parent.fields.setdefault(name, [])
            while len(marks) <= index:
                marks.append(Mark())
            parent = marks[index]
        marks = parent.fields.setdefault(last, [])
        marks[place : place + 1] = [mark]

    def view(self, *path: str | int) -> Source:
        """The positions of a message inside this one, as a source of their own."""
        mark = self.root
        for name, index in steps(path):
            mark = mark.child(name, index)
        view = Source(self.file, self.folder, "", mark)
        view.script, view.passages, view.extended = self.script, self.passages, self.extended
        return view
