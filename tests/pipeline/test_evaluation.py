"""Metrics, slices and thresholds as TFMA is told, and intervals as it is read."""

import math

import pytest
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2

from components.errors import UserError
from pipeline import results
from pipeline.config import EvaluateConfig, ThresholdConfig
from pipeline.evaluation import build_eval_config


def accuracy_of(config):
    metrics = {metric.config: metric for metric in config.metrics_specs[0].metrics}
    return metrics['{"name": "accuracy"}']


def test_a_threshold_holds_for_the_slice_that_it_names_and_no_other():
    thresholds = [
        ThresholdConfig(metric="accuracy", lower=0.9),
        ThresholdConfig(metric="accuracy", lower=0.8, slice={"meta/size": "small"}),
    ]
    metric = accuracy_of(build_eval_config(EvaluateConfig(thresholds=thresholds), multi_label=False))
    assert not metric.HasField("threshold")  # it would hold for every slice
    bounds = {
        tuple(item.slicing_specs[0].feature_values.items()): item.threshold.value_threshold.lower_bound.value
        for item in metric.per_slice_thresholds
    }
    assert bounds == {(): 0.9, (("meta/size", "small"),): 0.8}


def test_a_slice_with_a_threshold_is_computed_though_it_is_not_listed():
    thresholds = [ThresholdConfig(metric="accuracy", lower=0.8, slice={"meta/size": "small"})]
    config = build_eval_config(EvaluateConfig(slices=[["image/label"]], thresholds=thresholds), multi_label=False)
    assert [list(spec.feature_keys) for spec in config.slicing_specs] == [[], ["image/label"], ["meta/size"]]


@pytest.mark.parametrize(("metric", "direction"), [("accuracy", "HIGHER_IS_BETTER"), ("cross_entropy", "LOWER_IS_BETTER")])
def test_a_change_is_judged_in_the_metrics_direction(metric, direction):
    config = build_eval_config(EvaluateConfig(thresholds=[ThresholdConfig(metric=metric, change=0.1)]), multi_label=False)
    (item,) = [item for spec in config.metrics_specs[0].metrics for item in spec.per_slice_thresholds]
    assert config_pb2.MetricDirection.Name(item.threshold.change_threshold.direction) == direction


def test_an_unknown_metric_is_told_with_the_known_ones():
    with pytest.raises(UserError, match=r"unknown metric acuracy; known ones: accuracy, cross_entropy"):
        build_eval_config(EvaluateConfig(thresholds=[ThresholdConfig(metric="acuracy", lower=0.5)]), multi_label=False)


def test_multi_label_data_has_metrics_of_its_own():
    config = EvaluateConfig(thresholds=[ThresholdConfig(metric="f1_micro", lower=0.5)])
    metrics = build_eval_config(config, multi_label=True).metrics_specs[0].metrics
    assert [metric.class_name for metric in metrics] == ["BinaryAccuracy", "BinaryCrossentropy", "F1Score", "ExampleCount"]
    assert [len(metric.per_slice_thresholds) for metric in metrics] == [0, 0, 1, 0]
    with pytest.raises(UserError, match=r"unknown metric f1_micro; known ones: accuracy, cross_entropy"):
        build_eval_config(config, multi_label=False)


def test_without_any_spread_what_is_no_proportion_has_no_interval():
    assert results._interval(measured("f1_micro", 1.0, 1.0, 1.0, 0.0), 20) == (None, None)


def measured(name, value, lower, upper, error):
    item = metrics_for_slice_pb2.MetricsForSlice.MetricKeyAndValue()
    item.key.name = name
    item.value.double_value.value = value
    item.confidence_interval.lower_bound.double_value.value = lower
    item.confidence_interval.upper_bound.double_value.value = upper
    item.confidence_interval.standard_error.double_value.value = error
    return item


def test_intervals_are_cut_to_the_metrics_range():
    assert results._interval(measured("accuracy", 0.98, 0.9, 1.06, 0.04), 50) == (0.9, 1.0)
    assert results._interval(measured("cross_entropy", 0.1, -0.2, 0.4, 0.1), 50) == (0.0, 0.4)


@pytest.mark.parametrize(("right", "examples"), [(36, 36), (0, 12), (1, 1)])
def test_without_any_spread_the_interval_is_wilsons(right, examples):
    share, z = right / examples, 1.959964
    centre = (share + z**2 / (2 * examples)) / (1 + z**2 / examples)
    half = z / (1 + z**2 / examples) * math.sqrt(share * (1 - share) / examples + z**2 / (4 * examples**2))
    interval = results._interval(measured("accuracy", share, share, share, 0.0), examples)
    assert interval == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_numbers_are_sorted_by_size_and_before_words():
    assert sorted(["10", "9", "b", "1.5", "a"], key=results._natural) == ["1.5", "9", "10", "a", "b"]
