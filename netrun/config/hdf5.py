"""The HDF5 layout of weights and solver states, through h5py (the extra ``hdf5``).

Weights: ``/data/<layer>/<i>``, gradients ``/diff/<layer>/<i>``. State: ``/iter``, ``/current_step``, ``/learned_net``,
``/history/<i>``; what is netrun's own stands as a serialized message in ``/netrun``, which Caffe does not look at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from google.protobuf.message import DecodeError

from ..errors import UsageError, WeightsError, Where, missing_extra
from . import schema
from .stored import LayerWeights, State
from .wire import Array

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OWN = "netrun"


def is_hdf5(data: memoryview) -> bool:
    """Whether a file is HDF5, by its first bytes."""
    return bytes(data[: len(_SIGNATURE)]) == _SIGNATURE


def read_weights(file: str) -> list[LayerWeights]:
    """Every layer of an HDF5 weight file; see ``weights.read_weights``."""
    with _reading(file) as root:
        if not _is_group(root, "data"):
            raise WeightsError("no weight file: it has no group /data", Where(file))
        found: dict[str, LayerWeights] = {}
        _collect(file, root["data"], "", found)
        if "diff" in root:
            for layer in found.values():
                for at, i in enumerate(layer.numbers):
                    name = f"diff/{layer.name}/{i}"
                    layer.diffs[at] = _array(file, root, name) if name in root else None
        return list(found.values())


def write_weights(
    stream: BinaryIO,
    layers: Sequence[schema.LayerParameter],
    blobs: Mapping[int, Mapping[int, Array]],
    diffs: Mapping[int, Mapping[int, Array]],
) -> None:
    """Write an HDF5 weight file; see ``weights.write_weights``."""
    with _h5py().File(stream, "w") as root:
        data = root.create_group("data")
        slopes = root.create_group("diff") if diffs else None
        counts = [(layer.name, max(blobs[i], default=-1) + 1) for i, layer in enumerate(layers) if blobs.get(i)]
        check_names(counts)
        taken = {f"{name}/{i}" for name, count in counts for i in range(count)}
        for index, layer in enumerate(layers):
            if not blobs.get(index) and (not _fits(layer.name) or _inside(layer.name, taken)):
                continue  # a layer without parameters is told for completeness
            group = data.require_group(layer.name)
            for i, array in blobs.get(index, {}).items():
                group[str(i)] = array
            if slopes is not None:
                slope = slopes.require_group(layer.name)
                for i, array in diffs.get(index, {}).items():
                    slope[str(i)] = array


def check_names(layers: Sequence[tuple[str, int]]) -> None:
    """Refuse layers whose names an HDF5 file cannot hold.

    Args:
        layers: name and number of blobs of each that has any.

    Raises:
        UsageError: see above.
    """
    why = ""
    names = [name for name, _ in layers]
    taken = {f"{name}/{i}": name for name, count in layers for i in range(count)}
    for i, name in enumerate(names):
        if not name:
            why = "one with parameters has none"
        elif name in names[:i]:
            why = f'two with parameters are called "{name}"'
        elif not _fits(name):
            why = f'"{name}" is no path of groups'
        elif _inside(name, taken):
            why = f'"{name}" is where the blobs of "{taken[_inside(name, taken)]}" stand'
    if why:
        hint = "give each layer a name of its own, or write no HDF5"
        raise UsageError(f"HDF5 files hold layers by their names, and {why}", None, [hint])


def _inside(name: str, taken: Container[str]) -> str:
    """The path among the taken ones that a name is, or begins with; "" if there is none."""
    parts = name.split("/")
    return next((p for p in ("/".join(parts[: i + 1]) for i in range(len(parts))) if p in taken), "")


def _fits(name: str) -> bool:
    """Whether an HDF5 group can have that name: a path, whose parts are not empty."""
    return "\0" not in name and all(part not in ("", ".") for part in name.split("/"))


def read_state(file: str) -> State:
    """An HDF5 solver state; see ``weights.read_state``."""
    with _reading(file) as root:
        if "iter" not in root or not _is_group(root, "history"):
            raise WeightsError("no solver state: it has no /iter and /history", Where(file))
        own = bytes(np.asarray(root[_OWN][()], np.uint8)) if _OWN in root else b""
        message = schema.SolverState.FromString(own)
        message.iter = int(np.asarray(root["iter"][()]).reshape(-1)[0])
        if "current_step" in root:
            message.current_step = int(np.asarray(root["current_step"][()]).reshape(-1)[0])
        if "learned_net" in root:
            name = root["learned_net"][()]
            message.learned_net = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        count = len(root["history"])
        missing = [i for i in range(count) if str(i) not in root["history"]]
        if missing:
            raise WeightsError(f"damaged: /history has {count} entries but none called {missing[0]}", Where(file))
        return State.of(message, [_array(file, root, f"history/{i}") for i in range(count)])


def write_state(stream: BinaryIO, state: State) -> None:
    """Write an HDF5 solver state; see ``weights.write_state``."""
    with _h5py().File(stream, "w") as root:
        root["iter"] = np.array([state.iter], np.int32)
        root["current_step"] = np.array([state.current_step], np.int32)
        root["learned_net"] = np.bytes_(state.learned_net.encode())
        group = root.create_group("history")
        for i, array in enumerate(state.history):
            group[str(i)] = array
        own = state.message()
        for name in ("iter", "current_step", "learned_net"):
            own.ClearField(name)
        root[_OWN] = np.frombuffer(own.SerializeToString(), np.uint8)


def _collect(file: str, group: Any, path: str, found: dict[str, LayerWeights]) -> None:
    """Add the layers below a group. A layer's name may hold slashes, so layers may stand inside groups."""
    for key in group:
        name, inner = f"{path}{key}", group[key]
        if not hasattr(inner, "keys"):
            raise WeightsError(f"/data/{name} is no group of a layer", Where(file))
        arrays = [k for k in inner if not hasattr(inner[k], "keys")]
        if arrays or not len(inner):
            layer = found[name] = LayerWeights(name)
            strange = [k for k in arrays if not (k.isascii() and k.isdigit())]
            if strange:
                raise WeightsError(f"layer {name}: {strange[0]} is no number of a blob", Where(file))
            for i in sorted(map(int, arrays)):
                layer.blobs.append(_array(file, inner, str(i)))
                layer.diffs.append(None)
                layer.numbers.append(i)
        if len(arrays) < len(inner):
            _collect(file, {k: inner[k] for k in inner if k not in arrays}, name + "/", found)


