"""Checks that report mistakes before anything runs."""

import difflib
import importlib.util
import os
from dataclasses import replace
from pathlib import Path

from base.errors import UserError, add_notes_to_errors
from base.inputs import check_regular
from base.paths import check_for_tensorflow
from components.earlier_runs.baseline import find_base_model
from components.pusher.classes import read_labels
from images.dataset import source
from images.dataset.listing import is_remote
from models import features
from models.abstention import ClassNameError, check_names
from models.packing import unpack
from models.settings import CalibrationSettings
from pipeline.config.network import BLESSED
from pipeline.config.whole import Config
from pipeline.dag.component_settings import base_model_folder, image_settings, source_settings, trainer_settings
from pipeline.dag.readings import Readings
from pipeline.dag.workers import check_workers
from pipeline.pushed.pushed_model import find_version
from pipeline.pushed.registry import mlflow_python
from pipeline.samples.known import SAMPLES


def read_data(config: Config, folds: int | None = None) -> tuple[source.Found, Readings]:
    """Writes the sample data set if the configuration names one, and lists the data without opening an image.

    Args:
      config: the whole configuration.
      folds: number of folds instead of train, eval and test.

    Returns:
      The data set, each row with its split; and how the data was read, which holds for the run.

    Raises:
      UserError: the data, or the data of `score.path`, can't be used; or damaged TFRecord files have lost too much; or the
        data lacks a feature to slice by, or the class that groups are judged by; or the teacher has other classes, or a class
        the name of no answer. Its notes say how the data was read.
    """
    if config.data.sample:
        SAMPLES[config.data.sample](Path(config.data.path))
    if config.data.schema_file and not is_remote(config.data.schema_file):
        check_regular(config.data.schema_file, "data.schema")
    path, settings = config.data.path, source_settings(config.data, folds=folds)
    found = source.find_rows(path, settings)
    with add_notes_to_errors(found.notes):
        if found.losses:
            found.losses.check(path, config.data.max_rejected)
        rows = source.assign_splits(path, found.rows, settings)
        readings = Readings(found.reading)
        if config.score.path:
            score = source.find_rows(config.score.path, source_settings(config.data, labelled=False))
            readings = Readings(found.reading, score.reading, score.losses)
        _check_slices(config, rows)
        _check_positive(config.evaluate.groups.positive, rows)
        _check_classes(config.train.teacher, rows)
        _check_names(config, rows)
    notes = found.notes
    if config.data.spans and (left_out := sum(not row.split and not row.reason for row in rows)):
        used = sum(row.split == "train" for row in rows)
        notes = [*notes, f"Data: {left_out} images of older spans are left out, {used} are in the train split (data.spans)"]
    return replace(found, rows=rows, notes=notes), readings


def networks_to_check(config: Config) -> list[tuple[str, str]]:
    """Each backbone that begins with weights, or is of keras-hub, with its weights; those that the search may try as well."""
    return [(name, weights) for name, weights in config.networks() if weights != "none" or name.startswith("hub:")]


def check_weights(config: Config) -> None:
    """Builds the backbones of `networks_to_check`.

    Raises:
      UserError: weights can't be loaded, or a network can't take images of that size.
    """
    from models.backbones import WeightsError, build_backbone

    model, image = config.model, config.image
    height, width = (image.tiles.size,) * 2 if image.tiles else (image.height, image.width)
    shape = (height, width, image.channels)
    for backbone, weights in networks_to_check(config):
        try:
            build_backbone(
                backbone,
                weights,
                shape,
                model.min_level,
                model.max_level,
                grey_input=model.grey_input,
                class_token=model.class_token,
                stochastic_depth=model.stochastic_depth,
            )
        except WeightsError as error:
            raise UserError(str(error)) from error


def find_teacher(config: Config, output: Path) -> Config:
    """The configuration with the version of the teacher that is served now, so that the run says what it has learned from.

    Args:
      config: the whole configuration.
      output: of the run.

    Raises:
      UserError: there is no such model, or the run would take the model that it has pushed last.
    """
    teacher = config.train.teacher
    if not teacher or is_remote(teacher):
        return config
    if Path(teacher).resolve() == Path(config.push.path or output / "pushed").resolve():
        raise UserError(
            f"train.teacher: {teacher} is where this run pushes its own model; name a version in it, or give another --output"
        )
    check_for_tensorflow(teacher, "train.teacher")
    try:
        version = find_version(Path(teacher))
    except UserError as error:
        raise UserError(f"train.teacher: {error}") from error
    return config.model_copy(update={"train": config.train.model_copy(update={"teacher": str(version.resolve())})})


