"""Rows of later layers: norms of single samples, gates, and windows over one and three axes."""

from __future__ import annotations

from cases.layer_case import GAUSS, row, x
from cases.values import distinct

_AFFINE = 'scale_filler { type: "gaussian" mean: 1 } shift_filler { type: "gaussian" }'

row("LayerNorm", "the last axis", f"normalization_param {{ {_AFFINE} }}", x(3, 4, 5))
row("LayerNorm", "two axes, plain", "normalization_param { axis: 1 scale: false shift: false }", x(2, 3, 4))
row(
    "LayerNorm",
    "everything, shift alone",
    "normalization_param { axis: 0 eps: 0.1 scale: false }",
    x(3, 4, batch=False),
)
row("RMSNorm", "the last axis", "normalization_param { scale_filler { type: 'gaussian' mean: 1 } }", x(3, 4, 5))
row("RMSNorm", "two axes, plain", "normalization_param { axis: -2 scale: false eps: 0.01 }", x(2, 3, 4))
row("GroupNorm", "two groups", f"normalization_param {{ groups: 2 {_AFFINE} }}", x(2, 6, 3, 2))
row("GroupNorm", "one group, no positions", f"normalization_param {{ groups: 1 {_AFFINE} }}", x(3, 4))
row("GroupNorm", "scale alone", "normalization_param { groups: 3 shift: false }", x(2, 3, 4))
row("InstanceNorm", "images", f"normalization_param {{ {_AFFINE} }}", x(2, 3, 4, 3))
row("InstanceNorm", "clips", "normalization_param { eps: 0.01 }", x(2, 2, 2, 3, 2))

row("GELU", "exact", "", x(3, 4, 2))
row("GELU", "by a tanh", "gelu_param { approximate: true }", x(3, 4, 2))
for _gate in ("SIGMOID", "SWISH", "GELU", "RELU", "LINEAR"):
    row("GLU", _gate, f"glu_param {{ gate: {_gate} }}", x(2, 6, 3))
row("GLU", "the last axis", "glu_param { axis: -1 }", x(2, 3, 4))
row("SwiGLU", "channels", "", x(2, 6, 3))
row("SwiGLU", "the last axis", "glu_param { axis: -1 }", x(2, 3, 4))

for _body, _shape in (
    ("num_output: 3 kernel_size: 3 causal: true", (2, 2, 6)),
    ("num_output: 3 kernel_size: 2 dilation: 3 stride: 2 causal: true", (2, 2, 7)),
    ("num_output: 2 kernel_size: [3, 2] pad: [0, 1] causal: true", (2, 2, 5, 4)),
    ("num_output: 2 kernel_size: 3 pad: 1 pad_end: [2, 0]", (2, 2, 4, 5)),
    ("num_output: 4 kernel_size: [2, 3, 2] stride: [1, 2, 1] pad: [1, 0, 1] group: 2", (2, 2, 3, 5, 4)),
    ("num_output: 4 kernel_size: [2, 1, 2] dilation: [1, 1, 2]", (1, 2, 3, 3, 5)),
):
    row("Convolution", _body, f"convolution_param {{ {_body} {GAUSS} }}", x(*_shape))
row("Deconvolution", "three axes", f"convolution_param {{ num_output: 2 kernel_size: [2, 3, 2] stride: 2 {GAUSS} }}",
    x(2, 2, 2, 3, 2))  # fmt: skip
row("Deconvolution", "uneven ends", f"convolution_param {{ num_output: 2 kernel_size: 3 pad: 1 pad_end: 0 {GAUSS} }}",
    x(2, 2, 3, 4))  # fmt: skip
row("Im2col", "causal", "convolution_param { kernel_size: 3 causal: true }", x(2, 2, 5))
for _body, _shape in (
    ("num_output: 3 kernel_size: 3 pad: 1", (2, 2, 4, 5)),
    ("num_output: 3 kernel_size: 2 depth_multiplier: 2 bias_term: false causal: true", (2, 3, 5)),
    ("num_output: 2 kernel_size: [1, 2, 2] stride: [1, 2, 1]", (2, 2, 2, 4, 3)),
):
    row("SeparableConvolution", _body, f"convolution_param {{ {_body} {GAUSS} }}", x(*_shape))

for _body, _shape in (
    ("kernel: [1, 2, 2] step: [1, 2, 2]", (2, 2, 3, 4, 5)),
    ("kernel: [2, 3, 2] step: 2 padding: [0, 1, 0]", (1, 2, 4, 5, 4)),
    ("kernel: 3 step: 2 padding: 1", (2, 2, 7)),
):
    row("Pooling", f"MAX {_body}", f"pooling_param {{ {_body} }}", x(*_shape, values=distinct))
    row("Pooling", f"AVE {_body}", f"pooling_param {{ pool: AVE {_body} }}", x(*_shape))
row("Pooling", "three axes, everything", "pooling_param { pool: AVE global_pooling: true }", x(2, 3, 2, 3, 4))
