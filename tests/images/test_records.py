"""TFRecord files and TensorFlow Datasets directories, written by TensorFlow, as a data set."""

import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from data_folders import reasons, settings, split_counts, touch, user_error
from PIL import Image
from tfx.types import standard_artifacts

from components.image_example_gen.component import ImageExampleGen
from components.image_example_gen.executor import Executor
from images.dataset import records, source
from images.files.decoding import RejectedImage
from images.files.reading import read_files
from models import features
from pipeline.config.data import ImageConfig
from pipeline.dag.component_settings import image_settings

FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "picture": {
                "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
                "image": {"shape": {"dimensions": ["28", "28", "1"]}, "dtype": "uint8", "encodingFormat": "png"},
            },
            "kind": {
                "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
                "classLabel": {"numClasses": "3"},
            },
            "id": {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}},
        }
    },
}
OLD_FEATURES = {
    "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "content": {
        "picture": {"type": "tensorflow_datasets.core.features.image_feature.Image", "content": {"shape": [28, 28, 1]}},
        "kind": {"type": "tensorflow_datasets.core.features.class_label_feature.ClassLabel", "content": {"num_classes": 3}},
    },
}


def example(**values: Any) -> bytes:
    """A tf.Example; features' names are written with __ for a slash."""
    found = {}
    for name, value in values.items():
        several = value if isinstance(value, list) else [value]
        if isinstance(several[0], int):
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=several))
        elif isinstance(several[0], float):
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=several))
        else:
            texts = [item if isinstance(item, bytes) else item.encode() for item in several]
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
        found[name.replace("__", "/")] = feature
    return tf.train.Example(features=tf.train.Features(feature=found)).SerializeToString()


def write(path: Path, records: list[bytes], compression: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)


def usual(count: int = 40) -> list[bytes]:
    return [
        example(image__encoded=b"%d" % number, image__class__text=("cat", "dog")[number % 2], image__class__label=number % 2)
        for number in range(count)
    ]


def read(folder: Path, **changes: Any) -> list[source.Row]:
    return source.read_rows(str(folder), settings(**changes))


