"""Why a run on Kubeflow Pipelines has failed: what the server says about its tasks, or else the end of their logs."""

import base64
import contextlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import kfp_server_api
import urllib3

_LINES: Final = 20  # of a cause, at most
_LINE: Final = 500  # characters of a line, at most
_TAIL: Final = 64 * 1024  # bytes kept from the end of a log
_LOG: Final = 256 * 1024 * 1024  # bytes: a larger log is not read to its end
_CHUNK: Final = 64 * 1024
_FAILED: Final = "FAILED"
_ARTIFACTS: Final = ("executor-logs", "executor-logs-0", "main-logs")  # logs of the launcher, and of Argo
_EXECUTOR: Final = re.compile(r"executor(\(\d+\))?")
_POD: Final = re.compile(r"(?P<workflow>.+?)-(?:retry-)?system-[a-z-]+-(?P<hash>\d+)")
_NODE: Final = re.compile(r"(?P<workflow>.+)-(?P<hash>\d+)")
_LAUNCHER: Final = re.compile(r'[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ .*|time="?\d{4}-.* level=.*|Error: exit status \d+|\s*')
_ESCAPE_SEQUENCE: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b.")
_INVISIBLE: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: control, format, surrogate, separators
_SAYS_LITTLE: Final = re.compile(r"exit(ed)?( with)?( code| status)|child '.*' failed", re.I)


@dataclass(frozen=True)
class Failure:
    """A task that has failed.

    Attributes:
      task: its name; "" for the run as a whole.
      cause: one line, or the last lines of its log; "" if the server gives none.
      pod: name of the pod that may have its log; "" if the server does not say.
    """

    task: str
    cause: str
    pod: str = ""


def find_failures(run: Any, tasks: list[str], api: kfp_server_api.ApiClient, namespace: str | None) -> list[Failure]:
    """Finds the failed tasks of a run that has ended, each with its cause.

    The cause is a task's own error, or else the last error in its history, or else it comes from the task's log: the message of
    a line `fpn: MESSAGE` if only lines of the launcher follow it, otherwise the log's last lines.

    Args:
      run: the server's answer about the run.
      tasks: names of the pipeline's tasks; the server adds helper tasks of its own.
      api: the connection to the server.
      namespace: namespace of the run's pods, if the server serves several users.
    """
    details = (run.run_details and run.run_details.task_details) or []
    failed = {name: (_message(parts), parts) for name, parts in _failed_parts(details, tasks).items()}
    logs: dict[str, str] = {}
    with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):  # the server is gone: what it has said so far must do
        for name, (message, parts) in failed.items():
            if not message or _SAYS_LITTLE.search(message):
                logs[name] = _cause_of_log(_read_log(api, run.run_id, namespace, parts))
    found = [
        Failure(_visible(name), logs.get(name) or message, _visible(next(iter(_pods(parts)), "")))
        for name, (message, parts) in failed.items()
    ]
    of_run = _message([run])
    return [*found, Failure("", of_run)] if of_run else found


def describe(failures: list[Failure], url: str, namespace: str | None) -> str:
    """Failures as text for the screen; if the server does not give all causes, the last sentence says where to look."""
    shown = []
    for failure in failures:
        if "\n" in failure.cause:
            shown += [f"{failure.task or 'run'} failed:", *(f"  {line}" for line in failure.cause.splitlines())]
        elif failure.cause:
            shown.append(f"{failure.task or 'run'} failed: {failure.cause}")
    unknown = [failure for failure in failures if not failure.cause]
    if unknown or not failures:
        pod = next((failure.pod for failure in unknown if failure.pod), "POD")
        names = ", ".join(failure.task for failure in unknown) or "run"
        shown.append(
            f"{names} failed: the server gives no cause; look at {url}, or at "
            f"kubectl logs -n {namespace or 'kubeflow'} {pod} -c main"
        )
    return "\n".join(shown)


def _failed_parts(details: list[Any], tasks: list[str]) -> dict[str, list[Any]]:
    """Failed tasks by name, each as a list of the task and what has failed inside it, from the outermost to the innermost.

    For a task X the server has an `X-driver`, an `X`, and inside `X` an `executor`. It does not always say which executor is
    inside which task. If none of the pipeline's tasks has failed, other failed drivers and failed parts with a message count.
    """
    failed = [item for item in details if item.state == _FAILED]
    roots = [item for item in failed if (item.display_name or "").removesuffix("-driver") in tasks]
    if not roots:
        roots = [item for item in failed if (item.display_name or "").endswith("-driver") or _message([item])]
    chains = [chain for root in roots for chain in _chains(root, failed, [])]
    if len(chains) == 1:
        known = {id(item) for item in chains[0]}
        chains[0] += [item for item in failed if _EXECUTOR.fullmatch(item.display_name or "") and id(item) not in known]
    return {_name(chain): chain for chain in chains}


def _chains(task: Any, failed: list[Any], above: list[Any]) -> list[list[Any]]:
    """All paths from a failed task down to the innermost failed ones."""
    chain = [*above, task]
    below = [item for item in failed if _is_child(item, task) and all(item is not other for other in chain)]
    return [way for item in below for way in _chains(item, failed, chain)] or [chain]


def _is_child(task: Any, parent: Any) -> bool:
    if task is parent:
        return False
    children = parent.child_tasks or []
    return bool(
        (task.parent_task_id and task.parent_task_id == parent.task_id)
        or (task.task_id and any(child.task_id == task.task_id for child in children))
        or (task.pod_name and any(child.pod_name in (task.pod_name, _node(task.pod_name)) for child in children))
    )


