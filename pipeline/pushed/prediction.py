"""Classifies image files with a SavedModel as a server would: from its folder, without the code that made it."""

from pathlib import Path
from typing import Any

from pipeline.pushed.pushed_model import find_version, read_image

_BATCH_SIZE = 64
_LABEL_SEPARATOR = "|"  # joins the labels of a multi-label answer


def predict(model: Path, images: list[Path]) -> list[dict[str, Any]]:
    """Classifies files.

    Args:
      model: a SavedModel, or a folder of numbered versions, of which the newest is used.
      images: files in any format that ingestion takes.

    Returns:
      {"image": path, "label": the most probable label, "probabilities": {label: probability}} for each image, in order. For
      multi-label data, "label" joins all labels whose probability is at least 0.5, such as "cat|dog", or is "" without any.

    Raises:
      UserError: there is no model, or a file is not an image.
    """
    folder = find_version(model)
    files = [read_image(image, folder) for image in images]

    import tensorflow as tf

    classify = tf.saved_model.load(str(folder)).signatures["serving_default"]
    predictions = []
    for start in range(0, len(files), _BATCH_SIZE):
        batch = classify(image_bytes=tf.constant(files[start : start + _BATCH_SIZE]))
        labels = [label.decode() for label in batch["labels"][0].numpy()]
        for image, label, probabilities in zip(
            images[start : start + _BATCH_SIZE], batch["label"].numpy(), batch["probabilities"].numpy().tolist(), strict=True
        ):
            predictions.append(
                {"image": str(image), "label": label.decode(), "probabilities": dict(zip(labels, probabilities, strict=True))}
            )
    return predictions


def format_answer(label: str, probabilities: dict[str, float], number: str) -> tuple[str, str]:
    """A model's answer for a person: names and their probabilities, such as ("cat|dog", "0.97|0.61"), or ("(none)", "").

    Args:
      label: as in `predict`.
      probabilities: as in `predict`.
      number: format of a probability, such as ".2f".
    """
    names = [label] if label in probabilities else [name for name in label.split(_LABEL_SEPARATOR) if name]
    return label or "(none)", _LABEL_SEPARATOR.join(format(probabilities[name], number) for name in names)
