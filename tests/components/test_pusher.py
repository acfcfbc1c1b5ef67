"""Versions of a model: whole or not there, whatever happens to a push; the newest ones kept; back to an earlier one."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.proto.orchestration import pipeline_pb2
from tfx.types import standard_artifacts

from base.errors import UserError
from components.pusher import model_files, places, versions
from components.pusher.executor import Executor
from components.pusher.record import CHECKSUM_FILE, RECORD_FILE, Record, checksum_line
from components.pusher.run_folder import tell_run_folder
from components.pusher.versions import list_versions, push, roll_back
from evaluation.results import Evaluation, Metric, Slice, Verdict, read_evaluation, write_evaluation
from pipeline.pushed.pushed_model import find_version

FILES = {"saved_model.pb": "graph", "variables/variables.index": "index", "variables/variables.data-00000-of-00001": "weights"}


def save_model(folder: Path, content: str) -> str:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text} {content}\n" * 1000)
    return str(folder)


def served(folder: Path) -> str:
    """The content of the model that TensorFlow Serving takes: the largest number, which must be whole."""
    newest = find_version(folder)
    assert newest.name == str(max(int(path.name) for path in folder.iterdir() if path.name.isdigit()))
    (content,) = {(newest / name).read_text().split()[1] for name in FILES}
    return content


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock", "latest"}


def push_all(tmp_path: Path, contents: str, keep: int | None = None) -> list[int]:
    return [
        push(save_model(tmp_path / content, content), str(tmp_path / "pushed"), Record(run=f"run {content}"), keep).number
        for content in contents
    ]


@pytest.fixture
def pushed(tmp_path: Path) -> Path:
    return tmp_path / "pushed"


def test_a_pushed_model_is_the_newest_version_and_says_where_it_comes_from(tmp_path: Path, pushed: Path) -> None:
    first, second = push_all(tmp_path, "ab")
    assert first < second
    assert served(pushed) == "b"
    assert names(pushed) == {str(first), str(second)}
    assert (pushed / "latest").read_text() == f"{second}\n"
    assert [version.record.run for version in list_versions(str(pushed)) if version.record] == ["run a", "run b"]


def test_the_same_model_is_not_pushed_again(tmp_path: Path, pushed: Path) -> None:
    assert len(set(push_all(tmp_path, "aa"))) == 1
    assert len(names(pushed)) == 1
    assert len(set(push_all(tmp_path, "ba"))) == 2  # now another one lies between


def test_the_newest_versions_are_kept(tmp_path: Path, pushed: Path) -> None:
    numbers = push_all(tmp_path, "abcd", keep=None)
    assert names(pushed) == {str(number) for number in numbers}
    numbers += push_all(tmp_path, "e", keep=2)
    assert names(pushed) == {str(number) for number in numbers[-2:]}
    assert served(pushed) == "e"


def test_going_back_serves_the_earlier_model_under_a_larger_number(tmp_path: Path, pushed: Path) -> None:
    first, second = push_all(tmp_path, "ab")
    back = roll_back(str(pushed), first)
    assert back.number > second
    assert served(pushed) == "a"
    assert back.record is not None
    assert (back.record.copy_of, back.record.run) == (first, "run a")
    assert (pushed / "latest").read_text() == f"{back.number}\n"
    assert (pushed / str(first) / "saved_model.pb").samefile(f"{back.path}/saved_model.pb")
    assert list_versions(str(pushed))[0].record == Record(**{**vars(back.record), "copy_of": None, "time": ANY_TIME})
    with pytest.raises(UserError, match=r"has the model of \d+ already"):
        roll_back(str(pushed), first)
    forward = roll_back(str(pushed), second)
    assert served(pushed) == "b"
    again = roll_back(str(pushed), back.number).record
    assert again is not None
    assert again.copy_of == first  # not of the copy
    assert forward.number > back.number
    with pytest.raises(UserError, match=rf"no version 7; there are {first}"):
        roll_back(str(pushed), 7)


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY_TIME = _Any()

KILLED = """
import sys, time
from components.pusher import places
from components.pusher.record import Record
from components.pusher.versions import push
copy = places.copy_file
def slow(source, target):
    copy(source, target)
    print("copied", flush=True)
    time.sleep(60)
