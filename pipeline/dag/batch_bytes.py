"""How much data TFX's components take at a time."""

from typing import Final

from absl import flags
from tfx_bsl.coders import batch_util

_BYTES: Final = 2**22


def bound_batches() -> None:
    """Ends batches of records at 4 MiB instead of at 1,000 records, which would be gigabytes of large images.

    Call it before a pipeline is built. TFX's own bound is 20 MiB, and Transform holds half a dozen copies of a batch at once.
    """
    flags.FLAGS.set_default("tfxio_use_byte_size_batching", True)
    batch_util._TARGET_BATCH_BYTES_SIZE = _BYTES
