"""Beam search over a table of probabilities, without a net."""

from __future__ import annotations

import numpy as np
import pytest

from netrun.beam import Beam, Hypothesis, Search

STOP = 0
AFTER = {1: [0.01, 0.01, 0.54, 0.44], 2: [0.3, 0.3, 0.2, 0.2], 3: [0.9, 0.04, 0.03, 0.03]}
"""By the newest token, the probability of each next one: 2 is the likelier first, 3 leads to the likelier whole."""


def searched(beam: Beam, prompt: tuple[int, ...] = (1,)) -> tuple[list[Hypothesis], list[list[int]]]:
    """What a search finds, and which beams went on from which, step by step."""
    search, parents = Search(prompt, [(prompt, 0.0)]), []
    for step in range(len(prompt) + beam.max_length - 1):
        rows = [search.live[min(i, len(search.live) - 1)][0] for i in range(beam.width)]
        newest = [known[min(step, len(known) - 1)] for known in rows]
        parents.append(beam.advance(search, np.log([AFTER[token] for token in newest]), step).tolist())
        if search.over:
            break
    return search.done, parents


def test_one_beam_takes_the_best_token_each_time_and_two_see_further() -> None:
    greedy, _ = searched(Beam(1, 5, 0.0, STOP))
    assert [(h.tokens, h.ended) for h in greedy] == [((2,), True)]
    assert greedy[0].score == pytest.approx(np.log(0.54 * 0.3))
    found, parents = searched(Beam(2, 5, 0.0, STOP))
    assert found[0].tokens == (3,)
    assert found[0].score == pytest.approx(np.log(0.44 * 0.9))
    assert parents[0] == [0, 0]  # both beams come from the prompt


def test_nothing_is_chosen_within_the_prompt() -> None:
    found, parents = searched(Beam(2, 5, 0.0, STOP), (1, 2, 3))
    assert parents[:2] == [[0, 0], [0, 0]]
    assert found[0].tokens == ()
    assert found[0].score == pytest.approx(np.log(0.9))


def test_what_is_too_long_is_cut_off() -> None:
    found, _ = searched(Beam(1, 1, 0.0, STOP))
    assert found == [Hypothesis((2,), pytest.approx(np.log(0.54)), False)]


def test_a_penalty_above_zero_favours_longer_ones() -> None:
    assert Beam(1, 9, 0.0, STOP).score(-2.0, 7) == -2
    assert Beam(1, 9, 1.0, STOP).score(-2.0, 7) == -1
    assert Beam(1, 9, 1.0, STOP).score(-2.0, 1) == -2
