"""The nets of configs/attention learn what they are said to learn, as far as a few steps show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.cli import main
from netrun.config import schema
from netrun.decode import Decoder
from netrun.net import Net
from netrun.net_solver import NetSolver

ATTENTION = Path(__file__).resolve().parents[2] / "configs" / "attention"


def trained(name: str, steps: int, weights: Path | None = None) -> list[float]:
    found: list[float] = []
    with NetSolver(ATTENTION / f"{name}_solver.prototxt") as solver:
        solver.on_iteration.append(lambda _, loss: found.append(loss))
        solver.step(steps)
        if weights:
            solver.net.save(weights)
    return found


def test_reversal_learns_and_decodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "w.caffemodel"
    found = trained("reverse", 12, weights)
    assert 2.4 < found[0] < 2.6, "it starts by saying any of 12 tokens"
    assert found[-1] < 2.45
    (tmp_path / "lines.txt").write_text("3 1 4 1 5\n2 7\n")
    flags = ["infer", str(ATTENTION / "reverse_infer.prototxt"), "--weights", str(weights), "--vocabulary",
             str(ATTENTION / "reverse_tokens.txt"), "--time-major", "--input", str(tmp_path / "lines.txt")]  # fmt: skip
    assert main([*flags, "--beam", "2", "--n-best", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["0", "0", "1", "1"]


def test_letters_learn_and_go_step_by_step(tmp_path: Path) -> None:
    """The net with a cache says of every letter what the net of whole sequences says."""
    weights = tmp_path / "w.caffemodel"
    found = trained("letters", 25, weights)
    assert 3.2 < found[0] < 3.9, "it starts by saying any of 26 letters"
    assert np.mean(found[-5:]) < 2.6
    with NetSolver(ATTENTION / "letters_solver.prototxt") as solver:
        net = solver.test_nets[0]
        net.load(weights)
        net.forward()
        text, scores = (np.array(net.blobs[name].data[:20]) for name in ("data", "scores"))
    with Net(ATTENTION / "letters_infer.prototxt", weights=weights) as net:
        assert Decoder(net, tokens="data", time_major=True).limit == 200
        net.reshape(data=(1, 2))
        for t in range(20):
            got: Any = net.forward(data=text[t : t + 1])["scores"][0]
            np.testing.assert_allclose(got, scores[t], 1e-4, 1e-4)


def test_the_vision_transformer_learns() -> None:
    found = trained("vit", 40)
    assert 2.2 < found[0] < 2.7, "it starts by saying any of ten digits"
    assert np.mean(found[-5:]) < 1.6
    with Net(ATTENTION / "vit.prototxt", schema.TEST) as net:
        assert net.blobs["steps"].shape == (60, 16, 48)


@pytest.mark.parametrize("name", ["letters", "vit"])
def test_the_number_of_parameters_in_the_text(name: str) -> None:
    file = ATTENTION / f"{name}.prototxt"
    with Net(file, schema.TEST) as net:
        count = sum(blob.data.size for blobs in net.params.values() for blob in blobs)
    assert f"{count:,} parameters" in file.read_text().split("\n")[0]
