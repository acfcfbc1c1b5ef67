"""Earlier models: the one that a run's model is compared with, and the one that its training starts from."""

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from base.errors import UserError
from components.pusher.classes import known_classes, read_labels
from components.pusher.integrity import digest_of, find_problem
from components.pusher.model_files import exists, read_file, user_errors
from components.pusher.versions import newest_first, served_version

DIGEST: Final = "served_digest"  # custom properties of an artifact that stands for a served model
ERROR: Final = "served_error"
_IDENTITY: Final = ("saved_model.pb", "variables/variables.index")  # the graph, and checksums of all weights


@dataclass(frozen=True)
class Baseline:
    """An earlier model: its folder, local or a URI, and the digest of its files."""

    path: str
    digest: str


def find_baseline(folder: str, candidate: str) -> Baseline | None:
    """The newest intact version that is not the candidate itself, if the two can be compared.

    If the candidate is served already, its own earlier versions are passed over: it would be compared with itself, and its
    evaluation would not come from the cache. Models with other classes can't be compared.

    Args:
      folder: folder of the versions, local or a URI. If it does not exist, there are none.
      candidate: folder of a SavedModel.

    Raises:
      UserError: the folder can't be read.
    """
    own = _identity(candidate)
    with user_errors(folder, "read"):
        for version in newest_first(folder):
            if version.problem or _identity(version.path) == own or find_problem(version.path):
                continue
            classes = known_classes(version)
            if classes is None or set(classes) != set(read_labels(candidate) or []):
                return None
            return Baseline(version.path, digest_of(version.path))
    return None


def find_base_model(folder: str) -> Baseline | None:
    """The model that a training starts from: the newest intact version in a folder, or the SavedModel that the folder is.

    Args:
      folder: local or a URI.

    Returns:
      None if there is no model, or no such folder.

    Raises:
      UserError: the folder can't be read, or the SavedModel is damaged.
    """
    folder = folder if "://" in folder else os.path.abspath(folder)
    if version := served_version(folder):
        return Baseline(version.path, digest_of(version.path))
    with user_errors(folder, "read"):
        if not exists(f"{folder}/saved_model.pb"):
            return None
        if problem := find_problem(folder):
            raise UserError(f"{folder}: is damaged ({problem}); give another version")
        return Baseline(folder, digest_of(folder))


def _identity(model: str) -> str:
    """A digest that is the same for all copies of a model, also with other assets. It does not read the weights."""
    digest = hashlib.sha256()
    for path in (f"{model}/{name}" for name in _IDENTITY):
        digest.update(hashlib.sha256(read_file(path) if exists(path) else b"").digest())
    return digest.hexdigest()