def _is_group(group: Any, name: str) -> bool:
    return name in group and hasattr(group[name], "keys")


def _array(file: str, group: Any, name: str) -> Array:
    """A dataset as float32, or as float64 if it is that."""
    values = np.asarray(group[name][()])
    if values.dtype.kind not in "fiu":
        raise WeightsError(f"{group.name.rstrip('/')}/{name} holds {values.dtype}, numbers are wanted", Where(file))
    return values.astype(np.float64 if values.dtype == np.float64 else np.float32, copy=False)


@contextlib.contextmanager
def _reading(file: str) -> Iterator[Any]:
    """The open root group; whatever h5py raises on a damaged file becomes a WeightsError."""
    h5py = _h5py()
    try:
        with h5py.File(file, "r") as root:
            yield root
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError, DecodeError) as problem:
        raise WeightsError(
            f"damaged: {str(problem).splitlines()[0] if str(problem) else problem!r}", Where(file)
        ) from None


def require() -> None:
    """Make sure that HDF5 files can be read and written.

    Raises:
        UsageError: h5py is not installed.
    """
    _h5py()


def _h5py() -> Any:
    try:
        import h5py  # an extra
    except ImportError:
        raise missing_extra("an HDF5 file", "h5py", "hdf5") from None
    return h5py
