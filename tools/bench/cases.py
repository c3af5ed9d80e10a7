"""What operations.py times: each operation as a layer of a net, and as a function of PyTorch on the same arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from netrun.cpu import frequencies, onednn_products, points, winograd_cost

Shape = tuple[int, ...]
Theirs = Callable[..., Any]
"""(torch, arrays of the bottoms, parameters in the order of the layer's blobs) -> the top."""


@dataclass(frozen=True)
class Case:
    """One operation.

    Attributes:
        group, name: for the table.
        layer: the body of a layer with a type; bottoms, name and top are added.
        bottoms: their shapes.
        theirs: the same in PyTorch.
        classes: of each bottom 0, or the number of whole numbers that it holds instead of noise; no gradient then.
        sixteen: whether BF16 is timed too.
    """

    group: str
    name: str
    layer: str
    bottoms: tuple[Shape, ...]
    theirs: Theirs
    classes: tuple[int, ...] = ()
    sixteen: bool = False

    @property
    def text(self) -> str:
        """The net in prototxt."""
        names = [f"x{i}" for i in range(len(self.bottoms))]
        shapes = " ".join("shape { " + " ".join(f"dim: {n}" for n in s) + " }" for s in self.bottoms)
        tops = " ".join(f'top: "{n}"' for n in names)
        bottoms = " ".join(f'bottom: "{n}"' for n in names)
        return f"""layer {{ name: "in" type: "Input" {tops} input_param {{ {shapes} }} }}
            layer {{ name: "it" {bottoms} top: "y" {self.layer} }}"""

    def whole(self, i: int) -> int:
        """How many whole numbers bottom ``i`` holds; 0: it holds noise."""
        return self.classes[i] if i < len(self.classes) else 0


@contextmanager
def plainly() -> Iterator[None]:
    """While this lasts, device cpu gives every product and convolution to the library as it is, without own ways."""
    changes: list[tuple[Any, str, Any]] = [
        (onednn_products, "LARGE", float("inf")), (onednn_products, "HUGE", float("inf")),
        (onednn_products, "FEW", 0), (winograd_cost, "ENABLED", False), (frequencies, "ENABLED", False),
        (points, "GAIN", float("inf")),
    ]  # fmt: skip
    before = [getattr(module, name) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(changes, before, strict=True):
            setattr(module, name, value)


def product(rows: int, inputs: int, outputs: int) -> Case:
    """An InnerProduct layer."""
    group = "large products" if inputs * outputs >= 2_000_000 else "products"
    return Case(group, f"{rows} x {inputs} -> {outputs}",
                f'type: "InnerProduct" inner_product_param {{ num_output: {outputs} }}',
                ((rows, inputs),), lambda torch, x, p: torch.nn.functional.linear(x[0], *p), sixteen=True)  # fmt: skip


def convolution(
    n: int, channels: int, side: int, outputs: int, k: int, stride: int = 1, pad: int | None = None
) -> Case:
    """A Convolution layer; without ``pad`` the picture keeps its size."""
    pad = k // 2 if pad is None else pad
    numbers = f"num_output: {outputs} kernel_size: {k} stride: {stride} pad: {pad}"
    steps = f", every {stride}" if stride > 1 else ""
    return Case("convolutions", f"{k}x{k}{steps}: {n} x {channels} x {side}x{side} -> {outputs}",
                f'type: "Convolution" convolution_param {{ {numbers} }}', ((n, channels, side, side),),
                lambda torch, x, p: torch.nn.functional.conv2d(x[0], *p, stride=stride, padding=pad))  # fmt: skip


def pooling(kind: str, shape: Shape, size: int, stride: int) -> Case:
    """A Pooling layer."""

    def theirs(torch: Any, x: Any, p: Any) -> Any:
        pool = torch.nn.functional.max_pool2d if kind == "MAX" else torch.nn.functional.avg_pool2d
        return pool(x[0], size, stride, ceil_mode=True)

    return Case("images", f"{kind.lower()} {size}x{size}, every {stride}: {by(shape)}",
                f'type: "Pooling" pooling_param {{ pool: {kind} kernel_size: {size} stride: {stride} }}',
                (shape,), theirs)  # fmt: skip


def by(shape: Shape) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape))


def lrn(shape: Shape) -> Case:
    """An LRN layer, as AlexNet has it."""
    layer = 'type: "LRN" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }'
    return Case("images", f"LRN: {by(shape)}", layer, (shape,),
                lambda torch, x, p: torch.nn.functional.local_response_norm(x[0], 5, 1e-4, 0.75, 1.0))  # fmt: skip


