"""The configuration's sections as the settings of components. No TensorFlow; what the Evaluator is told is in `evaluation`."""

from typing import Any

from components.bulk_inferrer.settings import InferrerSettings
from components.model_check.settings import CheckSettings
from components.pusher.settings import PusherSettings
from evaluation.settings import GroupRule
from images.file_settings import FileSettings
from images.settings import IngestionSettings, SourceSettings
from models.image_settings import ImageSettings, TransformSettings
from models.packing import unpack
from models.settings import AugmentSettings, ClassifierConfig, TrainerSettings, TrainSettings, TunerSettings
from pipeline.config.data import DataConfig, ImageConfig
from pipeline.config.evaluation import GroupsConfig
from pipeline.config.network import AugmentConfig, ModelConfig, TrainConfig
from pipeline.config.whole import Config
from pipeline.dag.code_digest import code_digest
from pipeline.dag.splits import Splits


def image_settings(config: ImageConfig) -> ImageSettings:
    """What the network sees."""
    return unpack(ImageSettings, config.model_dump())


def augment_settings(config: AugmentConfig) -> AugmentSettings:
    """Random changes to training images."""
    return unpack(AugmentSettings, config.model_dump())


def classifier_config(config: ModelConfig) -> ClassifierConfig:
    """The network."""
    return unpack(ClassifierConfig, config.model_dump())


def train_settings(config: TrainConfig) -> TrainSettings:
    """How the network learns."""
    return unpack(TrainSettings, config.model_dump())


def source_settings(config: DataConfig, *, folds: int | None = None, labelled: bool = True) -> SourceSettings:
    """How the data set is found.

    Args:
      config: the section.
      folds: of a cross-validation.
      labelled: whether it is for training.
    """
    return unpack(SourceSettings, {**config.model_dump(), "folds": folds, "labelled": labelled})


def file_settings(config: Config) -> FileSettings:
    """How its files are read."""
    return unpack(FileSettings, {**config.data.model_dump(), **config.image.model_dump()})


def ingestion_settings(config: Config, folds: int | None = None) -> IngestionSettings:
    """How it is taken in."""
    return unpack(
        IngestionSettings,
        {
            **config.data.model_dump(),
            "image": config.image.model_dump(),
            "folds": folds,
            "labelled": True,
            "code": code_digest("components.image_example_gen.component"),
        },
    )


def transform_settings(config: Config) -> TransformSettings:
    """How raw features become the Trainer's."""
    return TransformSettings(
        image=image_settings(config.image),
        multi_label=config.data.multi_label,
        code=code_digest("models.preprocessing") + code_digest("components.transform.component"),
    )


def tuner_settings(config: Config) -> TunerSettings:
    """What the Tuner tries, and on what network."""
    training = _training(config)
    training["train"]["epochs"] = config.tune.epochs
    return unpack(TunerSettings, {**training, **config.tune.model_dump(), "code": code_digest("models.tuning")})


def trainer_settings(config: Config, checkpoints: str) -> TrainerSettings:
    """What the Trainer trains, and how; `checkpoints` is the folder of unfinished trainings."""
    own = {"code": code_digest("models.training"), "checkpoints": checkpoints}
    return unpack(TrainerSettings, {**_training(config), **config.export.model_dump(), **own})


def _training(config: Config) -> dict[str, dict[str, Any]]:
    return config.model_dump(include={"image", "augment", "model", "train"})


def check_settings(config: Config, splits: Splits) -> CheckSettings:
    """What ModelCheck goes by. A network of 16 bits rounds by up to 1 % in other places for batches of other sizes."""
    given = config.check.max_difference
    largest = given if given is not None else 0.02 if config.train.mixed_precision else 1e-5
    return unpack(CheckSettings, {**config.check.model_dump(), "max_difference": largest, "splits": splits.test})


def pusher_settings(config: Config) -> PusherSettings:
    """What the Pusher goes by."""
    return PusherSettings(pipeline=config.name, keep=config.push.keep)


def inferrer_settings(config: Config) -> InferrerSettings:
    """What the BulkInferrer goes by."""
    return InferrerSettings(batch_size=config.score.batch_size, groups=group_rule(config.evaluate.groups))


def group_rule(config: GroupsConfig) -> GroupRule:
    """How a group is answered."""
    return unpack(GroupRule, config.model_dump())
