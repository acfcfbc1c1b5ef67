"""The results of a run or a cross-validation, as data; this module imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.records.notes import Note

if TYPE_CHECKING:
    from components.model_formats.results import FormatResult
    from evaluation.results import Evaluation


@dataclass(frozen=True)
class Trial:
    """One trial of the Tuner: its number in order of time, the objective on the eval split, the value of each key."""

    number: int
    score: float
    values: dict[str, Any]


@dataclass(frozen=True)
class RunOutputs:
    """Where the outputs of a run are; None, or empty, if the run did not get that far.

    Attributes:
      examples: number of images by split, and of `rejected` files; also empty if the examples come from another ExampleGen
        than ImageExampleGen.
      lost: the fields of `images.dataset.losses.Losses`: what damaged TFRecord files have lost; None if nothing.
      classes: number of images by split and label; an image with several labels counts for each. Empty as `examples` is.
      examples_folder: folder of the examples, with ingestion's index and tables.
      notes: notes on duplicates, on examples of another ExampleGen, and on anomalies.
      training: see `outputs.read_training`.
      anomalies_folder: folder of what the ExampleValidator has found, and of all distances that it has measured.
      model: the SavedModel that was trained, pushed or not.
      trials: the Tuner's trials, best first, without those that failed.
      evaluation: folder of TFMA's results.
      check: the fields of `components.model_check.results.CheckResult`.
      labels: the fields of `components.label_check.results.LabelCheckResult`, and the paths `table` and `corrections`; None if
        labels were not looked at.
      blessed: whether the model has met its thresholds, and passed its check if there was one.
      pushed_model: the numbered folder that has the model and is served now.
      already_served: whether that folder had the model before this run.
      scores: folder of the answers to the images of `score.path`; also None if the model is not blessed.
      formats: measurements of the SavedModel and of its other formats.
    """

    examples: dict[str, int] = field(default_factory=dict)
    lost: dict[str, Any] | None = None
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    examples_folder: str | None = None
    notes: list[Note] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    anomalies_folder: str | None = None
    model: str | None = None
    trials: list[Trial] = field(default_factory=list)
    evaluation: str | None = None
    check: dict[str, Any] | None = None
    labels: dict[str, Any] | None = None
    blessed: bool | None = None
    pushed_model: str | None = None
    already_served: bool = False
    scores: str | None = None
    formats: "list[FormatResult]" = field(default_factory=list)


@dataclass(frozen=True)
class Execution:
    """How the components of a pipeline ended.

    Attributes:
      components: state and seconds of each component.
      status: exit status: 0 done, 2 bad input, 1 any other failure.
      error: why it failed; empty if it did not.
      outputs: the outputs that are there afterwards.
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
      trials: the Tuner's trials, best first; empty if it did not run.
      formats: measurements of the SavedModel and of its other formats.
      notes: what else a person should know.
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
      mean: mean over the folds that have a value, all with the same weight.
      sd: sample standard deviation of these values (n - 1 in the denominator); None for a single value.
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
      notes: what else a person should know.
      examples_folder: of ingestion's examples; None if there are none.
    """

    summary: dict[str, Any]
    slices: list[SliceSpread]
    status: int
    error: str
    notes: list[Note]
    examples_folder: str | None = None


def trial_rows(trials: list[Trial], objective: str) -> list[list[Any]]:
    """Names of the columns, then one row per trial: rank, number, score, and the value of each key."""
    keys = list(trials[0].values)
    rows = [
        [rank, trial.number, trial.score, *(trial.values[key] for key in keys)] for rank, trial in enumerate(trials, start=1)
    ]
    return [["rank", "trial", objective, *keys], *rows]
