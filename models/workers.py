"""Several processes, each with the GPUs of its machine, train one model together; TF_CONFIG tells each which it is.

The first of them is the chief: it has the arguments and the checkpoint, and writes what the training leaves.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import tensorflow as tf

from models.settings import TrainSettings

log = logging.getLogger(__name__)

_VARIABLE: Final = "TF_CONFIG"
# How a data set is dealt: each worker reads all batches and takes its part of each. Together the parts are what one process
# would see, however many workers there are.
BY_BATCHES: Final = tf.data.Options()
BY_BATCHES.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA

_WORD: Final = np.dtype(np.int64)  # what TensorFlow can send; bytes it can't
_FORM: Final = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
_LOST: Final = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)


class WorkersError(ValueError):
    """Workers can't train together as they are told; the text names the cure."""


class LostWorkerError(Exception):
    """A worker has ended, and so the others must."""


class Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """The replicas of all workers as mirrors of each other. It must be made before TensorFlow has computed anything.

    Making it waits for all workers.

    Raises:
      WorkersError: TF_CONFIG can't be used.
    """

    def __init__(self) -> None:
        addresses, self.index = cluster()
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        log.info("worker %d of %d waits until all can be reached: %s", self.index, len(addresses), ", ".join(addresses))
        try:
            super().__init__()
        except tf.errors.UnknownError as error:
            raise WorkersError(
                f"{addresses[self.index]}: can't be listened at ({error.message}); is its port in use?"
            ) from error

    def reduce(self, reduce_op: str, value: Any, axis: int | None) -> Any:
        """See Strategy. `fit` of Keras 3 calls it in two ways that this one does not bear (keras-team/keras#20585).

        It wants the mean of a batch of tensors, only to see their shapes, and that of metrics over an axis they do not have.
        """
        if isinstance(value, tuple):
            return tuple(self.experimental_local_results(part)[0] for part in value)
        is_scalar = self.experimental_local_results(value)[0].shape.rank == 0
        return super().reduce(reduce_op, value, None if is_scalar else axis)


def cluster() -> tuple[list[str], int]:
    """The workers' addresses, and which of them this process is.

    Raises:
      WorkersError: TF_CONFIG can't be used.
    """
    try:
        config = json.loads(os.environ[_VARIABLE])
        workers, index = config["cluster"]["worker"], config["task"]["index"]
        is_whole = list(config["cluster"]) == ["worker"] and config["task"]["type"] == "worker" and type(index) is int
        if is_whole and _are_addresses(workers) and 0 <= index < len(workers):
            return workers, index
    except (KeyError, TypeError, ValueError):
        pass
    raise WorkersError(f"{_VARIABLE}: must be such as {_FORM}, is {os.environ.get(_VARIABLE, 'not set')}")


def _are_addresses(workers: Any) -> bool:
    """Whether it is a list of different HOST:PORT."""
    if not isinstance(workers, list) or not all(isinstance(worker, str) for worker in workers):
        return False
    parts = [worker.rpartition(":") for worker in workers]
    return len(set(workers)) == len(workers) and all(
        host and port.isdecimal() and 0 < int(port) < 2**16 for host, _, port in parts
    )


def are_named() -> bool:
    """Whether TF_CONFIG names more processes than one: platforms set it for one as well, under names of their own.

    Raises:
      WorkersError: it can't be used.
    """
    try:
        named = json.loads(os.environ.get(_VARIABLE, "{}")).get("cluster", {})
        is_alone = sum(map(len, named.values())) < 2
    except (AttributeError, TypeError, ValueError):
        is_alone = False
    return not is_alone and bool(cluster())


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what the training leaves: the first worker, or one that trains alone."""
    return not isinstance(strategy, Workers) or strategy.index == 0


def from_chief(strategy: tf.distribute.Strategy, content: bytes) -> bytes:
    """The chief's content, whatever the others give. It waits for all of them."""
    if not isinstance(strategy, Workers):
        return content
    with strategy.scope():  # where all variables begin with the chief's values
        length = int(tf.Variable(len(content), dtype=tf.int64).numpy())
        words = np.zeros(1 + length // _WORD.itemsize, _WORD)
        if strategy.index == 0:
            words.view(np.uint8)[:length] = np.frombuffer(content, np.uint8)
        return tf.Variable(words).numpy().tobytes()[:length]


def check(strategy: tf.distribute.Strategy, config: TrainSettings, batch_size: int) -> None:
    """As `check_settings`, for the devices that a strategy has; nothing where a process trains alone."""
    if isinstance(strategy, Workers):
        check_settings(config, strategy.num_replicas_in_sync, batch_size)


def check_settings(config: TrainSettings, devices: int, batch_size: int) -> None:
    """Refuses what several workers can't train.

    Raises:
      WorkersError: a setting does not fit.
    """
    if batch_size % devices:
        raise WorkersError(f"train.batch_size ({batch_size}) must be a multiple of {devices}, the devices of all workers")
    if config.accumulate_steps > 1:
        raise WorkersError("train.accumulate_steps works on one device only; set it to 1")
    if config.xla:
        raise WorkersError("train.xla works on one machine only, for XLA can't send between workers; leave it out")
    if config.budget:
        raise WorkersError("train.budget works on one machine only, for the clocks of several differ; set train.epochs instead")


@contextlib.contextmanager
def losses_told() -> Iterator[None]:
    """Turns TensorFlow's many errors about a worker that is away into one.

    Raises:
      LostWorkerError: a worker has ended.
    """
    try:
        yield
    except _LOST as error:
        raise LostWorkerError(
            "a worker has ended or does not answer; see in its own output why. Then start all of them again: the training goes "
            "on from its checkpoint"
        ) from error