places.copy_file = slow
push(sys.argv[1], sys.argv[2], Record(), keep=1)
"""


def test_a_killed_push_leaves_the_version_before_served_and_the_next_one_clears_up(tmp_path: Path, pushed: Path) -> None:
    (first,) = push_all(tmp_path, "a", keep=1)
    command = [sys.executable, "-c", KILLED, save_model(tmp_path / "b", "b"), str(pushed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "copied\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (leftover,) = names(pushed) - {str(first)}
    assert len(list((pushed / leftover).rglob("*"))) > 1
    assert not leftover.isdigit()
    assert served(pushed) == "a"
    assert [version.number for version in list_versions(str(pushed))] == [first]
    (second,) = push_all(tmp_path, "b", keep=2)
    assert served(pushed) == "b"
    assert names(pushed) == {str(first), str(second)}


def test_a_reader_sees_whole_versions_only(tmp_path: Path, pushed: Path) -> None:
    push_all(tmp_path, "a")
    ended = threading.Event()

    def read() -> int:
        reads = 0
        while not ended.is_set():
            for path in sorted(pushed.iterdir(), key=lambda path: path.name):
                if path.name.isdigit():
                    found = {
                        os.path.relpath(os.path.join(folder, name), path)
                        for folder, _, names in os.walk(path)
                        for name in names
                    }
                    assert found == {*FILES, RECORD_FILE, CHECKSUM_FILE} or not path.exists()  # deleted while it was listed
                    reads += 1
        return reads

    with ThreadPoolExecutor() as pool:
        reader = pool.submit(read)
        push_all(tmp_path, "bcdefghijk", keep=3)
        ended.set()
        assert reader.result() > 10


def test_two_pushes_at_a_time_get_different_versions(tmp_path: Path, pushed: Path) -> None:
    models = [save_model(tmp_path / content, content) for content in "abcd"]
    script = (
        "import sys; from components.pusher.record import Record; from components.pusher.versions import push; "
        "print(push(sys.argv[1], sys.argv[2], Record(), None).number)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, model, str(pushed)], stdout=subprocess.PIPE, text=True)
        for model in models
    ]
    numbers = {process.communicate()[0].strip() for process in processes}
    assert names(pushed) == numbers
    assert len(numbers) == len(models)
    assert (pushed / "latest").read_text().strip() == max(numbers)
    assert {served_by(pushed / number) for number in numbers} == set("abcd")


def served_by(version: Path) -> str:
    (content,) = {(version / name).read_text().split()[1] for name in FILES}
    return content


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_push_that_fails_leaves_nothing_behind_and_says_why(
    tmp_path: Path, pushed: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (first,) = push_all(tmp_path, "a")
    written = []

    def fail(file: object) -> None:
        written.append(file)
        if len(written) == 2:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(model_files, "sync", fail)
    with pytest.raises(UserError, match=rf"pushed: can't be written \({os.strerror(code)}\); what was served before still is"):
        push_all(tmp_path, "b")
    assert names(pushed) == {str(first)}
    assert served(pushed) == "a"


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        push(save_model(tmp_path / "a", "a"), str(tmp_path / "file" / "pushed"), Record(), None)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        list_versions(str(tmp_path / "nowhere"))


@pytest.fixture
def ram() -> str:
    """A place that is no disk: TensorFlow's file system in memory."""
    path = "ram://bucket/models"
    if tf.io.gfile.exists(path):
        tf.io.gfile.rmtree(path)
    return path


def read(path: str) -> str:
    with tf.io.gfile.GFile(path) as file:
        return file.read()


