"""What the Evaluator is told by the configuration."""

import json

import pytest

from base.errors import UserError
from pipeline.config.evaluation import EvaluateConfig, ThresholdConfig
from pipeline.dag.eval_config import build_eval_config, evaluation_settings


def test_what_has_a_threshold_is_computed_though_it_is_not_listed():
    thresholds = [
        ThresholdConfig(metric="recall", lower=0.8, slice={"meta/size": "small"}),
        ThresholdConfig(metric="accuracy", lower=0.8, worst_of=["meta/site", "image/label"]),
    ]
    config = EvaluateConfig(metrics=["accuracy"], slices=[["image/label"]], thresholds=thresholds)
    settings = evaluation_settings(config, False, ["test"], judged=True)
    assert list(settings.metrics) == ["accuracy", "recall"]
    specs = build_eval_config(settings).slicing_specs
    assert [list(spec.feature_keys) for spec in specs] == [[], ["image/label"], ["meta/size"], ["meta/site", "image/label"]]
    assert config.metrics == ["accuracy"]


@pytest.mark.parametrize("multi_label", [False, True])
def test_tfma_computes_the_metrics_of_the_kind_of_data(multi_label):
    settings = evaluation_settings(EvaluateConfig(), multi_label, ["test"], judged=True)
    (metric,) = build_eval_config(settings).metrics_specs[0].metrics
    names = json.loads(metric.config)["names"]
    assert {"accuracy", "balanced_accuracy", "cross_entropy", "f1", "auc", "ece"} <= set(names)
    assert ("f1_micro" in names) == multi_label
    assert ("matthews" in names) == (not multi_label)


@pytest.mark.parametrize(
    ("name", "multi_label", "told"), [("acuracy", False, "did you mean accuracy"), ("f1_micro", False, "f1_micro")]
)
def test_a_metric_that_there_is_not_is_told(name, multi_label, told):
    for config in (EvaluateConfig(metrics=[name]), EvaluateConfig(thresholds=[ThresholdConfig(metric=name, lower=0.5)])):
        with pytest.raises(UserError, match=told):
            evaluation_settings(config, multi_label, ["test"], judged=True)
