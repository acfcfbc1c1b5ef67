"""The typed configuration: one class a section, validated on load. The only place that knows defaults."""

import difflib
import math
import re
import types
import typing
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from components.errors import UserError
from pipeline.kubeflow_pod import SHARED_MEMORY, Mount, volume_errors
from pipeline.metadata_server import MetadataServer, parse_metadata_server

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Section(BaseModel):
    """Base of every section: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SplitsConfig(Section):
    """Hash buckets of each split; a split's share is its buckets over the sum of all."""

    train: Count = Field(8, description="hash buckets of the split that fits the model")
    eval: Count = Field(1, description="hash buckets of the split that stops training early")
    test: Count = Field(1, description="hash buckets of the split that the Evaluator alone sees")
    stratify: bool = Field(False, description="give every split the same share of each class, as far as groups allow")


class ColumnsConfig(Section):
    """Names of the manifest's columns. All other columns become features `meta/<column>`."""

    path: str = Field("path", description="column with the file, relative to the manifest's folder")
    label: str = Field("label", description="column with the name of the class")
    group: str = Field("group", description="column with what must not be spread over splits, such as the patient (optional)")
    split: str = Field("split", description="column with train, eval or test (optional)")
    types: dict[str, Literal["text", "integer", "real"]] = Field(
        {}, description="types of other columns, by name; text if not given (a Parquet manifest has types of its own)"
    )


class DataConfig(Section):
    """Where the images are and how they are taken in."""

    path: str = Field(
        description="folder of class folders, of train/eval/test folders of these, with a manifest, of TFRecord files or of a "
        "prepared TensorFlow Datasets directory; with {SPAN} in it, one such folder a span"
    )
    sample: Literal["digits", "fashion_mnist"] | None = Field(
        None, description="known data set to write to `path` if it is not there"
    )
    multi_label: bool = Field(
        False, description="an image may have several classes, written `one|two` in the manifest, or none"
    )
    manifest: str = Field("manifest.csv", description="name of the manifest in the folder, .csv or .parquet")
    columns: ColumnsConfig = ColumnsConfig()
    splits: SplitsConfig = SplitsConfig()
    labels: list[str] | None = Field(None, description="the known classes; images of others are set aside; any if not given")
    pages: Literal["first", "all"] = Field("first", description="of a multi-page TIFF: its first page, or each as an image")
    allow_links: bool = Field(False, description="follow symbolic links and manifest paths that lead out of the data folder")
    duplicates: Literal["report", "group"] = Field(
        "report",
        description="group: duplicates count as one group and so share a split, for another pass over the files; those that "
        "the data puts into several go to test, else eval",
    )
    near_duplicates: Annotated[int, Field(ge=0, le=8)] = Field(
        2,
        description="bits of 64 in which perceptual hashes of near duplicates may differ: 2 finds images that were encoded or "
        "resized anew, 4 more, and more that only look alike",
    )
    max_rejected: Share = Field(0.05, description="share of unusable files that stops the run when exceeded")
    max_pixels: Count = Field(100_000_000, description="larger images are set aside undecoded")
    schema_file: str | None = Field(None, alias="schema", description="curated schema (.pbtxt); inferred if not given")
    max_drift: Positive | None = Field(
        0.3, description="largest distance of a summary's distribution from the previous run's that is no anomaly; null: any"
    )
    max_skew: Positive | None = Field(
        0.3,
        description="largest distance of a summary's distribution in eval or test from train's that is no anomaly; null: any",
    )
    stop_on_anomalies: bool = Field(False, description="stop before training when the validator finds anomalies")


class ImageConfig(Section):
    """What the network sees."""

    height: Count = Field(224, description="pixels")
    width: Count = Field(224, description="pixels")
    channels: Literal[1, 3, 4] = Field(3, description="1 grey, 3 RGB, 4 RGBA")
    resize: Literal["stretch", "letterbox", "crop"] = Field("stretch", description="how another aspect ratio is made to fit")
    antialias: bool = Field(True, description="filter before making images smaller")
    intensity: Literal["type", "window", "percentiles"] = Field(
        "type",
        description="what becomes black and white: the ends of the pixel type's range (of a DICOM file: of its own window), "
        "those of `window`, or `percentiles` of the training split's pixels",
    )
    window: Range | None = Field(
        None, description="pixel values of 16-bit, float and DICOM files that become black and white, such as [-1000, 400]"
    )
    percentiles: Range = Field([0.5, 99.5], description="of all pixels, for intensity percentiles")

    @model_validator(mode="after")
    def _has_a_range(self) -> "ImageConfig":
        if (self.intensity == "window") != (self.window is not None):
            raise ValueError("intensity: window and window: [low, high] need each other")
        for name, pair in (("window", self.window), ("percentiles", self.percentiles)):
            if pair and pair[0] >= pair[1]:
                raise ValueError(f"{name} must rise, is {pair}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles must be 0 to 100, are {self.percentiles}")
        return self


