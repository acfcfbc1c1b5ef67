"""fpn deploy and fpn schedule: kfp's own client against a server that speaks the API's routes."""

import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kfp
import pytest
from compiled_pipelines import read_documents, write_documents, write_small
from kubeflow_server import Server, serving

from components.errors import UserError
from pipeline import kubeflow_client
from pipeline.cli import main
from pipeline.kubeflow_client import Backend, check_cron
from pipeline.kubeflow_lint import lint


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

    assert "ingest: no images below [s3://bucket/images]" in capsys.readouterr().out


def test_waiting_outlives_a_server_that_is_away_for_a_while(
    server: Server, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    server.broken["GET /runs/"] = (503, "upstream connect error")
    threading.Timer(0.3, server.broken.clear).start()

    assert _deploy(server, small, "--wait") == 0

    monkeypatch.setattr(kubeflow_client, "_PATIENCE", 0.05)
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
        monkeypatch.setattr(kubeflow_client, "_TIMEOUT", (0.2, 0.2))
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
    digits = Path(__file__).parents[2] / "configs" / "digits.yaml"
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
