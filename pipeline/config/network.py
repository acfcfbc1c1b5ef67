"""The network, how it learns, and what is exported."""

import os.path
from typing import Annotated, Final, get_args

from pydantic import AfterValidator, Field, model_validator

from models.choices import (
    Activation,
    BackboneName,
    ClassWeights,
    CoarseLevels,
    Combine,
    Flip,
    Format,
    FusionOrNone,
    GreyInput,
    Keep,
    LossName,
    Monitor,
    Norm,
    Optimizer,
    Pooling,
    TestTimeAugmentation,
)
from pipeline.config.choices import TrackerName
from pipeline.config.evaluation import ThresholdConfig
from pipeline.config.section import BelowOne, Count, Duration, HomePath, NotNegative, Positive, Section, Share, WholeNumber


class AugmentConfig(Section):
    """Random changes to training images; off for evaluation and serving."""

    flip: Flip = Field("none", description="mirror at random")
    shift: Share = Field(0.0, description="largest shift, as a share of height and width")
    zoom: Share = Field(0.0, description="largest zoom in or out, as a share")
    rotation: Share = Field(0.0, description="largest rotation, as a share of a full turn")
    contrast: Share = Field(0.0, description="largest change of contrast, as a share")
    rand_augment: Share = Field(0.0, description="strength of RandAugment, two random operations an image; 0: off")
    erasing: Share = Field(0.0, description="probability of blanking a random rectangle of an image")
    mixup: NotNegative = Field(0.0, description="alpha of MixUp, which blends pairs of images; 0: off")
    cutmix: NotNegative = Field(0.0, description="alpha of CutMix, which swaps rectangles; 0: off")


Level = Annotated[int, Field(ge=1, le=7)]
_BACKBONES: Final = ", ".join(get_args(BackboneName))


def _known_backbone(name: str) -> str:
    """A name, or `hub:` and a preset, in whose path ~ stands for the home folder."""
    kind, _, preset = name.partition(":")
    if kind == "hub" and preset:
        return f"hub:{os.path.expanduser(preset)}"
    if name not in get_args(BackboneName):
        raise ValueError(f"must be one of {_BACKBONES}, or hub: and a preset of keras-hub")
    return name


def _levels_of(backbone: str) -> tuple[int, int]:
    """The finest and the coarsest level of a backbone's maps."""
    return (1, 4) if backbone.startswith("small_resnet") else (2, 5)


