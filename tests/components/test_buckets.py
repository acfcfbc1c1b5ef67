"""Ingestion from buckets and pushes to them, on servers that speak S3 and Google Cloud Storage."""

import importlib.util
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from data_folders import image_paths, reasons, settings, split_counts, user_error
from object_stores import Store
from PIL import Image
from tfx.dsl.io import fileio

from base.errors import UserError
from components.pusher import places
from components.pusher.model_files import fetch
from components.pusher.record import CHECKSUM_FILE, RECORD_FILE, Record
from components.pusher.versions import list_versions, push, roll_back
from images.dataset import source
from images.loading import read_checked
from storage.files import remove_markers, replace_file

PROJECT = Path(__file__).parents[2]
FILES = {"saved_model.pb": "graph", "variables/variables.index": "index", "variables/variables.data-00000-of-00001": "weights"}


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def data(store: Store, bucket: str) -> str:
    """A folder of class folders with markers, as consoles and TensorFlow make them."""
    for marker in ("data/", "data/cat/", "data/empty/"):
        store.put(bucket, marker, b"")
    for number, path in enumerate(image_paths(40, "data/")):
        store.put(bucket, path, png(number))
    store.put(bucket, "data-of-others/cow/1.png", png(0))
    return f"{store.scheme}://{bucket}/data"


@pytest.mark.parametrize("ending", ["", "/"])
def test_class_folders_in_a_bucket_are_read_without_their_markers(data: str, ending: str) -> None:
    rows = source.read_rows(data + ending, settings())
    assert sorted(row.path for row in rows) == image_paths(40)
    assert reasons(rows) == {}
    assert sum(row.size for row in rows) == sum(len(png(number)) for number in range(80))
    contents = {found.path: image for _, found, image in read_checked(data, rows, settings().files)}
    assert {path: image and image.encoded for path, image in contents.items()} == {
        path: png(number) for number, path in enumerate(image_paths(40))
    }


def test_a_changed_object_changes_the_fingerprint(data: str, store: Store, bucket: str) -> None:
    before = source.fingerprint(data, settings())
    assert source.fingerprint(data, settings()) == before
    store.put(bucket, "data/cat/00.png", png(9) + b"more")
    assert source.fingerprint(data, settings()) != before


def test_a_manifest_in_a_bucket_names_objects_beside_it_and_elsewhere(data: str, store: Store, bucket: str) -> None:
    elsewhere = f"{store.scheme}://{bucket}/data-of-others/cow/1.png"
    lines = [f"{path},{path[:3]}" for path in image_paths(40)] + [f"{elsewhere},cat"]
    store.put(bucket, "data/manifest.csv", "\n".join(["path,label", *lines]).encode())
    rows = source.read_rows(data, settings())
    assert reasons(rows) == {}
    assert {row.path for row in rows} == {*image_paths(40), elsewhere}
    store.put(bucket, "data/manifest.csv", "\n".join(["path,label", *lines, "gone.png,cat"]).encode())
    assert "1 of 82 files are missing, the first in line 83: gone.png" in user_error(data)


def test_tfrecord_files_in_a_bucket_are_read(store: Store, bucket: str, tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "file")) as writer:
        for number in range(80):
            features = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(number)])),
                "image/class/text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"cat" if number % 2 else b"dog"])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    store.put(bucket, "records/", b"")
    store.put(bucket, "records/all.tfrecord", (tmp_path / "file").read_bytes())
    folder = f"{store.scheme}://{bucket}/records"
    rows = source.read_rows(folder, settings())
    assert split_counts(rows).total() == 80
    read = [image for _, _, image in read_checked(folder, rows, settings().files)]
    assert sorted(image.encoded for image in read if image) == sorted(map(png, range(80)))


def test_spans_in_a_bucket_are_found(store: Store, bucket: str) -> None:
    for path in (*image_paths(40, "day-1/"), *image_paths(40, "day-2/")):
        store.put(bucket, path, png(1))
    found = source.find_rows(f"{store.scheme}://{bucket}/day-{{SPAN}}", settings())
    assert len(found.rows) == 160


