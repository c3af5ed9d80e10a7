"""Rows for the layer types of netrun/layers/forks.py."""

from __future__ import annotations

from cases.layer_case import GAUSS, TRAIN, row, x
from cases.values import positive

row("Permute", "images to the end", "permute_param { order: 0 order: 2 order: 3 order: 1 }", x(2, 3, 4, 5))
row("Permute", "the rest follows", "permute_param { order: 2 }", x(2, 3, 4))
row("Normalize", "a sample, one factor", "", x(2, 3, 4, 2))
row("Normalize", "a position, a factor a channel",
    'norm_param { across_spatial: false channel_shared: false scale_filler { type: "constant" value: 20 } }',
    x(2, 3, 4, 2))  # fmt: skip
row(
    "DepthwiseConvolution",
    "padded",
    f"convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 {GAUSS} }}",
    x(2, 3, 5, 4),
)
row("DepthwiseConvolution", "two outputs a channel, stride",
    f"convolution_param {{ num_output: 6 group: 3 kernel_size: 3 stride: 2 bias_term: false {GAUSS} }}",
    x(2, 3, 6, 5))  # fmt: skip
row("DepthwiseConvolution", "without num_output", f"convolution_param {{ kernel_size: 2 {GAUSS} }}", x(2, 3, 4))
row("Axpy", "images", "", x(2, 3), x(2, 3, 4, 5), x(2, 3, 4, 5))
row("Axpy", "a factor with spatial axes", "", x(2, 3, 1, 1), x(2, 3, 4, 2), x(2, 3, 4, 2))
row("ShuffleChannel", "three groups", "shuffle_channel_param { group: 3 }", x(2, 6, 4, 3))
row("ShuffleChannel", "no spatial axes", "shuffle_channel_param { group: 2 }", x(2, 6))
row("Upsample", "images", "upsample_param { scale: 2 }", x(2, 3, 2, 3))
row("Upsample", "one axis", "upsample_param { scale: 3 }", x(2, 3, 4))
row("SmoothL1Loss", "plain", "", x(3, 4), x(3, 4))
row("SmoothL1Loss", "weighted", "smooth_l1_loss_param { sigma: 3 }",
    x(3, 4), x(3, 4), x(3, 4, values=positive), x(3, 4, values=positive), wants=[0, 1])  # fmt: skip
row("BatchNormScale", "in training", "", x(4, 3, 2, 3), phase=TRAIN)
row("BatchNormScale", "in use", 'batch_norm_param { eps: 0.5 scale_filler { type: "gaussian" } }', x(4, 3, 2))
row("Interp", "larger", "interp_param { height: 7 width: 5 }", x(2, 3, 4, 3))
row("Interp", "smaller by a factor, one row", "interp_param { shrink_factor: 2 }", x(2, 1, 1, 6))
row(
    "Interp",
    "cut and zoomed",
    "interp_param { zoom_factor: 3 shrink_factor: 2 pad_beg: -1 pad_end: -2 }",
    x(1, 2, 8, 7),
)
row("SegNetBN", "of the batch", 'bn_param { scale_filler { type: "gaussian" std: 1 } }', x(3, 2, 3, 2))
row("SegNetBN", "in use", "bn_param { bn_mode: INFERENCE }", x(3, 2, 3, 2))
row("BN", "in training", "", x(4, 3, 2, 3), phase=TRAIN)
row("BN", "in use", "bn_param { eps: 0.1 }", x(4, 3, 2, 3))
row("BN", "frozen in training", "bn_param { frozen: true }", x(4, 3), phase=TRAIN)
