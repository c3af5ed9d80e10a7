"""Out of memory is one message: how much, for which layers, and what would fit."""

from __future__ import annotations

import re
from typing import Any

import pytest

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
    rooms = range(40_000, 120_000, 4_000)
    for room in rooms:
        try:
            Solver(solver(False), device=Small(room)).close()
            break
        except OutOfMemoryError as error:
            if "recompute: true" in str(error) and ": fits" in str(error):
                Solver(solver(True), device=Small(room)).close()


def test_nothing_fits() -> None:
    text = message(9_000)
    assert "batch" not in text or "no smaller batch" in text
