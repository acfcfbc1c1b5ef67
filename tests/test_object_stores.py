"""The servers that stand for object stores, and how Beam and TensorFlow reach them."""

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from object_stores import Store

CONTENT = bytes(range(256)) * 20_000  # 5 MB, in several parts


def test_a_store_lists_markers_of_folders_too(store: Store, bucket: str) -> None:
    store.put(bucket, "a/", b"")
    store.put(bucket, "a/1 +%ä.bin", CONTENT)
    store.put(bucket, "b/2.bin", b"")
    assert store.list(bucket) == ["a/", "a/1 +%ä.bin", "b/2.bin"]
    assert store.list(bucket, "b") == ["b/2.bin"]
    assert store.get(bucket, "a/1 +%ä.bin") == CONTENT
    store.delete(bucket, "a/")
    assert store.list(bucket, "a/") == ["a/1 +%ä.bin"]


def test_beam_reads_and_writes(store: Store, bucket: str) -> None:
    FileSystems.set_options(PipelineOptions([]))
    path = f"{store.scheme}://{bucket}/folder/file.bin"
    with FileSystems.create(path) as file:
        file.write(CONTENT)
    assert store.get(bucket, "folder/file.bin") == CONTENT
    with FileSystems.open(path) as file:
        assert file.read() == CONTENT


def test_tensorflow_reads_and_writes(gcs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    for name, value in gcs.environment.items():
        monkeypatch.setenv(name, value)
    gcs.create_bucket("tensorflow")
    path = "gs://tensorflow/folder/file ä.bin"
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(CONTENT)
    assert gcs.get("tensorflow", "folder/file ä.bin") == CONTENT
    with tf.io.gfile.GFile(path, "rb") as file:
        assert file.read() == CONTENT
    tf.io.gfile.rename(path, "gs://tensorflow/other/file.bin")
    assert tf.io.gfile.listdir("gs://tensorflow/other") == ["file.bin"]
    assert not tf.io.gfile.exists(path)
