"""The Trainer's `run_fn`: killed and started again, and with a teacher."""

import csv
import json
import logging
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs
from tiny_training import CONFIG, EXAMPLES, LABELS, PICTURES, arguments, write_transformed
from worker_processes import PROJECT, environment, free_addresses

from models import training
from models.abstention import ClassNameError
from models.checkpoints import load_checkpoint
from models.training import run_fn, train_model
from pipeline.config.whole import Config
from pipeline.dag.component_settings import trainer_settings


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformed")
    write_transformed(folder)
    return folder


def read_history(run):
    path = run / "log" / "history.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_a_run_killed_in_its_third_epoch_goes_on_and_ends_as_if_it_had_not_been(transformed, starter, tmp_path, caplog):
    whole, killed, resumed = (tmp_path / name for name in ("whole", "killed", "resumed"))
    checkpoints = tmp_path / "checkpoints"
    program = f"""
import json
from tfx.components.trainer.fn_args_utils import FnArgs
from models.training import run_fn
run_fn(FnArgs(**json.loads({json.dumps(arguments(transformed, killed, checkpoints))!r})))
"""
    process = starter.execute(program)
    while process.runs and len(read_history(killed)) < 2:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.screen[-2000:]
    (folder,) = checkpoints.iterdir()
    assert len(load_checkpoint(str(folder)).history) == 2

    with caplog.at_level(logging.INFO, logger="models.callbacks"):
        run_fn(FnArgs(**arguments(transformed, resumed, checkpoints)))
    progress = [record.progress for record in caplog.records if hasattr(record, "progress")]
    steps = EXAMPLES // CONFIG.train.batch_size
    assert [item["done"] for item in progress] == [3 * steps, 4 * steps]
    assert {item["total"] for item in progress} == {4 * steps}
    assert (resumed / "model" / "saved_model.pb").exists()
    assert not list(checkpoints.iterdir())

    settings = trainer_settings(CONFIG, str(checkpoints))
    train_model(FnArgs(**arguments(transformed, whole, checkpoints)), settings, str(whole / "log"))
    history = read_history(resumed)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    for row, expected in zip(history, read_history(whole), strict=True):
        assert row == pytest.approx(expected, abs=1e-3)


@pytest.mark.extra
def test_a_step_that_does_not_fit_into_the_memory_is_trained_in_halves(transformed, tmp_path, caplog, monkeypatch):
    def config(**train):
        return Config.model_validate(
            CONFIG.model_dump(exclude_unset=True) | {"train": {"epochs": 1, "frozen_epochs": 1, **train}}
        )

    build_loss, phases = training.build_loss, []

    def build_greedy_loss(*arguments, **keywords):
        """Of more than 150 images in the second phase, it needs 64 TiB."""
        loss = build_loss(*arguments, **keywords)
        phases.append(keywords)
        if len(phases) != 2:
            return loss
        return lambda labels, logits: loss(labels, logits + tf.reduce_mean(greedy(tf.shape(labels)[0] > 150)))

    def greedy(needs_much):
        return tf.cond(
            needs_much,
            lambda: tf.raw_ops.Empty(shape=[2**20, 2**20, 16], dtype=tf.float32, init=True),
            lambda: tf.zeros((1, 1, 1)),
        )

    monkeypatch.setattr(training, "build_loss", build_greedy_loss)
    checkpoints = tmp_path / "checkpoints"
    run_fn(FnArgs(**arguments(transformed, tmp_path / "halves", checkpoints, config(batch_size=1000))))
    assert len(phases) == 4
    assert [
        record.getMessage() for record in caplog.records if record.name == "models.training" and record.levelname == "WARNING"
    ] == [f"a step of {EXAMPLES} images needs more memory than there is: trained with 128 at a time, 2 for an update"]
    assert not list(checkpoints.iterdir())

    given = FnArgs(**arguments(transformed, tmp_path / "given", checkpoints))
    settings = trainer_settings(config(batch_size=128, accumulate_steps=2), str(checkpoints))
    train_model(given, settings, str(tmp_path / "given" / "log"))
    for row, expected in zip(read_history(tmp_path / "halves"), read_history(tmp_path / "given"), strict=True):
        assert row == pytest.approx(expected, abs=1e-3)


@pytest.mark.extra
def test_a_student_answers_as_its_teacher_and_is_exported_without_it(transformed, tmp_path):
    def trained(name, **train):
        sections = CONFIG.model_dump(exclude_unset=True)
        given = sections["train"] | {"class_weights": "none", "ema": 0.0} | train
        config = Config.model_validate({**sections, "train": given, "calibrate": {"temperature": False}})
        run_fn(FnArgs(**arguments(transformed, tmp_path / name, tmp_path / "checkpoints", config)))
        return str(tmp_path / name / "model")

    # Two of three labels count for nothing in the teacher's loss, so its answers are far from those of a plain training.
    teacher = trained("teacher", epochs=2, label_smoothing=0.66)
    models = [teacher, trained("student", teacher=teacher, seed=1), trained("alone", seed=1)]
    images = tf.constant(np.stack(PICTURES), tf.uint8)
    found = [tf.saved_model.load(path).signatures["predict_images"](images=images)["probabilities"] for path in models]
    far, near = (np.abs(found[0] - found[which]).mean() for which in (2, 1))
    assert near < 0.5 * far
    weights = [sum(np.prod(shape) for _, shape in tf.train.list_variables(f"{path}/variables/variables")) for path in models]
    assert weights[1] == weights[2]


