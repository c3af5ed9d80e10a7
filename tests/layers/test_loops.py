"""Layers against plain loops over their definition, in places no recording goes to."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import cases.nets
import numpy as np
import pytest

RNG = np.random.default_rng(8)
MODES = ("VALID", "FULL", "BATCH_SIZE", "NONE")


net_of = partial(cases.nets.net_of, dtype="float64")


def tops_of(kind: str, body: str, *values: Any, tops: int = 1, params: Any = ()) -> list[Any]:
    arrays = [np.asarray(v, float) for v in values]
    with net_of(kind, body, *(a.shape for a in arrays), tops=tops) as net:
        for blob, value in zip(net.params.get("t", []), params, strict=False):
            blob.data[...] = value
        net.forward(**{f"x{i}": a for i, a in enumerate(arrays)})
        return [np.array(net.blobs[f"y{i}"].data) for i in range(tops)]


def softmax(x: Any, axis: int) -> Any:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def divided(total: float, mode: str, outer: int, inner: int, valid: int) -> float:
    return total / max(1, {"VALID": valid, "FULL": outer * inner, "BATCH_SIZE": outer, "NONE": 1}[mode])


@pytest.mark.parametrize("labels", ["some", "all", "none"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("axis", [1, -1, 2])
def test_softmax_losses(mode: str, axis: int, labels: str) -> None:
    x = RNG.normal(size=(2, 3, 3))
    where = axis % 3
    outer, inner = math.prod(x.shape[:where]), math.prod(x.shape[where + 1 :])
    label = RNG.integers(0, 3, [n for i, n in enumerate(x.shape) if i != where])
    label = {"some": label, "all": np.full_like(label, 1), "none": np.where(label == 1, 0, label)}[labels]
    loss = f"loss_param {{ ignore_label: 1 normalization: {mode} }}"
    p, gain = softmax(x, where), RNG.random((3, 3))
    plain = weighted = 0.0
    valid = 0
    for place in np.ndindex(label.shape):
        if label[place] == 1:
            continue
        scores = p[(*place[:where], slice(None), *place[where:])]
        plain -= math.log(scores[label[place]])
        weighted -= float(gain[label[place]] @ np.log(scores))
        valid += 1
    (y,) = tops_of("SoftmaxWithLoss", f"softmax_param {{ axis: {axis} }} {loss}", x, label)
    assert float(y) == pytest.approx(divided(plain, mode, outer, inner, valid))
    (y,) = tops_of("InfogainLoss", f"infogain_loss_param {{ axis: {axis} }} {loss}", x, label, gain)
    assert float(y) == pytest.approx(divided(weighted, mode, outer, inner, valid))


@pytest.mark.parametrize("mode", MODES)
def test_sigmoid_loss(mode: str) -> None:
    x, t = RNG.normal(size=(3, 4)) * 3, RNG.choice([0.0, 1.0, 0.4, 2.0, -0.3], (3, 4))
    total, valid = 0.0, 0
    for a, b in zip(x.ravel(), t.ravel(), strict=True):
        if int(b) != 0:
            s = 1 / (1 + math.exp(-a))
            total -= b * math.log(s) + (1 - b) * math.log(1 - s)
            valid += 1
    (y,) = tops_of("SigmoidCrossEntropyLoss", f"loss_param {{ ignore_label: 0 normalization: {mode} }}", x, t)
    assert float(y) == pytest.approx(divided(total, mode, 3, 4, valid))


@pytest.mark.parametrize(("axis", "k"), [(1, 1), (1, 2), (-1, 2), (0, 1)])
def test_accuracy_a_class(axis: int, k: int) -> None:
    x = RNG.integers(-2, 3, (4, 4, 4)).astype(float)
    where = axis % 3
    label = RNG.integers(0, 4, (4, 4))
    right, seen = np.zeros(4), np.zeros(4)
    for place in np.ndindex(4, 4):
        true = label[place]
        if true == 2:
            continue
        scores = x[(*place[:where], slice(None), *place[where:])]
        ahead = sum(scores[j] >= scores[true] for j in range(4) if j != true)
        seen[true] += 1
        right[true] += ahead < k
    body = f"accuracy_param {{ axis: {axis} top_k: {k} ignore_label: 2 }}"
    share, classes = tops_of("Accuracy", body, x, label, tops=2)
    assert float(share) == pytest.approx(right.sum() / seen.sum())
    np.testing.assert_allclose(classes, right / np.maximum(seen, 1))


def test_label_weights_of_zero() -> None:
    """A loss weight of 0 silences a loss; the other of two tops may count."""
    with net_of("SoftmaxWithLoss", "loss_weight: 0", (2, 3), (2,)) as net:
        net.forward(x0=RNG.normal(size=(2, 3)), x1=[0, 1])
        assert net.loss == 0
    with net_of("SoftmaxWithLoss", "loss_weight: 0 loss_weight: 2", (2, 3), (2,), tops=2) as net:
        net.forward(x0=RNG.normal(size=(2, 3)), x1=[0, 1])
        assert net.loss == pytest.approx(4)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("shape { dim: 0 dim: 0 dim: -1 }", (2, 3, 20)),
        ("axis: 1 shape { dim: -1 }", (2, 60)),
        ("axis: -3 num_axes: 1 shape { dim: 2 dim: 2 }", (2, 3, 2, 2, 5)),
        ("axis: 1 num_axes: 2 shape { dim: 6 dim: -1 }", (2, 6, 2, 5)),
        ("axis: 1 num_axes: 0 shape { dim: 1 dim: 1 }", (2, 1, 1, 3, 4, 5)),
        ("axis: -1 shape { dim: 1 }", (2, 3, 4, 5, 1)),
        ("axis: 2 num_axes: -1 shape { dim: 0 dim: 5 dim: 1 }", (2, 3, 4, 5, 1)),
        ("num_axes: 0 shape { dim: 1 }", (1, 2, 3, 4, 5)),
    ],
)
def test_reshape(body: str, shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=(2, 3, 4, 5))
    (y,) = tops_of("Reshape", f"reshape_param {{ {body} }}", x)
    np.testing.assert_array_equal(y, x.reshape(shape))


@pytest.mark.parametrize("axis", [0, 1, -1, -2, -3])
def test_joining_and_cutting(axis: int) -> None:
    x = RNG.normal(size=(4, 6, 4))
    first, second = tops_of("Slice", f"slice_param {{ axis: {axis} slice_point: 1 }}", x, tops=2)
    cut = np.split(x, [1], axis)
    np.testing.assert_array_equal(first, cut[0])
    np.testing.assert_array_equal(second, cut[1])
    (y,) = tops_of("Concat", f"concat_param {{ axis: {axis} }}", second, first)
    np.testing.assert_array_equal(y, np.concatenate(cut[::-1], axis))
    (y,) = tops_of("Tile", f"tile_param {{ axis: {axis} tiles: 3 }}", x)
    np.testing.assert_array_equal(y, np.concatenate([x] * 3, axis))


@pytest.mark.parametrize(
    ("body", "begin", "shape"),
    [
        ("", (0, 0, 0, 0), (5, 6, 3, 2)),
        ("axis: 2 offset: 1", (0, 0, 1, 1), (5, 6, 3, 2)),
        ("axis: -1 offset: 3", (0, 0, 0, 3), (5, 6, 7, 2)),
        ("axis: -2 offset: 4 offset: 0", (0, 0, 4, 0), (5, 6, 3, 2)),
        ("axis: 0 offset: 1", (1, 1, 1, 1), (2, 3, 3, 2)),
        ("axis: 1 offset: 3 offset: 0 offset: 2", (0, 3, 0, 2), (5, 3, 3, 2)),
    ],
)
def test_crop(body: str, begin: tuple[int, ...], shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=(5, 6, 7, 6))
    (y,) = tops_of("Crop", f"crop_param {{ {body} }}", x, np.zeros((2, 3, 3, 2)))
    np.testing.assert_array_equal(y, x[tuple(slice(b, b + n) for b, n in zip(begin, shape, strict=True))])


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_argmax(axis: int | None, values: bool) -> None:
    x = RNG.permutation(24).reshape(4, 3, 2).astype(float)
    where = f"axis: {axis}" if axis is not None else ""
    (y,) = tops_of("ArgMax", f"argmax_param {{ top_k: 2 {where} out_max_val: {str(values).lower()} }}", x)
    if axis is None:
        order = np.argsort(-x.reshape(4, -1), axis=1)[:, :2]
        best = np.take_along_axis(x.reshape(4, -1), order, 1)
        wanted = np.stack([order, best], 1) if values else order[:, None]
    else:
        order = np.argsort(-x, axis=axis).take([0, 1], axis)
        wanted = np.take_along_axis(x, order, axis) if values else order
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("operation", ["SUM", "ASUM", "SUMSQ", "MEAN"])
@pytest.mark.parametrize("axis", [0, 1, -1, 2])
def test_reduction(operation: str, axis: int) -> None:
    x = RNG.normal(size=(2, 3, 4))
    rows = x.reshape(*x.shape[: axis % 3], -1)
    part = {"SUM": rows, "ASUM": abs(rows), "SUMSQ": rows**2, "MEAN": rows / rows.shape[-1]}[operation]
    (y,) = tops_of("Reduction", f"reduction_param {{ operation: {operation} axis: {axis} coeff: -2 }}", x)
    np.testing.assert_allclose(y, -2 * part.sum(axis=-1))


@pytest.mark.parametrize(("body", "shape"), [
    ("axis: 0", (4,)), ("axis: 1 num_axes: 2", (3, 2)), ("axis: -1", (5,)), ("axis: -2 num_axes: -1", (2, 5)),
    ("axis: 0 num_axes: 0", ()), ("axis: 2 num_axes: 0", ()), ("axis: 0 num_axes: -1", (4, 3, 2, 5)),
])  # fmt: skip
def test_scale_and_bias(body: str, shape: tuple[int, ...]) -> None:
    x, factor, shift = RNG.normal(size=(4, 3, 2, 5)), RNG.normal(size=shape), RNG.normal(size=shape)
    first = 0 if not shape else next(i for i in range(4) if x.shape[i : i + len(shape)] == shape)
    wide = (*(1,) * first, *shape, *(1,) * (4 - first - len(shape)))
    wanted = x * factor.reshape(wide) + shift.reshape(wide)
    (y,) = tops_of("Scale", f"scale_param {{ {body} bias_term: true }}", x, params=[factor, shift])
    np.testing.assert_allclose(y, wanted)
    (y,) = tops_of("Bias", f"bias_param {{ {body} }}", x, params=[shift])
    np.testing.assert_allclose(y, x + shift.reshape(wide))
    axis = body.split("num_axes")[0]
    (y,) = tops_of("Scale", f"scale_param {{ {axis} bias_term: true }}", x, factor, params=[shift])
    np.testing.assert_allclose(y, wanted)


@pytest.mark.parametrize("power", [0, 1, 2, 0.5, -1, 3])
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (2, 0.5), (0, 3), (-1, 4)])
def test_power(power: float, scale: float, shift: float) -> None:
    x = RNG.random((2, 3)) + 0.5
    (y,) = tops_of("Power", f"power_param {{ power: {power} scale: {scale} shift: {shift} }}", x)
    np.testing.assert_allclose(y, (shift + scale * x) ** power)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 3, 4, 5), (1, 2, 3, 2, 2)])
def test_mvn(shape: tuple[int, ...], across: bool, variance: bool) -> None:
    x = RNG.normal(size=shape)
    rows = x.reshape(shape[0] if across else shape[0] * shape[1], -1)
    wanted = rows - rows.mean(axis=1, keepdims=True)
    if variance:
        wanted = wanted / (rows.std(axis=1, keepdims=True) + 0.25)
    body = (
        f"mvn_param {{ across_channels: {str(across).lower()} normalize_variance: {str(variance).lower()} eps: 0.25 }}"
    )
    (y,) = tops_of("MVN", body, x)
    np.testing.assert_allclose(y.reshape(-1), wanted.reshape(-1), atol=1e-12)
    assert len(y.shape) == max(4, len(shape))


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("within", [False, True])
def test_lrn(size: int, within: bool) -> None:
    x = RNG.normal(size=(2, 4, 3, 5))
    wanted, reach = np.empty_like(x), size // 2
    for n, c, h, w in np.ndindex(x.shape):
        if within:
            part = x[n, c, max(0, h - reach) : h + reach + 1, max(0, w - reach) : w + reach + 1]
            scale = 1 + 0.3 / size**2 * (part**2).sum()
        else:
            scale = 2 + 0.3 / size * (x[n, max(0, c - reach) : c + reach + 1, h, w] ** 2).sum()
        wanted[n, c, h, w] = x[n, c, h, w] * scale**-0.6
    region = "WITHIN_CHANNEL" if within else "ACROSS_CHANNELS"
    (y,) = tops_of("LRN", f"lrn_param {{ local_size: {size} alpha: 0.3 beta: 0.6 k: 2 norm_region: {region} }}", x)
    np.testing.assert_allclose(y, wanted, 1e-6)


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize(("height", "width", "levels"), [(8, 8, 3), (7, 5, 2), (6, 9, 3), (3, 3, 1), (4, 7, 2)])
def test_spp(height: int, width: int, levels: int, pool: str) -> None:
    x = RNG.normal(size=(2, 3, height, width))
    parts = []
    for level in range(levels):
        bins = 2**level
        sizes = []
        for n in (height, width):
            kernel = -(-n // bins)
            pad = (kernel * bins - n + 1) // 2
            out = -(-(n + 2 * pad - kernel) // kernel) + 1
            if pad and (out - 1) * kernel >= n + pad:
                out -= 1
            sizes.append((n, kernel, pad, out))
        if any(pad for _, _, pad, _ in sizes):  # one of them padded: the rule holds for both
            sizes = [(n, k, p, o - ((o - 1) * k >= n + p)) for n, k, p, o in sizes]
        (h, kh, ph, oh), (w, kw, pw, ow) = sizes
        y = np.empty((2, 3, oh, ow))
        for i, j in itertools.product(range(oh), range(ow)):
            top, left = i * kh - ph, j * kw - pw
            part = x[:, :, max(0, top) : min(h, top + kh), max(0, left) : min(w, left + kw)]
            area = (min(top + kh, h + ph) - top) * (min(left + kw, w + pw) - left)
            y[:, :, i, j] = part.max(axis=(2, 3)) if pool == "MAX" else part.sum(axis=(2, 3)) / area
        parts.append(y)
    wanted = parts[0] if levels == 1 else np.concatenate([p.reshape(2, -1) for p in parts], axis=1)
    (got,) = tops_of("SPP", f"spp_param {{ pyramid_height: {levels} pool: {pool} }}", x)
    np.testing.assert_allclose(got, wanted)


@pytest.mark.parametrize(
    ("groups", "dilation", "stride", "pad"), [(1, 1, 2, 1), (2, 1, 1, 0), (2, 2, 2, 1), (4, 2, 3, 0)]
)
def test_deconvolution(groups: int, dilation: int, stride: int, pad: int) -> None:
    x, w, b = RNG.normal(size=(2, 4, 3, 2)), RNG.normal(size=(4, 8 // groups, 3, 3)), RNG.normal(size=8)
    size = [stride * (n - 1) + dilation * 2 + 1 for n in (3, 2)]
    wanted = np.zeros((2, 8, *size))
    for n, c, i, j in np.ndindex(x.shape):
        for k, u, v in np.ndindex(w.shape[1:]):
            out = (c // (4 // groups)) * (8 // groups) + k
            wanted[n, out, i * stride + u * dilation, j * stride + v * dilation] += x[n, c, i, j] * w[c, k, u, v]
    wanted = wanted[:, :, pad : size[0] - pad, pad : size[1] - pad] + b.reshape(1, -1, 1, 1)
    body = f"num_output: 8 kernel_size: 3 group: {groups} dilation: {dilation} stride: {stride} pad: {pad}"
    (y,) = tops_of("Deconvolution", f"convolution_param {{ {body} }}", x, params=[w, b])
    np.testing.assert_allclose(y, wanted, atol=1e-12)


def test_convolution_with_several_batch_axes_and_none_that_is_spatial() -> None:
    x, w, b = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(2, 4, 2)), RNG.normal(size=2)
    wanted = np.array([[[(x[n, m, :, i : i + 2] * w[k]).sum() + b[k] for i in range(4)] for k in range(2)]
                       for n in range(2) for m in range(3)]).reshape(2, 3, 2, 4)  # fmt: skip
    (y,) = tops_of("Convolution", "convolution_param { axis: 2 num_output: 2 kernel_size: 2 }", x, params=[w, b])
    np.testing.assert_allclose(y, wanted)
    flat, v = RNG.normal(size=(3, 4)), RNG.normal(size=(6, 2))
    wanted = np.concatenate([flat[:, :2] @ v[:3].T, flat[:, 2:] @ v[3:].T], axis=1)
    (y,) = tops_of("Convolution", "convolution_param { group: 2 num_output: 6 bias_term: false }", flat, params=[v])
    np.testing.assert_allclose(y, wanted)


def test_embed_without_bias_cuts_fractions_off() -> None:
    w = RNG.normal(size=(4, 3))
    body = "embed_param { input_dim: 4 num_output: 3 bias_term: false }"
    (y,) = tops_of("Embed", body, [[0, 3.9], [1.2, 2]], params=[w])
    np.testing.assert_array_equal(y, w[[[0, 3], [1, 2]]])


@pytest.mark.parametrize("operation", ["SUM", "PROD", "MAX"])
def test_eltwise(operation: str) -> None:
    a, b, c = RNG.normal(size=(3, 2, 3, 4))
    coefficients = "coeff: 0.5 coeff: -2 coeff: 0" if operation == "SUM" else ""
    wanted = {"SUM": 0.5 * a - 2 * b, "PROD": a * b * c, "MAX": np.maximum(np.maximum(a, b), c)}[operation]
    (y,) = tops_of("Eltwise", f"eltwise_param {{ operation: {operation} {coefficients} }}", a, b, c)
    np.testing.assert_allclose(y, wanted)


TWO = [
    ("EuclideanLoss", "", (3, 4), (3, 4)), ("Eltwise", "", (3, 4), (3, 4)), ("Concat", "", (3, 4), (3, 4)),
    ("Scale", "", (3, 4), (4,)), ("Bias", "", (3, 4), (4,)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "first", "second"), TWO, ids=lambda v: str(v))
@pytest.mark.parametrize("asked", [(True, False), (False, True), (False, False)])
def test_propagate_down(kind: str, body: str, first: Any, second: Any, asked: tuple[bool, bool]) -> None:
    if kind in ("Scale", "Bias"):
        body = f"{kind.lower()}_param {{ axis: 1 }}"
    said = " ".join(f"propagate_down: {str(a).lower()}" for a in asked)
    with net_of(kind, f"{body} {said}", first, second) as net:
        net.forward(x0=RNG.normal(size=first), x1=RNG.normal(size=second))
        net.backward(y0=np.ones(net.blobs["y0"].shape))
        for i, want in enumerate(asked):
            assert bool(net.blobs[f"x{i}"].diff.any()) == want


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_a_sequence_in_pieces_is_the_whole_sequence(kind: str) -> None:
    """The state carries over from forward to forward, and a reset or a cont of 0 ends it."""
    x, cont = RNG.normal(size=(6, 2, 3)), np.ones((6, 2))
    cont[4, 1] = 0
    fill = 'recurrent_param { num_output: 4 weight_filler { type: "uniform" min: -1 } }'
    with net_of(kind, fill, (6, 2, 3), (6, 2)) as whole, net_of(kind, fill, (2, 2, 3), (2, 2)) as part:
        for a, b in zip(whole.params["t"], part.params["t"], strict=True):
            b.data[...] = a.data
        y = np.array(whole.forward(x0=x, x1=cont)["y0"])
        for _ in range(2):
            pieces = [np.array(part.forward(x0=x[i : i + 2], x1=cont[i : i + 2])["y0"]) for i in (0, 2, 4)]
            np.testing.assert_allclose(np.concatenate(pieces), y, 1e-12)
            part.reset_states()
        again = whole.forward(x0=x, x1=cont)["y0"]
        assert not np.allclose(again, y)
        cont[0] = 0
        np.testing.assert_allclose(whole.forward(x0=x, x1=cont)["y0"], y, 1e-12)
