"""``netrun infer``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..beam import Hypothesis
from ..config import schema
from ..config.upgrade import read_net
from ..data.numpy_files import read_npz
from ..data.sequence_files import LINE_END, vocabulary
from ..decode import Decoder
from ..errors import DataError, UsageError, nearest
from ..layers.dense import Embed
from ..net import Net
from ..params import LoadOptions
from .device import choose_device
from .loading import loading
from .logs import open_log
from .test import model_file
from .train import stages


def run(args: argparse.Namespace) -> int:
    """Decode every line of a text, or row of an .npz file, and print what the net writes; returns the exit code."""
    file = model_file(args)
    if not args.weights:
        raise UsageError("netrun infer: no weights are given", None, ["--weights net_iter_1000.caffemodel"])
    if not args.vocabulary and not args.vocabulary_from:
        hint = "--vocabulary FILE, one token a line, or --vocabulary-from TEXT, as the net's SequenceData says"
        raise UsageError("netrun infer: no vocabulary is given", None, [hint])
    words = Words(args.vocabulary, args.vocabulary_from, args.unit)
    sources = Words(args.source_vocabulary, "", args.unit) if args.source_vocabulary else words
    log = open_log(args.log)
    device = choose_device(args.device, args.gpu, log, "test")
    message, source = read_net(file, args.lenient)
    with Net(
        message,
        schema.TEST,
        source=source,
        folder=str(Path(file).parent),
        device=device,
        level=args.level or 0,
        stages=stages(args.stage),
        precision=args.precision,
        deterministic=args.deterministic,
    ) as net:
        for line in net.load(args.weights, LoadOptions.of(loading(args))).lines():
            log(line, "net.cpp:744")
        inputs = net.inputs
        tokens = args.tokens or next((n for n in ("target", "data") if n in inputs), inputs[-1] if inputs else "target")
        decoder = Decoder(net, tokens=tokens, scores=args.scores, start=words.token(args.start, "--start"),
                          stop=words.token(args.stop, "--stop"), time_major=args.time_major)  # fmt: skip
        _same_size(words, decoder.vocabulary, f'the blob "{args.scores}"')
        feeds = Feeds(decoder, sources, args)
        number = 0
        for given, prompts in feeds.batches(args.batch):
            for found in decoder(given, prompts, beam=args.beam, n_best=args.n_best or 1, max_length=args.max_length,
                                 length_penalty=args.length_penalty):  # fmt: skip
                _show(found, words, number, args)
                number += 1
    return 0


def _show(found: Sequence[Hypothesis], words: Words, number: int, args: argparse.Namespace) -> None:
    for hypothesis in found:
        text = words.text(hypothesis.tokens)
        print(f"{number}\t{hypothesis.score:.6f}\t{text}" if args.n_best else text, flush=True)


class Words:
    """A vocabulary: tokens by number, and back.

    Raises:
        DataError: its file cannot be read.
    """

    def __init__(self, file: str, text: str, unit: str) -> None:
        p = schema.SequenceDataParameter()
        letters = unit == "character"
        p.unit = schema.SequenceDataParameter.CHARACTER if letters else schema.SequenceDataParameter.WORD
        p.vocabulary, p.vocabulary_from = file, text
        self.tokens = vocabulary(p, "")
        self.name = file or text
        self._numbers = {token: number for number, token in enumerate(self.tokens)}
        self._letters = letters

    def token(self, text: str, what: str) -> int:
        """The number of a token.

        Raises:
            UsageError: there is no such token.
        """
        token = text.replace("\\n", LINE_END)
        if token not in self._numbers:
            hint = f"{what} TOKEN names the one that this net was trained with"
            raise UsageError(f'{self.name} has no token "{text}"{nearest(text, self.tokens)}', None, [hint])
        return self._numbers[token]

    def numbers(self, line: str, number: int) -> list[int]:
        """The tokens of a line.

        Raises:
            DataError: one of them is not in the vocabulary.
        """
        parts: Sequence[str] = line if self._letters else line.split()
        for part in parts:
            if part not in self._numbers:
                hint = nearest(part, self.tokens)
                raise DataError(f'line {number}: the token "{part}" is not in {self.name}{hint}')
        return [self._numbers[part] for part in parts]

    def text(self, numbers: Sequence[int]) -> str:
        """The line of these tokens."""
        return ("" if self._letters else " ").join(self.tokens[n] for n in numbers)


def _same_size(words: Words, size: int, where: str) -> None:
    if len(words.tokens) != size:
        raise UsageError(f"{words.name} has {len(words.tokens)} tokens, {where} has {size}")


class Feeds:
    """What the net's inputs get, from a text or from arrays.

    Raises:
        UsageError, DataError: the input cannot be read, or does not fit the net.
    """

    def __init__(self, decoder: Decoder, words: Words, args: argparse.Namespace) -> None:
        self._decoder, self._words, self._args = decoder, words, args
        others = decoder.others
        self.source = args.source or ("source" if "source" in others else "")
        self.length = args.length or ("length" if "length" in others else "")
        for name in (self.source, self.length):
            if name and name not in others:
                listed = ", ".join(others) or "none besides the tokens"
                raise UsageError(f'the net has no input "{name}"{nearest(name, others)}', None, [f"inputs: {listed}"])
        self._arrays = args.input.endswith(".npz")
        if not self._arrays:
            rest = [name for name in others if name not in (self.source, self.length)]
            if rest:
                hint = "a text feeds --source and --length; an .npz file with an array for each input feeds them all"
                raise UsageError(f'nothing is given for the input "{rest[0]}"', None, [hint])
            for node in decoder.net.graph.nodes:
                if isinstance(node.layer, Embed) and any(v.blob == self.source for v in node.bottoms):
                    _same_size(words, node.layer.p.input_dim, f"layer {node.name}")

    def batches(self, size: int) -> Iterator[tuple[dict[str, Any], list[list[int]] | None]]:
        """Inputs and prompts for so many sequences at a time."""
        if self._arrays:
            yield from self._rows(size)
            return
        lines: list[list[int]] = []
        first = 0
        for line in self._lines():
            lines.append(self._words.numbers(line, first + len(lines) + 1))
            if len(lines) == size:
                yield self._fed(lines, first)
                first, lines = first + size, []
        if lines:
            yield self._fed(lines, first)

    def _lines(self) -> Iterator[str]:
        name = self._args.input
        try:
            with nullcontext(sys.stdin) if name == "-" else open(name, encoding="utf-8") as file:
                yield from (line.rstrip("\r\n") for line in file)
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise DataError(f"{'stdin' if name == '-' else name} is no text in UTF-8") from None

    def _fed(self, lines: list[list[int]], first: int) -> tuple[dict[str, Any], list[list[int]] | None]:
        decoder = self._decoder
        if not self.source:
            start = [] if decoder.start is None else [decoder.start]
            return {}, [start + line for line in lines]
        axis = 0 if decoder.time_major else 1
        steps = decoder.net.blobs[self.source].shape[axis]
        source = np.zeros((len(lines), steps), np.float32)
        for i, line in enumerate(lines):
            if len(line) > steps:
                what = f'line {first + i + 1} has {len(line)} tokens, the input "{self.source}" takes {steps}'
                raise DataError(what)
            source[i, : len(line)] = line
        given = {self.source: source.T if decoder.time_major else source}
        if self.length:
            given[self.length] = np.array([len(line) for line in lines], np.float32)
        return given, None

    def _rows(self, size: int) -> Iterator[tuple[dict[str, Any], None]]:
        path, decoder = self._args.input, self._decoder
        arrays = read_npz(path)
        for name in decoder.others:
            if name not in arrays:
                listed = ", ".join(arrays) or "nothing"
                raise DataError(
                    f'{path} has no array "{name}" for the input of that name', None, [f"it holds {listed}"]
                )
        arrays = {name: arrays[name] for name in decoder.others}
        single = next((name for name, value in arrays.items() if not value.ndim), None)
        if single:
            raise DataError(f'{path}: the array "{single}" is a single number, and has no sequences')
        axes = {name: 1 if decoder.time_major and value.ndim > 1 else 0 for name, value in arrays.items()}
        counts = {name: value.shape[axes[name]] for name, value in arrays.items()}
        if not counts:
            raise UsageError(f"{path}: the net has no inputs besides the tokens; prompts are given as a text")
        for begin in range(0, max(counts.values()), size):
            yield {n: v.take(range(begin, min(begin + size, counts[n])), axis=axes[n]) for n, v in arrays.items()}, None


__all__ = ["run"]
