"""Weight files and solver states: Caffe's own against protobuf's reading of them, and ours read back by both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from netrun.config import schema, text, weights
from netrun.config.weights import State
from netrun.config.wire import Array
from netrun.errors import UsageError, WeightsError

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = sorted(GOLDEN.rglob("*.caffemodel"))
STATES = sorted(GOLDEN.rglob("*.solverstate"))


def named(path: Path) -> str:
    return str(path.relative_to(GOLDEN))


def blob_of(blob: schema.BlobProto, values: object) -> Array:
    """What protobuf's lists say, in the shape of the file."""
    shape = list(blob.shape.dim)
    if blob.HasField("num"):
        shape = [blob.num, blob.channels, blob.height, blob.width]
    double = len(blob.double_data) or len(blob.double_diff)
    return np.array(values, np.float64 if double else np.float32).reshape(shape)


def layers_of(net: schema.NetParameter) -> Iterator[schema.LayerParameter | schema.V1LayerParameter]:
    yield from net.layer
    yield from net.layers


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("path", MODELS, ids=named)
def test_weights_of_caffe_are_what_protobuf_reads(path: Path) -> None:
    wanted = list(layers_of(schema.NetParameter.FromString(path.read_bytes())))
    got = weights.read_weights(path)
    assert [layer.name for layer in got] == [layer.name for layer in wanted]
    for layer, message in zip(got, wanted, strict=True):
        if isinstance(message, schema.LayerParameter):
            assert layer.type == message.type
        assert layer.legacy == any(blob.HasField("num") for blob in message.blobs)
        assert len(layer.blobs) == len(layer.diffs) == len(message.blobs)
        for blob, diff, proto in zip(layer.blobs, layer.diffs, message.blobs, strict=True):
            assert same(blob, blob_of(proto, proto.double_data or proto.data))
            gradient = proto.double_diff or proto.diff
            assert (diff is None) == (not gradient)
            assert diff is None or same(diff, blob_of(proto, gradient))


def test_every_kind_of_weight_file_is_among_them() -> None:
    found = [layer for path in MODELS for layer in weights.read_weights(path)]
    assert any(layer.legacy for layer in found)
    assert any(diff is not None for layer in found for diff in layer.diffs)
    assert any(blob.dtype == np.float64 for layer in found for blob in layer.blobs)
    legacy = weights.read_weights(GOLDEN / "weights" / "v1_legacy.caffemodel")
    assert [(layer.name, layer.type) for layer in legacy] == [("conv", "Convolution"), ("ip", "InnerProduct")]


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("*.caffemodel.h5")), ids=named)
def test_hdf5_weights_are_the_binary_ones(path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    wanted = {layer.name: layer for layer in weights.read_weights(path.with_suffix(""))}
    got = {layer.name: layer for layer in weights.read_weights(path)}
    assert {name for name, layer in wanted.items() if layer.blobs} <= got.keys() <= wanted.keys()
    for name, layer in got.items():
        assert all(map(same, layer.blobs, wanted[name].blobs)), name
        assert len(layer.blobs) == len(wanted[name].blobs)


@pytest.mark.parametrize("path", STATES, ids=named)
def test_states_of_caffe_are_what_protobuf_reads(path: Path, tmp_path: Path) -> None:
    message = schema.SolverState.FromString(path.read_bytes())
    state = weights.read_state(path)
    assert (state.iter, state.learned_net, state.current_step) == (
        message.iter,
        message.learned_net,
        message.current_step,
    )
    assert (state.cursor, state.seed, state.recent_loss) == ([], None, [])
    assert len(state.history) == len(message.history)
    assert all(same(a, blob_of(b, b.data)) for a, b in zip(state.history, message.history, strict=True))
    weights.write_state(tmp_path / "s", state)
    assert schema.SolverState.FromString((tmp_path / "s").read_bytes()) == message


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("*.solverstate.h5")), ids=named)
def test_hdf5_states_are_the_binary_ones(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    wanted, got = weights.read_state(path.with_suffix("")), weights.read_state(path)
    assert (got.iter, got.current_step) == (wanted.iter, wanted.current_step)
    assert got.learned_net == f"{wanted.learned_net}.h5"
    assert len(got.history) == len(wanted.history)
    assert all(map(same, got.history, wanted.history))


@pytest.mark.parametrize("as_hdf5", [False, True])
def test_a_state_of_our_own_comes_back(tmp_path: Path, as_hdf5: bool) -> None:
    if as_hdf5:
        pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    history: list[Array] = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array([0.1], np.float64),
        np.array(7, np.float32),
    ]
    cursor = [schema.DataCursor(net="train", layer="digits", position=2**40, draws=3)]
    state = State(12, "w_iter_12.caffemodel", 2, [*history], cursor, 2**64 - 1, [0.5, 0.25])
    weights.write_state(tmp_path / "s", state, as_hdf5=as_hdf5)
    back = weights.read_state(tmp_path / "s")
    assert all(map(same, back.history, history))
    back.history = state.history
    assert back == state


