"""Beam search: which tokens are followed, given the probabilities of the next one; of nets it knows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Hypothesis:
    """What was written: the tokens behind the given ones, without the stop.

    score: log of the probability, the stop included, divided by the length penalty. ended: it came to a stop, and was
    not cut off.
    """

    tokens: tuple[int, ...]
    score: float
    ended: bool


@dataclass
class Search:
    """The beams of one input.

    prompt: what every hypothesis begins with. live: what is still written, the best first: its tokens, the prompt among
    them, and the log of its probability. done: what came to an end, the best first. over: nothing better can come.
    """

    prompt: Sequence[int]
    live: list[tuple[tuple[int, ...], float]]
    done: list[Hypothesis] = field(default_factory=list)
    over: bool = False


@dataclass(frozen=True)
class Beam:
    """How a search goes on: which tokens are followed, how hypotheses are compared, when it is over.

    Args:
        width: hypotheses followed side by side.
        max_length: tokens written at most.
        penalty: alpha of score = log p / ((5 + length) / 6)^alpha.
        stop: the token that ends a sequence.
    """

    width: int
    max_length: int
    penalty: float
    stop: int

    def score(self, log: float, length: int) -> float:
        """What a hypothesis of that log of its probability and that length is compared by."""
        return log / float(((5 + length) / 6) ** self.penalty)

    def advance(self, search: Search, logs: Array, step: int) -> Array:
        """One step of a search.

        Args:
            logs: of the probabilities of the next token, a row for each beam.
            step: the place of the newest token, counted from 0 at the first of the prompt.

        Returns:
            Which beam each new beam goes on from.
        """
        prompt, count = search.prompt, self.width
        same = np.arange(count) % max(len(search.live), 1)
        if step + 1 < len(prompt):
            return same
        live, tokens = search.live, logs.shape[1]
        totals = np.array([log for _, log in live])[:, None] + logs[: len(live)]
        ranked = np.argsort(-totals, axis=None, kind="stable")[: 2 * count]
        made: list[tuple[tuple[int, ...], float]] = []
        parents: list[int] = []
        written = step + 2 - len(prompt)
        for rank, place in enumerate(ranked):
            beam, token = divmod(int(place), tokens)
            total = float(totals[beam, token])
            if token == self.stop:
                if rank < count:
                    told = live[beam][0][len(prompt) :]
                    search.done.append(Hypothesis(told, self.score(total, written), True))
            elif len(made) < count:
                made.append(((*live[beam][0], token), total))
                parents.append(beam)
        search.done = _sorted(search.done)[:count]
        search.live = made or live
        if written >= self.max_length or not made:
            cut = [Hypothesis(t[len(prompt) :], self.score(log, written), False) for t, log in made]
            search.done = _sorted([*search.done, *cut]) if self.width > 1 else search.done or cut
            search.over = True
        elif len(search.done) == count:
            # no later score can be above this one
            bound = max(self.score(made[0][1], n) for n in (written + 1, self.max_length))
            search.over = count == 1 or search.done[-1].score >= bound
        return np.array(parents + [parents[0]] * (count - len(parents))) if parents else same


def _sorted(found: list[Hypothesis]) -> list[Hypothesis]:
    return sorted(found, key=lambda h: -h.score)


__all__ = ["Beam", "Hypothesis", "Search"]
