"""A training whose step does not fit into the memory is divided, or says what to change."""

import pytest
import tensorflow as tf

from models.memory import OutOfMemoryError, halve, is_out_of_memory
from pipeline.config.network import TrainConfig
from pipeline.dag.component_settings import train_settings


def settings(**changes):
    return train_settings(TrainConfig(**changes))


def test_an_update_keeps_its_images_and_a_training_its_updates():
    halved = halve(settings(batch_size=64, accumulate_steps=3, steps=100), 64, replicas=1)
    assert (halved.batch_size, halved.accumulate_steps, halved.steps) == (32, 6, 200)


def test_a_batch_of_more_images_than_there_are_is_halved_from_these():
    assert halve(settings(batch_size=1000), 250, replicas=1).batch_size == 125


@pytest.mark.parametrize(
    ("batch_size", "replicas", "cure"),
    [
        (64, 2, "set train.batch_size to 32 or less"),
        (1, 1, "make image.height and image.width smaller"),
        (2, 2, "make image.height and image.width smaller"),
    ],
)
def test_what_can_not_be_divided_says_what_to_change(batch_size, replicas, cure):
    with pytest.raises(OutOfMemoryError, match=cure):
        halve(settings(batch_size=batch_size), batch_size, replicas)


def test_memory_is_told_from_disks_and_open_files(tmp_path):
    with pytest.raises(tf.errors.ResourceExhaustedError) as told:
        tf.raw_ops.Empty(shape=[2**20, 2**20, 16], dtype=tf.float32)
    assert is_out_of_memory(told.value)
    assert is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "Out of memory while trying to allocate 9 bytes."))
    with pytest.raises(tf.errors.ResourceExhaustedError) as told, tf.io.gfile.GFile("/dev/full", "w") as file:
        file.write("x" * 2**20)
    assert not is_out_of_memory(told.value)
