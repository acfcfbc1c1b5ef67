"""What Transform puts out, against what TFX's own writes of the same multi-label examples; test_spans.py has single labels."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from executors import ingest, read_records, read_values, transform_examples
from PIL import Image
from tfx.types import standard_artifacts

from components.transform.executor import _check_vocabulary, _DecodeShard
from images.index import SUMMARY_FILE
from models import features
from models.training import read_images, read_statistics

TEXTS = ("cat|dog", "dog", "", "cat")


def write_images(folder: Path) -> None:
    folder.mkdir()
    lines = ["path,label"]
    for number in range(32):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{TEXTS[number % len(TEXTS)]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> standard_artifacts.Examples:
    folder = tmp_path_factory.mktemp("transform")
    write_images(folder / "data")
    return ingest(folder / "data", folder, multi_label=True)


@pytest.fixture(scope="module")
def examples(ingested: standard_artifacts.Examples) -> Path:
    return Path(ingested.uri)


@pytest.fixture(scope="module")
def written(ingested: standard_artifacts.Examples, examples: Path) -> dict[str, Path]:
    """The outputs of Transform."""
    return transform_examples(ingested, examples.parents[2], multi_label=True)


@pytest.fixture(scope="module")
def by_tfx(ingested: standard_artifacts.Examples, examples: Path) -> dict[str, Path]:
    """The outputs of TFX's own Transform."""
    return transform_examples(ingested, examples.parents[2], 2, multi_label=True, stock=True)


@pytest.fixture(scope="module")
def shard(by_tfx: dict[str, Path]) -> _DecodeShard:
    shard = _DecodeShard(str(by_tfx["transform_graph"]))
    shard.setup()
    return shard


@pytest.mark.case(2)
def test_a_vocabulary_of_other_classes_than_were_counted_stops_the_run(
    examples: Path, by_tfx: dict[str, Path], tmp_path: Path
) -> None:
    graph = str(by_tfx["transform_graph"])
    _check_vocabulary(graph, str(examples), ["train"])
    summary = json.loads((examples / SUMMARY_FILE).read_text())
    summary["splits"]["train"]["dog\r"] = 3
    (tmp_path / SUMMARY_FILE).write_text(json.dumps(summary))
    with pytest.raises(RuntimeError, match=re.escape(r"differ in the classes ['dog\r']")):
        _check_vocabulary(graph, str(tmp_path), ["train"])


@pytest.mark.parametrize("split", ["train", "eval"])
def test_pixels_and_labels_are_those_of_tfx(written: dict[str, Path], by_tfx: dict[str, Path], split: str) -> None:
    pattern = [str(written["transformed_examples"] / f"Split-{split}" / "*")]
    classes = tft.TFTransformOutput(str(by_tfx["transform_graph"])).vocabulary_by_name(features.LABEL_VOCABULARY)
    ours = [
        (image.tobytes(), np.flatnonzero(labels).tolist())
        for image, labels in read_images(pattern, (8, 8, 3), classes).as_numpy_iterator()
    ]
    theirs = map(read_values, read_records(by_tfx["transformed_examples"] / f"Split-{split}"))
    assert len(ours) > 3
    assert sorted(ours) == sorted((values[features.IMAGE][0], sorted(values[features.LABEL_INDEX])) for values in theirs)


def test_pixels_are_on_the_disk_once(written: dict[str, Path], examples: Path) -> None:
    files = sorted(path for path in written["transformed_examples"].rglob("*") if path.is_file())
    assert [path.parent.name for path in files] == ["Split-eval", "Split-train"]
    for path in files:
        assert path.samefile(examples / "decoded" / path.parent.name / path.name)


@pytest.mark.parametrize(("originals", "store"), [("reference", "uint8"), ("reference", "png"), ("copy", "png")])
def test_the_trainer_reads_the_same_however_ingestion_keeps_the_images(
    examples: Path, written: dict[str, Path], originals: str, store: str, tmp_path: Path
) -> None:
    kept = ingest(examples.parents[2] / "data", tmp_path, multi_label=True, originals=originals, store=store)
    outputs = transform_examples(kept, tmp_path, multi_label=True)
    source = Path(kept.uri) / ("" if originals == "reference" else "decoded")
    for path in (outputs["transformed_examples"] / "Split-train").iterdir():
        assert path.samefile(source / "Split-train" / path.name)
    ours, theirs = (
        list(read_images([f"{folder}/Split-train/*"], (8, 8, 3), ["cat", "dog"], with_groups=True).as_numpy_iterator())
        for folder in (outputs["transformed_examples"], written["transformed_examples"])
    )
    assert len(ours) > 3
    for one, other in zip(ours, theirs, strict=True):
        for value, expected in zip(one, other, strict=True):
            np.testing.assert_array_equal(value, expected)
    analysed, expected = (read_statistics(tft.TFTransformOutput(str(found["transform_graph"]))) for found in (outputs, written))
    assert repr(analysed) == repr(expected)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_where_ingestion_has_not_decoded_transform_makes_the_same_examples(
    examples: Path, shard: _DecodeShard, split: str, tmp_path: Path
) -> None:
    (source,) = (examples / f"Split-{split}").iterdir()
    assert list(shard.process((str(source), str(tmp_path / "written")))) == [str(tmp_path / "written")]
    ours, theirs = (list(map(read_values, read_records(path))) for path in (tmp_path, examples / "decoded" / f"Split-{split}"))
    assert ours == theirs


def test_a_shard_that_fails_leaves_no_file_of_its_name(shard: _DecodeShard, tmp_path: Path) -> None:
    record = tf.train.Example()
    record.features.feature[features.ENCODED].bytes_list.value.append(b"")
    record.features.feature[features.PIXELS].bytes_list.value.append(bytes(8 * 8 * 3))
    record.features.feature[features.LABEL].bytes_list.value.append(b"cat")
    with tf.io.TFRecordWriter(str(tmp_path / "source")) as writer:
        for _ in range(100):
            writer.write(record.SerializeToString())
    (tmp_path / "source").write_bytes((tmp_path / "source").read_bytes()[:-5])
    with pytest.raises(tf.errors.DataLossError):
        list(shard.process((str(tmp_path / "source"), str(tmp_path / "destination"))))
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"source"}
