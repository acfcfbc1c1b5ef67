"""Callbacks around each epoch of training: keep the best weights and checkpoints, write curves, report progress."""

import csv
import logging
import math
import os
import time
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from models.budget import Clock
from models.checkpoints import Checkpoint, save_checkpoint
from models.files import replaced
from models.history import HISTORY_FILE, describe_divergence, is_diverged
from models.settings import TrainSettings

# INFO has one line per epoch, DEBUG about one per second; both carry `progress` (see Progress) for a display. One more of DEBUG
# per epoch carries `history`, its row, for trackers.
log = logging.getLogger(__name__)


class Keeper(keras.callbacks.Callback):
    """At every epoch's end, keeps the best weights, stops the phase if it gets no better, and saves a checkpoint.

    A training that has diverged is stopped in the epoch in which it does, with a warning.

    With averaged weights, it puts these into the model for the measurement on the eval split.
    """

    def __init__(self, state: Checkpoint, config: TrainSettings, folder: str | None) -> None:
        super().__init__()
        self._state = state
        self._folder = folder
        self._averages = config.ema > 0
        self._patience = config.early_stopping
        self._keeps_best = config.keep == "best" or self._patience > 0
        self._monitor = f"val_{config.monitor}"
        self._sign = -1 if config.monitor == "loss" else 1
        self._raw: list[np.ndarray] = []

    def restore(self, model: keras.Model) -> None:
        """Restores the model and its optimizer from the checkpoint, if one was found."""
        if self._state.model:
            _assign(model.variables, self._state.model)
            _assign(model.optimizer.variables, self._state.optimizer)
            self._state.model, self._state.optimizer = [], []

    def finish(self, model: keras.Model) -> None:
        """Puts the weights that the phase must end with into the model."""
        model.optimizer.finalize_variable_values(model.trainable_variables)
        if self._keeps_best:
            _assign(model.variables, self._state.best)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        if self._averages:
            self._raw = _values(self.model.trainable_variables)
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        state, model = self._state, self.model
        measured = {name: float(value) for name, value in (logs or {}).items()}
        state.history.append({"epoch": epoch + 1, **measured, "learning_rate": float(model.optimizer.learning_rate)})
        if self._keeps_best and self._is_best():
            state.best_epoch, state.best = epoch, _values(model.variables)
        if self._averages:
            _assign(model.trainable_variables, self._raw)
        waited = epoch + 1 - max(state.best_epoch + 1, state.phase_start)
        has_diverged = is_diverged(state.history[-1])
        if has_diverged:
            log.warning("%s", describe_divergence(state.history[-1]))
        has_waited = bool(self._patience) and waited >= self._patience
        state.stopped = model.stop_training = model.stop_training or has_diverged or has_waited
        if self._folder:
            saved = replace(state, model=_values(model.variables), optimizer=_values(model.optimizer.variables))
            save_checkpoint(self._folder, saved)

    def _is_best(self) -> bool:
        if not self._state.best:
            return True
        last, best = (self._state.history[epoch][self._monitor] for epoch in (-1, self._state.best_epoch))
        return math.isnan(best) or self._sign * last > self._sign * best


def _values(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def _assign(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class StepLimit(keras.callbacks.Callback):
    """Ends a phase after a number of steps, in the midst of an epoch if need be."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._left -= 1
        if not self._left:
            self.model.stop_training = True


class Curves(keras.callbacks.Callback):
    """Writes the history to `history.csv` and to events for TensorBoard."""

    def __init__(self, history: list[dict[str, float]], folder: str) -> None:
        super().__init__()
        self._history = history
        self._folder = folder
        self._writers = {name: tf.summary.create_file_writer(os.path.join(folder, name)) for name in ("train", "validation")}
        for row in history:
            self._write_events(row)
        if history:
            self._write_table()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._write_events(self._history[-1])
        self._write_table()

    def _write_table(self) -> None:
        path = os.path.join(self._folder, HISTORY_FILE)
        with replaced(path) as unfinished, tf.io.gfile.GFile(unfinished, "w") as file:
            table = csv.DictWriter(file, list(self._history[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(self._history)

    def _write_events(self, row: dict[str, float]) -> None:
        log.debug("%s", row, extra={"history": row})
        for name, value in row.items():
            if name != "epoch":
                with self._writers["validation" if name.startswith("val_") else "train"].as_default(int(row["epoch"])):
                    tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value)
        for writer in self._writers.values():
            writer.flush()


class Progress(keras.callbacks.Callback):
    """Logs how far training is; log records carry `progress`: {"done": steps, "total": steps, "text": what to show}."""

    def __init__(self, phases: list[int | None], steps_per_epoch: int, clock: Clock | None = None) -> None:
        """Counts from the first phase on.

        Args:
          phases: steps of each; None for one that ends with the time.
          steps_per_epoch: the last epoch of a phase may have fewer.
          clock: counts seconds instead of steps.
        """
        super().__init__()
        self._steps = sum(steps or 0 for steps in phases)
        self._epochs = sum(math.ceil((steps or 0) / steps_per_epoch) for steps in phases)
        self._clock = clock
        self._steps_per_epoch = steps_per_epoch
        self._epoch = 0
        self._text = ""
        self._shown = 0.0

    def _log(self, level: int, step: int) -> None:
        if self._clock:
            done, total = min(self._clock.spent, self._clock.budget), self._clock.budget
            text, unit = f"epoch {self._epoch + 1}{self._text}", "second"
        else:
            done, total = min(self._epoch * self._steps_per_epoch + step, self._steps), self._steps
            text, unit = f"epoch {min(self._epoch + 1, self._epochs)}/{self._epochs}{self._text}", "step"
        progress = {"done": done, "total": total, "text": text}
        log.log(level, f"%(text)s, {unit} %(done)d/%(total)d", progress, extra={"progress": progress})
        self._shown = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch
        self._log(logging.DEBUG, 0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if time.monotonic() - self._shown > 1:
            self._log(logging.DEBUG, batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        self._text = f"  loss {logs['loss']:.3f}  eval loss {logs['val_loss']:.3f}  eval accuracy {logs['val_accuracy']:.3f}"
        self._log(logging.INFO, self._steps_per_epoch)
