"""The model that a candidate is compared with: what is served where it would be pushed to."""

import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from saved_models import save_model

from base.errors import UserError
from components.earlier_runs.baseline import find_baseline
from components.pusher.classes import check_classes
from components.pusher.record import CHECKSUM_FILE, OLD_RECORD_FILE, RECORD_FILE, Record, parse_record
from components.pusher.versions import push


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "pushed")


@pytest.fixture
def candidate(tmp_path: Path) -> str:
    return save_model(tmp_path / "candidate", "new")


def put(tmp_path: Path, weights: str, classes: tuple[str, ...] = ("cat", "dog"), record: Record | None = None) -> Path:
    return Path(push(save_model(tmp_path / weights, weights, classes), str(tmp_path / "pushed"), record or Record(), None).path)


def found(folder: str, candidate: str) -> Path | None:
    baseline = find_baseline(folder, candidate)
    return Path(baseline.path) if baseline else None


def test_the_newest_version_that_is_not_the_candidate_is_the_baseline(tmp_path: Path, folder: str, candidate: str) -> None:
    assert found(folder, candidate) is None
    first = put(tmp_path, "old")
    assert found(folder, candidate) == first
    second = put(tmp_path, "new")
    assert found(folder, candidate) == first
    (Path(folder) / f"{int(second.name) + 1}").mkdir()  # being pushed
    assert found(folder, save_model(tmp_path / "another", "newer")) == second


def test_a_copy_of_the_candidate_with_other_assets_is_the_candidate(tmp_path: Path, folder: str, candidate: str) -> None:
    shutil.copytree(candidate, tmp_path / "with formats")
    (tmp_path / "with formats" / "assets.extra").mkdir()
    (tmp_path / "with formats" / "assets.extra" / "model.tflite").write_text("more")
    push(str(tmp_path / "with formats"), folder, Record(), None)
    assert found(folder, candidate) is None


@pytest.mark.parametrize("damaged", ["saved_model.pb", "variables/variables.index", RECORD_FILE])
def test_a_damaged_version_is_passed_over(tmp_path: Path, folder: str, candidate: str, damaged: str) -> None:
    first, second = put(tmp_path, "old"), put(tmp_path, "newer")
    assert found(folder, candidate) == second
    (second / damaged).write_text("x")
    assert found(folder, candidate) == first


@pytest.mark.parametrize("told_by", ["record", "labels"])
def test_a_model_with_other_classes_is_no_baseline(tmp_path: Path, folder: str, candidate: str, told_by: str) -> None:
    record = Record(classes=["cow", "dog"]) if told_by == "record" else None
    put(tmp_path, "older")
    put(tmp_path, "old", ("cat", "dog") if record else ("cow", "dog"), record)
    assert found(folder, candidate) is None


def test_the_same_classes_in_another_order_are_the_same(tmp_path: Path, folder: str, candidate: str) -> None:
    version = put(tmp_path, "old", ("dog", "cat"))
    assert found(folder, candidate) == version
    assert check_classes(folder, ["cat", "dog"], replace=False) == ""


class Other(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, images):
        return {"scores": tf.zeros_like(images, tf.float32)}


@pytest.mark.parametrize("labels", [None, "cat\ndog\n"])
def test_a_model_of_another_program_can_not_be_compared(
    tmp_path: Path, folder: str, candidate: str, labels: str | None
) -> None:
    model = Other()
    tf.saved_model.save(model, f"{folder}/7", signatures={"serving_default": model.__call__})
    if labels:
        (Path(folder) / "7" / "assets" / "labels").write_text(labels)
    assert found(folder, candidate) is None
    with pytest.raises(UserError, match="7, which is served, has other classes than this model"):
        check_classes(folder, ["cat", "dog"], replace=False)
    assert check_classes(folder, ["cat", "dog"], replace=True) == "its classes are not known"


def test_other_classes_are_told_by_name(tmp_path: Path, folder: str) -> None:
    names = tuple(f"class {number}" for number in range(10, 20))
    assert check_classes(folder, names, replace=False) == ""  # nothing is served
    version = put(tmp_path, "old", names)
    expected = "cat, dog new; class 10, class 11, class 12, class 13, class 14 and 5 more gone"
    with pytest.raises(UserError) as raised:
        check_classes(folder, ["dog", "cat"], replace=False)
    cure = "give another push.path, or push.replace: true"
    assert str(raised.value) == (
        f"{folder}: {version.name}, which is served, has other classes than this model ({expected}); {cure}"
    )
    assert check_classes(folder, ["dog", "cat"], replace=True) == expected


def test_what_damage_leaves_of_a_version_still_tells_its_classes(tmp_path: Path, folder: str) -> None:
    version = put(tmp_path, "old")
    (version / RECORD_FILE).write_text("{")
    assert check_classes(folder, ["cat", "dog"], replace=False) == ""
    with pytest.raises(UserError, match="cow new; cat, dog gone"):
        check_classes(folder, ["cow"], replace=False)
    (version / "assets" / "labels").unlink()  # now it stops nobody who comes to repair it
    assert check_classes(folder, ["cow"], replace=False) == ""


def test_a_record_of_an_earlier_release_names_no_classes(tmp_path: Path, folder: str, candidate: str) -> None:
    version = put(tmp_path, "old", record=Record(classes=["cat", "dog"]))
    record = parse_record((version / RECORD_FILE).read_bytes())
    for name in (RECORD_FILE, CHECKSUM_FILE):
        (version / name).unlink()
    (version / "assets.extra").mkdir(exist_ok=True)
    (version / OLD_RECORD_FILE).write_text(json.dumps({"time": record.time, "digest": record.digest}))
    assert found(folder, candidate) == version
    assert check_classes(folder, ["cat", "dog"], replace=False) == ""