class ModelConfig(Section):
    """Backbone, pyramid and heads."""

    backbone: Annotated[str, AfterValidator(_known_backbone)] = Field(
        "resnet50",
        description=f"network that gives the maps C1..C5 ({_BACKBONES}), or hub: and a preset of keras-hub; see docs/model.md",
    )
    weights: HomePath = Field(
        "none", description="none, imagenet, preset (those of a hub: backbone), or a weights file of the backbone"
    )
    grey_input: GreyInput = Field(
        "repeat",
        description="grey images on three-channel networks: repeat the channel, or sum the first kernel over its inputs",
    )
    class_token: bool = Field(
        False, description="of a plain vision transformer: join its class token to each patch (arXiv:2103.13413, section 3.1)"
    )
    stochastic_depth: BelowOne | None = Field(
        None,
        description="largest share of images for which a residual block is skipped in training (arXiv:1603.09382), in networks "
        "that have it; the network's own if not given",
    )
    min_level: Level = Field(2, description="finest level, of stride 2^min_level")
    max_level: Level = Field(
        default_factory=lambda known: _levels_of(known.get("backbone", ""))[1],  # an unknown backbone is an error in any case
        description="coarsest level; the backbone's last if not given; beyond it, levels are made from it",
    )
    coarse_levels: CoarseLevels = Field("conv", description="how levels beyond the backbone's last map are made")
    coordinates: bool = Field(
        False, description="tell the pyramid the place of each cell (arXiv:1807.03247), for data where the place matters"
    )
    num_filters: Count = Field(64, description="channels of the pyramid")
    fusion_type: FusionOrNone = Field("sum", description="how levels merge; none leaves the pyramid out")
    bifpn_repeats: Count = Field(3, description="rounds of a bifpn, each down and up again")
    separable: bool = Field(False, description="depthwise separable convolutions in the pyramid")
    norm: Norm = Field("batch", description="normalisation after the pyramid's convolutions")
    activation: Activation = Field("none", description="non-linearity after the pyramid's last convolutions")
    shared_head: bool = Field(False, description="one head for all levels instead of one a level")
    pooling: Pooling = Field("generalized_mean", description="how a level's map becomes a vector")
    combine: Combine = Field(
        "mean", description="levels' answers: their mean, a dense layer on them together, or a mean with learned weights"
    )
    dropout: BelowOne = Field(0.2, description="share dropped before each head")

    @model_validator(mode="after")
    def _levels_fit(self) -> "ModelConfig":
        if self.min_level > self.max_level:
            raise ValueError(f"min_level ({self.min_level}) must not be above max_level ({self.max_level})")
        finest, coarsest = _levels_of(self.backbone)
        if not finest <= self.min_level <= coarsest:
            raise ValueError(
                f"min_level must be {finest} to {coarsest}, the levels that {self.backbone} has, is {self.min_level}"
            )
        if self.fusion_type == "none" and self.max_level > coarsest:
            raise ValueError(f"max_level must be at most {coarsest} without a pyramid, the coarsest that {self.backbone} has")
        if self.backbone.startswith("hub:") and self.weights not in ("none", "preset"):
            raise ValueError(f"weights of a hub: backbone must be none or preset, is {self.weights}")
        if self.stochastic_depth is not None and not self.backbone.startswith(("efficientnet_v2", "hub:")):
            raise ValueError(
                f"stochastic_depth is for efficientnet_v2 and some hub: backbones, and backbone is {self.backbone}"
            )
        if self.coordinates and self.fusion_type == "none":
            raise ValueError("coordinates are told to the pyramid, and fusion_type is none; leave out one of the two")
        if self.class_token and not self.backbone.startswith("hub:"):
            raise ValueError(f"class_token is for plain vision transformers, and backbone is {self.backbone}")
        if self.weights == "preset" and not self.backbone.startswith("hub:"):
            raise ValueError(f"weights: preset is for hub: backbones, and backbone is {self.backbone}")
        if self.backbone.startswith("small_resnet") and self.weights == "imagenet":
            raise ValueError(
                f"there are no imagenet weights of {self.backbone}; set weights to none, or choose another backbone"
            )
        return self


BLESSED: Final = "blessed"  # as `train.warm_start`: the model that is served where the run pushes to


