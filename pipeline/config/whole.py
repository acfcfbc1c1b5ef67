"""The whole configuration, and the rules between its sections."""

import difflib
import itertools
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from pipeline.config.beam import BeamConfig
from pipeline.config.calibration import CalibrateConfig
from pipeline.config.data import DataConfig, ImageConfig
from pipeline.config.delivery import PushConfig, ScoreConfig
from pipeline.config.evaluation import CardConfig, CheckConfig, EvaluateConfig, LabelsConfig
from pipeline.config.kubeflow import KubeflowConfig
from pipeline.config.messages import explain
from pipeline.config.metadata_server import MetadataServer, parse_metadata_server
from pipeline.config.network import BLESSED, AugmentConfig, ExportConfig, ModelConfig, TrainConfig
from pipeline.config.section import Section
from pipeline.config.tuning import TUNED_SECTIONS, RangeConfig, TuneConfig

_NOT_TUNED = {
    "train.epochs": "a trial has tune.epochs",
    "train.steps": "a trial has tune.epochs",
    "train.budget": "all trials have the same time",
    "train.monitor": "it is what trials are compared by",
    "train.teacher": "it is looked at before the run",
    "train.trackers": "it changes no training",
    "train.warm_start": "trials begin anew",
}
_LOSS_KEYS = (
    "train.loss",
    "train.focal_gamma",
    "train.label_smoothing",
    "train.class_weights",
)  # losses under different values of these keys can't be compared


class Config(Section):
    """The whole configuration of a pipeline."""

    # TFX takes 63 characters at most. Kubeflow's server would take 114: a version's name is 13 longer, and may have 127.
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=63)] = Field(
        description="of the pipeline: at most 63 lower-case letters, digits and hyphens"
    )
    data: DataConfig
    image: ImageConfig = ImageConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    calibrate: CalibrateConfig = CalibrateConfig()
    tune: TuneConfig = TuneConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    check: CheckConfig = CheckConfig()
    labels: LabelsConfig = LabelsConfig()
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

    def content(self) -> dict[str, Any]:
        """All keys, with their defaults, as a file may give them."""
        content = self.model_dump(by_alias=True)
        if self.train.steps is not None:
            del content["train"]["epochs"]  # which stands beside no steps
        return content

    def networks(self) -> list[tuple[str, str]]:
        """Each backbone with the weights that it begins with: those of `model`, or all that the search may try."""
        space = self.tune.space if self.tune.enabled else {}
        tried = (space.get(f"model.{key}", [getattr(self.model, key)]) for key in ("backbone", "weights"))
        return list(itertools.product(*tried))

    @model_validator(mode="after")
    def _weights_fit_channels(self) -> "Config":
        if self.image.channels == 4 and not self.model.backbone.startswith("small_resnet"):
            raise ValueError(f"image.channels is 4, but model.backbone {self.model.backbone} takes 1 or 3")
        return self

    @model_validator(mode="after")
    def _backbone_learns(self) -> "Config":
        if self.train.layer_decay == 0 and self.model.weights == "none":
            raise ValueError(
                "train.layer_decay is 0, so the backbone would keep the random weights that model.weights: none gives"
            )
        return self

    @model_validator(mode="after")
    def _teacher_fits_classes(self) -> "Config":
        if self.train.teacher and self.data.multi_label and self.train.class_weights != "none":
            raise ValueError(
                "train.class_weights: must be none with a teacher of multi-label data, because weights lead away from its "
                "answers; train the teacher with them"
            )
        return self

    @model_validator(mode="after")
    def _warm_start_fits(self) -> "Config":
        if not self.train.warm_start:
            return self
        if self.tune.enabled:
            raise ValueError(
                "train.warm_start: does not work with tune.enabled, whose trials begin anew; leave out one of the two"
            )
        if self.data.splits.stratify:
            raise ValueError(
                "train.warm_start: does not work with data.splits.stratify, which deals all images anew when some are added: "
                "the model may have seen images that would test it now; set stratify to false, or give the splits in the data"
            )
        folder = self.push.path if self.train.warm_start == BLESSED else self.train.warm_start
        if folder and folder.startswith("s3://"):
            raise ValueError(f"train.warm_start: TensorFlow does not read {folder}; name a copy in a folder, or on gs://")
        return self

    @model_validator(mode="after")
    def _originals_fit_intensity(self) -> "Config":
        if self.data.originals == "reference" and self.image.intensity == "percentiles":
            raise ValueError(
                "data.originals: reference does not work with image.intensity percentiles, for which Transform reads the files "
                "again; leave out one of the two"
            )
        return self

    @model_validator(mode="after")
    def _store_fits_image(self) -> "Config":
        if self.data.store != "uint8" and self.image.intensity == "percentiles":
            raise ValueError(
                f"data.store: {self.data.store} does not work with image.intensity percentiles, of which the pixels are known "
                f"after ingestion; leave out one of the two"
            )
        if self.data.store == "jpeg" and self.image.channels == 4:
            raise ValueError("data.store: jpeg has no alpha, and image.channels is 4; set png or uint8")
        return self

    @model_validator(mode="after")
    def _half_size_fits(self) -> "Config":
        if self.train.half_size and self.image.tiles:
            raise ValueError("train.half_size: does not work with image.tiles; leave out one of the two, or set smaller tiles")
        if self.train.half_size and any(backbone.startswith("hub:") for backbone, _ in self.networks()):
            raise ValueError("train.half_size: does not work with a hub: backbone, which is built for one size; leave it out")
        return self

    @model_validator(mode="after")
    def _coordinates_fit_tiles(self) -> "Config":
        if self.image.tiles and self.model.coordinates:
            raise ValueError("model.coordinates: would be places in a tile of image.tiles; leave out one of the two")
        return self

    @model_validator(mode="after")
    def _formats_fit_tiles(self) -> "Config":
        if self.image.tiles and self.export.formats:
            raise ValueError("export.formats: other formats can't hold the loop over image.tiles; leave out one of the two")
        return self

    @model_validator(mode="after")
    def _promises_fit_labels(self) -> "Config":
        for key in ("sets", "abstain"):
            if getattr(self.calibrate, key) and self.data.multi_label:
                raise ValueError(
                    f"calibrate.{key}: is for images of one class each, and data.multi_label is true; leave it out"
                )
        return self

    @model_validator(mode="after")
    def _space_fits(self) -> "Config":
        if self.tune.enabled and not self.tune.space:
            raise ValueError("tune.space: is empty; name what to search, such as train.learning_rate: [1e-3, 1e-2]")
        for key, value in self.tune.space.items():
            self.tune.space[key] = _search_values(self, key, value)
        if self.tune.enabled:
            decays = self.tune.space.get("train.layer_decay", [self.train.layer_decay])
            least = decays["min"] if isinstance(decays, dict) else min(decays)
            for backbone, weights in self.networks():
                _changed(self, {"model.backbone": backbone, "model.weights": weights, "train.layer_decay": least})
        return self