class AugmentConfig(Section):
    """Random changes to training images; off for evaluation and serving."""

    flip: Literal["none", "horizontal", "vertical", "both"] = Field("none", description="mirror at random")
    shift: Share = Field(0.0, description="largest shift, as a share of height and width")
    zoom: Share = Field(0.0, description="largest zoom in or out, as a share")
    rotation: Share = Field(0.0, description="largest rotation, as a share of a full turn")
    contrast: Share = Field(0.0, description="largest change of contrast, as a share")
    rand_augment: Share = Field(0.0, description="strength of RandAugment, two random operations an image; 0: off")
    erasing: Share = Field(0.0, description="probability of blanking a random rectangle of an image")
    mixup: Annotated[float, Field(ge=0)] = Field(0.0, description="alpha of MixUp, which blends pairs of images; 0: off")
    cutmix: Annotated[float, Field(ge=0)] = Field(0.0, description="alpha of CutMix, which swaps rectangles; 0: off")


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
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
    "densenet121",
    "densenet169",
    "densenet201",
    "xception",
]
Level = Annotated[int, Field(ge=1, le=7)]


class ModelConfig(Section):
    """Backbone, pyramid and heads."""

    backbone: BackboneName = Field("resnet50", description="network that gives the maps C1..C5")
    weights: str = Field("none", description="none, imagenet, or a weights file of the backbone")
    grey_input: Literal["repeat", "sum"] = Field(
        "repeat",
        description="grey images on three-channel networks: repeat the channel, or sum the first kernel over its inputs",
    )
    min_level: Level = Field(2, description="finest level, of stride 2^min_level")
    max_level: Level = Field(5, description="coarsest level; beyond the backbone's last map, levels are made from it")
    coarse_levels: Literal["conv", "pool"] = Field("conv", description="how levels beyond the backbone's last map are made")
    num_filters: Count = Field(256, description="channels of the pyramid")
    fusion_type: Literal["sum", "concat", "bifpn", "none"] = Field(
        "sum", description="how levels merge; none leaves the pyramid out"
    )
    bifpn_repeats: Count = Field(3, description="rounds of a bifpn, each down and up again")
    separable: bool = Field(False, description="depthwise separable convolutions in the pyramid")
    norm: Literal["none", "batch", "group"] = Field("none", description="normalisation after the pyramid's convolutions")
    activation: Literal["none", "relu", "silu", "gelu"] = Field(
        "none", description="non-linearity after the pyramid's last convolutions"
    )
    shared_head: bool = Field(False, description="one head for all levels instead of one a level")
    pooling: Literal["average", "max", "attention"] = Field("average", description="how a level's map becomes a vector")
    combine: Literal["mean", "concat", "learned"] = Field(
        "mean", description="levels' answers: their mean, a dense layer on them together, or a mean with learned weights"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="share dropped before each head")

    @model_validator(mode="after")
    def _levels_fit(self) -> "ModelConfig":
        if self.min_level > self.max_level:
            raise ValueError(f"min_level ({self.min_level}) must not be above max_level ({self.max_level})")
        small = self.backbone.startswith("small_resnet")
        finest, coarsest = (1, 4) if small else (2, 5)
        if not finest <= self.min_level <= coarsest:
            raise ValueError(
                f"min_level must be {finest} to {coarsest}, the levels that {self.backbone} has, is {self.min_level}"
            )
        if self.fusion_type == "none" and self.max_level > coarsest:
            raise ValueError(f"max_level must be at most {coarsest} without a pyramid, the coarsest that {self.backbone} has")
        if small and self.weights == "imagenet":
            raise ValueError(
                f"there are no imagenet weights of {self.backbone}; set weights to none, or choose another backbone"
            )
        return self


class TrainConfig(Section):
    """How the network learns."""

    epochs: Count = Field(10, description="epochs with all weights trainable")
    frozen_epochs: Annotated[int, Field(ge=0)] = Field(0, description="epochs before, with the backbone frozen")
    batch_size: Count = Field(32, description="images a step, over all GPUs together")
    accumulate_steps: Count = Field(1, description="steps whose gradients are averaged into one update")
    optimizer: Literal["adamw", "adam", "nadam", "sgd", "lamb", "lion", "muon"] = Field("adamw", description="by name")
    learning_rate: Positive = Field(1e-3, description="peak rate of the optimizer")
    fine_tune_learning_rate: Positive | None = Field(None, description="rate after frozen epochs; learning_rate if not given")
    freeze_batch_norm: bool = Field(False, description="keep the backbone's batch statistics, as fine-tuning wants")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="decoupled, of all kernels")
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(1.0, description="epochs of rising rate; then it falls along a cosine")
    clip_norm: Annotated[float, Field(ge=0)] = Field(0.0, description="largest norm of all gradients together; 0: any")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="moving average of the weights, its momentum; 0: off")
    loss: Literal["cross_entropy", "focal"] = Field("cross_entropy", description="focal weighs down what is right already")
    focal_gamma: Annotated[float, Field(ge=0)] = Field(2.0, description="of the focal loss")
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: all classes count alike; in multi-label data, each one's presence and absence do",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="share of the label spread over all classes")
    monitor: Literal["loss", "accuracy", "f1"] = Field(
        "loss", description="metric of the eval split that picks epochs; f1: macro"
    )
    keep: Literal["last", "best"] = Field("last", description="the epoch whose weights are exported; best by `monitor`")
    early_stopping: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs without a better `monitor`; 0: never; keeps the best"
    )
    calibrate: bool = Field(True, description="fit a temperature on the eval split, exported with the model")
    mixed_precision: bool = Field(False, description="float16 on GPUs, bfloat16 on CPUs")
    xla: bool = Field(False, description="compile the training step with XLA")
    cache_gb: Annotated[float, Field(ge=0)] = Field(2.0, description="largest decoded training set to keep in memory")
    seed: int = Field(0, description="of weights, order and augmentation")


