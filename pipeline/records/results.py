"""What comes of a run or a cross-validation, as data; nothing heavy is imported for it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.records.notes import Note

if TYPE_CHECKING:
    from components.model_formats.results import FormatResult
    from evaluation.results import Evaluation


@dataclass(frozen=True)
class Trial:
    """What the Tuner has tried: its number in the order of time, the objective on the eval split, the value of each key."""

    number: int
    score: float
    values: dict[str, Any]


@dataclass(frozen=True)
class RunOutputs:
    """Where the outputs of a run are; None, or empty, where it did not get that far.

    Attributes:
      examples: number of images by split, and `rejected` files; empty, too, of the examples of another ExampleGen than
        ImageExampleGen, and so is `classes`.
      classes: number of images by split and label; an image of several labels counts for each.
      examples_folder: of the images, with ingestion's index and tables.
      notes: on duplicates, on examples of another ExampleGen, and on anomalies.
      training: see `outputs.read_training`.
      anomalies_folder: what the ExampleValidator has found, and all distances that it has measured.
      model: the SavedModel that was trained, pushed or not.
      trials: of the Tuner, best first, without those that failed.
      evaluation: folder of TFMA's results.
      check: the fields of `components.model_check.results.CheckResult`.
      blessed: whether the model has met its thresholds, and passed its check if there was one.
      pushed_model: the numbered folder that the model was pushed to.
      scores: folder of the answers to the images of `score.path`; None, too, if the model is not blessed.
      formats: what was measured of the SavedModel and of its other formats.
    """

    examples: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    examples_folder: str | None = None
    notes: list[Note] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    anomalies_folder: str | None = None
    model: str | None = None
    trials: list[Trial] = field(default_factory=list)
    evaluation: str | None = None
    check: dict[str, Any] | None = None
    blessed: bool | None = None
    pushed_model: str | None = None
    scores: str | None = None
    formats: "list[FormatResult]" = field(default_factory=list)


@dataclass(frozen=True)
class Execution:
    """How the components of a pipeline have ended.

    Attributes:
      components: state and seconds of each.
      status: exit status: 0 done, 2 bad input, 1 any other failure.
      error: why it failed; empty if it did not.
      outputs: what is there after it.
      evaluation: None if the run did not get that far.
    """

    components: dict[str, dict[str, Any]]
    status: int
    error: str
    outputs: RunOutputs
    evaluation: "Evaluation | None"


@dataclass
class RunResult:
    """How a run ended.

    Attributes:
      summary: what `fpn run --json` prints.
      status: exit status: 0 blessed, 3 not blessed, 2 bad input, 1 any other failure.
      log: TFX's log.
      error: why it failed; empty if it did not.
      evaluation: None if the run did not get that far.
      trials: of the Tuner, best first; empty if it did not run.
      formats: what was measured of the SavedModel and of its other formats.
      notes: what a person should know besides.
    """

    summary: dict[str, Any]
    status: int
    log: Path
    error: str = ""
    evaluation: "Evaluation | None" = None
    notes: list[Note] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    formats: "list[FormatResult]" = field(default_factory=list)


@dataclass(frozen=True)
class Spread:
    """A metric over the folds.

    Attributes:
      mean: over the folds that have a value, each with the same weight.
      sd: their sample standard deviation (n - 1 in the denominator); None for a single value.
      folds: the value of each fold; None where the slice has no images.
    """

    mean: float
    sd: float | None
    folds: list[float | None]


@dataclass(frozen=True)
class SliceSpread:
    """A slice of the test images: their number in each fold, and its metrics by name."""

    name: str
    examples: list[int]
    metrics: dict[str, Spread]


@dataclass(frozen=True)
class CrossvalResult:
    """How a cross-validation ended.

    Attributes:
      summary: what `fpn crossval --json` prints.
      slices: all examples first, as in an evaluation; empty if a fold has failed.
      status: exit status: 0 done, 2 bad input, 1 any other failure.
      error: why it failed; empty if it did not.
      notes: what a person should know besides.
    """

    summary: dict[str, Any]
    slices: list[SliceSpread]
    status: int
    error: str
    notes: list[Note]


def trial_rows(trials: list[Trial], objective: str) -> list[list[Any]]:
    """Names of the columns, then a row a trial: rank, number, score, and the value of each key."""
    keys = list(trials[0].values)
    rows = [
        [rank, trial.number, trial.score, *(trial.values[key] for key in keys)] for rank, trial in enumerate(trials, start=1)
    ]
    return [["rank", "trial", objective, *keys], *rows]
