"""The same net in PyTorch, written as a user would write it: one module a layer, from netrun's own graph.

Only what the benchmark nets hold; anything else raises NotImplementedError with the layer's type.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from netrun.compiler.graph import Graph, Node
from netrun.compiler.record import Recording

_FED = {"Input", "Data", "DummyData", "ImageData"}
_IGNORED = {"Accuracy", "Silence"}
_LOADED = {"Convolution", "InnerProduct", "LayerNorm", "MultiHeadAttention"}
"""Types whose parameters stand in the same order here."""


class SelfAttention(nn.Module):
    """Several heads over one sequence N T D, by PyTorch's own fused attention."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.heads = heads

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        q, k, v = (m(x).view(n, t, self.heads, -1).transpose(1, 2) for m in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))


class TorchNet(nn.Module):
    """The layers of a graph in order. ``forward`` takes the fed tops by name; it gives the loss, or the outputs."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.graph: Graph = recording.graph
        attrs = {call.origin: call.attrs for call in recording.forward if "window" in call.attrs}
        self.parts = nn.ModuleDict()
        for i, node in enumerate(self.graph.nodes):
            module = _module(node, attrs.get(node.origin, {}), self._scaled(node))
            if module is not None:
                self.parts[str(i)] = module

    def _scaled(self, node: Node) -> bool:
        """Whether a Scale layer follows a BatchNorm: the module then has both."""
        return any(reader.layer.type == "Scale" for reader, _ in node.tops[0].readers) if node.tops else False

    def forward(self, **fed: Any) -> Any:
        values: dict[int, Any] = {}
        loss: Any = None
        for i, node in enumerate(self.graph.nodes):
            kind = node.layer.type
            if kind in _FED:
                values.update((id(top), fed[top.blob]) for top in node.tops)
                continue
            if kind in _IGNORED:
                continue
            given = [values[id(bottom)] for bottom in node.bottoms]
            if kind == "SoftmaxWithLoss":
                one = F.cross_entropy(given[0].float(), given[1]) * node.loss_weights[0]
                loss = one if loss is None else loss + one
                continue
            made = self._run(str(i), kind, node, given)
            for top in node.tops:
                values[id(top)] = made
        return loss if loss is not None else [values[id(value)] for _, value in self.graph.outputs]

    def _run(self, key: str, kind: str, node: Node, given: list[Any]) -> Any:
        if kind == "Concat":
            return torch.cat(given, node.message.concat_param.axis)
        if kind == "Eltwise":
            total = given[0]
            for other in given[1:]:
                total = total + other
            return total
        if kind == "ReLU":
            return F.relu(given[0], inplace=node.tops[0].blob == node.bottoms[0].blob and self.training)
        if kind in ("Scale", "Split", "Flatten") and key not in self.parts:
            return given[0].flatten(1) if kind == "Flatten" else given[0]
        if kind == "InnerProduct":
            return self.parts[key](given[0].flatten(node.message.inner_product_param.axis))
        if kind == "GELU":
            return F.gelu(given[0])
        if kind == "LSTM":
            return self.parts[key](given[0])[0]
        return self.parts[key](given[0])

    def load(self, arrays: dict[str, Any]) -> None:
        """Take over netrun's parameters, by the names of its tensors."""
        with torch.no_grad():
            for i, node in enumerate(self.graph.nodes):
                if str(i) in self.parts and node.layer.type in _LOADED:
                    for mine, theirs in zip(self.parts[str(i)].parameters(), node.parameters, strict=True):
                        value = torch.as_tensor(arrays[theirs.key])
                        mine.copy_(value.reshape(mine.shape))


def _module(node: Node, attrs: Any, scaled: bool) -> nn.Module | None:
    kind, message = node.layer.type, node.message
    if kind in _FED | _IGNORED or kind in ("SoftmaxWithLoss", "Concat", "Eltwise", "ReLU", "GELU", "Split", "Flatten"):
        return None
    x, y = node.bottoms[0].spec.shape, node.tops[0].spec.shape
    if kind == "Convolution":
        w = attrs["window"]
        return nn.Conv2d(
            x[1], y[1], w.kernel, w.stride, w.pad, w.dilation, attrs["groups"], bias=len(node.parameters) > 1
        )
    if kind == "LSTM":
        p = message.recurrent_param
        return nn.LSTM(x[2], p.num_output, p.num_layers, bidirectional=y[2] != p.num_output)
    if kind == "InnerProduct":
        features = math.prod(x[message.inner_product_param.axis :])
        return nn.Linear(features, y[-1], bias=len(node.parameters) > 1)
    if kind == "LayerNorm":
        return nn.LayerNorm(x[-1])
    if kind == "MultiHeadAttention":
        return SelfAttention(x[2], message.attention_param.num_heads)
    if kind == "Pooling":
        w = attrs["window"]
        if message.pooling_param.pool == message.pooling_param.MAX:
            return nn.MaxPool2d(w.kernel, w.stride, w.pad, ceil_mode=True)
        return nn.AvgPool2d(w.kernel, w.stride, w.pad, ceil_mode=True)
    if kind == "LRN":
        p = message.lrn_param
        return nn.LocalResponseNorm(p.local_size, p.alpha, p.beta, p.k)
    if kind == "Dropout":
        return nn.Dropout(message.dropout_param.dropout_ratio)
    if kind == "BatchNorm":
        return nn.BatchNorm2d(x[1], affine=scaled)
    if kind == "Scale" and node.bottoms[0].producer.layer.type == "BatchNorm":
        return None
    raise NotImplementedError(f"layer {node.name}: PyTorch's side of the benchmark has no {kind}")