class RangeConfig(Section):
    """Where the Tuner takes a number from."""

    min: int | float
    max: int | float
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> "RangeConfig":
        if self.min >= self.max:
            raise ValueError(f"min ({self.min}) must be below max ({self.max})")
        if self.log and self.min <= 0:
            raise ValueError(f"with log, min ({self.min}) must be above 0")
        if self.step is not None and self.step <= (1 if self.log else 0):
            raise ValueError(f"step ({self.step}) must be above {'1, for log multiplies by it' if self.log else 0}")
        return self

    def steps(self) -> list[int | float]:
        """The values from min to max, `step` apart: a difference, or with log a factor."""
        assert self.step is not None
        if self.log:
            count = math.floor(math.log(self.max / self.min, self.step) + 1e-9) + 1
            values = [self.min * self.step**number for number in range(count)]
        else:
            count = math.floor((self.max - self.min) / self.step + 1e-9) + 1
            values = [self.min + self.step * number for number in range(count)]
        return [value if isinstance(value, int) else float(f"{value:.12g}") for value in values]  # 0.3, not 0.30000000000000004


class TuneConfig(Section):
    """A search for hyperparameters before the training, which then takes the best."""

    enabled: bool = Field(False, description="search before training")
    trials: Count = Field(10, description="sets of values to try; fewer if the space has fewer")
    epochs: Count = Field(3, description="`train.epochs` of a trial; frozen epochs come before, as ever")
    algorithm: Literal["random", "bayesian"] = Field(
        "random", description="bayesian: a Gaussian process proposes, once three times as many trials as keys are known"
    )
    space: dict[str, Any] = Field(
        {},
        description="keys of `train`, `model` and `augment`, each with a list of choices or `{min, max, log, step}`; "
        "the best trial is the one with the best `train.monitor`",
    )

    @field_validator("space", mode="before")
    @classmethod
    def _flat(cls, space: Any) -> Any:
        """`--set tune.space.train.learning_rate=...` nests what a file writes with dots."""
        if not isinstance(space, dict):
            return space
        flat: dict[Any, Any] = {}
        for key, value in space.items():
            nested = key in _TUNED_SECTIONS and isinstance(value, dict)
            flat |= {f"{key}.{inner}": item for inner, item in value.items()} if nested else {key: value}
        return flat


_TUNED_SECTIONS = ("train", "model", "augment")
_NOT_TUNED = {"train.epochs": "a trial has tune.epochs", "train.monitor": "it is what trials are compared by"}
_LOSS_KEYS = (
    "train.loss",
    "train.focal_gamma",
    "train.label_smoothing",
    "train.class_weights",
)  # losses under different ones can't be compared


class ThresholdConfig(Section):
    """A bound on a metric that a model must keep to be blessed."""

    metric: str = Field(description="name, as in docs/evaluation.md; computed though `evaluate.metrics` does not list it")
    lower: float | None = Field(None, description="value must be at least this")
    upper: float | None = Field(None, description="value must be at most this")
    change: float | None = Field(
        None,
        description="value minus the last blessed model's must be at least (where less is better: at most) this",
    )
    slice: dict[str, str] = Field({}, description="one or two features with their values; all images if not given")
    worst_of: list[str] = Field(
        [], max_length=2, description="one or two features: holds for the worst of their slices; not beside `slice`"
    )
    of: Literal["images", "groups"] = Field("images", description="whether images count, or groups by `evaluate.groups`")

    @model_validator(mode="after")
    def _is_clear(self) -> "ThresholdConfig":
        if self.lower is None and self.upper is None and self.change is None:
            raise ValueError(f"the threshold on {self.metric} needs lower, upper or change")
        if len(self.slice) > 2:
            raise ValueError(f"the threshold on {self.metric} can name two slice features, not {len(self.slice)}")
        if self.slice and self.worst_of:
            raise ValueError(f"the threshold on {self.metric} has both slice and worst_of; write two thresholds")
        if self.of == "groups" and (self.slice or self.worst_of or self.change is not None):
            raise ValueError(f"the threshold on {self.metric} of groups takes lower and upper alone")
        return self


def _one_or_two(features: list[str]) -> list[str]:
    if not 1 <= len(features) <= 2:
        raise ValueError("a slice is a list of one or two features")
    return features


