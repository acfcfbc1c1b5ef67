"""Every command refuses at once what it can't take: pipes in the place of files, and texts that stand for too much."""

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_folders import image_paths, make_manifest, touch

from pipeline.cli import main

CONFIG = "name: few\ndata: {path: PLACE/data}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", *image_paths(10))
    (tmp_path / "config.yaml").write_text(CONFIG.replace("PLACE", str(tmp_path)))
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The message of a command that ends in status 2, in some seconds, and in one or two lines."""
    began = time.monotonic()
    assert main([str(argument) for argument in arguments]) == 2
    assert time.monotonic() - began < 20, "much less on a machine that is not busy"
    text = capsys.readouterr().err
    assert text.startswith("fpn: ")
    assert len(text.splitlines()) <= 2
    assert len(text) < 2000
    return text


# Pipes: opening one would wait for ever


@pytest.mark.parametrize("command", ["run", "data", "preview", "crossval", "compile", "lint"])
def test_a_pipe_in_the_place_of_a_configuration_is_refused(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(place / "pipe")
    more = ["--output", place / "out"] if command == "compile" else []
    given = ["pipe"] if command == "lint" else ["--config", "pipe", *more]
    assert "pipe: not a regular file, but a pipe" in refused(capsys, command, *given)


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.parquet"])
def test_a_pipe_in_the_place_of_a_manifest_is_refused(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(place / "data" / name)
    assert f"{place}/data/{name}: not a regular file" in refused(capsys, "run", "--config", "config.yaml")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "kind.labels.txt"])
def test_pipes_in_a_prepared_data_set_are_refused(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "pets"
    folder.mkdir()
    features = {"picture": {"pythonClassName": "x.Image"}, "kind": {"pythonClassName": "x.ClassLabel"}}
    (folder / "dataset_info.json").write_text("{}")
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    (folder / "kind.labels.txt").write_text("cat\ndog\n")
    (folder / "pets-train.tfrecord-00000-of-00001").write_bytes(b"")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"{folder}/{name}: not a regular file" in refused(capsys, "data", "--config", "config.yaml", "--data", folder)


def test_a_pipe_in_the_place_of_a_schema_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(place / "schema.pbtxt")
    text = refused(capsys, "run", "--config", "config.yaml", "--set", "data.schema=schema.pbtxt")
    assert "data.schema: schema.pbtxt: not a regular file, but a pipe; give a file" in text
    assert "No such file" in refused(capsys, "run", "--config", "config.yaml", "--set", "data.schema=gone.pbtxt")


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "reproduction.json"])
def test_pipes_in_the_place_of_what_runs_have_left_are_refused(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = place / "out/runs/2026-01-01T00-00-00"
    run.mkdir(parents=True)
    (run / "log.txt").write_text("")
    (run / "summary.json").write_text("{}")
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    commands = {"config.yaml": ["runs", "--output", "out"], "reproduction.json": ["runs", "--output", "out"]}
    assert f"{name}: not a regular file, but a pipe" in refused(capsys, *commands.get(name, ["report", "out"]))


@pytest.mark.parametrize("name", ["metadata.sqlite", "metadata.sqlite.backup"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_the_place_of_the_metadata_store_is_refused(
    make: Callable[[Path], None], name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "out/runs/2026-01-01T00-00-00").mkdir(parents=True)
    (place / "out/runs/2026-01-01T00-00-00/log.txt").write_text("")
    (place / "out/runs/2026-01-01T00-00-00/summary.json").write_text("{}")
    make(place / "out" / name)
    kind = "a pipe" if make is os.mkfifo else "a folder"
    for command in (["runs"], ["run", "--config", "config.yaml", "--set", "data.splits={train: 1, eval: 1, test: 1}"]):
        told = refused(capsys, *command, "--output", "out")
        assert f"out/{name}: not a regular file, but {kind}; move it away, or give another --output" in told


@pytest.mark.parametrize("name", ["saved_model.pb", "assets.extra/image.json"])
def test_pipes_in_a_model_are_refused(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "model/assets.extra").mkdir(parents=True)
    (place / "model/saved_model.pb").write_bytes(b"")
    (place / "model" / name).unlink(missing_ok=True)
    os.mkfifo(place / "model" / name)
    text = refused(capsys, "predict", "--model", "model", place / "data/cat/00.png")
    assert "no SavedModel here" in text or "image.json: not a regular file, but a pipe" in text


@pytest.mark.parametrize("option", ["--token-file", "--ca-file", "--pipeline"])
def test_pipes_are_refused_when_deploying(option: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(place / "pipe")
    given = [option, "pipe"] if option == "--pipeline" else ["--config", "config.yaml", option, "pipe"]
    assert "pipe" in refused(capsys, "deploy", "--endpoint", "https://localhost:1", *given)


# Texts

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n" for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "stands for more than 400,000 values"),
        ("x: " + "[" * 1000, "is nested too deeply"),
        ("train: {epochs: 1" + "0" * 10_000 + "}", "an integer of 10001 digits"),
        ("train: {}\ntrain: {}", "train is given twice, in the lines 3 and 4"),
        ("x: '" + "y" * 5 * 2**20 + "'", "config.yaml: is larger than 4 MiB"),
    ],
)
@pytest.mark.parametrize("command", ["run", "compile"])
def test_a_configuration_that_stands_for_too_much_is_refused(
    command: str, text: str, told: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (place / "config.yaml").open("a") as file:
        file.write(text)
    assert told in refused(capsys, command, "--config", "config.yaml", "--output", "out")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epochs=1" + "0" * 10_000, "0...: the value is not YAML"),
        ("train.epochs=" + "[" * 10_000, "--set train.epochs: line 1: is nested too deeply"),
        ("data.labels=[&a [x,x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]]", "data.labels"),
        ("evaluate.slices=" + "[" + "x," * 30_000 + "]", "evaluate.slices"),
        ("a." * 1000 + "b=1", "--set: a key of 1001 parts"),
        ("train.seed=2026-99-99", "--set train.seed=2026-99-99: the value is not YAML"),
    ],
)
def test_an_override_that_stands_for_too_much_is_refused(
    override: str, told: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(capsys, "run", "--config", "config.yaml", "--set", override)


def test_a_password_is_not_told_with_what_is_wrong(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("[secret", "!!int secret", "secret" * 100):
        assert "secret" not in refused(capsys, "run", "--config", "config.yaml", "--set", f"metadata={value}")


# Manifests

HEADER = "path,label"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (HEADER + "\n" + "x" * 2**24 + ",cat\n", "line 2 has more than 1,048,576 characters; is it a manifest?"),
        (HEADER + "\n" + "x" * 200_000 + ",cat\n", "line 2: field larger than field limit"),
        (HEADER + '\n"' + "x\n" * 200_000, "look for a quote that is not closed"),
        (",".join(f"c{number}" for number in range(100_000)) + "\n", "100,000 columns; 10,000 are the most"),
        (HEADER + ",a" * 2**20 + "\n", "line 1 has more than 1,048,576 characters"),
        (HEADER + ",age\ncat/00.png,cat,1" + "0" * 10_000 + "\n", "line 2 has '1000"),
    ],
)
def test_a_manifest_that_is_too_much_is_refused(
    content: str, told: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "data/manifest.csv").write_text(content)
    types = "data.columns.types={age: integer}" if "age" in content[:20] else "data.multi_label=false"
    assert told in refused(capsys, "run", "--config", "config.yaml", "--set", types)


def test_a_parquet_manifest_of_few_bytes_and_many_rows_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("images.dataset.table_files._MAX_ROWS", 2**23)
    schema = pa.schema([("path", pa.dictionary(pa.int32(), pa.string())), ("label", pa.dictionary(pa.int32(), pa.string()))])
    rows = 2**22
    indices = pa.Array.from_buffers(pa.int32(), rows, [None, pa.py_buffer(bytes(4 * rows))])
    same = pa.DictionaryArray.from_arrays(indices, pa.array(["x"]))
    with pq.ParquetWriter(place / "data/manifest.parquet", schema) as writer:
        for _ in range(3):
            writer.write_table(pa.table([same, same], schema=schema))
    assert (place / "data/manifest.parquet").stat().st_size < 2**20
    assert "12,582,912 rows of" in refused(capsys, "run", "--config", "config.yaml")


def test_a_manifest_whose_bytes_are_no_text_is_told_with_its_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{path},{path[:3]}" for path in image_paths(10)]
    make_manifest(place / "data", HEADER, lines)
    with (place / "data/manifest.csv").open("ab") as file:
        file.write(b"\xff\xfe,cat\n")
    assert "manifest.csv: not UTF-8 text; save it as UTF-8 CSV" in refused(capsys, "run", "--config", "config.yaml")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1' + "0" * 10_000 + "}", '{"featuresDict": {"features": [1]}}', "[]"])
def test_descriptions_of_a_prepared_data_set_that_are_too_much_are_refused(
    name: str, text: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place / "pets"
    folder.mkdir()
    (folder / "dataset_info.json").write_text("{}")
    (folder / "features.json").write_text("{}")
    (folder / name).write_text(text)
    (folder / "pets-train.tfrecord-00000-of-00001").write_bytes(struct.pack("<Q", 1))
    told = refused(capsys, "data", "--config", "config.yaml", "--data", folder)
    assert (name if name == "features.json" else f"{folder}/") in told
