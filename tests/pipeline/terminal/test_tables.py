"""Evaluations as tables in a terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from evaluation.results import Comparison, Evaluation, Flips, GroupResult, Metric, Shortcut, Slice, Verdict
from pipeline.terminal.tables import render_evaluation

NAMES = ["accuracy", "balanced_accuracy", "f1", "precision", "auc_pr", "cross_entropy"]


def part(key, examples, value, compared):
    metrics = {name: Metric(value, value - 0.02, value + 0.01) for name in NAMES} if examples >= 10 else {}
    comparisons = {name: Comparison(value - 0.015, Metric(0.015, 0.002, 0.03)) for name in metrics} if compared else {}
    return Slice(key, examples, examples, metrics, {}, comparisons, too_small=examples < 10)


def evaluation(compared=True):
    keys = [((), 200), ((("image/label", "cat"), ("meta/site", "Basel")), 99), ((("meta/site", "Chur"),), 7)]
    return Evaluation(
        classes=["cat", "dog"],
        multi_label=False,
        intervals="95 %, by jackknife",
        slices=[part(key, examples, 0.9, compared) for key, examples in keys],
        verdicts=[
            Verdict("auc_pr", "all examples", Metric(0.9, 0.88, 0.91), False, lower=0.95),
            Verdict("accuracy", "meta/site=Chur", None, False, "7 images are too few", lower=0.5),
        ],
        blessed=False,
        group=GroupResult(
            "mean of the probabilities", 40, ["cat", "dog"], {"accuracy": Metric(0.975, 0.9, 1.0)}, [[20, 1], [0, 19]]
        ),
        shortcuts=[Shortcut("image/format", "cat", Metric(0.99, 0.97, 1.0), "image/format is jpeg")],
        flips=Flips(12, 3) if compared else None,
    )


def rendered(item, width=100, **options):
    file = io.StringIO()
    Console(file=file, width=width).print(render_evaluation(item, **options))
    return file.getvalue()


@pytest.mark.parametrize("width", [100, 120])
def test_nothing_is_cut_off_at_usual_widths(width):
    text = rendered(evaluation(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for name in NAMES:
        assert f"│ {name} " in text  # all of them of all images


def test_a_verdict_has_its_interval_or_why_there_is_none():
    text = rendered(evaluation())
    assert "0.9000 [0.880, 0.910]" in text
    assert "not measured" in text
    assert "7 images are too few" in text


def test_the_rules_of_the_default_are_told_in_words():
    rule = "above 0.5 with its whole interval (always the most frequent class gives 0.5)"
    first = Verdict("balanced_accuracy", "all examples", Metric(0.6, 0.45, 0.7), False, "too few", 0.5, rule=rule)
    second = Verdict(
        "balanced_accuracy", "all examples", Metric(-0.1), True, lower=0.0, against="the served model", rule="no worse"
    )
    text = " ".join(rendered(replace(evaluation(), verdicts=[first, second]), 200).replace("│", "").split())
    assert "Rules ┏" in text
    assert f"{rule} 0.6000 [0.450, 0.700]" in text
    assert "better than an answer that is always the same, and not significantly worse than the served model." in text
    alone = " ".join(rendered(replace(evaluation(compared=False), verdicts=[first]), 200).split())
    assert "always the same. No model is served that it could be compared with." in alone


def test_slices_are_shown_by_few_metrics_those_of_thresholds_first():
    header = next(line for line in rendered(evaluation(), 140).splitlines() if line.startswith("┃ slice"))
    assert [cell.strip() for cell in header.split("┃")[3:-1]] == ["auc pr", "accuracy", "balanced accuracy", "f1"]


def test_a_slice_that_is_too_small_is_named_as_such():
    lines = rendered(evaluation(compared=False)).splitlines()
    line = next(line for line in lines if line.startswith("│ meta/site=Chur "))
    assert [cell.strip() for cell in line.split("│")[2:4]] == ["7", "too few"]


def test_groups_and_shortcuts_are_told():
    text = " ".join(rendered(evaluation()).split())
    assert "40 groups, answered by mean of the probabilities" in text
    assert "0.9750 [0.900, 1.000]" in text
    assert "Warning: image/format is jpeg tells cat from the other classes with a balanced accuracy of 0.9900" in text


def test_the_difference_to_the_served_model_is_shown_where_there_was_one():
    text = rendered(evaluation())
    assert "0.8850 │ +0.0150 better [+0.002, +0.030] │" in text
    assert "0.8850 │  +0.0150 worse [+0.002, +0.030] │" in text  # the cross-entropy
    assert "Difference to the served model" in text
    assert "12 images that the served model has wrong are right now; 3 the other way round" in text
    assert "served model" not in rendered(evaluation(compared=False))


def test_the_summary_leaves_the_slices_out():
    assert "meta/site=Basel" in rendered(evaluation())
    assert "meta/site=Basel" not in rendered(evaluation(), with_slices=False)