class GroupsConfig(Section):
    """How the images of a group (a patient, a product, a video) give one answer."""

    rule: Literal["mean", "max", "vote", "share"] = Field(
        "mean",
        description="mean or largest of the images' probabilities, the answer of most images, or `positive` if a share says so",
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="of rule `share`: least share of images")
    positive: str | None = Field(None, description="of rule `share`: the class; of two classes the other one is the rest")

    @model_validator(mode="after")
    def _share_has_a_class(self) -> "GroupsConfig":
        if self.rule == "share" and self.positive is None:
            raise ValueError("rule share needs a class; set positive")
        return self


class EvaluateConfig(Section):
    """Metrics on the test split, their slices, and the thresholds for a blessing."""

    metrics: list[str] | None = Field(None, description="names, as in docs/evaluation.md; all that fit the data if not given")
    slices: list[Annotated[list[str], AfterValidator(_one_or_two)]] = Field(
        [["image/label"]], description="features, or pairs of features, to slice by; meta/ and image/ as ingested"
    )
    buckets: dict[str, list[float]] = Field(
        {}, description="of features that are numbers, the edges between their slices; quartiles if not given"
    )
    min_slice_size: Count = Field(10, description="images that a slice needs to be measured")
    confidence_intervals: Literal["jackknife", "poisson_bootstrap", "none"] = Field(
        "jackknife", description="how the 95 % intervals are computed, by leaving out or drawing whole groups"
    )
    groups: GroupsConfig = Field(GroupsConfig(), description="how groups are answered, where the data has any")
    max_shortcut: Annotated[float, Field(gt=0.5, le=1)] = Field(
        0.75, description="balanced accuracy by a property of the file alone from which there is a warning"
    )
    batch_size: Count = Field(256, description="images a step")
    thresholds: list[ThresholdConfig] = Field(
        [ThresholdConfig(metric="accuracy", lower=0.0)], min_length=1, description="all must hold for a blessing"
    )


class ExportConfig(Section):
    """What the exported model does beyond the network."""

    test_time_augmentation: Literal["none", "flip", "shift", "flip_shift"] = Field(
        "none",
        description="views of an image whose answers the exported model averages, at 2, 5 or 10 times the work and memory",
    )
    formats: list[Literal["float16", "int8", "onnx"]] = Field(
        [], description="other formats to ship beside the SavedModel: LiteRT (TFLite) of 16 or 8 bits, ONNX; see docs/export.md"
    )
    thresholds: list[ThresholdConfig] = Field(
        [ThresholdConfig(metric="accuracy", change=-0.01)],
        min_length=1,
        description="what each of them must keep on the test split to be shipped; `change` is against the SavedModel",
    )


class CardConfig(Section):
    """What the model card says and no program can know."""

    intended_use: str = Field("", description="what the model is for, and for whom")
    out_of_scope: str = Field("", description="what it must not be used for")
    data: str = Field("", description="where the images come from, who labelled them, and how")
    limits: str = Field("", description="known limits and risks")
    license: str = Field("", description="of model and data")
    contact: str = Field("", description="who answers questions")


class CheckConfig(Section):
    """The exported model, asked as a server would ask it, before it is pushed."""

    enabled: bool = Field(True, description="check the exported model before it is pushed; one that fails is not pushed")
    images: Count = Field(64, description="test images that it is asked about")
    max_difference: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="largest difference between a probability and the Evaluator's; 1e-5, or 0.02 with train.mixed_precision, "
        "if not given",
    )
    max_load_seconds: Annotated[float, Field(gt=0)] | None = Field(None, description="time that loading may take")
    max_latency_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="time in which 99 of 100 requests of one image must be answered"
    )
    max_memory_mb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="10^6 bytes that the process may take, TensorFlow included"
    )
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        600.0, description="time after which the check is stopped and failed"
    )


class RegistryConfig(Section):
    """The MLflow model registry that is told of pushed versions."""

    uri: str = Field(description="of the tracking server, such as http://mlflow:5000, or of a local store, as MLflow takes it")
    model: str | None = Field(None, description="name of the registered model; the pipeline's if not given")
    python: str | None = Field(None, description="interpreter that has MLflow; that of `make mlflow` if not given")


class PushConfig(Section):
    """Where blessed models go."""

    path: str | None = Field(
        None,
        description="folder of numbered versions, or a URI such as gs://bucket/models; `pushed` in the output if not given",
    )
    keep: Count | None = Field(5, description="versions to keep, the newest; null: all")
    registry: RegistryConfig | None = Field(
        None,
        description="MLflow registry in which each pushed version is registered: `uri`, and `model`, its name there; "
        "see [pushing.md](pushing.md)",
    )


class ScoreConfig(Section):
    """Images without labels, answered by each blessed model, or by `fpn score`."""

    path: str | None = Field(
        None, description="folder of images as `data.path`, labelled or not, that each run answers if its model is blessed"
    )
    batch_size: Count = Field(64, description="images a step")
    shard_images: Count = Field(
        1024, description="images of a file of answers, which `fpn score` writes as a whole or not at all"
    )


