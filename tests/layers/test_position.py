"""Position encodings against sines and cosines one by one; positions that are carried on; what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases.attention_loops import drawn, first, near, opened, outcome, text_of, weights

from netrun.compiler.graph import State, build
from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import ConfigError, DataError


def sines(steps: int, size: int, begin: int, base: float = 10000) -> Any:
    table = np.zeros((steps, size))
    for t in range(steps):
        for d in range(size):
            angle = (begin + t) / base ** (d // 2 * 2 / size)
            table[t, d] = math.cos(angle) if d % 2 else math.sin(angle)
    return table


@pytest.mark.parametrize("major", [False, True])
def test_position_encoding(major: bool) -> None:
    x, offset = drawn(2, 4, 5), np.array([0, 7], "float32")
    time = f"time_major: {str(major).lower()}"
    given = first(major, x)
    with opened("PositionEncoding", f"position_encoding_param {{ {time} }}", given) as net:
        near(first(major, outcome(net, given)[0]), x + sines(4, 5, 0))
    with opened("PositionEncoding", f"position_encoding_param {{ {time} base: 9 }}", given, offset) as net:
        wanted = x + np.stack([sines(4, 5, 0, 9), sines(4, 5, 7, 9)])
        near(first(major, outcome(net, given, offset)[0]), wanted)
    learned = f"position_encoding_param {{ {time} learned: true max_length: 11 }}"
    with opened("PositionEncoding", learned, given, offset) as net:
        rows = weights(net)[0]
        assert 0.005 < rows.std() < 0.04
        near(first(major, outcome(net, given, offset)[0]), x + np.stack([rows[:4], rows[7:]]))
        with pytest.raises(DataError, match=r"11 .*is not in 0\.\.10"):
            outcome(net, given, offset + 1)


def test_positions_are_counted_on() -> None:
    x = drawn(2, 2, 6)
    with opened("PositionEncoding", "position_encoding_param { carry: true }", x, np.ones(2)) as net:
        for cont, begin in ((1, 0), (1, 2), (1, 4), (0, 0), (1, 2)):
            near(outcome(net, x, np.full(2, cont, "float32"))[0], x + sines(2, 6, begin))


@pytest.mark.parametrize(
    ("fields", "bottoms", "words"),
    [
        ("", [np.zeros((2, 3))], ["3 axes", "got 2"]),
        ("", [np.zeros((2, 4, 6)), np.zeros(3)], ["one number a sequence", "N = 2"]),
        ("base: 0", [np.zeros((2, 4, 6))], ["base is 0"]),
        ("max_length: 9", [np.zeros((2, 4, 6))], ["learned: true"]),
        ("learned: true max_length: 3", [np.zeros((2, 4, 6))], ["4 steps", "max_length is 3"]),
    ],
)
def test_refused(fields: str, bottoms: list[Any], words: list[str]) -> None:
    text = text_of("PositionEncoding", f"position_encoding_param {{ {fields} }}", *bottoms)
    net, source = parse_net(text, "net.prototxt")
    with pytest.raises(ConfigError, match=r"^net.prototxt:\d+:\d+: t \(PositionEncoding\): ") as error:
        build(net, source, State(schema.TRAIN))
    for word in words:
        assert word in str(error.value)
