"""Weight files and solver states: .caffemodel, .solverstate, .binaryproto, and the first two in HDF5.

Which of the two formats a file has is seen from its first bytes, not from its name. All writing goes through
``files.replacing``: a file is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from google.protobuf.message import DecodeError, Message

from ..errors import UsageError, WeightsError, Where
from . import hdf5, schema, v0, v1
from .blobs import Blob, blob_pieces, read_blob
from .files import reading, replacing
from .lexer import shown
from .source import Source
from .stored import LayerWeights, State
from .upgrade import upgrade_net
from .wire import LENGTH, VARINT, Array, Piece, Record, Wire, message_pieces

__all__ = [
    "LayerWeights", "State", "exceeds_limit", "read_array", "read_state", "read_weights", "upgrade_weights",
    "write_state", "write_weights",
]  # fmt: skip

LIMIT = 2**31 - 1
"""Bytes that a protobuf file may have: no reader of the format, Caffe's included, opens a larger one."""
Blobs = Sequence[Array] | Mapping[int, Array]
"""The arrays of one layer in order, or by their numbers where some are left away."""
_LARGE = 1 << 20  # bytes from which a file is mapped, not read


def _numbers(message: type[Message]) -> dict[str, int]:
    return {name: field.number for name, field in message.DESCRIPTOR.fields_by_name.items()}


_NET = _numbers(schema.NetParameter)
_LAYER = _numbers(schema.LayerParameter)
_V1 = _numbers(schema.V1LayerParameter)
_V0 = _numbers(schema.V0LayerParameter)
_STATE = _numbers(schema.SolverState)


def read_weights(path: str | os.PathLike[str]) -> list[LayerWeights]:
    """Every layer of a weight file, also those without blobs, in the order of the file.

    Reads .caffemodel files of all ages (V0, V1, current) and HDF5. A file of no bytes holds no layers.

    Raises:
        UsageError: there is no such file, or it needs h5py, which is not installed.
        WeightsError: it is damaged or no weight file.
    """
    wire = _open(path)
    if hdf5.is_hdf5(wire.data):
        return hdf5.read_weights(wire.file)
    if len(wire.data) and wire.data[0] == _STATE["iter"] << 3 | VARINT:
        raise WeightsError("this is a solver state; the weights are in the .caffemodel beside it", Where(wire.file))
    layers = []
    for record in wire.records(0, len(wire.data)):
        if record.kind == LENGTH and record.number == _NET["layer"]:
            layers.append(_current(wire, record))
        elif record.kind == LENGTH and record.number == _NET["layers"]:
            layers.append(_v1(wire, record))
    return layers


def write_weights(
    path: str | os.PathLike[str],
    net_name: str,
    layers: Sequence[schema.LayerParameter],
    blobs: Mapping[int, Blobs],
    diffs: Mapping[int, Blobs] | None = None,
    as_hdf5: bool = False,
) -> None:
    """Write a weight file that Caffe reads.

    Args:
        path: the file; it is replaced only when all bytes are safe.
        net_name: the name of the net.
        layers: the messages of all layers, without blobs.
        blobs: the index of a layer -> its float32 or float64 arrays, in order or by their numbers. In HDF5 leave away
            those a layer shares and another owns.
        diffs: the gradients in the same way, if they are wanted (``snapshot_diff``).
        as_hdf5: write HDF5 in place of a .caffemodel.

    Raises:
        UsageError: the file cannot be written, would be larger than any reader opens, is HDF5 and two layers with
            parameters have one name, or h5py is not installed.
        ValueError: a message has blobs.
        TypeError: an array is neither float32 nor float64.
    """
    values = {index: _by_number(arrays) for index, arrays in blobs.items()}
    slopes = {index: _by_number(arrays) for index, arrays in (diffs or {}).items()}
    if as_hdf5:
        with _writing(path) as stream:
            hdf5.write_weights(stream, layers, values, slopes)
        return
    _check_size(path, [list(arrays.values()) for arrays in (*values.values(), *slopes.values())])
    with _writing(path) as stream:
        stream.write(schema.NetParameter(name=net_name).SerializeToString())
        for index, layer in enumerate(layers):
            if layer.blobs:
                raise ValueError(f"layer {layer.name}: its message has blobs already")
            pieces: list[Piece] = [layer.SerializePartialToString()]
            gradients = slopes.get(index, {})
            for i, array in values.get(index, {}).items():
                pieces += blob_pieces(_LAYER["blobs"], array, gradients.get(i))
            stream.writelines(message_pieces(_NET["layer"], pieces))


