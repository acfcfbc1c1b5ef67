"""The configuration's sections as the settings of components, without TensorFlow. For the Evaluator see `eval_config`."""

from pathlib import Path
from typing import Any

from base.project_code import project_digest
from components.bulk_inferrer.settings import InferrerSettings
from components.label_check.settings import LabelCheckSettings
from components.model_check.settings import CheckSettings
from components.pusher.integrity import model_digest
from components.pusher.settings import PusherSettings
from evaluation.settings import GroupRule
from images.file_settings import FileSettings
from images.settings import IngestionSettings, Reading, SourceSettings
from models.image_settings import ImageSettings, TransformSettings
from models.packing import unpack
from models.settings import AugmentSettings, ClassifierConfig, TrainerSettings, TrainSettings, TunerSettings
from pipeline.config.data import DataConfig, ImageConfig
from pipeline.config.evaluation import GroupsConfig
from pipeline.config.loading import config_digest
from pipeline.config.network import BLESSED, AugmentConfig, ModelConfig, TrainConfig
from pipeline.config.whole import Config
from pipeline.dag.code_digest import code_digest
from pipeline.dag.splits import Splits
from storage.made_files import file_digest


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
      config: the section `data`.
      folds: number of folds of a cross-validation; None for the usual splits.
      labelled: whether the images have labels, as those for training do.
    """
    return unpack(SourceSettings, {**config.model_dump(), "folds": folds, "labelled": labelled, "reading": None})


def file_settings(config: Config) -> FileSettings:
    """How the data set's files are read."""
    return unpack(FileSettings, {**config.data.model_dump(), **config.image.model_dump()})


def ingestion_settings(config: Config, folds: int | None = None, reading: Reading | None = None) -> IngestionSettings:
    """How the data set is ingested.

    Args:
      config: the whole configuration.
      folds: number of folds of a cross-validation; None for the usual splits.
      reading: how the data was read when the run began; None if the component is to decide it.
    """
    return unpack(
        IngestionSettings,
        {
            **config.data.model_dump(),
            "image": config.image.model_dump(),
            "folds": folds,
            "labelled": True,
            "reading": reading,
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
    """What the Tuner tries, and on what network; half of a budget is for all trials."""
    training = _training(config)
    budget = config.train.budget and config.train.budget / 2 / config.tune.trials
    training["train"] |= {"epochs": config.tune.epochs, "steps": None, "budget": budget}
    return unpack(TunerSettings, {**training, **config.tune.model_dump(), "code": _training_code(config, "models.tuning")})


def base_model_folder(config: Config, push_folder: str) -> str | None:
    """The folder of the model that training starts from, or of versions of it; None if it starts anew."""
    named = config.train.warm_start
    return push_folder if named == BLESSED else named


def trainer_settings(config: Config, checkpoints: str, base_model: str | None = None) -> TrainerSettings:
    """What the Trainer trains, and how.

    Args:
      config: the whole configuration.
      checkpoints: the folder of unfinished trainings.
      base_model: see `TrainerSettings`.
    """
    own = {"code": _training_code(config, "models.training"), "checkpoints": checkpoints, "base_model": base_model}
    training = _training(config)
    if config.tune.enabled and config.train.budget:
        training["train"]["budget"] /= 2
    calibrate = {"calibrate": config.calibrate.model_dump()}
    return unpack(TrainerSettings, {**training, **config.export.model_dump(), **calibrate, **own})


def _training_code(config: Config, module: str) -> str:
    """Digests of the code, and of the weights and the teacher that this machine has at the paths of the configuration."""
    named = (name.removeprefix("hub:") if name.startswith("hub:") else weights for name, weights in config.networks())
    paths = map(Path, dict.fromkeys(named))
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.is_file()]
    digests = [f"{file.name} {file_digest(file)}" for file in files]
    teacher = config.train.teacher
    if teacher and Path(teacher).is_dir():
        digests.append(f"teacher {model_digest(teacher)}")
    return " ".join([code_digest(module), *digests])


def _training(config: Config) -> dict[str, dict[str, Any]]:
    # The tiles are beside the image: ingestion and Transform do not depend on them.
    return {**config.model_dump(include={"image", "augment", "model", "train"}), "tiles": config.image.model_dump()["tiles"]}


def check_settings(config: Config, splits: Splits) -> CheckSettings:
    """Settings of ModelCheck; by default, a network of 16 bits may differ more.

    It rounds differently in batches of different sizes, so that its answers to the same image differ by up to 1 %.
    """
    given = config.check.max_difference
    largest = given if given is not None else 0.02 if config.train.mixed_precision else 1e-5
    return unpack(CheckSettings, {**config.check.model_dump(), "max_difference": largest, "splits": splits.test})


def label_check_settings(config: Config) -> LabelCheckSettings:
    """Settings of LabelCheck."""
    return LabelCheckSettings(
        folds=config.labels.folds, batch_size=config.evaluate.batch_size, source=source_settings(config.data)
    )


def pusher_settings(config: Config) -> PusherSettings:
    """Settings of the Pusher."""
    return PusherSettings(
        pipeline=config.name,
        keep=config.push.keep,
        replace=config.push.replace,
        sign=config.push.sign,
        code=project_digest(),
        configuration=config_digest(config),
    )


def inferrer_settings(config: Config) -> InferrerSettings:
    """Settings of the BulkInferrer."""
    score = config.score
    return InferrerSettings(batch_size=score.batch_size, embeddings=score.embeddings, groups=group_rule(config.evaluate.groups))


def group_rule(config: GroupsConfig) -> GroupRule:
    """How the images of a group give one answer."""
    return unpack(GroupRule, config.model_dump())