_BEAM_KEYS: dict[str, tuple[str, ...]] = {  # key of `beam` -> the runners that take it
    "job_endpoint": ("flink", "spark", "portable"),
    "flink_master": ("flink",),
    "flink_version": ("flink",),
    "parallelism": ("flink",),
    "spark_master": ("spark",),
    "job_server_jar": ("flink", "spark"),
    "environment": ("flink", "spark", "portable"),
    "worker_address": ("flink", "spark", "portable"),
    "project": ("dataflow",),
    "region": ("dataflow",),
    "temp_location": ("dataflow",),
    "staging_location": ("dataflow",),
    "sdk_container_image": ("flink", "spark", "portable", "dataflow"),
    "setup_file": ("flink", "spark", "portable", "dataflow"),
    "shared_folders": ("flink", "spark", "portable"),
}
_HostPort = Annotated[str, Field(pattern=r"^(https?://)?[^/:\s]+:\d+$")]
_BucketPath = Annotated[str, Field(pattern=r"^gs://[^/]+")]


class BeamConfig(Section):
    """What runs the Beam pipelines of the data components."""

    runner: Literal["local", "flink", "spark", "dataflow", "portable"] = Field(
        "local", description="local: in the components' own process; or the engine, see [scaling.md](scaling.md)"
    )
    job_endpoint: _HostPort | None = Field(
        None, description="HOST:PORT of a Beam job service that is there; for Flink and Spark Beam starts one if not given"
    )
    flink_master: _HostPort | None = Field(
        None, description="HOST:PORT of the Flink cluster's REST interface; an embedded cluster if not given"
    )
    flink_version: Literal["1.19", "1.20", "2.0", "2.1", "2.2"] = Field("1.20", description="of the Flink cluster")
    parallelism: Count | None = Field(
        None, description="parts that Flink works on at a time; the cluster's default if not given"
    )
    spark_master: Annotated[str, Field(pattern=r"^(local(\[.+\])?|spark://.+|yarn|k8s://.+)$")] | None = Field(
        None, description="URL of the Spark cluster, such as spark://HOST:7077; Spark in a process of this machine if not given"
    )
    job_server_jar: str | None = Field(
        None, description="Beam's job server for Flink or Spark; Beam fetches the one of its own version if not given"
    )
    environment: Literal["loopback", "docker", "external"] | None = Field(
        None,
        description="where workers run. loopback: in the component's process; docker: in containers of `sdk_container_image`; "
        "external: in the pool of workers at `worker_address`. loopback if not given and engine and component share a machine",
    )
    worker_address: _HostPort | None = Field(None, description="HOST:PORT of the pool of workers, as the engine sees it")
    project: str | None = Field(None, description="Google Cloud project, for Dataflow")
    region: str | None = Field(None, description="where Dataflow works, such as europe-west4")
    temp_location: _BucketPath | None = Field(None, description="folder for Dataflow's temporary files (gs://)")
    staging_location: _BucketPath | None = Field(
        None, description="folder for what Dataflow's workers are sent (gs://); in `temp_location` if not given"
    )
    sdk_container_image: str | None = Field(None, description="image with this project and its packages, for the workers")
    setup_file: str | None = Field(
        None, description="the project's pyproject.toml: workers get the project built from it, and must have its packages"
    )
    shared_folders: list[str] = Field(
        [], description="folders that all workers see under the same path, such as a network file system"
    )
    options: list[str] = Field([], description="other options of Apache Beam, such as --sdk_worker_parallelism=2")

    @model_validator(mode="after")
    def _fits_the_runner(self) -> "BeamConfig":
        for key in sorted(self.model_fields_set & _BEAM_KEYS.keys()):
            if self.runner not in _BEAM_KEYS[key] and getattr(self, key) != type(self).model_fields[key].default:
                takers = ", ".join(_BEAM_KEYS[key])
                raise ValueError(f"{key} is of no use to runner {self.runner}; remove it, or set runner to one of: {takers}")
        for option in self.options:
            if option.partition("=")[0] in ("--runner", "--environment_type"):
                raise ValueError(f"options: {option} is what `runner` and `environment` are for; set these instead")
        if self.runner == "dataflow":
            missing = [key for key in ("project", "region", "temp_location") if not getattr(self, key)]
            if missing:
                raise ValueError(f"runner dataflow needs {' and '.join(missing)} as well")
            if bool(self.sdk_container_image) == bool(self.setup_file):
                raise ValueError("runner dataflow needs sdk_container_image or setup_file, one of them, to get this project")
        if self.runner == "portable" and not self.job_endpoint:
            raise ValueError("runner portable needs job_endpoint: HOST:PORT of the engine's job service")
        if self.runner in ("flink", "spark", "portable"):
            self._has_workers()
        return self

    def _has_workers(self) -> None:
        if self.environment is None and not self.engine_is_here:
            raise ValueError("environment: say where the workers of a cluster run: docker or external")
        if self.environment == "loopback" and not self.engine_is_here:
            raise ValueError("environment loopback: a cluster elsewhere can't reach this process; take docker or external")
        if self.environment == "docker" and not self.sdk_container_image:
            raise ValueError("environment docker needs sdk_container_image: an image with this project and its packages")
        if self.environment != "docker" and self.sdk_container_image:
            raise ValueError("sdk_container_image is for environment docker alone; remove it, or set that")
        if (self.environment == "external") != (self.worker_address is not None):
            raise ValueError("environment external and worker_address: HOST:PORT need each other")

    @property
    def engine_is_here(self) -> bool:
        """Whether the engine runs on the machine that the components run on."""
        if self.runner == "local":
            return True
        if self.runner == "dataflow":
            return False
        spark = self.spark_master
        spark_address = spark.removeprefix("spark://") if spark and not spark.startswith("local") else None
        return all(map(is_here, (self.job_endpoint, self.flink_master, spark_address)))

    @property
    def workers_are_here(self) -> bool:
        """Whether workers see this machine's files."""
        return self.engine_is_here and self.environment != "docker" and is_here(self.worker_address)


