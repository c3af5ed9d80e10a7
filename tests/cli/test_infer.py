"""``netrun infer``."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.decode import Decoder
from netrun.net import Net

Run = Callable[..., Any]

MODEL = """
layer { name: "in" type: "Input" top: "source" top: "length" top: "target" input_param {
  shape { dim: 1 dim: 4 } shape { dim: 1 } shape { dim: 1 dim: 5 } } }
layer { name: "m" type: "Embed" bottom: "source" top: "m" param { name: "w" }
  embed_param { input_dim: 6 num_output: 8 bias_term: false weight_filler { type: "gaussian" } } }
layer { name: "e" type: "Embed" bottom: "target" top: "e" param { name: "w" }
  embed_param { input_dim: 6 num_output: 8 bias_term: false weight_filler { type: "gaussian" } } }
layer { name: "p" type: "PositionEncoding" bottom: "e" top: "p" }
layer { name: "look" type: "MultiHeadAttention" bottom: "p" bottom: "m" bottom: "length" top: "h"
  attention_param { weight_filler { type: "gaussian" } } }
layer { name: "next" type: "InnerProduct" bottom: "h" top: "scores"
  inner_product_param { num_output: 6 axis: 2 weight_filler { type: "gaussian" } } }
"""
LETTERS = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 } } }
layer { name: "e" type: "Embed" bottom: "data" top: "e"
  embed_param { input_dim: 4 num_output: 8 bias_term: false weight_filler { type: "gaussian" } } }
layer { name: "a" type: "MultiHeadAttention" bottom: "e" top: "h" attention_param { cache: 12 rotary: true } }
layer { name: "next" type: "InnerProduct" bottom: "h" top: "scores"
  inner_product_param { num_output: 4 axis: 2 weight_filler { type: "gaussian" } } }
"""
TOKENS = ["<stop>", "<start>", "the", "cat", "sat", "down"]
FLAGS = ("infer", "model.prototxt", "--weights", "model.caffemodel", "--vocabulary", "tokens.txt")


@pytest.fixture(autouse=True)
def _files(run: Run) -> None:
    Path("tokens.txt").write_text("\n".join(TOKENS) + "\n")
    Path("letters.txt").write_text("aaab\nab\nc\n")
    Path("lines.txt").write_text("the cat sat\ndown\n\nthe the the the\n")
    for name, text in (("model", MODEL), ("letters", LETTERS)):
        Path(f"{name}.prototxt").write_text(text)
        with Net(f"{name}.prototxt", seed=4) as net:
            net.save(f"{name}.caffemodel")


def wanted(beam: int, **rest: Any) -> list[list[tuple[float, str]]]:
    source = np.array([[2, 3, 4, 0], [5, 0, 0, 0], [0, 0, 0, 0], [2, 2, 2, 2]])
    given = {"source": source, "length": np.array([3, 1, 0, 4])}
    with Net("model.prototxt", weights="model.caffemodel") as net:
        found = Decoder(net, start=1, stop=0)(given, beam=beam, **rest)
    return [[(h.score, " ".join(TOKENS[t] for t in h.tokens)) for h in one] for one in found]


def test_the_lines_of_a_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [one[0][1] for one in wanted(1)]
    for batch in ("1", "3", "16"):
        result = run(*FLAGS, "--input", "lines.txt", "--batch", batch)
        assert (result.code, result.out.splitlines()) == (0, texts), result.err
    monkeypatch.setattr("sys.stdin", io.StringIO(Path("lines.txt").read_text()))
    assert run(*FLAGS).out.splitlines() == texts
    best = wanted(4, n_best=2, length_penalty=0.5, max_length=3)
    lines = [f"{n}\t{score:.6f}\t{text}" for n, one in enumerate(best) for score, text in one]
    result = run(*FLAGS, "--input", "lines.txt", "--beam", "4", "--n-best", "2", "--length-penalty", "0.5",
                 "--max-length", "3")  # fmt: skip
    assert result.out.splitlines() == lines


def test_arrays(run: Run) -> None:
    np.savez("in.npz", source=np.array([[2, 3, 4, 0], [5, 0, 0, 0]]), length=np.array([3, 1]), more=np.ones(7))
    result = run(*FLAGS, "--input", "in.npz", "--batch", "1")
    assert result.out.splitlines() == [one[0][1] for one in wanted(1)[:2]]


