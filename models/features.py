"""Names, types and shapes of every feature: the contract between ingestion, Transform, training and evaluation.

Raw features are what `components.image_example_gen` writes, one `tf.Example` an image, each feature with one value; but the
label of multi-label data has as many as the image has classes, which may be none.
Transformed features are what `models.preprocessing` writes and `models.training` reads.
"""

from typing import Final

# Raw features.
ENCODED: Final = "image/encoded"  # bytes: the image file, in a format that tf.io.decode_image reads
# bytes: what the network sees, as IMAGE is, in the examples that Transform reads, else empty; missing in another ExampleGen's
PIXELS: Final = "image/pixels"
FORMAT: Final = "image/format"  # bytes: png or jpeg
HEIGHT: Final = "image/height"  # int64: pixels
WIDTH: Final = "image/width"  # int64: pixels
CHANNELS: Final = "image/channels"  # int64: 1 to 4
ASPECT: Final = "image/aspect"  # float: width / height
BYTES: Final = "image/bytes"  # int64: size of the original file
FILENAME: Final = "image/filename"  # bytes: path, relative to the data folder
LABEL: Final = "image/label"  # bytes: name of the class; of multi-label data, the names of all its classes
LABEL_SEPARATOR: Final = "|"  # between names where several are written as one text: in manifests and in predictions
GROUP: Final = "image/group"  # bytes: rows that share it share a split; the path where the data has no groups
MEAN: Final = "image/mean"  # float: mean grey level, 0..1
STD: Final = "image/std"  # float: standard deviation of the grey level, 0..0.5
SATURATED: Final = "image/saturated"  # float: share of values at an end of the pixel type's range, 0..1
SHARPNESS: Final = "image/sharpness"  # float: standard deviation of the Laplacian, 0..4; see models.summaries
META_PREFIX: Final = "meta/"  # bytes: one feature for each extra column of a manifest
SUMMARIES: Final = (MEAN, STD, SATURATED, SHARPNESS)  # what models.summaries computes of the pixels, in this order
RAW: Final = (ENCODED, PIXELS, FORMAT, HEIGHT, WIDTH, CHANNELS, ASPECT, BYTES, FILENAME, LABEL, GROUP, *SUMMARIES)

# Transformed features.
IMAGE: Final = "image"  # bytes: uint8 [height, width, channels], row by row
LABEL_INDEX: Final = "label"  # int64: position of the label in the vocabulary; of multi-label data, of each, any number
CHANNEL_MEAN: Final = "channel_mean"  # float32 [channels]: mean of the training split's pixels, 0..255, same on every row
CHANNEL_VARIANCE: Final = "channel_variance"  # float32 [channels]: their variance, same on every row
TRAIN_EXAMPLES: Final = "train_examples"  # int64: number of examples in the training split, same on every row

LABEL_VOCABULARY: Final = "labels"  # the vocabulary's name inside the transform graph
LABEL_COUNTS: Final = "label_counts"  # likewise: lines of an example count of the training split, a space, and the label

# In the SavedModel's folder: the section `image` of the configuration, as JSON, for those who make image files for the model.
IMAGE_SETTINGS: Final = "assets.extra/image.json"

# Likewise: requests that TensorFlow Serving sends itself when it loads the model; it looks for this name.
WARMUP: Final = "assets.extra/tf_serving_warmup_requests"

SPLITS: Final = ("train", "eval", "test")  # of a run; cross-validation has folds instead
