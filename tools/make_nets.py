"""Writes the large nets: configs/imagenet/*/{train_val,deploy}.prototxt and configs/benchmark/*.prototxt.

    python tools/make_nets.py            write them
    python tools/make_nets.py --check    exit with 1 if a file differs from what would be written

A net that repeats one block nine or sixteen times is described here once, so that its training file, its deploy file
and its benchmark file cannot drift apart. The prototxts are what ships; the solvers are written by hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from net_text import MSRA, NetText, gaussian

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

# 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection: table 1 of the GoogLeNet paper
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}

# the net's name, its crop, images a batch in training and in validation
SETTING = {
    "alexnet": ("AlexNet", 227, 256, 50),
    "caffenet": ("CaffeNet", 227, 256, 50),
    "vgg16": ("VGG_16", 224, 64, 25),
    "googlenet": ("GoogleNet", 224, 32, 50),
    "resnet50": ("ResNet-50", 224, 32, 25),
}

# what it is, the input, the chain (see plain), the inner products, whether a ReLU follows these
PLAIN: dict[str, tuple[str, tuple[int, ...], list[tuple[int, ...]], tuple[int, ...], bool]] = {
    "alexnet": (
        'AlexNet of "One weird trick" (Krizhevsky 2014): 61,100,840 parameters, 714.2 M multiply-adds an image.',
        (128, 3, 224, 224),
        [(64, 11, 2, 4), (3, 2), (192, 5, 2, 1), (3, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), (3, 2)],
        (4096, 4096, 1000),
        True,
    ),
    "overfeat": (
        "OverFeat, the fast model (Sermanet et al. 2013): 145,920,872 parameters, 2,801.4 M multiply-adds an image.",
        (128, 3, 231, 231),
        [(96, 11, 0, 4), (2, 2), (256, 5, 0, 1), (2, 2), (512, 3, 1, 1), (1024, 3, 1, 1), (1024, 3, 1, 1), (2, 2)],
        (3072, 4096, 1000),
        False,
    ),
    "vgg_a": (
        "VGG, configuration A (Simonyan, Zisserman 2014): 132,863,336 parameters, 7,609.1 M multiply-adds an image.",
        (64, 3, 224, 224),
        [
            *[(64, 3, 1, 1), (2, 2), (128, 3, 1, 1), (2, 2), (256, 3, 1, 1), (256, 3, 1, 1), (2, 2)],
            *[(512, 3, 1, 1), (512, 3, 1, 1), (2, 2), (512, 3, 1, 1), (512, 3, 1, 1), (2, 2)],
        ],
        (4096, 4096, 1000),
        False,
    ),
}


def alexnet(net: NetText, norm_first: bool, bias: float) -> str:
    """AlexNet on one device (``norm_first``), or CaffeNet, which pools before it normalises."""
    blob = "data"
    for i, (outputs, kernel, pad, stride, group) in enumerate(
        [(96, 11, 0, 4, 1), (256, 5, 2, 1, 2), (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2)], start=1
    ):
        first = bias if i in (2, 4, 5) else 0
        net.text += "\n"
        blob = net.conv(
            f"conv{i}", blob, outputs, kernel, pad=pad, stride=stride, group=group, weight=gaussian(0.01), bias=first
        )
        net.relu(f"relu{i}", blob)
        if i <= 2 and norm_first:
            blob = net.pool(f"pool{i}", net.lrn(f"norm{i}", blob), 3, 2)
        elif i <= 2:
            blob = net.lrn(f"norm{i}", net.pool(f"pool{i}", blob, 3, 2))
    blob = net.pool("pool5", blob, 3, 2)
    for i in (6, 7):
        net.text += "\n"
        blob = net.dense(f"fc{i}", blob, 4096, weight=gaussian(0.005), bias=bias)
        net.dropout(f"drop{i}", net.relu(f"relu{i}", blob), 0.5)
    net.text += "\n"
    return net.finish(net.dense("fc8", blob, 1000, weight=gaussian(0.01)), top5=False)


def vgg16(net: NetText) -> str:
    """VGG-16: configuration D, thirteen 3x3 convolutions and three inner products."""
    blob = "data"
    for i, (count, outputs) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        net.note(f"to {outputs} channels, {224 >> i}x{224 >> i}")
        for j in range(1, count + 1):
            blob = net.conv(f"conv{i}_{j}", blob, outputs, 3, pad=1)
            net.relu(f"relu{i}_{j}", blob)
        blob = net.pool(f"pool{i}", blob, 2, 2)
    for i in (6, 7):
        net.text += "\n"
        blob = net.dense(f"fc{i}", blob, 4096)
        net.dropout(f"drop{i}", net.relu(f"relu{i}", blob), 0.5)
    net.text += "\n"
    return net.finish(net.dense("fc8", blob, 1000), top5=True)


def inception(net: NetText, name: str, bottom: str) -> str:
    """One inception module: four branches side by side, joined along the channels."""
    p = f"inception_{name}"
    one, three_reduce, three, five_reduce, five, projection = INCEPTION[name]
    net.note(f"inception {name}: to {one + three + five + projection} channels")

    def branch(part: str, below: str, outputs: int, kernel: int) -> str:
        blob = net.conv(f"{p}/{part}", below, outputs, kernel, pad=kernel // 2, bias=0.2)
        return net.relu(f"{p}/relu_{part}", blob)

    tops = [branch("1x1", bottom, one, 1)]
    tops.append(branch("3x3", branch("3x3_reduce", bottom, three_reduce, 1), three, 3))
    tops.append(branch("5x5", branch("5x5_reduce", bottom, five_reduce, 1), five, 5))
    tops.append(branch("pool_proj", net.pool(f"{p}/pool", bottom, 3, 1, pad=1), projection, 1))
    return net.layer(f"{p}/output", "Concat", tops, f"{p}/output")


def googlenet_head(net: NetText, number: int, bottom: str) -> None:
    """An auxiliary classifier; its loss counts 0.3."""
    p = f"loss{number}"
    net.note(f"auxiliary classifier {number}, for training alone")
    blob = net.conv(f"{p}/conv", net.pool(f"{p}/ave_pool", bottom, 5, 3, kind="AVE"), 128, 1, bias=0.2)
    blob = net.dense(f"{p}/fc", net.relu(f"{p}/relu_conv", blob), 1024, bias=0.2)
    net.dropout(f"{p}/drop_fc", net.relu(f"{p}/relu_fc", blob), 0.7)
    blob = net.dense(f"{p}/classifier", blob, 1000)
    net.loss(f"{p}/loss", blob, top=f"{p}/loss1", weight=0.3)
    net.accuracy(f"{p}/top-1", blob)
    net.accuracy(f"{p}/top-5", blob, 5)


def googlenet(net: NetText, *, lrn: bool, heads: bool) -> str:
    """GoogLeNet's trunk up to the blob ``inception_5b/output``."""
    net.text += "\n"
    blob = net.conv("conv1/7x7_s2", "data", 64, 7, pad=3, stride=2, bias=0.2)
    blob = net.pool("pool1/3x3_s2", net.relu("conv1/relu_7x7", blob), 3, 2)
    blob = net.lrn("pool1/norm1", blob) if lrn else blob
    blob = net.relu("conv2/relu_3x3_reduce", net.conv("conv2/3x3_reduce", blob, 64, 1, bias=0.2))
    blob = net.relu("conv2/relu_3x3", net.conv("conv2/3x3", blob, 192, 3, pad=1, bias=0.2))
    blob = net.lrn("conv2/norm2", blob) if lrn else blob
    blob = net.pool("pool2/3x3_s2", blob, 3, 2)
    for name in INCEPTION:
        blob = inception(net, name, blob)
        if heads and name in ("4a", "4d"):
            googlenet_head(net, 1 if name == "4a" else 2, blob)
        if name in ("3b", "4e"):
            blob = net.pool(f"pool{name[0]}/3x3_s2", blob, 3, 2)
    net.text += "\n"
    return net.pool("pool5/7x7_s1", blob, 7, 1, kind="AVE")