def _by_number(arrays: Blobs) -> Mapping[int, Array]:
    return arrays if isinstance(arrays, Mapping) else dict(enumerate(arrays))


def upgrade_weights(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> list[str]:
    """Write a .caffemodel of any age in the current form; values and shapes stay as they are, bit for bit.

    Returns:
        One sentence for each thing that was changed; none for a file that was current.

    Raises:
        UsageError: a file cannot be read or written, or ``old`` is HDF5, which has but one form.
        WeightsError: it is damaged or no weight file.
    """
    wire = _open(old)
    if hdf5.is_hdf5(wire.data):
        raise UsageError(f"{wire.file} is an HDF5 file: that form never changed, there is nothing to upgrade")
    stored = read_weights(old)
    try:
        net = schema.NetParameter.FromString(_without_blobs(wire))
    except (DecodeError, UnicodeDecodeError):
        raise WeightsError("damaged: the fields beside the values do not parse", Where(wire.file)) from None
    net.DiscardUnknownFields()
    notices = upgrade_net(net, Source(wire.file))
    layers = list(net.layer)
    del net.layer[:]
    with _writing(new) as stream:
        stream.write(net.SerializePartialToString())
        for layer in layers:
            pieces: list[Piece] = [layer.SerializePartialToString()]
            # Upgrades add layers and drop some, but never change a name or the order.
            at = next((i for i, given in enumerate(stored) if given.name == layer.name), None)
            if at is not None:
                given = stored.pop(at)
                for blob, diff in zip(given.blobs, given.diffs, strict=True):
                    pieces += blob_pieces(_LAYER["blobs"], blob, diff, given.legacy and blob.ndim == 4)
            stream.writelines(message_pieces(_NET["layer"], pieces))
    return notices


def _without_blobs(wire: Wire) -> bytes:
    """The message of a weight file with all values left away."""
    kept = bytearray()
    for record in wire.records(0, len(wire.data)):
        if record.kind != LENGTH or record.number not in (_NET["layer"], _NET["layers"]):
            kept += wire.raw(record)
            continue
        content = bytearray()
        current = record.number == _NET["layer"]
        for field in wire.records(record.start, record.end):
            if field.kind == LENGTH and not current and field.number == _V1["layer"]:
                inner = [wire.raw(r) for r in wire.records(field.start, field.end) if r.number != _V0["blobs"]]
                content += b"".join(map(bytes, message_pieces(_V1["layer"], inner)))
            elif field.number != (_LAYER if current else _V1)["blobs"]:
                content += wire.raw(field)
        kept += b"".join(map(bytes, message_pieces(record.number, [bytes(content)])))
    return bytes(kept)


def read_state(path: str | os.PathLike[str]) -> State:
    """A solver state, .solverstate or HDF5.

    Raises:
        UsageError: there is no such file, or it needs h5py, which is not installed.
        WeightsError: it is damaged or no solver state.
    """
    wire = _open(path)
    if hdf5.is_hdf5(wire.data):
        return hdf5.read_state(wire.file)
    history: list[Array] = []
    rest = bytearray()
    for record in wire.records(0, len(wire.data)):
        if record.kind == LENGTH and record.number == _NET["layer"]:
            raise WeightsError("these are weights, a solver state (.solverstate) is wanted", Where(wire.file))
        if record.kind == LENGTH and record.number == _STATE["history"]:
            history.append(read_blob(wire, record.start, record.end, f"history {len(history)}").data)
        else:
            rest += wire.raw(record)
    try:
        message = schema.SolverState.FromString(bytes(rest))
    except (DecodeError, UnicodeDecodeError):
        raise WeightsError("damaged: the fields beside the history do not parse", Where(wire.file)) from None
    if not message.HasField("iter"):
        raise WeightsError("no solver state: it does not say in which iteration it was written", Where(wire.file))
    return State.of(message, history)


def write_state(path: str | os.PathLike[str], state: State, as_hdf5: bool = False) -> None:
    """Write a solver state that Caffe reads (it ignores what is netrun's own).

    Raises:
        UsageError: the file cannot be written, would be larger than any reader opens, or h5py is not installed.
        TypeError: an array is neither float32 nor float64.
    """
    if not as_hdf5:
        _check_size(path, [state.history])
    with _writing(path) as stream:
        if as_hdf5:
            hdf5.write_state(stream, state)
            return
        stream.write(state.message().SerializeToString())
        for array in state.history:
            stream.writelines(blob_pieces(_STATE["history"], array))


def exceeds_limit(nbytes: int) -> bool:
    """Whether so many bytes of values, with a little for names around them, are too many for a protobuf file."""
    return nbytes > LIMIT - LIMIT // 256


def _check_size(path: str | os.PathLike[str], groups: Sequence[Sequence[Array]]) -> None:
    nbytes = sum(array.nbytes for arrays in groups for array in arrays)
    if exceeds_limit(nbytes):
        raise UsageError(
            f"{os.fspath(path)} would hold {nbytes / 2**30:.3g} GiB, and nothing reads a protobuf file of more than "
            f"{LIMIT / 2**30:.3g} GiB: write HDF5 (snapshot_format: HDF5, or a name that ends in .h5)"
        )


def read_array(path: str | os.PathLike[str]) -> Array:
    """The array of a .binaryproto file (a single BlobProto, such as a mean image), in the shape of the file.

    Raises:
        UsageError: there is no such file.
        WeightsError: it is damaged.
    """
    wire = _open(path)
    return read_blob(wire, 0, len(wire.data), "the array").data


def _current(wire: Wire, layer: Record) -> LayerWeights:
    """A layer of the current form."""
    found = LayerWeights("")
    for record in wire.records(layer.start, layer.end):
        if record.kind != LENGTH:
            continue
        if record.number == _LAYER["name"]:
            found.name = wire.text(record)
        elif record.number == _LAYER["type"]:
            found.type = wire.text(record)
        elif record.number == _LAYER["blobs"]:
            _add(found, _blob(wire, record, found))
    return found


def _v1(wire: Wire, layer: Record) -> LayerWeights:
    """A layer of the V1 form, or of the V0 form inside it."""
    found = LayerWeights("")
    for record in wire.records(layer.start, layer.end):
        if record.kind == LENGTH and record.number == _V1["name"]:
            found.name = wire.text(record)
        elif record.kind == VARINT and record.number == _V1["type"]:
            found.type = v1.type_name(record.value)
        elif record.kind == LENGTH and record.number == _V1["blobs"]:
            _add(found, _blob(wire, record, found))
        elif record.kind == LENGTH and record.number == _V1["layer"]:
            _v0(wire, record, found)
    return found


def _v0(wire: Wire, layer: Record, found: LayerWeights) -> None:
    for record in wire.records(layer.start, layer.end):
        if record.kind != LENGTH:
            continue
        if record.number == _V0["name"]:
            found.name = wire.text(record)
        elif record.number == _V0["type"]:
            found.type = v1.TYPES[v0.type_name(wire.text(record))]
        elif record.number == _V0["blobs"]:
            _add(found, _blob(wire, record, found))


def _blob(wire: Wire, record: Record, layer: LayerWeights) -> Blob:
    return read_blob(
        wire, record.start, record.end, f"layer {shown(layer.name) or '(no name)'}: blob {len(layer.blobs)}"
    )


def _add(layer: LayerWeights, blob: Blob) -> None:
    layer.blobs.append(blob.data)
    layer.diffs.append(blob.diff)
    layer.legacy |= blob.legacy


def _open(path: str | os.PathLike[str]) -> Wire:
    """The bytes of a file: mapped if it is large, so that opening it costs nothing."""
    file = os.fspath(path)
    with reading(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        mapped = size >= _LARGE
        data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if mapped else stream.read())
    head = bytes(data[:256])
    if head and head.isascii() and all(byte >= 32 or byte in b"\t\n\r" for byte in head):
        raise WeightsError("this is a text file, a binary file (weights or state) is wanted", Where(file))
    return Wire(data, file)


@contextlib.contextmanager
def _writing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """``replacing``, whose failures say which file could not be written."""
    try:
        with replacing(path) as stream:
            yield stream
    except OSError as problem:
        raise UsageError(f"{os.fspath(path)} cannot be written: {problem.strerror or problem}") from None
