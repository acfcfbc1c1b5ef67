"""Names, types and shapes of every feature: the contract between ingestion, Transform, training and evaluation.

Raw features are what `components.image_example_gen` writes, one `tf.Example` per image. Each feature has one value, except the
label of multi-label data, which has one value for each class of the image, and may have none.
Decoded examples have of these the label, the group, and what the network sees: its pixels, or if these are empty an image file
of the network's size in place of the whole one. `models.training` reads them.
Transformed features are what `models.preprocessing` makes of raw ones.
"""

from collections.abc import Iterable
from typing import Final

# Raw features.
ENCODED: Final = "image/encoded"  # bytes: the image file, in a format that tf.io.decode_image reads
# bytes: what the network sees, in the format of IMAGE, in decoded examples; empty in others, absent from examples of other
# ExampleGens
PIXELS: Final = "image/pixels"
FORMAT: Final = "image/format"  # bytes: png or jpeg, of the whole image file
HEIGHT: Final = "image/height"  # int64: pixels
WIDTH: Final = "image/width"  # int64: pixels
CHANNELS: Final = "image/channels"  # int64: 1 to 4
ASPECT: Final = "image/aspect"  # float: width / height
BYTES: Final = "image/bytes"  # int64: size of the original file
FILENAME: Final = "image/filename"  # bytes: path, relative to the data folder
LABEL: Final = "image/label"  # bytes: name of the class; for multi-label data, names of all the image's classes
LABEL_SEPARATOR: Final = "|"  # between names if several are written as one text: in manifests and in predictions
GROUP: Final = "image/group"  # bytes: rows with the same value are in the same split; the path if the data has no groups
MEAN: Final = "image/mean"  # float: mean grey level, 0..1
STD: Final = "image/std"  # float: standard deviation of the grey level, 0..0.5
SATURATED: Final = "image/saturated"  # float: share of values at an end of the pixel type's range, 0..1
SHARPNESS: Final = "image/sharpness"  # float: standard deviation of the Laplacian, 0..4; see models.summaries
META_PREFIX: Final = "meta/"  # bytes: one feature for each extra column of a manifest
SUMMARIES: Final = (MEAN, STD, SATURATED, SHARPNESS)  # what models.summaries computes from the pixels, in this order
RAW: Final = (ENCODED, PIXELS, FORMAT, HEIGHT, WIDTH, CHANNELS, ASPECT, BYTES, FILENAME, LABEL, GROUP, *SUMMARIES)

# Transformed features.
IMAGE: Final = "image"  # bytes: uint8 [height, width, channels], row by row
LABEL_INDEX: Final = "label"  # int64: position of the label in the vocabulary; for multi-label data, of any number of labels
CHANNEL_MEAN: Final = "channel_mean"  # float32 [channels]: mean of the training split's pixels, 0..255, same in every row
CHANNEL_VARIANCE: Final = "channel_variance"  # float32 [channels]: variance of these pixels, same in every row
TRAIN_EXAMPLES: Final = "train_examples"  # int64: number of examples in the training split, same in every row

LABEL_VOCABULARY: Final = "labels"  # the vocabulary's name inside the transform graph
LABEL_COUNTS: Final = "label_counts"  # likewise: one line per label: number of training examples, a space, the label

# In the SavedModel's folder: the section `image` of the configuration as JSON, for code that makes image files for the model.
IMAGE_SETTINGS: Final = "assets.extra/image.json"

# In the SavedModel's folder: a sample of the eval split with the model's answers; see models.reference.
REFERENCE: Final = "assets.extra/reference.parquet"

# In the SavedModel's folder: requests that TensorFlow Serving runs when it loads the model; it looks for this name.
WARMUP: Final = "assets.extra/tf_serving_warmup_requests"

UNKNOWN: Final = "unknown"  # the label where a model does not answer

SPLITS: Final = ("train", "eval", "test")  # in a run; a cross-validation has folds instead


def join_labels(labels: Iterable[str]) -> str:
    """Names of an image's classes as one text: "cat", or for multi-label data "cat|dog" or ""."""
    return LABEL_SEPARATOR.join(labels)


def split_labels(text: str, multi_label: bool) -> list[str]:
    """The names in a text that `join_labels` has made; the name of a class of single-label data may hold the separator."""
    return [name for name in (text.split(LABEL_SEPARATOR) if multi_label else [text]) if name]
