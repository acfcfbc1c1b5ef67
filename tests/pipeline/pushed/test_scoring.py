"""`fpn score`: a data set of any form to tables of answers, shard by shard."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from pyarrow import parquet
from rich.console import Console

from base.errors import UserError
from pipeline.config.loading import load_config
from pipeline.pushed.prediction import predict
from pipeline.pushed.scoring import score

NAMES = ["cat", "dog", "owl"]
SHARDS = "score.shard_images=3"


def run(exported, data, output, *overrides, model=None, overwrite=False):
    config = load_config(None, str(data), [SHARDS, *overrides])
    return score(config, Path(model or exported.path), str(output), Console(quiet=True), overwrite=overwrite)


def read(output):
    """All answers by path."""
    return parquet.read_table(output / "scores").to_pandas().set_index("path").sort_index()


def probabilities(table):
    return np.stack(table["probabilities"].to_list())


def write_manifest(folder, header, *lines):
    (folder / "manifest.csv").write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture(scope="module")
def pictures(exported, tmp_path_factory):
    """A flat folder: seven images without labels, one that is cut off, one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, file in enumerate(exported.files):
        (folder / f"{number}.png").write_bytes(file)
    (folder / "cut.png").write_bytes(exported.files[0][:-30])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def flat(exported, pictures, tmp_path_factory):
    """Output folder and summary."""
    output = tmp_path_factory.mktemp("flat") / "out"
    return output, run(exported, pictures, output)


def test_unlabelled_pictures_get_the_answers_of_fpn_predict(exported, pictures, flat):
    output, summary = flat
    table = read(output)
    predicted, _ = predict(Path(exported.path), [pictures / path for path in table.index])
    assert table.index.tolist() == [f"{number}.png" for number in range(7)]
    assert table["label"].tolist() == [item["label"] for item in predicted]
    np.testing.assert_allclose(
        probabilities(table), [[item["probabilities"][name] for name in NAMES] for item in predicted], atol=1e-6
    )
    np.testing.assert_allclose(probabilities(table), exported.probabilities, atol=1e-6)
    np.testing.assert_array_equal(table["probability"], probabilities(table).max(axis=1))
    assert table["group"].tolist() == table.index.tolist()
    assert table["true_label"].isna().all()
    assert (summary["images"], summary["rejected"], summary["shards"], summary["groups"]) == (7, 2, 3, None)
    assert summary["labels"] == table["label"].value_counts().reindex(NAMES).dropna().astype(int).to_dict()
    assert json.loads((output / "summary.json").read_text()) == summary


def test_a_shard_says_what_its_columns_are(flat):
    schema = parquet.read_schema(flat[0] / "scores" / "part-00001-of-00003.parquet")
    assert schema.names == ["path", "group", "label", "probability", "probabilities", "true_label"]
    assert str(schema.field("probabilities").type) == "list<element: float>"
    assert json.loads(schema.metadata[b"fpn"]) == {"classes": NAMES, "multi_label": False}


def test_embeddings_are_those_of_the_model_and_change_no_answer(exported, pictures, flat, tmp_path):
    run(exported, pictures, tmp_path, "score.embeddings=true")
    found = read(tmp_path)
    expected = tf.saved_model.load(exported.path).signatures["embed"](tf.constant(exported.files))["embedding"]
    np.testing.assert_allclose(np.stack(found["embedding"].to_list()), expected, atol=1e-6)
    plain = read(flat[0])
    assert found.columns.tolist() == [*plain.columns, "embedding"]
    np.testing.assert_allclose(probabilities(found), probabilities(plain), atol=1e-6)
    with pytest.raises(UserError, match="under other settings"):
        run(exported, pictures, tmp_path)


def test_rejected_files_are_listed_with_the_reasons_of_ingestion(flat):
    with (flat[0] / "rejected.csv").open() as file:
        rejected = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert rejected == {"cut.png": "truncated: the end of the file is missing", "notes.txt": "not an image"}


