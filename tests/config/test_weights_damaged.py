"""Damaged weight files and states end in one message that names the file, never in a traceback."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format

from netrun.config import schema, weights
from netrun.config.wire import Wire
from netrun.errors import UsageError, WeightsError

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = [*sorted((GOLDEN / "weights").glob("*.caffemodel")), GOLDEN / "e2e" / "s_iter_5.caffemodel"]
STATE = GOLDEN / "e2e" / "s_iter_5.solverstate"
Read = Callable[[Path], object]


def refused(read: Read, path: Path) -> bool:
    """Whether a file is refused with a message that names it; anything but a WeightsError fails the test."""
    try:
        read(path)
    except WeightsError as error:
        lines = str(error).splitlines()
        return len(lines) == 1 and str(path) in lines[0]
    return False


def test_files_cut_off_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "w"
    count = 0
    for whole in (*MODELS, STATE):
        read: Read = weights.read_state if whole is STATE else weights.read_weights
        data = whole.read_bytes()
        ends = {0, *_field_ends(data)}
        for length in range(1, len(data), 97):
            path.write_bytes(data[:length])
            if length in ends:
                read(path)
            else:
                assert refused(read, path), (whole, length)
                count += 1
    assert count > 100


def _field_ends(data: bytes) -> list[int]:
    """The offsets between the outermost fields, where a cut cannot be seen."""
    return [record.end for record in Wire(memoryview(data), "f").records(0, len(data))]


def test_flipped_bytes(tmp_path: Path) -> None:
    rng = random.Random("flips")
    path = tmp_path / "w"
    count = 0
    for whole in (*MODELS, STATE):
        read: Read = weights.read_state if whole is STATE else weights.read_weights
        data = whole.read_bytes()
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(rng.randint(1, 20)):
                # Most of a file is floats; the structure stands in the first bytes of the fields.
                at = rng.randrange(len(data)) if rng.random() < 0.3 else rng.randrange(min(300, len(data)))
                damaged[at] = rng.randrange(256)
            path.write_bytes(damaged)
            count += refused(read, path)
    assert count > 300


def test_noise(tmp_path: Path) -> None:
    rng = random.Random("noise")
    path = tmp_path / "w"
    for _ in range(500):
        path.write_bytes(rng.randbytes(rng.randint(1, 300)))
        refused(weights.read_weights, path)
        refused(weights.read_state, path)
        refused(weights.read_array, path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"\xa2\x06\x05\x0a\x01c",
            "damaged at byte 0 of 6: field 100 wants 5 bytes, 3 are left (is the file cut off?)",
        ),
        (b"\x0a\x80", "damaged at byte 1 of 2: the data ends inside a number"),
        (b"\x0a" + b"\xff" * 11, "damaged at byte 1 of 12: a number is longer than 10 bytes"),
        (b"\x00\x00", "damaged at byte 0 of 2: 0 is no field number"),
        (b"\x0f\xff", "damaged at byte 0 of 2: there is no wire type 7"),
        (b"\x0c\xff", "damaged at byte 0 of 2: a group ends here (field 1) that did not begin"),
        (b"\x0b\x14", "damaged at byte 1 of 2: groups end in the wrong order"),
        (b"\x0b" * 200, "damaged at byte 1 of 200: groups are nested deeper than 100"),
    ],
)
def test_the_message_names_the_byte(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        weights.read_weights(tmp_path / "w")
    assert str(caught.value) == f"{tmp_path / 'w'}: {message}"


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        ("shape { dim: 2 dim: 3 } data: 1", "layer c: blob 0 holds 1 values, its shape 2 3 wants 6"),
        ("shape { dim: -2 dim: -1 } data: [1, 2]", "layer c: blob 0 holds 2 values, its shape -2 -1 wants 2"),
        ("shape { dim: 2 }", "layer c: blob 0 holds no values, its shape is 2"),
        ("", "layer c: blob 0 holds nothing, its shape is missing"),
        ("num: 1 data: 3", "layer c: blob 0 holds 1 values, its shape 1 0 0 0 wants 0"),
        ("shape { dim: 1 } data: 3 diff: [1, 2]", "the diff of layer c: blob 0 holds 2 values, its shape 1 wants 1"),
    ],
)
def test_blobs_that_contradict_themselves(tmp_path: Path, blob: str, message: str) -> None:
    net = text_format.Parse(f'layer {{ name: "c" blobs {{ {blob} }} }}', schema.NetParameter())
    (tmp_path / "w").write_bytes(net.SerializeToString())
    with pytest.raises(WeightsError) as caught:
        weights.read_weights(tmp_path / "w")
    assert str(caught.value).endswith(message)
    assert str(caught.value).startswith(f"{tmp_path / 'w'}: damaged at byte ")


def test_packed_data_of_half_a_number(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"\xa2\x06\x07\x3a\x05\x2a\x03abc")
    with pytest.raises(WeightsError, match="field 5 holds 3 bytes, no multiple of 4"):
        weights.read_weights(tmp_path / "w")


def test_states_whose_other_fields_are_damaged(tmp_path: Path) -> None:
    state = schema.SolverState(iter=3)
    (tmp_path / "s").write_bytes(state.SerializeToString() + b"\x82\xf1\x04\x02\x0a\x05")
    with pytest.raises(WeightsError, match="the fields beside the history do not parse"):
        weights.read_state(tmp_path / "s")


def test_damaged_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    path = tmp_path / "w"
    data = (GOLDEN / "weights" / "plain.caffemodel.h5").read_bytes()
    for length in range(8, len(data), 997):
        path.write_bytes(data[:length])
        assert refused(weights.read_weights, path), length
        assert refused(weights.read_state, path), length
    for make, message in (
        (lambda f: None, "no group /data"),
        (lambda f: f.create_dataset("data/conv", data=[1.0]), "/data/conv is no group of a layer"),
        (lambda f: f.create_dataset("data/conv/first", data=[1.0]), "layer conv: first is no number of a blob"),
        (lambda f: f.create_dataset("data/conv/0", data=b"x"), "numbers are wanted"),
        (lambda f: f.create_dataset("data", data=[1.0]), "no group /data"),
    ):
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(WeightsError, match=message):
            weights.read_weights(path)
    with h5py.File(path, "w") as file:
        file["iter"] = [3]
        file["history/1"] = [1.0]
    with pytest.raises(WeightsError, match="none called 0"):
        weights.read_state(path)


def test_a_missing_h5py_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"h5py: pip install 'netrun-trainer\[hdf5\]'"):
        weights.read_weights(GOLDEN / "weights" / "plain.caffemodel.h5")
