"""Rows of the attention layers and of position encodings: padded and not, causal, masked, cached."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.layer_case import GAUSS, TRAIN, Bottom, row, x
from cases.values import Rng


def lengths(*values: int) -> Bottom:
    """A length for each sequence; the first alone for a batch of one."""
    return x(len(values), values=lambda rng, dtype, *shape: np.array(values[: shape[0]], dtype))


def mask(*shape: int, batch: bool = True) -> Bottom:
    """Two of three places may be looked at; the first query of a sequence may look at nothing."""

    def draw(rng: Rng, dtype: str, *shape: int) -> Any:
        values = rng.random(shape) < 0.67
        values[..., 0, :] = False
        return values.astype(dtype)

    return Bottom(shape, draw, batch)


def param(text: str = "") -> str:
    """An attention_param with drawn weights and biases."""
    return f"attention_param {{ {text} {GAUSS} }}"


_DOT = "DotProductAttention"
row(_DOT, "plain", "", x(2, 3, 4), x(2, 5, 4), x(2, 5, 3))
row(_DOT, "lengths, one of them 0", "", x(3, 2, 4), x(3, 5, 4), x(3, 5, 3), lengths(3, 5, 0), wants=[0, 1, 2])
row(_DOT, "causal, weights shown", "attention_param { causal: true scale: 1 }", x(2, 4, 3), x(2, 4, 3), x(2, 4, 2),
    tops=2)  # fmt: skip
row(_DOT, "causal, lengths, learned scale, both tops", "attention_param { causal: true learned_scale: true }",
    x(2, 4, 3), x(2, 4, 3), x(2, 4, 2), lengths(2, 4), wants=[0, 1, 2], tops=2)  # fmt: skip
row(_DOT, "mask, time first", "attention_param { time_major: true }", x(3, 2, 4, batch=False), x(5, 2, 4, batch=False),
    x(5, 2, 3, batch=False), mask(2, 3, 5, batch=False), wants=[0, 1, 2], single=False)  # fmt: skip
row(_DOT, "time first, lengths, a mask for all", "attention_param { time_major: true scale: 0.3 }",
    x(3, 2, 4, batch=False), x(5, 2, 4, batch=False), x(5, 2, 3, batch=False), lengths(4, 2), wants=[0, 1, 2],
    single=False)  # fmt: skip
row(_DOT, "one query, both tops", "", x(2, 4), x(2, 5, 4), x(2, 5, 3), mask(1, 1, 5, batch=False), wants=[0, 1, 2],
    tops=2)  # fmt: skip
row(_DOT, "in training", "attention_param { dropout_ratio: 0.4 }", x(2, 3, 4), x(2, 5, 4), x(2, 5, 3), lengths(4, 5),
    wants=[0, 1, 2], tops=2, phase=TRAIN)  # fmt: skip

_ADD = "AdditiveAttention"
row(_ADD, "one query, both tops", param("num_output: 3"), x(2, 4), x(2, 5, 3), tops=2)
row(_ADD, "several, lengths", param("num_output: 3 bias_term: false"), x(3, 2, 4), x(3, 5, 2), lengths(2, 5, 0),
    wants=[0, 1])  # fmt: skip
row(_ADD, "time first, mask", param("num_output: 2 time_major: true"), x(3, 2, 4, batch=False), x(4, 2, 3, batch=False),
    mask(2, 3, 4, batch=False), wants=[0, 1], single=False)  # fmt: skip
row(_ADD, "one query, memory time first, lengths", param("num_output: 2 time_major: true"), x(2, 4, batch=False),
    x(4, 2, 3, batch=False), lengths(3, 1), wants=[0, 1], tops=2, single=False)  # fmt: skip
row(_ADD, "causal, in training", param("num_output: 2 causal: true dropout_ratio: 0.3"), x(2, 4, 3), x(2, 4, 3),
    phase=TRAIN)  # fmt: skip

_HEADS = "MultiHeadAttention"
row(_HEADS, "itself", param("num_heads: 2"), x(2, 4, 6))
row(_HEADS, "itself, lengths, causal, weights", param("num_heads: 2 causal: true"), x(3, 4, 4), lengths(2, 4, 0),
    wants=[0], tops=2)  # fmt: skip
row(_HEADS, "memory, sizes of its own", param("num_heads: 2 key_size: 3 value_size: 2 num_output: 5 scale: 0.7"),
    x(2, 3, 4), x(2, 5, 3))  # fmt: skip
row(_HEADS, "memory, lengths, no bias", param("num_heads: 3 key_size: 2 bias_term: false"), x(3, 3, 4), x(3, 5, 2),
    lengths(1, 5, 0), wants=[0, 1])  # fmt: skip
row(_HEADS, "memory, mask", param("num_heads: 2"), x(2, 3, 4), x(2, 5, 4), mask(2, 1, 3, 5), wants=[0, 1], tops=2)
row(_HEADS, "mask for each head", param("num_heads: 2"), x(2, 3, 4), mask(1, 2, 3, 3, batch=False), wants=[0])
row(_HEADS, "time first, lengths, rotary", param("num_heads: 2 time_major: true rotary: true rotary_base: 30"),
    x(4, 2, 4, batch=False), lengths(3, 4), wants=[0], single=False)  # fmt: skip
row(_HEADS, "rotary, memory", param("rotary: true"), x(2, 3, 4), x(2, 5, 4))
row(_HEADS, "in training", param("num_heads: 2 dropout_ratio: 0.4"), x(2, 4, 4), phase=TRAIN)
row(_HEADS, "cache, several steps", param("num_heads: 2 cache: 6"), x(2, 3, 4))
row(_HEADS, "cache, one step, cont, rotary", param("num_heads: 2 cache: 3 rotary: true"), x(2, 1, 4), lengths(1, 0),
    wants=[0], tops=2)  # fmt: skip
row(_HEADS, "cache, time first, cont, rotary", param("cache: 4 rotary: true time_major: true"), x(3, 2, 4, batch=False),
    lengths(0, 1), wants=[0], single=False)  # fmt: skip

_POSITION = "PositionEncoding"
row(_POSITION, "sines", "", x(2, 4, 5))
row(_POSITION, "sines, time first, offset", "position_encoding_param { time_major: true base: 50 }",
    x(4, 2, 6, batch=False), lengths(3, 0), wants=[0], single=False)  # fmt: skip
row(_POSITION, "learned", "position_encoding_param { learned: true }", x(2, 4, 3))
row(_POSITION, "learned, longer, time first", "position_encoding_param { learned: true max_length: 6 time_major: true "
    "}", x(4, 2, 3, batch=False), single=False)  # fmt: skip
row(_POSITION, "learned, offset", "position_encoding_param { learned: true max_length: 6 }", x(2, 4, 3), lengths(2, 1),
    wants=[0])  # fmt: skip
row(_POSITION, "carried, cont", "position_encoding_param { carry: true }", x(2, 1, 4), lengths(1, 0), wants=[0])
row(_POSITION, "carried, learned", "position_encoding_param { carry: true learned: true }", x(2, 3, 4))
