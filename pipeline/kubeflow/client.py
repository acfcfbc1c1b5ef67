"""Sends a compiled pipeline to Kubeflow Pipelines: its versions, runs and recurring runs."""

import contextlib
import datetime
import io
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH, ServiceAccountTokenVolumeCredentials
from rich.console import Console

from base.errors import UserError
from base.inputs import MAX_CONFIG_BYTES, open_regular
from pipeline.kubeflow.causes import describe, find_failures
from pipeline.kubeflow.file import PipelineFile

IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
SUCCEEDED = "SUCCEEDED"
_ENDED = {SUCCEEDED: "green", "SKIPPED": "yellow", "FAILED": "red", "CANCELED": "red"}
_TIMEOUT = (10, 120)  # seconds to connect, and to wait for an answer
_PATIENCE = 600.0  # seconds without an answer after which `follow` gives up
_PAGE = 100
_FULL_DISK = re.compile(
    r"no space left|disk (is )?full|table .* is full|storage ?full|minimum free drive|insufficient storage|quota exceeded", re.I
)


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on the server.

    Attributes:
      pipeline_id: id of the pipeline.
      version_id: id of the version.
      name: name of the version.
      uploaded: False if the server had the version already.
    """

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool


@dataclass(frozen=True)
class Run:
    """A run on the server, and its address for a browser."""

    run_id: str
    url: str


@dataclass
class Progress:
    """How far a run is.

    Attributes:
      state: SUCCEEDED, FAILED, CANCELED or SKIPPED at the end; RUNNING and others before.
      tasks: state of each task that has begun.
      errors: cause of each failed task by its name, "" being the run as a whole; tasks without a known cause are left out.
    """

    state: str = "PENDING"
    tasks: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


class Backend:
    """Kubeflow Pipelines at an address. Its methods raise UserError for everything that goes wrong on the way or there."""

    def __init__(
        self,
        endpoint: str | None,
        *,
        namespace: str | None = None,
        token_file: Path | None = None,
        in_cluster: bool = False,
        ca_file: Path | None = None,
    ) -> None:
        """Connects, and checks that the server answers, is new enough and accepts the credentials.

        Args:
          endpoint: the server's address, "https://..." or "http://..."; in a cluster, None stands for the usual service.
          namespace: the user's namespace, if the server serves several users.
          token_file: file with a bearer token, read again for each request.
          in_cluster: whether to use the token that Kubernetes mounts for pipelines, if there is one.
          ca_file: certificates (PEM) to trust instead of the public ones.
        """
        endpoint = endpoint or (IN_CLUSTER if in_cluster else None)
        if not endpoint:
            raise UserError("--endpoint is missing: give the address of Kubeflow Pipelines, such as http://localhost:8080")
        if not re.match(r"https?://[^/\s]+", endpoint):
            raise UserError(f"--endpoint {endpoint}: must begin with http:// or https://")
        if token_file and in_cluster:
            raise UserError("--token-file and --in-cluster: give one of them")
        if in_cluster:
            mounted = Path(os.environ.get(KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH))
            token_file = mounted if mounted.exists() else None  # a cluster for a single user needs none
        for option, file in (("--token-file", token_file), ("--ca-file", ca_file)):
            _check_readable(option, file)
        self._endpoint = endpoint.rstrip("/")
        with self._user_errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "the server must be 2.0": we check that
            self._client = _Client(
                host=self._endpoint,
                credentials=ServiceAccountTokenVolumeCredentials(str(token_file)) if token_file else None,
                ssl_ca_cert=str(ca_file) if ca_file else None,
            )
            several = self._client.get_kfp_healthz().multi_user
        if several:
            namespace = namespace or self._client.get_user_namespace()  # the pod's own namespace
        if several and not namespace:
            raise UserError("--namespace is missing: this Kubeflow Pipelines serves several users, each in a namespace")
        if namespace and not several:
            raise UserError(f"--namespace {namespace}: this Kubeflow Pipelines serves a single user; leave the namespace out")
        self._namespace = namespace
        self._client.set_user_namespace(namespace or "")

    def upload(self, file: PipelineFile) -> Version:
        """Uploads a file as a version of its pipeline, unless the server has it; creates the pipeline the first time."""
        with self._user_errors("uploading the pipeline"):
            pipelines = self._all(
                "pipelines", self._client.list_pipelines, filter=_by_name(file.name), namespace=self._namespace
            )
            if pipelines:
                pipeline_id = pipelines[0].pipeline_id
            else:
                pipeline = kfp_server_api.V2beta1Pipeline(display_name=file.name, namespace=self._namespace)
                pipeline_id = self._client.pipelines.pipeline_service_create_pipeline(pipeline).pipeline_id
            versions = self._all(
                "pipeline_versions", self._client.list_pipeline_versions, pipeline_id=pipeline_id, filter=_by_name(file.version)
            )
            if versions:
                return Version(pipeline_id, versions[0].pipeline_version_id, file.version, uploaded=False)
            created = self._client.upload_pipeline_version(str(file.path), file.version, pipeline_id=pipeline_id)
            return Version(pipeline_id, created.pipeline_version_id, file.version, uploaded=True)

    def start(self, version: Version, file: PipelineFile, experiment: str, values: dict[str, Any]) -> Run:
        """Starts a run.

        Args:
          version: the version to run.
          file: the file that was uploaded as this version.
          experiment: name of the group of runs; made if it is not there.
          values: values of all runtime parameters.
        """
        with self._user_errors("starting the run"):
            run = self._client.run_pipeline(
                self._client.create_experiment(experiment).experiment_id,
                f"{file.name} {datetime.datetime.now():%Y-%m-%d %H:%M:%S}",
                params=values,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                pipeline_root=file.pipeline_root or None,
            )
        return Run(run.run_id, f"{self._pages()}/#/runs/details/{run.run_id}")

    def follow(self, run: Run, tasks: list[str], console: Console, interval: float = 5.0) -> Progress:
        """Waits for a run's end and shows each change; kfp's own wait never ends if the run was cancelled.

        Args:
          run: the run.
          tasks: names of the tasks whose states are shown; the server adds helper tasks of its own.
          console: the screen.
          interval: seconds between two requests.
        """
        progress = Progress()
        width = max(map(len, tasks), default=0)
        silent_since: float | None = None
        while True:
            try:
                answer = self._client.get_run(run.run_id)
            except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
                silent_since = silent_since or time.monotonic()
                if _is_lasting(error) or time.monotonic() - silent_since > _PATIENCE:
                    raise UserError(f"{self._explain(error)}\nThe run goes on: {run.url}") from error
                time.sleep(interval)
                continue
            silent_since = None
            for task in (answer.run_details and answer.run_details.task_details) or []:
                if task.display_name in tasks and task.state and progress.tasks.get(task.display_name) != task.state:
                    progress.tasks[task.display_name] = task.state
                    seconds = (task.end_time - task.start_time).total_seconds() if _has_ended(task) else None
                    shown = f"{task.display_name:<{width}}  {_colour_state(task.state)}"
                    console.print(shown if seconds is None else f"{shown} {seconds:.0f} s", highlight=False)
            if answer.state and answer.state != progress.state:
                progress.state = answer.state
                console.print(f"{'run':<{width}}  {_colour_state(answer.state)}", highlight=False)
            if progress.state in _ENDED:
                if progress.state != SUCCEEDED:
                    progress.errors = self._tell_failures(answer, run, tasks, console)
                return progress
            time.sleep(interval)

    def _tell_failures(self, answer: Any, run: Run, tasks: list[str], console: Console) -> dict[str, str]:
        """Shows why a run has failed; returns the causes by task."""
        failures = find_failures(answer, tasks, self._client.connection, self._namespace)
        if failures or answer.state == "FAILED":
            text = describe(failures, run.url, self._namespace)
            console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        return {failure.task: failure.cause for failure in failures if failure.cause}

    def schedule(
        self,
        version: Version,
        file: PipelineFile,
        experiment: str,
        values: dict[str, Any],
        *,
        name: str,
        cron: str | None = None,
        interval: int | None = None,
    ) -> tuple[str, int]:
        """Creates a recurring run, then deletes older ones of the same name; these stay if the server refuses the new one.

        Args:
          version, file, experiment, values: as for `start`.
          name: name of the recurring run.
          cron: the times to start at, six fields, seconds first; or else
          interval: seconds between two starts.

        Returns:
          The id of the recurring run, and the number of older ones that it replaces.
        """
        with self._user_errors("scheduling"):
            older = self._recurring(name)
            created = self._client.create_recurring_run(
                self._client.create_experiment(experiment).experiment_id,
                name,
                cron_expression=cron,
                interval_second=interval,
                max_concurrency=1,
                no_catchup=True,
                params=values,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                pipeline_root=file.pipeline_root or None,
            )
            for recurring_run_id in older:
                self._client.delete_recurring_run(recurring_run_id)
        return created.recurring_run_id, len(older)

    def unschedule(self, name: str) -> int:
        """Deletes the recurring runs of a name; returns their number."""
        with self._user_errors("deleting the recurring run"):
            found = self._recurring(name)
            for recurring_run_id in found:
                self._client.delete_recurring_run(recurring_run_id)
        return len(found)

    def _recurring(self, name: str) -> list[str]:
        runs = self._all("recurring_runs", self._client.list_recurring_runs, filter=_by_name(name), namespace=self._namespace)
        return [run.recurring_run_id for run in runs]

    @staticmethod
    def _all(key: str, call: Callable[..., Any], **arguments: Any) -> list[Any]:
        """The items of all pages of a list."""
        found: list[Any] = []
        token = ""
        while True:
            page = call(page_token=token, page_size=_PAGE, **arguments)
            found += getattr(page, key) or []
            token = page.next_page_token
            if not token:
                return found

    def _pages(self) -> str:
        return os.environ.get("KF_PIPELINES_UI_ENDPOINT", self._endpoint).rstrip("/")

    @contextlib.contextmanager
    def _user_errors(self, what: str = "") -> Iterator[None]:
        """Turns the client's exceptions into UserErrors, and keeps what the client prints off the screen."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise UserError(self._explain(error, what)) from error

    def _explain(self, error: Exception, what: str = "") -> str:
        where = f"{self._endpoint}: " + (f"{what}: " if what else "")
        if isinstance(error, kfp_server_api.ApiException):
            return where + _explain_answer(error)
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, urllib3.exceptions.NameResolutionError):
            return where + "no such host; check --endpoint"
        if isinstance(reason, urllib3.exceptions.NewConnectionError):
            return (
                where + "nothing listens there; check --endpoint, or start "
                "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80 for http://localhost:8080"
            )
        if isinstance(reason, urllib3.exceptions.ConnectTimeoutError):
            return where + "can't be reached; check --endpoint, and whether a firewall or VPN lies between"
        if isinstance(reason, urllib3.exceptions.TimeoutError):
            return where + f"no answer in {_TIMEOUT[1]} s; the server may be overloaded: try again later, or look at its log"
        if isinstance(reason, urllib3.exceptions.SSLError):
            return where + f"no trusted connection ({_first_line(reason)}); give --ca-file, or check http against https"
        return where + f"the connection failed ({_first_line(reason)}); try again, or check --endpoint"


