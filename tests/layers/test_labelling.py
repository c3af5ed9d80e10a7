"""CTC against every way there is, decoding, distances, perplexity."""

from __future__ import annotations

import math
from functools import partial
from itertools import groupby, product
from typing import Any

import cases.nets
import numpy as np
import pytest

from netrun.config import schema
from netrun.errors import ConfigError, DataError
from netrun.layers.labelling import edit_distance

net_of = partial(cases.nets.net_of, phase=schema.TRAIN)


def by_counting(x: Any, labels: tuple[int, ...], blank: int) -> float:
    """-log of the probability of the labels: the sum over all ways through x, T K."""
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    total = 0.0
    for way in product(range(x.shape[1]), repeat=len(x)):
        if tuple(c for c, _ in groupby(way) if c != blank) == labels:
            total += float(np.prod([p[t, c] for t, c in enumerate(way)]))
    return -math.log(total) if total else 0.0


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_counts_every_way(device: str, blank: int) -> None:
    a, b = [c for c in range(3) if c != blank]
    rows: list[tuple[int, ...]] = [(a,), (a, b), (a, a), (), (b, a, b), (a, a, a, a)]
    steps = [5, 4, 5, 3, 5, 5]
    x = np.random.default_rng(0).normal(size=(5, len(rows), 3)).astype("float32") * 2
    x_padded = x.copy()
    label = np.full((len(rows), 4), -1)
    for n, row in enumerate(rows):
        label[n, : len(row)] = row
        x_padded[steps[n] :, n] = 1e3
    wanted = [by_counting(x[: steps[n], n].astype(float), row, blank) for n, row in enumerate(rows)]
    with net_of("CTCLoss", f"ctc_param {{ blank: {blank} }}", x.shape, label.shape, (6,), tops=2, device=device) as net:
        found = net.forward(x0=x_padded, x1=label, x2=np.array(steps))
        np.testing.assert_allclose(found["y1"], wanted, 1e-5, 1e-5)
        assert float(found["y0"]) == pytest.approx(np.mean(wanted), rel=1e-5)
        net.backward()
        dx = np.array(net.blobs["x0"].diff)
        for n, end in enumerate(steps):
            assert not dx[end:, n].any()
        assert not dx[:, 5].any()  # four times the same label do not fit into five steps
        np.testing.assert_allclose(dx.sum(axis=2), 0, atol=1e-6)
        with net_of("CTCLoss", f"ctc_param {{ blank: {blank} }}", (4, 1, 3), (1, 4), device=device) as alone:
            alone.forward(x0=x[:4, 1:2], x1=label[1:2])
            alone.backward()
            np.testing.assert_allclose(alone.blobs["x0"].diff[:, 0], dx[:4, 1] * 6, 1e-4, 1e-6)


def test_ctc_refuses_labels_that_are_no_class() -> None:
    with (
        net_of("CTCLoss", "", (3, 2, 4), (2, 2)) as net,
        pytest.raises(DataError, match="layer t: label 7 at position"),
    ):
        net.forward(x0=np.zeros((3, 2, 4)), x1=np.array([[1, 7], [2, -1]]))


def test_decode() -> None:
    best = [[0, 1, 1, 0, 1, 2], [2, 2, 2, 1, 1, 1]]
    x = np.eye(3)[np.array(best).T]
    with net_of("CTCDecode", "", x.shape, (2,), tops=2) as net:
        found = net.forward(x0=x, x1=np.array([6, 4]))
        assert found["y0"].tolist() == [[1, 1, 2, -1, -1, -1], [2, 1, -1, -1, -1, -1]]
        assert found["y1"].tolist() == [3, 2]
        assert net.forward(x0=x, x1=np.array([0, 1]))["y1"].tolist() == [0, 1]


@pytest.mark.parametrize(("a", "b", "wanted"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0),
                                               ("flaw", "lawn", 2), ("same", "same", 0)])  # fmt: skip
def test_edit_distance(a: str, b: str, wanted: int) -> None:
    assert edit_distance(np.array([*map(ord, a)]), np.array([*map(ord, b)])) == wanted


def test_the_rate_is_over_all_labels() -> None:
    with net_of("EditDistance", "", (2, 4), (2, 3), tops=2) as net:
        found = net.forward(x0=[[1, 2, 3, -1], [1, 1, 1, 1]], x1=[[1, 2, 3], [1, -1, -1]])
        assert float(found["y0"]) == pytest.approx(3 / 4)
        assert float(found["y1"]) == 0.5


def test_perplexity_of_even_scores_is_the_number_of_classes() -> None:
    with net_of("Perplexity", "", (6, 7), (6,)) as net:
        assert float(net.forward(x0=np.zeros((6, 7)), x1=np.arange(6))["y0"]) == pytest.approx(7)


REFUSED = [
    ("CTCLoss", "", [(3, 4), (4, 2)], "wants scores T N K"),
    ("CTCLoss", "", [(3, 2, 4), (3, 2)], "wants labels N L"),
    ("CTCLoss", "", [(3, 2, 4), (3, 2)], 'bottom "x0"   T N K = 3 2 4'),
    ("CTCLoss", "ctc_param { blank: 4 }", [(3, 2, 4), (2, 2)], "blank is 4, and there are 4 classes"),
    ("CTCLoss", "", [(3, 2, 4), (2, 2), (3,)], "one number of steps for each sequence"),
    ("EditDistance", "", [(2, 3), (2, 3), (2,)], "wants 2 or 4 bottoms, got 3"),
]


@pytest.mark.parametrize(("kind", "body", "shapes", "text"), REFUSED, ids=str)
def test_refused(kind: str, body: str, shapes: list[Any], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        net_of(kind, body, *shapes)
    assert text in str(error.value)


@pytest.mark.parametrize("distribution", ["UNIFORM", "LOG_UNIFORM"])
def test_sampled_softmax_tends_to_the_whole_one(distribution: str) -> None:
    """The mean gradient of many draws is near that of all classes, and only rows that were drawn get one."""
    body = f"""sampled_softmax_param {{ num_output: 40 num_sampled: 30 distribution: {distribution}
        weight_filler {{ type: "uniform" min: -0.5 max: 0.5 }} }}"""
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(6, 5)), rng.integers(0, 40, 6)
    with net_of("SampledSoftmaxLoss", body, (6, 5), (6,), dtype="float64") as net:
        weight = np.array(net.params["t"][0].data)
        slopes = []
        for _ in range(600):
            net.forward(x0=x, x1=label)
            net.clear_param_diffs()
            net.backward()
            slopes.append(np.array(net.params["t"][0].diff))
    score = x @ weight.T
    p = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    p[np.arange(6), label] -= 1
    wanted = p.T @ x / 6
    assert np.abs(np.mean(slopes, axis=0) - wanted).max() < 0.1 * np.abs(wanted).max()
    assert 6 < np.mean([slope.any(axis=1).sum() for slope in slopes]) < 36


def test_sampled_softmax_refuses() -> None:
    for body, text in (("num_output: 1", "num_output is 1"), ("num_output: 4 num_sampled: 9", "num_sampled is 9")):
        with pytest.raises(ConfigError) as error:
            net_of("SampledSoftmaxLoss", f"sampled_softmax_param {{ {body} }}", (6, 5), (6,))
        assert text in str(error.value)
