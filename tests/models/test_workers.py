"""Several processes of this machine train one model over loopback."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from worker_processes import PROJECT, environment, free_addresses

from models import workers
from pipeline.config.network import TrainConfig
from pipeline.dag.component_settings import train_settings

PROGRAM = """
import json, sys
sys.path.insert(0, "tests/models")
from models import workers
strategy = workers.Workers() if workers.are_named() else None
import tensorflow as tf
import test_training as test
from models.augmentation import build_augmentation
from pipeline.config.network import AugmentConfig
from pipeline.dag.component_settings import augment_settings
strategy = strategy or tf.distribute.get_strategy()
settings, changes, epochs = json.loads(sys.argv[1])
with strategy.scope():
    model = test.tiny_model()
    model.layers[-2].rate = 0.0  # each worker draws its own random numbers
augment = build_augmentation(augment_settings(AugmentConfig(**changes)), 3)
batches = test.training.build_batches(
    test.DATA, examples=32, batch_size=8, seed=7, cache_bytes=2**30, augment=augment
)
config = test.replace(test.CONFIG, **{"epochs": epochs, "clip_norm": 0.1, "ema": 0.5, "weight_decay": 0.1, **settings})
evaluation = test.DATA.take(29).batch(8)  # whose last batch has shares of different sizes
history = test.training.fit(model, strategy, batches, evaluation, 4, config, sys.argv[2])
print(json.dumps(history))
"""


def train(folder, count, **arguments):
    """The history of `count` workers, each of which must have the same; 0: one process without TF_CONFIG."""
    given = json.dumps([arguments.get("settings", {}), arguments.get("changes", {}), arguments.get("epochs", 3)])
    addresses = free_addresses(count)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, given, str(folder / f"{count}-{index}")],
            env=environment(addresses, index),
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(max(count, 1))
    ]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    for _, errors, status in ended:
        assert status == 0, errors[-3000:]
    first, *others = [json.loads(output.splitlines()[-1]) for output, _, _ in ended]
    for other in others:
        assert other == first
    assert [path.name for path in folder.iterdir() if path.name.startswith(f"{count}-")] == [f"{count}-0"]
    return first


def curves(history):
    return np.array([[row[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy", "val_f1")] for row in history])


@pytest.mark.extra
def test_two_workers_train_to_the_losses_of_one(tmp_path):
    alone, two = train(tmp_path, 0, epochs=2), train(tmp_path, 2, epochs=2)
    np.testing.assert_allclose(curves(two), curves(alone), rtol=0, atol=1e-4)


@pytest.mark.extra
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_two_and_four_workers_train_to_the_losses_of_one_with_augmentation(optimizer, tmp_path):
    changes = {"flip": "both", "shift": 0.1, "contrast": 0.2, "mixup": 0.2}
    given = {"epochs": 6, "settings": {"optimizer": optimizer, "layer_decay": 0.5}, "changes": changes}
    # The gradient of a bias before a batch normalisation is rounding errors, of which Muon's Adam makes steps. Training takes
    # them out again, evaluation does not.
    tolerance = 1e-4 if optimizer == "sgd" else [1e-4, 1e-4, 2e-3, 1e-4, 1e-4]
    alone = curves(train(tmp_path, 0, **given))
    for count in (2, 4):
        assert (np.abs(curves(train(tmp_path, count, **given)) - alone) < tolerance).all()


def tf_config(workers, index):
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


@pytest.mark.parametrize(
    "given",
    [
        *("", "{", "[]"),
        *(tf_config(["a:1", "b:1"], index) for index in (2, -1, 0.5, True)),
        *(
            tf_config(named, 0)
            for named in ("localhost", [1, 2], ["a", "b"], ["a:1", "b:x"], ["a:1", "b:99999"], ["a:1", "a:1"])
        ),
    ],
)
def test_a_tf_config_that_can_t_be_used_is_told(given, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(workers.WorkersError, match="TF_CONFIG: must be such as"):
        workers.are_named()


def test_without_tf_config_or_with_one_worker_a_process_trains_alone(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert not workers.are_named()
    for cluster in ({"worker": ["a:1"]}, {"chief": ["a:1"]}, {"workerpool0": ["a:1"]}, {}):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "environment": "cloud"}))
        assert not workers.are_named()
    strategy = tf.distribute.get_strategy()
    assert workers.is_chief(strategy)
    assert workers.from_chief(strategy, b"content") == b"content"


def test_what_several_workers_can_t_train_is_refused():
    strategy = object.__new__(workers.Workers)
    strategy.__dict__["_extended"] = type("Extended", (), {"_num_replicas_in_sync": 4})()
    workers.check(strategy, train_settings(TrainConfig()), 32)
    with pytest.raises(workers.WorkersError, match=r"train.batch_size \(30\) must be a multiple of 4"):
        workers.check(strategy, train_settings(TrainConfig()), 30)
    for setting in ({"budget": "20m"}, {"xla": True}):
        with pytest.raises(workers.WorkersError, match=rf"train\.{next(iter(setting))} works on one machine only"):
            workers.check(strategy, train_settings(TrainConfig(**setting)), 32)