def test_on_an_object_store_the_graph_comes_last(tmp_path: Path, ram: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    rename = tf.io.gfile.rename

    def note(source: str, target: str, overwrite: bool) -> None:
        assert not tf.io.gfile.exists(f"{ram}/latest")
        moved.append(target)
        rename(source, target, overwrite)

    monkeypatch.setattr(tf.io.gfile, "rename", note)
    version = push(save_model(tmp_path / "a", "a"), ram, Record(run="1"), None)
    assert moved[-1] == f"{version.path}/saved_model.pb"
    assert {path.removeprefix(f"{version.path}/") for path in moved} == {*FILES, RECORD_FILE, CHECKSUM_FILE}
    assert read(f"{ram}/latest") == f"{version.number}\n"
    assert sorted(name.rstrip("/") for name in tf.io.gfile.listdir(version.path)) == [
        RECORD_FILE,
        CHECKSUM_FILE,
        "saved_model.pb",
        "variables",
    ]


def test_an_object_store_keeps_rolls_back_and_lists(tmp_path: Path, ram: str) -> None:
    numbers = [push(save_model(tmp_path / item, item), ram, Record(run=item), 2).number for item in "abb"]
    numbers.append(push(save_model(tmp_path / "c", "c"), ram, Record(run="c"), 2).number)
    assert [version.number for version in list_versions(ram)] == numbers[2:]
    back = roll_back(ram, numbers[2])
    assert read(f"{back.path}/saved_model.pb").startswith("graph b")
    assert [version.record.run for version in list_versions(ram) if version.record] == ["b", "c", "b"]
    assert {name.rstrip("/") for name in tf.io.gfile.listdir(ram)} == {
        "latest",
        *(str(version.number) for version in list_versions(ram)),
    }


def test_on_an_object_store_an_interrupted_push_is_no_version(
    tmp_path: Path, ram: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = push(save_model(tmp_path / "a", "a"), ram, Record(), None)
    rename = tf.io.gfile.rename

    def die(source: str, target: str, overwrite: bool) -> None:
        if target.endswith(".pb"):
            raise KeyboardInterrupt
        rename(source, target, overwrite)

    with monkeypatch.context() as patch:
        patch.setattr(tf.io.gfile, "rename", die)
        patch.setattr(tf.io.gfile, "rmtree", lambda path: None)  # killed: it clears up nothing
        with pytest.raises(KeyboardInterrupt):
            push(save_model(tmp_path / "b", "b"), ram, Record(), None)
    assert list_versions(ram) == [first]
    second = push(save_model(tmp_path / "b", "b"), ram, Record(), None)
    left = {name.rstrip("/") for name in tf.io.gfile.listdir(ram)} - {"latest"}
    assert len(left) == 4  # what another push might be at work on
    day = places._DAY
    monkeypatch.setattr(places, "_DAY", -1)
    push(save_model(tmp_path / "b", "b"), ram, Record(), None)
    monkeypatch.setattr(places, "_DAY", day)
    left = {name.rstrip("/") for name in tf.io.gfile.listdir(ram)} - {"latest"}
    assert left == {str(first.number), str(second.number)}


def test_on_an_object_store_two_pushes_at_a_time_get_different_versions(tmp_path: Path, ram: str) -> None:
    models = [save_model(tmp_path / content, content) for content in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda model: push(model, ram, Record(), None), models))
    assert len({version.number for version in found}) == len(models)
    assert {read(f"{version.path}/{name}").split()[1] for version in found for name in FILES} == set("abcd")


def test_what_a_store_refuses_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nosuch://bucket: can't be written"):
        push(save_model(tmp_path / "a", "a"), "nosuch://bucket", Record(), None)


@pytest.fixture
def artifacts(tmp_path: Path) -> tuple[dict, dict]:
    """What the Pusher gets, blessed by all."""
    model, blessing, infra, evaluation, examples, pushed_model = (
        getattr(standard_artifacts, name)()
        for name in ("Model", "ModelBlessing", "InfraBlessing", "ModelEvaluation", "Examples", "PushedModel")
    )
    save_model(tmp_path / "model" / "Format-Serving", "a")
    model.uri, pushed_model.uri, evaluation.uri = (str(tmp_path / name) for name in ("model", "archive", "evaluation"))
    blessing.set_int_custom_property("blessed", 1)
    infra.set_int_custom_property("blessed", 1)
    examples.set_string_custom_property("input_fingerprint", "split:test")
    (tmp_path / "evaluation").mkdir()
    overall = Slice((), 4, 4, {"accuracy": Metric(0.75, 0.5, 1.0)})
    write_evaluation(Evaluation(["cat", "dog"], False, "jackknife", [overall], [], True), evaluation.uri)
    inputs = {
        "model": model,
        "model_blessing": blessing,
        "infra_blessing": infra,
        "evaluation": evaluation,
        "examples": examples,
    }
    return {key: [artifact] for key, artifact in inputs.items()}, {"pushed_model": [pushed_model]}


SETTINGS = json.dumps(
    {"pipeline": "few-digits", "keep": 5, "replace": False, "sign": None, "code": "c0de", "configuration": "c0f1"}
)


def context_of_run(folder: str | None) -> BaseExecutor.Context:
    """As the runner of this machine gives it, or one that has no folders."""
    pipeline = pipeline_pb2.Pipeline()
    node = pipeline.nodes.add().pipeline_node
    for name in ("pipeline", "pipeline_run", "node"):
        node.contexts.contexts.add().type.name = name
    if folder:
        tell_run_folder(pipeline, folder)
    return BaseExecutor.Context(pipeline_node=node, pipeline_run_id="run-7")


def test_where_runs_have_no_folder_the_record_has_the_orchestrators_name(pushed: Path, artifacts: tuple[dict, dict]) -> None:
    inputs, outputs = artifacts
    Executor(context_of_run(None)).Do(inputs, outputs, {"folder": str(pushed), "settings": SETTINGS})
    (version,) = list_versions(str(pushed))
    assert version.record is not None
    assert (version.record.run, version.record.run_folder) == ("run-7", "")


def test_the_component_pushes_with_tfxs_properties_and_a_record(
    tmp_path: Path, pushed: Path, artifacts: tuple[dict, dict]
) -> None:
    inputs, outputs = artifacts
    Executor(context_of_run("/output/runs/2026-01-01T00-00-00")).Do(
        inputs, outputs, {"folder": str(pushed), "settings": SETTINGS}
    )
    (version,) = list_versions(str(pushed))
    (artifact,) = outputs["pushed_model"]
    assert artifact.get_int_custom_property("pushed") == 1
    assert artifact.get_string_custom_property("pushed_destination") == version.path
    assert artifact.get_string_custom_property("pushed_version") == str(version.number)
    assert served_by(Path(artifact.uri)) == "a"
    record = version.record
    assert record is not None
    assert record.run_folder == "/output/runs/2026-01-01T00-00-00"
    assert (record.pipeline, record.run, record.data) == ("few-digits", "2026-01-01T00-00-00", "split:test")
    assert (record.code, record.configuration, record.versions["tensorflow"]) == ("c0de", "c0f1", tf.__version__)
    assert record.metrics == {"accuracy": {"value": 0.75, "lower": 0.5, "upper": 1.0}}


def test_a_run_whose_model_is_served_already_says_so_and_leaves_no_copy(pushed: Path, artifacts: tuple[dict, dict]) -> None:
    inputs, outputs = artifacts
    settings = {"folder": str(pushed), "settings": SETTINGS}
    Executor(context_of_run("/output/runs/1")).Do(inputs, outputs, settings)
    first = outputs["pushed_model"][0]
    assert not first.get_int_custom_property("already_served")
    Executor(context_of_run("/output/runs/2")).Do(inputs, outputs, settings)
    again = outputs["pushed_model"][0]
    assert again.get_int_custom_property("already_served") == 1
    assert again.get_string_custom_property("pushed_destination") == list_versions(str(pushed))[0].path
    assert list(Path(again.uri).iterdir()) == []


def test_a_model_that_has_failed_its_evaluation_is_not_pushed_though_it_is_blessed(
    pushed: Path, artifacts: tuple[dict, dict]
) -> None:
    inputs, outputs = artifacts
    evaluation = inputs["evaluation"][0].uri
    found = "4 of 4 images have probabilities that are not finite numbers"
    failed = Verdict("finite answers", "all examples", Metric(0.0), False, found, lower=1.0)
    write_evaluation(replace(read_evaluation(evaluation), verdicts=[failed]), evaluation)
    with pytest.raises(UserError, match=r"the model is blessed, but has failed its evaluation \(finite answers"):
        Executor().Do(inputs, outputs, {"folder": str(pushed), "settings": SETTINGS})
    assert not pushed.exists()


def test_the_pusher_refuses_other_classes_unless_told_to_replace_them(
    tmp_path: Path, pushed: Path, artifacts: tuple[dict, dict]
) -> None:
    inputs, outputs = artifacts
    push(save_model(tmp_path / "b", "b"), str(pushed), Record(classes=["cat", "cow"]), None)
    with pytest.raises(UserError, match=r"has other classes than this model \(dog new; cow gone\); give another push.path"):
        Executor().Do(inputs, outputs, {"folder": str(pushed), "settings": SETTINGS})
    assert served(pushed) == "b"
    Executor().Do(inputs, outputs, {"folder": str(pushed), "settings": SETTINGS.replace("false", "true")})
    assert served(pushed) == "a"
    record = list_versions(str(pushed))[-1].record
    assert record is not None
    assert record.classes == ["cat", "dog"]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"digest": "x", "time": ""}', b"{" * 10**6])
