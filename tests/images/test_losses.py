"""What damaged TFRecord files have lost is counted, told alike by all commands, and stops the run if it is too much."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from data_folders import reasons, settings, split_counts
from executors import ingest, read_summary
from PIL import Image

from base.errors import UserError
from images.dataset import source
from images.dataset.losses import Losses
from pipeline.cli import main


def write(path: Path, count: int, damage_at: int | None = None, hole: int = 0) -> None:
    """A file of `count` pictures; from record `damage_at` on, a flipped bit in its length, or `hole` records of zeros."""
    ends = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(count):
            buffer = io.BytesIO()
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(buffer, "PNG")
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[buffer.getvalue()])),
                "image/class/text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"cat" if number % 2 else b"a|b"])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
            writer.flush()
            ends.append(path.stat().st_size)
    if damage_at is not None:
        content = bytearray(path.read_bytes())
        start = ends[damage_at - 1]
        content[start] ^= 4
        if hole:
            end = ends[damage_at + hole - 1]
            content[start:end] = bytes(end - start)
        path.write_bytes(content)


def test_one_flipped_bit_costs_one_record_of_three_thousand(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", 3000, damage_at=200)
    found = source.find_rows(str(tmp_path), settings())
    assert sum(not row.reason for row in found.rows) == 2999
    (reason,) = reasons(found.rows).values()
    assert reason.startswith("lost: ")
    assert "about 1 record (no length of a record)" in reason
    assert found.losses
    assert (found.losses.records, found.losses.stretches) == (1, 1)
    assert found.losses.of_bytes == (tmp_path / "a.tfrecord").stat().st_size
    assert sum(split_counts(source.assign_splits(str(tmp_path), found.rows, settings())).values()) == 2999


def test_the_number_of_lost_records_is_estimated(tmp_path: Path) -> None:
    write(tmp_path / "a.tfrecord", 3000, damage_at=200, hole=2800)
    found = source.find_rows(str(tmp_path), settings())
    assert found.losses
    assert found.losses.records == pytest.approx(2800, rel=0.02)
    assert found.losses.share == pytest.approx(2800 / 3000, rel=0.02)
    with pytest.raises(UserError) as caught:
        found.losses.check(str(tmp_path), 0.05)
    first, cure = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}: Lost: {found.losses.bytes:,} bytes (93.")
    assert "of the TFRecord files, about 2," in first
    assert ": a.tfrecord, " in first
    assert cure == "Copy the files again from where they are whole, or raise data.max_rejected (0.05)"
    found.losses.check(str(tmp_path), 0.95)


def test_losses_of_all_files_and_spans_add_up(tmp_path: Path) -> None:
    for span in (1, 2):
        write(tmp_path / f"day-{span}/a.tfrecord", 40, damage_at=10, hole=span)
        write(tmp_path / f"day-{span}/b.tfrecord", 40)
    found = source.find_rows(str(tmp_path / "day-{SPAN}"), settings())
    assert found.losses
    assert (found.losses.records, found.losses.stretches) == (3, 2)
    assert found.losses.of_bytes == sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    assert found.losses.first.startswith("day-1/a.tfrecord, ")
    assert found.losses.describe().endswith(", and 1 more")
    assert source.find_rows(str(tmp_path / "day-1"), settings()).losses
    (tmp_path / "day-1/a.tfrecord").unlink()
    assert source.find_rows(str(tmp_path / "day-1"), settings()).losses is None


def test_ingestion_and_the_first_look_agree(tmp_path: Path) -> None:
    write(tmp_path / "data/a.tfrecord", 60, damage_at=20, hole=3)
    found = source.find_rows(str(tmp_path / "data"), settings())
    examples = ingest(tmp_path / "data", tmp_path / "out", max_rejected=0.2)
    summary = read_summary(examples)
    assert Losses(**summary["lost"]) == found.losses
    assert sum(summary["images"].values()) == sum(not row.reason for row in found.rows) == 57
    assert summary["rejected"] == 1
    assert {name for counts in summary["splits"].values() for name in counts} == {"cat", "a|b"}
    with (Path(examples.uri) / "rejected.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["reason"]) == ("a.tfrecord:20", next(iter(reasons(found.rows).values())))


def test_ingestion_stops_if_too_much_is_lost(tmp_path: Path) -> None:
    write(tmp_path / "data/a.tfrecord", 60, damage_at=20, hole=10)
    with pytest.raises(UserError, match=r"about 10 records: a\.tfrecord"):
        ingest(tmp_path / "data", tmp_path / "out", max_rejected=0.1)


def test_a_run_stops_before_it_begins_if_too_much_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "data/a.tfrecord", 60, damage_at=20, hole=10)
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"name": "lost", "data": {"path": str(tmp_path / "data")}}))
    for command in ("run", "data", "crossval"):
        assert main([command, "--config", str(config), "--output", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err
        assert "Lost: " in told
        assert len(told.splitlines()) == 2
    assert not (tmp_path / "out").exists()
