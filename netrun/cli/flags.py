"""The flags of every command, one function a command; what several have is in ``flag_groups.py``."""

from __future__ import annotations

from . import flag_groups as add
from .flag_groups import Parser


def train(parser: Parser) -> None:
    """``netrun train``"""
    parser.add_argument("file", nargs="?", metavar="SOLVER", help="the solver's prototxt (--solver may be left out)")
    parser.add_argument("--solver", metavar="FILE", help="the solver's prototxt")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--weights", metavar="A,B", default="", help="start from the weights of these files")
    start.add_argument("--snapshot", metavar="FILE", default="", help="go on from a .solverstate")
    add.loading(parser)
    add.lenient(parser)
    add.device(parser)
    add.numerics(parser)
    parser.add_argument("--recompute", action="store_true", help="less memory: cheap values are computed a second time")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE",
        help="another value for a field of the solver (base_lr=0.02, train_state.level=1, 'stepvalue=[100, 200]')",
    )  # fmt: skip
    add.state(parser, phase=None)
    parser.add_argument(
        "--dry-run", action="store_true", help="one iteration, one test, a snapshot and a resume; leaves nothing behind"
    )
    add.effect(parser, "--sigint-effect", "stop", "Ctrl-C")
    add.effect(parser, "--sighup-effect", "snapshot", "SIGHUP")
    add.log(parser)
    add.json(parser)


def _model(parser: Parser, weights: bool) -> None:
    add.net(parser)
    if weights:
        add.weights(parser)
    parser.add_argument("--iterations", type=add.count, default=50, metavar="N", help="how many batches (default: 50)")


def test(parser: Parser) -> None:
    """``netrun test``"""
    _model(parser, weights=True)
    add.running(parser)
    add.json(parser)


def time(parser: Parser) -> None:
    """``netrun time``"""
    _model(parser, weights=False)
    parser.add_argument(
        "--data", action="store_true", help="time the net's data layers alone: decoding, transforming, reading ahead"
    )
    parser.add_argument("--caffe-log", action="store_true", help="the results in Caffe's words alone, on stderr")
    add.lenient(parser)
    add.device(parser, "auto")
    add.numerics(parser)
    add.state(parser)
    add.shapes(parser)
    add.log(parser)
    add.json(parser)


def check(parser: Parser) -> None:
    """``netrun check``"""
    parser.add_argument("files", nargs="+", metavar="FILE", help="nets and solvers")
    add.lenient(parser)
    add.json(parser)


def summary(parser: Parser) -> None:
    """``netrun summary``"""
    parser.add_argument("file", metavar="FILE", help="a net, or a solver (its training net)")
    add.looking(parser)
    add.json(parser)


def plan(parser: Parser) -> None:
    """``netrun plan``"""
    parser.add_argument("file", metavar="FILE", help="a net (its forward pass) or a solver (its training iteration)")
    add.looking(parser)
    parser.add_argument("--device", default="null", metavar="D", help="the device it is planned for (default: null)")
    add.numerics(parser)
    parser.add_argument("--recompute", action="store_true", help="as netrun train --recompute would run it")
    add.json(parser)


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
    parser.add_argument("--seed", type=add.whole, default=1, metavar="N", help="what random values follow from")
    add.looking(parser)
    add.json(parser)


def devices(parser: Parser) -> None:
    """``netrun devices``"""
    parser.add_argument("--gpu", metavar="N", default="", help="look at these GPUs alone, as Caffe's device_query does")
    add.json(parser)


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
    add.lenient(parser)


def upgrade(parser: Parser) -> None:
    """``netrun upgrade``"""
    parser.add_argument("old", metavar="OLD", help="a net, a solver or a .caffemodel")
    parser.add_argument("new", metavar="NEW", help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace NEW if it is there")
    add.lenient(parser)
    add.json(parser)


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
    add.json(parser)


def _convert(parser: Parser) -> None:
    group = parser.add_argument_group("for convert")
    group.add_argument("--backend", choices=("lmdb", "leveldb"), help="the kind of database (default: lmdb)")
    group.add_argument("--root", metavar="DIR", help="the folder that the names in the list are relative to")
    group.add_argument("--resize", metavar="HxW", help="bring every image to this size (height x width)")
    group.add_argument("--gray", action="store_true", help="one channel instead of three")
    group.add_argument("--encoded", action="store_true", help="records of image files, not of pixels")
    group.add_argument("--encode-type", metavar="KIND", help="encode them as jpg or png (default: each as it is)")
    group.add_argument("--shuffle", action="store_true", help="in a random order")
    group.add_argument("--seed", type=add.whole, metavar="N", help="what the random order follows from (default: 0)")
    group.add_argument("--check-size", action="store_true", help="refuse images of different sizes")
    group.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read")


def features(parser: Parser) -> None:
    """``netrun features``"""
    add.net(parser, ", with data layers for the TEST phase")
    add.weights(parser)
    parser.add_argument("--blobs", metavar="A,B", default="", help="which blobs")
    parser.add_argument("--batches", type=add.count, default=50, metavar="N", help="how many batches (default: 50)")
    parser.add_argument(
        "--out", metavar="PATH", default="features",
        help="FILE.npz, FILE.h5, or a folder of .npy files; with --backend a database (default: features)",
    )  # fmt: skip
    parser.add_argument("--backend", choices=("lmdb", "leveldb"), help="a database of float records, as Caffe's")
    add.running(parser)


def infer(parser: Parser) -> None:
    """``netrun infer``"""
    add.net(parser, ", with Input layers")
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
    parser.add_argument("--beam", type=add.count, default=1, metavar="N", help="beam search with N beams; 1 is greedy")
    parser.add_argument("--n-best", type=add.count, default=0, metavar="N",
                        help="print N hypotheses of each: number of the line, score, text")  # fmt: skip
    parser.add_argument("--max-length", type=add.count, metavar="N", help="write at most N tokens")
    parser.add_argument("--length-penalty", type=float, default=0.0, metavar="A",
                        help="above 0 favours longer ones: scores are divided by ((5 + length) / 6)^A")  # fmt: skip
    parser.add_argument("--batch", type=add.count, default=16, metavar="N", help="sequences at a time (default: 16)")
    parser.add_argument("--tokens", metavar="BLOB", default="",
                        help="the input of what was written so far (default: target, or data)")  # fmt: skip
    parser.add_argument("--scores", metavar="BLOB", default="scores", help="scores of the next token (default: scores)")
    parser.add_argument("--source", metavar="BLOB", default="",
                        help="the input that lines go to (default: source); without one they are prompts")  # fmt: skip
    parser.add_argument("--length", metavar="BLOB", default="", help="the input of their lengths (default: length)")
    parser.add_argument("--time-major", action="store_true", help="sequences are T N, as for recurrent layers, not N T")
    add.running(parser)


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
    parser.add_argument("--top", type=add.count, default=5, metavar="N", help="how many classes (default: 5)")
    add.loading(parser)
    add.lenient(parser)
    add.device(parser, "auto")
    add.numerics(parser)
    add.log(parser)
    add.json(parser)


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
    add.lenient(parser)
