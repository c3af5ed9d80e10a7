"""Out of memory is one message: how much, for which layers, and what would fit."""

from __future__ import annotations

import re
from typing import Any

import pytest

from netrun.config.upgrade import parse_solver
from netrun.cpu.reference import Reference
from netrun.errors import OutOfMemoryError
from netrun.solver import Solver
from tests.compiler.test_recompute import solver


class Small(Reference):
    """A device with little memory."""

    name = "small"

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def allocate(self, nbytes: int) -> Any:
        if nbytes > self.room:
            raise OutOfMemoryError(f"{nbytes} bytes do not fit", free=self.room)
        self.room -= nbytes
        return super().allocate(nbytes)


def message(room: int) -> str:
    with pytest.raises(OutOfMemoryError) as caught:
        Solver(solver(False), device=Small(room))
    assert caught.value.exit_code == 5
    return str(caught.value)


def test_it_names_layers_bytes_and_what_fits() -> None:
    text = message(60_000)
    assert re.match(
        r"device small: the net takes [\d.]+ KiB \([\d,]+ bytes\), and there is room for [\d.]+ KiB\n", text
    )
    lines = text.splitlines()
    at = lines.index("    its largest layers, with what is computed for them:")
    rows = lines[at + 1 : at + 6]
    assert len(rows) == 5
    assert all(re.fullmatch(r" {6}\S+ +[\d.]+ KiB", row) for row in rows)
    assert "norm1" in "".join(rows)
    assert "what would take less:" in text
    assert re.search(r"batch [123] +about [\d.]+ KiB instead of batch 4", text)
    assert re.search(r"recompute: true +[\d.]+ KiB: (fits|does not fit)", text)
    assert "BF16" not in text  # the device does not have it


def test_what_is_said_to_fit_fits() -> None:
    tried = []
    for room in range(140_000, 200_000, 4_000):
        try:
            Solver(solver(False), device=Small(room)).close()
            break
        except OutOfMemoryError as error:
            if "recompute: true" in str(error) and ": fits" in str(error):
                Solver(solver(True), device=Small(room)).close()
                tried.append(room)
    assert tried


def test_a_batch_is_offered_only_where_one_fits() -> None:
    text = message(9_000)
    assert "recompute: true" in text
    assert "batch" not in text


@pytest.mark.parametrize("data", ["Input", "DummyData"])
def test_the_batch_of_sequences_is_their_number(data: str) -> None:
    """It is the second axis where the first one is time."""
    param = "dummy_data_param" if data == "DummyData" else "input_param"
    text = f"""net_param {{ layer {{ name: "x" type: "{data}" top: "x" top: "c" top: "y" {param} {{
        shape {{ dim: 50 dim: 6 dim: 20 }} shape {{ dim: 50 dim: 6 }} shape {{ dim: 50 dim: 6 dim: 30 }} }} }}
      layer {{ name: "lstm" type: "LSTM" bottom: "x" bottom: "c" top: "h" recurrent_param {{ num_output: 30 }} }}
      layer {{ name: "loss" type: "EuclideanLoss" bottom: "h" bottom: "y" top: "loss" }} }}
      base_lr: 0.1 lr_policy: "fixed" """
    with pytest.raises(OutOfMemoryError, match=r"batch [1-5] +about [\d.]+ KiB instead of batch 6"):
        Solver(parse_solver(text)[0], device=Small(300_000))
