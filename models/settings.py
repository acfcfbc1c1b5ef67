"""Settings of the network and its training: records without defaults, because only the configuration has defaults.

Imports no TensorFlow, so that code that makes these records need not wait for it.
"""

from dataclasses import dataclass

from models.choices import (
    Activation,
    Algorithm,
    ClassWeights,
    CoarseLevels,
    Combine,
    Flip,
    FusionOrNone,
    GreyInput,
    Keep,
    LossName,
    Monitor,
    Norm,
    Optimizer,
    Pooling,
    SetMethod,
    TestTimeAugmentation,
)
from models.image_settings import ImageSettings


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Random changes to training images, for `augmentation.build_augmentation`.

    Attributes:
      flip: each direction with probability 1/2.
      shift: largest shift, as a share of height and width; the gap is filled by mirroring at the edge.
      zoom: largest magnification or reduction, as a share: 1 / (1 + zoom) to 1 + zoom times as large.
      rotation: largest rotation to either side, as a share of a full turn.
      contrast: largest change of the contrast, as a share.
      rand_augment: strength of `models.rand_augment`, 0..1.
      erasing: probability that a rectangle of an image is replaced by one random colour (arXiv:1708.04896).
      mixup: alpha of MixUp (arXiv:1710.09412): each image is blended with its neighbour in the (shuffled) batch, the labels
        in the same proportion, which is drawn from Beta(alpha, alpha).
      cutmix: alpha of CutMix (arXiv:1905.04899): a rectangle is taken from the neighbour, labels in proportion to the area.
        If `mixup` is on as well, each batch gets one of the two at random.
    """

    flip: Flip
    shift: float
    zoom: float
    rotation: float
    contrast: float
    rand_augment: float
    erasing: float
    mixup: float
    cutmix: float


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The network, for `fpn.build_classifier`.

    Attributes:
      backbone: as in `build_backbone`.
      weights: as in `build_backbone`.
      grey_input: as in `build_backbone`.
      class_token: as in `build_backbone`.
      stochastic_depth: as in `build_backbone`.
      min_level: the pyramid's finest level.
      max_level: the coarsest level.
      coarse_levels: as in `FeaturePyramid`.
      coordinates: whether the pyramid's input has the place of each cell, see `fpn.Coordinates`.
      num_filters: channels of the pyramid.
      fusion_type: as in `FeaturePyramid`; "none" leaves the pyramid out and puts one head on the map C<max_level>.
      bifpn_repeats: rounds of a bifpn.
      separable: whether the pyramid's 3x3 convolutions are depthwise separable.
      norm: the pyramid's normalisation, as in `FeaturePyramid`.
      activation: the pyramid's activation, as in `FeaturePyramid`.
      shared_head: whether all levels share one head, instead of one head per level.
      pooling: how a level's map becomes a vector: the mean or the maximum of each channel, or `AttentionPooling`.
      combine: how the levels' logits become the answer: their mean, a dense layer on all of them, or `LearnedMean`.
      dropout: share of the pooled features that training drops before each head, 0..1.
    """

    backbone: str
    weights: str
    grey_input: GreyInput
    class_token: bool
    stochastic_depth: float | None
    min_level: int
    max_level: int
    coarse_levels: CoarseLevels
    coordinates: bool
    num_filters: int
    fusion_type: FusionOrNone
    bifpn_repeats: int
    separable: bool
    norm: Norm
    activation: Activation
    shared_head: bool
    pooling: Pooling
    combine: Combine
    dropout: float


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """The tiles that the network sees of an image, for `tiles.tile_classifier`; in pixels.

    Attributes:
      size: side of a tile.
      overlap: what neighbours share at least.
    """

    size: int
    overlap: int


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How the network learns; the section `train` of the configuration describes each field."""

    epochs: int
    steps: int | None
    budget: float | None
    half_size: float
    frozen_epochs: int
    batch_size: int
    accumulate_steps: int
    optimizer: Optimizer
    learning_rate: float
    fine_tune_learning_rate: float | None
    layer_decay: float
    freeze_batch_norm: bool
    weight_decay: float
    warmup_epochs: float
    clip_norm: float
    ema: float
    loss: LossName
    focal_gamma: float
    class_weights: ClassWeights
    label_smoothing: float
    teacher: str | None
    teacher_temperature: float
    warm_start: str | None
    monitor: Monitor
    keep: Keep
    early_stopping: int
    mixed_precision: bool
    xla: bool
    cache_gb: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class SetSettings:
    """The sets of classes that the exported model gives, for `conformal.fit_sets`.

    Attributes:
      coverage: probability that a set holds the true class, 0..1.
      method: the score of a class, see `conformal.scores`.
      by_class: whether the promise is for each class by itself.
    """

    coverage: float
    method: SetMethod
    by_class: bool


@dataclass(frozen=True, kw_only=True)
class AbstainSettings:
    """When the exported model answers "unknown", for `abstention.fit_abstention`.

    Attributes:
      risk: largest share of wrong answers among those that are given, 0..1.
      confidence: probability with which the eval split must show that the risk is kept, 0..1.
    """

    risk: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class UnusualSettings:
    """How unusual an image is, see `models.unusual`.

    Attributes:
      cutoff: the percentile above which the exported model answers "unknown", 0..100; None: there is none.
    """

    cutoff: float | None


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """What is fitted on the eval split after training, for `fitting.fit_answers`; None: it is not."""

    temperature: bool
    sets: SetSettings | None
    abstain: AbstainSettings | None
    unusual: UnusualSettings | None

    @property
    def abstains(self) -> bool:
        """Whether the exported model may answer "unknown"."""
        return bool(self.abstain or (self.unusual and self.unusual.cutoff is not None))


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """All settings of one training: the Trainer's, or that of one of the Tuner's trials; without tiles, images are whole."""

    image: ImageSettings
    tiles: TileSettings | None
    augment: AugmentSettings
    model: ClassifierConfig
    train: TrainSettings


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(TrainingSettings):
    """Settings of `training.run_fn`.

    Attributes:
      calibrate: what is fitted on the eval split.
      test_time_augmentation: the views whose answers the exported model averages, as in `inference.average_views`.
      code: a text whose change must make the component run again, such as a digest of code.
      checkpoints: folder below which interrupted trainings have their checkpoints.
      base_model: folder of the model to start from, or of versions of it (see `train.warm_start`), where runs have no store
        that gives it as an input; None if there is none.
    """

    calibrate: CalibrationSettings
    test_time_augmentation: TestTimeAugmentation
    code: str
    checkpoints: str
    base_model: str | None


@dataclass(frozen=True, kw_only=True)
class NumberRange:
    """The range that the Tuner takes a number from, including both ends; whole numbers if `min` is one.

    Attributes:
      log: whether all orders of magnitude are equally likely.
    """

    min: int | float
    max: int | float
    log: bool


Choices = tuple[bool | int | float | str, ...]  # of one type
SearchSpace = dict[str, NumberRange | Choices]  # by "section.key"


@dataclass(frozen=True, kw_only=True)
class TunerSettings(TrainingSettings):
    """Settings of `tuning.tuner_fn`.

    Attributes:
      trials: largest number of trials.
      algorithm: how the values of the next trial are found.
      space: the search space, see `tuning.search_space`.
      code: a text whose change must make the component run again, such as a digest of code.
    """

    trials: int
    algorithm: Algorithm
    space: SearchSpace
    code: str
