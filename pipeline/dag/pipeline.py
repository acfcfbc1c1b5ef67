"""The DAG, readable from top to bottom.

Components of ours that take the place of TFX's have names of their own, and the stock ones' ids: by these the configuration,
the metadata store, folders and Kubeflow's tasks name them.
"""

from dataclasses import dataclass, fields
from typing import Any, Final

import tfx.types.standard_artifacts as artifacts
from ml_metadata.proto import metadata_store_pb2
from tfx import components as tfx_components
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2, transform_pb2
from tfx.types import BaseChannel, Channel

from components.bulk_inferrer.component import ImageBulkInferrer
from components.earlier_runs.resolvers import BaseModel, PreviousStatistics, ServedBaseline
from components.evaluator.component import ImageEvaluator
from components.example_validator.component import ImageExampleValidator
from components.image_example_gen.component import ImageExampleGen, ScoreExampleGen
from components.label_check.component import LabelCheck
from components.model_check.component import ModelCheck
from components.model_formats.component import ModelFormats
from components.pusher.component import VersionPusher
from components.statistics_gen.component import ImageStatisticsGen
from components.transform.component import ImageTransform
from images.settings import Reading
from models.packing import as_dict
from pipeline.config.whole import Config
from pipeline.dag.beam import pipeline_args
from pipeline.dag.code_digest import code_digest
from pipeline.dag.component_settings import (
    base_model_folder,
    check_settings,
    inferrer_settings,
    ingestion_settings,
    label_check_settings,
    pusher_settings,
    trainer_settings,
    transform_settings,
    tuner_settings,
)
from pipeline.dag.eval_config import build_eval_config, evaluation_settings, format_settings
from pipeline.dag.readings import NOT_READ, Readings
from pipeline.dag.splits import TRAIN_EVAL_TEST, Splits

# Components that look at what is outside of the store each time, which the cache does not notice.
NEVER_CACHED: Final = ("Pusher",)


@dataclass(frozen=True)
class DataNodes:
    """The components from image files to validated examples, in order."""

    example_gen: BaseNode
    statistics_gen: ImageStatisticsGen
    schema_gen: tfx_components.SchemaGen | ImportSchemaGen
    previous_statistics: Resolver | None
    example_validator: ImageExampleValidator

    def in_order(self) -> list[BaseNode]:
        return [node for item in fields(self) if (node := getattr(self, item.name))]


def _data_nodes(
    config: Config,
    splits: Splits,
    readings: Readings,
    state: str | None = None,
    example_gen: BaseNode | None = None,
) -> DataNodes:
    settings = ingestion_settings(config, splits.folds, readings.data)
    example_gen = example_gen or ImageExampleGen(input_base=config.data.path, settings=settings)
    statistics_gen = ImageStatisticsGen(examples=example_gen.outputs["examples"]).with_id("StatisticsGen")
    if config.data.schema_file:
        schema_gen = ImportSchemaGen(schema_file=config.data.schema_file)
    else:
        schema_gen = tfx_components.SchemaGen(statistics=statistics_gen.outputs["statistics"], infer_feature_shape=True)
    previous_statistics = None
    if not state:
        previous_statistics = Resolver(
            strategy_class=PreviousStatistics,
            previous=Channel(type=artifacts.ExampleStatistics, producer_component_id=statistics_gen.id),
            current=statistics_gen.outputs["statistics"],
            transformed=Channel(type=artifacts.TransformGraph),
        ).with_id("PreviousStatistics")
    example_validator = ImageExampleValidator(
        statistics=statistics_gen.outputs["statistics"],
        schema=schema_gen.outputs["schema"],
        baseline_statistics=previous_statistics.outputs["previous"] if previous_statistics else None,
        max_drift=config.data.max_drift,
        max_skew=config.data.max_skew,
        skew_control=None if splits.folds else "train",  # folds are dealt so that they resemble each other
        stop_on_anomalies=config.data.stop_on_anomalies,
        code=code_digest("components.example_validator.component"),
        state=state,
    ).with_id("ExampleValidator")
    return DataNodes(example_gen, statistics_gen, schema_gen, previous_statistics, example_validator)


