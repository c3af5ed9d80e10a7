"""A prototxt as a PyTorch module, so that both sides of a benchmark run the same net."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netrun.config import schema


def pair(values: Any, default: int) -> tuple[int, int]:
    """A repeated field with one entry for both axes, or none."""
    given = list(values) or [default]
    return (given[0], given[-1])


class Net(nn.Module):
    """The layers of a message in order, on a dictionary of blobs. Data, Input and Accuracy are left out."""

    def __init__(self, message: schema.NetParameter, inputs: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.layers = [m for m in message.layer if m.type not in ("Data", "Input", "DummyData", "Accuracy")]
        self.inputs = list(inputs)
        self.parts = nn.ModuleDict()
        blobs = {name: torch.zeros(shape) for name, shape in inputs.items()}
        with torch.no_grad():
            for m in self.layers:
                self._make(m, blobs[m.bottom[0]].shape)
                self._run(m, blobs)

    def _make(self, m: Any, shape: Any) -> None:
        part: nn.Module | None = None
        if m.type == "Convolution":
            p = m.convolution_param
            part = nn.Conv2d(shape[1], p.num_output, pair(p.kernel_size, 1), pair(p.stride, 1), pair(p.pad, 0),
                             pair(p.dilation, 1), p.group, p.bias_term)  # fmt: skip
        elif m.type == "InnerProduct":
            part = nn.Linear(shape[1:].numel(), m.inner_product_param.num_output, m.inner_product_param.bias_term)
        elif m.type == "BatchNorm":
            part = nn.BatchNorm2d(shape[1], m.batch_norm_param.eps, 0.1, affine=True)
        elif m.type == "Pooling" and not m.pooling_param.global_pooling:
            p = m.pooling_param
            size, stride, pad = p.kernel_size or (p.kernel_h, p.kernel_w), p.stride, p.pad
            maximum = p.pool == schema.PoolingParameter.MAX
            part = (nn.MaxPool2d if maximum else nn.AvgPool2d)(size, stride, pad, ceil_mode=True)
        elif m.type == "LRN":
            p = m.lrn_param
            part = nn.LocalResponseNorm(p.local_size, p.alpha, p.beta, p.k)
        elif m.type == "Dropout":
            part = nn.Dropout(m.dropout_param.dropout_ratio)
        if part is not None:
            self.parts[m.name.replace(".", "_")] = part

    def _run(self, m: Any, blobs: dict[str, Tensor]) -> None:
        x = blobs[m.bottom[0]]
        name = m.name.replace(".", "_")
        if name in self.parts:
            y = self.parts[name](x.flatten(1) if m.type == "InnerProduct" else x)
        elif m.type == "ReLU":
            y = F.relu(x, inplace=True)
        elif m.type == "Scale":
            y = x  # the affine part of the BatchNorm2d before it
        elif m.type == "Concat":
            y = torch.cat([blobs[b] for b in m.bottom], 1)
        elif m.type == "Eltwise":
            y = x + blobs[m.bottom[1]]
        elif m.type == "Pooling":
            y = x.mean((2, 3), keepdim=True)
        elif m.type == "Softmax":
            y = F.softmax(x, 1)
        elif m.type == "SoftmaxWithLoss":
            y = F.cross_entropy(x, blobs[m.bottom[1]].flatten().long())
        else:
            raise SystemExit(f"torch_net.py does not know {m.type}")
        blobs[m.top[0]] = y

    def forward(self, *inputs: Tensor) -> Tensor:
        """The last layer's top."""
        blobs = dict(zip(self.inputs, inputs, strict=True))
        for m in self.layers:
            self._run(m, blobs)
        return blobs[self.layers[-1].top[0]]
