"""Thresholds and what holds them."""

import math

import numpy as np
import pandas as pd
import pytest

from base.errors import UserError
from evaluation.predictions import Predictions
from evaluation.results import Comparison, GroupResult, Metric, Slice
from evaluation.settings import Threshold
from evaluation.verdicts import check_thresholds, judge, needed_metrics, needed_slices
from models import features


def threshold(metric="accuracy", **settings):
    """As the configuration has it."""
    empty = {"lower": None, "upper": None, "change": None, "slice": {}, "worst_of": (), "of": "images"}
    return Threshold(metric=metric, **empty | settings)


def at_site(site, images, accuracy=None, **more):
    key = (("meta/site", site),)
    return Slice(key, images, images, {} if accuracy is None else {"accuracy": Metric(accuracy)}, **more)


ALL = Slice((), 1000, 1000, {"accuracy": Metric(0.9, 0.88, 0.92), "cross_entropy": Metric(0.3), "auc": Metric(math.nan)})
SITES = [
    at_site("a", 500, 0.95),
    at_site("b", 480, 0.85),
    at_site("c", 7, too_small=True),
    at_site("d", 13),
]


def the_verdict(settings, slices=(ALL, *SITES), group=None):
    (verdict,) = judge([settings], slices, group)
    return verdict


@pytest.mark.parametrize(
    ("bounds", "requirement", "passed"),
    [
        ({"lower": 0.9}, "at least 0.9", True),
        ({"lower": 0.91}, "at least 0.91", False),  # within the interval, but the value decides
        ({"upper": 0.9}, "at most 0.9", True),
        ({"lower": 0.5, "upper": 0.8}, "at least 0.5; at most 0.8", False),
    ],
)
def test_a_bound_holds_for_the_value(bounds, requirement, passed):
    verdict = the_verdict(threshold(**bounds))
    assert (verdict.requirement, verdict.passed, verdict.slice) == (requirement, passed, "all examples")
    assert verdict.measured == Metric(0.9, 0.88, 0.92)


def test_a_model_that_is_worse_on_one_slice_fails_that_slices_threshold_alone():
    settings = [threshold(lower=0.9), *(threshold(lower=0.9, slice={"meta/site": site}) for site in "ab")]
    assert [verdict.passed for verdict in judge(settings, [ALL, *SITES], None)] == [True, True, False]


def test_a_slice_of_two_features_is_named_in_any_order():
    item = Slice((("image/label", "cat"), ("meta/site", "a")), 50, 50, {"accuracy": Metric(0.7)})
    verdict = the_verdict(threshold(lower=0.6, slice={"meta/site": "a", "image/label": "cat"}), [ALL, item])
    assert (verdict.passed, verdict.slice) == (True, "image/label=cat, meta/site=a")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (threshold(lower=0.0, slice={"meta/site": "z"}), "no images"),
        (threshold(lower=0.0, slice={"meta/site": "c"}), "7 images, fewer than evaluate.min_slice_size"),
        (threshold(lower=0.0, slice={"meta/site": "d"}), "not defined on it"),
        (threshold("auc", lower=0.0), "not defined on it"),
        (threshold(lower=0.0, worst_of=["meta/size"]), "no images"),
        (threshold(lower=0.0, of="groups"), "every group has one image"),
    ],
)
def test_what_is_not_measured_has_not_held(settings, found):
    verdict = the_verdict(settings)
    assert (verdict.passed, verdict.measured, verdict.found) == (False, None, found)


def test_the_worst_slice_decides_and_those_left_out_are_named():
    verdict = the_verdict(threshold(lower=0.9, worst_of=["meta/site"]))
    assert not verdict.passed
    assert verdict.slice == "worst of meta/site"
    assert verdict.measured == Metric(0.85)
    assert verdict.found == "worst: meta/site=b; too few images: meta/site=c; not defined: meta/site=d"
    assert str(verdict).startswith("accuracy on worst of meta/site must be at least 0.9, is 0.8500 (worst: meta/site=b;")


def test_the_worst_is_the_largest_where_less_is_better():
    slices = [
        Slice((("meta/site", site),), 50, 50, {"cross_entropy": Metric(value)}) for site, value in (("a", 0.2), ("b", 0.4))
    ]
    verdict = the_verdict(threshold("cross_entropy", upper=0.3, worst_of=["meta/site"]), [ALL, *slices])
    assert (verdict.passed, verdict.measured, verdict.found) == (False, Metric(0.4), "worst: meta/site=b")


def test_a_change_is_judged_in_the_metrics_direction_beside_the_value():
    comparisons = {
        "accuracy": Comparison(0.93, Metric(-0.03, -0.05, -0.01)),
        "cross_entropy": Comparison(0.2, Metric(0.1, 0.05, 0.15)),
    }
    compared = Slice((), 1000, 1000, ALL.metrics, comparisons=comparisons)
    settings = [threshold(lower=0.8, change=-0.02), threshold("cross_entropy", change=0.12)]
    value, change, entropy = judge(settings, [compared], None)
    assert (value.passed, value.requirement) == (True, "at least 0.8")
    assert (change.passed, change.requirement) == (False, "at least -0.02 against the served model")
    assert change.measured == Metric(-0.03, -0.05, -0.01)
    assert (entropy.passed, entropy.requirement) == (True, "at most 0.12 against the served model")


