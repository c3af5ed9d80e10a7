"""SequenceData: every format, padding, buckets, continuous streams, resuming, messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.data.feeder import Cursor
from netrun.data.open import data_shapes, open_feeder
from netrun.errors import ConfigError, DataError, Where

LENGTHS = (3, 1, 7, 2, 5)


def layer(body: str, *tops: str) -> schema.LayerParameter:
    named = " ".join(f'top: "{top}"' for top in tops)
    text = f'name: "input" type: "SequenceData" {named} sequence_data_param {{ {body} }}'
    return text_format.Parse(text, schema.LayerParameter())  # type: ignore[no-any-return]


def opened(body: str, *tops: str, **more: Any) -> Any:
    return open_feeder(layer(body, *tops), schema.TRAIN, threads=0, where=Where("net", 2, 1), **more)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five sequences: step t of sequence n has x = 10 n + t."""
    monkeypatch.chdir(tmp_path)
    x = np.concatenate([10 * n + np.arange(length) for n, length in enumerate(LENGTHS)])
    np.savez("s.npz", x=x, wide=np.stack([x, -x], 1), kind=np.arange(5) * 2, lengths=np.array(LENGTHS))
    Path("a.txt").write_text("abba\n\ncab\n")


def test_lines_of_text() -> None:
    feeder = opened(
        'source: "a.txt" batch_size: 2 padding: 0 padding: -1 padding: 0 padding: 0', "data", "label", "cont", "length"
    )
    data, label, cont, length = feeder.next()  # a and the line end stand three times, then b, c
    number = {token: i for i, token in enumerate(["\n", "a", "b", "c"])}
    assert data.shape == (8, 2)
    assert data[:4, 0].tolist() == [number[c] for c in "abba"]
    assert label[:4, 0].tolist() == [number[c] for c in "bba\n"]
    assert label[:3, 1].tolist() == [number[c] for c in "ab\n"]
    assert label[4:].tolist() == [[-1, -1]] * 4
    assert cont.T.tolist() == [[0, 1, 1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]]
    assert length.tolist() == [4, 3]


def test_words_a_vocabulary_and_unknown_tokens() -> None:
    Path("w.txt").write_text("the cat  sat\nthe dog\n")
    Path("v.txt").write_text("dog\nthe\n\\n\n")
    body = 'source: "w.txt" batch_size: 2 multiple: 1 unit: WORD vocabulary: "v.txt" unknown: "<unk>"'
    (data,) = opened(body, "data").next()
    assert data.T.tolist() == [[1, 3, 3], [1, 0, 0]]
    with pytest.raises(DataError, match=r"w\.txt:1: the token 'cat' is not in the vocabulary"):
        opened('source: "w.txt" batch_size: 2 unit: WORD vocabulary: "v.txt"', "data")
    Path("w2.txt").write_text("dog the bird\n")
    body = (
        'source: "w2.txt" batch_size: 1 multiple: 1 unit: WORD vocabulary_from: "w.txt" max_vocabulary: 3 unknown: "?"'
    )
    assert opened(body, "data").next()[0].T.tolist() == [[2, 1, 2]]


def test_a_continuous_stream() -> None:
    text = "".join(chr(97 + i % 7) for i in range(45))
    Path("long.txt").write_text(text + "\n")
    body = 'source: "long.txt" batch_size: 2 steps: 5 continuous: true'
    feeder = opened(body, "data", "label", "cont")
    number = {c: i for i, c in enumerate(sorted(set(text), key=lambda c: (-text.count(c), c)))} | {"\n": 7}
    rows: list[Any] = []
    for batch in range(8):
        data, label, cont = feeder.next()
        assert cont[0].tolist() == [float(batch % 4 > 0)] * 2
        assert cont[1:].all()
        rows.append((data, label))
    seen, after = (np.concatenate([r[i] for r in rows[:4]]) for i in range(2))
    assert seen[:, 0].tolist() == [number[c] for c in text[:20]]
    assert seen[:, 1].tolist() == [number[c] for c in text[20:40]]
    assert after[:, 1].tolist() == [number[c] for c in text[21:41]]
    np.testing.assert_array_equal(rows[4][0], rows[0][0])


