"""The recorded nets of Caffe's model zoo: shapes of everything, and outputs with made-up weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from netrun.compiler.graph import State, build
from netrun.config import schema
from netrun.config.upgrade import parse_net, read_net
from netrun.net import Net

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = {
    "examples/mnist/lenet.prototxt": "mnist/lenet.prototxt",
    "examples/mnist/lenet_train_test.prototxt": "mnist/lenet_train_test.prototxt",
    "examples/cifar10/cifar10_quick.prototxt": "cifar10/quick.prototxt",
    "examples/cifar10/cifar10_quick_train_test.prototxt": "cifar10/quick_train_test.prototxt",
    "models/bvlc_alexnet/deploy.prototxt": "imagenet/alexnet/deploy.prototxt",
    "models/bvlc_alexnet/train_val.prototxt": "imagenet/alexnet/train_val.prototxt",
    "models/bvlc_googlenet/deploy.prototxt": "imagenet/googlenet/deploy.prototxt",
}
"""Where configs/ has the same net; the others are rebuilt from what was recorded of them."""


def dims(shape: list[int]) -> str:
    return "shape { " + " ".join(f"dim: {n}" for n in shape) + " }"


def facts(path: Path) -> dict[str, Any]:
    """What was recorded, without the Split layers that Caffe put in."""
    golden: dict[str, Any] = json.loads(path.read_text())
    copies = [s for s in golden["layers_with_splits"] if s["type"] == "Split"]
    golden["copy_of"] = {top: s["bottom"][0] for s in copies for top in s["top"]}
    golden["wiring"] = [
        {**layer, "bottom": [golden["copy_of"].get(b, b) for b in layer["bottom"]]}
        for layer in golden["layers_with_splits"]
        if layer["type"] != "Split"
    ]
    return golden


def net_of(golden: dict[str, Any]) -> schema.NetParameter:
    """The net with DummyData for its data layers, as it was recorded."""
    if golden["file"] not in FILES:
        return parse_net("\n".join(_layer_text(layer, golden) for layer in golden["wiring"]))[0]
    message, _ = read_net(CONFIGS / FILES[golden["file"]])
    for layer in message.layer:
        if layer.type == "Data":
            shapes = next(r["tops"] for r in golden["data_layers_replaced"] if set(r["tops"]) == set(layer.top))
            layer.type = "DummyData"
            for top in layer.top:
                layer.dummy_data_param.shape.add().dim.extend(shapes[top])
    return message


def _layer_text(layer: dict[str, Any], golden: dict[str, Any]) -> str:
    """A layer from its wiring and shapes: those nets have windows of stride 1 or 2 and no padding."""
    params, tops = golden["params"].get(layer["name"]), [golden["blobs"][top] for top in layer["top"]]
    body = ""
    if layer["type"] in ("Input", "DummyData"):
        field = {"Input": "input_param", "DummyData": "dummy_data_param"}[layer["type"]]
        body = f"{field} {{ {' '.join(dims(shape) for shape in tops)} }}"
    elif layer["type"] == "Convolution":
        body = f"convolution_param {{ num_output: {params[0][0]} kernel_size: {params[0][2]} }}"
    elif layer["type"] == "InnerProduct":
        body = f"inner_product_param {{ num_output: {params[0][0]} }}"
    elif layer["type"] == "Pooling":
        body = "pooling_param { kernel_size: 2 stride: 2 }"
    ends = [f'bottom: "{b}"' for b in layer["bottom"]] + [f'top: "{t}"' for t in layer["top"]]
    return f'layer {{ name: "{layer["name"]}" type: "{layer["type"]}" {" ".join(ends)} {body} }}'


def replay_shapes(path: Path) -> None:
    """The graph has the recorded layers, blobs, parameters and outputs."""
    golden = facts(path)
    shapes = {blob: tuple(golden["blobs"][blob]) for blob in golden["inputs"]}
    state = State(schema.Phase.Value(golden["phase"]), 0, tuple(golden["stages"]))
    graph = build(net_of(golden), None, state, shapes=shapes)
    assert [[n.name, n.layer.type] for n in graph.nodes] == [[x["name"], x["type"]] for x in golden["wiring"]]
    for node, layer in zip(graph.nodes, golden["wiring"], strict=True):
        assert (list(node.message.bottom), list(node.message.top)) == (layer["bottom"], layer["top"])
    blobs = {name: list(value.spec.shape) for name, value in graph.blobs.items()}
    assert blobs == {b: shape for b, shape in golden["blobs"].items() if b not in golden["copy_of"]}
    assert list(blobs) == [b for b in golden["blob_order"] if b not in golden["copy_of"]]
    params = {n.name: [list(p.spec.shape) for p in n.parameters] for n in graph.nodes if n.parameters}
    assert params == golden["params"]
    assert [name for name, _ in graph.outputs] == golden["outputs"]
    assert sum(p.spec.count for p in graph.parameters) == golden["learnable_count"]


def made_up(number: int, shape: tuple[int, ...], scale: float) -> Any:
    """The values of parameter blob (or 10000 + input) ``number``: a hash of the place, within +-scale."""
    words = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(2654435761)
    words += np.uint32((number + 1) * 40503 & 0xFFFFFFFF)
    for _ in range(2):
        words ^= words >> np.uint32(16)
        words *= np.uint32(0x45D9F3B)
    words ^= words >> np.uint32(16)
    return ((words / 2.0**32 - 0.5) * 2 * scale).astype(np.float32).reshape(shape)


def replay_outputs(path: Path) -> None:
    """The outputs of a deploy net with made-up weights; ``path`` is the file with the outputs."""
    golden = facts(path.with_name(path.name.replace("_forward.npz", ".json")))
    with np.load(path) as file:
        wanted = {key.removeprefix("out_"): file[key] for key in file.files}
    shapes = {blob: tuple(golden["blobs"][blob]) for blob in golden["inputs"]}
    with Net(net_of(golden), shapes=shapes) as net:
        for number, blob in enumerate(b for blobs in net.params.values() for b in blobs):
            spread = (3 / (blob.data.size / blob.shape[0])) ** 0.5 if len(blob.shape) > 1 else 0.1
            blob.data[...] = made_up(number, blob.shape, spread)
        inputs = {blob: made_up(10000 + i, shapes[blob], 1) for i, blob in enumerate(golden["inputs"])}
        net.forward(**inputs)
        # Every blob roughly, first to last: the first that deviates names the layer to blame.
        for blob, (mean, largest, deviation) in golden["forward_stats"].items():
            if blob in net.blobs:  # and no copy that Caffe's Split layers made
                data = net.blobs[blob].data
                got = [data.mean(dtype=np.float64), np.abs(data).max(), data.std(dtype=np.float64)]
                np.testing.assert_allclose(got, [mean, largest, deviation], 1e-3, 1e-5 * largest, err_msg=blob)
        assert set(wanted) == set(net.outputs)
        for key, value in wanted.items():
            np.testing.assert_allclose(net.blobs[key].data, value, 0, 1e-5 * np.abs(value).max(), err_msg=key)


__all__ = ["replay_outputs", "replay_shapes"]