def test_a_damaged_record_breaks_nothing_and_is_told_beside_what_is_right(
    tmp_path: Path, pushed: Path, fpn, content: bytes
) -> None:
    first, second = push_all(tmp_path, "ab")
    (pushed / str(second) / RECORD_FILE).write_bytes(content)
    listed = list_versions(str(pushed))
    assert [bool(version.problem) for version in listed] == [False, True]
    assert listed[1].problem == "manifest.json can't be read: its SHA-256 is not the one in manifest.json.sha256"
    assert find_version(pushed) == pushed / str(first)
    (third,) = push_all(tmp_path, "b", keep=2)
    assert third > second
    assert names(pushed) == {str(number) for number in (first, second, third)}  # the damaged one does not count
    assert find_version(pushed) == pushed / str(third)


def test_hidden_files_long_numbers_and_strange_leftovers_do_no_harm(tmp_path: Path, pushed: Path) -> None:
    first, second = push_all(tmp_path, "ab")
    (pushed / str(second) / ".DS_Store").touch()
    shutil.copytree(pushed / str(first), pushed / "99999999999999999999")
    (pushed / ".push-file").touch()
    (pushed / ".push-link").symlink_to("nowhere")
    assert [(version.number, version.problem) for version in versions.list_versions(str(pushed))] == [(first, ""), (second, "")]
    third = versions.push(save_model(tmp_path / "c", "c"), str(pushed), Record(), None)
    assert third.number < 10**12
    assert not (pushed / ".push-file").exists()


