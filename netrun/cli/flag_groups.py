"""Flags and arguments that several commands have, one function a group."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ..errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are UsageErrors: one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise UsageError(f"{self.prog}: {message}", None, [f"{self.prog} --help lists its flags"])


def whole(text: str) -> int:
    """A whole number.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wants a whole number, got '{text}'") from None


def count(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"wants a number of at least 1, got '{text}'")
    return value


def device(parser: Parser, default: str = "auto, or what the solver says") -> None:
    """Where it runs."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--device", metavar="D", default="", help=f"auto, cpu, cuda:N, reference or null (default: {default})"
    )
    group.add_argument("--gpu", metavar="N", default="", help="as in Caffe: the number of a GPU, all, or none")


def state(parser: Parser, phase: str | None = "TRAIN") -> None:
    """What the rules of layers see."""
    if phase:
        parser.add_argument(
            "--phase", default=phase, type=str.upper, metavar="PHASE", help=f"TRAIN or TEST (default: {phase})"
        )
    parser.add_argument("--level", type=whole, help="the level that include and exclude rules of layers see")
    parser.add_argument("--stage", default="", metavar="A,B", help="the stages that these rules see")


def log(parser: Parser) -> None:
    """The wording of the log."""
    parser.add_argument(
        "--log", choices=("caffe", "short"), help="wording of the log (default: short on a terminal, else Caffe's)"
    )


def json(parser: Parser) -> None:
    """Results for programs."""
    parser.add_argument("--json", action="store_true", help="results as JSON on stdout")


def effect(parser: Parser, flag: str, default: str, event: str) -> None:
    """What a signal does."""
    choices = ("stop", "snapshot", "none")
    parser.add_argument(flag, choices=choices, default=default, help=f"what {event} does (default: {default})")


def shapes(parser: Parser) -> None:
    """Other shapes for inputs."""
    parser.add_argument(
        "--input-shape", action="append", default=[], metavar="BLOB=N,C,H,W", help="another shape for an input"
    )


def loading(parser: Parser) -> None:
    """How weights go into layers."""
    parser.add_argument("--strict", action="store_true", help="refuse weights with layers too many or too few")
    parser.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW",
        help="the layer OLD of the weight file goes into the layer NEW of the net",
    )  # fmt: skip
    parser.add_argument(
        "--reinit", action="append", default=[], metavar="A,B",
        help="layers (or patterns such as 'fc*') that keep what their fillers gave them",
    )  # fmt: skip


def numerics(parser: Parser) -> None:
    """What it is computed in."""
    parser.add_argument(
        "--precision", type=str.upper, choices=("FP32", "TF32", "BF16", "FP16"),
        help="what to compute and store in, whatever net and solver say (netrun explain Precision)",
    )  # fmt: skip
    parser.add_argument(
        "--deterministic", action="store_true", help="the same bits in every run with the same seed; may be slower"
    )


def lenient(parser: Parser) -> None:
    """Whether what other people's Caffe has is an error."""
    parser.add_argument(
        "--lenient", action="store_true", help="go on without what other people's Caffe has and netrun lacks"
    )


def net(parser: Parser, what: str = "") -> None:
    """The net, by position or by flag."""
    parser.add_argument("file", nargs="?", metavar="MODEL", help="the net's prototxt (--model may be left out)")
    parser.add_argument("--model", metavar="FILE", help=f"the net's prototxt{what}")


def weights(parser: Parser) -> None:
    """Its weights."""
    parser.add_argument("--weights", metavar="A,B", default="", help="a .caffemodel or .h5 file, or several")


def looking(parser: Parser) -> None:
    """What looks at a net without running it."""
    lenient(parser)
    state(parser)
    shapes(parser)


def running(parser: Parser) -> None:
    """What runs a trained net forward."""
    loading(parser)
    lenient(parser)
    device(parser, "auto")
    numerics(parser)
    state(parser, phase=None)
    log(parser)
