"""The history of a training: one row per epoch, and whether it has diverged."""

import math
from collections.abc import Mapping
from typing import Any, Final

HISTORY_FILE: Final = "history.csv"  # in the folder of the curves


def is_diverged(row: Mapping[str, Any]) -> bool:
    """Whether an epoch's loss, on the training batches or on the eval split, is not a finite number.

    Args:
      row: of the history that `models.training.fit` returns, or of its file.
    """
    return not (math.isfinite(float(row["loss"])) and math.isfinite(float(row["val_loss"])))


def describe_divergence(row: Mapping[str, Any]) -> str:
    """What has happened in an epoch that `is_diverged`, and the cure. Args: see `is_diverged`."""
    return (
        f"Training diverged in epoch {int(row['epoch'])}: loss {float(row['loss']):g}, eval loss {float(row['val_loss']):g}, "
        f"learning rate {float(row['learning_rate']):g}; set train.learning_rate lower, to a tenth for example, "
        "or train.clip_norm: 1"
    )
