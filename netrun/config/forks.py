"""What other people's Caffe has and BVLC's has not: fields and layer types, where they come from, what becomes of them.

Four things can become of a field. *mapped*: it is read as a field of netrun's, with a notice. *ignorable*: the net
stands without it, and --lenient goes on. *layer*: it belongs to a layer type that netrun lacks; --lenient goes on if
the net stands without that layer (``netrun/config/adapt.py``). *missing*: it means something that netrun cannot do and
the net depends on. What netrun has itself, such as ``permute_param``, stands in the schema and not here. To add one,
add a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["mapped", "ignorable", "layer", "missing"]

NVIDIA = "NVIDIA's Caffe"
SSD = "the SSD fork"
INTEL = "Intel's Caffe"
DEEPLAB = "the DeepLab fork"
SEGNET = "the SegNet fork"
RCNN = "the Fast R-CNN fork"
FLOWNET = "the FlowNet fork"
OPENPOSE = "the OpenPose fork"
YOLO = "the YOLO forks"
RISTRETTO = "the Ristretto fork"
RFCN = "the R-FCN and deformable forks"
OTHERS = "several forks"


@dataclass(frozen=True)
class ForeignField:
    """One field that a message of BVLC's schema does not have.

    fork    whose it is, as it stands in a sentence
    what    ignorable: what it is for; missing: what it would do; mapped: how the meaning differs, if it does
    into    mapped: the field of the same message that it is read as
    values  mapped: words of the text -> words of the other field; the same where nothing is said
    """

    fork: str
    status: Status
    what: str = ""
    into: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """The rest of the sentence "there is no such field"."""
        if self.status == "ignorable":
            return f"it is of {self.fork} ({self.what}); --lenient goes on without it"
        if self.status == "layer":
            return (
                f"it is of {self.fork} ({self.what}, which netrun lacks); --lenient goes on if the net stands without"
            )
        return f"it is of {self.fork} ({self.what}), and netrun has nothing of the kind"


@dataclass(frozen=True)
class ForeignType:
    """One layer type that BVLC's Caffe does not have; ``into``: the type of netrun's that does the same."""

    fork: str
    what: str = ""
    into: str = ""

    @property
    def told(self) -> str:
        """The rest of the sentence "there is no such layer type"."""
        return f"it is of {self.fork} ({self.what}), and netrun has nothing of the kind"


def _same(fork: str, status: Status, what: str, names: str) -> dict[str, ForeignField]:
    return {name: ForeignField(fork, status, what) for name in names.split()}


def _belongs(fork: str, names: Mapping[str, str]) -> dict[str, ForeignField]:
    """Blocks of parameters of layer types that netrun lacks: the type itself is what is told about."""
    return {name: ForeignField(fork, "layer", f"parameters of {kind} layers") for name, kind in names.items()}


_PRECISION = "the precision it computes in"
_SPEED = "how fast it runs"

FIELDS: Mapping[str, Mapping[str, ForeignField]] = {
    "SolverParameter": {
        "rampup_interval": ForeignField(NVIDIA, "mapped", "the rate rises in a straight line", "warmup_iter"),
        "rampup_lr": ForeignField(NVIDIA, "mapped", into="warmup_start_lr"),
        **_same(NVIDIA, "missing", "a rate for each parameter by its norms; type: \"LARS\" is near",
                "larc larc_policy larc_eta larc_turbo local_lr_auto local_gw_ratio"),
        **_same(NVIDIA, "missing", "a momentum that changes", "momentum_policy momentum_power max_momentum"),
        **_same(NVIDIA, "missing", "a weight decay that changes", "weight_decay_policy weight_decay_power"),
        **_same(NVIDIA, "missing", "lengths in epochs; max_iter and test_interval count iterations",
                "max_epoch epoch_size test_epoch_size test_interval_epoch"),
        **_same(NVIDIA, "ignorable", _PRECISION, "solver_data_type"),
        **_same(NVIDIA, "ignorable", "the layout of its snapshots", "store_blobs_in_old_format"),
        **_same(NVIDIA, "ignorable", _SPEED, "per_parameter_reduce"),
        **_same(SSD, "ignorable", "how it scores detections", "eval_type ap_version show_per_class_result"),
        **_same(INTEL, "ignorable", _SPEED, "engine disabled_update"),
    },
    "NetParameter": {
        **_same(NVIDIA, "ignorable", _PRECISION, "default_forward_type default_backward_type default_forward_math "
                "default_backward_math global_grad_scale global_grad_scale_adaptive"),
        **_same(NVIDIA, "ignorable", _SPEED,
                "default_conv_algos_override default_cudnn_math_override reduce_buckets"),
        **_same(INTEL, "ignorable", _SPEED, "engine compile_net_state bn_stats_batch_size multinode"),
    },
    "LayerParameter": {
        **_same(NVIDIA, "ignorable", _PRECISION, "forward_type backward_type forward_math backward_math"),
        **_same(NVIDIA, "ignorable", _SPEED, "cudnn_math_override"),
        **_same(NVIDIA, "ignorable", "more lines in its log", "debug"),
        **_same(INTEL, "ignorable", _SPEED, "engine multinode mn_activation_param mn_grad_compress_param"),
        **_same("Intel's Caffe or the Ristretto fork", "ignorable", "numbers of few bits", "quantization_param"),
        **_same(FLOWNET, "ignorable", _SPEED, "reshape_every_iter"),
        **_belongs(NVIDIA, {"detectnet_groundtruth_param": "DetectNetTransformation",
                            "detectnet_augmentation_param": "DetectNetTransformation"}),
        **_belongs(SSD, {"annotated_data_param": "AnnotatedData", "multibox_loss_param": "MultiBoxLoss",
                         "prior_box_param": "PriorBox", "detection_output_param": "DetectionOutput",
                         "detection_evaluate_param": "DetectionEvaluate", "video_data_param": "VideoData"}),
        **_belongs(RCNN, {"roi_pooling_param": "ROIPooling", "psroi_pooling_param": "PSROIPooling",
                          "box_annotator_ohem_param": "BoxAnnotatorOHEM", "proposal_param": "Proposal"}),
        **_belongs(RFCN, {"deformable_convolution_param": "DeformableConvolution",
                          "deformable_psroi_pooling_param": "DeformablePSROIPooling",
                          "roi_align_param": "ROIAlign", "smooth_l1_loss_ohem_param": "SmoothL1LossOHEM"}),
        **_belongs(DEEPLAB, {"dense_crf_param": "DenseCRF", "mat_read_param": "MatRead",
                             "mat_write_param": "MatWrite", "image_seg_data_param": "ImageSegData"}),
        **_belongs(SEGNET, {"dense_image_data_param": "DenseImageData"}),
        **_belongs(FLOWNET, {"augmentation_param": "DataAugmentation", "correlation_param": "Correlation",
                             "l1_loss_param": "L1Loss", "lpq_loss_param": "LpqLoss", "resample_param": "Resample",
                             "downsample_param": "Downsample", "flow_warp_param": "FlowWarp", "mean_param": "Mean",
                             "reader_param": "Reader", "writer_param": "FLOWriter", "accum_param": "Accum"}),
        **_belongs(OPENPOSE, {"cpm_transform_param": "CPMData", "nms_param": "Nms", "imresize_param": "ImResize",
                              "op_transform_param": "OPData"}),
        **_belongs(YOLO, {"reorg_param": "Reorg", "region_loss_param": "RegionLoss", "yolov3_param": "Yolov3",
                          "eval_detection_param": "EvalDetection",
                          "yolo_detection_output_param": "YoloDetectionOutput",
                          "yolov3_detection_output_param": "Yolov3DetectionOutput"}),
        **_belongs(OTHERS, {"center_loss_param": "CenterLoss", "margin_inner_product_param": "MarginInnerProduct",
                            "batch_reduction_param": "BatchReduction", "st_param": "SpatialTransformer",
                            "triplet_loss_param": "TripletLoss", "spatial_dropout_param": "SpatialDropout",
                            "focal_loss_param": "FocalLoss"}),
        **_same(OTHERS, "missing", "the parameters of a CTCLoss, which are here in ctc_param", "ctc_loss_param"),
    },
    "TransformationParameter": {
        **_same(SSD, "missing", "images resized on their way in; resize the records instead", "resize_param"),
        **_same(SSD, "missing", "a crop that is no square", "crop_h crop_w"),
        **_same(SSD, "ignorable", "more random changes of training images",
                "noise_param distort_param expand_param emit_constraint"),
        **_same(NVIDIA, "ignorable", _SPEED, "use_gpu_transform"),
        **_same(NVIDIA, "missing", "images resized at random on their way in",
                "img_rand_resize_lower img_rand_resize_upper rand_resize_ratio_lower rand_resize_ratio_upper "
                "vertical_stretch_lower vertical_stretch_upper horizontal_stretch_lower horizontal_stretch_upper"),
        **_same(NVIDIA, "ignorable", "windows that show the images", "display"),
        **_same(INTEL, "missing", "images resized at random on their way in",
                "random_resize_param random_aspect_ratio_param"),
    },
    "DataParameter": {
        **_same(NVIDIA, "ignorable", _SPEED, "threads parser_threads cache"),
        **_same(YOLO, "missing", "the grids of labels", "side"),
    },
    "ConvolutionParameter": {
        "hole": ForeignField(DEEPLAB, "mapped", into="dilation"),
        **_same(NVIDIA, "ignorable", _SPEED, "conv_algos_override cudnn_convolution_algo_seeker"),
        **_same(INTEL, "ignorable", _SPEED, "conv_algorithm bn_relu_fusion relu fusion_type"),
    },
    "PoolingParameter": {
        "ceil_mode": ForeignField(OTHERS, "mapped", "", "round_mode",
                                  {"true": "CEIL", "false": "FLOOR", "1": "CEIL", "0": "FLOOR"}),
    },
    "BatchNormParameter": _same(NVIDIA, "ignorable", _SPEED, "engine"),
    "BNParameter": _same(OTHERS, "ignorable", _SPEED, "engine"),
    "UpsampleParameter": _same(SEGNET, "missing", "its Upsample takes the places of a Pooling as second bottom",
                               "scale_h scale_w pad_out_h pad_out_w upsample_h upsample_w"),
    "DropoutParameter": _same(SEGNET, "missing", "dropout in TEST too", "sample_weights_test scale_train"),
    "LossParameter": _same(SEGNET, "missing", "weights of classes; InfogainLoss has them",
                           "weight_by_label_freqs class_weighting ignore_label_weight"),
}  # fmt: skip
"""By message, then by name."""

ENGINES = frozenset({"MKL2017", "MKLDNN", "LWDNN"})
"""Values of ``engine`` that are other people's; read as DEFAULT, since the device chooses its kernel in any case."""

