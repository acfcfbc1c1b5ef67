"""The classes of pushed versions: a model must not take the place of one with other classes, unless it is told to."""

import tempfile
from collections.abc import Collection, Sequence
from typing import Final

from base.errors import UserError
from components.pusher.model_files import exists, fetch, read_file, user_errors
from components.pusher.places import Version
from components.pusher.versions import newest_first

_LABELS: Final = "assets/labels"  # the vocabulary in a SavedModel, as models.features names it
_SIGNATURE: Final = "predict_examples"  # what the Evaluator asks a model by
_MOST_NAMED: Final = 5


def check_classes(folder: str, classes: Sequence[str], *, replace: bool) -> str:
    """Compares the classes of a new model with those of the model that is served.

    Args:
      folder: folder of the versions, local or a URI.
      classes: of the new model.
      replace: whether they may differ.

    Returns:
      How they differ, such as "cow new; cat, dog gone"; "" if they do not, or if nothing is served.

    Raises:
      UserError: they differ, and must not; or the folder can't be read.
    """
    with user_errors(folder, "read"):
        served = next((version for version in newest_first(folder) if not version.problem or known_classes(version)), None)
        if served is None:
            return ""
        found = known_classes(served)
    if found is not None and set(found) == set(classes):
        return ""
    difference = "its classes are not known" if found is None else _difference(classes, found)
    if replace:
        return difference
    raise UserError(
        f"{folder}: {served.number}, which is served, has other classes than this model ({difference}); "
        "give another push.path, or push.replace: true"
    )


def known_classes(version: Version) -> list[str] | None:
    """The classes of a version, from its record or the labels in it.

    Returns:
      The names; None if they can't be known, or if another program has put the version there and the model can't be asked as
      ours are, so that no model can be compared with it.
    """
    if version.record and version.record.classes:
        return version.record.classes
    labels = read_labels(version.path)
    if version.record is None and not version.problem and labels and not _answers_examples(version.path):
        return None
    return labels


def read_labels(model: str) -> list[str] | None:
    """The classes of a SavedModel of this project; None if it does not name them.

    Args:
      model: its folder, local or a URI.
    """
    path = f"{model}/{_LABELS}"
    try:
        return read_file(path).decode("utf-8").splitlines() or None if exists(path) else None
    except (OSError, UnicodeDecodeError):
        return None


def _answers_examples(model: str) -> bool:
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix="fpn-version-") as folder:
        try:
            return _SIGNATURE in tf.saved_model.load(fetch(model, folder)).signatures
        except Exception:  # whatever TensorFlow raises for a model that it can't load
            return False


def _difference(new: Collection[str], old: Collection[str]) -> str:
    parts = [(sorted(set(new) - set(old)), "new"), (sorted(set(old) - set(new)), "gone")]
    return "; ".join(f"{_some(names)} {what}" for names, what in parts if names)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