class _Client(kfp.Client):
    """kfp's client with time limits, which keeps the namespace in memory.

    By itself, kfp's client tries a wrong address for 25 s, waits for answers without end, and writes the namespace into a file
    in the home folder.
    """

    _health: Any = None

    @property
    def connection(self) -> kfp_server_api.ApiClient:
        """The connection, for routes that kfp has no method for."""
        return self._healthz_api.api_client

    def _load_config(self, *arguments: Any, **named: Any) -> Any:
        config = super()._load_config(*arguments, **named)
        config.retries = urllib3.Retry(connect=1, read=0, redirect=5, status=0, other=0, backoff_factor=0.2)
        return config

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """The server's health, which says whether it serves several users; requested once, before any other request.

        Raises:
          UserError: there is no Kubeflow Pipelines of 2.0 or later at the address.
        """
        if self._health is None:
            api = self.connection
            send = api.rest_client.request
            # kfp's own methods have no parameter for a time limit.
            api.rest_client.request = lambda *args, **named: send(*args, **{**named, "_request_timeout": _TIMEOUT})
            try:
                self._health = kfp_server_api.V2beta1GetHealthzResponse(multi_user=self._ask("v2beta1")["multi_user"])
            except (_NotTheApi, kfp_server_api.ApiException) as error:
                if isinstance(error, kfp_server_api.ApiException) and error.status != 404:
                    raise
                with contextlib.suppress(_NotTheApi, kfp_server_api.ApiException):
                    self._ask("v1beta1")
                    raise UserError(
                        f"{api.configuration.host}: an older Kubeflow Pipelines, of API v1beta1; update it to 2.0 or later"
                    ) from error
                raise UserError(
                    f"{api.configuration.host}: no API of Kubeflow Pipelines there, perhaps a login page; check --endpoint "
                    "(it may end in /pipeline), and --token-file"
                ) from error
        return self._health

    def set_user_namespace(self, namespace: str) -> None:
        self._context_setting["namespace"] = namespace

    def _ask(self, version: str) -> dict[str, Any]:
        answer = self.connection.call_api(
            f"/apis/{version}/healthz", "GET", auth_settings=["Bearer"], _preload_content=False, _return_http_data_only=True
        )
        try:
            content = json.loads(answer.data)
        except ValueError as error:
            raise _NotTheApi from error
        if not isinstance(content, dict):
            raise _NotTheApi
        return {"multi_user": False, **content}


