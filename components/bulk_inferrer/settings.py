"""What the BulkInferrer goes by: a record without defaults, which are the configuration's to have."""

from dataclasses import dataclass

from evaluation.settings import GroupRule


@dataclass(frozen=True, kw_only=True)
class InferrerSettings:
    """Of the component.

    Attributes:
      batch_size: images a step.
      groups: how groups are answered.
    """

    batch_size: int
    groups: GroupRule
