"""Records of examples: files of them, and the form in which the Trainer reads them."""

import tensorflow as tf

from models import features

_TRAINED_ON = (features.LABEL, features.GROUP)


def read_records(files: str | list[str]) -> tf.data.Dataset:
    """A data set of strings, the records of the files in their order.

    Files whose names end with ".gz" are compressed, as are those of TFX's own ExampleGens.
    tf.data's autotuning is off: its thread can delay the end of an iterator by two seconds, which is most of the time if there
    are many short files.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    names = [files] if isinstance(files, str) else files
    compression = "GZIP" if names and all(name.endswith(".gz") for name in names) else ""
    return tf.data.TFRecordDataset(files, compression).with_options(options)


def decoded_example(raw: tf.train.Example, encoded: bytes, pixels: bytes) -> bytes:
    """The decoded example of a raw one, serialised; see `models.features` for both, and for what one of the others is empty."""
    found, decoded = raw.features.feature, tf.train.Example()
    for name in _TRAINED_ON:
        if name in found:
            decoded.features.feature[name].CopyFrom(found[name])
    for name, value in {features.ENCODED: encoded, features.PIXELS: pixels}.items():
        decoded.features.feature[name].bytes_list.value.append(value)
    return decoded.SerializeToString()