def is_here(address: str | None) -> bool:
    """Whether HOST:PORT is of this machine, as it is if none is given."""
    if address is None:
        return True
    host = re.sub("^https?://", "", address).partition(":")[0]
    return host == "localhost" or host.startswith("127.")


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]
Cpu = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\d+(\.\d+)?m?$")]
Memory = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\d+(\.\d+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$")]
_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str) -> float:
    """A quantity of Kubernetes as a number: "500m" is 0.5 cores, "2Gi" is 2**31 bytes."""
    number = text.rstrip("mkMGTi")
    return float(number) * _UNITS[text[len(number) :]]


VariableName = Annotated[str, Field(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]  # of a claim or a secret in Kubernetes


class TolerationConfig(Section):
    """A taint of nodes on which pods may run all the same."""

    key: str = Field("", description="of the taint; any if not given")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="how the value is compared")
    value: str = Field("", description="of the taint")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("", description="of the taint; any if not given")

    @model_validator(mode="after")
    def _is_one_of_kubernetes(self) -> "TolerationConfig":
        if self.operator == "Exists" and self.value:
            raise ValueError(f"operator Exists takes no value, is {self.value!r}")
        if self.operator == "Equal" and not self.key:
            raise ValueError("operator Equal needs a key; operator Exists without one stands for every taint")
        return self


class PodConfig(Section):
    """What a component's container gets, and where it runs."""

    cpu_request: Cpu = Field("1", description="cores that a node must have free, such as 500m")
    cpu_limit: Cpu = Field("4", description="cores at most")
    memory_request: Memory = Field("4Gi", description="memory that a node must have free")
    memory_limit: Memory = Field("8Gi", description="memory at most")
    gpus: Annotated[int, Field(ge=0)] = Field(0, description="GPUs; with any, the container is made of `kubeflow.gpu_image`")
    gpu_resource: str = Field(
        "nvidia.com/gpu", description="name of the GPUs' resource; on Vertex AI, of the accelerator's type"
    )
    node_selector: dict[str, str] = Field({}, description="labels that a node must have")
    tolerations: list[TolerationConfig] = Field(
        [], description="taints of nodes that don't matter: key, operator, value, effect"
    )
    env: dict[VariableName, Text] = Field(
        {}, description="environment variables; a component's own are added to these; with a proxy, NO_PROXY gets the cluster"
    )

    @model_validator(mode="after")
    def _requests_fit_limits(self) -> "PodConfig":
        for name in ("cpu", "memory"):
            request, limit = (getattr(self, f"{name}_{end}") for end in ("request", "limit"))
            if quantity(request) > quantity(limit):
                raise ValueError(f"{name}_request ({request}) must not be above {name}_limit ({limit})")
        return self


class OwnPodConfig(Section):
    """The same of one component, as far as it differs."""

    cpu_request: Cpu | None = None
    cpu_limit: Cpu | None = None
    memory_request: Memory | None = None
    memory_limit: Memory | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    gpu_resource: str | None = None
    node_selector: dict[str, str] | None = None
    tolerations: list[TolerationConfig] | None = None
    env: dict[VariableName, Text] = {}


class SecretConfig(Section):
    """A secret of the cluster, in environment variables, or as files."""

    name: ObjectName = Field(description="of the secret")
    env: dict[VariableName, str] = Field({}, description="environment variables, each with the key in the secret that it takes")
    path: str | None = Field(None, description="folder in which the keys are files")

    @model_validator(mode="after")
    def _is_used(self) -> "SecretConfig":
        if not self.env and not self.path:
            raise ValueError(f"the secret {self.name} needs env: {{VARIABLE: key}}, or path")
        return self


class VolumeConfig(Section):
    """A persistent volume claim that all containers see."""

    claim: ObjectName = Field(description="name of the claim")
    path: Annotated[str, Field(pattern="^/.+")] = Field(description="folder in the containers")