def write_example(path: Path, as_hdf5: bool = False) -> tuple[schema.NetParameter, dict[int, list[Array]]]:
    net, _ = text.read(GOLDEN / "weights" / "net.prototxt", schema.NetParameter)
    random = np.random.default_rng(3)
    blobs: dict[int, list[Array]] = {
        1: [random.normal(size=(4, 2, 3, 3)).astype(np.float32), np.asfortranarray(random.normal(size=(3, 5)))],
        2: [
            np.array(2.5, np.float32),
            np.zeros((0, 4), np.float32),
            random.normal(size=(6, 4)).astype(np.float32)[::2],
        ],
    }
    diffs = {1: [blobs[1][0] * 2]}
    weights.write_weights(path, "an example", net.layer, blobs, diffs, as_hdf5=as_hdf5)
    return net, blobs


def test_weights_of_our_own_are_read_by_protobuf_and_by_us(tmp_path: Path) -> None:
    net, blobs = write_example(tmp_path / "w")
    message = schema.NetParameter.FromString((tmp_path / "w").read_bytes())
    assert message.name == "an example"
    for index, (layer, written) in enumerate(zip(net.layer, message.layer, strict=True)):
        for proto, array in zip(written.blobs, blobs.get(index, []), strict=True):
            assert same(
                blob_of(proto, proto.double_data or proto.data), np.ascontiguousarray(array).reshape(array.shape)
            )
        written.ClearField("blobs")
        assert written == layer, "everything else of the layer is there"
    for index, read in enumerate(weights.read_weights(tmp_path / "w")):
        assert len(read.blobs) == len(blobs.get(index, []))
        for got, array in zip(read.blobs, blobs.get(index, []), strict=True):
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array)
    first = weights.read_weights(tmp_path / "w")[1]
    assert first.diffs[0] is not None
    np.testing.assert_array_equal(first.diffs[0], blobs[1][0] * 2)
    assert first.diffs[1] is None


