"""The Trainer fits on its own images how unusual others are."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score
from tfx.components.trainer.fn_args_utils import FnArgs
from tiny_training import CONFIG, EXAMPLES, PICTURES, arguments, write_transformed

from models import features
from models.training import run_fn
from models.unusual import UNUSUAL_FILE
from pipeline.config.whole import Config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_transformed(folder)
    values = CONFIG.model_dump(exclude_unset=True) | {"calibrate": {"unusual": {"cutoff": 99.0}}}
    run_fn(FnArgs(**arguments(folder, folder, folder / "checkpoints", Config.model_validate(values))))
    return folder


def answer(trained, pictures):
    files = [tf.io.encode_png(tf.constant(picture, tf.uint8)).numpy() for picture in pictures]
    answers = tf.saved_model.load(str(trained / "model")).signatures["serving_default"](tf.constant(files))
    return {name: value.numpy() for name, value in answers.items()}


def test_noise_is_more_unusual_than_the_data(trained):
    random = np.random.default_rng(1)
    noise = [random.integers(0, 256, (16, 16, 1)) for _ in range(100)]
    stripes = [np.tile([[[0], [255]]], (16, 8, 1)) * (number + 1) // 100 for number in range(50, 100)]
    inside = answer(trained, PICTURES)
    for others, least in ((noise, 0.8), (stripes, 0.9)):  # the data is noise as well, but darker
        outside = answer(trained, others)
        scores = [inside["unusual"], outside["unusual"]]
        truth = np.repeat([0, 1], [len(part) for part in scores])
        assert roc_auc_score(truth, np.concatenate(scores)) > least
    assert np.mean(inside["unusual"]) == pytest.approx(50, abs=1)  # the pictures are the eval split as well
    assert np.mean(inside["unusual"] <= 25) == pytest.approx(0.25, abs=0.02)
    for answers in (inside, outside):
        np.testing.assert_array_equal(answers["label"] == b"unknown", answers["unusual"] > 99)


def test_the_run_keeps_what_was_fitted_and_the_model_a_sample(trained):
    kept = json.loads((trained / "log" / UNUSUAL_FILE).read_text())
    assert (kept["examples"], kept["training_examples"], kept["cutoff"]) == (EXAMPLES, EXAMPLES, 99.0)
    assert kept["quantiles"] == sorted(kept["quantiles"])
    assert len(kept["quantiles"]) == 201
    rows = pq.read_table(trained / "model" / features.REFERENCE).to_pylist()
    assert len(rows) == EXAMPLES
    inside = answer(trained, PICTURES)
    np.testing.assert_allclose([row["unusual"] for row in rows], inside["unusual"], atol=0.6)
    assert sum(row["label"] == label.decode() for row, label in zip(rows, inside["label"], strict=True)) >= EXAMPLES - 2
    assert {row["true"] for row in rows} == {"a dark one", "bright"}
