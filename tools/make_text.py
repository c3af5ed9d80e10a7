"""Make the texts of configs/text: sentences of a small grammar, and others with the kind of each word.

    python tools/make_text.py [--check]

The grammar agrees verbs with their nouns across what stands between, and has words that are several kinds of word
(light, watches, fish), so that letters and kinds follow from what stood before, and kinds also from what comes. Every
choice is drawn from Python's own generator with a fixed seed: the files come out byte for byte the same. The sum of
-log2 of all choices over the number of letters is what no model can beat on average; --check compares the files.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "text"
KINDS = ("article", "adjective", "noun", "verb", "preposition", "pronoun", "adverb", "end")
ADJECTIVES = ("old", "small", "light", "round", "dry", "warm", "long", "quiet")
NOUNS = ("ship", "light", "watch", "fish", "man", "bird", "stone", "river", "farmer", "dry goods box", "round")
PLURALS = {"watch": "watches", "fish": "fish", "man": "men", "dry goods box": "dry goods boxes"}
VERBS = ("watch", "light", "ship", "fish", "dry", "warm", "round", "see", "follow", "paint")
THIRD = {"watch": "watches", "fish": "fishes", "dry": "dries"}
PLACES = ("near", "behind", "above", "round")
HOW = ("slowly", "often", "long", "again")

Tagged = list[tuple[str, str]]


class Writer:
    """Sentences, and the information of the choices made so far in bits."""

    def __init__(self, seed: int) -> None:
        self._random, self.bits = random.Random(seed), 0.0

    def choose(self, options: Sequence[str]) -> str:
        """One of them, each as likely as the others."""
        self.bits += math.log2(len(options))
        return options[int(self._random.random() * len(options))]

    def maybe(self, probability: float) -> bool:
        """True with that probability."""
        yes = self._random.random() < probability
        self.bits -= math.log2(probability if yes else 1 - probability)
        return yes

    def things(self, plural: bool, depth: int = 0) -> Tagged:
        """A noun with what belongs to it."""
        made = [(self.choose(("the", "some", "these") if plural else ("the", "a", "this")), "article")]
        while len(made) < 3 and self.maybe(0.3):
            made.append((self.choose(ADJECTIVES), "adjective"))
        noun = self.choose(NOUNS)
        made.append((PLURALS.get(noun, noun + "s") if plural else noun, "noun"))
        if depth < 2 and self.maybe(0.2):
            made += [(self.choose(PLACES), "preposition"), *self.things(self.maybe(0.5), depth + 2)]
        if depth < 1 and self.maybe(0.25):
            made += [("that", "pronoun"), *self.deed(plural, depth + 1)]
        return made

    def deed(self, plural: bool, depth: int) -> Tagged:
        """A verb that agrees, and whom it is done to."""
        verb = self.choose(VERBS)
        made = [(verb if plural else THIRD.get(verb, verb + "s"), "verb")]
        made += self.things(self.maybe(0.5), depth + 1)
        if self.maybe(0.3):
            made.append((self.choose(HOW), "adverb"))
        return made

    def sentence(self) -> Tagged:
        """Thing, deed, end."""
        plural = self.maybe(0.5)
        words = [*self.things(plural), *self.deed(plural, 0)]
        split = [(part, kind) for word, kind in words for part in word.split()]
        return [*split, (".", "end")]


def text(seed: int, letters: int) -> tuple[str, float]:
    """Lines of at least so many letters together, and their bits a letter."""
    writer, lines, count = Writer(seed), list[str](), 0
    while count < letters:
        lines.append(" ".join(word for word, _ in writer.sentence()))
        count += len(lines[-1]) + 1
    return "\n".join(lines) + "\n", writer.bits / count


def tagged(seed: int, sentences: int, words: Sequence[str]) -> str:
    """Sentences in CTF: the number of each word and of its kind."""
    writer, lines = Writer(seed), list[str]()
    number = {word: i for i, word in enumerate(words)}
    for i in range(sentences):
        lines += [f"{i} |w {number[word]} |k {KINDS.index(kind)}" for word, kind in writer.sentence()]
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """All files by name."""
    train, _ = text(1, 100_000)
    test, _ = text(2, 20_000)
    words = sorted({*train.split(), *test.split()})
    return {"train.txt": train, "test.txt": test, "words.txt": "\n".join(words) + "\n",
            "train.ctf": tagged(3, 1000, words), "test.ctf": tagged(4, 200, words)}  # fmt: skip


def main() -> None:
    """Write, or compare."""
    for name, content in files().items():
        path = FOLDER / name
        if "--check" in sys.argv:
            if path.read_text(encoding="utf-8") != content:
                raise SystemExit(f"{path} is not what this tool writes")
        else:
            path.write_text(content, encoding="utf-8")
    print(f"test.txt: {text(2, 20_000)[1]:.3f} bits a letter")


if __name__ == "__main__":
    main()