def test_hdf5_weights_of_our_own(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    net, blobs = write_example(tmp_path / "w", as_hdf5=True)
    found = {layer.name: layer for layer in weights.read_weights(tmp_path / "w")}
    assert found.keys() == {layer.name for layer in net.layer}
    for index, layer in enumerate(net.layer):
        assert len(found[layer.name].blobs) == len(blobs.get(index, []))
        for got, array in zip(found[layer.name].blobs, blobs.get(index, []), strict=True):
            np.testing.assert_array_equal(got, array)
    diff = found[net.layer[1].name].diffs[0]
    assert diff is not None
    np.testing.assert_array_equal(diff, blobs[1][0] * 2)


def test_hdf5_layers_whose_names_hold_slashes(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    layers = [schema.LayerParameter(name=name) for name in ("inception/1x1", "inception", "inception/relu")]
    ones = np.ones(3, np.float32)
    weights.write_weights(tmp_path / "w", "", layers, {0: [ones], 1: [ones * 2]}, as_hdf5=True)
    found = {layer.name: [float(b[0]) for b in layer.blobs] for layer in weights.read_weights(tmp_path / "w")}
    assert found == {"inception/1x1": [1.0], "inception": [2.0], "inception/relu": []}


def test_a_layer_in_v0_form(tmp_path: Path) -> None:
    v0 = schema.V0LayerParameter(name="c", type="conv", blobs=[schema.BlobProto(num=1, width=2, channels=1, height=1)])
    v0.blobs[0].data.extend([1, 2])
    net = schema.NetParameter(layers=[schema.V1LayerParameter(layer=v0)])
    (tmp_path / "w").write_bytes(net.SerializeToString())
    (layer,) = weights.read_weights(tmp_path / "w")
    assert (layer.name, layer.type, layer.legacy) == ("c", "Convolution", True)
    np.testing.assert_array_equal(layer.blobs[0], np.array([[[[1, 2]]]], np.float32))


def test_data_that_is_not_packed_and_data_in_pieces(tmp_path: Path) -> None:
    values = np.arange(1000, dtype="<f4")
    unpacked = b"".join(b"\x2d" + value.tobytes() for value in values[:700])
    packed = b"\x2a\xb0\x09" + values[700:].tobytes()
    assert len(packed) == 3 + 1200
    diffs = b"".join(b"\x49" + value.tobytes() for value in values.astype("<f8"))
    shape = b"\x3a\x03\x0a\x01\x0a" + b"\x3a\x02\x08\x64"  # dim 10 packed, then dim 100 not packed
    blob = unpacked + shape + packed + diffs
    assert list(schema.BlobProto.FromString(blob).shape.dim) == [10, 100]
    layer = b"\x0a\x01c" + b"\x3a" + three_byte_varint(len(blob)) + blob
    path = tmp_path / "w"
    path.write_bytes(b"\xa2\x06" + three_byte_varint(len(layer)) + layer)
    (found,) = weights.read_weights(path)
    assert same(found.blobs[0], values.reshape(10, 100))
    assert found.diffs[0] is not None
    assert same(found.diffs[0], values.astype(np.float64).reshape(10, 100))


def three_byte_varint(value: int) -> bytes:
    return bytes([value & 127 | 128, value >> 7 & 127 | 128, value >> 14])


def test_fields_of_other_schemas_are_stepped_over(tmp_path: Path) -> None:
    foreign = (
        b"\xfa\x3f\x02hi" + b"\x80\x7d\x07" + b"\x85\x7d\x01\x02\x03\x04" + b"\x83\x7d\x08\x01\x8b\x7d\x8c\x7d\x84\x7d"
    )
    model = GOLDEN / "weights" / "plain.caffemodel"
    (tmp_path / "w").write_bytes(foreign + model.read_bytes() + foreign)
    assert [layer.name for layer in weights.read_weights(tmp_path / "w")] == [
        layer.name for layer in weights.read_weights(model)
    ]


def test_a_large_file_is_mapped_and_its_arrays_are_views(tmp_path: Path) -> None:
    big = np.random.default_rng(0).random((512, 2048), np.float32)
    path = tmp_path / "w"
    weights.write_weights(path, "big", [schema.LayerParameter(name="fc")], {0: [big]})
    (layer,) = weights.read_weights(path)
    assert not layer.blobs[0].flags.owndata
    assert not layer.blobs[0].flags.writeable
    weights.write_weights(path, "big", [schema.LayerParameter(name="fc")], {0: [big * 0]})
    assert same(layer.blobs[0], big), "a file that is replaced does not change under its readers"


def test_a_mean_image() -> None:
    mean = weights.read_array(GOLDEN / "data" / "mean.binaryproto")
    message = schema.BlobProto.FromString((GOLDEN / "data" / "mean.binaryproto").read_bytes())
    assert same(mean, blob_of(message, message.data))


def test_files_that_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert weights.read_weights(tmp_path / "empty") == []
    with pytest.raises(WeightsError, match="text file"):
        weights.read_weights(GOLDEN / "e2e" / "net.prototxt")
    with pytest.raises(WeightsError, match="this is a solver state"):
        weights.read_weights(STATES[0])
    with pytest.raises(WeightsError, match="these are weights"):
        weights.read_state(MODELS[0])
    with pytest.raises(WeightsError, match="which iteration"):
        weights.read_state(tmp_path / "empty")
    for read in (weights.read_weights, weights.read_state):
        with pytest.raises(UsageError, match="there is no file"):
            read(tmp_path / "missing")
        with pytest.raises(UsageError, match="is a folder"):
            read(tmp_path)
    with pytest.raises(UsageError, match=r"no/w cannot be written: No such file"):
        weights.write_weights(tmp_path / "no" / "w", "", [], {})


def test_arrays_and_messages_that_cannot_be_written_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="float16"):
        weights.write_weights(tmp_path / "w", "", [schema.LayerParameter()], {0: [np.zeros(2, np.float16)]})
    with pytest.raises(ValueError, match="blobs already"):
        weights.write_weights(tmp_path / "w", "", [schema.LayerParameter(blobs=[schema.BlobProto()])], {})
    assert list(tmp_path.iterdir()) == []
