"""``netrun classify``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ..data.numpy_files import read_npy
from ..data.stats import read_mean
from ..deploy import load
from ..errors import UsageError
from ..net import Net
from ..params import LoadOptions
from . import results
from .device import choose_device
from .loading import loading
from .logs import open_log


def run(args: argparse.Namespace) -> int:
    """Print the best classes of every image; returns the exit code."""
    if not args.model:
        raise UsageError("netrun classify: no net is given", None, ["--model net.prototxt"])
    if not args.weights:
        raise UsageError("netrun classify: no weights are given", None, ["--weights net_iter_1000.caffemodel"])
    labels = _read_labels(args.labels) if args.labels else []
    log = open_log(args.log)
    device = choose_device(args.device, args.gpu, log, "test")
    with load(
        args.model,
        device=device,
        shape=_shape(args.input_shape),
        lenient=args.lenient,
        precision=args.precision,
        deterministic=args.deterministic,
    ) as net:
        for line in net.load(args.weights, LoadOptions.of(loading(args))).lines():
            log(line, "net.cpp:744")
        if args.mean:
            _set_mean(net, args.mean)
        found = net.predict(list(args.images))
    scores = next(iter(found.values())) if isinstance(found, dict) else found
    scores = scores.reshape(len(args.images), -1)
    if labels and len(labels) != scores.shape[1]:
        raise UsageError(f"{args.labels} has {len(labels)} lines, the net tells {scores.shape[1]} classes apart")
    rows = []
    for image, row in zip(args.images, scores, strict=True):
        best = np.argsort(-row, kind="stable")[: args.top]
        rows.append({"image": image, "classes": [_entry(int(i), float(row[i]), labels) for i in best]})
    if args.json:
        results.print_json(rows)
        return 0
    for entry in rows:
        print(entry["image"])
        for found_ in entry["classes"]:
            print(f"  {found_['score']:.4f}  {found_['class']:>4}  {found_.get('label', '')}".rstrip())
    return 0


def _shape(text: str) -> list[int] | None:
    if not text:
        return None
    try:
        shape = [int(part) for part in text.rpartition("=")[2].split(",")]
    except ValueError:
        shape = []
    if len(shape) != 4 or min(shape) < 1:
        raise UsageError(f"--input-shape {text}: N,C,H,W is wanted, 1,3,224,224 say")
    return shape


def _entry(number: int, score: float, labels: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"class": number, "score": score}
    return {**entry, "label": labels[number]} if labels else entry


def _read_labels(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--labels {path}: it cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _set_mean(net: Net, text: str) -> None:
    """``--mean``: numbers, one a channel (B, G, R), a .binaryproto or a .npy file."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        array = read_npy(text) if text.endswith(".npy") else read_mean(text)
    else:
        array = np.array(numbers, np.float32)
    net.predictor.set_mean(array)
