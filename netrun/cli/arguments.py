"""Every command and flag. It understands Caffe's spelling too: ``-solver x``, ``--sigint_effect=stop``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..errors import UsageError, nearest
from ..version import __version__


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are UsageErrors: one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise UsageError(f"{self.prog}: {message}", None, [f"{self.prog} --help lists its flags"])


@dataclass(frozen=True)
class Command:
    """One command: where its ``run`` is, what it is for, and an example that works as typed."""

    name: str
    module: str
    what: str
    example: str
    add: Callable[[Parser], None]
    aliases: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------------------- flag groups
def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wants a whole number, got '{text}'") from None


def _count(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"wants a number of at least 1, got '{text}'")
    return value


def _device(parser: Parser, default: str = "auto, or what the solver says") -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--device", metavar="D", default="", help=f"auto, cpu, cuda:N, reference or null (default: {default})"
    )
    group.add_argument("--gpu", metavar="N", default="", help="as in Caffe: the number of a GPU, all, or none")


def _state(parser: Parser, phase: str | None = "TRAIN") -> None:
    if phase:
        parser.add_argument(
            "--phase", default=phase, type=str.upper, metavar="PHASE", help=f"TRAIN or TEST (default: {phase})"
        )
    parser.add_argument("--level", type=_whole, help="the level that include and exclude rules of layers see")
    parser.add_argument("--stage", default="", metavar="A,B", help="the stages that these rules see")


def _log(parser: Parser) -> None:
    parser.add_argument(
        "--log", choices=("caffe", "short"), help="wording of the log (default: short on a terminal, else Caffe's)"
    )


def _json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="results as JSON on stdout")


def _effect(parser: Parser, flag: str, default: str, event: str) -> None:
    choices = ("stop", "snapshot", "none")
    parser.add_argument(flag, choices=choices, default=default, help=f"what {event} does (default: {default})")


def _shapes(parser: Parser) -> None:
    parser.add_argument(
        "--input-shape", action="append", default=[], metavar="BLOB=N,C,H,W", help="another shape for an input"
    )


def _loading(parser: Parser) -> None:
    parser.add_argument("--strict", action="store_true", help="refuse weights with layers too many or too few")
    parser.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW",
        help="the layer OLD of the weight file goes into the layer NEW of the net",
    )  # fmt: skip
    parser.add_argument(
        "--reinit", action="append", default=[], metavar="A,B",
        help="layers (or patterns such as 'fc*') that keep what their fillers gave them",
    )  # fmt: skip


def _numerics(parser: Parser) -> None:
    parser.add_argument(
        "--precision", type=str.upper, choices=("FP32", "TF32", "BF16", "FP16"),
        help="what to compute and store in, whatever net and solver say (netrun explain Precision)",
    )  # fmt: skip
    parser.add_argument(
        "--deterministic", action="store_true", help="the same bits in every run with the same seed; may be slower"
    )


def _lenient(parser: Parser) -> None:
    parser.add_argument(
        "--lenient", action="store_true", help="go on without what other people's Caffe has and netrun lacks"
    )


# ------------------------------------------------------------------------------------------------------------ commands
def _train(parser: Parser) -> None:
    parser.add_argument("file", nargs="?", metavar="SOLVER", help="the solver's prototxt (--solver may be left out)")
    parser.add_argument("--solver", metavar="FILE", help="the solver's prototxt")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--weights", metavar="A,B", default="", help="start from the weights of these files")
    start.add_argument("--snapshot", metavar="FILE", default="", help="go on from a .solverstate")
    _loading(parser)
    _lenient(parser)
    _device(parser)
    _numerics(parser)
    parser.add_argument("--recompute", action="store_true", help="less memory: cheap values are computed a second time")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE",
        help="another value for a field of the solver (base_lr=0.02, train_state.level=1, 'stepvalue=[100, 200]')",
    )  # fmt: skip
    _state(parser, phase=None)
    parser.add_argument(
        "--dry-run", action="store_true", help="one iteration, one test, a snapshot and a resume; leaves nothing behind"
    )
    _effect(parser, "--sigint-effect", "stop", "Ctrl-C")
    _effect(parser, "--sighup-effect", "snapshot", "SIGHUP")
    _log(parser)
    _json(parser)


def _model(parser: Parser, weights: bool) -> None:
    parser.add_argument("file", nargs="?", metavar="MODEL", help="the net's prototxt (--model may be left out)")
    parser.add_argument("--model", metavar="FILE", help="the net's prototxt")
    if weights:
        parser.add_argument("--weights", metavar="A,B", default="", help="a .caffemodel or .h5 file, or several")
    parser.add_argument("--iterations", type=_count, default=50, metavar="N", help="how many batches (default: 50)")


def _test(parser: Parser) -> None:
    _model(parser, weights=True)
    _loading(parser)
    _lenient(parser)
    _device(parser, "auto")
    _numerics(parser)
    _state(parser, phase=None)
    _log(parser)
    _json(parser)


def _time(parser: Parser) -> None:
    _model(parser, weights=False)
    parser.add_argument(
        "--data", action="store_true", help="time the net's data layers alone: decoding, transforming, reading ahead"
    )
    parser.add_argument("--caffe-log", action="store_true", help="the results in Caffe's words alone, on stderr")
    _lenient(parser)
    _device(parser, "auto")
    _numerics(parser)
    _state(parser)
    _shapes(parser)
    _log(parser)
    _json(parser)


def _check(parser: Parser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="nets and solvers")
    _lenient(parser)
    _json(parser)


def _summary(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a net, or a solver (its training net)")
    _lenient(parser)
    _state(parser)
    _shapes(parser)
    _json(parser)


def _plan(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a net (its forward pass) or a solver (its training iteration)")
    _lenient(parser)
    _state(parser)
    _shapes(parser)
    parser.add_argument("--device", default="null", metavar="D", help="the device it is planned for (default: null)")
    _numerics(parser)
    parser.add_argument("--recompute", action="store_true", help="as netrun train --recompute would run it")
    _json(parser)


def _gradcheck(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a net, or a solver (its training net)")
    parser.add_argument(
        "--layer", action="append", default=[], metavar="A,B", help="these layers alone (default: every layer)"
    )
    parser.add_argument("--device", default="reference", metavar="D", help="where (default: reference)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, metavar="E", help="relative error that is right (default: 1e-5)"
    )
    parser.add_argument("--seed", type=_whole, default=1, metavar="N", help="what random values follow from")
    _lenient(parser)
    _state(parser)
    _shapes(parser)
    _json(parser)


def _devices(parser: Parser) -> None:
    parser.add_argument("--gpu", metavar="N", default="", help="look at these GPUs alone, as Caffe's device_query does")
    _json(parser)


def _explain(parser: Parser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        help="a layer type, message, field, path (pooling_param.pad), or: language",
    )


def _expand(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a net or a solver in the config language")
    parser.add_argument("-o", "--out", default="", metavar="OUT", help="the file to write (default: stdout)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    _lenient(parser)


def _upgrade(parser: Parser) -> None:
    parser.add_argument("old", metavar="OLD", help="a net, a solver or a .caffemodel")
    parser.add_argument("new", metavar="NEW", help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace NEW if it is there")
    _lenient(parser)
    _json(parser)


def _data(parser: Parser) -> None:
    parser.add_argument(
        "what", choices=("mnist", "cifar10", "mean", "convert", "info"), metavar="WHAT",
        help="mnist, cifar10, mean, convert or info",
    )  # fmt: skip
    parser.add_argument(
        "paths", nargs="*", metavar="PATH",
        help="for mean: the database and the file to write; for convert: the list of images and the database to write; "
        "for info: the database",
    )  # fmt: skip
    parser.add_argument("--from", dest="source", metavar="DIR", help="the files, if they are here already")
    parser.add_argument(
        "--to", dest="target", metavar="DIR", help="where to (default: the folder in configs/, else the working one)"
    )
    _convert(parser)
    _json(parser)


def _convert(parser: Parser) -> None:
    group = parser.add_argument_group("for convert")
    group.add_argument("--backend", choices=("lmdb", "leveldb"), help="the kind of database (default: lmdb)")
    group.add_argument("--root", metavar="DIR", help="the folder that the names in the list are relative to")
    group.add_argument("--resize", metavar="HxW", help="bring every image to this size (height x width)")
    group.add_argument("--gray", action="store_true", help="one channel instead of three")
    group.add_argument("--encoded", action="store_true", help="records of image files, not of pixels")
    group.add_argument("--encode-type", metavar="KIND", help="encode them as jpg or png (default: each as it is)")
    group.add_argument("--shuffle", action="store_true", help="in a random order")
    group.add_argument("--seed", type=_whole, metavar="N", help="what the random order follows from (default: 0)")
    group.add_argument("--check-size", action="store_true", help="refuse images of different sizes")
    group.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read")


def _features(parser: Parser) -> None:
    parser.add_argument("file", nargs="?", metavar="MODEL", help="the net's prototxt (--model may be left out)")
    parser.add_argument("--model", metavar="FILE", help="the net's prototxt, with data layers for the TEST phase")
    parser.add_argument("--weights", metavar="A,B", default="", help="a .caffemodel or .h5 file, or several")
    parser.add_argument("--blobs", metavar="A,B", default="", help="which blobs")
    parser.add_argument("--batches", type=_count, default=50, metavar="N", help="how many batches (default: 50)")
    parser.add_argument(
        "--out", metavar="PATH", default="features",
        help="FILE.npz, FILE.h5, or a folder of .npy files; with --backend a database (default: features)",
    )  # fmt: skip
    parser.add_argument("--backend", choices=("lmdb", "leveldb"), help="a database of float records, as Caffe's")
    _loading(parser)
    _lenient(parser)
    _device(parser, "auto")
    _numerics(parser)
    _state(parser, phase=None)
    _log(parser)


def _classify(parser: Parser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--model", metavar="FILE", help="the net's prototxt, for training or for use")
    parser.add_argument("--weights", metavar="FILE", default="", help="a .caffemodel or .h5 file")
    parser.add_argument("--labels", metavar="FILE", default="", help="the name of every class, one a line")
    parser.add_argument(
        "--mean", metavar="M", default="",
        help="what to subtract: B,G,R, a .binaryproto or a .npy file (default: what transform_param says)",
    )  # fmt: skip
    parser.add_argument(
        "--input-shape", default="", metavar="N,C,H,W",
        help="of the net's input, where neither its data nor a crop_size tells",
    )  # fmt: skip
    parser.add_argument("--top", type=_count, default=5, metavar="N", help="how many classes (default: 5)")
    _loading(parser)
    _lenient(parser)
    _device(parser, "auto")
    _log(parser)
    _json(parser)


def _draw(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a net, or a solver (its training net)")
    parser.add_argument(
        "out", nargs="?", metavar="PICTURE", help="FILE.svg or FILE.png (default: the net's name, .svg)"
    )
    parser.add_argument(
        "--phase", default="", type=str.upper, metavar="PHASE", help="TRAIN or TEST: without the layers of the other"
    )
    parser.add_argument(
        "--rankdir", default="TB", metavar="DIR", help="TB, LR, BT or RL: where data flow (default: TB)"
    )
    _lenient(parser)


_TABLE = (
    Command("train", "train", "train a net, or go on training it",
            "netrun train --solver configs/digits/solver.prototxt --set base_lr=0.02", _train),
    Command("test", "test", "score a net on its test data",
            "netrun test --model net.prototxt --weights digits_iter_1000.caffemodel --iterations 6", _test),
    Command("classify", "classify", "the best classes of images",
            "netrun classify cat.png --model train_val.prototxt --weights net_iter_1000.caffemodel --labels names.txt",
            _classify),
    Command("time", "timing", "time every layer, forward and backward",
            "netrun time --model configs/benchmark/alexnet.prototxt --iterations 5 --input-shape data=16,3,224,224",
            _time),
    Command("check", "check", "find the mistakes in nets and solvers, without running them",
            "netrun check configs/mnist/solver.prototxt", _check),
    Command("summary", "summary", "the table of layers: shapes, parameters, multiply-adds",
            "netrun summary configs/benchmark/alexnet.prototxt", _summary),
    Command("draw", "draw", "a picture of a net", "netrun draw configs/mnist/lenet.prototxt lenet.png", _draw),
    Command("plan", "plan", "the program a net becomes, one call a line, and its memory",
            "netrun plan configs/mnist/lenet.prototxt", _plan),
    Command("gradcheck", "gradcheck", "hold the gradients of every layer against finite differences",
            "netrun gradcheck configs/mnist/lenet_train_test.prototxt --layer ip2 --input-shape data=4,1,28,28",
            _gradcheck),
    Command("devices", "devices", "what can run here, and what is missing", "netrun devices", _devices,
            ("device_query",)),
    Command("explain", "explain", "what a field or a layer's parameters mean", "netrun explain Convolution", _explain),
    Command("expand", "expand", "the plain prototxt that let, def, repeat, if and include stand for",
            "netrun expand configs/imagenet/googlenet/short_train_val.prototxt -o googlenet.prototxt", _expand),
    Command("upgrade", "upgrade", "bring old nets, solvers and .caffemodel files to the current form",
            "netrun upgrade v1_train_val.prototxt train_val.prototxt", _upgrade),
    Command("data", "data", "make databases, of mnist, cifar10 or a list of images, or a mean file; look into one",
            "netrun data mnist --from ../shared/data/mnist", _data),
    Command("features", "features", "write the values of any blobs to a file or database",
            "netrun features --model net.prototxt --weights net_iter_1000.caffemodel --blobs fc7,prob --out fc7.npz",
            _features),
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
