"""What people's scripts read out of a log: the lines of a run here and of a recorded run of Caffe give the same kinds
of rows. The patterns are those that such scripts use: a table of losses, rates and scores; seconds; plots by a word."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

LOGS = Path(__file__).parents[3] / "shared" / "caffe" / "logs"
ITERATION = re.compile(r"Iteration (\d+)")
OUTPUT = re.compile(r"(Train|Test) net output #(\d+): (\S+) = ([.\deE+-]+|nan|inf)")
RATE = re.compile(r"lr = ([-+]?[0-9]*\.?[0-9]+(?:[eE]?[-+]?[0-9]+)?)")
LOSS = re.compile(r"Iteration (\d+) \(([\deE.+-]+) iter/s, ([\deE.+-]+)s/(\d+) iters\), loss = ([\deE.+-]+)")
PREFIX = re.compile(r"[IWEF](\d{4})(\d{4} \d\d:\d\d:\d\d\.\d{6}) +\d+ [a-z_0-9]+\.cpp:\d+\] ")


def table(lines: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of training and of testing, as a parser collects them: a number of an iteration opens a row, outputs fill
    it, and nothing counts before the first learning rate is seen."""
    train: list[dict[str, Any]] = []
    test: list[dict[str, Any]] = []
    iteration = -1
    rate = float("nan")
    for line in lines:
        found = ITERATION.search(line)
        if found:
            iteration = int(found[1])
        if iteration == -1:
            continue
        found = RATE.search(line)
        if found:
            rate = float(found[1])
        output = OUTPUT.search(line)
        if output:
            rows = train if output[1] == "Train" else test
            if int(output[2]) == 0:
                rows.append({"iteration": iteration, "rate": rate})
            rows[-1][output[3]] = float(output[4])
    return train, test


def seconds(lines: list[str]) -> list[float]:
    """Seconds since the line of the solver's start, one for every line of an iteration."""
    start: datetime | None = None
    found = []
    for line in lines:
        if "Solving" in line:
            start = moment(line)
        if "Iteration" in line:
            assert start is not None, "a line of an iteration stands before the start"
            found.append((moment(line) - start).total_seconds())
    return found


def moment(line: str) -> datetime:
    """The time in the prefix, as year, then month and day."""
    found = PREFIX.match(line)
    assert found, line
    return datetime.strptime(found[1] + found[2], "%Y%m%d %H:%M:%S.%f")


def kinds(lines: list[str]) -> list[str]:
    """The lines that parsers look at, with numbers made alike."""
    wanted = ("Iteration", "net output", "Solving", "Learning Rate Policy", "Optimization Done", "Snapshotting",
              "Creating training net", "Starting Optimization", "Testing net")  # fmt: skip
    found = []
    for line in lines:
        text = PREFIX.sub(lambda m: m[0].split(" ")[-2] + " ", line)
        if PREFIX.match(line) and any(word in text for word in wanted):
            text = re.sub(r"(?<![#\w])-?\d[\d.]*(e[-+]?\d+)?", "N", text.partition("] ")[2] or text)
            found.append(re.sub(r"(file|net file:|Solving|output #\d+:) \S+", r"\1 X", text))
    return found


def test_the_tables_of_a_run(run: Any) -> None:
    result = run("train", "--solver", "solver.prototxt", "--log", "caffe")
    assert result.code == 0
    lines = result.err.splitlines()
    train, test = table(lines)
    assert [row["iteration"] for row in train] == [0, 2, 4, 6]
    assert [row["iteration"] for row in test] == [0, 4, 8]
    assert all(row.keys() == {"iteration", "rate", "loss"} for row in train)
    assert all(row.keys() == {"iteration", "rate", "accuracy", "loss"} for row in test)
    assert all(row["rate"] == row["rate"] for row in train[1:])
    losses = [LOSS.search(line) for line in lines if " iter/s" in line]
    assert [int(found[1]) for found in losses if found] == [0, 2, 4, 6]
    assert {int(found[4]) for found in losses if found} == {2}
    spent = seconds(lines)
    assert spent == sorted(spent)
    plotted = [line for line in lines if "Iteration" in line and "lr = " in line]
    assert [line.split("]")[1].split(",")[0].split()[1] for line in plotted] == ["0", "2", "4", "6"]
    assert all(" sgd_solver.cpp:" in line for line in plotted)
    assert all(re.search(r"solver\.cpp:\d+\] Iteration", line) for line in lines if " iter/s" in line)
    assert sum("Test net output #1" in line for line in lines) == sum("Testing net (#0)" in line for line in lines) == 3


@pytest.mark.skipif(not LOGS.exists(), reason="the recorded logs are not there")
def test_the_lines_are_those_of_a_recorded_run_in_its_order(run: Any, folder: Path) -> None:
    """The same solver as the recorded one, on another net: what is logged, line by line, numbers aside."""
    recorded = (LOGS / "train.log").read_text().splitlines()
    fields = {
        line.split(":")[0]: line for line in recorded if re.match(r"(test_\w+|display|max_iter|snapshot): \d", line)
    }
    solver = re.sub(r"(?m)^(test_iter|test_interval|display|max_iter|snapshot_prefix): .*\n", "",
                    (folder / "solver.prototxt").read_text())  # fmt: skip
    (folder / "solver.prototxt").write_text("\n".join([solver, *fields.values(), 'snapshot_prefix: "out/t"']))
    result = run("train", "--solver", "solver.prototxt", "--log", "caffe")
    assert result.code == 0, result.err
    ours, theirs = kinds(result.err.splitlines()), kinds(recorded)
    assert len(ours) > 20
    assert ours == theirs
    assert table(recorded)[0], "the patterns read the recorded log"
    assert [r["iteration"] for r in table(result.err.splitlines())[1]] == [r["iteration"] for r in table(recorded)[1]]


@pytest.mark.skipif(not LOGS.exists(), reason="the recorded logs are not there")
def test_the_lines_of_a_recorded_test(run: Any) -> None:
    assert run("train", "--solver", "solver.prototxt").code == 0
    result = run("test", "--model", "net.prototxt", "--weights", "out/tiny_iter_8.caffemodel", "--iterations", "3",
                 "--log", "caffe")  # fmt: skip
    batch = re.compile(r"Batch (\d+), (\w+) = [\d.e+-]+$")
    mean = re.compile(r"(\w+) = [\d.e+-]+( \(\* [\d.e+-]+ = [\d.e+-]+ loss\))?$")
    for lines in (result.err.splitlines(), (LOGS / "test.log").read_text().splitlines()):
        texts = [PREFIX.sub("", line) for line in lines if PREFIX.match(line)]
        batches = [found for text in texts if (found := batch.match(text))]
        assert {found[2] for found in batches} == {"accuracy", "loss"}
        at = next(i for i, text in enumerate(texts) if text.startswith("Loss: "))
        means = [found[1] for text in texts[at + 1 :] if (found := mean.match(text))]
        assert means == ["accuracy", "loss"]
