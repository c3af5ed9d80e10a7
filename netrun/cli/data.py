"""``netrun data``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ..data.sets import make_cifar10, make_mnist
from ..data.stats import write_mean
from ..errors import UsageError
from .convert import convert, info, refuse_flags
from .progress import Bar, is_terminal


class _Progress:
    """A bar for each thing that is being done, one after another; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._bar: Bar | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if not is_terminal(sys.stderr):
            return
        if self._bar is None or self._bar.name != what:
            self.clear()
            self._bar = Bar(sys.stderr, what, total)
        self._bar.total = total
        self._bar.update(done)

    def clear(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.clear()


def run(args: argparse.Namespace) -> int:
    """Make databases or a mean file, and print what was made, or look into one; returns the exit code."""
    refuse_flags(args)
    if args.what == "info":
        return info(args)
    progress = _Progress()
    try:
        if args.what == "convert":
            made = convert(args, lambda done, total: progress("convert", done, total))
        else:
            made = _mean(args, progress) if args.what == "mean" else _set(args, progress)
    finally:
        progress.clear()
    for path in made:
        print(path)
    return 0


def _set(args: argparse.Namespace, progress: _Progress) -> list[Path]:
    if args.paths:
        raise UsageError(f'netrun data {args.what}: "{args.paths[0]}" is too much', None, ["--from DIR, --to DIR"])
    makers: dict[str, Callable[..., list[Path]]] = {"mnist": make_mnist, "cifar10": make_cifar10}
    beside_net = Path("configs") / args.what
    target = Path(args.target) if args.target else beside_net if beside_net.is_dir() else Path()
    target.mkdir(parents=True, exist_ok=True)
    return makers[args.what](target, Path(args.source) if args.source else None, progress=progress)


def _mean(args: argparse.Namespace, progress: _Progress) -> list[Path]:
    if len(args.paths) != 2 or args.source or args.target:
        raise UsageError(
            "netrun data mean wants the database and the file to write",
            None,
            ["netrun data mean mnist_train_lmdb mean.binaryproto"],
        )
    source, target = args.paths
    blob = write_mean(source, target, progress=lambda done, total: progress("mean", done, total))
    progress.clear()
    size = blob.height * blob.width
    for channel in range(blob.channels):
        mean = sum(blob.data[channel * size : (channel + 1) * size]) / size
        print(f"mean_value channel [{channel}]: {mean:g}")
    return [Path(target)]
