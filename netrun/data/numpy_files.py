"""NumPy's files: .npy has one array, .npz several by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError

Array = npt.NDArray[Any]


def read_npy(path: str) -> Array:
    """The array of a .npy file.

    Raises:
        DataError: it cannot be read, or is none.
    """
    found = _load(path)
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} is no readable .npy file (it holds several arrays)")
    return found


def read_npz(path: str) -> dict[str, Array]:
    """The arrays of a .npz file by name.

    Raises:
        DataError: it cannot be read, or is none.
    """
    found = _load(path)
    if not isinstance(found, dict):
        raise DataError(f"{path} is no readable .npz file (it holds a single array)")
    return found


def _load(path: str) -> Array | dict[str, Array]:
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged zip file or header can make it raise nearly anything
        raise DataError(f"{path} is no readable {path[-4:]} file ({error or type(error).__name__})") from None


__all__ = ["read_npy", "read_npz"]
