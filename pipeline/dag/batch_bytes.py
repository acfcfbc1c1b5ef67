"""How much of the data TFX's components take at a time."""

from typing import Final

from absl import flags
from tfx_bsl.coders import batch_util

_BYTES: Final = 2**22


def bound_batches() -> None:
    """Batches of records end at 4 MiB instead of at 1,000 records, which of large images would be gigabytes.

    To be called before a pipeline is built. TFX's own bound in bytes is 20 MiB, of which Transform holds half a dozen copies at
    once.
    """
    flags.FLAGS.set_default("tfxio_use_byte_size_batching", True)
    batch_util._TARGET_BATCH_BYTES_SIZE = _BYTES
