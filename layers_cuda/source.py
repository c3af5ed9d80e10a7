"""The text of the CUDA files: local includes put in place, so that one string is all a compiler and a cache need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "src"
"""Where the .cu and .cuh files lie."""

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[ \t]*$', re.M)


def files() -> list[str]:
    """The names, without ending, of all .cu files."""
    return sorted(path.stem for path in FOLDER.glob("*.cu"))


def source_of(file: str, defines: Sequence[tuple[str, str]] = ()) -> str:
    """What a compiler gets for ``src/<file>.cu``: the ``#define`` lines, then the file with each local include once.

    ``#line`` directives keep the compiler's messages pointing at the real files. CuPy keys its cache on disk by this
    text, and would not see a change in a header that it includes itself.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a define is not one line.
    """
    for name, value in defines:
        if "\n" in name + value:
            raise ValueError(f"the define {name} is not one line")
    head = "".join(f"#define {name} {value}\n" for name, value in defines)
    return head + _flat(f"{file}.cu")


def kernels_of(file: str) -> list[str]:
    """The names of the kernels that ``src/<file>.cu`` holds under any define, in order of first appearance."""
    found = re.findall(
        r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)', _flat(f"{file}.cu")
    )
    return list(dict.fromkeys(found))


@cache
def _flat(name: str) -> str:
    return _expand(name, set())


def _expand(name: str, seen: set[str]) -> str:
    text = (FOLDER / name).read_text(encoding="utf-8")
    seen.add(name)
    parts, at = [f'#line 1 "{name}"\n'], 0
    for found in _INCLUDE.finditer(text):
        parts.append(text[at : found.start()])
        if found[1] not in seen:
            parts.append(_expand(found[1], seen))
        line = text.count("\n", 0, found.end()) + 2
        parts.append(f'\n#line {line} "{name}"')
        at = found.end()
    parts.append(text[at:])
    return "".join(parts)
