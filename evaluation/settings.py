"""Settings of an evaluation. They have no defaults; the configuration sets every value."""

from dataclasses import dataclass
from typing import Final, Literal

SHORTCUT: Final = "shortcut"  # in a threshold: the largest score of a property of the files alone, see `shortcuts`

Counted = Literal["images", "groups"]
RuleName = Literal["mean", "max", "vote", "share"]
IntervalMethod = Literal["jackknife", "poisson_bootstrap", "none"]


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Bounds on a metric that a model must keep.

    Attributes:
      metric: name of the metric, or SHORTCUT.
      lower: the value must be at least this; None: no bound.
      upper: the value must be at most this; None: no bound.
      change: the value minus the baseline's value must be at least this, or at most this if smaller values are better; None: no
        bound.
      slice: one or two features with their values; empty for all images.
      worst_of: one or two features; the bounds apply to the worst slice by these features. Empty for none.
      of: whether the metric is over images or over groups.
    """

    metric: str
    lower: float | None
    upper: float | None
    change: float | None
    slice: dict[str, str]
    worst_of: tuple[str, ...]
    of: Counted

    @property
    def features(self) -> list[str]:
        """Features of the slices to which the bounds apply."""
        return list(self.slice or self.worst_of)


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """How the answers to the images of a group are combined; see `groups.combine`.

    Attributes:
      rule: mean, max, vote or share.
      share: for rule `share`: smallest share of images with the answer `positive`.
      positive: for rule `share`: the class.
    """

    rule: RuleName
    share: float
    positive: str | None


@dataclass(frozen=True, kw_only=True)
class EvaluatorSettings:
    """Settings of the component Evaluator.

    Attributes:
      metrics: names of metrics, including those of the thresholds.
      slices: features of each kind of slice, including those of the thresholds.
      buckets: for numeric features, the edges between their slices.
      min_slice_size: smallest number of images in a slice that is measured.
      confidence_intervals: how intervals are computed.
      groups: how the answers to the images of a group are combined.
      max_shortcut: balanced accuracy, by a property of the file alone, from which there is a warning.
      batch_size: images per step.
      thresholds: a model is blessed if it passes all of them; if there are none, by `default_rules`.
      multi_label: whether an image can have any number of classes.
      splits: splits to measure on.
      judged: whether the thresholds are applied.
    """

    metrics: tuple[str, ...]
    slices: tuple[tuple[str, ...], ...]
    buckets: dict[str, tuple[float, ...]]
    min_slice_size: int
    confidence_intervals: IntervalMethod
    groups: GroupRule
    max_shortcut: float
    batch_size: int
    thresholds: tuple[Threshold, ...]
    multi_label: bool
    splits: tuple[str, ...]
    judged: bool
