"""The table of commands, and how a command line is read; the flags themselves are in ``flags.py``.

Caffe's spelling is understood too: ``-solver x``, ``--sigint_effect=stop``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..errors import UsageError, nearest
from ..version import __version__
from . import flags
from .flag_groups import Parser


@dataclass(frozen=True)
class Command:
    """One command: where its ``run`` is, what it is for, and an example that works as typed."""

    name: str
    module: str
    what: str
    example: str
    add: Callable[[Parser], None]
    aliases: tuple[str, ...] = ()


_TABLE = (
    Command("train", "train", "train a net, or go on training it",
            "netrun train --solver configs/digits/solver.prototxt --set base_lr=0.02", flags.train),
    Command("test", "test", "score a net on its test data",
            "netrun test --model net.prototxt --weights digits_iter_1000.caffemodel --iterations 6", flags.test),
    Command("classify", "classify", "the best classes of images",
            "netrun classify cat.png --model train_val.prototxt --weights net_iter_1000.caffemodel --labels names.txt",
            flags.classify),
    Command("infer", "infer", "write token after token with a trained net, greedily or by beam search",
            "netrun infer configs/attention/reverse_infer.prototxt --weights reverse_iter_600.caffemodel "
            "--vocabulary configs/attention/reverse_tokens.txt --time-major --beam 4 --input lines.txt", flags.infer),
    Command("time", "timing", "time every layer, forward and backward",
            "netrun time --model configs/benchmark/alexnet.prototxt --iterations 5 --input-shape data=16,3,224,224",
            flags.time),
    Command("check", "check", "find the mistakes in nets and solvers, without running them",
            "netrun check configs/mnist/solver.prototxt", flags.check),
    Command("summary", "summary", "the table of layers: shapes, parameters, multiply-adds",
            "netrun summary configs/benchmark/alexnet.prototxt", flags.summary),
    Command("draw", "draw", "a picture of a net", "netrun draw configs/mnist/lenet.prototxt lenet.png", flags.draw),
    Command("plan", "plan", "the program a net becomes, one call a line, and its memory",
            "netrun plan configs/mnist/lenet.prototxt", flags.plan),
    Command("gradcheck", "gradcheck", "hold the gradients of every layer against finite differences",
            "netrun gradcheck configs/mnist/lenet_train_test.prototxt --layer ip2 --input-shape data=4,1,28,28",
            flags.gradcheck),
    Command("devices", "devices", "what can run here, and what is missing", "netrun devices", flags.devices,
            ("device_query",)),
    Command("explain", "explain", "what a field or a layer's parameters mean", "netrun explain Convolution",
            flags.explain),
    Command("expand", "expand", "the plain prototxt that let, def, repeat, if and include stand for",
            "netrun expand configs/imagenet/googlenet/short_train_val.prototxt -o googlenet.prototxt", flags.expand),
    Command("upgrade", "upgrade", "bring old nets, solvers and .caffemodel files to the current form",
            "netrun upgrade v1_train_val.prototxt train_val.prototxt", flags.upgrade),
    Command("data", "data", "make databases, of mnist, cifar10 or a list of images, or a mean file; look into one",
            "netrun data mnist --from ../shared/data/mnist", flags.data),
    Command("features", "features", "write the values of any blobs to a file or database",
            "netrun features --model net.prototxt --weights net_iter_1000.caffemodel --blobs fc7,prob --out fc7.npz",
            flags.features),
)  # fmt: skip

COMMANDS: dict[str, Command] = {command.name: command for command in _TABLE}
_BY_NAME = {name: command for command in _TABLE for name in (command.name, *command.aliases)}


def usage() -> str:
    """What ``netrun`` alone prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {c.name:<{width}}  {c.what}" for c in COMMANDS.values()]
    return "\n".join(
        ["usage: netrun COMMAND [flags]", "", *lines, "",
         "netrun COMMAND --help shows the flags; netrun --version the version.", "",
         "example:", "  netrun train --solver configs/digits/solver.prototxt"]
    )  # fmt: skip


def parser_of(command: Command) -> Parser:
    """The parser of one command; its help ends with an example."""
    parser = Parser(
        prog=f"netrun {command.name}",
        description=f"{command.what[0].upper()}{command.what[1:]}.",
        epilog=f"example:\n  {command.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add(parser)
    return parser


def parse(argv: Sequence[str]) -> tuple[Command | None, argparse.Namespace]:
    """The command and its arguments; None if everything was said already (usage, help, version).

    Raises:
        UsageError: there is no such command, or it has no such flag.
    """
    words = [w for w in map(normal, argv) if not _LOG_TO_STDERR.fullmatch(w)]
    known = [w for w in words if w in _BY_NAME]
    if words and words[0].startswith("-") and known:  # Caffe takes flags in front of the command
        words.remove(known[0])
        words.insert(0, known[0])
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("--help", "-h"):
        print(usage())
        return None, argparse.Namespace()
    if words[0] == "--version":
        print(f"netrun {__version__}")
        return None, argparse.Namespace()
    command = _BY_NAME.get(words[0])
    if command is None:
        kind = "flag" if words[0].startswith("-") else "command"
        hint = nearest(words[0], _BY_NAME)
        raise UsageError(f'netrun: there is no {kind} "{words[0]}"{hint}', None, [f"commands: {', '.join(COMMANDS)}"])
    parser = parser_of(command)
    if "--help" in words or "-h" in words:
        parser.print_help()
        return None, argparse.Namespace()
    args, unknown = parser.parse_known_intermixed_args(words[1:])  # flags may stand between paths
    if unknown:
        _refuse(parser, next((w for w in unknown if w.startswith("-")), unknown[0]))
    return command, args


_FLAG = re.compile(r"--?([A-Za-z][\w-]+)(=.*)?", re.DOTALL)
_LOG_TO_STDERR = re.compile(r"--(also)?logtostderr(=.*)?")
"""Flags of the library Caffe logs with, which many scripts carry; they ask for what netrun does anyway."""


def normal(word: str) -> str:
    """``--sigint-effect=stop`` of ``-sigint_effect=stop``; other words as they are."""
    found = _FLAG.fullmatch(word)
    return f"--{found[1].replace('_', '-')}{found[2] or ''}" if found else word


def _refuse(parser: Parser, word: str) -> NoReturn:
    if not word.startswith("-"):
        parser.error(f'"{word}" is too much')
    flags = [flag for action in parser._actions for flag in action.option_strings]
    name = word.partition("=")[0]
    parser.error(f"there is no flag {name}{nearest(name, flags)}")
