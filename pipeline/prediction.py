"""Classifies image files with a SavedModel as a server would: from the folder alone, without the code that made it."""

from pathlib import Path
from typing import Any

from components.errors import UserError
from components.image_example_gen.decoding import RejectedImage, check_image

_BATCH_SIZE = 64
_MAX_PIXELS = 100_000_000


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
    versions = [path for path in model.glob("*/saved_model.pb") if path.parent.name.isdigit()]
    folder = max(versions, key=lambda path: int(path.parent.name)).parent if versions else model
    if not (folder / "saved_model.pb").exists():
        raise UserError(f"{model}: no SavedModel here; give the folder that a run has pushed to, such as output/digits/pushed")
    files = [_read(image) for image in images]

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


def _read(image: Path) -> bytes:
    try:
        return check_image(image.read_bytes(), _MAX_PIXELS).encoded
    except OSError as error:
        raise UserError(f"{image}: {error.strerror}; give an image file") from error
    except RejectedImage as reason:
        raise UserError(f"{image}: {reason}; give an image file, such as PNG or JPEG") from reason