TYPES: Mapping[str, ForeignType] = {
    "ConvolutionDepthwise": ForeignType(OTHERS, into="DepthwiseConvolution"),
    "ReLU6": ForeignType(OTHERS, into="Clip"),
    "AnnotatedData": ForeignType(SSD, "images with boxes"),
    "VideoData": ForeignType(SSD, "frames of a video"),
    "PriorBox": ForeignType(SSD, "the boxes that detection starts from"),
    "MultiBoxLoss": ForeignType(SSD, "the loss of detection"),
    "DetectionOutput": ForeignType(SSD, "boxes from scores"),
    "DetectionEvaluate": ForeignType(SSD, "the score of detection"),
    "DetectNetTransformation": ForeignType(NVIDIA, "images and boxes to grids"),
    "ROIPooling": ForeignType(RCNN, "pooling over given boxes"),
    "PSROIPooling": ForeignType(RCNN, "pooling over parts of given boxes"),
    "ROIAlign": ForeignType(RCNN, "interpolation over given boxes"),
    "Proposal": ForeignType(RCNN, "boxes from scores"),
    "SmoothL1LossOHEM": ForeignType(RFCN, "a loss for the choice of hard examples; SmoothL1Loss is near"),
    "SoftmaxWithLossOHEM": ForeignType(RFCN, "a loss for the choice of hard examples; SoftmaxWithLoss is near"),
    "DeformableConvolution": ForeignType(RFCN, "windows whose pixels are moved"),
    "DeformablePSROIPooling": ForeignType(RFCN, "pooling over moved parts of boxes"),
    "ConvolutionRistretto": ForeignType(RISTRETTO, "a convolution in few bits; Convolution is the same in all of them"),
    "DeconvolutionRistretto": ForeignType(RISTRETTO, "in few bits; Deconvolution is the same in all of them"),
    "FcRistretto": ForeignType(RISTRETTO, "in few bits; InnerProduct is the same in all of them"),
    "LRNRistretto": ForeignType(RISTRETTO, "in few bits; LRN is the same in all of them"),
    "DataRistretto": ForeignType(RISTRETTO, "in few bits; Data is the same in all of them"),
    "BoxAnnotatorOHEM": ForeignType(RCNN, "the choice of hard examples"),
    "DenseCRF": ForeignType(DEEPLAB, "a random field over pixels"),
    "ImageSegData": ForeignType(DEEPLAB, "images with a label for each pixel"),
    "MatRead": ForeignType(DEEPLAB, "MATLAB files"),
    "MatWrite": ForeignType(DEEPLAB, "MATLAB files"),
    "SegAccuracy": ForeignType(DEEPLAB, "scores of segmentation"),
    "DenseImageData": ForeignType(SEGNET, "images with a label for each pixel"),
    "DataAugmentation": ForeignType(FLOWNET, "random changes of images"),
    "Correlation": ForeignType(FLOWNET, "products of shifted features"),
    "Resample": ForeignType(FLOWNET, "resizing"),
    "Downsample": ForeignType(FLOWNET, "resizing"),
    "FlowWarp": ForeignType(FLOWNET, "images moved along a flow"),
    "ChannelNorm": ForeignType(FLOWNET, "the length of vectors"),
    "L1Loss": ForeignType(FLOWNET, "absolute differences; SmoothL1Loss is near"),
    "CPMData": ForeignType(OPENPOSE, "images with joints"),
    "OPData": ForeignType(OPENPOSE, "images with joints"),
    "ImResize": ForeignType(OPENPOSE, "resizing"),
    "Nms": ForeignType(OPENPOSE, "peaks of maps"),
    "Reorg": ForeignType(YOLO, "squares of pixels to channels"),
    "RegionLoss": ForeignType(YOLO, "the loss of detection"),
    "Region": ForeignType(YOLO, "boxes from scores"),
    "Yolov3": ForeignType(YOLO, "the loss of detection"),
    "EvalDetection": ForeignType(YOLO, "the score of detection"),
    "YoloDetectionOutput": ForeignType(YOLO, "boxes from scores"),
    "Yolov3DetectionOutput": ForeignType(YOLO, "boxes from scores"),
    "CenterLoss": ForeignType(OTHERS, "the distance to learned centres"),
    "MarginInnerProduct": ForeignType(OTHERS, "angles with a margin"),
    "TripletLoss": ForeignType(OTHERS, "distances in triples"),
    "FocalLoss": ForeignType(OTHERS, "a loss that weighs hard examples"),
    "SpatialTransformer": ForeignType(OTHERS, "images under a learned transform"),
    "SpatialDropout": ForeignType(OTHERS, "dropout of whole channels"),
    "BatchReduction": ForeignType(OTHERS, "sums over the batch"),
}
"""By name."""


def field_of(message: str, name: str) -> ForeignField | None:
    """The row of a field that ``message`` of the schema lacks; None if no fork is known to have it."""
    return FIELDS.get(message.removeprefix("V1"), {}).get(name)


def type_hint(name: str) -> str:
    """``: it is of the SSD fork (...)`` for a layer type that netrun lacks and a fork has; "" for any other."""
    row = TYPES.get(name)
    return f": {row.told}" if row is not None and not row.into else ""


def known_forks() -> Iterable[str]:
    """Every fork that has a row."""
    of_fields = {row.fork for rows in FIELDS.values() for row in rows.values()}
    return sorted(of_fields | {row.fork for row in TYPES.values()})
