"""What an interrupted training needs to continue: one file, replaced as a whole after every epoch.

All paths go through `tf.io.gfile`, so they may be on this machine or in an object store such as GCS.
"""

import hashlib
import io
import json
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from models.files import replaced

_FILE = "checkpoint.npz"


@dataclass
class Checkpoint:
    """The state of training after a whole number of epochs."""

    phase: int = 0  # position in the list of phases
    phase_start: int = 0  # epochs before this phase
    stopped: bool = False  # whether early stopping has ended the phase
    history: list[dict[str, float]] = field(default_factory=list)  # one row per epoch
    seconds: float = 0.0  # of a budget that are spent
    progress: float = 0.0  # of a phase that ends with the budget, 0..1
    best_epoch: int = 0  # position in the history of the epoch whose weights are in `best`
    model: list[np.ndarray] = field(default_factory=list)  # all variables, including the states of random numbers
    optimizer: list[np.ndarray] = field(default_factory=list)  # all variables
    best: list[np.ndarray] = field(default_factory=list)  # as `model`, from the best epoch; empty if it is not kept


_ARRAYS = ("model", "optimizer", "best")


def checkpoint_folder(root: str, **key: Any) -> str:
    """The folder below `root` for the training that `key` identifies: by its data, its code and its configuration."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
    return os.path.join(root, digest[:24])


def save_checkpoint(folder: str, checkpoint: Checkpoint) -> None:
    """Replaces the folder's checkpoint; if killed at any moment, either the old or the new one is there, complete."""
    state = {name: value for name, value in vars(checkpoint).items() if name not in _ARRAYS}
    arrays = {f"{name}/{index}": array for name in _ARRAYS for index, array in enumerate(getattr(checkpoint, name))}
    tf.io.gfile.makedirs(folder)
    with replaced(os.path.join(folder, _FILE)) as unfinished, tempfile.TemporaryDirectory() as local:
        written = os.path.join(local, _FILE)
        np.savez(written, state=np.array(json.dumps(state)), **arrays)
        tf.io.gfile.copy(written, unfinished, overwrite=True)


def load_checkpoint(folder: str | None, share: Callable[[bytes], bytes] = bytes) -> Checkpoint | None:
    """Reads the folder's checkpoint.

    Args:
      folder: None where another process reads it.
      share: makes the content that was read here, which may be nothing, the one that counts.

    Returns:
      The checkpoint; None if there is none, or if it is damaged: the training then begins anew.
    """
    content = b""
    path = os.path.join(folder or "", _FILE)
    if folder and tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read()
    if not (content := share(content)):
        return None
    try:
        return _read(io.BytesIO(content))
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error):
        logging.exception("%s is damaged, and not used", path)
        return None


def _read(content: io.BytesIO) -> Checkpoint:
    stored = np.load(content)
    checkpoint = Checkpoint(**json.loads(str(stored["state"])))
    for name in _ARRAYS:
        count = sum(key.startswith(f"{name}/") for key in stored.files)
        setattr(checkpoint, name, [stored[f"{name}/{index}"] for index in range(count)])
    return checkpoint


def remove_checkpoint(folder: str) -> None:
    """Removes the folder, if it is there."""
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