def test_arrays_of_steps_and_of_sequences() -> None:
    x, wide, kind = opened('source: "s.npz" batch_size: 5 multiple: 4', "x", "wide", "kind").next()
    assert x.shape == (8, 5)
    assert wide.shape == (8, 5, 2)
    assert x[:, 2].tolist() == [20, 21, 22, 23, 24, 25, 26, 0]
    assert wide[2, 4].tolist() == [42, -42]
    assert kind.tolist() == [0, 2, 4, 6, 8]
    np.savez("even.npz", x=np.arange(24).reshape(4, 3, 2), y=np.arange(4))
    x, y = opened('source: "even.npz" batch_size: 2 steps: 3 input: "x" input: "y"', "a", "b").next()
    assert x[1, 1].tolist() == [8, 9]
    assert y.tolist() == [0, 1]


def test_hdf5() -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 sources need h5py, which is not installed")
    with h5py.File("s.h5", "w") as file:
        for name, value in np.load("s.npz").items():
            file[name] = value
    mine, theirs = (
        opened(f'source: "{name}" batch_size: 3', "x", "kind", "length").next() for name in ("s.h5", "s.npz")
    )
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_ctf() -> None:
    Path("c.ctf").write_text("""0 |# a comment |word 3:1 |tag 1:1 |x 0.5 1
0 |word 4:1 |tag 0:1 |x 2 3
1 |word 9:1 |tag 2:1 |x 4 5 |kind 7
0 |kind 6
""")
    with pytest.raises(DataError, match="other lengths"):
        opened('source: "c.ctf" batch_size: 3', "word", "kind")
    Path("c.ctf").write_text("0 |word 3:1 |x 0.5 1 |kind 6\n0 |word 4:1 |x 2 3\n1 |word 9:1 |x 4 5 |kind 7\n")
    word, x, kind, length = opened('source: "c.ctf" batch_size: 2 multiple: 1', "word", "x", "kind", "length").next()
    assert word.T.tolist() == [[3, 4], [9, 0]]
    assert x[1, 0].tolist() == [2, 3]
    assert kind.tolist() == [6, 7]
    assert length.tolist() == [2, 1]
    for text, message in (("|x 1 2\n|x 1\n", "c.ctf:2: this sample of x has another form"),
                          ("|x 1:0.5\n", "c.ctf:1: |x: '1:0.5' is no sample"), ("|x a\n", "are no numbers"),
                          ("hello\n", "c.ctf:1: no"), ("", "holds no samples")):  # fmt: skip
        Path("c.ctf").write_text(text)
        with pytest.raises(DataError) as error:
            opened('source: "c.ctf" batch_size: 1', "x")
        assert message in str(error.value)


def seen(feeder: Any, batches: int) -> list[Any]:
    return [feeder.next() for _ in range(batches)]


def test_batch_tokens_bounds_the_places_and_gathers_similar_lengths() -> None:
    body = 'source: "s.npz" batch_tokens: 9 multiple: 1 shuffle: true'
    feeder = opened(body, "x", "length")
    for _ in range(3):
        lengths = []
        for x, length in seen(feeder, feeder.records):
            assert x.size <= 9
            assert len(x) == length.max()
            lengths += length.tolist()
        assert sorted(lengths) == sorted(LENGTHS)


