"""What TF_CONFIG says is looked at before a run."""

import json

import pytest

from base.errors import UserError
from pipeline.config.whole import Config
from pipeline.local import crossval
from pipeline.local.checks import check_tf_config


def config(**train: object) -> Config:
    return Config.model_validate({"name": "x", "data": {"path": "."}, "train": train})


@pytest.fixture
def name_workers(monkeypatch: pytest.MonkeyPatch):
    def name(index: int) -> None:
        cluster = {"worker": ["a:1", "b:1", "c:1"]}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}))

    return name


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({}, r"train.batch_size \(32\) must be a multiple of 3"),
        ({"batch_size": 30, "budget": "20m"}, "train.budget works on one machine only"),
        ({"batch_size": 30, "xla": True}, "train.xla works on one machine only"),
        ({"batch_size": 30, "accumulate_steps": 2}, "train.accumulate_steps works on one device only"),
    ],
)
def test_what_workers_can_t_train_is_refused(train, told, name_workers):
    name_workers(0)
    with pytest.raises(UserError, match=told):
        check_tf_config(config(**train))


def test_what_they_can_train_is_not_and_neither_is_anything_that_one_process_trains(name_workers, monkeypatch):
    name_workers(0)
    check_tf_config(config(batch_size=30))
    monkeypatch.delenv("TF_CONFIG")
    check_tf_config(config(budget="20m", xla=True))


@pytest.mark.parametrize("batch_sizes", [[30, 32], {"min": 3, "max": 30}])
def test_values_that_the_search_may_find_are_looked_at_too(batch_sizes, name_workers):
    name_workers(0)
    content = config(batch_size=30).content() | {"tune": {"enabled": True, "space": {"train.batch_size": batch_sizes}}}
    with pytest.raises(UserError, match="must be a multiple of 3"):
        check_tf_config(Config.model_validate(content))


def test_a_run_is_for_the_first_machine(name_workers):
    name_workers(2)
    with pytest.raises(UserError, match=r"this is worker 2; start python -m models\.worker here, and fpn run on the first, 0"):
        check_tf_config(config(batch_size=30))


def test_folds_are_not_trained_by_workers(name_workers, tmp_path):
    name_workers(0)
    with pytest.raises(UserError, match="unset TF_CONFIG"):
        crossval.run(config(batch_size=30), tmp_path, 3)
