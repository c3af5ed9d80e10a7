"""The flags of every command: groups that several have, then one function a command."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ..errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are UsageErrors: one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise UsageError(f"{self.prog}: {message}", None, [f"{self.prog} --help lists its flags"])


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
def train(parser: Parser) -> None:
    """``netrun train``"""
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


def _net(parser: Parser, what: str = "") -> None:
    parser.add_argument("file", nargs="?", metavar="MODEL", help="the net's prototxt (--model may be left out)")
    parser.add_argument("--model", metavar="FILE", help=f"the net's prototxt{what}")


def _weights(parser: Parser) -> None:
    parser.add_argument("--weights", metavar="A,B", default="", help="a .caffemodel or .h5 file, or several")


def _looking(parser: Parser) -> None:
    """What looks at a net without running it."""
    _lenient(parser)
    _state(parser)
    _shapes(parser)


def _model(parser: Parser, weights: bool) -> None:
    _net(parser)
    if weights:
        _weights(parser)
    parser.add_argument("--iterations", type=_count, default=50, metavar="N", help="how many batches (default: 50)")


def test(parser: Parser) -> None:
    """``netrun test``"""
    _model(parser, weights=True)
    _loading(parser)
    _lenient(parser)
    _device(parser, "auto")
    _numerics(parser)
    _state(parser, phase=None)
    _log(parser)
    _json(parser)


def time(parser: Parser) -> None:
    """``netrun time``"""
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


def check(parser: Parser) -> None:
    """``netrun check``"""
    parser.add_argument("files", nargs="+", metavar="FILE", help="nets and solvers")
    _lenient(parser)
    _json(parser)


def summary(parser: Parser) -> None:
    """``netrun summary``"""
    parser.add_argument("file", metavar="FILE", help="a net, or a solver (its training net)")
    _looking(parser)
    _json(parser)


def plan(parser: Parser) -> None:
    """``netrun plan``"""
    parser.add_argument("file", metavar="FILE", help="a net (its forward pass) or a solver (its training iteration)")
    _looking(parser)
    parser.add_argument("--device", default="null", metavar="D", help="the device it is planned for (default: null)")
    _numerics(parser)
    parser.add_argument("--recompute", action="store_true", help="as netrun train --recompute would run it")
    _json(parser)


def gradcheck(parser: Parser) -> None:
    """``netrun gradcheck``"""
    parser.add_argument("file", metavar="FILE", help="a net, or a solver (its training net)")
    parser.add_argument(
        "--layer", action="append", default=[], metavar="A,B", help="these layers alone (default: every layer)"
    )
    parser.add_argument("--device", default="reference", metavar="D", help="where (default: reference)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, metavar="E", help="relative error that is right (default: 1e-5)"
    )
    parser.add_argument("--seed", type=_whole, default=1, metavar="N", help="what random values follow from")
    _looking(parser)
    _json(parser)


def devices(parser: Parser) -> None:
    """``netrun devices``"""
    parser.add_argument("--gpu", metavar="N", default="", help="look at these GPUs alone, as Caffe's device_query does")
    _json(parser)


def explain(parser: Parser) -> None:
    """``netrun explain``"""
    parser.add_argument(
        "name",
        metavar="NAME",
        help="a layer type, message, field, path (pooling_param.pad), or: language",
    )


def expand(parser: Parser) -> None:
    """``netrun expand``"""
    parser.add_argument("file", metavar="FILE", help="a net or a solver in the config language")
    parser.add_argument("-o", "--out", default="", metavar="OUT", help="the file to write (default: stdout)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    _lenient(parser)


def upgrade(parser: Parser) -> None:
    """``netrun upgrade``"""
    parser.add_argument("old", metavar="OLD", help="a net, a solver or a .caffemodel")
    parser.add_argument("new", metavar="NEW", help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace NEW if it is there")
    _lenient(parser)
    _json(parser)


def data(parser: Parser) -> None:
    """``netrun data``"""
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


def features(parser: Parser) -> None:
    """``netrun features``"""
    _net(parser, ", with data layers for the TEST phase")
    _weights(parser)
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


def infer(parser: Parser) -> None:
    """``netrun infer``"""
    _net(parser, ", with Input layers")
    parser.add_argument("--weights", metavar="FILE", default="", help="a .caffemodel or .h5 file")
    parser.add_argument(
        "--input", metavar="FILE", default="-",
        help="a text, a sequence a line, or FILE.npz with an array for each input besides the tokens (default: stdin)",
    )  # fmt: skip
    parser.add_argument("--vocabulary", metavar="FILE", default="", help="the tokens, one a line, by number from 0")
    parser.add_argument(
        "--vocabulary-from", metavar="FILE", default="",
        help="instead: the text the net was trained on, as vocabulary_from of SequenceData",
    )  # fmt: skip
    parser.add_argument("--source-vocabulary", metavar="FILE", default="", help="that of the lines read, if another")
    parser.add_argument("--unit", choices=("word", "character"), default="word", help="what a token is (default: word)")
    parser.add_argument("--start", metavar="TOKEN", default="<start>", help="stands in front (default: <start>)")
    parser.add_argument("--stop", metavar="TOKEN", default="<stop>", help="ends a sequence (default: <stop>)")
    parser.add_argument("--beam", type=_count, default=1, metavar="N", help="beam search with N beams; 1 is greedy")
    parser.add_argument("--n-best", type=_count, default=0, metavar="N",
                        help="print N hypotheses of each: number of the line, score, text")  # fmt: skip
    parser.add_argument("--max-length", type=_count, metavar="N", help="write at most N tokens")
    parser.add_argument("--length-penalty", type=float, default=0.0, metavar="A",
                        help="above 0 favours longer ones: scores are divided by ((5 + length) / 6)^A")  # fmt: skip
    parser.add_argument("--batch", type=_count, default=16, metavar="N", help="sequences at a time (default: 16)")
    parser.add_argument("--tokens", metavar="BLOB", default="",
                        help="the input of what was written so far (default: target, or data)")  # fmt: skip
    parser.add_argument("--scores", metavar="BLOB", default="scores", help="scores of the next token (default: scores)")
    parser.add_argument("--source", metavar="BLOB", default="",
                        help="the input that lines go to (default: source); without one they are prompts")  # fmt: skip
    parser.add_argument("--length", metavar="BLOB", default="", help="the input of their lengths (default: length)")
    parser.add_argument("--time-major", action="store_true", help="sequences are T N, as for recurrent layers, not N T")
    _loading(parser)
    _device(parser, "auto")
    _numerics(parser)
    _state(parser, phase=None)
    _log(parser)


def classify(parser: Parser) -> None:
    """``netrun classify``"""
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
    _numerics(parser)
    _log(parser)
    _json(parser)


def draw(parser: Parser) -> None:
    """``netrun draw``"""
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