@pytest.mark.parametrize("name", [RECORD_FILE, CHECKSUM_FILE, "variables/variables.index", "saved_model.pb"])
def test_a_pipe_in_the_place_of_a_file_is_damage_and_is_not_waited_for(tmp_path: Path, pushed: Path, name: str) -> None:
    first, second = push_all(tmp_path, "ab")
    (pushed / str(second) / name).unlink(missing_ok=True)
    (pushed / str(second) / name).parent.mkdir(exist_ok=True)
    os.mkfifo(pushed / str(second) / name)
    served = versions.served_version(str(pushed))
    assert served
    assert served.number == first
    assert versions.list_versions(str(pushed))[-1].problem
    (pushed / ".lock").unlink()
    os.mkfifo(pushed / ".lock")
    with pytest.raises(UserError, match="can't be written"):
        versions.push(save_model(tmp_path / "c", "c"), str(pushed), Record(), None)


@pytest.mark.parametrize(
    "change",
    [{"metrics": {"accuracy": {"value": 10**400, "lower": None, "upper": None}}}, {"run": "\ud800"}, {"copy_of": 10**30}],
)
def test_a_record_with_values_that_nobody_writes_is_damaged(tmp_path: Path, pushed: Path, change: dict, fpn) -> None:
    _, second = push_all(tmp_path, "ab")
    path = pushed / str(second) / RECORD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    path.with_name(CHECKSUM_FILE).write_bytes(checksum_line(path.read_bytes()))
    ended = fpn("push", "--to", pushed, "--list")
    (line,) = ended.stderr.splitlines()
    assert "the newest version is damaged (manifest.json can't be read: " in line
    assert ended.status == 1


def test_the_list_names_what_is_damaged_and_going_back_repairs_it(tmp_path: Path, pushed: Path, fpn) -> None:
    first, second, third = push_all(tmp_path, "aba")
    whole = fpn("push", "--to", pushed, "--list", "--json")
    assert (whole.status, whole.stderr) == (0, "")
    assert [version["problem"] for version in whole.json["versions"]] == ["", "", ""]
    for number in (second, third):
        weights = pushed / str(number) / "variables" / "variables.data-00000-of-00001"
        weights.write_bytes(weights.read_bytes()[:-1])

    listed = fpn("push", "--to", pushed, "--list", "--json", columns=250)

    assert listed.status == 1
    assert f"{third}: the newest version is damaged (its files are not those that were pushed: variables/" in listed.stderr
    lines = {line.split()[0]: line for line in listed.stdout.splitlines() if line.strip()[:1].isdigit()}
    assert "served" in lines[str(first)]
    assert (
        "damaged: its files are not those that were pushed: variables/variables.data-00000-of-00001 has changed"
        in lines[str(second)]
    )
    assert "served" not in lines[str(third)]
    refused = fpn("push", "--to", pushed, "--version", second)
    assert (refused.status, f"{second} is damaged" in refused.stderr) == (2, True)
    back = fpn("push", "--to", pushed, "--version", first, "--json")
    assert back.status == 0, back.stderr
    assert served(pushed) == "a"
    assert fpn("push", "--to", pushed, "--list").status == 0


@pytest.mark.parametrize("refusing", ["model_blessing", "infra_blessing"])
def test_a_model_that_is_not_blessed_is_not_pushed(
    pushed: Path, artifacts: tuple[dict, dict], refusing: str, tmp_path: Path
) -> None:
    inputs, outputs = artifacts
    inputs[refusing][0].set_int_custom_property("blessed", 0)
    Executor().Do(inputs, outputs, {"folder": str(pushed), "settings": SETTINGS})
    assert not pushed.exists()
    assert outputs["pushed_model"][0].get_int_custom_property("pushed") == 0
