"""Settings on their way from the configuration to where a component starts."""

import json
from dataclasses import fields, replace

import pytest

from evaluation.settings import EvaluatorSettings
from models.image_settings import ImageSettings
from models.packing import as_dict, pack, unpack
from models.settings import (
    AbstainSettings,
    AugmentSettings,
    CalibrationSettings,
    ClassifierConfig,
    SetSettings,
    TrainSettings,
    UnusualSettings,
)
from pipeline.config.calibration import AbstainConfig, CalibrateConfig, SetsConfig, UnusualConfig
from pipeline.config.data import ImageConfig
from pipeline.config.evaluation import EvaluateConfig, ThresholdConfig
from pipeline.config.network import AugmentConfig, ModelConfig, TrainConfig
from pipeline.config.whole import Config
from pipeline.dag.component_settings import ingestion_settings, label_check_settings, trainer_settings, tuner_settings
from pipeline.dag.eval_config import evaluation_settings

SPACE = {
    "model.num_filters": {"min": 4, "max": 6},
    "train.clip_norm": [0.0, 1.0],
    "train.freeze_batch_norm": [True, False],
    "train.learning_rate": {"min": 1e-4, "max": 1.0, "log": True},
    "train.optimizer": ["adamw", "sgd"],
}
CONFIG = Config.model_validate({"name": "x", "data": {"path": "."}, "tune": {"space": SPACE}})
EVALUATE = EvaluateConfig(
    thresholds=[ThresholdConfig(metric="accuracy", lower=0.5, slice={"meta/site": "a"})], buckets={"meta/age": [18.0, 65.0]}
)


@pytest.mark.parametrize(
    "record",
    [
        trainer_settings(CONFIG, "checkpoints"),
        tuner_settings(CONFIG),
        ingestion_settings(CONFIG),
        label_check_settings(CONFIG),
        evaluation_settings(EVALUATE, False, ["test"], judged=True),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_is_unpacked_is_what_was_packed(record):
    for packed in (pack(record), as_dict(record)):
        unpacked = unpack(type(record), packed)
        assert unpacked == record
        assert repr(unpacked) == repr(record)  # 1 is not 1.0 or True, and a tuple no list


def test_the_order_in_which_values_were_given_does_not_change_the_text():
    one, other = (dict.fromkeys(names, "text") for names in (("a", "b"), ("b", "a")))
    settings = ingestion_settings(CONFIG)
    packed = {pack(replace(settings, columns=replace(settings.columns, types=types))) for types in (one, other)}
    assert len(packed) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch_size": None}, "batch_size"),
        ({"thresholds": [{"metric": "accuracy"}]}, "thresholds"),
        ({"confidence_intervals": "often"}, "confidence_intervals"),
    ],
)
def test_what_does_not_fit_a_record_is_an_error(change, told):
    settings = as_dict(evaluation_settings(EvaluateConfig(), False, ["test"], judged=True))
    with pytest.raises(ValueError, match=told):
        unpack(EvaluatorSettings, json.dumps({**settings, **change}))


@pytest.mark.parametrize(
    ("section", "record"),
    [
        (ImageConfig, ImageSettings),
        (AugmentConfig, AugmentSettings),
        (ModelConfig, ClassifierConfig),
        (TrainConfig, TrainSettings),
        (CalibrateConfig, CalibrationSettings),
        (SetsConfig, SetSettings),
        (AbstainConfig, AbstainSettings),
        (UnusualConfig, UnusualSettings),
    ],
)
def test_no_key_of_the_configuration_is_lost_on_the_way(section, record):
    # Tiles are settings of the training alone, see component_settings; of trackers the Trainer knows nothing.
    elsewhere = {"tiles", "trackers"} & set(section.model_fields)
    assert set(section.model_fields) - elsewhere == {field.name for field in fields(record)}