ComponentName = Literal[
    "Lookup",
    "ImageExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ImportSchemaGen",
    "ExampleValidator",
    "Transform",
    "Tuner",
    "Trainer",
    "Baseline",
    "Evaluator",
    "ModelCheck",
    "ModelFormats",
    "Pusher",
    "ScoreExampleGen",
    "BulkInferrer",
]


class KubeflowConfig(Section):
    """Where and how the pipeline runs on Kubeflow Pipelines."""

    image: str = Field("fpn-pipeline:cpu", description="container image of the project")
    gpu_image: str = Field("fpn-pipeline:gpu", description="the same for components with GPUs")
    root: Annotated[str, Field(pattern="^(s3|minio|gs)://.+")] = Field(
        "minio://mlpipeline/v2/artifacts", description="place for what components put out: s3://, minio:// or gs://"
    )
    state: str | None = Field(
        None,
        description="folder for what outlives a run (pushed models, checkpoints, statistics), on one of `volumes` "
        "or gs://; below `root` if that is gs://",
    )
    cache: bool = Field(True, description="take the results of unchanged components from earlier runs")
    pod: PodConfig = PodConfig()
    components: dict[ComponentName, OwnPodConfig] = Field(
        {}, description="by component, such as Trainer, the keys of `pod` that differ"
    )
    secrets: list[SecretConfig] = Field([], description="secrets for all containers: name, and env: {VARIABLE: key} or path")
    volumes: list[VolumeConfig] = Field([], description="persistent volume claims for all containers: claim and path")
    shared_memory: Memory | None = Field("1Gi", description="of the Trainer and the Tuner, part of their memory limit")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="when nodes fetch the image; by its tag if not given"
    )
    image_pull_secrets: list[ObjectName] = Field([], description="secrets with access to the registry of the image")

    def pod_of(self, component: str) -> PodConfig:
        """What a component's container gets: `pod`, and over it the component's own.

        Raises:
          ValueError: they don't fit together.
        """
        own = self.components.get(component)  # type: ignore[call-overload]
        if own is None:
            return self.pod
        given = {key: value for key, value in own.model_dump().items() if value is not None}
        return PodConfig.model_validate({**self.pod.model_dump(), **given, "env": {**self.pod.env, **own.env}})

    @property
    def secret_variables(self) -> list[str]:
        """Names of the environment variables that come from secrets."""
        return [variable for secret in self.secrets for variable in secret.env]

    @model_validator(mode="after")
    def _pods_are_valid(self) -> "KubeflowConfig":
        """Refuses what Kubernetes would refuse when a pod starts."""
        mounts = [Mount("claim", volume.claim, volume.path) for volume in self.volumes]
        mounts += [Mount("secret", secret.name, secret.path) for secret in self.secrets if secret.path]
        if self.shared_memory:
            mounts.append(SHARED_MEMORY)
        if errors := volume_errors(mounts):
            raise ValueError(f"volumes and secrets: {errors[0]}")
        named = [*self.pod.env, *(name for own in self.components.values() for name in own.env)]
        known = Counter([*set(named), *self.secret_variables])
        for name in known:
            if known[name] > 1 or (name.upper() == "NO_PROXY" and name in self.secret_variables):
                cure = "write it into pod.env" if name.upper() == "NO_PROXY" else "keep one of them"
                raise ValueError(f"the environment variable {name} comes from a secret and from elsewhere as well; {cure}")
        return self

    @model_validator(mode="after")
    def _pods_fit(self) -> "KubeflowConfig":
        for component in self.components:
            try:
                self.pod_of(component)
            except ValidationError as error:
                raise ValueError(f"components.{component}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
        return self


class Config(Section):
    """The whole configuration of a pipeline."""

    # A version on Kubeflow is named by this and 13 characters more, and 127 are the most that its server takes.
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=114)] = Field(
        description="of the pipeline: at most 114 lower-case letters, digits and hyphens"
    )
    data: DataConfig
    image: ImageConfig = ImageConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    check: CheckConfig = CheckConfig()
    push: PushConfig = PushConfig()
    score: ScoreConfig = ScoreConfig()
    card: CardConfig = CardConfig()
    metadata: Annotated[MetadataServer, PlainValidator(parse_metadata_server), PlainSerializer(str)] | None = Field(
        None,
        description="database that runs are recorded in, postgresql://user@host:port/database or mysql://...; metadata.sqlite "
        "in the output folder if not given; see docs/metadata.md",
    )
    beam: BeamConfig = BeamConfig()
    kubeflow: KubeflowConfig = KubeflowConfig()

    @model_validator(mode="after")
    def _weights_fit_channels(self) -> "Config":
        if self.image.channels == 4 and not self.model.backbone.startswith("small_resnet"):
            raise ValueError(f"image.channels is 4, but model.backbone {self.model.backbone} takes 1 or 3")
        return self

    @model_validator(mode="after")
    def _space_fits(self) -> "Config":
        if self.tune.enabled and not self.tune.space:
            raise ValueError("tune.space: is empty; name what to search, such as train.learning_rate: [1e-3, 1e-2]")
        for key, value in self.tune.space.items():
            self.tune.space[key] = _tunable(self, key, value)
        return self