def _search_values(config: Config, key: str, value: Any) -> list[Any] | dict[str, Any]:
    """What the Tuner draws a key's values from: choices, converted to the key's own type, or {"min", "max", "log"}.

    Raises:
      ValueError: there is no such key, or the key can't take these values.
    """
    name = f"tune.space.{key}"
    known = [f"{section}.{item}" for section in TUNED_SECTIONS for item in type(getattr(config, section)).model_fields]
    known = [item for item in known if item not in _NOT_TUNED]
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "it takes keys of train, model and augment"
        raise ValueError(f"{name}: {_NOT_TUNED.get(key, f'unknown key; {hint}')}")
    if key in _LOSS_KEYS and config.train.monitor == "loss":
        raise ValueError(f"{name}: changes what the loss measures; compare trials by train.monitor: accuracy, or f1")
    if isinstance(value, list):
        choices = [_parse_choice(config, key, choice) for choice in value]
    elif isinstance(value, dict):
        try:
            range_ = RangeConfig.model_validate(value)
        except ValidationError as error:
            raise ValueError(explain(error.errors()[0], RangeConfig, name)) from error
        if range_.step is None:
            return {
                "min": _parse_choice(config, key, range_.min),
                "max": _parse_choice(config, key, range_.max),
                "log": range_.log,
            }
        choices = [_parse_choice(config, key, choice) for choice in range_.steps()]
    else:
        raise ValueError(f"{name}: write a list of choices, or {{min: ..., max: ...}}")
    if None in choices:
        raise ValueError(f"{name}: null can't be a choice; write the value that it stands for")
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise ValueError(f"{name}: needs two or more choices, each once")
    return choices


def _parse_choice(config: Config, key: str, choice: Any) -> Any:
    """A choice as the configuration would hold it: 1 becomes 1.0 if the key is a float."""
    section, _, item = key.partition(".")
    return getattr(getattr(_changed(config, {key: choice}), section), item)


def _changed(config: Config, values: dict[str, Any]) -> Config:
    """The configuration of a trial with these values of "section.key".

    Raises:
      ValueError: they do not go together, or not with the rest.
    """
    content = config.content()
    del content["tune"]
    for key, value in values.items():
        section, _, item = key.partition(".")
        content[section][item] = value
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"tune.space: {explain(error.errors()[0], Config)}") from error
