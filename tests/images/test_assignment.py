"""Which split a group is dealt to, and what is refused."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_folders import SPLITS, image_paths, make_manifest, settings, split_counts, touch, user_error

from base.errors import UserError
from images.dataset import source
from images.dataset.assignment import deal
from images.dataset.row import Row

SHARES = [0.7, 0.2, 0.1]


def dealt(groups: dict[str, Counter[str]], shares: list[float]) -> np.ndarray:
    """Images of each class in each split, [splits, classes]."""
    classes = sorted({label for counts in groups.values() for label in counts})
    table = np.zeros((len(shares), len(classes)))
    for group, split in deal(groups, shares).items():
        table[split] += [groups[group][label] for label in classes]
    return table


def assigned(rows: list[Row], **changes: object) -> dict[str, str]:
    return {row.path: row.split for row in source.assign_splits("data", rows, settings(**changes))}


def make_rows(counts: dict[str, int], group_size: int = 1) -> list[Row]:
    return [
        Row(f"{label}/{number}", (label,), f"{label}/{number // group_size}", "")
        for label, count in counts.items()
        for number in range(count)
    ]


def test_every_split_gets_the_same_share_of_each_class() -> None:
    rows = make_rows({"cat": 1000, "dog": 100, "eel": 10})
    splits = assigned(rows, splits={"train": 7, "eval": 2, "test": 1, "stratify": True})
    counts = Counter((path[:3], split) for path, split in splits.items())
    for label, total in (("cat", 1000), ("dog", 100), ("eel", 10)):
        assert [counts[label, split] for split in ("train", "eval", "test")] == [total * share for share in SHARES]


def test_groups_of_several_classes_and_sizes_are_dealt_about_evenly() -> None:
    random = np.random.default_rng(0)
    labels = ("cat", "dog", "eel")
    groups = {
        f"g{number}": Counter(random.choice(labels, random.integers(1, 20), p=[0.6, 0.3, 0.1]).tolist())
        for number in range(200)
    }
    table = dealt(groups, SHARES)
    np.testing.assert_allclose(table / table.sum(axis=0), np.transpose([SHARES] * 3), atol=0.02)


def test_each_group_goes_where_pearsons_distance_grows_least() -> None:
    random = np.random.default_rng(1)
    shares = np.array(SHARES)
    sizes = random.permutation(np.arange(1, 61))  # no two alike, so that the order is plain
    groups = {}
    for number, size in enumerate(sizes):
        cats = int(random.integers(0, size + 1))
        groups[f"g{number}"] = +Counter({"cat": cats, "dog": int(size) - cats})
    totals = np.array([sum(counts[label] for counts in groups.values()) for label in ("cat", "dog")])

    def distance(table: np.ndarray) -> float:
        return float((np.square(table / totals - shares[:, None]) / shares[:, None]).sum())

    table = np.zeros((3, 2))
    split_of = deal(groups, SHARES)
    for group in sorted(groups, key=lambda group: -groups[group].total())[:50]:  # the last ones may be kept for a class
        moved = []
        for split in range(3):
            moved.append(table.copy())
            moved[-1][split] += [groups[group]["cat"], groups[group]["dog"]]
        assert split_of[group] == int(np.argmin([distance(candidate) for candidate in moved]))
        table = moved[split_of[group]]


@pytest.mark.parametrize("count", [3, 4, 5, 8, 12])
def test_a_class_of_few_groups_is_in_every_split(count: int) -> None:
    rows = make_rows({"cat": 500, "dog": count * 3}, group_size=3)
    splits = assigned(rows, splits={"train": 8, "eval": 1, "test": 1, "stratify": True})
    counts = Counter(split for path, split in splits.items() if path.startswith("dog"))
    assert set(counts) == {"train", "eval", "test"}
    assert counts["train"] == max(counts.values())


def test_a_large_group_stays_in_train() -> None:
    groups = {"huge": Counter(cat=90), "large": Counter(cat=80), **{f"g{number}": Counter(cat=1) for number in range(30)}}
    assert deal(groups, [0.8, 0.1, 0.1])["huge"] == deal(groups, [0.8, 0.1, 0.1])["large"] == 0


def test_stratified_groups_stay_together_and_nothing_is_lost() -> None:
    rows = make_rows({"cat": 90, "dog": 60, "eel": 30}, group_size=4)
    splits = assigned(rows, splits=SPLITS | {"stratify": True})
    assert splits.keys() == {row.path for row in rows}
    assert len({(row.group, splits[row.path]) for row in rows}) == len({row.group for row in rows})


def test_stratified_eval_comes_out_of_a_given_train(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(40, prefix="train/"), *image_paths(5, prefix="test/"))
    rows = source.read_rows(str(tmp_path), settings(splits={"train": 3, "eval": 1, "stratify": True}))
    counts = Counter((row.label, row.split) for row in rows)
    for label in ("cat", "dog"):
        assert [counts[label, split] for split in ("train", "eval", "test")] == [30, 10, 5]
    assert all((row.split == "test") == row.path.startswith("test/") for row in rows)


def test_rows_that_are_set_aside_get_no_split_and_count_for_nothing() -> None:
    rows = [*make_rows({"cat": 40, "dog": 40}), Row("cow/1", ("cow",), "cat/1", "", reason="not a regular file")]
    for stratify in (False, True):
        assert assigned(rows, splits=SPLITS | {"stratify": stratify})["cow/1"] == ""


# A class that a split lacks


@pytest.mark.parametrize("split", ["train", "eval", "test"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_class_that_a_given_split_lacks_is_told(split: str, multi_label: bool) -> None:
    rows = [
        Row(f"{name}/{label}", (label,), f"{name}/{label}", name)
        for name in ("train", "eval", "test")
        for label in ("cat", "dog", "owl")
        if (name, label) != (split, "owl")
    ]
    with pytest.raises(UserError) as caught:
        assigned(rows, multi_label=multi_label)
    assert f"data: the {split} split has no image of owl (2 groups in all); add images of the class" in str(caught.value)
    assert "data.labels" in str(caught.value)


def test_stratifying_is_offered_where_it_helps() -> None:
    rows = make_rows({"cat": 200, "dog": 200, "owl": 4})
    with pytest.raises(UserError, match=r"no image of owl \(4 groups in all\); set data\.splits\.stratify to true"):
        assigned(rows, splits={"train": 98, "eval": 1, "test": 1})
    assert set(assigned(rows, splits={"train": 98, "eval": 1, "test": 1, "stratify": True}).values()) == {
        "train",
        "eval",
        "test",
    }
    few = make_rows({"cat": 200, "dog": 200, "owl": 2})
    with pytest.raises(UserError, match=r"the test split has no image of owl \(2 groups in all\); add images"):
        assigned(few, splits=SPLITS | {"stratify": True})


def test_many_missing_classes_are_not_all_named() -> None:
    rows = make_rows({"cat": 200, "dog": 200, **{f"rare{number}": 1 for number in range(40)}})
    with pytest.raises(UserError, match=r"rare\d+ \(1 group in all\) and \d+ other classes;") as caught:
        assigned(rows)
    assert len(re.findall(r"rare\d+ \(", str(caught.value))) == 5


def test_a_known_class_without_any_image_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    assert "the train split has no image of owl (0 groups in all)" in user_error(tmp_path, labels=["cat", "dog", "owl"])


def test_images_outside_the_known_classes_are_set_aside(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths(), "cow/1.png")
    rows = source.read_rows(str(tmp_path), settings(labels=["cat", "dog"]))
    assert [(row.path, row.reason) for row in rows if row.reason] == [("cow/1.png", "label cow is not in data.labels")]
    assert split_counts(rows).total() == 80


def test_a_group_in_two_splits_is_told_with_both_files(tmp_path: Path) -> None:
    touch(tmp_path, *image_paths())
    lines = [f"{path},{path[:3]},{number},train" for number, path in enumerate(image_paths())]
    lines[0], lines[70] = "cat/00.png,cat,twins,test", "dog/30.png,dog,twins,eval"
    make_manifest(tmp_path, "path,label,group,split", lines)
    assert "group twins is in the splits eval and test (files dog/30.png and cat/00.png)" in user_error(tmp_path)


# Training on the newest spans


def in_spans(count: int, per_span: int = 400) -> list[Row]:
    """Images of two classes, two images a group."""
    return [
        Row(f"{span}/{number}", ("cat" if number // 2 % 2 else "dog",), f"{span}/{number // 2}", "", span=span)
        for span in range(1, count + 1)
        for number in range(per_span)
    ]


def test_training_takes_the_newest_spans_and_a_share_of_the_older_groups() -> None:
    everything = assigned(in_spans(3))
    found = assigned(in_spans(3), spans={"newest": 1, "replay": 0.2})
    train = [path for path, split in everything.items() if split == "train"]
    assert all(found[path] == "train" for path in train if path.startswith("3/"))
    old = [path for path in train if not path.startswith("3/")]
    replayed = {path for path in old if found[path] == "train"}
    assert 0.15 < len(replayed) / len(old) < 0.25
    assert all(found[path] == "" for path in old if path not in replayed)
    groups = {(path[0], int(path[2:]) // 2) for path in replayed}
    assert len(replayed) == 2 * len(groups)


def test_eval_and_test_have_the_images_of_all_spans_and_never_change() -> None:
    everything = assigned(in_spans(3))
    found = assigned(in_spans(3), spans={"newest": 1, "replay": 0.0})
    later = assigned(in_spans(4), spans={"newest": 2, "replay": 0.5})
    for path, split in everything.items():
        if split != "train":
            assert found[path] == later[path] == split


def test_the_same_images_of_a_span_are_replayed_whatever_is_newest() -> None:
    fewer, more = (assigned(in_spans(spans), spans={"newest": 1, "replay": 0.3}) for spans in (3, 5))
    assert [fewer[path] for path in fewer if path[0] in "12"] == [more[path] for path in fewer if path[0] in "12"]


def test_a_class_that_no_used_span_has_in_training_is_told() -> None:
    rows = in_spans(2) + [Row(f"1/owl-{number}", ("owl",), f"owl-{number}", "", span=1) for number in range(100)]
    with pytest.raises(UserError, match="the train split has no image of owl"):
        assigned(rows, spans={"newest": 1, "replay": 0.0})
