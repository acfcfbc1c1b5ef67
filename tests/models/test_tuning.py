"""The search for hyperparameters; what a trial trains is played by a stand-in, see tests/e2e/test_search.py for the rest."""

import logging
import math

import keras_tuner
import pytest
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from models import tuning
from models.budget import BudgetError
from models.packing import as_dict
from pipeline.config.whole import Config
from pipeline.dag.component_settings import tuner_settings

SPACE = {
    "train.learning_rate": {"min": 1e-4, "max": 1e-1, "log": True},
    "model.num_filters": {"min": 4, "max": 6, "log": False},
    "train.freeze_batch_norm": [True, False],
    "train.optimizer": ["adamw", "sgd"],
}


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Runs a search; `score` says how good a configuration is."""

    def run(score, space=SPACE, trials=8, algorithm="random", monitor="loss", seed=0, folder="search"):
        class Model:
            def __init__(self, config):
                self.config = config

            def evaluate(self, batches, **_):
                assert len(batches.element_spec) == 2  # no groups, which Keras would take for weights
                return {"loss": 9.0, "accuracy": 0.0, monitor: score(self.config)}

        batches = tf.data.Dataset.from_tensors(("images", "labels", "groups"))
        monkeypatch.setattr(tuning.keras.utils, "clear_session", lambda: None)  # a second each
        monkeypatch.setattr(tuning, "train_model", lambda fn_args, config, log_dir: (Model(config), batches))
        train = {"monitor": monitor, "seed": seed}
        tune = {"trials": trials, "algorithm": algorithm, "space": space}
        config = as_dict(
            tuner_settings(Config.model_validate({"name": "x", "data": {"path": "."}, "train": train, "tune": tune}))
        )
        result = tuning.tuner_fn(FnArgs(working_dir=str(tmp_path / folder), custom_config=config))
        result.tuner.search(**result.fit_kwargs)
        return result.tuner

    return run


def tried(tuner):
    return [trial.hyperparameters.values for trial in tuner.oracle.trials.values()]


def far_from_a_hundredth(config):
    return abs(math.log10(config.train.learning_rate) + 2)


def test_the_values_tried_are_of_the_space_and_the_best_ones_win(search):
    tuner = search(far_from_a_hundredth, trials=16)
    values = tried(tuner)
    assert len(values) == 16
    assert {type(item["train.freeze_batch_norm"]) for item in values} == {bool}
    for key in ("train.freeze_batch_norm", "train.optimizer"):
        assert {item[key] for item in values} == set(SPACE[key])
    assert {item["model.num_filters"] for item in values} == {4, 5, 6}
    rates = [item["train.learning_rate"] for item in values]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert sum(rate < 3e-3 for rate in rates) >= 4  # half of the orders of magnitude, not 3 % of the range
    best = tuner.get_best_hyperparameters()[0].values["train.learning_rate"]
    assert abs(math.log10(best) + 2) == min(abs(math.log10(rate) + 2) for rate in rates)


def test_the_bayesian_search_looks_near_what_was_good(search):
    space = {"train.learning_rate": SPACE["train.learning_rate"]}
    tuner = search(far_from_a_hundredth, space, trials=5, algorithm="bayesian")
    rates = [values["train.learning_rate"] for values in tried(tuner)]
    assert len(set(rates)) == 5
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    random = [abs(math.log10(rate) + 2) for rate in rates[:3]]
    proposed = [abs(math.log10(rate) + 2) for rate in rates[3:]]
    assert min(proposed) < min(random)


def test_the_seed_decides_what_is_tried(search):
    first, again, other = (search(far_from_a_hundredth, seed=seed, folder=str(index)) for index, seed in enumerate([0, 0, 1]))
    assert tried(first) == tried(again)
    assert tried(first) != tried(other)


def test_a_higher_accuracy_is_better(search):
    space = {"model.num_filters": [4, 8, 16]}
    tuner = search(lambda config: config.model.num_filters / 16, space, monitor="accuracy")
    assert tuner.get_best_hyperparameters()[0].values == {"model.num_filters": 16}
    assert len(tuner.oracle.trials) == 3  # the space has no more


def test_trials_that_fail_do_not_end_the_search(search, caplog):
    def score(config):
        if config.model.num_filters < 20:
            raise MemoryError("out of memory")
        return {20: math.nan, 30: math.inf, 40: 0.2, 50: 0.1}[config.model.num_filters]

    logging.getLogger("models").setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    space = {"model.num_filters": [1, 2, 3, 4, 5, 20, 30, 40, 50]}
    tuner = search(score, space, trials=9)
    assert len(tuner.oracle.trials) == 9
    assert tuner.get_best_hyperparameters()[0].values == {"model.num_filters": 50}
    shown = [record.progress["text"] for record in caplog.records if hasattr(record, "progress")]
    assert sum("failed" in text for text in shown) == 7
    assert shown[-1].startswith("trial 9/9  ")
    assert shown[-1].endswith("  best eval loss 0.100")
    assert "MemoryError: out of memory" in caplog.text
    assert "the eval loss is nan" in caplog.text


def test_a_search_without_any_result_ends_with_the_reason(search):
    def score(config):
        raise MemoryError("out of memory")

    with pytest.raises(tuning.TuningError, match="all 8 trials have failed, the first with MemoryError: out of memory"):
        search(score)


def test_progress_of_a_training_is_shown_as_progress_of_the_search():
    record = logging.makeLogRecord({"levelno": logging.INFO, "progress": {"done": 5, "total": 10, "text": "epoch 1/2"}})
    assert tuning._InSearch(2, 10, "  best eval loss 0.123").filter(record)
    assert record.progress == {"done": 2.5, "total": 10, "text": "trial 3/10  best eval loss 0.123  epoch 1/2"}
    assert record.levelno == logging.DEBUG


def test_a_budget_that_is_too_short_for_a_trial_ends_the_search(search):
    def too_short(config):
        raise BudgetError("train.budget: 3 s are too short")

    with pytest.raises(keras_tuner.errors.FatalError, match="3 s are too short") as raised:
        search(too_short)
    assert isinstance(raised.value.__cause__, BudgetError)