def _tunable(config: Config, key: str, value: Any) -> list[Any] | dict[str, Any]:
    """What the Tuner draws a key's values from: choices, each as the key itself would take it, or {"min", "max", "log"}.

    Raises:
      ValueError: there is no such key, or it can't take these values.
    """
    name = f"tune.space.{key}"
    known = [f"{section}.{item}" for section in _TUNED_SECTIONS for item in type(getattr(config, section)).model_fields]
    known = [item for item in known if item not in _NOT_TUNED]
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "it takes keys of train, model and augment"
        raise ValueError(f"{name}: {_NOT_TUNED.get(key, f'unknown key; {hint}')}")
    if key in _LOSS_KEYS and config.train.monitor == "loss":
        raise ValueError(f"{name}: changes what the loss measures; compare trials by train.monitor: accuracy, or f1")
    if isinstance(value, list):
        choices = [_checked(config, key, choice) for choice in value]
    elif isinstance(value, dict):
        try:
            range_ = RangeConfig.model_validate(value)
        except ValidationError as error:
            raise ValueError(_explain(error.errors()[0], RangeConfig, name)) from error
        if range_.step is None:
            return {"min": _checked(config, key, range_.min), "max": _checked(config, key, range_.max), "log": range_.log}
        choices = [_checked(config, key, choice) for choice in range_.steps()]
    else:
        raise ValueError(f"{name}: write a list of choices, or {{min: ..., max: ...}}")
    if None in choices:
        raise ValueError(f"{name}: null can't be a choice; write the value that it stands for")
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise ValueError(f"{name}: needs two or more choices, each once")
    return choices


def _checked(config: Config, key: str, choice: Any) -> Any:
    """A choice as it is in a configuration with it: 1 becomes 1.0 where the key is a float."""
    section, _, item = key.partition(".")
    content = config.model_dump(by_alias=True, exclude={"tune"})
    content[section][item] = choice
    try:
        return getattr(getattr(Config.model_validate(content), section), item)
    except ValidationError as error:
        raise ValueError(f"tune.space: {_explain(error.errors()[0])}") from error


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def load_config(path: Path | None, data: str | None = None, overrides: typing.Sequence[str] = ()) -> Config:
    """Reads a configuration file.

    Args:
      path: a YAML file; None for defaults alone, where data is given.
      data: replaces `data.path`, and a built-in data set with it.
      overrides: "section.key=value" each, with the value in YAML; later ones win.

    Raises:
      UserError: the file can't be read, a key is unknown, or a value does not fit.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) if path else {"name": "unnamed"}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8 YAML") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold sections such as `data:` and `model:`")
    for override in overrides:
        _apply(override, content)
    if data is not None:
        section = content["data"] = content.get("data") or {}
        if isinstance(section, dict):
            section["path"] = data
            section.pop("sample", None)
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        place = path or "--set"
        raise UserError("\n".join(f"{place}: {_explain(detail)}" for detail in error.errors()[:2])) from error


def dump_config(config: Config) -> str:
    """The whole configuration with all defaults, as a YAML file that `load_config` reads as the same."""
    return yaml.safe_dump(config.model_dump(by_alias=True), sort_keys=False, allow_unicode=True, width=120)


def _apply(override: str, content: dict[str, Any]) -> None:
    keys, equals, value = override.partition("=")
    if not equals or not keys:
        raise UserError(f"--set {override}: write it as section.key=value")
    *parents, last = keys.split(".")
    section = content
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise UserError(f"--set {override}: {parent} is a value, not a section")
    try:
        section[last] = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        shown = keys if keys == "metadata" else override  # whose value may hold a password
        raise UserError(f"--set {shown}: the value is not YAML") from error


def _explain(detail: Any, section: type[BaseModel] = Config, within: str = "") -> str:
    """One line on what is wrong with a key, and the cure.

    Args:
      detail: an error of pydantic.
      section: what was validated.
      within: the key that holds it.
    """
    keys = [str(key) for key in detail["loc"]]
    shown = [within, *keys] if within else keys
    name = ".".join(shown)
    if detail["type"] == "extra_forbidden":
        known = [field.alias or key for key, field in _section_at(keys[:-1], section).model_fields.items()]
        near = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean {'.'.join([*shown[:-1], near[0]])}?" if near else f"known keys: {', '.join(known)}"
        return f"{name}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{name}: is missing"
    message = detail["msg"].removeprefix("Value error, ")
    if not name:
        return message
    message = message[0].lower() + message[1:]
    hidden = name == "metadata" or isinstance(detail["input"], dict | BaseModel)  # it may hold a password
    return f"{name}: {message}" + ("" if hidden else f", is {detail['input']!r}")


def _section_at(keys: list[str], section: type[BaseModel]) -> type[BaseModel]:
    for key in keys:
        if key.isdigit():
            continue
        annotation = section.model_fields[key].annotation
        candidates = [annotation, *typing.get_args(annotation)]
        section = next(item for item in candidates if isinstance(item, type) and not isinstance(item, types.GenericAlias))
    return section
