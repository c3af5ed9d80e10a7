"""Images of many sizes, one a batch: nets and solvers go along with the shape of every batch, as Caffe's do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.errors import DataError
from netrun.net import Net
from netrun.solver import Solver
from netrun.varying import LIMIT, Varying

SIZES = [(9, 7), (8, 8), (9, 7), (12, 10), (7, 9)]
BODY = """
  layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
    convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
  layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
  layer { name: "max" type: "Pooling" bottom: "conv" top: "max" pooling_param { kernel_size: 2 stride: 2 } }
  layer { name: "pool" type: "Pooling" bottom: "max" top: "pool" pooling_param { pool: AVE global_pooling: true } }
  layer { name: "drop" type: "Dropout" bottom: "pool" top: "drop" }
  layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "ip"
    inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }"""


def data(kind: str, batch: int = 1, more: str = "") -> str:
    source = 'source: "list.txt"' if kind == "image" else 'source: "db" backend: LMDB'
    return f"""layer {{ name: "data" type: "{"ImageData" if kind == "image" else "Data"}" top: "data" top: "label"
      {kind}_data_param {{ {source} batch_size: {batch} {more} }} transform_param {{ scale: 0.01 }} }}""".replace(
        "data_data_param", "data_param"
    )


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The images, as files of a list and in a database; returns their values as a net gets them."""
    image = pytest.importorskip("PIL.Image", reason="the extra images is not installed")
    import lmdb

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (3, h, w), dtype=np.uint8) for h, w in SIZES]
    with lmdb.open("db", map_size=1 << 20) as opened, opened.begin(write=True) as write:
        for i, one in enumerate(pixels):
            image.fromarray(np.ascontiguousarray(one[::-1].transpose(1, 2, 0))).save(f"{i}.png")
            height, width = SIZES[i]
            datum = schema.Datum(channels=3, height=height, width=width, data=one.tobytes(), label=i % 2)
            write.put(b"%04d" % i, datum.SerializeToString())
    Path("list.txt").write_text("".join(f"{i}.png {i % 2}\n" for i in range(len(SIZES))))
    return [one * np.float32(0.01) for one in pixels]


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("kind", ["image", "data"])
def test_a_net_follows_every_batch(kind: str, device: str, records: list[Any]) -> None:
    """Values, shapes and gradients are those of a net that is built for the one image."""
    with Net(parse_net("force_backward: true " + data(kind) + BODY)[0], device=device) as net:
        for step in range(7):
            number = step % len(SIZES)
            height, width = SIZES[number]
            net.forward()
            net.clear_param_diffs()
            net.backward()
            np.testing.assert_allclose(net.blobs["data"].data[0], records[number], 1e-6)
            given = f"shape {{ dim: 1 dim: 3 dim: {height} dim: {width} }} shape {{ dim: 1 }}"
            head = f'layer {{ name: "data" type: "Input" top: "data" top: "label" input_param {{ {given} }} }}'
            with Net(parse_net("force_backward: true " + head + BODY)[0], device=device) as alone:
                for name, blobs in net.params.items():
                    for mine, theirs in zip(alone.params[name], blobs, strict=True):
                        mine.data[...] = theirs.data
                alone.forward(data=records[number][None], label=[number % 2])
                alone.backward()
                for name, blob in alone.blobs.items():
                    np.testing.assert_allclose(net.blobs[name].data, blob.data, 1e-5, 1e-6, err_msg=name)
                    if name != "label":
                        np.testing.assert_allclose(net.blobs[name].diff, blob.diff, 1e-4, 1e-6, err_msg=name)
                for name, blobs in net.params.items():
                    for mine, theirs in zip(alone.params[name], blobs, strict=True):
                        np.testing.assert_allclose(theirs.diff, mine.diff, 1e-4, 1e-6, err_msg=name)


def test_backward_that_is_asked_for_late_sees_the_batch_of_now() -> None:
    """A TEST net compiles backward when somebody wants it, in the middle of the run."""
    found = []
    for force in ("false", "true"):
        with Net(parse_net(f"force_backward: {force} {data('data')} {BODY}")[0], schema.TEST, seed=1) as net:
            for _ in range(4):
                net.forward()
            net.backward()
            found.append([net.blobs["max"].diff.copy(), net.params["conv"][0].diff.copy()])
    for early, late in zip(*found, strict=True):
        np.testing.assert_array_equal(early, late)
    assert found[0][0].shape == (1, 4, 5, 4)


