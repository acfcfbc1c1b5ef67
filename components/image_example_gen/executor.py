"""Reads, checks and writes the images in a Beam pipeline whose elements are shards."""

import collections
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa
from google.protobuf import json_format, struct_pb2
from pyarrow import parquet
from tfx.components.example_gen import base_example_gen_executor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs

from base.errors import UserError
from base.paths import absolute
from base.tables import quote, read_table, write_table
from components.image_example_gen.grouping import check_groups, group_duplicates, hash_images, read_hashes
from components.image_example_gen.reuse import find_written_shards, shard_key, take_over
from components.image_example_gen.writing import SplitWriters
from components.spread import spread
from images.dataset import source
from images.duplicates import write_duplicates
from images.index import INDEX_FILE, REJECTED_FILE, SCHEMA, SUMMARY_FILE, IndexRow
from images.layout import Shard, declare_layout
from images.loading import Loader
from images.settings import IngestionSettings
from images.shards import make_shards, pack, unpack
from models import features, packing
from storage.files import replace_file

_LARGE: Final = 2**30  # bytes of image files, from which on they are not copied


class _WriteShard(beam.DoFn):
    """Writes the examples and a part of the index for each element (number, packed rows); yields the part's path."""

    def __init__(self, data: str, examples: str, shards: int, settings: IngestionSettings) -> None:
        self._data = data
        self._examples = examples
        self._shards = shards
        self._settings = settings

    def setup(self) -> None:
        self._loader = Loader(self._data, self._settings)

    def process(self, element: tuple[int, bytes]) -> Iterator[str]:
        number, rows = element
        index: list[IndexRow] = []
        with SplitWriters(self._examples, number, self._shards) as writers:
            for found, example in self._loader.load(unpack(rows)):
                index.append(found)
                if example is not None:
                    writers.write(found.split, example)
        path = _index_part(self._examples, number)
        table = pa.Table.from_pylist([row._asdict() for row in index], SCHEMA)
        replace_file(path, lambda file: parquet.write_table(table, file))
        yield path


def _index_part(folder: str, number: int) -> str:
    return os.path.join(folder, f".index-{number:05d}.parquet")