def create_data_pipeline(
    config: Config,
    *,
    pipeline_root: str,
    name: str | None = None,
    connection: metadata_store_pb2.ConnectionConfig | None = None,
    readings: Readings = NOT_READ,
) -> Pipeline:
    """The beginning of `create_pipeline`, up to the validator. Each takes from the cache what the other has done.

    Args: see `create_pipeline`.
    """
    return _pipeline(config, _data_nodes(config, TRAIN_EVAL_TEST, readings).in_order(), pipeline_root, name, connection)


def create_pipeline(
    config: Config,
    *,
    pipeline_root: str,
    push_folder: str | None,
    name: str | None = None,
    connection: metadata_store_pb2.ConnectionConfig | None = None,
    splits: Splits = TRAIN_EVAL_TEST,
    state: str | None = None,
    example_gen: BaseNode | None = None,
    readings: Readings = NOT_READ,
) -> Pipeline:
    """Chains the components from image files to a pushed model.

    Args:
      config: the whole configuration.
      pipeline_root: folder, or URI, for everything that the components put out.
      push_folder: where blessed models go, each in a folder named by its version number; None to evaluate models without
        judging and pushing them.
      name: of the pipeline in the metadata store; the configuration's if not given.
      connection: to that store; None where the orchestrator keeps one.
      splits: the usual ones, or folds in their roles.
      state: folder, or URI, for what outlives a run, where components look for earlier ones; None: they ask the store.
      example_gen: puts out `examples` in the place of ImageExampleGen, such as TFX's ImportExampleGen: files of tf.Example in
        `splits`, each with `image/encoded`, `image/label` and `image/filename`, and with `image/group` and `meta/...` as
        far as there are any. The section `data` then counts for nothing that is about files.
      readings: how the data was read before; ingestion keeps to it or stops.
    """
    data = _data_nodes(config, splits, readings, state, example_gen)
    examples = data.example_gen.outputs["examples"]
    transform = _transform(config, splits, data)
    training_data = _training_data(transform, splits)
    tuner = _tuner(config, training_data) if config.tune.enabled else None
    base_folder = base_model_folder(config, push_folder) if push_folder else None
    base = _base_model(base_folder) if base_folder and not state else None
    checkpoints = f"{state or pipeline_root}/checkpoints"
    trainer = _trainer(config, training_data, tuner, base, checkpoints, base_folder if state else None)
    model = trainer.outputs["model"]
    baseline = _baseline(model, push_folder) if push_folder and not state else None
    evaluator = _evaluator(config, splits, examples, model, baseline, push_folder)
    components = [*data.in_order(), transform, tuner, base, trainer, baseline, evaluator]
    if push_folder:
        check = _model_check(config, splits, examples, model, evaluator) if config.check.enabled else None
        model_formats = _model_formats(config, splits, examples, model, evaluator) if config.export.formats else None
        pushed = model_formats.outputs["exported_model"] if model_formats else model
        pusher = _pusher(config, push_folder, examples, pushed, evaluator, check)
        components += [check, model_formats, pusher]
        if config.labels.enabled:
            components.append(_label_check(config, examples, model))
        if config.score.path:
            components += _score_nodes(config, config.score.path, readings.score, model, evaluator, check)
    return _pipeline(config, [node for node in components if node], pipeline_root, name, connection)


def _transform(config: Config, splits: Splits, data: DataNodes) -> ImageTransform:
    transform = ImageTransform(
        examples=data.example_gen.outputs["examples"],
        schema=data.schema_gen.outputs["schema"],
        preprocessing_fn="models.preprocessing.preprocessing_fn",
        custom_config=as_dict(transform_settings(config)),
        # The Evaluator reads the test split as the server would: as raw examples.
        splits_config=transform_pb2.SplitsConfig(analyze=splits.train, transform=[*splits.train, *splits.eval]),
    ).with_id("Transform")
    transform.add_upstream_node(data.example_validator)
    return transform


def _training_data(transform: ImageTransform, splits: Splits) -> dict[str, Any]:
    """What Tuner and Trainer are both given."""
    return {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "train_args": trainer_pb2.TrainArgs(splits=splits.train),
        "eval_args": trainer_pb2.EvalArgs(splits=splits.eval),
    }


def _tuner(config: Config, training_data: dict[str, Any]) -> tfx_components.Tuner:
    return tfx_components.Tuner(
        tuner_fn="models.tuning.tuner_fn", **training_data, custom_config=as_dict(tuner_settings(config))
    )


