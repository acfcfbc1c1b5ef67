"""`tuner_fn` of the Tuner component: searches for hyperparameters by training a few epochs with each set of values."""

import logging
import math
import os
from typing import Final

import keras
import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from models.budget import BudgetError
from models.choices import Algorithm
from models.distillation import TeacherError
from models.packing import unpack
from models.settings import NumberRange, SearchSpace, TunerSettings
from models.training import log as training_log
from models.training import train_model, with_hyperparameters, without_groups

# INFO has one line per trial, which carries `progress` as the records of `models.training` do.
log = logging.getLogger(__name__)

_ORACLES: Final[dict[Algorithm, type[keras_tuner.Oracle]]] = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
}


class TuningError(ValueError):
    """No trial has given a result."""


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Sets up the search.

    Args:
      fn_args: with `TunerSettings` as `custom_config`. The oracle's random numbers have the seed `train.seed`.
    """
    config = unpack(TunerSettings, fn_args.custom_config)
    monitor = config.train.monitor
    oracle = _ORACLES[config.algorithm](
        objective=keras_tuner.Objective(monitor, "min" if monitor == "loss" else "max"),
        max_trials=config.trials,
        hyperparameters=search_space(config.space),
        seed=config.train.seed % 2**31 + 1,  # KerasTuner takes 0 as no seed
        max_consecutive_failed_trials=config.trials + 1,  # instead, Search raises an error if all have failed
    )
    return TunerFnResult(tuner=Search(oracle, fn_args, config), fit_kwargs={})


def search_space(space: SearchSpace) -> keras_tuner.HyperParameters:
    """Converts a search space to KerasTuner's form.

    Args:
      space: for each "section.key" choices of one type, or a range.
    """
    parameters = keras_tuner.HyperParameters()
    for name, given in space.items():
        if isinstance(given, NumberRange):
            number = parameters.Int if isinstance(given.min, int) else parameters.Float
            number(name, given.min, given.max, sampling="log" if given.log else "linear")
        elif isinstance(given[0], bool):
            parameters.Boolean(name)  # a Choice would turn booleans into 0 and 1
        else:
            parameters.Choice(name, list(given))
    return parameters


class Search(BaseTuner):
    """Trains as the Trainer does, once for each set of values from the oracle; a failed trial does not end the search."""

    def __init__(self, oracle: keras_tuner.Oracle, fn_args: FnArgs, config: TunerSettings) -> None:
        super().__init__(oracle, directory=fn_args.working_dir, project_name="search", overwrite=True)
        self._fn_args = fn_args
        self._config = config

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Trains; returns the objective's value on the eval split, for the weights that the Trainer would export.

        Raises:
          ValueError: the value is not finite.
        """
        config = with_hyperparameters(self._config, trial.hyperparameters.values)
        objective = self.oracle.objective.name
        in_search = _InSearch(len(self.oracle.end_order), self.oracle.max_trials, self._best())
        keras.utils.clear_session()  # frees the last trial's model, which was in use until the trial's end
        training_log.addFilter(in_search)
        try:
            log_dir = os.path.join(self.get_trial_dir(trial.trial_id), "logs")
            model, evaluation = train_model(self._fn_args, config, log_dir)
            score = model.evaluate(without_groups(evaluation), return_dict=True, verbose=0)[objective]
        except (BudgetError, TeacherError) as error:  # which the other trials would have as well
            raise keras_tuner.errors.FatalError(str(error)) from error
        finally:
            training_log.removeFilter(in_search)
        if not math.isfinite(score):
            raise ValueError(f"the eval {objective} is {score}")
        return {objective: score}

    def on_trial_end(self, trial: Trial) -> None:
        super().on_trial_end(trial)
        ended, total = len(self.oracle.end_order), self.oracle.max_trials
        score = self.oracle.get_trial(trial.trial_id).score
        result = "failed" if trial.message else f"eval {self.oracle.objective.name} {score:.3f}"
        text = f"trial {ended}/{total}  {result}{self._best()}"
        progress = {"done": ended, "total": total, "text": text}
        log.info("%s with %s", text, trial.hyperparameters.values, extra={"progress": progress})
        if trial.message:
            log.warning("%s", trial.message)

    def on_search_end(self) -> None:
        """Raises TuningError if all trials have failed."""
        keras.utils.clear_session()
        trials = [self.oracle.get_trial(trial_id) for trial_id in self.oracle.end_order]
        if all(trial.message for trial in trials):
            reason = trials[0].message.strip().splitlines()[-1]
            raise TuningError(f"all {len(trials)} trials have failed, the first with {reason}")

    def _best(self) -> str:
        """The best result so far as text for a display; empty before the first result."""
        scores = [trial.score for trial in self.oracle.get_best_trials() if trial.score is not None]
        return f"  best eval {self.oracle.objective.name} {scores[0]:.3f}" if scores else ""


class _InSearch(logging.Filter):
    """Turns the progress of one training into that of the search; epochs are only for a display, so their level is DEBUG."""

    def __init__(self, ended: int, trials: int, best: str) -> None:
        super().__init__()
        self._ended = ended
        self._trials = trials
        self._text = f"trial {ended + 1}/{trials}{best}"

    def filter(self, record: logging.LogRecord) -> bool:
        if progress := getattr(record, "progress", None):
            record.progress = {
                "done": self._ended + progress["done"] / progress["total"],
                "total": self._trials,
                "text": f"{self._text}  {progress['text']}",
            }
            record.levelno = logging.DEBUG
        return True
