"""The columns of captured requests: a row for each image that a model has answered."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from images import index

# As in the index of a data set.
OF_IMAGE: Final = ("content_hash", "format", "width", "height", "channels", "bytes", "mean", "std", "saturated", "sharpness")


def make_schema(classes: Sequence[str], embedding_size: int, model: str, multi_label: bool) -> pa.Schema:
    """The schema of the requests that one version of a model has answered.

    - time: when the request was answered, UTC.
    - version: of the model.
    - request: the id that the client has sent, else one that was made for it.
    - row: position of the image in the request.
    - content_hash, format, width, height, channels, bytes, mean, std, saturated, sharpness: see `images.index.IndexRow`.
    - embedding: float16 [d], see `models.embedding`.
    - probabilities: float32 [classes], 0..1.
    - label: as the model has answered.
    - unusual: 0..100, as the model has answered.
    - image: the image file.

    All columns can be null but `embedding`, which is so for all rows, with d = 0, or for none: PyArrow can't read it back
    otherwise. The metadata has `classes` (a JSON list of names), `model` (its name) and `multi_label` ("true" or "false").

    Args:
      classes: their names, in the order of the probabilities.
      embedding_size: d; 0 if there are no embeddings.
      model: name of the model.
      multi_label: whether an image can have any number of classes.
    """
    columns = [
        ("time", pa.timestamp("us", "UTC")),
        ("version", pa.int64()),
        ("request", pa.string()),
        ("row", pa.int32()),
        *((name, index.SCHEMA.field(name).type) for name in OF_IMAGE),
        ("embedding", _list_of(pa.float16(), embedding_size)),
        ("probabilities", _list_of(pa.float32(), len(classes))),
        ("label", pa.string()),
        ("unusual", pa.float32()),
        ("image", pa.binary()),
    ]
    metadata = {"classes": json.dumps(list(classes)), "model": model, "multi_label": json.dumps(multi_label)}
    return pa.schema(columns, metadata)


def is_captured(schema: pa.Schema) -> bool:
    """Whether a schema has the columns and the metadata of `make_schema`, perhaps with others."""
    try:
        classes, model, multi_label = (schema.metadata[name] for name in (b"classes", b"model", b"multi_label"))
        size = schema.field("embedding").type.list_size
        fields = make_schema(json.loads(classes), size, model.decode(), json.loads(multi_label))
        return all(schema.field(field.name).equals(field) for field in fields)
    except (LookupError, TypeError, ValueError, AttributeError):
        return False


def make_batch(columns: Mapping[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of captured requests.

    Args:
      columns: N values for each column, [N, size] for those of lists; a column that is not given is null.
      schema: as `make_schema` makes it.
    """
    rows = len(columns["content_hash"])
    return pa.record_batch([_array(columns.get(field.name), field.type, rows) for field in schema], schema=schema)


def _list_of(kind: pa.DataType, size: int) -> pa.DataType:
    return pa.list_(pa.field("element", kind), size)  # as it is read back from Parquet


def _array(values: Any, kind: pa.DataType, rows: int) -> pa.Array:
    if values is None:
        return pa.nulls(rows, kind)
    if pa.types.is_fixed_size_list(kind):
        flat = np.asarray(values, kind.value_type.to_pandas_dtype()).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind)
    return pa.array(values, kind)
