"""Reads, checks and writes the images, as a Beam pipeline."""

import collections
import csv
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import tensorflow as tf
from google.protobuf import json_format, struct_pb2
from tfx.components.example_gen import base_example_gen_executor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs

from components.errors import UserError
from components.image_example_gen import source
from components.image_example_gen.decoding import ImageFile, RejectedImage, check_image
from models import features

# {"images": {split: images}, "splits": {split: {label: images}}, "rejected": files}
SUMMARY_FILE = "ingestion.json"
REJECTED_FILE = "rejected.csv"  # columns path, label, reason
_ROWS_A_CHUNK = 64


def to_example(row: source.Row, image: ImageFile) -> tf.train.Example:
    """One image as the raw features of `models.features`."""

    def text(*values: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))

    def number(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    def real(value: float) -> tf.train.Feature:
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    return tf.train.Example(
        features=tf.train.Features(
            feature={
                features.ENCODED: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.encoded])),
                features.FORMAT: text(image.format),
                features.HEIGHT: number(image.height),
                features.WIDTH: number(image.width),
                features.CHANNELS: number(image.channels),
                features.FILENAME: text(row.path),
                features.LABEL: text(*row.labels),
                features.GROUP: text(row.group),
                features.MEAN: real(image.mean),
                features.STD: real(image.std),
                **{features.META_PREFIX + column: text(value) for column, value in row.meta.items()},
            }
        )
    )


class _LoadImages(beam.DoFn):
    """Chunks of rows to (split, serialised tf.Example); `counts` gets (split, labels), `rejected` (path, label, reason)."""

    def __init__(self, folder: str, max_pixels: int) -> None:
        self._folder = folder
        self._max_pixels = max_pixels

    def setup(self) -> None:
        self._threads = ThreadPoolExecutor(os.cpu_count())  # reading and decoding release the interpreter's lock

    def teardown(self) -> None:
        self._threads.shutdown()

    def _load(self, row: source.Row) -> tuple[source.Row, bytes | RejectedImage]:
        try:
            with fileio.open(os.path.join(self._folder, row.path), "rb") as file:
                image = check_image(file.read(), self._max_pixels)
        except RejectedImage as reason:
            return row, reason
        except (OSError, tf.errors.OpError) as error:
            return row, RejectedImage(f"unreadable: {error}")
        return row, to_example(row, image).SerializeToString()

    def process(self, rows: list[source.Row]) -> Iterator[Any]:
        for row, result in self._threads.map(self._load, rows):
            if isinstance(result, RejectedImage):
                yield beam.pvalue.TaggedOutput("rejected", (row.path, row.label, str(result)))
            else:
                yield beam.pvalue.TaggedOutput("counts", (row.split, row.labels))
                yield row.split, result


def _write_summary(
    _: None,
    folder: str,
    names: tuple[str, ...],
    counts: list[tuple[tuple[str, tuple[str, ...]], int]],
    rejected: list[tuple[str, str, str]],
) -> None:
    images = dict.fromkeys(names, 0)
    by_label: dict[str, collections.Counter[str]] = {split: collections.Counter() for split in names}
    for (split, labels), count in counts:
        images[split] += count
        by_label[split].update(dict.fromkeys(labels, count))
    splits = {split: dict(sorted(found.items())) for split, found in by_label.items()}
    with fileio.open(os.path.join(folder, SUMMARY_FILE), "w") as file:
        file.write(json.dumps({"images": images, "splits": splits, "rejected": len(rejected)}, indent=2))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "label", "reason"))
    writer.writerows(sorted(rejected))
    with fileio.open(os.path.join(folder, REJECTED_FILE), "w") as file:
        file.write(table.getvalue())


class Executor(base_example_gen_executor.BaseExampleGenExecutor):
    """Writes one tf.Example an image into its split, and beside the splits what was taken and set aside."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:
        raise TypeError("the splits are made in GenerateExamplesByBeam")

    def GenerateExamplesByBeam(self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]) -> dict[str, beam.PCollection]:
        folder = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        settings = _settings(exec_properties)
        names = source.split_names(settings)
        rows = [row for row in source.read_rows(folder, settings) if row.split in names]
        loaded = (
            pipeline
            | "Rows" >> beam.Create([rows[start : start + _ROWS_A_CHUNK] for start in range(0, len(rows), _ROWS_A_CHUNK)])
            | "Spread" >> beam.Reshuffle()
            | "Load"
            >> beam.ParDo(_LoadImages(folder, settings["max_pixels"])).with_outputs("counts", "rejected", main="examples")
        )
        _ = (
            pipeline
            | "Once" >> beam.Create([None])
            | "WriteSummary"
            >> beam.Map(
                _write_summary,
                folder=self._examples_uri,
                names=names,
                counts=beam.pvalue.AsList(loaded.counts | "Count" >> beam.combiners.Count.PerElement()),
                rejected=beam.pvalue.AsList(loaded.rejected),
            )
        )
        splits = loaded.examples | "Split" >> beam.Partition(lambda example, _: names.index(example[0]), len(names))
        return {name: examples | f"Values[{name}]" >> beam.Values() for name, examples in zip(names, splits, strict=True)}

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        self._examples_uri = artifact_utils.get_single_uri(output_dict[standard_component_specs.EXAMPLES_KEY])
        super().Do(input_dict, output_dict, exec_properties)
        self._check_rejected(_settings(exec_properties)["max_rejected"])

    def _check_rejected(self, max_rejected: float) -> None:
        with fileio.open(os.path.join(self._examples_uri, SUMMARY_FILE)) as file:
            summary = json.load(file)
        accepted = sum(summary["images"].values())
        share = summary["rejected"] / (accepted + summary["rejected"])
        if share <= max_rejected:
            return
        with fileio.open(os.path.join(self._examples_uri, REJECTED_FILE)) as file:
            rejected = list(csv.DictReader(io.StringIO(file.read())))
        # The outputs of a failed component are deleted: what was wrong with the files is kept beside them.
        kept = os.path.join(os.path.dirname(os.path.dirname(self._examples_uri.rstrip("/"))), REJECTED_FILE)
        fileio.copy(os.path.join(self._examples_uri, REJECTED_FILE), kept, overwrite=True)
        raise UserError(
            f"{len(rejected)} of {accepted + len(rejected)} files ({share:.1%}) can't be used, the first {rejected[0]['path']} "
            f"({rejected[0]['reason']}); all are listed in {kept}\n"
            f"Mend or remove them, or raise data.max_rejected ({max_rejected:g})"
        )


def pack_settings(settings: dict[str, Any]) -> example_gen_pb2.CustomConfig:
    """The component's settings as the message that the specification of file-based ExampleGens has room for."""
    struct = struct_pb2.Struct()
    struct["settings"] = json.dumps(settings, sort_keys=True)
    config = example_gen_pb2.CustomConfig()
    config.custom_config.Pack(struct)
    return config


def _settings(exec_properties: dict[str, Any]) -> dict[str, Any]:
    config = json_format.Parse(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY], example_gen_pb2.CustomConfig())
    struct = struct_pb2.Struct()
    config.custom_config.Unpack(struct)
    return json.loads(struct["settings"])