@pytest.mark.parametrize(
    "body",
    [
        "batch_size: 2 shuffle: true",
        "batch_size: 2 bucket: true shuffle: true",
        "batch_tokens: 16 shuffle: true",
        "batch_size: 2 steps: 2 continuous: true",
    ],
)
def test_a_resumed_run_goes_on(body: str) -> None:
    body = f'source: "s.npz" {body}'
    straight = seen(opened(body, "x", "cont"), 9)
    feeder = opened(body, "x", "cont")
    seen(feeder, 4)
    state = feeder.state()
    assert state == Cursor(4, 0)
    again = opened(body, "x", "cont")
    again.restore(state)
    for ours, theirs in zip(seen(again, 5), straight[4:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_sequence_comes_once_an_epoch_in_another_order() -> None:
    feeder = opened('source: "s.npz" batch_size: 2 shuffle: true', "x", "kind")
    epochs = [[k for _, kind in seen(feeder, 3) for k in kind.tolist()] for _ in range(4)]
    assert all(sorted(e) == [0, 2, 4, 6, 8] for e in epochs)
    assert len({tuple(e) for e in epochs}) > 1


def test_longer_sequences_are_cut() -> None:
    x, length = opened('source: "s.npz" batch_size: 5 steps: 3', "x", "length").next()
    assert x.shape == (3, 5)
    assert length.tolist() == [3, 1, 3, 2, 3]


def test_shapes_without_a_feeder() -> None:
    assert data_shapes(layer('source: "s.npz" batch_size: 2', "x", "kind"), schema.TRAIN) == [(8, 2), (2,)]


def test_labels_are_checked_but_not_padding() -> None:
    feeder = opened('source: "s.npz" batch_size: 5 padding: -1', "x", classes={"x": 45})
    feeder.next()
    with pytest.raises(DataError, match='"x" is 44, and has to be 0 to 43'):
        opened('source: "s.npz" batch_size: 5 padding: -1', "x", classes={"x": 44})


@pytest.mark.parametrize(
    ("body", "top", "message"),
    [
        ("batch_size: 2", "x", "needs a source"),
        ('source: "s.npz"', "x", "needs a batch_size or batch_tokens"),
        ('source: "s.npz" batch_size: 2 batch_tokens: 9', "x", "one of them"),
        ('source: "s.npz" batch_size: 2 continuous: true', "x", "and steps"),
        ('source: "s.npz" batch_size: 2 steps: 2 continuous: true shuffle: true', "x", "neither shuffled"),
        ('source: "s.npz" batch_size: 2 multiple: 0', "x", "multiple is 0"),
        ('source: "s.npz" batch_size: 2 input: "x" input: "kind"', "x", "input is given 2 times for 1 tops"),
    ],
)
def test_wrong_parameters(body: str, top: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^net:2:1: input \(SequenceData\): .*{message}"):
        opened(body, top)


@pytest.mark.parametrize(
    ("body", "top", "message"),
    [
        ('source: "none.txt" batch_size: 2', "data", "none.txt cannot be read: No such file"),
        ('source: "none.npz" batch_size: 2', "x", "none.npz cannot be read: No such file"),
        ('source: "negative.npz" batch_size: 2', "x", '"lengths" holds what is no number of steps'),
        ('source: "broken.npz" batch_size: 2', "x", '"lengths" holds what is no number of steps'),
        ('source: "s.npz" batch_size: 2', "y", 'the source has no "y"; there are cont, kind, length, wide, x'),
        ('source: "s.npz" batch_size: 2', "kind", "the tops name no stream with steps"),
        ('source: "s.npz" batch_tokens: 6', "x", "8 steps .rounded up. does not fit into 6"),
        ('source: "s.npz" batch_size: 9 steps: 4 continuous: true', "x", "are too few for 9 streams of 4 steps"),
    ],
)
def test_wrong_sources(body: str, top: str, message: str) -> None:
    np.savez("negative.npz", x=np.ones(4), lengths=[-1, 5])
    np.savez("broken.npz", x=np.ones(4), lengths=[np.nan, 4])
    with pytest.raises(DataError, match=rf"^net:2:1: input \(SequenceData\): .*{message}"):
        opened(body, top)
