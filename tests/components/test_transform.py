"""What Transform writes, against what TFX's own writes of the same examples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from executors import ingest, read_records, read_values, transform_examples
from PIL import Image

from components.transform.executor import _WriteShard
from models import features

TEXTS = {False: ("cat", "dog"), True: ("cat|dog", "dog", "", "cat")}


def write_images(folder: Path, texts: tuple[str, ...]) -> None:
    folder.mkdir()
    lines = ["path,label"]
    for number in range(32):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{texts[number % len(texts)]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def comparable(record: bytes) -> list[tuple[str, list[Any]]]:
    return sorted(read_values(record).items())


@pytest.fixture(scope="module", params=[False, True], ids=["single-label", "multi-label"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, Path]]:
    """Outputs of TFX's own Transform (True) and of this one (False)."""
    folder = tmp_path_factory.mktemp("transform")
    write_images(folder / "data", TEXTS[request.param])
    examples = ingest(folder / "data", folder, multi_label=request.param)
    return {
        stock: transform_examples(examples, folder / str(stock), multi_label=request.param, stock=stock)
        for stock in (False, True)
    }


@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_examples_are_those_of_tfx(written: dict[bool, dict[str, Path]], split: str) -> None:
    ours, theirs = (
        sorted(map(comparable, read_records(written[stock]["transformed_examples"] / f"Split-{split}")), key=repr)
        for stock in (False, True)
    )
    assert len(ours) > 3
    assert ours == theirs
    names = {features.IMAGE, features.LABEL_INDEX, features.CHANNEL_MEAN, features.CHANNEL_VARIANCE, features.TRAIN_EXAMPLES}
    assert {name for name, _ in ours[0]} == names


def test_only_the_splits_that_are_asked_for_are_written(written: dict[bool, dict[str, Path]]) -> None:
    for outputs in written.values():
        assert sorted(path.name for path in outputs["transformed_examples"].iterdir()) == ["Split-eval", "Split-train"]


def test_a_shard_that_fails_leaves_no_file_of_its_name(written: dict[bool, dict[str, Path]], tmp_path: Path) -> None:
    record = tf.train.Example()
    record.features.feature[features.ENCODED].bytes_list.value.append(b"")
    record.features.feature[features.PIXELS].bytes_list.value.append(bytes(8 * 8 * 3))
    record.features.feature[features.LABEL].bytes_list.value.append(b"cat")
    with tf.io.TFRecordWriter(str(tmp_path / "source")) as writer:
        for _ in range(100):
            writer.write(record.SerializeToString())
    shard = _WriteShard(str(written[False]["transform_graph"]))
    shard.setup()
    assert list(shard.process((str(tmp_path / "source"), str(tmp_path / "whole")))) == [str(tmp_path / "whole")]
    assert len(list(tf.data.TFRecordDataset(str(tmp_path / "whole")))) == 100
    (tmp_path / "source").write_bytes((tmp_path / "source").read_bytes()[:-5])
    with pytest.raises(tf.errors.DataLossError):
        list(shard.process((str(tmp_path / "source"), str(tmp_path / "destination"))))
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"source", "whole"}
