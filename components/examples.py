"""Lists the files of an Examples artifact, and reads them in batches."""

import os
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa
from tfx.dsl.io import fileio
from tfx.types import Artifact, artifact_utils
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from models.records import read_records

_READ: Final = 16  # examples at a time, at most
_BATCH_BYTES: Final = 2**22  # of examples, about, that are a batch


def split_files(examples: Artifact, splits: Iterable[str] | None = None) -> list[str]:
    """Paths of all files in the given splits, sorted; in all splits if `splits` is None."""
    names = artifact_utils.decode_split_names(examples.split_names) if splits is None else splits
    folders = [artifact_utils.get_split_uri([examples], name) for name in names]
    return sorted(os.path.join(folder, name) for folder in folders for name in fileio.listdir(folder))


def read_batches(files: list[str], decoder: ExamplesToRecordBatchDecoder) -> Iterator[pa.RecordBatch]:
    """The examples of files, in their order, as tables with a column of lists for each feature that the decoder knows.

    A table has the examples of about `_BATCH_BYTES`, or a few more if those at the beginning are much smaller than the rest.
    """
    waiting: list[bytes] = []
    size = 0
    length = max((len(record) for record in read_records(files).take(_READ).as_numpy_iterator()), default=1)
    for examples in read_records(files).batch(max(1, min(_READ, _BATCH_BYTES // length))).as_numpy_iterator():
        waiting += examples.tolist()
        size += sum(map(len, waiting[-len(examples) :]))
        if size >= _BATCH_BYTES:
            yield decoder.DecodeBatch(waiting)
            waiting, size = [], 0
    if waiting:
        yield decoder.DecodeBatch(waiting)
