"""Help, Caffe's spelling, and what is said about commands and flags that do not exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from netrun.cli.arguments import COMMANDS, normal, parse, parser_of
from netrun.errors import UsageError

REPOSITORY = Path(__file__).parents[2]


def test_alone_it_prints_the_usage(run: Any) -> None:
    found = run()
    assert found.code == 0
    assert found.err == ""
    assert all(f"  {name} " in found.out for name in COMMANDS)


def test_version(run: Any) -> None:
    assert re.fullmatch(r"netrun \d+\.\d+\.\d+\n", run("--version").out)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_ends_with_an_example_that_parses(run: Any, name: str) -> None:
    found = run(name, "--help")
    assert found.code == 0
    assert found.err == ""
    head, _, example = found.out.rstrip().rpartition("example:\n  ")
    assert head
    words = shlex.split(example)
    assert words[:2] == ["netrun", name]
    command, _ = parse(words[1:])
    assert command is COMMANDS[name]
    for word in words:
        if word.startswith("configs/"):
            assert (REPOSITORY / word).exists()


@pytest.mark.parametrize("argv", [("-help",), ("--help",), ("-h",), ("help",), ("help", "plan")])
def test_every_way_to_ask_for_help(run: Any, argv: tuple[str, ...]) -> None:
    found = run(*argv)
    assert found.code == 0
    assert "usage: netrun" in found.out


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("-solver", "--solver"),
        ("--sigint_effect=a_b", "--sigint-effect=a_b"),
        ("-iterations=5", "--iterations=5"),
        ("-h", "-h"),
        ("-1", "-1"),
        ("my_solver.prototxt", "my_solver.prototxt"),
        ("--", "--"),
    ],
)
def test_spelling(given: str, wanted: str) -> None:
    assert normal(given) == wanted


def test_caffes_train_line() -> None:
    line = "-solver s.prototxt -snapshot=x.solverstate -gpu 0 --sighup_effect none -logtostderr=1 -stage a,b -level -2"
    command, args = parse(["train", *line.split()])
    assert command is COMMANDS["train"]
    assert (args.solver, args.snapshot, args.gpu, args.sighup_effect) == ("s.prototxt", "x.solverstate", "0", "none")
    assert (args.stage, args.level) == ("a,b", -2)


def test_flags_may_stand_before_the_command() -> None:
    command, args = parse(["--solver=s.prototxt", "train"])
    assert command is COMMANDS["train"]
    assert args.solver == "s.prototxt"


def test_device_query_is_devices() -> None:
    command, _ = parse(["device_query"])
    assert command is COMMANDS["devices"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("trian",), 'there is no command "trian"; did you mean "train"?'),
        (("--solver", "x"), 'there is no flag "--solver"'),
        (("train", "-solver", "x", "-wieghts", "y"), 'there is no flag --wieghts; did you mean "--weights"?'),
        (("train", "--solver", "x", "--iter=5"), "there is no flag --iter"),
        (("train", "a", "b"), '"b" is too much'),
        (("train",), "no solver is given"),
        (("train", "a", "--solver", "b"), "two solvers are given, b and a"),
        (("test", "--weights", "x"), "no net is given"),
        (("test", "net.prototxt"), "no weights are given"),
        (("test", "-iterations", "many"), "--iterations: wants a whole number, got 'many'"),
        (("time", "net.prototxt", "-iterations", "0"), "wants a number of at least 1, got '0'"),
        (("time", "net.prototxt", "-phase", "train_test"), "--phase wants TRAIN or TEST, got TRAIN_TEST"),
        (("train", "x", "--weights", "a", "--snapshot", "b"), "not allowed with"),
        (("train", "x", "--device", "cpu", "--gpu", "0"), "not allowed with"),
        (("train", "x", "--sigint_effect", "die"), "invalid choice: 'die'"),
        (("train", "nowhere.prototxt"), "there is no file nowhere.prototxt"),
        (("train", "net.prototxt"), "this is a net, a solver is wanted"),
        (("train", "solver.prototxt", "--gpu", "0,1"), "a run uses one GPU"),
        (("train", "solver.prototxt", "--gpu", "first"), 'wants the number of a GPU, all or none, got "first"'),
        (("train", "solver.prototxt", "--device", "cpi"), 'there is no device "cpi"; did you mean "cpu"?'),
        (("train", "solver.prototxt", "--snapshot", "x.solverstate"), "x.solverstate"),
        (("train", "solver.prototxt", "--weights", "x.caffemodel"), "x.caffemodel"),
        (("summary", "net.prototxt", "--input-shape", "dta=1,2"), "--input-shape"),
        (("explain", "Convolutoin"), 'did you mean "Convolution"?'),
        (("data", "mean", "x"), "wants the database and the file to write"),
        (("data", "mnist", "x"), '"x" is too much'),
    ],
)
def test_mistakes_give_one_short_message(run: Any, argv: tuple[str, ...], message: str) -> None:
    found = run(*argv)
    assert found.code == 2
    assert found.out == ""
    assert message in found.err
    lines = [line for line in found.err.splitlines() if not re.match(r"[IWE]\d{8} |\w+: |\w+ \{|\}|  ", line)]
    assert len(lines) <= 2
    assert "Traceback" not in found.err


def test_no_command_shortens_flags() -> None:
    for command in COMMANDS.values():
        assert not parser_of(command).allow_abbrev
    with pytest.raises(UsageError):
        parse(["train", "--solv", "x"])