def googlenet_end(net: NetText, blob: str) -> str:
    """The dropout, the classifier, and the loss or the probabilities."""
    net.dropout("pool5/drop_7x7_s1", blob, 0.4)
    scores = net.dense("loss3/classifier", blob, 1000)
    if not net.training:
        net.layer("prob", "Softmax", [scores], "prob")
        return net.text
    net.loss("loss3/loss3", scores)
    net.accuracy("loss3/top-1", scores)
    net.accuracy("loss3/top-5", scores, 5)
    return net.text


def resnet50(net: NetText) -> str:
    """ResNet-50: every convolution is followed by BatchNorm and Scale, and needs no bias for that reason."""

    def normed(name: str, below: str, outputs: int, kernel: int, stride: int, relu: str) -> str:
        """Convolution, BatchNorm, Scale and (unless ``relu`` is empty) ReLU, all in one blob."""
        blob = net.conv(name, below, outputs, kernel, pad=kernel // 2, stride=stride, weight=MSRA, bias=None)
        suffix = name.removeprefix("res") if name != "conv1" else "_conv1"
        net.layer(f"bn{suffix}", "BatchNorm", [blob], blob)
        net.layer(f"scale{suffix}", "Scale", [blob], blob, ["scale_param { bias_term: true }"])
        return net.relu(relu, blob) if relu else blob

    net.text += "\n"
    blob = net.pool("pool1", normed("conv1", "data", 64, 7, 2, "conv1_relu"), 3, 2)
    for stage, (count, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=2):
        for block in "abcdef"[:count]:
            p = f"res{stage}{block}"
            stride = 2 if block == "a" and stage > 2 else 1
            net.note(f"{p}: {4 * width} channels, {224 >> stage}x{224 >> stage}")
            shortcut = normed(f"{p}_branch1", blob, 4 * width, 1, stride, "") if block == "a" else blob
            blob = normed(f"{p}_branch2a", blob, width, 1, stride, f"{p}_branch2a_relu")
            blob = normed(f"{p}_branch2b", blob, width, 3, 1, f"{p}_branch2b_relu")
            blob = normed(f"{p}_branch2c", blob, 4 * width, 1, 1, "")
            blob = net.relu(f"{p}_relu", net.layer(p, "Eltwise", [shortcut, blob], p))
    net.text += "\n"
    blob = net.dense("fc1000", net.pool("pool5", blob, 7, 1, kind="AVE"), 1000, weight=MSRA)
    return net.finish(blob, top5=True)


def plain(net: NetText, shapes: Sequence[tuple[int, ...]], dense: Sequence[int], *, relu_fc: bool) -> str:
    """A chain for the benchmarks: (outputs, kernel, pad, stride) a convolution, (kernel, stride) a max pooling."""
    blob, convs, pools = "data", 0, 0
    for shape in shapes:
        if len(shape) == 2:
            pools += 1
            blob = net.pool(f"pool{pools}", blob, *shape)
        else:
            convs += 1
            outputs, kernel, pad, stride = shape
            blob = net.conv(f"conv{convs}", blob, outputs, kernel, pad=pad, stride=stride, bias=0.2)
            net.relu(f"relu{convs}", blob)
    for i, outputs in enumerate(dense, start=6):
        blob = net.dense(f"fc{i}", blob, outputs)
        if relu_fc and outputs != 1000:
            net.relu(f"relu_fc{i}", blob)
    return net.text


CREDIT = {
    "alexnet": (
        "AlexNet, one device, two groups: 60,965,224 parameters.",
        """Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012);
        layer names, fillers and biases as in Caffe's model zoo, so that bvlc_alexnet.caffemodel loads.""",
        "57.1 % top-1, 80.2 % top-5 (validation, centre crop) is the zoo's; not trained here.",
    ),
    "caffenet": (
        "CaffeNet, which is AlexNet with the pooling before the normalisation: 60,965,224 parameters.",
        """Caffe's model zoo (J. Donahue), after Krizhevsky, Sutskever, Hinton (2012); layer names and fillers so that
        bvlc_reference_caffenet.caffemodel loads.""",
        "57.4 % top-1, 80.4 % top-5 (validation, centre crop) is the zoo's; not trained here.",
    ),
    "vgg16": (
        "VGG-16, configuration D: 138,357,544 parameters.",
        """Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014); layer
        names as in the authors' VGG_ILSVRC_16_layers.caffemodel. Glorot's filler replaces their staged training.""",
        "73.0 % top-1, 91.2 % top-5 (validation, one scale of 256) is the paper's; not trained here.",
    ),
    "googlenet": (
        "GoogLeNet: 6,998,552 parameters, and 6,379,728 in the two auxiliary classifiers that training adds.",
        """Szegedy et al., "Going Deeper with Convolutions" (2014); layer names and fillers as in Caffe's model zoo,
        so that bvlc_googlenet.caffemodel loads.""",
        "68.7 % top-1, 88.9 % top-5 (validation, centre crop) is the zoo's; not trained here.",
    ),
    "resnet50": (
        "ResNet-50: 25,557,032 parameters (25,503,912 in convolutions and classifier), and BatchNorm's statistics.",
        """He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2015); layer names as in the authors'
        release, the stride in the first 1x1 of a stage as there. Their ResNet-50-model.caffemodel holds a bias for
        conv1, superfluous before BatchNorm: to load that file, remove "bias_term: false" from conv1.""",
        "75.3 % top-1, 92.2 % top-5 (validation, centre crop) is the authors'; not trained here.",
    ),
}


def comment(name: str, deploy: bool) -> str:
    """What stands above a net of configs/imagenet."""
    what, source, result = CREDIT[name]
    use = "For use: one image in (B, G, R, mean 104 117 123 subtracted), 1,000 probabilities out."
    return "\n".join([what, use if deploy else "Training and validation.", f"Source: {source}", f"Result: {result}"])


def start_imagenet(name: str, deploy: bool) -> NetText:
    """A net of configs/imagenet up to its data."""
    net_name, crop, train_batch, test_batch = SETTING[name]
    net = NetText(net_name, comment(name, deploy), training=not deploy, params=name != "resnet50")
    if deploy:
        net.input(1, 3, crop, crop)
    else:
        net.data(crop, train_batch, test_batch)
    return net


def imagenet() -> dict[str, str]:
    """The files of configs/imagenet: path below configs/, text."""
    files: dict[str, str] = {}
    for deploy in (False, True):
        net = {name: start_imagenet(name, deploy) for name in SETTING}
        trunk = googlenet(net["googlenet"], lrn=True, heads=not deploy)
        texts = {
            "alexnet": alexnet(net["alexnet"], norm_first=True, bias=0.1),
            "caffenet": alexnet(net["caffenet"], norm_first=False, bias=1),
            "vgg16": vgg16(net["vgg16"]),
            "googlenet": googlenet_end(net["googlenet"], trunk),
            "resnet50": resnet50(net["resnet50"]),
        }
        file = "deploy" if deploy else "train_val"
        files |= {f"imagenet/{name}/{file}.prototxt": text for name, text in texts.items()}
    return files


def start_benchmark(name: str, what: str, *dims: int) -> NetText:
    """A net of configs/benchmark up to its input."""
    source = (
        'Source: S. Chintala\'s convnet-benchmarks, its Caffe nets "imagenet_winners", in current syntax. Like those\n'
        "        without normalisation, dropout and loss; with fillers also where those had none.\n"
        "Result: timings alone, see configs/benchmark/README.md."
    )
    net = NetText(name, f"{what}\n{source}", params=False)
    net.input(*dims)
    net.text += "\n"
    return net


def benchmark() -> dict[str, str]:
    """The files of configs/benchmark: path below configs/, text."""
    nets = {}
    for name, (what, dims, chain, dense, relu_fc) in PLAIN.items():
        nets[name] = plain(start_benchmark(name, what, *dims), chain, dense, relu_fc=relu_fc)
    what = (
        "GoogLeNet v1, the trunk without auxiliary classifiers: 6,998,552 parameters, 1,582.7 M multiply-adds an image."
    )
    net = start_benchmark("googlenet", what, 128, 3, 224, 224)
    net.relu("relu_fc6", net.dense("fc6", googlenet(net, lrn=False, heads=False), 1000))
    nets["googlenet"] = net.text
    return {f"benchmark/{name}.prototxt": text for name, text in nets.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Write every file, or compare (``--check``); returns 1 if a file differs."""
    parser = argparse.ArgumentParser(description="Write the large nets of configs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file differs")
    check: bool = parser.parse_args(argv).check
    different = 0
    for name, text in {**imagenet(), **benchmark()}.items():
        path = CONFIGS / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        different += 1
        print(f"{'differs' if check else 'written'}: configs/{name}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    return 1 if check and different else 0


if __name__ == "__main__":
    raise SystemExit(main())
