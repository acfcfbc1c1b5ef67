"""How cross-validation deals groups to folds, what it refuses, and how it sums up."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from base.errors import UserError
from evaluation.results import Evaluation, Metric, Slice
from images.dataset import source
from images.settings import SourceSettings
from pipeline.config.data import DataConfig
from pipeline.config.loading import load_config
from pipeline.dag.component_settings import source_settings
from pipeline.dag.splits import fold_splits
from pipeline.local.crossval import run, spread
from pipeline.records.results import SliceSpread, Spread
from pipeline.terminal.crossval import render_crossval


def settings(folds: int, **changes: Any) -> SourceSettings:
    return source_settings(DataConfig(path="", **changes), folds=folds)


def make_data(folder: Path, lines: list[tuple[str, ...]], header: str = "path,label,group") -> str:
    """A manifest, and files that nobody opens. Lines lack the path."""
    folder.mkdir(parents=True, exist_ok=True)
    table = [header]
    for number, line in enumerate(lines):
        (folder / f"{number}.png").write_bytes(b"not opened")
        table.append(",".join([f"{number}.png", *line]))
    (folder / "manifest.csv").write_text("\n".join(table) + "\n")
    return str(folder)


def folds_of(rows: list[source.Row]) -> dict[str, set[str]]:
    """Group -> the folds that it is in."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.group, set()).add(row.split)
    return found


def crossval_error(folder: str, tmp_path: Path, folds: int) -> str:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"name": "trial", "data": {"path": folder}, "model": {"backbone": "small_resnet10"}}))
    with pytest.raises(UserError) as caught:
        run(load_config(config), tmp_path / "out", folds)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


# Which group goes where


@pytest.mark.parametrize("folds", [3, 5, 7])
def test_no_group_is_in_two_folds_and_each_image_in_one(folds: int, tmp_path: Path) -> None:
    sizes = np.random.default_rng(0).integers(1, 9, 40)
    lines = [(("cat", "dog")[group % 2], f"g{group}") for group, size in enumerate(sizes) for _ in range(size)]
    rows = source.read_rows(make_data(tmp_path, lines), settings(folds))
    assert sorted(row.path for row in rows) == sorted(f"{number}.png" for number in range(len(lines)))
    assert all(len(found) == 1 for found in folds_of(rows).values())
    assert {row.split for row in rows} == {f"fold_{number}" for number in range(1, folds + 1)}


def test_folds_hold_equal_shares_of_each_class(tmp_path: Path) -> None:
    lines = [
        (label, f"{label}{number // 3}") for label, count in (("cat", 300), ("dog", 60), ("eel", 15)) for number in range(count)
    ]
    counts = Counter((row.split, row.labels[0]) for row in source.read_rows(make_data(tmp_path, lines), settings(5)))
    for fold in range(1, 6):
        assert [counts[f"fold_{fold}", label] for label in ("cat", "dog", "eel")] == [60, 12, 3]


