"""Rows for every layer type; a registered type without a row fails the suite."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import cases.layers_attention
import cases.layers_forks
import cases.layers_formula
import cases.layers_modern
import cases.layers_sequence  # noqa: F401  (they add their rows)
from cases.layer_case import GAUSS, LAYERS, TRAIN, LayerCase, classes, fractions, probabilities, row, x
from cases.values import distinct, normal, positive
from netrun.config import schema

GOLDEN = Path(__file__).parents[1] / "golden"
SCRATCH = Path(tempfile.mkdtemp())
"""A folder for what rows write; it goes with the process."""
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)

# -------------------------------------------------------------------------------------------------------- activations
row("ReLU", "plain", "", x(2, 3, 4))
row("ReLU", "leaky", "relu_param { negative_slope: 0.1 }", x(2, 3))
row("ReLU", "negative slope below 0", "relu_param { negative_slope: -0.5 }", x(2, 3))
row("PReLU", "one slope a channel", "", x(2, 3, 4, 4))
row("PReLU", "one slope", "prelu_param { channel_shared: true }", x(2, 3, 5))
row("ELU", "alpha", "elu_param { alpha: 0.7 }", x(2, 3, 4))
row("Sigmoid", "plain", "", x(2, 3, 4))
row("TanH", "plain", "", x(2, 3, 4))
row("Swish", "beta", "swish_param { beta: 1.5 }", x(2, 3, 4))
row("BNLL", "plain", "", x(2, 3, 4))
row("Softmax", "channels", "", x(2, 5, 3))
row("Softmax", "last axis", "softmax_param { axis: -1 }", x(2, 3, 4))
row("AbsVal", "plain", "", x(2, 3, 4))
row("Clip", "both sides", "clip_param { min: -0.7 max: 0.6 }", x(3, 5, values=normal))
row("Clip", "one side", "clip_param { min: 0 max: inf }", x(3, 5))
row("Threshold", "no gradient", "threshold_param { threshold: 0.3 }", x(3, 5), wants=[])
row("Exp", "e", "", x(2, 3))
row("Exp", "base, scale, shift", "exp_param { base: 2 scale: -0.5 shift: 1 }", x(2, 3))
row("Log", "e", "", x(2, 3, values=positive))
row("Log", "base, scale, shift", "log_param { base: 10 scale: 2 shift: 0.5 }", x(2, 3, values=positive))
for _power in (0, 1, 2, 0.5, -1, 3, -0.75):
    row("Power", f"to {_power}", f"power_param {{ power: {_power} scale: 1.5 shift: 0.25 }}", x(2, 3, values=positive))
row("Power", "of a constant", "power_param { power: 2 scale: 0 shift: -3 }", x(2, 3))
row("Dropout", "in training", "dropout_param { dropout_ratio: 0.4 }", x(4, 3, 5), phase=TRAIN)
row("Dropout", "in use", "dropout_param { dropout_ratio: 0.4 }", x(4, 3, 5))
row("Dropout", "nothing dropped", "dropout_param { dropout_ratio: 0 }", x(4, 3), phase=TRAIN)

# -------------------------------------------------------------------------------------------- convolution and pooling
for _body in (
    "num_output: 4 kernel_size: 3", "num_output: 4 kernel_size: 3 pad: 1 stride: 2 bias_term: false",
    "num_output: 6 kernel_h: 2 kernel_w: 3 pad_w: 1 stride_h: 2 stride_w: 1 group: 3",
    "num_output: 3 kernel_size: 2 dilation: 2", "num_output: 3 group: 3 kernel_size: 3 pad: 1",
):  # fmt: skip
    row("Convolution", _body, f"convolution_param {{ {_body} {GAUSS} }}", x(2, 3, 6, 5))
row("Convolution", "a window larger than the input",
    f"convolution_param {{ num_output: 2 kernel_size: 4 stride: 2 {GAUSS} }}", x(2, 3, 3, 6))  # fmt: skip
row("Convolution", "groups, dilation, force_nd_im2col",
    f"convolution_param {{ num_output: 4 kernel_size: 2 dilation: 3 pad: 2 group: 2 force_nd_im2col: true {GAUSS} }}",
    x(2, 4, 3, 4))  # fmt: skip
row("Convolution", "one axis", f"convolution_param {{ num_output: 2 kernel_size: 3 {GAUSS} }}", x(2, 3, 7))
row("Convolution", "three axes", f"convolution_param {{ num_output: 2 kernel_size: 2 {GAUSS} }}", x(2, 2, 3, 4, 3))
row("Convolution", "no spatial axes", f"convolution_param {{ group: 3 num_output: 6 {GAUSS} }}", x(2, 3))
row("Convolution", "two batch axes", f"convolution_param {{ num_output: 2 kernel_size: 2 axis: 2 {GAUSS} }}",
    x(2, 2, 3, 4, 3))  # fmt: skip
row("Convolution", "two bottoms", f"convolution_param {{ num_output: 2 kernel_size: 2 {GAUSS} }}",
    x(2, 3, 4, 3), x(2, 3, 4, 3), tops=2)  # fmt: skip
for _body in (
    "num_output: 4 kernel_size: 3", "num_output: 3 kernel_size: 4 pad: 1 stride: 2 bias_term: false",
    "num_output: 6 kernel_size: 2 group: 3 stride: 2", "num_output: 2 kernel_size: 2 dilation: 2",
):  # fmt: skip
    row("Deconvolution", _body, f"convolution_param {{ {_body} {GAUSS} }}", x(2, 3, 3, 4))
row("Deconvolution", "one axis", f"convolution_param {{ num_output: 2 kernel_size: 3 {GAUSS} }}", x(2, 3, 4))
row("Deconvolution", "no spatial axes", f"convolution_param {{ num_output: 2 {GAUSS} }}", x(2, 3))
row("Im2col", "a window larger than the input", "convolution_param { kernel_size: 3 dilation: 2 stride: 3 }",
    x(2, 3, 4, 6))  # fmt: skip
row("Im2col", "padded", "convolution_param { kernel_size: 3 pad: 1 stride: 2 }", x(2, 3, 5, 4))
row("Im2col", "two batch axes", "convolution_param { kernel_size: 2 axis: 2 }", x(2, 2, 3, 4))
for _body in (
    "kernel_size: 2 stride: 2", "kernel_size: 3 stride: 2", "kernel_size: 3 stride: 2 pad: 1", "global_pooling: true",
    "kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 0 pad_w: 1", "kernel_size: 2 stride: 2 round_mode: FLOOR",
):  # fmt: skip
    row("Pooling", f"MAX {_body}", f"pooling_param {{ {_body} }}", x(2, 3, 7, 6, values=distinct))
    row("Pooling", f"AVE {_body}", f"pooling_param {{ pool: AVE {_body} }}", x(2, 3, 7, 6))
row("Pooling", "AVE larger than its input", "pooling_param { pool: AVE kernel_size: 4 stride: 2 }", x(2, 3, 3, 3))
row("Pooling", "mask", "pooling_param { kernel_size: 3 stride: 2 }", x(2, 3, 7, 6, values=distinct), tops=2, quiet=(1,))
row("Pooling", "one axis", "pooling_param { kernel_size: 3 stride: 2 }", x(2, 3, 8, values=distinct))
row("Pooling", "three axes", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }", x(2, 2, 4, 5, 3))
row("Pooling", "stochastic in training", "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }",
    x(2, 3, 6, 6, values=positive), phase=TRAIN)  # fmt: skip
row("Pooling", "stochastic in use", "pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }",
    x(2, 3, 6, 7, values=positive))  # fmt: skip
row("SPP", "three levels", "spp_param { pyramid_height: 3 }", x(2, 2, 8, 7, values=distinct))
row("SPP", "one level", "spp_param { pyramid_height: 1 pool: AVE }", x(2, 2, 5, 4))
row("SPP", "stochastic in training", "spp_param { pyramid_height: 2 pool: STOCHASTIC }",
    x(2, 2, 8, 4, values=positive), phase=TRAIN)  # fmt: skip

# -------------------------------------------------------------------------------------------------------------- dense
row("InnerProduct", "plain", f"inner_product_param {{ num_output: 4 {GAUSS} }}", x(3, 2, 5))
row("InnerProduct", "transposed", f"inner_product_param {{ num_output: 4 transpose: true {GAUSS} }}", x(3, 5))
row("InnerProduct", "last axis", f"inner_product_param {{ num_output: 4 axis: -1 bias_term: false {GAUSS} }}",
    x(3, 2, 5))  # fmt: skip
row("InnerProduct", "axis 0", f"inner_product_param {{ num_output: 4 axis: 0 {GAUSS} }}", x(3, 2))
row("Embed", "bias", f"embed_param {{ num_output: 3 input_dim: 5 {GAUSS} }}", x(4, 2, values=classes(5)), wants=[])
row("Embed", "no bias", f"embed_param {{ num_output: 3 input_dim: 5 bias_term: false {GAUSS} }}",
    x(4, values=classes(5)), wants=[])  # fmt: skip
row("Parameter", "a matrix", "parameter_param { shape { dim: 2 dim: 3 } }")

# ------------------------------------------------------------------------------------------- normalisation and scales
row("LRN", "across channels", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }", x(2, 5, 3, 2))
row("LRN", "one axis", "lrn_param { local_size: 3 alpha: 0.5 }", x(2, 5, 3))
row("LRN", "within a channel", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 }", x(2, 2, 4, 5))
row("BatchNorm", "in training", "", x(4, 3, 2, 3), phase=TRAIN)
row("BatchNorm", "in use", "batch_norm_param { eps: 0.5 }", x(4, 3, 2, 3))
row("BatchNorm", "running statistics in training", "batch_norm_param { use_global_stats: true }", x(4, 3), phase=TRAIN)
row("MVN", "a channel", "mvn_param { eps: 0 }", x(2, 3, 4, 2))
row("MVN", "all channels", "mvn_param { across_channels: true }", x(2, 3, 4))
row("MVN", "mean only", "mvn_param { normalize_variance: false }", x(2, 3, 4, 2))
row("Scale", "a channel", "scale_param { bias_term: true }", x(2, 3, 4))
row("Scale", "two axes", 'scale_param { axis: 1 num_axes: 2 filler { type: "gaussian" } }', x(2, 3, 4, 2))
row("Scale", "one number", "scale_param { axis: 0 num_axes: 0 bias_term: true }", x(2, 3))
row("Scale", "two bottoms", "scale_param { bias_term: true }", x(2, 3, 4), x(3, 4, batch=False))
row("Scale", "a number as second bottom", "", x(2, 3, 4), x())
row("Bias", "a channel", "", x(2, 3, 4))
row("Bias", "all axes", "bias_param { axis: 1 num_axes: -1 }", x(2, 3, 4))
row("Bias", "two bottoms", "bias_param { axis: -1 }", x(2, 3, 4), x(4, batch=False))

# -------------------------------------------------------------------------------------------------- shapes and joining
row("Concat", "channels", "", x(2, 3, 4), x(2, 1, 4), x(2, 2, 4))
row("Concat", "last axis", "concat_param { axis: -1 }", x(2, 3), x(2, 4))
row("Concat", "one bottom", "", x(2, 3))
row("Slice", "equal parts", "", x(2, 6, 3), tops=3)
row("Slice", "points", "slice_param { axis: -1 slice_point: 1 slice_point: 4 }", x(2, 6), tops=3)
row("Slice", "one top", "", x(2, 6))
row("Split", "two tops", "", x(2, 3), tops=2)
row("Silence", "two bottoms", "", x(2, 3), x(4), tops=0)
row("Flatten", "all", "", x(2, 3, 4))
row("Flatten", "a range", "flatten_param { axis: -3 end_axis: -2 }", x(2, 3, 4, 2))
row("Reshape", "kept and computed", "reshape_param { shape { dim: 0 dim: -1 dim: 2 } }", x(2, 3, 4))
row("Reshape", "an axis behind", "reshape_param { axis: -1 shape { dim: 1 } }", x(2, 3))
row("Tile", "channels", "tile_param { tiles: 3 }", x(2, 3, 4))
row("Tile", "last axis", "tile_param { axis: -1 tiles: 2 }", x(2, 3))
row("Crop", "images", "crop_param { offset: 1 offset: 2 }", x(2, 3, 6, 5), x(2, 3, 3, 2), wants=[0])
row("Crop", "one offset", "crop_param { axis: 1 offset: 1 }", x(2, 4, 5), x(2, 2, 3), wants=[0])
row("BatchReindex", "repeated", "", x(3, 4, batch=False), x(5, values=classes(3)), wants=[0])
for _body in ("", "eltwise_param { coeff: 0.5 coeff: -1 coeff: 2 }", "eltwise_param { operation: PROD }",
              "eltwise_param { operation: MAX }"):  # fmt: skip
    row("Eltwise", _body or "SUM", _body, *[x(2, 3, 4, values=lambda r, t, *s, i=i: distinct(r, t, *s) + 0.007 * i)
                                           for i in range(3)])  # fmt: skip
for _operation in ("SUM", "ASUM", "SUMSQ", "MEAN"):
    row("Reduction", _operation, f"reduction_param {{ operation: {_operation} axis: 1 coeff: 1.5 }}", x(2, 3, 4))
row("Reduction", "everything", "", x(2, 3))

# ---------------------------------------------------------------------------------------------------- losses and scores
row("SoftmaxWithLoss", "plain", "", x(4, 5), x(4, values=classes(5)), wants=[0])
row("SoftmaxWithLoss", "images, ignored labels", "loss_param { ignore_label: 2 }",
    x(2, 4, 3, 3), x(2, 3, 3, values=classes(4)), wants=[0])  # fmt: skip
row("SoftmaxWithLoss", "with its probabilities", "loss_param { normalization: FULL }",
    x(2, 4, 3), x(2, 3, values=classes(4)), wants=[0], tops=2)  # fmt: skip
row("EuclideanLoss", "both gradients", "", x(3, 4), x(3, 2, 2))
for _mode in ("BATCH_SIZE", "VALID", "FULL", "NONE"):
    row("SigmoidCrossEntropyLoss", _mode, f"loss_param {{ normalization: {_mode} ignore_label: 1 }}",
        x(3, 4), x(3, 4, values=classes(3)), wants=[0])  # fmt: skip
row("SigmoidCrossEntropyLoss", "soft targets", "", x(3, 4), x(3, 2, 2, values=fractions), wants=[0])
row("InfogainLoss", "plain", "", x(4, 3), x(4, values=classes(3)), x(1, 1, 3, 3, batch=False), wants=[0])
row("InfogainLoss", "images, ignored labels, probabilities", "loss_param { ignore_label: 0 }",
    x(2, 3, 2, 2), x(2, 2, 2, values=classes(3)), x(3, 3, batch=False), wants=[0], tops=2)  # fmt: skip
row("HingeLoss", "L1", "", x(4, 3), x(4, values=classes(3)), wants=[0])
row("HingeLoss", "L2", "hinge_loss_param { norm: L2 }", x(4, 3, 2), x(4, 1, values=classes(6)), wants=[0])
row("MultinomialLogisticLoss", "plain", "", x(4, 3, values=probabilities), x(4, values=classes(3)), wants=[0])
row("ContrastiveLoss", "distances", "contrastive_loss_param { margin: 4 }",
    x(6, 3), x(6, 3, 1, 1), x(6, values=classes(2)), wants=[0, 1], rtol=1e-2)  # fmt: skip
row("ContrastiveLoss", "legacy", "contrastive_loss_param { margin: 4 legacy_version: true }",
    x(6, 3), x(6, 3), x(6, 1, values=classes(2)), wants=[0, 1])  # fmt: skip
row("Accuracy", "plain", "", x(6, 4), x(6, values=classes(4)), wants=[])
row("Accuracy", "top 2, ignored, per class", "accuracy_param { top_k: 2 ignore_label: 1 }",
    x(2, 4, 3), x(2, 3, values=classes(4)), wants=[], tops=2)  # fmt: skip
row("Accuracy", "everything ignored", "accuracy_param { ignore_label: 0 }", x(3, 4), x(3, values=classes(1)), wants=[])
row("ArgMax", "all", "argmax_param { top_k: 2 }", x(2, 3, 4), wants=[])
row("ArgMax", "with values", "argmax_param { top_k: 2 out_max_val: true }", x(2, 3, 4), wants=[])
row("ArgMax", "an axis", "argmax_param { axis: 1 }", x(2, 3, 4), wants=[])
row("ArgMax", "values of an axis", "argmax_param { axis: 1 out_max_val: true }", x(2, 3, 4), wants=[])

_MATRIX = SCRATCH / "gain.binaryproto"
_MATRIX.write_bytes(schema.BlobProto(num=1, channels=1, height=3, width=3, data=range(9)).SerializeToString())
row("InfogainLoss", "its matrix from a file", f'infogain_loss_param {{ source: "{_MATRIX}" }}',
    x(4, 3), x(4, values=classes(3)), wants=[0])  # fmt: skip

# ------------------------------------------------------------------------------------------------------------- the host
row("Filter", "all are selected", "", x(4, 3, 2), x(4, values=positive), wants=[0])
row("Filter", "two bottoms", "", x(4, 3), x(4, 2, 2), x(4, 1, 1, 1), wants=[0, 1], tops=2)
_MODULE = 'module: "cases.python_layers"'
row("Python", "trained parameters", f'python_param {{ {_MODULE} layer: "Affine" param_str: "1.5" }}', x(4, 3))
row("Python", "a loss", f'python_param {{ {_MODULE} layer: "Distance" }}', x(4, 3), x(4, 3))
row("HDF5Output", "plain", f'hdf5_output_param {{ file_name: "{SCRATCH / "out.h5"}" }}',
    x(4, 3), x(4), tops=0, needs="h5py")  # fmt: skip

# -------------------------------------------------------------------------------------------------------------- inputs
row("Input", "one shape for two tops", "input_param { shape { dim: 2 dim: 3 } }", tops=2)
row("Data", "its shape is said", 'data_param { source: "absent" backend: LMDB batch_size: 4 '
    "record_shape { dim: 3 dim: 6 dim: 5 } } transform_param { crop_size: 4 }", tops=2)  # fmt: skip
row("DummyData", "two shapes", "dummy_data_param { shape { dim: 2 } shape { dim: 3 dim: 1 } "
    'data_filler { type: "gaussian" } data_filler { value: 2 } }', tops=2)  # fmt: skip
_LIST = GOLDEN / "solvers" / "data" / "train_list.txt"
_TEXT = SCRATCH / "text.txt"
_TEXT.write_text("hello\nyou\nworld of words\n")
row("SequenceData", "lines of text", f'sequence_data_param {{ source: "{_TEXT}" batch_size: 2 }}',
    tops=4, names=("data", "label", "cont", "length"))  # fmt: skip
row("SequenceData", "a text as one stream", f'sequence_data_param {{ source: "{_TEXT}" batch_size: 2 steps: 4 '
    'continuous: true }', tops=3, names=("data", "label", "cont"))  # fmt: skip
row("HDF5Data", "two datasets", f'hdf5_data_param {{ source: "{_LIST}" batch_size: 4 }}',
    tops=2, names=("data", "label"), needs="h5py")  # fmt: skip
row("ImageData", "its size is said", 'image_data_param { source: "absent" batch_size: 4 new_height: 6 new_width: 5 } '
    "transform_param { crop_size: 4 }", tops=2)  # fmt: skip
row("WindowData", "its file is absent", 'window_data_param { source: "absent" batch_size: 4 } '
    "transform_param { crop_size: 5 }", tops=2)  # fmt: skip
row("MemoryData", "plain", "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }", tops=2)

__all__ = ["LAYERS", "LayerCase"]