def _name(chain: list[Any]) -> str:
    names = [item.display_name or "" for item in chain]
    return next((name for name in reversed(names) if name and not _EXECUTOR.fullmatch(name)), names[0] or "task")


def _message(parts: list[Any]) -> str:
    """The server's message about a failure, from the innermost part that has one; "" if there is none."""
    for part in reversed(parts):
        for error in (part.error, *(status.error for status in reversed(part.state_history or []))):
            if error and (lines := _clean_lines(error.message or "")):
                return "\n".join(lines[:_LINES])
    return ""


def _pods(parts: list[Any]) -> list[str]:
    """Names of a task's pods, the likeliest first.

    As a child's pod, the server gives Argo's node, WORKFLOW-HASH; the pod is WORKFLOW-system-container-impl-HASH. Children of
    an executor or a driver are left out: these are the tasks that come after it.
    """
    given = [part.pod_name for part in reversed(parts)]
    for part in reversed(parts):
        name = part.display_name or ""
        if not _EXECUTOR.fullmatch(name) and not name.endswith("-driver"):
            given += [child.pod_name for child in part.child_tasks or []]
    pods: list[str] = []
    for name in filter(None, given):
        match = _NODE.fullmatch(name)
        if match and not _POD.fullmatch(name):
            pods.append(f"{match['workflow']}-system-container-impl-{match['hash']}")
        pods.append(name)
    return list(dict.fromkeys(pods))


def _node(pod: str) -> str:
    """Name of Argo's node for a pod."""
    match = _POD.fullmatch(pod)
    return f"{match['workflow']}-{match['hash']}" if match else pod


def _read_log(api: kfp_server_api.ApiClient, run_id: str, namespace: str | None, parts: list[Any]) -> bytes:
    """Reads the end of a task's log from the first place that has the log; empty if none has.

    The places are the API's route for the log of a pod, live or archived; the route of the web pages' server, which does not
    forward the API's route; and the API's route for artifacts.
    """
    pods = _pods(parts)
    nodes = f"runs/{quote(run_id, safe='')}/nodes"
    for pod in pods:
        path = f"/apis/v1alpha1/{nodes}/{quote(pod, safe='')}/log"
        query = {"podname": pod, "runid": run_id} | ({"podnamespace": namespace} if namespace else {})
        if log := _read(api, path) or _read(api, "/k8s/pod/logs", query):
            return log
    for node in dict.fromkeys(map(_node, pods)):
        for artifact in _ARTIFACTS:
            if log := _read(api, f"/apis/v2beta1/{nodes}/{quote(node, safe='')}/artifacts/{artifact}:read", wrapped=True):
                return log
    return b""


def _read(api: kfp_server_api.ApiClient, path: str, query: dict[str, str] | None = None, *, wrapped: bool = False) -> bytes:
    """The end of the text at a path; empty if nothing is there, or only an HTML page or binary data."""
    try:
        answer = api.call_api(
            path,
            "GET",
            query_params=list((query or {}).items()),
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
        )
    except (kfp_server_api.ApiException, UnicodeDecodeError):
        return b""
    try:
        kind = answer.headers.get("Content-Type", "")
        if kind.startswith("text/html") or (wrapped and not kind.startswith("application/json")):
            return b""
        chunks = answer.stream(_CHUNK)
        return _tail(_decode_artifact(chunks) if wrapped else chunks)
    except ValueError:
        return b""
    finally:
        answer.close()


def _decode_artifact(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decodes the content of an artifact, which comes as {"data": "BASE64"}.

    Raises:
      ValueError: the answer has another form.
    """
    rest = b""
    inside = False
    for chunk in chunks:
        rest += chunk
        if not inside:
            start = re.match(rb'\s*\{\s*"data"\s*:\s*"', rest)
            if not start:
                if len(rest) > _CHUNK:
                    raise ValueError("no artifact")
                continue
            rest = rest[start.end() :]
            inside = True
        text, quote, _ = rest.partition(b'"')
        whole = len(text) - len(text) % 4
        yield base64.b64decode(text[:whole])
        if quote:
            return
        rest = text[whole:]


def _tail(chunks: Iterable[bytes]) -> bytes:
    """The end of a log; empty if the log is binary or too large to be read to its end."""
    size = 0
    tail = bytearray()
    for chunk in chunks:
        size += len(chunk)
        if size > _LOG:
            return b""
        tail += chunk
        del tail[:-_TAIL]
    return b"" if b"\0" in tail else bytes(tail)


def _cause_of_log(log: bytes) -> str:
    lines = _clean_lines(log.decode(errors="replace"))
    for line in reversed(lines):
        if line.startswith("fpn: "):
            return line.removeprefix("fpn: ")
        if not _LAUNCHER.fullmatch(line):
            break
    return "\n".join(lines[-_LINES:])


def _clean_lines(text: str) -> list[str]:
    """The lines that are not empty, each in its last state: a progress bar overwrites its line again and again."""
    last_states = [line.rstrip("\r").rpartition("\r")[2] for line in _ESCAPE_SEQUENCE.sub("", text).split("\n")]
    return [line.rstrip()[:_LINE] for line in map(_visible, last_states) if line.strip()]


def _visible(text: str) -> str:
    """A text without the control characters of a terminal."""
    text = _ESCAPE_SEQUENCE.sub("", text).expandtabs(4)
    return "".join(character for character in text if unicodedata.category(character) not in _INVISIBLE)
