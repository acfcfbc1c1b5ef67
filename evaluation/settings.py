"""What an evaluation measures and by what it judges: records without defaults, which are the configuration's to have."""

from dataclasses import dataclass
from typing import Literal

Counted = Literal["images", "groups"]
RuleName = Literal["mean", "max", "vote", "share"]
IntervalMethod = Literal["jackknife", "poisson_bootstrap", "none"]


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A bound on a metric that a model must keep.

    Attributes:
      metric: its name.
      lower: the value must be at least this; None: any.
      upper: the value must be at most this; None: any.
      change: the value minus the baseline's must be at least (where less is better: at most) this; None: any.
      slice: one or two features with their values; empty for all images.
      worst_of: one or two features: holds for the worst of their slices; empty for none.
      of: whether images count, or groups.
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
        """Of the slices that it is on."""
        return list(self.slice or self.worst_of)


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """How the images of a group give one answer, see `groups.combine`.

    Attributes:
      share: of rule `share`: least share of images.
      positive: of rule `share`: the class.
    """

    rule: RuleName
    share: float
    positive: str | None


@dataclass(frozen=True, kw_only=True)
class EvaluatorSettings:
    """Of the component.

    Attributes:
      metrics: names, those that thresholds are on among them.
      slices: features of each kind of slices, likewise.
      buckets: of features that are numbers, the edges between their slices.
      min_slice_size: images that a slice needs to be measured.
      confidence_intervals: how they are computed.
      groups: how groups are answered.
      max_shortcut: balanced accuracy by a property of the file alone from which there is a warning.
      batch_size: images a step.
      thresholds: all must hold for a blessing.
      multi_label: whether an image can have any number of classes.
      splits: to measure on.
      judged: whether the thresholds apply.
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