def test_missing_shards_alone_are_made_again(exported, pictures, flat):
    output, _ = flat
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (output / "scores").glob("*.parquet")}
    gone = output / "scores" / "part-00001-of-00003.parquet"
    gone.unlink()
    gone.with_name(f".{gone.name}").write_bytes(b"begun")
    assert run(exported, pictures, output)["shards_kept"] == 2
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (output / "scores").glob("*.parquet")}
    assert {name: content for name, (content, _) in after.items()} == {name: content for name, (content, _) in before.items()}
    assert [name for name in after if after[name][1] != before[name][1] and not name.startswith(".")] == [gone.name]


def test_an_output_folder_is_of_one_model_data_and_settings(exported, pictures, flat, tmp_path):
    output, _ = flat
    other = tmp_path / "model"
    other.symlink_to(exported.path)
    changed = tmp_path / "changed"
    for path in Path(exported.path).rglob("*"):
        if path.is_file():
            (changed / path.relative_to(exported.path)).parent.mkdir(parents=True, exist_ok=True)
            (changed / path.relative_to(exported.path)).write_bytes(path.read_bytes())
    (changed / "fingerprint.pb").write_bytes(b"")
    one = tmp_path / "one"
    one.mkdir()
    (one / "0.png").write_bytes(exported.files[0])
    for text, arguments, overrides in (
        ("of another model", {"data": pictures, "model": changed}, []),
        ("of other data", {"data": one}, []),
        ("under other settings", {"data": pictures}, ["data.max_pixels=1000"]),
    ):
        with pytest.raises(UserError, match=f"{text}; give another --output, or --overwrite"):
            run(exported, arguments["data"], output, *overrides, model=arguments.get("model"))
    foreign = tmp_path / "foreign"
    (foreign / "scores").mkdir(parents=True)
    with pytest.raises(UserError, match="has not begun"):
        run(exported, pictures, foreign)


def test_a_manifest_needs_no_labels_and_groups_get_an_answer_each(exported, pictures, tmp_path):
    groups = ["a", "b", "a", "b", "b", "c", "a"]
    for number, file in enumerate(exported.files):
        (tmp_path / f"{number}.png").write_bytes(file)
    truths = ["cat", "dog", "cat", "", "yak", "owl", "dog"]
    lines = [f"{number}.png,{group},{truth}" for number, (group, truth) in enumerate(zip(groups, truths, strict=True))]
    write_manifest(tmp_path, "path,group,truth", *lines)
    output = tmp_path.with_name(f"{tmp_path.name}-out")
    summary = run(exported, tmp_path, output)
    table = read(output)
    np.testing.assert_allclose(probabilities(table), exported.probabilities, atol=1e-6)
    assert table["group"].tolist() == groups
    assert summary["groups"]["count"] == 3
    decided = pd.read_parquet(output / "groups.parquet").set_index("group")
    for group in "abc":
        members = [number for number, name in enumerate(groups) if name == group]
        mean = exported.probabilities[members].mean(axis=0)
        np.testing.assert_allclose(decided.loc[group, "probabilities"], mean, atol=1e-6)
        assert decided.loc[group, "label"] == NAMES[mean.argmax()]
        assert decided.loc[group, "probability"] == pytest.approx(mean.max(), abs=1e-6)
        assert decided.loc[group, "images"] == len(members)
        assert decided.loc[group, "true_label"] is None

    # Another rule decides anew what is answered already.
    rule = run(exported, tmp_path, output, "evaluate.groups.rule=max")
    assert rule["shards_kept"] == rule["shards"]
    decided = pd.read_parquet(output / "groups.parquet").set_index("group")
    largest = exported.probabilities[[0, 2, 6]].max(axis=0)
    np.testing.assert_allclose(decided.loc["a", "probabilities"], largest / largest.sum(), atol=1e-6)

    labelled = tmp_path.with_name(f"{tmp_path.name}-labelled")
    run(exported, tmp_path, labelled, "data.columns.label=truth")
    known = [truth if truth in NAMES else None for truth in truths]
    assert [truth or None for truth in read(labelled)["true_label"]] == known
    decided = pd.read_parquet(labelled / "groups.parquet").set_index("group")
    assert decided["true_label"].to_dict() == {"a": "cat", "b": None, "c": "owl"}  # most of b are of no known class


