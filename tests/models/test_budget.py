"""A training that ends with its time, whatever the speed: in simulated time, and for real."""

import itertools
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_training import CONFIG, EVALUATION, batches, progress_of, tiny_model, train

from models import budget, callbacks, optimization, training
from models.checkpoints import Checkpoint, load_checkpoint


@dataclass
class Simulation:
    """Plays `fit` in time that passes by itself: at each moment, a step takes `pace(moment)` seconds."""

    pace: object
    evaluation: float = 2.0
    compiling: float = 5.0
    steps_per_epoch: int = 100
    now: float = 1000.0
    progress: list = field(default_factory=list)  # that the rate of each step had
    epochs: int = 0

    def monotonic(self):
        return self.now

    def pass_time(self, seconds):
        self.now += seconds

    def run(self, seconds, state=None):
        """Trains, and gives the seconds that it took."""
        began, state = self.now, state or Checkpoint()
        variable = keras.Variable(state.progress)
        clock = budget.Clock(seconds, began - state.seconds)
        callback = budget.Budget(clock, variable, None, self.steps_per_epoch, state)
        model = SimpleNamespace(evaluate=lambda *_, **__: self.pass_time(self.evaluation), stop_training=False)
        callback.set_model(model)
        callback.on_train_begin()
        compiling = self.compiling
        while not model.stop_training:
            callback.on_epoch_begin(self.epochs)
            for step in range(self.steps_per_epoch):
                self.progress.append(float(variable))
                self.pass_time(self.pace(self.now - began) + compiling)
                compiling = 0.0
                callback.on_train_batch_end(step)
                if model.stop_training:
                    break
            self.pass_time(self.evaluation)
            callback.on_epoch_end(self.epochs)
            self.epochs += 1
        assert float(variable) == 1
        return self.now - began


RANDOM = np.random.default_rng(1)
PACES = {
    "even": lambda moment: 0.1,
    "noisy": lambda moment: 0.1 * RANDOM.lognormal(0, 1),
    "three times slower from the middle on": lambda moment: 0.1 if moment < 60 else 0.3,
    "three times faster from the middle on": lambda moment: 0.3 if moment < 60 else 0.1,
    "slow now and then": lambda moment: 2.0 if RANDOM.random() < 0.01 else 0.1,
    "by turns": lambda moment: 0.1 * (1.5 + np.sin(moment / 7)),
}


@pytest.fixture
def simulate(monkeypatch):
    def make(*arguments, **keywords):
        simulation = Simulation(*arguments, **keywords)
        monkeypatch.setattr(budget, "time", simulation)
        return simulation

    return make


@pytest.mark.parametrize("seconds", [40, 120, 600])
@pytest.mark.parametrize("name", PACES)
def test_the_time_is_kept_and_the_schedule_finished(name, seconds, simulate):
    simulation = simulate(PACES[name])
    # What is left after an epoch may be too short for another one, whose evaluation takes 2 s.
    assert simulation.run(seconds) == pytest.approx(seconds, rel=0.02, abs=1.5)
    progress = np.array(simulation.progress)
    assert progress[0] == 0
    assert (np.diff(progress) >= 0).all()
    assert progress[-1] > 0.98
    assert np.diff(progress).max() < 8 / len(progress)  # no jumps


def test_at_an_even_pace_progress_is_even(simulate):
    simulation = simulate(PACES["even"], compiling=0.0)
    simulation.run(120)
    steps = np.diff(simulation.progress)[2:]
    assert steps.max() < 1.3 * steps.min()


@pytest.mark.parametrize("seconds", [15, 19])
def test_a_time_shorter_than_an_epoch_is_kept(seconds, simulate):
    simulation = simulate(PACES["even"], steps_per_epoch=1000)
    assert simulation.run(seconds) == pytest.approx(seconds, abs=0.2)
    assert simulation.epochs == 1


def test_where_an_epoch_ends_about_with_the_time_the_training_ends_as_near_to_it_as_it_can(simulate):
    simulation = simulate(PACES["even"], compiling=0.0)
    assert simulation.run(14.9) == pytest.approx(14)
    assert simulation.epochs == 1
    assert simulation.run(15.2) == pytest.approx(16.1)  # 0.9 s too late is nearer than 1.2 s too early


def test_a_time_that_is_over_before_the_first_step_is_told(simulate):
    with pytest.raises(budget.BudgetError, match=r"^train.budget: 8 s are too short: 7 s went by .* an evaluation takes 2 s"):
        simulate(PACES["even"]).run(8)