class TrainConfig(Section):
    """How the network learns."""

    epochs: Count = Field(10, description="epochs with all weights trainable")
    steps: Count | None = Field(
        None, description="training steps with all weights trainable, instead of `epochs`; the last epoch may be shorter"
    )
    budget: Duration | None = Field(
        None,
        description="time for training, such as 90s, 20m or 1h30m, instead of `epochs` and `steps`; see docs/model.md",
    )
    half_size: BelowOne = Field(
        0.0,
        description="share of `epochs` or `steps`, the first, on images of half the height and width; see docs/model.md",
    )
    frozen_epochs: WholeNumber = Field(0, description="epochs before, with the backbone frozen")
    batch_size: Count = Field(32, description="images per step, over all GPUs together")
    accumulate_steps: Count = Field(1, description="steps whose gradients are averaged into one update")
    optimizer: Optimizer = Field("muon", description="by name")
    learning_rate: Positive = Field(4e-3, description="peak rate of the optimizer")
    fine_tune_learning_rate: Positive | None = Field(None, description="rate after frozen epochs; learning_rate if not given")
    layer_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="factor of the rate from each stage of the backbone to the one before; 1: all learn alike; 0: the backbone "
        "stays as it is",
    )
    freeze_batch_norm: bool = Field(False, description="keep the backbone's batch statistics, as fine-tuning wants")
    weight_decay: NotNegative = Field(0.05, description="decoupled, of all kernels")
    warmup_epochs: NotNegative = Field(
        1.0, description="epochs of rising rate, at most a tenth of `steps` or `budget`; then it falls along a cosine"
    )
    clip_norm: NotNegative = Field(0.0, description="largest norm of all gradients together; 0: any")
    ema: BelowOne = Field(0.0, description="moving average of the weights, its momentum; 0: off")
    loss: LossName = Field("cross_entropy", description="focal weighs down what is right already")
    focal_gamma: NotNegative = Field(2.0, description="of the focal loss")
    class_weights: ClassWeights = Field(
        "none",
        description="balanced: all classes count alike; in multi-label data, each one's presence and absence do",
    )
    label_smoothing: BelowOne = Field(0.0, description="share of the label spread over all classes")
    teacher: HomePath | None = Field(
        None, description="folder of a pushed model whose answers are learned instead of the labels; see docs/model.md"
    )
    teacher_temperature: Positive = Field(
        4.0, description="above 1, the teacher's small probabilities count for more, as arXiv:1503.02531 has it"
    )
    warm_start: HomePath | None = Field(
        None,
        description="begin with the weights of the `blessed` model that was pushed last, or of a model in another folder; see "
        "docs/continual.md",
    )
    monitor: Monitor = Field("loss", description="metric of the eval split that picks epochs; f1: macro")
    keep: Keep = Field("last", description="the epoch whose weights are exported; best by `monitor`")
    early_stopping: WholeNumber = Field(0, description="epochs without a better `monitor`; 0: never; keeps the best")
    mixed_precision: bool = Field(False, description="float16 on GPUs, bfloat16 on CPUs")
    xla: bool = Field(False, description="compile the training step with XLA")
    cache_gb: NotNegative = Field(2.0, description="largest decoded training set to keep in memory")
    seed: int = Field(0, description="of weights, order and augmentation")
    trackers: list[TrackerName] = Field(
        [], description="who is told of the run while it goes on, beside TensorBoard's files; see [trackers.md](trackers.md)"
    )

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if self.steps is not None and "epochs" in self.model_fields_set:
            raise ValueError(
                f"epochs ({self.epochs}) and steps ({self.steps}) are both given; leave one of them out, or set steps to null"
            )
        return self

    @model_validator(mode="after")
    def _half_size_has_a_length(self) -> "TrainConfig":
        if self.half_size and (self.budget or self.teacher):
            other = "a budget, which has no number of steps" if self.budget else "a teacher, which sees images of one size"
            raise ValueError(f"half_size ({self.half_size}) does not work with {other}; leave out one of the two")
        return self

    @model_validator(mode="after")
    def _teacher_is_followed(self) -> "TrainConfig":
        if self.teacher and self.loss != "cross_entropy":
            raise ValueError(f"loss must be cross_entropy with a teacher, because {self.loss} does not lead to its answers")
        if self.teacher and self.label_smoothing:
            raise ValueError("label_smoothing must be 0 with a teacher, whose answers are soft already")
        return self


class ExportConfig(Section):
    """What the exported model does beyond the network."""

    test_time_augmentation: TestTimeAugmentation = Field(
        "none",
        description="views of an image whose answers the exported model averages, at 2, 5 or 10 times the work and memory",
    )
    formats: list[Format] = Field(
        [], description="other formats to ship beside the SavedModel: LiteRT (TFLite) of 16 or 8 bits, ONNX; see docs/export.md"
    )
    thresholds: list[ThresholdConfig] = Field(
        [ThresholdConfig(metric="accuracy", change=-0.01)],
        min_length=1,
        description="what each of them must keep on the test split to be shipped; `change` is against the SavedModel",
    )
