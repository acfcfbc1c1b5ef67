"""The model that is exported: the classifier on several views of an image, with calibrated answers."""

from collections.abc import Callable
from typing import Any, Final

import keras

from models.choices import TestTimeAugmentation

_SHIFT: Final = 0.04  # of height and width


def build_inference_model(
    classifier: keras.Model, temperature: float = 1.0, test_time_augmentation: TestTimeAugmentation = "none"
) -> keras.Model:
    """Wraps the classifier, whose weights it shares, for serving.

    The logits of an image are the mean over its views, divided by the temperature. So the probabilities are the normalised
    geometric mean of the views' probabilities (for a sigmoid, of its odds), calibrated. All views of a batch go through the
    classifier together, as one larger batch.

    Args:
      classifier: from uint8 [N, height, width, channels] to logits float32 [N, classes].
      temperature: above 0; see `models.calibration.fit_temperature`.
      test_time_augmentation: the views: "none", the image itself; "flip", the image and its mirror image, left and right
        exchanged; "shift", the image and its shifts by 4 % to each of the four sides, filled by mirroring at the edge;
        "flip_shift", these five and their mirror images. The classifier has 1, 2, 5 or 10 times the work.

    Returns:
      A model with the same inputs and outputs; the classifier itself if there is nothing to do.
    """
    if temperature == 1.0 and test_time_augmentation == "none":
        return classifier
    images = keras.Input(classifier.input_shape[1:], dtype="uint8", name="image")
    return keras.Model(images, infer(classifier, images, temperature, test_time_augmentation), name="inference")


def infer(
    classify: Callable[[Any], Any], images: Any, temperature: float = 1.0, test_time_augmentation: TestTimeAugmentation = "none"
) -> Any:
    """The logits of a batch, as `build_inference_model` describes them, from any function from images to logits.

    Args:
      classify: from uint8 [N, height, width, channels] to logits float32 [N, classes].
      images: the images, a tensor or a symbolic tensor.
      temperature: as in `build_inference_model`.
      test_time_augmentation: as in `build_inference_model`.
    """
    views = [images]
    if "shift" in test_time_augmentation:
        views += _shifts(images)
    if "flip" in test_time_augmentation:
        views += [keras.ops.flip(view, axis=2) for view in views]
    if len(views) == 1:
        logits = classify(images)
    else:
        stacked = classify(keras.ops.concatenate(views, axis=0))
        logits = keras.ops.mean(keras.ops.reshape(stacked, (len(views), -1, stacked.shape[-1])), axis=0)
    return logits if temperature == 1.0 else logits / temperature


def _shifts(images: Any) -> list[Any]:
    height, width = images.shape[1:3]
    rows, columns = (max(1, round(_SHIFT * size)) for size in (height, width))
    padded = keras.ops.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="reflect")
    return [
        padded[:, top : top + height, left : left + width]
        for top, left in ((0, columns), (2 * rows, columns), (rows, 0), (rows, 2 * columns))
    ]
