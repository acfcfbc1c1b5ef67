"""How the data of a run was read when the run began."""

from dataclasses import dataclass
from typing import Final

from images.dataset.losses import Losses
from images.settings import Reading


@dataclass(frozen=True)
class Readings:
    """How the images for training, and those of `score.path`, were read; None: the component that ingests them decides.

    Attributes:
      data: of the images for training.
      score: of the images of `score.path`.
      score_losses: what damaged files of `score.path` have lost; None if nothing.
    """

    data: Reading | None = None
    score: Reading | None = None
    score_losses: Losses | None = None


NOT_READ: Final = Readings()  # as for Kubeflow, where the data may be out of reach of who compiles
