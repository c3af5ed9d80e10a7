"""The recordings of tests/golden as dictionaries of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"


def recorded(file: str | Path) -> dict[str, Any]:
    """All arrays of one .npz, with the file closed behind them."""
    with np.load(GOLDEN / file) as opened:
        return {name: opened[name] for name in opened.files}
