"""Files of sequences: text with a vocabulary, CNTK's text format (CTF), NumPy and HDF5 files.

Each becomes streams by name: rows one behind another and the length of every sequence, or one row a sequence.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import schema
from ..config.paths import resolve
from ..errors import DataError, missing_extra
from .feeder import Floats
from .numpy_files import read_npz

Array = npt.NDArray[Any]
LINE_END = "\n"
"""The token at the end of a line."""
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}


@dataclass(frozen=True)
class Stream:
    """One kind of value of all sequences.

    values   float32; the rows of all sequences one behind another, or one row a sequence
    lengths  rows of each sequence; None where each has one row, which belongs to the sequence as a whole
    """

    values: Floats
    lengths: npt.NDArray[np.int64] | None

    @property
    def count(self) -> int:
        """Sequences."""
        return len(self.values) if self.lengths is None else len(self.lengths)


def read_streams(p: schema.SequenceDataParameter, folder: str) -> dict[str, Stream]:
    """What the source holds, by name; a text gives ``data`` and ``label``, the next token.

    Raises:
        DataError: the file is missing, no such file, or contradicts itself; with file and line.
        UsageError: h5py is not installed.
    """
    path = resolve(p.source, folder)
    formats = schema.SequenceDataParameter
    by_name = {".ctf": formats.CTF, ".npz": formats.NUMPY, ".h5": formats.HDF5, ".hdf5": formats.HDF5}
    kind = p.format if p.format != formats.AUTO else by_name.get(os.path.splitext(path)[1].lower(), formats.TEXT)
    if kind == formats.TEXT:
        return _text(p, path, folder)
    if kind == formats.CTF:
        return read_ctf(path)
    return _arrays(path, read_npz(path) if kind == formats.NUMPY else _hdf5(path))


# ----------------------------------------------------------------------------------------------------------------- text
def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            return [line.removesuffix("\n").removesuffix("\r") for line in file]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8") from None


def _tokens(line: str, words: bool) -> Sequence[str]:
    return line.split() if words else line


def vocabulary(p: schema.SequenceDataParameter, folder: str) -> list[str]:
    """The tokens by number: those of the file ``vocabulary``, or those of a text, the most frequent first."""
    if p.vocabulary:
        path = resolve(p.vocabulary, folder)
        known = [_ESCAPES.get(line, line) for line in _lines(path)]
        twice = [token for token, n in Counter(known).items() if n > 1]
        if twice:
            raise DataError(f"{path} has the token {twice[0]!r} twice")
    else:
        words = p.unit == schema.SequenceDataParameter.WORD
        counts: Counter[str] = Counter()
        for line in _lines(resolve(p.vocabulary_from or p.source, folder)):
            counts.update(_tokens(line, words))
            counts[LINE_END] += 1
        known = sorted(counts, key=lambda token: (-counts[token], token))
        if p.max_vocabulary:
            known = known[: p.max_vocabulary - bool(p.unknown)]
    return [*known, p.unknown] if p.unknown and p.unknown not in known else known


def _text(p: schema.SequenceDataParameter, path: str, folder: str) -> dict[str, Stream]:
    number = {token: i for i, token in enumerate(vocabulary(p, folder))}
    words, unknown = p.unit == schema.SequenceDataParameter.WORD, number.get(p.unknown) if p.unknown else None
    found: list[int] = []
    lengths: list[int] = []
    for at, line in enumerate(_lines(path), 1):
        tokens = [*_tokens(line, words), LINE_END]
        if len(tokens) == 1 and not p.continuous:
            continue
        for token in tokens:
            value = number.get(token, unknown)
            if value is None:
                hint = 'unknown: "<unk>" gives such tokens one number'
                raise DataError(f"{path}:{at}: the token {token!r} is not in the vocabulary", None, [hint])
            found.append(value)
        lengths.append(len(tokens))
    if not found:
        raise DataError(f"{path} holds no tokens")
    values, ends = np.array(found, np.float32), np.cumsum(lengths)
    if p.continuous:
        return {"data": Stream(values, np.array([len(values)]))}
    last = np.zeros(len(values), bool)
    last[ends - 1] = True
    rows = np.array(lengths) - 1
    return {"data": Stream(values[~last], rows), "label": Stream(values[~np.roll(last, 1)], rows)}


# ------------------------------------------------------------------------------------------------------------------ CTF
def read_ctf(path: str) -> dict[str, Stream]:
    """CNTK's text format: ``id |name values |name values``, lines of one id are one sequence.

    Dense samples are numbers; sparse ones ``index:1`` are read as the index. A stream with one sample in every sequence
    while another has more belongs to the sequence as a whole.
    """
    samples: dict[str, list[list[float]]] = {}
    lengths: dict[str, list[int]] = {}
    sparse: dict[str, bool] = {}
    count, last = 0, None
    for at, line in enumerate(_lines(path), 1):
        name, *fields = line.split("|")
        if not fields:
            if line.strip():
                raise DataError(f'{path}:{at}: no "|name values" in the line')
            continue
        if not name.strip() or name.strip() != last:
            last, count = name.strip() or None, count + 1
        for field in fields:
            if field.startswith("#") or not field.strip():
                continue
            stream, *values = field.split()
            one, single = _sample(values, f"{path}:{at}: |{stream}")
            rows = samples.setdefault(stream, [])
            if sparse.setdefault(stream, single) != single or (rows and len(rows[0]) != len(one)):
                raise DataError(f"{path}:{at}: this sample of {stream} has another form or length than those before")
            rows.append(one)
            ends = lengths.setdefault(stream, [])
            ends += [0] * (count - len(ends))
            ends[-1] += 1
    if not samples:
        raise DataError(f"{path} holds no samples")
    made = {}
    several = any(max(ends) > 1 for ends in lengths.values())
    for name, rows in samples.items():
        found = np.array(rows, np.float32)
        ends = lengths[name] + [0] * (count - len(lengths[name]))
        whole = several and set(ends) == {1}
        made[name] = Stream(found[:, 0] if found.shape[1] == 1 else found, None if whole else np.array(ends))
    return made


def _sample(values: Sequence[str], where: str) -> tuple[list[float], bool]:
    """The numbers of a sample, and whether they are one index."""
    try:
        pairs = [(int(index), float(value)) for index, _, value in (v.partition(":") for v in values if ":" in v)]
        if not pairs and values:
            return [float(v) for v in values], False
    except ValueError:
        raise DataError(f"{where}: {' '.join(values)[:40]!r} are no numbers and no index:value pairs") from None
    if len(pairs) != 1 or len(values) != 1 or pairs[0][1] != 1:
        hint = "of sparse samples those with a single index:1 can be read; write others as all their numbers"
        raise DataError(f"{where}: {' '.join(values)[:40]!r} is no sample that netrun reads", None, [hint])
    return [float(pairs[0][0])], True


# --------------------------------------------------------------------------------------------------------------- arrays
def _hdf5(path: str) -> dict[str, Array]:
    try:
        import h5py
    except ImportError:
        raise missing_extra("SequenceData from HDF5", "h5py", "hdf5") from None
    try:
        with h5py.File(path, "r") as file:
            return {name: file[name][...] for name in file if hasattr(file[name], "dtype")}
    except OSError as error:
        raise DataError(f"{path} is no readable HDF5 file ({error})") from None


def _arrays(path: str, arrays: Mapping[str, Array]) -> dict[str, Stream]:
    """Arrays of one row a step, with ``lengths`` that cuts them into sequences; or of sequences of one length."""
    wrong = [name for name, a in arrays.items() if a.dtype.kind not in "fiub" or not a.ndim]
    if wrong:
        raise DataError(f'{path}: "{wrong[0]}" holds {arrays[wrong[0]].dtype}, wanted rows of numbers')
    return dict(_cut(path, {n: a for n, a in arrays.items() if n != "lengths"}, arrays.get("lengths")))


def _cut(path: str, arrays: Mapping[str, Array], lengths: Array | None) -> Iterator[tuple[str, Stream]]:
    if not arrays:
        raise DataError(f"{path} holds no arrays")
    if lengths is not None and not ((lengths >= 0) & (lengths == np.rint(lengths))).all():
        raise DataError(f'{path}: "lengths" holds what is no number of steps')
    ends = None if lengths is None else lengths.reshape(-1).astype(np.int64)
    for name, array in arrays.items():
        values = array.astype(np.float32)
        if ends is None:
            steps = np.full(len(values), values.shape[1]) if values.ndim > 1 else None
            yield name, Stream(values.reshape(-1, *values.shape[2:]) if steps is not None else values, steps)
        elif len(values) == ends.sum():
            yield name, Stream(values, ends)
        elif len(values) == len(ends):
            yield name, Stream(values, None)
        else:
            what = f"{len(ends)} sequences of {int(ends.sum())} steps together"
            raise DataError(f'{path}: "{name}" has {len(values)} rows; its lengths tell of {what}')


__all__ = ["Stream", "read_ctf", "read_streams", "vocabulary"]
