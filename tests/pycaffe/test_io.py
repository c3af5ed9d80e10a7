"""caffe.io, Classifier and Detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import netrun.pycaffe as caffe
from netrun.errors import NetrunError

Image = pytest.importorskip("PIL.Image")
pb = caffe.proto.caffe_pb2


def test_blobproto() -> None:
    values = np.arange(100.0).reshape(10, 10)
    old = pb.BlobProto(data=values.ravel(), num=1, channels=1, height=10, width=10)
    assert caffe.io.blobproto_to_array(old).shape == (1, 1, 10, 10)
    new = pb.BlobProto(data=values.ravel())
    with pytest.raises(ValueError, match="100 values"):
        caffe.io.blobproto_to_array(new)
    new.shape.dim.extend([10, 10])
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(new), values)
    assert caffe.io.blobproto_to_array(pb.BlobProto(data=[123])) == 123
    both = caffe.io.array_to_blobproto(values, diff=-values)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(both, return_diff=True), -values)
    text = caffe.io.arraylist_to_blobprotovector_str([values, values[0]])
    found = caffe.io.blobprotovector_str_to_arraylist(text)
    assert [a.shape for a in found] == [(10, 10), (10,)]


def test_datum() -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    datum = caffe.io.array_to_datum(values, 7)
    assert (datum.label, datum.float_data[:]) == (7, [])
    np.testing.assert_array_equal(caffe.io.datum_to_array(datum), values)
    floats = caffe.io.array_to_datum(values / 3)
    assert not floats.HasField("label")
    np.testing.assert_allclose(caffe.io.datum_to_array(pb.Datum.FromString(floats.SerializeToString())), values / 3)
    with pytest.raises(ValueError, match="Incorrect array shape"):
        caffe.io.array_to_datum(values[0])


@pytest.fixture
def picture(tmp_path: Path) -> str:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[..., 0], pixels[0, 0] = 255, (0, 51, 102)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    return str(tmp_path / "p.png")


def test_load_and_resize(picture: str) -> None:
    image = caffe.io.load_image(picture)
    assert (image.shape, image.dtype) == ((4, 6, 3), np.float32)
    np.testing.assert_allclose(image[0, 0], [0, 0.2, 0.4], 1e-6)
    np.testing.assert_allclose(image[2, 2], [1, 0, 0])
    assert caffe.io.load_image(picture, color=False).shape == (4, 6, 1)
    assert caffe.io.resize_image(image, (8, 5)).shape == (8, 5, 3)
    np.testing.assert_allclose(caffe.io.resize_image(np.full((3, 3, 2), 0.5), (7, 7)), 0.5)
    ramp = np.arange(4.0)[:, np.newaxis, np.newaxis] * np.ones((1, 4, 1))
    np.testing.assert_allclose(caffe.io.resize_image(ramp, (2, 4))[:, 0, 0], [0.5, 2.5])
    np.testing.assert_allclose(caffe.io.resize_image(ramp, (2, 4), interp_order=0)[:, 0, 0], [1, 3])
    for kind in (RuntimeError, OSError, NetrunError):
        with pytest.raises(kind, match=r"no\.png"):
            caffe.io.load_image("no.png")


def test_oversample() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.float32).reshape(6, 8, 3)
    crops = caffe.io.oversample([image, image], (4, 4))
    assert crops.shape == (20, 4, 4, 3)
    np.testing.assert_array_equal(crops[0], image[:4, :4])
    np.testing.assert_array_equal(crops[3], image[2:, 4:])
    np.testing.assert_array_equal(crops[4], image[1:5, 2:6])
    np.testing.assert_array_equal(crops[9], image[1:5, 2:6][:, ::-1])


def test_transformer() -> None:
    t = caffe.io.Transformer({"data": (10, 3, 4, 5)})
    image = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(t.preprocess("data", image), image)
    t.set_transpose("data", (2, 0, 1))
    t.set_channel_swap("data", (2, 1, 0))
    t.set_raw_scale("data", 255)
    t.set_mean("data", np.array([1.0, 2.0, 3.0]))
    t.set_input_scale("data", 0.5)
    ready = t.preprocess("data", image)
    mean = np.array([1, 2, 3])[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(ready, (image.transpose(2, 0, 1)[::-1] * 255 - mean) * 0.5, 1e-5)
    np.testing.assert_allclose(t.deprocess("data", ready), image, 1e-4, 1e-6)
    assert t.preprocess("data", np.zeros((9, 9, 3))).shape == (3, 4, 5)
    t.set_mean("data", np.ones((3, 8, 8)))
    assert t.mean["data"].shape == (3, 4, 5)
    for act, text in (
        (lambda: t.set_mean("data", np.ones(2)), "incompatible"),
        (lambda: t.set_mean("data", np.ones((1, 3, 4, 5))), "invalid"),
        (lambda: t.set_transpose("data", (0, 1)), "dimensions"),
        (lambda: t.set_channel_swap("data", (0, 1)), "channels"),
        (lambda: t.set_raw_scale("date", 1), "date is not one of the net inputs: data"),
    ):
        with pytest.raises(NetrunError, match=text):
            act()


NET = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }"""


@pytest.fixture
def model(write: Callable[..., str], tmp_path: Path) -> tuple[str, str]:
    file, weights = write(NET), str(tmp_path / "w.caffemodel")
    net = caffe.Net(file, caffe.TEST)
    net.params["ip"][0].data[...] = np.eye(3) * 9
    net.save(weights)
    return file, weights


def test_classifier(model: tuple[str, str], picture: str) -> None:
    net = caffe.Classifier(*model, image_dims=(6, 6), channel_swap=(2, 1, 0))
    image = caffe.io.load_image(picture)
    for oversample in (True, False):
        scores = net.predict([image, image[:, :, ::-1], image], oversample=oversample)
        assert scores.shape == (3, 3)
        assert scores.argmax(1).tolist() == [2, 0, 2]
    assert net.forward_all(data=np.zeros((5, 3, 4, 4)))["prob"].shape == (5, 3)


def test_detector(model: tuple[str, str], picture: str) -> None:
    for pad in (None, 1):
        net = caffe.Detector(*model, mean=np.array([0.0, 0, 0]), channel_swap=(2, 1, 0), context_pad=pad)
        found = net.detect_windows([(picture, [(1, 1, 4, 5), (0, 0, 2, 2)])])
        assert [d["filename"] for d in found] == [picture] * 2
        assert found[0]["prediction"].argmax() == 2
    with pytest.raises(NetrunError, match="selective search"):
        net.detect_selective_search([picture])