def test_a_change_at_its_bound_holds_however_it_is_rounded():
    compared = Slice((), 50, 50, ALL.metrics, comparisons={"accuracy": Comparison(0.92, Metric(0.9 - 0.92))})
    assert the_verdict(threshold(change=-0.02), [compared]).passed


def test_without_a_baseline_a_change_gives_no_verdict_but_a_slice_without_images_does_with_one():
    settings = threshold(change=-0.02, slice={"meta/site": "z"})
    assert judge([settings], [ALL], None) == []
    compared = Slice((), 9, 9, ALL.metrics, comparisons={"accuracy": Comparison(0.9, Metric(0.0))})
    assert not the_verdict(settings, [compared]).passed


def test_groups_are_judged_by_their_own_metrics():
    group = GroupResult("mean", 80, ["a", "b"], {"accuracy": Metric(0.97, 0.9, 1.0)}, [[40, 0], [2, 38]])
    verdict = the_verdict(threshold(lower=0.95, of="groups"), group=group)
    assert (verdict.passed, verdict.slice, verdict.measured) == (True, "groups", Metric(0.97, 0.9, 1.0))


def files(jpeg_of_cats, larger_cats=0):
    """200 images of cats and dogs; a share of the cats' files is JPEG, the others are PNG, all of 1000 bytes and some more."""
    random = np.random.default_rng(0)
    cats = np.arange(200) % 2 == 0
    names = [f"{number}.png" for number in range(200)]
    rows = pd.DataFrame(
        {
            features.FILENAME: names,
            features.GROUP: names,
            features.LABEL: np.where(cats, "cat", "dog"),
            features.FORMAT: np.where(cats & (random.random(200) < jpeg_of_cats), "jpeg", "png"),
            features.BYTES: 1000 + random.integers(0, 500, 200) + larger_cats * cats,
        }
    )
    return Predictions(rows, ["cat", "dog"], False, np.zeros((200, 2), np.float32))


@pytest.mark.parametrize(
    ("images", "passed", "value", "found"),
    [
        (files(1.0), False, 1.0, "image/format is jpeg tells cat from the other classes"),
        (files(0.4), True, 0.7, "image/format is jpeg tells cat from the other classes"),
        (files(0.0), True, 0.5, "no property of the files gives a class away"),
        (files(0.0, larger_cats=420), True, 0.5, "no property of the files gives a class away"),  # see find_shortcuts on bytes
        (files(0.0, larger_cats=490), False, 0.98, "image/bytes "),
    ],
)
def test_a_threshold_on_shortcuts_fails_where_a_property_of_the_files_gives_a_class_away(images, passed, value, found):
    (verdict,) = judge([threshold("shortcut", upper=0.75)], [ALL], None, images)
    assert (verdict.metric, verdict.slice, verdict.requirement) == ("shortcut", "the files", "at most 0.75")
    assert verdict.passed == passed
    assert verdict.measured.value == pytest.approx(value, abs=0.04)
    assert verdict.found.startswith(found)


def test_too_few_images_to_tell_are_no_shortcut():
    images = files(1.0)
    few = Predictions(images.rows[:6], images.classes, False, images.probabilities[:6])
    (verdict,) = judge([threshold("shortcut", upper=0.75)], [ALL], None, few)
    assert (verdict.passed, verdict.measured) == (True, Metric(0.5))


def test_a_shortcut_is_no_metric_to_compute_and_nothing_of_a_format():
    shortcut = threshold("shortcut", upper=0.75)
    check_thresholds([shortcut], multi_label=True)
    assert needed_metrics(["accuracy"], [shortcut], multi_label=False) == ["accuracy"]
    with pytest.raises(UserError, match=r"export: unknown metric shortcut"):
        check_thresholds([shortcut], multi_label=False, section="export")
    with pytest.raises(UserError, match=r"unknown metric shortcuts; did you mean shortcut\?"):
        check_thresholds([threshold("shortcuts", upper=0.75)], multi_label=False)


def test_a_metric_that_can_not_be_judged_is_an_error():
    with pytest.raises(UserError, match=r"unknown metric acuracy.*accuracy"):
        check_thresholds([threshold("acuracy", lower=0.9)], multi_label=False)
    with pytest.raises(UserError, match="matthews"):
        check_thresholds([threshold("matthews", lower=0.9)], multi_label=True)
    with pytest.raises(UserError, match=r"ece is no metric of groups; those are accuracy, balanced_accuracy, f1, "):
        check_thresholds([threshold("ece", upper=0.1, of="groups")], multi_label=False)
    check_thresholds([threshold("top_2_accuracy", lower=0.9), threshold("f1", lower=0.9, of="groups")], False)


def test_what_thresholds_are_on_is_computed_though_it_is_not_listed():
    thresholds = [
        threshold("auc", lower=0.9, slice={"meta/site": "a"}),
        threshold(lower=0.9, worst_of=["meta/site"]),
        threshold(lower=0.9, worst_of=["meta/site", "image/label"]),
    ]
    assert needed_slices([["image/label"], ["image/label", "meta/site"]], thresholds) == [["meta/site"]]
    assert needed_metrics(["accuracy"], thresholds, multi_label=False) == ["accuracy", "auc"]
