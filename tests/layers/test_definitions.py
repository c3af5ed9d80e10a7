"""Layers against their definitions, written out as loops over single numbers in float64, over random configurations.

The recordings show what Caffe gives in a few hundred places; these loops are what it says everywhere else: odd shapes,
ties, strides larger than windows, negative axes, ignored labels, batches of one. Nothing here uses netrun's kernels.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from cases.drawn import Draw, close, fields, ran

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.net import Net

Array = Any
DEVICES = pytest.mark.parametrize("device", ["reference", "cpu"])
TINY = float(np.finfo("float32").tiny)


# ------------------------------------------------------------------------------------------------------------- windows
def meetings(small: list[int], big: list[int], window: tuple[list[int], ...]) -> Any:
    """(position, tap, place): every element of a window that lies inside ``big``."""
    kernel, stride, pad, dilation = window
    for at in itertools.product(*map(range, small)):
        for tap in itertools.product(*map(range, kernel)):
            place = tuple(a * s - p + t * d for a, s, p, t, d in zip(at, stride, pad, tap, dilation, strict=True))
            if all(0 <= q < n for q, n in zip(place, big, strict=True)):
                yield at, tap, place


@DEVICES
@pytest.mark.parametrize("seed", range(60))
def test_convolutions(seed: int, device: str) -> None:
    draw = Draw(seed)
    pick = draw.pick
    rank, groups, outputs = pick.choice((0, 1, 2, 2, 3)), pick.choice((1, 1, 2, 3)), pick.randint(1, 2)
    size, channels = [pick.randint(1, 6) for _ in range(rank)], groups * pick.randint(1, 2)
    window = tuple([pick.randint(low, high) for _ in size] for low, high in ((1, 4), (1, 3), (0, 3), (1, 3)))
    kernel, stride, pad, dilation = window
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    rows = list(zip(size, extent, stride, pad, strict=True))
    transposed = bool(seed % 2)
    # int() cuts towards zero: that is how Caffe divides.
    out = [s * (n - 1) + e - 2 * p if transposed else int((n + 2 * p - e) / s) + 1 for n, e, s, p in rows]
    if any(n < 1 for n in out):
        return
    lead = [pick.randint(1, 2) for _ in range(pick.choice((1, 1, 2)))]
    x = draw.values(*lead, channels, *size)
    per, made = channels // groups, outputs * groups
    weight = draw.values(*((channels, outputs) if transposed else (made, per)), *kernel)
    bias, slope = draw.values(made), draw.values(*lead, made, *out)
    body = {"num_output": made, "group": groups, "axis": draw.axis(len(lead), x.ndim)}
    if rank:
        body.update(kernel_size=kernel, stride=stride, pad=pad, dilation=dilation)
    kind = "Deconvolution" if transposed else "Convolution"
    got = ran(device, kind, f"convolution_param {{ {fields(body)} }}", [x], [slope], [weight, bias])

    flat = x.reshape(-1, *x.shape[len(lead) :]).astype("float64")
    dy = slope.reshape(-1, *slope.shape[len(lead) :]).astype("float64")
    y, dx, dw = np.zeros(dy.shape), np.zeros(flat.shape), np.zeros(weight.shape)
    y += bias.reshape(1, -1, *(1,) * rank)
    small, big = (size, out) if transposed else (out, size)
    for (at, tap, place), g in itertools.product(meetings(small, big, window), range(groups)):
        ins, outs = slice(g * per, (g + 1) * per), slice(g * outputs, (g + 1) * outputs)
        here, there = (at, place) if transposed else (place, at)
        a, b = (slice(None), ins, *here), (slice(None), outs, *there)
        w = (ins if transposed else outs, slice(None), *tap)
        matrix = weight[w].T if transposed else weight[w]  # outputs x inputs
        y[b] += flat[a] @ matrix.T
        dx[a] += dy[b] @ matrix
        gained = dy[b].T @ flat[a]
        dw[w] += gained.T if transposed else gained
    axes = tuple(i for i in range(dy.ndim) if i != 1)
    for found, wanted, what in zip(
        (got[0][0], got[1][0], *got[2]), (y.reshape(slope.shape), dx.reshape(x.shape), dw, dy.sum(axes)),
        ("top", "bottom", "weight", "bias"), strict=True,
    ):  # fmt: skip
        close(found, wanted, f"{kind} {x.shape} {body}: {what}")


@DEVICES
@pytest.mark.parametrize("seed", range(60))
def test_pooling(seed: int, device: str) -> None:
    draw = Draw(seed)
    pick = draw.pick
    x = draw.values(pick.randint(1, 2), pick.randint(1, 2), pick.randint(1, 8), pick.randint(1, 8))
    kernel, stride = ([pick.randint(1, most) for _ in range(2)] for most in (5, 4))
    pad = [pick.randint(0, k - 1) if seed % 3 else 0 for k in kernel]
    floor, largest = pick.random() < 0.3, bool(seed % 2)
    size, rounded = x.shape[2:], math.floor if floor else math.ceil
    out = [rounded((n + 2 * p - k) / s) + 1 for n, k, s, p in zip(size, kernel, stride, pad, strict=True)]
    if any(pad):
        out = [o - ((o - 1) * s >= n + p) for o, n, s, p in zip(out, size, stride, pad, strict=True)]
    if any(o < 1 for o in out):
        return
    y, places, dx = np.zeros((*x.shape[:2], *out)), np.full((*x.shape[:2], *out), -1.0), np.zeros(x.shape)
    slope = draw.values(*y.shape)
    for n, c, i, j in np.ndindex(*y.shape):
        begin = [a * s - p for a, s, p in zip((i, j), stride, pad, strict=True)]
        end = [min(b + k, m + p) for b, k, m, p in zip(begin, kernel, size, pad, strict=True)]
        count = (end[0] - begin[0]) * (end[1] - begin[1])
        box = [range(max(b, 0), min(e, m)) for b, e, m in zip(begin, end, size, strict=True)]
        best = float(np.finfo("float32").min)
        for h, w in itertools.product(*box):
            if largest and x[n, c, h, w] > best:
                best, places[n, c, i, j] = x[n, c, h, w], h * size[1] + w
            elif not largest:
                y[n, c, i, j] += x[n, c, h, w] / count
                dx[n, c, h, w] += slope[n, c, i, j] / count
        if largest:
            y[n, c, i, j] = best
            if places[n, c, i, j] >= 0:
                dx[n, c].flat[int(places[n, c, i, j])] += slope[n, c, i, j]
    body = {"pool": "MAX" if largest else "AVE"}
    for field, pair in (("kernel", kernel), ("stride", stride), ("pad", pad)):
        body.update(zip((f"{field}_h", f"{field}_w"), pair, strict=True))
    text = f"pooling_param {{ {fields(body)} {'round_mode: FLOOR' if floor else ''} }}"
    zero = [slope, np.zeros(slope.shape)][: 1 + largest]
    tops, gradients, _ = ran(device, "Pooling", text, [x], zero, tops=1 + largest)
    close(tops[0], y, f"{x.shape} {text}")
    close(gradients[0], dx, f"{x.shape} {text}: gradient")
    if largest:
        np.testing.assert_array_equal(tops[1], places)


# -------------------------------------------------------------------------------------------------------------- losses
def normaliser(pick: random.Random, counts: dict[str, int], default: str, old: bool) -> tuple[dict[str, Any], int]:
    """Fields of loss_param, and what they divide by."""
    mode, chosen = default, {}
    if pick.random() < 0.5:
        mode = pick.choice(sorted(counts))
        chosen["normalization"] = mode
    if old and pick.random() < 0.3:
        chosen["normalize"] = pick.choice((True, False))
        if "normalization" not in chosen:
            mode = "VALID" if chosen["normalize"] else "BATCH_SIZE"
    return chosen, max(1, counts[mode])


@DEVICES
@pytest.mark.parametrize("seed", range(60))
def test_losses_over_classes(seed: int, device: str) -> None:
    draw = Draw(seed)
    pick, gains = draw.pick, bool(seed % 2)
    x = draw.values(*draw.shape(2, 4))
    axis = pick.choice((1, pick.randint(1, x.ndim - 1)))
    outer, classes, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    label = draw.rng.integers(0, classes, (*x.shape[:axis], *x.shape[axis + 1 :])).astype("float32")
    ignore = pick.choice((None, 0, 255, -1))
    if ignore in (255, -1):
        label[draw.rng.random(label.shape) < pick.choice((0.3, 1))] = ignore
    label[label >= 0] += np.float32(pick.choice((0, 0.6)))  # the fraction is cut off
    gain = draw.values(classes, classes) if gains else np.eye(classes)
    e = np.exp(x.astype("float64"))
    p = np.moveaxis(e / e.sum(axis, keepdims=True), axis, -1).reshape(-1, classes)
    loss, gradient, valid = 0.0, np.zeros(p.shape), 0
    for row, t in enumerate(label.ravel().astype(int)):
        if t != ignore:
            valid += 1
            loss -= float(
                sum(g * math.log(max(q, 1e-20 if gains else TINY)) for g, q in zip(gain[t], p[row], strict=True))
            )
            gradient[row] = p[row] * gain[t].sum() - gain[t]
    counts = {"VALID": valid, "FULL": outer * inner, "BATCH_SIZE": outer, "NONE": 1}
    chosen, norm = normaliser(pick, counts, "VALID", not gains)
    if ignore is not None:
        chosen["ignore_label"] = ignore
    where = "infogain_loss_param" if gains else "softmax_param"
    text = f"loss_param {{ {fields(chosen)} }} {where} {{ axis: {draw.axis(axis, x.ndim)} }}"
    bottoms = [x, label] + ([gain.reshape(1, 1, classes, classes)] if gains else [])
    weight = np.float32(pick.choice((1, 0.3, 2.5)))
    kind = "InfogainLoss" if gains else "SoftmaxWithLoss"
    tops, gradients, _ = ran(device, kind, f"loss_weight: {weight} {text}", bottoms, [weight])
    close(tops[0], loss / norm, f"{kind} {x.shape} {text}")
    whole = np.moveaxis(gradient.reshape(*label.shape, classes), -1, axis) * weight / norm
    close(gradients[0], whole, f"{kind} {x.shape} {text}: gradient")


@DEVICES
@pytest.mark.parametrize("seed", range(40))
def test_sigmoid_cross_entropy(seed: int, device: str) -> None:
    draw = Draw(seed)
    x = draw.values(*draw.shape(1, 4))
    target = (
        draw.rng.random(x.shape).astype("float32") if seed % 2 else draw.rng.integers(0, 2, x.shape).astype("float32")
    )
    ignore = draw.pick.choice((None, 0, 1, 255, -1))
    if ignore in (255, -1):
        target[draw.rng.random(x.shape) < draw.pick.choice((0.3, 1))] = ignore
    loss, gradient, valid = 0.0, np.zeros(x.shape), 0
    for at in np.ndindex(*x.shape):
        if int(target[at]) != ignore:
            valid += 1
            s = 1 / (1 + math.exp(-float(x[at])))
            t = float(target[at])
            loss -= t * math.log(s) + (1 - t) * math.log(1 - s)
            gradient[at] = s - t
    counts = {"VALID": valid, "FULL": x.size, "BATCH_SIZE": x.shape[0], "NONE": 1}
    chosen, norm = normaliser(draw.pick, counts, "BATCH_SIZE", True)
    if ignore is not None:
        chosen["ignore_label"] = ignore
    text = f"loss_param {{ {fields(chosen)} }}"
    tops, gradients, _ = ran(device, "SigmoidCrossEntropyLoss", text, [x, target], [np.float32(1)])
    close(tops[0], loss / norm, text)
    close(gradients[0], gradient / norm, text)


# ----------------------------------------------------------------------------------------------------------- recurrent
def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@DEVICES
@pytest.mark.parametrize("seed", range(16))
def test_sequences_over_two_passes(seed: int, device: str) -> None:
    """LSTM and RNN step by step; the state of the first pass goes on in the second wherever cont is 1."""
    draw = Draw(seed)
    pick, lstm, still = draw.pick, bool(seed % 2), bool(seed // 2 % 2)
    steps, streams, inputs, size = pick.randint(1, 4), pick.randint(1, 3), draw.shape(0, 2), pick.randint(1, 3)
    shapes = [(size, math.prod(inputs)), (size,), *[(size, 2)] * still, (size, size)]
    shapes = [((4 if lstm else 1) * shape[0], *shape[1:]) for shape in shapes]
    weights = [draw.values(*shape) for shape in (shapes if lstm else [*shapes, (size, size), (size,)])]
    kept, cell = np.zeros((streams, size)), np.zeros((streams, size))
    parts = [("x", (steps, streams, *inputs)), ("cont", (steps, streams)), *[("s", (streams, 2))] * still]
    text = ""
    for name, shape in parts:
        dims = " ".join(f"dim: {n}" for n in shape)
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'
    ends = " ".join(f'bottom: "{name}"' for name, _ in parts)
    kind = "LSTM" if lstm else "RNN"
    text += f'layer {{ name: "t" type: "{kind}" {ends} top: "y" recurrent_param {{ num_output: {size} }} }}'
    with Net(parse_net(text)[0], schema.TRAIN, device=device) as net:
        for blob, value in zip(net.params["t"], weights, strict=True):
            blob.data[...] = value
        for _ in range(2):
            given = {name: draw.values(*shape) for name, shape in parts}
            given["cont"] = draw.rng.integers(0, 2, (steps, streams)).astype("float32")
            found = np.array(net.forward(**given)["y"])
            wanted = np.zeros(found.shape)
            for t in range(steps):
                go = given["cont"][t][:, None]
                gates = given["x"][t].reshape(streams, -1) @ weights[0].T.astype("float64") + weights[1]
                if still:
                    gates = gates + given["s"] @ weights[2].T
                gates = gates + (go * kept) @ weights[2 + still].T
                if lstm:
                    i, f, o, g = (gates[:, k * size : (k + 1) * size] for k in range(4))
                    cell = go * sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                    kept = wanted[t] = sigmoid(o) * np.tanh(cell)
                else:
                    kept = np.tanh(gates)
                    wanted[t] = np.tanh(kept @ weights[-2].T + weights[-1])
            close(found, wanted, f"{kind} {steps} x {streams} x {inputs}")


# -------------------------------------------------------------------------------------------------------------- scores
@DEVICES
@pytest.mark.parametrize("seed", range(40))
def test_accuracy(seed: int, device: str) -> None:
    draw = Draw(seed)
    pick = draw.pick
    x = np.round(draw.values(*draw.shape(2, 4)) * 2) / 2
    axis = pick.randint(0, x.ndim - 1)
    classes = x.shape[axis]
    label = draw.rng.integers(0, classes, (*x.shape[:axis], *x.shape[axis + 1 :])).astype("float32")
    top_k, ignore = pick.randint(1, classes), pick.choice((None, 0, 1, 255))
    hits, counts = np.zeros(classes, "float32"), np.zeros(classes, "float32")
    for scores, t in zip(np.moveaxis(x, axis, -1).reshape(-1, classes), label.ravel().astype(int), strict=True):
        if t != ignore:
            counts[t] += 1
            hits[t] += sum(scores[k] >= scores[t] for k in range(classes) if k != t) < top_k
    body: dict[str, Any] = {"top_k": top_k, "axis": draw.axis(axis, x.ndim)}
    if ignore is not None:
        body["ignore_label"] = ignore
    text = f"accuracy_param {{ {fields(body)} }}"
    tops, _, _ = ran(device, "Accuracy", text, [x, label], None, tops=2)
    total = counts.sum()
    assert tops[0] == (hits.sum() / total if total else 0), text
    np.testing.assert_array_equal(tops[1], np.divide(hits, counts, out=np.zeros_like(hits), where=counts > 0))


@DEVICES
@pytest.mark.parametrize("seed", range(40))
def test_arg_max(seed: int, device: str) -> None:
    draw = Draw(seed)
    pick = draw.pick
    x = np.round(draw.values(*draw.shape(1, 4)) * 2) / 2
    by_axis, values = bool(seed % 2), pick.choice((True, False))
    axis = pick.randint(0, x.ndim - 1)
    rows = np.moveaxis(x, axis, -1) if by_axis else x.reshape(x.shape[0], -1)
    top_k = pick.randint(1, rows.shape[-1])
    pairs = np.zeros((2, *rows.shape[:-1], top_k), "float32")
    for at in np.ndindex(*rows.shape[:-1]):
        best = sorted(((float(v), i) for i, v in enumerate(rows[at])), reverse=True)[:top_k]
        pairs[(0, *at)], pairs[(1, *at)] = [i for _, i in best], [v for v, _ in best]
    if by_axis:
        wanted = np.moveaxis(pairs[int(values)], -1, axis)
    else:
        wanted = np.moveaxis(pairs[: 1 + values], 0, 1).reshape(x.shape[0], 1 + values, top_k, *(1,) * (x.ndim - 3))
    body: dict[str, Any] = {"top_k": top_k, "out_max_val": values}
    if by_axis:
        body["axis"] = draw.axis(axis, x.ndim)
    tops, _, _ = ran(device, "ArgMax", f"argmax_param {{ {fields(body)} }}", [x], None)
    np.testing.assert_array_equal(tops[0], wanted, f"{x.shape} {body}")