def test_groups_of_several_classes_and_sizes_are_spread_about_evenly(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    lines = [
        (str(random.choice(["cat", "dog", "eel"], p=[0.7, 0.2, 0.1])), f"g{group}")
        for group in range(60)
        for _ in range(random.integers(1, 20))
    ]
    counts = Counter((row.split, row.labels[0]) for row in source.read_rows(make_data(tmp_path, lines), settings(4)))
    for label, total in Counter(label for label, _ in lines).items():
        for fold in range(1, 5):
            assert counts[f"fold_{fold}", label] == pytest.approx(total / 4, rel=0.1, abs=1.5)


def test_as_many_groups_as_folds_fill_a_fold_each(tmp_path: Path) -> None:
    lines = [(label, f"g{group}") for group in range(5) for label in ("cat", "dog") for _ in range(1 + 4 * group)]
    found = folds_of(source.read_rows(make_data(tmp_path, lines), settings(5)))
    assert len(set.union(*found.values())) == 5


def test_images_given_as_test_are_in_no_fold_and_those_of_train_and_eval_are(tmp_path: Path) -> None:
    lines = [(("cat", "dog")[n % 2], f"g{n}", ("train", "train", "eval", "eval", "test")[n % 5]) for n in range(50)]
    rows = source.read_rows(make_data(tmp_path, lines, "path,label,group,split"), settings(3))
    assert {row.path for row in rows if row.split == "test"} == {f"{n}.png" for n in range(50) if n % 5 == 4}
    assert Counter(row.split[:5] for row in rows) == {"fold_": 40, "test": 10}


def test_images_without_a_class_are_spread_too(tmp_path: Path) -> None:
    lines = [("cat" if number < 6 else "", "") for number in range(36)]
    rows = source.read_rows(make_data(tmp_path, lines), settings(3, multi_label=True))
    assert Counter((row.split, row.label) for row in rows if not row.labels) == {(f"fold_{n}", ""): 10 for n in (1, 2, 3)}


# Roles


@pytest.mark.parametrize("folds", [3, 5])
def test_every_fold_is_tested_once_watched_once_and_never_beside_training(folds: int) -> None:
    runs = [fold_splits(number, folds) for number in range(1, folds + 1)]
    names = {f"fold_{number}" for number in range(1, folds + 1)}
    assert {splits.test for splits in runs} == {(name,) for name in names}
    assert {splits.eval for splits in runs} == {(name,) for name in names}
    for splits in runs:
        assert sorted(splits.train + splits.eval + splits.test) == sorted(names)
    assert (runs[-1].test, runs[-1].eval) == ((f"fold_{folds}",), ("fold_1",))


# Mistakes, told before anything runs


def test_fewer_than_three_folds_are_refused(tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data", [("cat", ""), ("dog", "")] * 6)
    assert crossval_error(folder, tmp_path, 2).startswith("--folds 2: give 3 or more")


def test_fewer_groups_than_folds_are_refused(tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data", [(label, f"g{group}") for group in range(4) for label in ("cat", "dog")])
    text = crossval_error(folder, tmp_path, 5)
    assert text == f"{folder}: 4 groups can't fill 5 folds; give more groups, or fewer folds (--folds)"


@pytest.mark.parametrize("owls", [1, 2])
def test_a_class_that_a_fold_would_not_learn_is_named_with_the_fold(owls: int, tmp_path: Path) -> None:
    lines = [(label, f"{label}{group}") for label in ("cat", "dog") for group in range(6) for _ in range(3)]
    folder = make_data(tmp_path / "data", lines + [("owl", f"owl{n}") for n in range(owls) for _ in range(2)])
    text = crossval_error(folder, tmp_path, 3)
    rows = source.read_rows(folder, settings(3))
    found = {row.split for row in rows if row.label == "owl"}
    first = next(number for number in (1, 2, 3) if found.isdisjoint(fold_splits(number, 3).train))
    assert f"fold {first} would train without the class owl, whose images are all in {' and '.join(sorted(found))};" in text
    assert len(text.splitlines()) == 1


# Summing up


def fold(accuracy: float, slices: dict[str, tuple[int, float]]) -> Evaluation:
    found = [
        Slice((), 10, 10, {"accuracy": Metric(accuracy)}),
        *(Slice((("size", name),), n, n, {"accuracy": Metric(value)}) for name, (n, value) in slices.items()),
    ]
    return Evaluation(["cat", "dog"], False, "none", found)


def test_mean_and_sample_standard_deviation_are_those_of_numpy() -> None:
    values = [0.91, 0.87, 0.955, 0.9]
    (overall,) = spread([fold(value, {}) for value in values])
    assert overall.name == "all examples"
    assert overall.examples == [10, 10, 10, 10]
    assert overall.metrics["accuracy"].folds == values
    assert overall.metrics["accuracy"].mean == pytest.approx(np.mean(values))
    assert overall.metrics["accuracy"].sd == pytest.approx(np.std(values, ddof=1))


def test_a_slice_that_a_fold_does_not_have_counts_in_the_others_only() -> None:
    folds = [fold(0.9, {"small": (4, 0.5), "rare": (1, 1.0)}), fold(0.8, {"small": (6, 0.75)}), fold(0.7, {"small": (5, 1.0)})]
    _, rare, small = spread(folds)
    assert (rare.name, rare.examples) == ("size=rare", [1, 0, 0])
    assert (rare.metrics["accuracy"].mean, rare.metrics["accuracy"].sd) == (1.0, None)
    assert rare.metrics["accuracy"].folds == [1.0, None, None]
    assert small.metrics["accuracy"].mean == pytest.approx(0.75)
    assert small.metrics["accuracy"].sd == pytest.approx(0.25)


def test_a_slice_that_is_too_small_in_a_fold_counts_in_the_others_only() -> None:
    folds = [fold(0.9, {"small": (9, 0.0)}), fold(0.8, {"small": (12, 0.75)}), fold(0.7, {"small": (15, 0.25)})]
    folds[0].slices[1].metrics.clear()
    _, small = spread(folds)
    assert small.examples == [9, 12, 15]
    assert small.metrics["accuracy"].folds == [None, 0.75, 0.25]
    assert small.metrics["accuracy"].mean == pytest.approx(0.5)


def test_tables_of_many_metrics_are_as_wide_as_the_folds() -> None:
    names = ["accuracy", "balanced_accuracy", "f1", "precision", "auc", "auc_pr", "matthews", "cross_entropy"]
    overall = SliceSpread("all examples", [10] * 5, {name: Spread(0.9, 0.01, [0.9] * 5) for name in names})
    empty = SliceSpread("size=small", [0, 0, 0, 0, 9], {})
    file = io.StringIO()
    Console(file=file, width=100).print(render_crossval([overall, empty]))
    assert max(map(len, file.getvalue().splitlines())) <= 100
    assert "…" not in file.getvalue()
    for name in names:
        assert f"│ {name} " in file.getvalue()
