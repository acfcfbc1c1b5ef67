"""The model that a training starts from is looked at before a run."""

import shutil
from pathlib import Path

import pytest
from saved_models import save_model

from base.errors import UserError
from components.earlier_runs.baseline import find_base_model
from components.pusher.record import Record
from components.pusher.versions import push
from pipeline.config.whole import Config
from pipeline.local import crossval
from pipeline.local.checks import check_warm_start, read_data

NETWORK = {"backbone": "small_resnet10", "min_level": 2, "max_level": 4, "num_filters": 8, "fusion_type": "concat"}


def config(warm_start: object = None, data: str = ".", **sections: object) -> Config:
    image = {"height": 24, "width": 20, "channels": 1}
    content = {"name": "x", "data": {"path": data}, "image": image, "model": NETWORK, **sections}
    return Config.model_validate(content | ({"train": {"warm_start": str(warm_start)}} if warm_start else {}))


def test_the_model_to_start_from_is_the_served_version_or_a_folder(tmp_path: Path) -> None:
    pushed = str(tmp_path / "pushed")
    assert find_base_model(pushed) is None
    old, new = (push(save_model(tmp_path / weights, weights), pushed, Record(), None) for weights in ("old", "new"))
    assert find_base_model(pushed).path == new.path
    assert find_base_model(old.path).path == old.path
    Path(new.path, "saved_model.pb").write_text("damaged")
    assert find_base_model(pushed).path == old.path
    with pytest.raises(UserError, match=r"is damaged .*; give another version"):
        find_base_model(new.path)


def test_blessed_is_where_the_run_pushes_to_and_may_be_empty_yet(exported, tmp_path: Path) -> None:
    check_warm_start(config("blessed"), tmp_path)
    shutil.copytree(exported.path, tmp_path / "pushed" / "17")
    check_warm_start(config("blessed"), tmp_path)
    check_warm_start(config("blessed", push={"path": str(tmp_path / "elsewhere")}), tmp_path)
    other = config("blessed", model=NETWORK | {"max_level": 3})
    with pytest.raises(UserError, match=r"train\.warm_start: .*/pushed/17: has other levels, pyramid or heads"):
        check_warm_start(other, tmp_path)
    with pytest.raises(UserError, match=r"has other levels, pyramid or heads"):
        check_warm_start(config(tmp_path / "pushed", model=NETWORK | {"max_level": 3}), tmp_path / "out")


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.warm_start: .*: no SavedModel here; give the folder that a run has pushed to"):
        check_warm_start(config(tmp_path), tmp_path / "out")


def test_folds_are_not_tested_on_what_the_model_has_seen(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.warm_start: has seen images that folds are tested on; leave it out"):
        crossval.run(config("blessed"), tmp_path, 3)
    spans = Config.model_validate({"name": "x", "data": {"path": "day-{SPAN}", "spans": {}}})
    with pytest.raises(UserError, match=r"data\.spans: folds take the images of all spans; leave it out"):
        crossval.run(spans, tmp_path, 3)


def test_a_run_says_how_many_images_of_older_spans_it_leaves_out(tmp_path: Path) -> None:
    for day in (1, 2):
        for label in ("cat", "dog"):
            for number in range(100):
                path = tmp_path / f"day-{day}" / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    data = {"path": f"{tmp_path}/day-{{SPAN}}", "spans": {"newest": 1, "replay": 0.1}}
    found, _ = read_data(Config.model_validate({"name": "x", "data": data}))
    left_out = sum(not row.split for row in found.rows)
    used = sum(row.split == "train" for row in found.rows)
    assert 130 < left_out < 160
    assert f"Data: {left_out} images of older spans are left out, {used} are in the train split (data.spans)" in found.notes