@pytest.mark.case(22)
@pytest.mark.parametrize(
    ("name", "compression"),
    [
        ("a.tfrecord", ""),
        ("a.tfrecords", "GZIP"),
        ("a.tfrecord.gz", "GZIP"),
        ("a.tfrecord-00000-of-00001", ""),
        ("data_tfrecord-00000-of-00001.gz", "GZIP"),
        ("a.tfrec", ""),
        ("A.TFREC.gz", "GZIP"),
        ("a.record", ""),
        ("a.tfr.gzip", "GZIP"),
        ("a.tfrecord.zlib", "ZLIB"),
        ("a.tfrecord", "ZLIB"),
    ],
)
def test_each_record_is_an_image(name: str, compression: str, tmp_path: Path) -> None:
    write(tmp_path / name, usual(), compression)
    rows = read(tmp_path)
    assert [row.record for row in rows] == list(range(40)), "in the order of the file"
    assert [row.name for row in rows] == [row.group for row in rows] == [f"{name}:{number}" for number in range(40)]
    assert [row.labels for row in rows] == [("cat",), ("dog",)] * 20
    assert [row.size for row in rows] == [len(str(number)) for number in range(40)]
    assert split_counts(rows).keys() == {"train", "eval", "test"}
    assert list(read_files(str(tmp_path), rows)) == [b"%d" % number for number in range(40)]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({"image__class__label": 3}, ("3",)),
        ({"image__class__text": "", "image__class__label": 3}, ("3",)),
        ({"image__class__text": " owl ", "image__class__label": 3}, ("owl",)),
        ({"image__label": "owl"}, ("owl",)),
        ({"label": "owl"}, ("owl",)),
    ],
)
def test_the_usual_names_of_the_label_are_known(values: dict[str, Any], labels: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", [*usual(), *[example(image__encoded=b"x", **values)] * 30])
    assert {row.labels for row in read(tmp_path) if (row.record or 0) >= 40} == {labels}


def test_several_labels_are_the_classes_of_multi_label_data(tmp_path: Path) -> None:
    texts = [["dog", "cat"], ["cat"], []]
    records = [
        example(image__encoded=b"x", **({"image__class__text": text} if text else {})) for text in texts for _ in range(20)
    ]
    write(tmp_path / "a.tfrecord", records)
    assert Counter(row.labels for row in read(tmp_path, multi_label=True)) == {("cat", "dog"): 20, ("cat",): 20, (): 20}


@pytest.mark.case(29)
@pytest.mark.parametrize(
    ("vectors", "multi_label", "labels"),
    [
        ([[0, 1, 1, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]], True, {("1", "2"), ("0", "4"), ()}),
        ([[0, 2], [1, 3, 4], [1]], True, {("0", "2"), ("1", "3", "4"), ("1",)}),
        ([[0, 0, 1], [1, 0, 0]], False, {("2",), ("0",)}),
        ([[0.0, 1.0], [1.0, 0.0]], False, {("1",), ("0",)}),
        ([[1], [0]], False, {("1",), ("0",)}),
    ],
)
def test_vectors_with_a_one_for_each_class_of_the_image_are_known(
    vectors: list[list[Any]], multi_label: bool, labels: set[tuple[str, ...]], tmp_path: Path
) -> None:
    records = [example(image__encoded=b"x", image__class__label=vector) for vector in vectors for _ in range(20)]
    write(tmp_path / "a.tfrec", records)
    assert {row.labels for row in source.find_rows(str(tmp_path), settings(multi_label=multi_label)).rows} == labels


def test_groups_splits_and_other_columns_come_from_features(tmp_path: Path) -> None:
    records = [
        example(
            image__encoded=b"x",
            image__class__text=("cat", "dog")[number % 2],
            patient=number // 4,
            fold=("train", "validation", "test")[number // 4 % 3],
            age=number,
            dose=number / 4,
            ward="north",
        )
        for number in range(48)
    ]
    write(tmp_path / "train.tfrecord", records)
    types = {"age": "integer", "dose": "real", "ward": "text"}
    rows = read(tmp_path, columns={"group": "patient", "split": "fold", "types": types})
    assert [row.group for row in rows] == [str(number // 4) for number in range(48)]
    assert [row.split for row in rows] == [("train", "eval", "test")[number // 4 % 3] for number in range(48)]
    assert rows[5].meta == {"age": 5, "dose": 1.25, "ward": "north"}
    text = user_error(tmp_path, columns={"types": {"ward": "integer"}})
    assert "train.tfrecord:0 has b'north' as ward, which is no integer" in text


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test-00000-of-00001"),
        ("pets-train.tfrecord", "pets-val.tfrecord", "pets-test.tfrecord"),
        ("train/a.tfrecord", "eval/a.tfrecord", "test/a.tfrecord"),
        ("Split-train/data_tfrecord-00000-of-00001", "Split-eval/x-00000-of-00001", "Split-test/x-00000-of-00001"),
    ],
)
def test_names_of_files_give_the_split(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        write(tmp_path / name, usual(4))
    rows = read(tmp_path)
    for row in rows:
        assert row.split == next(split for word, split in source_names() if word in row.path.lower())
    assert len(rows) == 4 * len(names)


def source_names() -> list[tuple[str, str]]:
    return [("train", "train"), ("val", "eval"), ("eval", "eval"), ("test", "test")]


@pytest.mark.parametrize(
    "names", [("train-1.tfrecord", "train-2.tfrecord"), ("train.tfrecord", "test.tfrecord", "more.tfrecord")]
)
def test_names_that_do_not_split_all_are_not_followed(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        write(tmp_path / name, usual())
    rows = read(tmp_path)
    for name in names:
        assert len({row.split for row in rows if row.path == name}) == 3


# Damage


def test_a_damaged_record_is_set_aside_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", [*usual(), b"no tf.Example\xff", example(image__class__text="cat"), *usual()])
    content = bytearray((tmp_path / "a.tfrecord").read_bytes())
    content[20] ^= 1  # in the first record
    (tmp_path / "a.tfrecord").write_bytes(content)
    rows = read(tmp_path)
    assert [row.record for row in rows] == list(range(82))
    assert reasons(rows) == {
        "a.tfrecord:0": "damaged: wrong checksum",
        "a.tfrecord:40": "damaged: no tf.Example",
        "a.tfrecord:41": "the record has no image/encoded",
    }
    assert [row.label for row in rows][-40:] == ["cat", "dog"] * 20


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_a_truncated_file_gives_what_comes_before(compression: str, tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", usual(60), compression)
    content = (tmp_path / "a.tfrecord").read_bytes()
    (tmp_path / "a.tfrecord").write_bytes(content[: len(content) * 4 // 5])
    rows = read(tmp_path)
    (name,) = reasons(rows)
    assert name == f"a.tfrecord:{len(rows) - 1}"
    assert re.fullmatch(r"lost: [\d,]+ bytes from byte [\d,]+ on, about \d+ records? \(.*\)", reasons(rows)[name])
    assert len(rows) > 30


def test_a_checkpoint_among_images_is_no_tfrecord_file() -> None:
    assert not records.is_record_file("cat/ckpt/variables.data-00000-of-00001")
    assert records.is_record_file("train-00000-of-00001")


def test_what_is_no_tfrecord_file_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", usual())
    touch(tmp_path, "b.tfrecord", "cat/1.png")
    (tmp_path / "empty.tfrecord").write_bytes(b"")
    assert reasons(read(tmp_path)) == {
        "b.tfrecord:0": "lost: 10 bytes from byte 0 on (no TFRecord)",
        "cat/1.png": "not a TFRecord file",
    }


def test_a_length_that_is_a_lie_reserves_no_memory(tmp_path: Path) -> None:
    import struct

    from images.dataset.tfrecord import _masked_crc

    for number, length in enumerate((2**31 - 1, 2**63)):
        header = struct.pack("<Q", length)
        (tmp_path / f"lie{number}.tfrecord").write_bytes(header + struct.pack("<I", _masked_crc(header)) + b"few")
    write(tmp_path / "a.tfrecord", usual())
    assert set(reasons(read(tmp_path)).values()) == {
        "lost: 15 bytes from byte 0 on (truncated)",
        "lost: 15 bytes from byte 0 on (no TFRecord)",
    }


def test_reading_gives_reasons_where_a_file_has_changed(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", usual())
    write(tmp_path / "b.tfrecord", usual())
    rows = read(tmp_path)
    write(tmp_path / "a.tfrecord", [example(image__encoded=b""), *usual(10)])
    (tmp_path / "b.tfrecord").unlink()
    found = dict(zip((row.name for row in rows), read_files(str(tmp_path), rows), strict=True))
    assert len(found) == 80
    assert str(found["a.tfrecord:0"]) == "empty file"
    assert found["a.tfrecord:1"] == b"0"
    assert str(found["a.tfrecord:11"]) == "the file has no such record any more"
    assert all(isinstance(found[f"b.tfrecord:{number}"], RejectedImage) for number in range(40))
    assert str(found["b.tfrecord:7"]).startswith("unreadable")


def test_records_may_be_asked_for_in_any_order(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", usual())
    rows = {row.record: row for row in read(tmp_path)}
    assert list(read_files(str(tmp_path), [rows[n] for n in (5, 5, 30, 2, 3)])) == [b"5", b"5", b"30", b"2", b"3"]


# TensorFlow Datasets


def prepare(
    folder: Path, splits: dict[str, int], description: dict[str, Any] = FEATURES, file_format: str = "tfrecord"
) -> Path:
    """Lays a data set out as `download_and_prepare` does, in two shards a split."""
    info = {
        "fileFormat": file_format,
        "name": "pets",
        "version": "1.0.0",
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(count), str(count)],
            }
            for split, count in splits.items()
        ],
    }
    for split, count in splits.items():
        for shard in range(2):
            records = [
                example(picture=b"%d" % number, kind=-1 if split == "extra" else number % 3, id=f"{number}")
                for number in range(count)
            ]
            write(folder / f"pets-{split}.tfrecord-0000{shard}-of-00002", records)
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(description))
    (folder / "kind.labels.txt").write_text("cat\ndog\nowl\n")
    return folder


@pytest.mark.parametrize(
    "features",
    [FEATURES, OLD_FEATURES, {**OLD_FEATURES, "content": json.dumps(FEATURES["featuresDict"])}],
    ids=["now", "before 2022", "between"],
)
def test_a_prepared_data_set_is_read_with_its_splits_and_names(features: dict[str, Any], tmp_path: Path) -> None:
    folder = prepare(tmp_path, {"train": 9, "validation": 3, "test": 6, "extra": 5}, features)
    found = source.find_rows(str(folder), settings())
    rows = source.assign_splits(str(folder), found.rows, settings())
    assert not reasons(rows)
    assert found.unlisted == 2, "the files of the split extra"
    assert split_counts(rows) == {"train": 18, "eval": 6, "test": 12}
    assert all(row.label == ("cat", "dog", "owl")[(row.record or 0) % 3] for row in rows)
    assert list(read_files(str(folder), rows)) == [b"%d" % (row.record or 0) for row in rows]


@pytest.mark.case(28)
@pytest.mark.parametrize("home", ["1.0.0", "pets/1.0.0", "pets/small/1.0.0"])
def test_a_prepared_data_set_is_found_below_its_name_and_version(home: str, tmp_path: Path) -> None:
    prepare(tmp_path / home, {"train": 9, "test": 6})
    found = source.find_rows(str(tmp_path), settings())
    assert Counter((row.split, row.label) for row in found.rows) == {
        (split, label): count for split, count in (("train", 6), ("test", 4)) for label in ("cat", "dog", "owl")
    }
    assert found.notes == [f"Data: read from {home}, a TensorFlow Datasets directory"]
    assert list(read_files(str(tmp_path), found.rows)) == [b"%d" % (row.record or 0) for row in found.rows]


def test_the_newest_version_of_a_prepared_data_set_is_read(tmp_path: Path) -> None:
    for version in ("9.0.0", "10.0.0"):
        prepare(tmp_path / "pets" / version, {"train": 60})
    assert all(row.path.startswith("pets/10.0.0/") for row in read(tmp_path))
    prepare(tmp_path / "birds/1.0.0", {"train": 60})
    text = user_error(tmp_path)
    assert "birds/1.0.0 and pets/9.0.0 are different data sets" in text
    assert "data.path" in text


def test_a_prepared_data_set_with_one_split_is_split_by_hash(tmp_path: Path) -> None:
    rows = read(prepare(tmp_path, {"train": 60}))
    assert split_counts(rows).keys() == {"train", "eval", "test"}


def test_a_prepared_data_set_without_names_has_numbers(tmp_path: Path) -> None:
    prepare(tmp_path, {"train": 60})
    (tmp_path / "kind.labels.txt").unlink()
    assert {row.label for row in read(tmp_path)} == {"0", "1", "2"}


def test_unknown_class_numbers_are_set_aside(tmp_path: Path) -> None:
    prepare(tmp_path, {"train": 60})
    records = [example(picture=b"x", kind=number) for number in (-1, 3)]
    write(tmp_path / "pets-train.tfrecord-00001-of-00002", records * 30)
    assert set(reasons(read(tmp_path)).values()) == {"label missing", "no class has the number 3"}


def test_records_that_a_prepared_data_set_lists_and_lacks_are_lost(tmp_path: Path) -> None:
    """Of a file that was cut between two records, nothing else tells."""
    prepare(tmp_path, {"train": 60})
    path = tmp_path / "pets-train.tfrecord-00001-of-00002"
    write(path, [example(picture=b"%d" % number, kind=number % 3) for number in range(20)])
    found = source.find_rows(str(tmp_path), settings())
    assert reasons(found.rows) == {
        f"{path.name}:20": "lost: 40 of 60 records are not in the file (dataset_info.json lists them)"
    }
    assert found.losses
    assert found.losses.records == 40
    assert 0.4 < found.losses.share < 0.6


def test_a_prepared_data_set_that_is_of_no_use_is_told(tmp_path: Path) -> None:
    text = user_error(prepare(tmp_path / "one", {"train": 3}, file_format="array_record"))
    assert "a TensorFlow Datasets directory in array_record files; prepare it with file_format='tfrecord'" in text
    no_label = {"featuresDict": {"features": {"picture": FEATURES["featuresDict"]["features"]["picture"]}}}
    assert "features.json: no feature of the type ClassLabel" in user_error(prepare(tmp_path / "two", {"train": 3}, no_label))
    prepare(tmp_path / "three", {"train": 3})
    (tmp_path / "three/features.json").write_text("{")
    assert "features.json: not JSON" in user_error(tmp_path / "three")


def test_ingestion_writes_the_images_of_records_with_their_names(tmp_path: Path) -> None:
    images = []
    for number in range(24):
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    records = [example(image__encoded=image, image__class__label=number % 2) for number, image in enumerate(images)]
    write(tmp_path / "data/a.tfrecord", [*records, example(image__encoded=b"no image", image__class__label=1)], "GZIP")
    changes = {"image": image_settings(ImageConfig(height=8, width=8)), "max_rejected": 0.1, "splits": {"stratify": True}}
    component = ImageExampleGen(str(tmp_path / "data"), settings(**changes))
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path / "examples")
    context = Executor.Context(beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(tmp_path), unique_id="1")
    Executor(context).Do({}, {"examples": [artifact]}, dict(component.exec_properties))
    written = {}
    for file in (tmp_path / "examples").glob("Split-*/*"):
        for record in tf.data.TFRecordDataset([str(file)]):
            found = tf.train.Example.FromString(record.numpy()).features.feature
            written[found[features.FILENAME].bytes_list.value[0].decode()] = found[features.ENCODED].bytes_list.value[0]
    assert written == {f"a.tfrecord:{number}": image for number, image in enumerate(images)}
    table = (tmp_path / "examples/rejected.csv").read_text()
    assert "a.tfrecord:24,1,not an image" in table
