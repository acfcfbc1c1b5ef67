"""TFRecord files read one record after the other."""

import tensorflow as tf


def read_records(files: str | list[str]) -> tf.data.Dataset:
    """Strings, the records of the files in their order.

    Files whose names end in ".gz" are compressed, as those of TFX's own ExampleGens are.
    Nothing of it is tuned while it runs: tf.data's thread for that can let an iterator's end wait for two seconds, which with
    many short files is most of the time.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    names = [files] if isinstance(files, str) else files
    compression = "GZIP" if names and all(name.endswith(".gz") for name in names) else ""
    return tf.data.TFRecordDataset(files, compression).with_options(options)
