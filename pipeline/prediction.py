"""Classifies image files with a SavedModel as a server would: from the folder alone, without the code that made it."""

from pathlib import Path
from typing import Any

from pipeline.pushed_model import find_version, read_image

_BATCH_SIZE = 64


def predict(model: Path, images: list[Path]) -> list[dict[str, Any]]:
    """Classifies files.

    Args:
      model: a SavedModel, or a folder of numbered versions, of which the newest is used.
      images: files in any format that ingestion takes.

    Returns:
      {"image": path, "label": the most probable, "probabilities": {label: probability}} for each image, in order.

    Raises:
      UserError: there is no model, or a file is no image.
    """
    folder = find_version(model)
    files = [read_image(image) for image in images]

    import tensorflow as tf

    classify = tf.saved_model.load(str(folder)).signatures["serving_default"]
    predictions = []
    for start in range(0, len(files), _BATCH_SIZE):
        batch = classify(image_bytes=tf.constant(files[start : start + _BATCH_SIZE]))
        labels = [label.decode() for label in batch["labels"].numpy()]
        for image, label, probabilities in zip(
            images[start : start + _BATCH_SIZE], batch["label"].numpy(), batch["probabilities"].numpy().tolist(), strict=True
        ):
            predictions.append(
                {"image": str(image), "label": label.decode(), "probabilities": dict(zip(labels, probabilities, strict=True))}
            )
    return predictions
