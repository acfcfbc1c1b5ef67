"""An HTTP server with the routes of Kubeflow Pipelines' v2beta1 API that the client calls, on this machine alone."""

import base64
import json
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_WORKFLOW = "small-x7k2p"


def node_of(task: str) -> str:
    """Argo's node of a task's executor, which the server gives out as a pod's name."""
    return f"{_WORKFLOW}-{zlib.crc32(task.encode())}"


def pod_of(task: str) -> str:
    """The pod in which a task's executor has run."""
    return f"{_WORKFLOW}-system-container-impl-{zlib.crc32(task.encode())}"


@dataclass
class Server:
    """What the server holds, and how it behaves.

    Attributes:
      url: its address.
      api: version of the API that it speaks.
      multi_user: whether it wants a namespace.
      token: bearer token that it asks for.
      broken: status and body that it answers instead, by method and the route's beginning: "POST /pipelines".
      states: what a run is at each look, with the states of its tasks; the last one stays.
      errors: message of a failed task, by task. A server of version 2.17 leaves it empty.
      history: message in the history of a failed task's states, by task.
      logs: of pods that are there or archived, by pod.
      artifacts: by Argo's node and the artifact's name.
      pages: whether the address is that of the pages' server, which passes on v2beta1 and v1beta1 alone.
      stored: pipelines, versions, experiments, runs and recurring runs, in order.
      files: uploaded, by version.
      calls: "METHOD /route" in order.
      tokens: that came with the calls.
    """

    url: str = ""
    api: str = "v2beta1"
    multi_user: bool = False
    token: str | None = None
    broken: dict[str, tuple[int, str]] = field(default_factory=dict)
    states: list[tuple[str, dict[str, str]]] = field(default_factory=lambda: [("SUCCEEDED", {})])
    errors: dict[str, str] = field(default_factory=dict)
    history: dict[str, str] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[tuple[str, str], bytes] = field(default_factory=dict)
    pages: bool = False
    stored: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {key: [] for key in ("pipelines", "versions", "experiments", "runs", "recurringruns")}
    )
    files: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def count(self, call: str) -> int:
        return sum(item == call for item in self.calls)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Answers until the end of the block."""

    class Handler(_Handler):
        state = server

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        state = self.state
        match = re.fullmatch(rf"/apis/{state.api}(/.*)", address.path)
        if log := re.fullmatch(r"/apis/v1alpha1/runs/[^/]+/nodes/([^/]+)/log", address.path):
            self._send_log(None if state.pages else log[1])
            return
        if address.path == "/k8s/pod/logs":
            self._send_log(parse_qs(address.query)["podname"][0] if state.pages else None)
            return
        if not match:
            self._send(404, "Not Found")
            return
        call = f"{self.command} {match[1]}"
        state.calls.append(call)
        state.tokens.append(self.headers.get("Authorization"))
        broken = next((answer for key, answer in state.broken.items() if call.startswith(key)), None)
        if broken:
            self._send(*broken)
        elif state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
            self._send(401, "no valid token")
        elif read := re.fullmatch(r"/runs/[^/]+/nodes/([^/]+)/artifacts/([^/]+):read", match[1]):
            self._send_artifact(read[1], read[2])
        else:
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            self._send(200, json.dumps(self._do(self.command, match[1], query, body)))

    def _send_log(self, pod: str | None) -> None:
        """As `ReadRunLogV1` of `run_log_server.go` does, or the pages' server; None: there is no such route."""
        state = self.state
        state.tokens.append(self.headers.get("Authorization"))
        if pod is None:
            self._send(404, "<html>Cannot GET</html>")
        elif pod in state.logs:
            self._send_content(200, "text/plain", state.logs[pod])
        else:
            self._send(500, json.dumps({"error_message": f"Failed to read logs for run: {pod} not found", "error_details": ""}))

    def _send_artifact(self, node: str, name: str) -> None:
        """As `ReadArtifact` of `run_artifact_server.go` does."""
        content = self.state.artifacts.get((node, name))
        if content is None:
            self._send(404, json.dumps({"error_message": f"artifact {node}/{name} not found", "error_details": ""}))
        else:
            self._send(200, json.dumps({"data": base64.b64encode(content).decode()}, separators=(",", ":")))

    def _send(self, status: int, text: str) -> None:
        self._send_content(status, "text/html" if text.startswith("<") else "application/json", text.encode())

    def _send_content(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _do(self, method: str, route: str, query: dict[str, str], body: bytes) -> Any:
        state = self.state
        match (method, *route.strip("/").split("/")):
            case ("GET", "healthz"):
                return {"multi_user": state.multi_user}
            case ("POST", "pipelines", "upload_version"):
                message = BytesParser().parsebytes(
                    b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
                )
                state.files[query["name"]] = message.get_payload(0).get_payload(decode=True)  # type: ignore[union-attr]
                version = {"display_name": query["name"], "pipeline_id": query["pipelineid"]}
                return self._store("versions", "pipeline_version_id", version)
            case ("GET", "pipelines", pipeline_id, "versions"):
                listed = [item for item in state.stored["versions"] if item["pipeline_id"] == pipeline_id]
                return self._page("pipeline_versions", listed, query)
            case ("GET", "runs", run_id):
                run = next(item for item in state.stored["runs"] if item["run_id"] == run_id)
                run_state, tasks = state.states.pop(0) if len(state.states) > 1 else state.states[0]
                return run | {
                    "state": run_state,
                    "run_details": {"task_details": self._details(run_state, tasks)},
                }
            case ("DELETE", "recurringruns", recurring_run_id):
                kept = [item for item in state.stored["recurringruns"] if item["recurring_run_id"] != recurring_run_id]
                state.stored["recurringruns"] = kept
                return {}
            case ("GET", kind):
                return self._page({"recurringruns": "recurringRuns"}.get(kind, kind), state.stored[kind], query)
            case ("POST", kind):
                key = {"recurringruns": "recurring_run_id"}.get(kind, f"{kind.removesuffix('s')}_id")
                return self._store(kind, key, json.loads(body))
        raise AssertionError(f"{method} {route}")

    def _details(self, run_state: str, tasks: dict[str, str]) -> list[dict[str, Any]]:
        """As `toApiPipelineTaskDetail` of `api_converter.go` makes them: a task for each of Argo's nodes, without its own name.

        A task X is three nodes, `X-driver`, `X` and within the latter `executor`; the pipeline itself is three more. A driver
        whose state is given stands alone: nothing comes after one that has failed.
        """
        details = [self._task(_WORKFLOW, run_state), self._task("root-driver", "SUCCEEDED"), self._task("root", run_state)]
        for name, task_state in tasks.items():
            details.append(self._task(name, task_state, node_of(name)))
            if not name.endswith("-driver") and task_state != "SKIPPED":
                details.append(self._task("executor", task_state))
                if f"{name}-driver" not in tasks:
                    details.append(self._task(f"{name}-driver", "SUCCEEDED"))
        return details

    def _task(self, name: str, task_state: str, child: str = "") -> dict[str, Any]:
        state = self.state
        failed = task_state == "FAILED"
        last: dict[str, Any] = {"update_time": "2024-05-01T10:00:42Z", "state": task_state}
        if failed and name in state.history:
            last["error"] = {"code": 2, "message": state.history[name]}
        detail = {
            "run_id": state.stored["runs"][-1]["run_id"],
            "task_id": f"{zlib.crc32(name.encode())}-{len(state.calls)}",
            "display_name": name,
            "create_time": "2024-05-01T10:00:00Z",
            "start_time": "2024-05-01T10:00:00Z",
            "end_time": "2024-05-01T10:00:42Z",
            "state": task_state,
            "state_history": [{"update_time": "2024-05-01T10:00:00Z", "state": "RUNNING"}, last],
        }
        if failed and name in state.errors:
            detail["error"] = {"message": state.errors[name]}
        return detail | ({"child_tasks": [{"pod_name": child}]} if child else {})

    def _store(self, kind: str, key: str, item: dict[str, Any]) -> dict[str, Any]:
        stored = self.state.stored[kind]
        stored.append({key: f"{kind}-{len(self.state.calls)}", **item})
        return stored[-1]

    def _page(self, key: str, items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        """One item a page, so that a client that reads only the first is found out."""
        predicates = json.loads(query["filter"])["predicates"] if "filter" in query else []
        found = [item for item in items if all(item[part["key"]] == part["stringValue"] for part in predicates)]
        found = [item for item in found if (item.get("namespace") or None) in (None, query.get("namespace"))]
        start = int(query.get("page_token") or 0)
        following = {"next_page_token": str(start + 1)} if start + 1 < len(found) else {}
        return {key: found[start : start + 1], **following}
