"""What ModelFormats goes by: a record without defaults, which are the configuration's to have."""

from dataclasses import dataclass

from evaluation.settings import GroupRule, Threshold
from models.choices import Format


@dataclass(frozen=True, kw_only=True)
class FormatSettings:
    """Of the component.

    Attributes:
      formats: to convert the model to.
      thresholds: what each must keep to be shipped; `change` is against the SavedModel.
      groups: how groups are answered.
      buckets: of features that are numbers, the edges between their slices.
      min_slice_size: images that a slice needs to be measured.
      train: splits that are sampled for int8.
      test: splits that are measured on.
    """

    formats: tuple[Format, ...]
    thresholds: tuple[Threshold, ...]
    groups: GroupRule
    buckets: dict[str, tuple[float, ...]]
    min_slice_size: int
    train: tuple[str, ...]
    test: tuple[str, ...]
