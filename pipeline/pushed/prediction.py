"""Classifies image files with a SavedModel as a server would: from its folder, without the code that made it."""

from pathlib import Path
from typing import Any

from models import features
from pipeline.pushed.pushed_model import Failure, find_version, read_files

_BATCH_SIZE = 64


def predict(model: Path, images: list[Path], public_key: Path | None = None) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Classifies files.

    Args:
      model: a SavedModel, or a folder of numbered versions, of which the newest is used.
      images: files in any format that ingestion takes.
      public_key: PEM file; the model must then be signed by this key.

    Returns:
      {"image": path, "label": the most probable label, "probabilities": {label: probability}} for each image, in order; and the
      files that can't be read. For multi-label data, "label" joins all labels whose probability is at least 0.5, such as
      "cat|dog", or is "" without any. A model that abstains has the label "unknown". One that gives sets has "label_set" as
      well, a list of labels; one that tells how unusual an image is has "unusual", 0..100.

    Raises:
      UserError: there is no model, or none that is intact and signed.
    """
    folder = find_version(model, public_key)
    files = read_files(images, folder)
    if not files.images:
        return [], files.failures

    import tensorflow as tf

    classify = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answers = []
    for image, answer in files.ask(classify, _BATCH_SIZE):
        labels = [label.decode() for label in answer["labels"]]
        found = {
            "image": str(image),
            "label": answer["label"].decode(),
            "probabilities": dict(zip(labels, answer["probabilities"].tolist(), strict=True)),
        }
        if "label_set" in answer:
            found["label_set"] = [label for label, inside in zip(labels, answer["label_set"], strict=True) if inside]
        if "unusual" in answer:
            found["unusual"] = float(answer["unusual"])
        answers.append(found)
    return answers, files.failures


def format_answer(label: str, probabilities: dict[str, float], number: str) -> tuple[str, str]:
    """A model's answer for a person: names and their probabilities, such as ("cat|dog", "0.97|0.61"), or ("(none)", "");
    "unknown" has the probability of the most probable class.

    Args:
      label: as in `predict`.
      probabilities: as in `predict`.
      number: format of a probability, such as ".2f".
    """
    if label == features.UNKNOWN and label not in probabilities:
        return label, format(max(probabilities.values()), number)
    names = [label] if label in probabilities else features.split_labels(label, multi_label=True)
    return label or "(none)", features.LABEL_SEPARATOR.join(format(probabilities[name], number) for name in names)
