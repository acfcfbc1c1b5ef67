"""Reads TFRecord files one record after the other."""

import tensorflow as tf


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