class Executor(base_example_gen_executor.BaseExampleGenExecutor):
    """Writes one tf.Example per image into its split, and beside the splits tables of the used and rejected files."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:
        raise TypeError("workers read the files, in _WriteShard")

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        """Replaces the base class's method, which holds all examples in memory to shuffle and write them."""
        self._log_startup(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        settings = unpack_settings(exec_properties)
        names = source.split_names(settings)
        artifact.split_names = artifact_utils.encode_split_names(list(names))
        folder = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        fingerprints = source.span_fingerprints(folder, settings)
        found = source.find_rows(folder, settings)
        if found.losses:
            found.losses.check(folder, settings.max_rejected)
        rows, grouped = self._assign_splits(folder, found.rows, artifact.uri, settings)
        settings = _with_originals(settings, rows)
        shards = make_shards(row for row in rows if row.reason or row.split in names)
        for name in names:
            fileio.makedirs(os.path.join(artifact.uri, f"Split-{name}"))

        keys = [shard_key(shard, fingerprints[shard[0].span], settings) for shard in shards]
        written = find_written_shards(artifact.uri)
        reused = sum(
            take_over(written[key], artifact.uri, number, len(shards), names, _index_part(artifact.uri, number))
            for number, key in enumerate(keys)
            if key in written
        )
        missing = [(number, pack(shard)) for number, shard in enumerate(shards) if keys[number] not in written]
        root = absolute(source.root_of(folder))
        spread(self._make_beam_pipeline(), "WriteShard", _WriteShard(root, artifact.uri, len(shards), settings), missing)
        summary = {**_merge(artifact.uri, len(shards), names, settings.multi_label), "reused": reused}
        summary["originals"] = settings.originals
        summary["lost"] = asdict(found.losses) if found.losses else None
        index = _read_index(artifact.uri)
        check_groups(index)
        summary["duplicates"] = write_duplicates(artifact.uri, index, settings.near_duplicates) | grouped
        _write_json(os.path.join(artifact.uri, SUMMARY_FILE), summary)
        layout = [Shard(key, shard[0].span) for key, shard in zip(keys, shards, strict=True)]
        declare_layout(artifact, layout, settings.originals)
        _check_rejected(artifact.uri, summary, settings.max_rejected)

    def _assign_splits(
        self, folder: str, rows: list[source.Row], examples: str, settings: IngestionSettings
    ) -> tuple[list[source.Row], dict[str, int]]:
        """The rows with their splits, and the counts of `Grouping`; these are empty unless duplicates are grouped."""
        if settings.duplicates != "group":
            return source.assign_splits(folder, rows, settings), {}
        shards = make_shards(row for row in rows if not row.reason)
        fileio.makedirs(examples)
        hash_images(self._make_beam_pipeline(), absolute(source.root_of(folder)), shards, examples, settings)
        grouping = group_duplicates(rows, read_hashes(examples, len(shards)), settings.near_duplicates)
        return source.assign_splits(folder, grouping.rows, settings), grouping.counts


def _with_originals(settings: IngestionSettings, rows: list[source.Row]) -> IngestionSettings:
    """The settings with `originals` decided: files are copied where a later component reads them again, or if they are few."""
    needed = settings.folds or settings.image.intensity == "percentiles" or not settings.labelled
    is_large = sum(row.size for row in rows if not row.reason) >= _LARGE
    if settings.originals == "auto" or needed:
        return replace(settings, originals="reference" if is_large and not needed else "copy")
    return settings


def _write_json(path: str, content: Any) -> None:
    replace_file(path, lambda file: file.write(json.dumps(content, indent=2).encode()))


def _read_index(folder: str) -> pa.Table:
    """Reads the columns of the index that are needed to find duplicates and to check groups."""
    columns = ["path", "label", "group", "split", "content_hash", "perceptual_hash"]
    with fileio.open(os.path.join(folder, INDEX_FILE), "rb") as file:
        return parquet.read_table(io.BytesIO(file.read()), columns=columns)


def _merge(folder: str, shards: int, names: tuple[str, ...], multi_label: bool) -> dict[str, Any]:
    """Joins the parts of the index, and writes the table of rejected files; returns the summary."""
    images = dict.fromkeys(names, 0)
    by_label: dict[str, collections.Counter[str]] = {split: collections.Counter() for split in names}
    rejected: list[tuple[str, str, str]] = []

    def merge(file: Any) -> None:
        with parquet.ParquetWriter(file, SCHEMA) as writer:
            for number in range(shards):
                with fileio.open(_index_part(folder, number), "rb") as part:
                    table = parquet.read_table(io.BytesIO(part.read()))
                writer.write_table(table, row_group_size=max(table.num_rows, 1))  # one row group per shard, for `reuse`
                for path, label, split, reason in zip(
                    *(table.column(name).to_pylist() for name in ("path", "label", "split", "reason")), strict=True
                ):
                    if reason:
                        rejected.append((path, label, reason))
                    else:
                        images[split] += 1
                        by_label[split].update(features.split_labels(label, multi_label))

    replace_file(os.path.join(folder, INDEX_FILE), merge)
    for number in range(shards):
        fileio.remove(_index_part(folder, number))
    path = os.path.join(folder, REJECTED_FILE)
    replace_file(path, lambda file: write_table(file, ("path", "label", "reason"), sorted(rejected)))
    splits = {split: dict(sorted(found.items())) for split, found in by_label.items()}
    return {
        "found": sum(images.values()) + len(rejected),
        "images": images,
        "splits": splits,
        "rejected": len(rejected),
    }


def _check_rejected(folder: str, summary: dict[str, Any], max_rejected: float) -> None:
    share = summary["rejected"] / summary["found"]
    if share <= max_rejected:
        return
    with fileio.open(os.path.join(folder, REJECTED_FILE)) as file:
        first = next(read_table(io.StringIO(file.read(), newline="")))
    # The outputs of a failed component are deleted, so the table is copied to a place outside of them.
    kept = os.path.join(os.path.dirname(os.path.dirname(folder.rstrip("/"))), REJECTED_FILE)
    fileio.copy(os.path.join(folder, REJECTED_FILE), kept, overwrite=True)
    raise UserError(
        f"{summary['rejected']} of {summary['found']} files ({share:.1%}) can't be used, the first {quote(first['path'])} "
        f"({first['reason']}); all are listed in {kept}\n"
        f"Mend or remove them, or raise data.max_rejected ({max_rejected:g})"
    )


def unpack_settings(exec_properties: dict[str, Any]) -> IngestionSettings:
    """Unpacks the settings that `pack_settings` has put into the execution properties."""
    config = json_format.Parse(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY], example_gen_pb2.CustomConfig())
    struct = struct_pb2.Struct()
    config.custom_config.Unpack(struct)
    return packing.unpack(IngestionSettings, struct["settings"])
