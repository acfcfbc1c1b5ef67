"""fpn deploy and fpn schedule: kfp's own client against a server that speaks the API's routes."""

import inspect
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import pytest
import urllib3
from compiled_pipelines import read_documents, write_documents, write_small
from kubeflow_server import Server, node_of, pod_of, serving

from base.errors import UserError
from pipeline.cli import main
from pipeline.kubeflow import causes, client
from pipeline.kubeflow.client import Backend, check_cron
from pipeline.kubeflow.lint import lint


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    follow = Backend.follow
    monkeypatch.setattr(Backend, "follow", lambda *arguments: follow(*arguments, interval=0.01))
    with serving(Server()) as started:
        yield started


def _deploy(server: Server, file: Path, *options: str) -> int:
    return main(["deploy", "--pipeline", str(file), "--endpoint", server.url, *options])


def _error(capsys: pytest.CaptureFixture) -> str:
    said = capsys.readouterr().err
    assert said.startswith("fpn: ")
    assert said.count("\n") <= 2
    return said


def test_a_version_is_uploaded_and_run_with_every_parameter(server: Server, small: Path, capsys: pytest.CaptureFixture) -> None:
    assert _deploy(server, small, "--parameter", "epochs=5") == 0

    assert [item["display_name"] for item in server.stored["pipelines"]] == ["small"]
    (version,) = server.stored["versions"]
    assert version["display_name"].startswith("small-")
    assert server.files[version["display_name"]] == small.read_bytes()
    assert [item["display_name"] for item in server.stored["experiments"]] == ["small"]
    (run,) = server.stored["runs"]
    assert run["runtime_config"] == {
        "parameters": {"data_path": "s3://bucket/images", "epochs": 5, "threshold": 0.5},
        "pipeline_root": "s3://bucket/runs",
    }
    assert run["pipeline_version_reference"] == {
        "pipeline_id": server.stored["pipelines"][0]["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    shown = capsys.readouterr().out.splitlines()
    assert shown == [f"{version['display_name']}: uploaded", f"{server.url}/#/runs/details/{run['run_id']}"]


def test_the_same_file_is_uploaded_once_and_a_changed_one_becomes_a_version(
    server: Server, small: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.yaml"
    changed.write_text(small.read_text().replace("fpn:1", "fpn:2"))

    for file in (small, small, changed, small):
        assert _deploy(server, file, "--experiment", "nightly") == 0

    assert len(server.stored["pipelines"]) == len(server.stored["experiments"]) == 1
    assert server.count("POST /pipelines/upload_version") == len(server.stored["versions"]) == 2
    used = [run["pipeline_version_reference"]["pipeline_version_id"] for run in server.stored["runs"]]
    assert used[0] == used[1] == used[3] != used[2]


def test_waiting_shows_each_change_and_exits_by_the_result(server: Server, small: Path, capsys: pytest.CaptureFixture) -> None:
    server.states = [
        ("RUNNING", {"ingest": "RUNNING", "ingest-driver": "SUCCEEDED"}),
        ("RUNNING", {"ingest": "SUCCEEDED", "train": "RUNNING"}),
        ("RUNNING", {"ingest": "SUCCEEDED", "train": "RUNNING"}),
        ("SUCCEEDED", {"ingest": "SUCCEEDED", "train": "SUCCEEDED"}),
    ]

    assert _deploy(server, small, "--wait", "--json") == 0

    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[2:]]
    assert shown[:-1] == [
        "ingest running",
        "run running",
        "ingest succeeded 42 s",
        "train running",
        "train succeeded 42 s",
        "run succeeded",
    ]
    assert '"state": "SUCCEEDED", "tasks": {"ingest": "SUCCEEDED", "train": "SUCCEEDED"}' in shown[-1]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_waiting_for_a_run_that_does_not_succeed_exits_with_1(
    server: Server, small: Path, capsys: pytest.CaptureFixture, state: str
) -> None:
    server.states = [("RUNNING", {}), (state, {"ingest": "FAILED"})]
    server.errors = {"ingest": "no images below [s3://bucket/images]"}

    assert _deploy(server, small, "--wait") == 1

    assert "ingest failed: no images below [s3://bucket/images]" in capsys.readouterr().out


def _failing(server: Server, small: Path, capsys: pytest.CaptureFixture, *tasks: str) -> tuple[list[str], dict[str, str]]:
    """What is shown of a run's failures, and the causes in the JSON."""
    server.states = [("RUNNING", {}), ("FAILED", {"ingest": "SUCCEEDED"} | dict.fromkeys(tasks, "FAILED"))]
    assert _deploy(server, small, "--wait", "--json") == 1
    *shown, result = capsys.readouterr().out.splitlines()
    last_state = next(index for index, line in enumerate(shown) if line.split() == ["run", "failed"])
    return shown[last_state + 1 :], json.loads(result)["errors"]


def test_the_cause_of_a_failure_comes_from_the_history_of_the_task(
    server: Server, small: Path, capsys: pytest.CaptureFixture
) -> None:
    server.history["train"] = "OOMKilled"

    assert _failing(server, small, capsys, "train") == (["train failed: OOMKilled"], {"train": "OOMKilled"})

    server.history = {"executor": "Unschedulable: no node has a GPU"}
    assert _failing(server, small, capsys, "train")[0] == ["train failed: Unschedulable: no node has a GPU"]

    server.history = {"train-driver": "no input examples"}
    assert _failing(server, small, capsys, "train-driver")[0] == ["train-driver failed: no input examples"]


@pytest.mark.parametrize("pages", [False, True], ids=["api", "pages"])
def test_the_cause_of_a_failure_comes_from_the_log_of_the_pod(
    server: Server, small: Path, capsys: pytest.CaptureFixture, tmp_path: Path, pages: bool
) -> None:
    server.pages = pages
    server.history["train"] = "Error (exit code 1)"  # says less than the log
    server.logs[pod_of("train")] = b"first\n" + b"".join(b"line %d\n" % index for index in range(25)) + b"Killed\n"
    lines = [f"line {index}" for index in range(6, 25)] + ["Killed"]

    shown, errors = _failing(server, small, capsys, "train")

    assert shown == ["train failed:", *(f"  {line}" for line in lines)]
    assert errors == {"train": "\n".join(lines)}


def test_the_last_word_of_the_entry_point_is_the_whole_cause(
    server: Server, small: Path, capsys: pytest.CaptureFixture
) -> None:
    server.logs[pod_of("train")] = b"epoch 1\nfpn: an older failure\nepoch 2\nOSError: disk full\n"
    server.logs[pod_of("push")] = (
        b"epoch 1\nfpn: no images below /data\n"
        b"I0501 10:00:42.000000      14 launcher_v2.go:190] publish success.\n"
        b"F0501 10:00:42.000000      14 main.go:58] failed to execute component: exit status 2\n"
        b'time="2024-05-01T10:00:42.000Z" level=info msg="sub-process exited" argo=true error="<nil>"\n'
        b"Error: exit status 1\n"
    )

    _, errors = _failing(server, small, capsys, "train", "push")

    assert errors["push"] == "no images below /data"
    assert errors["train"].endswith("epoch 2\nOSError: disk full")


@pytest.mark.parametrize("name", ["executor-logs", "executor-logs-0", "main-logs"])
def test_the_cause_of_a_failure_comes_from_the_artifact_of_the_log(
    server: Server, small: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    server.artifacts[node_of("train"), name] = b"x" * 200_001 + b"\nfpn: no images below /data\n"

    assert _failing(server, small, capsys, "train") == (
        ["train failed: no images below /data"],
        {"train": "no images below /data"},
    )


def test_a_failure_without_a_cause_says_where_to_look(server: Server, small: Path, capsys: pytest.CaptureFixture) -> None:
    shown, errors = _failing(server, small, capsys, "train", "push")

    (sentence,) = shown
    run = server.stored["runs"][-1]["run_id"]
    assert sentence == (
        f"train, push failed: the server gives no cause; look at {server.url}/#/runs/details/{run}, "
        f"or at kubectl logs -n kubeflow {pod_of('train')} -c main"
    )
    assert errors == {}

    server.history["push"] = "OOMKilled"
    shown, errors = _failing(server, small, capsys, "train", "push")
    assert shown[0] == "push failed: OOMKilled"
    assert shown[1].startswith("train failed: the server gives no cause")
    assert errors == {"push": "OOMKilled"}

    assert _failing(server, small, capsys)[0][0].startswith("run failed: the server gives no cause")
    server.errors["root"] = "the volume can not be mounted"
    assert _failing(server, small, capsys)[0] == ["root failed: the volume can not be mounted"]


def test_the_innermost_failed_task_is_named_where_the_server_links_them() -> None:
    def task(name: str, task_id: str, **more: Any) -> kfp_server_api.V2beta1PipelineTaskDetail:
        return kfp_server_api.V2beta1PipelineTaskDetail(display_name=name, task_id=task_id, state="FAILED", **more)

    def child(**named: str) -> list[kfp_server_api.PipelineTaskDetailChildTask]:
        return [kfp_server_api.PipelineTaskDetailChildTask(**named)]

    def error(message: str) -> kfp_server_api.GoogleRpcStatus:
        return kfp_server_api.GoogleRpcStatus(message=message)

    details = [
        task("tune", "1", error=error("child 'w-2' failed"), child_tasks=child(pod_name="w-2")),
        task("\x1b[2Jfit", "2", pod_name="w-system-container-executor-2", child_tasks=child(task_id="3")),
        task("executor", "3"),
        task("executor(0)", "4", parent_task_id="3", error=error("an attempt")),
        task("executor(1)", "5", parent_task_id="3", error=error("out of memory")),
    ]
    run = kfp_server_api.V2beta1Run(run_id="1", run_details=kfp_server_api.V2beta1RunDetails(task_details=details))

    (failure,) = causes.find_failures(run, ["tune", "push"], kfp_server_api.ApiClient(), None)

    assert (failure.task, failure.cause) == ("fit", "out of memory")


def test_of_a_huge_log_the_end_alone_is_kept(
    server: Server, small: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.logs[pod_of("train")] = b"progress\n" * 1_000_000 + b"y" * 3_000 + b"\nKilled\n"

    _, errors = _failing(server, small, capsys, "train")

    assert errors["train"].splitlines() == ["progress"] * 18 + ["y" * 500, "Killed"]

    monkeypatch.setattr(causes, "_LOG", 1_000_000)
    shown, errors = _failing(server, small, capsys, "train")
    assert errors == {}
    assert "kubectl logs" in shown[-1]


def test_a_log_can_not_steer_the_terminal(server: Server, small: Path, capsys: pytest.CaptureFixture) -> None:
    server.logs[pod_of("train")] = (
        b"[bold red]not markup[/] :smile: \\[x]\n\n"
        b"\x1b]\n\x1b[31mred\x1b[0m\x1b]0;title\x07 \x1b[2J\a\b\xe2\x80\xaecaf\xc3\xa9 \xff\n"
        b" 1/9 [>....]\r 9/9 [=====]\r\n"
    )
    server.history["push"] = "[/]\x1b[2Jno \u202eimages"

    shown, errors = _failing(server, small, capsys, "train", "push")

    assert shown == [
        "train failed:",
        "  [bold red]not markup[/] :smile: \\[x]",
        "  red caf\u00e9 \ufffd",
        "   9/9 [=====]",
        "push failed: [/]no images",
    ]
    assert errors["push"] == "[/]no images"


def test_a_server_that_goes_away_leaves_what_it_has_said(
    server: Server, small: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise urllib3.exceptions.ReadTimeoutError(None, "", "read timed out")  # type: ignore[arg-type]

    monkeypatch.setattr(causes, "_read", gone)
    server.errors["push"] = "OOMKilled"

    shown, errors = _failing(server, small, capsys, "train", "push")

    assert errors == {"push": "OOMKilled"}
    assert shown[-1].startswith("train failed: the server gives no cause")


def test_the_token_goes_along_to_the_log(server: Server, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    token = tmp_path / "token"
    token.write_text("fresh")
    server.token = "fresh"
    server.states = [("FAILED", {"train": "FAILED"})]
    server.logs[pod_of("train")] = b"fpn: no images below /data\n"

    assert _deploy(server, small, "--wait", "--token-file", str(token)) == 1

    assert "train failed: no images below /data" in capsys.readouterr().out
    assert set(server.tokens) == {"Bearer fresh"}


def test_waiting_outlives_a_server_that_is_away_for_a_while(
    server: Server, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    server.broken["GET /runs/"] = (503, "upstream connect error")
    threading.Timer(0.3, server.broken.clear).start()

    assert _deploy(server, small, "--wait") == 0

    monkeypatch.setattr(client, "_PATIENCE", 0.05)
    server.broken["GET /runs/"] = (503, "upstream connect error")
    assert _deploy(server, small, "--wait") == 2
    assert "the server failed (503): upstream connect error" in (said := _error(capsys))
    assert "The run goes on: " in said


def test_the_token_is_read_again_for_each_request(server: Server, small: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    server.token = "first"
    backend = Backend(server.url, token_file=token)
    token.write_text("second\n")
    server.token = "second"

    assert backend.unschedule("small") == 0
    assert server.tokens == ["Bearer first", "Bearer second"]


def test_a_refused_token_is_told_at_once(
    server: Server, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("stale")
    server.token = "fresh"

    assert _deploy(server, small, "--token-file", str(token)) == 2
    assert "the credentials are refused (401); give a fresh token by --token-file" in _error(capsys)
    assert server.calls == ["GET /healthz"]

    server.token = None
    server.broken["POST /runs"] = (403, '{"error": "x", "message": "User is not authorized with reason: no create"}')
    assert _deploy(server, small) == 2
    assert "not allowed (403): User is not authorized" in _error(capsys)

    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    server.token = "fresh"
    assert _deploy(server, small, "--in-cluster") == 2
    assert "in a cluster mount one for pipelines" in _error(capsys)


def test_a_token_file_that_can_not_be_used_is_named(server: Server, small: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    for content, message in ((None, "can't be read"), ("", "is empty"), ("two\nlines", "on one line")):
        if content is not None:
            file.write_text(content)
        with pytest.raises(UserError, match=f"--token-file {file}: .*{message}"):
            Backend(server.url, token_file=file)


def test_a_wrong_address_is_told_with_the_cure(
    server: Server, small: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"

        def told(*options: str) -> str:
            assert main(["deploy", "--pipeline", str(small), *options]) == 2
            return _error(capsys)

        assert f"{closed}: nothing listens there; check --endpoint" in told("--endpoint", closed)
        assert "no such host" in told("--endpoint", "http://pipelines.invalid")
        assert "must begin with http" in told("--endpoint", "localhost:8080")
        assert "--endpoint is missing" in told()
        assert "no trusted connection" in told("--endpoint", server.url.replace("http:", "https:"))
        unused.listen()  # and never answers
        monkeypatch.setattr(client, "_TIMEOUT", (0.2, 0.2))
        assert "no answer in 0.2 s" in told("--endpoint", closed)


def test_an_older_backend_and_a_login_page_are_recognised(server: Server, small: Path, capsys: pytest.CaptureFixture) -> None:
    server.api = "v1beta1"
    assert _deploy(server, small) == 2
    assert "an older Kubeflow Pipelines, of API v1beta1; update it to 2.0 or later" in _error(capsys)

    server.api = "v2beta1"
    server.broken["GET /healthz"] = (200, "<html>Log in</html>")
    assert _deploy(server, small) == 2
    assert "no API of Kubeflow Pipelines there, perhaps a login page" in _error(capsys)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, '{"message": "InternalServerError: write /data: no space left on device"}', "the server's disk is full (500)"),
        (507, "", "the server's disk is full (507)"),
        (500, '{"message": "Error 1114: The table pipeline_versions is full"}', "the server's disk is full (500)"),
        (502, "<html>Bad Gateway</html>", "the server failed (502); look at the log of ml-pipeline"),
        (413, "", "the pipeline is too large"),
        (400, '{"error": "invalid v2 pipeline spec: name is empty"}', "refused (400): invalid v2 pipeline spec: name is empty"),
    ],
)
def test_a_failing_server_is_told_in_one_line(
    server: Server, small: Path, capsys: pytest.CaptureFixture, status: int, body: str, told: str
) -> None:
    server.broken["POST /pipelines/upload_version"] = (status, body)

    assert _deploy(server, small) == 2
    assert f"{server.url}: uploading the pipeline: {told}" in _error(capsys)

    server.broken.clear()  # the pipeline that was made before the failure is taken up
    assert _deploy(server, small) == 0
    assert len(server.stored["pipelines"]) == 1


def test_several_users_have_namespaces(server: Server, small: Path, capsys: pytest.CaptureFixture) -> None:
    assert _deploy(server, small, "--namespace", "team") == 2
    assert "leave the namespace out" in _error(capsys)

    server.multi_user = True
    assert _deploy(server, small) == 2
    assert "--namespace is missing" in _error(capsys)

    assert _deploy(server, small, "--namespace", "team") == 0
    assert _deploy(server, small, "--namespace", "others") == 0
    assert [item["namespace"] for item in server.stored["pipelines"]] == ["team", "others"]
    assert [item["namespace"] for item in server.stored["experiments"]] == ["team", "others"]


def test_a_schedule_replaces_one_of_its_name(server: Server, small: Path, capsys: pytest.CaptureFixture) -> None:
    def schedule(*options: str) -> int:
        return main(["schedule", "--pipeline", str(small), "--endpoint", server.url, *options])

    assert schedule("--cron", "0 9 * * 1") == 0
    assert schedule("--interval", "3600", "--name", "hourly") == 0
    assert schedule("--cron", "30 0 9 * * 1-5") == 0
    server.stored["recurringruns"].append({"recurring_run_id": "left", "display_name": "hourly"})
    assert schedule("--interval", "60", "--name", "hourly", "--parameter", "epochs=1") == 0

    first, second = server.stored["recurringruns"]
    assert (first["display_name"], first["trigger"]) == ("small", {"cron_schedule": {"cron": "30 0 9 * * 1-5"}})
    assert (second["display_name"], second["trigger"]) == ("hourly", {"periodic_schedule": {"interval_second": 60}})
    assert second["runtime_config"]["parameters"]["epochs"] == 1
    assert first["no_catchup"] is True
    assert first["max_concurrency"] == 1
    assert first["mode"] == "ENABLE"
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "small: created",
        "hourly: created",
        "small: replaced",
        "hourly: replaced",
    ]

    server.broken["POST /recurringruns"] = (400, '{"message": "invalid cron"}')
    assert schedule("--cron", "0 9 * * 9") == 2
    assert "refused (400): invalid cron" in _error(capsys)
    assert len(server.stored["recurringruns"]) == 2

    assert schedule("--delete") == 0
    assert [item["display_name"] for item in server.stored["recurringruns"]] == ["hourly"]
    assert schedule("--delete") == 2
    assert "there is no schedule of this name" in _error(capsys)


def test_cron_takes_the_usual_form_and_seconds() -> None:
    assert check_cron("0 9 * * 1") == "0 0 9 * * 1"
    assert check_cron(" 30 0 9 ?  * MON-FRI ") == "30 0 9 ? * MON-FRI"
    assert check_cron("@daily") == "@daily"
    for wrong in ("", "9", "0 9 * *", "0 9 * * 1; ls", "1 2 3 4 5 6 7", "@monday"):
        with pytest.raises(UserError, match="--cron"):
            check_cron(wrong)


def test_a_file_that_the_backend_would_refuse_is_not_sent(
    server: Server, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (spec,) = read_documents(small)
    del spec["defaultPipelineRoot"]

    assert _deploy(server, write_documents(tmp_path / "pipeline.yaml", spec)) == 2
    assert "pipeline-root: is missing" in _error(capsys)
    assert server.calls == ["GET /healthz"]


@pytest.mark.parametrize("override", ["epochs=many", "epochs=1.5", "epochs=true", "steps=3", "epochs"])
def test_a_parameter_that_does_not_fit_is_told(
    server: Server, small: Path, capsys: pytest.CaptureFixture, override: str
) -> None:
    assert _deploy(server, small, "--parameter", override) == 2
    assert f"--parameter {override}: " in _error(capsys)


def test_a_configuration_is_compiled_once_checked_run_and_scheduled(server: Server, tmp_path: Path) -> None:
    digits = Path(__file__).parents[3] / "configs" / "digits.yaml"
    state = ["--set", "kubeflow.state=/data/state", "--set", "kubeflow.volumes=[{claim: fpn-data, path: /data}]"]
    options = ["--config", str(digits), "--set", "train.epochs=2", *state, "--endpoint", server.url]

    assert main(["deploy", *options]) == 0
    assert main(["schedule", *options, "--interval", "3600"]) == 0

    ((name, content),) = server.files.items()
    assert name.startswith("digits-")
    uploaded = tmp_path / "pipeline.yaml"
    uploaded.write_bytes(content)
    assert lint(uploaded) == []
    for kind in ("runs", "recurringruns"):
        (started,) = server.stored[kind]
        assert started["runtime_config"]["parameters"]["train_epochs"] == 2
        assert (
            started["pipeline_version_reference"]["pipeline_version_id"] == server.stored["versions"][0]["pipeline_version_id"]
        )


def test_what_comes_from_the_cache_is_for_the_file_to_say(server: Server, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kfp's client can switch the cache on for all tasks, also for those that must look anew each time."""
    given = []
    for name in ("run_pipeline", "create_recurring_run"):
        method = getattr(kfp.Client, name)
        monkeypatch.setattr(kfp.Client, name, _recording(method, given))

    assert _deploy(server, small) == 0
    assert main(["schedule", "--pipeline", str(small), "--endpoint", server.url, "--interval", "60"]) == 0

    assert [arguments.get("enable_caching") for arguments in given] == [None, None]
    assert all("pipeline_spec" not in item for item in (*server.stored["runs"], *server.stored["recurringruns"]))


def _recording(method: Callable[..., Any], given: list[dict[str, Any]]) -> Callable[..., Any]:
    def recorded(*arguments: Any, **named: Any) -> Any:
        given.append(inspect.signature(method).bind(*arguments, **named).arguments)
        return method(*arguments, **named)

    return recorded