class _NotTheApi(Exception):
    """A server that is not the API answers: its answer is not JSON."""


def _check_readable(option: str, file: Path | None) -> None:
    if file:
        try:
            with open_regular(file) as opened:
                content = opened.read(MAX_CONFIG_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{option} {file}: can't be read ({getattr(error, 'strerror', None) or 'not text'})") from error
        if not content:
            raise UserError(f"{option} {file}: is empty")
        if option == "--token-file" and not re.fullmatch(r"[\x21-\x7e]+", content):
            raise UserError(f"{option} {file}: must hold the token alone, on one line")


def check_cron(cron: str) -> str:
    """A schedule in the form that Kubeflow reads, with seconds first; the usual form of five fields gets second 0.

    Raises:
      UserError: the text has neither form.
    """
    fields = cron.split()
    if len(fields) == 1 and re.fullmatch(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)", cron):
        return cron
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != 6 or not all(re.fullmatch(r"[0-9A-Za-z*/,?-]+", item) for item in fields):
        raise UserError(
            f"--cron {cron!r}: write minute, hour, day, month and weekday, such as '0 9 * * 1', or six fields, seconds first"
        )
    return " ".join(fields)


def _by_name(name: str) -> str:
    """The filter that makes a list hold only this name, in the form of the server's `filter.proto`."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _explain_answer(error: kfp_server_api.ApiException) -> str:
    """What an error answer means, and what to do about it."""
    message = _message(error)
    status = error.status
    if status == 401:
        return "the credentials are refused (401); give a fresh token by --token-file, or in a cluster mount one for pipelines"
    if status == 403:
        return f"not allowed (403){_suffix(message)}; check --namespace, and the rights of the token's account there"
    if status == 507 or _FULL_DISK.search(message):
        return (
            f"the server's disk is full ({status}){_suffix(message)}; delete old runs and artifacts, or enlarge the volume of "
            "its database or object store"
        )
    if status == 404:
        return f"not found (404){_suffix(message)}; check --endpoint, and whether the server is 2.0 or later"
    if status == 413:
        return "the pipeline is too large for the server (413); raise the limit of the proxy in front of it"
    if status == 429:
        return "the server is asked too often (429); try again later"
    if status and status >= 500:
        return f"the server failed ({status}){_suffix(message)}; look at the log of ml-pipeline, or try again"
    return f"refused ({status or error.reason}){_suffix(message)}"


def _message(error: kfp_server_api.ApiException) -> str:
    body = error.body or ""
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    with contextlib.suppress(ValueError, AttributeError):
        content = json.loads(body)
        body = content.get("message") or content.get("error_message") or content.get("error") or body
    return "" if str(body).lstrip().startswith("<") else str(body)


def _suffix(message: str) -> str:
    return f": {_first_line(message)}" if message else ""


def _first_line(message: Any) -> str:
    return " ".join(str(message).split())[:300]


def _is_lasting(error: Exception) -> bool:
    """Whether it is useless to ask again."""
    return isinstance(error, kfp_server_api.ApiException) and 400 <= (error.status or 0) < 500 and error.status != 429


def _has_ended(task: Any) -> bool:
    return bool(task.state in _ENDED and task.start_time and task.end_time and task.end_time > task.start_time)


def _colour_state(state: str) -> str:
    colour = _ENDED.get(state)
    return f"[{colour}]{state.lower()}[/]" if colour else state.lower()