def test_what_is_not_there_is_told_as_the_users_to_mend(store: Store, bucket: str) -> None:
    assert "holds no files" in user_error(f"{store.scheme}://{bucket}/nothing")
    store.put(bucket, "marker/", b"")
    assert "holds no files" in user_error(f"{store.scheme}://{bucket}/marker")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "boto3" else find_spec(name, *more))
    assert "needs the package boto3: .venv/bin/uv pip install" in user_error("s3://bucket/data")
    for call in (lambda: list_versions("s3://bucket/models"), lambda: push("model", "s3://bucket/models", Record(), None)):
        with pytest.raises(UserError, match="needs the package boto3"):
            call()
    assert "there is no file system for ftp://" in user_error("ftp://host/data")


def save_model(folder: Path, content: str) -> str:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text} {content}\n" * 1000)
    return str(folder)


def content_of(store: Store, bucket: str, number: int) -> str:
    """What all files of a version say that they are."""
    (content,) = {store.get(bucket, f"models/{number}/{name}").split()[1].decode() for name in FILES}
    return content


def objects(store: Store, bucket: str) -> list[str]:
    """All that is no marker."""
    return [key.removeprefix("models/") for key in store.list(bucket, "models/") if not key.endswith("/")]


def whole(numbers: list[int]) -> list[str]:
    return sorted(["latest", *(f"{number}/{name}" for number in numbers for name in (*FILES, RECORD_FILE, CHECKSUM_FILE))])


def test_a_bucket_takes_versions_keeps_the_newest_and_goes_back(store: Store, bucket: str, tmp_path: Path) -> None:
    place = f"{store.scheme}://{bucket}/models"
    a, b, again, c = (push(save_model(tmp_path / item, item), place, Record(run=item), 2).number for item in "abbc")
    assert a < b == again < c
    assert objects(store, bucket) == whole([b, c])
    assert [version.number for version in list_versions(place + "/")] == [b, c]
    back = roll_back(place, b)
    assert objects(store, bucket) == whole([b, c, back.number])
    assert content_of(store, bucket, back.number) == "b"
    assert back.record is not None
    assert (back.record.run, back.record.copy_of) == ("b", b)
    assert store.get(bucket, "models/latest") == f"{back.number}\n".encode()
    with pytest.raises(UserError, match="has the model of"):
        roll_back(place, b)
    with pytest.raises(UserError, match="no version 7; there are"):
        roll_back(place, 7)
    copy = Path(fetch(back.path, str(tmp_path / "copy")))
    assert (copy / "saved_model.pb").read_bytes() == store.get(bucket, f"models/{back.number}/saved_model.pb")


