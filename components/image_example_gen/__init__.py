"""Ingestion: image files in, tf.Example out, unreadable files set aside."""