def test_prompts_of_letters(run: Run) -> None:
    """The vocabulary is that of a text: line end, a, b, c by how often they occur."""
    Path("prompts.txt").write_text("ab\nc\n")
    flags = ("infer", "--model", "letters.prototxt", "--weights", "letters.caffemodel", "--input", "prompts.txt",
             "--vocabulary-from", "letters.txt", "--unit", "character", "--start", "\\n", "--stop", "\\n")  # fmt: skip
    result = run(*flags, "--beam", "3")
    assert result.code == 0, result.err
    with Net("letters.prototxt", weights="letters.caffemodel") as net:
        order = ["a", "\n", "b", "c"]
        assert net.blobs["scores"].shape[-1] == len(order)
        decoder = Decoder(net, tokens="data", start=1, stop=1)
        assert decoder.limit == 12
        found = decoder(prompts=[[1, 0, 2], [1, 3]], beam=3)
    assert result.out.splitlines() == ["".join(order[t] for t in one[0].tokens) for one in found]
    assert "12 tokens" in run(*flags, "--max-length", "13").err


REFUSED = [
    (["--weights", ""], 2, ["no weights are given"]),
    (["--vocabulary", ""], 2, ["no vocabulary is given", "--vocabulary-from"]),
    (["--vocabulary", "absent.txt"], 3, ["absent.txt"]),
    (["--vocabulary", "small.txt"], 2, ["small.txt has 3 tokens", 'blob "scores" has 6']),
    (["--source-vocabulary", "small.txt"], 2, ["small.txt has 3 tokens", "layer m has 6"]),
    (["--start", "<begin>"], 2, ['no token "<begin>"', "--start TOKEN"]),
    (["--stop", "<sotp>"], 2, ['no token "<sotp>"', 'did you mean "<stop>"']),
    (["--scores", "score"], 2, ['no blob "score"']),
    (["--tokens", "targets"], 2, ['no input "targets"']),
    (["--source", "sauce"], 2, ['no input "sauce"']),
    (["--time-major"], 2, ["taken as T N"]),
    (["--input", "absent.txt"], 3, ["absent.txt cannot be read"]),
    (["--input", "absent.npz"], 3, ["absent.npz cannot be read"]),
    (["--input", "bad.npz"], 3, ["bad.npz"]),
    (["--input", "cut.npz"], 3, ["cut.npz is no readable .npz file"]),
    (["--input", "empty.npz"], 3, ["empty.npz is no readable .npz file"]),
    (["--input", "one.npz"], 3, ["one.npz is no readable .npz file (it holds a single array)"]),
    (["--input", "single.npz"], 3, ['the array "length" is a single number']),
    (["--input", "latin.txt"], 3, ["latin.txt is no text in UTF-8"]),
    (["--input", "other.npz"], 3, ['no array "source"', "it holds x"]),
    (["--input", "unknown.txt"], 3, ["line 2", '"dog"', "tokens.txt"]),
    (["--input", "long.txt"], 3, ["line 1 has 5 tokens", '"source" takes 4']),
    (["--n-best", "2"], 2, ["n_best 2"]),
    (["--max-length", "7"], 2, ["max_length is 7", "5 can be written"]),
    (["--rename", "x=y"], 2, ["y"]),
    (["--device", "cpu", "--precision", "FP16"], 2, ["device cpu: no precision FP16 here"]),
]


@pytest.mark.parametrize(("flags", "code", "words"), REFUSED, ids=lambda v: str(v) if isinstance(v, list) else "")
def test_refused(run: Run, flags: list[str], code: int, words: list[str]) -> None:
    Path("small.txt").write_text("<stop>\n<start>\nthe\n")
    Path("unknown.txt").write_text("the\na dog\n".replace("a dog", "the dog"))
    Path("long.txt").write_text("the the the the the\n")
    Path("bad.npz").write_text("no arrays")
    np.savez("other.npz", x=np.ones(2))
    np.savez("single.npz", source=np.ones((2, 4)), length=np.float32(4))
    Path("cut.npz").write_bytes(Path("other.npz").read_bytes()[:150])
    Path("empty.npz").write_bytes(b"")
    with open("one.npz", "wb") as file:
        np.save(file, np.ones(2))
    Path("latin.txt").write_bytes(b"the c\xe4t\n")
    base = [*FLAGS, "--input", "lines.txt"]
    result = run(*base, *flags)
    assert result.code == code, result.err
    for word in words:
        assert word in result.err, result.err
    assert "Traceback" not in result.err
    assert not result.out


def test_stdin_that_is_no_text_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the c\xe4t\n"), encoding="utf-8"))
    found = run(*FLAGS)
    assert (found.code, found.err.splitlines()[-1]) == (3, "stdin is no text in UTF-8")


def test_a_fork_s_field_is_passed_over_where_that_is_asked_for(run: Run) -> None:
    text = Path("model.prototxt").read_text().replace('name: "e" type', 'name: "e" forward_type: FLOAT16 type')
    Path("fork.prototxt").write_text(text)
    flags = ("infer", "fork.prototxt", *FLAGS[2:], "--input", "lines.txt")
    refused = run(*flags)
    assert (refused.code, "it is of NVIDIA's Caffe" in refused.err) == (2, True)
    accepted = run(*flags, "--lenient")
    assert accepted.code == 0, accepted.err
    assert accepted.out == run(*FLAGS, "--input", "lines.txt").out