def _base_model(folder: str) -> Resolver:
    return Resolver(strategy_class=BaseModel, config={"folder": folder}, model=Channel(type=artifacts.Model)).with_id(
        "BaseModel"
    )


def _trainer(
    config: Config,
    training_data: dict[str, Any],
    tuner: tfx_components.Tuner | None,
    base: Resolver | None,
    checkpoints: str,
    base_folder: str | None,
) -> tfx_components.Trainer:
    return tfx_components.Trainer(
        run_fn="models.training.run_fn",
        **training_data,
        base_model=base.outputs["model"] if base else None,
        hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
        custom_config=as_dict(trainer_settings(config, checkpoints, base_folder)),
    )


def _baseline(candidate: BaseChannel, push_folder: str) -> Resolver:
    return Resolver(
        strategy_class=ServedBaseline,
        config={"folder": push_folder},
        model=Channel(type=artifacts.Model),
        candidate=candidate,
    ).with_id("Baseline")


def _evaluator(
    config: Config,
    splits: Splits,
    examples: BaseChannel,
    model: BaseChannel,
    baseline: Resolver | None,
    push_folder: str | None,
) -> ImageEvaluator:
    judged = push_folder is not None
    settings = evaluation_settings(
        config.evaluate, config.data.multi_label, splits.test, judged=judged, calibrate=config.calibrate
    )
    return ImageEvaluator(
        examples=examples,
        model=model,
        baseline_model=baseline.outputs["model"] if baseline else None,
        eval_config=build_eval_config(settings),
        settings=settings,
        code=code_digest("components.evaluator.component"),
        push_folder=None if baseline else push_folder,
    ).with_id("Evaluator")


def _model_check(
    config: Config, splits: Splits, examples: BaseChannel, model: BaseChannel, evaluator: ImageEvaluator
) -> ModelCheck:
    return ModelCheck(
        model=model,
        examples=examples,
        evaluation=evaluator.outputs["evaluation"],
        settings=check_settings(config, splits),
        code=code_digest("components.model_check.component"),
    )


def _model_formats(
    config: Config, splits: Splits, examples: BaseChannel, model: BaseChannel, evaluator: ImageEvaluator
) -> ModelFormats:
    return ModelFormats(
        examples=examples,
        model=model,
        evaluation=evaluator.outputs["evaluation"],
        settings=format_settings(config, splits),
        code=code_digest("components.model_formats.component"),
    )


def _label_check(config: Config, examples: BaseChannel, model: BaseChannel) -> LabelCheck:
    return LabelCheck(
        examples=examples,
        model=model,
        data=config.data.path,
        settings=label_check_settings(config),
        code=code_digest("components.label_check.component"),
    )


def _pusher(
    config: Config,
    folder: str,
    examples: BaseChannel,
    model: BaseChannel,
    evaluator: ImageEvaluator,
    check: ModelCheck | None,
) -> VersionPusher:
    return VersionPusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=check.outputs["infra_blessing"] if check else None,
        evaluation=evaluator.outputs["evaluation"],
        examples=examples,
        folder=folder,
        settings=pusher_settings(config),
    ).with_id("Pusher")


def _score_nodes(
    config: Config,
    path: str,
    reading: Reading | None,
    model: BaseChannel,
    evaluator: ImageEvaluator,
    check: ModelCheck | None,
) -> list[BaseNode]:
    """Take in the images of `score.path`, and answer them if the model is good."""
    unlabelled = ScoreExampleGen(input_base=path, settings=ingestion_settings(config, reading=reading))
    bulk_inferrer = ImageBulkInferrer(
        examples=unlabelled.outputs["examples"],
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=check.outputs["infra_blessing"] if check else None,
        settings=inferrer_settings(config),
        code=code_digest("components.bulk_inferrer.component"),
    ).with_id("BulkInferrer")
    return [unlabelled, bulk_inferrer]


def _pipeline(
    config: Config,
    components: list[BaseNode],
    pipeline_root: str,
    name: str | None,
    connection: metadata_store_pb2.ConnectionConfig | None,
) -> Pipeline:
    return Pipeline(
        pipeline_name=name or config.name,
        pipeline_root=pipeline_root,
        components=components,
        enable_cache=True,
        metadata_connection_config=connection,
        beam_pipeline_args=pipeline_args(config.beam),
    )
