"""Settings of the BulkInferrer. They have no defaults; the configuration sets every value."""

from dataclasses import dataclass

from evaluation.settings import GroupRule


@dataclass(frozen=True, kw_only=True)
class InferrerSettings:
    """Settings of the component BulkInferrer.

    Attributes:
      batch_size: images per step.
      embeddings: whether the tables get the images' embeddings.
      groups: how the answers to the images of a group are combined.
    """

    batch_size: int
    embeddings: bool
    groups: GroupRule
