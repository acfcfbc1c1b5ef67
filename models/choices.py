"""Names that the configuration and the network share. Imports nothing, so that reading a configuration takes no TensorFlow.

What the network sees has its names in `models.image_settings`: ingestion does not depend on those of the training.
"""

from typing import Literal

BackboneName = Literal[
    "small_resnet10",
    "small_resnet18",
    "small_resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet50_v2",
    "resnet101_v2",
    "resnet152_v2",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_v2_b0",
    "efficientnet_v2_b1",
    "efficientnet_v2_b2",
    "efficientnet_v2_b3",
    "efficientnet_v2_s",
    "efficientnet_v2_m",
    "efficientnet_v2_l",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
    "densenet121",
    "densenet169",
    "densenet201",
    "xception",
]
Flip = Literal["none", "horizontal", "vertical", "both"]
GreyInput = Literal["repeat", "sum"]
CoarseLevels = Literal["conv", "pool"]
FusionType = Literal["sum", "concat", "bifpn", "panet"]
FusionOrNone = Literal[FusionType, "none"]
Norm = Literal["none", "batch", "group"]
Activation = Literal["none", "relu", "silu", "gelu"]
Pooling = Literal["average", "max", "average_max", "generalized_mean", "log_sum_exp", "attention"]
Combine = Literal["mean", "concat", "learned"]
Optimizer = Literal["adamw", "adam", "nadam", "sgd", "lamb", "lion", "muon"]
LossName = Literal["cross_entropy", "focal"]
ClassWeights = Literal["none", "balanced"]
Monitor = Literal["loss", "accuracy", "f1"]
Keep = Literal["last", "best"]
TestTimeAugmentation = Literal["none", "flip", "shift", "flip_shift"]
SetMethod = Literal["lac", "aps", "raps"]
Algorithm = Literal["random", "bayesian"]
Format = Literal["float16", "int8", "onnx"]