def test_a_bucket_that_is_not_there_is_told_as_the_users_to_mend(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere-to-be-found/models: no such folder"):
        list_versions(f"{store.scheme}://nowhere-to-be-found/models")
    with pytest.raises(UserError, match="nowhere-to-be-found/models: can't be written"):
        push(save_model(tmp_path / "a", "a"), f"{store.scheme}://nowhere-to-be-found/models", Record(), None)


KILLED = """
import os, signal, sys
from components.pusher.model_files import files_of
from components.pusher.record import Record
from components.pusher.versions import push
files, (model, place, call, ending) = files_of(sys.argv[2]), sys.argv[1:]
as_it_is = getattr(files, call)
def die(*paths, **more):
    if any(str(path).endswith(ending) for path in paths) and paths[1:] != ("rb",):
        os.kill(os.getpid(), signal.SIGKILL)
    return as_it_is(*paths, **more)
setattr(files, call, staticmethod(die))
push(model, place, Record(), None)
"""


@pytest.mark.extra
@pytest.mark.parametrize(
    ("call", "ending"),
    [("open", "variables.index"), ("rename", "variables.index"), ("rename", "saved_model.pb"), ("open", "latest")],
    ids=["uploading", "moving", "before the graph", "before latest"],
)
def test_a_killed_push_leaves_the_last_version_served(
    store: Store, bucket: str, tmp_path: Path, call: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{store.scheme}://{bucket}/models"
    first = push(save_model(tmp_path / "a", "a"), place, Record(), None)
    command = [sys.executable, "-c", KILLED, save_model(tmp_path / "b", "b"), place, call, ending]
    done = subprocess.run(command, cwd=PROJECT, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    served = list_versions(place)[-1]
    if ending == "latest":  # whole, and so served, though nobody has written down that it is
        assert served.number > first.number
        assert content_of(store, bucket, served.number) == "b"
    else:
        assert served == first
        assert content_of(store, bucket, first.number) == "a"
    left = set(objects(store, bucket)) - set(whole([version.number for version in list_versions(place)]))
    assert bool(left) == (ending != "latest")
    second = push(save_model(tmp_path / "c", "c"), place, Record(), None)
    assert content_of(store, bucket, second.number) == "c"
    monkeypatch.setattr(places, "_DAY", -1)  # a day later
    newest = push(save_model(tmp_path / "d", "d"), place, Record(), None)
    assert objects(store, bucket) == whole([version.number for version in list_versions(place)])
    assert list_versions(place)[-1] == newest


def test_whole_files_and_folders_in_a_bucket(store: Store, bucket: str) -> None:
    folder = f"{store.scheme}://{bucket}/a [b]*"
    fileio.makedirs(folder)
    replace_file(f"{folder}/c/file", lambda file: file.write(b"1"))
    replace_file(f"{folder}/c/file", lambda file: file.write(b"22"))
    replace_file(f"{folder}/empty", lambda file: None)
    assert [key for key in store.list(bucket) if not key.endswith("/")] == ["a [b]*/c/file", "a [b]*/empty"]
    assert store.get(bucket, "a [b]*/c/file") == b"22"
    assert sorted(fileio.listdir(folder)) == ["c/", "empty"]
    assert [names for _, _, names in fileio.walk(folder)] == [["empty"], ["file"]]
    assert (fileio.exists(f"{folder}/empty"), fileio.isdir(f"{folder}/c"), fileio.isdir(f"{folder}/empty")) == (
        True,
        True,
        False,
    )
    assert not fileio.exists(f"{folder}/nothing")
    assert fileio.stat(f"{folder}/c/file").length == 2
    fileio.copy(f"{folder}/c/file", f"{folder}/copy")
    with fileio.open(f"{folder}/copy") as file:
        assert file.read() == "22"
    fileio.remove(f"{folder}/copy")
    with pytest.raises(fileio.NotFoundError):
        fileio.remove(f"{folder}/copy")
    with pytest.raises(fileio.NotFoundError):
        fileio.listdir(f"{folder}/nothing")
    assert sorted(fileio.glob(f"{store.scheme}://{bucket}/a ?b]?/e*")) == [f"{folder}/empty"]
    fileio.rmtree(folder)
    assert store.list(bucket) == []


def test_markers_of_folders_are_removed_and_nothing_else(gcs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in gcs.environment.items():
        monkeypatch.setenv(name, value)
    gcs.create_bucket("markers")
    fileio.makedirs("gs://markers/run/model/Format-Serving")
    gcs.put("markers", "run/model/empty", b"")
    gcs.put("markers", "run/model/full/", b"something")
    gcs.put("markers", "run/model/full/file", b"1")
    fileio.makedirs("gs://markers/other")
    assert gcs.list("markers", "run/") == [
        "run/",
        "run/model/",
        "run/model/Format-Serving/",
        "run/model/empty",
        "run/model/full/",
        "run/model/full/file",
    ]
    remove_markers("gs://markers/run")
    assert gcs.list("markers") == ["other/", "run/model/empty", "run/model/full/", "run/model/full/file"]
    remove_markers("gs://markers/run/")
    remove_markers("/tmp")
