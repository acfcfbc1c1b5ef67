"""What to do where a training step does not fit into the memory: half of the batch is computed at a time."""

import re
from dataclasses import replace
from typing import Final

from models.settings import TrainSettings

_MEMORY: Final = re.compile("OOM|out of memory|allocat", re.IGNORECASE)


class OutOfMemoryError(ValueError):
    """A training step needs more memory than there is, and can't be divided; the text says what to change."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether TensorFlow's ResourceExhaustedError is about memory; it is the same for a full disk and too many open files."""
    return bool(_MEMORY.search(str(error)))


def halve(config: TrainSettings, batch_size: int, replicas: int) -> TrainSettings:
    """The settings of a training that computes half of the images at a time, and averages the gradients.

    An update sees as many images as before, or one less for each part of an odd batch. Batch statistics are those of a part.

    Args:
      config: of the training whose step did not fit.
      batch_size: its images per step.
      replicas: devices that train together.

    Raises:
      OutOfMemoryError: the step is of a single image, or of several devices, for which Keras can't average gradients.
    """
    needs = f"a training step of {batch_size} image{'s' if batch_size > 1 else ''} needs more memory than there is"
    if replicas > 1 and batch_size > replicas:
        raise OutOfMemoryError(f"{needs}; set train.batch_size to {max(replicas, batch_size // 2)} or less")
    if batch_size <= replicas:
        raise OutOfMemoryError(
            f"{needs}; make image.height and image.width smaller, set image.tiles, or choose another network"
        )
    steps = config.steps and config.steps * 2
    return replace(config, batch_size=batch_size // 2, accumulate_steps=config.accumulate_steps * 2, steps=steps)
