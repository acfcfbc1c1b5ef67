"""Reads what `fpn score --embeddings` has written, and embeds more images by the same model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from base.errors import UserError
from base.inputs import read_json
from images.file_settings import FileSettings
from models.packing import unpack
from pipeline.pushed.pushed_model import Failure, find_version, read_files
from pipeline.pushed.scoring import JOB_FILE, SUMMARY_FILE

_BATCH_SIZE: Final = 64
_AGAIN: Final = "run fpn score --embeddings again"


@dataclass(frozen=True)
class Embedded:
    """A data set that a model has answered and embedded.

    Attributes:
      rows: a row for each image: `path`, `group`, `label` (the answer), `probability`, and `true_label`, None if not known.
      vectors: float32 [N, d], of length 1.
      probabilities: float32 [N, classes], 0..1.
      classes: names of the classes.
      multi_label: whether an image can have any number of classes.
      data: the folder of the data set.
      model: folder of the SavedModel.
      settings: how the files are read.
    """

    rows: pd.DataFrame
    vectors: np.ndarray
    probabilities: np.ndarray
    classes: list[str]
    multi_label: bool
    data: str
    model: Path
    settings: FileSettings


def read_embedded(folder: Path) -> Embedded:
    """Reads the tables of a finished `fpn score --embeddings`.

    Raises:
      UserError: the folder has none, or they are not finished, or damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if not all((folder / name).is_file() for name in (SUMMARY_FILE, JOB_FILE)):
        raise UserError(f"{folder}: fpn score has not finished here; give the folder of its --output")
    summary, job = read_json(folder / SUMMARY_FILE, _AGAIN), read_json(folder / JOB_FILE, _AGAIN)
    files = sorted((folder / "scores").glob("part-*.parquet"))
    try:
        if len(files) != summary["shards"]:
            raise UserError(f"{folder}/scores: has {len(files)} files of {summary['shards']}; run fpn score again")
        schema = parquet.read_schema(files[0])
        if "embedding" not in schema.names:
            raise UserError(f"{folder}: has answers without embeddings; run fpn score with --embeddings and --overwrite")
        table = pa.concat_tables([parquet.read_table(file) for file in files])
        told = json.loads(schema.metadata[b"fpn"])
        return Embedded(
            table.select(["path", "group", "label", "probability", "true_label"]).to_pandas(),
            _as_matrix(table["embedding"]),
            _as_matrix(table["probabilities"]),
            told["classes"],
            told["multi_label"],
            summary["data"],
            Path(summary["model"]),
            unpack(FileSettings, {name: job["settings"][name] for name in FileSettings.__dataclass_fields__}),
        )
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: is damaged ({error!r}); {_AGAIN}, with --overwrite") from error


def _as_matrix(column: Any) -> np.ndarray:
    """A column of N lists of equal length as float32 [N, d]."""
    parts = [part.flatten().to_numpy().reshape(len(part), -1) for part in column.chunks if len(part)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def embed_files(model: Path, images: list[Path]) -> tuple[list[Path], np.ndarray, list[Failure]]:
    """Embeds image files.

    Args:
      model: folder of the SavedModel, which gives embeddings.
      images: files in any format that ingestion takes.

    Returns:
      The files that can be read, their embeddings, float32 [N, d], and the others.

    Raises:
      UserError: there is no model.
    """
    none = np.zeros((0, 0), np.float32)
    if not images:
        return [], none, []
    folder = find_version(model)
    files = read_files(images, folder)
    if not files.images:
        return [], none, files.failures
    import tensorflow as tf

    signature = tf.saved_model.load(str(folder)).signatures["embed"]
    found = [(path, answer["embedding"]) for path, answer in files.ask(signature, _BATCH_SIZE)]
    return [path for path, _ in found], np.stack([vector for _, vector in found]) if found else none, files.failures
