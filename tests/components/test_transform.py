"""What Transform writes, against what TFX's own writes of the same multi-label examples; test_spans.py has single labels."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from executors import ingest, read_records, read_values, transform_examples
from PIL import Image
from tfx.types import standard_artifacts

from components.transform.executor import _check_vocabulary, _WriteShard
from images.index import SUMMARY_FILE
from models import features

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
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transform")
    write_images(folder / "data")
    return Path(ingest(folder / "data", folder, multi_label=True).uri)


@pytest.fixture(scope="module")
def by_tfx(examples: Path) -> dict[str, Path]:
    """The outputs of TFX's own Transform."""
    artifact = standard_artifacts.Examples()
    artifact.uri = str(examples)
    artifact.split_names = '["train", "eval", "test"]'
    return transform_examples(artifact, examples.parents[2], multi_label=True, stock=True)


@pytest.fixture(scope="module")
def shard(by_tfx: dict[str, Path]) -> _WriteShard:
    shard = _WriteShard(str(by_tfx["transform_graph"]))
    shard.setup()
    return shard


def comparable(record: bytes) -> str:
    return repr(sorted(read_values(record).items()))


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
def test_the_examples_are_those_of_tfx(
    examples: Path, by_tfx: dict[str, Path], shard: _WriteShard, split: str, tmp_path: Path
) -> None:
    (source,) = (examples / f"Split-{split}").iterdir()
    assert list(shard.process((str(source), str(tmp_path / "written")))) == [str(tmp_path / "written")]
    ours, theirs = (
        sorted(map(comparable, read_records(folder)))
        for folder in (tmp_path, by_tfx["transformed_examples"] / f"Split-{split}")
    )
    assert len(ours) > 3
    assert ours == theirs
    for name in (features.IMAGE, features.LABEL_INDEX, features.CHANNEL_MEAN, features.TRAIN_EXAMPLES):
        assert repr(name) in ours[0]


def test_a_shard_that_fails_leaves_no_file_of_its_name(shard: _WriteShard, tmp_path: Path) -> None:
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