def test_records_and_class_folders_get_the_same_answers(exported, tmp_path):
    records, folders = tmp_path / "records", tmp_path / "folders"
    records.mkdir()
    with tf.io.TFRecordWriter(str(records / "images.tfrecord")) as writer:
        for file in exported.files:
            feature = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    for number, (file, label) in enumerate(zip(exported.files, exported.labels, strict=True)):
        (folders / label.decode()).mkdir(parents=True, exist_ok=True)
        (folders / label.decode() / f"{number}.png").write_bytes(file)
    run(exported, records, tmp_path / "out1")
    table = read(tmp_path / "out1")
    assert table.index.tolist() == [f"images.tfrecord:{number}" for number in range(7)]
    np.testing.assert_allclose(probabilities(table), exported.probabilities, atol=1e-6)
    run(exported, folders, tmp_path / "out2")
    table = read(tmp_path / "out2").sort_index(key=lambda paths: paths.str[-5:])
    np.testing.assert_allclose(probabilities(table), exported.probabilities, atol=1e-6)
    assert table["true_label"].tolist() == [label.decode() for label in exported.labels]


@pytest.mark.extra
def test_what_is_killed_goes_on_and_ends_in_the_same_files(exported, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(600):
        (data / f"{number}.png").write_bytes(exported.files[number % 7])
    config = tmp_path / "config.yaml"
    config.write_text("name: scored\nscore: {shard_images: 5}\n")
    output = tmp_path / "killed"
    command = ["score", "--model", exported.path, "--data", data, "--config", config, "--output", output]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while len(list(output.glob("scores/part-*"))) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "summary.json").exists()
    again = run(exported, data, output, "score.shard_images=5")
    assert 3 <= again["shards_kept"] < again["shards"] == 120

    def files(folder):
        return {path.name: path.read_bytes() for path in [*folder.glob("scores/part-*"), folder / "rejected.csv"]}

    run(exported, data, tmp_path / "whole", "score.shard_images=5")
    assert files(output) == files(tmp_path / "whole")


@pytest.mark.extra
def test_from_a_bucket_to_a_bucket_the_answers_are_the_same(exported, pictures, flat, store, bucket):
    store.put(bucket, "data/", b"")
    for file in pictures.iterdir():
        store.put(bucket, f"data/{file.name}", file.read_bytes())
    place = f"{store.scheme}://{bucket}"
    summary = run(exported, f"{place}/data", f"{place}/answers")
    names = ("images", "labels", "rejected", "reasons", "groups", "shards")
    assert {name: summary[name] for name in names} == {name: flat[1][name] for name in names}
    written = [key for key in store.list(bucket, "answers/") if not key.endswith("/")]
    shards = [f"answers/scores/part-{number:05d}-of-00003.parquet" for number in range(3)]
    assert set(written) >= {*shards, "answers/job.json", "answers/rejected.csv", "answers/summary.json"}
    assert not any("/." in key and key.endswith(".parquet") and "rejected" not in key for key in written)
    table = pd.concat([parquet.read_table(io.BytesIO(store.get(bucket, shard))).to_pandas() for shard in shards])
    pd.testing.assert_frame_equal(table.set_index("path").sort_index(), read(flat[0]))
    store.delete(bucket, shards[1])
    again = run(exported, f"{place}/data", f"{place}/answers")
    assert (again["shards"], again["shards_kept"]) == (3, 2)
    with pytest.raises(UserError, match="holds answers under other settings"):
        run(exported, f"{place}/data", f"{place}/answers", "score.shard_images=4")
    assert run(exported, f"{place}/data", f"{place}/answers", "score.shard_images=4", overwrite=True)["shards"] == 3
    with pytest.raises(UserError, match="can't be written"):
        run(exported, f"{place}/data", f"{store.scheme}://nowhere-to-be-found/answers")
