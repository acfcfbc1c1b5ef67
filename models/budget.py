"""A training that ends with its time, and whose rate falls to 0 just then (arXiv:1905.04753), however fast the steps are."""

import time
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import keras
import tensorflow as tf

from models.checkpoints import Checkpoint

_MEMORY: Final = 0.98  # weight of the steps before: about the last 50 count


class BudgetError(ValueError):
    """The time is over before anything is trained; the text says what it was spent on."""


@dataclass(frozen=True)
class Clock:
    """The time that a training may take, in seconds of `time.monotonic`."""

    budget: float
    started: float

    @property
    def spent(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        return self.budget - self.spent


class Budget(keras.callbacks.Callback):
    """Ends a phase when the time is up, and moves `progress` from 0 to 1 until then.

    The eval split is measured once before the first step, to know how long this takes. From the pace of the last steps, and
    from what evaluation and checkpoint took after the last epochs, each step finds how many more there is time for, and adds
    (1 - progress) / their number to the progress. At an even pace it grows by the same amount with each step. Where the pace
    changes it turns, but it never falls back, and it ends at 1.
    """

    def __init__(
        self,
        clock: Clock,
        progress: keras.Variable | None,
        evaluation: tf.data.Dataset,
        steps_per_epoch: int,
        state: Checkpoint,
    ) -> None:
        """Goes on from `state`.

        Args:
          clock: of the whole training, the phases before included.
          progress: what the rate follows, as in `build_schedule`; None for a phase of a fixed length, which only must not take
            all the time.
          evaluation: batches of the eval split.
          steps_per_epoch: number of batches per epoch.
          state: gets the progress and the time spent, as a checkpoint keeps them.
        """
        super().__init__()
        self._clock = clock
        self._progress = progress
        self._evaluation = evaluation
        self._steps_per_epoch = steps_per_epoch
        self._state = state
        self._last = 0.0  # when the last step ended, by `time.monotonic`
        self._pauses: list[float] = []  # seconds of the first evaluation, and between epochs
        self._seconds = self._steps = 0.0  # of the last steps; the older, the less they weigh
        self._has_started = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._last = time.monotonic()
        if self._progress is not None:
            self.model.evaluate(self._evaluation, verbose=0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        self._pauses.append(now - self._last)
        self._last = now

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        duration, self._last = now - self._last, now
        if self._progress is None or not (self._has_started or self._state.progress):
            self._require_time()
        if self._progress is None:
            return
        if not self._has_started:  # the first step compiles the graph, and says nothing about the pace
            self._has_started = True
            return
        self._seconds = _MEMORY * self._seconds + duration
        self._steps = _MEMORY * self._steps + 1
        more = self._steps_left(batch + 1, self._seconds / self._steps)
        if more < 0.5:
            self._state.progress = 1.0
            self.model.stop_training = True
        else:
            self._state.progress += (1 - self._state.progress) / (more + 1)
        self._progress.assign(self._state.progress)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._state.seconds = self._clock.spent

    @property
    def _pause(self) -> float:
        """The mean of the last three; that with the evaluation's compilation counts only as long as there is no other."""
        return fmean(self._pauses[1:][-3:] or self._pauses)

    def _steps_left(self, done: int, pace: float) -> float:
        """How many more steps there is time for, after `done` of the epoch; the last evaluation is left its time.

        Another epoch begins if this misses the time by less than to end with this one.
        """
        pause = self._pause
        left = self._clock.left - pause
        rest = self._steps_per_epoch - done
        if left <= rest * pace:
            return left / pace
        return rest + max(0.0, left - rest * pace - pause / 2) / (pace + pause / self._steps_per_epoch)

    def _require_time(self) -> None:
        """Raises BudgetError if the time is over before the training's first step."""
        if self._clock.left < self._pause:
            raise BudgetError(
                f"train.budget: {self._clock.budget:.0f} s are too short: {self._clock.spent:.0f} s went by before the first "
                f"step with all weights was done, and an evaluation takes {self._pause:.0f} s; give several times as much, or "
                f"fewer train.frozen_epochs"
            )