def batch_norm(shape: Shape) -> Case:
    """A BatchNorm layer in training, running statistics included."""

    def theirs(torch: Any, x: Any, p: Any) -> Any:
        mean, var = torch.zeros(shape[1]), torch.ones(shape[1])
        return torch.nn.functional.batch_norm(x[0], mean, var, training=True, momentum=0.001)

    return Case("images", f"batch norm: {by(shape)}", 'type: "BatchNorm"', (shape,), theirs)


def relu(shape: Shape) -> Case:
    """A ReLU layer."""
    return Case("images", f"ReLU: {by(shape)}", 'type: "ReLU"', (shape,), lambda torch, x, p: torch.relu(x[0]))


def softmax(shape: Shape, axis: int) -> Case:
    """A Softmax layer."""
    return Case("softmax", f"softmax, axis {axis}: {by(shape)}",
                f'type: "Softmax" softmax_param {{ axis: {axis} }}', (shape,),
                lambda torch, x, p: torch.softmax(x[0], axis))  # fmt: skip


def loss(shape: Shape, ignore: int | None = None) -> Case:
    """A SoftmaxWithLoss layer."""
    labels = (shape[0], *shape[2:])
    option = "" if ignore is None else f"loss_param {{ ignore_label: {ignore} }}"

    def theirs(torch: Any, x: Any, p: Any) -> Any:
        missing = -100 if ignore is None else ignore
        return torch.nn.functional.cross_entropy(x[0], x[1], ignore_index=missing)

    with_ignored = "" if ignore is None else ", an ignored label"
    return Case("softmax", f"softmax and loss: {by(shape)}{with_ignored}", f'type: "SoftmaxWithLoss" {option}',
                (shape, labels), theirs, (0, shape[1]))  # fmt: skip


def lstm(steps: int, batch: int, size: int) -> Case:
    """An LSTM layer."""

    def theirs(torch: Any, x: Any, p: Any) -> Any:
        w, b, r = ((torch.cat([v[: 2 * size], v[3 * size :], v[2 * size : 3 * size]])) for v in p)  # i f g o
        zeros = torch.zeros(1, batch, size)
        return torch.lstm(x[0], (zeros, zeros), (w, r, b, torch.zeros_like(b)), True, 1, 0.0, True, False, False)[0]

    return Case("sequences", f"LSTM of {size}, {steps} step{'s' * (steps > 1)}: {batch} x {size}",
                f'type: "LSTM" recurrent_param {{ num_output: {size} }}',
                ((steps, batch, size),), theirs)  # fmt: skip


def embed(count: int, table: int, width: int) -> Case:
    """An Embed layer: rows of a table, and backward its whole gradient."""
    return Case("sequences", f"{count} rows of a table {table} x {width}",
                f'type: "Embed" embed_param {{ input_dim: {table} num_output: {width} bias_term: false }}',
                ((count,),), lambda torch, x, p: torch.nn.functional.embedding(x[0], p[0]), (table,))  # fmt: skip


def attention(batch: int, steps: int, width: int, heads: int, causal: bool = True) -> Case:
    """A MultiHeadAttention layer that attends to itself."""

    def theirs(torch: Any, x: Any, p: Any) -> Any:
        linear = torch.nn.functional.linear
        q, k, v = (linear(x[0], p[i], p[i + 1]).unflatten(2, (heads, -1)).transpose(1, 2) for i in (0, 2, 4))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return linear(y.transpose(1, 2).flatten(2), p[6], p[7])

    options = f"num_heads: {heads} num_output: {width}{' causal: true' if causal else ''}"
    return Case("sequences", f"attention, {heads} heads{', causal' if causal else ''}: {batch} x {steps} x {width}",
                f'type: "MultiHeadAttention" attention_param {{ {options} }}',
                ((batch, steps, width),), theirs)  # fmt: skip


CASES = (
    *(product(rows, 9216, 4096) for rows in (8, 16, 32, 64)), product(16, 4096, 4096),
    product(64, 800, 500), product(512, 512, 2048),
    convolution(64, 1, 28, 20, 5, pad=0), convolution(64, 20, 12, 50, 5, pad=0), convolution(100, 32, 16, 32, 5),
    convolution(16, 64, 27, 192, 5), convolution(16, 64, 56, 64, 3), convolution(16, 256, 56, 64, 1),
    pooling("MAX", (16, 64, 55, 55), 3, 2), lrn((16, 64, 55, 55)), batch_norm((16, 64, 56, 56)),
    relu((16, 64, 56, 56)),
    softmax((256, 1000), 1), softmax((8, 8, 128, 128), 3), softmax((16, 21, 64, 64), 1),
    loss((64, 10)), loss((128, 1000)), loss((16, 21, 64, 64), 0),
    lstm(1, 32, 512), lstm(20, 32, 512), embed(640, 20000, 128), attention(8, 128, 512, 8),
    *(attention(8, 512, 512, 8, causal) for causal in (True, False)),
)  # fmt: skip
"""What is timed, but for the updates."""