def named_workers() -> tuple[list[str], int] | None:
    """The workers that TF_CONFIG names, and which of them this process is; None if it names no others.

    Raises:
      UserError: TF_CONFIG can't be used.
    """
    if "TF_CONFIG" not in os.environ:
        return None
    from models.workers import WorkersError, are_named, cluster  # loads TensorFlow

    try:
        return cluster() if are_named() else None
    except WorkersError as error:
        raise UserError(str(error)) from error


def check_tf_config(config: Config) -> None:
    """Looks at the other workers that TF_CONFIG names, if it names any, and at what they would train.

    Raises:
      UserError: TF_CONFIG is wrong, or they can't train it, or this is not the machine for it.
    """
    if not (named := named_workers()):
        return
    addresses, index = named
    if index:
        raise UserError(f"TF_CONFIG: this is worker {index}; start python -m models.worker here, and fpn run on the first, 0")
    check_workers(config, len(addresses))


def check_teacher(config: Config) -> None:
    from models.distillation import Teacher, TeacherError

    assert config.train.teacher
    try:
        Teacher(config.train.teacher, image_settings(config.image), config.data.multi_label, config.train.xla)
    except TeacherError as error:
        raise UserError(str(error)) from error


def check_warm_start(config: Config, output: Path) -> None:
    """Builds the network, and gives it the weights of the model to start from, if there is one yet.

    Args:
      config: the whole configuration.
      output: of the run.

    Raises:
      UserError: there is no model in the folder that `train.warm_start` names, or it does not fit the network.
    """
    from models.training import build_network
    from models.warm_start import BaseModel, WarmStartError

    folder = base_model_folder(config, config.push.path or str(output / "pushed"))
    assert folder
    check_for_tensorflow(folder, "train.warm_start")
    found = find_base_model(folder)
    if not found and config.train.warm_start != BLESSED:
        raise UserError(f"train.warm_start: {folder}: no SavedModel here; give the folder that a run has pushed to, or blessed")
    if not found:
        return
    try:
        base = BaseModel(found.path)
        channels = config.image.channels
        network = build_network(trainer_settings(config, ""), len(base.classes), [0.0] * channels, [1.0] * channels)
        base.give_weights(network, base.classes, config.data.multi_label)
    except WarmStartError as error:
        raise UserError(str(error)) from error


def check_formats(config: Config) -> None:
    if "onnx" in config.export.formats:
        for package in ("tf2onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise UserError(f"export.formats: onnx needs the package {package}; install the project with its extra onnx")


def check_trackers(config: Config) -> None:
    """Looks for the packages of `train.trackers`.

    Raises:
      UserError: one is not installed.
    """
    if "mlflow" in config.train.trackers and mlflow_python() is None:
        raise UserError("train.trackers: MLflow is not here; make mlflow gives it an environment of its own")
    if "wandb" in config.train.trackers and importlib.util.find_spec("wandb") is None:
        raise UserError("train.trackers: wandb needs the package wandb; install the project with its extra wandb")


def _check_slices(config: Config, rows: list[source.Row]) -> None:
    columns = dict.fromkeys(column for row in rows for column in row.meta)
    known = [*features.RAW, *(features.META_PREFIX + column for column in columns)]
    named = [name for names in config.evaluate.slices for name in names]
    named += [name for threshold in config.evaluate.thresholds or () for name in (*threshold.slice, *threshold.worst_of)]
    named += config.evaluate.buckets
    for name in named:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known ones: {', '.join(known)}"
            raise UserError(f"evaluate: no feature {name} to slice by; {hint}")


def _check_positive(positive: str | None, rows: list[source.Row]) -> None:
    labels = {label for row in rows if not row.reason for label in row.labels}
    if positive is not None and positive not in labels:
        raise UserError(f"evaluate.groups.positive: no class {positive}; there are {', '.join(sorted(labels)[:10])}")


def _check_names(config: Config, rows: list[source.Row]) -> None:
    labels = {label for row in rows if not row.reason for label in row.labels}
    try:
        check_names(unpack(CalibrationSettings, config.calibrate.model_dump()), labels)
    except ClassNameError as error:
        raise UserError(str(error)) from error


def _check_classes(teacher: str | None, rows: list[source.Row]) -> None:
    known = read_labels(teacher) if teacher and not is_remote(teacher) else None
    labels = {label for row in rows if not row.reason and row.split == "train" for label in row.labels}
    if known and (differing := labels ^ set(known)):
        raise UserError(
            f"train.teacher: {teacher}: its classes and those of the training split differ in "
            f"{', '.join(sorted(differing)[:5])}; give a teacher of the same classes"
        )
