"""Properties of the file that give the class away: planted ones are found, and chance is not."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from evaluation import shortcuts
from evaluation.predictions import Predictions
from evaluation.shortcuts import find_shortcuts
from models import features
from pipeline.samples.digits import write_digits


def images_of(seed, count, classes=10):
    """Images whose properties say nothing about their class."""
    random = np.random.default_rng(seed)
    height, width = 4 * random.integers(25, 100, (2, count))
    rows = pd.DataFrame(
        {
            features.FILENAME: [f"folder.d/{number}.png" for number in range(count)],
            features.FORMAT: "png",
            features.HEIGHT: height,
            features.WIDTH: width,
            features.ASPECT: width / height,
            features.CHANNELS: random.choice([1, 3], count),
            features.BYTES: (height * width * random.uniform(0.5, 1, count)).astype(int),
            features.LABEL: [f"class{label}" for label in random.integers(0, classes, count)],
            "meta/site": random.choice(["north", "south", "west"], count),
            "meta/serial": [f"s{number}" for number in range(count)],
        }
    )
    return rows.assign(**{features.GROUP: rows[features.FILENAME]})


def found_in(rows, threshold=0.75, multi_label=False):
    names = sorted({name for label in rows[features.LABEL] for name in label.split("|") if name})
    predictions = Predictions(rows, names, multi_label, np.zeros((len(rows), len(names)), np.float32))
    return find_shortcuts(predictions, threshold)


def told(found):
    return [(item.label, item.rule) for item in found]


def test_one_class_saved_as_jpeg_is_found_once_and_the_same_images_without_it_raise_nothing():
    rows = images_of(1, 1000)
    assert found_in(rows) == []
    planted = rows[features.LABEL] == "class3"
    rows.loc[planted, features.FORMAT] = "jpeg"
    rows.loc[planted, features.FILENAME] = rows.loc[planted, features.FILENAME].str.replace(".png", ".jpg")
    rows.loc[planted, features.BYTES] //= 20
    (found,) = found_in(rows)  # and not its suffix and size too
    assert (found.property, found.label, found.rule) == (features.FORMAT, "class3", "image/format is jpeg")
    assert found.score.value == 1.0
    assert 0.97 < found.score.lower < found.score.upper == 1.0


def test_the_embedded_digits_have_no_shortcut_though_a_one_takes_fewer_bytes(tmp_path):
    write_digits(tmp_path / "digits")
    manifest = pd.read_csv(tmp_path / "digits/manifest.csv", dtype=str)[:2700]
    rows = pd.DataFrame(
        {
            features.FILENAME: manifest["path"],
            features.FORMAT: "png",
            features.HEIGHT: 32,
            features.BYTES: [(tmp_path / "digits" / path).stat().st_size for path in manifest["path"]],
            features.LABEL: manifest["label"],
            features.GROUP: manifest["group"],
            "meta/size": manifest["size"],
        }
    )
    assert found_in(rows) == []
    rows.loc[rows[features.LABEL] == "4", features.BYTES] += 500
    assert told(found_in(rows)) == [("4", f"image/bytes from {rows[features.BYTES][rows[features.LABEL] == '4'].min()}")]


def test_a_class_of_larger_images_is_found_with_the_size_that_it_begins_at():
    rows = images_of(2, 800)
    planted = rows[features.LABEL] == "class7"
    for side in (features.HEIGHT, features.WIDTH):
        rows.loc[planted, side] += 412
    assert told(found_in(rows)) == [("class7", f"image/height from {rows[features.HEIGHT][planted].min()}")]


def test_the_suffix_tells_what_the_format_does_not():
    rows = images_of(3, 600, classes=3)
    planted = rows[features.LABEL] == "class0"
    names = [f"{number}.tif#{number % 4}" for number in range(600)]
    rows[features.FILENAME] = np.where(planted, names, rows[features.FILENAME])
    # Half the others could be told by .png, but that is the same again.
    assert told(found_in(rows)) == [("class0", "image/filename ends in .tif")]


def test_of_two_classes_both_are_named():
    rows = images_of(4, 200, classes=2)
    rows["meta/site"] = np.where(rows[features.LABEL] == "class0", "north", "west")
    assert told(found_in(rows)) == [("class0", "meta/site is north"), ("class1", "meta/site is west")]


def test_images_of_one_group_count_as_one():
    rows = images_of(5, 300, classes=2)
    patient = np.arange(300) % 6  # three patients a class, each from one site
    rows[features.GROUP] = patient.astype(str)
    rows[features.LABEL] = np.where(patient < 3, "class0", "class1")
    rows["meta/site"] = np.where(patient < 3, "north", "west")
    assert found_in(rows) == []
    rows[features.GROUP] = rows[features.FILENAME]
    assert len(found_in(rows)) == 2


def test_a_rule_is_judged_on_groups_that_it_was_not_made_of():
    rows = images_of(6, 400, classes=2)
    random = np.random.default_rng(6)
    patient = random.integers(0, 80, 400)
    rows[features.GROUP] = patient.astype(str)
    rows[features.LABEL] = [f"class{number}" for number in random.integers(0, 2, 80)[patient]]
    rows["meta/device"] = [f"d{number}" for number in patient]  # on images that it was made of, it is always right
    assert found_in(rows) == []


def test_labels_that_an_image_can_have_several_of_are_told_one_by_one():
    rows = images_of(7, 500)
    random = np.random.default_rng(7)
    mass, nodule = random.random((2, 500)) < 0.3
    rows[features.LABEL] = [
        "|".join(["mass"] * a + ["nodule"] * b) for a, b in zip(mass.tolist(), nodule.tolist(), strict=True)
    ]
    assert found_in(rows, multi_label=True) == []
    rows[features.FORMAT] = np.where(nodule, "jpeg", "png")
    assert told(found_in(rows, multi_label=True)) == [("nodule", "image/format is jpeg")]


def test_the_score_is_that_of_a_balanced_decision_tree_on_held_out_groups():
    rows = images_of(8, 2000, classes=3)
    noisy = np.random.default_rng(8).random(2000) < 0.8
    rows["meta/site"] = np.where(noisy & (rows[features.LABEL] == "class1"), "east", rows["meta/site"])
    (found,) = found_in(rows[[features.LABEL, features.GROUP, "meta/site"]])
    folds = pd.util.hash_array(rows[features.GROUP].to_numpy(object)) % 5
    inputs, is_class = pd.get_dummies(rows["meta/site"]), rows[features.LABEL] == "class1"
    tree = DecisionTreeClassifier(class_weight="balanced")
    answers = cross_val_predict(tree, inputs, is_class, groups=folds, cv=GroupKFold(5))
    assert found.score.value == pytest.approx(balanced_accuracy_score(is_class, answers), abs=1e-12)
    assert told([found]) == [("class1", "meta/site is east")]
    # Its interval, by the exact intervals of the two rates.
    rates = [(answers[is_class] == 1).astype(int), (answers[~is_class] == 0).astype(int)]
    ends = [binomtest(int(rate.sum()), len(rate)).proportion_ci(0.95) for rate in rates]
    below = sum((rate.mean() - end.low) ** 2 for rate, end in zip(rates, ends, strict=True)) ** 0.5 / 2
    assert found.score.lower == pytest.approx(found.score.value - below, abs=1e-9)


def test_chance_rarely_warns_on_small_data_sets():
    warned = sum(bool(found_in(images_of(seed, 40, classes=4), threshold=0.6)) for seed in range(60))
    assert warned <= 3


@pytest.mark.parametrize("seed", range(3))
def test_the_range_of_a_number_has_the_largest_sensitivity_and_specificity(seed):
    random = np.random.default_rng(seed)
    sizes, is_class = random.integers(10, 30, 60), random.random(60) < 0.3
    sizes[is_class] += random.integers(0, 8, is_class.sum())
    item = shortcuts._number(pd.Series(sizes))
    tables = [np.bincount(item.cells[chosen], minlength=item.count)[:, None] for chosen in (is_class, ~is_class)]
    fires = shortcuts._fires(item, *tables)[item.cells, 0]
    ends = np.unique([*sizes, 99])
    best = max(balanced_accuracy_score(is_class, (a <= sizes) & (sizes < b)) for a in ends for b in ends)
    assert balanced_accuracy_score(is_class, fires) == pytest.approx(best)
    (start, *_), (*_, end) = 2 * [np.unique(sizes[fires])]
    assert fires.tolist() == ((start <= sizes) & (sizes <= end)).tolist()


def test_rules_are_told_in_words():
    size = shortcuts._number(pd.Series([10, 20, 30, 40, 50], name="image/height"))
    rules = [size.rule(np.isin(np.arange(5), cells)) for cells in ([0, 1], [1, 2], [3, 4])]
    assert rules == ["image/height below 30", "image/height 20 to 40", "image/height from 40"]
    site = shortcuts._category(pd.Series(list("abcdefg"), name="meta/site"))
    assert site.rule(np.array([True] * 6 + [False])) == "meta/site is a, b, c, d or others"


def test_a_thousand_classes_take_seconds():
    rows = images_of(9, 100_000, classes=1000)
    rows["meta/scanner"] = "scanner" + rows[features.LABEL].str[5:].str.zfill(2).str[-2:]
    started = time.perf_counter()
    found = found_in(rows)
    assert time.perf_counter() - started < 20
    assert {item.property for item in found} == {"meta/scanner"}
    assert len(found) == 1000
