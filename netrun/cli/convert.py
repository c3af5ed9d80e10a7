"""``netrun data convert`` and ``netrun data info``: called by data.py."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ..data.convert import Conversion
from ..data.info import Info, look_into
from ..errors import UsageError
from .results import print_json

MOST_LABELS = 20
"""Labels that info lists; of more than that, the most frequent ones."""
FLAGS = ("resize", "gray", "encoded", "encode_type", "shuffle", "seed", "check_size", "skip_bad", "root")
"""What belongs to convert alone."""


def convert(args: argparse.Namespace, progress: Callable[[int, int], None]) -> list[Path]:
    """Turn an image list into a database; returns what was made.

    Raises:
        UsageError: the arguments are wrong.
        DataError: the list or an image cannot be used.
    """
    source, target = _paths(args, 2, "the list of images and the database to write", "netrun data convert list.txt db")
    conversion = Conversion(
        backend=args.backend or "lmdb",
        root=args.root or "",
        size=_size(args.resize) if args.resize else None,
        gray=bool(args.gray),
        encoded=bool(args.encoded),
        encode_type=args.encode_type or "",
        shuffle=bool(args.shuffle),
        seed=args.seed or 0,
        check_size=bool(args.check_size),
        skip_bad=bool(args.skip_bad),
    )
    count = conversion.convert(source, target, progress)
    for line in conversion.skipped:
        print(f"left out: {line}", file=sys.stderr)
    print(f"{count} images" + (f", {len(conversion.skipped)} left out" if conversion.skipped else ""))
    return [Path(target)]


def info(args: argparse.Namespace) -> int:
    """Print what is in a database; returns the exit code.

    Raises:
        UsageError: the arguments are wrong.
        DataError: the database cannot be read.
    """
    (source,) = _paths(args, 1, "the database to look at", "netrun data info mnist_train_lmdb")
    found = look_into(source)
    if args.json:
        facts = {**vars(found), "labels": {str(label): n for label, n in sorted(found.labels.items())}}
        print_json({key: dict(value) if isinstance(value, Counter) else value for key, value in facts.items()})
        return 0
    print("\n".join(_lines(found)))
    return 0


def refuse_flags(args: argparse.Namespace) -> None:
    """Raises UsageError if a flag is given with something else than it belongs to."""
    # A mean takes a backend too, as Caffe's tool does, but sees for itself what the folder holds.
    strange = ("backend", *FLAGS) if args.what in ("mnist", "cifar10") else FLAGS
    for flag in () if args.what == "convert" else strange:
        if getattr(args, flag) not in (None, False, ""):
            raise UsageError(f"netrun data {args.what}: --{flag.replace('_', '-')} belongs to netrun data convert")
    if args.json and args.what != "info":
        raise UsageError(f"netrun data {args.what}: --json belongs to netrun data info")


def _lines(info: Info) -> list[str]:
    part = "" if info.sampled == info.records else f" (of {info.sampled:,} records, evenly spread)"
    rows = [
        f"{info.source}: {info.kind}, {info.records:,} records",
        f'keys    "{info.first}" to "{info.last}"',
        f"size    {_counted(info.shapes)}{part}",
        f"values  {_counted(info.kinds)}, {info.bytes / info.sampled:,.0f} bytes a record",
    ]
    listed = sorted(info.labels.items())
    if len(listed) > MOST_LABELS:
        listed = info.labels.most_common(MOST_LABELS)
        part = f", the most frequent ones{part}"
    rows.append(f"labels  {len(info.labels):,} from {min(info.labels)} to {max(info.labels)}{part}:")
    width = max(len(str(label)) for label, _ in listed)
    return rows + [f"        {label:>{width}}  {count:,}" for label, count in listed]


def _counted(counter: Counter[str]) -> str:
    if len(counter) == 1:
        return next(iter(counter))
    shown = [f"{name} ({count:,})" for name, count in counter.most_common(4)]
    return ", ".join([*shown, f"{len(counter) - 4} others"] if len(counter) > 4 else shown)


def _paths(args: argparse.Namespace, count: int, what: str, example: str) -> list[str]:
    if len(args.paths) != count or args.source or args.target:
        raise UsageError(f"netrun data {args.what} wants {what}", None, [example])
    paths: list[str] = args.paths
    return paths


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)[x,](\d+)", text)
    if not found or not int(found[1]) or not int(found[2]):
        raise UsageError(f"--resize wants HEIGHTxWIDTH in pixels, got {text}", None, ["--resize 256x256"])
    return int(found[1]), int(found[2])