def test_what_is_promised_is_fitted_by_groups_and_exported(transformed, tmp_path):
    promises = {"sets": {"coverage": 0.9, "method": "aps"}, "abstain": {"risk": 0.2}}
    sections = CONFIG.model_dump(exclude_unset=True)
    config = Config.model_validate({**sections, "train": sections["train"] | {"epochs": 1}, "calibrate": promises})
    run_fn(FnArgs(**arguments(transformed, tmp_path, tmp_path / "checkpoints", config)))
    sets, abstention = (json.loads((tmp_path / "log" / f"{name}.json").read_text()) for name in ("sets", "abstention"))
    assert sets["groups"] == [EXAMPLES / 2] * 2
    assert sets["problem"] == ""
    assert abstention["images"] == EXAMPLES / 2
    model = tf.saved_model.load(str(tmp_path / "model"))
    answers = model.signatures["predict_images"](images=tf.constant(np.stack(PICTURES), tf.uint8))
    names = (tmp_path / "model" / "assets" / "labels").read_text().splitlines()
    truths = [names.index(label.decode()) for label in LABELS]
    assert answers["label_set"].numpy()[np.arange(EXAMPLES), truths].mean() > 0.89  # on these it was fitted


def test_a_class_that_is_named_as_no_answer_is_refused(transformed, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_class_names", lambda output: ["bright", "unknown"])
    config = Config.model_validate({**CONFIG.model_dump(exclude_unset=True), "calibrate": {"abstain": {"risk": 0.1}}})
    with pytest.raises(ClassNameError, match=r"calibrate\.abstain: the data has a class named unknown.*; rename the class"):
        run_fn(FnArgs(**arguments(transformed, tmp_path, tmp_path / "checkpoints", config)))


TRAINER = """
import json, sys
from tfx.components.trainer.fn_args_utils import FnArgs
from models.training import run_fn
if __name__ == "__main__":
    run_fn(FnArgs(**json.loads(sys.argv[1])))
"""


class Run:
    """A Trainer, and a second worker that waits for it."""

    def __init__(self, transformed, folder, checkpoints):
        self.folder = folder
        folder.mkdir()
        given = json.dumps(arguments(transformed, folder, checkpoints))
        (folder / "trainer.py").write_text(TRAINER)
        commands = [[str(folder / "trainer.py"), given], ["-m", "models.worker"]]
        addresses = free_addresses(2)
        self.processes = [
            subprocess.Popen(
                [sys.executable, *command],
                env=environment(addresses, index),
                cwd=PROJECT,
                stderr=(folder / f"errors-{index}").open("w"),
            )
            for index, command in enumerate(commands)
        ]

    def wait_for_epochs(self, count):
        while len(read_history(self.folder)) < count:
            assert all(process.poll() is None for process in self.processes), self.errors(0) + self.errors(1)
            time.sleep(0.001)

    def statuses(self):
        return [process.wait(300) for process in self.processes]

    def errors(self, index):
        return (self.folder / f"errors-{index}").read_text()


@pytest.fixture(scope="module")
def whole(transformed, tmp_path_factory):
    """The history of a training of two workers, of which none was killed."""
    folder = tmp_path_factory.mktemp("whole")
    run = Run(transformed, folder / "run", folder / "checkpoints")
    assert run.statuses() == [0, 0], run.errors(0) + run.errors(1)
    return read_history(run.folder)


@pytest.mark.extra
@pytest.mark.parametrize("killed", [0, 1], ids=["the Trainer", "the other worker"])
def test_a_training_whose_worker_was_killed_goes_on_and_ends_as_if_it_had_not_been(killed, whole, transformed, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    broken = Run(transformed, tmp_path / "broken", checkpoints)
    broken.wait_for_epochs(2)
    broken.processes[killed].kill()
    began = time.monotonic()
    statuses = broken.statuses()
    assert time.monotonic() - began < 120
    assert statuses[killed] == -signal.SIGKILL
    assert statuses[1 - killed] == 1
    told = "a worker has ended or does not answer; see in its own output why. Then start all of them again"
    assert told in broken.errors(1 - killed)

    resumed = Run(transformed, tmp_path / "resumed", checkpoints)
    assert resumed.statuses() == [0, 0], resumed.errors(0) + resumed.errors(1)
    history = read_history(resumed.folder)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    for row, expected in zip(history, whole, strict=True):
        assert row == pytest.approx(expected, abs=1e-6)
    assert (resumed.folder / "model" / "saved_model.pb").exists()
    assert not list(checkpoints.iterdir())