def test_an_interrupted_training_has_the_time_that_was_left(simulate):
    simulation = simulate(PACES["even"])
    state = Checkpoint(seconds=70.0, progress=0.6)
    assert simulation.run(120, state) == pytest.approx(50, rel=0.06)
    assert simulation.progress[0] == pytest.approx(0.6)
    assert state.seconds == pytest.approx(120, rel=0.05)
    assert simulate(PACES["even"]).run(120, Checkpoint(seconds=121.0, progress=0.6)) < 10


def test_the_rate_follows_the_progress():
    progress = keras.Variable(0.0)
    schedule = optimization.build_schedule(0.1, progress, warmup_steps=20)
    rates = []
    for step in range(101):
        progress.assign(step / 100)
        rates.append(float(schedule(step)))
    cosine = 0.05 * (1 + np.cos(np.pi * np.arange(101) / 100))
    warm = np.minimum(1, np.arange(101) / 10)  # a tenth is less than 20 steps
    np.testing.assert_allclose(rates, warm * cosine, atol=1e-6)
    progress.assign(0.01)
    assert float(optimization.build_schedule(0.1, progress, warmup_steps=20)(15)) == pytest.approx(0.075, rel=1e-3)
    assert float(optimization.build_schedule(0.1, progress, warmup_steps=0)(0)) == pytest.approx(0.1, rel=1e-3)


@pytest.fixture
def ticking(monkeypatch):
    """Each look at the time takes a tenth of a second."""
    ticks = itertools.count(1000, 0.1)
    for module in (budget, training):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


@pytest.mark.usefixtures("ticking")
def test_a_training_ends_with_its_time_after_the_frozen_epochs(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="models.callbacks"):
        history = train(tiny_model(), tmp_path, frozen_epochs=1, budget=30.0, ema=0.5, accumulate_steps=2, warmup_epochs=1.0)
    assert len(history) > 3
    assert history[-1]["learning_rate"] == 0
    rates = [row["learning_rate"] for row in history[2:]]
    assert rates == sorted(rates, reverse=True)
    progress = progress_of(caplog)
    assert 25 < progress[-1]["done"] <= progress[-1]["total"] == 30
    assert progress[0]["text"].startswith("epoch 1  loss")


@pytest.mark.usefixtures("ticking")
def test_a_killed_training_goes_on_with_its_progress(tmp_path, monkeypatch):
    checkpoints = tmp_path / "checkpoints"
    save = callbacks.save_checkpoint
    monkeypatch.setattr(callbacks, "save_checkpoint", lambda *arguments: (save(*arguments), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        train(tiny_model(), tmp_path / "killed", checkpoints, budget=20.0)
    monkeypatch.undo()
    state = load_checkpoint(str(checkpoints))
    assert 0 < state.progress < 1
    assert 0 < state.seconds < 20
    history = train(tiny_model(), tmp_path / "resumed", checkpoints, budget=20.0)
    rates = [row["learning_rate"] for row in history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0
    assert train(tiny_model(), tmp_path / "again", checkpoints, budget=20.0) == history  # which has ended


@pytest.mark.usefixtures("ticking")
def test_frozen_epochs_must_leave_time(tmp_path):
    config = replace(CONFIG, frozen_epochs=1000, budget=5.0)
    with pytest.raises(budget.BudgetError, match="5 s are too short"):
        training.fit(tiny_model(), tf.distribute.get_strategy(), batches(), EVALUATION, 4, config, str(tmp_path))


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("settings", [{"xla": True}, {"mixed_precision": True}])
def test_the_variable_reaches_the_compiled_step(settings, tmp_path):
    history = train(tiny_model(), tmp_path, budget=15.0, **settings)
    assert history[-1]["learning_rate"] == 0
    assert history[0]["learning_rate"] > 0


def test_the_variable_reaches_two_devices(starter, tmp_path):
    program = f"""
import itertools, json, sys
from types import SimpleNamespace
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_training as test
ticks = itertools.count(0, 0.1)
test.training.time = sys.modules["models.budget"].time = SimpleNamespace(monotonic=lambda: next(ticks))
strategy = test.training._strategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = test.tiny_model()
config = test.replace(test.CONFIG, budget=10.0, layer_decay=0.5, ema=0.5)
history = test.training.fit(model, strategy, test.batches(), test.EVALUATION, 4, config, {str(tmp_path)!r})
print(json.dumps([row["learning_rate"] for row in history]))
"""
    done = starter.execute(program).end()
    assert done.status == 0, done.stderr[-2000:]
    rates = json.loads(done.stdout.splitlines()[-1])
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1] == 0
