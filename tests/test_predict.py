"""Images of every kind in, scores out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netrun
from netrun.config import schema
from netrun.errors import DataError, UsageError

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, netrun.Net]:
    """Weights of the digits, trained for a moment, and the net that classifies with them."""
    folder = tmp_path_factory.mktemp("digits")
    message = schema.SolverParameter(
        net=str(CONFIGS / "digits" / "net.prototxt"), base_lr=0.05, momentum=0.9, lr_policy="fixed", random_seed=1
    )
    with netrun.Solver(message) as solver:
        solver.step(60)
        weights = str(folder / "w.caffemodel")
        solver.net.save(weights)
    return weights, netrun.load(CONFIGS / "digits" / "net.prototxt", weights)


def samples() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    with netrun.Net(CONFIGS / "digits" / "net.prototxt") as net:
        found = net.forward(end="digits")
        return np.rint(found["data"] * 16).astype(np.uint8), found["label"].astype(int)


def test_predict(digits: tuple[str, netrun.Net]) -> None:
    _, net = digits
    assert (net.inputs, net.outputs) == (["data"], ["prob"])
    images, labels = samples()
    scores = net.predict([image[0] for image in images])
    assert scores.shape == (60, 10)
    np.testing.assert_allclose(scores.sum(1), 1, 1e-5)
    assert (scores.argmax(1) == labels).mean() > 0.8
    np.testing.assert_allclose(net.predict(images[0, 0]), scores[0], 1e-5)
    np.testing.assert_allclose(net.predict(images.transpose(0, 2, 3, 1), batch=7), scores, 1e-5)
    np.testing.assert_allclose(net.predict([image.astype(float) for image in images[:3]]), scores[:3], 1e-5)
    assert net.blobs["data"].shape == (1, 1, 8, 8)
    large = images[0, 0].repeat(3, 0).repeat(3, 1)
    assert net.predict(large).argmax() == scores[0].argmax()
    with pytest.raises(DataError, match="image 1: it is no image"):
        net.predict([images[0, 0], np.zeros(3)])
    with pytest.raises(DataError, match=r"nowhere\.png"):
        net.predict("nowhere.png")
    with netrun.Net(CONFIGS / "digits" / "net.prototxt") as training, pytest.raises(UsageError, match="one input"):
        training.predict(images[0, 0])
