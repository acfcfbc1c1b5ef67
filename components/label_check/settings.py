"""Settings of LabelCheck. They have no defaults; the configuration sets every value."""

from dataclasses import dataclass

from images.settings import SourceSettings


@dataclass(frozen=True, kw_only=True)
class LabelCheckSettings:
    """Settings of the component LabelCheck.

    Attributes:
      folds: number of folds of the cross-validation, 2 or more.
      batch_size: images per step.
      source: how the data set is found, and which corrections of its labels are in use.
    """

    folds: int
    batch_size: int
    source: SourceSettings
