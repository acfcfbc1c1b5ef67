"""The teacher is looked at before a run, and its version becomes part of the run's configuration."""

import shutil
from pathlib import Path

import pytest
from data_folders import image_paths, touch
from saved_models import save_model

from base.errors import UserError
from components.pusher.record import Record
from components.pusher.versions import push
from models.export import export_image_settings
from pipeline.config.whole import Config
from pipeline.dag.component_settings import image_settings, trainer_settings
from pipeline.local import crossval
from pipeline.local.checks import check_teacher, find_teacher, read_data


def config(teacher: object, **sections: object) -> Config:
    return Config.model_validate({"name": "x", "data": {"path": "."}, "train": {"teacher": str(teacher)}, **sections})


@pytest.fixture
def pushed(tmp_path: Path) -> Path:
    for weights in ("old", "new"):
        push(save_model(tmp_path / weights, weights), str(tmp_path / "out" / "pushed"), Record(), None)
    return tmp_path / "out" / "pushed"


def test_the_served_version_is_the_teacher(pushed: Path, tmp_path: Path) -> None:
    old, new = sorted(path for path in pushed.iterdir() if path.is_dir())
    assert find_teacher(config(pushed), tmp_path / "other").train.teacher == str(new)
    assert find_teacher(config(old), tmp_path / "out").train.teacher == str(old)
    (new / "saved_model.pb").write_text("damaged")
    assert find_teacher(config(pushed), tmp_path / "other").train.teacher == str(old)
    for key, folder in (("a", "gs://bucket/pushed/1"), ("b", None)):
        given = Config.model_validate({"name": key, "data": {"path": "."}, "train": {"teacher": folder}})
        assert find_teacher(given, tmp_path) == given


def test_a_run_does_not_learn_from_what_it_has_pushed_itself(pushed: Path, tmp_path: Path) -> None:
    told = "is where this run pushes its own model; name a version in it, or give another --output"
    with pytest.raises(UserError, match=told):
        find_teacher(config(pushed), tmp_path / "out")
    with pytest.raises(UserError, match=told):
        find_teacher(config(f"{pushed}/", push={"path": str(pushed)}), tmp_path / "other")


def test_a_folder_without_a_model_is_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^train\.teacher: .*no SavedModel here; give the folder that a run has pushed to"):
        find_teacher(config(tmp_path), tmp_path / "out")
    (tmp_path / "[1]").mkdir()
    with pytest.raises(UserError, match=r"train\.teacher: .* takes \[ in a path for a pattern"):
        find_teacher(config(tmp_path / "[1]"), tmp_path / "out")


def test_a_teacher_that_does_not_fit_is_told_before_anything_runs(exported, tmp_path: Path) -> None:
    given = config(exported.path, image={"height": 24, "width": 20, "channels": 1})
    with pytest.raises(UserError, match=r"train\.teacher: .* can't be used"):
        check_teacher(given)
    folder = shutil.copytree(exported.path, tmp_path / "teacher")
    export_image_settings(image_settings(given.image), str(folder))
    check_teacher(config(folder, image={"height": 24, "width": 20, "channels": 1}))
    with pytest.raises(UserError, match=r"its image\.channels is 1 and not 3"):
        check_teacher(config(folder, image={"height": 24, "width": 20, "channels": 3}))


def test_a_teacher_of_other_classes_is_told_before_an_image_is_opened(tmp_path: Path) -> None:
    touch(tmp_path / "data", *image_paths())
    data = {"path": str(tmp_path / "data"), "splits": {"stratify": True}}
    read_data(config(save_model(tmp_path / "right", "", ("dog", "cat")), data=data))
    with pytest.raises(UserError, match="its classes and those of the training split differ in cow, dog; give a teacher"):
        read_data(config(save_model(tmp_path / "wrong", "", ("cow", "cat")), data=data))


def test_folds_are_not_tested_on_what_a_teacher_has_seen(pushed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has seen images that folds are tested on; leave it out"):
        crossval.run(config(pushed), tmp_path, 3)


def test_a_teacher_that_has_changed_trains_again(tmp_path: Path) -> None:
    codes = [trainer_settings(config(tmp_path / "model"), "").code]  # it is elsewhere, as for a compiled pipeline
    for weights in ("one", "one", "two"):
        save_model(tmp_path / "model", weights)
        codes.append(trainer_settings(config(tmp_path / "model"), "").code)
    assert codes[1] == codes[2]
    assert len(set(codes)) == 3
