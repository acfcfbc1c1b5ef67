"""ImageExampleGen, the ingestion: reads image files, writes tf.Examples, and sets unusable files aside."""