@pytest.mark.parametrize("more", ["", "iter_size: 3", "snapshot_diff: true clip_gradients: 0.5 debug_info: true"])
def test_a_solver_follows_every_batch_and_resumes(more: str, tmp_path: Path) -> None:
    text = f"""net_param {{ {data("image", more="shuffle: true")} {BODY} }} test_iter: 5 test_interval: 4 base_lr: 0.1
      momentum: 0.9 lr_policy: "fixed" max_iter: 11 display: 2 random_seed: 3 snapshot_prefix: "s" {more}"""
    lines: list[str] = []
    with Solver(parse_solver(text)[0], log=lambda line, *_: lines.append(line)) as solver:
        solver.step(11)
        wanted = {t.name: solver.memory.read(t) for t in solver.training.recording.parameters.values()}
    scores = [line for line in lines if "Test net output" in line]
    assert len(scores) == 3
    assert all(np.isfinite(float(line.split("= ")[1].split()[0])) for line in scores)
    with Solver(parse_solver(text)[0]) as solver:
        solver.step(4)
        state = solver.snapshot()[1]
    with Solver(parse_solver(text)[0]) as solver:
        solver.restore(state)
        solver.step(7)
        for tensor in solver.training.recording.parameters.values():
            np.testing.assert_array_equal(solver.memory.read(tensor), wanted[tensor.name])


def test_an_image_and_its_map_change_together(records: list[Any]) -> None:
    """Two data layers: no batch of the one ever meets a batch of the other that has another size."""
    both = (
        data("image").replace('top: "label"', "")
        + """
      layer { name: "map" type: "ImageData" top: "map" image_data_param { source: "list.txt" batch_size: 1
        is_color: false } }
      layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 1
        kernel_size: 1 weight_filler { type: "constant" value: 0.5 } } }
      layer { name: "loss" type: "EuclideanLoss" bottom: "conv" bottom: "map" top: "loss" }"""
    )
    losses: list[float] = []
    with Net(parse_net(both)[0], schema.TEST) as net:
        for step in range(7):
            net.forward()
            image, gray = records[step % len(SIZES)], net.blobs["map"].data
            assert gray.shape == (1, 1, *SIZES[step % len(SIZES)])
            wanted = np.square(0.5 * image.sum(axis=0, dtype="float64") - gray[0, 0]).sum() / 2
            assert net.loss == pytest.approx(wanted, rel=1e-5)
            losses.append(net.loss)
        net.backward()  # compiled only now, for the sizes of now
        slope = 0.5 * records[1].sum(axis=0, dtype="float64") - gray[0, 0]
        np.testing.assert_allclose(net.params["conv"][1].diff, slope.sum(), 1e-4)
    text = f'net_param {{ {both} }} base_lr: 0 lr_policy: "fixed"'
    found: list[float] = []
    with Solver(parse_solver(text)[0]) as solver:
        solver.on_iteration.append(lambda _, loss: found.append(loss))
        solver.step(7)
    assert found == pytest.approx(losses, rel=1e-6)


def test_shapes_share_one_block_of_memory() -> None:
    """What is compiled for many sizes costs the memory of the largest, and the oldest are forgotten."""
    image = pytest.importorskip("PIL.Image")
    for i in range(LIMIT + 4):
        image.new("RGB", (20 - i % 3, 30 - i)).save(f"m{i}.png")
    Path("list.txt").write_text("".join(f"m{i}.png 0\n" for i in range(LIMIT + 4)))
    text = f'net_param {{ {data("image")} {BODY} }} base_lr: 0.1 lr_policy: "fixed" max_iter: 99 random_seed: 3'
    with Solver(parse_solver(text)[0]) as solver:
        session = solver.runners[0].session
        assert isinstance(session, Varying)
        solver.step(2 * LIMIT + 8)
        assert len(session._known) == LIMIT
        assert len({id(variant.session._arena) for variant in session._known.values()}) == 1


def test_what_cannot_follow_is_told() -> None:
    fixed = BODY.replace("pool: AVE global_pooling: true", "kernel_size: 1")
    with Net(parse_net(data("image") + fixed)[0]) as net:
        net.forward()
        with pytest.raises(DataError) as caught:
            net.forward()
    assert str(caught.value).splitlines() == [
        'data (ImageData): this batch of "data" has the shape 1 3 8 8, which the net cannot follow',
        "    ip: its parameter weight would need another shape for this data",
        "    it has the shape  2x48, it would need 2x36",
        "    the axes behind the batch have to stay as they are",
        "    records of different sizes need a crop_size, or new_height and new_width",
    ]
    for kind in ("image", "data"):
        with Net(parse_net(data(kind, batch=2) + BODY)[0]) as net, pytest.raises(DataError, match="must be alike"):
            net.forward()
